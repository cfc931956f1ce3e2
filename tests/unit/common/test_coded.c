/* Shards of cold chunks: what was put in comes out, from an index that says nothing wrong whatever bytes it is read from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/rng.h"
#include "common/data/coded_image.h"
#include "common/data/erasure.h"

enum content { NOISE, TEXT, MIXED, CONTENTS };

/* A chunk, what it was made of, and its shards: heads and data. */
struct chunk {
	struct coded_options options;
	uint8_t *raw;	   /* files: raw_bytes; packs: blobs one after another */
	size_t raw_bytes;
	bool *there;	   /* files: units by id */
	uint32_t *slots, *lengths; /* packs */
	size_t blobs;
	struct coded_image *image;
	uint8_t *shards[SHARDS_MAX];
	uint32_t head_bytes, shard_bytes;
};

static void fill(uint8_t *bytes, size_t size, enum content content, struct rng *rng)
{
	bool text = content == TEXT;
	for (size_t i = 0; i < size; i += 8) {
		uint64_t bits = rng_next(rng);
		size_t n = size - i < 8 ? size - i : 8;
		/* Units of either kind in runs, and units of both. */
		if (content == MIXED && i % 8192 == 0 && rng_below(rng, 6) == 0)
			text = !text;
		if (text)
			bits = bits % 4 * 0x0101010101010101ull + 0x6162636465666768ull;
		memcpy(bytes + i, &bits, n);
	}
}

/* Reads all shards out of the image in pieces of any size, and looks whether parity and checksums are what they have to be. */
static void make_shards(struct chunk *chunk, struct rng *rng)
{
	const struct coded_index *index = coded_image_index(chunk->image);
	unsigned k = index->data_shards, m = index->parity_shards;
	const uint8_t *data[DATA_SHARDS_MAX];
	uint8_t *parity[PARITY_SHARDS_MAX], *sums[SHARDS_MAX], *crcs = mem_alloc(SHARDS_MAX * (CODED_PIECE_BYTES / BLOCK_BYTES) * 4);
	chunk->head_bytes = index->head_bytes;
	chunk->shard_bytes = index->shard_bytes;
	assert_int_equal(index->head_bytes % BLOCK_BYTES, 0);
	assert_int_equal(index->shard_bytes % CODED_ALIGN_BYTES, 0);
	for (unsigned i = 0; i < k + m; i++) {
		chunk->shards[i] = mem_alloc(chunk->head_bytes + chunk->shard_bytes);
		coded_image_write_head(chunk->image, i, chunk->shards[i]);
		sums[i] = crcs + i * (CODED_PIECE_BYTES / BLOCK_BYTES) * 4;
	}
	for (uint32_t offset = 0, bytes; offset < chunk->shard_bytes; offset += bytes) {
		uint32_t left = chunk->shard_bytes - offset, at = chunk->head_bytes + offset;
		bytes = BLOCK_BYTES * (1 + (uint32_t)rng_below(rng, CODED_PIECE_BYTES / BLOCK_BYTES));
		bytes = bytes < left ? bytes : left;
		for (unsigned i = 0; i < m; i++)
			parity[i] = chunk->shards[k + i] + at;
		coded_image_piece(chunk->image, offset, bytes, data, parity, rng_below(rng, 2) ? sums : NULL);
		coded_image_piece(chunk->image, offset, bytes, data, parity, sums);
		for (unsigned i = 0; i < k; i++)
			memcpy(chunk->shards[i] + at, data[i], bytes);
		for (unsigned i = 0; i < k + m; i++) {
			for (uint32_t b = 0; b < bytes; b += BLOCK_BYTES)
				assert_int_equal(get_le32(sums[i] + b / BLOCK_BYTES * 4),
						 crc32c(chunk->shards[i] + at + b, bytes - b < BLOCK_BYTES ? bytes - b : BLOCK_BYTES));
		}
	}
	struct erasure encoder;
	for (unsigned i = 0; i < k; i++)
		data[i] = chunk->shards[i] + chunk->head_bytes;
	for (unsigned i = 0; i < m; i++)
		parity[i] = mem_alloc(chunk->shard_bytes);
	erasure_init_encoder(&encoder, k, m);
	erasure_run(&encoder, chunk->shard_bytes, data, parity);
	for (unsigned i = 0; i < m; i++) {
		assert_memory_equal(parity[i], chunk->shards[k + i] + chunk->head_bytes, chunk->shard_bytes);
		free(parity[i]);
	}
	erasure_deinit(&encoder);
	free(crcs);
}

