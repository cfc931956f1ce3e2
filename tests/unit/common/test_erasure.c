/* Reed-Solomon: the matrix is the one that it has always been, and any k shards give back the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "common/data/erasure.h"

#define BYTES_MAX 1000u

struct shards {
	unsigned k, m;
	size_t bytes;
	uint8_t content[SHARDS_MAX][BYTES_MAX];
};

/* GF(2^8) with 0x11d, slowly. */
static uint8_t gf_times(uint8_t a, uint8_t b)
{
	unsigned product = 0;
	for (int i = 0; i < 8; i++)
		product ^= b >> i & 1 ? (unsigned)a << i : 0;
	for (int i = 15; i >= 8; i--)
		product ^= product >> i & 1 ? 0x11du << (i - 8) : 0;
	return (uint8_t)product;
}

static uint8_t gf_inverse(uint8_t a)
{
	unsigned b = 1;
	while (gf_times(a, (uint8_t)b) != 1)
		b++;
	return (uint8_t)b;
}

static void encode(struct shards *shards)
{
	const uint8_t *sources[DATA_SHARDS_MAX];
	uint8_t *targets[PARITY_SHARDS_MAX];
	struct erasure erasure;
	for (unsigned i = 0; i < shards->k; i++)
		sources[i] = shards->content[i];
	for (unsigned i = 0; i < shards->m; i++)
		targets[i] = shards->content[shards->k + i];
	erasure_init_encoder(&erasure, shards->k, shards->m);
	erasure_run(&erasure, shards->bytes, sources, targets);
	erasure_deinit(&erasure);
}

static void fill(struct shards *shards, struct rng *rng)
{
	for (unsigned i = 0; i < shards->k; i++) {
		for (size_t j = 0; j < shards->bytes; j++)
			shards->content[i][j] = (uint8_t)rng_next(rng);
	}
	encode(shards);
}

/* The shards of `lost` (bits), at most m, from the first k of the others that begin with shard `from`. */
static void assert_recovers(const struct shards *shards, uint64_t lost, unsigned from)
{
	static uint8_t again[PARITY_SHARDS_MAX][BYTES_MAX + 1];
	const uint8_t *sources[DATA_SHARDS_MAX];
	uint8_t *targets[PARITY_SHARDS_MAX], have[DATA_SHARDS_MAX], wanted[PARITY_SHARDS_MAX];
	unsigned all = shards->k + shards->m, have_count = 0, wanted_count = 0;
	struct erasure erasure;
	for (unsigned n = 0; n < all; n++) {
		unsigned i = (from + n) % all;
		if (lost >> i & 1) {
			targets[wanted_count] = again[wanted_count];
			again[wanted_count][shards->bytes] = 0xa5;
			wanted[wanted_count++] = (uint8_t)i;
		} else if (have_count < shards->k) {
			sources[have_count] = shards->content[i];
			have[have_count++] = (uint8_t)i;
		}
	}
	erasure_init_decoder(&erasure, &(struct erasure_question){ .data_shards = shards->k,
								   .parity_shards = shards->m,
								   .have = have,
								   .wanted = wanted,
								   .wanted_count = wanted_count });
	erasure_run(&erasure, shards->bytes, sources, targets);
	erasure_deinit(&erasure);
	for (unsigned i = 0; i < wanted_count; i++) {
		assert_memory_equal(again[i], shards->content[wanted[i]], shards->bytes);
		assert_int_equal(again[i][shards->bytes], 0xa5);
	}
}

static void test_valid(void **state)
{
	(void)state;
	assert_true(erasure_profile_valid(2, 1) && erasure_profile_valid(DATA_SHARDS_MAX, PARITY_SHARDS_MAX));
	assert_false(erasure_profile_valid(1, 1) || erasure_profile_valid(2, 0));
	assert_false(erasure_profile_valid(DATA_SHARDS_MAX + 1, 1) || erasure_profile_valid(2, PARITY_SHARDS_MAX + 1));
}

