#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "tests/sim/raft_cluster.h"

static uint32_t entry_crc(const struct raft_entry *entry)
{
	uint32_t kind = entry->kind;
	return crc32c_extend(crc32c(&kind, sizeof(kind)), entry->payload.bytes, entry->payload.size);
}

void checker_deinit(struct checker *checker)
{
	free(checker->committed);
	free(checker->leaders);
	free(checker->known);
}

/* ---- log matching */

static struct known_entry *known_slot(struct checker *checker, uint64_t index, uint64_t term)
{
	uint64_t hash = (index * 0x9e3779b97f4a7c15u ^ term * 0xc2b2ae3d27d4eb4fu) >> 20;
	for (;; hash++) {
		struct known_entry *slot = &checker->known[hash & (checker->known_capacity - 1)];
		if (slot->index == 0 || (slot->index == index && slot->term == term))
			return slot;
	}
}

static void known_grow(struct checker *checker)
{
	if (checker->known_count * 2 < checker->known_capacity)
		return;
	struct known_entry *old = checker->known;
	size_t old_capacity = checker->known_capacity;
	checker->known_capacity = old_capacity > 0 ? old_capacity * 2 : 4096;
	checker->known = mem_zero(checker->known_capacity, sizeof(*checker->known));
	for (size_t i = 0; i < old_capacity; i++)
		if (old[i].index != 0)
			*known_slot(checker, old[i].index, old[i].term) = old[i];
	free(old);
}

static void note_entry(struct member *member, const struct raft_entry *entry, uint64_t previous_term)
{
	struct checker *checker = &member->cluster->checker;
	known_grow(checker);
	struct known_entry *slot = known_slot(checker, entry->index, entry->term);
	struct known_entry now = {entry->index, entry->term, previous_term, entry_crc(entry)};
	if (slot->index == 0) {
		*slot = now;
		checker->known_count++;
	} else if (slot->crc != now.crc || slot->previous_term != previous_term) {
		cluster_fail(member->cluster,
			     "log matching: member %" PRIu64 " has another entry %" PRIu64 " of term %" PRIu64,
			     member->id, entry->index, entry->term);
	}
}

void check_appended(struct member *member, const struct raft_hard_state *hard, const struct raft_entry *entries,
		    size_t count)
{
	if (hard) {
		if (hard->term < member->hard_appended.term)
			cluster_fail(member->cluster, "member %" PRIu64 " goes back to term %" PRIu64, member->id,
				     hard->term);
		if (hard->term == member->hard_appended.term && member->hard_appended.vote != 0 &&
		    hard->vote != RAFT_VOTE_UNKNOWN && hard->vote != member->hard_appended.vote)
			cluster_fail(member->cluster, "member %" PRIu64 " votes twice in term %" PRIu64, member->id,
				     hard->term);
		member->hard_appended = *hard;
		member->hard_mark = member->mark_appended;
	}
	if (count == 0)
		return;
	if (entries[0].index < member->overwritten)
		member->overwritten = entries[0].index;
	const struct raft_entry *before = raft_entry_at(member->raft, entries[0].index - 1);
	for (size_t i = 0; i < count; i++) {
		uint64_t previous_term = i > 0 ? entries[i - 1].term : before ? before->term : 0;
		if (i > 0 || before || entries[0].index == 1)
			note_entry(member, &entries[i], previous_term);
	}
}

/* ---- durability */

/* The log is given up: after a crash it may be the old one or the new. */
void check_reset(struct member *member, const struct raft_ready *ready)
{
	member->overwritten = 1;
	member->last_durable = ready->reset_index;
	member->last_durable_term = ready->reset_term;
}

void check_synced(struct member *member, uint64_t mark, uint64_t index, uint64_t term)
{
	if (mark >= member->hard_mark)
		member->hard_durable = member->hard_appended;
	if (index != 0) {
		member->last_durable = index;
		member->last_durable_term = term;
	}
	/* Only when nothing younger is under way is it known again where the durable log ends. */
	if (mark == member->mark_appended)
		member->overwritten = UINT64_MAX;
}

static bool loaded_term(const struct wal_loaded *loaded, uint64_t index, uint64_t *term)
{
	*term = loaded->first_previous_term;
	if (index < loaded->first_index)
		return index + 1 == loaded->first_index;
	if (index - loaded->first_index >= loaded->entry_count)
		return false;
	*term = loaded->entries[index - loaded->first_index].term;
	return true;
}

void check_vote(struct member *member, uint64_t term, uint64_t candidate)
{
	if (term == member->vote_term && candidate != member->vote_for)
		cluster_fail(member->cluster, "member %" PRIu64 " gives two votes in term %" PRIu64, member->id, term);
	if (term >= member->vote_term) {
		member->vote_term = term;
		member->vote_for = candidate;
	}
}

