/* Coding of chunks in memory, beside what ISA-L does alone. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/rng.h"
#include "common/data/coded_image.h"
#include "common/data/erasure.h"
#include "tools/granary/bench.h"

#define ROUNDS 15
#define CLOCK_ROUNDS 1001
/* All shards of a stock profile are in the second level of cache together. */
#define CACHED_BYTES (32u * KIB)
/* An index: a few bytes for each unit, and four for each block. */
#define HEAD_BYTES_MAX (BLOCK_BYTES + CHUNK_BLOCKS * 4)
#define UNIT_BLOCKS (CODED_UNIT_BYTES / BLOCK_BYTES)

/* Memory for everything that is measured. */
struct encode {
	struct bench_profile profile;
	enum compression compression;
	uint8_t *chunk; /* CHUNK_BYTES */
	uint32_t *crcs; /* of its blocks, as they were written */
	uint8_t *parity[PARITY_SHARDS_MAX], *sums[SHARDS_MAX]; /* of a piece */
	uint8_t *head;
	struct coded_image *image;
	double clock_seconds; /* between two readings with nothing in between: it is a call of the kernel */
};

/* Of this thread: what others do with the core meanwhile is not counted. */
static double cpu_seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double clock_median(void)
{
	double spans[CLOCK_ROUNDS];
	for (int i = 0; i < CLOCK_ROUNDS; i++) {
		double began = cpu_seconds();
		spans[i] = cpu_seconds() - began;
	}
	return bench_percentile(spans, CLOCK_ROUNDS, 0.5);
}

static void init(struct encode *encode)
{
	struct rng rng;
	rng_init(&rng, 1);
	encode->clock_seconds = clock_median();
	encode->chunk = aligned_alloc(BLOCK_BYTES, CHUNK_BYTES);
	encode->crcs = mem_alloc(CHUNK_BLOCKS * sizeof *encode->crcs);
	encode->head = mem_alloc(HEAD_BYTES_MAX);
	check(encode->chunk != NULL);
	/* Half of it can be compressed away. */
	for (size_t i = 0; i < CHUNK_BYTES; i += 8) {
		uint64_t bits = i / 64 % 2 ? rng_next(&rng) : 0;
		memcpy(encode->chunk + i, &bits, 8);
	}
	for (size_t i = 0; i < CHUNK_BLOCKS; i++)
		encode->crcs[i] = crc32c(encode->chunk + i * BLOCK_BYTES, BLOCK_BYTES);
	for (unsigned i = 0; i < PARITY_SHARDS_MAX; i++)
		check((encode->parity[i] = aligned_alloc(BLOCK_BYTES, CODED_PIECE_BYTES)) != NULL);
	for (unsigned i = 0; i < SHARDS_MAX; i++)
		encode->sums[i] = mem_alloc(CODED_PIECE_BYTES / BLOCK_BYTES * 4);
}

static void deinit(struct encode *encode)
{
	for (unsigned i = 0; i < PARITY_SHARDS_MAX; i++)
		free(encode->parity[i]);
	for (unsigned i = 0; i < SHARDS_MAX; i++)
		free(encode->sums[i]);
	free(encode->chunk);
	free(encode->crcs);
	free(encode->head);
	coded_image_close(encode->image);
}

/* MiB/s of ISA-L alone: over the whole chunk once, or over its first pieces again and again. */
static double isal(const struct encode *encode, const struct erasure *encoder, uint32_t piece_bytes, bool cached)
{
	unsigned k = encode->profile.data_shards;
	size_t shard_bytes = CHUNK_BYTES / k / piece_bytes * piece_bytes, done = 0;
	double began = cpu_seconds();
	while (done < CHUNK_BYTES / 2) {
		for (size_t offset = 0; offset < shard_bytes; offset += piece_bytes) {
			const uint8_t *sources[DATA_SHARDS_MAX];
			for (unsigned i = 0; i < k; i++)
				sources[i] = encode->chunk + i * shard_bytes + (cached ? 0 : offset);
			erasure_run(encoder, piece_bytes, sources, encode->parity);
			done += (size_t)k * piece_bytes;
		}
	}
	return (double)done / MIB / (cpu_seconds() - began);
}