/* The matrix is on disks: parity i has data shard j times 1 / ((k + i) ^ j). */
static void test_matrix(void **state)
{
	(void)state;
	static struct shards shards;
	for (unsigned k = 2; k <= DATA_SHARDS_MAX; k++) {
		shards.k = k;
		shards.m = PARITY_SHARDS_MAX;
		shards.bytes = DATA_SHARDS_MAX;
		/* Byte j shows the coefficients of shard j. */
		memset(shards.content, 0, sizeof(shards.content));
		for (unsigned j = 0; j < k; j++)
			shards.content[j][j] = 1;
		encode(&shards);
		for (unsigned i = 0; i < shards.m; i++) {
			for (unsigned j = 0; j < k; j++)
				assert_int_equal(shards.content[k + i][j], gf_inverse((uint8_t)((k + i) ^ j)));
		}
	}
	/* And as numbers, in case that both are wrong. */
	static const uint8_t known[2][4] = { { 0x47, 0xa7, 0x7a, 0xba }, { 0xa7, 0x47, 0xba, 0x7a } };
	shards.k = 4;
	shards.m = 2;
	encode(&shards);
	for (unsigned i = 0; i < 2; i++)
		assert_memory_equal(shards.content[4 + i], known[i], 4);
}

/* Every set of shards that may be lost, from every set that is enough. */
static void test_stock(void **state)
{
	(void)state;
	static const unsigned profiles[][2] = { { 2, 2 }, { 4, 2 }, { 6, 3 } };
	static struct shards shards;
	struct rng rng;
	rng_init(&rng, 1);
	for (size_t p = 0; p < 3; p++) {
		unsigned k = profiles[p][0], m = profiles[p][1];
		shards.k = k;
		shards.m = m;
		shards.bytes = 100 + 37 * p;
		fill(&shards, &rng);
		for (uint64_t lost = 1; lost < 1u << (k + m); lost++) {
			if (__builtin_popcountll(lost) > (int)m)
				continue;
			for (unsigned from = 0; from < k + m; from++)
				assert_recovers(&shards, lost, from);
		}
	}
}

static void test_all_profiles(void **state)
{
	(void)state;
	static struct shards shards;
	struct rng rng;
	rng_init(&rng, 2);
	for (unsigned k = 2; k <= DATA_SHARDS_MAX; k++) {
		for (unsigned m = 1; m <= PARITY_SHARDS_MAX; m++) {
			shards.k = k;
			shards.m = m;
			shards.bytes = 1 + rng_below(&rng, BYTES_MAX);
			fill(&shards, &rng);
			for (int round = 0; round < 8; round++) {
				uint64_t lost = 0, count = 1 + rng_below(&rng, m);
				while (__builtin_popcountll(lost) < (int)count)
					lost |= 1ull << rng_below(&rng, k + m);
				assert_recovers(&shards, lost, (unsigned)rng_below(&rng, k + m));
			}
		}
	}
}

/* All lengths around the width of the machine's vectors, at odd addresses, and coding by pieces is coding at once. */
static void test_lengths(void **state)
{
	(void)state;
	static struct shards shards;
	static uint8_t pieces[2][BYTES_MAX];
	struct rng rng;
	rng_init(&rng, 3);
	shards.k = 5;
	shards.m = 2;
	for (size_t bytes = 1; bytes <= 300; bytes++) {
		shards.bytes = bytes;
		fill(&shards, &rng);
		struct erasure erasure;
		const uint8_t *sources[5];
		uint8_t *targets[2];
		erasure_init_encoder(&erasure, 5, 2);
		for (size_t at = 0, size; at < bytes; at += size) {
			size = 1 + rng_below(&rng, bytes - at);
			for (unsigned i = 0; i < 5; i++)
				sources[i] = shards.content[i] + at;
			for (unsigned i = 0; i < 2; i++)
				targets[i] = pieces[i] + at;
			erasure_run(&erasure, size, sources, targets);
		}
		erasure_deinit(&erasure);
		for (unsigned i = 0; i < 2; i++) {
			assert_memory_equal(pieces[i], shards.content[5 + i], bytes);
			for (size_t at = 0; at < bytes; at++) {
				uint8_t sum = 0;
				for (unsigned j = 0; j < 5; j++)
					sum ^= gf_times(shards.content[j][at], gf_inverse((uint8_t)((5 + i) ^ j)));
				assert_int_equal(sum, pieces[i][at]);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_valid),	     cmocka_unit_test(test_matrix),  cmocka_unit_test(test_stock),
		cmocka_unit_test(test_all_profiles), cmocka_unit_test(test_lengths),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
