/* The end of inodes that have no name: the leader proposes Reclaim for those that nobody has open. Each entry frees a
 * bounded number of chunks; an orphan with more stays and is proposed again. */
#include <stdlib.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "master/meta/chunk_map.h"
#include "master/meta/inode.h"
#include "master/meta/lock.h"
#include "master/meta/ops.h"
#include "master/meta/pack.h"
#include "master/meta/session.h"

static void xattrs_remove(struct meta *meta, uint64_t id, Granary__Inode *inode)
{
	if (inode->xattrs == 0)
		return;
	struct key *keys = mem_alloc(inode->xattrs * sizeof(*keys));
	size_t count = 0;
	struct key prefix = key_of(KEY_XATTR, id);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (count < inode->xattrs && scan_next(&scan)) {
		uint64_t owner;
		struct slice name;
		if (key_parse_name(scan.key, &owner, &name))
			keys[count++] = key_of_name(KEY_XATTR, id, name);
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++)
		store_delete(&meta->store, &keys[i]);
	free(keys);
	inode->xattrs = 0;
}

/* Held by a session that still is. */
static bool orphan_is_held(struct meta *meta, struct slice holder)
{
	return holder.size == 8 && session_exists(meta, get_be64(holder.bytes));
}

/* Returns how many chunks were freed. */
static uint64_t reclaim_inode(struct meta *meta, uint64_t id, size_t chunks_max)
{
	struct key key = key_of(KEY_ORPHAN, id);
	struct slice holder;
	if (!store_get(&meta->store, &key, &holder) || orphan_is_held(meta, holder))
		return 0;
	Granary__Inode *inode = inode_edit(meta, id);
	if (!inode || inode->nlink > 0) {
		store_corrupt(&meta->store);
		return 0;
	}
	uint64_t before = inode->chunks;
	bool all = chunks_free(meta, id, inode, 0, chunks_max);
	uint64_t freed = before - inode->chunks;
	if (!all)
		return freed;
	if (inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB)
		blob_free(meta, inode);
	xattrs_remove(meta, id, inode);
	locks_remove_inode(meta, id);
	inode_remove(meta, id, inode);
	store_delete(&meta->store, &key);
	return freed;
}

enum err op_reclaim(struct context *context, const Granary__Reclaim *op, Granary__MetaResult *result)
{
	(void)result;
	size_t left = RECLAIM_CHUNKS_TOTAL_MAX;
	for (size_t i = 0; i < op->n_inodes && left > 0; i++) {
		size_t max = left < RECLAIM_CHUNKS_MAX ? left : RECLAIM_CHUNKS_MAX;
		left -= (size_t)reclaim_inode(context->meta, op->inodes[i], max);
	}
	return OK;
}
