/* Packs whose records have much in common: a dictionary that each shard has, with which every record comes out; and none where it does not
 * pay. Whatever a head says of its dictionary, it is one, or an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/rng.h"
#include "common/data/coded_dictionary.h"
#include "common/data/coded_image.h"
#include "common/data/coded_judge.h"
#include "tests/unit/common/coded_shards.h"

#define CHUNK 77u
#define PHRASES 64u
#define PHRASE_BYTES 40u
#define RECORD_BYTES_MAX 6000u

enum content { ALIKE, NOISE, TINY };

struct pack {
	unsigned data_shards, parity_shards;
	enum content content;
	uint8_t *raw; /* records, one behind the other */
	uint32_t *lengths;
	uint32_t count;
	size_t raw_bytes;
	uint32_t head_bytes, bytes; /* of each shard */
	uint8_t *shards[SHARDS_MAX];
};

/* Phrases that many records have, each record only some, with a number between them. */
static uint32_t put_record(uint8_t *out, const struct pack *pack, uint8_t phrases[PHRASES][PHRASE_BYTES], struct rng *rng)
{
	uint32_t size = 0, parts = 1 + (uint32_t)rng_below(rng, pack->content == TINY ? 1 : 40);
	for (uint32_t i = 0; i < parts; i++) {
		for (unsigned b = 0; pack->content == NOISE && b < PHRASE_BYTES; b++)
			out[size + b] = (uint8_t)rng_next(rng);
		if (pack->content != NOISE)
			memcpy(out + size, phrases[rng_below(rng, PHRASES)], PHRASE_BYTES);
		size += PHRASE_BYTES;
		size += (uint32_t)snprintf((char *)out + size, 16, " %u\n", (unsigned)rng_below(rng, 100000));
	}
	return size;
}

static void make_records(struct pack *pack, struct rng *rng)
{
	uint8_t phrases[PHRASES][PHRASE_BYTES];
	for (unsigned i = 0; i < PHRASES; i++)
		for (unsigned b = 0; b < PHRASE_BYTES; b++)
			phrases[i][b] = (uint8_t)(' ' + rng_below(rng, 90));
	pack->raw = mem_alloc((size_t)pack->count * RECORD_BYTES_MAX);
	pack->lengths = mem_alloc(pack->count * sizeof(*pack->lengths));
	for (uint32_t i = 0; i < pack->count; i++) {
		pack->lengths[i] = put_record(pack->raw + pack->raw_bytes, pack, phrases, rng);
		pack->raw_bytes += pack->lengths[i];
	}
}

/* compressed in steps, or at the end. */
static struct coded_image *make_image(const struct pack *pack, enum compression compression, bool in_steps)
{
	struct coded_image *image = coded_image_open(&(struct coded_options){ .data_shards = pack->data_shards,
									      .parity_shards = pack->parity_shards,
									      .compression = compression,
									      .chunk = CHUNK,
									      .pack = true });
	const uint8_t *record = pack->raw;
	for (uint32_t i = 0; i < pack->count; record += pack->lengths[i++])
		coded_image_add_record(image, i + 1, slice_of(record, pack->lengths[i]), crc32c(record, pack->lengths[i]));
	while (in_steps && !coded_image_compress(image))
		continue;
	coded_image_finish(image);
	return image;
}

