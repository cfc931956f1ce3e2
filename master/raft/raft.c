#include "master/raft/raft.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/raft/raft_internal.h"

size_t raft_quorum(const struct raft *raft)
{
	return raft->voter_count / 2 + 1;
}

bool raft_is_voter(const struct raft *raft)
{
	return !raft->self->learner;
}

bool raft_is_alone(const struct raft *raft)
{
	return raft->voter_count == 1 && raft_is_voter(raft);
}

bool raft_owes_nothing(const struct raft *raft)
{
#ifdef PLANT_LEFT_ALONE_TOO_SOON
	return raft_is_alone(raft);
#endif
	return raft_is_alone(raft) && raft->membership_index <= raft->commit;
}

uint64_t raft_hole(const struct raft *raft)
{
	return raft->log.hole_count == 0 ? 0 : raft_log_hole(&raft->log, raft->applied);
}

uint64_t raft_durable(const struct raft *raft)
{
	uint64_t durable = raft->log.persisted;
	if (raft->fills.floor != 0 && durable >= raft->fills.floor)
		durable = raft->fills.floor - 1;
	return durable;
}

struct progress *raft_member(struct raft *raft, uint64_t id)
{
	for (size_t i = 0; i < raft->member_count; i++)
		if (raft->members[i].id == id)
			return &raft->members[i];
	return NULL;
}

static void list_add(struct message_list *list, struct raft *raft, struct raft_message message)
{
	if (list->count == list->capacity) {
		list->capacity = list->capacity > 0 ? list->capacity * 2 : 16;
		list->items = mem_resize(list->items, list->capacity * sizeof(*list->items));
	}
	message.from = raft->id;
	message.node = raft->node;
	if (message.term == 0)
		message.term = raft->hard.term;
	list->items[list->count++] = message;
}

void raft_send(struct raft *raft, struct raft_message message)
{
	list_add(&raft->messages, raft, message);
}

void raft_send_after_sync(struct raft *raft, struct raft_message message)
{
	list_add(&raft->after_sync, raft, message);
}

static enum err check_restored(const struct raft_options *options, const struct raft_hard_state *hard,
			       uint64_t first_index, uint64_t first_previous_term, const struct raft_entry *entries,
			       size_t entry_count)
{
	uint64_t term = first_previous_term;
	if (first_index == 0 || options->installed_index > options->applied)
		return ERR_CORRUPT;
	for (size_t i = 0; i < entry_count; i++) {
		if (entries[i].index != first_index + i || entries[i].term < term || entries[i].term > hard->term)
			return ERR_CORRUPT;
		if (entries[i].kind == RAFT_ENTRY_MEMBERS && !entries[i].damaged && !raft_membership_is_sound(&entries[i]))
			return ERR_CORRUPT;
		term = entries[i].term;
	}
	return OK;
}

/* A log that ends before what was applied or known to be durable has lost entries that were acknowledged. */
static enum err check_log(const struct raft_options *options, const struct raft_hard_state *hard,
			  const struct raft_log *log)
{
	uint64_t last = raft_log_last(log);
	if (options->applied > last || hard->commit > last || options->applied + 1 < log->first)
		return ERR_CORRUPT;
	return OK;
}

/* Whether the log is from before the snapshot that the state machine began with. */
static bool log_is_obsolete(const struct raft_options *options, const struct raft_log *log)
{
	uint64_t index = options->installed_index;
	return index > 0 && index + 1 >= log->first && !raft_log_matches(log, index, options->installed_term);
}

static enum err take_membership(struct raft *raft, const struct raft_options *options)
{
	struct raft_membership *base = &raft->base;
	if (options->membership) {
		*base = *options->membership;
		raft->base_index = options->membership_index;
	}
	for (size_t i = 0; !options->membership && i < options->member_count; i++) {
		struct raft_member member = {.id = options->members[i]};
		if (membership_find(base, member.id) || !membership_put(base, &member))
			return ERR_INVALID;
	}
	raft_refresh_membership(raft);
	return OK;
}

