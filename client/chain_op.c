#include "client/chain_op.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/proto/refusal.h"

#define CRCS_MAX (FRAME_DATA_BYTES_MAX / BLOCK_BYTES + 1)

enum chain_state { CHAIN_LOCATING, CHAIN_SENT, CHAIN_REPORTING, CHAIN_PAUSED };

struct chain_op {
	struct running running;
	struct chain_op *previous, *next; /* the client's, by operation */
	struct client *client;
	enum chain_state state;
	struct chain_request request;
	uint64_t operation;
	uint64_t session; /* in which it was asked for; 0: the next one */
	uint8_t crcs[CRCS_MAX * 4]; /* of the blocks' parts; of a blob: one */
	size_t crc_bytes;
	uint64_t deadline_ms, backoff_ms;
	unsigned attempts, suspicions;
	bool doubt; /* one of these may have been begun */
	uint64_t full_ms; /* since then a server of the chain has no space; 0: they have */
	bool looked; /* the master was asked whether there is a chunk */
	enum err last;
	uint64_t sent_us; /* the first that is in doubt, or the latest */
	/* What the head has said of its clock (chunkserver/op_ring.h), and when. 0: nothing. */
	uint64_t clock, clock_ms, clock_us;
	/* What was asked last. */
	uint64_t chunk, version;
	bool written; /* as the location says */
	struct server *head;
	rpc_call_id rpc_call;
	struct timer timer; /* CHAIN_SENT: suspicion; CHAIN_PAUSED: the pause */
	uint64_t reported;  /* the chunk about which a report is under way, in whatever state; 0: none */
	chain_done_fn *done;
	void *arg;
};

static void chain_step(struct chain_op *op);

static void chain_end(struct chain_op *op, enum err err, uint32_t slot)
{
	chain_done_fn *done = op->done;
	void *arg = op->arg;
	timer_stop(&op->timer);
	running_remove(op->client, &op->running);
	DL_DELETE2(op->client->chain_ops, op, previous, next);
	if (op->state == CHAIN_SENT && op->rpc_call != 0)
		rpc_call_cancel(op->client->rpc, op->rpc_call);
	if (op->reported != 0)
		place_unreport(op->client, op->reported, op);
	iobuf_unref(op->request.iobuf);
	free(op);
	done(arg, err, slot);
}

static void chain_cancel(struct running *running)
{
	chain_end(container_of(running, struct chain_op, running), ERR_CANCELLED, 0);
}

static void chain_pause(struct chain_op *op)
{
	struct client *client = op->client;
	uint64_t pause = op->backoff_ms;
	op->state = CHAIN_PAUSED;
	if (client->closing || loop_now_ms(client->loop) >= op->deadline_ms) {
		chain_end(op, client->closing ? ERR_CANCELLED : op->last, 0);
		return;
	}
	op->backoff_ms = pause * 2 > CLIENT_RETRY_MS_MAX ? CLIENT_RETRY_MS_MAX : pause * 2;
	timer_start(&op->timer, pause / 2 + rng_below(&client->rng, pause));
}

static void chain_reported(void *arg, enum err err)
{
	struct chain_op *op = arg;
	op->reported = 0;
	if (op->state == CHAIN_LOCATING) /* what was asked then goes on with it, or ends it */
		return;
	if (op->client->closing) {
		chain_end(op, ERR_CANCELLED, 0);
	} else if (op->state == CHAIN_SENT) { /* only a suspicion; the answer may still come */
		const struct location *location = place_find(op->client, &op->request.place);
		if (err == OK && location && location->version > op->version) {
			rpc_call_cancel(op->client->rpc, op->rpc_call);
			op->rpc_call = 0;
			op->doubt = true;
			chain_step(op);
		} else
			timer_start(&op->timer, err == ERR_BUSY ? CLIENT_SUSPECT_AGAIN_MS : CLIENT_SUSPECT_MS);
	} else if (op->state == CHAIN_REPORTING) {
		if (err == OK) {
			chain_step(op);
		} else if (err == ERR_BUSY) {
			chain_pause(op);
		} else if (err == ERR_NO_CHUNK) { /* deleted */
			place_forget(op->client, &op->request.place);
			chain_pause(op);
		} else
			chain_end(op, err, 0);
	}
}

static void chain_report(struct chain_op *op, uint64_t server)
{
	if (op->reported != 0)
		return;
	op->reported = op->chunk;
	place_report(op->client, &op->request.place, op->chunk, op->version, server, chain_reported, op);
}

/* Whether the session is over the master knows; until it has said so the change is tried again. */
static void chain_fenced(struct chain_op *op)
{
	if (op->session != session_id(op->client->session)) {
		chain_end(op, ERR_NO_SESSION, 0);
		return;
	}
	session_doubt(op->client->session);
	chain_pause(op);
}

