/* open, create, flush, release: a file in use, from the kernel's first handle to the last flush. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "fuse/open_reply.h"
#include "fuse/ops.h"
#include "fuse/privileges.h"
#include "fuse/recall.h"
#include "fuse/reply.h"

/* The kernel's handle needs to say only one thing. */
#define HANDLE_READS 1u
#define HANDLE_WRITES 2u

static bool writes(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

static void node_update(struct mount *mount, struct node *node, const Granary__Inode *attr)
{
	if (!node->io)
		node->io = file_io_open(mount->client, node->inode, attr);
	else
		file_io_update(node->io, attr);
}

static void handle_opened(struct request *request)
{
	struct node *node = request->node;

	node->opens++;
	if (writes(request->file.flags))
		node->write_opens++;
	request->file.fh = writes(request->file.flags) ? HANDLE_WRITES : HANDLE_READS;
	client_note_opened(request->mount->client, node->inode);
}

/* Nothing of the node is open any more and nothing is left to flush. */
static void node_closed(struct node *node)
{
	if (node->opens > 0 || !node->io)
		return;
	file_io_close(node->io);
	node->io = NULL;
	if (node->lost)
		node_distrust(node);
	node->lost = false;
	lock_book_deinit(&node->locks);
}

static void handle_closed(struct mount *mount, struct node *node, uint64_t handle)
{
	check(node->opens > 0);
	/* The data layer flushes by itself, too: what it has committed is no change by others. */
	if (handle == HANDLE_WRITES && node->io) { /* NULL: the process ends */
		node_learn(node, file_io_attr(node->io));
		mount->epoch++;
	}
	node->opens--;
	if (handle == HANDLE_WRITES)
		node->write_opens--;
	client_note_closed(mount->client, node->inode);
}

/* ---- open
 *
 *	Open at the master -> (truncate) -> reply          changed by others: ESTALE, or refresh -> (truncate) -> reply */

static void open_reply(struct request *request)
{
	struct node *node = request->node;

	if (open_reply_send(request->fuse, &request->file) != 0) {
		handle_closed(request->mount, node, request->file.fh);
		node_closed(node);
	}
	request_close(request);
}

static void open_truncated(void *arg, enum err err)
{
	struct request *request = arg;
	struct node *node = request->node;

	if (err != OK) {
		handle_closed(request->mount, node, request->file.fh);
		node_closed(node);
		request_end(request, err);
		return;
	}
	node_learn(node, file_io_attr(node->io));
	node->size = 0;
	open_reply(request);
}

static void open_truncate(struct request *request, enum err err)
{
	if (err == OK)
		file_io_truncate(request->node->io, 0, open_truncated, request);
	else
		open_truncated(request, err);
}

static void open_ready(void *arg)
{
	struct request *request = arg;
	struct node *node = request->node;

	if (!(request->file.flags & O_TRUNC)) {
		if (!writes(request->file.flags) && !node->was_read)
			file_io_read_ahead(node->io);
		open_reply(request);
		return;
	}
	request_changes(request, node);
	if (request->drop)
		privileges_drop(request, true, open_truncate);
	else
		open_truncate(request, OK);
}

/* Gone or changed since the kernel looked it up: let it look again. It does so once for a call. */
static void open_stale(struct request *request)
{
	node_stale(request->node, loop_now_ms(request->mount->loop));
	request_end_errno(request, ESTALE);
}

/* Others change the file faster than the kernel can look it up: it is opened as it is. A longer file is told to the
 * kernel; one that has become shorter is read past the page cache, where the kernel's idea of the end does not count. */
static bool open_in_place(struct request *request, const Granary__Inode *attr)
{
	struct node *node = request->node;

	if (node->untrue || loop_now_ms(request->mount->loop) >= node->retry_until_ms)
		return false;
	if (attr->size < node->size) {
		request->file.flags |= O_DIRECT;
		node_distrust(node);
	}
	return true;
}

static void open_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct node *node = request->node;
	bool changed;

	if (!result || !result->attr) {
		if (err == ERR_NOT_FOUND)
			open_stale(request);
		else
			request_end(request, err == OK ? ERR_PROTOCOL : err);
		return;
	}
	changed = mount_judge(node, result->attr) == NODE_CHANGED;
	if (changed && !node_is_writing(node) && !open_in_place(request, result->attr)) {
		/* The kernel retries with a lookup, which gives the file a new epoch. The master has noted an open. */
		client_note_opened(request->mount->client, node->inode);
		client_note_closed(request->mount->client, node->inode);
		open_stale(request);
		return;
	}
	node_lease(node, result->attr, request->started_ms + result->lease_ms);
	node_update(request->mount, node, result->attr);
	handle_opened(request);
	/* Pages stay only where they are known to be those of the file as it is. */
	request->file.keep_cache = !changed;
	if (changed) {
		recall_refresh(request->mount, node, result->attr, open_ready, request);
		return;
	}
	node_learn(node, result->attr);
	open_ready(request);
}

