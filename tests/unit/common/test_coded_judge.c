/* Sets of shards of which some are not what they should be: those are named, and no others; or none where that cannot be known. */
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
#include "common/data/coded_judge.h"
#include "tests/unit/common/coded_shards.h"

#define CHUNK 77u

struct made {
	struct coded_set set;
	uint8_t *shards[SHARDS_MAX], *right[SHARDS_MAX];
	uint32_t head_bytes;
};

static void add_file(struct coded_image *image, uint32_t blocks, bool text, struct rng *rng)
{
	uint32_t unit_bytes = coded_image_unit_bytes(image), raw_bytes = blocks * BLOCK_BYTES;
	for (uint32_t id = 0; id * unit_bytes < raw_bytes; id++) {
		uint32_t bytes = raw_bytes - id * unit_bytes < unit_bytes ? raw_bytes - id * unit_bytes : unit_bytes;
		uint32_t crcs[CODED_UNIT_BYTES / BLOCK_BYTES];
		uint8_t *raw = mem_alloc(bytes);
		for (uint32_t i = 0; i < bytes; i++)
			raw[i] = (uint8_t)(text ? 'a' + rng_below(rng, 3) : rng_next(rng));
		for (uint32_t i = 0; i < bytes / BLOCK_BYTES; i++)
			crcs[i] = crc32c(raw + i * BLOCK_BYTES, BLOCK_BYTES);
		if (rng_below(rng, 5) > 0)
			coded_image_add(image, id, raw, crcs);
		free(raw);
	}
}

static void add_blobs(struct coded_image *image, unsigned blobs, struct rng *rng)
{
	uint8_t blob[3000];
	for (uint32_t slot = 1; slot <= blobs; slot++) {
		size_t size = rng_below(rng, sizeof(blob));
		for (size_t i = 0; i < size; i++)
			blob[i] = (uint8_t)(slot % 2 == 0 ? 'a' : rng_next(rng));
		coded_image_add_record(image, slot, slice_of(blob, size), crc32c(blob, size));
	}
}

static void take_shards(struct made *made, struct coded_image *image)
{
	const struct coded_index *index = coded_image_index(image);
	unsigned k = index->data_shards, m = index->parity_shards;
	uint32_t size = index->head_bytes + (index->shard_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	*made = (struct made){ .head_bytes = index->head_bytes,
			       .set = { .data_shards = k, .parity_shards = m, .chunk = CHUNK, .bytes = size } };
	coded_shards_take(image, size, made->shards);
	for (unsigned i = 0; i < k + m; i++) {
		made->right[i] = mem_alloc(size);
		made->set.shards[i] = made->shards[i];
		memcpy(made->right[i], made->shards[i], size);
	}
}

/* kind 0: a file that cannot be compressed; 1: one that can; 2: a pack. */
static void make(struct made *made, unsigned k, unsigned m, unsigned kind, struct rng *rng)
{
	uint32_t blocks = 1 + (uint32_t)rng_below(rng, 300);
	struct coded_image *image = coded_image_open(&(struct coded_options){ .data_shards = k,
									      .parity_shards = m,
									      .compression = COMPRESSION_AUTO,
									      .chunk = CHUNK,
									      .pack = kind == 2,
									      .raw_bytes = kind == 2 ? 0 : (uint64_t)blocks * BLOCK_BYTES });
	if (kind == 2)
		add_blobs(image, blocks, rng);
	else
		add_file(image, blocks, kind == 1, rng);
	coded_image_finish(image);
	take_shards(made, image);
	coded_image_close(image);
}

static void unmake(struct made *made)
{
	for (unsigned i = 0; i < SHARDS_MAX; i++) {
		free(made->shards[i]);
		free(made->right[i]);
	}
}

static unsigned shards_of(const struct made *made)
{
	return made->set.data_shards + made->set.parity_shards;
}

/* Something of the shard is not what it should be. */
static void spoil(struct made *made, unsigned place, struct rng *rng)
{
	uint8_t *shard = made->shards[place];
	uint32_t size = made->set.bytes, at = (uint32_t)rng_below(rng, size);
	switch (rng_below(rng, 6)) {
	case 0: /* it has been cut */
		made->set.shards[place] = NULL;
		return;
	case 1: /* the head of another place */
		coded_head_set_place(shard, (place + 1) % shards_of(made));
		return;
	case 2: /* zeros, or what was not zeros */
		memset(shard + made->head_bytes, 0, size - made->head_bytes);
		shard[made->head_bytes + rng_below(rng, size - made->head_bytes)] = 1;
		return;
	case 3:
		at = made->head_bytes + (uint32_t)rng_below(rng, size - made->head_bytes); /* only data */
		break;
	default:
		break;
	}
	for (uint32_t i = at; i < size && i < at + 1 + rng_below(rng, 9000); i++)
		shard[i] ^= (uint8_t)(1 + rng_below(rng, 255));
	shard[at] = (uint8_t)~made->right[place][at];
}

static const unsigned profiles[][2] = { { 2, 1 }, { 2, 2 }, { 4, 2 }, { 6, 3 }, { 8, 4 } };

static void test_right_sets(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 1);
	for (unsigned round = 0; round < 30; round++) {
		struct made made;
		uint64_t bad = 1;
		uint32_t bytes = 0;
		make(&made, profiles[round % 5][0], profiles[round % 5][1], round % 3, &rng);
		assert_int_equal(coded_set_bytes(&made.set, &bytes), OK);
		assert_int_equal(bytes, made.set.bytes);
		assert_int_equal(coded_judge(&made.set, &bad), OK);
		assert_int_equal(bad, 0);
		unmake(&made);
	}
}

