#include "master/tasks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/timing_wheel.h"
#include "common/sys/log.h"

#define MS_NS 1000000ull
#define TICK_NS (TASKS_MS * MS_NS)

struct task_key {
	uint64_t due_ns, id;
};

/* A TASK_COOL, or TASK_MOVE, in memory. */
struct loaded {
	struct wheel_entry entry; /* first */
	struct task_key key;
	uint32_t kind;
	uint64_t target;
	UT_hash_handle hh;
};

struct tasks {
	struct tasks_options options;
	struct timer timer;
	struct timing_wheel wheel;
	struct loaded *loaded;
	struct task_key cursor; /* all up to it are loaded, or were */
	bool proposed;
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp op[TASKS_PER_ENTRY_MAX], *ops[TASKS_PER_ENTRY_MAX];
	Granary__TaskRun runs[TASKS_PER_ENTRY_MAX];
};

static uint64_t time_ns(const struct tasks *tasks)
{
	return replica_time_ms(tasks->options.replica) * MS_NS;
}

static struct meta *meta_of(const struct tasks *tasks)
{
	return replica_meta(tasks->options.replica);
}

static void drop(struct tasks *tasks, struct loaded *loaded)
{
	timing_wheel_remove(&tasks->wheel, &loaded->entry);
	HASH_DEL(tasks->loaded, loaded);
	free(loaded);
}

static void forget(struct tasks *tasks)
{
	struct loaded *loaded, *next;

	HASH_ITER(hh, tasks->loaded, loaded, next)
	drop(tasks, loaded);
}

/* Tasks that are due at once are never loaded. */
static const struct task_key beginning = { .due_ns = 0, .id = UINT64_MAX };

/* ---- from the store into the wheel */

struct loading {
	struct tasks *tasks;
	uint64_t horizon_ns;
	size_t seen;
};

static bool on_task(void *arg, uint64_t due_ns, uint64_t id, const Granary__Task *task)
{
	struct loading *loading = arg;
	struct tasks *tasks = loading->tasks;
	struct task_key key = { .due_ns = due_ns, .id = id };
	struct loaded *loaded;

	if (due_ns > loading->horizon_ns || HASH_COUNT(tasks->loaded) >= TASKS_LOADED_MAX || loading->seen++ >= TASKS_SCAN_MAX)
		return false;
	tasks->cursor = key;
	HASH_FIND(hh, tasks->loaded, &key, sizeof(key), loaded);
	if (loaded)
		return true;
	loaded = mem_zero(1, sizeof(*loaded));
	loaded->key = key;
	loaded->kind = task->kind;
	loaded->target = task->target;
	HASH_ADD(hh, tasks->loaded, key, sizeof(loaded->key), loaded);
	timing_wheel_add(&tasks->wheel, &loaded->entry, (due_ns + TICK_NS - 1) / TICK_NS);
	return true;
}

static void load(struct tasks *tasks)
{
	struct loading loading = { .tasks = tasks, .horizon_ns = time_ns(tasks) + TASKS_HORIZON_MS * MS_NS };

	if (meta_each_task(meta_of(tasks), tasks->cursor.due_ns, tasks->cursor.id, on_task, &loading))
		log_error("tasks_unreadable", "due=%" PRIu64, tasks->cursor.due_ns);
}

void tasks_applied(struct tasks *tasks, const struct meta_effects *effects)
{
#ifndef PLANT_SOONER_IS_NOT_SEEN
	if (effects->task_due_min > 0 && effects->task_due_min <= tasks->cursor.due_ns)
		tasks->cursor = (struct task_key){ .due_ns = effects->task_due_min - 1, .id = UINT64_MAX };
#endif
	if (effects->restored) {
		forget(tasks);
		tasks->cursor = beginning;
	}
}

/* ---- what is due */

static void add_run(struct tasks *tasks, const struct task_key *key, uint64_t again_ns)
{
	Granary__TaskRun *run = &tasks->runs[tasks->request.n_ops++];

	run->due = key->due_ns;
	run->id = key->id;
	run->again = again_ns;
}

static bool on_first(void *arg, uint64_t due_ns, uint64_t id, const Granary__Task *task)
{
	struct tasks *tasks = arg;
	struct task_key key = { .id = id };

	(void)task;
	if (due_ns != 0)
		return false;
	add_run(tasks, &key, 0);
	return tasks->request.n_ops < TASKS_AT_ONCE_MAX;
}

/* A step of each of the first that are to be done at once. */
static void run_first(struct tasks *tasks)
{
	if (meta_each_task(meta_of(tasks), 0, 0, on_first, tasks))
		log_error("tasks_unreadable", "due=0");
}

/* False: nothing is to be done to the task now. */
static bool look_at_chunk(const struct tasks *tasks, uint64_t id, uint64_t *again_ns)
{
	struct meta *meta = meta_of(tasks);
	struct storage_values values;
	Granary__Chunk *chunk = NULL;

	*again_ns = 0;
	if (meta_chunk(meta, id, &chunk))
		return true;
	meta_class_values(meta, chunk->class_, &values);
	uint64_t due_ns = meta_chunk_unwritten_ns(meta, chunk) + values.cool_seconds * 1000 * MS_NS;
	message_free(&chunk->base);
	if (!values.is_cold)
		return true;
	if (due_ns > time_ns(tasks)) {
		*again_ns = due_ns;
		return true;
	}
	return tasks->options.cool && (tasks->options.cool(tasks->options.arg, id, again_ns) || *again_ns != 0);
}

