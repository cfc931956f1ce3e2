#include "client/degraded_read.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/erasure.h"

#define PIECE_BYTES FRAME_DATA_BYTES_MAX
#define TRIES_MAX 2000u /* of sets of k */

enum question_state { NOT_ASKED, ASKED, ANSWERED, FAILED };

/* What one shard is asked for. */
struct question {
	struct degraded_read *read;
	unsigned place;
	enum question_state state;
	rpc_call_id call;
	uint64_t sent_us;
	struct iobuf *data;
};

struct degraded_read {
	struct client *client;
	struct coded_place place;
	struct coded_head *head;
	struct degraded_wanted wanted;
	const struct coded_unit *unit;
	unsigned lost; /* the data shard that holds it */
	bool in_index;
	/* The index: from one shard after another. */
	unsigned index_place;
	uint8_t *index_bytes;
	uint32_t index_size, index_have;
	/* The range of the lost shard's file, and the piece of it that is being gathered. */
	uint32_t from, end, offset, bytes;
	uint8_t *range;
	/* The first k would not do: the range of each of the others that are there. */
	bool all;
	uint8_t *ranges[SHARDS_MAX];
	struct question questions[SHARDS_MAX];
	struct timer hedge;
	struct defer begin;
	degraded_done_fn *done;
	void *arg;
};

static void gather(struct degraded_read *read);
static void index_ask(struct degraded_read *read);

static void questions_clear(struct degraded_read *read)
{
	timer_stop(&read->hedge);
	for (unsigned i = 0; i < SHARDS_MAX; i++) {
		struct question *question = &read->questions[i];
		if (question->call != 0)
			rpc_call_cancel(read->client->rpc, question->call);
		iobuf_unref(question->data);
		question->data = NULL;
		question->call = 0;
		if (question->state != FAILED)
			question->state = NOT_ASKED;
	}
}

void degraded_read_cancel(struct degraded_read *read)
{
	questions_clear(read);
	defer_cancel(&read->begin);
	coded_head_unref(read->head);
	free(read->index_bytes);
	free(read->range);
	for (unsigned place = 0; place < SHARDS_MAX; place++)
		free(read->ranges[place]);
	free(read);
}

static void read_end(struct degraded_read *read, enum err err, struct iobuf *data)
{
	degraded_done_fn *done = read->done;
	void *arg = read->arg;
	degraded_read_cancel(read);
	done(arg, err, data);
}

static unsigned shard_count(const struct degraded_read *read)
{
	return read->place.data_shards + read->place.parity_shards;
}

/* ---- one question */

static bool is_right(const struct rpc_result *result, uint32_t bytes)
{
	const Granary__ChunkReadReply *reply = (const Granary__ChunkReadReply *)result->reply;
	if (!result->data || result->data->size != bytes || reply->crcs.len != bytes / BLOCK_BYTES * 4u)
		return false;
	for (uint32_t at = 0; at < bytes; at += BLOCK_BYTES)
		if (crc32c(result->data->bytes + at, BLOCK_BYTES) != get_le32(reply->crcs.data + at / BLOCK_BYTES * 4u))
			return false;
	return true;
}

static void question_answered(void *arg, const struct rpc_result *result)
{
	struct question *question = arg;
	struct degraded_read *read = question->read;
	struct client *client = read->client;
	struct server *server = read->place.shards[question->place].server;
	question->call = 0;
	bool right = result->err == OK && is_right(result, read->bytes);
	if (right) {
		client->answered_ms = loop_now_ms(client->loop);
		server_answered(server, loop_now_us(client->loop) - question->sent_us);
		question->state = ANSWERED;
		question->data = iobuf_ref(result->data);
	} else {
		question->state = FAILED;
		if (result->err == ERR_CLOSED || result->err == ERR_UNREACHABLE || result->err == ERR_TIMEOUT ||
		    result->err == ERR_NO_LEASE || result->err == ERR_STORE_FAILED)
			server_failed(server, loop_now_ms(client->loop));
	}
	if (read->in_index)
		index_ask(read);
	else
		gather(read);
}

static void ask(struct degraded_read *read, unsigned place, uint32_t offset)
{
	struct question *question = &read->questions[place];
	const struct coded_shard *shard = &read->place.shards[place];
	Granary__ChunkRead message = GRANARY__CHUNK_READ__INIT;
	message.chunk = shard->id;
	message.version = shard->version;
	message.offset = offset;
	message.bytes = read->bytes;
	question->read = read;
	question->place = place;
	question->state = ASKED;
	question->sent_us = loop_now_us(read->client->loop);
	server_asked(shard->server, loop_now_ms(read->client->loop));
	question->call = rpc_peer_call(shard->server->peer, MESSAGE_CHUNK_READ, &message.base, NULL, CLIENT_READ_ATTEMPT_MS,
				       question_answered, question);
}

