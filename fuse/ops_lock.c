/* fcntl and flock locks, kept by the master, so that they hold between mounts.
 *
 * A lock is also the point at which programs on several mounts expect to see each other's writes: when one is granted and
 * the file has been changed by others, its pages are dropped (recall_refresh); before one that allowed writing is given
 * back, what was written goes out to the master.
 *
 *	setlk:   ask -> granted -> (changed: refresh) -> reply          blocked, waiting: timer 2..50 ms -> ask again
 *	unlock:  (it allowed writing: pages come as writes -> flush) -> ask -> reply */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

#include "common/base/check.h"
#include "common/proto/lock.h"
#include "fuse/ops.h"
#include "fuse/recall.h"
#include "fuse/reply.h"

#define RETRY_MS_MIN 2u
#define RETRY_MS_MAX 50u

struct lock_wait {
	struct request *request;
	Granary__LockRange range;
	bool sleep;
	bool interrupted;
	uint32_t retry_ms;
	struct timer timer;
};

static void range_set(struct mount *mount, uint64_t owner, const struct flock *lock, Granary__LockRange *range)
{
	granary__lock_range__init(range);
	range->session = client_session(mount->client);
	range->owner = owner;
	range->start = (uint64_t)lock->l_start;
	/* libfuse gives whence as SEEK_SET; 0 is "to the end of the file". */
	range->end = lock->l_len == 0 ? LOCK_END_MAX : (uint64_t)(lock->l_start + lock->l_len - 1);
	range->pid = (uint32_t)lock->l_pid;
	range->kind = lock->l_type == F_UNLCK ? LOCK_NONE : lock->l_type == F_WRLCK ? LOCK_EXCLUSIVE : LOCK_SHARED;
}

static struct lock_entry entry_of(const Granary__LockRange *range)
{
	return (struct lock_entry){
	    .owner = range->owner,
	    .start = range->start,
	    .end = range->end,
	    .flock = range->flock,
	    .exclusive = range->kind == LOCK_EXCLUSIVE,
	};
}

/* ---- getlk */

static void getlk_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	const Granary__LockRange *range;

	if (!result) {
		request_end(request, err);
		return;
	}
	range = result->lock;
	if (range && range->kind != LOCK_NONE) {
		lock.l_type = range->kind == LOCK_EXCLUSIVE ? F_WRLCK : F_RDLCK;
		lock.l_start = (off_t)range->start;
		lock.l_len = range->end >= LOCK_END_MAX ? 0 : (off_t)(range->end - range->start + 1);
		/* A process of another client has no number here. */
		lock.l_pid = range->session == client_session(request->mount->client) ? (pid_t)range->pid : -1;
	}
	fuse_reply_lock(request->fuse, &lock);
	request_close(request);
}

void on_getlk(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file, struct flock *lock)
{
	Granary__TestLock message = GRANARY__TEST_LOCK__INIT;
	Granary__LockRange range;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return;
	if (node_is_local(request->node)) {
		struct flock unlocked = *lock;

		unlocked.l_type = F_UNLCK;
		fuse_reply_lock(fuse, &unlocked);
		request_close(request);
		return;
	}
	range_set(request->mount, file->lock_owner, lock, &range);
	message.inode = request->node->inode;
	message.range = &range;
	op.op_case = GRANARY__META_OP__OP_TEST_LOCK;
	op.test_lock = &message;
	request_meta(request, &op, getlk_done);
}

/* ---- setlk, flock */

static void wait_end(struct lock_wait *wait, enum err err)
{
	struct request *request = wait->request;

	if (request->fuse)
		fuse_req_interrupt_func(request->fuse, NULL, NULL);
	timer_stop(&wait->timer);
	free(wait);
	request_end(request, err);
}

static void wait_refreshed(void *arg)
{
	wait_end(arg, OK);
}

static void wait_ask(void *arg);

static void wait_granted(struct lock_wait *wait, const Granary__Inode *attr)
{
	struct node *node = wait->request->node;
	struct lock_entry entry = entry_of(&wait->range);

	if (wait->range.kind == LOCK_NONE) {
		lock_book_release(&node->locks, &entry);
		wait_end(wait, OK);
		return;
	}
	lock_book_grant(&node->locks, &entry);
	if (attr && attr->change > node->change && attr->data_change != node->data_change) {
		recall_refresh(wait->request->mount, node, attr, wait_refreshed, wait);
		return;
	}
	wait_end(wait, OK);
}

static void wait_failed(struct lock_wait *wait, enum err err)
{
	struct lock_entry entry = entry_of(&wait->range);

	/* Without an answer it may be held all the same: the close is to drop it. */
	if (wait->range.kind != LOCK_NONE && (err == ERR_TIMEOUT || err == ERR_CLOSED))
		lock_book_grant(&wait->request->node->locks, &entry);
	wait_end(wait, err);
}

