/* The chunk format, chunk files, and the ring of operations. */
#include "tests/unit/chunkserver/files.h"

#include "chunkserver/chunk_file.h"
#include "chunkserver/op_ring.h"
#include "chunkserver/write_log.h"
#include "common/base/bytes.h"
#include "common/base/crc32c.h"

static uint8_t pattern[FRAME_DATA_BYTES_MAX + 4096] __attribute__((aligned(4096)));
static uint8_t got[FRAME_DATA_BYTES_MAX];

/* At `crcs`, which has room for it: one for each block's part. */
static struct slice crcs_of(uint32_t offset, struct slice data, uint8_t *crcs)
{
	size_t at = 0, count = 0;
	while (at < data.size) {
		size_t piece = BLOCK_BYTES - (offset + at) % BLOCK_BYTES;
		if (piece > data.size - at)
			piece = data.size - at;
		put_le32(crcs + 4 * count++, crc32c(data.bytes + at, piece));
		at += piece;
	}
	assert_int_equal(chunk_pieces_verify(offset, data, slice_of(crcs, 4 * count)), OK);
	return slice_of(crcs, 4 * count);
}

static enum err put(struct chunk_file *file, uint32_t offset, struct slice data)
{
	uint8_t crcs[(FRAME_DATA_BYTES_MAX / BLOCK_BYTES + 1) * 4];
	struct chunk_file_write write = {
		.offset = offset, .data = data, .crcs = crcs_of(offset, data, crcs), .blocks_before = file->blocks
	};
	enum err err = chunk_file_write(file, &write);
	uint32_t end = block_end(offset, (uint32_t)data.size);
	if (err == OK && end > file->blocks)
		file->blocks = end;
	return err;
}

/* Every block of the file agrees with its CRC. */
static void expect_whole(struct chunk_file *file)
{
	uint8_t damaged[CHUNK_BLOCKS / 8] = { 0 };
	uint32_t mismatches = 9;
	assert_int_equal(chunk_file_check(file, damaged, &mismatches), OK);
	assert_int_equal(mismatches, 0);
}

static void open_anew(struct place *place, struct chunk_file *file)
{
	uint64_t id = file->id;
	chunk_file_close(file);
	assert_int_equal(chunk_file_open(place->loop, place->path, id, file), OK);
}

