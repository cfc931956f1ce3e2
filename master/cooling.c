#include "master/cooling.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys/log.h"
#include "master/cooling_internal.h"

uint64_t cooling_now_ms(const struct cooling *cooling)
{
	return loop_now_us(cooling->options.context->loop) / 1000;
}

struct meta *cooling_meta(const struct cooling *cooling)
{
	return replica_meta(cooling->options.context->replica);
}

struct servers *cooling_servers(const struct cooling *cooling)
{
	return cooling->options.context->servers;
}

struct job *cooling_find(const struct cooling *cooling, uint64_t chunk)
{
	struct job *job;

	HASH_FIND(hh, cooling->jobs, &chunk, sizeof(chunk), job);
	return job;
}

bool cooling_is_at(const struct cooling *cooling, uint64_t chunk)
{
	return cooling_find(cooling, chunk) != NULL;
}

bool cooling_has_task(const struct cooling *cooling, uint64_t server)
{
	return cooling_tasks_of(cooling, server) > 0;
}

unsigned cooling_tasks_of(const struct cooling *cooling, uint64_t server)
{
	unsigned count = 0;

	for (const struct job *job = cooling->jobs; job; job = job->hh.next)
		count += job->worker == server && job->state != JOB_THAWING;
	return count;
}

/* What becomes of a chunk by a wrong belief is deleted: the copies, or the shards. So nothing changes before servers have said what they hold,
 * nor while that shows that our state is an old one. */
static bool may_change(struct cooling *cooling)
{
	const struct servers *servers = cooling_servers(cooling);
	size_t heard = 0;

#ifdef PLANT_COOLED_IN_THE_PAST
	return true;
#endif
	for (size_t i = 0; !cooling->heard && i < servers_count(servers); i++) {
		const struct server *server = servers_at(servers, i);
		heard += server->inventory_due_ms && !server->inventory_open;
	}
	if (heard == servers_count(servers) || cooling_now_ms(cooling) >= cooling->heard_after_ms)
		cooling->heard = true;
	return cooling->heard && !servers_are_ahead(servers);
}

/* ---- jobs */

struct job *cooling_job_add(struct cooling *cooling, uint64_t chunk, uint64_t version)
{
	struct job *job = mem_zero(1, sizeof(*job));

	job->chunk = chunk;
	job->version = version;
	job->cooling = cooling;
	job->begun_ms = cooling_now_ms(cooling);
	HASH_ADD(hh, cooling->jobs, chunk, sizeof(job->chunk), job);
	return job;
}

static void answer_done(struct job *job, enum err err)
{
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	struct rpc_request *request = job->done;

	job->done = NULL;
	if (!request)
		return;
	if (err)
		replica_refuse(job->cooling->options.context->replica, request, err);
	else
		rpc_reply(request, &empty.base);
}

/* Of those that wait: all, or whose time is over. */
static void answer_waits(struct job *job, enum err err, bool all)
{
	struct warm_wait **at = &job->waits;
	uint64_t now_ms = cooling_now_ms(job->cooling);

	while (*at) {
		struct warm_wait *wait = *at;
		if (!all && now_ms < wait->until_ms) {
			at = &wait->next;
			continue;
		}
		*at = wait->next;
		if (err)
			replica_refuse(job->cooling->options.context->replica, wait->request, err);
		else
			chunk_reply_location(job->cooling->options.context, job->chunk, wait->request);
		free(wait);
	}
}

/* OK: the chunk is as was wanted. */
static void job_end(struct job *job, enum err err)
{
	HASH_DEL(job->cooling->jobs, job);
	answer_done(job, err);
	answer_waits(job, err == ERR_NOT_LEADER || err == ERR_CANCELLED || err == ERR_NO_SPACE || err == OK ? err : ERR_BUSY, true);
	message_free(job->op ? &job->op->base : NULL);
	free(job);
}