/* A file of so many blocks; a unit is there with `present` in 100. in_place: as who reads into the image's own memory. */
static void make_file(struct chunk *chunk, uint32_t blocks, enum content content, unsigned present, bool in_place, struct rng *rng)
{
	chunk->raw_bytes = chunk->options.raw_bytes = (uint64_t)blocks * BLOCK_BYTES;
	chunk->raw = mem_alloc(chunk->raw_bytes);
	chunk->there = mem_zero(CHUNK_BYTES / CODED_UNIT_BYTES_MIN, sizeof(bool));
	fill(chunk->raw, chunk->raw_bytes, content, rng);
	if (chunk->image == NULL)
		chunk->image = coded_image_open(&chunk->options);
	else
		coded_image_reopen(chunk->image, &chunk->options);
	uint32_t unit_bytes = coded_image_unit_bytes(chunk->image);
	for (uint32_t id = 0; (uint64_t)id * unit_bytes < chunk->raw_bytes; id++) {
		uint8_t *raw = chunk->raw + (size_t)id * unit_bytes;
		size_t bytes = chunk->raw_bytes - (size_t)id * unit_bytes < unit_bytes ? chunk->raw_bytes - (size_t)id * unit_bytes : unit_bytes;
		uint32_t crcs[CODED_UNIT_BYTES / BLOCK_BYTES];
		chunk->there[id] = rng_below(rng, 100) < present;
		if (!chunk->there[id])
			continue;
		for (size_t i = 0; i < bytes / BLOCK_BYTES; i++)
			crcs[i] = crc32c(raw + i * BLOCK_BYTES, BLOCK_BYTES);
		uint8_t *room = raw;
		if (in_place) {
			room = coded_image_room(chunk->image, id);
			memcpy(room, raw, bytes);
		}
		coded_image_add(chunk->image, id, room, crcs);
	}
	coded_image_finish(chunk->image);
	make_shards(chunk, rng);
}

static void make_pack(struct chunk *chunk, size_t blobs, uint32_t length_max, enum content content, struct rng *rng)
{
	chunk->options.pack = true;
	chunk->blobs = blobs;
	chunk->slots = mem_alloc(blobs * 4);
	chunk->lengths = mem_alloc(blobs * 4);
	for (size_t i = 0; i < blobs; i++) {
		chunk->slots[i] = (i == 0 ? 0 : chunk->slots[i - 1]) + 1 + (rng_below(rng, 8) == 0 ? (uint32_t)rng_below(rng, 40) : 0);
		chunk->lengths[i] = (uint32_t)rng_below(rng, length_max + 1ull);
		chunk->raw_bytes += chunk->lengths[i];
	}
	chunk->slots[blobs - 1] = PACK_SLOTS_MAX;
	chunk->raw = mem_alloc(chunk->raw_bytes);
	fill(chunk->raw, chunk->raw_bytes, content, rng);
	chunk->image = coded_image_open(&chunk->options);
	assert_int_equal(coded_image_unit_bytes(chunk->image), 0);
	size_t at = 0;
	for (size_t i = 0; i < blobs; at += chunk->lengths[i++]) {
		struct slice blob = slice_of(chunk->raw + at, chunk->lengths[i]);
		coded_image_add_record(chunk->image, chunk->slots[i], blob, crc32c(blob.bytes, blob.size));
	}
	coded_image_finish(chunk->image);
	make_shards(chunk, rng);
}

/* But for the image, which may be used again. */
static void chunk_clear(struct chunk *chunk)
{
	for (unsigned i = 0; i < SHARDS_MAX; i++) {
		free(chunk->shards[i]);
		chunk->shards[i] = NULL;
	}
	free(chunk->raw);
	free(chunk->there);
	free(chunk->slots);
	free(chunk->lengths);
}

static void chunk_deinit(struct chunk *chunk)
{
	chunk_clear(chunk);
	coded_image_close(chunk->image);
}

/* Parses what is in memory of its own and exact length, so that the address sanitizer sees a byte too much. */
static enum err parse(const uint8_t *shard, uint32_t head_bytes, struct coded_index *out)
{
	uint32_t said = 0;
	enum err err = coded_head_bytes(slice_of(shard, BLOCK_BYTES), &said);
	if (err)
		return err;
	assert_int_equal(said, head_bytes);
	uint8_t *exact = mem_alloc(head_bytes);
	memcpy(exact, shard, head_bytes);
	err = coded_index_parse(slice_of(exact, head_bytes), out);
	free(exact);
	return err;
}