static void headers_are_checked(void **state)
{
	(void)state;
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct chunk_header header = { .kind = KIND_REPLICATED, .chunk = 0x1122334455667788, .version = 3 }, out;
	chunk_header_write(&header, bytes);
	assert_memory_equal(bytes, "GRNCHNK1\1\0\0\0\0\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11\3\0\0\0\0\0\0\0", 32);
	assert_int_equal(chunk_header_parse(bytes, &out), OK);
	assert_int_equal(out.chunk, header.chunk);
	assert_int_equal(out.version, 3);
	for (unsigned bit = 0; bit < 8 * sizeof(bytes); bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(chunk_header_parse(bytes, &out), OK);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	put_le32(bytes + 8, 2);
	put_le32(bytes + 60, crc32c(bytes, 60));
	assert_int_equal(chunk_header_parse(bytes, &out), ERR_VERSION_MISMATCH);
}

static void pieces_are_checked(void **state)
{
	(void)state;
	uint8_t crcs[12];
	put_le32(crcs, crc32c(pattern, 96));
	put_le32(crcs + 4, crc32c(pattern + 96, 4096));
	put_le32(crcs + 8, crc32c(pattern + 96 + 4096, 8));
	struct slice data = slice_of(pattern, 4200);
	assert_int_equal(chunk_pieces_verify(4000, data, slice_of(crcs, 12)), OK);
	assert_int_equal(chunk_pieces_verify(4000, data, slice_of(crcs, 8)), ERR_INVALID);
	assert_int_equal(chunk_pieces_verify(4001, data, slice_of(crcs, 12)), ERR_CORRUPT);
	assert_int_equal(chunk_pieces_verify(0, slice_of(NULL, 0), slice_of(NULL, 0)), ERR_INVALID);
	assert_int_equal(chunk_pieces_verify(CHUNK_BYTES - 4199, data, slice_of(crcs, 12)), ERR_INVALID);
	assert_int_equal(chunk_pieces_verify(UINT32_MAX, data, slice_of(crcs, 12)), ERR_INVALID);
}

static void blocks_are_merged_and_kept(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &file), OK);
	struct chunk_file other;
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &other), ERR_EXISTS);
	assert_int_equal(put(&file, 100, slice_text("inside one block")), OK);
	assert_int_equal(put(&file, 4090, slice_text("over the border")), OK);
	assert_int_equal(put(&file, 3 * 4096 + 10, slice_of(pattern, 10000)), OK);
	assert_int_equal(put(&file, 40960, slice_of(pattern, 8192)), OK);
	assert_int_equal(put(&file, 107, slice_text("ONE")), OK);
	expect_whole(&file);
	open_anew(place, &file);
	expect_whole(&file);
	assert_int_equal(file.blocks, 12);
	assert_int_equal(chunk_file_read(&file, 0, 12, got, false), OK);
	assert_memory_equal(got + 100, "inside ONE block", 16);
	assert_memory_equal(got + 4090, "over the border", 15);
	assert_memory_equal(got + 3 * 4096 + 10, pattern, 10000);
	assert_memory_equal(got + 40960, pattern, 8192);
	for (int i = 0; i < 100; i++)
		assert_int_equal(got[i], 0);
	chunk_file_close(&file);
	assert_int_equal(chunk_file_open(place->loop, place->path, 6, &file), ERR_CORRUPT);
}

static void large_writes_bypass_the_cache(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &file), OK);
	assert_int_equal(put(&file, 0, slice_text("through the cache")), OK);
	chunk_file_want_direct(&file, place->loop, place->path);
	assert_int_equal(put(&file, 0, slice_of(pattern, FRAME_DATA_BYTES_MAX)), OK);
	assert_int_equal(put(&file, FRAME_DATA_BYTES_MAX + 4096, slice_of(pattern + 4096, FRAME_DATA_BYTES_MAX - 4096)), OK);
	assert_int_equal(put(&file, 10, slice_text("and again")), OK);
	expect_whole(&file);
	assert_int_equal(chunk_file_read(&file, 0, 64, got, false), OK);
	assert_memory_equal(got + 10, "and again", 9);
	assert_memory_equal(got + 19, pattern + 19, FRAME_DATA_BYTES_MAX - 19);
	open_anew(place, &file);
	expect_whole(&file);
	chunk_file_close(&file);
}

static void damage_is_not_merged_into(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	uint32_t mismatches = 0;
	uint8_t damaged[CHUNK_BLOCKS / 8] = { 0 };
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &file), OK);
	assert_int_equal(put(&file, 0, slice_of(pattern, 8192)), OK);
	assert_int_equal(file_write(file.file, CHUNK_DATA_OFFSET + 4096 + 7, "\xff\xfe", 2), OK);
	assert_int_equal(put(&file, 5000, slice_text("part")), ERR_CORRUPT);
	assert_int_equal(put(&file, 4000, slice_of(pattern, 200)), ERR_CORRUPT);
	assert_int_equal(chunk_file_read(&file, 0, 1, got, false), OK);
	assert_memory_equal(got, pattern, 4096);
	assert_int_equal(chunk_file_check(&file, damaged, &mismatches), OK);
	assert_int_equal(mismatches, 1);
	assert_int_equal(damaged[0], 2);
	/* Written whole it is right again. */
	assert_int_equal(put(&file, 4096, slice_of(pattern, 4096)), OK);
	expect_whole(&file);
	chunk_file_close(&file);
}

