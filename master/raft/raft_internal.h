/* Shared by the core's files: raft.c, election.c, replicate.c, reconfigure.c, install.c, fetch.c; nobody else includes it. */
#ifndef GRANARY_MASTER_RAFT_RAFT_INTERNAL_H
#define GRANARY_MASTER_RAFT_RAFT_INTERNAL_H

#include "common/base/rng.h"
#include "master/raft/progress.h"
#include "master/raft/raft.h"
#include "master/raft/raft_log.h"

struct message_list {
	struct raft_message *items;
	size_t count, capacity;
};

/* How the holder of a hole goes about it: one member is asked after another; a round in a term of its own is asked of
 * all, once those who have answered say that it cannot have been committed. */
struct fetching {
	uint64_t index, term; /* of the hole asked for; 0: none */
	uint64_t due_ms;
	size_t next;	     /* place of the member to ask */
	bool went_round;     /* everyone has been asked in vain */
	uint64_t bound_term; /* not 0: answers that count are of this term or later */
};

/* Holes that were filled, on their way to the disk. */
struct fills {
	uint64_t *indexes; /* not given to persist yet */
	size_t count, capacity;
	struct raft_entry *given; /* by the last raft_ready */
	size_t given_capacity;
	size_t outstanding; /* given and not durable */
	uint64_t floor;	    /* lowest index of those; 0: none */
};

struct raft {
	uint64_t id;
	uint64_t node;
	uint64_t election_ms, heartbeat_ms;
	size_t append_bytes_max;
	struct rng rng;

	enum raft_role role;
	struct raft_hard_state hard; /* term and vote; commit is below */
	bool hard_changed;           /* not yet given to persist */
	uint64_t leader;             /* 0: not known */

	uint64_t now_ms; /* newest given to us */
	bool started;    /* now_ms is valid */
	/* When a leader was last heard, or the process started: the member may have granted a lease then, so that it
	 * refuses (pre-)votes for election_ms from here. */
	uint64_t heard_ms;
	uint64_t campaign_due_ms;  /* not leader */
	uint64_t heartbeat_due_ms; /* leader */

	struct raft_log log;
	uint64_t commit;       /* may be ahead of what is durable here */
	uint64_t commit_given; /* by raft_ready */
	uint64_t applied;
	uint64_t answer_held_ms; /* a heartbeat's answer waits for the disk at most once until then */
	uint64_t held;           /* what the leader told: all members hold the log up to here */

	struct raft_membership membership; /* in force, from entry membership_index */
	uint64_t membership_index;
	struct raft_membership base; /* what the log builds on: newest of before its first entry, or the state machine's */
	uint64_t base_index;
	struct progress members[RAFT_MEMBERS_MAX];
	size_t member_count, voter_count;
	struct progress *self;	 /* in members, or `outside` */
	struct progress outside; /* of this member when it belongs to nobody */
	bool removed;		 /* a leader said so since one was last heard */
	uint64_t removed_due_ms; /* when to doubt it */

	struct fetching fetching;
	uint64_t given_up;
	struct fills fills;
	uint64_t keep; /* entries above it stay */
	bool reset;    /* the log on disk is to be emptied, next */
	uint64_t reset_index, reset_term;
	uint64_t snapshot_from, snapshot_index, snapshot_term; /* to be told by the next raft_ready */
	uint64_t stranger, stranger_node;

	/* Leader. */
	uint64_t barrier; /* index of the term's first entry */
	size_t uncommitted_bytes;
	uint64_t transfer_to; /* 0: none */
	uint64_t transfer_due_ms;
	uint64_t keeping_up_ms; /* when its own disk last held all that is committed */
	bool lease_given_up;    /* TIMEOUT_NOW was sent in this term: who has it may be elected at any time */

	struct message_list messages, after_sync;             /* gathered for the next raft_ready */
	struct message_list messages_given, after_sync_given; /* by the last one */
};

/* raft.c */
size_t raft_quorum(const struct raft *raft);
/* A voter, and the only one. */
bool raft_is_alone(const struct raft *raft);
/* It is alone, and that is committed: a leader that has left it alone, and is no member itself, leads until then, by this one's promise. */
bool raft_owes_nothing(const struct raft *raft);
bool raft_is_voter(const struct raft *raft);
/* The first hole above what is applied; 0: none. From there on nothing is acknowledged or given out. */
uint64_t raft_hole(const struct raft *raft);
/* How far the log is durable here, filled holes included. */
uint64_t raft_durable(const struct raft *raft);
/* NULL for a stranger. */
struct progress *raft_member(struct raft *raft, uint64_t id);
/* Queues a message; id, sender and (unless set) the term are filled in. */
void raft_send(struct raft *raft, struct raft_message message);
void raft_send_after_sync(struct raft *raft, struct raft_message message);