static void take_log(struct raft *raft, uint64_t first_index, uint64_t first_previous_term,
		     const struct raft_entry *entries, size_t entry_count)
{
	raft_log_init(&raft->log, first_index, first_previous_term);
	for (size_t i = 0; i < entry_count; i++) {
#ifdef PLANT_CUT_ON_DAMAGE
		if (entries[i].damaged)
			break;
#endif
		if (entries[i].damaged)
			raft_log_append_hole(&raft->log, entries[i].term, entries[i].kind);
		else
			raft_log_append(&raft->log, entries[i].term, entries[i].kind, entries[i].payload);
	}
	raft->log.given = raft->log.persisted = raft_log_last(&raft->log);
}

static struct raft *raft_new(const struct raft_options *options, const struct raft_hard_state *hard)
{
	struct raft *raft = mem_zero(1, sizeof(*raft));
	raft->id = options->id;
	raft->node = options->node;
	raft->election_ms = options->election_ticks * options->tick_ms;
	raft->heartbeat_ms = options->heartbeat_ticks * options->tick_ms;
	raft->append_bytes_max = options->append_bytes_max > 0 ? options->append_bytes_max : RAFT_APPEND_BYTES_MAX;
	raft->role = RAFT_FOLLOWER;
	raft->hard = *hard;
	raft->applied = raft->commit_given = options->applied;
	raft->keep = UINT64_MAX;
	raft->self = &raft->outside;
	raft->outside = (struct progress){.id = options->id, .learner = true};
	rng_init(&raft->rng, options->seed);
	return raft;
}

enum err raft_open(const struct raft_options *options, const struct raft_hard_state *hard, uint64_t first_index,
		   uint64_t first_previous_term, const struct raft_entry *entries, size_t entry_count,
		   struct raft **out)
{
	*out = NULL;
	if (options->id == 0 || options->member_count > RAFT_MEMBERS_MAX ||
	    (options->membership && options->membership->count > RAFT_MEMBERS_MAX) ||
	    options->election_ticks <= options->heartbeat_ticks || options->heartbeat_ticks == 0 ||
	    options->tick_ms == 0)
		return ERR_INVALID;
	enum err err = check_restored(options, hard, first_index, first_previous_term, entries, entry_count);
	if (err)
		return err;
	struct raft *raft = raft_new(options, hard);
	take_log(raft, first_index, first_previous_term, entries, entry_count);
	if (log_is_obsolete(options, &raft->log)) {
		raft_restart_log(raft, options->installed_index, options->installed_term);
		raft->hard_changed = true;
		/* Its vote in that term, if it had one, was not durable and has not left it. */
		if (raft->hard.term < options->installed_term)
			raft->hard = (struct raft_hard_state){options->installed_term, RAFT_VOTE_UNKNOWN, hard->commit};
	}
	err = check_log(options, hard, &raft->log);
	if (err == OK)
		err = take_membership(raft, options);
	if (err) {
		raft_close(raft);
		return err;
	}
	raft->commit = hard->commit > options->applied ? hard->commit : options->applied;
	if (raft->commit < raft->log.first - 1)
		raft->commit = raft->log.first - 1;
	*out = raft;
	return OK;
}

void raft_close(struct raft *raft)
{
	if (!raft)
		return;
	raft_log_deinit(&raft->log);
	free(raft->messages.items);
	free(raft->after_sync.items);
	free(raft->messages_given.items);
	free(raft->after_sync_given.items);
	free(raft->fills.indexes);
	free(raft->fills.given);
	free(raft);
}

static void clock_advance(struct raft *raft, uint64_t now_ms)
{
	if (now_ms > raft->now_ms)
		raft->now_ms = now_ms;
	if (raft->started)
		return;
	raft->started = true;
	raft->heard_ms = raft->now_ms;
#ifdef PLANT_VOTE_AFTER_START
	raft->heard_ms -= raft->election_ms;
#endif
	raft_restart_election_timer(raft);
	if (raft_owes_nothing(raft))
		raft->campaign_due_ms = raft->now_ms;
}

