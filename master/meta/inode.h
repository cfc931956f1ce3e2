/* Inodes: reading, making, changing, attributes, truncation, the end of the last link. */
#ifndef GRANARY_MASTER_META_INODE_H
#define GRANARY_MASTER_META_INODE_H

#include "master/meta/state.h"

/* Borrowed from the store (see store.h); NULL when there is none. */
const Granary__Inode *inode_get(struct meta *meta, uint64_t id);
Granary__Inode *inode_edit(struct meta *meta, uint64_t id);
/* A regular file, to be changed: ERR_NOT_FOUND, ERR_IS_DIRECTORY, ERR_INVALID for other types. */
MUST_USE enum err inode_edit_file(struct meta *meta, uint64_t id, Granary__Inode **out);

struct inode_options {
	uint64_t id;
	uint32_t mode, uid, gid, nlink;
	const char *class; /* NULL: the default class */
	uint64_t class_order;
};
/* Counted, with all times set to now. */
Granary__Inode *inode_add(struct context *context, const struct inode_options *options);
/* Removes the record; its chunks, attributes and names are gone already. */
void inode_remove(struct meta *meta, uint64_t id, Granary__Inode *inode);

/* Raises `change` and ctime, recalls caches. */
void inode_changed(struct context *context, uint64_t id, Granary__Inode *inode);
/* The data too: mtime and data_change. */
void inode_data_changed(struct context *context, uint64_t id, Granary__Inode *inode);
/* The only way to change `blocks`: keeps the count of bytes used. */
void inode_set_blocks(struct meta *meta, Granary__Inode *inode, uint64_t blocks);
/* Blocks that a file of this size can fill at most. */
uint64_t inode_blocks_max(uint64_t size_bytes);

/* One link less: the name `at`, before the directory is changed; NULL: its id. With the last one it goes to the trash, or is an orphan
 * for Reclaim. Fills in replaced and replaced_nlink of the result. */
struct dir_name;
void inode_drop_link(struct context *context, uint64_t id, Granary__Inode *inode, const struct dir_name *at,
		     Granary__MetaResult *result);
/* With a session: held by it until it ends. */
void orphan_add(struct meta *meta, uint64_t id, uint64_t session);

/* Makes inode number and attributes the answer. */
void inode_answer(struct context *context, uint64_t id, const Granary__Inode *inode, Granary__MetaResult *result);
/* A copy in the memory of a whole message. */
Granary__Inode *inode_copy(ProtobufCMessage *whole, const Granary__Inode *inode);
/* An upper bound of the packed size. */
size_t inode_bytes(const Granary__Inode *inode);

#endif