static bool hand_over(const struct tasks *tasks, const struct loaded *loaded)
{
	return !tasks->options.move || tasks->options.move(tasks->options.move_arg, loaded->key.due_ns, loaded->key.id, loaded->target);
}

static void run_due(struct tasks *tasks)
{
	uint64_t now_tick = time_ns(tasks) / TICK_NS;
	struct wheel_entry *entry;

	while (tasks->request.n_ops < TASKS_PER_ENTRY_MAX && (entry = timing_wheel_take(&tasks->wheel, now_tick))) {
		struct loaded *loaded = (struct loaded *)(void *)entry;
		uint64_t again_ns;
		if (loaded->kind == TASK_MOVE) {
			if (hand_over(tasks, loaded))
				drop(tasks, loaded);
			else
				timing_wheel_add(&tasks->wheel, entry, now_tick + TASKS_MOVES_RETRY_MS / TASKS_MS);
		} else if (!meta_task_exists(meta_of(tasks), loaded->key.due_ns, loaded->key.id)) {
			drop(tasks, loaded);
		} else if (look_at_chunk(tasks, loaded->key.id, &again_ns)) {
			add_run(tasks, &loaded->key, again_ns);
			drop(tasks, loaded);
		} else {
			timing_wheel_add(&tasks->wheel, entry, now_tick + TASKS_RETRY_MS / TASKS_MS);
		}
	}
}

static void on_run(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct tasks *tasks = container_of(proposal, struct tasks, proposal);

	(void)reply;
	tasks->proposed = false;
	if (err)
		tasks->cursor = beginning; /* those in it are not in the wheel any more */
}

static void on_timer(void *arg)
{
	struct tasks *tasks = arg;

	timer_start(&tasks->timer, TASKS_MS);
	if (!replica_can_read(tasks->options.replica) || tasks->proposed || replica_space_is_low(tasks->options.replica))
		return;
	load(tasks);
	tasks->request.n_ops = 0;
	run_first(tasks);
	run_due(tasks);
	if (tasks->request.n_ops == 0)
		return;
	tasks->proposed = true;
	replica_propose(tasks->options.replica, &tasks->proposal);
}

/* ---- told to people */

struct telling {
	Granary__TasksReply *reply;
	size_t count_max;
};

static bool on_told(void *arg, uint64_t due_ns, uint64_t id, const Granary__Task *task)
{
	struct telling *telling = arg;
	Granary__TasksReply *reply = telling->reply;

	if (reply->n_first >= telling->count_max)
		return false;
	Granary__TaskItem *item = mem_alloc(sizeof(*item));
	granary__task_item__init(item);
	item->due = due_ns;
	item->id = id;
	item->task = (Granary__Task *)message_copy(&task->base);
	reply->first[reply->n_first++] = item;
	return true;
}

void tasks_serve(struct tasks *tasks, struct rpc_request *request)
{
	const Granary__TasksRequest *asked = (const Granary__TasksRequest *)request->message;

	if (!replica_can_read(tasks->options.replica)) {
		replica_refuse(tasks->options.replica, request, ERR_NOT_LEADER);
		return;
	}
	Granary__TasksReply *reply = mem_alloc(sizeof(*reply));
	granary__tasks_reply__init(reply);
	struct telling telling = { .reply = reply, .count_max = asked->count < TASKS_SHOWN_MAX ? asked->count : TASKS_SHOWN_MAX };
	reply->time_ns = time_ns(tasks);
	reply->tasks = mem_alloc(TASK_KINDS * sizeof(*reply->tasks));
	reply->n_tasks = TASK_KINDS;
	meta_task_counts(meta_of(tasks), reply->tasks);
	reply->first = mem_alloc((telling.count_max + 1) * sizeof(*reply->first));
	enum err err = meta_each_task(meta_of(tasks), 0, 0, on_told, &telling);
	if (err)
		rpc_reply_error(request, err, NULL);
	else
		rpc_reply(request, &reply->base);
	message_free(&reply->base);
}

/* ---- life */

void tasks_leading(struct tasks *tasks)
{
	forget(tasks);
	tasks->cursor = beginning;
	timing_wheel_init(&tasks->wheel, time_ns(tasks) / TICK_NS);
	timer_start(&tasks->timer, TASKS_MS);
}

void tasks_deposed(struct tasks *tasks)
{
	timer_stop(&tasks->timer);
	forget(tasks);
}

struct tasks *tasks_open(const struct tasks_options *options)
{
	struct tasks *tasks = mem_zero(1, sizeof(*tasks));

	tasks->options = *options;
	timer_init(&tasks->timer, options->loop, on_timer, tasks);
	granary__meta_request__init(&tasks->request);
	for (size_t i = 0; i < TASKS_PER_ENTRY_MAX; i++) {
		granary__meta_op__init(&tasks->op[i]);
		granary__task_run__init(&tasks->runs[i]);
		tasks->op[i].op_case = GRANARY__META_OP__OP_TASK_RUN;
		tasks->op[i].task_run = &tasks->runs[i];
		tasks->ops[i] = &tasks->op[i];
	}
	tasks->request.ops = tasks->ops;
	tasks->proposal.request = &tasks->request;
	tasks->proposal.done = on_run;
	return tasks;
}

void tasks_close(struct tasks *tasks)
{
	if (!tasks)
		return;
	timer_stop(&tasks->timer);
	forget(tasks);
	free(tasks);
}