static void wait_answer(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct lock_wait *wait = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	enum err attr_err = OK;
	const Granary__MetaResult *attr = request_result(&attr_err, reply, 1, NULL);

	if (result) {
		wait_granted(wait, attr ? attr->attr : NULL);
	} else if (err != ERR_WOULD_BLOCK || !wait->sleep) {
		wait_failed(wait, err);
	} else if (wait->interrupted) {
		wait_end(wait, ERR_INTERRUPTED);
	} else {
		timer_start(&wait->timer, wait->retry_ms);
		wait->retry_ms = wait->retry_ms * 2 < RETRY_MS_MAX ? wait->retry_ms * 2 : RETRY_MS_MAX;
	}
}

/* The attributes come in the same request as the lock: they are those under it. */
static void wait_ask(void *arg)
{
	struct lock_wait *wait = arg;
	Granary__SetLock message = GRANARY__SET_LOCK__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op[2] = {GRANARY__META_OP__INIT, GRANARY__META_OP__INIT};
	Granary__MetaOp *ops[2] = {&op[0], &op[1]};

	wait->range.session = client_session(wait->request->mount->client);
	message.inode = getattr.inode = wait->request->node->inode;
	message.range = &wait->range;
	op[0].op_case = GRANARY__META_OP__OP_SET_LOCK;
	op[0].set_lock = &message;
	op[1].op_case = GRANARY__META_OP__OP_GETATTR;
	op[1].getattr = &getattr;
	client_meta(wait->request->mount->client, ops, wait->range.kind == LOCK_NONE ? 1 : 2, wait_answer, wait);
}

/* libfuse holds the request's lock around this: it can only be answered from the loop. */
static void wait_interrupted(fuse_req_t fuse, void *arg)
{
	struct lock_wait *wait = arg;

	(void)fuse;
	wait->interrupted = true;
	if (timer_is_running(&wait->timer))
		timer_start(&wait->timer, 0);
}

static void wait_again(void *arg)
{
	struct lock_wait *wait = arg;

	if (wait->interrupted)
		wait_end(wait, ERR_INTERRUPTED);
	else
		wait_ask(wait);
}

static void unlock_flushed(void *arg, enum err err)
{
	struct lock_wait *wait = arg;

	/* The lock is given back whatever happened; an error of the data is told by the next fsync or close. */
	if (err == OK)
		node_learn(wait->request->node, file_io_attr(wait->request->node->io));
	wait_ask(wait);
}

static void unlock_written(void *arg)
{
	struct lock_wait *wait = arg;
	struct node *node = wait->request->node;

	if (node->io && file_io_dirty(node->io))
		file_io_flush(node->io, unlock_flushed, wait);
	else
		wait_ask(wait);
}

static void wait_start(struct request *request, const Granary__LockRange *range, bool sleep)
{
	struct lock_wait *wait = mem_zero(1, sizeof *wait);
	struct node *node = request->node;
	struct lock_entry entry = entry_of(range);

	request->waits_for_lock = true; /* or for its own time-out */
	wait->request = request;
	wait->range = *range;
	wait->sleep = sleep;
	wait->retry_ms = RETRY_MS_MIN;
	timer_init(&wait->timer, request->mount->loop, wait_again, wait);
	if (range->kind == LOCK_NONE) {
		if (lock_book_holds(&node->locks, &entry, true) && node->write_opens > 0)
			recall_pages(request->mount, node, unlock_written, wait);
		else
			wait_ask(wait);
		return;
	}
	if (node_is_local(node)) /* before the master can lock it, it has to know it */
		file_io_flush(node->io, unlock_flushed, wait);
	else
		wait_ask(wait);
	if (sleep)
		fuse_req_interrupt_func(request->fuse, wait_interrupted, wait);
}

void on_setlk(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file, struct flock *lock, int sleep)
{
	Granary__LockRange range;
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return;
	range_set(request->mount, file->lock_owner, lock, &range);
	wait_start(request, &range, sleep);
}

void on_flock(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file, int op)
{
	static const struct flock whole = {0};
	Granary__LockRange range;
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return;
	range_set(request->mount, file->lock_owner, &whole, &range);
	range.flock = true;
	range.kind = op & LOCK_UN ? LOCK_NONE : op & LOCK_EX ? LOCK_EXCLUSIVE : LOCK_SHARED;
	wait_start(request, &range, !(op & LOCK_NB));
}

static struct lock_entry whole_of(uint64_t owner, bool flock)
{
	return (struct lock_entry){.owner = owner, .end = LOCK_END_MAX, .flock = flock};
}

bool lock_held(const struct node *node, uint64_t owner, bool flock)
{
	struct lock_entry entry = whole_of(owner, flock);

	return lock_book_holds(&node->locks, &entry, false);
}

void lock_drop(struct request *request, uint64_t owner, bool flock, client_meta_fn *done)
{
	static const struct flock whole = {0};
	Granary__SetLock message = GRANARY__SET_LOCK__INIT;
	Granary__LockRange range;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct lock_entry entry = whole_of(owner, flock);

	lock_book_release(&request->node->locks, &entry);
	range_set(request->mount, owner, &whole, &range);
	range.flock = flock;
	range.kind = LOCK_NONE;
	message.inode = request->node->inode;
	message.range = &range;
	op.op_case = GRANARY__META_OP__OP_SET_LOCK;
	op.set_lock = &message;
	request_meta(request, &op, done);
}