static void assert_same_index(const struct coded_index *a, const struct coded_index *b, unsigned place)
{
	assert_true(a->data_shards == b->data_shards && a->parity_shards == b->parity_shards && a->place == place);
	assert_true(a->compression == b->compression && a->chunk == b->chunk && a->unit_bytes == b->unit_bytes);
	assert_true(a->raw_bytes == b->raw_bytes && a->shard_bytes == b->shard_bytes && a->head_bytes == b->head_bytes);
	assert_int_equal(a->count, b->count);
	for (size_t i = 0; i < a->count; i++) {
		const struct coded_unit *x = &a->units[i], *y = &b->units[i];
		assert_true(x->id == y->id && x->shard == y->shard && x->offset == y->offset && x->size == y->size &&
			    x->compressed == y->compressed && x->crcs == y->crcs);
	}
	assert_int_equal(a->crc_count, b->crc_count);
	assert_true(a->crc_count == 0 || memcmp(a->crcs, b->crcs, a->crc_count * 4ull) == 0);
	assert_memory_equal(a->firsts, b->firsts, sizeof(a->firsts));
}

static const uint8_t *bytes_of(const struct chunk *chunk, const struct coded_unit *unit)
{
	return chunk->shards[unit->shard] + chunk->head_bytes + unit->offset;
}

/* Whether all of the unit comes out of the shards as it was put in. ERR_CORRUPT: it is not, and that was noticed. */
static enum err unpack_file(const struct chunk *chunk, const struct coded_index *index, const struct coded_unit *unit,
			    struct decompressor *decompressor)
{
	static uint8_t out[CODED_UNIT_BYTES + 1], crcs[CODED_UNIT_BYTES / BLOCK_BYTES * 4];
	uint32_t raw = coded_unit_raw_bytes(index, unit->id);
	out[raw] = 0xa5;
	enum err err = coded_unpack(index, unit, bytes_of(chunk, unit), decompressor, out, crcs);
	assert_int_equal(out[raw], 0xa5);
	if (err)
		return err;
	assert_memory_equal(out, chunk->raw + (size_t)unit->id * index->unit_bytes, raw);
	for (uint32_t block = 0, offset; block < raw / BLOCK_BYTES; block++) {
		const uint8_t *crc, *bytes = chunk->shards[unit->shard] + chunk->head_bytes;
		assert_int_equal(coded_unit_blocks(index, unit, block, &offset, &crc), !unit->compressed);
		if (unit->compressed)
			break;
		assert_memory_equal(bytes + offset, out + block * BLOCK_BYTES, BLOCK_BYTES);
		assert_true(offset % BLOCK_BYTES == 0 && get_le32(crc) == crc32c(out + block * BLOCK_BYTES, BLOCK_BYTES));
	}
	for (uint32_t i = 0; i < raw; i += BLOCK_BYTES)
		assert_int_equal(get_le32(crcs + i / BLOCK_BYTES * 4), crc32c(out + i, BLOCK_BYTES));
	return coded_unpack(index, unit, bytes_of(chunk, unit), decompressor, out, NULL);
}

static enum err unpack_blob(const struct chunk *chunk, const struct coded_index *index, const struct coded_unit *unit, struct slice blob,
			    struct decompressor *decompressor)
{
	static uint8_t out[BLOB_BYTES_MAX];
	uint32_t length = 0, crc = 0;
	enum err err = coded_record(unit, bytes_of(chunk, unit), &length, &crc);
	if (err)
		return err;
	assert_true(length <= BLOB_BYTES_MAX);
	err = coded_unpack_record(index, unit, bytes_of(chunk, unit), decompressor, out);
	if (err)
		return err;
	assert_int_equal(length, blob.size);
	assert_int_equal(crc, crc32c(blob.bytes, blob.size));
	assert_memory_equal(out, blob.bytes, blob.size);
	return OK;
}

/* The first unit that does not come out. */
static enum err unpack_all(const struct chunk *chunk, const struct coded_index *index)
{
	struct decompressor *decompressor = decompressor_open();
	enum err err = OK;
	size_t at = 0;
	for (uint32_t id = 0; chunk->there != NULL && (uint64_t)id * index->unit_bytes < index->raw_bytes && !err; id++) {
		const struct coded_unit *unit = coded_index_find(index, id);
		assert_int_equal(unit != NULL, chunk->there[id]);
		if (unit != NULL)
			err = unpack_file(chunk, index, unit, decompressor);
	}
	for (size_t i = 0; i < chunk->blobs && !err; at += chunk->lengths[i++]) {
		const struct coded_unit *unit = coded_index_find(index, chunk->slots[i]);
		assert_non_null(unit);
		err = unpack_blob(chunk, index, unit, slice_of(chunk->raw + at, chunk->lengths[i]), decompressor);
	}
	decompressor_close(decompressor);
	return err;
}

