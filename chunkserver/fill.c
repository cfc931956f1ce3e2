#include "chunkserver/fill.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "chunkserver/chain.h"
#include "chunkserver/chunk_retry.h"
#include "chunkserver/fill_internal.h"
#include "chunkserver/master_link.h"
#include "chunkserver/mend.h"
#include "chunkserver/settle.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/proto/settings.h"
#include "common/sys/log.h"

#define REPORT_AFTER 2u /* failures in a row */

/* One operation of a fill. */
struct piece {
	struct fill *fill;
	bool barrier;
	uint32_t number;
	uint32_t first, count; /* blocks that differ, from the first to the last: a run */
	bool partial;	       /* there are others, or some that have to wait */
};

static void ask(struct fill *fill);

/* ---------------------------------------------------------------- what may be sent */

uint64_t fill_budget_wait(struct service *service)
{
	uint64_t rate = setting_value(master_link_settings(service->link), SETTING_REPAIR_RATE);
	return budget_wait(&service->fill_budget, loop_now_us(service->loop), rate);
}

void fill_spent(struct fill *fill, uint64_t bytes)
{
	struct service *service = fill->service;
	budget_spend(&service->fill_budget, bytes);
	service->fill_bytes += bytes;
	service->filling_bytes += bytes;
	fill->sent_bytes += bytes;
}

/* ---------------------------------------------------------------- life */

static void fill_free(struct fill *fill)
{
	struct chunk *chunk = fill->chunk;
	check(fill->in_flight == 0 && fill->call == 0);
	timer_stop(&fill->timer);
	fill->service->filling_bytes -= fill->sent_bytes;
	free(fill->sums);
	free(fill->sent);
	free(fill->taken);
	free(fill);
	chunk_unuse(chunk);
}

void fill_abort(struct chunk *chunk)
{
	struct fill *fill = chunk->fill;
	if (fill == NULL)
		return;
	chunk->fill = NULL;
	fill->ending = true;
	timer_stop(&fill->timer);
	if (fill->call != 0)
		rpc_call_cancel(fill->service->rpc, fill->call);
	fill->call = 0;
	if (fill->in_flight == 0)
		fill_free(fill);
}

void fill_continue(struct fill *fill, uint64_t delay_ms)
{
	if (!fill->ending)
		timer_start(&fill->timer, delay_ms);
}

static void start_again(struct fill *fill, uint64_t delay_ms)
{
	fill->state = FILL_PAUSED;
	fill_continue(fill, delay_ms);
}

void fill_give_up(struct fill *fill, enum err err)
{
	if (fill->state == FILL_REPORTING)
		return;
	log_warn("fill_given_up", "chunk=%016" PRIx64 " server=%016" PRIx64 " error=%s", fill->chunk->id, fill->server, err_name(err));
	fill->state = FILL_REPORTING;
	fill->err = err;
	fill_continue(fill, 0);
}

const Granary__Replica *fill_newcomer(const struct fill *fill)
{
	const Granary__Replica *joining = chain_joining(fill->service, fill->chunk);
	bool same = joining != NULL && joining->server == fill->server && fill->chunk->version == fill->version;
	return same && !fill->ending ? joining : NULL;
}

static struct rpc_peer *newcomer_peer(const struct fill *fill)
{
	const Granary__Replica *newcomer = fill_newcomer(fill);
	return newcomer == NULL ? NULL :
				  chain_peer(fill->service, newcomer->address, chain_lane(fill->service, fill->chunk));
}

/* A step that failed. */
static void note_failure(struct fill *fill, enum err err)
{
	if (err == ERR_NO_SPACE || err == ERR_STORE_FAILED) {
		fill_give_up(fill, err);
		return;
	}
	/* Another chain is on its way to us; or it has to be settled, or mended, first. */
	if (err == ERR_STALE_VERSION || err == ERR_CANCELLED || err == ERR_BUSY)
		return;
	if (++fill->failures >= FILL_ATTEMPTS_MAX)
		fill_give_up(fill, err);
	else if (fill->failures >= REPORT_AFTER && !fill->service->stopping)
		master_link_report(fill->service->link, &(struct master_link_failure){ .chunk = fill->chunk->id,
											.version = fill->version,
											.server = fill->server });
}

