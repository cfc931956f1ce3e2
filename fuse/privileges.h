/* Set-id bits and capabilities of files that are changed, which the kernel leaves to us: FUSE_HANDLE_KILLPRIV_V2 (linux/fuse.h,
 * protocol 7.33; what is sent when: fs/fuse/dir.c, file.c, fs/inode.c of Linux 6.1 to 6.18).
 *
 * Without it the kernel asks for security.capability before every write(2), and for the attributes before every chown(2). With
 * it, it remembers that a file has nothing to be dropped until its attributes are refreshed, and says who is to drop it:
 *
 *   write(2) without CAP_FSETID    WRITE past the page cache with FUSE_WRITE_KILL_SUIDGID, if the kernel knows such bits
 *   O_TRUNC, truncate(2) without   OPEN with FUSE_OPEN_KILL_SUIDGID, SETATTR with FATTR_KILL_SUIDGID
 *   chown(2) by anybody            SETATTR with FATTR_KILL_SUIDGID, not of directories
 *   CREATE, O_TRUNC                FUSE_OPEN_KILL_SUIDGID: we create exclusively, so there is nothing to be dropped
 *   fallocate, copy_file_range     nothing is said: bits are dropped for all callers but root
 *
 * Set-user-id goes, and set-group-id where the group may execute (mode_unprivileged). It is gone at the master before the data
 * changes, and the kernel knows of it before it is answered: a program that could start the file would start it with its old rights.
 *
 * security.capability is still removed by the kernel, at write, truncate and chown; but not where a file is opened with
 * O_DIRECT: there it is dropped here with the bits, whoever writes.
 *
 * libfuse 3.14 knows nothing of all this. The flag is put into its answer to INIT, and what a request wants is read from it before
 * libfuse gets it. A kernel that does not offer the flag sends none of these, and goes on as before. */
#ifndef GRANARY_FUSE_PRIVILEGES_H
#define GRANARY_FUSE_PRIVILEGES_H

#include "fuse/request.h"

/* After fuse_session_mount, before the first request. */
MUST_USE enum err privileges_negotiate(struct mount *mount);
/* Of each request as it came from the kernel, before libfuse handles it. */
void privileges_look(struct mount *mount, const void *bytes, size_t size);

/* The request's node has, or may have, something to be dropped. */
bool privileges_possible(const struct request *request);
/* Of the request's node, a regular file whose data is about to change: drops the capability, and with `set_id` the bits. `go` at
 * once if there is nothing to be dropped; with an error the file must be left as it is. */
typedef void privileges_fn(struct request *request, enum err err);
void privileges_drop(struct request *request, bool set_id, privileges_fn *go);

#endif
