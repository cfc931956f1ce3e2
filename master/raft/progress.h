/* What a leader knows of one member.
 *
 * PROBE: one append at a time, until the member's log is found to agree somewhere. REPLICATE: appends are sent ahead
 * without waiting, up to RAFT_INFLIGHT_MAX unanswered; `next` runs ahead of `match`. A refusal, or silence for an
 * election timeout, leads back to PROBE. SNAPSHOT: it needs entries that the leader does not have any more; the offer goes
 * with each heartbeat until an answer shows a log that appends can go on from.     Source: etcd's raft, tracker.Progress. */
#ifndef GRANARY_MASTER_RAFT_PROGRESS_H
#define GRANARY_MASTER_RAFT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/limits.h"

enum progress_state { PROGRESS_PROBE, PROGRESS_REPLICATE, PROGRESS_SNAPSHOT };

struct progress {
	uint64_t id;
	uint64_t node;	   /* of its data directory; 0: not known, any is believed */
	bool learner;	   /* receives the log and counts for nothing */
	uint64_t stranger;    /* node of another directory that answers in its place; 0: none */
	uint64_t stranger_ms; /* when it was first heard, by our clock */
	bool stranger_lives;  /* it has answered what was sent after that: it is no message from a former life of the member */
	enum progress_state state;
	uint64_t match;                       /* durable there up to here */
	uint64_t next;                        /* to send */
	uint64_t contact_ms;                  /* when it last answered in this term, by our clock */
	uint64_t echo_ms;                     /* newest of our clock values that it has echoed in this term; 0: none */
	bool probing;                         /* PROBE: an append is unanswered */
	bool heartbeat_due;                   /* send something even if there is nothing new */
	bool voted, granted;                  /* in the campaign under way */
	uint64_t inflight[RAFT_INFLIGHT_MAX]; /* last index of each unanswered append: a ring, ascending */
	size_t inflight_head, inflight_count;
	uint64_t fetch_answer; /* to the holder of a hole: enum raft_fetch_answer to the last question about it; 0: none */
	uint64_t fetch_term;   /* the term it was given in */
};

/* At the start of a term's leadership. */
void progress_reset(struct progress *progress, uint64_t last, uint64_t now_ms);
void progress_probe(struct progress *progress);
/* It needs a snapshot. */
void progress_snapshot(struct progress *progress);
bool progress_is_full(const struct progress *progress);
/* An append with entries up to `last` was sent (REPLICATE: next moves on; PROBE: wait for its answer). */
void progress_sent(struct progress *progress, uint64_t last);
/* The member holds everything up to `match`. True: this is news. */
bool progress_accepted(struct progress *progress, uint64_t match);
/* The member refused an append that followed `refused`; the logs agree at `agree` at best. False: an old answer. */
bool progress_refused(struct progress *progress, uint64_t refused, uint64_t agree);

#endif
