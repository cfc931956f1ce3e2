/* Elections: pre-vote, vote, refusal while a leader is heard, roles. */
#include "common/base/check.h"
#include "master/raft/raft_internal.h"

#define REMOVED_ELECTION_TIMEOUTS 20u

/* Randomised in (T, 2T]. Above T, since the member's own promise not to vote within T binds itself too. */
void raft_restart_election_timer(struct raft *raft)
{
	raft->campaign_due_ms = raft->now_ms + raft->election_ms + 1 + rng_below(&raft->rng, raft->election_ms);
}

bool raft_hears_leader(const struct raft *raft)
{
	if (raft->role == RAFT_LEADER)
		return true; /* check-quorum ends it in time */
	if (raft_owes_nothing(raft))
		return false;
#ifdef PLANT_VOTE_IN_LEASE
	return false;
#endif
	return raft->now_ms - raft->heard_ms < raft->election_ms;
}

void raft_become_follower(struct raft *raft, uint64_t term, uint64_t leader)
{
	check(term >= raft->hard.term);
	if (term > raft->hard.term) {
		raft->hard.term = term;
		raft->hard.vote = 0;
		raft->hard_changed = true;
	}
	if (raft->role != RAFT_FOLLOWER)
		raft_restart_election_timer(raft);
	raft->role = RAFT_FOLLOWER;
	raft->leader = leader;
	raft->transfer_to = 0;
	raft->lease_given_up = false;
	raft->uncommitted_bytes = 0;
}

void raft_become_leader(struct raft *raft)
{
	raft->role = RAFT_LEADER;
	raft->leader = raft->id;
	raft->transfer_to = 0;
	raft->lease_given_up = false;
	raft->keeping_up_ms = raft->now_ms;
	raft->heartbeat_due_ms = raft->now_ms + raft->heartbeat_ms;
	uint64_t last = raft_log_last(&raft->log);
	for (size_t i = 0; i < raft->member_count; i++)
		progress_reset(&raft->members[i], last, raft->now_ms);
	raft->self->match = raft_durable(raft);
	raft->uncommitted_bytes = 0;
	for (uint64_t index = raft->commit + 1; index <= last; index++)
		raft->uncommitted_bytes += raft_log_at(&raft->log, index)->payload.size;
	raft->barrier = last + 1;
	raft_append_own(raft, RAFT_ENTRY_BARRIER, (struct slice){0});
}

static size_t count_granted(const struct raft *raft)
{
	size_t count = 0;
	for (size_t i = 0; i < raft->member_count; i++)
		count += raft->members[i].granted && !raft->members[i].learner;
	return count;
}

static size_t count_refused(const struct raft *raft)
{
	size_t count = 0;
	for (size_t i = 0; i < raft->member_count; i++)
		count += raft->members[i].voted && !raft->members[i].granted && !raft->members[i].learner;
	return count;
}

/* With the member's own vote in; the requests go to the others. */
static void start_poll(struct raft *raft)
{
	raft->leader = 0;
	for (size_t i = 0; i < raft->member_count; i++)
		raft->members[i].voted = raft->members[i].granted = false;
	raft->self->voted = raft->self->granted = true;
	raft_restart_election_timer(raft);
}

void raft_pre_campaign(struct raft *raft)
{
	if (!raft_may_campaign(raft)) {
		raft->role = RAFT_FOLLOWER;
		raft->leader = 0;
		raft_restart_election_timer(raft);
		return;
	}
	raft->role = RAFT_PRE_CANDIDATE;
	start_poll(raft);
	if (count_granted(raft) >= raft_quorum(raft)) {
		raft_campaign(raft, false);
		return;
	}
	for (size_t i = 0; i < raft->member_count; i++)
		if (&raft->members[i] != raft->self && !raft->members[i].learner)
			raft_send(raft, (struct raft_message){.kind = RAFT_PRE_VOTE,
							      .to = raft->members[i].id,
							      .term = raft->hard.term + 1,
							      .log_index = raft_log_last(&raft->log),
							      .log_term = raft_log_last_term(&raft->log)});
}