void fill_wait_for_mend(struct fill *fill)
{
	uint64_t ms = (uint64_t)FILL_PAUSE_MS << (fill->waits < 6 ? fill->waits : 6);
	mend_start(fill->service, fill->chunk);
	if (++fill->waits > FILL_ATTEMPTS_MAX)
		fill_give_up(fill, ERR_CORRUPT);
	else
		fill_continue(fill, ms < MEND_RETRY_MS_MAX ? ms : MEND_RETRY_MS_MAX);
}

static void report(struct fill *fill)
{
	struct service *service = fill->service;
	if (service->stopping || fill_newcomer(fill) == NULL)
		return;
	master_link_filled(service->link, &(struct master_link_fill){ .chunk = fill->chunk->id,
								       .version = fill->version,
								       .server = fill->server,
								       .err = fill->err,
								       .bytes = fill->sent_bytes });
}

/* ---------------------------------------------------------------- the newcomer's copy as it is */

bool fill_is_blocked(const struct chunk_op *op, const struct chunk_op *earlier)
{
	if (op->chunk->kind == KIND_PACK)
		return earlier->kind == OP_APPEND && !earlier->applied;
	/* What is unsettled waits for a write of the predecessor, which would wait for us. */
	if (!chunk_op_is_write(earlier) || earlier->applied || earlier->state == OP_UNSETTLED || earlier->state == OP_SETTLING)
		return false;
	return op->kind == OP_SUMS || chunk_op_overlaps(earlier, op->first, op->end);
}

void fill_answer_sums(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	struct op_request *request = op->requests;
	Granary__ChunkSumsReply reply = GRANARY__CHUNK_SUMS_REPLY__INIT;
	bool checking = ((const Granary__ChunkSums *)request->request->message)->checking;
	uint32_t count = chunk->kind == KIND_PACK || checking ? 0 : chunk->file.blocks;
	/* What was done here the predecessor may not have done, if it died since, and it may have done more. */
	if (!checking && chunk->copy == COPY_JOINING)
		op_ring_restart(&chunk->ring, op_ring_now(op->service->loop));
	uint8_t *crcs = mem_alloc(4ul * count + 4);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t crc = chunk_file_crc(&chunk->file, i);
		put_le32(crcs + 4ul * i, chunk_is_damaged(chunk, i, i + 1) ? ~crc : crc);
	}
	if (checking && chunk->copy == COPY_JOINING)
		chunk->filled_version = chunk->version;
	reply.incarnation = op->service->incarnation;
	reply.crcs = message_borrow(slice_of(crcs, 4ul * count));
	op->requests = NULL;
	rpc_reply(request->request, &reply.base);
	free(request);
	free(crcs);
	chunk_op_answer(op, OK);
	chunk_op_remove(op);
}

static enum err take_sums(struct fill *fill, const Granary__ChunkSumsReply *reply)
{
	if (reply->crcs.len % 4 != 0 || reply->crcs.len > CHUNK_CRCS_BYTES || reply->incarnation == 0)
		return ERR_PROTOCOL;
	fill->incarnation = reply->incarnation;
	fill->sum_count = (uint32_t)(reply->crcs.len / 4);
	free(fill->sums);
	fill->sums = mem_alloc(4ul * fill->sum_count + 4); /* grows: note_sent */
	for (uint32_t i = 0; i < fill->sum_count; i++)
		fill->sums[i] = get_le32(reply->crcs.data + 4ul * i);
	return OK;
}

static void begin_barrier(struct fill *fill);

static void complete(struct fill *fill)
{
	log_info("copy_filled", "chunk=%016" PRIx64 " version=%" PRIu64 " server=%016" PRIx64 " bytes=%" PRIu64, fill->chunk->id,
		 fill->version, fill->server, fill->sent_bytes);
	fill->state = FILL_REPORTING;
	fill->err = OK;
	report(fill);
}

