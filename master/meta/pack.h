/* Blobs: records in packs, chunks that many small files share. */
#ifndef GRANARY_MASTER_META_PACK_H
#define GRANARY_MASTER_META_PACK_H

#include "master/meta/state.h"

/* The inode of a blob gives it up and is empty; the slot becomes Garbage. */
void blob_free(struct meta *meta, Granary__Inode *inode);
/* Keeps at most `size` bytes of the blob's record; 0 frees it. */
void blob_cut(struct meta *meta, Granary__Inode *inode, uint64_t size);
/* If it is misplaced it gets a TASK_MOVE. */
void blob_follow(struct meta *meta, uint64_t id, const Granary__Inode *inode);
/* No blob goes there any more. A sealed pack without blobs is removed. */
void pack_seal(struct meta *meta, uint64_t pack);

#endif
