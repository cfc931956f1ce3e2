#include "chunkserver/cold_task.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/master_link.h"
#include "common/base/check.h"
#include "common/data/compress.h"
#include "common/data/erasure.h"
#include "common/proto/settings.h"
#include "common/sys/log.h"

#define RETRY_MS 50u

static bool is_rebuild(const Granary__ColdCommand *command)
{
	return command->task == COLD_REBUILD;
}

static struct cold_attempt attempt_of(const Granary__ColdCommand *command)
{
	const Granary__ShardLocation *shard = command->coded->shards[command->shard];
	return (struct cold_attempt){ .task = command->task,
				    .chunk = is_rebuild(command) ? shard->shard : command->chunk->chunk,
				    .version = is_rebuild(command) ? shard->version : command->chunk->version };
}

struct cold_attempt cold_task_attempt(const struct cold_task *task)
{
	return attempt_of(task->command);
}

static bool is_same(const struct cold_attempt *one, const struct cold_attempt *other)
{
	return one->task == other->task && one->chunk == other->chunk && one->version == other->version;
}

static bool has_ended(const struct service *service, const struct cold_attempt *task)
{
	for (unsigned i = 0; i < COLD_ENDED_REMEMBERED; i++)
		if (is_same(&service->cold_ended[i], task))
			return true;
	return false;
}

static void task_free(struct cold_task *task)
{
	DL_DELETE2(task->service->cold_tasks, task, previous, next);
	task->service->cold_task_count--;
	timer_stop(&task->timer);
	task->clear(task);
	message_free(&task->command->base);
	free(task);
}

static void on_timer(void *arg)
{
	struct cold_task *task = arg;
	task->step(task);
}

static void work_run(struct work *work)
{
	struct cold_task *task = container_of(work, struct cold_task, work);
	task->compute(task);
}

static void work_done(struct work *work)
{
	struct cold_task *task = container_of(work, struct cold_task, work);
	struct chunk_store *store = task->service->store;
	task->working = false;
	if (task->ending)
		task_free(task);
	else
		task->step(task);
	chunk_store_work_end(store);
}

void cold_task_go_on(struct cold_task *task, uint64_t delay_ms)
{
	timer_start(&task->timer, delay_ms);
}

void cold_task_compute(struct cold_task *task, void (*compute)(struct cold_task *task))
{
	check(!task->working);
	task->compute = compute;
	task->working = true;
	task->work.run = work_run;
	task->work.done = work_done;
	task->work.of_owner.untimed = true;
	chunk_store_submit(task->service->store, NULL, &task->work);
}

void cold_task_spend(struct cold_task *task, uint64_t bytes)
{
	struct service *service = task->service;
	uint64_t rate = setting_value(master_link_settings(service->link), SETTING_COOL_RATE);
	budget_spend(&service->cold_budget, bytes);
	task->retries = 0;
	cold_task_go_on(task, budget_wait(&service->cold_budget, loop_now_us(service->loop), rate));
}

bool cold_task_retry(struct cold_task *task)
{
	if (++task->retries > COLD_RETRIES_MAX)
		return false;
	cold_task_go_on(task, RETRY_MS);
	return true;
}

static void tell(struct service *service, const Granary__ColdCommand *command, enum err err, Granary__Coding *coding)
{
	Granary__ColdDone message = GRANARY__COLD_DONE__INIT;
	message.task = command->task;
	message.chunk = command->chunk->chunk;
	message.version = attempt_of(command).version;
	message.shard = is_rebuild(command) ? command->coded->shards[command->shard]->shard : 0;
	message.error = (uint32_t)err;
	message.coding = coding;
	if (err != OK)
		log_warn("cold_task_failed", "task=%u chunk=%016" PRIx64 " error=%s", message.task, message.chunk, err_name(err));
	master_link_cold_done(service->link, &message);
}

