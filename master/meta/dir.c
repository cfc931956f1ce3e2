#include "master/meta/dir.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/chunk_map.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

/* ---- names */

bool name_is(struct slice name, const char *text)
{
	return slice_equal(name, slice_text(text));
}

enum err name_check(struct slice name)
{
	if (name.size > NAME_BYTES_MAX)
		return ERR_NAME_TOO_LONG;
	if (name.size == 0 || name_is(name, ".") || name_is(name, ".."))
		return ERR_INVALID;
	if (memchr(name.bytes, '/', name.size) || memchr(name.bytes, 0, name.size))
		return ERR_INVALID;
	return OK;
}

enum err dir_get(struct meta *meta, uint64_t id, const Granary__Inode **out)
{
	const Granary__Inode *inode = inode_get(meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	if (!mode_is_directory(inode->mode))
		return ERR_NOT_DIRECTORY;
	if (inode->nlink == 0)
		return ERR_NOT_FOUND;
	*out = inode;
	return OK;
}

struct dirent dir_find(struct meta *meta, uint64_t id, struct slice name)
{
	struct key key = key_of_name(KEY_DIRENT, id, name);
	const Granary__Dirent *dirent = store_message(&meta->store, &key, &granary__dirent__descriptor);
	if (!dirent)
		return (struct dirent){0};
	return (struct dirent){.inode = dirent->inode, .type = dirent->type};
}

static void dirent_put(struct meta *meta, const struct dir_name *at, uint64_t inode, uint32_t mode)
{
	Granary__Dirent *dirent = mem_alloc(sizeof(*dirent));
	granary__dirent__init(dirent);
	dirent->inode = inode;
	dirent->type = mode_dirent_type(mode);
	struct key key = key_of_name(KEY_DIRENT, at->directory, at->name);
	store_put_message(&meta->store, &key, &dirent->base);
}

static void set_parent(struct meta *meta, uint64_t inode_id, uint64_t parent)
{
	Granary__Inode *inode = inode_edit(meta, inode_id);
	if (inode)
		inode->parent = parent;
}

void dir_add(struct context *context, const struct dir_name *at, uint64_t inode_id, const Granary__Inode *inode)
{
	Granary__Inode *directory = inode_edit(context->meta, at->directory);
	check(directory);
	dirent_put(context->meta, at, inode_id, inode->mode);
	directory->entries++;
	if (mode_is_directory(inode->mode)) {
		directory->nlink++;
		set_parent(context->meta, inode_id, at->directory);
	}
	touch_name(context, at->directory, at->name);
	inode_data_changed(context, at->directory, directory);
}

void dir_remove(struct context *context, const struct dir_name *at, const Granary__Inode *inode)
{
	Granary__Inode *directory = inode_edit(context->meta, at->directory);
	check(directory);
	struct key key = key_of_name(KEY_DIRENT, at->directory, at->name);
	store_delete(&context->meta->store, &key);
	directory->entries--;
	if (mode_is_directory(inode->mode))
		directory->nlink--;
	touch_name(context, at->directory, at->name);
	inode_data_changed(context, at->directory, directory);
}

void dir_replace(struct context *context, const struct dir_name *at, uint64_t inode_id, const Granary__Inode *inode)
{
	Granary__Inode *directory = inode_edit(context->meta, at->directory);
	check(directory);
	dirent_put(context->meta, at, inode_id, inode->mode);
	if (mode_is_directory(inode->mode))
		set_parent(context->meta, inode_id, at->directory);
	touch_name(context, at->directory, at->name);
	inode_data_changed(context, at->directory, directory);
}

/* ---- create */

static enum err create_check_type(const Granary__Create *op, uint32_t mode)
{
	switch (mode & MODE_TYPE_MASK) {
	case MODE_FILE:
	case MODE_DIRECTORY:
	case MODE_FIFO:
	case MODE_SOCKET:
	case MODE_BLOCK_DEVICE:
	case MODE_CHARACTER_DEVICE:
		return op->symlink.len == 0 ? OK : ERR_INVALID;
	case MODE_SYMLINK:
		if (op->symlink.len == 0)
			return ERR_NOT_FOUND;
		if (op->symlink.len > SYMLINK_BYTES_MAX)
			return ERR_NAME_TOO_LONG;
		return memchr(op->symlink.data, 0, op->symlink.len) ? ERR_INVALID : OK;
	default:
		return ERR_INVALID;
	}
}

/* The name is taken already: an open(O_CREAT) is content with what is there. */
static enum err create_existing(struct context *context, const Granary__Create *op, uint64_t id,
				Granary__MetaResult *result)
{
	const Granary__Inode *inode = inode_get(context->meta, id);
	if (!inode) {
		store_corrupt(&context->meta->store);
		return ERR_CORRUPT;
	}
	if (op->exclusive || !mode_is_file(op->mode | (op->mode & MODE_TYPE_MASK ? 0 : MODE_FILE)) ||
	    mode_is_symlink(inode->mode))
		return ERR_EXISTS;
	if (mode_is_directory(inode->mode))
		return ERR_IS_DIRECTORY;
	context->created = id;
	open_answer(context, id, inode, result);
	return OK;
}

static enum err create_check(struct context *context, const Granary__Create *op, uint64_t parent_id, uint32_t mode,
			     const Granary__Inode **parent)
{
	struct slice name = message_bytes(op->name);
	enum err err = create_check_type(op, mode);
	if (err)
		return err;
	if (name.size > 0 || parent_id != 0) {
		err = dir_get(context->meta, parent_id, parent);
		if (err)
			return err;
	}
	if (!storage_class_exists(context->meta->classes, op->class_))
		return ERR_NO_CLASS;
	if (name.size == 0)
		return mode_is_file(mode) ? OK : ERR_INVALID;
	if (name_is(name, ".") || name_is(name, ".."))
		return ERR_EXISTS;
	return name_check(name);
}

static void create_made(struct context *context, const Granary__Create *op)
{
	context->created = op->id;
	context->made_in = op->parent;
	context->made_ns = op->time;
	context->made_ctime_ns = op->ctime;
}

/* Whoever chose the id himself, and does not know whether an earlier request was carried out, may ask again. */
enum err op_create(struct context *context, const Granary__Create *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	struct dir_name at = {.directory = op->parent, .name = message_bytes(op->name)};
	if (at.directory == 0 && at.name.size > 0)
		at.directory = context->created;
	uint32_t mode = op->mode & (MODE_TYPE_MASK | MODE_PERMISSIONS);
	if ((mode & MODE_TYPE_MASK) == 0)
		mode |= MODE_FILE;
	context->created = 0;
	context->made_ns = 0;
	const Granary__Inode *parent = NULL;
	enum err err = create_check(context, op, at.directory, mode, &parent);
	if (err)
		return err;
	if (at.name.size > 0) {
		struct dirent existing = dir_find(meta, at.directory, at.name);
		if (existing.inode && existing.inode == op->id) {
			create_made(context, op);
			const Granary__Inode *made = inode_get(meta, op->id);
			if (!made)
				return ERR_CORRUPT;
			inode_answer(context, op->id, made, result);
			return OK;
		}
		if (existing.inode)
			return create_existing(context, op, existing.inode, result);
	}
	if (op->id == 0 || inode_get(meta, op->id))
		return ERR_EXISTS;
	struct inode_options options = {.id = op->id, .mode = mode, .uid = op->uid, .gid = op->gid};
	options.nlink = at.name.size == 0 ? 0 : mode_is_directory(mode) ? 2 : 1;
	if (parent && parent->mode & MODE_SETGID) {
		options.gid = parent->gid;
		if (mode_is_directory(mode))
			options.mode |= MODE_SETGID;
	}
	options.class = op->class_[0] ? storage_class_label(op->class_) : parent ? parent->class_ : NULL;
	options.class_order = op->class_[0] ? ++meta->state->class_order : parent ? parent->class_order : 0;
	Granary__Inode *inode = inode_add(context, &options);
	inode->rdev = op->rdev;
	if (mode_is_symlink(mode)) {
		inode->layout = GRANARY__LAYOUT__LAYOUT_SYMLINK;
		struct buf target = {0};
		buf_set(&target, message_bytes(op->symlink));
		inode->symlink = (ProtobufCBinaryData){.len = target.size, .data = target.bytes}; /* takes the buffer's memory */
		inode->size = op->symlink.len;
	}
	create_made(context, op);
	if (op->time) {
		inode->atime = inode->mtime = inode->btime = op->time;
		inode->ctime = op->ctime;
	}
	if (at.name.size == 0)
		orphan_add(meta, op->id, context->session);
	else
		dir_add(context, &at, op->id, inode);
	inode_answer(context, op->id, inode, result);
	return OK;
}

/* ---- link */

/* Who may get one more link: a file of this session without a name, or anything with a link already but directories. */
static enum err link_check_inode(struct context *context, uint64_t id, const Granary__Inode *inode)
{
	if (!inode)
		return ERR_NOT_FOUND;
	if (mode_is_directory(inode->mode))
		return ERR_NOT_PERMITTED;
	if (inode->nlink >= LINKS_MAX)
		return ERR_TOO_MANY_LINKS;
	if (inode->nlink > 0)
		return OK;
	struct key key = key_of(KEY_ORPHAN, id);
	struct slice holder;
	if (!store_get(&context->meta->store, &key, &holder) || holder.size != 8)
		return ERR_NOT_FOUND;
	return get_be64(holder.bytes) == context->session ? OK : ERR_NOT_FOUND;
}

static enum err link_check_existing(struct context *context, const Granary__Link *op, uint64_t existing)
{
	if (!existing)
		return op->replace && op->expect_change ? ERR_NOT_FOUND : OK;
	if (!op->replace)
		return ERR_EXISTS;
	const Granary__Inode *old = inode_get(context->meta, existing);
	if (!old)
		return ERR_CORRUPT;
	if (mode_is_directory(old->mode))
		return ERR_IS_DIRECTORY;
	return op->expect_change && old->change != op->expect_change ? ERR_EXISTS : OK;
}

static void link_raise(struct context *context, uint64_t id, Granary__Inode *inode)
{
	if (inode->nlink == 0) {
		struct key key = key_of(KEY_ORPHAN, id);
		store_delete(&context->meta->store, &key);
	}
	inode->nlink++;
	inode_changed(context, id, inode);
}

static enum err link_keep(struct context *context, uint64_t id, Granary__MetaResult *result)
{
	Granary__Inode *inode = inode_edit(context->meta, id);
	if (inode->kept)
		return ERR_EXISTS;
	inode->kept = true;
	link_raise(context, id, inode);
	inode_answer(context, id, inode, result);
	return OK;
}

enum err op_link(struct context *context, const Granary__Link *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	struct dir_name at = {.directory = op->parent, .name = message_bytes(op->name)};
	enum err err = link_check_inode(context, id, inode_get(meta, id));
	if (err)
		return err;
	if (at.directory == 0)
		return link_keep(context, id, result);
	const Granary__Inode *parent;
	err = dir_get(meta, at.directory, &parent);
	if (err)
		return err;
	err = name_check(at.name);
	if (err)
		return err;
	struct dirent existing = dir_find(meta, at.directory, at.name);
	err = link_check_existing(context, op, existing.inode);
	if (err)
		return err;
	Granary__Inode *inode = inode_edit(meta, id);
	if (existing.inode != id) {
		link_raise(context, id, inode);
		if (existing.inode) {
			inode_drop_link(context, existing.inode, inode_edit(meta, existing.inode), &at, result);
			dir_replace(context, &at, id, inode);
		} else {
			dir_add(context, &at, id, inode);
		}
	}
	inode_answer(context, id, inode, result);
	return OK;
}

/* ---- unlink */

static enum err unlink_kept(struct context *context, const Granary__Unlink *op, Granary__MetaResult *result)
{
	uint64_t id = context_inode(context, op->inode);
	const Granary__Inode *kept = inode_get(context->meta, id);
	if (!kept || !kept->kept)
		return ERR_NOT_FOUND;
	Granary__Inode *inode = inode_edit(context->meta, id);
	inode->kept = false;
	inode_drop_link(context, id, inode, NULL, result);
	return OK;
}

static enum err unlink_check(const Granary__Unlink *op, const Granary__Inode *inode)
{
	if (!inode)
		return ERR_CORRUPT;
	if (!op->directory)
		return mode_is_directory(inode->mode) ? ERR_IS_DIRECTORY : OK;
	if (!mode_is_directory(inode->mode))
		return ERR_NOT_DIRECTORY;
	return inode->entries > 0 ? ERR_NOT_EMPTY : OK;
}

enum err op_unlink(struct context *context, const Granary__Unlink *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	struct dir_name at = {.directory = op->parent, .name = message_bytes(op->name)};
	if (at.directory == 0)
		return unlink_kept(context, op, result);
	const Granary__Inode *parent;
	enum err err = dir_get(meta, at.directory, &parent);
	if (err)
		return err;
	err = name_check(at.name);
	if (err)
		return op->directory && name_is(at.name, "..") ? ERR_NOT_EMPTY : err;
	struct dirent dirent = dir_find(meta, at.directory, at.name);
	if (!dirent.inode)
		return ERR_NOT_FOUND;
	if (op->inode && op->inode != dirent.inode)
		return ERR_STALE_HANDLE;
	err = unlink_check(op, inode_get(meta, dirent.inode));
	if (err)
		return err;
	Granary__Inode *inode = inode_edit(meta, dirent.inode);
	inode_drop_link(context, dirent.inode, inode, &at, result);
	dir_remove(context, &at, inode);
	return OK;
}

/* ---- lookup */

enum err op_lookup(struct context *context, const Granary__Lookup *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t parent_id = context_inode(context, op->parent);
	struct slice name = message_bytes(op->name);
	const Granary__Inode *parent;
	enum err err = dir_get(meta, parent_id, &parent);
	if (err)
		return err;
	uint64_t id = 0;
	if (name_is(name, ".")) {
		id = parent_id;
	} else if (name_is(name, "..")) {
		id = parent->parent;
	} else {
		err = name_check(name);
		if (err)
			return err;
		id = dir_find(meta, parent_id, name).inode;
	}
	if (id == 0)
		return ERR_NOT_FOUND;
	const Granary__Inode *inode = inode_get(meta, id);
	if (!inode) {
		store_corrupt(&meta->store);
		return ERR_CORRUPT;
	}
	inode_answer(context, id, inode, result);
	location_answer(context, inode, result);
	return OK;
}
