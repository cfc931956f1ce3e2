/* Shared by raft.c, election.c and replicate.c; nobody else includes it. */
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

struct raft {
	uint64_t id;
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

	struct progress members[RAFT_MEMBERS_MAX];
	size_t member_count;
	struct progress *self;

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
/* NULL for a stranger. */
struct progress *raft_member(struct raft *raft, uint64_t id);
/* Queues a message; id, sender and (unless set) the term are filled in. */
void raft_send(struct raft *raft, struct raft_message message);
void raft_send_after_sync(struct raft *raft, struct raft_message message);

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
