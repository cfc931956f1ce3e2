#include "master/grant.h"

#include "common/base/limits.h"
#include "common/proto/mode.h"

struct grant {
	struct leases *leases;
	struct delegations *delegations;
	uint64_t now_ms;
	uint64_t session;
};

static const struct slice no_name;

static bool grant_name(const struct grant *grant, uint64_t directory, ProtobufCBinaryData name)
{
	bool dots = name.len > 0 && name.len <= 2 && name.data[0] == '.' && name.data[name.len - 1] == '.';

	if (dots)
		return true;
	delegations_used(grant->delegations, grant->now_ms, grant->session, directory);
	return directory != 0 && name.len > 0 &&
	       leases_grant(grant->leases, grant->now_ms, grant->session, directory, message_bytes(name));
}

static bool grant_inode(const struct grant *grant, uint64_t inode, const Granary__Inode *attr)
{
	if (attr && mode_is_directory(attr->mode))
		delegations_used(grant->delegations, grant->now_ms, grant->session, inode);
	return inode != 0 && leases_grant(grant->leases, grant->now_ms, grant->session, inode, no_name);
}

/* A name and what it leads to: also that it leads to nothing. */
static bool grant_found(const struct grant *grant, uint64_t directory, ProtobufCBinaryData name, const Granary__MetaResult *result)
{
	if (result->error == ERR_NOT_FOUND)
		return grant_name(grant, directory, name);
	return result->error == OK && grant_name(grant, directory, name) && grant_inode(grant, result->inode, result->attr);
}

static bool grant_listing(const struct grant *grant, const Granary__Readdir *op, Granary__MetaResult *result)
{
	if (result->error)
		return false;
	for (size_t i = 0; i < result->n_entries; i++) {
		Granary__DirectoryEntry *entry = result->entries[i];
		if (entry->attr && grant_name(grant, op->inode, entry->name) && grant_inode(grant, entry->inode, entry->attr))
			entry->lease_ms = LEASE_GRANTED_MS(CACHE_LEASE_MS);
	}
	return grant_inode(grant, op->inode, result->attr);
}

static bool grant_result(const struct grant *grant, const Granary__MetaOp *op, Granary__MetaResult *result)
{
	switch (op->op_case) {
	case GRANARY__META_OP__OP_LOOKUP:
		return grant_found(grant, op->lookup->parent, op->lookup->name, result);
	case GRANARY__META_OP__OP_WALK:
		/* The root has no name. */
		if (result->error == OK && result->name.len == 0)
			return grant_inode(grant, result->inode, result->attr);
		return grant_found(grant, result->parent, result->name, result);
	case GRANARY__META_OP__OP_READDIR:
		return grant_listing(grant, op->readdir, result);
	case GRANARY__META_OP__OP_CREATE:
		if (result->error || !result->attr)
			return false;
		if (op->create->name.len == 0)
			return grant_inode(grant, result->inode, result->attr);
		return grant_found(grant, op->create->parent, op->create->name, result);
	case GRANARY__META_OP__OP_LINK:
		if (result->error || !result->attr)
			return false;
		if (op->link->name.len == 0)
			return grant_inode(grant, result->inode, result->attr);
		return grant_found(grant, op->link->parent, op->link->name, result);
	case GRANARY__META_OP__OP_RENAME:
		return result->error == OK && result->attr && grant_name(grant, op->rename->new_parent, op->rename->new_name) &&
		       grant_inode(grant, result->inode, result->attr);
	default:
		return result->error == OK && result->attr && grant_inode(grant, result->inode, result->attr);
	}
}

void grant_reply(struct leases *leases, struct delegations *delegations, uint64_t now_ms, const Granary__MetaRequest *request, Granary__MetaReply *reply)
{
	if (request->uncached)
		return;
	struct grant grant = { .leases = leases, .delegations = delegations, .now_ms = now_ms, .session = request->session };

	for (size_t i = 0; i < request->n_ops && i < reply->n_results; i++) {
		if (grant_result(&grant, request->ops[i], reply->results[i]))
			reply->results[i]->lease_ms = LEASE_GRANTED_MS(CACHE_LEASE_MS);
	}
}

void grant_strip(Granary__MetaReply *reply)
{
	for (size_t i = 0; i < reply->n_delegations; i++)
		reply->delegations[i]->lease_ms = 0;
	for (size_t i = 0; i < reply->n_results; i++) {
		reply->results[i]->lease_ms = 0;
		for (size_t k = 0; k < reply->results[i]->n_entries; k++)
			reply->results[i]->entries[k]->lease_ms = 0;
	}
}
