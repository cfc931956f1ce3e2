/* Shared by replica.c, replica_apply.c and replica_store.c; nobody else includes it. */
#ifndef GRANARY_MASTER_REPLICA_INTERNAL_H
#define GRANARY_MASTER_REPLICA_INTERNAL_H

#include "master/replica.h"
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
	struct write *next;
};

/* The store being synced, before the log is cut. */
struct store_sync {
	struct work work;
	struct replica *replica; /* NULL once that is closed, or has another store */
	struct state_store *store;
	uint64_t index; /* that is applied in it */
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
	uint64_t bytes_since_cut; /* of entries written */
	uint64_t alarm_bytes;
	uint64_t cut_index;
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
MUST_USE enum err replica_open_state(struct replica *replica);
MUST_USE enum err replica_open_log(struct replica *replica);
void replica_look_at_space(struct replica *replica);
/* Timer: forgets what the log need not keep. */
void replica_on_trim(void *arg);

#endif
