#include "master/meta/tasks.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "master/meta/assign.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

#define SECOND_NS 1000000000ull

static uint64_t *counter(struct meta *meta, uint32_t kind)
{
	Granary__MetaState *state = meta->state;
	check(kind < TASK_KINDS);
	if (state->n_tasks <= kind) {
		state->tasks = mem_resize(state->tasks, TASK_KINDS * sizeof(*state->tasks));
		while (state->n_tasks < TASK_KINDS)
			state->tasks[state->n_tasks++] = 0;
	}
	return &state->tasks[kind];
}

/* Takes the task. */
static void task_put(struct meta *meta, uint64_t due_ns, uint64_t id, Granary__Task *task)
{
	struct key key = key_of_pair(KEY_TASK, due_ns, id);
	++*counter(meta, task->kind);
	store_put_message(&meta->store, &key, &task->base);
	if (due_ns > 0 && (meta->task_due_min == 0 || due_ns < meta->task_due_min))
		meta->task_due_min = due_ns;
}

static void task_remove(struct meta *meta, uint64_t due_ns, uint64_t id, uint32_t kind)
{
	struct key key = key_of_pair(KEY_TASK, due_ns, id);
	--*counter(meta, kind);
	store_delete(&meta->store, &key);
}

void task_add_now(struct meta *meta, const Granary__Task *task)
{
	task_put(meta, 0, TASK_ID_COUNTED | ++meta->state->task_last, (Granary__Task *)message_copy(&task->base));
}

void task_move_new(struct meta *meta, uint64_t inode)
{
	Granary__Task *task = mem_alloc(sizeof(*task));
	granary__task__init(task);
	task->kind = TASK_MOVE;
	task->target = inode;
	task_put(meta, meta->state->time_ns, TASK_ID_COUNTED | ++meta->state->task_last, task);
}

void task_cool_set(struct meta *meta, uint64_t id, Granary__Chunk *chunk, uint64_t due_ns)
{
	if (chunk->task_due == due_ns)
		return;
	if (chunk->task_due)
		task_remove(meta, chunk->task_due, id, TASK_COOL);
	chunk->task_due = due_ns;
	if (!due_ns)
		return;
	Granary__Task *task = mem_alloc(sizeof(*task));
	granary__task__init(task);
	task->kind = TASK_COOL;
	task->target = id;
	task_put(meta, due_ns, id, task);
}

void task_cool_new(struct meta *meta, uint64_t id, Granary__Chunk *chunk)
{
	struct storage_values values;
	meta_class_values(meta, chunk->class_, &values);
	task_cool_set(meta, id, chunk, values.is_cold ? meta->state->time_ns + values.cool_seconds * SECOND_NS : 0);
}

enum err task_cool_mend(struct meta *meta, uint64_t id, uint64_t due_ns)
{
	Granary__Chunk *chunk = chunk_edit(meta, id);
	bool is_there = meta_task_exists(meta, due_ns, id), is_wanted = chunk && chunk->task_due == due_ns;
	if (is_there == is_wanted)
		return ERR_NOT_FOUND;
	if (is_there) {
		task_remove(meta, due_ns, id, TASK_COOL);
		return OK;
	}
	--*counter(meta, TASK_COOL); /* in which the lost one is */
	chunk->task_due = 0;
	task_cool_set(meta, id, chunk, due_ns);
	return OK;
}

/* ---- carried out */

static void run_cool(struct meta *meta, const Granary__TaskRun *op)
{
	Granary__Chunk *chunk = chunk_edit(meta, op->id);
	if (chunk && chunk->task_due == op->due)
		task_cool_set(meta, op->id, chunk, op->again);
	else
		task_remove(meta, op->due, op->id, TASK_COOL);
}

static void run_move(struct meta *meta, const Granary__TaskRun *op, const Granary__Task *found)
{
	uint64_t target = found->target;
	const Granary__Inode *inode = inode_get(meta, target);
	bool misplaced = inode && !op->over && meta_blob_is_misplaced(meta, inode);
	if (misplaced && (op->again == 0 || op->again == op->due))
		return;
	task_remove(meta, op->due, op->id, TASK_MOVE);
	if (!misplaced)
		return;
	Granary__Task *task = mem_alloc(sizeof(*task));
	granary__task__init(task);
	task->kind = TASK_MOVE;
	task->target = target;
	task_put(meta, op->again, op->id, task);
}

enum err op_task_run(struct context *context, const Granary__TaskRun *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	struct key key = key_of_pair(KEY_TASK, op->due, op->id);
	const Granary__Task *found = store_message(&meta->store, &key, &granary__task__descriptor);
	if (!found || found->kind == 0 || found->kind >= TASK_KINDS)
		return ERR_NOT_FOUND;
	if (found->kind == TASK_COOL) {
		run_cool(meta, op);
		return OK;
	}
	if (found->kind == TASK_MOVE) {
		run_move(meta, op, found);
		return OK;
	}
	Granary__Task *task = (Granary__Task *)message_copy(&found->base);
	bool more = task->kind == TASK_ASSIGN ? assign_step(context, task) : class_step(meta, task);
	if (more) {
		store_put_message(&meta->store, &key, &task->base);
	} else {
		task_remove(meta, op->due, op->id, task->kind);
		message_free(&task->base);
	}
	return OK;
}

/* ---- for the shell */

enum err meta_each_task(struct meta *meta, uint64_t due_ns, uint64_t after_id,
			bool (*fn)(void *arg, uint64_t due_ns, uint64_t id, const Granary__Task *), void *arg)
{
	struct key prefix = key_of_table(KEY_TASK);
	struct key from = key_of_pair(KEY_TASK, due_ns, after_id);
	from = key_after(&from);
	struct scan scan;
	bool more = true;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (more && scan_next(&scan)) {
		uint64_t due, id;
		ProtobufCMessage *message = NULL;
		if (!key_parse_pair(scan.key, &due, &id) || message_unpack(&granary__task__descriptor, scan.value, &message)) {
			store_corrupt(&meta->store);
			break;
		}
		more = fn(arg, due, id, (const Granary__Task *)message);
		message_free(message);
	}
	scan_close(&scan);
	return store_failed(&meta->store);
}

bool meta_task_exists(struct meta *meta, uint64_t due_ns, uint64_t id)
{
	struct key key = key_of_pair(KEY_TASK, due_ns, id);
	return store_has(&meta->store, &key);
}

void meta_task_counts(const struct meta *meta, uint64_t *counts)
{
	for (size_t i = 0; i < TASK_KINDS; i++)
		counts[i] = i < meta->state->n_tasks ? meta->state->tasks[i] : 0;
}
