/* A group of Raft cores in one test: instant disks, a network that delivers in order and can be cut. Header only, since
 * each unit test is a program of one file. */
#ifndef GRANARY_TESTS_UNIT_MASTER_RAFT_GROUP_H
#define GRANARY_TESTS_UNIT_MASTER_RAFT_GROUP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "master/raft/raft.h"

#define GROUP_MAX 5
#define QUEUE_MAX 4096

struct parcel {
	struct raft_message message;
	struct raft_entry *entries;
};

struct group {
	size_t count;
	uint64_t ids[GROUP_MAX];
	struct raft *rafts[GROUP_MAX];
	bool cut[GROUP_MAX + 1];                          /* by id: neither sends nor receives */
	bool (*drop)(const struct raft_message *message); /* or NULL: messages that are lost */
	struct raft_hard_state hard[GROUP_MAX + 1];       /* as last given to persist */
	size_t append_bytes_max;
	bool disk_stuck[GROUP_MAX + 1];
	struct parcel held[GROUP_MAX + 1][64]; /* wait for the disk */
	size_t held_count[GROUP_MAX + 1];
	uint64_t stuck_index[GROUP_MAX + 1], stuck_term[GROUP_MAX + 1];
	struct parcel queue[QUEUE_MAX];
	size_t first, last;
	uint64_t now_ms;
	size_t delivered[RAFT_FETCH_REPLY + 1]; /* by kind */
	uint64_t nodes[GROUP_MAX + 1];		/* by id */
	struct raft_membership membership;	/* known to all at the start; empty: `ids`, nodes not known */
	uint64_t damaged[GROUP_MAX + 1];	/* the entry that a restart finds damaged */
	uint64_t applied[GROUP_MAX + 1];	/* known to a restart */
	struct raft_ready news[GROUP_MAX + 1];	/* the last one that had a snapshot or a reset to tell */
	uint64_t stranger, stranger_node;
	size_t fill_count[GROUP_MAX + 1], stuck_fills[GROUP_MAX + 1];
};

static inline struct raft_options group_options(struct group *group, size_t place)
{
	return (struct raft_options){.id = group->ids[place],
				     .members = group->ids,
				     .member_count = group->count,
				     .node = group->nodes[place + 1],
				     .membership = group->membership.count > 0 ? &group->membership : NULL,
				     .applied = group->applied[place + 1],
				     .election_ticks = RAFT_ELECTION_TICKS,
				     .heartbeat_ticks = RAFT_HEARTBEAT_TICKS,
				     .tick_ms = RAFT_TICK_MS,
				     .seed = place + 1,
				     .append_bytes_max = group->append_bytes_max};
}

/* The members as set before. */
static inline void group_start(struct group *group, size_t count)
{
	group->count = count;
	group->now_ms = 1000;
	for (size_t i = 0; i < count; i++)
		group->ids[i] = i + 1;
	for (size_t i = 0; i < count; i++) {
		struct raft_options options = group_options(group, i);
		struct raft_hard_state hard = {0};
		assert_int_equal(raft_open(&options, &hard, 1, 0, NULL, 0, &group->rafts[i]), OK);
	}
}

static inline void group_open(struct group *group, size_t count)
{
	memset(group, 0, sizeof(*group));
	group_start(group, count);
}

/* `voters` voters with known nodes; the other members wait to be called. */
static inline void group_open_known(struct group *group, size_t count, size_t voters)
{
	memset(group, 0, sizeof(*group));
	for (size_t id = 1; id <= count; id++)
		group->nodes[id] = 100 + id;
	for (size_t id = 1; id <= voters; id++) {
		struct raft_member member = {.id = id, .node = 100 + id};
		assert_true(membership_put(&group->membership, &member));
	}
	group_start(group, count);
}

static inline void parcel_free(struct parcel *parcel)
{
	for (size_t i = 0; i < parcel->message.entry_count; i++)
		free((void *)parcel->entries[i].payload.bytes);
	free(parcel->entries);
}

static inline void group_close(struct group *group)
{
	for (size_t i = 0; i < group->count; i++)
		raft_close(group->rafts[i]);
	for (; group->first < group->last; group->first++)
		parcel_free(&group->queue[group->first % QUEUE_MAX]);
	for (size_t id = 1; id <= group->count; id++)
		for (size_t i = 0; i < group->held_count[id]; i++)
			parcel_free(&group->held[id][i]);
}

static inline struct parcel parcel_of(const struct raft_message *message)
{
	struct parcel parcel = {.message = *message};
	if (message->entry_count > 0) {
		parcel.entries = mem_zero(message->entry_count, sizeof(struct raft_entry));
		for (size_t i = 0; i < message->entry_count; i++) {
			parcel.entries[i] = message->entries[i];
			size_t size = message->entries[i].payload.size;
			uint8_t *bytes = mem_alloc(size + 1);
			if (size > 0)
				memcpy(bytes, message->entries[i].payload.bytes, size);
			parcel.entries[i].payload.bytes = bytes;
		}
	}
	parcel.message.entries = parcel.entries;
	return parcel;
}

static inline void group_send(struct group *group, struct parcel parcel)
{
	assert_true(group->last - group->first < QUEUE_MAX);
	group->queue[group->last++ % QUEUE_MAX] = parcel;
}