static uint32_t begin_of(const struct coded_index *index, const struct coded_unit *unit, uint32_t end)
{
	return index->unit_bytes == 0 || unit->compressed ? end : (end + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

/* No cut has a smaller largest part: where the parts would end if each took as much as it can of one byte less. */
static void assert_cut_well(const struct coded_index *index)
{
	uint32_t parts[DATA_SHARDS_MAX] = { 0 }, largest = 0, filled = 0, shards = 1;
	for (size_t i = 0; i < index->count; i++) {
		const struct coded_unit *unit = &index->units[i];
		assert_int_equal(unit->offset, begin_of(index, unit, parts[unit->shard]));
		parts[unit->shard] = unit->offset + unit->size;
		largest = parts[unit->shard] > largest ? parts[unit->shard] : largest;
		assert_true(index->firsts[unit->shard] <= i);
	}
	assert_true(index->shard_bytes >= largest && index->shard_bytes < largest + CODED_ALIGN_BYTES + (largest == 0));
	for (size_t i = 0; i < index->count; i++) {
		uint32_t size = index->units[i].size, begin = begin_of(index, &index->units[i], filled);
		if (size >= largest)
			return;
		if (begin + size > largest - 1) {
			shards++;
			begin = 0;
		}
		filled = begin + size;
	}
	assert_true(index->count == 0 || shards > index->data_shards);
}

static void assert_comes_out(const struct chunk *chunk)
{
	const struct coded_index *made = coded_image_index(chunk->image);
	struct coded_index index = { 0 };
	assert_cut_well(made);
	for (unsigned place = 0; place < made->data_shards + made->parity_shards; place++) {
		assert_int_equal(parse(chunk->shards[place], chunk->head_bytes, &index), OK);
		assert_same_index(&index, made, place);
		if (place == 0)
			assert_int_equal(unpack_all(chunk, &index), OK);
		coded_index_deinit(&index);
	}
}

static void test_files(void **state)
{
	(void)state;
	static const unsigned profiles[][2] = { { 2, 1 }, { 2, 2 }, { 4, 2 }, { 6, 3 }, { 10, 4 }, { 32, 8 } };
	struct rng rng;
	rng_init(&rng, 1);
	struct chunk chunk = { 0 };
	for (unsigned round = 0; round < 150; round++) {
		const unsigned *profile = profiles[round % 6];
		/* Tiny ones, too: fewer units than shards, none. */
		uint32_t blocks = (uint32_t)rng_below(&rng, 1ull << (1 + round % 11));
		chunk = (struct chunk){ .image = chunk.image,
					.options = { .data_shards = profile[0],
						     .parity_shards = profile[1],
						     .compression = (enum compression)(round % COMPRESSIONS),
						     .chunk = rng_next(&rng) } };
		make_file(&chunk, blocks, (enum content)(round % CONTENTS), 100 - round % 4 * 33, round % 2 != 0, &rng);
		assert_comes_out(&chunk);
		chunk_clear(&chunk);
	}
	coded_image_close(chunk.image);
}

static void test_full(void **state)
{
	(void)state;
	static const unsigned profiles[][2] = { { 2, 1 }, { 4, 2 }, { 32, 8 } };
	struct rng rng;
	rng_init(&rng, 2);
	for (unsigned i = 0; i < 3; i++) {
		struct chunk chunk = { .options = { .data_shards = profiles[i][0],
						    .parity_shards = profiles[i][1],
						    .compression = i == 0 ? COMPRESSION_OFF : COMPRESSION_AUTO,
						    .chunk = 7 } };
		make_file(&chunk, CHUNK_BLOCKS, (enum content)i, 100, i == 0, &rng);
		const struct coded_index *index = coded_image_index(chunk.image);
		assert_int_equal(index->unit_bytes, CODED_UNIT_BYTES);
		assert_int_equal(index->count, CHUNK_BYTES / CODED_UNIT_BYTES);
		assert_comes_out(&chunk);
		/* Noise is equal in all shards; text is less than it was. */
		if (i == 0)
			assert_true(index->shard_bytes == CHUNK_BYTES / 2 && index->crc_count == CHUNK_BLOCKS);
		else
			assert_true(index->shard_bytes < CHUNK_BYTES / profiles[i][0] * 3 / 4);
		chunk_deinit(&chunk);
	}
}

/* Parts without a zero behind them. */
static void test_no_tail(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 6);
	struct chunk chunk = { .options = { .data_shards = 2, .parity_shards = 1, .compression = COMPRESSION_OFF } };
	make_file(&chunk, 32, NOISE, 100, false, &rng);
	assert_int_equal(chunk.shard_bytes, 16 * BLOCK_BYTES);
	assert_comes_out(&chunk);
	chunk_deinit(&chunk);
}

static void test_unit_bytes(void **state)
{
	(void)state;
	static const struct {
		uint32_t raw_bytes, data_shards, unit_bytes;
	} known[] = {
		{ 0, 4, 16 * KIB },	    { 4 * KIB, 4, 16 * KIB }, { 2 * MIB, 4, 32 * KIB }, { 8 * MIB, 4, 128 * KIB },
		{ 8 * MIB - 4096, 4, 64 * KIB }, { CHUNK_BYTES, 32, 128 * KIB },
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		struct coded_image *image = coded_image_open(&(struct coded_options){
			.data_shards = known[i].data_shards, .parity_shards = 2, .raw_bytes = known[i].raw_bytes });
		assert_int_equal(coded_image_unit_bytes(image), known[i].unit_bytes);
		coded_image_close(image);
	}
}

static void test_packs(void **state)
{
	(void)state;
	static const struct {
		size_t blobs;
		uint32_t length_max;
		unsigned k, m;
	} packs[] = { { 1, BLOB_BYTES_MAX, 4, 2 }, { 3, 0, 6, 3 },	{ 100, BLOB_BYTES_MAX, 4, 2 },
		      { 100, 300, 32, 8 },	   { 3000, 5000, 6, 3 }, { 20000, 1000, 4, 2 } };
	struct rng rng;
	rng_init(&rng, 3);
	for (unsigned i = 0; i < sizeof(packs) / sizeof(*packs); i++) {
		struct chunk chunk = { .options = { .data_shards = packs[i].k, .parity_shards = packs[i].m, .chunk = 9 } };
		make_pack(&chunk, packs[i].blobs, packs[i].length_max, (enum content)(i % CONTENTS), &rng);
		assert_int_equal(coded_image_index(chunk.image)->raw_bytes, chunk.raw_bytes);
		assert_null(coded_index_find(coded_image_index(chunk.image), 0));
		assert_null(coded_index_find(coded_image_index(chunk.image), PACK_SLOTS_MAX - 1));
		assert_comes_out(&chunk);
		chunk_deinit(&chunk);
	}
}

/* Any bit of a shard: found when the index is read or what lies there is unpacked; or it is in zeros that nobody reads. */
static void flip(struct chunk *chunk, unsigned place, size_t bit)
{
	uint8_t *byte = &chunk->shards[place][bit / 8];
	struct coded_index index = { 0 };
	uint32_t offset = (uint32_t)(bit / 8);
	*byte ^= (uint8_t)(1 << bit % 8);
	if (offset < chunk->head_bytes) {
		assert_int_equal(coded_index_parse(slice_of(chunk->shards[place], chunk->head_bytes), &index), ERR_CORRUPT);
	} else {
		assert_int_equal(parse(chunk->shards[place], chunk->head_bytes, &index), OK);
		bool used = false;
		for (size_t i = 0; i < index.count; i++) {
			const struct coded_unit *unit = &index.units[i];
			uint32_t at = offset - chunk->head_bytes;
			used |= unit->shard == place && at >= unit->offset && at - unit->offset < unit->size;
		}
		/* A bit of a zstd frame may be one that does not matter. */
		enum err err = unpack_all(chunk, &index);
		assert_true(err == ERR_CORRUPT || (err == OK && (!used || chunk->options.compression != COMPRESSION_OFF)));
		coded_index_deinit(&index);
	}
	*byte ^= (uint8_t)(1 << bit % 8);
}

static void test_flipped_bits(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 4);
	for (unsigned i = 0; i < 4; i++) {
		struct chunk chunk = { .options = { .data_shards = 2 + i, .parity_shards = 1, .chunk = 5,
						    .compression = i % 2 ? COMPRESSION_FAST : COMPRESSION_OFF } };
		if (i < 2)
			make_file(&chunk, 30, MIXED, 80, false, &rng);
		else
			make_pack(&chunk, 50, 3000, MIXED, &rng);
		for (size_t bit = 0; bit < BLOCK_BYTES * 8; bit++)
			flip(&chunk, (unsigned)rng_below(&rng, 3 + i), bit);
		for (unsigned n = 0; n < 300; n++)
			flip(&chunk, (unsigned)rng_below(&rng, 2 + i),
			     8ull * chunk.head_bytes + rng_below(&rng, 8ull * chunk.shard_bytes));
		assert_comes_out(&chunk);
		chunk_deinit(&chunk);
	}
}