/* A group of one needs only its own disk's answer, and asks for it once. */
static bool awaits_own_vote(const struct raft *raft)
{
	return raft->role == RAFT_CANDIDATE && raft_is_alone(raft);
}

static void tick_leader(struct raft *raft)
{
	if (raft_contact_count(raft) < raft_quorum(raft)) {
		raft_become_follower(raft, raft->hard.term, 0);
		return;
	}
	if (raft->transfer_to != 0 && raft->now_ms >= raft->transfer_due_ms) {
		raft->transfer_to = 0;
		/* The chosen one may still act on TIMEOUT_NOW, so that the lease cannot be had back in this term. */
		if (raft->lease_given_up) {
			raft_become_follower(raft, raft->hard.term, 0);
			return;
		}
	}
	for (size_t i = 0; i < raft->member_count; i++) {
		struct progress *member = &raft->members[i];
		if (member->state == PROGRESS_REPLICATE && member != raft->self &&
		    raft->now_ms - member->contact_ms >= raft->election_ms)
			progress_probe(member);
	}
	raft_leave_if_slow(raft);
	if (raft->now_ms < raft->heartbeat_due_ms)
		return;
	raft->heartbeat_due_ms = raft->now_ms + raft->heartbeat_ms;
	for (size_t i = 0; i < raft->member_count; i++)
		raft->members[i].heartbeat_due = true;
}

void raft_tick(struct raft *raft, uint64_t now_ms)
{
	clock_advance(raft, now_ms);
	if (raft->role == RAFT_LEADER)
		tick_leader(raft);
	else if (raft->now_ms >= raft->campaign_due_ms && !awaits_own_vote(raft))
		raft_pre_campaign(raft);
	if (raft->log.hole_count > 0)
		raft_fetch(raft);
}

/* A member of a higher term than the sender's. The term never falls. */
static void step_older_term(struct raft *raft, const struct raft_message *message)
{
	switch (message->kind) {
	case RAFT_PRE_VOTE:
	case RAFT_VOTE:
		raft_handle_vote_request(raft, message);
		break;
	case RAFT_APPEND:
	case RAFT_SNAPSHOT:
		/* Tells a leader of old that there is a later term: without it a member that is ahead after a lost
		 * election could neither follow nor (since the others hear their leader) be elected. */
		raft_send_after_sync(raft, (struct raft_message){.kind = RAFT_APPEND_REPLY,
								 .to = message->from,
								 .log_index = message->log_index,
								 .reject = true});
		break;
	default:
		break;
	}
}

/* True: the message is to be handled in the term that the member now has. */
static bool adopt_term(struct raft *raft, const struct raft_message *message)
{
	if (message->kind == RAFT_PRE_VOTE || (message->kind == RAFT_PRE_VOTE_REPLY && !message->reject))
		return true; /* speaks of a term that nobody has entered */
	if (message->kind == RAFT_VOTE && message->context != 1 && raft_hears_leader(raft))
		return false;
	bool leads = message->kind == RAFT_APPEND || message->kind == RAFT_SNAPSHOT;
	raft_become_follower(raft, message->term, leads ? message->from : 0);
	return true;
}

/* Answers count; so they are taken only from members, and only from the data directory that the membership means. A candidate may be
 * one that this member has not heard of yet, but not an empty disk under the name of another: two of those, or one and
 * a member that is far behind, would be a majority that knows nothing. Who leads has been elected by those who knew it. */
