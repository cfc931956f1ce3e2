#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/sys/file.h"
#include "common/sys/loop.h"
#include "master/wal.h"
#include "master/wal_format.h"

#define SEGMENT (64 * KIB)

struct fixture {
	char directory[64];
	struct loop *loop;
	struct wal *wal;
	struct wal_loaded loaded;
	bool sync_inline;
	enum err err; /* of the last report */
	uint64_t mark, index, term;
	size_t reports;
};

static void on_synced(void *arg, enum err err, uint64_t mark, uint64_t index, uint64_t term)
{
	struct fixture *fixture = arg;
	fixture->err = err;
	fixture->mark = mark;
	fixture->index = index;
	fixture->term = term;
	fixture->reports++;
}

static enum err reopen(struct fixture *fixture)
{
	wal_loaded_free(&fixture->loaded);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	if (fixture->loop)
		loop_close(fixture->loop);
	assert_int_equal(loop_open(&fixture->loop), OK);
	fixture->mark = fixture->index = fixture->term = 0;
	fixture->err = OK;
	struct wal_options options = {.directory = fixture->directory,
				      .segment_bytes = SEGMENT,
				      .sync_inline = fixture->sync_inline,
				      .synced = on_synced,
				      .arg = fixture};
	return wal_open(fixture->loop, &options, &fixture->wal, &fixture->loaded);
}

static int set_up(void **state)
{
	struct fixture *fixture = mem_zero(1, sizeof(*fixture));
	snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/granary-test-wal-XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	assert_int_equal(reopen(fixture), OK);
	*state = fixture;
	return 0;
}

static bool remove_name(void *arg, const char *name)
{
	struct fixture *fixture = arg;
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", fixture->directory, name);
	return unlink(path) == 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	wal_loaded_free(&fixture->loaded);
	wal_close(fixture->wal);
	loop_close(fixture->loop);
	assert_int_equal(dir_list(NULL, fixture->directory, remove_name, fixture), OK);
	assert_int_equal(rmdir(fixture->directory), 0);
	free(fixture);
	return 0;
}

/* Runs the loop until the mark is reported or an error is. */
static void wait_for(struct fixture *fixture, uint64_t mark)
{
	uint64_t deadline_us = loop_now_us(fixture->loop) + 20 * 1000 * 1000;
	while (fixture->mark < mark && fixture->err == OK) {
		assert_true(loop_now_us(fixture->loop) < deadline_us);
		loop_run_once(fixture->loop);
	}
}

static uint64_t append_text(struct fixture *fixture, uint64_t index, uint64_t term, const char *text)
{
	struct raft_entry entry = {
	    .index = index, .term = term, .kind = RAFT_ENTRY_NORMAL, .payload = slice_text(text)};
	uint64_t mark;
	assert_int_equal(wal_append(fixture->wal, NULL, &entry, 1, &mark), OK);
	return mark;
}

static uint64_t append_hard(struct fixture *fixture, uint64_t term, uint64_t vote)
{
	struct raft_hard_state hard = {.term = term, .vote = vote};
	uint64_t mark;
	assert_int_equal(wal_append(fixture->wal, &hard, NULL, 0, &mark), OK);
	return mark;
}

static void append_synced(struct fixture *fixture, uint64_t index, uint64_t term, const char *text)
{
	wait_for(fixture, append_text(fixture, index, term, text));
	assert_int_equal(fixture->err, OK);
}

static void assert_entry(const struct fixture *fixture, uint64_t index, uint64_t term, const char *text)
{
	assert_in_range(index, fixture->loaded.first_index,
			fixture->loaded.first_index + fixture->loaded.entry_count - 1);
	const struct raft_entry *entry = &fixture->loaded.entries[index - fixture->loaded.first_index];
	assert_int_equal(entry->index, index);
	assert_int_equal(entry->term, term);
	assert_int_equal(entry->payload.size, strlen(text));
	assert_memory_equal(entry->payload.bytes, text, strlen(text));
}