/* Heads that check and say what cannot be: a number of theirs is changed, checksums agree. */
struct lie {
	const char *what;
	uint32_t offset, size;
	uint64_t value;
};

static enum err parse_lie(const uint8_t *shard, unsigned data_shards, const struct lie *lie)
{
	struct coded_index index = { 0 };
	uint8_t head[BLOCK_BYTES];
	uint32_t crc_offset = CODED_HEAD_BYTES + data_shards * 4, entries = get_le32(shard + 44);
	memcpy(head, shard, sizeof(head));
	for (uint32_t b = 0; b < lie->size; b++)
		head[lie->offset + b] = (uint8_t)(lie->value >> 8 * b);
	put_le32(head + 48, crc32c(head + crc_offset + 4, entries));
	put_le32(head + crc_offset, crc32c(head, crc_offset));
	enum err err = coded_index_parse(slice_of(head, sizeof(head)), &index);
	coded_index_deinit(&index);
	return err;
}

static void assert_lies_found(const struct chunk *chunk, const struct lie *lies, size_t count)
{
	const struct lie truth = { "the truth", 0, 0, 0 };
	assert_int_equal(chunk->head_bytes, BLOCK_BYTES);
	assert_int_equal(parse_lie(chunk->shards[0], chunk->options.data_shards, &truth), OK);
	for (size_t i = 0; i < count; i++) {
		if (parse_lie(chunk->shards[0], chunk->options.data_shards, &lies[i]) != ERR_CORRUPT)
			fail_msg("not found: %s", lies[i].what);
	}
}

