/* What the master tells us to do with chunks: delete them, delete slots of packs, serve them no more, take a newer chain. Each command
 * may come again, and late: what is meant for an older copy only says up to which version. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "chunkserver/adopt.h"
#include "chunkserver/chain.h"
#include "chunkserver/cold_task.h"
#include "chunkserver/fill.h"
#include "chunkserver/move_op.h"
#include "chunkserver/scrub.h"
#include "chunkserver/service.h"
#include "common/base/check.h"
#include "common/sys/log.h"

#define TASKS_RUNNING_MAX 32u
#define RETRY_MS 20u
#define ATTEMPTS_MAX 100u
#define BATCHES_MAX 16u

struct task {
	struct task *previous, *next;
	struct commands_batch *batch;
	size_t index;
	unsigned attempts;
	struct timer timer;
	bool done; /* with err; it ends when the timer comes */
	enum err err;
};

struct commands_batch {
	struct commands_batch *previous, *next_batch; /* the service's list */
	struct task *tasks;
	struct service *service;
	struct rpc_request *request;
	uint32_t *errors;
	size_t next; /* not begun yet */
	size_t running;
	bool advancing;
};

static void advance(struct commands_batch *batch);

static void task_end(struct task *task, enum err err)
{
	struct commands_batch *batch = task->batch;
	/* What is not here need not be deleted; nothing is known here of a chunk never written: its first write says the version.
	 * What is newer was not meant. */
	batch->errors[task->index] = err == ERR_NO_CHUNK || err == ERR_STALE_VERSION ? OK : err;
	batch->running--;
	timer_stop(&task->timer);
	DL_DELETE2(batch->tasks, task, previous, next);
	free(task);
	advance(batch);
}

/* Not at once: who says it may be about to go through all operations of the chunk, and the next command may be about that one. */
static void task_done(void *arg, enum err err)
{
	struct task *task = arg;
	if (task->batch->service->stopping) { /* nothing begins any more */
		task_end(task, err);
		return;
	}
	task->done = true;
	task->err = err;
	timer_start(&task->timer, 0);
}

/* What is here may be newer than what is meant: only the open file tells. ERR_BUSY: it is being opened. */
static enum err find_older(struct service *service, const Granary__ChunkCommand *command, struct chunk **out)
{
	*out = NULL;
	if (command->version == 0 && !command->retire) {
		*out = chunk_store_find(service->store, command->chunk);
		return OK;
	}
	enum err err = chunk_store_get(service->store, command->chunk, NULL, out);
	if (err == OK && ((*out)->state == CHUNK_OPENING || (*out)->adopting))
		err = ERR_BUSY;
	if (err == OK && (*out)->state == CHUNK_READY && (*out)->version > command->version)
		err = ERR_STALE_VERSION;
	return err;
}

/* OK: task_done follows. */
static enum err delete_chunk(struct task *task, const Granary__ChunkCommand *command)
{
	struct service *service = task->batch->service;
	struct chunk *chunk;
	enum err err = find_older(service, command, &chunk);
	if (err == ERR_NO_CHUNK) /* its file may be lost: that is forgotten */
		err = OK;
	if (err != OK)
		return err;
	if (chunk != NULL && chunk->state != CHUNK_OPENING) {
		chunk_ops_abandon(chunk, ERR_NO_CHUNK);
		chunk_waive_damage(chunk);
	}
	return chunk_store_delete(service->store, command->chunk, command->version, task_done, task);
}

/* Likewise. */
static enum err retire(struct task *task, const Granary__ChunkCommand *command)
{
	struct service *service = task->batch->service;
	struct chunk *chunk;
	enum err err = find_older(service, command, &chunk);
	if (err == ERR_NO_CHUNK) /* lost with the power, perhaps: what was sent to it before does not make it anew */
		return chunk_store_delete(service->store, command->chunk, command->version, task_done, task);
	if (err != OK)
		return err;
	if (chunk_store_failed(service->store))
		return ERR_STORE_FAILED;
	if (chunk->copy == COPY_RETIRED) { /* and on disk, or it would be busy */
		task_done(task, OK);
		return OK;
	}
	chunk_retire(service, chunk);
	return ERR_BUSY; /* until that is on disk */
}

static void delete_slots(struct task *task, const Granary__ChunkCommand *command)
{
	size_t size = command->n_delete_slots * sizeof(uint32_t);
	if (command->n_delete_slots > PACK_SLOTS_MAX) {
		task_end(task, ERR_INVALID);
		return;
	}
	struct chunk_op *op = chunk_op_new(task->batch->service, OP_DELETE_SLOTS, NULL);
	uint8_t *slots = mem_alloc(size);
	memcpy(slots, command->delete_slots, size);
	op->slots = slice_of(slots, size);
	op->sync = true;
	op->done = task_done;
	op->arg = task;
	chunk_op_submit(op, command->chunk, NULL);
}

