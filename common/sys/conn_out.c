#include "common/sys/conn_out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "common/sys/real.h"

#define VECTORS_MAX 64

static void segment_release(struct segment *segment)
{
	iobuf_unref(segment->iobuf);
	file_unref(segment->file);
	*segment = (struct segment){ 0 };
}

void conn_out_deinit(struct conn_out *out)
{
	for (size_t i = out->segments_first; i < out->segments_end; i++)
		segment_release(&out->segments[i]);
	free(out->segments);
	buf_deinit(&out->bytes);
	*out = (struct conn_out){ 0 };
}

static struct segment *segment_add(struct conn_out *out)
{
	check(out->segments != NULL || out->segments_capacity == 0);
	check(out->segments_first <= out->segments_end && out->segments_end <= out->segments_capacity);
	if (out->segments_end == out->segments_capacity && out->segments_first > 0) {
		size_t count = out->segments_end - out->segments_first;
		memmove(out->segments, out->segments + out->segments_first, count * sizeof(out->segments[0]));
		out->segments_first = 0;
		out->segments_end = count;
	}
	if (out->segments_end == out->segments_capacity) {
		out->segments_capacity = out->segments_capacity == 0 ? 8 : 2 * out->segments_capacity;
		out->segments = mem_resize(out->segments, out->segments_capacity * sizeof(out->segments[0]));
	}
	struct segment *segment = &out->segments[out->segments_end++];
	*segment = (struct segment){ 0 };
	return segment;
}

static void append_bytes(struct conn_out *out, const void *bytes, size_t size)
{
	if (size == 0)
		return;
	if (out->bytes_sent > 64 * KIB && out->bytes_sent > out->bytes.size / 2) {
		out->bytes.size -= out->bytes_sent;
		memmove(out->bytes.bytes, out->bytes.bytes + out->bytes_sent, out->bytes.size);
		out->bytes_sent = 0;
	}
	buf_append(&out->bytes, bytes, size);
	struct segment *last = out->segments_end > out->segments_first ? &out->segments[out->segments_end - 1] : NULL;
	if (last == NULL || last->iobuf != NULL || last->file != NULL)
		last = segment_add(out);
	last->size += size;
	out->queued += size;
}

void conn_out_append(struct conn_out *out, const struct frame_header *header, struct slice message,
		     const struct conn_data *data)
{
	struct frame_header filled = *header;
	check(message.size <= FRAME_MESSAGE_BYTES_MAX);
	check(data == NULL || data->size <= FRAME_DATA_BYTES_MAX);
	filled.message_bytes = (uint32_t)message.size;
	filled.data_bytes = data == NULL ? 0 : data->size;
	uint8_t packed[FRAME_HEADER_BYTES];
	frame_pack(&filled, message, packed);
	append_bytes(out, packed, sizeof(packed));
	append_bytes(out, message.bytes, message.size);
	if (filled.data_bytes == 0)
		return;
	check((data->iobuf == NULL) != (data->file == NULL));
	struct segment *segment = segment_add(out);
	segment->size = data->size;
	if (data->iobuf != NULL) {
		check(data->offset <= data->iobuf->capacity && data->size <= data->iobuf->capacity - data->offset);
		segment->iobuf = iobuf_ref(data->iobuf);
		segment->offset = data->offset;
	} else {
		segment->file = file_ref(data->file);
		segment->offset = data->file_offset;
	}
	out->queued += data->size;
}

/* `size` bytes at the front have been sent. */
static void advance(struct conn_out *out, size_t size)
{
	out->queued -= size;
	while (size > 0) {
		struct segment *segment = &out->segments[out->segments_first];
		size_t piece = size < segment->size ? size : segment->size;
		if (segment->iobuf == NULL && segment->file == NULL)
			out->bytes_sent += piece;
		segment->offset += piece;
		segment->size -= piece;
		size -= piece;
		if (segment->size == 0) {
			segment_release(segment);
			out->segments_first++;
		}
	}
	if (out->queued == 0) {
		out->segments_first = out->segments_end = 0;
		out->bytes_sent = 0;
		buf_clear(&out->bytes);
		/* What a burst needed is not kept for ever. */
		if (out->bytes.capacity > 256 * KIB)
			buf_deinit(&out->bytes);
	}
}

static ssize_t send_memory(struct conn_out *out, int descriptor)
{
	struct iovec vectors[VECTORS_MAX];
	size_t count = 0, at_bytes = out->bytes_sent, i = out->segments_first;
	for (; i < out->segments_end && count < VECTORS_MAX && out->segments[i].file == NULL; i++) {
		const struct segment *segment = &out->segments[i];
		if (segment->iobuf != NULL) {
			vectors[count].iov_base = segment->iobuf->bytes + segment->offset;
		} else {
			vectors[count].iov_base = out->bytes.bytes + at_bytes;
			at_bytes += segment->size;
		}
		vectors[count++].iov_len = segment->size;
	}
	struct msghdr message = { .msg_iov = vectors, .msg_iovlen = count };
	return sendmsg(descriptor, &message, MSG_NOSIGNAL | MSG_DONTWAIT | (i < out->segments_end ? MSG_MORE : 0));
}

static ssize_t send_file(struct conn_out *out, int descriptor)
{
	const struct segment *segment = &out->segments[out->segments_first];
	off_t offset = (off_t)segment->offset;
	ssize_t sent = sendfile(descriptor, file_descriptor(segment->file), &offset, segment->size);
	if (sent != 0)
		return sent;
	/* The file is shorter than was promised in the header: the frame cannot be completed. */
	log_error("sendfile_short", "offset=%llu bytes=%zu", (unsigned long long)segment->offset, segment->size);
	errno = EIO;
	return -1;
}

enum err conn_out_flush(struct conn_out *out, int descriptor)
{
	size_t total = 0;
	while (out->queued > 0) {
		if (total >= CONN_EVENT_BYTES_MAX)
			return ERR_WOULD_BLOCK;
		bool file = out->segments[out->segments_first].file != NULL;
		ssize_t sent = file ? send_file(out, descriptor) : send_memory(out, descriptor);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			return ERR_WOULD_BLOCK;
		if (sent < 0)
			return err_from_errno(errno);
		advance(out, (size_t)sent);
		total += (size_t)sent;
	}
	return OK;
}
