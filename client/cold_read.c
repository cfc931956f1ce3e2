#include "client/cold_read.h"

#include <stdlib.h>
#include <string.h>

#include "client/coded_places.h"
#include "client/degraded_read.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

#define PARTS_MAX (FRAME_DATA_BYTES_MAX / CODED_UNIT_BYTES_MIN + 2u)
#define ROUNDS_MAX 2u

struct cold_read;

/* Of one shard; blocks of the chunk, or the blob. */
struct part {
	struct cold_read *read;
	unsigned shard;
	uint32_t first, end;
	rpc_call_id call;
	uint64_t sent_us;
	struct timer hedge;
	struct degraded_read *degraded;
	uint32_t next; /* degraded: the block whose unit is computed */
	struct iobuf *computed;
	struct iobuf *data; /* the result; NULL: zeros */
	bool ended;
};

struct cold_read {
	struct running running;
	struct client *client;
	struct read_request request;
	struct read_history history;
	struct coded_place place;
	struct part parts[PARTS_MAX];
	unsigned count, left;
	bool starting;
	enum err err;
	struct timer pause;
	read_done_fn *done;
	void *arg;
};

static uint32_t block_of(uint32_t offset)
{
	return offset / BLOCK_BYTES;
}

static bool is_blob(const struct cold_read *read)
{
	return read->request.place.map == NULL;
}

static void parts_clear(struct cold_read *read)
{
	for (unsigned i = 0; i < read->count; i++) {
		struct part *part = &read->parts[i];
		timer_stop(&part->hedge);
		if (part->call != 0)
			rpc_call_cancel(read->client->rpc, part->call);
		if (part->degraded)
			degraded_read_cancel(part->degraded);
		iobuf_unref(part->computed);
		iobuf_unref(part->data);
	}
	read->count = 0;
}

static void read_free(struct cold_read *read)
{
	parts_clear(read);
	timer_stop(&read->pause);
	running_remove(read->client, &read->running);
	free(read);
}

static void read_end(struct cold_read *read, enum err err, struct iobuf *data, uint32_t skip)
{
	read_done_fn *done = read->done;
	void *arg = read->arg;
	if (data)
		iobuf_ref(data);
	read_free(read);
	done(arg, err, data, skip);
	iobuf_unref(data);
}

static void cold_cancel(struct running *running)
{
	read_end(container_of(running, struct cold_read, running), ERR_CANCELLED, NULL, 0);
}

/* ---- the end of a round */

static void on_pause(void *arg)
{
	struct cold_read *read = arg;
	struct client *client = read->client;
	struct read_request request = read->request;
	struct read_history history = read->history;
	read_done_fn *done = read->done;
	void *done_arg = read->arg;
	read_free(read);
	read_resume(client, &request, &history, done, done_arg);
}

static void round_failed(struct cold_read *read)
{
	struct client *client = read->client;
	uint64_t pause = read->history.backoff_ms;
	bool corrupt = read->err == ERR_CORRUPT && ++read->history.rounds_damaged >= ROUNDS_MAX;
	if (client->closing || corrupt || read->err == ERR_NOT_FOUND || read->err == ERR_INVALID || read->err == ERR_NOT_SUPPORTED ||
	    loop_now_ms(client->loop) >= read->history.deadline_ms) {
		read_end(read, client->closing ? ERR_CANCELLED : read->err, NULL, 0);
		return;
	}
	place_forget(client, &read->request.place);
	parts_clear(read);
	bool absent = read->err == ERR_NO_CHUNK && read->history.rounds_absent++ == 0;
	if (absent) /* it is hot again, or the shard is elsewhere */
		pause = 0;
	else
		read->history.backoff_ms = pause * 2 > CLIENT_RETRY_MS_MAX ? CLIENT_RETRY_MS_MAX : pause * 2;
	timer_start(&read->pause, pause == 0 ? 0 : pause / 2 + rng_below(&client->rng, pause));
}

static void read_done(struct cold_read *read)
{
	uint32_t first = block_of(read->request.offset), size;
	if (read->err) {
		round_failed(read);
		return;
	}
	if (is_blob(read)) {
		read_end(read, OK, read->parts[0].data, 0);
		return;
	}
	uint32_t skip = read->request.offset % BLOCK_BYTES;
	if (read->count == 1) {
		read_end(read, OK, read->parts[0].data, skip);
		return;
	}
	size = (read->parts[read->count - 1].end - first) * BLOCK_BYTES;
	struct iobuf *whole = iobuf_open(size);
	whole->size = size;
	memset(whole->bytes, 0, size);
	for (unsigned i = 0; i < read->count; i++) {
		const struct part *part = &read->parts[i];
		if (part->data)
			memcpy(whole->bytes + (size_t)(part->first - first) * BLOCK_BYTES, part->data->bytes, part->data->size);
	}
	read_end(read, OK, whole, skip);
	iobuf_unref(whole);
}