static void on_sums(void *arg, const struct rpc_result *result)
{
	struct fill *fill = arg;
	const Granary__ChunkSumsReply *reply = (const Granary__ChunkSumsReply *)result->reply;
	bool checking = fill->state == FILL_CHECKING;
	enum err err = result->err;
	fill->call = 0;
	if (err == OK && checking) {
		if (reply->incarnation == fill->incarnation)
			complete(fill);
		else
			start_again(fill, 0);
		return;
	}
	if (err == OK)
		err = take_sums(fill, reply);
	if (err == OK) {
		begin_barrier(fill);
		return;
	}
	/* It had this chunk once, and its file is gone: it is not made anew there. */
	if (err == ERR_CORRUPT)
		fill_give_up(fill, ERR_STORE_FAILED);
	else
		note_failure(fill, err);
	if (fill->state != FILL_REPORTING)
		start_again(fill, FILL_PAUSE_MS);
}

static void ask_sums(struct fill *fill, enum fill_state state)
{
	struct rpc_peer *peer = service_has_lease(fill->service) ? newcomer_peer(fill) : NULL;
	struct chunk *chunk = fill->chunk;
	Granary__ChunkSums message = GRANARY__CHUNK_SUMS__INIT;
	if (peer == NULL) {
		start_again(fill, FILL_PAUSE_MS);
		return;
	}
	fill->state = state;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.kind = chunk->kind == KIND_PACK ? GRANARY__CHUNK_KIND__CHUNK_PACK : GRANARY__CHUNK_KIND__CHUNK_REPLICATED;
	message.replicas = chunk->chain->replicas;
	message.n_replicas = chunk->chain->n_replicas;
	message.checking = state == FILL_CHECKING;
	message.life = fill->service->life;
	fill->call = rpc_peer_call(peer, MESSAGE_CHUNK_SUMS, &message.base, NULL, CHAIN_SYNC_TIMEOUT_MS, on_sums, fill);
}

static void ask(struct fill *fill)
{
	if (fill->in_flight > 0) /* of the attempt before: they go on when they have ended */
		return;
	ask_sums(fill, FILL_ASKING);
}

/* ---------------------------------------------------------------- sync */

static void on_synced(void *arg, const struct rpc_result *result)
{
	struct fill *fill = arg;
	fill->call = 0;
	if (result->err == OK) {
		ask_sums(fill, FILL_CHECKING);
		return;
	}
	note_failure(fill, result->err);
	if (fill->state != FILL_REPORTING)
		start_again(fill, FILL_PAUSE_MS);
}

void fill_sync(struct fill *fill)
{
	struct rpc_peer *peer = newcomer_peer(fill);
	struct chunk *chunk = fill->chunk;
	Granary__ChunkSync message = GRANARY__CHUNK_SYNC__INIT;
	if (peer == NULL) {
		start_again(fill, FILL_PAUSE_MS);
		return;
	}
	fill->state = FILL_SYNCING;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.replicas = chunk->chain->replicas;
	message.n_replicas = chunk->chain->n_replicas;
	fill->call = rpc_peer_call(peer, MESSAGE_CHUNK_SYNC, &message.base, NULL, CHAIN_SYNC_TIMEOUT_MS, on_synced, fill);
}

/* ---------------------------------------------------------------- pieces */

static void op_end(struct chunk_op *op, enum err err)
{
	chunk_op_answer(op, err);
	chunk_op_remove(op);
}

static bool is_unsettled(const struct chunk_op *op)
{
	const struct chunk_op *other;
	DL_FOREACH2 (op->chunk->first_op, other, next) {
		if (chunk_op_is_write(other) && other->state >= OP_UNSETTLED && chunk_op_overlaps(other, op->first, op->end))
			return true;
	}
	return false;
}

void fill_part_ended(struct fill *fill, enum err err)
{
	check(fill->in_flight > 0);
	fill->in_flight--;
	if (fill->ending) {
		if (fill->in_flight == 0)
			fill_free(fill);
		return;
	}
	if (err == OK)
		fill->failures = 0;
	else
		note_failure(fill, err);
	fill_continue(fill, err == OK ? 0 : FILL_PAUSE_MS);
}