void check_loaded(struct member *member, const struct wal_loaded *loaded)
{
	struct cluster *cluster = member->cluster;
	const struct raft_hard_state *hard = &member->hard_durable;
	bool vote_lost = loaded->hard.vote == RAFT_VOTE_UNKNOWN; /* it votes for nobody in that term */
	if (loaded->hard.term < hard->term ||
	    (loaded->hard.term == hard->term && hard->vote != 0 && hard->vote != RAFT_VOTE_UNKNOWN &&
	     loaded->hard.vote != hard->vote && !vote_lost))
		cluster_fail(cluster,
			     "member %" PRIu64 " forgot its vote: term %" PRIu64 " vote %" PRIu64 ", had %" PRIu64
			     " %" PRIu64,
			     member->id, loaded->hard.term, loaded->hard.vote, hard->term, hard->vote);
	if (loaded->hard.term < member->vote_term ||
	    (loaded->hard.term == member->vote_term && member->vote_for != 0 && loaded->hard.vote != member->vote_for &&
	     !vote_lost))
		cluster_fail(cluster, "member %" PRIu64 " forgot that it voted in term %" PRIu64, member->id,
			     member->vote_term);
	uint64_t last = loaded->first_index + loaded->entry_count - 1;
	uint64_t sure = member->last_durable < member->overwritten ? member->last_durable : member->overwritten - 1;
	uint64_t term;
	if (last < sure)
		cluster_fail(cluster, "member %" PRIu64 " forgot entries: has %" PRIu64 ", had %" PRIu64, member->id,
			     last, sure);
	else if (sure == member->last_durable && sure >= loaded->first_index && loaded_term(loaded, sure, &term) &&
		 term != member->last_durable_term)
		cluster_fail(cluster, "member %" PRIu64 " has an older entry %" PRIu64 " of term %" PRIu64, member->id,
			     sure, term);
	for (size_t i = 0; i < loaded->entry_count; i++) {
		uint64_t previous_term = i > 0 ? loaded->entries[i - 1].term : loaded->first_previous_term;
		if (!loaded->entries[i].damaged)
			note_entry(member, &loaded->entries[i], previous_term);
	}
	member->hard_appended = member->hard_durable = loaded->hard;
	member->last_durable = last;
	bool known = loaded_term(loaded, last, &member->last_durable_term);
	check(known);
	member->overwritten = UINT64_MAX;
}

/* ---- commitment */

const struct raft_membership *check_membership_at(const struct checker *checker, uint64_t index, uint64_t *from)
{
	const struct raft_membership *found = NULL;
	for (size_t i = 0; i < checker->membership_count && checker->memberships[i].index <= index; i++) {
		found = &checker->memberships[i].membership;
		*from = checker->memberships[i].index;
	}
	return found;
}

static void note_membership(struct checker *checker, const struct raft_entry *entry)
{
	if (entry->kind != RAFT_ENTRY_MEMBERS)
		return;
	check(checker->membership_count < CLUSTER_MEMBERSHIPS_MAX);
	checker->memberships[checker->membership_count].index = entry->index;
	enum err err = membership_unpack(entry->payload,
					 &checker->memberships[checker->membership_count++].membership);
	check(err == OK);
}

void check_applied(struct member *member, const struct raft_entry *entry, uint64_t term)
{
	struct checker *checker = &member->cluster->checker;
	uint32_t crc = entry_crc(entry);
	if (entry->damaged) {
		cluster_fail(member->cluster, "member %" PRIu64 " applies entry %" PRIu64 ", which is damaged", member->id,
			     entry->index);
		return;
	}
	if (entry->index <= checker->committed_count) {
		const struct committed *committed = &checker->committed[entry->index - 1];
		if (committed->term != entry->term || committed->crc != crc)
			cluster_fail(member->cluster,
				     "state machine safety: member %" PRIu64 " applies entry %" PRIu64
				     " of term %" PRIu64 ", committed was term %" PRIu64,
				     member->id, entry->index, entry->term, committed->term);
		return;
	}
	check(entry->index == checker->committed_count + 1);
	if (checker->committed_count == checker->committed_capacity) {
		checker->committed_capacity = checker->committed_capacity > 0 ? checker->committed_capacity * 2 : 1024;
		checker->committed =
		    mem_resize(checker->committed, checker->committed_capacity * sizeof(*checker->committed));
	}
	checker->committed[checker->committed_count++] = (struct committed){entry->term, crc, term};
	note_membership(checker, entry);
}

/* A leader of a term above the one in which an entry was known to be committed must have it. One that is elected late
 * (its votes were under way for long) in a lower term need not. */
void check_leader(struct member *member, const struct raft_view *view)
{
	struct checker *checker = &member->cluster->checker;
	check(view->term < 1000000);
	if (view->term >= checker->leaders_capacity) {
		size_t capacity = (size_t)view->term * 2 + 64;
		checker->leaders = mem_resize(checker->leaders, capacity * sizeof(*checker->leaders));
		memset(checker->leaders + checker->leaders_capacity, 0,
		       (capacity - checker->leaders_capacity) * sizeof(*checker->leaders));
		checker->leaders_capacity = capacity;
	}
	uint64_t *leader = &checker->leaders[view->term];
	if (*leader != 0 && *leader != member->id)
		cluster_fail(member->cluster, "election safety: members %" PRIu64 " and %" PRIu64 " lead term %" PRIu64,
			     *leader, member->id, view->term);
	*leader = member->id;
	for (uint64_t index = view->first; index <= checker->committed_count; index++) {
		const struct committed *committed = &checker->committed[index - 1];
		const struct raft_entry *entry = raft_entry_at(member->raft, index);
		if (committed->term_seen < view->term && (!entry || entry->term != committed->term)) {
			cluster_fail(member->cluster,
				     "leader completeness: member %" PRIu64 " leads term %" PRIu64
				     " without entry %" PRIu64,
				     member->id, view->term, index);
			return;
		}
	}
}

void check_read(struct member *member)
{
	struct checker *checker = &member->cluster->checker;
	if (member->applied < checker->visible)
		cluster_fail(member->cluster,
			     "stale read: member %" PRIu64 " of term %" PRIu64 " answers from %" PRIu64 ", %" PRIu64
			     " was visible",
			     member->id, member->term, member->applied, checker->visible);
	checker->visible = member->applied;
}
