/* Pairs of a snapshot or backup from outside, and the whole of a backup file: any bytes are pairs in order or an error. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/check.h"
#include "common/data/pairs.h"
#include "tools/granary/backup_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void read_pairs(struct slice pairs)
{
	struct slice rest = pairs, key, value;
	struct buf last = { 0 }, again = { 0 };
	uint64_t count = 0, taken = 0;
	enum err err = pairs_check(pairs, &last, &count);

	check(err == OK || err == ERR_CORRUPT);
	while (err == OK && rest.size > 0) {
		check(pairs_take(&rest, &key, &value) == OK);
		pairs_add(&again, key, value);
		taken++;
	}
	check(err || (taken == count && slice_equal(buf_slice(&again), pairs)));
	buf_deinit(&last);
	buf_deinit(&again);
}

static void read_file(const uint8_t *bytes, size_t size)
{
	struct backup_file backup = { .file = fmemopen((void *)(uintptr_t)bytes, size, "r") };
	struct buf pairs = { 0 };

	if (!backup.file)
		return;
	enum err err = backup_read_header(&backup);
	while (err == OK) {
		err = backup_read_page(&backup, &pairs);
		if (pairs.size == 0)
			break;
	}
	buf_deinit(&pairs);
	backup_deinit(&backup);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	read_pairs(slice_of(bytes, size));
	read_file(bytes, size);
	return 0;
}
