/* Membership: which one is in force, what a change must fulfil, a leader that is left out. */
#include <string.h>

#include "common/base/check.h"
#include "master/raft/raft_internal.h"

bool raft_membership_is_sound(const struct raft_entry *entry)
{
	struct raft_membership membership;
	return membership_unpack(entry->payload, &membership) == OK;
}

/* What is known of a member goes with it, unless its directory is another one. */
static struct progress progress_of(struct raft *raft, const struct progress *known, size_t known_count,
				   const struct raft_member *member)
{
	struct progress progress = {.id = member->id};
	bool found = false;
	for (size_t i = 0; i < known_count && !found; i++) {
		found = known[i].id == member->id &&
			(known[i].node == 0 || known[i].node == member->node);
		if (found)
			progress = known[i];
	}
	if (!found)
		progress_reset(&progress, raft_log_last(&raft->log), raft->now_ms);
	progress.node = member->node;
	progress.learner = member->learner;
	return progress;
}

static void put_in_force(struct raft *raft, const struct raft_membership *membership, uint64_t index)
{
	struct progress known[RAFT_MEMBERS_MAX];
	size_t known_count = raft->member_count;
	memcpy(known, raft->members, known_count * sizeof(known[0]));
	if (membership != &raft->membership)
		raft->membership = *membership;
	raft->membership_index = index;
	raft->member_count = membership->count;
	raft->voter_count = membership_voters(membership);
	raft->self = &raft->outside;
	for (size_t i = 0; i < membership->count; i++) {
		raft->members[i] = progress_of(raft, known, known_count, &membership->members[i]);
		/* Another directory under this member's name is another member. */
		uint64_t node = raft->members[i].node;
		if (raft->members[i].id == raft->id && (node == 0 || raft->node == 0 || node == raft->node))
			raft->self = &raft->members[i];
	}
	if (raft->role == RAFT_LEADER)
		raft->self->match = raft_durable(raft);
}

/* The newest RAFT_ENTRY_MEMBERS of the log below `end`; NULL: none above the base. */
static const struct raft_entry *newest_members(const struct raft *raft, uint64_t end, bool damaged_too)
{
	uint64_t start = raft->log.first > raft->base_index + 1 ? raft->log.first : raft->base_index + 1;
	for (uint64_t index = end; index-- > start;) {
		const struct raft_entry *entry = raft_log_at(&raft->log, index);
		if (entry->kind == RAFT_ENTRY_MEMBERS && (damaged_too || !entry->damaged))
			return entry;
	}
	return NULL;
}

void raft_refresh_membership(struct raft *raft)
{
	const struct raft_entry *entry = newest_members(raft, raft_log_last(&raft->log) + 1, false);
	if (!entry) {
		put_in_force(raft, &raft->base, raft->base_index);
		return;
	}
	struct raft_membership membership;
	enum err err = membership_unpack(entry->payload, &membership);
	check(err == OK); /* looked at before it came in */
	put_in_force(raft, &membership, entry->index);
}

bool raft_membership_before(const struct raft *raft, uint64_t index, struct raft_membership *out, uint64_t *from)
{
	const struct raft_entry *entry = newest_members(raft, index, true);
	*out = raft->base;
	*from = raft->base_index;
	if (!entry)
		return raft->base_index < index;
	*from = entry->index;
	return !entry->damaged && membership_unpack(entry->payload, out) == OK;
}

bool raft_keep_membership(struct raft *raft, uint64_t index)
{
	const struct raft_entry *entry = raft_log_at(&raft->log, index);
	if (entry->kind != RAFT_ENTRY_MEMBERS || index <= raft->base_index)
		return true;
	struct raft_membership membership;
	if (entry->damaged || membership_unpack(entry->payload, &membership) != OK)
		return false;
	raft->base = membership;
	raft->base_index = index;
	return true;
}

