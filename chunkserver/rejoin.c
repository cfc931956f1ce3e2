#include "chunkserver/rejoin.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chain.h"
#include "chunkserver/chunk_retry.h"
#include "chunkserver/master_link.h"
#include "chunkserver/settle.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

#define PIECE_BLOCKS (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)
_Static_assert(PIECE_BLOCKS == 64, "a word of bits for each piece");
#define RETRY_MS 50u
#define REPORT_AFTER 2u /* failures in a row */
#define REPORT_STALE_AFTER 10u

struct rejoin {
	struct service *service;
	struct chunk *chunk;
	struct timer timer; /* before the next attempt */
	struct work work;
	rpc_call_id call;
	bool working;
	bool giving; /* the successor has nothing: it gets ours */
	unsigned failures;
	uint64_t asked; /* server */
	uint32_t block;	/* of the piece */
	uint32_t wanted; /* blocks asked for: the rest of a piece, or one of those among which the successor has damage */
	bool singly;
	uint32_t count; /* blocks that the successor has of it */
	uint64_t unsettled[CHUNK_BLOCKS / PIECE_BLOCKS]; /* at the successor, bits */
	bool end_is_unsettled;	/* what would be behind its last block, too */
	bool differs[PIECE_BLOCKS];
	uint8_t crcs[PIECE_BLOCKS * 4];
	struct iobuf *data;
	uint32_t blocks_before, blocks_after;
	uint32_t taken;
	bool ring_is_known;	/* what the successor knows of operations; all of its content is here, or will be */
	struct op_ring ring;
	struct write_log_entry logged; /* order 0: nothing of the piece differs */
	enum err err;
};

static void ask(void *arg);
static void give(struct rejoin *rejoin);

static void finish(struct rejoin *rejoin)
{
	struct chunk *chunk = rejoin->chunk;
	check(rejoin->call == 0 && !rejoin->working);
	timer_stop(&rejoin->timer);
	iobuf_unref(rejoin->data);
	op_ring_deinit(&rejoin->ring);
	chunk->rejoin = NULL;
	if (rejoin->taken > 0)
		log_warn("blocks_taken", "chunk=%016" PRIx64 " blocks=%" PRIu32 " from=%016" PRIx64, chunk->id, rejoin->taken,
			 rejoin->asked);
	free(rejoin);
	chunk_ops_wake(chunk, NULL);
	chunk_unuse(chunk);
}

/* We are as the successor is: what waits there for somebody to settle it has to be settled from here, or from above. */
static void taken(struct rejoin *rejoin)
{
	struct service *service = rejoin->service;
	struct chunk *chunk = rejoin->chunk;
	uint32_t first = 0;
	for (uint32_t block = 0; block <= CHUNK_BLOCKS; block++) {
		bool unsettled = block < CHUNK_BLOCKS && (rejoin->unsettled[block / PIECE_BLOCKS] >> block % PIECE_BLOCKS & 1) != 0;
		if (unsettled)
			continue;
		if (first < block)
			settle_inherit(service, chunk, OP_WRITE, first, block);
		first = block + 1;
	}
	if (rejoin->end_is_unsettled && rejoin->block < CHUNK_BLOCKS)
		settle_inherit(service, chunk, OP_TRIM, rejoin->block, CHUNK_BLOCKS);
	if (rejoin->ring_is_known) {
		op_ring_deinit(&chunk->ring);
		chunk->ring = rejoin->ring;
		rejoin->ring = (struct op_ring){ 0 };
	}
	chunk_use(chunk);
	finish(rejoin);
	settle_chunk(service, chunk);
	chunk_unuse(chunk);
}