void cold_task_end(struct cold_task *task, enum err err, Granary__Coding *coding)
{
	struct service *service = task->service;
	if (task->command->task == COLD_VERIFY) { /* nobody else knows of it */
		task_free(task);
		return;
	}
	service->cold_ended[service->cold_ended_next++ % COLD_ENDED_REMEMBERED] = cold_task_attempt(task);
	tell(service, task->command, err, coding);
	message_free(coding == NULL ? NULL : &coding->base);
	task_free(task);
}

static bool command_is_valid(const Granary__ColdCommand *command)
{
	const Granary__CodedLocation *coded = command->coded;
	if (command->chunk == NULL || coded == NULL || !erasure_profile_valid(coded->data_shards, coded->parity_shards))
		return false;
	if (coded->n_shards != (size_t)coded->data_shards + coded->parity_shards || command->shard >= coded->n_shards)
		return false;
	if (coded->compression >= COMPRESSIONS)
		return false;
	if (command->task == COLD_REBUILD || command->task == COLD_VERIFY)
		return true;
	return command->chunk->n_replicas > 0 && command->chunk->n_replicas <= REPLICAS_MAX;
}

static void task_add(struct service *service, struct cold_task *task, const Granary__ColdCommand *command)
{
	task->service = service;
	task->command = (Granary__ColdCommand *)message_copy(&command->base);
	timer_init(&task->timer, service->loop, on_timer, task);
	DL_APPEND2(service->cold_tasks, task, previous, next);
	service->cold_task_count++;
	cold_task_go_on(task, 0);
}

enum err cold_task_begin(struct service *service, const Granary__ColdCommand *command)
{
	struct cold_task *task;
	if (!command_is_valid(command))
		return ERR_INVALID;
	struct cold_attempt this = attempt_of(command);
	DL_FOREACH2 (service->cold_tasks, task, next) {
		struct cold_attempt other = cold_task_attempt(task);
		if (is_same(&other, &this))
			return OK;
	}
	if (master_link_tells_cold(service->link, &this))
		return OK;
	if (command->again || has_ended(service, &this)) {
		tell(service, command, ERR_CANCELLED, NULL);
		return OK;
	}
	if (service->cold_task_count >= COLD_TASKS_MAX)
		return ERR_BUSY;
	if (command->task == COLD_COOL)
		task = cool_open();
	else if (command->task == COLD_WARM)
		task = warm_open();
	else if (command->task == COLD_REBUILD)
		task = rebuild_open();
	else
		return ERR_NOT_SUPPORTED;
	task_add(service, task, command);
	return OK;
}

struct cold_task *cold_verify(struct service *service, const Granary__ChunkLocation *location, cold_verified_fn *done, void *arg)
{
	Granary__ColdCommand command = GRANARY__COLD_COMMAND__INIT;
	Granary__ChunkLocation chunk = *location;
	command.task = COLD_VERIFY;
	command.chunk = &chunk;
	command.coded = chunk.coded;
	chunk.coded = NULL;
	if (!command_is_valid(&command) || service->cold_task_count >= COLD_TASKS_MAX)
		return NULL;
	struct cold_task *task = verify_open(done, arg);
	task_add(service, task, &command);
	return task;
}

bool cold_task_makes(const struct service *service, uint64_t shard, uint64_t version)
{
	const struct cold_attempt wanted = { .task = COLD_REBUILD, .chunk = shard, .version = version };
	const struct cold_task *task;
	DL_FOREACH2 (service->cold_tasks, task, next) {
		struct cold_attempt attempt = cold_task_attempt(task);
		if (is_same(&attempt, &wanted))
			return true;
	}
	return false;
}

void cold_task_abort(struct cold_task *task)
{
	task->ending = true;
	if (!task->working)
		task_free(task);
}

void cold_tasks_abort(struct service *service)
{
	struct cold_task *task, *next;
	DL_FOREACH_SAFE2 (service->cold_tasks, task, next, next)
		cold_task_abort(task);
}
