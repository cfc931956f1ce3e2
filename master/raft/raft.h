/* Raft as a pure core: events in, effects out; no I/O, no clock, no threads, no globals.
 *
 * Source: Ongaro, "Consensus: bridging theory and practice" (2014): the protocol (ch. 3), leadership transfer (3.10),
 * leases (6.4.1), pre-vote (9.6), check-quorum (6.2); etcd's raft for the Ready contract.
 *
 * Contract with the shell, per round:
 *   1. any of raft_step, raft_tick, raft_propose, raft_persisted;
 *   2. raft_ready gives effects: `hard` and `entries` to persist, `messages` to send at once, `messages_after_sync` that
 *      may only go out once everything given to persist in this and earlier rounds is durable, and the new commit index;
 *   3. the shell starts the write; when it is durable it calls raft_persisted and sends the held messages.
 * Writes may be pipelined: several rounds may be in flight, they become durable in order.
 * A leader sends its entries before they are durable at itself; it counts itself towards a majority only after
 * raft_persisted, and hands leadership over when its own disk stays behind the majority's. Only entries of the leader's
 * own term commit by counting; a barrier entry is appended on election.
 *
 * Lease: every AppendEntries carries the leader's clock (`context`) and its answer echoes it; the leader may answer reads
 * locally while now < (the clock value a majority has echoed) + election timeout * (1 - drift). Followers that heard
 * from a leader within the election timeout refuse (pre-)votes. See raft_can_read.
 *
 * Later: snapshots (messages of their own kind, `raft_log` keeps first index > 1 already) and membership changes
 * (entry kind RAFT_ENTRY_MEMBERS, learners) fit in without moving walls. */
#ifndef GRANARY_MASTER_RAFT_RAFT_H
#define GRANARY_MASTER_RAFT_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/limits.h"

struct raft;

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

enum raft_entry_kind {
	RAFT_ENTRY_NORMAL = 1,
	RAFT_ENTRY_BARRIER = 2, /* empty; the first of each term */
	RAFT_ENTRY_MEMBERS = 3,
};

/* Payloads are reference counted by the log; an entry in an effect or message is valid until the next call. */
struct raft_entry {
	uint64_t index;
	uint64_t term;
	enum raft_entry_kind kind;
	struct slice payload;
};

enum raft_message_kind {
	RAFT_PRE_VOTE = 1,
	RAFT_PRE_VOTE_REPLY = 2,
	RAFT_VOTE = 3,
	RAFT_VOTE_REPLY = 4,
	RAFT_APPEND = 5, /* empty: heartbeat */
	RAFT_APPEND_REPLY = 6,
	RAFT_TIMEOUT_NOW = 7, /* leadership transfer: campaign at once */
};

struct raft_message {
	enum raft_message_kind kind;
	uint64_t from, to;
	uint64_t term;
	uint64_t log_index; /* RAFT_APPEND: the entry before `entries`. Votes: the candidate's last. Reply: match, or what was refused */
	uint64_t log_term;
	uint64_t commit;
	bool reject;
	uint64_t hint_index; /* with reject: the follower's guess where the logs agree, so that one round trip skips a term */
	uint64_t hint_term;
	uint64_t context; /* leader's clock in ms, echoed. RAFT_VOTE: 1 when the leader itself asked for it (transfer) */
	uint64_t held;	  /* RAFT_APPEND: every member is known to hold the entries up to here (RaftMessage.held) */
	const struct raft_entry *entries;
	size_t entry_count;
};

struct raft_hard_state {
	uint64_t term;
	uint64_t vote; /* 0: none */
	uint64_t commit; /* a hint: may be behind */
};

struct raft_options {
	uint64_t id; /* of this member, not 0 */
	const uint64_t *members; /* all voters, this one too */
	size_t member_count;
	unsigned election_ticks; /* RAFT_ELECTION_TICKS */
	unsigned heartbeat_ticks;
	uint64_t tick_ms;
	uint64_t seed; /* for election jitter */
	size_t append_bytes_max; /* 0: RAFT_APPEND_BYTES_MAX; less in tests, so that a log goes over in many messages */
	uint64_t applied; /* the state machine's applied index: nothing at or below is given out as committed */
};