/* The head does not know whether it was done. It does, perhaps, when it is told when it was first sent; if not, nobody knows: another's
 * later write would be lost if it were done again. */
static void chain_unknown(struct chain_op *op, const char *text)
{
	char *end = NULL;
	uint64_t clock = strtoull(text, &end, 10), ms = strtoull(end, NULL, 10);
	op->last = ERR_RETRY_UNKNOWN;
	if (clock == 0 || clock == op->clock) {
		chain_end(op, ERR_RETRY_UNKNOWN, 0);
		return;
	}
	op->clock = clock;
	op->clock_ms = ms;
	op->clock_us = loop_now_us(op->client->loop);
	chain_step(op);
}

/* By the head's clock, rather too early than too late; its clock may be the faster one. 0: at any time. */
static uint64_t chain_sent_ms(const struct chain_op *op)
{
	uint64_t ago = (op->clock_us - op->sent_us) / 1000 + 1;
	ago += ago * RAFT_CLOCK_DRIFT_PERCENT / 100 + 1;
	return op->clock != 0 && ago < op->clock_ms ? op->clock_ms - ago : 0;
}

/* Which replica is to blame for a broken chain only its predecessor knows, and says so to the leader; ours is a second
 * opinion. A server that is alive is not harmed by it. */
static uint64_t chain_suspect(struct chain_op *op)
{
	const struct location *location = place_find(op->client, &op->request.place);
	if (!location || location->count < 2)
		return op->head->id;
	return location->replicas[1 + op->attempts % (location->count - 1)]->id;
}

static void chain_failed(struct chain_op *op, enum err err)
{
	struct client *client = op->client;
	const struct location *location = place_find(client, &op->request.place);
	op->last = err;
	switch (err) {
	case ERR_NO_SPACE:
		/* If another server has room, the full one is about to be left out. (A blob goes to another pack.) */
		if (op->full_ms == 0)
			op->full_ms = loop_now_ms(client->loop);
		if (op->request.place.map && loop_now_ms(client->loop) - op->full_ms < CLIENT_FULL_MS)
			chain_pause(op);
		else
			chain_end(op, err, 0);
		return;
	case ERR_DATA_LOST:
	case ERR_PACK_FULL:
	case ERR_INVALID:
	case ERR_PROTOCOL:
	case ERR_NOT_SUPPORTED:
		chain_end(op, err, 0);
		return;
	case ERR_STALE_VERSION:
	case ERR_NO_CHUNK:
		/* All writes pass through the head, and one that joined has what was written before: nothing to sync or to
		 * trim, unless it is known to have been written. */
		if (err == ERR_NO_CHUNK && op->attempts > 1 &&
		    op->request.type != MESSAGE_CHUNK_WRITE && op->request.type != MESSAGE_BLOB_APPEND) {
			chain_end(op, location && location->written ? ERR_DATA_LOST : OK, 0);
			return;
		}
		if (location && location->version == op->version && location->chunk == op->chunk)
			place_forget(client, &op->request.place);
		chain_pause(op);
		return;
	case ERR_BUSY:
	case ERR_CANCELLED:
		chain_pause(op);
		return;
	case ERR_NO_SESSION:
		chain_fenced(op);
		return;
	default:
		break;
	}
	if (client->closing || loop_now_ms(client->loop) >= op->deadline_ms) {
		chain_end(op, client->closing ? ERR_CANCELLED : err, 0);
		return;
	}
	op->state = CHAIN_REPORTING;
	if (err != ERR_CHAIN_BROKEN)
		server_failed(op->head, loop_now_ms(client->loop));
	chain_report(op, err == ERR_CHAIN_BROKEN ? chain_suspect(op) : op->head->id);
}

static void chain_answered(void *arg, const struct rpc_result *result)
{
	struct chain_op *op = arg;
	op->rpc_call = 0;
	timer_stop(&op->timer);
	if (result->err == ERR_RETRY_UNKNOWN) {
		chain_unknown(op, result->text);
		return;
	}
	if (result->err) {
		bool refused = (result->err == ERR_STALE_VERSION || result->err == ERR_NO_CHUNK) && strcmp(result->text, REFUSAL_UNBEGUN) == 0;
		op->doubt = op->doubt || (!refused && result->err != ERR_UNREACHABLE);
		chain_failed(op, result->err);
		return;
	}
	op->client->answered_ms = loop_now_ms(op->client->loop);
	uint32_t slot = 0;
	if (op->request.type == MESSAGE_BLOB_APPEND)
		slot = ((const Granary__BlobAppendReply *)result->reply)->slot;
	if (op->request.type == MESSAGE_CHUNK_WRITE || op->request.type == MESSAGE_BLOB_APPEND)
		place_note_written(op->client, &op->request.place, op->chunk);
	chain_end(op, OK, slot);
}