/* A member whose disk was replaced has acknowledged entries in its former life: all of them are below the change that admitted it again,
 * however short the log is. */
bool raft_is_caught_up(const struct raft *raft, const struct progress *member)
{
	if (raft->role != RAFT_LEADER || member == raft->self)
		return raft->role == RAFT_LEADER;
	return member->match >= raft->membership_index && member->state == PROGRESS_REPLICATE &&
	       raft->now_ms - member->contact_ms < raft->election_ms &&
	       member->match + RAFT_LEARNER_LAG_MAX > raft_log_last(&raft->log);
}

static bool is_well_formed(const struct raft_membership *membership)
{
	uint64_t before = 0;
	if (membership->count > RAFT_MEMBERS_MAX)
		return false;
	for (size_t i = 0; i < membership->count; i++) {
		const struct raft_member *member = &membership->members[i];
		if (member->id <= before || !memchr(member->address, 0, sizeof(member->address)))
			return false;
		before = member->id;
	}
	return true;
}

/* A leader of a new term may not know that the change before is committed until an entry of its own term is (Ongaro's erratum
 * to single-server changes, 2015): two changes could else be in force whose majorities do not meet. */
static bool change_under_way(const struct raft *raft)
{
#ifdef PLANT_TWO_CHANGES
	return false;
#endif
	return raft->membership_index > raft->commit || raft->barrier > raft->commit || raft->transfer_to != 0;
}

/* Whether enough of the new voters have answered lately for the change to be committed: one that cannot be would stop the group for
 * good, since it is in force at once. */
static bool can_be_committed(struct raft *raft, const struct raft_membership *membership)
{
	size_t heard = 0;
	for (size_t i = 0; i < membership->count; i++) {
		const struct progress *member = raft_member(raft, membership->members[i].id);
		if (membership->members[i].learner || !member)
			continue;
		heard += member == raft->self ||
			 (member->echo_ms > 0 && raft->now_ms - member->contact_ms < raft->election_ms);
	}
	return heard >= membership_voters(membership) / 2 + 1;
}

enum err raft_propose_members(struct raft *raft, uint64_t now_ms, const struct raft_membership *membership,
			      uint64_t *index)
{
	uint64_t joins;
	if (now_ms > raft->now_ms)
		raft->now_ms = now_ms;
	if (raft->role != RAFT_LEADER)
		return ERR_NOT_LEADER;
	if (change_under_way(raft))
		return ERR_BUSY;
	if (!is_well_formed(membership) || !membership_may_follow(&raft->membership, membership, &joins))
		return ERR_INVALID;
	if (joins != 0 && !raft_is_caught_up(raft, raft_member(raft, joins)))
		return ERR_INVALID;
	if (!can_be_committed(raft, membership))
		return ERR_UNREACHABLE;
	struct buf payload = {0};
	membership_pack(membership, &payload);
	raft_append_own(raft, RAFT_ENTRY_MEMBERS, buf_slice(&payload));
	buf_deinit(&payload);
	*index = raft_log_last(&raft->log);
	raft_refresh_membership(raft);
	return OK;
}

const struct raft_membership *raft_membership(const struct raft *raft, uint64_t *index)
{
	*index = raft->membership_index;
	return &raft->membership;
}

/* It leads until the change is committed, without counting itself, and says goodbye with a push to who is furthest. */
void raft_leave_if_removed(struct raft *raft)
{
	if (raft->role != RAFT_LEADER || raft_is_voter(raft) || raft->membership_index > raft->commit)
		return;
	const struct progress *chosen = NULL;
	for (size_t i = 0; i < raft->member_count; i++)
		if (!raft->members[i].learner && (!chosen || raft->members[i].match > chosen->match))
			chosen = &raft->members[i];
	if (chosen && chosen->match == raft_log_last(&raft->log))
		raft_send(raft, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .to = chosen->id});
	raft_become_follower(raft, raft->hard.term, 0);
}