static void piece_run(struct work *work)
{
	struct rejoin *rejoin = container_of(work, struct rejoin, work);
	struct chunk_file *file = &rejoin->chunk->file;
	rejoin->err = rejoin->logged.order == 0 ? OK : write_log_note(chunk_store_writes(rejoin->chunk->store), &rejoin->logged);
	for (uint32_t i = 0; i < rejoin->count && rejoin->err == OK; i++) {
		if (!rejoin->differs[i])
			continue;
		struct chunk_file_write write = {
			.offset = (rejoin->block + i) * BLOCK_BYTES,
			.data = slice_of(rejoin->data->bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES),
			.crcs = slice_of(rejoin->crcs + 4u * i, 4),
			.blocks_before = rejoin->blocks_before,
		};
		rejoin->err = chunk_file_write(file, &write);
	}
	uint32_t end = rejoin->block + rejoin->count;
	rejoin->blocks_after = rejoin->blocks_before > end ? rejoin->blocks_before : end;
	/* It has no more: what is here beyond was never anywhere else. */
	if (rejoin->err == OK && rejoin->count < rejoin->wanted && rejoin->blocks_before > end)
		rejoin->err = chunk_file_trim(file, end * BLOCK_BYTES, rejoin->blocks_before, &rejoin->blocks_after);
}

static void piece_ended(struct rejoin *rejoin)
{
	struct chunk *chunk = rejoin->chunk;
	rejoin->working = false;
	chunk->writes_ended++;
	chunk->written_ms = loop_now_ms(rejoin->service->loop);
	if (rejoin->err != OK) {
		chunk_store_fail(chunk->store, "write", rejoin->err);
		finish(rejoin);
		return;
	}
	for (uint32_t i = 0; i < rejoin->count; i++) {
		if (!rejoin->differs[i])
			continue;
		rejoin->taken++;
		chunk_repaired(chunk, rejoin->block + i, rejoin->block + i + 1);
	}
	chunk->file.blocks = rejoin->blocks_after;
	uint32_t end = rejoin->block + rejoin->count;
	bool ended = rejoin->count < rejoin->wanted;
	if (ended)
		chunk_repaired(chunk, end, CHUNK_BLOCKS);
	rejoin->block = end;
	rejoin->singly = rejoin->singly && end % PIECE_BLOCKS != 0;
	if (rejoin->service->stopping || chunk->state != CHUNK_READY)
		finish(rejoin);
	else if (ended || end == CHUNK_BLOCKS)
		taken(rejoin);
	else
		ask(rejoin);
}

static void piece_done(struct work *work)
{
	struct rejoin *rejoin = container_of(work, struct rejoin, work);
	struct chunk_store *store = rejoin->chunk->store;
	piece_ended(rejoin);
	chunk_store_work_end(store);
}

/* Which blocks are not the same here? ERR_CORRUPT: the answer contradicts itself. */
static enum err compare(struct rejoin *rejoin, const Granary__ChunkReadReply *reply, struct iobuf *data)
{
	struct chunk *chunk = rejoin->chunk;
	uint32_t size = data == NULL ? 0 : data->size;
	rejoin->count = size / BLOCK_BYTES;
	if (size % BLOCK_BYTES != 0 || rejoin->count > rejoin->wanted || reply->crcs.len != 4ul * rejoin->count)
		return ERR_CORRUPT;
	uint64_t unsettled = rejoin->count == PIECE_BLOCKS ? reply->unsettled : reply->unsettled & ((1ull << rejoin->count) - 1);
	rejoin->unsettled[rejoin->block / PIECE_BLOCKS] |= unsettled << rejoin->block % PIECE_BLOCKS;
	rejoin->end_is_unsettled = rejoin->count < rejoin->wanted && reply->unsettled_end;
	for (uint32_t i = 0; i < rejoin->count; i++) {
		uint32_t block = rejoin->block + i, crc = get_le32(reply->crcs.data + 4ul * i);
		if (crc32c(data->bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) != crc)
			return ERR_CORRUPT;
		put_le32(rejoin->crcs + 4u * i, crc);
		rejoin->differs[i] = crc != chunk_file_crc(&chunk->file, block) || chunk_is_damaged(chunk, block, block + 1);
	}
	return OK;
}

