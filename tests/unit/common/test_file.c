/* Files for real, in a directory of its own. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "common/sys/file.h"

struct fixture {
	struct loop *loop;
	char directory[64];
	char path[128], other[128];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	assert_int_equal(loop_open(&f->loop), OK);
	snprintf(f->directory, sizeof(f->directory), "/tmp/granary_file_XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/a", f->directory);
	snprintf(f->other, sizeof(f->other), "%s/b", f->directory);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	unlink(f->path);
	unlink(f->other);
	rmdir(f->directory);
	loop_close(f->loop);
	free(f);
	return 0;
}

static struct file *open_file(struct fixture *f, unsigned flags)
{
	struct file *file = NULL;
	assert_int_equal(file_open(f->loop, f->path, flags, &file), OK);
	return file;
}

static void test_open_flags(void **state)
{
	struct fixture *f = *state;
	struct file *file = NULL;
	assert_int_equal(file_open(f->loop, f->path, FILE_WRITE, &file), ERR_NOT_FOUND);
	assert_null(file);
	file = open_file(f, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE);
	struct stat status;
	assert_int_equal(stat(f->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(file_write(file, 0, "hello", 5), OK);
	file_unref(file);
	assert_int_equal(file_open(f->loop, f->path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE, &file), ERR_EXISTS);
	uint64_t size = 0;
	file = open_file(f, FILE_WRITE | FILE_CREATE);
	assert_int_equal(file_size(file, &size), OK);
	assert_int_equal(size, 5);
	file_unref(file);
	file = open_file(f, FILE_WRITE | FILE_TRUNCATE);
	assert_int_equal(file_size(file, &size), OK);
	assert_int_equal(size, 0);
	file_unref(file);
	/* A symbolic link in the place of a file of ours is not followed. */
	assert_int_equal(symlink(f->path, f->other), 0);
	assert_true(file_open(f->loop, f->other, FILE_WRITE, &file) != OK);
	file_unref(NULL);
}

static void test_read_write(void **state)
{
	struct fixture *f = *state;
	struct file *file = open_file(f, FILE_WRITE | FILE_CREATE);
	char bytes[64];
	size_t done = 99;
	assert_int_equal(file_read(file, 0, bytes, sizeof(bytes), &done), OK);
	assert_int_equal(done, 0);
	assert_int_equal(file_write(file, 10, "0123456789", 10), OK);
	assert_int_equal(file_read(file, 5, bytes, sizeof(bytes), &done), OK);
	assert_int_equal(done, 15);
	assert_memory_equal(bytes, "\0\0\0\0\0" "0123456789", 15);
	assert_int_equal(file_read_cached(file, 10, bytes, 10, &done), OK);
	assert_int_equal(done, 10);
	assert_memory_equal(bytes, "0123456789", 10);
	assert_int_equal(file_sync(file), OK);
	assert_int_equal(file_truncate(file, 12), OK);
	assert_int_equal(file_read(file, 10, bytes, sizeof(bytes), &done), OK);
	assert_int_equal(done, 2);
	struct file *second = file_ref(file);
	file_unref(file);
	assert_int_equal(file_write(second, 0, "x", 1), OK);
	file_unref(second);
	/* A file that may only be read refuses a write. */
	file = open_file(f, FILE_READ_ONLY);
	assert_true(file_write(file, 0, "x", 1) != OK);
	file_unref(file);
}