static void chain_located(void *arg, enum err err)
{
	struct chain_op *op = arg;
	if (op->client->closing)
		err = ERR_CANCELLED;
	if (err) {
		chain_end(op, err, 0);
	} else if (!place_find(op->client, &op->request.place)) { /* a hole, to be filled; or out of date already */
		if (op->attempts == 0 && op->request.place.map && op->request.place.allocate && !op->looked) {
			op->looked = true;
			chain_step(op);
		} else {
			op->last = ERR_BUSY;
			chain_pause(op);
		}
	} else
		chain_step(op);
}

static void chain_send(struct chain_op *op, const ProtobufCMessage *message)
{
	struct client *client = op->client;
	struct conn_data data = {
	    .iobuf = op->request.iobuf, .offset = op->request.iobuf_offset, .size = op->request.bytes};
	uint64_t left = op->deadline_ms - loop_now_ms(client->loop);
	op->state = CHAIN_SENT;
	op->attempts++;
	if (!op->doubt)
		op->sent_us = loop_now_us(client->loop);
	op->rpc_call =
	    rpc_peer_call(op->head->peer, op->request.type, message, op->request.iobuf ? &data : NULL,
			  left < CLIENT_WRITE_ATTEMPT_MS ? left : CLIENT_WRITE_ATTEMPT_MS, chain_answered, op);
	timer_start(&op->timer, CLIENT_SUSPECT_MS);
}

/* What only writes and trims say. */
#define SAY_MORE(message, op)                                                                                           \
	do {                                                                                                            \
		(message)->session = (op)->session;                                                                     \
		(message)->written = (op)->written;                                                                     \
		(message)->again = (op)->doubt;                                                                         \
		(message)->sent_clock = (op)->clock;                                                                    \
		(message)->sent_ms = chain_sent_ms(op);                                                                 \
		(message)->answered_below = (op)->client->chain_ops->operation;                                         \
	} while (0)

static void send_write(struct chain_op *op, struct location_chain *chain)
{
	Granary__ChunkWrite message = GRANARY__CHUNK_WRITE__INIT;
	message.chunk = op->chunk;
	message.version = op->version;
	message.offset = op->request.offset;
	message.client = op->client->id;
	message.operation = op->operation;
	message.n_replicas = chain->count;
	message.replicas = chain->pointers;
	message.crcs = (ProtobufCBinaryData){.len = op->crc_bytes, .data = op->crcs};
	message.sync = op->request.sync;
	SAY_MORE(&message, op);
	chain_send(op, &message.base);
}

static void send_append(struct chain_op *op, struct location_chain *chain)
{
	Granary__BlobAppend message = GRANARY__BLOB_APPEND__INIT;
	message.pack = op->chunk;
	message.version = op->version;
	message.client = op->client->id;
	message.operation = op->operation;
	message.n_replicas = chain->count;
	message.replicas = chain->pointers;
	message.crc = get_le32(op->crcs);
	message.written = op->written;
	message.sync = op->request.sync;
	chain_send(op, &message.base);
}

static void send_trim(struct chain_op *op, struct location_chain *chain)
{
	Granary__ChunkTrim message = GRANARY__CHUNK_TRIM__INIT;
	message.chunk = op->chunk;
	message.version = op->version;
	message.bytes = op->request.offset;
	message.client = op->client->id;
	message.operation = op->operation;
	message.n_replicas = chain->count;
	message.replicas = chain->pointers;
	SAY_MORE(&message, op);
	chain_send(op, &message.base);
}

static void send_sync(struct chain_op *op, struct location_chain *chain)
{
	Granary__ChunkSync message = GRANARY__CHUNK_SYNC__INIT;
	message.chunk = op->chunk;
	message.version = op->version;
	message.n_replicas = chain->count;
	message.replicas = chain->pointers;
	chain_send(op, &message.base);
}

/* Only writes and trims are fenced: what is appended counts when it is committed, in a session. */
static bool is_fenced(const struct chain_op *op)
{
	return op->request.type == MESSAGE_CHUNK_WRITE || op->request.type == MESSAGE_CHUNK_TRIM;
}

/* False: the operation has ended, or waits for a session. */
static bool chain_in_session(struct chain_op *op)
{
	uint64_t session = session_id(op->client->session);
	if (!is_fenced(op) || (session != 0 && op->session == session))
		return true;
	if (op->session != 0) {
		chain_end(op, ERR_NO_SESSION, 0);
		return false;
	}
	op->session = session;
	if (session != 0)
		return true;
	op->last = ERR_NO_SESSION;
	chain_pause(op);
	return false;
}

