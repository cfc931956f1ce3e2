#include "fuse/cursor.h"

#include <stdlib.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/limits.h"

#define RECORD_HEADER_BYTES 10u

void cursor_deinit(struct cursor *cursor)
{
	buf_deinit(&cursor->records);
	free(cursor->places);
	*cursor = (struct cursor){0};
}

void cursor_reset(struct cursor *cursor)
{
	buf_clear(&cursor->records);
	cursor->count = 0;
	cursor->end = false;
}

enum err cursor_add(struct cursor *cursor, struct slice name, uint64_t inode, uint32_t type)
{
	uint8_t header[RECORD_HEADER_BYTES];

	check(name.size <= NAME_BYTES_MAX);
	if (cursor->records.size + cursor->count * sizeof *cursor->places >= CURSOR_BYTES_MAX)
		return ERR_TOO_MANY;
	if (cursor->count == cursor->capacity) {
		cursor->capacity = cursor->capacity ? cursor->capacity * 2 : 64;
		cursor->places = mem_resize(cursor->places, cursor->capacity * sizeof *cursor->places);
	}
	put_le64(header, inode);
	header[8] = (uint8_t)type;
	header[9] = (uint8_t)name.size;
	cursor->places[cursor->count++] = cursor->records.size;
	buf_append(&cursor->records, header, sizeof header);
	buf_append_slice(&cursor->records, name);
	buf_append(&cursor->records, "", 1);
	return OK;
}

struct cursor_name cursor_get(const struct cursor *cursor, size_t i)
{
	const uint8_t *record;

	check(i < cursor->count);
	record = cursor->records.bytes + cursor->places[i];
	return (struct cursor_name){
	    .name = (const char *)record + RECORD_HEADER_BYTES,
	    .name_bytes = record[9],
	    .inode = get_le64(record),
	    .type = record[8],
	};
}

struct slice cursor_last(const struct cursor *cursor)
{
	struct cursor_name last;

	if (cursor->count == 0)
		return (struct slice){0};
	last = cursor_get(cursor, cursor->count - 1);
	return slice_of(last.name, last.name_bytes);
}