static void part_end(struct part *part, enum err err)
{
	struct cold_read *read = part->read;
	part->ended = true;
	timer_stop(&part->hedge);
	if (part->call != 0)
		rpc_call_cancel(read->client->rpc, part->call);
	part->call = 0;
	if (part->degraded)
		degraded_read_cancel(part->degraded);
	part->degraded = NULL;
	if (err && !read->err)
		read->err = err;
	if (--read->left == 0 && !read->starting)
		read_done(read);
}

/* ---- computed */

static void compute_next(struct part *part);

/* The blob, or the blocks from `next` on that are in one unit. */
static struct degraded_wanted wanted_of(const struct part *part)
{
	const struct cold_read *read = part->read;
	if (is_blob(read))
		return (struct degraded_wanted){.unit = read->request.slot};
	uint32_t unit_blocks = read->place.unit_bytes / BLOCK_BYTES, first = part->next % unit_blocks, left = part->end - part->next;
	return (struct degraded_wanted){.unit = part->next / unit_blocks,
					.first = first,
					.count = unit_blocks - first < left ? unit_blocks - first : left};
}

/* They have come. */
static void on_computed(void *arg, enum err err, struct iobuf *data)
{
	struct part *part = arg;
	struct cold_read *read = part->read;
	part->degraded = NULL;
	if (err && part->call != 0)
		return; /* whom we asked first may still answer */
	if (err) {
		part_end(part, err);
		return;
	}
	if (is_blob(read)) {
		part->data = iobuf_ref(data);
		part_end(part, OK);
		return;
	}
	struct degraded_wanted wanted = wanted_of(part);
	uint8_t *to = part->computed->bytes + (size_t)(part->next - part->first) * BLOCK_BYTES;
	memset(to, 0, (size_t)wanted.count * BLOCK_BYTES);
	if (data)
		memcpy(to, data->bytes, data->size);
	part->next += wanted.count;
	compute_next(part);
}

static void compute_next(struct part *part)
{
	struct cold_read *read = part->read;
	if (!is_blob(read) && part->next == part->end) {
		part->data = part->computed;
		part->computed = NULL;
		part_end(part, OK);
		return;
	}
	part->degraded = degraded_read_start(read->client, &read->place, wanted_of(part), on_computed, part);
}

static void compute(struct part *part)
{
	if (part->degraded || part->ended)
		return;
	if (!is_blob(part->read) && !part->computed) {
		part->computed = iobuf_open((part->end - part->first) * BLOCK_BYTES);
		part->computed->size = (part->end - part->first) * BLOCK_BYTES;
	}
	part->next = part->first;
	compute_next(part);
}

/* ---- asked */

static enum err verify(const struct part *part, const struct rpc_result *result)
{
	const Granary__ColdReadReply *reply = (const Granary__ColdReadReply *)result->reply;
	uint32_t size = result->data ? result->data->size : 0;
	if (is_blob(part->read))
		return reply->crcs.len == 4 && crc32c(result->data ? result->data->bytes : NULL, size) == get_le32(reply->crcs.data) ?
			       OK :
			       ERR_CORRUPT;
	if (size % BLOCK_BYTES != 0 || size / BLOCK_BYTES > part->end - part->first || reply->crcs.len != size / BLOCK_BYTES * 4u)
		return ERR_CORRUPT;
	for (uint32_t at = 0; at < size; at += BLOCK_BYTES)
		if (crc32c(result->data->bytes + at, BLOCK_BYTES) != get_le32(reply->crcs.data + at / BLOCK_BYTES * 4u))
			return ERR_CORRUPT;
	return OK;
}

static void part_failed(struct part *part, enum err err)
{
	struct cold_read *read = part->read;
	struct client *client = read->client;
	struct server *server = read->place.shards[part->shard].server;
	if (err == ERR_CORRUPT)
		log_warn("read_corrupt", "chunk=%016llx shard=%016llx", (unsigned long long)read->place.chunk,
			 (unsigned long long)read->place.shards[part->shard].id);
	if (err == ERR_CLOSED || err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_NO_LEASE || err == ERR_STORE_FAILED)
		server_failed(server, loop_now_ms(client->loop));
	bool gone = (err == ERR_NO_CHUNK || err == ERR_STALE_VERSION) && read->history.rounds_absent == 0;
	if (gone && !part->degraded)
		part_end(part, ERR_NO_CHUNK);
	else if (err == ERR_NOT_FOUND || err == ERR_NOT_SUPPORTED)
		part_end(part, err);
	else
		compute(part);
}