/* The same bytes come back whether a request is aligned or not, and whether the file system knows O_DIRECT or not. */
static void direct_on(struct loop *loop, const char *path)
{
	struct file *file = NULL;
	assert_int_equal(file_open(loop, path, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE | FILE_DIRECT, &file), OK);
	struct iobuf *iobuf = iobuf_open(65536), *back = iobuf_open(65536);
	for (size_t i = 0; i < 65536; i++)
		iobuf->bytes[i] = (uint8_t)(i * 31 ^ i >> 8);
	size_t done = 0;
	assert_int_equal(file_write(file, 4096, iobuf->bytes, 65536), OK);
	assert_int_equal(file_write(file, 100, iobuf->bytes + 1, 777), OK);
	assert_int_equal(file_write(file, 4096, iobuf->bytes, 4096), OK);
	assert_int_equal(file_read(file, 4096, back->bytes, 65536, &done), OK);
	assert_int_equal(done, 65536);
	assert_memory_equal(back->bytes, iobuf->bytes, 65536);
	assert_int_equal(file_read(file, 100, back->bytes, 777, &done), OK);
	assert_memory_equal(back->bytes, iobuf->bytes + 1, 777);
	struct slice parts[] = { slice_of(iobuf->bytes + 8192, 8192), slice_of(iobuf->bytes, 4096), slice_of(iobuf->bytes + 7, 9) };
	assert_int_equal(file_write_parts(file, 8192, parts, 2), OK);
	assert_int_equal(file_write_parts(file, 24576, parts, 3), OK);
	assert_int_equal(file_read(file, 8192, back->bytes, 12288 + 4096 + 12288 + 9, &done), OK);
	for (size_t at = 0; at <= 16384; at += 16384) {
		assert_memory_equal(back->bytes + at, iobuf->bytes + 8192, 8192);
		assert_memory_equal(back->bytes + at + 8192, iobuf->bytes, 4096);
	}
	assert_memory_equal(back->bytes + 28672, iobuf->bytes + 7, 9);
	assert_int_equal(file_write(file, 4096, iobuf->bytes, 65536), OK);
	/* Just written past the cache, and just read through it, where there is such a difference. */
	enum err cached = file_is_cached(file, 4096, 65536);
	assert_true(cached == OK || cached == ERR_WOULD_BLOCK || cached == ERR_NOT_SUPPORTED);
	assert_int_equal(file_read(file, 4097, back->bytes, 65535, &done), OK);
	assert_true(file_is_cached(file, 4096, 65536) == (cached == ERR_NOT_SUPPORTED ? ERR_NOT_SUPPORTED : OK));
	/* Aligned, but the file ends in the middle of it. */
	assert_int_equal(file_truncate(file, 4096 + 5000), OK);
	assert_int_equal(file_read(file, 4096, back->bytes, 65536, &done), OK);
	assert_int_equal(done, 5000);
	assert_memory_equal(back->bytes, iobuf->bytes, 5000);
	assert_int_equal(file_sync(file), OK);
	file_unref(file);
	iobuf_unref(iobuf);
	iobuf_unref(back);
}

static void test_direct(void **state)
{
	struct fixture *f = *state;
	direct_on(f->loop, f->path);
	/* A memory file system that may refuse O_DIRECT. */
	char path[64];
	snprintf(path, sizeof(path), "/dev/shm/granary_direct_%d", (int)getpid());
	direct_on(f->loop, path);
	unlink(path);
}

static void test_space(void **state)
{
	struct fixture *f = *state;
	struct file *file = open_file(f, FILE_WRITE | FILE_CREATE);
	uint64_t allocated = 0, size = 0;
	assert_int_equal(file_preallocate(file, 0, MIB), OK);
	assert_int_equal(file_size(file, &size), OK);
	assert_int_equal(size, MIB);
	assert_int_equal(file_allocated(file, &allocated), OK);
	assert_true(allocated >= MIB);
	assert_int_equal(file_write(file, 0, "abc", 3), OK);
	assert_int_equal(file_write(file, 600000, "xyz", 3), OK);
	assert_int_equal(file_punch(file, 0, 512 * KIB), OK);
	assert_int_equal(file_punch(file, 0, 0), OK);
	uint64_t after = 0;
	assert_int_equal(file_allocated(file, &after), OK);
	assert_true(after <= allocated - 400 * KIB);
	assert_int_equal(file_size(file, &size), OK);
	assert_int_equal(size, MIB);
	char bytes[3];
	size_t done = 0;
	assert_int_equal(file_read(file, 0, bytes, 3, &done), OK);
	assert_memory_equal(bytes, "\0\0\0", 3);
	assert_int_equal(file_read(file, 600000, bytes, 3, &done), OK);
	assert_memory_equal(bytes, "xyz", 3);
	file_unref(file);
	struct disk_space space;
	assert_int_equal(disk_space(f->loop, f->directory, &space), OK);
	assert_true(space.bytes_free > 0 && space.bytes_free <= space.bytes_total);
	assert_int_equal(disk_space(f->loop, "/no/such/place", &space), ERR_NOT_FOUND);
}

