/* The log's way to the others: appends, their answers, commit, lease, transfer. */
#include "common/base/check.h"
#include "master/raft/raft_internal.h"

/* What an entry takes in a message besides its payload, at most. */
#define ENTRY_OVERHEAD_BYTES 40u
/* So long may a leader's disk be behind the majority's. */
#define SLOW_ELECTION_TIMEOUTS 4u

/* The value that at least a majority of the members reach. */
static uint64_t majority_value(const struct raft *raft, uint64_t (*value)(const struct raft *, const struct progress *))
{
	uint64_t values[RAFT_MEMBERS_MAX];
	size_t count = 0;
	for (size_t i = 0; i < raft->member_count; i++) {
#ifndef PLANT_LEARNER_COUNTS
		if (raft->members[i].learner)
			continue;
#endif
		uint64_t item = value(raft, &raft->members[i]);
		size_t place = count++;
		for (; place > 0 && values[place - 1] < item; place--)
			values[place] = values[place - 1];
		values[place] = item;
	}
	return values[raft_quorum(raft) - 1];
}

static uint64_t match_of(const struct raft *raft, const struct progress *member)
{
	(void)raft;
	return member->match;
}

static uint64_t echo_of(const struct raft *raft, const struct progress *member)
{
	return member == raft->self ? raft->now_ms : member->echo_ms;
}

static void advance_commit(struct raft *raft, uint64_t commit)
{
	if (raft->role == RAFT_LEADER)
		for (uint64_t index = raft->commit + 1; index <= commit; index++)
			raft->uncommitted_bytes -= raft_log_at(&raft->log, index)->payload.size;
	raft->commit = commit;
}

void raft_commit_by_counting(struct raft *raft)
{
	uint64_t index = majority_value(raft, match_of);
	if (index <= raft->commit)
		return;
#ifndef PLANT_COMMIT_OLDER_TERM
	if (!raft_log_matches(&raft->log, index, raft->hard.term))
		return;
#endif
	advance_commit(raft, index);
	if (raft->self->learner)
		raft_leave_if_removed(raft);
}

void raft_append_own(struct raft *raft, enum raft_entry_kind kind, struct slice payload)
{
	raft_log_append(&raft->log, raft->hard.term, kind, payload);
	raft->uncommitted_bytes += payload.size;
}

enum err raft_propose(struct raft *raft, uint64_t now_ms, enum raft_entry_kind kind, struct slice payload,
		      uint64_t *index)
{
	if (now_ms > raft->now_ms)
		raft->now_ms = now_ms;
	if (raft->role != RAFT_LEADER)
		return ERR_NOT_LEADER;
	if (kind == RAFT_ENTRY_MEMBERS)
		return ERR_INVALID;
	if (payload.size > RAFT_ENTRY_BYTES_MAX)
		return ERR_TOO_LARGE;
	if (raft->transfer_to != 0)
		return ERR_BUSY;
	if (raft->uncommitted_bytes > 0 && raft->uncommitted_bytes + payload.size > RAFT_UNCOMMITTED_BYTES_MAX)
		return ERR_BUSY;
	raft_append_own(raft, kind, payload);
	*index = raft_log_last(&raft->log);
	return OK;
}

/* ---- the leader's side */

static void send_append(struct raft *raft, struct progress *member, bool empty)
{
	struct raft_message message = {
	    .kind = RAFT_APPEND,
	    .to = member->id,
	    .log_index = member->next - 1,
	    .commit = raft->commit,
	    .context = raft->now_ms,
	    .held = raft_held_by_all(raft),
	};
	bool known = raft_log_term(&raft->log, message.log_index, &message.log_term);
	check(known);
	uint64_t last = raft_log_last(&raft->log);
	size_t bytes = 0;
	if (!empty && member->next <= last) {
		message.entries = raft_log_at(&raft->log, member->next);
		while (member->next + message.entry_count <= last) {
			bytes += message.entries[message.entry_count].payload.size + ENTRY_OVERHEAD_BYTES;
			if (message.entry_count > 0 && bytes > raft->append_bytes_max)
				break;
			message.entry_count++;
		}
	}
	raft_send(raft, message);
	progress_sent(member, message.log_index + message.entry_count);
	/* Under load, too: only an empty one is answered while the member's disk is slow. */
	if (empty)
		member->heartbeat_due = false;
}

void raft_replicate(struct raft *raft)
{
	uint64_t last = raft_log_last(&raft->log);
	for (size_t i = 0; i < raft->member_count; i++) {
		struct progress *member = &raft->members[i];
		if (member == raft->self)
			continue;
		if (member->next < raft->log.first && member->state != PROGRESS_SNAPSHOT)
			progress_snapshot(member);
		if (member->state == PROGRESS_SNAPSHOT) {
			if (member->heartbeat_due)
				raft_send_snapshot(raft, member);
			continue;
		}
		if (member->state == PROGRESS_PROBE && !member->probing)
			send_append(raft, member, false);
		while (member->state == PROGRESS_REPLICATE && member->next <= last && !progress_is_full(member))
			send_append(raft, member, false);
		if (member->heartbeat_due)
			send_append(raft, member, true);
	}
}

