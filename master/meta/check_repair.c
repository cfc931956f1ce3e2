/* FsckRepair: what the cross-check finds is mended where that loses nothing. Each looks again whether it is as it was found, since
 * entries have been applied in between; all is read from the store, so that every master does the same. */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/check.h"
#include "master/meta/dir.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"
#include "master/meta/tasks.h"

#define MEND_KEYS_MAX CHECK_PREFIX_MAX

/* ---- names */

struct names {
	uint64_t keys, directories;
	bool has_all; /* no more than MEND_KEYS_MAX */
	struct key wanted; /* the name of the inode that was asked for; size 0: none */
	uint32_t wanted_type;
};

static struct names names_read(struct meta *meta, enum key_table table, uint64_t id, uint64_t inode)
{
	struct names names = {0};
	struct key prefix = key_of(table, id);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (names.keys <= MEND_KEYS_MAX && scan_next(&scan)) {
		uint64_t parent;
		struct slice name;
		Granary__Dirent dirent;
		names.keys++;
		if (table != KEY_DIRENT || !key_parse_name(scan.key, &parent, &name) ||
		    message_read_numbers(&granary__dirent__descriptor, scan.value, &dirent.base))
			continue;
		names.directories += dirent.type == mode_dirent_type(MODE_DIRECTORY);
		if (dirent.inode != inode || names.wanted.size > 0)
			continue;
		names.wanted = key_of_name(KEY_DIRENT, parent, name);
		names.wanted_type = dirent.type;
	}
	scan_close(&scan);
	names.has_all = names.keys <= MEND_KEYS_MAX;
	return names;
}

static enum err mend_entries(struct context *context, uint64_t id)
{
	Granary__Inode *inode = inode_edit(context->meta, id);
	if (!inode || !mode_is_directory(inode->mode))
		return ERR_NOT_FOUND;
	struct names names = names_read(context->meta, KEY_DIRENT, id, 0);
	if (!names.has_all)
		return ERR_NOT_SUPPORTED;
	inode->entries = names.keys;
	if (inode->nlink > 0)
		inode->nlink = 2 + (uint32_t)names.directories;
	inode_changed(context, id, inode);
	return OK;
}

/* A name that leads nowhere goes; one with the wrong type gets the right one. */
static enum err mend_name(struct context *context, const Granary__FsckRepair *op)
{
	struct meta *meta = context->meta;
	struct names names = names_read(meta, KEY_DIRENT, op->id, op->other);
	const Granary__Inode *inode = inode_get(meta, op->other);
	if (names.wanted.size == 0)
		return ERR_NOT_FOUND;
	if (!inode) {
		store_delete(&meta->store, &names.wanted);
	} else if (names.wanted_type != mode_dirent_type(inode->mode)) {
		Granary__Dirent *dirent = store_edit(&meta->store, &names.wanted, &granary__dirent__descriptor);
		dirent->type = mode_dirent_type(inode->mode);
	} else {
		return ERR_NOT_FOUND;
	}
	return mend_entries(context, op->id);
}

static enum err mend_parent(struct context *context, const Granary__FsckRepair *op)
{
	struct names names = names_read(context->meta, KEY_DIRENT, op->other, op->id);
	Granary__Inode *inode = inode_edit(context->meta, op->id);
	if (!inode || !mode_is_directory(inode->mode) || names.wanted.size == 0 || inode->parent == op->other)
		return ERR_NOT_FOUND;
	inode->parent = op->other;
	return OK;
}

/* ---- inodes */

