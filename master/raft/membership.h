/* Who belongs to a Raft group: what an entry RAFT_ENTRY_MEMBERS says, and which changes are allowed.
 *
 * Pure values, copied freely. Ids ascend. */
#ifndef GRANARY_MASTER_RAFT_MEMBERSHIP_H
#define GRANARY_MASTER_RAFT_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/limits.h"

struct raft_member {
	uint64_t id;   /* not 0 */
	uint64_t node; /* identity of its data directory; 0: not known */
	bool learner;
	char address[ADDRESS_BYTES_MAX + 1]; /* the core does not look at it */
};

struct raft_membership {
	struct raft_member members[RAFT_MEMBERS_MAX]; /* ascending by id */
	size_t count;
};

/* NULL: not there. */
const struct raft_member *membership_find(const struct raft_membership *membership, uint64_t id);
/* Puts a member in its place; one of the same id is replaced. False: there is no room, or its id is 0. */
MUST_USE bool membership_put(struct raft_membership *membership, const struct raft_member *member);
void membership_remove(struct raft_membership *membership, uint64_t id);
size_t membership_voters(const struct raft_membership *membership);
/* Whether at most one voter comes or goes between the two and one is left, so that each majority of the one meets each majority of
 * the other. A voter of another known node is another voter. *joins: who becomes a voter, 0: nobody; it must be a learner of the
 * same node in `from`. */
MUST_USE bool membership_may_follow(const struct raft_membership *from, const struct raft_membership *to, uint64_t *joins);

/* The payload of an entry, appended. */
void membership_pack(const struct raft_membership *membership, struct buf *out);
/* ERR_PROTOCOL: not one, or one beyond the bounds. */
MUST_USE enum err membership_unpack(struct slice payload, struct raft_membership *out);

#endif
