/* opendir, readdir, readdirplus: names come from the master in batches and stay with the handle (cursor.h). */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "fuse/cursor.h"
#include "fuse/ops.h"
#include "fuse/reply.h"

#define INODE_UNKNOWN 0xffffffffu /* as libfuse says it in readdir */

struct dir_handle {
	struct cursor cursor;
	uint64_t inode;
	bool kept; /* all names are there, and as they are now: not to be asked for again */
	uint64_t parent; /* inode of "..", once known */
	/* The newest batch with its attributes, for names [batch_first, batch_first + n_entries); used while nothing has
	 * changed since it was asked for (mount.epoch): an entry in it must not bring back what is gone. */
	const Granary__MetaReply *batch;
	size_t batch_first;
	uint64_t batch_epoch, batch_started_ms, batch_answered_ms;
	struct dir_handle *prev, *next; /* in mount.dirs: a mount that is cut off gets no releasedir */
};

static void batch_drop(struct dir_handle *dir)
{
	if (dir->batch)
		message_unref(&dir->batch->base);
	dir->batch = NULL;
}

static void dir_free(struct mount *mount, struct dir_handle *dir)
{
	if (!dir)
		return;
	DL_DELETE(mount->dirs, dir);
	batch_drop(dir);
	cursor_deinit(&dir->cursor);
	free(dir);
}

/* Programs like rm open a directory twice, to look and then to work. What the first handle has read of a directory that is
 * delegated to us (with that answer, or before) serves the second, if nothing was changed or recalled in between. */
static void dir_keep(struct mount *mount, struct dir_handle *dir)
{
	dir_free(mount, mount->kept_dir);
	mount->kept_dir = dir;
}

static struct dir_handle *dir_take(struct mount *mount, uint64_t inode)
{
	struct dir_handle *dir = mount->kept_dir;

	if (!dir || dir->inode != inode)
		return NULL;
	mount->kept_dir = NULL;
	dir->kept = dir->batch && dir->batch_first == 0 && dir->cursor.end && dir->batch_epoch == mount->epoch &&
		    client_is_delegated_since(mount->client, inode, dir->batch_answered_ms + 1) &&
		    !client_is_changing(mount->client, inode);
	if (dir->kept)
		return dir;
	dir_free(mount, dir);
	return NULL;
}

void dirs_deinit(struct mount *mount)
{
	mount->kept_dir = NULL;
	while (mount->dirs)
		dir_free(mount, mount->dirs);
}

void on_opendir(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file)
{
	struct mount *mount = fuse_req_userdata(fuse);
	struct node *node = handles_find(&mount->handles, nodeid);
	struct dir_handle *dir = node ? dir_take(mount, node->inode) : NULL;

	if (!dir) {
		dir = mem_zero(1, sizeof *dir);
		dir->inode = node ? node->inode : 0;
		DL_APPEND(mount->dirs, dir);
	}
	file->fh = (uint64_t)(uintptr_t)dir;
	if (fuse_reply_open(fuse, file) != 0)
		dir_free(mount, dir);
}

void on_releasedir(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file)
{
	(void)nodeid;
	dir_keep(fuse_req_userdata(fuse), (struct dir_handle *)(uintptr_t)file->fh);
	fuse_reply_err(fuse, 0);
}

static void fsyncdir_done(struct request *request)
{
	request_end(request, OK);
}

void on_fsyncdir(fuse_req_t fuse, fuse_ino_t nodeid, int data_only, struct fuse_file_info *file)
{
	struct request *request = request_open(fuse, nodeid);

	(void)data_only;
	(void)file;
	/* Every change of a name is on the disks of a majority of the masters before it is answered; but for files made by
	 * ourselves. */
	if (request)
		request_barrier(request, request->node->inode, fsyncdir_done);
}

/* The attributes of name i if they are there and still to be trusted. */
static const Granary__DirectoryEntry *batch_entry(const struct mount *mount, const struct dir_handle *dir, size_t i)
{
	const Granary__MetaResult *result;

	if (!dir->batch || dir->batch_epoch != mount->epoch || i < dir->batch_first)
		return NULL;
	result = dir->batch->results[0];
	if (i - dir->batch_first >= result->n_entries || !result->entries[i - dir->batch_first]->attr)
		return NULL;
	return result->entries[i - dir->batch_first];
}

/* Adds one entry; 0 when it does not fit. */
static size_t add_plus(struct request *request, char *to, size_t room, size_t i, const struct cursor_name *name,
		       off_t next)
{
	struct mount *mount = request->mount;
	const Granary__DirectoryEntry *entry = batch_entry(mount, request->dir, i);
	struct fuse_entry_param param = {0};
	struct node *node = NULL;
	size_t used;

	if (entry) {
		node = mount_entry(mount, entry->attr, entry->inode, entry->lease_ms, request->dir->batch_started_ms,
				   &param);
		node_name(&mount->handles, node, request->node->nodeid, name->name, request->dir->batch_started_ms);
	} else {
		/* No nodeid: the kernel takes the name and looks it up when it needs more. */
		param.attr.st_ino = name->inode;
		param.attr.st_mode = (mode_t)DTTOIF(name->type);
	}
	used = fuse_add_direntry_plus(request->fuse, to, room, name->name, &param, next);
	if (used <= room)
		return used;
	if (node)
		node_forget(&mount->handles, node, 1);
	return 0;
}

static size_t add_plain(struct request *request, char *to, size_t room, const struct cursor_name *name, off_t next)
{
	struct stat stat = {.st_ino = name->inode, .st_mode = (mode_t)DTTOIF(name->type)};
	size_t used = fuse_add_direntry(request->fuse, to, room, name->name, &stat, next);

	return used <= room ? used : 0;
}