/* The healthiest and fastest of those that have not been asked, but for the lost one; SHARDS_MAX: none is left. */
static unsigned best(const struct degraded_read *read)
{
	uint64_t now_ms = loop_now_ms(read->client->loop);
	unsigned found = SHARDS_MAX;
	bool found_sick = false;
	for (unsigned place = 0; place < shard_count(read); place++) {
		const struct server *server = read->place.shards[place].server;
		if ((place == read->lost && !read->in_index) || !server || read->questions[place].state != NOT_ASKED)
			continue;
		bool sick = server->sick_until_ms > now_ms;
		if (found != SHARDS_MAX && (sick > found_sick ||
					    (sick == found_sick && server->latency_us >= read->place.shards[found].server->latency_us)))
			continue;
		found = place;
		found_sick = sick;
	}
	return found;
}

/* ---- the pieces */

static struct iobuf *iobuf_of(uint32_t size)
{
	struct iobuf *data = iobuf_open(size > 0 ? size : 1);
	data->size = size;
	return data;
}

/* Of a unit that was computed as a whole. */
static const uint8_t *unit_bytes(const struct degraded_read *read)
{
	return read->range + (read->head->index.head_bytes + read->unit->offset - read->from);
}

static enum err unpack_record(const struct degraded_read *read, struct iobuf **out)
{
	uint32_t length, crc;
	enum err err = coded_record(read->unit, unit_bytes(read), &length, &crc);
	if (err)
		return err;
	struct decompressor *decompressor = decompressor_open();
	*out = iobuf_of(length);
	err = coded_unpack_record(&read->head->index, read->unit, unit_bytes(read), decompressor, (*out)->bytes);
	decompressor_close(decompressor);
	return err;
}

/* The range is the blocks that are wanted, or all of a compressed unit. */
static enum err unpack_blocks(const struct degraded_read *read, struct iobuf **out)
{
	const struct coded_index *index = &read->head->index;
	uint32_t size = read->wanted.count * BLOCK_BYTES, offset;
	const uint8_t *crcs;
	*out = iobuf_of(size);
	if (coded_unit_blocks(index, read->unit, read->wanted.first, &offset, &crcs)) {
		memcpy((*out)->bytes, read->range, size);
		for (uint32_t at = 0; at < size; at += BLOCK_BYTES)
			if (crc32c(read->range + at, BLOCK_BYTES) != get_le32(crcs + at / BLOCK_BYTES * 4u))
				return ERR_CORRUPT;
		return OK;
	}
	struct decompressor *decompressor = decompressor_open();
	uint8_t *unpacked = mem_alloc(coded_unit_raw_bytes(index, read->wanted.unit));
	enum err err = coded_unpack(index, read->unit, unit_bytes(read), decompressor, unpacked, NULL);
	if (err == OK)
		memcpy((*out)->bytes, unpacked + (size_t)read->wanted.first * BLOCK_BYTES, size);
	free(unpacked);
	decompressor_close(decompressor);
	return err;
}

static enum err unpack(const struct degraded_read *read, struct iobuf **out)
{
	enum err err = read->head->index.unit_bytes == 0 ? unpack_record(read, out) : unpack_blocks(read, out);
	if (err) {
		iobuf_unref(*out);
		*out = NULL;
	}
	return err;
}

/* `sources`: by place; of k of them, from the first on. */
static void decode(const struct degraded_read *read, const uint8_t *const *by_place, uint32_t bytes, uint8_t *out)
{
	uint8_t have[DATA_SHARDS_MAX], wanted = (uint8_t)read->lost;
	const uint8_t *sources[DATA_SHARDS_MAX];
	unsigned count = 0;
	struct erasure erasure;
	for (unsigned place = 0; place < shard_count(read) && count < read->place.data_shards; place++) {
		if (!by_place[place])
			continue;
		have[count] = (uint8_t)place;
		sources[count++] = by_place[place];
	}
	struct erasure_question question = {.data_shards = read->place.data_shards,
					    .parity_shards = read->place.parity_shards,
					    .have = have,
					    .wanted = &wanted,
					    .wanted_count = 1};
	erasure_init_decoder(&erasure, &question);
	erasure_run(&erasure, bytes, sources, &out);
	erasure_deinit(&erasure);
}

