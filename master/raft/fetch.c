/* Holes: damaged entries whose identity is known, fetched from whoever has them. */
#include <stdlib.h>

#include "common/base/check.h"
#include "master/raft/raft_internal.h"

/* ---- filling */

static void note_fill(struct raft *raft, uint64_t index)
{
	struct fills *fills = &raft->fills;
	if (fills->count == fills->capacity) {
		fills->capacity = fills->capacity > 0 ? fills->capacity * 2 : 64;
		fills->indexes = mem_resize(fills->indexes, fills->capacity * sizeof(*fills->indexes));
	}
	fills->indexes[fills->count++] = index;
	if (index > raft->applied && (fills->floor == 0 || index < fills->floor))
		fills->floor = index;
}

bool raft_fill(struct raft *raft, const struct raft_entry *entry)
{
	if (!raft_entry_is_sound(entry))
		return false;
	raft_log_fill(&raft->log, entry->index, entry->kind, entry->payload);
	note_fill(raft, entry->index);
	if (entry->kind == RAFT_ENTRY_MEMBERS)
		raft_refresh_membership(raft);
	return true;
}

/* Those that are still in the log: it may have been overwritten since. */
void raft_give_fills(struct raft *raft, struct raft_ready *out)
{
	struct fills *fills = &raft->fills;
	if (fills->count == 0)
		return;
	if (fills->given_capacity < fills->count) {
		fills->given_capacity = fills->capacity;
		fills->given = mem_resize(fills->given, fills->given_capacity * sizeof(*fills->given));
	}
	for (size_t i = 0; i < fills->count; i++) {
		const struct raft_entry *entry = raft_log_at(&raft->log, fills->indexes[i]);
		if (entry && fills->indexes[i] <= raft->log.given && !entry->damaged)
			fills->given[out->fill_count++] = *entry;
	}
	fills->count = 0;
	fills->outstanding += out->fill_count;
	out->fills = fills->given;
	if (fills->outstanding == 0)
		fills->floor = 0;
}

/* ---- asking */

static void ask(struct raft *raft, const struct progress *member)
{
	const struct fetching *fetching = &raft->fetching;
	uint64_t last = fetching->index;
	for (const struct raft_entry *next = raft_log_at(&raft->log, last + 1); next && next->damaged;
	     next = raft_log_at(&raft->log, last + 1))
		last++;
	raft_send_after_sync(raft, (struct raft_message){.kind = RAFT_FETCH,
							 .to = member->id,
							 .log_index = fetching->index,
							 .log_term = fetching->term,
							 .hint_index = last,
							 .context = fetching->bound_term != 0});
}

/* The hole to ask for: one that holds this member up, else the first. */
static void choose_hole(struct raft *raft)
{
	struct fetching *fetching = &raft->fetching;
	uint64_t index = raft_hole(raft);
	if (index == 0)
		index = raft->log.hole_first;
	uint64_t term = 0;
	bool known = raft_log_term(&raft->log, index, &term);
	check(known);
	if (index == fetching->index && term == fetching->term)
		return;
	*fetching = (struct fetching){.index = index, .term = term, .due_ms = raft->now_ms, .next = fetching->next};
	for (size_t i = 0; i < raft->member_count; i++)
		raft->members[i].fetch_answer = 0;
}

/* Whether a majority of those who decide over the hole's entry say that they do not have it, in term_min or later. By a
 * majority, and not only by so many that the others are none, because who leads may have appended the next change of
 * membership since. Where a node is not known an empty disk may be answering, which lacks everything: that does not count. */
static bool majority_lacks(struct raft *raft, uint64_t term_min)
{
	struct raft_membership membership;
	uint64_t from;
	if (!raft_membership_before(raft, raft->fetching.index, &membership, &from))
		return false;
	size_t count = 0;
	for (size_t i = 0; i < membership.count; i++) {
		const struct progress *member = raft_member(raft, membership.members[i].id);
		count += member && !membership.members[i].learner && member->node != 0 &&
			 member->node == membership.members[i].node &&
			 member->fetch_answer == RAFT_FETCH_ABSENT && member->fetch_term >= term_min;
	}
	return count >= membership_voters(&membership) / 2 + 1;
}

/* Those who lack the entry say it once more in a term that no acknowledgement of this member belongs to: from then on
 * they take nothing from a leader that may still count one. If they keep to it, the entry cannot be committed any more by what
 * this member had on its disk, and goes. */
static void ask_bound(struct raft *raft)
{
	struct fetching *fetching = &raft->fetching;
	if (fetching->bound_term == 0) {
		if (raft_hears_leader(raft) || !majority_lacks(raft, 0))
			return;
		raft_become_follower(raft, raft->hard.term + 1, 0);
		fetching->bound_term = raft->hard.term;
	}
	if (majority_lacks(raft, fetching->bound_term)) {
		raft->given_up++;
		raft_log_truncate(&raft->log, fetching->index, raft->hard.term);
		raft_refresh_membership(raft);
		return;
	}
	for (size_t i = 0; i < raft->member_count; i++)
		if (&raft->members[i] != raft->self)
			ask(raft, &raft->members[i]);
}

