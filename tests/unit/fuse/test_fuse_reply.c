/* Attributes, times, errors and leases on their way to the kernel and back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "common/proto/setattr.h"
#include "fuse/reply.h"

static void test_stat(void **state)
{
	Granary__Inode attr = GRANARY__INODE__INIT, data = GRANARY__INODE__INIT;
	struct stat stat;

	(void)state;
	attr.mode = S_IFREG | 04751;
	attr.nlink = 3;
	attr.uid = 1000;
	attr.gid = 100;
	attr.size = 5;
	attr.mtime = -1500000000;
	attr.ctime = 1700000000123456789;
	attr.blocks = 8;
	reply_stat(42, &attr, NULL, &stat);
	assert_int_equal(stat.st_ino, 42);
	assert_int_equal(stat.st_mode, S_IFREG | 04751);
	assert_int_equal(stat.st_nlink, 3);
	assert_int_equal(stat.st_size, 5);
	assert_int_equal(stat.st_blocks, 8);
	/* Before 1970 the nanoseconds still count forward. */
	assert_int_equal(stat.st_mtim.tv_sec, -2);
	assert_int_equal(stat.st_mtim.tv_nsec, 500000000);
	assert_int_equal(stat.st_ctim.tv_sec, 1700000000);
	assert_int_equal(stat.st_ctim.tv_nsec, 123456789);
	data.size = 1000;
	reply_stat(42, &attr, &data, &stat);
	assert_int_equal(stat.st_size, 1000);
	assert_int_equal(stat.st_blocks, 2);
	assert_int_equal(stat.st_uid, 1000);
}

static void test_timeout(void **state)
{
	(void)state;
	assert_float_equal(reply_timeout(1000, 5000, 5100), 0.9, 1e-9);
	assert_float_equal(reply_timeout(1000, 5000, 6000), 0.0, 1e-9);
	assert_float_equal(reply_timeout(1000, 5000, 9000), 0.0, 1e-9);
	assert_float_equal(reply_timeout(0, 5000, 5000), 0.0, 1e-9);
}

static void test_errors(void **state)
{
	(void)state;
	assert_int_equal(reply_errno(ERR_NOT_FOUND), ENOENT);
	assert_int_equal(reply_errno(ERR_NOT_EMPTY), ENOTEMPTY);
	assert_int_equal(reply_errno(ERR_WOULD_BLOCK), EAGAIN);
	assert_true(reply_errno(ERR_NO_LEADER) > 0);
}

static void test_setattr(void **state)
{
	struct stat stat = {.st_mode = S_IFREG | 0640, .st_uid = 7, .st_gid = 8, .st_size = 9};
	Granary__Setattr out = GRANARY__SETATTR__INIT;

	(void)state;
	stat.st_atim = (struct timespec){-1, 999999999};
	stat.st_mtim = (struct timespec){3, 4};
	reply_setattr(&stat, FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
				 FUSE_SET_ATTR_SIZE,
		      &out);
	assert_int_equal(out.mask, SETATTR_MODE | SETATTR_GID | SETATTR_ATIME | SETATTR_MTIME);
	assert_int_equal(out.mode, 0640);
	assert_int_equal(out.gid, 8);
	assert_int_equal(out.atime, -1);
	assert_int_equal(out.mtime, 3000000004);
	granary__setattr__init(&out);
	reply_setattr(&stat, FUSE_SET_ATTR_UID | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME |
				 FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME,
		      &out);
	assert_int_equal(out.mask, SETATTR_UID | SETATTR_ATIME_NOW | SETATTR_MTIME_NOW | SETATTR_CTIME);
	assert_int_equal(out.uid, 7);
}

static void test_statfs(void **state)
{
	Granary__Statfs from = GRANARY__STATFS__INIT;
	struct statvfs out;

	(void)state;
	from.bytes_total = 100ull << 30;
	from.bytes_free = 40ull << 30;
	from.inodes = 12;
	reply_statfs(&from, &out);
	assert_int_equal(out.f_blocks * out.f_frsize, 100ull << 30);
	assert_int_equal(out.f_bavail * out.f_frsize, 40ull << 30);
	assert_int_equal(out.f_files - out.f_ffree, 12);
	assert_int_equal(out.f_namemax, NAME_BYTES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_stat),    cmocka_unit_test(test_timeout), cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_setattr), cmocka_unit_test(test_statfs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