/* Under a lease on the file as it is: before another client's change of it is answered, or its last name gone for good, the lease is
 * recalled or has run out. The leader learns of the open file with the next keepalive, and frees none before that (master/reclaim.h). */
static bool open_known(struct request *request)
{
	struct mount *mount = request->mount;
	struct node *node = request->node;
	uint64_t started_ms;
	const Granary__DirectoryEntry *entry;

	if (writes(request->file.flags) || request->file.flags & O_TRUNC || node->io || node->mutating > 0 ||
	    client_is_changing(mount->client, node->inode))
		return false;
	entry = ahead_known(mount, node, &started_ms);
	if (!entry || mount_judge(node, entry->attr) == NODE_CHANGED || entry->attr->change < node->change)
		return false;
	node->io = file_io_open_known(mount->client, node->inode, entry->attr, started_ms);
	handle_opened(request);
	request->file.keep_cache = 1;
	open_ready(request);
	return true;
}

void on_open(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file)
{
	Granary__Open message = GRANARY__OPEN__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return;
	request->file = *file;
	if (node_is_local(request->node)) {
		handle_opened(request);
		request->file.keep_cache = 1;
		open_ready(request);
		return;
	}
	if (open_known(request))
		return;
	message.inode = request->node->inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &message;
	request_meta(request, &op, open_done);
}

/* ---- create */

/* The request's node becomes the new file's. */
static void create_reply(struct request *request, struct node *node, const Granary__Inode *attr, const struct fuse_entry_param *entry)
{
	struct node *parent = request->node;

	node_name(&request->mount->handles, node, parent->nodeid, request->name, request->started_ms);
	node_hold(node);
	node_drop(&request->mount->handles, parent);
	request->node = node;
	node_update(request->mount, node, attr);
	handle_opened(request);
	request->file.keep_cache = 1;
	if (request->file.flags & O_DIRECT)
		request->file.direct_io = 1;
	if (fuse_reply_create(request->fuse, entry, &request->file) != 0) {
		handle_closed(request->mount, node, request->file.fh);
		node_closed(node);
		node_forget(&request->mount->handles, node, 1);
	}
	request_close(request);
}

static void create_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct fuse_entry_param entry;
	struct node *node;

	if (!result || !result->attr) {
		/* The kernel believed that the name was free. Without O_EXCL the file that is there now is to be opened,
		 * but with its permissions checked: which the kernel does when it looks up again. */
		if (err == ERR_EXISTS && !(request->file.flags & O_EXCL))
			request_end_errno(request, ESTALE);
		else
			request_end(request, err == OK ? ERR_PROTOCOL : err);
		return;
	}
	node = mount_entry(request->mount, result->attr, result->inode, result->lease_ms, request->started_ms, &entry);
	create_reply(request, node, result->attr, &entry);
}

static void create_message(const struct request *request, Granary__Create *message)
{
	message->parent = request->node->inode;
	message->name = message_borrow(slice_text(request->name));
	message->mode = (request->attr.st_mode & 07777) | S_IFREG;
	message->uid = request->attr.st_uid;
	message->gid = request->attr.st_gid;
	message->exclusive = true;
}

/* In a directory that is delegated to us: the master is told when the file is closed. */
static bool create_local(struct request *request)
{
	struct mount *mount = request->mount;
	Granary__Create message = GRANARY__CREATE__INIT;
	struct fuse_entry_param entry;
	struct file_io *io;
	struct node *node;

	create_message(request, &message);
	io = file_io_create_local(mount->client, &message);
	if (!io)
		return false;
	node = mount_entry(mount, file_io_attr(io), file_io_inode(io), client_delegation_ms(mount->client, message.parent),
			   loop_now_ms(mount->loop), &entry);
	node->io = io;
	create_reply(request, node, file_io_attr(io), &entry);
	return true;
}

static void create_send(struct request *request)
{
	Granary__Create message = GRANARY__CREATE__INIT;
	Granary__Open open_created = GRANARY__OPEN__INIT;
	Granary__MetaOp op[2] = {GRANARY__META_OP__INIT, GRANARY__META_OP__INIT};
	Granary__MetaOp *ops[2] = {&op[0], &op[1]};

	create_message(request, &message);
	op[0].op_case = GRANARY__META_OP__OP_CREATE;
	op[0].create = &message;
	/* Of the inode just made: the master notes that it is in use. */
	op[1].op_case = GRANARY__META_OP__OP_OPEN;
	op[1].open = &open_created;
	request->started_ms = loop_now_ms(request->mount->loop);
	client_meta(request->mount->client, ops, 2, create_done, request);
}