/* Header and entries on the disk are made again from what is in memory; another chunk's file is left alone. */
static void table_is_scrubbed(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	uint32_t differing = 9;
	bool header = true;
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 3, &file), OK);
	assert_int_equal(put(&file, 0, slice_of(pattern, 8192)), OK);
	assert_int_equal(chunk_file_scrub_table(&file, place->loop, place->path, &differing, &header), OK);
	assert_int_equal(differing, 0);
	assert_false(header);
	assert_int_equal(file_write(file.file, CHUNK_CRCS_OFFSET + 4, "\0\0\0\0", 4), OK);
	assert_int_equal(file_write(file.file, 20, "rot", 3), OK);
	assert_int_equal(chunk_file_scrub_table(&file, place->loop, place->path, &differing, &header), OK);
	assert_int_equal(differing, 1);
	assert_true(header);
	assert_int_equal(chunk_file_set_state(&file, 3, file.copy), OK);
	assert_int_equal(chunk_file_scrub_table(&file, place->loop, place->path, &differing, &header), OK);
	assert_int_equal(differing, 0);
	assert_false(header);
	open_anew(place, &file);
	expect_whole(&file);
	file.id = 6;
	assert_int_equal(chunk_file_scrub_table(&file, place->loop, place->path, &differing, &header), ERR_CORRUPT);
	chunk_file_close(&file);
}

static void lost_end_is_noticed(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	uint32_t mismatches = 0;
	uint8_t damaged[CHUNK_BLOCKS / 8] = { 0 };
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &file), OK);
	assert_int_equal(put(&file, 0, slice_of(pattern, 3 * 4096)), OK);
	assert_int_equal(file_truncate(file.file, CHUNK_DATA_OFFSET + 4096), OK);
	open_anew(place, &file);
	assert_int_equal(file.blocks, 1);
	assert_int_equal(chunk_file_check(&file, damaged, &mismatches), OK);
	assert_int_equal(mismatches, 2);
	assert_int_equal(damaged[0], 6);
	assert_int_equal(file.blocks, 3);
	chunk_file_close(&file);
}

static void trim_cuts_and_zeroes(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	uint32_t blocks = 0;
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &file), OK);
	assert_int_equal(put(&file, 0, slice_of(pattern, 5 * 4096)), OK);
	assert_int_equal(chunk_file_trim(&file, 5000, file.blocks, &blocks), OK);
	file.blocks = blocks;
	assert_int_equal(blocks, 2);
	expect_whole(&file);
	assert_int_equal(chunk_file_trim(&file, 9000, file.blocks, &blocks), OK);
	assert_int_equal(blocks, 2);
	assert_int_equal(put(&file, 4 * 4096, slice_text("later")), OK);
	open_anew(place, &file);
	expect_whole(&file);
	assert_int_equal(chunk_file_read(&file, 0, 5, got, false), OK);
	assert_memory_equal(got, pattern, 5000);
	for (int i = 5000; i < 4 * 4096; i++)
		assert_int_equal(got[i], 0);
	assert_memory_equal(got + 4 * 4096, "later", 5);
	assert_int_equal(chunk_file_trim(&file, 0, file.blocks, &blocks), OK);
	assert_int_equal(blocks, 0);
	chunk_file_close(&file);
}

static void reuse_shows_nothing_old(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	char other[128];
	snprintf(other, sizeof(other), "%s.other", place->path);
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 9, &file), OK);
	assert_int_equal(put(&file, 0, slice_of(pattern, FRAME_DATA_BYTES_MAX)), OK);
	chunk_file_close(&file);
	assert_int_equal(chunk_file_create(place->loop, other, place->path, 6, 1, &file), OK);
	assert_int_equal(put(&file, 100000, slice_text("x")), OK);
	assert_int_equal(chunk_file_read(&file, 0, file.blocks, got, false), OK);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(got[i], 0);
	expect_whole(&file);
	assert_int_equal(file.version, 1);
	chunk_file_close(&file);
	assert_int_equal(chunk_file_open(place->loop, place->path, 5, &file), ERR_NOT_FOUND);
}