static bool is_believed(struct raft *raft, const struct raft_message *message)
{
	bool candidate = message->kind == RAFT_PRE_VOTE || message->kind == RAFT_VOTE;
	switch (message->kind) {
	case RAFT_PRE_VOTE:
	case RAFT_PRE_VOTE_REPLY:
	case RAFT_VOTE:
	case RAFT_VOTE_REPLY:
	case RAFT_APPEND_REPLY:
	case RAFT_FETCH_REPLY:
		break;
	default:
		return true;
	}
	struct progress *member = raft_member(raft, message->from);
	if (!member)
		return candidate;
#ifdef PLANT_STRANGER_COUNTS
	return true;
#endif
	if (member->node == 0 || member->node == message->node) {
		member->stranger = 0;
		return true;
	}
	if (member->stranger != message->node) {
		member->stranger = raft->stranger_node = message->node;
		member->stranger_ms = raft->now_ms;
		member->stranger_lives = false;
		raft->stranger = member->id;
	}
	if (message->kind == RAFT_APPEND_REPLY && message->context > member->stranger_ms)
		member->stranger_lives = true;
	return false;
}

static void step_in_term(struct raft *raft, const struct raft_message *message)
{
	switch (message->kind) {
	case RAFT_PRE_VOTE:
	case RAFT_VOTE:
		raft_handle_vote_request(raft, message);
		break;
	case RAFT_PRE_VOTE_REPLY:
	case RAFT_VOTE_REPLY:
		raft_handle_vote_reply(raft, message);
		break;
	case RAFT_APPEND:
		raft_handle_append(raft, message);
		break;
	case RAFT_APPEND_REPLY:
		raft_handle_append_reply(raft, message);
		break;
	case RAFT_TIMEOUT_NOW:
		raft_handle_timeout_now(raft, message);
		break;
	case RAFT_SNAPSHOT:
		raft_handle_snapshot(raft, message);
		break;
	case RAFT_FETCH:
	case RAFT_FETCH_REPLY:
		break;
	}
}

void raft_step(struct raft *raft, uint64_t now_ms, const struct raft_message *message)
{
	clock_advance(raft, now_ms);
	if (message->to != raft->id || message->from == raft->id || message->from == 0 || message->term == 0 ||
	    !is_believed(raft, message))
		return;
	/* What an entry is does not depend on the term in which it is asked for. */
	if (message->kind == RAFT_FETCH) {
		raft_handle_fetch(raft, message);
		return;
	}
	if (message->kind == RAFT_FETCH_REPLY) {
		raft_handle_fetch_reply(raft, message);
		return;
	}
	if (message->term < raft->hard.term) {
		step_older_term(raft, message);
		return;
	}
	if (message->term > raft->hard.term && !adopt_term(raft, message))
		return;
	step_in_term(raft, message);
}

static void give_messages(struct message_list *gathered, struct message_list *given)
{
	struct message_list spare = *given;
	*given = *gathered;
	*gathered = spare;
	gathered->count = 0;
}

/* Committed, on the own disk, and without a hole before it. */
static uint64_t commit_to_give(const struct raft *raft)
{
#ifdef PLANT_COMMIT_NOT_STORED
	return raft->commit;
#endif
	uint64_t commit = raft->commit < raft->log.persisted ? raft->commit : raft->log.persisted;
#ifdef PLANT_HOLE_GIVEN_OUT
	return commit;
#endif
	uint64_t hole = raft_hole(raft);
	return hole != 0 && commit >= hole ? hole - 1 : commit;
}

/* What is said once. */
static bool give_news(struct raft *raft, struct raft_ready *out)
{
	out->reset = raft->reset;
	out->reset_index = raft->reset_index;
	out->reset_term = raft->reset_term;
	out->snapshot_from = raft->snapshot_from;
	out->snapshot_index = raft->snapshot_index;
	out->snapshot_term = raft->snapshot_term;
	out->stranger = raft->stranger;
	out->stranger_node = raft->stranger_node;
	raft->reset = false;
	raft->snapshot_from = raft->stranger = 0;
	raft_give_fills(raft, out);
	return out->reset || out->snapshot_from != 0 || out->stranger != 0 || out->fill_count > 0;
}

