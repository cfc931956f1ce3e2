/* The key-value store for real. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/sys/kv.h"
#include "common/sys/kv_log.h"

struct fixture {
	struct loop *loop;
	char directory[64];
	char path[96];
	struct kv *kv;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	assert_int_equal(loop_open(&f->loop), OK);
	snprintf(f->directory, sizeof(f->directory), "/tmp/granary_kv_XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/db", f->directory);
	assert_int_equal(kv_open(f->loop, f->path, NULL, &f->kv), OK);
	*state = f;
	return 0;
}

static void for_each_file(struct fixture *f, const char *suffix, void (*fn)(const char *path))
{
	DIR *directory = opendir(f->path);
	assert_non_null(directory);
	for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
		char path[512];
		size_t length = strlen(entry->d_name), tail = strlen(suffix);
		if (entry->d_name[0] == '.' || length < tail || strcmp(entry->d_name + length - tail, suffix) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", f->path, entry->d_name);
		fn(path);
	}
	closedir(directory);
}

static void remove_file(const char *path)
{
	unlink(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	kv_close(f->kv);
	for_each_file(f, "", remove_file);
	rmdir(f->path);
	rmdir(f->directory);
	loop_close(f->loop);
	free(f);
	return 0;
}

static void put(struct fixture *f, const char *key, const char *value)
{
	struct kv_batch *batch = kv_batch_open();
	kv_batch_put(batch, slice_text(key), slice_text(value));
	assert_int_equal(kv_write(f->kv, batch, false), OK);
	kv_batch_close(batch);
}

static void assert_value(struct fixture *f, const char *key, const char *value)
{
	struct buf got = { 0 };
	buf_append(&got, "stale", 5);
	assert_int_equal(kv_get(f->kv, slice_text(key), &got), value == NULL ? ERR_NOT_FOUND : OK);
	assert_true(slice_equal(buf_slice(&got), slice_text(value == NULL ? "" : value)));
	buf_deinit(&got);
}

static void reopen(struct fixture *f)
{
	kv_close(f->kv);
	f->kv = NULL;
	assert_int_equal(kv_open(f->loop, f->path, NULL, &f->kv), OK);
}

static void test_batches(void **state)
{
	struct fixture *f = *state;
	assert_value(f, "a", NULL);
	struct kv_batch *batch = kv_batch_open();
	kv_batch_put(batch, slice_text("a"), slice_text("1"));
	kv_batch_put(batch, slice_text("b"), slice_text("2"));
	kv_batch_put(batch, slice_of("z\0z", 3), slice_of(NULL, 0));
	kv_batch_delete(batch, slice_text("b"));
	assert_value(f, "a", NULL);
	assert_int_equal(kv_write(f->kv, batch, true), OK);
	kv_batch_clear(batch);
	kv_batch_put(batch, slice_text("c"), slice_text("3"));
	assert_int_equal(kv_write(f->kv, batch, false), OK);
	/* A batch is kept as it is. */
	assert_int_equal(kv_write(f->kv, batch, false), OK);
	kv_batch_close(batch);
	kv_batch_close(NULL);
	assert_int_equal(kv_sync(f->kv), OK);
	reopen(f);
	assert_value(f, "a", "1");
	assert_value(f, "b", NULL);
	assert_value(f, "c", "3");
	struct buf got = { 0 };
	assert_int_equal(kv_get(f->kv, slice_of("z\0z", 3), &got), OK);
	assert_int_equal(kv_get(f->kv, slice_text("z"), &got), ERR_NOT_FOUND);
	buf_deinit(&got);
}

static void test_iterator(void **state)
{
	struct fixture *f = *state;
	put(f, "b", "2");
	put(f, "a", "1");
	put(f, "\xff", "9");
	put(f, "ab", "3");
	struct kv_iterator *iterator = kv_iterator_open(f->kv);
	assert_false(kv_iterator_valid(iterator));
	put(f, "aa", "not seen");
	static const char *const order[] = { "a", "ab", "b", "\xff" };
	kv_iterator_seek(iterator, slice_text(""));
	for (int i = 0; i < 4; i++) {
		assert_true(kv_iterator_valid(iterator));
		assert_true(slice_equal(kv_iterator_key(iterator), slice_text(order[i])));
		kv_iterator_next(iterator);
	}
	assert_false(kv_iterator_valid(iterator));
	assert_int_equal(kv_iterator_error(iterator), OK);
	kv_iterator_seek(iterator, slice_text("ac"));
	assert_true(slice_equal(kv_iterator_value(iterator), slice_text("2")));
	kv_iterator_close(iterator);
	kv_iterator_close(NULL);
}

