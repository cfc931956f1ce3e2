/* read, write, fsync, fallocate: what goes to the data layer. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "fuse/ops.h"
#include "fuse/privileges.h"
#include "fuse/recall.h"
#include "fuse/reply.h"

#define PARTS_INLINE 16u
#define COPY_BYTES_MAX (64u * MIB) /* by one request, which a signal cannot end: some tenths of a second */

/* Opens a request on a file that is open; answers EBADF or EIO otherwise. */
static struct request *open_data(fuse_req_t fuse, fuse_ino_t nodeid)
{
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return NULL;
	request->moves_data = true;
	if (request->node->io && !request->node->lost)
		return request;
	request_end_errno(request, request->node->lost ? EIO : EBADF);
	return NULL;
}

static void read_done(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct request *request = arg;
	struct iovec some[PARTS_INLINE];
	struct iovec *vector = part_count <= PARTS_INLINE ? some : mem_zero(part_count, sizeof *vector);

	if (err != OK) {
		request_end(request, err);
	} else {
		for (size_t i = 0; i < part_count; i++)
			vector[i] = (struct iovec){(void *)(uintptr_t)parts[i].bytes, parts[i].size};
		if (part_count == 0)
			fuse_reply_buf(request->fuse, NULL, 0);
		else
			fuse_reply_iov(request->fuse, vector, (int)part_count);
		request_close(request);
	}
	if (vector != some)
		free(vector);
}

void on_read(fuse_req_t fuse, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *file)
{
	struct request *request = open_data(fuse, nodeid);

	(void)file;
	if (!request)
		return;
	request->node->was_read = true;
	file_io_read(request->node->io, (uint64_t)offset, size, read_done, request);
}

static void write_done(void *arg, enum err err)
{
	struct request *request = arg;

	if (err != OK) {
		recall_lost(request->mount, request->node);
		request_end(request, err);
		return;
	}
	fuse_reply_write(request->fuse, request->size);
	request_close(request);
}

static void write_go(struct request *request, enum err err)
{
	struct iobuf **data = request->parts[0] ? request->parts : request->mount->received;
	struct file_part parts[MOUNT_IO_PARTS];
	struct node *node = request->node;
	size_t count = 0;

	if (err != OK || node->lost) {
		write_done(request, err != OK ? err : ERR_IO);
		return;
	}
	if (request->offset + request->size > node->size)
		node->size = request->offset + request->size;
	for (size_t left = request->size; left > 0; count++) {
		size_t part = left < FRAME_DATA_BYTES_MAX ? left : FRAME_DATA_BYTES_MAX;

		parts[count] = (struct file_part){slice_of(data[count]->bytes, part), data[count]};
		left -= part;
	}
	file_io_write_parts(node->io, request->offset, parts, count, write_done, request);
}

static void write_unprivileged(struct request *request)
{
	for (size_t i = 0; i * FRAME_DATA_BYTES_MAX < request->size; i++)
		request->parts[i] = iobuf_ref(request->mount->received[i]);
	privileges_drop(request, request->drop, write_go);
}

/* `bytes` is not where the data is: see kernel.c. */
void on_write(fuse_req_t fuse, fuse_ino_t nodeid, const char *bytes, size_t size, off_t offset,
	      struct fuse_file_info *file)
{
	struct request *request = open_data(fuse, nodeid);

	(void)bytes;
	if (!request)
		return;
	request->offset = (uint64_t)offset;
	request->size = size;
	if (request->offset + size > FILE_BYTES_MAX)
		request_end(request, ERR_TOO_LARGE);
	else if ((request->drop || (file->flags & O_DIRECT && !file->writepage)) && privileges_possible(request))
		write_unprivileged(request);
	else
		write_go(request, OK);
}

static void fsync_done(void *arg, enum err err)
{
	struct request *request = arg;

	if (err == OK)
		node_learn(request->node, file_io_attr(request->node->io));
	else if (!file_io_is_stranded(request->node->io))
		recall_lost(request->mount, request->node);
	request_end(request, err);
}

static void fsync_named(struct request *request)
{
	file_io_sync(request->node->io, fsync_done, request);
}

void on_fsync(fuse_req_t fuse, fuse_ino_t nodeid, int data_only, struct fuse_file_info *file)
{
	struct request *request = open_data(fuse, nodeid);

	(void)data_only;
	(void)file;
	if (!request)
		return;
	request_changes(request, request->node);
	/* Its name, too, may have been changed by ourselves. */
	request_barrier(request, request->node->inode, fsync_named);
}

/* The kernel does not say whether the bits are to go. */
static bool drops_bits(const struct request *request)
{
	return fuse_req_ctx(request->fuse)->uid != 0;
}