/* 25 units of 16 KiB and one that is not there, 7 in a shard; its index is at 72, 4 bytes for each and then a CRC for each of 100 blocks. */
static void test_lies(void **state)
{
	(void)state;
	static const struct lie lies[] = {
		{ "format", 8, 4, 3 },
		{ "with a dictionary", 8, 4, 2 },
		{ "one data shard", 12, 1, 1 },
		{ "no parity", 13, 1, 0 },
		{ "too much parity", 13, 1, PARITY_SHARDS_MAX + 1 },
		{ "place behind the last", 14, 1, 6 },
		{ "compression", 15, 1, COMPRESSIONS },
		{ "unit no power of two", 24, 4, 24 * KIB },
		{ "unit too large", 24, 4, 2 * CODED_UNIT_BYTES },
		{ "unit too small", 24, 4, CODED_UNIT_BYTES_MIN / 2 },
		{ "a pack", 24, 4, 0 },
		{ "larger than a chunk", 28, 8, CHUNK_BYTES + BLOCK_BYTES },
		{ "no whole blocks", 28, 8, 104 * BLOCK_BYTES + 1 },
		{ "its last unit not there", 28, 8, 100 * BLOCK_BYTES },
		{ "its last unit shorter", 28, 8, 103 * BLOCK_BYTES },
		{ "no shard", 36, 4, 0 },
		{ "a shard that is not aligned", 36, 4, 114688 + 4 },
		{ "a shard with more behind its units", 36, 4, 114688 + 64 },
		{ "a shard with less than its units", 36, 4, 114688 - 64 },
		{ "a shard larger than a chunk", 36, 4, CHUNK_BYTES },
		{ "a shard of 4 GiB", 36, 4, UINT32_MAX & ~63u },
		{ "one unit less", 40, 4, 24 },
		{ "one unit more", 40, 4, 26 },
		{ "four billion units", 40, 4, UINT32_MAX },
		{ "an index of 4 GiB", 44, 4, UINT32_MAX },
		{ "an index too short", 44, 4, 3 },
		{ "a checksum less", 44, 4, 25 * 4 + 99 * 4 },
		{ "a checksum more", 44, 4, 25 * 4 + 101 * 4 },
		{ "a first shard without its units", 52, 4, 1 },
		{ "shards in no order", 56, 4, 24 },
		{ "an id behind the end", 72 + 24 * 4, 1, 1 },
		{ "an id of more than 32 bits", 72, 5, 0x7fffffffff },
		{ "a number without an end", 72, 8, UINT64_MAX },
		{ "a unit that is larger", 72 + 1, 3, 0x028080 + 0x000002 },
		{ "a unit that is compressed to what it was", 72 + 1, 3, 0x028081 },
		{ "a unit that is compressed to nothing", 72 + 1, 3, 0x008081 },
	};
	struct chunk chunk = { .options = { .data_shards = 4, .parity_shards = 2, .chunk = 5, .compression = COMPRESSION_OFF } };
	struct rng rng;
	uint32_t crcs[4];
	rng_init(&rng, 5);
	chunk.raw_bytes = chunk.options.raw_bytes = 104 * BLOCK_BYTES;
	chunk.raw = mem_alloc(chunk.raw_bytes);
	fill(chunk.raw, chunk.raw_bytes, NOISE, &rng);
	chunk.image = coded_image_open(&chunk.options);
	for (uint32_t id = 1; id < 26; id++) {
		for (uint32_t i = 0; i < 4; i++)
			crcs[i] = crc32c(chunk.raw + (id * 4 + i) * BLOCK_BYTES, BLOCK_BYTES);
		coded_image_add(chunk.image, id, chunk.raw + id * 4 * BLOCK_BYTES, crcs);
	}
	coded_image_finish(chunk.image);
	make_shards(&chunk, &rng);
	assert_int_equal(chunk.shard_bytes, 7 * 4 * BLOCK_BYTES);
	assert_int_equal(get_le32(chunk.shards[0] + 44), 25 * 4 + 100 * 4);
	assert_int_equal(get_le32(chunk.shards[0] + 72), 0x02808001);
	assert_lies_found(&chunk, lies, sizeof(lies) / sizeof(*lies));
	chunk_deinit(&chunk);
}

