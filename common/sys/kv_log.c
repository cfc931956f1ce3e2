#include "common/sys/kv_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/sys/file.h"
#include "common/sys/log.h"

#define LOG_BLOCK_BYTES (32u * KIB)
#define LOG_HEADER_BYTES 7u
#define LOG_BYTES_MAX (256u * MIB)
#define LOGS_MAX 64u

enum record_type { RECORD_FULL = 1, RECORD_FIRST = 2, RECORD_MIDDLE = 3, RECORD_LAST = 4 };

/* Size of the record at `at` with its header; 0 when there is no valid one. */
static size_t record_at(struct slice bytes, size_t at, unsigned *type)
{
	size_t block_left = LOG_BLOCK_BYTES - at % LOG_BLOCK_BYTES;
	if (block_left < LOG_HEADER_BYTES || bytes.size - at < LOG_HEADER_BYTES)
		return 0;
	const uint8_t *p = bytes.bytes + at;
	size_t size = (size_t)LOG_HEADER_BYTES + get_le16(p + 4);
	*type = p[6];
	if (size > block_left || size > bytes.size - at || *type < RECORD_FULL || *type > RECORD_LAST)
		return 0;
	uint32_t crc = crc32c(p + 6, size - 6);
	uint32_t masked = ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
	return masked == get_le32(p) ? size : 0;
}

/* Is there a valid record anywhere behind the bad place `at`? Within its block at any byte; in later blocks at their start,
 * where every block has one. */
static bool any_behind(struct slice bytes, size_t at)
{
	unsigned type = 0;
	size_t block_end = (at / LOG_BLOCK_BYTES + 1) * LOG_BLOCK_BYTES;
	for (size_t i = at + 1; i < block_end && i < bytes.size; i++) {
		if (record_at(bytes, i, &type) != 0)
			return true;
	}
	for (size_t i = block_end; i < bytes.size; i += LOG_BLOCK_BYTES) {
		if (record_at(bytes, i, &type) != 0)
			return true;
	}
	return false;
}

struct kv_log_scan kv_log_scan(struct slice bytes)
{
	struct kv_log_scan scan = { 0 };
	bool fragments = false; /* a record has begun */
	size_t at = 0;
	while (at < bytes.size) {
		size_t block_left = LOG_BLOCK_BYTES - at % LOG_BLOCK_BYTES;
		if (block_left < LOG_HEADER_BYTES && bytes.size - at >= block_left) {
			at += block_left;
			continue;
		}
		unsigned type = 0;
		size_t size = record_at(bytes, at, &type);
		bool continues = type == RECORD_MIDDLE || type == RECORD_LAST;
		if (size == 0 || continues != fragments) {
			scan.torn = true;
			scan.damaged = size != 0 || any_behind(bytes, at);
			return scan;
		}
		at += size;
		fragments = type == RECORD_FIRST || type == RECORD_MIDDLE;
		if (!fragments)
			scan.good_end = at;
	}
	scan.torn = fragments;
	return scan;
}

struct log_list {
	uint64_t numbers[LOGS_MAX];
	size_t count;
};

static bool add_log(void *arg, const char *name)
{
	struct log_list *list = arg;
	char *end = NULL;
	uint64_t number = strtoull(name, &end, 10);
	if (end == name || strcmp(end, ".log") != 0)
		return true;
	if (list->count < LOGS_MAX)
		list->numbers[list->count++] = number;
	return list->count < LOGS_MAX;
}

static uint64_t newest_of(const struct log_list *list)
{
	uint64_t newest = 0;
	for (size_t i = 0; i < list->count; i++) {
		if (list->numbers[i] > newest)
			newest = list->numbers[i];
	}
	return newest;
}

static void log_name(uint64_t number, char out[32])
{
	snprintf(out, 32, "%06" PRIu64 ".log", number);
}

enum err kv_log_newest(struct loop *loop, const char *directory, char out[32])
{
	struct log_list list = { 0 };
	out[0] = '\0';
	enum err err = dir_list(loop, directory, add_log, &list);
	if (err == OK && list.count > 0)
		log_name(newest_of(&list), out);
	return err;
}

static enum err cut(struct loop *loop, const char *path, size_t size)
{
	struct file *file = NULL;
	enum err err = file_open(loop, path, FILE_WRITE, &file);
	if (err == OK)
		err = file_truncate(file, size);
	if (err == OK)
		err = file_sync(file);
	file_unref(file);
	return err;
}

static enum err repair_one(struct loop *loop, const char *path, bool newest)
{
	struct buf bytes = { 0 };
	enum err err = file_load(loop, path, LOG_BYTES_MAX, &bytes);
	if (err != OK)
		goto done;
	struct kv_log_scan scan = kv_log_scan(buf_slice(&bytes));
	if (!scan.torn)
		goto done;
	log_warn("kv_log_torn", "path=%s bytes=%zu good=%zu damaged=%d newest=%d", path, bytes.size, scan.good_end,
		 scan.damaged, newest);
	/* In an older log, the newer one shows that the end was once there. */
	if (scan.damaged || !newest)
		err = ERR_CORRUPT;
	else
		err = cut(loop, path, scan.good_end);
done:
	buf_deinit(&bytes);
	return err;
}

enum err kv_log_repair(struct loop *loop, const char *directory)
{
	struct log_list list = { 0 };
	enum err err = dir_list(loop, directory, add_log, &list);
	uint64_t newest = newest_of(&list);
	for (size_t i = 0; i < list.count && err == OK; i++) {
		char name[32], path[PATH_BYTES_MAX];
		log_name(list.numbers[i], name);
		int size = snprintf(path, sizeof(path), "%s/%s", directory, name);
		check(size > 0 && (size_t)size < sizeof(path));
		err = repair_one(loop, path, list.numbers[i] == newest);
	}
	return err;
}
