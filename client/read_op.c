#include "client/read_op.h"

#include <stdlib.h>

#include "client/cold_read.h"

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

#define AFFINE_BYTES (1u * MIB)
#define ROUNDS_WITH_DAMAGE_MAX 2u
#define ROUNDS_WITHOUT_CHUNK 2u

enum read_state { READ_LOCATING, READ_SENT, READ_PAUSED };

/* One replica that was asked in this round. */
struct attempt {
	struct read_op *op;
	struct server *server;
	rpc_call_id rpc_call; /* 0: ended */
	uint64_t sent_us;
};

struct read_op {
	struct running running;
	struct client *client;
	enum read_state state;
	struct read_request request;
	uint64_t deadline_ms, backoff_ms;
	/* The round: every replica of one location once. */
	uint64_t chunk, version;
	struct server *order[REPLICAS_MAX];
	struct attempt attempts[REPLICAS_MAX]; /* in that order */
	unsigned count, tried, asked, rounds_damaged; /* asked: of those tried, not answered yet */
	unsigned rounds_absent; /* of a cold chunk, whose shards were not where they should be */
	unsigned without_chunk,
	    rounds_without_chunk; /* replicas that say they have no such chunk; rounds in which all did */
	bool written;             /* as the location says */
	bool stale;               /* a replica says that the location is old */
	enum err last;
	struct timer timer; /* READ_SENT: another replica is asked as well; READ_PAUSED: the pause */
	read_done_fn *done;
	void *arg;
};

static void read_step(struct read_op *op);

static void attempts_cancel(struct read_op *op)
{
	for (unsigned i = 0; i < op->tried; i++) {
		if (op->attempts[i].rpc_call != 0)
			rpc_call_cancel(op->client->rpc, op->attempts[i].rpc_call);
		op->attempts[i].rpc_call = 0;
	}
	op->asked = 0;
}

static void read_end(struct read_op *op, enum err err, struct iobuf *data, uint32_t skip)
{
	read_done_fn *done = op->done;
	void *arg = op->arg;
	timer_stop(&op->timer);
	running_remove(op->client, &op->running);
	attempts_cancel(op);
	free(op);
	done(arg, err, data, skip);
}

static void read_cancel(struct running *running)
{
	read_end(container_of(running, struct read_op, running), ERR_CANCELLED, NULL, 0);
}