/* One record of a few bytes; its index is at 72. */
static void test_pack_lies(void **state)
{
	(void)state;
	static const struct lie lies[] = {
		{ "with a dictionary", 8, 4, 2 },
		{ "a file", 24, 4, CODED_UNIT_BYTES },
		{ "less than its records", 28, 8, 49 },
		{ "firsts behind the last", 64, 4, 2 },
		{ "slot 0", 72, 1, 0 },
		{ "compressed to nothing", 73, 1, 1 },
	};
	struct chunk chunk = { .options = { .data_shards = 4, .parity_shards = 2, .chunk = 5, .compression = COMPRESSION_OFF,
					    .pack = true } };
	struct rng rng;
	uint8_t blob[50] = { 0 };
	rng_init(&rng, 6);
	chunk.image = coded_image_open(&chunk.options);
	coded_image_add_record(chunk.image, 1, slice_of(blob, sizeof(blob)), crc32c(blob, sizeof(blob)));
	coded_image_finish(chunk.image);
	make_shards(&chunk, &rng);
	assert_int_equal(chunk.shards[0][73], 2 * sizeof(blob));
	assert_lies_found(&chunk, lies, sizeof(lies) / sizeof(*lies));
	chunk_deinit(&chunk);
}

/* A record whose header is wrong. */
static void test_record_lies(void **state)
{
	(void)state;
	uint8_t bytes[CODED_RECORD_BYTES + 10] = { 0 };
	struct coded_unit unit = { .id = 1, .size = sizeof(bytes) };
	uint32_t length, crc;
	put_le32(bytes, 10);
	put_le32(bytes + 4, 77);
	assert_int_equal(coded_record(&unit, bytes, &length, &crc), OK);
	assert_true(length == 10 && crc == 77);
	for (uint32_t said = 0; said < 20; said++) {
		put_le32(bytes, said);
		unit.compressed = false;
		assert_int_equal(coded_record(&unit, bytes, &length, &crc), said == 10 ? OK : ERR_CORRUPT);
		unit.compressed = true;
		assert_int_equal(coded_record(&unit, bytes, &length, &crc), said > 10 ? OK : ERR_CORRUPT);
	}
	put_le32(bytes, BLOB_BYTES_MAX);
	assert_int_equal(coded_record(&unit, bytes, &length, &crc), OK);
	put_le32(bytes, BLOB_BYTES_MAX + 1);
	assert_int_equal(coded_record(&unit, bytes, &length, &crc), ERR_CORRUPT);
}

