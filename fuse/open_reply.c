#include "fuse/open_reply.h"

#include <fcntl.h>
#include <linux/fuse.h>

int open_reply_send(fuse_req_t fuse, const struct fuse_file_info *file)
{
	/* As the kernel reads it: linux/fuse.h, since protocol 7.0; flags it does not know are ignored. */
	struct fuse_open_out out = {.fh = file->fh};

	if (!(file->flags & O_DIRECT))
		return fuse_reply_open(fuse, file);
	out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	if (file->keep_cache)
		out.open_flags |= FOPEN_KEEP_CACHE;
	return fuse_reply_buf(fuse, (const char *)&out, sizeof out);
}