static void version_is_kept(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &file), OK);
	assert_int_equal(put(&file, 0, slice_text("content")), OK);
	assert_int_equal(chunk_file_set_state(&file, 7, file.copy), OK);
	open_anew(place, &file);
	assert_int_equal(file.version, 7);
	expect_whole(&file);
	chunk_file_close(&file);
}

static void ring_remembers_the_last(void **state)
{
	(void)state;
	struct op_ring ring = { .known_since_ms = 3 };
	struct answered answered = { 0 };
	uint32_t result = 0;
	assert_false(op_ring_find(&ring, 1, 1, NULL));
	answered_note(&answered, 1, 7);
	for (uint32_t i = 1; i <= CHUNK_OPS_REMEMBERED + 10; i++) {
		struct op_ring_entry entry = {
			.client = 1, .operation = i, .done_ms = 100 + i, .result = i * 2, .first = 5, .end = 6 + i
		};
		op_ring_add(&ring, &entry, &answered);
		if (i == CHUNK_OPS_REMEMBERED + 6) /* all that had to make room have been answered */
			assert_int_equal(ring.known_since_ms, 3);
	}
	assert_int_equal(ring.known_since_ms, 110);
	assert_int_equal(op_ring_newest(&ring), CHUNK_OPS_REMEMBERED + 110);
	assert_false(op_ring_find(&ring, 1, 10, NULL));
	assert_true(op_ring_find(&ring, 1, 11, &result));
	assert_int_equal(result, 22);
	assert_true(op_ring_find(&ring, 1, CHUNK_OPS_REMEMBERED + 10, NULL));
	assert_false(op_ring_find(&ring, 2, 20, NULL));
	assert_false(op_ring_find(&ring, 0, 0, NULL));
	/* What another server has took the place of what some of them did. */
	/* What one ring has pushed out another that takes its entries does not know either. */
	struct op_ring joined = { .known_since_ms = 4 };
	op_ring_append(&joined, &ring, &answered);
	assert_int_equal(joined.known_since_ms, ring.pushed_out_ms);
	assert_true(joined.known_since_ms > 4);
	assert_true(op_ring_find(&joined, 1, CHUNK_OPS_REMEMBERED + 10, NULL));
	op_ring_deinit(&joined);

	op_ring_replaced(&ring, CHUNK_OPS_REMEMBERED, CHUNK_OPS_REMEMBERED + 1, 5000);
	assert_true(op_ring_find(&ring, 1, CHUNK_OPS_REMEMBERED - 6, NULL));
	assert_false(op_ring_find(&ring, 1, CHUNK_OPS_REMEMBERED, NULL));
	assert_int_equal(ring.known_since_ms, 5000);
	op_ring_deinit(&ring);
	answered_deinit(&answered);
}