/* The format as bytes: one shard of a pack with two records. */
static void test_known_bytes(void **state)
{
	(void)state;
	static const uint8_t known[] = {
		'G', 'R', 'N', 'C', 'O', 'D', 'E', '1', 1, 0, 0, 0, 2, 1, 1, 1,	  /* 2+1, this is shard 1, not compressed */
		8,   7,	  6,   5,   4,	 3,   2,   1,	0, 0, 0, 0, 5, 0, 0, 0,	  /* chunk, a pack, 5 bytes */
		0,   0,	  0,   0,   64,	 0,   0,   0,	2, 0, 0, 0, 5, 0, 0, 0,	  /* 64 a shard, 2 units, index of 5 */
	};
	static const uint8_t entries[] = { 1, 2 * 2, 0x80 | 16, 2, 3 * 2 }; /* 1, 2 bytes; then 2 + 272, 3 bytes */
	uint8_t head[BLOCK_BYTES];
	struct coded_image *image = coded_image_open(&(struct coded_options){
		.data_shards = 2, .parity_shards = 1, .compression = COMPRESSION_OFF, .chunk = 0x0102030405060708, .pack = true });
	coded_image_add_record(image, 1, slice_text("ab"), crc32c("ab", 2));
	coded_image_add_record(image, 2 + 272, slice_text("cde"), crc32c("cde", 3));
	coded_image_finish(image);
	assert_int_equal(coded_image_index(image)->head_bytes, BLOCK_BYTES);
	coded_image_write_head(image, 1, head);
	assert_memory_equal(head, known, sizeof(known));
	assert_int_equal(get_le32(head + 48), crc32c(entries, sizeof(entries)));
	assert_int_equal(get_le32(head + 52), 0);
	assert_int_equal(get_le32(head + 56), 1);
	assert_int_equal(get_le32(head + 60), crc32c(head, 60));
	assert_memory_equal(head + 64, entries, sizeof(entries));
	const uint8_t *data[2];
	uint8_t parity[64], *parities[] = { parity };
	coded_image_piece(image, 0, 64, data, parities, NULL);
	assert_int_equal(get_le32(data[1]), 3);
	assert_int_equal(get_le32(data[1] + 4), crc32c("cde", 3));
	assert_memory_equal(data[1] + 8, "cde\0\0", 5);
	coded_image_close(image);
}

/* Likewise of a file: zeros before a block that is not compressed, whose checksum is in the index. */
static void test_known_file(void **state)
{
	(void)state;
	static uint8_t raw[3 * CODED_UNIT_BYTES_MIN];
	static const uint8_t zeros[BLOCK_BYTES];
	uint32_t crcs[12], unit = CODED_UNIT_BYTES_MIN, place;
	const uint8_t *data[2], *crc;
	uint8_t head[BLOCK_BYTES], *parity = mem_alloc(CODED_PIECE_BYTES), sums[3][CODED_PIECE_BYTES / BLOCK_BYTES * 4];
	struct rng rng;
	rng_init(&rng, 7);
	fill(raw, unit, TEXT, &rng);
	fill(raw + unit, 2ull * unit, NOISE, &rng);
	struct coded_image *image = coded_image_open(
		&(struct coded_options){ .data_shards = 2, .parity_shards = 1, .compression = COMPRESSION_FAST, .raw_bytes = sizeof(raw) });
	for (uint32_t id = 0; id < 3; id++) {
		for (uint32_t i = 0; i < 4; i++)
			crcs[id * 4 + i] = crc32c(raw + id * unit + i * BLOCK_BYTES, BLOCK_BYTES);
		coded_image_add(image, id, raw + id * unit, crcs + 4ull * id);
	}
	coded_image_finish(image);
	const struct coded_index *index = coded_image_index(image);
	const struct coded_unit *text = &index->units[0], *noise = &index->units[1];
	assert_true(text->compressed && text->offset == 0 && text->size > 16 && text->size < BLOCK_BYTES);
	assert_true(!noise->compressed && noise->shard == 0 && noise->offset == BLOCK_BYTES && noise->size == unit);
	assert_true(noise[1].shard == 1 && noise[1].offset == 0 && noise[1].size == unit);
	coded_image_write_head(image, 0, head);
	assert_true(get_le32(head + 36) == BLOCK_BYTES + unit && get_le32(head + 44) == 1 + 2 + 2 * (1 + 3) + 8 * 4);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(get_le32(head + 64 + 11 + 4ull * i), crcs[4 + i]);
	assert_true(coded_unit_blocks(index, noise, 1, &place, &crc) && place == 2 * BLOCK_BYTES && get_le32(crc) == crcs[5]);
	assert_false(coded_unit_blocks(index, text, 0, &place, &crc));
	coded_image_piece(image, 0, BLOCK_BYTES + unit, data, &parity, (uint8_t *[]){ sums[0], sums[1], sums[2] });
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(get_le32(data[0] + 4ull * i), crcs[i]);
	assert_memory_equal(data[0] + text->size, zeros, BLOCK_BYTES - text->size);
	assert_memory_equal(data[0] + BLOCK_BYTES, raw + unit, unit);
	assert_memory_equal(data[1], raw + 2ull * unit, unit);
	coded_image_close(image);
	free(parity);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),	     cmocka_unit_test(test_full),  cmocka_unit_test(test_unit_bytes),
		cmocka_unit_test(test_no_tail),	     cmocka_unit_test(test_packs), cmocka_unit_test(test_lies),
		cmocka_unit_test(test_pack_lies),    cmocka_unit_test(test_record_lies), cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_known_bytes),   cmocka_unit_test(test_known_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
