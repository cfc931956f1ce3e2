#include "common/data/coded_dictionary.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"

/* Measured (common/README.md). A record's beginning is what a dictionary helps with most, and many different ones teach it more than few whole
 * ones. Training takes some 50 ms a MiB. */
#define PIECE_BYTES 4096u
#define SAMPLE_BYTES (1u * MIB)
#define SAMPLES_MAX 8192u
/* A larger one finds more, and each shard has it: so many times less than the data of a shard. */
#define SHARE_OF_SHARD 128u
#define DICTIONARY_BYTES_MIN 1024u
/* What it has to save, of all that is stored. */
#define SAVED_SHARE_MIN 128u

struct sample {
	uint8_t *bytes; /* pieces, one behind the other */
	size_t *sizes;
	size_t size;
	unsigned count;
};

static struct slice piece_of(const struct coded_unit *unit, const uint8_t *bytes)
{
	size_t size = unit->size - CODED_RECORD_BYTES;
	return slice_of(bytes + unit->offset + CODED_RECORD_BYTES, size < PIECE_BYTES ? size : PIECE_BYTES);
}

/* One of so many records goes into each sample. */
static uint32_t step_of(const struct coded_index *index, const uint8_t *bytes)
{
	uint64_t size = 0;
	for (size_t i = 0; i < index->count; i++)
		size += piece_of(&index->units[i], bytes).size;
	uint64_t by_size = size / SAMPLE_BYTES + 1, by_count = index->count / SAMPLES_MAX + 1, step = by_size > by_count ? by_size : by_count;
	return step < 2 ? 2 : (uint32_t)step;
}

/* Scattered: records often come in a rhythm of their own. (Knuth's multiplicative hash.) */
static uint32_t group_of(size_t i, uint32_t step)
{
	return (uint32_t)(((uint32_t)i * 2654435761u) >> 16) % step;
}

static void sample_init(struct sample *sample, const struct coded_index *index, const uint8_t *bytes, uint32_t step, uint32_t group)
{
	*sample = (struct sample){ .bytes = mem_alloc(SAMPLE_BYTES), .sizes = mem_alloc(SAMPLES_MAX * sizeof(size_t)) };
	for (size_t i = 0; i < index->count && sample->count < SAMPLES_MAX; i++) {
		struct slice piece = piece_of(&index->units[i], bytes);
		if (group_of(i, step) != group || piece.size == 0 || piece.size > SAMPLE_BYTES - sample->size)
			continue;
		memcpy(sample->bytes + sample->size, piece.bytes, piece.size);
		sample->size += piece.size;
		sample->sizes[sample->count++] = piece.size;
	}
}

static void sample_deinit(struct sample *sample)
{
	free(sample->bytes);
	free(sample->sizes);
}

static uint64_t stored_bytes(const struct sample *sample, struct compressor *compressor)
{
	uint8_t out[PIECE_BYTES];
	uint64_t stored = 0;
	size_t at = 0;
	for (unsigned i = 0; i < sample->count; at += sample->sizes[i++]) {
		size_t size = compressor_run(compressor, slice_of(sample->bytes + at, sample->sizes[i]), out);
		stored += size != 0 ? size : sample->sizes[i];
	}
	return stored;
}

/* What it saves at the beginning of a record is about what it saves of all of it. */
static bool pays(const struct coded_index *index, const struct sample *sample, const struct coded_dictionary *dictionary)
{
	struct compressor *alone = compressor_open(index->compression), *with = compressor_open(index->compression);
	compressor_use(with, buf_slice(&dictionary->bytes));
	uint64_t before = stored_bytes(sample, alone), after = stored_bytes(sample, with);
	compressor_close(alone);
	compressor_close(with);
	if (sample->count == 0 || after >= before)
		return false;
	uint64_t saved = (before - after) * index->count / sample->count, stored = before * index->raw_bytes / sample->size;
	return saved >= dictionary->stored.size * index->data_shards + stored / SAVED_SHARE_MIN;
}

static void store(struct coded_dictionary *dictionary)
{
	struct slice bytes = buf_slice(&dictionary->bytes);
	struct compressor *compressor = compressor_open(COMPRESSION_HIGH);
	uint8_t head[CODED_DICTIONARY_HEAD_BYTES], *packed = mem_alloc(bytes.size);
	size_t size = compressor_run(compressor, bytes, packed);
	put_le32(head, (uint32_t)bytes.size);
	put_le32(head + 4, (uint32_t)(size != 0 ? size : bytes.size));
	buf_append(&dictionary->stored, head, sizeof(head));
	buf_append_slice(&dictionary->stored, size != 0 ? slice_of(packed, size) : bytes);
	compressor_close(compressor);
	free(packed);
}

static bool train(const struct coded_index *index, const struct sample *sample, struct coded_dictionary *dictionary)
{
	uint64_t bytes_max = index->raw_bytes / index->data_shards / SHARE_OF_SHARD;
	struct dictionary_samples samples = { .bytes = sample->bytes, .sizes = sample->sizes, .count = sample->count };
	bytes_max = bytes_max < CODED_DICTIONARY_BYTES_MAX ? bytes_max : CODED_DICTIONARY_BYTES_MAX;
	if (bytes_max < DICTIONARY_BYTES_MIN)
		return false;
	buf_reserve(&dictionary->bytes, bytes_max);
	dictionary->bytes.size = dictionary_train(&samples, dictionary->bytes.bytes, bytes_max);
	return dictionary->bytes.size > 0;
}

bool coded_dictionary_choose(const struct coded_index *index, const uint8_t *bytes, struct coded_dictionary *out)
{
	uint32_t step = step_of(index, bytes);
	struct coded_dictionary dictionary = { 0 };
	struct sample known, others;
	sample_init(&known, index, bytes, step, 0);
	sample_init(&others, index, bytes, step, 1);
	bool chosen = train(index, &known, &dictionary);
	if (chosen) {
		store(&dictionary);
		chosen = pays(index, &others, &dictionary);
	}
	if (chosen)
		*out = dictionary;
	else
		coded_dictionary_deinit(&dictionary);
	sample_deinit(&known);
	sample_deinit(&others);
	return chosen;
}

void coded_dictionary_deinit(struct coded_dictionary *dictionary)
{
	buf_deinit(&dictionary->bytes);
	buf_deinit(&dictionary->stored);
}
