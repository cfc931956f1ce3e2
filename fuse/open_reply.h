/* The reply to an open, with what libfuse 3.14 cannot say. */
#ifndef GRANARY_FUSE_OPEN_REPLY_H
#define GRANARY_FUSE_OPEN_REPLY_H

#include "fuse/fuse_api.h"

/* As fuse_reply_open. A file opened with O_DIRECT goes past the page cache altogether (FOPEN_DIRECT_IO), and several
 * threads may write to it at the same time (FOPEN_PARALLEL_DIRECT_WRITES; the data layer orders what overlaps). */
int open_reply_send(fuse_req_t fuse, const struct fuse_file_info *file);

#endif
