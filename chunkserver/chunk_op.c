#include "chunkserver/chunk_op.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/adopt.h"
#include "chunkserver/chain.h"
#include "chunkserver/chunk_retry.h"
#include "chunkserver/chunk_write.h"
#include "chunkserver/cold_task.h"
#include "chunkserver/fill.h"
#include "chunkserver/master_link.h"
#include "chunkserver/mend.h"
#include "chunkserver/pack_op.h"
#include "chunkserver/read_op.h"
#include "chunkserver/rejoin.h"
#include "chunkserver/service.h"
#include "chunkserver/settle.h"
#include "chunkserver/store_files.h"
#include "common/base/check.h"
#include "common/proto/refusal.h"
#include "common/sys/log.h"

static void try_start(struct chunk_op *op);

bool chunk_op_is_write(const struct chunk_op *op)
{
	return op->kind == OP_WRITE || op->kind == OP_TRIM;
}

bool chunk_op_overlaps(const struct chunk_op *op, uint32_t first, uint32_t end)
{
	return op->first < end && first < op->end;
}

struct chunk_op *chunk_op_new(struct service *service, enum op_kind kind, struct rpc_request *request)
{
	struct chunk_op *op = mem_zero(1, sizeof(*op));
	op->service = service;
	op->kind = kind;
	op->arrived_ms = loop_now_ms(service->loop);
	if (request != NULL) {
		op->requests = mem_zero(1, sizeof(*op->requests));
		op->requests->request = request;
	}
	return op;
}

static void op_free(struct chunk_op *op)
{
	check(op->requests == NULL);
	iobuf_unref(op->buffer);
	free((void *)(uintptr_t)op->slots.bytes);
	free(op);
}

/* ---------------------------------------------------------------- answers */

static void answer_one(struct chunk_op *op, struct rpc_request *request, enum err err)
{
	if (err != OK) {
		char text[48] = "";
		if (err == ERR_CHAIN_BROKEN || err == ERR_NO_SPACE)
			snprintf(text, sizeof(text), "%" PRIu64, err == ERR_NO_SPACE && op->failed_server == 0 ? op->service->server : op->failed_server);
		else if (err == ERR_RETRY_UNKNOWN)
			snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64, op->service->incarnation, loop_now_ms(op->service->loop));
		else if (err == ERR_UNCERTAIN && op->chunk != NULL && op->chunk->blank)
			snprintf(text, sizeof(text), MEND_TEXT_BLANK);
		else if (err == ERR_CORRUPT && op->chunk != NULL && op->kind == OP_READ && chunk_is_torn(op->chunk, op->first, op->end))
			snprintf(text, sizeof(text), MEND_TEXT_TORN);
		else if ((err == ERR_STALE_VERSION || err == ERR_NO_CHUNK) && op->state == OP_ARRIVED)
			snprintf(text, sizeof(text), REFUSAL_UNBEGUN);
		rpc_reply_error(request, err, text);
		return;
	}
	Granary__ChunkWriteReply written = GRANARY__CHUNK_WRITE_REPLY__INIT;
	Granary__BlobAppendReply appended = GRANARY__BLOB_APPEND_REPLY__INIT;
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	written.sequence = op->sequence;
	appended.slot = op->slot;
	switch (op->kind) {
	case OP_WRITE:
		rpc_reply(request, &written.base);
		break;
	case OP_APPEND:
		rpc_reply(request, &appended.base);
		break;
	case OP_TRIM:
	case OP_SYNC: /* of a write that was done before: chunk_retry.h */
		rpc_reply(request, request->type == MESSAGE_CHUNK_WRITE ? &written.base : &empty.base);
		break;
	case OP_READ:
	case OP_BLOB_READ:
	case OP_DELETE_SLOTS:
	case OP_FILL:
	case OP_SUMS:
	case OP_SLOTS:
		check(false); /* these answer by themselves */
	}
}

void chunk_op_answer(struct chunk_op *op, enum err err)
{
	struct op_request *request = op->requests;
	op->requests = NULL;
	/* They pointed into the request. */
	op->replicas = NULL;
	op->replica_count = 0;
	op->crcs = op->data = slice_of(NULL, 0);
	while (request != NULL) {
		struct op_request *next = request->next;
		answer_one(op, request->request, err);
		free(request);
		request = next;
	}
	if (op->done != NULL)
		op->done(op->arg, err);
	op->done = NULL;
}

