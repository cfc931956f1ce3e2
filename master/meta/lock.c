#include "master/meta/lock.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/proto/lock.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

/* ---- the table of an inode */

static const Granary__LockTable *table_get(struct meta *meta, uint64_t inode)
{
	struct key key = key_of(KEY_LOCKS, inode);
	return store_message(&meta->store, &key, &granary__lock_table__descriptor);
}

static Granary__LockTable *table_edit(struct meta *meta, uint64_t inode)
{
	struct key key = key_of(KEY_LOCKS, inode);
	Granary__LockTable *table = store_edit(&meta->store, &key, &granary__lock_table__descriptor);
	if (!table) {
		table = mem_alloc(sizeof(*table));
		granary__lock_table__init(table);
		store_put_message(&meta->store, &key, &table->base);
	}
	return table;
}

static void table_add(Granary__LockTable *table, const Granary__LockRange *range)
{
	Granary__LockRange *copy = mem_alloc(sizeof(*copy));
	*copy = *range;
	copy->base.n_unknown_fields = 0;
	copy->base.unknown_fields = NULL;
	table->ranges = mem_resize(table->ranges, (table->n_ranges + 1) * sizeof(*table->ranges));
	table->ranges[table->n_ranges++] = copy;
}

/* Keeps 'l' in step with the table and drops an empty table. */
static void table_settle(struct meta *meta, uint64_t inode, uint64_t session)
{
	const Granary__LockTable *table = table_get(meta, inode);
	bool holds = false;
	for (size_t i = 0; table && i < table->n_ranges && !holds; i++)
		holds = table->ranges[i]->session == session;
	struct key key = key_of_pair(KEY_SESSION_LOCK, session, inode);
	if (holds != store_has(&meta->store, &key)) {
		if (holds)
			store_put(&meta->store, &key, (struct slice){0});
		else
			store_delete(&meta->store, &key);
	}
	if (table && table->n_ranges == 0) {
		struct key table_key = key_of(KEY_LOCKS, inode);
		store_delete(&meta->store, &table_key);
	}
}

/* ---- ranges */

static bool same_holder(const Granary__LockRange *a, const Granary__LockRange *b)
{
	return a->session == b->session && a->owner == b->owner && a->flock == b->flock;
}

static bool overlap(const Granary__LockRange *a, const Granary__LockRange *b)
{
	return a->start <= b->end && b->start <= a->end;
}

static bool adjacent(const Granary__LockRange *a, const Granary__LockRange *b)
{
	return (a->end < b->start && a->end + 1 == b->start) || (b->end < a->start && b->end + 1 == a->start);
}

/* The first lock in the way, by where it starts. */
static const Granary__LockRange *conflict(const Granary__LockTable *table, const Granary__LockRange *wanted)
{
	const Granary__LockRange *first = NULL;
	for (size_t i = 0; table && i < table->n_ranges; i++) {
		const Granary__LockRange *held = table->ranges[i];
		if (held->flock != wanted->flock || same_holder(held, wanted) || !overlap(held, wanted))
			continue;
		if (held->kind != LOCK_EXCLUSIVE && wanted->kind != LOCK_EXCLUSIVE)
			continue;
		if (!first || held->start < first->start)
			first = held;
	}
	return first;
}

/* What is left of the holder's own range beside `wanted`, which it overlaps and has another kind: up to two pieces. */
static void table_cut(Granary__LockTable *table, const Granary__LockRange *own, const Granary__LockRange *wanted)
{
	Granary__LockRange piece = *own;
	if (own->start < wanted->start) {
		piece.end = wanted->start - 1;
		table_add(table, &piece);
	}
	if (own->end > wanted->end) {
		piece = *own;
		piece.start = wanted->end + 1;
		table_add(table, &piece);
	}
}

/* Puts `wanted` (kind LOCK_NONE: nothing) in place of what its holder has there. The holder's ranges are disjoint, and
 * those of one kind do not touch; both stay so. */
static void table_set(Granary__LockTable *table, const Granary__LockRange *wanted)
{
	Granary__LockRange merged = *wanted;
	Granary__LockRange **old = table->ranges;
	size_t old_count = table->n_ranges;
	table->ranges = NULL;
	table->n_ranges = 0;
	for (size_t i = 0; i < old_count; i++) {
		Granary__LockRange *held = old[i];
		bool touches = same_holder(held, wanted) && (overlap(held, wanted) || adjacent(held, wanted));
		if (touches && held->kind == wanted->kind) {
			merged.start = held->start < merged.start ? held->start : merged.start;
			merged.end = held->end > merged.end ? held->end : merged.end;
		} else if (touches && overlap(held, wanted)) {
			table_cut(table, held, wanted);
		} else {
			table_add(table, held);
		}
		message_free(&held->base);
	}
	free(old);
	if (wanted->kind != LOCK_NONE)
		table_add(table, &merged);
}

