#include "master/moves.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

#define MS_NS 1000000ull

enum job_state { JOB_WAITING, JOB_RUNNING, JOB_PROPOSED };

struct job {
	uint64_t id, due_ns; /* the task's; 0: none is known here, and it is only proposed */
	uint64_t inode;
	struct moves *moves;
	enum job_state state;
	uint64_t pack, to_pack, server; /* RUNNING: from, to, the head of that */
	uint32_t slot;
	uint64_t told_ms;
	bool over;		  /* nothing can be done */
	struct rpc_request *done; /* MoveDone, answered when it is committed */
	/* What is proposed. */
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp op[2], *ops[2];
	Granary__BlobMove move;
	Granary__TaskRun run;
	struct job *prev, *next; /* WAITING */
	UT_hash_handle hh;
};

/* The open pack of a class. */
struct pool {
	struct moves *moves;
	char label[STORAGE_CLASS_NAME_BYTES_MAX + 1];
	uint64_t current, full; /* the one that is at hand; one that takes no more */
	bool opening;
	uint64_t failed_until_ms;
	enum err failed;
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp op, *ops[1];
	Granary__OpenPack open_pack;
	UT_hash_handle hh;
};

struct moves {
	const struct chunk_change_context *context;
	struct fill *fill;
	bool leading;
	struct job *jobs; /* by id of their task */
	struct job *waiting;
	size_t running;
	struct pool *pools; /* by label */
	struct defer pump;
	struct timer step;
};

static uint64_t now_ms(const struct moves *moves)
{
	return loop_now_us(moves->context->loop) / 1000;
}

static struct meta *meta_of(const struct moves *moves)
{
	return replica_meta(moves->context->replica);
}

/* ---- jobs */

static void answer_done(struct job *job, enum err err)
{
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	struct rpc_request *request = job->done;

	job->done = NULL;
	if (!request)
		return;
	if (err)
		replica_refuse(job->moves->context->replica, request, err);
	else
		rpc_reply(request, &empty.base);
}

static void job_end(struct job *job, enum err err)
{
	struct moves *moves = job->moves;

	answer_done(job, err);
	if (job->id)
		HASH_DEL(moves->jobs, job);
	if (job->state == JOB_WAITING)
		DL_DELETE(moves->waiting, job);
	moves->running -= job->state == JOB_RUNNING;
	free(job);
}

static void job_wait(struct job *job)
{
	job->state = JOB_WAITING;
	DL_APPEND(job->moves->waiting, job);
}

static void on_proposed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct job *job = container_of(proposal, struct job, proposal);
	struct moves *moves = job->moves;

	(void)reply;
	if (err && job->id && moves->leading) { /* its task is where it was */
		answer_done(job, err);
		job->over = false;
		job_wait(job);
		return;
	}
	job_end(job, err);
	if (moves->leading)
		defer_post(&moves->pump);
}

static void op_add(struct job *job, Granary__MetaOp__OpCase op_case)
{
	Granary__MetaOp *op = &job->op[job->request.n_ops];

	granary__meta_op__init(op);
	op->op_case = op_case;
	if (op_case == GRANARY__META_OP__OP_BLOB_MOVE)
		op->blob_move = &job->move;
	else
		op->task_run = &job->run;
	job->ops[job->request.n_ops++] = op;
}

/* move: what has been appended; NULL: nothing. The task is over, or due again so much later. */
static void propose(struct job *job, const Granary__MoveDone *move, uint64_t later_ms)
{
	struct moves *moves = job->moves;
	struct replica *replica = moves->context->replica;

	if (job->state == JOB_WAITING)
		DL_DELETE(moves->waiting, job);
	moves->running -= job->state == JOB_RUNNING;
	job->state = JOB_PROPOSED;
	granary__meta_request__init(&job->request);
	job->request.ops = job->ops;
	if (move) {
		granary__blob_move__init(&job->move);
		job->move.inode = move->inode;
		job->move.pack = move->pack;
		job->move.slot = move->slot;
		job->move.to_pack = move->to_pack;
		job->move.to_slot = move->to_slot;
		op_add(job, GRANARY__META_OP__OP_BLOB_MOVE);
	}
	if (job->id) {
		granary__task_run__init(&job->run);
		job->run.due = job->due_ns;
		job->run.id = job->id;
		job->run.over = job->over;
		job->run.again = (replica_time_ms(replica) + later_ms) * MS_NS;
		op_add(job, GRANARY__META_OP__OP_TASK_RUN);
	}
	job->proposal = (struct proposal){ .request = &job->request, .done = on_proposed };
	replica_propose(replica, &job->proposal);
}