static void handle_refusal(struct raft *raft, struct progress *member, const struct raft_message *message)
{
	uint64_t agree = raft_log_agree(&raft->log, message->hint_index, message->hint_term);
	if (message->held != 0 && message->held <= member->match) {
		/* It had them: its disk has lost some since. */
		member->match = message->held - 1;
		progress_probe(member);
	} else if (member->state != PROGRESS_SNAPSHOT) {
		progress_refused(member, message->log_index, agree);
	} else if (agree + 1 >= raft->log.first) {
		progress_probe(member);
		member->next = agree + 1 > member->next ? agree + 1 : member->next;
	}
}

void raft_handle_append_reply(struct raft *raft, const struct raft_message *message)
{
	if (raft->role != RAFT_LEADER)
		return;
	if (message->log_index > raft_log_last(&raft->log) || message->context > raft->now_ms)
		return; /* not an answer to anything sent in this term */
	struct progress *member = raft_member(raft, message->from);
	member->contact_ms = raft->now_ms;
	if (message->context > member->echo_ms)
		member->echo_ms = message->context;
	if (message->reject) {
		handle_refusal(raft, member, message);
		return;
	}
	if (progress_accepted(member, message->log_index))
		raft_commit_by_counting(raft);
	if (raft->transfer_to == member->id)
		raft_advance_transfer(raft);
}

size_t raft_contact_count(const struct raft *raft)
{
	size_t count = 0;
	for (size_t i = 0; i < raft->member_count; i++)
		count += !raft->members[i].learner &&
			 (&raft->members[i] == raft->self ||
			  raft->now_ms - raft->members[i].contact_ms < raft->election_ms);
	return count;
}

uint64_t raft_held_by_all(const struct raft *raft)
{
	uint64_t held = raft->commit;
	for (size_t i = 0; i < raft->member_count; i++)
		if (raft->members[i].match < held)
			held = raft->members[i].match;
	return held;
}

/* now_ms is newer than the clock of any echo: the voters' promise began when the echoed message arrived, not before it
 * was sent, and lasts election_ms by their clocks. */
bool raft_can_read(const struct raft *raft, uint64_t now_ms)
{
	if (raft->role != RAFT_LEADER || raft->applied < raft->barrier)
		return false;
	if (raft_is_alone(raft))
		return true;
#ifdef PLANT_LEASE_IGNORED
	return true;
#endif
	if (raft->lease_given_up)
		return false;
	uint64_t echoed = majority_value(raft, echo_of);
	uint64_t lease_ms = raft->election_ms * (100 - RAFT_CLOCK_DRIFT_PERCENT) / 100;
	return echoed > 0 && now_ms < echoed + lease_ms;
}

/* ---- the follower's side */

bool raft_entry_is_sound(const struct raft_entry *entry)
{
	return entry->payload.size <= RAFT_ENTRY_BYTES_MAX && entry->kind >= RAFT_ENTRY_NORMAL &&
	       entry->kind <= RAFT_ENTRY_MEMBERS && !entry->damaged &&
	       (entry->kind != RAFT_ENTRY_MEMBERS || raft_membership_is_sound(entry));
}

static bool append_is_sound(const struct raft_message *message)
{
	uint64_t term = message->log_term;
	for (size_t i = 0; i < message->entry_count; i++) {
		const struct raft_entry *entry = &message->entries[i];
		if (entry->index != message->log_index + 1 + i || entry->term < term || entry->term > message->term ||
		    !raft_entry_is_sound(entry))
			return false;
		term = entry->term;
	}
	return message->log_index < UINT64_MAX - message->entry_count &&
	       (message->log_index > 0 || message->log_term == 0);
}

/* Takes over the entries that are new; what contradicts them goes. False: they contradict what is committed. */
static bool take_entries(struct raft *raft, const struct raft_message *message)
{
	bool members = false;
	for (size_t i = 0; i < message->entry_count; i++) {
		const struct raft_entry *entry = &message->entries[i];
		if (entry->index < raft->log.first)
			continue;
		if (raft_log_matches(&raft->log, entry->index, entry->term)) {
			if (raft_log_at(&raft->log, entry->index)->damaged)
				raft_fill(raft, entry);
			continue;
		}
		if (entry->index <= raft->commit)
			return false;
		if (entry->index <= raft_log_last(&raft->log))
			raft_log_truncate(&raft->log, entry->index, raft->hard.term);
		raft_log_append(&raft->log, entry->term, entry->kind, entry->payload);
		members |= entry->kind == RAFT_ENTRY_MEMBERS || raft->membership_index >= entry->index;
	}
	if (members)
		raft_refresh_membership(raft);
	return true;
}

