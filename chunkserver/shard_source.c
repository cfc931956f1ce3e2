#include "chunkserver/shard_source.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/data/erasure.h"

static void on_called(void *arg);

void shard_source_init(struct shard_source *source, struct service *service, const Granary__CodedLocation *coded,
		       void (*done)(void *arg), void *arg)
{
	*source = (struct shard_source){ .service = service, .coded = coded, .done = done, .arg = arg };
	shard_calls_init(&source->calls, service, coded);
	source->calls.kind = SHARD_READ;
	source->calls.done = on_called;
	source->calls.arg = source;
	for (unsigned place = 0; place < coded->n_shards; place++)
		if (coded->shards[place]->server == 0)
			source->bad |= 1ull << place;
}

void shard_source_deinit(struct shard_source *source)
{
	shard_calls_clear(&source->calls);
	free(source->head);
	source->head = NULL;
}

static bool is_bad(const struct shard_source *source, unsigned place)
{
	return (source->bad >> place & 1) != 0;
}

/* `count` places that may be asked, but for `source->place`; 0: there are not so many. */
static uint64_t choose(const struct shard_source *source, unsigned count)
{
	unsigned shards = (unsigned)source->coded->n_shards;
	uint64_t places = 0;
	for (unsigned i = 0; i < shards && count > 0; i++) {
		unsigned place = source->other_end ? shards - 1 - i : i;
		if (place == source->place || is_bad(source, place))
			continue;
		places |= 1ull << place;
		count--;
	}
	return count == 0 ? places : 0;
}

static void note_bad(struct shard_source *source)
{
	for (unsigned place = 0; place < source->coded->n_shards; place++)
		if ((source->calls.places >> place & 1) != 0 && source->calls.errs[place] != OK)
			source->bad |= 1ull << place;
}

/* ---- pieces */

static void ask_others(struct shard_source *source)
{
	source->computed = true;
	source->calls.places = choose(source, source->coded->data_shards);
	if (source->calls.places != 0) {
		shard_calls_start(&source->calls);
		return;
	}
	source->err = source->err == OK ? ERR_UNREACHABLE : source->err;
	defer_post(&source->calls.ended); /* as if they had been asked */
}

void shard_source_read(struct shard_source *source, unsigned place, uint32_t offset, uint32_t bytes)
{
	source->in_head = false;
	source->place = place;
	source->err = OK;
	source->computed = false;
	source->calls.offset = offset;
	source->calls.bytes = bytes;
	if (is_bad(source, place)) {
		ask_others(source);
		return;
	}
	source->calls.places = 1ull << place;
	shard_calls_start(&source->calls);
}

static void piece_called(struct shard_source *source)
{
	if (source->calls.places == 0) { /* too few are left */
		source->done(source->arg);
		return;
	}
	source->err = shard_calls_err(&source->calls);
	if (source->err == OK) {
		source->used = source->calls.places;
		source->done(source->arg);
		return;
	}
	note_bad(source);
	ask_others(source);
}

void shard_source_take(struct shard_source *source, uint8_t *out)
{
	unsigned count = 0;
	uint8_t have[SHARDS_MAX], wanted = (uint8_t)source->place;
	const uint8_t *sources[SHARDS_MAX];
	struct erasure erasure;
	if (!source->computed) {
		memcpy(out, source->calls.data[source->place]->bytes, source->calls.bytes);
		return;
	}
	for (unsigned place = 0; place < source->coded->n_shards; place++) {
		if ((source->used >> place & 1) == 0)
			continue;
		have[count] = (uint8_t)place;
		sources[count++] = source->calls.data[place]->bytes;
	}
	struct erasure_question question = { .data_shards = source->coded->data_shards,
					     .parity_shards = source->coded->parity_shards,
					     .have = have,
					     .wanted = &wanted,
					     .wanted_count = 1 };
	erasure_init_decoder(&erasure, &question);
	erasure_run(&erasure, source->calls.bytes, sources, &out);
	erasure_deinit(&erasure);
}

/* ---- the head */

static void head_next(struct shard_source *source)
{
	while (source->head_place < source->coded->n_shards && is_bad(source, source->head_place))
		source->head_place++;
	if (source->head_place == source->coded->n_shards) {
		source->err = source->err == OK ? ERR_UNREACHABLE : source->err;
		source->calls.places = 0;
		defer_post(&source->calls.ended);
		return;
	}
	uint32_t left = source->head_bytes == 0 ? BLOCK_BYTES : source->head_bytes - source->head_have;
	source->calls.places = 1ull << source->head_place;
	source->calls.offset = source->head_have;
	source->calls.bytes = left < FRAME_DATA_BYTES_MAX ? left : FRAME_DATA_BYTES_MAX;
	shard_calls_start(&source->calls);
}

void shard_source_read_head(struct shard_source *source)
{
	source->in_head = true;
	source->err = OK;
	head_next(source);
}

/* Of this shard it will not do. */
static void head_failed(struct shard_source *source, enum err err)
{
	source->err = err;
	source->bad |= 1ull << source->head_place;
	source->head_bytes = source->head_have = 0;
	head_next(source);
}

static void head_called(struct shard_source *source)
{
	struct shard_calls *calls = &source->calls;
	if (calls->places == 0) {
		source->done(source->arg);
		return;
	}
	enum err err = shard_calls_err(calls);
	const struct iobuf *data = calls->data[source->head_place];
	if (err == OK && source->head_bytes == 0) {
		err = coded_head_bytes(slice_of(data->bytes, data->size), &source->head_bytes);
		if (err == OK) {
			free(source->head);
			source->head = mem_alloc(source->head_bytes);
		}
	}
	if (err != OK) {
		head_failed(source, err);
		return;
	}
	memcpy(source->head + source->head_have, data->bytes, calls->bytes);
	source->head_have += calls->bytes;
	if (source->head_have < source->head_bytes) {
		head_next(source);
		return;
	}
	source->err = OK;
	source->done(source->arg);
}

static void on_called(void *arg)
{
	struct shard_source *source = arg;
	if (source->in_head)
		head_called(source);
	else
		piece_called(source);
}