/* One run of several: it is left out the next time. */
static void note_sent(const struct piece *piece)
{
	struct fill *fill = piece->fill;
	if (piece->count == 0 || fill->ending)
		return;
	if (fill->sum_count < CHUNK_BLOCKS)
		fill->sums = mem_resize(fill->sums, 4ul * CHUNK_BLOCKS);
	while (fill->sum_count < CHUNK_BLOCKS)
		fill->sums[fill->sum_count++] = crc32c_zero_block();
	for (uint32_t i = piece->first; i < piece->first + piece->count; i++)
		fill->sums[i] = chunk_file_crc(&fill->chunk->file, i);
	fill->waits = 0;
}

static void piece_ended(void *arg, enum err err)
{
	struct piece *piece = arg;
	struct fill *fill = piece->fill;
	if (piece->barrier && fill->state == FILL_BARRIER && !fill->ending) {
		if (err == OK && fill->chunk->kind == KIND_PACK)
			fill_pack_start(fill);
		fill->state = err == OK ? FILL_COPYING : FILL_PAUSED;
	} else if (err == OK && !piece->barrier && piece->partial) {
		note_sent(piece);
	} else if (err == OK && !piece->barrier) {
		fill->waits = piece->count > 0 ? 0 : fill->waits;
		fill->todo[piece->number / 64] &= ~(1ull << piece->number % 64);
	}
	free(piece);
	fill_part_ended(fill, err);
}

static struct chunk_op *op_open(struct fill *fill, uint32_t first, uint32_t end)
{
	struct piece *piece = mem_zero(1, sizeof(*piece));
	struct chunk_op *op = chunk_op_new(fill->service, OP_FILL, NULL);
	piece->fill = fill;
	op->first = first;
	op->end = end;
	op->version = fill->version;
	op->done = piece_ended;
	op->arg = piece;
	fill->in_flight++;
	return op;
}

static void begin_barrier(struct fill *fill)
{
	struct chunk_op *op = op_open(fill, 0, CHUNK_BLOCKS);
	((struct piece *)op->arg)->barrier = true;
	fill->state = FILL_BARRIER;
	chunk_op_begin(op, fill->chunk);
}

static void begin_piece(struct fill *fill, uint32_t number)
{
	struct chunk_op *op = op_open(fill, number * PIECE_BLOCKS, (number + 1) * PIECE_BLOCKS);
	((struct piece *)op->arg)->number = number;
	chunk_op_begin(op, fill->chunk);
}

/* All that was begun before is applied here. From now on the newcomer gets what changes. */
static void barrier_start(struct chunk_op *op)
{
	struct fill *fill = ((struct piece *)op->arg)->fill;
	const struct chunk *chunk = op->chunk;
	fill->end_block = chunk->kind == KIND_PACK ? 0 : chunk->file.blocks;
	fill->slot_count = chunk->kind == KIND_PACK ? chunk->pack.slot_count : 0;
	fill->cursor = 0;
	memset(fill->todo, 0, sizeof(fill->todo));
	for (uint32_t number = 0; number * PIECE_BLOCKS < fill->end_block; number++)
		fill->todo[number / 64] |= 1ull << number % 64;
	op->applied = true;
	if (fill->sum_count <= fill->end_block || chunk->kind == KIND_PACK) {
		op_end(op, OK);
		return;
	}
	chain_send_content(op, fill->end_block, NULL);
	chunk_ops_wake(op->chunk, op);
	if (op->call == 0)
		op_end(op, op->chain_err);
}

/* The first run of blocks that differ and are good, or that are lost. False: there is none. */
static bool find_difference(struct chunk_op *op, struct piece *piece)
{
	struct fill *fill = piece->fill;
	const struct chunk *chunk = op->chunk;
	const struct chunk_file *file = &chunk->file;
	uint32_t end = op->end < file->blocks ? op->end : file->blocks;
	piece->count = 0;
	for (uint32_t block = op->first; block < end; block++) {
		uint32_t sum = block < fill->sum_count ? fill->sums[block] : crc32c_zero_block();
		if (sum == chunk_file_crc(file, block))
			continue;
		bool damaged = chunk_is_damaged(chunk, block, block + 1);
		if (damaged && !chunk->damage_is_lost) { /* it is being mended */
			fill->waiting = piece->partial = true;
			if (piece->count > 0)
				break;
			continue;
		}
		uint32_t run_end = piece->first + piece->count;
		/* Good blocks that do not differ may lie between others. */
		bool fits = damaged ? block == run_end : !chunk_is_damaged(chunk, run_end, block);
		if (piece->count > 0 && (damaged != op->marks_damage || !fits)) {
			piece->partial = true;
			break;
		}
		if (piece->count == 0) {
			piece->first = block;
			op->marks_damage = damaged;
		}
		piece->count = block + 1 - piece->first;
	}
	return piece->count > 0;
}