static void assert_hole(const struct fixture *fixture, uint64_t index, uint64_t term)
{
	const struct raft_entry *entry = &fixture->loaded.entries[index - fixture->loaded.first_index];
	assert_int_equal(entry->index, index);
	assert_int_equal(entry->term, term);
	assert_true(entry->damaged);
	assert_int_equal(entry->payload.size, 0);
}

/* ---- the file behind the log's back */

static int open_segment(struct fixture *fixture, uint64_t sequence)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/wal-%016llx", fixture->directory, (unsigned long long)sequence);
	return open(path, O_RDWR);
}

/* Where `text` stands in the segment. */
static off_t find_text(struct fixture *fixture, uint64_t sequence, const char *text)
{
	static char bytes[SEGMENT];
	int descriptor = open_segment(fixture, sequence);
	assert_int_equal(pread(descriptor, bytes, SEGMENT, 0), SEGMENT);
	close(descriptor);
	char *found = memmem(bytes, SEGMENT, text, strlen(text));
	assert_non_null(found);
	return found - bytes;
}

static void overwrite(struct fixture *fixture, uint64_t sequence, off_t offset, const void *bytes, size_t size)
{
	int descriptor = open_segment(fixture, sequence);
	assert_int_equal(pwrite(descriptor, bytes, size, offset), size);
	close(descriptor);
}

static void forget_identity(struct fixture *fixture, uint64_t sequence, size_t place)
{
	uint8_t zeros[WAL_IDENTITY_BYTES] = {0};
	overwrite(fixture, sequence, (off_t)(WAL_IDENTITIES_OFFSET + place * WAL_IDENTITY_BYTES), zeros, sizeof(zeros));
}

/* ---- tests */

static void test_fresh_then_restart(void **state)
{
	struct fixture *fixture = *state;
	assert_int_equal(fixture->loaded.first_index, 1);
	assert_int_equal(fixture->loaded.entry_count, 0);
	append_hard(fixture, 3, 2);
	append_text(fixture, 1, 3, "one");
	uint64_t mark = append_text(fixture, 2, 3, "two");
	assert_int_equal(fixture->reports, 0);
	wait_for(fixture, mark);
	assert_int_equal(fixture->index, 2);
	assert_int_equal(fixture->term, 3);
	assert_int_equal(fixture->reports, 1); /* one sync for all three */
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.hard.term, 3);
	assert_int_equal(fixture->loaded.hard.vote, 2);
	assert_int_equal(fixture->loaded.entry_count, 2);
	assert_int_equal(fixture->loaded.torn_bytes, 0);
	assert_entry(fixture, 1, 3, "one");
	assert_entry(fixture, 2, 3, "two");
}

static void test_overwriting_ends_the_log_there(void **state)
{
	struct fixture *fixture = *state;
	append_hard(fixture, 1, 0);
	append_text(fixture, 1, 1, "one");
	append_text(fixture, 2, 1, "two");
	append_text(fixture, 3, 1, "three");
	append_hard(fixture, 2, 0);
	append_synced(fixture, 2, 2, "other");
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 2);
	assert_entry(fixture, 1, 1, "one");
	assert_entry(fixture, 2, 2, "other");
}

static void test_many_segments_and_restarts(void **state)
{
	struct fixture *fixture = *state;
	char text[3000];
	append_hard(fixture, 1, 1);
	uint64_t index = 0, mark = 0;
	for (int round = 0; round < 6; round++) {
		for (int i = 0; i < 40; i++) {
			memset(text, 'a' + i % 26, sizeof(text) - 1);
			text[(size_t)(i * 71) % sizeof(text)] = 0;
			text[sizeof(text) - 1] = 0;
			mark = append_text(fixture, ++index, 1, text);
			if (i % 7 == 0)
				wait_for(fixture, mark);
		}
		wait_for(fixture, mark);
		assert_int_equal(fixture->err, OK);
		assert_int_equal(reopen(fixture), OK);
		assert_int_equal(fixture->loaded.entry_count, index);
		assert_int_equal(fixture->loaded.hard.vote, 1);
	}
	struct wal_view view;
	wal_view(fixture->wal, &view);
	assert_true(view.segments >= 6);
}