/* MiB/s of what cooling does with a chunk: the checksums of its writer are checked, it is compressed and cut, parity is made, and the
 * checksums of all shards but those that its writer made. Reading it (a copy, here) is not counted. */
static double code_chunk(struct encode *encode)
{
	const struct coded_options options = {.data_shards = encode->profile.data_shards,
					      .parity_shards = encode->profile.parity_shards,
					      .compression = encode->compression,
					      .raw_bytes = CHUNK_BYTES};
	const uint8_t *data[DATA_SHARDS_MAX];
	double seconds = 0, began;
	if (encode->image == NULL)
		encode->image = coded_image_open(&options);
	else
		coded_image_reopen(encode->image, &options);
	check(coded_image_unit_bytes(encode->image) == CODED_UNIT_BYTES);
	for (uint32_t id = 0; id < CHUNK_BYTES / CODED_UNIT_BYTES; id++) {
		const uint32_t *crcs = encode->crcs + (size_t)id * UNIT_BLOCKS;
		uint8_t *unit = coded_image_room(encode->image, id);
		memcpy(unit, encode->chunk + (size_t)id * CODED_UNIT_BYTES, CODED_UNIT_BYTES);
		began = cpu_seconds();
		for (size_t i = 0; i < UNIT_BLOCKS; i++)
			check(crc32c(unit + i * BLOCK_BYTES, BLOCK_BYTES) == crcs[i]);
		coded_image_add(encode->image, id, unit, crcs);
		seconds += cpu_seconds() - began - encode->clock_seconds;
	}
	began = cpu_seconds();
	coded_image_finish(encode->image);
	const struct coded_index *index = coded_image_index(encode->image);
	check(index->head_bytes <= HEAD_BYTES_MAX);
	for (unsigned i = 0; i < encode->profile.data_shards + encode->profile.parity_shards; i++)
		coded_image_write_head(encode->image, i, encode->head);
	for (uint32_t offset = 0; offset < index->shard_bytes; offset += CODED_PIECE_BYTES) {
		uint32_t left = index->shard_bytes - offset;
		coded_image_piece(encode->image, offset, left < CODED_PIECE_BYTES ? left : CODED_PIECE_BYTES, data, encode->parity,
				  encode->sums);
	}
	seconds += cpu_seconds() - began;
	return (double)(CHUNK_BYTES / MIB) / seconds;
}

static void measure(struct encode *encode, bool chunks, struct bench_encode *out)
{
	double cached[ROUNDS], memory[ROUNDS], coded[ROUNDS];
	struct erasure encoder;
	erasure_init_encoder(&encoder, encode->profile.data_shards, encode->profile.parity_shards);
	for (int i = 0; i < ROUNDS; i++) {
		cached[i] = isal(encode, &encoder, CACHED_BYTES, true);
		memory[i] = isal(encode, &encoder, CODED_PIECE_BYTES, false);
		coded[i] = chunks ? code_chunk(encode) : 0;
	}
	erasure_deinit(&encoder);
	out->isal_cached_mib_s = bench_percentile(cached, ROUNDS, 0.5);
	out->isal_memory_mib_s = bench_percentile(memory, ROUNDS, 0.5);
	out->coded_mib_s = bench_percentile(coded, ROUNDS, 0.5);
}

void bench_isal_run(struct bench_profile profile, struct bench_encode *out)
{
	struct encode encode = {.profile = profile};
	*out = (struct bench_encode){0};
	init(&encode);
	measure(&encode, false, out);
	deinit(&encode);
}

void bench_encode_run(struct bench_profile profile, enum compression compression, struct bench_encode *out)
{
	struct encode encode = {.profile = profile, .compression = compression};
	init(&encode);
	code_chunk(&encode); /* touches the image's memory */
	measure(&encode, true, out);
	out->stored_share_pct = 100.0 * profile.data_shards * coded_image_index(encode.image)->shard_bytes / CHUNK_BYTES;
	deinit(&encode);
}