/* A chunk becomes hot for whoever writes; a blob goes to another pack. */
static void chain_warm(struct chain_op *op, const struct location *location)
{
	if (op->request.type == MESSAGE_BLOB_APPEND) {
		chain_end(op, ERR_PACK_FULL, 0);
		return;
	}
	op->state = CHAIN_REPORTING;
	op->last = ERR_BUSY;
	if (op->reported != 0)
		return;
	op->reported = op->chunk = location->chunk;
	place_warm(op->client, &op->request.place, op->chunk, chain_reported, op);
}

static void chain_step(struct chain_op *op)
{
	struct client *client = op->client;
	timer_stop(&op->timer);
	if (client->closing || loop_now_ms(client->loop) >= op->deadline_ms) {
		enum err why = op->last ? op->last : ERR_TIMEOUT;
		chain_end(op, client->closing ? ERR_CANCELLED : why, 0);
		return;
	}
	if (!chain_in_session(op))
		return;
	const struct location *location = place_find(client, &op->request.place);
	if (!location) {
		op->state = CHAIN_LOCATING;
		if (!op->request.place.map && op->request.place.inode == 0)
			chain_end(op, ERR_STALE_VERSION, 0);
		else
			place_fetch(client, &op->request.place, chain_located, op);
		return;
	}
	if (location_is_hole(location)) { /* nothing there to be trimmed or synced */
		chain_end(op, OK, 0);
		return;
	}
	if (location->frozen && op->request.type != MESSAGE_CHUNK_SYNC) {
		chain_warm(op, location);
		return;
	}
	if (location->cold) { /* it was on the disks before its copies went */
		chain_end(op, location->lossy ? ERR_DATA_LOST : OK, 0);
		return;
	}
	struct location_chain chain;
	location_chain(location, &chain);
	op->chunk = location->chunk;
	op->version = location->version;
	op->written = location->written;
	op->head = location->replicas[0];
	switch (op->request.type) {
	case MESSAGE_CHUNK_WRITE:
		send_write(op, &chain);
		break;
	case MESSAGE_BLOB_APPEND:
		send_append(op, &chain);
		break;
	case MESSAGE_CHUNK_TRIM:
		send_trim(op, &chain);
		break;
	default:
		send_sync(op, &chain);
		break;
	}
}

static void chain_timer(void *arg)
{
	struct chain_op *op = arg;
	if (op->state != CHAIN_SENT) {
		chain_step(op);
		return;
	}
	/* Any of them may be the one that hangs. */
	const struct location *location = place_find(op->client, &op->request.place);
	struct server *server = op->head;
	if (location && location->count > 0)
		server = location->replicas[op->suspicions++ % location->count];
	chain_report(op, server->id);
}

static void chain_crcs(struct chain_op *op)
{
	const struct chain_request *request = &op->request;
	const uint8_t *bytes = request->iobuf->bytes + request->iobuf_offset;
	uint32_t offset = request->offset, left = request->bytes;
	if (request->type == MESSAGE_BLOB_APPEND) {
		put_le32(op->crcs, crc32c(bytes, left));
		op->crc_bytes = 4;
		return;
	}
	while (left > 0) {
		uint32_t part = BLOCK_BYTES - offset % BLOCK_BYTES;
		part = part < left ? part : left;
		put_le32(op->crcs + op->crc_bytes, crc32c(bytes, part));
		op->crc_bytes += 4;
		bytes += part;
		offset += part;
		left -= part;
	}
}

void chain_call(struct client *client, const struct chain_request *request, chain_done_fn *done, void *arg)
{
	struct chain_op *op = mem_zero(1, sizeof *op);
	check(request->bytes <= FRAME_DATA_BYTES_MAX);
	op->client = client;
	op->request = *request;
	op->operation = ++client->operation;
	op->session = session_id(client->session);
	op->deadline_ms = loop_now_ms(client->loop) + client->timeout_ms;
	op->backoff_ms = CLIENT_RETRY_MS_MIN;
	op->done = done;
	op->arg = arg;
	op->running.cancel = chain_cancel;
	timer_init(&op->timer, client->loop, chain_timer, op);
	running_add(client, &op->running);
	DL_APPEND2(client->chain_ops, op, previous, next);
	if (request->iobuf) {
		iobuf_ref(request->iobuf);
		chain_crcs(op);
	}
	const struct location *location = place_find(client, &request->place);
	if (client->closing || (!location && !request->place.map && request->place.inode == 0) ||
	    (location && (location_is_hole(location) || location->frozen))) {
		op->state = CHAIN_PAUSED;
		timer_start(&op->timer, 0);
	} else
		chain_step(op);
}
