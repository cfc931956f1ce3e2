/* Snapshots: offered by a leader, asked for by a follower, and the log after one; and what may leave the log's memory. */
#include "common/base/check.h"
#include "master/raft/raft_internal.h"

/* ---- the leader's side */

void raft_send_snapshot(struct raft *raft, struct progress *member)
{
	struct raft_message message = {
	    .kind = RAFT_SNAPSHOT,
	    .to = member->id,
	    .log_index = raft->applied,
	    .commit = raft->commit,
	    .context = raft->now_ms,
	    .hint_index = raft->log.first - 1,
	    .hint_term = raft->log.previous_term,
	};
	bool known = raft_log_term(&raft->log, raft->applied, &message.log_term);
	check(known);
	raft_send(raft, message);
	member->heartbeat_due = false;
}

/* ---- the follower's side */

/* From where the leader's log can go on here: an index at which both have the same entry, not below the leader's first but one;
 * 0: there is none. If logs agree anywhere above that, they agree there, or what is there is forgotten here, so committed. */
static uint64_t agreement(const struct raft *raft, const struct raft_message *message, uint64_t hole)
{
	uint64_t index = message->hint_index;
	if (hole != 0 && index >= hole)
		return 0;
	if (index < raft->log.first - 1)
		return raft->log.first - 1;
	return raft_log_matches(&raft->log, index, message->hint_term) ? index : 0;
}

void raft_handle_snapshot(struct raft *raft, const struct raft_message *message)
{
	if (raft->role == RAFT_LEADER || (raft->leader != 0 && raft->leader != message->from) ||
	    message->log_index == UINT64_MAX || message->log_term > message->term)
		return;
	raft_hear_leader(raft, message);
	uint64_t hole = raft_hole(raft);
	bool whole = hole == 0 || message->log_index < hole;
	if (message->log_index + 1 < raft->log.first) {
		raft_accept_append(raft, message, raft->log.first - 1); /* compacted, so committed */
		return;
	}
	if (whole && raft_log_matches(&raft->log, message->log_index, message->log_term)) {
		raft_accept_append(raft, message, message->log_index);
		return;
	}
	uint64_t agree = agreement(raft, message, hole);
	struct raft_message reply = {
	    .kind = RAFT_APPEND_REPLY,
	    .to = message->from,
	    .log_index = message->log_index,
	    .reject = true,
	    .hint_index = agree,
	    .context = message->context,
	    .held = hole,
	};
	if (agree > 0 && !raft_log_term(&raft->log, agree, &reply.hint_term))
		reply.hint_index = 0;
	raft_send(raft, reply);
	if (agree > 0 || message->hint_index == 0 || message->log_index <= raft->commit_given)
		return; /* appends will do */
	raft->snapshot_from = message->from;
	raft->snapshot_index = message->log_index;
	raft->snapshot_term = message->log_term;
}

void raft_restart_log(struct raft *raft, uint64_t index, uint64_t term)
{
	raft_log_deinit(&raft->log);
	raft_log_init(&raft->log, index + 1, term);
	raft->log.floor = raft->hard.term;
	raft->fills.count = 0;
	raft->fills.floor = 0;
	raft->reset = true;
	raft->reset_index = index;
	raft->reset_term = term;
}

enum err raft_install(struct raft *raft, uint64_t now_ms, const struct raft_snapshot *snapshot)
{
	if (now_ms > raft->now_ms)
		raft->now_ms = now_ms;
	if (raft->role == RAFT_LEADER || snapshot->index <= raft->commit_given || snapshot->index == UINT64_MAX ||
	    snapshot->membership_index > snapshot->index)
		return ERR_INVALID;
	/* Who gave it may have been in a later term by then, and entries of that be committed. */
	if (snapshot->term > raft->hard.term)
		raft_become_follower(raft, snapshot->term, 0);
	else if (raft->role != RAFT_FOLLOWER)
		raft_become_follower(raft, raft->hard.term, 0);
	if (!raft_log_matches(&raft->log, snapshot->index, snapshot->term))
		raft_restart_log(raft, snapshot->index, snapshot->term);
	if (raft->commit < snapshot->index)
		raft->commit = snapshot->index;
	raft->commit_given = raft->applied = snapshot->index;
	if (snapshot->membership_index >= raft->base_index) {
		raft->base = snapshot->membership;
		raft->base_index = snapshot->membership_index;
	}
	raft_refresh_membership(raft);
	return OK;
}

/* ---- what is forgotten */

void raft_forget_before(struct raft *raft, uint64_t index)
{
	for (uint64_t gone = raft->log.first; gone < index; gone++)
		if (!raft_keep_membership(raft, gone))
			index = gone;
	raft_log_compact(&raft->log, index);
}

void raft_compact(struct raft *raft, uint64_t index)
{
	if (index > raft->applied)
		index = raft->applied;
	if (index > raft->log.persisted)
		index = raft->log.persisted;
	if (raft->keep != UINT64_MAX && index > raft->keep + 1)
		index = raft->keep + 1;
	raft_forget_before(raft, index);
}

void raft_keep(struct raft *raft, uint64_t index)
{
	raft->keep = index;
}

uint64_t raft_compactable(const struct raft *raft, uint64_t kept_bytes_max)
{
	uint64_t index = raft->log.first;
	uint64_t held = raft_safe_to_compact(raft);
	uint64_t kept_bytes = raft->log.bytes;
	for (const struct raft_entry *entry; index < raft->applied && (index < held || kept_bytes > kept_bytes_max); index++) {
		entry = raft_log_at(&raft->log, index);
		if (!entry)
			break;
		kept_bytes -= entry->payload.size;
	}
	return index < raft->applied ? index : raft->applied;
}