static void decode_piece(struct degraded_read *read)
{
	const uint8_t *by_place[SHARDS_MAX] = { NULL };
	for (unsigned place = 0; place < shard_count(read); place++)
		if (read->questions[place].state == ANSWERED)
			by_place[place] = read->questions[place].data->bytes;
	decode(read, by_place, read->bytes, read->range + (read->offset - read->from));
}

static void keep_piece(struct degraded_read *read)
{
	for (unsigned place = 0; place < shard_count(read); place++) {
		if (read->questions[place].state != ANSWERED)
			continue;
		if (!read->ranges[place])
			read->ranges[place] = mem_alloc(read->end - read->from);
		memcpy(read->ranges[place] + (read->offset - read->from), read->questions[place].data->bytes, read->bytes);
	}
}

/* The next larger number with as many bits. */
static uint64_t next_with_as_many(uint64_t bits)
{
	uint64_t low = bits & (~bits + 1), ripple = bits + low;
	return ((bits ^ ripple) >> 2) / low | ripple;
}

/* All of what is there without some, as many as are too many. */
static enum err try_sets(struct degraded_read *read, struct iobuf **out)
{
	unsigned places[SHARDS_MAX], count = 0, tries = 0;
	for (unsigned place = 0; place < shard_count(read); place++)
		if (read->ranges[place] && read->questions[place].state != FAILED)
			places[count++] = place;
	if (count <= read->place.data_shards)
		return ERR_CORRUPT;
	for (uint64_t without = (1ull << (count - read->place.data_shards)) - 1; without < 1ull << count && tries++ < TRIES_MAX;
	     without = next_with_as_many(without)) {
		const uint8_t *by_place[SHARDS_MAX] = { NULL };
		for (unsigned i = 0; i < count; i++)
			by_place[places[i]] = without >> i & 1 ? NULL : read->ranges[places[i]];
		decode(read, by_place, read->end - read->from, read->range);
		if (unpack(read, out) == OK)
			return OK;
	}
	return ERR_CORRUPT;
}

static void next_piece(struct degraded_read *read);

static void unit_done(struct degraded_read *read)
{
	struct iobuf *data = NULL;
	enum err err = read->all ? try_sets(read, &data) : unpack(read, &data);
	if (err == ERR_CORRUPT && !read->all) {
		read->all = true;
		read->offset = read->from;
		next_piece(read);
		return;
	}
	read_end(read, err, data);
	iobuf_unref(data);
}

static void next_piece(struct degraded_read *read)
{
	if (read->offset == read->end) {
		unit_done(read);
		return;
	}
	read->bytes = read->end - read->offset < PIECE_BYTES ? read->end - read->offset : PIECE_BYTES;
	questions_clear(read);
	gather(read);
}

/* As many as are needed are asked, no more until one is late. */
static void gather(struct degraded_read *read)
{
	unsigned answered = 0, asked = 0;
	for (unsigned place = 0; place < shard_count(read); place++) {
		answered += read->questions[place].state == ANSWERED;
		asked += read->questions[place].state == ASKED;
	}
	if (answered >= read->place.data_shards && (!read->all || (asked == 0 && best(read) == SHARDS_MAX))) {
		if (read->all)
			keep_piece(read);
		else
			decode_piece(read);
		read->offset += read->bytes;
		next_piece(read);
		return;
	}
	while (answered + asked < read->place.data_shards || read->all) {
		unsigned place = best(read);
		if (place == SHARDS_MAX)
			break;
		ask(read, place, read->offset);
		timer_start(&read->hedge, server_hedge_ms(read->place.shards[place].server));
		asked++;
	}
	if (answered + asked < read->place.data_shards)
		read_end(read, ERR_UNREACHABLE, NULL); /* those that are missing come back, or are made anew */
}

static void on_hedge(void *arg)
{
	struct degraded_read *read = arg;
	unsigned place = best(read);
	if (place == SHARDS_MAX || read->in_index)
		return;
	timer_start(&read->hedge, server_hedge_ms(read->place.shards[place].server));
	if (servers_may_hedge(&read->client->servers))
		ask(read, place, read->offset);
}

/* ---- the index */

/* What of it the chunk has. */
static void clip_wanted(struct degraded_read *read)
{
	const struct coded_index *index = &read->head->index;
	if (index->unit_bytes == 0 || !read->unit)
		return;
	uint32_t blocks = coded_unit_raw_bytes(index, read->wanted.unit) / BLOCK_BYTES;
	if (read->wanted.first >= blocks)
		read->unit = NULL;
	else if (read->wanted.count > blocks - read->wanted.first)
		read->wanted.count = blocks - read->wanted.first;
}

