/* Offsets to chunks and blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "common/data/layout.h"

static void test_chunks(void **state)
{
	(void)state;
	assert_int_equal(layout_chunk_index(0), 0);
	assert_int_equal(layout_chunk_index(CHUNK_BYTES - 1), 0);
	assert_int_equal(layout_chunk_index(CHUNK_BYTES), 1);
	assert_int_equal(layout_chunk_offset(3ull * CHUNK_BYTES + 17), 17);
	assert_int_equal(layout_chunk_count(0), 0);
	assert_int_equal(layout_chunk_count(1), 1);
	assert_int_equal(layout_chunk_count(CHUNK_BYTES), 1);
	assert_int_equal(layout_chunk_count(CHUNK_BYTES + 1ull), 2);
	assert_int_equal(layout_chunk_count(FILE_BYTES_MAX), FILE_BYTES_MAX / CHUNK_BYTES);
	assert_int_equal(layout_block_down(4097), 4096);
	assert_int_equal(layout_block_up(4097), 8192);
	assert_int_equal(layout_block_up(4096), 4096);
	assert_int_equal(layout_block_up(0), 0);
}

/* Random ranges: the pieces lie end to end, each within a chunk and the bound, and cover the range. */
static void test_pieces(void **state)
{
	(void)state;
	struct rng rng;
	rng_init(&rng, 11);
	for (unsigned round = 0; round < 2000; round++) {
		bool aligned = round % 2 == 0;
		uint32_t size_max = 1u << (9 + rng_below(&rng, 18));
		struct layout_range range = { .offset = rng_below(&rng, 1ull << 40), .size = rng_below(&rng, 3ull * CHUNK_BYTES) };
		if (round % 3 == 0)
			range.offset -= range.offset % CHUNK_BYTES;
		if (range.size / size_max > 5000)
			range.size = 5000ull * size_max;
		const struct layout_range whole = range;
		uint64_t at = whole.offset;
		struct layout_piece piece;
		while (layout_next(&range, size_max, aligned, &piece)) {
			assert_true(piece.file_offset == at);
			assert_true((uint64_t)piece.chunk_index * CHUNK_BYTES + piece.offset == at);
			assert_in_range(piece.size, 1, size_max);
			assert_true(piece.offset + piece.size <= CHUNK_BYTES);
			if (aligned)
				assert_int_equal(piece.offset / size_max, (piece.offset + piece.size - 1) / size_max);
			at += piece.size;
		}
		assert_true(at == whole.offset + whole.size);
	}
}

static void test_blocks(void **state)
{
	(void)state;
	struct layout_blocks blocks = layout_blocks(0, 4096);
	assert_true(blocks.first == 0 && blocks.count == 1 && !blocks.first_partial && !blocks.last_partial);
	blocks = layout_blocks(4095, 2);
	assert_true(blocks.first == 0 && blocks.count == 2 && blocks.first_partial && blocks.last_partial);
	blocks = layout_blocks(4096, 100);
	assert_true(blocks.first == 1 && blocks.count == 1 && blocks.first_partial && blocks.last_partial);
	blocks = layout_blocks(4096, 4196);
	assert_true(blocks.first == 1 && blocks.count == 2 && !blocks.first_partial && blocks.last_partial);
	blocks = layout_blocks(CHUNK_BYTES - 1, 1);
	assert_true(blocks.first == CHUNK_BLOCKS - 1 && blocks.count == 1);

	struct rng rng;
	rng_init(&rng, 12);
	for (unsigned round = 0; round < 1000; round++) {
		uint32_t offset = (uint32_t)rng_below(&rng, 100000), size = 1 + (uint32_t)rng_below(&rng, 50000);
		blocks = layout_blocks(offset, size);
		uint32_t sum = 0, from = 0;
		for (uint32_t i = 0; i < blocks.count; i++) {
			uint32_t part = layout_block_part(offset, size, i, &from);
			assert_in_range(part, 1, BLOCK_BYTES);
			assert_int_equal((blocks.first + i) * BLOCK_BYTES + from, offset + sum);
			bool whole = part == BLOCK_BYTES;
			if (i == 0)
				assert_int_equal(blocks.first_partial, !whole);
			if (i == blocks.count - 1)
				assert_int_equal(blocks.last_partial, !whole);
			sum += part;
		}
		assert_int_equal(sum, size);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_blocks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