void chunk_op_remove(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	check(!op->local_pending && op->call == 0);
	DL_DELETE2(chunk->first_op, op, previous, next);
	if (op->is_ready)
		DL_DELETE2(op->service->ready, op, ready_previous, ready_next);
	op->service->ops--;
	chunk_ops_wake(chunk, op);
	op_free(op);
	chunk_unuse(chunk);
}

void chunk_op_refuse(struct chunk_op *op, enum err err)
{
	chunk_op_answer(op, err);
	chunk_op_remove(op);
}

/* ---------------------------------------------------------------- waiting */

void chunk_ops_wake(struct chunk *chunk, const struct chunk_op *by)
{
	struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (op->state != OP_WAITING || (by != NULL && op->blocked_by != by))
			continue;
		op->blocked_by = NULL;
		if (op->is_ready)
			continue;
		op->is_ready = true;
		DL_APPEND2(op->service->ready, op, ready_previous, ready_next);
		defer_post(&op->service->run_ready);
	}
}

void chunk_ops_run_ready(void *arg)
{
	struct service *service = arg;
	while (service->ready != NULL) {
		struct chunk_op *op = service->ready;
		DL_DELETE2(service->ready, op, ready_previous, ready_next);
		op->is_ready = false;
		try_start(op);
	}
}

/* Must `op` wait for the earlier operation? */
static bool is_blocked(const struct chunk_op *op, const struct chunk_op *earlier)
{
	/* What is on the disk is whole when it is applied, acknowledged or not. */
	if (op->scrubs && earlier->applied)
		return false;
	/* Anywhere: it tells where the chunk ends, too. What is unsettled waits for him who asks. */
	if (op->for_predecessor)
		return chunk_op_is_write(earlier) && earlier->state != OP_UNSETTLED;
	if (op->kind == OP_SUMS || op->kind == OP_FILL)
		return fill_is_blocked(op, earlier);
	if (!chunk_op_overlaps(earlier, op->first, op->end))
		return false;
#ifdef PLANT_CHUNK_READ_UNWAITED
	if (op->kind == OP_READ)
		return false;
#endif
	if (op->kind == OP_READ)
		return chunk_op_is_write(earlier);
	switch (earlier->state) {
	case OP_ARRIVED:
	case OP_WAITING:
		return true;
	case OP_RUNNING:
		return !earlier->applied;
	case OP_UNSETTLED:
	case OP_SETTLING:
		return op->from_client;
	}
	return true;
}

static struct chunk_op *find_blocker(const struct chunk_op *op)
{
	/* The previous of the first is the last. The latest is likely to end last. */
	struct chunk_op *first = op->chunk->first_op;
	for (struct chunk_op *earlier = op->previous; op != first; earlier = earlier->previous) {
		if (is_blocked(op, earlier))
			return earlier;
		if (earlier == first)
			break;
	}
	return NULL;
}

/* ---------------------------------------------------------------- the start */

struct marking {
	struct work work;
	struct chunk *chunk;
	enum err err;
};

static void marking_run(struct work *work)
{
	struct marking *marking = container_of(work, struct marking, work);
	marking->err = chunk_store_sync_index(marking->chunk->store);
}

static void marking_done(struct work *work)
{
	struct marking *marking = container_of(work, struct marking, work);
	struct chunk *chunk = marking->chunk;
	struct chunk_store *store = chunk->store;
	chunk->mark = marking->err == OK ? MARK_SET : MARK_NONE;
	if (marking->err != OK)
		chunk_store_fail(store, "mark", marking->err);
	chunk_ops_wake(chunk, NULL);
	chunk_unuse(chunk);
	free(marking);
	chunk_store_work_end(store);
}

/* Sees to the dirty mark: false when it has to wait until that is durable. Only then is anything written here, or passed on: who has passed
 * something on, and comes back from a loss of power without it and without a mark, would be taken for one that has everything. */
