/* From the master's terms to the kernel's: attributes, entries, errors, cache times. No state, no calls out. */
#ifndef GRANARY_FUSE_REPLY_H
#define GRANARY_FUSE_REPLY_H

#include "fuse/fuse_api.h"

#include "common/base/err.h"
#include "common/proto/message.h"
#include "fuse/handles.h"

/* The errno for the kernel: a positive number, never 0 for an error. */
int reply_errno(enum err err);
/* data: the same inode with what is buffered here and not yet at the master (file_io_attr), or NULL. */
void reply_stat(uint64_t inode, const Granary__Inode *attr, const Granary__Inode *data, struct stat *out);
/* The lease runs from when the request was sent: what is left of it, in seconds, for the kernel. */
double reply_timeout(uint32_t lease_ms, uint64_t started_ms, uint64_t now_ms);
void reply_statfs(const Granary__Statfs *from, struct statvfs *out);
/* `valid` is FUSE_SET_ATTR_*; fills mask, mode, ids and times (not the size). */
void reply_setattr(const struct stat *attr, int valid, Granary__Setattr *out);

#endif
