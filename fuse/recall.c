#include "fuse/recall.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "fuse/request.h"

#define NOTICES_RUNNING_MAX 64u /* with workers; the rest waits its turn */

/* One notification on its way through a worker. */
struct notice {
	struct work work;
	struct mount *mount;
	struct node *node;	/* held; NULL: only the name */
	uint64_t parent;	/* of `name`; 0: no name */
	char *name;
	bool data;		/* drop pages, too */
	uint64_t nodeid;	/* of node; the worker looks at copies only */
	void (*done)(void *arg);
	void *done_arg;
	bool recall;		/* asked for by the master: `done` may be called before the kernel has done it */
	bool listed;		/* a recall not yet acknowledged */
	struct notice *next, *previous; /* listed */
	struct notice *next_waiting;
	/* To be stored at the end of the file. */
	struct buf tail;
	uint64_t tail_offset;
};

static void notice_run(struct work *work)
{
	struct notice *notice = (struct notice *)work;
	struct fuse_session *session = notice->mount->session;

	/* Errors say that the kernel does not know it (any more), which is what is wanted. */
	if (notice->tail.size > 0) {
		struct fuse_bufvec bytes = FUSE_BUFVEC_INIT(notice->tail.size);

		bytes.buf[0].mem = notice->tail.bytes;
		fuse_lowlevel_notify_store(session, notice->nodeid, (off_t)notice->tail_offset, &bytes, 0);
		return;
	}
	if (notice->nodeid)
		fuse_lowlevel_notify_inval_inode(session, notice->nodeid, notice->data ? 0 : -1, 0);
	if (notice->name)
		fuse_lowlevel_notify_inval_entry(session, notice->parent, notice->name, strlen(notice->name));
}

static void notice_acknowledge(struct notice *notice)
{
	struct mount *mount = notice->mount;

	if (!notice->listed)
		return;
	notice->listed = false;
	if (notice->previous)
		notice->previous->next = notice->next;
	else
		mount->notices = notice->next;
	if (notice->next)
		notice->next->previous = notice->previous;
	notice->done(notice->done_arg);
}

static void notice_done(struct work *work);

static void notice_send(struct notice *notice)
{
	struct mount *mount = notice->mount;

	notice->work.run = notice_run;
	notice->work.done = notice_done;
	if (mount->notices_running < NOTICES_RUNNING_MAX) {
		mount->notices_running++;
		work_submit(mount->loop, NULL, &notice->work);
		return;
	}
	if (mount->waiting_last)
		mount->waiting_last->next_waiting = notice;
	else
		mount->waiting_first = notice;
	mount->waiting_last = notice;
}

static void notice_send_next(struct mount *mount)
{
	struct notice *notice = mount->waiting_first;

	mount->notices_running--;
	if (!notice)
		return;
	mount->waiting_first = notice->next_waiting;
	if (!mount->waiting_first)
		mount->waiting_last = NULL;
	notice_send(notice);
}

static void follow(struct mount *mount, struct node *node);

static void notice_done(struct work *work)
{
	struct notice *notice = (struct notice *)work;
	struct mount *mount = notice->mount;

	notice_send_next(mount);
	if (notice->recall)
		notice_acknowledge(notice);
	else
		notice->done(notice->done_arg);
	if (notice->recall && notice->data)
		follow(mount, notice->node);
	if (notice->node)
		node_drop(&mount->handles, notice->node);
	buf_deinit(&notice->tail);
	free(notice->name);
	free(notice);
	mount_done(mount);
}

static struct notice *notice_open(struct mount *mount, struct node *node, void (*done)(void *arg), void *done_arg)
{
	struct notice *notice = mem_zero(1, sizeof *notice);

	*notice = (struct notice){.mount = mount, .node = node, .done = done, .done_arg = done_arg};
	if (node) {
		node_hold(node);
		notice->nodeid = node->nodeid;
	}
	mount_busy(mount);
	return notice;
}

/* The same for a recall, which is listed until it is acknowledged. */
static struct notice *notice_open_recall(struct mount *mount, struct node *node, void (*done)(void *arg), void *done_arg)
{
	struct notice *notice = notice_open(mount, node, done, done_arg);

	notice->recall = notice->listed = true;
	notice->next = mount->notices;
	if (notice->next)
		notice->next->previous = notice;
	mount->notices = notice;
	return notice;
}

static bool is_changing(struct mount *mount, uint64_t nodeid)
{
	struct node *node = handles_find(&mount->handles, nodeid);

	return node && node->mutating > 0;
}

void recall_yield(struct mount *mount, uint64_t nodeid)
{
	struct notice *notice = mount->notices, *next;

	for (; notice; notice = next) {
		next = notice->next;
		if (notice->nodeid == nodeid || (notice->name && notice->parent == nodeid))
			notice_acknowledge(notice);
	}
}

/* Several notices, one acknowledgement. */
struct joint {
	uint32_t left;
	void (*done)(void *arg);
	void *done_arg;
};

static void joint_done(void *arg)
{
	struct joint *joint = arg;

	if (--joint->left > 0)
		return;
	joint->done(joint->done_arg);
	free(joint);
}

static void recall_inode(struct mount *mount, uint64_t inode, struct joint *joint)
{
	for (struct node *node = handles_find_inode(&mount->handles, inode); node; node = node->older) {
		bool regular = S_ISREG(node->type);
		struct notice *notice;

		node_unlease(node);
		joint->left++;
		notice = notice_open_recall(mount, node, joint_done, joint);
		/* Of a closed file the pages may stay: open asks whether they are still right. */
		notice->data = regular && node->opens > 0;
		if (regular && node->names && node->mutating == 0) {
			/* So that the next use of the name looks it up, and may get a new epoch. */
			notice->name = mem_string(node->names->text);
			notice->parent = node->names->parent;
		}
		if (node->mutating > 0 || (notice->name && is_changing(mount, notice->parent)))
			notice_acknowledge(notice);
		notice_send(notice);
	}
}