static void test_opened_once(void **state)
{
	struct fixture *f = *state;
	struct kv *second = NULL;
	assert_int_equal(kv_open(f->loop, f->path, NULL, &second), ERR_BUSY);
	assert_null(second);
}

static void fill(struct fixture *f, unsigned count)
{
	struct kv_batch *batch = kv_batch_open();
	struct rng rng;
	rng_init(&rng, 3);
	for (unsigned i = 0; i < count; i++) {
		uint8_t key[8], value[200];
		put_be64(key, i);
		for (size_t k = 0; k < sizeof(value); k++)
			value[k] = (uint8_t)rng_next(&rng);
		kv_batch_clear(batch);
		kv_batch_put(batch, slice_of(key, 8), slice_of(value, sizeof(value)));
		/* Synced now and then, while LevelDB writes its tables beside it. */
		assert_int_equal(kv_write(f->kv, batch, i % 1000 == 999), OK);
	}
	kv_batch_close(batch);
}

static unsigned count_all(struct fixture *f, enum err *err)
{
	unsigned count = 0;
	struct kv_iterator *iterator = kv_iterator_open(f->kv);
	for (kv_iterator_seek(iterator, slice_text("")); kv_iterator_valid(iterator); kv_iterator_next(iterator))
		count++;
	*err = kv_iterator_error(iterator);
	kv_iterator_close(iterator);
	return count;
}

static void test_many(void **state)
{
	struct fixture *f = *state;
	enum err err = OK;
	fill(f, 60000);
	assert_int_equal(count_all(f, &err), 60000);
	assert_int_equal(err, OK);
	reopen(f);
	assert_int_equal(count_all(f, &err), 60000);
	assert_int_equal(err, OK);
}

static void flip_in_middle(const char *path)
{
	int descriptor = open(path, O_RDWR);
	assert_true(descriptor >= 0);
	off_t size = lseek(descriptor, 0, SEEK_END);
	if (size > 4096) {
		uint8_t byte = 0;
		assert_int_equal(pread(descriptor, &byte, 1, size / 2), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(descriptor, &byte, 1, size / 2), 1);
	}
	close(descriptor);
}

/* A flipped bit in a table is an error and never a wrong or missing value. */
static void test_corruption_is_found(void **state)
{
	struct fixture *f = *state;
	fill(f, 40000);
	kv_close(f->kv);
	f->kv = NULL;
	for_each_file(f, ".ldb", flip_in_middle);
	enum err err = kv_open(f->loop, f->path, NULL, &f->kv);
	if (err == OK) {
		unsigned count = count_all(f, &err);
		assert_true(count < 40000);
	}
	assert_int_equal(err, ERR_CORRUPT);
}

/* The log of what is not yet in a table: paranoid checks refuse to open rather than forget the rest. */
static void test_damaged_log_is_found(void **state)
{
	struct fixture *f = *state;
	for (unsigned i = 0; i < 1000; i++) {
		char key[32];
		snprintf(key, sizeof(key), "key%u", i);
		put(f, key, "a value of some length");
	}
	kv_close(f->kv);
	f->kv = NULL;
	for_each_file(f, ".log", flip_in_middle);
	assert_int_equal(kv_open(f->loop, f->path, NULL, &f->kv), ERR_CORRUPT);
}

/* The newest log as a power cut may leave it. */
static void with_log(struct fixture *f, void (*change)(int descriptor, off_t size, uint64_t number), uint64_t number)
{
	char name[32], path[160];
	kv_close(f->kv);
	f->kv = NULL;
	assert_int_equal(kv_log_newest(f->loop, f->path, name), OK);
	snprintf(path, sizeof(path), "%s/%s", f->path, name);
	int descriptor = open(path, O_RDWR);
	assert_true(descriptor >= 0);
	change(descriptor, lseek(descriptor, 0, SEEK_END), number);
	close(descriptor);
}

static void truncate_by(int descriptor, off_t size, uint64_t number)
{
	assert_int_equal(ftruncate(descriptor, size - (off_t)number), 0);
}

static void zero_last(int descriptor, off_t size, uint64_t number)
{
	static const uint8_t zeros[100000];
	assert_int_equal(pwrite(descriptor, zeros, number, size - (off_t)number), number);
}

static void zeros_behind(int descriptor, off_t size, uint64_t number)
{
	assert_int_equal(ftruncate(descriptor, size + (off_t)number), 0);
}

