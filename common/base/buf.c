#include "common/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

struct slice slice_of(const void *bytes, size_t size_bytes)
{
	return (struct slice){ .bytes = bytes, .size = size_bytes };
}

struct slice slice_text(const char *text)
{
	return slice_of(text, strlen(text));
}

int slice_compare(struct slice a, struct slice b)
{
	size_t common = a.size < b.size ? a.size : b.size;
	int order = common == 0 ? 0 : memcmp(a.bytes, b.bytes, common);
	if (order != 0)
		return order;
	return a.size < b.size ? -1 : a.size > b.size;
}

bool slice_equal(struct slice a, struct slice b)
{
	return a.size == b.size && (a.size == 0 || memcmp(a.bytes, b.bytes, a.size) == 0);
}

bool slice_starts_with(struct slice bytes, struct slice prefix)
{
	return bytes.size >= prefix.size && (prefix.size == 0 || memcmp(bytes.bytes, prefix.bytes, prefix.size) == 0);
}

void buf_deinit(struct buf *buf)
{
	free(buf->bytes);
	*buf = (struct buf){ 0 };
}

void buf_clear(struct buf *buf)
{
	buf->size = 0;
}

void buf_reserve(struct buf *buf, size_t capacity_bytes)
{
	if (capacity_bytes <= buf->capacity)
		return;
	size_t capacity = buf->capacity < 64 ? 64 : buf->capacity;
	while (capacity < capacity_bytes) {
		check(capacity <= SIZE_MAX / 2);
		capacity *= 2;
	}
	buf->bytes = mem_resize(buf->bytes, capacity);
	buf->capacity = capacity;
}

void buf_append(struct buf *buf, const void *bytes, size_t size_bytes)
{
	if (size_bytes == 0)
		return;
	check(size_bytes <= SIZE_MAX - buf->size);
	buf_reserve(buf, buf->size + size_bytes);
	memcpy(buf->bytes + buf->size, bytes, size_bytes);
	buf->size += size_bytes;
}

void buf_append_slice(struct buf *buf, struct slice slice)
{
	buf_append(buf, slice.bytes, slice.size);
}

void buf_set(struct buf *buf, struct slice slice)
{
	buf->size = 0;
	buf_append(buf, slice.bytes, slice.size);
}

void buf_take(struct buf *buf, struct buf *from)
{
	free(buf->bytes);
	*buf = *from;
	*from = (struct buf){ 0 };
}

struct slice buf_slice(const struct buf *buf)
{
	return slice_of(buf->bytes, buf->size);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	va_list again;
	va_copy(again, arguments);
	int size = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	check(size >= 0);
	/* One more for the terminator that vsnprintf writes and we do not count. */
	buf_reserve(buf, buf->size + (size_t)size + 1);
	vsnprintf((char *)buf->bytes + buf->size, (size_t)size + 1, format, again);
	va_end(again);
	buf->size += (size_t)size;
}