static void test_torn_tail_is_cut(void **state)
{
	struct fixture *fixture = *state;
	append_hard(fixture, 1, 0);
	append_synced(fixture, 1, 1, "first batch");
	append_text(fixture, 2, 1, "second batch: a");
	append_text(fixture, 3, 1, "second batch: b");
	uint64_t mark = append_text(fixture, 4, 1, "second batch: c");
	wait_for(fixture, mark);
	off_t b = find_text(fixture, 1, "second batch: b");
	assert_int_equal(reopen(fixture), OK);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	/* As a crash of the machine before the sync's end may leave it: b torn, c whole, no identities of the batch. */
	overwrite(fixture, 1, b, "X", 1);
	for (size_t place = 2; place < 5; place++)
		forget_identity(fixture, 1, place);
	for (int again = 0; again < 2; again++) {
		assert_int_equal(reopen(fixture), OK);
		assert_int_equal(fixture->loaded.entry_count, 2);
		assert_entry(fixture, 2, 1, "second batch: a");
		assert_int_equal(fixture->loaded.torn_bytes > 0, again == 0);
	}
	/* What is written now must not be followed by the remnant of c. */
	append_synced(fixture, 3, 1, "second batch: B");
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 3);
	assert_entry(fixture, 3, 1, "second batch: B");
}

static void test_flipped_byte_in_synced_record_is_a_hole(void **state)
{
	struct fixture *fixture = *state;
	append_hard(fixture, 1, 0);
	append_synced(fixture, 1, 1, "first");
	append_synced(fixture, 2, 1, "second");
	append_synced(fixture, 3, 1, "third");
	off_t second = find_text(fixture, 1, "second");
	off_t third = find_text(fixture, 1, "third");
	wal_close(fixture->wal);
	fixture->wal = NULL;
	overwrite(fixture, 1, second + 2, "X", 1);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 3);
	assert_int_equal(fixture->loaded.damaged_count, 1);
	assert_hole(fixture, 2, 1);
	assert_entry(fixture, 3, 1, "third");
	overwrite(fixture, 1, second + 2, "c", 1);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.damaged_count, 0);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	/* The very last one: its identity says that it was complete. The log goes on behind it. */
	overwrite(fixture, 1, third, "X", 1);
	overwrite(fixture, 1, third - 3, "X", 1);
	assert_int_equal(reopen(fixture), OK);
	assert_hole(fixture, 3, 1);
	append_synced(fixture, 4, 1, "fourth");
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 4);
	assert_hole(fixture, 3, 1);
	assert_entry(fixture, 4, 1, "fourth");
	wal_close(fixture->wal);
	fixture->wal = NULL;
	/* Without identities a later batch says so. */
	for (size_t place = 0; place < 5; place++)
		forget_identity(fixture, 1, place);
	overwrite(fixture, 1, second + 2, "X", 1);
	assert_int_equal(reopen(fixture), ERR_CORRUPT);
	/* A damaged length hides where the next record is, but not that there is one. */
	overwrite(fixture, 1, second + 2, "c", 1);
	overwrite(fixture, 1, second - WAL_RECORD_BYTES + 8, "\377\377\377\377", 4);
	assert_int_equal(reopen(fixture), ERR_CORRUPT);
}