static void part_answered(void *arg, const struct rpc_result *result)
{
	struct part *part = arg;
	struct cold_read *read = part->read;
	struct client *client = read->client;
	part->call = 0;
	enum err err = result->err == OK ? verify(part, result) : result->err;
	if (err) {
		part_failed(part, err);
		return;
	}
	client->answered_ms = loop_now_ms(client->loop);
	server_answered(read->place.shards[part->shard].server, loop_now_us(client->loop) - part->sent_us);
	part->data = result->data ? iobuf_ref(result->data) : NULL;
	part_end(part, OK);
}

static void on_hedge(void *arg)
{
	struct part *part = arg;
	const struct server *server = part->read->place.shards[part->shard].server;
	bool known = server->sick_ms != 0 && server->sick_until_ms > loop_now_ms(part->read->client->loop);
	if (known || servers_may_hedge(&part->read->client->servers))
		compute(part);
	else
		timer_start(&part->hedge, server_hedge_ms(server));
}

static void part_begin(struct part *part)
{
	struct cold_read *read = part->read;
	struct client *client = read->client;
	const struct coded_shard *shard = &read->place.shards[part->shard];
	Granary__ColdRead message = GRANARY__COLD_READ__INIT;
	timer_init(&part->hedge, client->loop, on_hedge, part);
	/* One that is known not to answer is not waited for, but for the one read that tries whether it does again (servers.h). */
	if (!shard->server || shard->server->sick_until_ms > loop_now_ms(client->loop)) {
		compute(part);
		return;
	}
	message.shard = shard->id;
	message.version = shard->version;
	message.slot = is_blob(read) ? read->request.slot : 0;
	message.offset = part->first * BLOCK_BYTES;
	message.bytes = (part->end - part->first) * BLOCK_BYTES;
	part->sent_us = loop_now_us(client->loop);
	server_asked(shard->server, loop_now_ms(client->loop));
	part->call = rpc_peer_call(shard->server->peer, MESSAGE_COLD_READ, &message.base, NULL, CLIENT_READ_ATTEMPT_MS, part_answered, part);
	timer_start(&part->hedge, server_hedge_ms(shard->server));
}

/* One part for each shard. */
static void cut(struct cold_read *read)
{
	const struct read_request *request = &read->request;
	if (is_blob(read)) {
		read->parts[read->count++] = (struct part){.read = read, .shard = coded_place_of(&read->place, request->slot)};
		return;
	}
	uint32_t unit_blocks = read->place.unit_bytes / BLOCK_BYTES, end = block_of(request->offset + request->bytes + BLOCK_BYTES - 1);
	for (uint32_t block = block_of(request->offset); block < end;) {
		uint32_t to = (block / unit_blocks + 1) * unit_blocks;
		unsigned shard = coded_place_of(&read->place, block / unit_blocks);
		to = to < end ? to : end;
		if (read->count > 0 && read->parts[read->count - 1].shard == shard)
			read->parts[read->count - 1].end = to;
		else
			read->parts[read->count++] = (struct part){.read = read, .shard = shard, .first = block, .end = to};
		block = to;
	}
}

void cold_read(struct client *client, const struct read_request *request, uint64_t chunk, const struct read_history *history,
	       read_done_fn *done, void *arg)
{
	struct cold_read *read = mem_zero(1, sizeof *read);
	const struct coded_place *place = coded_places_find(&client->servers, chunk);
	read->client = client;
	read->request = *request;
	read->history = *history;
	read->done = done;
	read->arg = arg;
	read->running.cancel = cold_cancel;
	timer_init(&read->pause, client->loop, on_pause, read);
	running_add(client, &read->running);
	if (!place || (place->unit_bytes == 0) != is_blob(read)) { /* it had to make room for others */
		read->err = ERR_NO_CHUNK;
		read->history.rounds_absent = 0;
		round_failed(read);
		return;
	}
	read->place = *place;
	read->place.head = NULL;
	cut(read);
	read->left = read->count;
	read->starting = true;
	for (unsigned i = 0; i < read->count; i++)
		part_begin(&read->parts[i]);
	read->starting = false;
	if (read->left == 0)
		read_done(read);
}
