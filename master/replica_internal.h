/* Shared by replica.c, replica_apply.c, replica_store.c and replica_install.c; nobody else includes it. */
#ifndef GRANARY_MASTER_REPLICA_INTERNAL_H
#define GRANARY_MASTER_REPLICA_INTERNAL_H

#include "master/replica.h"
#include "master/snapshot.h"
#include "master/state_store.h"
#include "master/wal.h"

#define NS_PER_MS 1000000ull

/* An entry proposed here and not yet applied. */
struct batch {
	uint64_t index, term;
	Granary__LogEntry entry; /* its requests are the proposals' */
	struct proposal **proposals;
	struct batch *next;
};

/* A write of the log under way, and what may be sent once it is durable. */
struct write {
	uint64_t mark;
	struct raft_message *held;
	size_t held_count;
	size_t fills; /* holes filled by it */
	struct write *next;
};

/* The store being synced, before the log is cut. */
struct store_sync {
	struct work work;
	struct replica *replica; /* NULL once that is closed, or has another store */
	struct state_store *store;
	uint64_t index; /* the log is not needed below it afterwards */
	uint64_t bytes; /* of entries that it makes durable */
	enum err err;
};

struct replica {
	struct replica_options options;
	struct loop *loop;
	struct state_store *store;
	struct meta *meta;
	struct wal *wal;
	struct raft *raft;
	struct peers *peers;
	struct timer tick;
	struct timer trim;
	struct timer resume; /* of applying, in the next iteration */
	struct defer round;
	struct store_sync *sync;  /* under way, or NULL */
	uint64_t bytes_kept;	  /* of entries written since the log was last cut */
	uint64_t bytes_unsynced;  /* of entries applied that no sync of the store covers yet */
	uint64_t cut_index;
	bool lags;
	uint64_t commit;
	enum raft_role role; /* as last looked at */
	uint64_t leading_term; /* 0: not leading */
	uint64_t last_time_ns;
	uint64_t used_time_ns; /* of ids made */
	struct proposal *waiting, **waiting_end;
	size_t waiting_count;
	struct batch *batches, **batches_end;
	struct write *writes, **writes_end;
	struct buf packed;
	bool space_low;
	bool failed;
	bool anew; /* what is known of the state machine is void: lead as if elected just now */

	struct members members; /* where they are to be found */
	uint64_t members_index, members_term; /* the membership that it was made from, and the term then */
	struct state_place place;
	struct snapshots *snapshots; /* given out */
	struct install *install;     /* being pulled, or NULL */
	uint64_t install_number;     /* of its database */
	uint64_t install_due_ms;     /* not tried again before */
	bool rebuilding; /* the state machine is behind the log: nothing is applied before a snapshot is here */
};

static inline uint64_t replica_now_ms(const struct replica *replica)
{
	return loop_now_us(replica->loop) / 1000;
}

/* replica.c */
void replica_fail(struct replica *replica, const char *what, enum err err);
void replica_batch_free(struct batch *batch);
/* A round of the log is durable. */
void replica_on_synced(void *arg, enum err err, uint64_t mark, uint64_t index, uint64_t term);

/* replica_apply.c: applies what is committed, for at most APPLY_SLICE_US at a time. */
void replica_apply_committed(struct replica *replica);

/* replica_store.c */
MUST_USE enum err replica_open_stores(struct replica *replica, struct buf *message);
MUST_USE enum err replica_open_store(struct replica *replica, uint64_t number, struct kv **out);
/* Beside the database, so that it is known when that is damaged. */
MUST_USE enum err replica_save_members(struct replica *replica, const struct raft_snapshot *snapshot);
void replica_look_at_space(struct replica *replica);
/* Timer: forgets what the log need not keep. */
void replica_on_trim(void *arg);


/* replica_install.c: the leader says that its state is needed; and, when the own one is lost, looks for a leader. */
void replica_install_wanted(struct replica *replica, uint64_t from, uint64_t index);
void replica_install_tick(struct replica *replica);

#endif