/* No member of its pack has it: unsynced, and lost with the power of all. If the file gets other content that is seen to again. */
static bool is_lost(const struct job *job, enum err err)
{
	Granary__MetaReply *whole = message_open_whole(&granary__meta_reply__descriptor);
	Granary__Inode *inode = NULL;

	bool lost = err == ERR_NOT_FOUND && job->state == JOB_RUNNING &&
		    meta_inode(meta_of(job->moves), job->inode, &whole->base, &inode) == OK && inode->pack == job->pack &&
		    inode->slot == job->slot;
	message_unref(&whole->base);
	return lost;
}

/* What cannot be read, or finds no room, is left alone for longer: somebody has to do something about it first. */
static void job_failed(struct job *job, enum err err)
{
	bool lasts = err == ERR_CORRUPT || err == ERR_NO_SPACE || err == ERR_NO_SERVERS;

	job->over = is_lost(job, err);
	if (job->over)
		log_warn("blob_lost", "inode=%016" PRIx64 " pack=%016" PRIx64 " slot=%" PRIu32, job->inode, job->pack, job->slot);
	propose(job, NULL, lasts ? MOVE_FAILED_MS : MOVE_AGAIN_MS);
}

/* ---- packs */

static struct pool *pool_find(const struct moves *moves, const char *label)
{
	struct pool *pool;

	HASH_FIND_STR(moves->pools, label, pool);
	return pool;
}

/* But for those that are being opened. */
static void pools_forget(struct moves *moves)
{
	struct pool *pool, *next;

	HASH_ITER(hh, moves->pools, pool, next)
	{
		if (pool->opening)
			continue;
		HASH_DEL(moves->pools, pool);
		free(pool);
	}
}

static struct pool *pool_of(struct moves *moves, const char *label)
{
	struct pool *pool = pool_find(moves, label);
	size_t size = strlen(label);

	if (pool || size > STORAGE_CLASS_NAME_BYTES_MAX)
		return pool;
	if (HASH_COUNT(moves->pools) >= 2 * STORAGE_CLASSES_MAX) /* of classes that are gone */
		pools_forget(moves);
	pool = mem_zero(1, sizeof(*pool));
	pool->moves = moves;
	memcpy(pool->label, label, size);
	HASH_ADD_STR(moves->pools, label, pool);
	return pool;
}

static void on_opened(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct pool *pool = container_of(proposal, struct pool, proposal);
	struct moves *moves = pool->moves;
	const Granary__MetaResult *result = err == OK && (*reply)->n_results == 1 ? (*reply)->results[0] : NULL;

	pool->opening = false;
	free(pool->open_pack.replicas);
	pool->open_pack.replicas = NULL;
	if (result && result->error)
		err = err_from_wire(result->error);
	if (err == OK && result && result->n_chunks == 1) {
		pool->current = result->chunks[0]->chunk;
		pool->full = 0;
	} else {
		pool->failed = err ? err : ERR_BUSY;
		pool->failed_until_ms = now_ms(moves) + MOVE_AGAIN_MS;
	}
	if (moves->leading)
		defer_post(&moves->pump);
}

/* As for a client (client_service.c). */
static void pool_open(struct pool *pool)
{
	struct moves *moves = pool->moves;
	struct replica *replica = moves->context->replica;
	bool full;

	granary__meta_request__init(&pool->request);
	granary__meta_op__init(&pool->op);
	granary__open_pack__init(&pool->open_pack);
	pool->open_pack.full = pool->full;
	pool->open_pack.class_ = pool->label;
	pool->op.op_case = GRANARY__META_OP__OP_OPEN_PACK;
	pool->op.open_pack = &pool->open_pack;
	pool->ops[0] = &pool->op;
	pool->request.n_ops = 1;
	pool->request.ops = pool->ops;
	if (fill_for(moves->fill, replica, now_ms(moves), &pool->request, &full)) { /* servers are on their way back: with the next step */
		free(pool->open_pack.replicas);
		pool->open_pack.replicas = NULL;
		return;
	}
	pool->opening = true;
	pool->proposal = (struct proposal){ .request = &pool->request, .done = on_opened };
	replica_propose(replica, &pool->proposal);
}

/* Where the pack at hand is, a whole message; NULL: none is that takes blobs of the class. */
static Granary__ChunkLocation *pool_location(struct pool *pool)
{
	struct meta *meta = meta_of(pool->moves);
	Granary__ChunkLocation *location = NULL;
	Granary__Chunk *pack = NULL;

	if (!pool->current || meta_chunk(meta, pool->current, &pack)) {
		pool->current = 0;
		return NULL;
	}
	bool fits = !pack->sealed && !pack->frozen && pack->n_replicas > 0 && strcmp(pack->class_, pool->label) == 0;
	message_free(&pack->base);
	if (!fits || meta_chunk_location(meta, pool->current, &location))
		pool->current = 0;
	return location;
}