static Granary__ChunkCommand *command_of(const struct job *job)
{
	Granary__ChunkLocation *location = NULL;
	Granary__ChunkCommand *command;

	if (meta_cold_location(cooling_meta(job->cooling), job->chunk, &location))
		return NULL;
	if (!location->coded) {
		message_unref(&location->base);
		return NULL;
	}
	command = mem_alloc(sizeof(*command));
	granary__chunk_command__init(command);
	command->chunk = job->chunk;
	Granary__ColdCommand *cold = command->cold = mem_alloc(sizeof(*cold));
	granary__cold_command__init(cold);
	cold->task = job->task;
	cold->chunk = (Granary__ChunkLocation *)message_copy(&location->base);
	cold->coded = cold->chunk->coded;
	cold->chunk->coded = NULL;
	cold->shard = job->place;
	cold->again = job->told;
	cold->cold_ms = cooling_cold_ms(job->cooling, job->chunk);
	message_unref(&location->base);
	return command;
}

/* The shard is made by another, and not of those that are known to be bad: some are sound by their checksums. */
static void command_to_rebuild(const struct job *job, uint64_t version, Granary__ColdCommand *cold)
{
	const struct server *server = servers_find(cooling_servers(job->cooling), job->worker);
	Granary__ShardLocation *shard = cold->coded->shards[job->place];

#ifndef PLANT_REBUILT_OF_BAD
	for (size_t i = 0; i < cold->coded->n_shards; i++) {
		if (i != job->place && cooling_shard_is_lost(job->cooling, cold->coded->shards[i]->shard))
			cold->coded->shards[i]->server = 0;
	}
#endif
	shard->version = version;
	shard->server = job->worker;
	if (shard->address != protobuf_c_empty_string)
		free(shard->address);
	shard->address = mem_string(server ? server->address : "");
}

static void tell(struct job *job)
{
	Granary__ChunkCommand *command = command_of(job);
	Granary__Chunk *shard = NULL;

	job->told_ms = cooling_now_ms(job->cooling);
	if (!command)
		return;
	if (job->task == COLD_REBUILD && meta_chunk(cooling_meta(job->cooling), job->shard, &shard) == OK) {
		command_to_rebuild(job, shard->rebuild_version, command->cold);
		message_free(&shard->base);
	}
	if (job->task == COLD_COOL && command->cold->chunk->n_replicas > 0)
		job->worker = command->cold->chunk->replicas[0]->server;
	if (commands_add(job->cooling->options.context->commands, job->worker, command))
		job->told = true;
}

/* ---- changes */

static void rebuild_ended(struct job *job)
{
	struct cooling *cooling = job->cooling;
	uint64_t chunk = job->chunk;

	if (job->op->shard_rebuild->step == 2)
		cooling_lost_forget(cooling, job->shard);
	job_end(job, OK);
	repair_look(cooling->options.repair, chunk); /* others of it may be lacking */
}

static void on_committed(struct job *job)
{
	switch (job->op->op_case) {
	case GRANARY__META_OP__OP_COOL_BEGIN:
		chunk_configure(job->cooling->options.context, job->chunk);
		/* fall through */
	case GRANARY__META_OP__OP_WARM_BEGIN:
		job->version++;
		job->state = JOB_RUNNING;
		tell(job);
		break;
	case GRANARY__META_OP__OP_SHARD_REBUILD:
		if (job->op->shard_rebuild->step != 1) {
			rebuild_ended(job);
			break;
		}
		job->state = JOB_RUNNING;
		tell(job);
		break;
	case GRANARY__META_OP__OP_WARM_COMMIT:
		chunk_configure(job->cooling->options.context, job->chunk);
		answer_done(job, OK);
		job->state = JOB_THAWING;
		break;
	case GRANARY__META_OP__OP_COOL_COMMIT:
		cooling_note_cold(job->cooling, job->chunk);
		log_info("chunk_cold", "chunk=%016" PRIx64 " raw=%" PRIu64 " stored=%" PRIu64, job->chunk,
			 job->op->cool_commit->coding->raw_bytes, job->op->cool_commit->coding->stored_bytes);
		job_end(job, OK);
		break;
	default: /* ColdUndo, ChunkThaw */
		chunk_configure(job->cooling->options.context, job->chunk);
		job_end(job, OK);
		break;
	}
}