static bool mark_dirty(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	if (chunk->mark != MARK_NONE)
		return chunk->mark == MARK_SET;
	enum err err = chunk_store_mark(chunk);
	if (err != OK) {
		chunk_store_fail(chunk->store, "mark", err);
		chunk_op_refuse(op, ERR_STORE_FAILED);
		return false;
	}
	struct marking *marking = mem_zero(1, sizeof(*marking));
	marking->chunk = chunk;
	marking->err = ERR_CANCELLED;
	marking->work.run = marking_run;
	marking->work.done = marking_done;
	chunk->mark = MARK_SETTING;
	chunk_use(chunk);
	chunk_store_submit(chunk->store, NULL, &marking->work);
	return false;
}

/* A sync is what tells a writer that all that was written before is there. */
static bool tells_loss(struct chunk_op *op)
{
	if (!op->chunk->loss_untold || !op->from_client || !(op->sync || op->kind == OP_SYNC))
		return false;
	op->chunk->loss_untold = false;
	chunk_op_refuse(op, ERR_DATA_LOST);
	return true;
}

/* From a server of the chain on its own account: what it has, which may be without what was written here. */
static bool is_content(const struct chunk_op *op)
{
	bool found = false;
	for (size_t i = 0; i < op->replica_count; i++)
		found = found || op->replicas[i]->server == op->client;
	return found && chunk_op_is_write(op) && !op->from_client;
}

static enum err admit_bytes(const struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	if (op->kind != OP_WRITE)
		return OK;
	bool repairs = op->mends || (is_content(op) && chunk->copy == COPY_COMPLETE);
	return repairs ? chunk_store_admit_repair(chunk->store, op->size) : chunk_store_admit(chunk->store, op->size);
}

static bool overlaps_running(const struct chunk_op *op)
{
	const struct chunk_op *other;
	DL_FOREACH2 (op->chunk->first_op, other, next) {
		if (other != op && other->state == OP_RUNNING && !other->applied && chunk_op_overlaps(other, op->first, op->end))
			return true;
	}
	return false;
}

static void start_write(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	/* It may have waited, or this process may have stood still, since it came. */
	if (op->from_client && !master_link_has_lease(op->service->link)) {
		chunk_op_refuse(op, ERR_NO_LEASE);
		return;
	}
	if (op->from_client && fence_refuses(&op->service->fence, op->session)) {
		chunk_op_refuse(op, ERR_NO_SESSION);
		return;
	}
	/* What is in it elsewhere, or was, is not here: what it is to be written into. */
	if (op->from_client && chunk_is_lost(chunk)) {
		if (!cold_task_makes(op->service, chunk->id, chunk->version)) {
			chunk_op_refuse(op, ERR_DATA_LOST);
			return;
		}
		mend_filled(chunk); /* all of it is written anew, in a version that nobody else asks for */
	}
	if (tells_loss(op))
		return;
	if (op->mends && (!mend_is_valid(chunk) || overlaps_running(op))) {
		chunk_op_refuse(op, ERR_BUSY);
		return;
	}
	enum err err = admit_bytes(op);
	if (err == ERR_NO_SPACE && op->from_client)
		chain_tell_full(op, chunk->id, op->service->server);
	if (err != OK) {
		chunk_op_refuse(op, err);
		return;
	}
	if (!mark_dirty(op))
		return;
	if (op->known_ms != 0)
		chunk_retry_begin(op);
	op->state = OP_RUNNING;
	op->local_pending = true;
	if (op->mends)
		chunk_ops_replaced(chunk, op->first, op->end);
	else
		mend_note_write(chunk, op);
	op->blocks_before = chunk->file.blocks;
	op->sync_begun = op->sync && chunk_sync_begin(chunk, &op->sync_job);
	if (op->kind == OP_WRITE && op->size >= CHUNK_DIRECT_BYTES_MIN && op->offset % BLOCK_BYTES == 0)
		chunk_file_want_direct(&chunk->file, op->service->loop, chunk->path);
	chunk->writes_begun++;
	chain_forward(op);
	chunk_write_start(op);
}

static void synced(void *arg, enum err err)
{
	chunk_op_local_done(arg, err);
}