void on_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file)
{
	const struct fuse_ctx *context = fuse_req_ctx(fuse);
	struct request *request;

	if (strlen(name) > NAME_BYTES_MAX) {
		fuse_reply_err(fuse, ENAMETOOLONG);
		return;
	}
	request = request_open(fuse, parent);
	if (!request)
		return;
	request_changes(request, request->node);
	request->name = mem_string(name);
	request->file = *file;
	request->attr.st_mode = mode;
	request->attr.st_uid = context->uid;
	request->attr.st_gid = context->gid;
	if (create_local(request))
		return;
	if (client_find_local(request->mount->client, request->node->inode, slice_text(name)))
		request_barrier(request, request->node->inode, create_send);
	else
		create_send(request);
}

/* ---- flush, release */

static void flush_unlocked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	request_result(&err, reply, 0, NULL);
	request_end(arg, err);
}

static void flush_locks(struct request *request)
{
	if (lock_held(request->node, request->file.lock_owner, false))
		lock_drop(request, request->file.lock_owner, false, flush_unlocked);
	else
		request_end(request, OK);
}

static void flush_done(void *arg, enum err err)
{
	struct request *request = arg;

	if (err != OK) {
		recall_lost(request->mount, request->node);
		request_end(request, err);
		return;
	}
	node_learn(request->node, file_io_attr(request->node->io));
	flush_locks(request);
}

static void behind_done(void *arg, enum err err)
{
	struct request *request = arg;
	struct node *node = request->node;

	if (err != OK)
		node->lost = node->opens > 0;
	else if (node->io)
		node_learn(node, file_io_attr(node->io));
	request_close(request);
}

/* A file that the master does not know yet is stored after close(2) has returned. */
static void flush_behind(struct mount *mount, struct node *node)
{
	struct request *request = request_open_silent(mount, node);

	request_changes(request, node);
	file_io_flush_behind(node->io, behind_done, request);
}

/* close(2). The kernel has sent all its dirty pages before. */
void on_flush(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file)
{
	struct request *request = request_open(fuse, nodeid);
	struct node *node;

	if (!request)
		return;
	node = request->node;
	request->file = *file;
	request->moves_data = true;
	if (node->lost) {
		request_end(request, ERR_IO);
	} else if (node->io && file_io_is_stranded(node->io)) { /* nothing can have been written since */
		flush_locks(request);
	} else if (node->io && file_io_may_be_behind(node->io)) {
		flush_behind(request->mount, node);
		flush_locks(request);
	} else if (node->io && file_io_dirty(node->io)) {
		request_changes(request, node);
		file_io_flush(node->io, flush_done, request);
	} else {
		flush_locks(request);
	}
}

static void release_end(struct request *request)
{
	struct node *node = request->node;

	handle_closed(request->mount, node, request->file.fh);
	node_closed(node);
	request_close(request);
}

static void release_unlocked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	(void)err;
	(void)reply;
	release_end(arg);
}

/* A flock ends with its file description, after what was written under it is out. */
static void release_unlock(struct request *request)
{
	if (request->file.flock_release)
		lock_drop(request, request->file.lock_owner, true, release_unlocked);
	else
		release_end(request);
}

static void release_flushed(void *arg, enum err err)
{
	struct request *request = arg;

	/* close(2) has reported what it could; nobody waits any more. */
	if (err == OK) {
		node_learn(request->node, file_io_attr(request->node->io));
	} else {
		log_error("written_data_lost", "inode=%llu error=%s after=close", (unsigned long long)request->node->inode,
			  err_name(err));
		recall_lost(request->mount, request->node);
	}
	release_unlock(request);
}

void on_release(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file)
{
	struct mount *mount = fuse_req_userdata(fuse);
	struct node *node = handles_find(&mount->handles, nodeid);
	struct request *request;

	/* Nobody waits for a release: answered first, so that umount does not cut it off. */
	fuse_reply_err(fuse, 0);
	if (!node)
		return;
	request = request_open_silent(mount, node);
	request->file = *file;
	if (node->io && file_io_is_stranded(node->io) && node->opens > 1) { /* the last one waits for it */
		release_unlock(request);
	} else if (node->io && file_io_dirty(node->io) && !node->lost) {
		request_changes(request, node);
		if (node_is_local(node) || file_io_is_stranded(node->io))
			file_io_flush_behind(node->io, release_flushed, request);
		else
			file_io_flush(node->io, release_flushed, request);
	} else {
		release_unlock(request);
	}
}