static void index_known(struct degraded_read *read)
{
	const struct coded_index *index = &read->head->index;
	read->in_index = false;
	read->unit = coded_index_find(index, read->wanted.unit);
	clip_wanted(read);
	if (!read->unit) {
		read_end(read, index->unit_bytes == 0 ? ERR_NOT_FOUND : OK, NULL);
		return;
	}
	read->lost = read->unit->shard;
	uint32_t offset = read->unit->offset, size = read->unit->size;
	const uint8_t *crcs;
	if (index->unit_bytes != 0 && coded_unit_blocks(index, read->unit, read->wanted.first, &offset, &crcs))
		size = read->wanted.count * BLOCK_BYTES;
	uint32_t from = index->head_bytes + offset;
	read->from = read->offset = from / BLOCK_BYTES * BLOCK_BYTES;
	read->end = (from + size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	read->range = mem_alloc(read->end - read->from);
	for (unsigned place = 0; place < SHARDS_MAX; place++)
		read->questions[place].state = NOT_ASKED;
	next_piece(read);
}

/* Kept with the place, if that is still the same. */
static void index_keep(struct degraded_read *read)
{
	struct coded_place *place = coded_places_find(&read->client->servers, read->place.chunk);
	unsigned heads = 0;
	struct coded_place *other, *next;
	if (!place || place->head || place->shards[0].id != read->place.shards[0].id)
		return;
	HASH_ITER(hh, read->client->servers.coded, other, next)
	{
		if (other->head && ++heads > CLIENT_HEADS_MAX) {
			coded_head_unref(other->head);
			other->head = NULL;
		}
	}
	coded_head_ref(read->head);
	place->head = read->head;
}

static bool index_parse(struct degraded_read *read)
{
	struct coded_index index = {0};
	if (coded_index_parse(slice_of(read->index_bytes, read->index_size), &index))
		return false;
	if (index.chunk != read->place.chunk || index.data_shards != read->place.data_shards ||
	    index.parity_shards != read->place.parity_shards || index.unit_bytes != read->place.unit_bytes) {
		coded_index_deinit(&index);
		return false;
	}
	read->head = mem_zero(1, sizeof *read->head);
	read->head->references = 1;
	read->head->index = index;
	index_keep(read);
	return true;
}

/* What has come of it is right so far. False: this shard's will not do. */
static bool index_take(struct degraded_read *read)
{
	struct question *question = &read->questions[read->index_place];
	const struct iobuf *data = question->data;
	if (read->index_size == 0) {
		if (coded_head_bytes(slice_of(data->bytes, data->size), &read->index_size))
			return false;
		read->index_bytes = mem_resize(read->index_bytes, read->index_size);
		read->index_have = 0;
	}
	memcpy(read->index_bytes + read->index_have, data->bytes, data->size);
	read->index_have += data->size;
	iobuf_unref(question->data);
	question->data = NULL;
	return true;
}

static void index_ask(struct degraded_read *read)
{
	struct question *question = &read->questions[read->index_place];
	if (question->state == ANSWERED && !index_take(read))
		question->state = FAILED;
	if (question->state == ANSWERED && read->index_have == read->index_size) {
		if (index_parse(read)) {
			index_known(read);
			return;
		}
		question->state = FAILED;
	}
	if (question->state == FAILED || question->state == NOT_ASKED) {
		read->index_size = read->index_have = 0;
		read->index_place = best(read);
		if (read->index_place == SHARDS_MAX) {
			read_end(read, ERR_UNREACHABLE, NULL);
			return;
		}
	}
	uint32_t left = read->index_size == 0 ? BLOCK_BYTES : read->index_size - read->index_have;
	read->bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
	ask(read, read->index_place, read->index_have);
}

static void on_begin(void *arg)
{
	struct degraded_read *read = arg;
	const struct coded_place *place = coded_places_find(&read->client->servers, read->place.chunk);
	if (place && place->head && place->shards[0].id == read->place.shards[0].id) {
		read->head = place->head;
		coded_head_ref(read->head);
		index_known(read);
		return;
	}
	read->in_index = true;
	index_ask(read);
}

struct degraded_read *degraded_read_start(struct client *client, const struct coded_place *place, struct degraded_wanted wanted,
					  degraded_done_fn *done, void *arg)
{
	struct degraded_read *read = mem_zero(1, sizeof *read);
	read->client = client;
	read->place = *place;
	read->place.head = NULL;
	read->wanted = wanted;
	read->done = done;
	read->arg = arg;
	timer_init(&read->hedge, client->loop, on_hedge, read);
	defer_init(&read->begin, client->loop, on_begin, read);
	defer_post(&read->begin);
	return read;
}