/* It is not to be used for the next one; full: by nobody. */
static void pool_turn(struct moves *moves, uint64_t pack, bool full)
{
	for (struct pool *pool = moves->pools; pool; pool = pool->hh.next) {
		if (pool->current != pack)
			continue;
		pool->current = 0;
		pool->full = full ? pack : 0;
	}
}

/* ---- a blob is moved */

enum start {
	START_DONE,    /* it runs, or is over */
	START_BLOCKED, /* it cannot begin yet */
};

static unsigned running_at(const struct moves *moves, uint64_t server)
{
	unsigned count = 0;

	for (const struct job *job = moves->jobs; job; job = job->hh.next)
		count += job->state == JOB_RUNNING && job->server == server;
	return count;
}

static Granary__ChunkCommand *command_of(const struct job *job, const Granary__Inode *inode, const Granary__ChunkLocation *from,
					 const Granary__ChunkLocation *to)
{
	Granary__ChunkCommand *command = mem_alloc(sizeof(*command));
	Granary__MoveCommand *move = mem_alloc(sizeof(*move));

	granary__chunk_command__init(command);
	granary__move_command__init(move);
	command->chunk = to->chunk;
	command->move = move;
	move->inode = job->inode;
	move->from = (Granary__ChunkLocation *)message_copy(&from->base);
	move->slot = inode->slot;
	move->bytes = inode->blob_bytes;
	move->to = (Granary__ChunkLocation *)message_copy(&to->base);
	return command;
}

static enum start tell(struct job *job, const Granary__Inode *inode, const Granary__ChunkLocation *to)
{
	struct moves *moves = job->moves;
	const struct server *head = servers_find(moves->context->servers, to->replicas[0]->server);
	Granary__ChunkLocation *from = NULL;

	if (!head || !servers_is_usable(head, now_ms(moves))) { /* it leaves the chain before long, or is back */
		pool_turn(moves, to->chunk, false);
		job_failed(job, ERR_UNREACHABLE);
		return START_DONE;
	}
	if (running_at(moves, head->id) >= MOVES_PER_SERVER_MAX)
		return START_BLOCKED;
	enum err err = meta_chunk_location(meta_of(moves), inode->pack, &from);
	if (err) {
		job_failed(job, err);
		return START_DONE;
	}
	bool told = commands_add(moves->context->commands, head->id, command_of(job, inode, from, to));
	message_unref(&from->base);
	if (!told) {
		job_failed(job, ERR_BUSY);
		return START_DONE;
	}
	job->pack = inode->pack;
	job->slot = inode->slot;
	job->to_pack = to->chunk;
	job->server = head->id;
	job->told_ms = now_ms(moves);
	DL_DELETE(moves->waiting, job);
	job->state = JOB_RUNNING;
	moves->running++;
	return START_DONE;
}

static enum start start_misplaced(struct job *job, const Granary__Inode *inode)
{
	struct moves *moves = job->moves;
	struct pool *pool = pool_of(moves, meta_label_in_force(meta_of(moves), inode->class_));
	Granary__ChunkLocation *to = pool ? pool_location(pool) : NULL;

	if (to) {
		enum start started = tell(job, inode, to);
		message_unref(&to->base);
		return started;
	}
	if (!pool || now_ms(moves) < pool->failed_until_ms) {
		job_failed(job, pool ? pool->failed : ERR_INVALID);
		return START_DONE;
	}
	if (!pool->opening)
		pool_open(pool);
	return START_BLOCKED;
}

static enum start start(struct job *job)
{
	struct moves *moves = job->moves;
	Granary__MetaReply *whole;
	Granary__Inode *inode = NULL;
	enum start started = START_DONE;

	if (!meta_task_exists(meta_of(moves), job->due_ns, job->id)) {
		job_end(job, OK);
		return START_DONE;
	}
	whole = message_open_whole(&granary__meta_reply__descriptor);
	enum err err = meta_inode(meta_of(moves), job->inode, &whole->base, &inode);
	if (err == OK && meta_blob_is_misplaced(meta_of(moves), inode))
		started = start_misplaced(job, inode);
	else
		propose(job, NULL, MOVE_AGAIN_MS);
	message_unref(&whole->base);
	return started;
}

