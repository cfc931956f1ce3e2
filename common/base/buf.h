/* Bytes in memory: `struct slice` borrows, `struct buf` owns, `struct iobuf` is shared by count.
 *
 * Not thread safe, except that an iobuf's bytes may be read by a worker while its owner holds a reference. */
#ifndef GRANARY_COMMON_BASE_BUF_H
#define GRANARY_COMMON_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Borrowed bytes, valid for the call unless said otherwise. {NULL, 0} is the empty slice. */
struct slice {
	const uint8_t *bytes;
	size_t size;
};

struct slice slice_of(const void *bytes, size_t size_bytes);
struct slice slice_text(const char *text);
/* Bytewise order as LevelDB's default comparator: <0, 0, >0. */
int slice_compare(struct slice a, struct slice b);
bool slice_equal(struct slice a, struct slice b);
bool slice_starts_with(struct slice bytes, struct slice prefix);

/* Owned, growing bytes. A zeroed struct is a valid empty buffer. */
struct buf {
	uint8_t *bytes;
	size_t size;
	size_t capacity;
};

void buf_deinit(struct buf *buf);
void buf_clear(struct buf *buf);
void buf_reserve(struct buf *buf, size_t capacity_bytes);
void buf_append(struct buf *buf, const void *bytes, size_t size_bytes);
void buf_append_slice(struct buf *buf, struct slice slice);
void buf_set(struct buf *buf, struct slice slice);
/* Moves `from` into `buf`, whose old bytes are freed; `from` is left empty. */
void buf_take(struct buf *buf, struct buf *from);
struct slice buf_slice(const struct buf *buf);
/* printf at the end of the buffer. */
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Data on its way between network and disk: reference counted, aligned to 4096 bytes for O_DIRECT, taken from and
 * returned to a free list of its own size class (touching fresh memory is expensive; see the benchmark's notes). */
struct iobuf {
	uint8_t *bytes;
	uint32_t size;	     /* bytes in use; set by the owner */
	uint32_t capacity;   /* bytes available */
	uint32_t references;
};

/* With one reference. capacity_bytes is at most FRAME_BYTES_MAX. The bytes are not zeroed (poisoned in debug builds). */
struct iobuf *iobuf_open(uint32_t capacity_bytes);
struct iobuf *iobuf_ref(struct iobuf *iobuf);
/* NULL is allowed. */
void iobuf_unref(struct iobuf *iobuf);
/* Gives the free lists of this thread back to the system (loop_close does). */
void iobuf_trim(void);

#endif