static size_t add_dot(struct request *request, char *to, size_t room, bool plus, uint64_t position)
{
	struct fuse_entry_param param = {.attr = {.st_mode = S_IFDIR}};
	uint64_t parent = request->dir->parent ? request->dir->parent : INODE_UNKNOWN;
	const char *name = position == 0 ? "." : "..";
	size_t used;

	param.attr.st_ino = position == 0 ? request->node->inode : parent;
	if (plus)
		used = fuse_add_direntry_plus(request->fuse, to, room, name, &param, (off_t)(position + 1));
	else
		used = fuse_add_direntry(request->fuse, to, room, name, &param.attr, (off_t)(position + 1));
	return used <= room ? used : 0;
}

/* Replies with the names from the request's position on, as many as fit. */
static void reply_names(struct request *request)
{
	const struct cursor *cursor = &request->dir->cursor;
	bool plus = request->flags;
	uint64_t position = request->offset;
	char *bytes = mem_alloc(request->size);
	size_t used = 0;

	/* Nobody will forget the entries that nobody gets. */
	if (request->given_up)
		position = UINT64_MAX;
	for (; position < CURSOR_DOTS + cursor->count; position++) {
		size_t i = (size_t)(position - CURSOR_DOTS);
		struct cursor_name name;
		size_t added;

		if (position < CURSOR_DOTS) {
			added = add_dot(request, bytes + used, request->size - used, plus, position);
		} else {
			name = cursor_get(cursor, i);
			added = plus ? add_plus(request, bytes + used, request->size - used, i, &name,
						(off_t)(position + 1))
				     : add_plain(request, bytes + used, request->size - used, &name,
						 (off_t)(position + 1));
		}
		if (added == 0)
			break;
		used += added;
	}
	fuse_reply_buf(request->fuse, bytes, used);
	free(bytes);
	request_close(request);
}

static enum err take_batch(struct dir_handle *dir, const Granary__MetaResult *result)
{
	for (size_t i = 0; i < result->n_entries; i++) {
		const Granary__DirectoryEntry *entry = result->entries[i];
		struct slice name = message_bytes(entry->name);
		enum err err;

		if (name.size == 0 || name.size > NAME_BYTES_MAX || memchr(name.bytes, '\0', name.size))
			return ERR_PROTOCOL;
		err = cursor_add(&dir->cursor, name, entry->inode, entry->type);
		if (err != OK)
			return err;
	}
	dir->cursor.end = result->end || result->n_entries == 0;
	return OK;
}

static void names_need(struct request *request);

static void fetch_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	struct dir_handle *dir = request->dir;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	enum err attr_err = OK;
	const Granary__MetaResult *attr = request_result(&attr_err, reply, 1, NULL);

	/* A directory that has been removed has no names. */
	if (err == ERR_NOT_FOUND) {
		dir->cursor.end = true;
		err = OK;
	}
	if (attr && attr->attr)
		dir->parent = attr->attr->parent;
	batch_drop(dir);
	if (result) {
		dir->batch_first = dir->cursor.count;
		err = take_batch(dir, result);
	}
	if (err != OK) {
		request_end(request, err);
		return;
	}
	if (result && request->flags) {
		message_ref(&reply->base);
		dir->batch = reply;
		dir->batch_started_ms = request->started_ms;
		dir->batch_answered_ms = loop_now_ms(request->mount->loop);
	}
	names_need(request);
}

static void fetch_send(struct request *request)
{
	struct dir_handle *dir = request->dir;
	Granary__Readdir readdir = GRANARY__READDIR__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op[2] = {GRANARY__META_OP__INIT, GRANARY__META_OP__INIT};
	Granary__MetaOp *ops[2] = {&op[0], &op[1]};

	readdir.inode = getattr.inode = request->node->inode;
	readdir.after = message_borrow(cursor_last(&dir->cursor));
	readdir.count = READDIR_ENTRIES_MAX;
	readdir.attributes = request->flags;
	op[0].op_case = GRANARY__META_OP__OP_READDIR;
	op[0].readdir = &readdir;
	op[1].op_case = GRANARY__META_OP__OP_GETATTR;
	op[1].getattr = &getattr;
	dir->batch_epoch = request->mount->epoch;
	request->started_ms = loop_now_ms(request->mount->loop);
	client_meta(request->mount->client, ops, dir->parent ? 1 : 2, fetch_done, request);
}

static void fetch(struct request *request)
{
	request_barrier(request, request->node->inode, fetch_send);
}

/* Replies if the position has been fetched or does not exist, else fetches on. */
static void names_need(struct request *request)
{
	const struct cursor *cursor = &request->dir->cursor;

	if (cursor->end || request->offset < CURSOR_DOTS + cursor->count)
		if (request->offset >= CURSOR_DOTS || cursor->end || cursor->count > 0) {
			reply_names(request);
			return;
		}
	fetch(request);
}

static void read_names(fuse_req_t fuse, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *file,
		       bool plus)
{
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return;
	request->dir = (struct dir_handle *)(uintptr_t)file->fh;
	request->flags = plus;
	request->size = size < MOUNT_IO_BYTES_MAX ? size : MOUNT_IO_BYTES_MAX;
	request->offset = (uint64_t)offset;
	if (offset == 0 && !request->dir->kept) {
		batch_drop(request->dir);
		cursor_reset(&request->dir->cursor);
	}
	request->dir->kept = false;
	names_need(request);
}

void on_readdir(fuse_req_t fuse, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *file)
{
	read_names(fuse, nodeid, size, offset, file, false);
}

void on_readdirplus(fuse_req_t fuse, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *file)
{
	read_names(fuse, nodeid, size, offset, file, true);
}
