/* granary.h: names and attributes. */
#include <stdlib.h>
#include <string.h>

#include "client/public.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "common/proto/setattr.h"

#define LIST_PAGE 512u

static enum err one_op(struct granary_cluster *cluster, Granary__MetaOp *op)
{
	Granary__MetaReply *reply;
	enum err err = public_meta(cluster, (Granary__MetaOp *[]){op}, 1, &reply);
	if (reply)
		message_free(&reply->base);
	return err;
}

granary_status granary_stat(struct granary_cluster *cluster, const char *path, bool follow, struct granary_stat *out)
{
	struct walked walked;
	public_walk(cluster, path, follow, &walked);
	if (walked.err == OK)
		public_stat(walked.inode, walked.attr, out);
	walked_deinit(&walked);
	return public_result(cluster, "stat", path, walked.err);
}

granary_status granary_stat_id(struct granary_cluster *cluster, uint64_t id, struct granary_stat *out)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaReply *reply;
	getattr.inode = id;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	enum err err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &reply);
	if (err == OK && !reply->results[0]->attr)
		err = ERR_PROTOCOL;
	if (err == OK && reply->results[0]->attr->nlink == 0)
		err = ERR_NOT_FOUND; /* removed; kept only for those who have it open */
	if (err == OK)
		public_stat(id, reply->results[0]->attr, out);
	if (reply)
		message_free(&reply->base);
	return public_result_id(cluster, "stat", id, err);
}

/* A directory or symbolic link. */
static enum err make(struct granary_cluster *cluster, const char *path, uint32_t mode, struct slice target)
{
	struct walked walked;
	public_walk(cluster, path, false, &walked);
	enum err err = walked.err == OK ? ERR_EXISTS : walked_for_new(&walked);
	if (err == OK) {
		Granary__MetaOp op = GRANARY__META_OP__INIT;
		Granary__Create create;
		public_create(cluster, walked.parent, walked.name, mode, &create);
		create.symlink = message_borrow(target);
		create.exclusive = true;
		op.op_case = GRANARY__META_OP__OP_CREATE;
		op.create = &create;
		err = one_op(cluster, &op);
	}
	walked_deinit(&walked);
	return err;
}

granary_status granary_mkdir(struct granary_cluster *cluster, const char *path, uint32_t mode)
{
	enum err err = make(cluster, path, MODE_DIRECTORY | (mode & MODE_PERMISSIONS), slice_of(NULL, 0));
	return public_result(cluster, "mkdir", path, err);
}

granary_status granary_set_storage_class(struct granary_cluster *cluster, const char *path, const char *name, bool below)
{
	struct walked walked;
	public_walk(cluster, path, true, &walked);
	enum err err = walked.err;
	if (err == OK) {
		Granary__MetaOp op = GRANARY__META_OP__INIT;
		Granary__SetInodeClass change = GRANARY__SET_INODE_CLASS__INIT;
		change.inode = walked.inode;
		change.class_ = (char *)(uintptr_t)name;
		change.below = below;
		op.op_case = GRANARY__META_OP__OP_SET_INODE_CLASS;
		op.set_inode_class = &change;
		err = one_op(cluster, &op);
	}
	walked_deinit(&walked);
	return public_result(cluster, "assign", path, err);
}

granary_status granary_symlink(struct granary_cluster *cluster, const char *target, const char *path)
{
	enum err err = make(cluster, path, MODE_SYMLINK | 0777, slice_text(target));
	return public_result(cluster, "ln -s", path, err);
}

static enum err unlink_at(struct granary_cluster *cluster, const char *path, bool directory, bool no_trash)
{
	struct walked walked;
	public_walk(cluster, path, false, &walked);
	enum err err = walked.err;
	if (err == OK && (walked.parent == 0 || walked.name.size == 0))
		err = directory ? ERR_BUSY : ERR_IS_DIRECTORY; /* the root */
	if (err == OK) {
		Granary__MetaOp op = GRANARY__META_OP__INIT;
		Granary__Unlink unlink = GRANARY__UNLINK__INIT;
		unlink.parent = walked.parent;
		unlink.name = message_borrow(walked.name);
		unlink.directory = directory;
		unlink.no_trash = no_trash;
		op.op_case = GRANARY__META_OP__OP_UNLINK;
		op.unlink = &unlink;
		err = one_op(cluster, &op);
	}
	walked_deinit(&walked);
	return err;
}