static void report(const struct rejoin *rejoin)
{
	const struct chunk *chunk = rejoin->chunk;
	master_link_report(rejoin->service->link,
			   &(struct master_link_failure){ .chunk = chunk->id, .version = chunk->version, .server = rejoin->asked });
}

static void again(struct rejoin *rejoin)
{
	timer_start(&rejoin->timer, RETRY_MS);
}

/* ---- giving */

static void given(void *arg, const struct rpc_result *result)
{
	struct rejoin *rejoin = arg;
	struct service *service = rejoin->service;
	struct chunk *chunk = rejoin->chunk;
	rejoin->call = 0;
	if (service->stopping || chunk->state != CHUNK_READY) {
		finish(rejoin);
	} else if (result->err == OK || result->err == ERR_CORRUPT) { /* damaged here: nothing to give */
		rejoin->failures = 0;
		rejoin->block += rejoin->count;
		ask(rejoin);
	} else {
		if (result->err != ERR_STALE_VERSION && result->err != ERR_NO_SPACE && result->err != ERR_BUSY &&
		    ++rejoin->failures >= REPORT_AFTER)
			report(rejoin);
		again(rejoin);
	}
}

static void send_piece(struct rejoin *rejoin)
{
	struct service *service = rejoin->service;
	struct chunk *chunk = rejoin->chunk;
	const Granary__Replica *successor = chain_successor(service, chunk);
	struct rpc_peer *peer = successor == NULL ? NULL :
						    chain_peer(service, successor->address, chain_lane(service, chunk));
	if (peer == NULL || successor->server != rejoin->asked || !service_has_lease(service)) {
		again(rejoin);
		return;
	}
	Granary__ChunkWrite message = GRANARY__CHUNK_WRITE__INIT;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.offset = rejoin->block * BLOCK_BYTES;
	message.client = service->server;
	message.operation = service->next_operation++;
	message.replicas = chunk->chain->replicas;
	message.n_replicas = chunk->chain->n_replicas;
	message.crcs = message_borrow(slice_of(rejoin->crcs, 4ul * rejoin->count));
	message.sequence = ++chunk->sequence;
	message.written = chunk->written;
	message.life = service->life;
	struct conn_data data = { .iobuf = rejoin->data, .size = rejoin->count * BLOCK_BYTES };
	rejoin->call = rpc_peer_call(peer, MESSAGE_CHUNK_WRITE, &message.base, &data, CHAIN_TIMEOUT_MS, given, rejoin);
}

/* Each block under its CRC at rest: what is damaged here is refused there. */
static void give_run(struct work *work)
{
	struct rejoin *rejoin = container_of(work, struct rejoin, work);
	struct chunk_file *file = &rejoin->chunk->file;
	rejoin->err = chunk_file_read(file, rejoin->block, rejoin->count, rejoin->data->bytes, false);
	for (uint32_t i = 0; i < rejoin->count; i++)
		put_le32(rejoin->crcs + 4ul * i, chunk_file_crc(file, rejoin->block + i));
}

static void give_done(struct work *work)
{
	struct rejoin *rejoin = container_of(work, struct rejoin, work);
	struct chunk *chunk = rejoin->chunk;
	struct chunk_store *store = chunk->store;
	rejoin->working = false;
	if (rejoin->err != OK || rejoin->service->stopping || chunk->state != CHUNK_READY)
		finish(rejoin);
	else
		send_piece(rejoin);
	chunk_store_work_end(store);
}

static void give(struct rejoin *rejoin)
{
	struct chunk *chunk = rejoin->chunk;
	uint32_t left = rejoin->block < chunk->file.blocks ? chunk->file.blocks - rejoin->block : 0;
	if (left == 0) {
		finish(rejoin);
		return;
	}
	rejoin->count = left < PIECE_BLOCKS ? left : PIECE_BLOCKS;
	iobuf_unref(rejoin->data);
	rejoin->data = iobuf_open(rejoin->count * BLOCK_BYTES);
	rejoin->data->size = rejoin->count * BLOCK_BYTES;
	rejoin->working = true;
	rejoin->err = ERR_CANCELLED;
	rejoin->work.run = give_run;
	rejoin->work.done = give_done;
	chunk_store_submit(chunk->store, NULL, &rejoin->work);
}

