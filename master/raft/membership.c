#include "master/raft/membership.h"

#include <string.h>

#include "common/base/check.h"
#include "common/proto/message.h"

const struct raft_member *membership_find(const struct raft_membership *membership, uint64_t id)
{
	for (size_t i = 0; i < membership->count; i++)
		if (membership->members[i].id == id)
			return &membership->members[i];
	return NULL;
}

bool membership_put(struct raft_membership *membership, const struct raft_member *member)
{
	size_t at = 0;
	if (member->id == 0)
		return false;
	while (at < membership->count && membership->members[at].id < member->id)
		at++;
	if (at == membership->count || membership->members[at].id != member->id) {
		if (membership->count == RAFT_MEMBERS_MAX)
			return false;
		memmove(&membership->members[at + 1], &membership->members[at],
			(membership->count - at) * sizeof(membership->members[0]));
		membership->count++;
	}
	membership->members[at] = *member;
	return true;
}

void membership_remove(struct raft_membership *membership, uint64_t id)
{
	size_t kept = 0;
	for (size_t i = 0; i < membership->count; i++)
		if (membership->members[i].id != id)
			membership->members[kept++] = membership->members[i];
	membership->count = kept;
}

size_t membership_voters(const struct raft_membership *membership)
{
	size_t count = 0;
	for (size_t i = 0; i < membership->count; i++)
		count += !membership->members[i].learner;
	return count;
}

/* The same voter in both, as far as is known. */
static bool is_same_voter(const struct raft_member *a, const struct raft_member *b)
{
	return a && b && !a->learner && !b->learner && (a->node == 0 || a->node == b->node);
}

bool membership_may_follow(const struct raft_membership *from, const struct raft_membership *to, uint64_t *joins)
{
	size_t changes = 0;
	*joins = 0;
	for (size_t i = 0; i < from->count; i++) {
		const struct raft_member *member = &from->members[i];
		changes += !member->learner && !is_same_voter(member, membership_find(to, member->id));
	}
	for (size_t i = 0; i < to->count; i++) {
		const struct raft_member *member = &to->members[i];
		const struct raft_member *before = membership_find(from, member->id);
		if (member->learner || is_same_voter(before, member))
			continue;
		if (!before || !before->learner || (before->node != 0 && before->node != member->node))
			return false;
		changes++;
		*joins = member->id;
	}
	return changes <= 1 && membership_voters(to) > 0;
}

void membership_pack(const struct raft_membership *membership, struct buf *out)
{
	Granary__RaftMembership message = GRANARY__RAFT_MEMBERSHIP__INIT;
	Granary__RaftMemberConfig configs[RAFT_MEMBERS_MAX];
	Granary__RaftMemberConfig *pointers[RAFT_MEMBERS_MAX];
	for (size_t i = 0; i < membership->count; i++) {
		const struct raft_member *member = &membership->members[i];
		configs[i] = (Granary__RaftMemberConfig)GRANARY__RAFT_MEMBER_CONFIG__INIT;
		configs[i].id = member->id;
		configs[i].node = member->node;
		configs[i].address = (char *)(uintptr_t)member->address;
		configs[i].learner = member->learner;
		pointers[i] = &configs[i];
	}
	message.n_members = membership->count;
	message.members = pointers;
	message_pack(&message.base, out);
}

static bool take_member(const Granary__RaftMemberConfig *config, struct raft_membership *out)
{
	struct raft_member member = {.id = config->id, .node = config->node, .learner = config->learner};
	size_t size = strlen(config->address);
	if (size > ADDRESS_BYTES_MAX || (out->count > 0 && config->id <= out->members[out->count - 1].id))
		return false;
	memcpy(member.address, config->address, size + 1);
	return membership_put(out, &member);
}

enum err membership_unpack(struct slice payload, struct raft_membership *out)
{
	ProtobufCMessage *message;
	out->count = 0;
	enum err err = message_unpack(&granary__raft_membership__descriptor, payload, &message);
	if (err)
		return err;
	const Granary__RaftMembership *membership = (const Granary__RaftMembership *)message;
	for (size_t i = 0; i < membership->n_members && err == OK; i++)
		if (!take_member(membership->members[i], out))
			err = ERR_PROTOCOL;
	if (membership_voters(out) == 0)
		err = ERR_PROTOCOL;
	message_free(message);
	return err;
}
