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
 * Membership, snapshots, damage
 *   - Who votes is what the newest entry RAFT_ENTRY_MEMBERS says; before there is one, the founders. A master that is in neither waits
 *     for a leader to call.
 *   - A follower whose leader has no entries for it any more pulls the leader's state (install.h) into a database of its own, takes it
 *     into use (state_store.h) and goes on from there; all that is asked through replica_meta then sees the new one.
 *   - A database found damaged is put aside. It is made again from the log if that is whole, else pulled from the leader, while
 *     log and vote stay what they are; the master does not lead meanwhile.
 *   - The log is kept for members that are behind, up to a bound; they then need a snapshot.
 *
 * A failure of the log or the store is final: `failed` is called, nothing more is done (fail-stop).
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_REPLICA_H
#define GRANARY_MASTER_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/message.h"
#include "common/sys/loop.h"
#include "master/identity.h"
#include "master/install.h"
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
	/* The state machine was exchanged for another master's. */
	void (*installed)(void *arg);
	/* Another membership is in force. */
	void (*members_changed)(void *arg, const struct raft_membership *membership);
};

struct replica_options {
	struct loop *loop;
	struct rpc *rpc;
	const struct members *members;	 /* as configured: where others are to be found */
	const struct founders *founders; /* the voters before the first change; none: this one is not one of them */
	uint64_t id, node;
	const char *directory; /* holds log/ and state/ */
	uint64_t cache_bytes;
	uint32_t segment_bytes;	 /* 0: WAL_SEGMENT_BYTES; less in tests, so that logs are cut often */
	uint64_t log_kept_bytes; /* 0: LOG_KEPT_BYTES */
	const struct replica_events *events;
	void *events_arg;
};

/* Reads the log; blocks until everything is restored. Options are borrowed for its life, but the founders. On an error *message
 * says what is wrong. */
MUST_USE enum err replica_open(const struct replica_options *options, struct replica **out, struct buf *message);
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
/* Answers with an error; with ERR_NOT_LEADER goes who leads. */
void replica_refuse(struct replica *replica, struct rpc_request *request, enum err err);
void replica_view(struct replica *replica, struct raft_view *out);

/* Answers SnapshotOpen (as the leader), SnapshotRead, SnapshotClose. */
void replica_serve_snapshot(struct replica *replica, struct rpc_request *request);
/* A snapshot is being pulled; false: none is. */
bool replica_install_view(const struct replica *replica, struct install_view *out);
/* Its state machine is lost, and not yet had from another. */
bool replica_is_rebuilding(const struct replica *replica);
/* Where all masters are to be found that are known, members or not. Valid until the next event. */
const struct members *replica_members(const struct replica *replica);
/* The membership in force. */
void replica_membership(const struct replica *replica, struct raft_membership *out, uint64_t *index);
/* As raft_propose_members and raft_transfer. */
MUST_USE enum err replica_propose_members(struct replica *replica, const struct raft_membership *membership);
MUST_USE enum err replica_transfer(struct replica *replica, uint64_t member);

struct replica_persistence {
	uint64_t bytes_kept;	 /* of entries in the log, since it was cut */
	uint64_t bytes_unsynced; /* of entries applied and not yet durable in the store */
	bool lags;		 /* one is beyond its bound: an alarm */
};
void replica_persistence(const struct replica *replica, struct replica_persistence *out);

/* Milliseconds since 1970 for new ids: the wall clock, but above the times of all entries applied so far. */
uint64_t replica_time_ms(struct replica *replica);
/* Ids have been made up to this millisecond: later entries are not from before it. So this process's next life, which begins
 * above the time of the last entry, makes none of them again, even if the clock was set back. */
void replica_time_used(struct replica *replica, uint64_t time_ms);

#endif