static void start_sync(struct chunk_op *op)
{
	if (chunk_is_lost(op->chunk)) {
		chunk_op_refuse(op, ERR_DATA_LOST);
		return;
	}
	if (tells_loss(op))
		return;
	op->state = OP_RUNNING;
	op->local_pending = true;
	chain_forward(op);
	chunk_sync(op->chunk, synced, op);
}

static bool is_read(const struct chunk_op *op)
{
	return op->kind == OP_READ || op->kind == OP_BLOB_READ || op->kind == OP_SLOTS;
}

/* It was done before. If it has to be synced it is no different from all that was: here it may be what another member had of it, and kept,
 * and we did not. */
static void end_done(struct chunk_op *op)
{
	if (!op->sync) {
		chunk_op_refuse(op, OK);
		return;
	}
	op->kind = OP_SYNC;
	op->is_done = false;
	op->client = 0;
	try_start(op);
}

static void try_start(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	bool reads = is_read(op);
	if (chunk->state == CHUNK_DELETED || op->service->stopping) {
		chunk_op_refuse(op, op->service->stopping ? ERR_CANCELLED : ERR_NO_CHUNK);
		return;
	}
	if (!reads && chunk_store_failed(chunk->store)) {
		chunk_op_refuse(op, ERR_STORE_FAILED);
		return;
	}
	if (op->kind == OP_READ && chunk->uncertain && (chunk->blank || !op->even_uncertain) && !op->scrubs) {
		if (op->for_predecessor && op->life != 0)
			mend_compare_again(chunk);
		chunk_op_refuse(op, chunk_is_lost(chunk) ? ERR_NO_CHUNK : ERR_UNCERTAIN);
		return;
	}
	if (op->from_client && chunk_op_is_write(op) && chunk->blank && !chunk->misplaced &&
	    !chunk->sourced && !chunk_is_lost(chunk))
		return; /* woken when it is known whether others have what it is written into */
	bool doubtful = chunk->uncertain && chunk->copy == COPY_COMPLETE && !chunk_is_lost(chunk); /* what is being filled has to be synced */
	if (chunk->rejoin != NULL || (chunk->adopting && !reads) || (op->kind == OP_SYNC && doubtful))
		return; /* woken when it is done */
	if (op->retry_unchecked) {
		if (chunk_retry_waits(op))
			return;
		op->retry_unchecked = false;
		if (chunk_retry_ends(op))
			return;
	}
	op->blocked_by = find_blocker(op);
	if (op->blocked_by != NULL) {
		if (op->blocked_by->state == OP_UNSETTLED)
			settle_chunk(op->service, chunk);
		return;
	}
	if (op->is_done) {
		end_done(op);
		return;
	}
	switch (op->kind) {
	case OP_WRITE:
	case OP_TRIM:
		start_write(op);
		break;
	case OP_SYNC:
		start_sync(op);
		break;
	case OP_READ:
		read_op_start(op);
		break;
	case OP_APPEND:
	case OP_DELETE_SLOTS:
		pack_op_start(op);
		break;
	case OP_BLOB_READ:
		pack_op_read(op);
		break;
	case OP_FILL:
		fill_op_start(op);
		break;
	case OP_SUMS:
		fill_answer_sums(op);
		break;
	case OP_SLOTS:
		pack_op_list(op);
		break;
	}
}

/* ---------------------------------------------------------------- the end */

static void complete(struct chunk_op *op)
{
	if (op->local_pending || op->call != 0)
		return;
	struct chunk *chunk = op->chunk;
	if (op->local_err == OK && is_content(op)) {
		op_ring_replaced(&chunk->ring, op->first, op->end, op_ring_now(op->service->loop));
		op->client = 0;
	}
	enum err err = op->local_err != OK ? op->local_err : op->chain_err;
	if (op->local_err == OK && op->client != 0 && (err == OK || op->kind == OP_APPEND))
		chunk_retry_remember(op);
	if (err == OK && op->kind == OP_WRITE && !chunk->written) {
		chunk->written = true;
		if (chunk->state == CHUNK_READY)
			chunk_store_save(chunk);
	}
	if (err == OK && chunk_op_is_write(op) && !op->from_client && !op->mends)
		settle_covered(chunk, op->first, op->end);
	chunk_op_answer(op, err);
	/* Of a copy that goes, is out of the chain, or is filled anew, nothing counts any more. */
	bool counts = chunk->state == CHUNK_READY && chunk->copy == COPY_COMPLETE;
	if (err != OK && chunk_op_is_write(op) && op->successor != 0 && counts) {
		op->state = OP_UNSETTLED;
		op->applied = true;
		if (op->local_err != OK)
			settle_failed_here(op);
		chunk_ops_wake(chunk, op);
		return;
	}
	chunk_op_remove(op);
}