static void take_shards(struct pack *pack, struct coded_image *image)
{
	const struct coded_index *index = coded_image_index(image);
	pack->head_bytes = index->head_bytes;
	pack->bytes = index->head_bytes + (index->shard_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	coded_shards_take(image, pack->bytes, pack->shards);
}

static void make(struct pack *pack, enum compression compression, uint64_t seed)
{
	struct rng rng;
	rng_init(&rng, seed);
	make_records(pack, &rng);
	struct coded_image *image = make_image(pack, compression, false);
	take_shards(pack, image);
	coded_image_close(image);
}

static void unmake(struct pack *pack)
{
	free(pack->raw);
	free(pack->lengths);
	for (unsigned i = 0; i < SHARDS_MAX; i++)
		free(pack->shards[i]);
}

static bool has_dictionary(const struct pack *pack)
{
	return get_le32(pack->shards[0] + 8) == 2;
}

static size_t stored_bytes(const struct coded_index *index)
{
	size_t stored = 0;
	for (size_t i = 0; i < index->count; i++)
		stored += index->units[i].size;
	return stored;
}

/* As many bytes as each record alone takes. */
static size_t stored_alone(const struct pack *pack, enum compression compression)
{
	static uint8_t out[RECORD_BYTES_MAX];
	struct compressor *compressor = compressor_open(compression);
	size_t stored = 0, at = 0;
	for (uint32_t i = 0; i < pack->count; at += pack->lengths[i++]) {
		size_t size = compressor_run(compressor, slice_of(pack->raw + at, pack->lengths[i]), out);
		stored += CODED_RECORD_BYTES + (size != 0 ? size : pack->lengths[i]);
	}
	compressor_close(compressor);
	return stored;
}

/* The first record that does not come out. */
static enum err unpack_all(const struct pack *pack, const struct coded_index *index)
{
	static uint8_t out[RECORD_BYTES_MAX];
	struct decompressor *decompressor = decompressor_open();
	enum err err = OK;
	size_t at = 0;
	for (uint32_t i = 0; err == OK && i < pack->count; at += pack->lengths[i++]) {
		const struct coded_unit *unit = coded_index_find(index, i + 1);
		const uint8_t *bytes = pack->shards[unit->shard] + pack->head_bytes + unit->offset;
		uint32_t length, crc;
		err = coded_record(unit, bytes, &length, &crc);
		if (err != OK)
			break;
		assert_int_equal(length, pack->lengths[i]);
		err = coded_unpack_record(index, unit, bytes, decompressor, out);
		if (err == OK)
			assert_memory_equal(out, pack->raw + at, length);
	}
	decompressor_close(decompressor);
	return err;
}

/* Parses what is in memory of its own and exact length, so that the address sanitizer sees a byte too much. */
static enum err parse(const struct pack *pack, unsigned place, struct coded_index *out)
{
	uint8_t *exact = mem_alloc(pack->head_bytes);
	memcpy(exact, pack->shards[place], pack->head_bytes);
	enum err err = coded_index_parse(slice_of(exact, pack->head_bytes), out);
	free(exact);
	return err;
}

static void test_pays(void **state)
{
	(void)state;
	static const unsigned profiles[][2] = { { 2, 1 }, { 4, 2 }, { 6, 3 } };
	static const enum compression compressions[] = { COMPRESSION_AUTO, COMPRESSION_FAST, COMPRESSION_HIGH };
	for (unsigned round = 0; round < 3; round++) {
		struct pack pack = { .data_shards = profiles[round][0], .parity_shards = profiles[round][1], .count = 5000 };
		struct coded_index index = { 0 };
		make(&pack, compressions[round], round);
		assert_true(has_dictionary(&pack));
		for (unsigned place = 0; place < pack.data_shards + pack.parity_shards; place++) {
			assert_int_equal(parse(&pack, place, &index), OK);
			assert_non_null(index.dictionary);
			assert_int_equal(unpack_all(&pack, &index), OK);
			size_t with = stored_bytes(&index), alone = stored_alone(&pack, compressions[round]);
			assert_true(with + (size_t)pack.head_bytes * pack.data_shards < alone * 2 / 3);
			coded_index_deinit(&index);
		}
		unmake(&pack);
	}
}

/* Too little of it, nothing in common, nothing to be gained: as without. */
static void test_does_not_pay(void **state)
{
	(void)state;
	static const struct {
		enum content content;
		enum compression compression;
		uint32_t count;
	} packs[] = { { ALIKE, COMPRESSION_AUTO, 1 },	  { ALIKE, COMPRESSION_AUTO, 30 }, { ALIKE, COMPRESSION_OFF, 5000 },
		      { NOISE, COMPRESSION_AUTO, 5000 }, { NOISE, COMPRESSION_HIGH, 5000 } };
	for (unsigned i = 0; i < sizeof(packs) / sizeof(*packs); i++) {
		struct pack pack = { .data_shards = 4, .parity_shards = 2, .content = packs[i].content, .count = packs[i].count };
		struct coded_index index = { 0 };
		make(&pack, packs[i].compression, i);
		assert_false(has_dictionary(&pack));
		assert_int_equal(parse(&pack, 0, &index), OK);
		assert_null(index.dictionary);
		assert_int_equal(unpack_all(&pack, &index), OK);
		assert_int_equal(stored_bytes(&index), stored_alone(&pack, packs[i].compression));
		coded_index_deinit(&index);
		unmake(&pack);
	}
}

/* Blobs of fewer bytes than the dictionary names its pieces with, and as many as a pack may have samples of. */
static void test_tiny_records(void **state)
{
	(void)state;
	struct pack pack = { .data_shards = 4, .parity_shards = 2, .content = TINY, .count = 40000 };
	struct coded_index index = { 0 };
	make(&pack, COMPRESSION_AUTO, 5);
	assert_true(has_dictionary(&pack));
	assert_int_equal(parse(&pack, 5, &index), OK);
	assert_int_equal(unpack_all(&pack, &index), OK);
	assert_true(stored_bytes(&index) < stored_alone(&pack, COMPRESSION_AUTO) * 3 / 5);
	coded_index_deinit(&index);
	unmake(&pack);
}

/* The same records give the same shards, compressed in steps or at once, in an image that is used again. */
static void test_the_same_again(void **state)
{
	(void)state;
	struct pack pack = { .data_shards = 4, .parity_shards = 2, .count = 9000 }, again, other = { .data_shards = 2, .parity_shards = 1, .count = 5 };
	make(&pack, COMPRESSION_AUTO, 7);
	assert_true(has_dictionary(&pack) && pack.raw_bytes > CODED_COMPRESS_BYTES);
	again = pack;
	struct coded_image *image = make_image(&pack, COMPRESSION_AUTO, true);
	take_shards(&again, image);
	assert_true(again.bytes == pack.bytes && again.head_bytes == pack.head_bytes);
	for (unsigned i = 0; i < 6; i++) {
		assert_memory_equal(again.shards[i], pack.shards[i], pack.bytes);
		free(again.shards[i]);
	}
	/* A dictionary of before is none of the next one's. */
	struct rng rng;
	rng_init(&rng, 8);
	make_records(&other, &rng);
	coded_image_reopen(image, &(struct coded_options){ .data_shards = 2, .parity_shards = 1, .chunk = CHUNK, .pack = true });
	coded_image_add_record(image, 1, slice_of(other.raw, other.lengths[0]), crc32c(other.raw, other.lengths[0]));
	other.count = 1;
	coded_image_finish(image);
	take_shards(&other, image);
	assert_false(has_dictionary(&other));
	coded_image_close(image);
	unmake(&other);
	unmake(&pack);
}

/* Any bit of the head is noticed before anything is read with it. */
static void test_flipped_bits(void **state)
{
	(void)state;
	struct pack pack = { .data_shards = 4, .parity_shards = 2, .count = 2000 };
	struct coded_index index = { 0 };
	struct rng rng;
	rng_init(&rng, 9);
	make(&pack, COMPRESSION_AUTO, 9);
	assert_true(has_dictionary(&pack));
	for (size_t bit = 0; bit < 8ull * pack.head_bytes; bit += 1 + rng_below(&rng, 40)) {
		pack.shards[3][bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(parse(&pack, 3, &index), ERR_CORRUPT);
		pack.shards[3][bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(parse(&pack, 3, &index), OK);
	coded_index_deinit(&index);
	unmake(&pack);
}

static void seal(uint8_t *head)
{
	uint32_t crc_offset = CODED_HEAD_BYTES + head[12] * 4u;
	put_le32(head + 48, crc32c(head + crc_offset + 4, get_le32(head + 44)));
	put_le32(head + crc_offset, crc32c(head, crc_offset));
}

/* Heads that check and say what cannot be of their dictionary, which is at 72. */
static void test_lies(void **state)
{
	(void)state;
	static const struct {
		const char *what;
		uint32_t offset, value;
	} lies[] = {
		{ "no dictionary", 8, 1 },
		{ "a format to come", 8, 3 },
		{ "a file", 24, CODED_UNIT_BYTES },
		{ "an index that ends before", 44, CODED_DICTIONARY_HEAD_BYTES },
		{ "an index of 4 GiB", 44, UINT32_MAX },
		{ "larger than one may be", 72, CODED_DICTIONARY_BYTES_MAX + 1 },
		{ "4 GiB", 72, UINT32_MAX },
		{ "nothing", 72, 0 },
		{ "another size", 72, CODED_DICTIONARY_BYTES_MAX },
		{ "more than there is", 76, CODED_DICTIONARY_BYTES_MAX },
		{ "stored in 4 GiB", 76, UINT32_MAX },
		{ "stored in nothing", 76, 0 },
		{ "no frame", 80, 0 },
	};
	struct pack pack = { .data_shards = 4, .parity_shards = 2, .count = 2000 };
	struct coded_index index = { 0 };
	make(&pack, COMPRESSION_AUTO, 10);
	assert_true(has_dictionary(&pack) && get_le32(pack.shards[0] + 76) < get_le32(pack.shards[0] + 72));
	uint8_t *right = mem_alloc(pack.head_bytes);
	memcpy(right, pack.shards[0], pack.head_bytes);
	seal(pack.shards[0]);
	assert_memory_equal(pack.shards[0], right, pack.head_bytes);
	for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		put_le32(pack.shards[0] + lies[i].offset, lies[i].value);
		if (get_le32(pack.shards[0] + 44) <= pack.head_bytes - 72)
			seal(pack.shards[0]);
		else
			put_le32(pack.shards[0] + 68, crc32c(pack.shards[0], 68));
		if (parse(&pack, 0, &index) != ERR_CORRUPT)
			fail_msg("not found: %s", lies[i].what);
		memcpy(pack.shards[0], right, pack.head_bytes);
	}
	free(right);
	unmake(&pack);
}

/* One that lies there as it is: it has to be one, not any bytes; of another, what is compressed does not come out. */
static void test_other_dictionaries(void **state)
{
	(void)state;
	struct pack pack = { .data_shards = 4, .parity_shards = 2, .count = 2000 }, other = { .data_shards = 4, .parity_shards = 2, .count = 2000 };
	struct coded_index index = { 0 }, others = { 0 };
	make(&pack, COMPRESSION_AUTO, 11);
	make(&other, COMPRESSION_AUTO, 12);
	assert_int_equal(parse(&pack, 0, &index), OK);
	assert_int_equal(parse(&other, 0, &others), OK);
	struct dictionary *own = index.dictionary;
	index.dictionary = others.dictionary;
	assert_int_equal(unpack_all(&pack, &index), ERR_CORRUPT);
	index.dictionary = NULL;
	assert_int_equal(unpack_all(&pack, &index), ERR_CORRUPT);
	index.dictionary = own;
	assert_int_equal(unpack_all(&pack, &index), OK);
	coded_index_deinit(&index);
	coded_index_deinit(&others);
	uint32_t stored = get_le32(pack.shards[0] + 76);
	put_le32(pack.shards[0] + 72, stored);
	seal(pack.shards[0]);
	assert_int_equal(parse(&pack, 0, &index), ERR_CORRUPT);
	put_le32(pack.shards[0] + 80, 0xec30a437); /* as one begins */
	seal(pack.shards[0]);
	assert_int_equal(parse(&pack, 0, &index), ERR_CORRUPT);
	unmake(&pack);
	unmake(&other);
}

/* The judge of sets reads with it, too. */
static void test_judged(void **state)
{
	(void)state;
	struct pack pack = { .data_shards = 4, .parity_shards = 2, .count = 2000 };
	struct coded_set set = { .data_shards = 4, .parity_shards = 2, .chunk = CHUNK };
	uint64_t bad = 1;
	make(&pack, COMPRESSION_AUTO, 13);
	assert_true(has_dictionary(&pack));
	set.bytes = pack.bytes;
	for (unsigned i = 0; i < 6; i++)
		set.shards[i] = pack.shards[i];
	assert_int_equal(coded_judge(&set, &bad), OK);
	assert_int_equal(bad, 0);
	pack.shards[2][pack.head_bytes + 100] ^= 1;
	pack.shards[5][90] ^= 1; /* in its dictionary */
	assert_int_equal(coded_judge(&set, &bad), OK);
	assert_int_equal(bad, 1 << 2 | 1 << 5);
	unmake(&pack);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pays),	     cmocka_unit_test(test_does_not_pay), cmocka_unit_test(test_tiny_records),
		cmocka_unit_test(test_the_same_again), cmocka_unit_test(test_flipped_bits), cmocka_unit_test(test_lies),
		cmocka_unit_test(test_other_dictionaries), cmocka_unit_test(test_judged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
