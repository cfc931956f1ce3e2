/* Free lists of iobufs, one a thread: an iobuf is opened and released by the thread of its loop. Size classes are
 * powers of two from 4 KiB; a list keeps at most IOBUF_FREE_BYTES_MAX in all, so that a burst does not stay for ever. */
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"

/* Under the address sanitizer a released iobuf is as good as freed: a late use of it is found. */
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
void __asan_poison_memory_region(void const volatile *bytes, size_t size);
void __asan_unpoison_memory_region(void const volatile *bytes, size_t size);
#define ASAN_POISON_MEMORY_REGION(bytes, size) __asan_poison_memory_region(bytes, size)
#define ASAN_UNPOISON_MEMORY_REGION(bytes, size) __asan_unpoison_memory_region(bytes, size)
#else
#define ASAN_POISON_MEMORY_REGION(bytes, size) ((void)(bytes), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(bytes, size) ((void)(bytes), (void)(size))
#endif

#define CLASSES 10u /* 4 KiB .. 2 MiB */
#define ALIGNMENT 4096u

_Static_assert((ALIGNMENT << (CLASSES - 1)) >= FRAME_BYTES_MAX, "the largest class holds the largest frame");

struct pooled {
	struct iobuf iobuf;
	struct pooled *next;
	uint32_t class_index;
};

/* A cache of memory with no content: not state that a simulated process could see. */
static _Thread_local struct {
	struct pooled *lists[CLASSES];
	size_t bytes;
} pool;

struct iobuf *iobuf_open(uint32_t capacity_bytes)
{
	check(capacity_bytes <= FRAME_BYTES_MAX);
	uint32_t class_index = 0;
	while ((ALIGNMENT << class_index) < capacity_bytes)
		class_index++;
	uint32_t capacity = ALIGNMENT << class_index;
	struct pooled *pooled = pool.lists[class_index];
	if (pooled != NULL) {
		pool.lists[class_index] = pooled->next;
		pool.bytes -= capacity;
	} else {
		pooled = mem_zero(1, sizeof(*pooled));
		pooled->iobuf.bytes = aligned_alloc(ALIGNMENT, capacity);
		check(pooled->iobuf.bytes != NULL);
		pooled->iobuf.capacity = capacity;
		pooled->class_index = class_index;
	}
	ASAN_UNPOISON_MEMORY_REGION(pooled->iobuf.bytes, capacity);
	pooled->next = NULL;
	pooled->iobuf.size = 0;
	pooled->iobuf.references = 1;
#ifndef NDEBUG
	memset(pooled->iobuf.bytes, 0xdb, capacity);
#endif
	return &pooled->iobuf;
}

struct iobuf *iobuf_ref(struct iobuf *iobuf)
{
	check(iobuf->references > 0);
	iobuf->references++;
	return iobuf;
}

static void release(struct pooled *pooled)
{
	ASAN_UNPOISON_MEMORY_REGION(pooled->iobuf.bytes, pooled->iobuf.capacity);
	free(pooled->iobuf.bytes);
	free(pooled);
}

void iobuf_unref(struct iobuf *iobuf)
{
	if (iobuf == NULL)
		return;
	check(iobuf->references > 0);
	if (--iobuf->references > 0)
		return;
	struct pooled *pooled = container_of(iobuf, struct pooled, iobuf);
	if (pool.bytes + iobuf->capacity > IOBUF_FREE_BYTES_MAX) {
		release(pooled);
		return;
	}
#ifndef NDEBUG
	memset(iobuf->bytes, 0xdd, iobuf->capacity);
#endif
	ASAN_POISON_MEMORY_REGION(iobuf->bytes, iobuf->capacity);
	pooled->next = pool.lists[pooled->class_index];
	pool.lists[pooled->class_index] = pooled;
	pool.bytes += iobuf->capacity;
}

void iobuf_trim(void)
{
	for (uint32_t i = 0; i < CLASSES; i++) {
		while (pool.lists[i] != NULL) {
			struct pooled *pooled = pool.lists[i];
			pool.lists[i] = pooled->next;
			release(pooled);
		}
	}
	pool.bytes = 0;
}
