#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "tests/sim/raft_cluster.h"

struct member *cluster_leader(struct cluster *cluster)
{
	struct member *leader = NULL;
	for (size_t i = 0; i < cluster->profile.members; i++) {
		struct member *member = &cluster->members[i];
		if (member_is_running(member) && member->role == RAFT_LEADER && (!leader || member->term > leader->term))
			leader = member;
	}
	return leader;
}

/* The founders, with the nodes of their first disks. */
struct raft_membership first_membership(const struct cluster *cluster)
{
	struct raft_membership membership = {0};
	for (size_t i = 0; i < cluster->profile.founders; i++) {
		struct raft_member member = {.id = i + 1, .node = 1000 + i};
		bool put = membership_put(&membership, &member);
		check(put);
	}
	return membership;
}

/* ---- snapshots */

struct pull {
	struct cluster *cluster;
	struct member *member, *source;
	uint64_t member_incarnation, source_incarnation;
	uint64_t index;
};

/* The state is on the disk. The process may end before the log is as new. */
static void install(struct member *member, uint64_t index)
{
	struct cluster *cluster = member->cluster;
	struct raft_snapshot snapshot = {.index = index, .term = cluster->checker.committed[index - 1].term};
	const struct raft_membership *membership =
	    check_membership_at(&cluster->checker, index, &snapshot.membership_index);
	snapshot.membership = membership ? *membership : first_membership(cluster);
	cluster_trace(cluster, "install member=%" PRIu64 " index=%" PRIu64 "/%" PRIu64, member->id, index, snapshot.term);
	cluster->counts.snapshots++;
	member->stored = member->stored_synced = index;
	member->installed = index;
	member->installed_term = snapshot.term;
	if (!cluster->calm && cluster_chance(cluster, 200000)) {
		member_kill(member);
		return;
	}
	enum err err = raft_install(member->raft, member_now_ms(member), &snapshot);
	check(err == OK);
	member->applied = index;
	member_pump(member);
}

static void pulled(void *arg)
{
	struct pull *pull = arg;
	struct cluster *cluster = pull->cluster;
	struct member *member = pull->member, *source = pull->source;
	/* Also of one that is paused just now. */
	bool same_source = source->raft && source->incarnation == pull->source_incarnation;
	bool same_member = member->raft && member->incarnation == pull->member_incarnation;
	bool source_lives = same_source && member_is_running(source), lives = same_member && member_is_running(member);
	if (same_source)
		raft_keep(source->raft, UINT64_MAX);
	if (same_member)
		member->pulling = false;
	if (lives && source_lives && !cluster->failed && !cluster->cut[source->id][member->id] &&
	    !cluster->cut[member->id][source->id]) {
		struct raft_view view;
		raft_view(member->raft, &view);
		if (view.commit < pull->index && view.role != RAFT_LEADER)
			install(member, pull->index);
	}
	free(pull);
}

void member_pull(struct member *member, const struct raft_ready *ready)
{
	struct cluster *cluster = member->cluster;
	struct member *source = &cluster->members[ready->snapshot_from - 1];
	if (member->pulling || !member_is_running(source) || source->applied < ready->snapshot_index)
		return;
	member->pulling = true;
	struct pull *pull = mem_alloc(sizeof(*pull));
	*pull = (struct pull){cluster, member, source, member->incarnation, source->incarnation, source->applied};
	raft_keep(source->raft, source->applied);
	sim_schedule(cluster->sim, cluster_between(cluster, 500, 80000), NULL, pulled, pull, free);
}

/* ---- membership */

static bool propose(struct member *leader, const struct raft_membership *membership, const char *what, uint64_t id)
{
	uint64_t index;
	enum err err = raft_propose_members(leader->raft, member_now_ms(leader), membership, &index);
	if (err)
		return false;
	leader->cluster->counts.changes++;
	cluster_trace(leader->cluster, "change by member=%" PRIu64 " index=%" PRIu64 ": %s %" PRIu64, leader->id, index,
		      what, id);
	member_pump(leader);
	return true;
}

/* Promotes, demotes, adds or removes one at random; most of what makes no sense is refused by the core. */
void operator_change(struct cluster *cluster)
{
	struct member *leader = cluster_leader(cluster);
	/* A sound voter sent away just when another's disk has gone: that would be two of three. */
	if (!leader || cluster->replaced)
		return;
	uint64_t from;
	struct raft_membership membership = *raft_membership(leader->raft, &from);
	uint64_t id = cluster_between(cluster, 1, cluster->profile.members);
	struct member *subject = &cluster->members[id - 1];
	const struct raft_member *known = membership_find(&membership, id);
	struct raft_member changed = {.id = id, .node = subject->node, .learner = true};
	if (!known) {
		if (!membership_put(&membership, &changed))
			return;
		propose(leader, &membership, "add", id);
	} else if (known->learner && cluster_chance(cluster, 700000)) {
		changed = *known;
		changed.learner = false;
		if (membership_put(&membership, &changed))
			propose(leader, &membership, "promote", id);
	} else if (membership_voters(&membership) > 1 && cluster_chance(cluster, 600000)) {
		membership_remove(&membership, id);
		if (propose(leader, &membership, "remove", id))
			cluster->counts.removed++;
	} else if (!known->learner) {
		changed = *known;
		changed.learner = true;
		if (membership_put(&membership, &changed))
			propose(leader, &membership, "demote", id);
	}
}