static void test_damage_in_earlier_segment_is_refused(void **state)
{
	struct fixture *fixture = *state;
	char text[2000];
	append_hard(fixture, 1, 0);
	uint64_t mark = 0;
	for (uint64_t index = 1; index <= 100; index++) {
		snprintf(text, sizeof(text), "entry %03d:%*d", (int)index, 1500, 7);
		mark = append_text(fixture, index, 1, text);
	}
	wait_for(fixture, mark);
	off_t last = 0;
	uint64_t in_first = 0;
	for (uint64_t index = 1; index < 40; index++) {
		char label[32];
		static char bytes[SEGMENT];
		snprintf(label, sizeof(label), "entry %03d:", (int)index);
		int descriptor = open_segment(fixture, 1);
		assert_int_equal(pread(descriptor, bytes, SEGMENT, 0), SEGMENT);
		close(descriptor);
		char *found = memmem(bytes, SEGMENT, label, strlen(label));
		if (!found)
			break;
		last = found - bytes;
		in_first = index;
	}
	assert_true(in_first > 10);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	/* The last record of the first segment, its identities lost: the next segment knows where the records end. */
	uint8_t zeros[WAL_PAGE_BYTES] = {0};
	overwrite(fixture, 1, WAL_IDENTITIES_OFFSET, zeros, sizeof(zeros));
	overwrite(fixture, 1, last, "X", 1);
	assert_int_equal(reopen(fixture), ERR_CORRUPT);
	overwrite(fixture, 1, last, "e", 1);
	/* One copy of a header is enough, none is not. */
	overwrite(fixture, 2, 20, zeros, 8);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 100);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	overwrite(fixture, 2, WAL_PAGE_BYTES + 20, zeros, 8);
	assert_int_equal(reopen(fixture), ERR_CORRUPT);
	char path[256];
	snprintf(path, sizeof(path), "%s/wal-%016x", fixture->directory, 2);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(reopen(fixture), ERR_CORRUPT);
	snprintf(path, sizeof(path), "%s/wal-%016x", fixture->directory, 1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(reopen(fixture), ERR_CORRUPT); /* the first ones gone without a cut */
}

static void test_cut_recycles_segments(void **state)
{
	struct fixture *fixture = *state;
	char text[2000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	append_hard(fixture, 1, 3);
	uint64_t mark = 0;
	for (uint64_t index = 1; index <= 120; index++) {
		mark = append_text(fixture, index, 1, text);
		if (index % 9 == 0)
			wait_for(fixture, mark);
	}
	wait_for(fixture, mark);
	struct wal_view view;
	wal_view(fixture->wal, &view);
	assert_true(view.segments >= 4);
	wal_cut(fixture->wal, 100);
	uint64_t deadline_us = loop_now_us(fixture->loop) + 20 * 1000 * 1000;
	mark = append_text(fixture, 121, 1, text);
	wait_for(fixture, mark);
	do {
		assert_true(loop_now_us(fixture->loop) < deadline_us);
		loop_run_once(fixture->loop);
		wal_view(fixture->wal, &view);
	} while (view.segments > 2);
	assert_true(view.segments_spare > 0 && view.segments_spare <= 2);
	assert_int_equal(reopen(fixture), OK);
	assert_in_range(fixture->loaded.first_index, 50, 100);
	assert_int_equal(fixture->loaded.first_index + fixture->loaded.entry_count, 122);
	assert_int_equal(fixture->loaded.first_previous_term, 1);
	assert_int_equal(fixture->loaded.hard.vote, 3);
	/* Old content of reused segments is never taken for new. */
	for (uint64_t index = 122; index <= 200; index++) {
		append_synced(fixture, index, 1, "small");
		if (index % 20 == 0) {
			assert_int_equal(reopen(fixture), OK);
			assert_int_equal(fixture->loaded.first_index + fixture->loaded.entry_count, index + 1);
		}
	}
	for (uint64_t index = 201; index <= 300; index++)
		mark = append_text(fixture, index, 1, text);
	wait_for(fixture, mark);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.first_index + fixture->loaded.entry_count, 301);
}