/* Up to as many as there is parity; with only one parity shard it may be that nobody can know. */
static void test_wrong_shards(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 2);
	for (unsigned round = 0; round < 300; round++) {
		struct made made;
		uint64_t wrong = 0, bad = 0;
		uint32_t bytes = 0;
		make(&made, profiles[round % 5][0], profiles[round % 5][1], round % 3, &rng);
		unsigned most = made.set.parity_shards < (shards_of(&made) - 1) / 2 ? made.set.parity_shards : (shards_of(&made) - 1) / 2;
		for (unsigned i = 1 + (unsigned)rng_below(&rng, most); i > 0; i--) {
			unsigned place = (unsigned)rng_below(&rng, shards_of(&made));
			if ((wrong >> place & 1) == 0)
				spoil(&made, place, &rng);
			wrong |= 1ull << place;
		}
		assert_int_equal(coded_set_bytes(&made.set, &bytes), OK);
		assert_int_equal(bytes, made.set.bytes);
		assert_int_equal(coded_judge(&made.set, &bad), OK);
		assert_int_equal(bad, wrong);
		unmake(&made);
	}
}

/* One is not there at all, and is neither right nor wrong; one fewer of the others may be wrong then. */
static void test_absent(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 6);
	for (unsigned round = 0; round < 120; round++) {
		struct made made;
		uint64_t bad = 1;
		uint32_t bytes = 0;
		make(&made, profiles[1 + round % 4][0], profiles[1 + round % 4][1], round % 3, &rng);
		unsigned absent = (unsigned)rng_below(&rng, shards_of(&made)), wrong = (unsigned)rng_below(&rng, shards_of(&made));
		made.set.shards[absent] = NULL;
		made.set.absent = 1ull << absent;
		if (wrong != absent)
			spoil(&made, wrong, &rng);
		assert_int_equal(coded_set_bytes(&made.set, &bytes), OK);
		assert_int_equal(bytes, made.set.bytes);
		assert_int_equal(coded_judge(&made.set, &bad), OK);
		assert_int_equal(bad, wrong != absent ? 1ull << wrong : 0);
		unmake(&made);
	}
}

/* A record of an older day, right by itself: the other shards know better; if there is only one to say so, nobody knows. */
static void test_older_record(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 5);
	for (unsigned round = 0; round < 15; round++) {
		struct made made;
		struct coded_index index;
		uint64_t bad = 0;
		make(&made, profiles[round % 5][0], profiles[round % 5][1], 2, &rng);
		assert_int_equal(coded_index_parse(slice_of(made.shards[0], made.head_bytes), &index), OK);
		size_t i = 0;
		while (i < index.count && (index.units[i].compressed || index.units[i].size <= CODED_RECORD_BYTES))
			i++;
		if (i < index.count) {
			const struct coded_unit *unit = &index.units[i];
			uint8_t *bytes = made.shards[unit->shard] + made.head_bytes + unit->offset;
			bytes[CODED_RECORD_BYTES] ^= 1;
			put_le32(bytes + 4, crc32c(bytes + CODED_RECORD_BYTES, unit->size - CODED_RECORD_BYTES));
			assert_int_equal(coded_judge(&made.set, &bad), made.set.parity_shards > 1 ? OK : ERR_CORRUPT);
			assert_int_equal(bad, made.set.parity_shards > 1 ? 1ull << unit->shard : 0);
		}
		coded_index_deinit(&index);
		unmake(&made);
	}
}

/* More than there is parity: none is named. */
static void test_too_many(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 3);
	for (unsigned round = 0; round < 60; round++) {
		struct made made;
		uint64_t bad = 0;
		make(&made, 4, 2, round % 3, &rng);
		for (unsigned place = 0; place < 6; place += 2 - round % 2) { /* three data and parity, or all */
			for (uint32_t i = made.head_bytes; i < made.set.bytes; i++)
				made.shards[place][i] ^= (uint8_t)(1 + rng_below(&rng, 255));
		}
		assert_int_equal(coded_judge(&made.set, &bad), ERR_CORRUPT);
		assert_int_equal(bad, 0);
		unmake(&made);
	}
}

/* Of another chunk, all of them; and of which half say something else. */
static void test_heads(void **state)
{
	(void)state;
	struct rng rng;
	struct made made;
	uint64_t bad = 0;
	uint32_t bytes = 0;
	rng_init(&rng, 4);
	make(&made, 4, 2, 0, &rng);
	made.set.chunk = CHUNK + 1;
	assert_int_equal(coded_set_bytes(&made.set, &bytes), ERR_CORRUPT);
	assert_int_equal(coded_judge(&made.set, &bad), ERR_CORRUPT);
	made.set.chunk = CHUNK;
	for (unsigned place = 0; place < 3; place++)
		coded_head_set_place(made.shards[place], 5);
	assert_int_equal(coded_set_bytes(&made.set, &bytes), ERR_CORRUPT);
	assert_int_equal(coded_judge(&made.set, &bad), ERR_CORRUPT);
	assert_int_equal(bad, 0);
	unmake(&made);
}

/* --expect-failure: as of simulations. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_right_sets),
		cmocka_unit_test(test_wrong_shards),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_older_record),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_heads),
	};
	bool expected = argc == 2 && strcmp(argv[1], "--expect-failure") == 0;
	bool failed = cmocka_run_group_tests(tests, NULL, NULL) != 0;
	return failed == expected ? 0 : 1;
}