enum err service_configure(struct service *service, const Granary__ChunkLocation *location)
{
	struct chunk *chunk = NULL;
	if (location->n_replicas > REPLICAS_MAX)
		return ERR_INVALID;
	struct chunk_create create = {
		.kind = chunk_kind_of(location->kind),
		.version = location->version,
		.copy = service_copy_state(service, location->replicas, location->n_replicas),
		.chain = location,
		.written = location->written || chunk_store_misses(service->store, location->chunk),
		.only_known = true,
		.on_word = true,
	};
	bool may_be_known = service_position(service, location->replicas, location->n_replicas) >= 0;
	enum err err = chunk_store_get(service->store, location->chunk, may_be_known ? &create : NULL, &chunk);
	/* Nothing was ever written to it, and the newcomer is to have the same. What was written and is not here is not made anew: the
	 * newcomer would get zeros. */
	if (err == ERR_NO_CHUNK && fill_is_source(service, location) && location->written)
		log_warn("source_has_no_copy", "chunk=%016" PRIx64, location->chunk);
	if (err == ERR_NO_CHUNK && fill_is_source(service, location) && !location->written) {
		create.only_known = false;
		err = chunk_store_get(service->store, location->chunk, &create, &chunk);
	}
	if (err == ERR_NO_CHUNK && service_position(service, location->replicas, location->n_replicas) < 0)
		chunk_store_drop_mark(service->store, location->chunk);
	if (err != OK)
		return err;
	if (chunk->state == CHUNK_OPENING)
		return ERR_BUSY;
	bool unheard = !chain_is_known(chunk);
	if (location->version > chunk->version && service_position(service, location->replicas, location->n_replicas) < 0) {
		/* The others went on without us. It stays what it is: with their version it would look like one of theirs. */
		if (chunk_store_failed(service->store))
			return ERR_STORE_FAILED;
		if (location->n_replicas > 0 && chunk->copy != COPY_RETIRED)
			chunk_retire(service, chunk);
		return OK;
	}
	if (location->version > chunk->version || (location->version == chunk->version && unheard))
		chunk_adopt(service, chunk, location);
	else if (location->version == chunk->version && service_position(service, location->replicas, location->n_replicas) >= 0)
		chunk_adopt_again(service, chunk, location);
	return OK;
}

static void run_task(void *arg)
{
	struct task *task = arg;
	struct commands_batch *batch = task->batch;
	const Granary__ChunkCommands *message = (const Granary__ChunkCommands *)batch->request->message;
	const Granary__ChunkCommand *command = message->commands[task->index];
	enum err err;
	if (batch->service->stopping || task->done) {
		task_end(task, task->done ? task->err : ERR_CANCELLED);
		return;
	}
	if (command->delete_chunk) {
		err = delete_chunk(task, command);
		if (err == OK)
			return; /* task_done follows */
	} else if (command->retire) {
		err = retire(task, command);
		if (err == OK)
			return;
	} else if (command->n_delete_slots > 0) {
		delete_slots(task, command);
		return;
	} else if (command->configure != NULL) {
		err = service_configure(batch->service, command->configure);
	} else if (command->cold != NULL) {
		err = cold_task_begin(batch->service, command->cold);
	} else if (command->move != NULL) {
		err = move_begin(batch->service, command->move);
	} else if (command->scrub != NULL) {
		scrub_demand(batch->service->scrub, command->scrub);
		err = OK;
	} else {
		err = ERR_INVALID;
	}
	if (err == ERR_BUSY && ++task->attempts < ATTEMPTS_MAX && !batch->service->stopping)
		timer_start(&task->timer, RETRY_MS);
	else
		task_end(task, err);
}

static void finish(struct commands_batch *batch)
{
	const Granary__ChunkCommands *message = (const Granary__ChunkCommands *)batch->request->message;
	Granary__ChunkCommandsReply reply = GRANARY__CHUNK_COMMANDS_REPLY__INIT;
	reply.n_errors = message->n_commands;
	reply.errors = batch->errors;
	batch->service->batches--;
	DL_DELETE2(batch->service->batch_list, batch, previous, next_batch);
	rpc_reply(batch->request, &reply.base);
	free(batch->errors);
	free(batch);
}

static void advance(struct commands_batch *batch)
{
	const Granary__ChunkCommands *message = (const Granary__ChunkCommands *)batch->request->message;
	if (batch->advancing)
		return;
	batch->advancing = true; /* tasks may end within */
	while (batch->next < message->n_commands && batch->running < TASKS_RUNNING_MAX) {
		struct task *task = mem_zero(1, sizeof(*task));
		task->batch = batch;
		task->index = batch->next++;
		timer_init(&task->timer, batch->service->loop, run_task, task);
		batch->running++;
		DL_APPEND2(batch->tasks, task, previous, next);
		run_task(task);
	}
	batch->advancing = false;
	if (batch->running == 0)
		finish(batch);
}

void commands_serve(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkCommands *message = (const Granary__ChunkCommands *)request->message;
	if (request->conn == NULL || rpc_conn_role(request->conn) != RPC_MASTER) {
		rpc_reply_error(request, ERR_NOT_PERMITTED, "only for a master");
		return;
	}
	if (service->batches >= BATCHES_MAX) {
		rpc_reply_error(request, ERR_BUSY, NULL);
		return;
	}
	struct commands_batch *batch = mem_zero(1, sizeof(*batch));
	batch->service = service;
	batch->request = request;
	batch->errors = mem_zero(message->n_commands + 1, sizeof(*batch->errors));
	service->batches++;
	DL_APPEND2(service->batch_list, batch, previous, next_batch);
	advance(batch);
}

void commands_abandon(struct service *service)
{
	struct commands_batch *batch, *following;
	DL_FOREACH_SAFE2 (service->batch_list, batch, following, next_batch) {
		struct task *task, *next;
		batch->advancing = true; /* not before all are done with */
		DL_FOREACH_SAFE2 (batch->tasks, task, next, next) {
			if (timer_is_running(&task->timer))
				task_end(task, ERR_CANCELLED);
		}
		batch->advancing = false;
		advance(batch);
	}
}
