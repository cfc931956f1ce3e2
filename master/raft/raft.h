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
 * Membership (ch. 4, with its erratum): one voter more or less at a time, by an entry RAFT_ENTRY_MEMBERS whose payload is the
 * whole new RaftMembership. It counts from when it is appended (a follower's, too) and is undone when its entry is
 * overwritten. Learners receive the log and count for nothing. Every message carries the `node` of its sender (the random
 * identity of its data directory): an answer from a member whose recorded node is another one (an empty disk under a known name)
 * counts for nothing, it is not voted for, it does not count itself once it knows, and it is told as a stranger. (Two empty disks that
 * know no nodes, or one and a member that has never heard of any, cannot be told from a new group: founding one is the shell's
 * matter.)
 *
 * Snapshots: a member that needs entries below the leader's first is sent RAFT_SNAPSHOT with each heartbeat instead: index
 * and term of what the leader has applied. Its core asks the shell (`snapshot_wanted`) to fetch the leader's state machine, as
 * of any index from there on; the shell makes it its own, durably, and calls raft_install. The state itself never passes here.
 *
 * Damage: an entry that the disk has lost but whose identity (index, term) is known is opened as `damaged`: a hole. It counts
 * when logs are compared for a vote, since it was there. It is never sent nor given out as committed, and nothing from the
 * first hole above `applied` on is acknowledged again until it is filled: by the leader, which is told that the log agrees
 * only up to there, or by RAFT_FETCH from any member (same index and term: the same entry). Its holder does not campaign. A
 * hole goes without being filled only when a snapshot covers it, when a leader's entry overwrites it, or when a majority has said
 * durably, in a term above any in which this member can have acknowledged it, that it does not have it: it then never was
 * and never will be committed by that acknowledgement. (Source: Alagappan et al., "Protocol-aware recovery", FAST 2018.) */
#ifndef GRANARY_MASTER_RAFT_RAFT_H
#define GRANARY_MASTER_RAFT_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/limits.h"
#include "master/raft/membership.h"

struct raft;

/* A vote of this member that its disk has lost: it votes for nobody else in that term. */
#define RAFT_VOTE_UNKNOWN UINT64_MAX

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

enum raft_entry_kind {
	RAFT_ENTRY_NORMAL = 1,
	RAFT_ENTRY_BARRIER = 2, /* empty; the first of each term */
	RAFT_ENTRY_MEMBERS = 3, /* payload: membership_pack */
};

/* Payloads are reference counted by the log; an entry in an effect or message is valid until the next call. */
struct raft_entry {
	uint64_t index;
	uint64_t term;
	enum raft_entry_kind kind;
	bool damaged; /* a hole: the payload is lost here */
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
	RAFT_SNAPSHOT = 8,    /* log_index, log_term: what the leader has applied; hint_index, hint_term: before its first entry */
	RAFT_FETCH = 9,	      /* log_index, log_term: of a hole; hint_index: of the last one in a row. context: 1: in this term */
	RAFT_FETCH_REPLY = 10, /* log_index: before the hole, log_term: of the hole; context: enum raft_fetch_answer; entries */
};

enum raft_fetch_answer {
	RAFT_FETCH_HAVE = 1,	  /* entries: the one asked for and some after it */
	RAFT_FETCH_COMPACTED = 2, /* its log begins later */
	RAFT_FETCH_ABSENT = 3,	  /* it has another entry there, or none */
	RAFT_FETCH_DAMAGED = 4,	  /* a hole there, too */
};

struct raft_message {
	enum raft_message_kind kind;
	uint64_t from, to;
	uint64_t node; /* of the sender's data directory; 0: not known */
	uint64_t term;
	uint64_t log_index; /* RAFT_APPEND: the entry before `entries`. Votes: the candidate's last. Reply: match, or what was refused */
	uint64_t log_term;
	uint64_t commit;
	bool reject;
	uint64_t hint_index; /* with reject: the follower's guess where the logs agree, so that one round trip skips a term */
	uint64_t hint_term;
	uint64_t context; /* leader's clock in ms, echoed. RAFT_VOTE: 1 when the leader itself asked for it (transfer).
			     RAFT_PRE_VOTE_REPLY: 1 from a leader to who is not a member (any more) */
	uint64_t held;	  /* RAFT_APPEND: every member is known to hold the entries up to here (RaftMessage.held).
			     RAFT_APPEND_REPLY with reject: the first hole, from which on nothing is acknowledged; 0: none */
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
	uint64_t node; /* of this data directory */
	/* The newest membership that the state machine knows, as of entry membership_index, or what the command line says
	 * (index 0). The newest RAFT_ENTRY_MEMBERS above membership_index in the log goes before it. This member need not be in
	 * it: it then waits for a leader to call. NULL: `members`. */
	const struct raft_membership *membership;
	uint64_t membership_index;
	const uint64_t *members; /* without membership: ids of all, voters with nodes not known */
	size_t member_count;
	unsigned election_ticks; /* RAFT_ELECTION_TICKS */
	unsigned heartbeat_ticks;
	uint64_t tick_ms;
	uint64_t seed; /* for election jitter */
	size_t append_bytes_max; /* 0: RAFT_APPEND_BYTES_MAX; less in tests, so that a log goes over in many messages */
	uint64_t applied; /* the state machine's applied index: nothing at or below is given out as committed */
	/* The state machine began with a snapshot that was installed as of this entry (0: none). After a crash between that
	 * and the end of wal_reset the log found is older: it is then given up, as raft_install does. */
	uint64_t installed_index, installed_term;
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
/* Leader: appends a new membership. ERR_NOT_LEADER. ERR_BUSY: a change is under way, or no entry of this term is committed
 * yet. ERR_INVALID: more than one voter comes or goes (a voter whose node changes goes: it may stay as a learner), none is
 * left, or who becomes a voter was no learner before or is not caught up (see raft_progress_view.caught_up).
 * ERR_UNREACHABLE: no majority of the new voters has been heard of lately. */
MUST_USE enum err raft_propose_members(struct raft *raft, uint64_t now_ms, const struct raft_membership *membership,
				       uint64_t *index);
/* The membership in force and the entry that it is from. Valid until the next call of any other function. */
const struct raft_membership *raft_membership(const struct raft *raft, uint64_t *index);
/* The shell has made a snapshot of the leader its state machine, durably: the state after entry `index` of `term`, with the
 * membership as of entry membership_index in it. Entries that follow are kept where the log agrees at index; else the log is empty
 * and begins at index + 1, and the next raft_ready has `reset`. ERR_INVALID, and nothing happens: index is not above
 * what was given out as committed (raft_view.commit: to be looked at before the state is exchanged), or this member leads. */
struct raft_snapshot {
	uint64_t index, term;
	struct raft_membership membership;
	uint64_t membership_index;
};
MUST_USE enum err raft_install(struct raft *raft, uint64_t now_ms, const struct raft_snapshot *snapshot);
/* `count` more of the fills that raft_ready gave are durable. */
void raft_filled(struct raft *raft, size_t count);
/* The state machine has applied up to index; bounds what the log must keep in memory. */
void raft_applied(struct raft *raft, uint64_t index);
/* Hands leadership to the voter `member` (0: the most advanced). ERR_NOT_LEADER; ERR_BUSY; ERR_INVALID: a learner or none. */
MUST_USE enum err raft_transfer(struct raft *raft, uint64_t now_ms, uint64_t member);

struct raft_ready {
	bool hard_changed; /* persist hard (term, vote) in this round */
	struct raft_hard_state hard;
	const struct raft_entry *entries; /* to persist; entries[0].index may overwrite: truncate the log there first */
	size_t entry_count;
	/* Before anything else of this round is written: wal_reset(reset_index, reset_term), with `hard`. The log is then empty and
	 * begins after that entry, which the state machine has. */
	bool reset;
	uint64_t reset_index, reset_term;
	const struct raft_entry *fills; /* holes that were filled: wal_fill, then raft_filled when that is durable */
	size_t fill_count;
	/* Not 0: the leader has no entries that this member needs; its state as of snapshot_index or later is to be fetched
	 * and given to raft_install. Said again and again while it is so. */
	uint64_t snapshot_from, snapshot_index, snapshot_term;
	/* Not 0: `stranger` answers under the name of a member, but from another data directory. */
	uint64_t stranger, stranger_node;
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
/* Forgets entries below index in memory. The shell cuts the write-ahead log accordingly (view.first), after its state machine is
 * durable up to there. Goes no further than applied, durable here, and raft_keep allow. */
void raft_compact(struct raft *raft, uint64_t index);
/* How far the log may be forgotten: to what every member, learners too, is known to hold (followers learn it from the
 * leader), and beyond that where more than kept_bytes_max of payloads would be kept for those that are behind: they then need a
 * snapshot. Never above applied. */
uint64_t raft_compactable(const struct raft *raft, uint64_t kept_bytes_max);
/* Entries above index are kept, whatever raft_compact says: somebody is fetching the state as of there. UINT64_MAX: nobody. */
void raft_keep(struct raft *raft, uint64_t index);
/* Highest index that every member is known to hold (leader; followers learn it from `held`), or 0. */
uint64_t raft_safe_to_compact(const struct raft *raft);

/* Leader with a valid lease whose barrier entry is committed and applied: its applied state answers reads linearizably. */
bool raft_can_read(const struct raft *raft, uint64_t now_ms);

struct raft_progress_view {
	uint64_t id, node, match, next, contact_ms;
	bool learner;
	bool caught_up;	 /* leader: heard of lately, has the last change of members, and is less than RAFT_LEARNER_LAG_MAX entries behind */
	bool snapshot;	 /* leader: it is waiting for a snapshot */
	uint64_t stranger_node; /* leader: not 0: this other data directory answers in its place, and goes on to */
};
struct raft_view {
	uint64_t id;
	enum raft_role role;
	uint64_t term, leader, commit, applied, first, last;
	bool voter;	/* this member is one, by the membership in force */
	bool removed;	/* a leader has said that this member does not belong to the group */
	uint64_t membership_index;
	bool membership_committed;
	size_t holes;	   /* damaged entries not filled yet */
	uint64_t hole;	   /* the first of them */
	bool hole_waits;   /* no member that answers has it: more must come back */
	uint64_t given_up; /* holes that were cut off, with what followed, since the start: a majority never had them */
	size_t member_count;
	struct raft_progress_view members[RAFT_MEMBERS_MAX];
};
void raft_view(const struct raft *raft, struct raft_view *out);

#endif
