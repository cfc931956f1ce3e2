#include "master/meta/assign.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/chunk_map.h"
#include "master/meta/classes.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"
#include "master/meta/pack.h"
#include "master/meta/tasks.h"

#define SECOND_NS 1000000000ull

/* ---- chunks */

uint64_t meta_chunk_unwritten_ns(struct meta *meta, const Granary__Chunk *chunk)
{
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK)
		return chunk->sealed ? chunk->sealed_ns : 0;
	const Granary__Inode *inode = inode_get(meta, chunk->owner);
	return inode ? inode->data_change : 0;
}

/* What it has of its class: how many copies, and when it may become cold. Of one that is cold the copies alone. */
static void chunk_follow(struct meta *meta, uint64_t id, const char *label)
{
	const Granary__Chunk *now = id ? chunk_get(meta, id) : NULL;
	struct storage_values values;
	if (!now || now->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) /* of the chunk that it is of */
		return;
	meta_class_values(meta, label, &values);
	uint64_t since = meta_chunk_unwritten_ns(meta, now), due = now->task_due;
	if (!now->cold)
		due = values.is_cold && since ? since + values.cool_seconds * SECOND_NS : 0;
	if (now->copies_wanted == values.copies && now->task_due == due && strcmp(now->class_, label) == 0)
		return;
	Granary__Chunk *chunk = chunk_edit(meta, id);
	class_set(&chunk->class_, label);
	chunk->copies_wanted = values.copies;
	task_cool_set(meta, id, chunk, due);
}

/* At most `max` of a file's chunks from the index *next on, which goes on; how many. */
static size_t chunks_assign(struct meta *meta, uint64_t inode_id, const char *label, uint64_t *next, size_t max)
{
	uint64_t *chunks = mem_alloc(max * sizeof(*chunks));
	size_t count = 0;
	struct key prefix = key_of(KEY_CHUNK_POINTER, inode_id);
	struct key from = key_of_index(KEY_CHUNK_POINTER, inode_id, (uint32_t)*next);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (count < max && scan_next(&scan)) {
		Granary__ChunkPointer pointer;
		uint64_t id;
		uint32_t index;
		if (!key_parse_index(scan.key, &id, &index) ||
		    message_read_numbers(&granary__chunk_pointer__descriptor, scan.value, &pointer.base)) {
			store_corrupt(&meta->store);
			break;
		}
		chunks[count++] = pointer.chunk;
		*next = (uint64_t)index + 1;
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++)
		chunk_follow(meta, chunks[i], label);
	free(chunks);
	return count;
}

/* ---- inodes */

static void walk_later(struct meta *meta, uint64_t inode_id, const Granary__Inode *inode)
{
	Granary__Task task = GRANARY__TASK__INIT;
	task.kind = TASK_ASSIGN;
	task.target = inode_id;
	task.class_ = inode->class_;
	task.order = inode->class_order;
	task_add_now(meta, &task);
}

/* Returns how much was done. */
static size_t inode_assign(struct context *context, uint64_t id, const char *label, uint64_t order, bool below)
{
	struct meta *meta = context->meta;
	Granary__Inode *inode = inode_edit(meta, id);
	if (!inode)
		return 1;
#ifndef PLANT_OLD_WALK_WINS
	if (inode->class_order >= order)
		return 1;
#endif
	class_set(&inode->class_, label);
	inode->class_order = order;
	touch_inode(context, id);
	blob_follow(meta, id, inode);
	if (mode_is_directory(inode->mode) ? below && inode->entries > 0 : inode->chunks > TASK_CHUNKS_INLINE_MAX) {
		walk_later(meta, id, inode);
		return 2;
	}
	uint64_t next = 0;
	return 1 + (inode->chunks > 0 ? chunks_assign(meta, id, label, &next, TASK_CHUNKS_INLINE_MAX) : 0);
}