static void piece_run(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	const struct piece *piece = op->arg;
	struct chunk_file *file = &op->chunk->file;
	uint8_t *bytes = op->buffer->bytes;
	op->local_err = op->direct ? chunk_file_read_direct(file, piece->first, piece->count, bytes) :
				     chunk_file_read(file, piece->first, piece->count, bytes, false);
	if (op->marks_damage) {
		if (op->local_err == ERR_IO) /* nor can it be read */
			memset(bytes, 0, op->buffer->size);
		op->local_err = op->local_err == ERR_IO ? OK : op->local_err;
		return;
	}
	for (uint32_t i = 0; op->local_err == OK && i < piece->count; i++) {
		if (crc32c(bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) == chunk_file_crc(file, piece->first + i))
			continue;
		op->local_err = ERR_CORRUPT;
		op->skip = i;
	}
}

static void piece_read(struct chunk_op *op)
{
	struct piece *piece = op->arg;
	struct fill *fill = piece->fill;
	op->local_pending = false;
	if (op->local_err != OK) {
		if (op->local_err == ERR_CORRUPT) /* it is mended, and the fill begins again */
			chunk_found_damaged(op->chunk, piece->first + op->skip, piece->first + op->skip + 1, "fill");
		else if (!fill->ending)
			log_error("fill_source_failed", "chunk=%016" PRIx64 " block=%" PRIu32 " error=%s", op->chunk->id, piece->first,
				  err_name(op->local_err));
		op_end(op, op->local_err == ERR_CORRUPT ? ERR_BUSY : op->local_err);
		return;
	}
	if (op->service->stopping || fill_newcomer(fill) == NULL) {
		op_end(op, ERR_CANCELLED);
		return;
	}
	fill_spent(fill, op->buffer->size);
	chain_send_content(op, piece->first, op->buffer);
	op->applied = true;
	chunk_ops_wake(op->chunk, op);
	if (op->call == 0)
		op_end(op, op->chain_err);
}

static void piece_done(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk_store *store = op->chunk->store;
	piece_read(op);
	chunk_store_work_end(store);
}

void fill_op_start(struct chunk_op *op)
{
	struct piece *piece = op->arg;
	struct fill *fill = piece->fill;
	op->state = OP_RUNNING;
	if (fill_newcomer(fill) == NULL || fill->state != (piece->barrier ? FILL_BARRIER : FILL_COPYING)) {
		op_end(op, ERR_CANCELLED);
		return;
	}
	if (is_unsettled(op)) {
		op_end(op, ERR_BUSY);
		return;
	}
	if (piece->barrier) {
		barrier_start(op);
		return;
	}
	if (!find_difference(op, piece)) {
		op_end(op, OK);
		return;
	}
	op->buffer = iobuf_open(piece->count * BLOCK_BYTES);
	op->buffer->size = piece->count * BLOCK_BYTES;
	op->direct = piece->count * BLOCK_BYTES >= CHUNK_DIRECT_BYTES_MIN &&
		     chunk_file_must_ask_disk(&op->chunk->file, piece->first, piece->count);
	if (op->direct)
		chunk_file_want_direct(&op->chunk->file, op->service->loop, op->chunk->path);
	op->local_pending = true;
	op->work.run = piece_run;
	op->work.done = piece_done;
	op->local_err = ERR_CANCELLED;
	chunk_store_submit(op->chunk->store, NULL, &op->work);
}

void fill_chain_done(struct chunk_op *op)
{
	op_end(op, op->chain_err);
}