void raft_campaign(struct raft *raft, bool by_transfer)
{
	raft->role = RAFT_CANDIDATE;
	raft->hard.term++;
	raft->hard.vote = raft->id;
	raft->hard_changed = true;
	start_poll(raft);
	/* After the sync, so that the own vote is durable before another can be counted with it. (A group of one has
	 * nobody to ask: raft_persisted makes the leader, lest the term be entered twice, before and after a crash.) */
	for (size_t i = 0; i < raft->member_count; i++)
		if (&raft->members[i] != raft->self && !raft->members[i].learner)
			raft_send_after_sync(raft, (struct raft_message){.kind = RAFT_VOTE,
									 .to = raft->members[i].id,
									 .log_index = raft_log_last(&raft->log),
									 .log_term = raft_log_last_term(&raft->log),
									 .context = by_transfer});
}

static bool is_up_to_date(const struct raft *raft, const struct raft_message *message)
{
#ifdef PLANT_VOTE_WITHOUT_LOG
	return true;
#endif
	uint64_t last_term = raft_log_last_term(&raft->log);
	if (message->log_term != last_term)
		return message->log_term > last_term;
	return message->log_index >= raft_log_last(&raft->log);
}

void raft_handle_vote_request(struct raft *raft, const struct raft_message *message)
{
	bool pre = message->kind == RAFT_PRE_VOTE;
	/* In our own term too: it may have risen by another's answer while the lease of the older leader still holds.
	 */
	if (!pre && message->term >= raft->hard.term && message->context != 1 && raft_hears_leader(raft))
		return;
	bool grant = is_up_to_date(raft, message);
	if (pre)
		grant = grant && message->term > raft->hard.term && !raft_hears_leader(raft);
	else
		grant = grant && message->term == raft->hard.term &&
			(raft->hard.vote == message->from || (raft->hard.vote == 0 && raft->leader == 0));
	struct raft_message reply = {
	    .kind = pre ? RAFT_PRE_VOTE_REPLY : RAFT_VOTE_REPLY,
	    .to = message->from,
	    .term = grant ? message->term : raft->hard.term,
	    .reject = !grant,
	};
	if (pre) {
		/* Who was removed while it could not be reached does not know; a leader's committed word is enough. */
		reply.context = raft->role == RAFT_LEADER && raft->membership_index <= raft->commit &&
				!raft_member(raft, message->from);
		if (reply.term > 0)
			raft_send(raft, reply);
		return;
	}
	if (grant) {
		if (raft->hard.vote != message->from) {
			raft->hard.vote = message->from;
			raft->hard_changed = true;
		}
		raft_restart_election_timer(raft);
	}
#ifdef PLANT_VOTE_WITHOUT_SYNC
	raft_send(raft, reply);
#else
	raft_send_after_sync(raft, reply);
#endif
}

void raft_handle_vote_reply(struct raft *raft, const struct raft_message *message)
{
	bool pre = message->kind == RAFT_PRE_VOTE_REPLY;
	if (pre && message->reject && message->context == 1) {
		/* Until a leader calls; it asks again now and then, should that one have been wrong. */
		raft->removed = true;
		raft->removed_due_ms = raft->now_ms + REMOVED_ELECTION_TIMEOUTS * raft->election_ms;
		raft_become_follower(raft, raft->hard.term, 0);
		return;
	}
	if (raft->role != (pre ? RAFT_PRE_CANDIDATE : RAFT_CANDIDATE))
		return;
	/* A granted pre-vote answers for the term after ours, a refused one says the voter's. */
	if (pre && !message->reject && message->term != raft->hard.term + 1)
		return;
	struct progress *member = raft_member(raft, message->from);
	if (!member->voted) {
		member->voted = true;
		member->granted = !message->reject;
	}
	if (count_granted(raft) >= raft_quorum(raft)) {
		if (pre)
			raft_campaign(raft, false);
		else
			raft_become_leader(raft);
	} else if (count_refused(raft) >= raft_quorum(raft)) {
		raft_become_follower(raft, raft->hard.term, 0);
	}
}

void raft_handle_timeout_now(struct raft *raft, const struct raft_message *message)
{
	if (raft->role != RAFT_FOLLOWER || raft->leader != message->from || !raft_may_campaign(raft))
		return;
	raft_campaign(raft, true);
}
