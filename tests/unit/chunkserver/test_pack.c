/* Packs: what the scan makes of a file. */
#include "tests/unit/chunkserver/files.h"

#include "chunkserver/pack.h"
#include "common/base/crc32c.h"

#define PACK 7u

static void create(struct place *place, struct pack *pack)
{
	assert_int_equal(pack_create(place->loop, place->path, NULL, PACK, 1, 0x5a17, pack), OK);
}

static void append(struct pack *pack, uint32_t slot, struct slice data)
{
	struct pack_item item = {
		.record = { .slot = slot, .length = (uint32_t)data.size, .crc = crc32c(data.bytes, data.size) }, .data = data
	};
	pack_place(pack, &item, 1);
	assert_int_equal(pack_write(pack, &item, 1, false), OK);
	pack_enter(pack, &item);
}

static void bury(struct pack *pack, uint32_t slot)
{
	struct pack_item item = { .record = { .slot = slot, .flags = PACK_TOMBSTONE } };
	pack_place(pack, &item, 1);
	assert_int_equal(pack_write(pack, &item, 1, true), OK);
	pack_enter(pack, &item);
}

static void reopen(struct place *place, struct pack *pack, struct slice table)
{
	pack_close(pack);
	assert_int_equal(pack_open(place->loop, place->path, PACK, table, pack), OK);
}

static void expect(struct pack *pack, uint32_t slot, struct slice data)
{
	struct pack_slot at;
	struct pack_record record;
	assert_true(pack_find(pack, slot, &at));
	assert_int_equal(at.length, data.size);
	uint8_t *bytes = malloc(PACK_RECORD_BYTES + at.length);
	assert_int_equal(pack_read(pack, slot, at, bytes, false, &record), OK);
	assert_memory_equal(bytes + PACK_RECORD_BYTES, data.bytes, data.size);
	assert_int_equal(record.crc, crc32c(data.bytes, data.size));
	free(bytes);
}

static void expect_none(const struct pack *pack, uint32_t slot)
{
	struct pack_slot at;
	assert_false(pack_find(pack, slot, &at));
}

static void records_are_found_again(void **state)
{
	struct place *place = *state;
	struct pack pack;
	static uint8_t large[100000];
	memset(large, 'L', sizeof(large));
	create(place, &pack);
	append(&pack, 1, slice_text("hello"));
	append(&pack, 2, slice_of(large, sizeof(large)));
	append(&pack, 4, slice_text("four"));
	struct buf table = { 0 };
	pack_table_write(&pack, &table);
	bury(&pack, 1);
	append(&pack, 3, slice_text("three, late"));
	/* By the scan alone; by table and the rest; with a table that does not check. */
	for (int round = 0; round < 3; round++) {
		if (round == 2)
			table.bytes[30] ^= 1;
		reopen(place, &pack, round == 0 ? slice_of(NULL, 0) : buf_slice(&table));
		expect_none(&pack, 1);
		expect(&pack, 2, slice_of(large, sizeof(large)));
		expect(&pack, 3, slice_text("three, late"));
		expect(&pack, 4, slice_text("four"));
		assert_int_equal(pack.slot_count, 4);
	}
	append(&pack, 5, slice_text("five"));
	reopen(place, &pack, slice_of(NULL, 0));
	expect(&pack, 5, slice_text("five"));
	buf_deinit(&table);
	pack_close(&pack);
}

static void lost_records_hide_no_later_ones(void **state)
{
	struct place *place = *state;
	struct pack pack;
	uint8_t zeros[64] = { 0 };
	create(place, &pack);
	append(&pack, 1, slice_text("first"));
	uint64_t second = pack.bytes;
	append(&pack, 2, slice_text("the second, which a crash takes away"));
	append(&pack, 3, slice_text("third"));
	uint64_t end = pack.bytes;
	append(&pack, 4, slice_text("cut off at the end"));
	assert_int_equal(file_write(pack.file, second, zeros, sizeof(zeros)), OK);
	assert_int_equal(file_truncate(pack.file, end + PACK_RECORD_BYTES + 3), OK);
	reopen(place, &pack, slice_of(NULL, 0));
	expect(&pack, 1, slice_text("first"));
	expect_none(&pack, 2);
	expect(&pack, 3, slice_text("third"));
	expect_none(&pack, 4);
	assert_int_equal(pack.bytes, end);
	append(&pack, 4, slice_text("again"));
	reopen(place, &pack, slice_of(NULL, 0));
	expect(&pack, 4, slice_text("again"));
	pack_close(&pack);
}