/* ---- operations */

static Granary__LockRange *range_answer(struct context *context, const Granary__LockRange *range)
{
	Granary__LockRange *copy = message_alloc_message(context->reply, &granary__lock_range__descriptor);
	if (range) {
		*copy = *range;
		copy->base.n_unknown_fields = 0;
		copy->base.unknown_fields = NULL;
	}
	return copy;
}

/* The range as it will be stored: of this session, without fields that are unknown here; flock locks everything. */
static enum err range_check(struct context *context, uint64_t inode, const Granary__LockRange *range,
			    Granary__LockRange *out)
{
	if (!range || range->kind > LOCK_EXCLUSIVE || context->session == 0)
		return ERR_INVALID;
	granary__lock_range__init(out);
	out->session = context->session;
	out->owner = range->owner;
	out->kind = range->kind;
	out->flock = range->flock;
	out->pid = range->pid;
	out->start = range->flock ? 0 : range->start;
	out->end = range->flock || range->end > LOCK_END_MAX ? LOCK_END_MAX : range->end;
	if (out->start > out->end)
		return ERR_INVALID;
	return inode_get(context->meta, inode) ? OK : ERR_NOT_FOUND;
}

enum err op_test_lock(struct context *context, const Granary__TestLock *op, Granary__MetaResult *result)
{
	uint64_t id = context_inode(context, op->inode);
	Granary__LockRange wanted;
	enum err err = range_check(context, id, op->range, &wanted);
	if (err)
		return err;
	result->lock = range_answer(context, wanted.kind == LOCK_NONE ? NULL : conflict(table_get(context->meta, id), &wanted));
	return OK;
}

enum err op_set_lock(struct context *context, const Granary__SetLock *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	Granary__LockRange wanted;
	enum err err = range_check(context, id, op->range, &wanted);
	if (err)
		return err;
	const Granary__LockTable *held = table_get(meta, id);
	if (!held && wanted.kind == LOCK_NONE)
		return OK;
	const Granary__LockRange *holder = wanted.kind == LOCK_NONE ? NULL : conflict(held, &wanted);
	if (holder) {
		result->lock = range_answer(context, holder);
		return ERR_WOULD_BLOCK;
	}
	/* A cut adds a piece at most, and the lock itself is one more. Unlocking everything only removes. */
	bool only_removes = wanted.kind == LOCK_NONE && wanted.start == 0 && wanted.end == LOCK_END_MAX;
	if (held && held->n_ranges + 2 > LOCKS_PER_INODE_MAX && !only_removes)
		return ERR_TOO_MANY;
	table_set(table_edit(meta, id), &wanted);
	table_settle(meta, id, context->session);
	return OK;
}

/* ---- what ends */

void locks_release_session(struct meta *meta, uint64_t session)
{
	struct buf inodes = {0};
	struct key prefix = key_of(KEY_SESSION_LOCK, session);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (scan_next(&scan)) {
		uint64_t first, inode;
		if (key_parse_pair(scan.key, &first, &inode))
			buf_append(&inodes, &inode, sizeof(inode));
	}
	scan_close(&scan);
	for (size_t at = 0; at < inodes.size; at += sizeof(uint64_t)) {
		uint64_t inode;
		memcpy(&inode, inodes.bytes + at, sizeof(inode));
		Granary__LockTable *table = table_edit(meta, inode);
		size_t kept = 0;
		for (size_t i = 0; i < table->n_ranges; i++) {
			if (table->ranges[i]->session == session)
				message_free(&table->ranges[i]->base);
			else
				table->ranges[kept++] = table->ranges[i];
		}
		table->n_ranges = kept;
		table_settle(meta, inode, session);
	}
	buf_deinit(&inodes);
}

void locks_remove_inode(struct meta *meta, uint64_t inode)
{
	const Granary__LockTable *table = table_get(meta, inode);
	if (!table)
		return;
	for (size_t i = 0; i < table->n_ranges; i++) {
		struct key key = key_of_pair(KEY_SESSION_LOCK, table->ranges[i]->session, inode);
		store_delete(&meta->store, &key);
	}
	struct key key = key_of(KEY_LOCKS, inode);
	store_delete(&meta->store, &key);
}