static void on_proposed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct job *job = container_of(proposal, struct job, proposal);

	if (err == OK && (*reply)->n_results == 1)
		err = err_from_wire((*reply)->results[0]->error);
	if (err == OK) {
		on_committed(job);
	} else if (err == ERR_BUSY && job->op->op_case == GRANARY__META_OP__OP_CHUNK_THAW) {
		job->state = JOB_THAWING;
	} else {
		log_info("cold_change_failed", "chunk=%016" PRIx64 " case=%d error=%s", job->chunk, (int)job->op->op_case, err_name(err));
		job_end(job, err);
	}
}

void cooling_propose(struct job *job, Granary__MetaOp *op)
{
	message_free(job->op ? &job->op->base : NULL);
	job->op = op;
	job->state = JOB_PROPOSED;
	granary__meta_request__init(&job->request);
	job->request.n_ops = 1;
	job->request.ops = &job->op;
	job->proposal = (struct proposal){ .request = &job->request, .done = on_proposed };
	replica_propose(job->cooling->options.context->replica, &job->proposal);
}

static Granary__MetaOp *op_new(Granary__MetaOp__OpCase op_case)
{
	Granary__MetaOp *op = mem_alloc(sizeof(*op));

	granary__meta_op__init(op);
	op->op_case = op_case;
	return op;
}

static void propose_rebuild(struct job *job, uint64_t version, uint32_t step)
{
	Granary__MetaOp *op = op_new(GRANARY__META_OP__OP_SHARD_REBUILD);

	op->shard_rebuild = mem_alloc(sizeof(*op->shard_rebuild));
	granary__shard_rebuild__init(op->shard_rebuild);
	op->shard_rebuild->shard = job->shard;
	op->shard_rebuild->version = version;
	op->shard_rebuild->server = job->worker;
	op->shard_rebuild->step = step;
	cooling_propose(job, op);
}

void cooling_undo(struct job *job)
{
	Granary__MetaOp *op;
	Granary__Chunk *shard = NULL;

	if (job->task == COLD_REBUILD) {
		if (meta_chunk(cooling_meta(job->cooling), job->shard, &shard)) {
			job_end(job, ERR_NO_CHUNK);
			return;
		}
		propose_rebuild(job, shard->rebuild_version, 3);
		message_free(&shard->base);
		return;
	}
	op = op_new(GRANARY__META_OP__OP_COLD_UNDO);
	op->cold_undo = mem_alloc(sizeof(*op->cold_undo));
	granary__cold_undo__init(op->cold_undo);
	op->cold_undo->chunk = job->chunk;
	op->cold_undo->version = job->version;
	cooling_propose(job, op);
}

/* ---- thawing */

/* Who has not confirmed and serves nothing. False: somebody who has not may still serve. */
static bool fences_are_down(struct cooling *cooling, const Granary__Chunk *chunk, uint64_t *dead, size_t *dead_count)
{
	for (size_t i = 0; i < chunk->n_fences; i++) {
		uint64_t waiting[SHARDS_MAX];
		size_t count;
		if (!meta_garbage_waits(cooling_meta(cooling), chunk->fences[i], waiting, &count))
			continue;
		for (size_t k = 0; k < count; k++) {
			const struct server *server = servers_find(cooling_servers(cooling), waiting[k]);
			if (server && !servers_is_dead(server, cooling_now_ms(cooling)))
				return false;
			if (*dead_count == SERVERS_MAX)
				return false;
			dead[(*dead_count)++] = waiting[k];
		}
	}
	return true;
}