static void on_pump(void *arg)
{
	struct moves *moves = arg;
	unsigned blocked = 0, begun = 0;

	/* By a state that is an old one, what is freed, or is to be found, may be another record. */
	if (!replica_can_read(moves->context->replica) || replica_space_is_low(moves->context->replica) ||
	    servers_are_ahead(moves->context->servers))
		return;
	while (moves->waiting && moves->running < MOVES_RUNNING_MAX && blocked < MOVES_BLOCKED_MAX && begun++ < MOVES_PER_PUMP_MAX) {
		struct job *job = moves->waiting;
		if (start(job) == START_DONE)
			continue;
		blocked++; /* others first */
		DL_DELETE(moves->waiting, job);
		DL_APPEND(moves->waiting, job);
	}
}

static void on_step(void *arg)
{
	struct moves *moves = arg;
	struct job *job, *next;

	HASH_ITER(hh, moves->jobs, job, next)
	{
		if (job->state != JOB_RUNNING || now_ms(moves) - job->told_ms < MOVE_MS_MAX)
			continue;
		pool_turn(moves, job->to_pack, false);
		job_failed(job, ERR_TIMEOUT);
	}
	on_pump(moves);
	if (moves->jobs)
		timer_start(&moves->step, MOVES_STEP_MS);
}

bool moves_due(void *arg, uint64_t due_ns, uint64_t id, uint64_t inode)
{
	struct moves *moves = arg;
	struct job *job;

	HASH_FIND(hh, moves->jobs, &id, sizeof(id), job);
	if (job)
		return true;
	if (HASH_COUNT(moves->jobs) >= MOVES_WAITING_MAX)
		return false;
	job = mem_zero(1, sizeof(*job));
	job->id = id;
	job->due_ns = due_ns;
	job->inode = inode;
	job->moves = moves;
	HASH_ADD(hh, moves->jobs, id, sizeof(job->id), job);
	job_wait(job);
	defer_post(&moves->pump);
	if (!timer_is_running(&moves->step))
		timer_start(&moves->step, MOVES_STEP_MS);
	return true;
}

/* ---- what servers say */

static struct job *job_of(const struct moves *moves, const Granary__MoveDone *message)
{
	struct job *job = moves->jobs;

	while (job && !(job->state == JOB_RUNNING && job->inode == message->inode && job->pack == message->pack &&
			job->slot == message->slot && job->to_pack == message->to_pack))
		job = job->hh.next;
	return job;
}

void moves_serve(struct moves *moves, struct rpc_request *request)
{
	const Granary__MoveDone *message = (const Granary__MoveDone *)request->message;
	struct replica *replica = moves->context->replica;
	Granary__Empty empty = GRANARY__EMPTY__INIT;

	if (!request->conn || rpc_conn_role(request->conn) != RPC_CHUNKSERVER) {
		rpc_reply_error(request, ERR_NOT_PERMITTED, NULL);
		return;
	}
	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	struct job *job = job_of(moves, message);
	if (message->error) {
		enum err err = err_from_wire(message->error);
		if (err != ERR_NOT_FOUND && err != ERR_CORRUPT) /* which is the old record's */
			pool_turn(moves, message->to_pack, err == ERR_PACK_FULL);
		if (job)
			job_failed(job, err);
		rpc_reply(request, &empty.base);
		return;
	}
	if (!job) { /* a predecessor's, or given up meanwhile: the record is there all the same, to be used or freed */
		job = mem_zero(1, sizeof(*job));
		job->moves = moves;
		job->inode = message->inode;
		job->state = JOB_PROPOSED;
	}
	job->done = request;
	propose(job, message, MOVE_AGAIN_MS);
}

/* ---- life */

void moves_leading(struct moves *moves)
{
	moves->leading = true;
}

void moves_deposed(struct moves *moves)
{
	struct job *job, *next;

	moves->leading = false;
	timer_stop(&moves->step);
	defer_cancel(&moves->pump);
	HASH_ITER(hh, moves->jobs, job, next)
	{
		check(job->state != JOB_PROPOSED);
		job_end(job, ERR_NOT_LEADER);
	}
	pools_forget(moves);
}

struct moves *moves_open(const struct chunk_change_context *context, struct fill *fill)
{
	struct moves *moves = mem_zero(1, sizeof(*moves));

	moves->context = context;
	moves->fill = fill;
	defer_init(&moves->pump, context->loop, on_pump, moves);
	timer_init(&moves->step, context->loop, on_step, moves);
	return moves;
}

void moves_close(struct moves *moves)
{
	if (!moves)
		return;
	moves_deposed(moves);
	check(!moves->pools);
	free(moves);
}