granary_status granary_rmdir(struct granary_cluster *cluster, const char *path)
{
	return public_result(cluster, "rmdir", path, unlink_at(cluster, path, true, false));
}

granary_status granary_unlink(struct granary_cluster *cluster, const char *path)
{
	return public_result(cluster, "rm", path, unlink_at(cluster, path, false, false));
}

granary_status granary_remove(struct granary_cluster *cluster, const char *path, unsigned flags)
{
	bool directory = (flags & GRANARY_REMOVE_DIRECTORY) != 0;
	return public_result(cluster, directory ? "rmdir" : "rm", path,
			     unlink_at(cluster, path, directory, (flags & GRANARY_REMOVE_NOW) != 0));
}

granary_status granary_unlink_id(struct granary_cluster *cluster, uint64_t id)
{
	return granary_remove_id(cluster, id, 0);
}

granary_status granary_remove_id(struct granary_cluster *cluster, uint64_t id, unsigned flags)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Unlink unlink = GRANARY__UNLINK__INIT;
	unlink.inode = id;
	unlink.no_trash = (flags & GRANARY_REMOVE_NOW) != 0;
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &unlink;
	return public_result_id(cluster, "rm", id, one_op(cluster, &op));
}

granary_status granary_rename(struct granary_cluster *cluster, const char *from, const char *to, unsigned flags)
{
	struct walked old, new;
	public_walk(cluster, from, false, &old);
	enum err err = old.err;
	const char *subject = from;
	new = (struct walked){0};
	if (err == OK && old.name.size == 0)
		err = ERR_BUSY; /* the root */
	if (err == OK) {
		subject = to;
		public_walk(cluster, to, false, &new);
		err = walked_for_new(&new);
	}
	if (err == OK) {
		Granary__MetaOp op = GRANARY__META_OP__INIT;
		Granary__Rename rename = GRANARY__RENAME__INIT;
		rename.parent = old.parent;
		rename.name = message_borrow(old.name);
		rename.new_parent = new.parent;
		rename.new_name = message_borrow(new.name);
		rename.no_replace = (flags & GRANARY_RENAME_NOREPLACE) != 0;
		rename.exchange = (flags & GRANARY_RENAME_EXCHANGE) != 0;
		op.op_case = GRANARY__META_OP__OP_RENAME;
		op.rename = &rename;
		err = one_op(cluster, &op);
	}
	walked_deinit(&old);
	walked_deinit(&new);
	return public_result(cluster, "mv", subject, err);
}

granary_status granary_link(struct granary_cluster *cluster, const char *existing, const char *path)
{
	struct walked old, new = {0};
	const char *subject = existing;
	public_walk(cluster, existing, false, &old);
	enum err err = old.err;
	if (err == OK) {
		subject = path;
		public_walk(cluster, path, false, &new);
		err = new.err == OK ? ERR_EXISTS : walked_for_new(&new);
	}
	if (err == OK) {
		Granary__MetaOp op = GRANARY__META_OP__INIT;
		Granary__Link link = GRANARY__LINK__INIT;
		link.inode = old.inode;
		link.parent = new.parent;
		link.name = message_borrow(new.name);
		op.op_case = GRANARY__META_OP__OP_LINK;
		op.link = &link;
		err = one_op(cluster, &op);
	}
	walked_deinit(&old);
	walked_deinit(&new);
	return public_result(cluster, "ln", subject, err);
}

granary_status granary_readlink(struct granary_cluster *cluster, const char *path, char *target, size_t size)
{
	struct walked walked;
	public_walk(cluster, path, false, &walked);
	enum err err = walked.err;
	if (err == OK && !mode_is_symlink(walked.attr->mode))
		err = ERR_INVALID;
	if (err == OK && walked.attr->symlink.len >= size)
		err = ERR_RANGE;
	if (err == OK) {
		memcpy(target, walked.attr->symlink.data, walked.attr->symlink.len);
		target[walked.attr->symlink.len] = 0;
	}
	walked_deinit(&walked);
	return public_result(cluster, "readlink", path, err);
}