static void thaw(struct job *job)
{
	Granary__Chunk *chunk = NULL;
	uint64_t *dead = mem_alloc(SERVERS_MAX * sizeof(*dead));
	size_t count = 0;
	enum err err = meta_chunk(cooling_meta(job->cooling), job->chunk, &chunk);

	if (err == OK && (!chunk->frozen || chunk->coding))
		err = ERR_STALE_VERSION;
	if (err) {
		job_end(job, err);
	} else if (fences_are_down(job->cooling, chunk, dead, &count)) {
		Granary__MetaOp *op = op_new(GRANARY__META_OP__OP_CHUNK_THAW);
		op->chunk_thaw = mem_alloc(sizeof(*op->chunk_thaw));
		granary__chunk_thaw__init(op->chunk_thaw);
		op->chunk_thaw->chunk = job->chunk;
		op->chunk_thaw->version = chunk->version;
		op->chunk_thaw->n_dead = count;
		op->chunk_thaw->dead = dead;
		dead = NULL;
		cooling_propose(job, op);
	}
	free(dead);
	message_free(chunk ? &chunk->base : NULL);
}

/* ---- what servers say */

static void done_cool(struct job *job, const Granary__ColdDone *message)
{
	Granary__MetaOp *op = op_new(GRANARY__META_OP__OP_COOL_COMMIT);

	op->cool_commit = mem_alloc(sizeof(*op->cool_commit));
	granary__cool_commit__init(op->cool_commit);
	op->cool_commit->chunk = job->chunk;
	op->cool_commit->version = job->version;
	op->cool_commit->coding = message->coding ? (Granary__Coding *)message_copy(&message->coding->base) : NULL;
	cooling_propose(job, op);
}

static void done_warm(struct job *job)
{
	Granary__MetaOp *op = op_new(GRANARY__META_OP__OP_WARM_COMMIT);

	op->warm_commit = mem_alloc(sizeof(*op->warm_commit));
	granary__warm_commit__init(op->warm_commit);
	op->warm_commit->chunk = job->chunk;
	op->warm_commit->version = job->version;
	cooling_propose(job, op);
}

static void adopt(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk);

/* Its job, which may be a predecessor's; NULL: there is none. */
static struct job *job_of(struct cooling *cooling, uint64_t id)
{
	Granary__Chunk *chunk = NULL;

	if (!cooling_find(cooling, id) && meta_chunk(cooling_meta(cooling), id, &chunk) == OK && chunk->frozen)
		adopt(cooling, id, chunk);
	message_free(chunk ? &chunk->base : NULL);
	return cooling_find(cooling, id);
}

/* An attempt that has been given up meanwhile has another version. */
static bool is_of(const struct job *job, const Granary__ColdDone *message, const Granary__Chunk *shard)
{
	if (job->state != JOB_RUNNING || job->task != message->task || job->done)
		return false;
	if (job->task == COLD_REBUILD)
		return job->shard == message->shard && shard && shard->rebuild_version == message->version;
#ifdef PLANT_DONE_OF_ANOTHER_ATTEMPT
	return true;
#endif
	return job->version == message->version;
}

static void serve_done(struct cooling *cooling, struct rpc_request *request)
{
	const Granary__ColdDone *message = (const Granary__ColdDone *)request->message;
	Granary__Chunk *shard = NULL;

	if (!request->conn || rpc_conn_role(request->conn) != RPC_CHUNKSERVER) {
		rpc_reply_error(request, ERR_NOT_PERMITTED, NULL);
		return;
	}
	if (!may_change(cooling)) {
		rpc_reply_error(request, ERR_BUSY, NULL);
		return;
	}
	struct job *job = job_of(cooling, message->chunk);
	if (message->shard != 0 && meta_chunk(cooling_meta(cooling), message->shard, &shard))
		shard = NULL;
	if (!job || !is_of(job, message, shard)) {
		rpc_reply_error(request, job ? ERR_STALE_VERSION : ERR_NO_CHUNK, NULL);
		message_free(shard ? &shard->base : NULL);
		return;
	}
	job->done = request;
	if (message->error) {
		cooling_note_failed(cooling, job->chunk, err_from_wire(message->error));
		cooling_undo(job);
	} else if (job->task == COLD_COOL) {
		done_cool(job, message);
	} else if (job->task == COLD_WARM) {
		done_warm(job);
	} else {
		propose_rebuild(job, shard->rebuild_version, 2);
	}
	message_free(shard ? &shard->base : NULL);
}