static void recall_name(struct mount *mount, uint64_t inode, struct slice name, struct joint *joint)
{
	struct node *node = handles_find_inode(&mount->handles, inode);
	struct notice *notice;

	if (!node)
		return;
	joint->left++;
	notice = notice_open_recall(mount, NULL, joint_done, joint);
	notice->parent = node->nodeid;
	notice->name = mem_zero(1, name.size + 1);
	memcpy(notice->name, name.bytes, name.size);
	handles_drop_name(&mount->handles, notice->parent, notice->name);
	if (node->mutating > 0)
		notice_acknowledge(notice);
	notice_send(notice);
}

static void recall_invalidate(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg), void *done_arg)
{
	struct mount *mount = arg;
	struct joint *joint = mem_zero(1, sizeof *joint);

	*joint = (struct joint){.left = 1, .done = done, .done_arg = done_arg};
	mount->epoch++;
	if (name.size > 0)
		recall_name(mount, inode, name, joint);
	else
		recall_inode(mount, inode, joint);
	joint_done(joint);
}

static void recall_session_lost(void *arg)
{
	struct mount *mount = arg;
	struct node *newest, *next;
	uint64_t lost = 0;

	/* Leases are far shorter than sessions: names and attributes have run out by themselves. Locks are the rest:
	 * another client may hold them by now, and what was written under them must not reach the file. */
	mount->epoch++;
	HASH_ITER(by_inode, mount->handles.by_inode, newest, next)
	for (struct node *node = newest; node; node = node->older) {
		node_unlease(node);
		if (node->locks.count == 0)
			continue;
		node->lost = true;
		lost++;
	}
	log_warn("session_lost", "files_with_locks=%llu", (unsigned long long)lost);
}

const struct client_events recall_events = {
    .invalidate = recall_invalidate,
    .session_lost = recall_session_lost,
};

void recall_pages(struct mount *mount, struct node *node, recall_done_fn *done, void *arg)
{
	struct notice *notice = notice_open(mount, node, done, arg);

	notice->data = true;
	notice_send(notice);
}

static void nothing(void *arg)
{
	(void)arg;
}

void recall_lost(struct mount *mount, struct node *node)
{
	node_distrust(node);
	if (mount->session) /* else the process ends */
		recall_pages(mount, node, nothing, NULL);
}

/* A refresh: the data layer learns the new attributes, the pages are dropped, the last piece of a grown file is read, and
 * stored in the kernel, which moves its end of the file there.
 *
 *	recall_refresh -> (pages dropped) refresh_read -> refresh_store -> (stored) refresh_end */
struct refresh {
	struct mount *mount;
	struct node *node; /* held */
	struct file_io *io;
	Granary__Inode *attr;
	recall_done_fn *done;
	void *arg;
};

static void refresh_end(void *arg)
{
	struct refresh *refresh = arg;
	struct mount *mount = refresh->mount;

	node_learn(refresh->node, refresh->attr);
	refresh->done(refresh->arg);
	file_io_close(refresh->io);
	message_free(&refresh->attr->base);
	node_drop(&mount->handles, refresh->node);
	free(refresh);
	mount_done(mount);
}

static void refresh_store(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct refresh *refresh = arg;
	struct notice *notice;

	if (err != OK || part_count == 0) {
		refresh_end(refresh);
		return;
	}
	notice = notice_open(refresh->mount, refresh->node, refresh_end, refresh);
	notice->tail_offset = (refresh->attr->size - 1) / BLOCK_BYTES * BLOCK_BYTES;
	for (size_t i = 0; i < part_count; i++)
		buf_append_slice(&notice->tail, parts[i]);
	notice_send(notice);
}

static void refresh_read(void *arg)
{
	struct refresh *refresh = arg;
	uint64_t size = refresh->attr->size;
	uint64_t start;

	if (size <= refresh->node->size) {
		refresh_end(refresh);
		return;
	}
	start = (size - 1) / BLOCK_BYTES * BLOCK_BYTES;
	file_io_read(refresh->io, start, (size_t)(size - start), refresh_store, refresh);
}

void recall_refresh(struct mount *mount, struct node *node, const Granary__Inode *attr, recall_done_fn *done, void *arg)
{
	struct refresh *refresh = mem_zero(1, sizeof *refresh);

	*refresh = (struct refresh){.mount = mount, .node = node, .done = done, .arg = arg};
	refresh->attr = (Granary__Inode *)message_copy(&attr->base);
	refresh->io = file_io_open(mount->client, node->inode, attr);
	node_hold(node);
	mount_busy(mount);
	recall_pages(mount, node, refresh_read, refresh);
}

/* A file that is open here was recalled: who reads at its end is to see it grow, though the kernel does not ask. */
static void follow_end(void *arg)
{
	struct request *request = arg;

	request->node->following = false;
	request_close(request);
}

static void follow_answer(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct node *node = request->node;

	if (result && result->attr && node->opens > 0 && mount_judge(node, result->attr) == NODE_CHANGED)
		recall_refresh(request->mount, node, result->attr, follow_end, request);
	else
		follow_end(request);
}

static void follow(struct mount *mount, struct node *node)
{
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	if (node->following || node->opens == 0)
		return;
	node->following = true;
	getattr.inode = node->inode;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	request_meta(request_open_silent(mount, node), &op, follow_answer);
}
