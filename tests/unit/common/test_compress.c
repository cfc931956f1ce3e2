/* Compression: what is compressed comes back, what does not pay is kept, and bytes from outside are bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/data/compress.h"

#define BYTES CODED_UNIT_BYTES

static void fill_random(uint8_t *bytes, size_t size, struct rng *rng)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)rng_next(rng);
}

/* Words of few letters: about a third. */
static void fill_text(uint8_t *bytes, size_t size, struct rng *rng)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)"etaoinsh"[rng_below(rng, 8)];
}

static void test_names(void **state)
{
	(void)state;
	enum compression found;
	for (unsigned i = COMPRESSION_OFF; i < COMPRESSIONS; i++) {
		assert_true(compression_parse(compression_name((enum compression)i), &found));
		assert_int_equal(found, i);
	}
	assert_string_equal(compression_name(COMPRESSION_DEFAULT), "auto");
	assert_string_equal(compression_name((enum compression)COMPRESSIONS), "?");
	assert_false(compression_parse("?", &found) || compression_parse("", &found) || compression_parse("on", &found));
}

static void test_round_trip(void **state)
{
	(void)state;
	uint8_t *in = mem_alloc(BYTES), *packed = mem_alloc(BYTES), *out = mem_alloc(BYTES + 1);
	struct decompressor *decompressor = decompressor_open();
	struct rng rng;
	rng_init(&rng, 1);
	for (unsigned kind = COMPRESSION_DEFAULT; kind < COMPRESSIONS; kind++) {
		struct compressor *compressor = compressor_open((enum compression)kind);
		assert_int_equal(compressor_run(compressor, slice_of(in, 0), packed), 0);
		for (size_t size = 1; size <= BYTES; size = size * 2 + rng_below(&rng, 2)) {
			fill_random(in, size, &rng);
			assert_int_equal(compressor_run(compressor, slice_of(in, size), packed), 0);
			fill_text(in, size, &rng);
			size_t stored = compressor_run(compressor, slice_of(in, size), packed);
			assert_true(stored <= size - size / 16);
			assert_true(stored > 0 || size < 256 || kind == COMPRESSION_OFF);
			if (stored == 0)
				continue;
			out[size] = 0xa5;
			assert_int_equal(decompressor_run(decompressor, slice_of(packed, stored), out, size), OK);
			assert_memory_equal(in, out, size);
			assert_int_equal(out[size], 0xa5);
		}
		compressor_close(compressor);
	}
	decompressor_close(decompressor);
	free(in);
	free(packed);
	free(out);
}

/* After some pieces that did not pay only a part of each is looked at; one that pays is found, and all after it. */
static void test_auto(void **state)
{
	(void)state;
	uint8_t *noise = mem_alloc(BYTES), *text = mem_alloc(BYTES), *mixed = mem_alloc(BYTES), *out = mem_alloc(BYTES);
	struct compressor *compressor = compressor_open(COMPRESSION_AUTO);
	struct rng rng;
	rng_init(&rng, 2);
	fill_random(noise, BYTES, &rng);
	fill_text(text, BYTES, &rng);
	fill_random(mixed, BYTES, &rng);
	fill_text(mixed + BYTES / 8, BYTES - BYTES / 8, &rng);
	for (int i = 0; i < 20; i++)
		assert_int_equal(compressor_run(compressor, slice_of(noise, BYTES), out), 0);
	for (int i = 0; i < 3; i++)
		assert_true(compressor_run(compressor, slice_of(text, BYTES), out) > 0);
	/* Even if a piece begins with noise, as the one before did. */
	for (int i = 0; i < 20; i++)
		assert_int_equal(compressor_run(compressor, slice_of(noise, BYTES), out), 0);
	int missed = 0;
	while (compressor_run(compressor, slice_of(mixed, BYTES), out) == 0)
		missed++;
	assert_true(missed <= 4);
	/* A sample in between is no part of what comes out. */
	struct decompressor *decompressor = decompressor_open();
	size_t stored = compressor_run(compressor, slice_of(mixed, BYTES), out);
	assert_int_equal(decompressor_run(decompressor, slice_of(out, stored), noise, BYTES), OK);
	assert_memory_equal(noise, mixed, BYTES);
	decompressor_close(decompressor);
	compressor_close(compressor);
	free(noise);
	free(text);
	free(mixed);
	free(out);
}

/* Whatever a frame says, no more is written than there is room for, and it is exactly what was expected. */
static void test_hostile(void **state)
{
	(void)state;
	enum { SIZE = 20000 };
	uint8_t *in = mem_alloc(SIZE), *packed = mem_alloc(2 * SIZE), *out = mem_alloc(2 * SIZE);
	struct compressor *compressor = compressor_open(COMPRESSION_FAST);
	struct decompressor *decompressor = decompressor_open();
	struct rng rng;
	rng_init(&rng, 3);
	fill_text(in, SIZE, &rng);
	size_t stored = compressor_run(compressor, slice_of(in, SIZE), packed);
	assert_true(stored > 0);
	/* Of another size, cut short, more behind it, twice. */
	assert_int_equal(decompressor_run(decompressor, slice_of(packed, stored), out, SIZE - 1), ERR_CORRUPT);
	assert_int_equal(decompressor_run(decompressor, slice_of(packed, stored), out, SIZE + 1), ERR_CORRUPT);
	for (size_t size = 0; size < stored; size += 1 + size / 8) {
		uint8_t *cut = mem_alloc(size);
		memcpy(cut, packed, size);
		assert_int_equal(decompressor_run(decompressor, slice_of(cut, size), out, SIZE), ERR_CORRUPT);
		free(cut);
	}
	packed[stored] = 0;
	assert_int_equal(decompressor_run(decompressor, slice_of(packed, stored + 1), out, SIZE), ERR_CORRUPT);
	memcpy(packed + stored, packed, stored);
	assert_int_equal(decompressor_run(decompressor, slice_of(packed, 2 * stored), out, 2 * (size_t)SIZE), ERR_CORRUPT);
	/* A frame that is skipped behind it, in front of it, alone. */
	static const uint8_t skipped[] = { 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0 };
	memcpy(packed + stored, skipped, sizeof(skipped));
	assert_int_equal(decompressor_run(decompressor, slice_of(packed, stored + sizeof(skipped)), out, SIZE), ERR_CORRUPT);
	memmove(packed + sizeof(skipped), packed, stored);
	memcpy(packed, skipped, sizeof(skipped));
	assert_int_equal(decompressor_run(decompressor, slice_of(packed, stored + sizeof(skipped)), out, SIZE), ERR_CORRUPT);
	assert_int_equal(decompressor_run(decompressor, slice_of(skipped, sizeof(skipped)), out, 0), ERR_CORRUPT);
	memmove(packed, packed + sizeof(skipped), stored);
	/* Any bit. What comes out is caught by its writer's checksums, but is never more than there is room for. */
	uint8_t *exact = mem_alloc(SIZE);
	for (size_t bit = 0; bit < 8 * stored; bit += 1 + rng_below(&rng, 16)) {
		packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
		enum err err = decompressor_run(decompressor, slice_of(packed, stored), exact, SIZE);
		assert_true(err == OK || err == ERR_CORRUPT);
		packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(decompressor_run(decompressor, slice_of(packed, stored), exact, SIZE), OK);
	assert_memory_equal(exact, in, SIZE);
	compressor_close(compressor);
	decompressor_close(decompressor);
	free(exact);
	free(in);
	free(packed);
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_auto),
		cmocka_unit_test(test_hostile),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