static enum err mend_count(struct context *context, uint64_t id, enum key_table table)
{
	Granary__Inode *inode = inode_edit(context->meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	struct names names = names_read(context->meta, table, id, 0);
	if (!names.has_all)
		return ERR_NOT_SUPPORTED;
	if (table == KEY_XATTR)
		inode->xattrs = (uint32_t)names.keys;
	else
		inode->chunks = names.keys;
	return OK;
}

/* A file that nothing leads to is kept by its id: whoever misses it finds it so, or removes it. */
static void keep(struct context *context, uint64_t id, Granary__Inode *inode)
{
	inode->kept = true;
	inode->nlink = 1;
	inode_changed(context, id, inode);
}

static enum err mend_nameless(struct context *context, const Granary__FsckRepair *op)
{
	Granary__Inode *inode = inode_edit(context->meta, op->id);
	if (!inode || inode->nlink == 0 || inode->change != op->other)
		return ERR_NOT_FOUND;
	if (!mode_is_file(inode->mode))
		return ERR_NOT_SUPPORTED;
	keep(context, op->id, inode);
	return OK;
}

static enum err mend_unlinked(struct context *context, uint64_t id)
{
	struct meta *meta = context->meta;
	Granary__Inode *inode = inode_edit(meta, id);
	if (!inode || inode->nlink > 0)
		return ERR_NOT_FOUND;
	struct key orphan = key_of(KEY_ORPHAN, id), trash = key_of(KEY_TRASH, inode->trash);
	const Granary__TrashEntry *entry =
	    inode->trash ? store_message(&meta->store, &trash, &granary__trash_entry__descriptor) : NULL;
	bool in_trash = entry && entry->inode == id;
	if (store_has(&meta->store, &orphan) != in_trash)
		return ERR_NOT_FOUND;
	if (in_trash) {
		store_delete(&meta->store, &orphan);
		return OK;
	}
	if (inode->trash)
		meta->state->trash_bytes -= inode->blocks * 512;
	inode->trash = 0;
	if (mode_is_file(inode->mode))
		keep(context, id, inode);
	else if (inode->entries == 0)
		orphan_add(meta, id, 0);
	else
		return ERR_NOT_SUPPORTED;
	return OK;
}

/* ---- records of what is not */

static enum err mend_orphan(struct meta *meta, uint64_t id)
{
	struct key key = key_of(KEY_ORPHAN, id);
	const Granary__Inode *inode = inode_get(meta, id);
	if (!store_has(&meta->store, &key) || (inode && inode->nlink == 0))
		return ERR_NOT_FOUND;
	store_delete(&meta->store, &key);
	return OK;
}

/* An inode that is there again, or not at all, has no entry; an entry has its name. */
static enum err mend_trash(struct meta *meta, const Granary__FsckRepair *op)
{
	struct key key = key_of(KEY_TRASH, op->id);
	const Granary__TrashEntry *entry = store_message(&meta->store, &key, &granary__trash_entry__descriptor);
	uint64_t inode_id = entry ? entry->inode : op->other;
	const Granary__Inode *inode = inode_get(meta, inode_id);
	if (inode && inode->trash == op->id && inode->nlink > 0) {
		Granary__Inode *living = inode_edit(meta, inode_id);
		living->trash = 0;
		meta->state->trash_bytes -= living->blocks * 512;
		inode = NULL;
	}
	if (!entry)
		return ERR_NOT_SUPPORTED;
	struct key name = key_of_trash_name(entry->parent, message_bytes(entry->name), op->id);
	if (inode && inode->trash == op->id) {
		store_put(&meta->store, &name, (struct slice){0});
		return OK;
	}
	store_delete(&meta->store, &name);
	store_delete(&meta->store, &key);
	meta->state->trash--;
	return OK;
}

static enum err mend_xattrs(struct meta *meta, uint64_t id)
{
	struct key keys[XATTRS_PER_INODE_MAX];
	size_t count = 0;
	struct key prefix = key_of(KEY_XATTR, id);
	struct scan scan;
	if (inode_get(meta, id))
		return ERR_NOT_FOUND;
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (count < XATTRS_PER_INODE_MAX && scan_next(&scan)) {
		uint64_t owner;
		struct slice name;
		if (key_parse_name(scan.key, &owner, &name))
			keys[count++] = key_of_name(KEY_XATTR, id, name);
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++)
		store_delete(&meta->store, &keys[i]);
	return count > 0 ? OK : ERR_NOT_FOUND;
}

/* The chunk's own record says who holds it. */
static enum err mend_holders(struct meta *meta, uint64_t id, uint64_t server)
{
	const Granary__Chunk *chunk = chunk_get(meta, id);
	struct key key = key_of_pair(KEY_SERVER_CHUNK, server, id);
	bool is_member = false, is_listed = store_has(&meta->store, &key);
	for (size_t i = 0; chunk && i < chunk->n_replicas; i++)
		is_member = is_member || chunk->replicas[i] == server;
	if (is_member == is_listed)
		return ERR_NOT_FOUND;
	if (is_member)
		store_put(&meta->store, &key, (struct slice){0});
	else
		store_delete(&meta->store, &key);
	return OK;
}

enum err op_fsck_repair(struct context *context, const Granary__FsckRepair *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	switch (op->kind) {
	case CHECK_NAME_DANGLING:
	case CHECK_NAME_TYPE:
		return mend_name(context, op);
	case CHECK_PARENT:
		return mend_parent(context, op);
	case CHECK_ENTRIES:
		return mend_entries(context, op->id);
	case CHECK_XATTRS:
		return mend_count(context, op->id, KEY_XATTR);
	case CHECK_CHUNKS:
		return mend_count(context, op->id, KEY_CHUNK_POINTER);
	case CHECK_NAMELESS:
		return mend_nameless(context, op);
	case CHECK_UNLINKED:
		return mend_unlinked(context, op->id);
	case CHECK_ORPHAN:
		return mend_orphan(meta, op->id);
	case CHECK_TRASH:
		return mend_trash(meta, op);
	case CHECK_XATTR_DANGLING:
		return mend_xattrs(meta, op->id);
	case CHECK_TASK:
		return task_cool_mend(meta, op->id, op->other);
	case CHECK_HOLDERS:
		return mend_holders(meta, op->id, op->other);
	default:
		return ERR_NOT_SUPPORTED;
	}
}
