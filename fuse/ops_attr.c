#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/setattr.h"
#include "fuse/ops.h"
#include "fuse/privileges.h"
#include "fuse/recall.h"
#include "fuse/reply.h"

static void ask_attr(struct request *request, client_meta_fn *done)
{
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	getattr.inode = request->node->inode;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	request_meta(request, &op, done);
}

/* ---- getattr */

/* What the master said, while a refresh is under way. */
struct pending_attr {
	struct request *request;
	Granary__Inode *attr;
	uint32_t lease_ms;
};

static void getattr_refreshed(void *arg)
{
	struct pending_attr *pending = arg;

	request_attr(pending->request, pending->attr, pending->lease_ms);
	message_free(&pending->attr->base);
	free(pending);
}

/* A file that others changed: the kernel would not believe the new size under this nodeid. A path is looked up again
 * after ESTALE (path_openat and others retry with LOOKUP_REVAL) and gets a new epoch. An open file can at least grow. */
static void getattr_changed(struct request *request, const Granary__MetaResult *result)
{
	struct pending_attr *pending;

	uint64_t now_ms = loop_now_ms(request->mount->loop);
	bool retried = now_ms < request->node->retry_until_ms && !request->node->untrue;

	if (request->node->opens == 0 && !node_is_writing(request->node) && !retried) {
		node_stale(request->node, now_ms);
		request_end_errno(request, ESTALE);
		return;
	}
	pending = mem_zero(1, sizeof *pending);
	pending->request = request;
	pending->attr = (Granary__Inode *)message_copy(&result->attr->base);
	pending->lease_ms = result->lease_ms;
	recall_refresh(request->mount, request->node, result->attr, getattr_refreshed, pending);
}

static void getattr_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct node *node = request->node;

	if (err == ERR_NOT_FOUND && S_ISREG(node->type)) {
		/* Replaced and gone before the kernel asked: under its name there is another by now, or nothing. */
		request_end_errno(request, ESTALE);
		return;
	}
	if (!result || !result->attr) {
		request_end(request, err == OK ? ERR_PROTOCOL : err);
		return;
	}
	if (mount_judge(node, result->attr) == NODE_CHANGED) {
		getattr_changed(request, result);
		return;
	}
	node_learn(node, result->attr);
	if (node->io)
		file_io_update(node->io, result->attr);
	if (S_ISDIR(result->attr->mode))
		client_directory_learn(request->mount->client, node->inode, request->offset, result->attr);
	request_attr(request, result->attr, result->lease_ms);
}

void on_getattr(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file)
{
	struct request *request = request_open(fuse, nodeid);

	const Granary__Inode *known = NULL;
	uint32_t lease_ms = 0;

	(void)file;
	if (!request)
		return;
	if (node_is_local(request->node)) {
		known = file_io_attr(request->node->io);
		lease_ms = file_io_local_ms(request->node->io);
	} else if (S_ISDIR(request->node->type)) {
		known = client_directory_attr(request->mount->client, request->node->inode);
		lease_ms = client_delegation_ms(request->mount->client, request->node->inode);
	}
	if (known) {
		request_attr(request, known, lease_ms);
		return;
	}
	request->offset = client_directory_epoch(request->mount->client, request->node->inode);
	ask_attr(request, getattr_done);
}

/* ---- setattr
 *
 *	size given:  (set-id bits dropped ->) (no file_io: ask_attr ->) truncate -> rest       otherwise: rest
 *	rest:        nothing left -> reply      only times of a file that is to be flushed -> keep them for the flush
 *	             else one Setattr operation */

static void setattr_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct node *node = request->node;

	if (!result || !result->attr) {
		request_end(request, err == OK ? ERR_PROTOCOL : err);
		return;
	}
	if (node->io)
		file_io_update(node->io, result->attr);
	node_learn(node, result->attr);
	request_attr(request, result->attr, result->lease_ms);
}

static bool only_times(uint32_t mask)
{
	return mask != 0 && (mask & ~(uint32_t)(SETATTR_ATIME | SETATTR_MTIME | SETATTR_CTIME)) == 0;
}

/* The data layer takes 0 for "no time given". */
static bool is_epoch(const Granary__Setattr *message)
{
	return (message->mask & SETATTR_ATIME && message->atime == 0) ||
	       (message->mask & SETATTR_MTIME && message->mtime == 0);
}

static void setattr_message(const struct request *request, Granary__Setattr *message)
{
	reply_setattr(&request->attr, request->flags, message);
	message->inode = request->node->inode;
	/* A change of the owner: before a truncation they have been dropped. */
	message->by_owner_only = request->drop && !(request->flags & FUSE_SET_ATTR_SIZE);
}

static void setattr_send(struct request *request)
{
	Granary__Setattr message = GRANARY__SETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	setattr_message(request, &message);
	op.op_case = GRANARY__META_OP__OP_SETATTR;
	op.setattr = &message;
	request_meta(request, &op, setattr_done);
}

/* In a directory that is delegated to us. */
static bool setattr_local(struct request *request)
{
	struct client *client = request->mount->client;
	Granary__Setattr message = GRANARY__SETATTR__INIT;

	setattr_message(request, &message);
	if (!client_setattr_directory(client, &message))
		return false;
	request_attr(request, client_directory_attr(client, message.inode), client_delegation_ms(client, message.inode));
	return true;
}

static void setattr_directory(struct request *request)
{
	if (!setattr_local(request))
		setattr_send(request);
}

