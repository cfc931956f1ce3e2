/* What the master calls back, and what the kernel is told of it.
 *
 * A notification to the kernel (drop this name, this inode) may wait for locks that the kernel holds around a request
 * which waits for our reply. On the loop that would be the end; so notifications run on workers. (One that waits for no such
 * lock does not: privileges.c.)
 *
 * And the master holds another client's change back until we have acknowledged a recall. If our acknowledgement waited
 * for the kernel, the kernel for a change of ours in the same directory, and that change for the other client, which in
 * the same way waits for us: then both would stand until the leases run out. Therefore a recall of something that this
 * mount is itself changing (node.mutating) is acknowledged at once and the kernel told afterwards; and one that is already
 * with a worker is acknowledged the moment such a change begins (recall_yield). In that short time programs here may see
 * the old name beside their own unfinished change: the two are concurrent, any order of them is a right one. */
#ifndef GRANARY_FUSE_RECALL_H
#define GRANARY_FUSE_RECALL_H

#include "fuse/mount.h"

/* For client_options.events; events_arg is the struct mount. */
extern const struct client_events recall_events;

/* A change of this node by this mount begins. */
void recall_yield(struct mount *mount, uint64_t nodeid);

typedef void recall_done_fn(void *arg);
/* Drops the pages of a file in the kernel, after those that were written have come here as writes. */
void recall_pages(struct mount *mount, struct node *node, recall_done_fn *done, void *arg);
/* A flush failed: what the kernel has in its pages is not what the file is. Reported to the writer already. */
void recall_lost(struct mount *mount, struct node *node);
/* Others changed a file that is in use here: drops its pages and, where it grew, tells the kernel the new end. A file that
 * was cut by others stays as long as it was for the handles that are open (the kernel takes no smaller size). */
void recall_refresh(struct mount *mount, struct node *node, const Granary__Inode *attr, recall_done_fn *done, void *arg);

#endif