/* ---- writers */

static void wait_for(struct job *job, struct rpc_request *request)
{
	struct warm_wait *wait = mem_zero(1, sizeof(*wait));

	wait->request = request;
	wait->until_ms = cooling_now_ms(job->cooling) + COOL_WARM_WAIT_MS;
	wait->next = job->waits;
	job->waits = wait;
}

static void serve_warm(struct cooling *cooling, struct rpc_request *request)
{
	uint64_t id = ((const Granary__ChunkWarm *)request->message)->chunk;
	Granary__Chunk *chunk = NULL;
	enum err err = meta_chunk(cooling_meta(cooling), id, &chunk);

	if (err == OK && !chunk->frozen) {
		chunk_reply_location(cooling->options.context, id, request);
		message_free(&chunk->base);
		return;
	}
	if (err == OK && !may_change(cooling))
		err = ERR_BUSY;
	if (err == OK && !cooling_find(cooling, id)) {
		if (chunk->cold && chunk->n_replicas == 0 && cooling_failed_lately(cooling, id) == ERR_BUSY)
			err = ERR_BUSY; /* not as often as writers ask */
		else if (chunk->cold && chunk->n_replicas == 0)
			err = cooling_begin_warm(cooling, id, chunk);
		else
			adopt(cooling, id, chunk);
	}
	if (err == ERR_NO_SERVERS && cooling_now_ms(cooling) < cooling->begin_after_ms)
		err = ERR_BUSY; /* they are still on their way */
	struct job *job = err == OK ? cooling_find(cooling, id) : NULL;
	if (job && job->task == COLD_COOL && job->state == JOB_RUNNING)
		cooling_undo(job);
	job = err == OK ? cooling_find(cooling, id) : NULL;
	if (job)
		wait_for(job, request);
	else
		rpc_reply_error(request, err == OK ? ERR_BUSY : err, NULL);
	message_free(chunk ? &chunk->base : NULL);
}

/* ---- going on */

static void adopt_rebuild(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk, const struct cold_verdict *verdict)
{
	for (unsigned i = 0; i < verdict->total; i++) {
		if (verdict->rebuilding[i] == 0)
			continue;
		struct job *job = cooling_job_add(cooling, id, chunk->version);
		job->task = COLD_REBUILD;
		job->state = JOB_RUNNING;
		job->place = i;
		job->shard = chunk->coding->shards[i];
		job->worker = verdict->rebuilding[i];
		job->told = true;
		return;
	}
}

/* A predecessor began it. */
static void adopt(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk)
{
	struct cold_verdict verdict;
	struct job *job;

	if (chunk->coding && chunk->cold && chunk->n_replicas == 0) {
		cooling_judge(cooling, chunk, &verdict);
		adopt_rebuild(cooling, id, chunk, &verdict);
		return;
	}
	job = cooling_job_add(cooling, id, chunk->version);
	job->state = chunk->coding ? JOB_RUNNING : JOB_THAWING;
	job->task = chunk->coding && !chunk->cold ? COLD_COOL : COLD_WARM;
	job->worker = chunk->n_replicas > 0 ? chunk->replicas[0] : 0;
	job->told = true;
}