void chunk_ops_replaced(struct chunk *chunk, uint32_t first, uint32_t end)
{
	struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (op->state != OP_UNSETTLED || !chunk_op_overlaps(op, first, end))
			continue;
		op->client = 0;
		op->failed_server = op->service->server;
		op_ring_replaced(&chunk->ring, first, end, op_ring_now(op->service->loop));
		chunk_op_answer(op, ERR_CHAIN_BROKEN);
	}
}

void chunk_op_local_done(struct chunk_op *op, enum err err)
{
	op->local_pending = false;
	op->local_err = err;
	op->applied = true;
	chunk_ops_wake(op->chunk, op);
	complete(op);
}

void chunk_op_chain_done(struct chunk_op *op)
{
	op->call = 0;
	if (op->state == OP_SETTLING)
		settle_chain_done(op);
	else if (op->kind == OP_FILL)
		fill_chain_done(op);
	else
		complete(op);
}

/* ---------------------------------------------------------------- arrival */

/* Operations of one connection come without a gap. */
static enum err check_sequence(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	const struct rpc_conn *from = op->requests->request->conn;
	uint64_t expected = chunk->received_sequence + 1;
	bool known = from != NULL && chunk->received_from == from;
	chunk->received_from = from;
	chunk->received_sequence = op->sequence;
	if (!known || op->sequence == expected)
		return OK;
	log_warn("sequence_gap", "chunk=%016" PRIx64 " got=%" PRIu64 " expected=%" PRIu64, chunk->id, op->sequence, expected);
	op->failed_server = op->service->server;
	return ERR_CHAIN_BROKEN;
}

static bool copy_is_readable(const struct chunk *chunk)
{
#ifdef PLANT_INCOMPLETE_COPY_SERVED
	return chunk->copy != COPY_RETIRED;
#elif defined(PLANT_RETIRED_COPY_SERVED)
	return chunk->copy != COPY_JOINING;
#endif
	return chunk->copy == COPY_COMPLETE;
}

static enum err check_version(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
#ifdef PLANT_VERSION_CHECK_SKIPPED
	if (op->version < chunk->version)
		op->version = chunk->version;
#endif
	if (op->version < chunk->version)
		return ERR_STALE_VERSION;
	if (op->exact && op->version > chunk->version)
		return ERR_NO_CHUNK;
	/* A reader that knows a newer version than this member: it was told so by the master, who named us. */
	if (is_read(op))
		return copy_is_readable(chunk) ? OK : ERR_BUSY;
	/* Not "stale": whoever asks has to tell the master, who may not have left us out. */
	if (op->version == chunk->version && chunk->copy == COPY_RETIRED)
		return ERR_NO_LEASE;
	/* An operation may name as a newcomer who is complete by now: of what is asked of the others, and of whom, the master says more. */
	if (op->version == chunk->version && (chain_is_known(chunk) || chunk->uncertain || chunk->rejoin != NULL))
		return OK;
	Granary__ChunkLocation chain = GRANARY__CHUNK_LOCATION__INIT;
	chain.chunk = chunk->id;
	chain.version = op->version;
	chain.n_replicas = op->replica_count;
	chain.replicas = (Granary__Replica **)(uintptr_t)op->replicas;
	chunk_adopt(op->service, chunk, &chain);
	return OK;
}

/* What a process of the predecessor sent before it died may still lie in a socket when its next one has compared our copy with its own
 * (rejoin.h, fill.h): it would be here and not there. */
