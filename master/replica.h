/* The replicated state machine of one master: raft, its write-ahead log and the state machine, driven by the loop.
 *
 * One round a loop iteration (deferred, so that everything that arrived together goes together):
 *
 *	proposals waiting --batch--> LogEntry --raft_propose--+
 *	raft_step, raft_tick, raft_persisted -----------------+--> raft_ready --> messages out at once
 *	                                                            |--> wal_append --synced--> held messages out, raft_persisted
 *	                                                            '--> commit: meta_apply, `applied`, each proposal's `done`
 *
 * The leader takes proposals once everything of earlier terms is applied here, so that times, ids and placement are chosen knowing
 * all that came before. When it is deposed, proposals end with ERR_NOT_LEADER: they may or may not be done; a client
 * that repeats its request (session, slot, sequence) gets the one answer.
 *
 * A failure of the log or the store is final: `failed` is called, nothing more is done (fail-stop).
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_REPLICA_H
#define GRANARY_MASTER_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/message.h"
#include "common/sys/loop.h"
#include "master/meta/meta.h"
#include "master/peers.h"
#include "master/raft/raft.h"

struct replica;

/* A request on its way through the log, in its owner's storage until `done`. */
struct proposal {
	/* Borrowed until `done`. Ids, replicas are filled in. */
	Granary__MetaRequest *request;
	/* Once. With OK: *reply is the answer; the callee may keep it by setting *reply to NULL. Otherwise reply is NULL and err
	 * is ERR_NOT_LEADER, ERR_BUSY (too many wait), ERR_TOO_LARGE, ERR_CANCELLED (closing). Never called from within replica_propose. */
	void (*done)(struct proposal *proposal, enum err err, Granary__MetaReply **reply);
	size_t packed_bytes;	      /* replica's own */
	enum err refused;	      /* replica's own */
	struct proposal *next;	      /* replica's own */
};

struct replica_applied {
	uint64_t index;
	const Granary__LogEntry *entry;		/* NULL: a barrier */
	Granary__MetaReply **replies;		/* one a request */
	struct proposal *const *proposals;	/* one a request, or NULL when the entry was not proposed here */
	const struct meta_effects *effects;
};

struct replica_events {
	/* This master leads and has applied everything of earlier terms. */
	void (*leading)(void *arg);
	/* It does so no more; all its proposals have ended. */
	void (*deposed)(void *arg);
	/* After each entry, on leader and followers, before the proposals' `done`. */
	void (*applied)(void *arg, const struct replica_applied *applied);
	/* The log or the store is broken: stop the process. */
	void (*failed)(void *arg, enum err err);
};

struct replica_options {
	struct loop *loop;
	struct rpc *rpc;
	const struct members *members;
	uint64_t id;
	const char *directory;	    /* holds log/ and state/ */
	uint64_t cache_bytes;
	const struct replica_events *events;
	void *events_arg;
};

/* Reads the log; blocks until everything is restored. Options are borrowed for its life. */
MUST_USE enum err replica_open(const struct replica_options *options, struct replica **out);
void replica_close(struct replica *replica);

struct meta *replica_meta(struct replica *replica);
/* A message of another master, as it came. */
void replica_step(struct replica *replica, const Granary__RaftMessage *message);
void replica_propose(struct replica *replica, struct proposal *proposal);
/* Leading, and its applied state may answer: a linearizable read. */
bool replica_can_read(struct replica *replica);
bool replica_is_leading(const struct replica *replica);
/* The disk of log and state is nearly full: only what frees, or was promised before, is to be proposed. Looked at
 * every HOUSEKEEPING_MS. */
bool replica_space_is_low(const struct replica *replica);
uint64_t replica_term(struct replica *replica);
/* Of the leader as far as it is known, "" if not: what ErrorReply says with ERR_NOT_LEADER. */
const char *replica_leader_address(struct replica *replica);
void replica_view(struct replica *replica, struct raft_view *out);
/* Milliseconds since 1970 for new ids: the wall clock, but above the times of all entries applied so far. */
uint64_t replica_time_ms(struct replica *replica);
/* Ids have been made up to this millisecond: later entries are not from before it. So this process's next life, which begins
 * above the time of the last entry, makes none of them again, even if the clock was set back. */
void replica_time_used(struct replica *replica, uint64_t time_ms);

#endif