static void ask_next(struct raft *raft)
{
	struct fetching *fetching = &raft->fetching;
	for (size_t tried = 0; tried < raft->member_count; tried++) {
		if (fetching->next >= raft->member_count) {
			fetching->next = 0;
			fetching->went_round = true;
		}
		const struct progress *member = &raft->members[fetching->next++];
		if (member == raft->self)
			continue;
		ask(raft, member);
		return;
	}
}

void raft_fetch(struct raft *raft)
{
	struct fetching *fetching = &raft->fetching;
	choose_hole(raft);
	if (raft->now_ms < fetching->due_ms)
		return;
	/* What is applied is not missed by anyone here. */
	bool urgent = fetching->index > raft->applied;
	fetching->due_ms = raft->now_ms + (urgent ? raft->heartbeat_ms : raft->election_ms);
	if (urgent && fetching->index > raft->commit && fetching->went_round)
		ask_bound(raft);
	if (fetching->bound_term == 0)
		ask_next(raft);
}

void raft_handle_fetch_reply(struct raft *raft, const struct raft_message *message)
{
	struct fetching *fetching = &raft->fetching;
	size_t filled = 0;
	for (size_t i = 0; i < message->entry_count; i++) {
		const struct raft_entry *entry = &message->entries[i];
		const struct raft_entry *own = raft_log_at(&raft->log, entry->index);
		if (own && own->damaged && own->term == entry->term)
			filled += raft_fill(raft, entry);
	}
	struct progress *member = raft_member(raft, message->from);
	if (!member)
		return; /* a membership that was damaged has come into force */
	if (filled > 0 && raft->log.hole_count > 0) {
		choose_hole(raft);
		ask(raft, member);
		fetching->due_ms = raft->now_ms + raft->heartbeat_ms;
		return;
	}
	if (filled > 0 || message->log_index + 1 != fetching->index || message->log_term != fetching->term)
		return;
	member->fetch_answer = message->context;
	member->fetch_term = message->term;
}

/* ---- answering */

void raft_handle_fetch(struct raft *raft, const struct raft_message *message)
{
	if (message->log_index == 0 || message->log_index == UINT64_MAX)
		return;
	if (message->context == 1 && message->term > raft->hard.term && !raft_hears_leader(raft))
		raft_become_follower(raft, message->term, 0);
	struct raft_message reply = {
	    .kind = RAFT_FETCH_REPLY,
	    .to = message->from,
	    .log_index = message->log_index - 1,
	    .log_term = message->log_term,
	    .context = RAFT_FETCH_HAVE,
	};
	const struct raft_entry *entry = raft_log_at(&raft->log, message->log_index);
	if (message->log_index < raft->log.first)
		reply.context = RAFT_FETCH_COMPACTED;
	else if (!entry || entry->term != message->log_term)
		reply.context = RAFT_FETCH_ABSENT;
	else if (entry->damaged)
		reply.context = RAFT_FETCH_DAMAGED;
	if (reply.context != RAFT_FETCH_HAVE) {
		if (raft->hard.term > 0)
			raft_send_after_sync(raft, reply); /* what it says must not be undone by a crash */
		return;
	}
	reply.entries = entry;
	size_t bytes = 0;
	for (uint64_t index = message->log_index; index <= message->hint_index; index++) {
		const struct raft_entry *next = raft_log_at(&raft->log, index);
		bytes += next ? next->payload.size : 0;
		if (!next || next->damaged || (reply.entry_count > 0 && bytes > raft->append_bytes_max))
			break;
		reply.entry_count++;
	}
	if (reply.entry_count > 0)
		raft_send(raft, reply);
}

/* ---- standing for election */

/* Who is left out by a change that is not committed may be the only one who can be elected, and commit it (Ongaro 4.2.2). */
static bool is_leaving(const struct raft *raft)
{
	struct raft_membership before;
	uint64_t from;
	if (raft->membership_index <= raft->commit ||
	    !raft_membership_before(raft, raft->membership_index, &before, &from))
		return false;
	const struct raft_member *self = membership_find(&before, raft->id);
	return self && !self->learner;
}

bool raft_may_campaign(struct raft *raft)
{
	if ((raft->removed && raft->now_ms < raft->removed_due_ms) || (!raft_is_voter(raft) && !is_leaving(raft)))
		return false;
	if (raft->log.hole_count == 0)
		return true;
	if (raft_hole(raft) != 0)
		return false;
	/* What is damaged is applied: whoever needs it gets a snapshot. */
	raft_forget_before(raft, raft->log.hole_last + 1);
	return raft->log.hole_count == 0;
}