static void log_tells_what_may_be_done_again(void **state)
{
	struct place *place = *state;
	struct write_log log;
	const char *path = place->path;
	struct write_log_entry mine = { .chunk = 5, .client = 1, .operation = 1, .first = 2, .end = 4 };
	struct write_log_entry other = { .chunk = 5, .client = 2, .operation = 9, .first = 3, .end = 5 };
	struct write_log_entry elsewhere = { .chunk = 6, .client = 2, .operation = 10, .first = 3, .end = 5 };
	assert_int_equal(write_log_open(place->loop, path, 77, &log), OK);
	uint64_t start = log.known_since_ms;
	assert_true(start > 0);
	assert_true(write_log_allows(&log, &mine, start));
	assert_false(write_log_allows(&log, &mine, start - 1)); /* another process may have done it, in another boot */
	write_log_begin(&log, &mine);
	assert_int_equal(write_log_note(&log, &mine), OK);
	write_log_begin(&log, &elsewhere);
	assert_int_equal(write_log_note(&log, &elsewhere), OK);
	assert_true(write_log_allows(&log, &mine, 0)); /* it was the last one */
	write_log_close(&log);

	/* The next process. */
	assert_int_equal(write_log_open(place->loop, path, 77, &log), OK);
	assert_int_equal(log.known_since_ms, start);
	assert_true(write_log_allows(&log, &mine, 0));
	write_log_begin(&log, &other);
	assert_int_equal(write_log_note(&log, &other), OK);
	assert_false(write_log_allows(&log, &mine, other.begun_ms - 1));
	assert_true(write_log_allows(&log, &mine, other.begun_ms));
	assert_true(write_log_allows(&log, &other, 0));
	for (uint32_t i = 0; i < CHUNK_WRITES_LOGGED; i++)
		write_log_begin(&log, &elsewhere);
	assert_int_equal(log.known_since_ms, other.begun_ms);
	write_log_close(&log);

	/* After a loss of power. */
	assert_int_equal(write_log_open(place->loop, path, 78, &log), OK);
	assert_false(write_log_allows(&log, &mine, 0));
	assert_false(write_log_allows(&log, &other, 0));
	write_log_close(&log);
}

/* Some past the page cache, some through it: one large, or unaligned in memory. */
static void runs_are_written_at_once(void **state)
{
	struct place *place = *state;
	struct chunk_file file;
	uint8_t crcs[CHUNK_WRITE_PIECES_MAX][FRAME_DATA_BYTES_MAX / BLOCK_BYTES * 4];
	const uint32_t sizes[] = { FRAME_DATA_BYTES_MAX, BLOCK_BYTES, 5 * BLOCK_BYTES, 64 * KIB };
	assert_int_equal(chunk_file_create(place->loop, place->path, NULL, 5, 1, &file), OK);
	for (unsigned turn = 0; turn < 4; turn++) {
		struct chunk_file_write writes[CHUNK_WRITE_PIECES_MAX];
		uint32_t offset = turn * MIB, end = offset;
		if (turn == 2)
			chunk_file_want_direct(&file, place->loop, place->path);
		for (unsigned i = 0; i < CHUNK_WRITE_PIECES_MAX; i++) {
			struct slice data = slice_of(pattern + (turn % 2 ? i : i % 2 * BLOCK_BYTES), sizes[(i + turn) % 4]);
			writes[i] = (struct chunk_file_write){ .offset = end, .data = data, .crcs = crcs_of(end, data, crcs[i]) };
			assert_true(chunk_file_write_is_plain(&writes[i]));
			end += (uint32_t)data.size;
		}
		assert_int_equal(chunk_file_write_run(&file, writes, CHUNK_WRITE_PIECES_MAX), OK);
		open_anew(place, &file);
		for (unsigned i = 0; i < CHUNK_WRITE_PIECES_MAX; i++) {
			uint32_t count = (uint32_t)(writes[i].data.size / BLOCK_BYTES);
			assert_int_equal(chunk_file_read(&file, block_first(writes[i].offset), count, got, false), OK);
			assert_memory_equal(got, writes[i].data.bytes, writes[i].data.size);
		}
		expect_whole(&file);
	}
	chunk_file_close(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers_are_checked),
		cmocka_unit_test(pieces_are_checked),
		PLACE_TEST(blocks_are_merged_and_kept),
		PLACE_TEST(large_writes_bypass_the_cache),
		PLACE_TEST(runs_are_written_at_once),
		PLACE_TEST(damage_is_not_merged_into), PLACE_TEST(table_is_scrubbed),
		PLACE_TEST(lost_end_is_noticed),
		PLACE_TEST(trim_cuts_and_zeroes),
		PLACE_TEST(reuse_shows_nothing_old),
		PLACE_TEST(version_is_kept),
		cmocka_unit_test(ring_remembers_the_last),
		PLACE_TEST(log_tells_what_may_be_done_again),
	};
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 13 + i / 251 + 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