/* Takes the effects of one member. */
static inline void group_pump(struct group *group, size_t place)
{
	struct raft *raft = group->rafts[place];
	uint64_t id = group->ids[place];
	struct raft_ready ready;
	while (raft_ready(raft, &ready)) {
		if (ready.hard_changed)
			group->hard[id] = ready.hard;
		for (size_t i = 0; i < ready.message_count; i++)
			group_send(group, parcel_of(&ready.messages[i]));
		for (size_t i = 0; i < ready.message_after_sync_count; i++) {
			struct parcel parcel = parcel_of(&ready.messages_after_sync[i]);
			if (group->disk_stuck[id])
				group->held[id][group->held_count[id]++] = parcel;
			else
				group_send(group, parcel);
		}
		raft_applied(raft, ready.commit);
		if (ready.snapshot_from != 0 || ready.reset)
			group->news[id] = ready;
		if (ready.stranger != 0) {
			group->stranger = ready.stranger;
			group->stranger_node = ready.stranger_node;
		}
		group->fill_count[id] += ready.fill_count;
		if (group->disk_stuck[id])
			group->stuck_fills[id] += ready.fill_count;
		else
			raft_filled(raft, ready.fill_count);
		if (ready.entry_count == 0 && !ready.hard_changed)
			continue;
		static const struct raft_entry none;
		const struct raft_entry *end = ready.entry_count > 0 ? &ready.entries[ready.entry_count - 1] : &none;
		if (group->disk_stuck[id] && end == &none)
			continue;
		if (group->disk_stuck[id]) {
			group->stuck_index[id] = end->index;
			group->stuck_term[id] = end->term;
		} else {
			raft_persisted(raft, group->now_ms, end->index, end->term);
		}
	}
}

static inline void group_unstick(struct group *group, uint64_t id)
{
	group->disk_stuck[id] = false;
	raft_persisted(group->rafts[id - 1], group->now_ms, group->stuck_index[id], group->stuck_term[id]);
	for (size_t i = 0; i < group->held_count[id]; i++)
		group_send(group, group->held[id][i]);
	group->held_count[id] = 0;
	raft_filled(group->rafts[id - 1], group->stuck_fills[id]);
	group->stuck_fills[id] = 0;
	group_pump(group, id - 1);
}

/* Delivers everything under way and what follows from it. */
static inline void group_settle(struct group *group)
{
	for (size_t i = 0; i < group->count; i++)
		group_pump(group, i);
	while (group->first < group->last) {
		struct parcel parcel = group->queue[group->first++ % QUEUE_MAX];
		const struct raft_message *message = &parcel.message;
		if (!group->cut[message->from] && !group->cut[message->to] && !(group->drop && group->drop(message))) {
			group->delivered[message->kind]++;
			raft_step(group->rafts[message->to - 1], group->now_ms, message);
			group_pump(group, (size_t)message->to - 1);
		}
		parcel_free(&parcel);
	}
}

static inline void group_run(struct group *group, uint64_t ms)
{
	for (uint64_t end = group->now_ms + ms; group->now_ms < end; group->now_ms += RAFT_TICK_MS) {
		for (size_t i = 0; i < group->count; i++)
			raft_tick(group->rafts[i], group->now_ms);
		group_settle(group);
	}
}

static inline struct raft_view group_view(struct group *group, uint64_t id)
{
	struct raft_view view;
	raft_view(group->rafts[id - 1], &view);
	return view;
}

/* The id of the only leader that is not cut off, after at most ten election timeouts; 0: none. */
static inline uint64_t group_leader(struct group *group)
{
	for (int rounds = 0; rounds < 300; rounds++) {
		for (uint64_t id = 1; id <= group->count; id++)
			if (!group->cut[id] && group_view(group, id).role == RAFT_LEADER)
				return id;
		group_run(group, RAFT_TICK_MS);
	}
	return 0;
}

static inline uint64_t group_propose(struct group *group, uint64_t id, const char *text)
{
	uint64_t index = 0;
	assert_int_equal(raft_propose(group->rafts[id - 1], group->now_ms, RAFT_ENTRY_NORMAL, slice_text(text), &index),
			 OK);
	return index;
}

/* A crash that loses nothing: the disk is instant. */
static inline void group_restart(struct group *group, uint64_t id)
{
	struct raft *old = group->rafts[id - 1];
	struct raft_view view = group_view(group, id);
	size_t count = (size_t)(view.last + 1 - view.first);
	struct raft_entry *entries = mem_zero(count + 1, sizeof(*entries));
	for (size_t i = 0; i < count; i++)
		entries[i] = *raft_entry_at(old, view.first + i);
	if (group->damaged[id] != 0) {
		entries[group->damaged[id] - view.first].damaged = true;
		entries[group->damaged[id] - view.first].payload = (struct slice){0};
	}
	struct raft_options options = group_options(group, id - 1);
	assert_int_equal(raft_open(&options, &group->hard[id], view.first, 0, entries, count, &group->rafts[id - 1]),
			 OK);
	raft_close(old);
	free(entries);
	raft_tick(group->rafts[id - 1], group->now_ms);
}

/* Makes this member the leader, if the others let it: time passes for all, but nobody else's timer runs out. */
static inline bool group_elect(struct group *group, uint64_t id)
{
	for (int attempt = 0; attempt < 4 && group_view(group, id).role != RAFT_LEADER; attempt++) {
		group->now_ms += 2 * RAFT_ELECTION_TICKS * RAFT_TICK_MS + 1;
		raft_tick(group->rafts[id - 1], group->now_ms);
		group_settle(group);
	}
	return group_view(group, id).role == RAFT_LEADER;
}

/* A heartbeat interval of this member alone. */
static inline void group_heartbeat(struct group *group, uint64_t id)
{
	group->now_ms += RAFT_HEARTBEAT_TICKS * RAFT_TICK_MS;
	raft_tick(group->rafts[id - 1], group->now_ms);
	group_settle(group);
}

#endif