/* Its class has been changed, or most of a pack is deleted. */
static void look_at_coding(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk)
{
	const Granary__Coding *coding = chunk->coding;
	struct storage_values values;

	meta_class_values(cooling_meta(cooling), chunk->class_, &values);
	bool fits = values.data_shards == 0 ||
		    (values.data_shards == coding->data_shards && values.parity_shards == coding->parity_shards);
	bool is_waste = chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK && coding->raw_bytes >= COOL_WASTE_BYTES_MIN &&
			chunk->live_bytes < coding->raw_bytes / 2;
	if (!values.is_cold || !fits || is_waste)
		cooling_wish(cooling, id, values.is_cold ? WISH_ANEW : WISH_HOT);
}

static bool on_chunk(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct cooling *cooling = arg;

	cooling->cursor = id;
	if (chunk->frozen && !cooling_find(cooling, id))
		adopt(cooling, id, chunk);
	if (chunk->cold && !cooling_find(cooling, id))
		look_at_coding(cooling, id, chunk);
	return ++cooling->seen < COOL_SCAN_MAX;
}

/* ---- for repair */

static bool lacks_shards(void *arg, uint64_t id, const Granary__Chunk *chunk, unsigned *tolerated)
{
	struct cooling *cooling = arg;
	struct cold_verdict verdict;

	cooling_judge(cooling, chunk, &verdict);
	*tolerated = verdict.available > verdict.data_shards ? verdict.available - verdict.data_shards : 0;
	return verdict.lacking > 0 && verdict.available >= verdict.data_shards && !cooling_find(cooling, id) &&
	       cooling_failed_lately(cooling, id) == OK;
}

static enum err begin_rebuild(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct cooling *cooling = arg;
	struct cold_verdict verdict;

	if (!may_change(cooling))
		return ERR_BUSY;
	if (cooling_find(cooling, id))
		return OK; /* it is looked at again when that is over */
	cooling_judge(cooling, chunk, &verdict);
	return verdict.lacking > 0 ? cooling_begin_rebuild(cooling, id, chunk, &verdict) : OK;
}

static void step_pass(struct cooling *cooling)
{
	if (cooling_now_ms(cooling) < cooling->pass_after_ms)
		return;
	cooling->seen = 0;
	if (meta_each_chunk(cooling_meta(cooling), cooling->cursor, on_chunk, cooling)) {
		log_error("chunks_unreadable", "cursor=%" PRIu64, cooling->cursor);
		return;
	}
	if (cooling->seen < COOL_SCAN_MAX) {
		cooling_forget_gone(cooling);
		cooling->cursor = 0;
		cooling->pass_after_ms = cooling_now_ms(cooling) + COOL_PASS_PAUSE_MS;
	}
}

static bool worker_is_gone(const struct job *job)
{
	const struct server *server = servers_find(cooling_servers(job->cooling), job->worker);

	return !server || servers_is_dead(server, cooling_now_ms(job->cooling));
}

static void step_job(struct job *job, bool may)
{
	struct cooling *cooling = job->cooling;
	Granary__Chunk *chunk = NULL;
	uint64_t now_ms = cooling_now_ms(cooling);

	answer_waits(job, ERR_BUSY, false);
	if (job->state == JOB_PROPOSED || !may)
		return;
	if (job->state == JOB_THAWING) {
		thaw(job);
		return;
	}
	enum err err = meta_chunk(cooling_meta(cooling), job->chunk, &chunk);
	if (err == OK && (chunk->version != job->version || !chunk->coding))
		err = ERR_STALE_VERSION;
	message_free(chunk ? &chunk->base : NULL);
	if (err)
		job_end(job, err);
	else if (worker_is_gone(job) || now_ms - job->begun_ms > COOL_JOB_MS_MAX)
		cooling_undo(job);
	else if (now_ms - job->told_ms >= COOL_TOLD_AGAIN_MS)
		tell(job);
}

