/* The trash: what lost its last link and can be undeleted for as long as its storage class says.
 *
 *   living --last link gone--> in the trash (nlink 0, Inode.trash = id, 'T' id, 'U' parent name id) --Undelete--> living
 *                                  '--TrashRemove: due, or the space is needed--> orphan ('O') --Reclaim--> gone
 *
 * Ids count up with each removal and entry time never goes back, so that 'T' is in order of removal: what is due is at its front,
 * by whatever retention holds then. The leader proposes TrashRemove (master/trash.h), a bounded number at a time; whether anybody
 * has the file open, and how its chunks are freed, is left to Reclaim. Undelete and TrashRemove are in one order in the log: one of
 * them finds the entry gone.
 *
 * A removed directory keeps its inode, and what was in it is found in the trash by that: so a whole tree can be walked, and comes
 * back piece by piece. All that was removed from it has lower ids than itself, so that the pass never takes a directory
 * before what was in it. (Only when the trash is off, or with no_trash, a directory may go first: what is in the trash of it is then found
 * in the list of all alone.)
 *
 * Kept are files of any type, also empty ones, as they are part of a tree; but not those that never had a link. */
#ifndef GRANARY_MASTER_META_TRASH_H
#define GRANARY_MASTER_META_TRASH_H

#include "master/meta/dir.h"
#include "master/meta/state.h"

/* The last link is gone: the name `at`, whose directory is as it was before the removal; NULL: the id. False: it is not kept. */
MUST_USE bool trash_add(struct context *context, uint64_t inode_id, Granary__Inode *inode, const struct dir_name *at);

#endif