static void test_lock(void **state)
{
	struct fixture *f = *state;
	struct file *a = open_file(f, FILE_WRITE | FILE_CREATE), *b = open_file(f, FILE_WRITE);
	assert_int_equal(file_lock(a), OK);
	assert_int_equal(file_lock(b), ERR_BUSY);
	file_unref(a);
	assert_int_equal(file_lock(b), OK);
	file_unref(b);
}

static bool count_name(void *arg, const char *name)
{
	assert_string_not_equal(name, ".");
	assert_string_not_equal(name, "..");
	++*(unsigned *)arg;
	return *(unsigned *)arg < 2;
}

static void test_names(void **state)
{
	struct fixture *f = *state;
	file_unref(open_file(f, FILE_WRITE | FILE_CREATE));
	assert_int_equal(file_rename(f->loop, f->path, f->other), OK);
	assert_int_equal(access(f->path, F_OK), -1);
	assert_int_equal(dir_sync(f->loop, f->directory), OK);
	assert_int_equal(file_unlink(f->loop, f->other), OK);
	assert_int_equal(file_unlink(f->loop, f->other), ERR_NOT_FOUND);
	assert_int_equal(file_rename(f->loop, f->path, f->other), ERR_NOT_FOUND);

	char deep[160];
	snprintf(deep, sizeof(deep), "%s/x/y/z", f->directory);
	assert_int_equal(dir_make(f->loop, deep), OK);
	assert_int_equal(dir_make(f->loop, deep), OK);
	struct stat status;
	assert_int_equal(stat(deep, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0700);
	file_unref(open_file(f, FILE_WRITE | FILE_CREATE));
	assert_int_equal(dir_make(f->loop, f->path), ERR_NOT_DIRECTORY);
	unsigned count = 0;
	assert_int_equal(dir_list(f->loop, f->directory, count_name, &count), OK);
	assert_int_equal(count, 2);
	assert_int_equal(dir_list(f->loop, "/no/such/place", count_name, &count), ERR_NOT_FOUND);
	while (strlen(deep) > strlen(f->directory)) {
		assert_int_equal(rmdir(deep), 0);
		*strrchr(deep, '/') = '\0';
	}
}

static void test_replace_and_load(void **state)
{
	struct fixture *f = *state;
	struct buf content = { 0 };
	assert_int_equal(file_load(f->loop, f->path, 100, &content), ERR_NOT_FOUND);
	assert_int_equal(file_replace(f->loop, f->path, slice_text("first")), OK);
	assert_int_equal(file_replace(f->loop, f->path, slice_text("second")), OK);
	assert_int_equal(file_load(f->loop, f->path, 6, &content), OK);
	assert_true(slice_equal(buf_slice(&content), slice_text("second")));
	assert_int_equal(file_load(f->loop, f->path, 5, &content), ERR_TOO_LARGE);
	assert_int_equal(content.size, 0);
	unsigned count = 0;
	assert_int_equal(dir_list(f->loop, f->directory, count_name, &count), OK);
	assert_int_equal(count, 1); /* nothing temporary stays */
	buf_deinit(&content);
	assert_true(machine_boot_id(f->loop) == machine_boot_id(f->loop));
	assert_true(machine_boot_id(f->loop) != 0);
}

#define test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_open_flags), test(test_read_write), test(test_direct),	   test(test_space),
		test(test_lock),       test(test_names),      test(test_replace_and_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