static void test_filled_hole_stays_filled(void **state)
{
	struct fixture *fixture = *state;
	append_hard(fixture, 1, 0);
	append_synced(fixture, 1, 1, "first");
	append_synced(fixture, 2, 1, "second");
	append_synced(fixture, 3, 1, "third");
	off_t second = find_text(fixture, 1, "second");
	overwrite(fixture, 1, second, "XXXXXX", 6);
	assert_int_equal(reopen(fixture), OK);
	assert_hole(fixture, 2, 1);
	struct raft_entry fills[] = {
	    {.index = 2, .term = 1, .kind = RAFT_ENTRY_NORMAL, .payload = slice_text("second")},
	    /* Not damaged, of another term, not there: passed over. */
	    {.index = 3, .term = 1, .kind = RAFT_ENTRY_NORMAL, .payload = slice_text("other")},
	    {.index = 2, .term = 9, .kind = RAFT_ENTRY_NORMAL, .payload = slice_text("other")},
	    {.index = 9, .term = 1, .kind = RAFT_ENTRY_NORMAL, .payload = slice_text("other")},
	};
	uint64_t mark;
	assert_int_equal(wal_fill(fixture->wal, fills, 4, &mark), OK);
	wait_for(fixture, mark);
	assert_int_equal(fixture->index, 0); /* the log has not grown */
	append_synced(fixture, 4, 1, "fourth");
	for (int again = 0; again < 2; again++) {
		assert_int_equal(reopen(fixture), OK);
		assert_int_equal(fixture->loaded.damaged_count, 0);
		assert_int_equal(fixture->loaded.entry_count, 4);
		assert_entry(fixture, 2, 1, "second");
		assert_entry(fixture, 3, 1, "third");
	}
}

static void test_cut_off_segment_is_damage(void **state)
{
	struct fixture *fixture = *state;
	char text[2000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	append_hard(fixture, 1, 2);
	for (uint64_t index = 1; index <= 60; index++)
		append_synced(fixture, index, 1, text);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	char path[256];
	snprintf(path, sizeof(path), "%s/wal-%016x", fixture->directory, 1);
	assert_int_equal(truncate(path, 40000), 0);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 60);
	assert_true(fixture->loaded.damaged_count > 5);
	assert_entry(fixture, 60, 1, text);
	/* The last one: nobody knows what was there. */
	struct wal_view view;
	wal_view(fixture->wal, &view);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	snprintf(path, sizeof(path), "%s/wal-%016x", fixture->directory, (unsigned)view.segments);
	assert_int_equal(truncate(path, 16384), 0);
	assert_int_equal(reopen(fixture), ERR_IO);
}

static void test_lost_vote_is_nobodys(void **state)
{
	struct fixture *fixture = *state;
	append_hard(fixture, 3, 0);
	append_synced(fixture, 1, 3, "entry");
	wait_for(fixture, append_hard(fixture, 4, 2));
	wal_close(fixture->wal);
	fixture->wal = NULL;
	/* The records: hard state of 72 bytes, entry of 56, hard state. */
	off_t hard = (off_t)wal_records_offset(SEGMENT) + 72 + 56;
	overwrite(fixture, 1, hard + WAL_RECORD_BYTES + 8, "X", 1);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.hard.term, 4);
	assert_true(fixture->loaded.hard.vote == RAFT_VOTE_UNKNOWN);
	assert_int_equal(fixture->loaded.entry_count, 1);
	/* A later one says it all. */
	wait_for(fixture, append_hard(fixture, 5, 3));
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.hard.term, 5);
	assert_int_equal(fixture->loaded.hard.vote, 3);
}

static void wait_for_segments(struct fixture *fixture, uint64_t count)
{
	uint64_t deadline_us = loop_now_us(fixture->loop) + 20 * 1000 * 1000;
	struct wal_view view;
	for (wal_view(fixture->wal, &view); view.segments > count; wal_view(fixture->wal, &view)) {
		assert_true(loop_now_us(fixture->loop) < deadline_us);
		loop_run_once(fixture->loop);
	}
}