/* inode is filled in. */
static enum err set_attributes(struct granary_cluster *cluster, const char *path, Granary__Setattr *setattr)
{
	struct walked walked;
	public_walk(cluster, path, true, &walked);
	enum err err = walked.err;
	if (err == OK && setattr->mask != 0) {
		Granary__MetaOp op = GRANARY__META_OP__INIT;
		setattr->inode = walked.inode;
		op.op_case = GRANARY__META_OP__OP_SETATTR;
		op.setattr = setattr;
		err = one_op(cluster, &op);
	}
	walked_deinit(&walked);
	return err;
}

granary_status granary_chmod(struct granary_cluster *cluster, const char *path, uint32_t mode)
{
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;
	setattr.mask = SETATTR_MODE;
	setattr.mode = mode & MODE_PERMISSIONS;
	return public_result(cluster, "chmod", path, set_attributes(cluster, path, &setattr));
}

granary_status granary_chown(struct granary_cluster *cluster, const char *path, uint32_t uid, uint32_t gid)
{
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;
	setattr.mask = (uid != UINT32_MAX ? SETATTR_UID : 0u) | (gid != UINT32_MAX ? SETATTR_GID : 0u);
	setattr.uid = uid;
	setattr.gid = gid;
	return public_result(cluster, "chown", path, set_attributes(cluster, path, &setattr));
}

granary_status granary_utimes(struct granary_cluster *cluster, const char *path, int64_t atime_ns, int64_t mtime_ns)
{
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;
	setattr.mask = (atime_ns != INT64_MIN ? SETATTR_ATIME : 0u) | (mtime_ns != INT64_MIN ? SETATTR_MTIME : 0u);
	setattr.atime = atime_ns;
	setattr.mtime = mtime_ns;
	return public_result(cluster, "touch", path, set_attributes(cluster, path, &setattr));
}

/* ---- directories ---- */

/* Calls fn for one page; `after` becomes its last name. */
static enum err list_page(struct granary_cluster *cluster, uint64_t inode, struct buf *after, bool *more,
			  bool (*fn)(void *arg, const struct granary_entry *), void *arg)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Readdir readdir = GRANARY__READDIR__INIT;
	Granary__MetaReply *reply;
	readdir.inode = inode;
	readdir.after = message_borrow(buf_slice(after));
	readdir.count = LIST_PAGE;
	readdir.attributes = true;
	op.op_case = GRANARY__META_OP__OP_READDIR;
	op.readdir = &readdir;
	enum err err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &reply);
	*more = false;
	if (err == OK) {
		const Granary__MetaResult *result = reply->results[0];
		*more = !result->end && result->n_entries > 0;
		for (size_t i = 0; i < result->n_entries; i++) {
			const Granary__DirectoryEntry *entry = result->entries[i];
			struct granary_entry out = {.name_bytes = entry->name.len};
			buf_set(after, message_bytes(entry->name));
			buf_append(after, "", 1);
			after->size--;
			out.name = (const char *)after->bytes;
			if (entry->attr)
				public_stat(entry->inode, entry->attr, &out.stat);
			out.stat.inode = entry->inode;
			if (!fn(arg, &out)) {
				*more = false;
				break;
			}
		}
	}
	if (reply)
		message_free(&reply->base);
	return err;
}

granary_status granary_list(struct granary_cluster *cluster, const char *path,
			    bool (*fn)(void *arg, const struct granary_entry *), void *arg)
{
	struct walked walked;
	struct buf after = {0};
	bool more = true;
	public_walk(cluster, path, true, &walked);
	enum err err = walked.err;
	while (err == OK && more)
		err = list_page(cluster, walked.inode, &after, &more, fn, arg);
	buf_deinit(&after);
	walked_deinit(&walked);
	return public_result(cluster, "ls", path, err);
}

/* ---- extended attributes ---- */

/* The operation for the inode of `path`; *reply is the caller's. */
static enum err xattr_op(struct granary_cluster *cluster, const char *path, Granary__MetaOp *op, uint64_t *inode,
			 Granary__MetaReply **reply)
{
	struct walked walked;
	*reply = NULL;
	public_walk(cluster, path, true, &walked);
	enum err err = walked.err;
	*inode = walked.inode;
	walked_deinit(&walked);
	return err ? err : public_meta(cluster, (Granary__MetaOp *[]){op}, 1, reply);
}