/* ---- taking */

static void begin_log(struct rejoin *rejoin)
{
	struct chunk *chunk = rejoin->chunk;
	rejoin->logged = (struct write_log_entry){ .chunk = chunk->id, .first = CHUNK_BLOCKS };
	for (uint32_t i = 0; i < rejoin->count; i++) {
		if (!rejoin->differs[i])
			continue;
		if (rejoin->logged.first == CHUNK_BLOCKS)
			rejoin->logged.first = rejoin->block + i;
		rejoin->logged.end = rejoin->block + i + 1;
	}
	uint32_t end = rejoin->block + rejoin->count;
	if (rejoin->count < rejoin->wanted && rejoin->blocks_before > end) {
		rejoin->logged.first = end < rejoin->logged.first ? end : rejoin->logged.first;
		rejoin->logged.end = CHUNK_BLOCKS;
	}
	if (rejoin->logged.first < rejoin->logged.end)
		write_log_begin(chunk_store_writes(chunk->store), &rejoin->logged);
}

static void take_piece(struct rejoin *rejoin, struct iobuf *data)
{
	iobuf_unref(rejoin->data);
	rejoin->data = data == NULL ? NULL : iobuf_ref(data);
	rejoin->blocks_before = rejoin->chunk->file.blocks;
	begin_log(rejoin);
	rejoin->working = true;
	rejoin->chunk->writes_begun++;
	rejoin->work.run = piece_run;
	rejoin->work.done = piece_done;
	rejoin->err = ERR_CANCELLED;
	chunk_store_submit(rejoin->chunk->store, NULL, &rejoin->work);
}

/* Block by block, then. One that is damaged there will be mended from here, so ours stays as it is; those below may have another, which
 * the head settles. */
static void damaged_there(struct rejoin *rejoin)
{
	if (++rejoin->failures < REPORT_AFTER) {
		again(rejoin);
		return;
	}
	rejoin->failures = 0;
	if (!rejoin->singly) {
		rejoin->singly = true;
		ask(rejoin);
		return;
	}
	if (chain_is_head(rejoin->service, rejoin->chunk) && !chunk_is_damaged(rejoin->chunk, rejoin->block, rejoin->block + 1))
		rejoin->unsettled[rejoin->block / PIECE_BLOCKS] |= 1ull << rejoin->block % PIECE_BLOCKS;
	rejoin->ring_is_known = false;
	rejoin->block++;
	rejoin->singly = rejoin->block % PIECE_BLOCKS != 0;
	if (rejoin->block == CHUNK_BLOCKS)
		taken(rejoin);
	else
		ask(rejoin);
}

static void answered(void *arg, const struct rpc_result *result)
{
	struct rejoin *rejoin = arg;
	struct service *service = rejoin->service;
	struct chunk *chunk = rejoin->chunk;
	rejoin->call = 0;
	if (service->stopping || chunk->state != CHUNK_READY) {
		finish(rejoin);
		return;
	}
	enum err err = result->err;
	if (err == OK)
		err = compare(rejoin, (const Granary__ChunkReadReply *)result->reply, result->data);
	if (err == OK && rejoin->block == 0) {
		chunk_retry_take(service->loop, (const Granary__ChunkReadReply *)result->reply, &rejoin->ring);
		rejoin->ring_is_known = true;
	}
	switch (err) {
	case OK:
		rejoin->failures = 0;
		take_piece(rejoin, result->data);
		break;
	case ERR_NO_CHUNK:
		/* It never had any of it; nothing is thrown away on that word. */
		log_warn("successor_has_no_copy", "chunk=%016" PRIx64 " server=%016" PRIx64, chunk->id, rejoin->asked);
		rejoin->giving = true;
		rejoin->block = 0;
		give(rejoin);
		break;
	case ERR_CORRUPT:
		damaged_there(rejoin);
		break;
	case ERR_STALE_VERSION: /* the new chain is on its way to us, or we are out of it; if that was lost, the answer says it */
		if (++rejoin->failures >= REPORT_STALE_AFTER)
			report(rejoin);
		again(rejoin);
		break;
	case ERR_BUSY:
		again(rejoin);
		break;
	case ERR_UNCERTAIN: /* it lost power and compares itself with us */
		rejoin->ring_is_known = false;
		if (chain_is_head(service, chunk)) { /* what we have may not be what those below it have */
			memset(rejoin->unsettled, 0xff, sizeof(rejoin->unsettled));
			rejoin->block = chunk->file.blocks;
			rejoin->end_is_unsettled = true;
			taken(rejoin);
			break;
		}
		finish(rejoin);
		break;
	default:
		if (++rejoin->failures >= REPORT_AFTER)
			report(rejoin);
		again(rejoin);
	}
}

