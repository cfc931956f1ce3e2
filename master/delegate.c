#include "master/delegate.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"

struct delegate {
	struct delegations *delegations;
	struct meta *meta;
	uint64_t now_ms, asked_ms, session;
	Granary__MetaReply *reply;
};

static Granary__Delegation *reply_add(Granary__MetaReply *reply, uint64_t inode)
{
	Granary__Delegation *given = message_alloc_message(&reply->base, &granary__delegation__descriptor);

	given->inode = inode;
	given->lease_ms = LEASE_GRANTED_MS(CACHE_LEASE_MS);
	reply->delegations = message_alloc_element(&reply->base, reply->delegations, reply->n_delegations, sizeof(given));
	reply->delegations[reply->n_delegations++] = given;
	return given;
}

static bool is_in_reply(const Granary__MetaReply *reply, uint64_t inode)
{
	for (size_t i = 0; i < reply->n_delegations; i++) {
		if (reply->delegations[i]->inode == inode)
			return true;
	}
	return false;
}

/* In a directory with set-group-id the master chooses the group. In one that was removed nothing can be made. */
static bool can_be_given(const Granary__Inode *attr)
{
	return mode_is_directory(attr->mode) && !(attr->mode & MODE_SETGID) && attr->nlink > 0;
}

static void give(const struct delegate *delegate, uint64_t inode)
{
	Granary__Inode *attr = NULL;
	bool fresh;

	if (inode == 0 || is_in_reply(delegate->reply, inode) ||
	    !delegations_grant(delegate->delegations, delegate->now_ms, delegate->asked_ms, delegate->session, inode, &fresh))
		return;
	if (fresh && (meta_inode(delegate->meta, inode, &delegate->reply->base, &attr) || !can_be_given(attr))) {
		delegations_ended(delegate->delegations, delegate->session, inode);
		return;
	}
	reply_add(delegate->reply, inode)->attr = attr;
}

static void give_if_directory(const struct delegate *delegate, const Granary__MetaResult *result)
{
	if (result->attr && mode_is_directory(result->attr->mode))
		give(delegate, result->inode);
}

static void delegate_result(const struct delegate *delegate, const Granary__MetaOp *op, const Granary__MetaResult *result)
{
	switch (op->op_case) {
	case GRANARY__META_OP__OP_CREATE:
		give_if_directory(delegate, result);
		give(delegate, op->create->parent);
		break;
	case GRANARY__META_OP__OP_LINK:
		give(delegate, op->link->parent);
		break;
	case GRANARY__META_OP__OP_UNLINK:
		give(delegate, op->unlink->parent);
		break;
	case GRANARY__META_OP__OP_RENAME:
		give(delegate, op->rename->parent);
		give(delegate, op->rename->new_parent);
		break;
	case GRANARY__META_OP__OP_LOOKUP:
		give_if_directory(delegate, result);
		break;
	case GRANARY__META_OP__OP_READDIR:
		give(delegate, op->readdir->inode);
		break;
	default:
		break;
	}
}

void delegate_reply(struct delegations *delegations, struct meta *meta, uint64_t now_ms, uint64_t asked_ms,
		    const Granary__MetaRequest *request, Granary__MetaReply *reply)
{
	struct delegate delegate = {
		.delegations = delegations,
		.meta = meta,
		.now_ms = now_ms,
		.asked_ms = asked_ms,
		.session = request->session,
		.reply = reply,
	};

	for (size_t i = 0; i < request->n_ops && i < reply->n_results; i++) {
		if (reply->results[i]->error == OK)
			delegate_result(&delegate, request->ops[i], reply->results[i]);
	}
}
