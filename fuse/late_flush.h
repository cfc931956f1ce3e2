/* What was written to a file that stays open goes out after a while by itself, so that others see a log grow, and little
 * is lost with this process. An error is kept for the next fsync or close, which report it. */
#ifndef GRANARY_FUSE_LATE_FLUSH_H
#define GRANARY_FUSE_LATE_FLUSH_H

#include "fuse/mount.h"

#define LATE_FLUSH_MS 5000u

/* After a write: flushes LATE_FLUSH_MS after the first one. */
void late_flush_start(struct mount *mount, struct node *node);
/* The file is closed and flushed. */
void late_flush_cancel(struct node *node);
/* The errno of a flush that failed since the last call, 0 for none. */
int late_flush_error(struct node *node);

#endif