static void ask(void *arg)
{
	struct rejoin *rejoin = arg;
	struct chunk *chunk = rejoin->chunk;
	const Granary__Replica *successor = chain_successor(rejoin->service, chunk);
	if (!rejoin->service->stopping && chunk->state == CHUNK_READY && !chain_is_known(chunk)) {
		chain_ask_master(rejoin->service, chunk);
		again(rejoin);
		return;
	}
	if (rejoin->service->stopping || chunk->state != CHUNK_READY || successor == NULL || successor->joining ||
	    chunk->copy != COPY_COMPLETE ||
	    chunk_store_failed(chunk->store)) {
		finish(rejoin);
		return;
	}
	struct rpc_peer *peer = chain_peer(rejoin->service, successor->address, CHAIN_LANE_READ);
	if (peer == NULL || !service_has_lease(rejoin->service)) {
		again(rejoin);
		return;
	}
	if (successor->server != rejoin->asked) {
		rejoin->failures = 0;
		rejoin->giving = false;
		rejoin->ring_is_known = false;
		rejoin->block = 0;
		rejoin->singly = false;
		memset(rejoin->unsettled, 0, sizeof(rejoin->unsettled));
	}
	rejoin->asked = successor->server;
	if (rejoin->giving) {
		give(rejoin);
		return;
	}
	Granary__ChunkRead message = GRANARY__CHUNK_READ__INIT;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.offset = rejoin->block * BLOCK_BYTES;
	rejoin->wanted = rejoin->singly ? 1 : PIECE_BLOCKS - rejoin->block % PIECE_BLOCKS;
	message.bytes = rejoin->wanted * BLOCK_BYTES;
	message.predecessor = true;
	message.operations = rejoin->block == 0;
	message.life = rejoin->service->life;
	rejoin->call = rpc_peer_call(peer, MESSAGE_CHUNK_READ, &message.base, NULL, CLIENT_READ_ATTEMPT_MS, answered, rejoin);
}

void rejoin_start(struct service *service, struct chunk *chunk)
{
	/* A copy that is being filled is no source: we are the last of those that have everything. */
	if (chunk->kind != KIND_REPLICATED || chunk->rejoin != NULL || chunk->copy != COPY_COMPLETE)
		return;
	if (chain_is_known(chunk) && (chain_successor(service, chunk) == NULL || chain_joining(service, chunk) != NULL))
		return;
	struct rejoin *rejoin = mem_zero(1, sizeof(*rejoin));
	rejoin->service = service;
	rejoin->chunk = chunk;
	timer_init(&rejoin->timer, service->loop, ask, rejoin);
	chunk->rejoin = rejoin;
	chunk_use(chunk);
	timer_start(&rejoin->timer, 0);
}

void rejoin_abort(struct chunk *chunk)
{
	struct rejoin *rejoin = chunk->rejoin;
	if (rejoin == NULL || rejoin->working)
		return;
	if (rejoin->call != 0)
		rpc_call_cancel(rejoin->service->rpc, rejoin->call);
	rejoin->call = 0;
	finish(rejoin);
}