bool cooling_due(void *arg, uint64_t id, uint64_t *again_ns)
{
	struct cooling *cooling = arg;
	Granary__Chunk *chunk = NULL;
	uint64_t now_ms = replica_time_ms(cooling->options.context->replica);
	enum err failed = cooling_failed_lately(cooling, id);

	*again_ns = 0;
	if (meta_chunk(cooling_meta(cooling), id, &chunk))
		return true;
	bool cold = chunk->cold;
	message_free(&chunk->base);
	if (!cold && failed != OK && failed != ERR_BUSY) /* servers may come, or space */
		*again_ns = (now_ms + COOL_DUE_AGAIN_MS) * 1000000ull;
	else if (!cold)
		cooling_wish(cooling, id, WISH_COLD);
	return cold;
}

/* After an election servers that have not been heard yet are no less there. */
static bool may_begin(const struct cooling *cooling)
{
	const struct servers *servers = cooling_servers(cooling);
	size_t usable = 0;

	for (size_t i = 0; i < servers_count(servers); i++)
		usable += servers_is_usable(servers_at(servers, i), cooling_now_ms(cooling));
	return usable == servers_count(servers) || cooling_now_ms(cooling) >= cooling->begin_after_ms;
}

static void on_step(void *arg)
{
	struct cooling *cooling = arg;
	struct job *job, *next;

	timer_start(&cooling->step, COOL_STEP_MS);
	if (!replica_can_read(cooling->options.context->replica))
		return;
	bool may = may_change(cooling);
	HASH_ITER(hh, cooling->jobs, job, next)
	{
		step_job(job, may);
	}
	if (!may)
		return;
	if (may_begin(cooling))
		cooling_step_wishes(cooling);
	step_pass(cooling);
}

void cooling_serve(struct cooling *cooling, struct rpc_request *request)
{
	struct replica *replica = cooling->options.context->replica;

	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	if (request->type == MESSAGE_COLD_DONE)
		serve_done(cooling, request);
	else if (request->type == MESSAGE_CHUNK_WARM)
		serve_warm(cooling, request);
	else
		cooling_serve_request(cooling, request);
}

static void forget_all(struct cooling *cooling, enum err why)
{
	struct job *job, *next_job;
	struct lost_shard *lost, *next_lost;

	HASH_ITER(hh, cooling->jobs, job, next_job)
	{
		if (job->state != JOB_PROPOSED) /* that ends by itself */
			job_end(job, why);
	}
	HASH_ITER(hh, cooling->lost, lost, next_lost)
	{
		HASH_DEL(cooling->lost, lost);
		free(lost);
	}
	cooling_forget_wishes(cooling);
}

void cooling_leading(struct cooling *cooling)
{
	cooling->leading = true;
	cooling->cursor = 0;
	cooling->pass_after_ms = 0;
	memset(cooling->colds, 0, sizeof(cooling->colds));
	cooling->colds_before_ms = cooling_now_ms(cooling);
	cooling->begin_after_ms = cooling_now_ms(cooling) + REPAIR_START_MS;
	cooling->heard = false;
	cooling->heard_after_ms = cooling_now_ms(cooling) + COLLECTION_WAIT_MS;
	timer_start(&cooling->step, COOL_STEP_MS);
}

void cooling_deposed(struct cooling *cooling)
{
	cooling->leading = false;
	timer_stop(&cooling->step);
	forget_all(cooling, ERR_NOT_LEADER);
}

struct cooling *cooling_open(const struct cooling_options *options)
{
	struct cooling *cooling = mem_zero(1, sizeof(*cooling));

	cooling->options = *options;
	cooling->candidates = mem_alloc(SERVERS_MAX * sizeof(*cooling->candidates));
	timer_init(&cooling->step, options->context->loop, on_step, cooling);
	repair_set_coded(options->repair, &(struct repair_coded){ .lacks = lacks_shards, .begin = begin_rebuild, .arg = cooling });
	return cooling;
}

void cooling_close(struct cooling *cooling)
{
	if (!cooling)
		return;
	timer_stop(&cooling->step);
	forget_all(cooling, ERR_CANCELLED); /* there is no replica any more that knows the leader */
	check(!cooling->jobs);
	free(cooling->candidates);
	free(cooling);
}
