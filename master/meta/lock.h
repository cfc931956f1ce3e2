/* Locks: fcntl ranges (POSIX: a process's ranges are split, merged, replaced) and flock (the whole file), which do not
 * see each other. A holder is (session, owner). Nothing waits here: a lock that is not free is ERR_WOULD_BLOCK with a
 * holder in result.lock, and the client tries again. */
#ifndef GRANARY_MASTER_META_LOCK_H
#define GRANARY_MASTER_META_LOCK_H

#include "master/meta/state.h"

/* All locks of a session that ends. */
void locks_release_session(struct meta *meta, uint64_t session);
/* All locks on an inode that goes. */
void locks_remove_inode(struct meta *meta, uint64_t inode);

#endif