void raft_refuse_append(struct raft *raft, const struct raft_message *message)
{
	uint64_t agree = raft_log_agree(&raft->log, message->log_index, message->log_term);
	uint64_t hole = raft_hole(raft);
	if (hole != 0 && agree >= hole)
		agree = hole - 1;
	struct raft_message reply = {
	    .kind = RAFT_APPEND_REPLY,
	    .to = message->from,
	    .log_index = message->log_index,
	    .reject = true,
	    .hint_index = agree,
	    .context = message->context,
	    .held = hole,
	};
	if (!raft_log_term(&raft->log, agree, &reply.hint_term))
		reply.hint_term = 0;
	raft_send(raft, reply);
}

void raft_accept_append(struct raft *raft, const struct raft_message *message, uint64_t match)
{
	struct raft_message reply = {
	    .kind = RAFT_APPEND_REPLY,
	    .to = message->from,
	    .log_index = match,
	    .context = message->context,
	};
#ifdef PLANT_ACK_BEFORE_SYNC
	raft_send(raft, reply);
	return;
#endif
	uint64_t held = raft_durable(raft);
	bool durable = match <= held && !raft->hard_changed;
	/* A heartbeat's answer need not wait for the disk, if it says nothing that is not on it: a slow disk would cost
	 * the leader its majority. The whole truth follows once it is durable; now and then is enough. */
	if (message->entry_count == 0 && !durable && !raft->hard_changed) {
		struct raft_message now = reply;
		now.log_index = held;
		raft_send(raft, now);
		if (raft->now_ms < raft->answer_held_ms)
			return;
		raft->answer_held_ms = raft->now_ms + raft->election_ms;
	}
	if (durable)
		raft_send(raft, reply);
	else
		raft_send_after_sync(raft, reply);
}

void raft_hear_leader(struct raft *raft, const struct raft_message *message)
{
	if (raft->role != RAFT_FOLLOWER)
		raft_become_follower(raft, raft->hard.term, message->from);
	raft->leader = message->from;
	raft->removed = false;
	raft->heard_ms = raft->now_ms;
	raft_restart_election_timer(raft);
	if (message->held > raft->held)
		raft->held = message->held;
}

void raft_handle_append(struct raft *raft, const struct raft_message *message)
{
	if (raft->role == RAFT_LEADER || (raft->leader != 0 && raft->leader != message->from) ||
	    !append_is_sound(message))
		return;
	raft_hear_leader(raft, message);
	bool behind = message->log_index + 1 < raft->log.first;
	uint64_t hole = raft_hole(raft);
	if (!behind && (!raft_log_matches(&raft->log, message->log_index, message->log_term) ||
			(hole != 0 && message->log_index >= hole))) {
		raft_refuse_append(raft, message);
		return;
	}
	if (!take_entries(raft, message))
		return;
	uint64_t match = message->log_index + message->entry_count;
	if (behind && match < raft->log.first - 1)
		match = raft->log.first - 1; /* compacted, so committed */
	uint64_t commit = message->commit < match ? message->commit : match;
	if (commit > raft->commit)
		advance_commit(raft, commit);
	raft_accept_append(raft, message, match);
}

/* ---- transfer */

/* A leader applies only what is on its own disk: one that is stuck would hold up everyone, while the others go on. */
void raft_leave_if_slow(struct raft *raft)
{
	if (raft->commit <= raft->log.persisted)
		raft->keeping_up_ms = raft->now_ms;
	if (raft->now_ms - raft->keeping_up_ms < SLOW_ELECTION_TIMEOUTS * raft->election_ms || raft->transfer_to != 0)
		return;
	raft->keeping_up_ms = raft->now_ms;
	if (raft->voter_count > 1) {
		enum err err = raft_transfer(raft, raft->now_ms, 0);
		check(err == OK);
	}
}

void raft_advance_transfer(struct raft *raft)
{
	const struct progress *member = raft_member(raft, raft->transfer_to);
	if (member->match < raft_log_last(&raft->log) || raft->lease_given_up)
		return;
	raft->lease_given_up = true;
	raft_send(raft, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .to = member->id});
}

enum err raft_transfer(struct raft *raft, uint64_t now_ms, uint64_t member)
{
	if (now_ms > raft->now_ms)
		raft->now_ms = now_ms;
	if (raft->role != RAFT_LEADER)
		return ERR_NOT_LEADER;
	if (raft->transfer_to != 0)
		return ERR_BUSY;
	if (member == raft->id)
		return OK;
	const struct progress *chosen = member != 0 ? raft_member(raft, member) : NULL;
	for (size_t i = 0; member == 0 && i < raft->member_count; i++) {
		const struct progress *candidate = &raft->members[i];
		if (candidate != raft->self && !candidate->learner && (!chosen || candidate->match > chosen->match))
			chosen = candidate;
	}
	if (!chosen || chosen->learner)
		return ERR_INVALID;
	raft->transfer_to = chosen->id;
	raft->transfer_due_ms = raft->now_ms + raft->election_ms;
	raft_advance_transfer(raft);
	return OK;
}
