/* No program hangs for ever: requests that wait too long for the cluster, or whose program has been sent a signal, are answered by
 * an error while what they have begun goes on.
 *
 *   ETIMEDOUT   after the mount's --timeout. One that moves data only if no chunkserver has answered for so long either;
 *               while that is known, after a quarter of it (the kernel asks twice for a page that it cannot have).
 *   EINTR       at once where a signal is pending that ends the program; MOUNT_INTERRUPT_MS after one that it catches: an election
 *               is over by then, and who uses timers sees none of it. The operation may be carried out all the same.
 *
 * The kernel is answered past libfuse, by the request's number. The handler, which knows nothing of it, replies when its operation
 * ends, and is told (-ENOENT from fuse_reply_...) that nobody has waited: the way of a request that the kernel has taken back. */
#ifndef GRANARY_FUSE_PATIENCE_H
#define GRANARY_FUSE_PATIENCE_H

#include "fuse/request.h"

void patience_open(struct mount *mount, uint64_t timeout_ms);
void patience_close(struct mount *mount);
/* The mount is to end: nobody is made to wait for longer than this from now on. */
void patience_shorten(struct mount *mount, uint64_t timeout_ms);

/* For request.c. */
void patience_add(struct request *request);
void patience_remove(struct request *request);

/* What the text of /proc/TID/status says about the thread's pending signals. Pure. */
enum signals { SIGNALS_NONE, SIGNALS_CAUGHT, SIGNALS_DEADLY };
enum signals patience_signals(const char *status);

#endif