void operator_look(struct cluster *cluster)
{
	struct member *leader = cluster_leader(cluster);
	if (!leader)
		return;
	struct raft_view view;
	raft_view(leader->raft, &view);
	uint64_t from;
	struct raft_membership membership = *raft_membership(leader->raft, &from);
	for (size_t i = 0; i < view.member_count; i++) {
		const struct raft_progress_view *seen = &view.members[i];
		struct raft_member changed = *membership_find(&membership, seen->id);
		const char *what = "readmit";
		if (seen->stranger_node != 0) {
			changed.node = seen->stranger_node;
			changed.learner = true;
		} else if (seen->learner && seen->caught_up && (!cluster->profile.changes || cluster->calm)) {
			changed.learner = false;
			what = "promote";
		} else {
			continue;
		}
		if (membership_put(&membership, &changed) && propose(leader, &membership, what, seen->id))
			return;
		membership = *raft_membership(leader->raft, &from);
	}
	const struct raft_membership *committed =
	    check_membership_at(&cluster->checker, cluster->checker.committed_count, &from);
	if (!cluster->replaced || !committed)
		return;
	const struct raft_member *member = membership_find(committed, cluster->replaced->id);
	if (!member || (!member->learner && member->node == cluster->replaced->node))
		cluster->replaced = NULL;
}

/* ---- disks */

void member_unrot(struct member *member)
{
	while (member->rot_count > 0) {
		const struct rot *place = &member->rot[--member->rot_count];
		uint8_t byte = 0;
		/* Unless the power went before it was on the disk, or something else has been written there. */
		if (sim_host_read_file(member->host, place->file, place->offset, &byte, 1) && byte == place->rotten)
			sim_host_flip_bit(member->host, place->file, place->offset, 0);
	}
}

void operator_replace_disk(struct member *member)
{
	struct cluster *cluster = member->cluster;
	uint64_t from;
	const struct raft_membership *membership =
	    check_membership_at(&cluster->checker, cluster->checker.committed_count, &from);
	struct raft_membership first = first_membership(cluster);
	if (!membership)
		membership = &first;
	/* One disk of three is lost at most, and none while a change is under way: that would be one of two. */
	if (!membership_find(membership, member->id) || membership_voters(membership) < 3)
		return;
	for (size_t i = 0; i < cluster->profile.members; i++) {
		if (!cluster->members[i].raft)
			return;
		raft_membership(cluster->members[i].raft, &from);
		if (from > cluster->checker.committed_count)
			return;
	}
	member_bury(member);
	sim_host_power_cut(member->host);
	sim_host_wipe(member->host);
	sim_host_start(member->host);
	cluster->counts.replaced++;
	cluster->replaced = member;
	member->node += 1000;
	cluster_trace(cluster, "replace disk member=%" PRIu64 " node=%" PRIu64, member->id, member->node);
	member->stored = member->stored_synced = member->installed = member->installed_term = 0;
	member->hard_appended = member->hard_durable = (struct raft_hard_state){0};
	member->vote_term = member->vote_for = 0;
	member->last_durable = member->last_durable_term = 0;
	member->overwritten = UINT64_MAX;
	member->rot_count = 0;
}

static bool is_intact_elsewhere(const struct cluster *cluster, const struct member *member,
				const struct raft_entry *entry)
{
	uint64_t from;
	const struct raft_membership *membership = raft_membership(member->raft, &from);
	for (size_t i = 0; i < cluster->profile.members; i++) {
		const struct member *other = &cluster->members[i];
		bool asked = other != member && membership_find(membership, other->id); /* who was removed is not */
		const struct raft_entry *same = asked && other->raft ? raft_entry_at(other->raft, entry->index) : NULL;
		if (same && same->term == entry->term && !same->damaged)
			return true;
	}
	return false;
}

/* Only where no member has what is damaged: with all up and no faults for some seconds the others help themselves. */
void operator_mend(struct cluster *cluster)
{
	for (size_t i = 0; i < cluster->profile.members && !cluster->failed; i++) {
		struct member *member = &cluster->members[i];
		if (!member_is_running(member))
			continue;
		struct raft_view view;
		raft_view(member->raft, &view);
		bool lost = false;
		for (uint64_t index = member->applied + 1; index <= view.last && !lost; index++) {
			const struct raft_entry *entry = raft_entry_at(member->raft, index);
			lost = entry && entry->damaged && !is_intact_elsewhere(cluster, member, entry);
		}
		if (!lost)
			continue;
		cluster->counts.mended++;
		cluster_trace(cluster, "mend member=%" PRIu64, member->id);
		member_kill(member);
		member_unrot(member);
		member_start(member);
	}
}