static void test_reset_begins_anew(void **state)
{
	struct fixture *fixture = *state;
	char text[2000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	append_hard(fixture, 1, 3);
	for (uint64_t index = 1; index <= 60; index++)
		append_text(fixture, index, 1, text);
	struct raft_hard_state hard = {.term = 4, .vote = 2};
	uint64_t mark;
	assert_int_equal(wal_reset(fixture->wal, &hard, 1000, 3, &mark), OK);
	wait_for(fixture, mark);
	assert_int_equal(fixture->index, 0);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.first_index, 1001);
	assert_int_equal(fixture->loaded.first_previous_term, 3);
	assert_int_equal(fixture->loaded.entry_count, 0);
	assert_int_equal(fixture->loaded.hard.term, 4);
	assert_int_equal(fixture->loaded.hard.vote, 2);
	/* With entries in the same and in later batches, and what was before gone. */
	assert_int_equal(wal_reset(fixture->wal, &hard, 2000, 4, &mark), OK);
	append_text(fixture, 2001, 4, "a");
	append_synced(fixture, 2002, 4, "b");
	assert_int_equal(fixture->index, 2002);
	wait_for_segments(fixture, 1);
	append_synced(fixture, 2003, 4, "c");
	wal_cut(fixture->wal, 2002);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.first_index, 2001);
	assert_int_equal(fixture->loaded.entry_count, 3);
	assert_entry(fixture, 2001, 4, "a");
	assert_entry(fixture, 2003, 4, "c");
}

/* The segments before a reset, as after a crash before they were taken back: whatever is in them, they do not count. */
static void test_what_a_reset_gave_up_is_not_read(void **state)
{
	struct fixture *fixture = *state;
	append_hard(fixture, 1, 3);
	append_synced(fixture, 1, 1, "old");
	static uint8_t bytes[SEGMENT];
	int descriptor = open_segment(fixture, 1);
	assert_int_equal(pread(descriptor, bytes, SEGMENT, 0), SEGMENT);
	close(descriptor);
	struct raft_hard_state hard = {.term = 4, .vote = 2};
	uint64_t mark;
	assert_int_equal(wal_reset(fixture->wal, &hard, 10, 3, &mark), OK);
	append_synced(fixture, 11, 4, "new");
	wait_for_segments(fixture, 1);
	wal_close(fixture->wal);
	fixture->wal = NULL;
	char path[256];
	snprintf(path, sizeof(path), "%s/wal-%016x", fixture->directory, 1);
	descriptor = open(path, O_CREAT | O_WRONLY, 0600);
	memset(bytes + wal_records_offset(SEGMENT), 'X', 4096);
	assert_int_equal(pwrite(descriptor, bytes, SEGMENT, 0), SEGMENT);
	close(descriptor);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.first_index, 11);
	assert_entry(fixture, 11, 4, "new");
	wait_for_segments(fixture, 1);
}

/* Entries of a segment that was taken back had been overwritten in a later one. */
static void test_cut_behind_overwritten_entries(void **state)
{
	struct fixture *fixture = *state;
	char text[2000];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	append_hard(fixture, 1, 0);
	struct wal_view view;
	uint64_t index = 0;
	do {
		append_synced(fixture, ++index, 1, text);
		wal_view(fixture->wal, &view);
	} while (view.segments < 2);
	append_hard(fixture, 2, 0);
	uint64_t from = index - 5; /* in the first segment */
	for (index = from; index < from + 40; index++)
		append_synced(fixture, index, 2, text);
	wal_cut(fixture->wal, index - 1);
	append_synced(fixture, index, 2, "end");
	uint64_t deadline_us = loop_now_us(fixture->loop) + 20 * 1000 * 1000;
	for (wal_view(fixture->wal, &view); view.segments > 2; wal_view(fixture->wal, &view)) {
		assert_true(loop_now_us(fixture->loop) < deadline_us);
		loop_run_once(fixture->loop);
	}
	assert_int_equal(reopen(fixture), OK);
	assert_true(fixture->loaded.first_index <= index - 1);
	assert_int_equal(fixture->loaded.first_previous_term, 2);
	assert_int_equal(fixture->loaded.first_index + fixture->loaded.entry_count, index + 1);
	assert_entry(fixture, index, 2, "end");
}