/* What the master has just been told for the first time. */
static void setattr_stored(void *arg, enum err err)
{
	struct request *request = arg;

	if (err == OK)
		setattr_send(request);
	else
		request_end(request, err);
}

/* After a rename, link or unlink the kernel writes its own idea of the file's change time back, with the modification
 * time as it is. The change time is always the master's, and has just been set by that operation: nothing to commit. */
static bool only_change_time(const struct request *request)
{
	const struct node *node = request->node;
	const struct timespec *mtime = &request->attr.st_mtim;

	return request->flags == (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME) &&
	       mtime->tv_sec * 1000000000 + mtime->tv_nsec == node->mtime;
}

/* The kernel does not look at the answer, except where a program set the time that the file had; then it asks again before it
 * believes it. */
static void answer_as_is(struct request *request)
{
	const struct node *node = request->node;
	Granary__Inode attr = GRANARY__INODE__INIT;
	struct stat stat;

	attr.mode = node->mode;
	attr.uid = node->uid;
	attr.gid = node->gid;
	attr.nlink = node->nlink;
	attr.size = node->size;
	attr.atime = node->atime;
	attr.mtime = node->mtime;
	attr.ctime = node->ctime;
	reply_stat(node->inode, &attr, NULL, &stat);
	fuse_reply_attr(request->fuse, &stat, 0);
	request_close(request);
}

static void setattr_rest(struct request *request);

static void setattr_flushed(void *arg, enum err err)
{
	struct request *request = arg;

	if (err == OK)
		setattr_rest(request);
	else
		request_end(request, err);
}

static void setattr_rest(struct request *request)
{
	struct file_io *io = request->node->io ? request->node->io : request->io;
	Granary__Setattr message = GRANARY__SETATTR__INIT;
	bool dirty = io && file_io_dirty(io);

	setattr_message(request, &message);
	if (io && file_io_is_local(io)) {
		if (!is_epoch(&message) && file_io_setattr_local(io, &message))
			request_attr(request, file_io_attr(io), file_io_local_ms(io));
		else
			file_io_flush(io, setattr_stored, request);
		return;
	}
	if (dirty && is_epoch(&message)) {
		file_io_flush(io, setattr_flushed, request);
		return;
	}
	/* With its writeback cache the kernel sends the times of a written file before every flush. They go with the
	 * commit of the data; a commit of their own would double the work of every small file. The change time is
	 * always the master's. */
	if (io && (message.mask == 0 || (dirty && only_times(message.mask)))) {
		file_io_set_times(io, message.atime, message.mtime);
		request_attr(request, file_io_attr(io), 0);
		return;
	}
	if (!dirty && only_change_time(request))
		answer_as_is(request);
	else
		setattr_send(request);
}

static void truncate_done(void *arg, enum err err)
{
	struct request *request = arg;
	struct file_io *io = request->node->io ? request->node->io : request->io;

	if (err != OK) {
		request_end(request, err);
		return;
	}
	node_learn(request->node, file_io_attr(io));
	request->node->size = request->size;
	setattr_rest(request);
}

static void truncate_attr(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);

	if (!result || !result->attr) {
		request_end(request, err == OK ? ERR_PROTOCOL : err);
		return;
	}
	request->io = file_io_open(request->mount->client, request->node->inode, result->attr);
	file_io_truncate(request->io, request->size, truncate_done, request);
}

static void setattr_size(struct request *request, enum err err)
{
	struct file_io *io = request->node->io ? request->node->io : request->io;

	if (err != OK)
		request_end(request, err);
	else if (io)
		file_io_truncate(io, request->size, truncate_done, request);
	else
		ask_attr(request, truncate_attr);
}

void on_setattr(fuse_req_t fuse, fuse_ino_t nodeid, struct stat *attr, int valid, struct fuse_file_info *file)
{
	struct request *request = request_open(fuse, nodeid);

	(void)file;
	if (!request)
		return;
	if (request->node->lost) {
		request_end(request, ERR_IO);
		return;
	}
	request_changes(request, request->node);
	request->attr = *attr;
	request->flags = valid;
	if (S_ISDIR(request->node->type)) {
		/* What was made in it before must not change its times later. */
		if (!setattr_local(request))
			request_barrier(request, request->node->inode, setattr_directory);
		return;
	}
	/* The last handle may be closed meanwhile. */
	if (request->node->io)
		request->io = file_io_ref(request->node->io);
	if (!(valid & FUSE_SET_ATTR_SIZE)) {
		setattr_rest(request);
		return;
	}
	request->size = (uint64_t)attr->st_size;
	if (request->size > FILE_BYTES_MAX)
		request_end(request, ERR_TOO_LARGE);
	else if (request->drop)
		privileges_drop(request, true, setattr_size);
	else
		setattr_size(request, OK);
}

/* ---- statfs */

static void statfs_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct statvfs stat;

	if (!result || !result->statfs) {
		request_end(request, err == OK ? ERR_PROTOCOL : err);
		return;
	}
	reply_statfs(result->statfs, &stat);
	fuse_reply_statfs(request->fuse, &stat);
	request_close(request);
}

void on_statfs(fuse_req_t fuse, fuse_ino_t nodeid)
{
	Granary__StatfsOp statfs = GRANARY__STATFS_OP__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request = request_open(fuse, nodeid == 0 ? FUSE_ROOT_ID : nodeid);

	if (!request)
		return;
	op.op_case = GRANARY__META_OP__OP_STATFS;
	op.statfs = &statfs;
	request_meta(request, &op, statfs_done);
}
