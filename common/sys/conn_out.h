/* What a connection has queued to send: bytes, ranges of iobufs and ranges of files. Internal to common/sys.
 *
 * Headers and messages are copied one behind the other, so that the frames of an iteration go out with one system call;
 * data is not copied. */
#ifndef GRANARY_COMMON_SYS_CONN_OUT_H
#define GRANARY_COMMON_SYS_CONN_OUT_H

#include "common/sys/conn.h"

struct segment {
	struct iobuf *iobuf; /* or */
	struct file *file;   /* or, with both NULL, the next bytes of `bytes` */
	uint64_t offset;
	size_t size;
};

struct conn_out {
	struct buf bytes;
	size_t bytes_sent; /* at the start of `bytes` */
	struct segment *segments;
	size_t segments_first, segments_end, segments_capacity;
	uint64_t queued; /* bytes in all segments */
};

void conn_out_deinit(struct conn_out *out);
void conn_out_append(struct conn_out *out, const struct frame_header *header, struct slice message,
		     const struct conn_data *data);
/* Sends until all is sent, the socket is full (ERR_WOULD_BLOCK) or CONN_EVENT_BYTES_MAX are (ERR_WOULD_BLOCK, too). */
MUST_USE enum err conn_out_flush(struct conn_out *out, int descriptor);

#endif