/* reconfigure.c */
/* The newest membership in the base and the log comes into force. */
void raft_refresh_membership(struct raft *raft);
/* The one that is in force for entries before `index`. False: its entry is damaged. */
bool raft_membership_before(const struct raft *raft, uint64_t index, struct raft_membership *out, uint64_t *from);
/* Whether the payload of such an entry can be read. */
bool raft_membership_is_sound(const struct raft_entry *entry);
bool raft_is_caught_up(const struct raft *raft, const struct progress *member);
/* A leader that the committed membership does not have as a voter goes. */
void raft_leave_if_removed(struct raft *raft);
/* An entry of this index is about to leave the log's memory. False: it must not. */
bool raft_keep_membership(struct raft *raft, uint64_t index);

/* install.c */
void raft_send_snapshot(struct raft *raft, struct progress *member);
void raft_handle_snapshot(struct raft *raft, const struct raft_message *message);
/* The log becomes empty and begins after this entry, which the state machine has. */
void raft_restart_log(struct raft *raft, uint64_t index, uint64_t term);
/* raft_compact, without its bounds. */
void raft_forget_before(struct raft *raft, uint64_t index);

/* fetch.c */
/* Asks for holes, as often as it is due. */
void raft_fetch(struct raft *raft);
void raft_handle_fetch(struct raft *raft, const struct raft_message *message);
void raft_handle_fetch_reply(struct raft *raft, const struct raft_message *message);
/* A hole gets what another member has there. False: it makes no sense. */
bool raft_fill(struct raft *raft, const struct raft_entry *entry);
/* The fills to persist in this round. */
void raft_give_fills(struct raft *raft, struct raft_ready *out);
/* Whether this member may campaign: it is a voter and has what it would have to send or to apply. */
bool raft_may_campaign(struct raft *raft);

/* election.c */
void raft_become_follower(struct raft *raft, uint64_t term, uint64_t leader);
/* Asks whether an election could be won (pre-vote). */
void raft_pre_campaign(struct raft *raft);
/* by_transfer: the leader asked for it, so that voters need not wait out its lease. */
void raft_campaign(struct raft *raft, bool by_transfer);
void raft_become_leader(struct raft *raft);
void raft_restart_election_timer(struct raft *raft);
/* Whether a vote would break a lease that this member may have granted or holds. */
bool raft_hears_leader(const struct raft *raft);
void raft_handle_vote_request(struct raft *raft, const struct raft_message *message);
void raft_handle_vote_reply(struct raft *raft, const struct raft_message *message);
void raft_handle_timeout_now(struct raft *raft, const struct raft_message *message);

/* replicate.c */
void raft_append_own(struct raft *raft, enum raft_entry_kind kind, struct slice payload);
/* Commits what a majority holds, if it is of this term. */
void raft_commit_by_counting(struct raft *raft);
void raft_handle_append(struct raft *raft, const struct raft_message *message);
/* The sender leads this term: it is followed and its promise begins. */
void raft_hear_leader(struct raft *raft, const struct raft_message *message);
/* Tells where the logs may agree. */
void raft_refuse_append(struct raft *raft, const struct raft_message *message);
/* Acknowledges the log up to `match`, once it is durable. */
void raft_accept_append(struct raft *raft, const struct raft_message *message, uint64_t match);
/* Whether an entry from outside is within bounds. */
bool raft_entry_is_sound(const struct raft_entry *entry);
void raft_handle_append_reply(struct raft *raft, const struct raft_message *message);
/* Queues the appends and heartbeats that are due. */
void raft_replicate(struct raft *raft);
/* Members heard within the last election_ms, this one too. */
size_t raft_contact_count(const struct raft *raft);
/* Sends TIMEOUT_NOW once the chosen member holds the whole log. */
void raft_advance_transfer(struct raft *raft);
/* Hands leadership over when the own disk has been behind the others' for long. */
void raft_leave_if_slow(struct raft *raft);
uint64_t raft_held_by_all(const struct raft *raft);

#endif