static void a_blob_cannot_pose_as_records(void **state)
{
	struct place *place = *state;
	struct pack pack;
	uint8_t forged[PACK_RECORD_BYTES * 2];
	struct pack_record record = { .slot = 9, .length = 4 };
	/* As written by somebody who does not know the salt; the outer record's header is then lost. */
	pack_record_write(&record, 0, forged);
	memset(forged + PACK_RECORD_BYTES, 'x', PACK_RECORD_BYTES);
	create(place, &pack);
	uint64_t at = pack.bytes;
	append(&pack, 1, slice_of(forged, sizeof(forged)));
	append(&pack, 2, slice_text("after"));
	assert_int_equal(file_write(pack.file, at, "lost", 4), OK);
	reopen(place, &pack, slice_of(NULL, 0));
	expect_none(&pack, 1);
	expect_none(&pack, 9);
	expect(&pack, 2, slice_text("after"));
	pack_close(&pack);
}

static void damaged_header_is_seen_when_read(void **state)
{
	struct place *place = *state;
	struct pack pack;
	struct pack_slot at;
	struct pack_record record;
	uint8_t bytes[64];
	create(place, &pack);
	append(&pack, 1, slice_text("hello"));
	assert_int_equal(file_write(pack.file, PACK_DATA_OFFSET + 9, "!", 1), OK);
	assert_true(pack_find(&pack, 1, &at));
	assert_int_equal(pack_read(&pack, 1, at, bytes, false, &record), ERR_CORRUPT);
	pack_close(&pack);
}

static void compaction_keeps_slots(void **state)
{
	struct place *place = *state;
	struct pack pack, compacted;
	char new_path[128];
	static uint8_t blob[50000];
	snprintf(new_path, sizeof(new_path), "%s.new", place->path);
	create(place, &pack);
	for (uint32_t slot = 1; slot <= 40; slot++) {
		memset(blob, (int)slot, sizeof(blob));
		append(&pack, slot, slice_of(blob, sizeof(blob)));
	}
	assert_false(pack_wants_compaction(&pack));
	for (uint32_t slot = 1; slot <= 40; slot++) {
		if (slot % 4 != 1)
			bury(&pack, slot);
	}
	assert_true(pack_wants_compaction(&pack));
	assert_int_equal(pack_compact(place->loop, &pack, new_path, 0xbeef, &compacted), OK);
	assert_int_equal(file_rename(place->loop, new_path, place->path), OK);
	assert_true(compacted.bytes < pack.bytes / 3);
	assert_false(pack_wants_compaction(&compacted));
	pack_close(&pack);
	pack = compacted;
	for (int round = 0; round < 2; round++) {
		for (uint32_t slot = 1; slot <= 40; slot++) {
			memset(blob, (int)slot, sizeof(blob));
			if (slot % 4 == 1)
				expect(&pack, slot, slice_of(blob, sizeof(blob)));
			else
				expect_none(&pack, slot);
		}
		/* Slots of deleted blobs at the end are never given out again. */
		assert_int_equal(pack.slot_count, 40);
		reopen(place, &pack, slice_of(NULL, 0));
	}
	assert_int_equal(pack_set_state(&pack, 5, pack.copy), OK);
	reopen(place, &pack, slice_of(NULL, 0));
	assert_int_equal(pack.version, 5);
	assert_int_equal(pack.slot_count, 40);
	pack_close(&pack);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PLACE_TEST(records_are_found_again),	    PLACE_TEST(lost_records_hide_no_later_ones),
		PLACE_TEST(a_blob_cannot_pose_as_records),  PLACE_TEST(damaged_header_is_seen_when_read),
		PLACE_TEST(compaction_keeps_slots),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