/* A limit on the size of files makes the write fail as a disk would. */
static void test_failed_write_is_final(void **state)
{
	struct fixture *fixture = *state;
	append_hard(fixture, 1, 0);
	append_synced(fixture, 1, 1, "fine");
	struct rlimit before, none;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	none = (struct rlimit){4096, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	uint64_t mark = append_text(fixture, 2, 1, "lost");
	wait_for(fixture, mark);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(fixture->err, ERR_STORE_FAILED);
	assert_int_equal(fixture->mark < mark, true);
	/* The disk works again; the log does not. */
	struct raft_entry entry = {.index = 3, .term = 1, .kind = RAFT_ENTRY_NORMAL};
	assert_int_equal(wal_append(fixture->wal, NULL, &entry, 1, &mark), ERR_STORE_FAILED);
	struct wal_view view;
	wal_view(fixture->wal, &view);
	assert_true(view.failed);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 1);
}

/* The next segment is made early, so that a full disk is known before the log fails. */
static void test_no_space_for_a_spare_is_told(void **state)
{
	struct fixture *fixture = *state;
	struct rlimit before;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_IGN);
	struct rlimit less = {SEGMENT - 2 * WAL_PAGE_BYTES, before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
	append_hard(fixture, 1, 0);
	char text[4000];
	memset(text, 'z', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	struct wal_view view;
	uint64_t index = 0;
	for (wal_view(fixture->wal, &view); !view.space_low && index < 10; wal_view(fixture->wal, &view))
		append_synced(fixture, ++index, 1, text);
	assert_true(view.space_low);
	assert_false(view.failed);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	uint64_t deadline_us = loop_now_us(fixture->loop) + 20 * 1000 * 1000;
	for (; view.space_low; wal_view(fixture->wal, &view)) {
		assert_true(loop_now_us(fixture->loop) < deadline_us);
		wait_for(fixture, append_hard(fixture, 1, 0));
	}
	append_synced(fixture, ++index, 1, text);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, index);
}

static void test_only_one_process_has_it_open(void **state)
{
	struct fixture *fixture = *state;
	struct wal_options options = {.directory = fixture->directory, .segment_bytes = SEGMENT, .synced = on_synced};
	struct wal *other;
	struct wal_loaded loaded;
	assert_int_equal(wal_open(fixture->loop, &options, &other, &loaded), ERR_BUSY);
	assert_null(other);
}

static void test_inline(void **state)
{
	struct fixture *fixture = *state;
	fixture->sync_inline = true;
	assert_int_equal(reopen(fixture), OK);
	append_hard(fixture, 1, 0);
	char text[1000];
	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	for (uint64_t index = 1; index <= 200; index++)
		append_synced(fixture, index, 1, text);
	/* More than a batch and a segment hold at once: an append is reported when all of it is durable. */
	struct raft_entry entries[300];
	for (size_t i = 0; i < 300; i++)
		entries[i] = (struct raft_entry){
		    .index = 201 + i, .term = 1, .kind = RAFT_ENTRY_NORMAL, .payload = slice_text(text)};
	uint64_t mark;
	assert_int_equal(wal_append(fixture->wal, NULL, entries, 300, &mark), OK);
	size_t reports = fixture->reports;
	wait_for(fixture, mark);
	assert_true(fixture->reports > reports + 3);
	assert_int_equal(fixture->index, 500);
	assert_int_equal(reopen(fixture), OK);
	assert_int_equal(fixture->loaded.entry_count, 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_fresh_then_restart, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_overwriting_ends_the_log_there, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_many_segments_and_restarts, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_torn_tail_is_cut, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_flipped_byte_in_synced_record_is_a_hole, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_damage_in_earlier_segment_is_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_cut_recycles_segments, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_filled_hole_stays_filled, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_cut_off_segment_is_damage, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_lost_vote_is_nobodys, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_reset_begins_anew, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_what_a_reset_gave_up_is_not_read, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_cut_behind_overwritten_entries, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_failed_write_is_final, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_no_space_for_a_spare_is_told, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_only_one_process_has_it_open, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_inline, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
