#include "master/reclaim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

/* Known orphans are kept in the order in which they were first seen (uthash keeps the order of insertion). */
struct orphan {
	uint64_t inode;
	uint64_t seen_ms;
	UT_hash_handle hh;
};

struct reclaim {
	struct loop *loop;
	struct replica *replica;
	struct sessions *sessions;
	struct servers *servers;
	uint64_t begin_ms;
	struct timer timer;
	struct orphan *orphans;
	uint64_t cursor;   /* of the scan */
	uint64_t idle_ms;  /* when to scan again although nothing was added */
	bool scanning;	   /* there may be more after the cursor */
	bool again;	   /* and something was added before it */
	bool proposed;
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp op, *ops[1];
	Granary__Reclaim change;
	uint64_t inodes[RECLAIM_INODES_MAX];
};

struct scan {
	struct reclaim *reclaim;
	size_t seen;
	uint64_t now_ms;
};

static bool on_orphan(void *arg, uint64_t inode, uint64_t session)
{
	struct scan *scan = arg;
	struct reclaim *reclaim = scan->reclaim;
	struct orphan *orphan;

	if (HASH_COUNT(reclaim->orphans) >= ORPHANS_WAITING_MAX)
		return false;
	reclaim->cursor = inode;
	scan->seen++;
	HASH_FIND(hh, reclaim->orphans, &inode, sizeof(inode), orphan);
	if (!orphan && (session == 0 || !sessions_has(reclaim->sessions, session))) {
		orphan = mem_zero(1, sizeof(*orphan));
		orphan->inode = inode;
		orphan->seen_ms = scan->now_ms;
		HASH_ADD(hh, reclaim->orphans, inode, sizeof(orphan->inode), orphan);
	}
	return scan->seen < ORPHANS_SCAN_MAX;
}

static void look(struct reclaim *reclaim, uint64_t now_ms)
{
	struct scan scan = { .reclaim = reclaim, .now_ms = now_ms };

	if (!reclaim->scanning && !reclaim->again && now_ms < reclaim->idle_ms)
		return;
	if (!reclaim->scanning) {
		reclaim->cursor = 0;
		reclaim->again = false;
	}
	if (meta_each_orphan(replica_meta(reclaim->replica), reclaim->cursor, on_orphan, &scan)) {
		log_error("orphans_unreadable", "cursor=%" PRIu64, reclaim->cursor);
		return;
	}
	reclaim->scanning = scan.seen >= ORPHANS_SCAN_MAX || HASH_COUNT(reclaim->orphans) >= ORPHANS_WAITING_MAX;
	reclaim->idle_ms = now_ms + GARBAGE_RESCAN_MS;
}

static void on_reclaimed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct reclaim *reclaim = container_of(proposal, struct reclaim, proposal);

	(void)err;
	(void)reply;
	reclaim->proposed = false;
	/* An inode with more chunks than one step frees is an orphan still. */
	reclaim->again = true;
}

static void propose(struct reclaim *reclaim)
{
	uint64_t settled_ms = sessions_settled_ms(reclaim->sessions, replica_term(reclaim->replica));
	struct orphan *orphan, *next;
	size_t count = 0;

	HASH_ITER(hh, reclaim->orphans, orphan, next)
	{
		if (count == RECLAIM_INODES_MAX || orphan->seen_ms >= settled_ms)
			break;
		/* One that is open is seen again by a later scan. */
		if (!sessions_inode_is_open(reclaim->sessions, orphan->inode))
			reclaim->inodes[count++] = orphan->inode;
		HASH_DEL(reclaim->orphans, orphan);
		free(orphan);
	}
	if (count == 0)
		return;
	reclaim->change.n_inodes = count;
	reclaim->proposed = true;
	replica_propose(reclaim->replica, &reclaim->proposal);
}

static void on_timer(void *arg)
{
	struct reclaim *reclaim = arg;

	timer_start(&reclaim->timer, RECLAIM_MS);
	uint64_t now_ms = loop_now_us(reclaim->loop) / 1000;
	if (!replica_can_read(reclaim->replica) || reclaim->proposed || now_ms < reclaim->begin_ms ||
	    servers_are_ahead(reclaim->servers))
		return;
	look(reclaim, now_ms);
	propose(reclaim);
}

void reclaim_added(struct reclaim *reclaim)
{
	reclaim->again = true;
}

static void forget(struct reclaim *reclaim)
{
	struct orphan *orphan, *next;

	HASH_ITER(hh, reclaim->orphans, orphan, next)
	{
		HASH_DEL(reclaim->orphans, orphan);
		free(orphan);
	}
	reclaim->scanning = false;
	reclaim->idle_ms = 0;
}

void reclaim_leading(struct reclaim *reclaim)
{
	forget(reclaim);
	reclaim->begin_ms = loop_now_us(reclaim->loop) / 1000 + COLLECTION_WAIT_MS;
	timer_start(&reclaim->timer, RECLAIM_MS);
}

void reclaim_deposed(struct reclaim *reclaim)
{
	timer_stop(&reclaim->timer);
	forget(reclaim);
}

struct reclaim *reclaim_open(struct loop *loop, struct replica *replica, struct sessions *sessions, struct servers *servers)
{
	struct reclaim *reclaim = mem_zero(1, sizeof(*reclaim));

	reclaim->loop = loop;
	reclaim->replica = replica;
	reclaim->sessions = sessions;
	reclaim->servers = servers;
	timer_init(&reclaim->timer, loop, on_timer, reclaim);
	granary__meta_request__init(&reclaim->request);
	granary__meta_op__init(&reclaim->op);
	granary__reclaim__init(&reclaim->change);
	reclaim->change.inodes = reclaim->inodes;
	reclaim->op.op_case = GRANARY__META_OP__OP_RECLAIM;
	reclaim->op.reclaim = &reclaim->change;
	reclaim->ops[0] = &reclaim->op;
	reclaim->request.n_ops = 1;
	reclaim->request.ops = reclaim->ops;
	reclaim->proposal.request = &reclaim->request;
	reclaim->proposal.done = on_reclaimed;
	return reclaim;
}

void reclaim_close(struct reclaim *reclaim)
{
	if (!reclaim)
		return;
	timer_stop(&reclaim->timer);
	forget(reclaim);
	free(reclaim);
}