static void noise_behind(int descriptor, off_t size, uint64_t number)
{
	static uint8_t noise[70000];
	struct rng rng;
	rng_init(&rng, number);
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)rng_next(&rng);
	assert_int_equal(pwrite(descriptor, noise, number, size), number);
}

static void zero_middle(int descriptor, off_t size, uint64_t number)
{
	static const uint8_t zeros[40000];
	assert_int_equal(pwrite(descriptor, zeros, number, size / 2), number);
}

enum { LOG_KEYS = 3000 };

/* Values of 300 bytes, many of them in fragments: 900 KB of log. */
static void fill_log(struct fixture *f)
{
	char value[301];
	memset(value, 'v', 300);
	value[300] = '\0';
	for (unsigned i = 0; i < LOG_KEYS; i++) {
		char key[32];
		snprintf(key, sizeof(key), "key%06u", i);
		put(f, key, value);
	}
}

/* Whatever the end looks like, a prefix of the batches is there, without those that were touched and no others. */
static void test_torn_log(void **state)
{
	struct fixture *f = *state;
	static const struct {
		void (*change)(int descriptor, off_t size, uint64_t number);
		uint64_t number;
		unsigned lost_max;
	} cases[] = {
		{ truncate_by, 1, 1 },	      { truncate_by, 7, 1 },	     { truncate_by, 330, 2 }, { truncate_by, 50000, 200 },
		{ zero_last, 1, 1 },	      { zero_last, 5, 1 },	     { zero_last, 330, 2 },   { zero_last, 70000, 300 },
		{ zeros_behind, 1, 0 },	      { zeros_behind, 100000, 0 },   { noise_behind, 3, 0 },  { noise_behind, 500, 0 },
		{ noise_behind, 70000, 0 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fill_log(f);
		with_log(f, cases[i].change, cases[i].number);
		assert_int_equal(kv_open(f->loop, f->path, NULL, &f->kv), OK);
		enum err err = OK;
		unsigned count = count_all(f, &err);
		assert_int_equal(err, OK);
		/* For the next round from the start: an empty store. */
		struct kv_batch *batch = kv_batch_open();
		char key[32];
		for (unsigned k = 0; k < count; k++) {
			snprintf(key, sizeof(key), "key%06u", k);
			struct buf value = { 0 };
			assert_int_equal(kv_get(f->kv, slice_text(key), &value), OK);
			assert_int_equal(value.size, 300);
			buf_deinit(&value);
			kv_batch_delete(batch, slice_text(key));
		}
		assert_int_equal(kv_write(f->kv, batch, true), OK);
		kv_batch_close(batch);
		assert_int_equal(count_all(f, &err), 0);
		assert_in_range(count, LOG_KEYS - cases[i].lost_max, LOG_KEYS);
	}
}

/* Zeros with valid records behind them: lost in the middle. Never opened with a hole. */
static void test_hole_in_log_is_found(void **state)
{
	struct fixture *f = *state;
	fill_log(f);
	with_log(f, zero_middle, 40000);
	assert_int_equal(kv_open(f->loop, f->path, NULL, &f->kv), ERR_CORRUPT);
}

/* LevelDB goes from log to log: none that was left stays unsynced, and nothing is lost on the way. */
static void test_logs_are_followed(void **state)
{
	struct fixture *f = *state;
	kv_close(f->kv);
	struct kv_options options = { .write_buffer_bytes = 64 * KIB };
	assert_int_equal(kv_open(f->loop, f->path, &options, &f->kv), OK);
	char first[32], last[32];
	assert_int_equal(kv_log_newest(f->loop, f->path, first), OK);
	fill_log(f);
	assert_int_equal(kv_log_newest(f->loop, f->path, last), OK);
	assert_string_not_equal(first, last);
	reopen(f);
	enum err err = OK;
	assert_int_equal(count_all(f, &err), LOG_KEYS);
}

static void test_log_scan(void **state)
{
	(void)state;
	assert_false(kv_log_scan(slice_of(NULL, 0)).torn);
	static const uint8_t zeros[100000];
	struct kv_log_scan scan = kv_log_scan(slice_of(zeros, sizeof(zeros)));
	assert_true(scan.torn && !scan.damaged && scan.good_end == 0);
}

#define test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_batches),
		test(test_iterator),
		test(test_opened_once),
		test(test_many),
		test(test_corruption_is_found),
		test(test_damaged_log_is_found),
		test(test_torn_log),
		test(test_hole_in_log_is_found),
		test(test_logs_are_followed),
		test(test_log_scan),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