/* The next piece that is to be looked at, from the cursor on; PIECES: none. */
static uint32_t next_piece(struct fill *fill)
{
	while (fill->cursor < PIECES) {
		uint32_t number = fill->cursor++;
		if (fill->todo[number / 64] >> number % 64 & 1)
			return number;
	}
	return PIECES;
}

static bool pieces_left(const struct fill *fill)
{
	for (size_t i = 0; i < PIECES / 64; i++)
		if (fill->todo[i] != 0)
			return true;
	return false;
}

static void pump(struct fill *fill)
{
#ifdef PLANT_REPLICA_COMMITTED_BEFORE_COPY_IS_COMPLETE
	memset(fill->todo, 0, sizeof(fill->todo));
#endif
	while (fill->in_flight < FILL_PIECES_MAX && fill->state == FILL_COPYING && fill_newcomer(fill) != NULL) {
		uint64_t wait_ms = fill_budget_wait(fill->service);
		if (wait_ms > 0) {
			fill_continue(fill, wait_ms);
			return;
		}
		uint32_t number = next_piece(fill);
		if (number < PIECES) {
			begin_piece(fill, number);
			continue;
		}
		if (fill->in_flight > 0)
			return;
		bool waiting = fill->waiting;
		fill->waiting = false;
		fill->cursor = 0; /* for those that failed */
		if (pieces_left(fill) && waiting)
			fill_wait_for_mend(fill);
		else if (pieces_left(fill))
			fill_continue(fill, FILL_PAUSE_MS);
		else
			fill_sync(fill);
		return;
	}
}

/* ---------------------------------------------------------------- when */

static void on_timer(void *arg)
{
	struct fill *fill = arg;
	if (fill->service->stopping)
		return;
	if (fill->state == FILL_PAUSED)
		ask(fill);
	else if (fill->state == FILL_COPYING && fill->chunk->kind == KIND_PACK)
		fill_pack_pump(fill);
	else if (fill->state == FILL_COPYING)
		pump(fill);
	else if (fill->state == FILL_REPORTING)
		report(fill);
}

static void start(struct service *service, struct chunk *chunk, const Granary__Replica *newcomer)
{
	struct fill *fill = mem_zero(1, sizeof(*fill));
	fill->service = service;
	fill->chunk = chunk;
	fill->version = chunk->version;
	fill->server = newcomer->server;
	timer_init(&fill->timer, service->loop, on_timer, fill);
	chunk->fill = fill;
	chunk_use(chunk);
	log_info("fill_started", "chunk=%016" PRIx64 " version=%" PRIu64 " server=%016" PRIx64, chunk->id, chunk->version,
		 newcomer->server);
	start_again(fill, 0);
}

void fill_check(struct service *service, struct chunk *chunk)
{
	if (chunk->fill != NULL && fill_newcomer(chunk->fill) == NULL)
		fill_abort(chunk);
	const Granary__Replica *newcomer = chunk->chain == NULL ? NULL : chain_joining(service, chunk);
	if (newcomer == NULL || chunk->fill != NULL || service->stopping || !service_has_lease(service) || chunk->state != CHUNK_READY ||
	    chunk->copy != COPY_COMPLETE || chunk->adopting || chunk->rejoin != NULL || chunk->uncertain || chunk_store_failed(chunk->store))
		return;
	start(service, chunk, newcomer);
}

static void tick_one(void *arg, struct chunk *chunk)
{
	fill_check(arg, chunk);
	if (chunk->fill != NULL && chunk->fill->state == FILL_REPORTING)
		report(chunk->fill);
}

void fill_tick(struct service *service)
{
	chunk_store_each_open(service->store, tick_one, service);
}

bool fill_newcomer_is_full(const struct chunk *chunk, uint64_t server)
{
	struct fill *fill = chunk->fill;
	if (fill == NULL || fill->server != server)
		return false;
	fill_give_up(fill, ERR_NO_SPACE);
	return true;
}

bool fill_is_source(const struct service *service, const Granary__ChunkLocation *location)
{
	int place = service_position(service, location->replicas, location->n_replicas);
	return place >= 0 && (size_t)place + 1 < location->n_replicas && !location->replicas[place]->joining &&
	       location->replicas[place + 1]->joining;
}