bool raft_ready(struct raft *raft, struct raft_ready *out)
{
	if (raft->role == RAFT_LEADER)
		raft_replicate(raft);
	*out = (struct raft_ready){.hard_changed = raft->hard_changed, .hard = raft->hard};
	bool news = give_news(raft, out);
	uint64_t last = raft_log_last(&raft->log);
	if (raft->log.given < last) {
		out->entries = raft_log_at(&raft->log, raft->log.given + 1);
		out->entry_count = (size_t)(last - raft->log.given);
		raft->log.given = last;
	}
	uint64_t commit = commit_to_give(raft);
	bool committed = commit > raft->commit_given;
	if (committed)
		raft->commit_given = commit;
	out->commit = raft->commit_given;
	out->hard.commit = raft->commit_given;
	raft->hard_changed = false;
	give_messages(&raft->messages, &raft->messages_given);
	give_messages(&raft->after_sync, &raft->after_sync_given);
	out->messages = raft->messages_given.items;
	out->message_count = raft->messages_given.count;
	out->messages_after_sync = raft->after_sync_given.items;
	out->message_after_sync_count = raft->after_sync_given.count;
	return out->hard_changed || out->entry_count > 0 || out->message_count > 0 ||
	       out->message_after_sync_count > 0 || committed || news;
}

static void count_own(struct raft *raft)
{
	if (raft->role != RAFT_LEADER)
		return;
	raft->self->match = raft_durable(raft);
	raft_commit_by_counting(raft);
}

void raft_persisted(struct raft *raft, uint64_t now_ms, uint64_t index, uint64_t term)
{
	clock_advance(raft, now_ms);
	bool grown = raft_log_persisted(&raft->log, index, term);
	if (awaits_own_vote(raft) && !raft->hard_changed)
		raft_become_leader(raft); /* nothing but its vote can have been under way */
	if (grown)
		count_own(raft);
}

void raft_filled(struct raft *raft, size_t count)
{
	check(count <= raft->fills.outstanding);
	raft->fills.outstanding -= count;
	if (raft->fills.outstanding > 0 || raft->fills.count > 0)
		return;
	raft->fills.floor = 0;
	count_own(raft);
}

void raft_applied(struct raft *raft, uint64_t index)
{
	check(index <= raft->commit_given);
	if (index > raft->applied)
		raft->applied = index;
}

const struct raft_entry *raft_entry_at(const struct raft *raft, uint64_t index)
{
	return raft_log_at(&raft->log, index);
}

uint64_t raft_safe_to_compact(const struct raft *raft)
{
	return raft->role == RAFT_LEADER ? raft_held_by_all(raft) : raft->held;
}

static struct raft_progress_view view_member(const struct raft *raft, const struct progress *member)
{
	return (struct raft_progress_view){
	    .id = member->id,
	    .node = member->node,
	    .match = member->match,
	    .next = member->next,
	    .contact_ms = member == raft->self ? raft->now_ms : member->contact_ms,
	    .learner = member->learner,
	    .caught_up = raft_is_caught_up(raft, member),
	    .snapshot = raft->role == RAFT_LEADER && member->state == PROGRESS_SNAPSHOT,
	    .stranger_node = member->stranger_lives ? member->stranger : 0,
	};
}

void raft_view(const struct raft *raft, struct raft_view *out)
{
	*out = (struct raft_view){
	    .id = raft->id,
	    .role = raft->role,
	    .term = raft->hard.term,
	    .leader = raft->leader,
	    .commit = raft->commit_given,
	    .applied = raft->applied,
	    .first = raft->log.first,
	    .last = raft_log_last(&raft->log),
	    .voter = raft_is_voter(raft),
	    .removed = raft->removed,
	    .membership_index = raft->membership_index,
	    .membership_committed = raft->membership_index <= raft->commit,
	    .holes = raft->log.hole_count,
	    .hole = raft->log.hole_first,
	    .given_up = raft->given_up,
	    .hole_waits = raft->log.hole_count > 0 && raft->fetching.went_round,
	    .member_count = raft->member_count,
	};
	for (size_t i = 0; i < raft->member_count; i++)
		out->members[i] = view_member(raft, &raft->members[i]);
}