/* ---- copy_file_range: the kernel has written out what it had of both ranges, holds the target's lock, and drops its pages of
 * it afterwards. */

static void copy_done(void *arg, enum err err, uint64_t copied)
{
	struct request *request = arg;
	struct node *node = request->node;

	if (err != OK) {
		request_end(request, err);
		return;
	}
	if (copied > 0 && request->offset + copied > node->size)
		node->size = request->offset + copied;
	fuse_reply_write(request->fuse, copied);
	request_close(request);
}

static void copy_go(struct request *request, enum err err)
{
	if (err != OK)
		request_end(request, err);
	else
		file_io_copy(request->io, request->from_offset, request->node->io, request->offset, request->size, copy_done, request);
}

void on_copy_file_range(fuse_req_t fuse, fuse_ino_t from_nodeid, off_t from_offset, struct fuse_file_info *from_file,
			fuse_ino_t nodeid, off_t offset, struct fuse_file_info *file, size_t size, int flags)
{
	struct request *request = open_data(fuse, nodeid);
	struct node *from;

	(void)from_file;
	(void)file;
	if (!request)
		return;
	from = handles_find(&request->mount->handles, from_nodeid);
	if (size > COPY_BYTES_MAX)
		size = COPY_BYTES_MAX;
	if (!from || !from->io || from->lost) {
		request_end_errno(request, from && from->lost ? EIO : EBADF);
	} else if (flags != 0) {
		request_end(request, ERR_INVALID);
	} else if ((uint64_t)offset + size > FILE_BYTES_MAX) {
		request_end(request, ERR_TOO_LARGE);
	} else if (size == 0) {
		fuse_reply_write(fuse, 0);
		request_close(request);
	} else {
		request->offset = (uint64_t)offset;
		request->from_offset = (uint64_t)from_offset;
		request->size = size;
		request->io = file_io_ref(from->io);
		request_changes(request, request->node);
		if (drops_bits(request))
			privileges_drop(request, true, copy_go);
		else
			copy_go(request, OK);
	}
}

/* ---- fallocate
 *
 * Space is not reserved ahead: chunks are sparse everywhere. So mode 0 makes the file longer, which is what is seen of
 * it; KEEP_SIZE alone, whose only meaning is the reservation, is refused. A punched or zeroed range is written as zeros,
 * one piece after another. */

static const uint8_t zeros[FRAME_DATA_BYTES_MAX];

static void grow_done(void *arg, enum err err)
{
	struct request *request = arg;
	struct node *node = request->node;

	if (err == OK) {
		node_learn(node, file_io_attr(node->io));
		if (request->offset > node->size)
			node->size = request->offset;
	}
	request_end(request, err);
}

static void zero_next(void *arg, enum err err)
{
	struct request *request = arg;
	uint64_t size = request->size < sizeof zeros ? request->size : sizeof zeros;
	uint64_t offset = request->offset;

	if (err != OK || size == 0) {
		request_end(request, err);
		return;
	}
	/* Ends at a multiple of the piece, so that all but the ends are whole blocks. */
	if (offset % sizeof zeros + size > sizeof zeros)
		size = sizeof zeros - offset % sizeof zeros;
	request->offset += size;
	request->size -= size;
	file_io_write(request->node->io, offset, slice_of(zeros, (size_t)size), zero_next, request);
}

static void fallocate_go(struct request *request, enum err err)
{
	struct file_io *io = request->node->io;
	uint64_t end = request->offset + request->size;
	uint64_t size = file_io_attr(io)->size;

	if (err != OK) {
		request_end(request, err);
		return;
	}
	if (size < request->node->size)
		size = request->node->size;
	if (request->flags == 0) {
		request->offset = end;
		if (end > size)
			file_io_truncate(io, end, grow_done, request);
		else
			request_end(request, OK);
		return;
	}
	if (end > size)
		end = size;
	request->size = end > request->offset ? end - request->offset : 0;
	zero_next(request, OK);
}

void on_fallocate(fuse_req_t fuse, fuse_ino_t nodeid, int mode, off_t offset, off_t length, struct fuse_file_info *file)
{
	struct request *request = open_data(fuse, nodeid);

	(void)file;
	if (!request)
		return;
	request->offset = (uint64_t)offset;
	request->size = (uint64_t)length;
	request->flags = mode;
	request_changes(request, request->node);
	if (request->offset + request->size > FILE_BYTES_MAX)
		request_end(request, ERR_TOO_LARGE);
	else if (mode != 0 && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) &&
		 mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
		request_end(request, ERR_NOT_SUPPORTED);
	else if (drops_bits(request))
		privileges_drop(request, true, fallocate_go);
	else
		fallocate_go(request, OK);
}