/* Restores from what the write-ahead log holds: hard state and entries (ascending, without gaps, the first following
 * `first_index - 1`, whose term is first_previous_term; a fresh log has first_index 1). Payload bytes are copied.
 * A single-member group elects itself on its first tick, and leads once its vote is durable. */
MUST_USE enum err raft_open(const struct raft_options *options, const struct raft_hard_state *hard, uint64_t first_index,
			    uint64_t first_previous_term, const struct raft_entry *entries, size_t entry_count,
			    struct raft **out);
void raft_close(struct raft *raft);

/* Every RAFT_TICK_MS; now_ms is the loop's monotonic clock and never runs backwards.
 * Here and below now_ms is read from the clock at the time of the call (loop_now_us(loop) / 1000), not as of the start of
 * the iteration: a process that was stopped between the two would keep a lease, or promise one, by an old clock. */
void raft_tick(struct raft *raft, uint64_t now_ms);
/* A message from another member. Malformed or foreign ones are ignored. */
void raft_step(struct raft *raft, uint64_t now_ms, const struct raft_message *message);
/* Appends an entry on the leader. ERR_NOT_LEADER; ERR_BUSY above RAFT_UNCOMMITTED_BYTES_MAX; ERR_TOO_LARGE. */
MUST_USE enum err raft_propose(struct raft *raft, uint64_t now_ms, enum raft_entry_kind kind, struct slice payload,
			       uint64_t *index);
/* Everything that raft_ready gave to persist up to entry `index` (of `term`) and hard state is durable. Both are those of
 * the last entry given in the rounds that are durable; 0, 0 when these had no entries. Late ones are recognised. */
void raft_persisted(struct raft *raft, uint64_t now_ms, uint64_t index, uint64_t term);
/* The state machine has applied up to index; bounds what the log must keep in memory. */
void raft_applied(struct raft *raft, uint64_t index);
/* Hands leadership to `member` (0: the most advanced). ERR_NOT_LEADER. Later used by drain and upgrade. */
MUST_USE enum err raft_transfer(struct raft *raft, uint64_t now_ms, uint64_t member);

struct raft_ready {
	bool hard_changed; /* persist hard (term, vote) in this round */
	struct raft_hard_state hard;
	const struct raft_entry *entries; /* to persist; entries[0].index may overwrite: truncate the log there first */
	size_t entry_count;
	const struct raft_message *messages;
	size_t message_count;
	const struct raft_message *messages_after_sync; /* nothing being written: may go out at once */
	size_t message_after_sync_count;
	uint64_t commit; /* entries up to here may be applied: raft_entry_at gives them. Never beyond what is durable here,
			    so that a state machine is never ahead of its log after a crash */
};

/* Takes the effects gathered since the last call. False: there are none. Pointers are valid until the next call of any
 * function but raft_entry_at; the shell copies or packs the messages that wait for a sync. */
bool raft_ready(struct raft *raft, struct raft_ready *out);

/* An entry still in the log's memory; NULL when compacted or beyond the end. */
const struct raft_entry *raft_entry_at(const struct raft *raft, uint64_t index);
/* Forgets entries below index in memory once applied and persisted by everyone who might ask. The shell cuts the
 * write-ahead log accordingly. Never above raft_safe_to_compact. */
void raft_compact(struct raft *raft, uint64_t index);
/* Highest index that every member is known to hold (leader; followers learn it from `held`), or 0: until snapshots
 * exist the log is kept for all. */
uint64_t raft_safe_to_compact(const struct raft *raft);

/* Leader with a valid lease whose barrier entry is committed and applied: its applied state answers reads linearizably. */
bool raft_can_read(const struct raft *raft, uint64_t now_ms);

struct raft_progress_view {
	uint64_t id, match, next, contact_ms;
};
struct raft_view {
	uint64_t id;
	enum raft_role role;
	uint64_t term, leader, commit, applied, first, last;
	size_t member_count;
	struct raft_progress_view members[RAFT_MEMBERS_MAX];
};
void raft_view(const struct raft *raft, struct raft_view *out);

#endif