granary_status granary_xattr_get(struct granary_cluster *cluster, const char *path, const char *name, void *value,
				 size_t size, size_t *done)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__GetXattr get = GRANARY__GET_XATTR__INIT;
	Granary__MetaReply *reply;
	get.name = message_borrow(slice_text(name));
	op.op_case = GRANARY__META_OP__OP_GET_XATTR;
	op.get_xattr = &get;
	*done = 0;
	enum err err = xattr_op(cluster, path, &op, &get.inode, &reply);
	if (err == OK) {
		*done = reply->results[0]->value.len;
		if (*done > size && size > 0)
			err = ERR_RANGE;
		else if (size > 0)
			memcpy(value, reply->results[0]->value.data, *done);
	}
	if (reply)
		message_free(&reply->base);
	return public_result(cluster, "xattr get", path, err);
}

granary_status granary_xattr_set(struct granary_cluster *cluster, const char *path, const char *name, const void *value,
				 size_t size)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__SetXattr set = GRANARY__SET_XATTR__INIT;
	Granary__MetaReply *reply;
	set.name = message_borrow(slice_text(name));
	set.value = message_borrow(slice_of(value, size));
	op.op_case = GRANARY__META_OP__OP_SET_XATTR;
	op.set_xattr = &set;
	enum err err = size > XATTR_VALUE_BYTES_MAX ? ERR_TOO_LARGE : OK;
	reply = NULL;
	if (err == OK)
		err = xattr_op(cluster, path, &op, &set.inode, &reply);
	if (reply)
		message_free(&reply->base);
	return public_result(cluster, "xattr set", path, err);
}

granary_status granary_xattr_remove(struct granary_cluster *cluster, const char *path, const char *name)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__RemoveXattr removed = GRANARY__REMOVE_XATTR__INIT;
	Granary__MetaReply *reply;
	removed.name = message_borrow(slice_text(name));
	op.op_case = GRANARY__META_OP__OP_REMOVE_XATTR;
	op.remove_xattr = &removed;
	enum err err = xattr_op(cluster, path, &op, &removed.inode, &reply);
	if (reply)
		message_free(&reply->base);
	return public_result(cluster, "xattr rm", path, err);
}

granary_status granary_xattr_list(struct granary_cluster *cluster, const char *path,
				  bool (*fn)(void *arg, const char *name), void *arg)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__ListXattr list = GRANARY__LIST_XATTR__INIT;
	Granary__MetaReply *reply;
	op.op_case = GRANARY__META_OP__OP_LIST_XATTR;
	op.list_xattr = &list;
	enum err err = xattr_op(cluster, path, &op, &list.inode, &reply);
	struct buf name = {0};
	for (size_t i = 0; err == OK && i < reply->results[0]->n_names; i++) {
		buf_set(&name, message_bytes(reply->results[0]->names[i]));
		buf_append(&name, "", 1);
		if (!fn(arg, (const char *)name.bytes))
			break;
	}
	buf_deinit(&name);
	if (reply)
		message_free(&reply->base);
	return public_result(cluster, "xattr list", path, err);
}

granary_status granary_space(struct granary_cluster *cluster, struct granary_space *out)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__StatfsOp statfs = GRANARY__STATFS_OP__INIT;
	Granary__MetaReply *reply;
	op.op_case = GRANARY__META_OP__OP_STATFS;
	op.statfs = &statfs;
	enum err err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &reply);
	if (err == OK && !reply->results[0]->statfs)
		err = ERR_PROTOCOL;
	if (err == OK) {
		const Granary__Statfs *statfs_out = reply->results[0]->statfs;
		*out = (struct granary_space){
		    .bytes_total = statfs_out->bytes_total,
		    .bytes_free = statfs_out->bytes_free,
		    .bytes_used = statfs_out->bytes_used,
		    .inodes = statfs_out->inodes,
		    .trash_bytes = statfs_out->trash_bytes,
		    .trash_files = statfs_out->trash_files,
		};
	}
	if (reply)
		message_free(&reply->base);
	return public_result(cluster, "df", "", err);
}