static enum err verify_chunk(const struct read_op *op, const Granary__ChunkReadReply *reply, const struct iobuf *data)
{
	static const uint8_t zeros[BLOCK_BYTES];
	uint32_t size = data ? data->size : 0;
	uint32_t wanted = op->request.offset % BLOCK_BYTES + op->request.bytes;
	if (reply->crcs.len != (size_t)4 * ((size + BLOCK_BYTES - 1) / BLOCK_BYTES))
		return ERR_CORRUPT;
	if (size > (wanted + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES)
		return ERR_CORRUPT;
	for (uint32_t at = 0, i = 0; at < size; at += BLOCK_BYTES, i++) {
		uint32_t part = size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES;
		uint32_t crc = crc32c(data->bytes + at, part);
		if (part < BLOCK_BYTES)
			crc = crc32c_extend(crc, zeros, BLOCK_BYTES - part);
		if (crc != get_le32(reply->crcs.data + (size_t)4 * i))
			return ERR_CORRUPT;
	}
	return OK;
}

static enum err verify_blob(const Granary__BlobReadReply *reply, const struct iobuf *data)
{
	if (reply->flags != 0)
		return ERR_NOT_SUPPORTED;
	return crc32c(data ? data->bytes : NULL, data ? data->size : 0) == reply->crc ? OK : ERR_CORRUPT;
}

static void read_pause(struct read_op *op)
{
	struct client *client = op->client;
	uint64_t pause = op->backoff_ms;
	if (client->closing || loop_now_ms(client->loop) >= op->deadline_ms) {
		read_end(op, client->closing ? ERR_CANCELLED : op->last, NULL, 0);
		return;
	}
	op->state = READ_PAUSED;
	op->backoff_ms = pause * 2 > CLIENT_RETRY_MS_MAX ? CLIENT_RETRY_MS_MAX : pause * 2;
	timer_start(&op->timer, pause / 2 + rng_below(&client->rng, pause));
}

/* No replica of this location would do. */
static void round_failed(struct read_op *op)
{
	const struct location *location = place_find(op->client, &op->request.place);
	bool absent = op->without_chunk == op->count; /* the next round asks the master, whatever others have learnt meanwhile */
	if (location && (absent || (location->version == op->version && location->chunk == op->chunk)))
		place_forget(op->client, &op->request.place);
	attempts_cancel(op);
	timer_stop(&op->timer);
	uint64_t chunk = op->chunk;
	op->chunk = 0;
	/* A chunk that none of its servers has was allocated and never written: zeros. One that the master knows to have content
	 * is lost. (One that joins is filled before it is read.) Asked twice, with the location fetched in between. */
	if (absent && op->request.place.map &&
	    ++op->rounds_without_chunk >= ROUNDS_WITHOUT_CHUNK) {
		if (op->written)
			log_warn("read_chunk_lost", "chunk=%016llx", (unsigned long long)chunk);
		read_end(op, op->written ? ERR_NO_CHUNK : OK, NULL, 0);
		return;
	}
	if (op->last == ERR_NOT_FOUND) { /* the blob was deleted: its reader has an old inode */
		read_end(op, ERR_NOT_FOUND, NULL, 0);
		return;
	}
	if (op->last == ERR_CORRUPT && ++op->rounds_damaged >= ROUNDS_WITH_DAMAGE_MAX) {
		read_end(op, ERR_CORRUPT, NULL, 0);
		return;
	}
	read_pause(op);
}

static void read_send(struct read_op *op);

static void replica_failed(struct read_op *op, const struct attempt *attempt, enum err err)
{
	struct server *server = attempt->server;
	if (err == ERR_NOT_SUPPORTED || err == ERR_INVALID) {
		read_end(op, err, NULL, 0);
		return;
	}
	if (err == ERR_CORRUPT)
		log_warn("read_corrupt", "chunk=%016llx server=%llu offset=%u", (unsigned long long)op->chunk,
			 (unsigned long long)server->id, op->request.offset);
	if (err == ERR_CLOSED || err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_NO_LEASE ||
	    err == ERR_STORE_FAILED)
		server_failed(server, loop_now_ms(op->client->loop));
	op->without_chunk += err == ERR_NO_CHUNK;
	/* Damage on one replica is what the reader hears of only if no other one would do. */
	if (op->last == OK || err != ERR_CORRUPT)
		op->last = err;
	if (err == ERR_STALE_VERSION || op->client->closing || (op->tried == op->count && op->asked == 0))
		round_failed(op);
	else if (op->tried < op->count)
		read_step(op);
}

static void read_answered(void *arg, const struct rpc_result *result)
{
	struct attempt *attempt = arg;
	struct read_op *op = attempt->op;
	struct client *client = op->client;
	enum err err = result->err;
	attempt->rpc_call = 0;
	op->asked--;
	if (err == OK && op->request.place.map)
		err = verify_chunk(op, (const Granary__ChunkReadReply *)result->reply, result->data);
	else if (err == OK)
		err = verify_blob((const Granary__BlobReadReply *)result->reply, result->data);
	if (err) {
		replica_failed(op, attempt, err);
		return;
	}
	client->answered_ms = loop_now_ms(client->loop);
	uint64_t now_us = loop_now_us(client->loop);
	server_answered(attempt->server, now_us > attempt->sent_us ? now_us - attempt->sent_us : 0);
	/* Asked earlier and not answered yet, though this answer was quick: where all are slow none is to blame. */
	for (const struct attempt *slow = op->attempts; slow < attempt; slow++) {
		if (slow->rpc_call != 0 && now_us - slow->sent_us > 2 * (now_us - attempt->sent_us))
			server_failed(slow->server, client->answered_ms);
	}
	read_end(op, OK, result->data, op->request.place.map ? op->request.offset % BLOCK_BYTES : 0);
}

static void read_located(void *arg, enum err err)
{
	struct read_op *op = arg;
	if (op->client->closing)
		err = ERR_CANCELLED;
	if (err) {
		read_end(op, err, NULL, 0);
	} else if (!place_find(op->client, &op->request.place)) { /* out of date before it arrived */
		op->last = ERR_BUSY;
		read_pause(op);
	} else
		read_step(op);
}

static void read_send(struct read_op *op)
{
	Granary__ChunkRead chunk_read = GRANARY__CHUNK_READ__INIT;
	Granary__BlobRead blob_read = GRANARY__BLOB_READ__INIT;
	const ProtobufCMessage *message = &blob_read.base;
	enum message_type type = MESSAGE_BLOB_READ;
	if (op->request.place.map) {
		chunk_read.chunk = op->chunk;
		chunk_read.version = op->version;
		chunk_read.offset = op->request.offset;
		chunk_read.bytes = op->request.bytes;
		message = &chunk_read.base;
		type = MESSAGE_CHUNK_READ;
	} else {
		blob_read.pack = op->chunk;
		blob_read.version = op->version;
		blob_read.slot = op->request.slot;
	}
	struct attempt *attempt = &op->attempts[op->tried];
	*attempt = (struct attempt){.op = op, .server = op->order[op->tried], .sent_us = loop_now_us(op->client->loop)};
	op->tried++;
	op->asked++;
	op->state = READ_SENT;
	server_asked(attempt->server, loop_now_ms(op->client->loop));
	attempt->rpc_call = rpc_peer_call(attempt->server->peer, type, message, NULL, CLIENT_READ_ATTEMPT_MS, read_answered, attempt);
	if (op->tried < op->count)
		timer_start(&op->timer, server_hedge_ms(attempt->server));
	else
		timer_stop(&op->timer);
}

/* The replica that was asked takes its time: the next one is asked as well. Where others have found out meanwhile that it does not
 * answer, that costs no credit. */
static void read_hedge(struct read_op *op)
{
	struct client *client = op->client;
	uint64_t now_ms = loop_now_ms(client->loop);
	const struct server *slow = op->attempts[op->tried - 1].server;
	bool known = slow->sick_ms != 0 && slow->sick_until_ms > now_ms;
	if (known || servers_may_hedge(&client->servers))
		read_send(op);
	else
		timer_start(&op->timer, server_hedge_ms(slow));
}

/* This client reads the same place from the same replica as long as that is as good as the others: what it has in memory is
 * not read from three disks. Other clients, other places: other replicas. */
static void choose_order(struct read_op *op, const struct location *location)
{
	struct client *client = op->client;
	uint64_t place = op->request.place.map ? op->request.offset / AFFINE_BYTES : op->request.slot;
	struct rng rng;
	rng_init(&rng, client->id ^ location->chunk * 0x9e3779b97f4a7c15u ^ place << 40);
	location_shuffle(location, &rng, loop_now_ms(client->loop), op->order);
}

/* Goes on as a read of a cold chunk. */
static void read_cold(struct read_op *op, uint64_t chunk)
{
	struct client *client = op->client;
	struct read_request request = op->request;
	struct read_history history = {.deadline_ms = op->deadline_ms,
				       .backoff_ms = op->backoff_ms,
				       .rounds_damaged = op->rounds_damaged,
				       .rounds_absent = op->rounds_absent};
	read_done_fn *done = op->done;
	void *arg = op->arg;
	timer_stop(&op->timer);
	running_remove(client, &op->running);
	free(op);
	cold_read(client, &request, chunk, &history, done, arg);
}

static void read_step(struct read_op *op)
{
	struct client *client = op->client;
	if (client->closing || loop_now_ms(client->loop) >= op->deadline_ms) {
		enum err why = op->last ? op->last : ERR_TIMEOUT;
		read_end(op, client->closing ? ERR_CANCELLED : why, NULL, 0);
		return;
	}
	if (op->chunk == 0) {
		const struct location *location = place_find(client, &op->request.place);
		if (!location) {
			op->state = READ_LOCATING;
			place_fetch(client, &op->request.place, read_located, op);
			return;
		}
		if (location->cold) {
			read_cold(op, location->chunk);
			return;
		}
		if (location->count == 0) {
			read_end(op, OK, NULL, 0);
			return;
		}
		op->chunk = location->chunk;
		op->version = location->version;
		op->written = location->written;
		op->count = location_readable(location);
		op->tried = op->without_chunk = 0;
		op->last = OK;
		choose_order(op, location);
	}
	read_send(op);
}

static void read_timer(void *arg)
{
	struct read_op *op = arg;
	if (op->state == READ_SENT && op->asked > 0 && !op->client->closing)
		read_hedge(op);
	else
		read_step(op);
}

void read_resume(struct client *client, const struct read_request *request, const struct read_history *history, read_done_fn *done,
		 void *arg)
{
	struct read_op *op = mem_zero(1, sizeof *op);
	op->client = client;
	op->request = *request;
	op->deadline_ms = history->deadline_ms;
	op->backoff_ms = history->backoff_ms;
	op->rounds_damaged = history->rounds_damaged;
	op->rounds_absent = history->rounds_absent;
	op->done = done;
	op->arg = arg;
	op->running.cancel = read_cancel;
	timer_init(&op->timer, client->loop, read_timer, op);
	running_add(client, &op->running);
	read_step(op);
}

void read_call(struct client *client, const struct read_request *request, read_done_fn *done, void *arg)
{
	servers_read_begins(&client->servers);
	read_resume(client, request,
		    &(struct read_history){.deadline_ms = loop_now_ms(client->loop) + client->timeout_ms, .backoff_ms = CLIENT_RETRY_MS_MIN},
		    done, arg);
}