static enum err check_life(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	bool compares = op->kind == OP_SUMS || op->for_predecessor;
	if (op->life == 0)
		return OK;
	if (op->life < chunk->received_life) {
		op->failed_server = op->service->server;
		return ERR_CHAIN_BROKEN;
	}
	if (compares)
		chunk->received_life = op->life;
	return OK;
}

static bool fits_kind(const struct chunk_op *op)
{
	bool pack = op->kind == OP_APPEND || op->kind == OP_BLOB_READ || op->kind == OP_DELETE_SLOTS ||
		    op->kind == OP_SLOTS;
	return op->kind == OP_SYNC || op->kind == OP_SUMS || pack == (op->chunk->kind == KIND_PACK);
}

/* The chunk is open: is this a request that it takes? */
static void admit(struct chunk_op *op)
{
	enum err err = fits_kind(op) ? OK : ERR_INVALID;
	if (err == OK && op->kind != OP_DELETE_SLOTS)
		err = check_version(op);
	else if (err == OK && op->chunk->copy != COPY_COMPLETE) /* what is deleted now may be filled in again later */
		err = op->chunk->copy == COPY_JOINING ? ERR_BUSY : ERR_NO_CHUNK;
	bool changes = chunk_op_is_write(op) || op->kind == OP_APPEND;
	if (err == OK)
		err = check_life(op);
	if (err == OK && changes && !op->from_client && !op->mends)
		err = check_sequence(op);
	if (err == OK && changes && op->from_client && chain_is_full(op))
		err = ERR_BUSY;
	if (err != OK) {
		chunk_op_refuse(op, err);
		return;
	}
	bool checked = changes && op->from_client && op->client != 0;
	op->retry_unchecked = checked && chunk_retry_waits(op);
	if (checked && !op->retry_unchecked && chunk_retry_ends(op))
		return;
	if (op->kind == OP_APPEND && !op->applied) {
		err = pack_op_give_slot(op);
		if (err != OK) {
			chunk_op_refuse(op, err);
			return;
		}
	}
	op->state = OP_WAITING;
	try_start(op);
}

void chunk_op_submit(struct chunk_op *op, uint64_t id, const struct chunk_create *create)
{
	struct service *service = op->service;
	struct chunk *chunk = NULL;
	enum err err = service->ops >= CHUNK_OPS_PENDING_MAX ? ERR_BUSY : chunk_store_get(service->store, id, create, &chunk);
	if (err == ERR_NO_SPACE && op->from_client)
		chain_tell_full(op, id, service->server);
	if (err != OK) {
		chunk_op_answer(op, err);
		op_free(op);
		return;
	}
	op->chunk = chunk;
	op->state = OP_ARRIVED;
	chunk_use(chunk);
	service->ops++;
	if (op->mends)
		DL_PREPEND2(chunk->first_op, op, previous, next);
	else
		DL_APPEND2(chunk->first_op, op, previous, next);
	if (chunk->state == CHUNK_READY)
		admit(op);
}

void chunk_op_begin(struct chunk_op *op, struct chunk *chunk)
{
	op->chunk = chunk;
	op->state = OP_WAITING;
	chunk_use(chunk);
	op->service->ops++;
	DL_APPEND2(chunk->first_op, op, previous, next);
	try_start(op);
}

void chunk_ops_opened(struct service *service, struct chunk *chunk, enum err err)
{
	struct chunk_op *op, *next;
	chunk_use(chunk);
	if (err == OK && chunk->recovered && !chunk->uncertain)
		rejoin_start(service, chunk);
	if (err == OK)
		fill_check(service, chunk);
	DL_FOREACH_SAFE2 (chunk->first_op, op, next, next) {
		if (op->state != OP_ARRIVED)
			continue;
		if (err == OK)
			admit(op);
		else
			chunk_op_refuse(op, err);
	}
	if (err == OK)
		mend_start(service, chunk);
	chunk_unuse(chunk);
}

void chunk_ops_abandon(struct chunk *chunk, enum err err)
{
	struct chunk_op *op, *next;
	rejoin_abort(chunk);
	mend_abort(chunk);
	fill_abort(chunk);
	DL_FOREACH_SAFE2 (chunk->first_op, op, next, next) {
		if (op->state == OP_WAITING || op->state == OP_UNSETTLED)
			chunk_op_refuse(op, err);
	}
}
