/* Snapshots given out: the state machine as of one index, read page by page, while it goes on.
 *
 * A snapshot is an iterator of the database, which sees it as of its opening (one batch an entry: so it is the state after exactly
 * that entry). Pages are built by a worker, one at a time; in memory are one page of each snapshot and what LevelDB keeps for the
 * iterator. Who reads asks for one page after the other and may ask again for the one that it had; one that is not read for
 * SNAPSHOT_IDLE_MS ends. A snapshot outlives leadership: what was applied stays true.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_SNAPSHOT_H
#define GRANARY_MASTER_SNAPSHOT_H

#include "common/sys/rpc.h"
#include "master/state_store.h"

struct snapshots;

struct snapshot_source {
	struct state_store *store; /* a reference is taken */
	uint64_t index, term;
	uint64_t cluster;
	uint64_t pairs_expected;
};

struct snapshots *snapshots_open(struct loop *loop);
/* Requests that wait end with ERR_CANCELLED. NULL is allowed. */
void snapshots_close(struct snapshots *snapshots);

/* Answers a SnapshotOpen. ERR_BUSY when SNAPSHOTS_MAX are open. */
void snapshots_begin(struct snapshots *snapshots, const struct snapshot_source *source, struct rpc_request *request);
/* Answers a SnapshotRead or SnapshotClose. ERR_NOT_FOUND: it has ended, or never was; ERR_INVALID: not the next page;
 * ERR_BUSY: another has asked for this page meanwhile; what the database says. */
void snapshots_serve(struct snapshots *snapshots, struct rpc_request *request);
/* The lowest index of those that a master is reading, 0: none. It needs the log from there on. */
uint64_t snapshots_index_kept(const struct snapshots *snapshots);
size_t snapshots_count(const struct snapshots *snapshots);

#endif