enum err op_set_inode_class(struct context *context, const Granary__SetInodeClass *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	if (!inode_get(meta, id))
		return ERR_NOT_FOUND;
	if (!storage_class_exists(meta->classes, op->class_))
		return ERR_NO_CLASS;
	inode_assign(context, id, storage_class_label(op->class_), ++meta->state->class_order, op->below);
	Granary__Inode *inode = inode_edit(meta, id);
	inode_changed(context, id, inode);
	inode_answer(context, id, inode, result);
	return OK;
}

/* ---- steps */

struct child {
	uint64_t inode;
	struct key key;
};

/* The names of a directory after task->after; how many. */
static size_t children_collect(struct meta *meta, const Granary__Task *task, struct child *children, size_t max)
{
	size_t count = 0;
	struct key prefix = key_of(KEY_DIRENT, task->target);
	struct key from = key_of_name(KEY_DIRENT, task->target, message_bytes(task->after));
	if (task->after.len > 0)
		from = key_after(&from);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (count < max && scan_next(&scan)) {
		Granary__Dirent dirent;
		if (scan.key.size > KEY_BYTES_MAX ||
		    message_read_numbers(&granary__dirent__descriptor, scan.value, &dirent.base)) {
			store_corrupt(&meta->store);
			break;
		}
		children[count].inode = dirent.inode;
		children[count].key.size = (uint32_t)scan.key.size;
		memcpy(children[count++].key.bytes, scan.key.bytes, scan.key.size);
	}
	scan_close(&scan);
	return count;
}

static bool directory_step(struct context *context, Granary__Task *task)
{
	struct child *children = mem_alloc(TASK_UNITS_MAX * sizeof(*children));
	size_t count = children_collect(context->meta, task, children, TASK_UNITS_MAX), at = 0, units = 0;
	while (at < count && units < TASK_UNITS_MAX)
		units += inode_assign(context, children[at++].inode, task->class_, task->order, true);
	if (at > 0) {
		uint64_t parent;
		struct slice name;
		struct buf after = {0};
		check(key_parse_name(key_slice(&children[at - 1].key), &parent, &name));
		buf_set(&after, name);
		free(task->after.data);
		task->after = (ProtobufCBinaryData){.len = after.size, .data = after.bytes}; /* takes the buffer's memory */
	}
	bool more = at < count || count == TASK_UNITS_MAX;
	free(children);
	return more;
}

bool assign_step(struct context *context, Granary__Task *task)
{
	const Granary__Inode *inode = inode_get(context->meta, task->target);
	if (!inode || inode->class_order != task->order)
		return false;
	if (mode_is_directory(inode->mode))
		return directory_step(context, task);
	return chunks_assign(context->meta, task->target, task->class_, &task->next, TASK_UNITS_MAX) == TASK_UNITS_MAX;
}

/* Of the class; of the default class, too, whose own class is no more. */
static bool is_concerned(const struct meta *meta, const Granary__Task *task, const Granary__Chunk *chunk)
{
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD)
		return false;
	return strcmp(chunk->class_, task->class_) == 0 || (!task->class_[0] && !storage_class_exists(meta->classes, chunk->class_));
}

bool class_step(struct meta *meta, Granary__Task *task)
{
	uint64_t *chunks = mem_alloc(TASK_UNITS_MAX * sizeof(*chunks));
	size_t count = 0;
	struct key prefix = key_of_table(KEY_CHUNK);
	struct key from = key_of(KEY_CHUNK, task->next);
	from = key_after(&from);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (count < TASK_UNITS_MAX && scan_next(&scan)) {
		if (key_parse(scan.key, &chunks[count]))
			task->next = chunks[count++];
		else
			store_corrupt(&meta->store);
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++) {
		const Granary__Chunk *chunk = chunk_get(meta, chunks[i]);
		if (chunk && is_concerned(meta, task, chunk)) {
			char *label = mem_string(chunk->class_);
			chunk_follow(meta, chunks[i], label);
			free(label);
		}
	}
	free(chunks);
	return count == TASK_UNITS_MAX;
}
