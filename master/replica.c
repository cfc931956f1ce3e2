#include "master/replica.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "master/replica_internal.h"

void replica_fail(struct replica *replica, const char *what, enum err err)
{
	if (replica->failed)
		return;
	replica->failed = true;
	log_error("master_store_failed", "what=%s error=%s", what, err_name(err));
	/* The next start then does not trust it. */
	if (strcmp(what, "state") == 0 && (err == ERR_CORRUPT || (replica->store && kv_is_damaged(replica->store->kv))))
		state_mark_damaged(replica->loop, replica->options.directory);
	timer_stop(&replica->tick);
	timer_stop(&replica->trim);
	timer_stop(&replica->resume);
	replica->options.events->failed(replica->options.events_arg, err);
}

/* ---- proposals */

static void proposal_end(struct proposal *proposal, enum err err)
{
	Granary__MetaReply *none = NULL;

	proposal->done(proposal, err, &none);
}

void replica_batch_free(struct batch *batch)
{
	free(batch->entry.requests);
	free(batch->proposals);
	free(batch);
}

/* The first `count` proposals leave the queue as one batch. */
static struct batch *batch_take(struct replica *replica, size_t count)
{
	struct batch *batch = mem_zero(1, sizeof(*batch));

	batch->entry = (Granary__LogEntry)GRANARY__LOG_ENTRY__INIT;
	batch->entry.n_requests = count;
	batch->entry.requests = mem_alloc(count * sizeof(batch->entry.requests[0]));
	batch->proposals = mem_alloc(count * sizeof(struct proposal *));
	struct proposal *proposal = replica->waiting;
	for (size_t i = 0; i < count; i++, proposal = proposal->next) {
		batch->proposals[i] = proposal;
		batch->entry.requests[i] = proposal->request;
	}
	return batch;
}

static void waiting_drop(struct replica *replica, size_t count)
{
	for (size_t i = 0; i < count; i++)
		replica->waiting = replica->waiting->next;
	replica->waiting_count -= count;
	if (!replica->waiting)
		replica->waiting_end = &replica->waiting;
}

static void waiting_refuse(struct replica *replica, enum err err)
{
	while (replica->waiting) {
		struct proposal *proposal = replica->waiting;
		waiting_drop(replica, 1);
		proposal_end(proposal, err);
	}
}

/* How many of those that wait fit into one entry. */
static size_t waiting_fit(const struct replica *replica)
{
	size_t count = 0;
	size_t bytes = 32; /* the time, and to spare */

	for (const struct proposal *p = replica->waiting; p && count < MESSAGE_ARRAY_MAX; p = p->next, count++) {
		bytes += p->packed_bytes + 8;
		if (bytes > RAFT_ENTRY_BYTES_MAX)
			break;
	}
	return count;
}

static enum err propose_batch(struct replica *replica, size_t count)
{
	struct batch *batch = batch_take(replica, count);
	uint64_t wall_ns = loop_wall_ms(replica->loop) * NS_PER_MS;

	batch->entry.time_ns = wall_ns > replica->last_time_ns ? wall_ns : replica->last_time_ns + 1;
#ifndef PLANT_IDS_AGAIN
	if (batch->entry.time_ns < replica->used_time_ns)
		batch->entry.time_ns = replica->used_time_ns;
#endif
	batch->term = replica->leading_term;
	buf_clear(&replica->packed);
	message_pack(&batch->entry.base, &replica->packed);
	enum err err = raft_propose(replica->raft, replica_now_ms(replica), RAFT_ENTRY_NORMAL, buf_slice(&replica->packed),
				    &batch->index);
	if (err) {
		replica_batch_free(batch);
		return err;
	}
	replica->last_time_ns = batch->entry.time_ns;
	waiting_drop(replica, count);
	*replica->batches_end = batch;
	replica->batches_end = &batch->next;
	return OK;
}

/* False: those that are left wait for the next message or tick. */
static bool propose_waiting(struct replica *replica)
{
	while (replica->waiting) {
		struct proposal *first = replica->waiting;
		if (first->refused == OK && first->packed_bytes > RAFT_ENTRY_BYTES_MAX - 64)
			first->refused = ERR_TOO_LARGE;
		if (first->refused) {
			waiting_drop(replica, 1);
			proposal_end(first, first->refused);
			continue;
		}
		/* ERR_BUSY: the log is full of entries not committed, or leadership is being handed over. */
		if (propose_batch(replica, waiting_fit(replica)))
			return false;
	}
	return true;
}

void replica_propose(struct replica *replica, struct proposal *proposal)
{
	proposal->next = NULL;
	proposal->refused = replica->waiting_count >= PROPOSALS_WAITING_MAX ? ERR_BUSY : OK;
	proposal->packed_bytes = protobuf_c_message_get_packed_size(&proposal->request->base);
	*replica->waiting_end = proposal;
	replica->waiting_end = &proposal->next;
	replica->waiting_count++;
	if (!replica->failed)
		defer_post(&replica->round);
}

/* ---- role */

static void proposals_end(struct replica *replica, enum err err)
{
	struct batch *batch = replica->batches;

	replica->batches = NULL;
	replica->batches_end = &replica->batches;
	replica->leading_term = 0;
	while (batch) {
		struct batch *next = batch->next;
		for (size_t i = 0; i < batch->entry.n_requests; i++)
			proposal_end(batch->proposals[i], err);
		replica_batch_free(batch);
		batch = next;
	}
	waiting_refuse(replica, err);
}

/* Where the members are to be found: as configured, else as the membership says; those that are configured and no members, too. */
static void follow_members(struct replica *replica, const struct raft_view *view)
{
	struct members members = { 0 };
	uint64_t index;

	if (view->membership_index == replica->members_index && view->term == replica->members_term)
		return;
	const struct raft_membership *membership = raft_membership(replica->raft, &index);
	enum err err = OK;
	for (size_t i = 0; err == OK && i < membership->count; i++) {
		const struct raft_member *member = &membership->members[i];
		const char *address = members_address(replica->options.members, member->id);
		if (address || member->address[0])
			err = members_put(&members, member->id, address ? address : member->address);
	}
	for (size_t i = 0; err == OK && i < replica->options.members->count && members.count < RAFT_MEMBERS_MAX; i++)
		err = members_put(&members, replica->options.members->ids[i], replica->options.members->addresses[i]);
	if (err)
		log_warn("master_members_strange", "index=%" PRIu64 " error=%s", index, err_name(err));
	replica->members_index = view->membership_index;
	replica->members_term = view->term;
	replica->members = members;
	peers_set(replica->peers, &members);
	replica->options.events->members_changed(replica->options.events_arg, membership);
}

/* Compares what raft says with what the shell does, after anything that may have changed it. */
static void follow_role(struct replica *replica)
{
	struct raft_view view;

	raft_view(replica->raft, &view);
	replica->role = view.role;
	/* A follower has nothing better to do than to sync, and saves two hand-overs between threads a round. */
	wal_set_inline(replica->wal, view.role == RAFT_FOLLOWER);
	follow_members(replica, &view);
	if (replica->leading_term && (view.role != RAFT_LEADER || view.term != replica->leading_term || replica->anew)) {
		log_info("master_deposed", "term=%" PRIu64, view.term);
		proposals_end(replica, ERR_NOT_LEADER);
		replica->options.events->deposed(replica->options.events_arg);
	}
	replica->anew = false;
	if (view.role != RAFT_LEADER) {
		waiting_refuse(replica, ERR_NOT_LEADER);
	} else if (!replica->leading_term && meta_applied_term(replica->meta) == view.term) {
		replica->leading_term = view.term;
		replica->last_time_ns = meta_last_time_ns(replica->meta);
		log_info("master_leading", "term=%" PRIu64 " index=%" PRIu64, view.term, view.applied);
		replica->options.events->leading(replica->options.events_arg);
	}
}

/* ---- rounds */

static void send_all(struct replica *replica, const struct raft_message *messages, size_t count)
{
	for (size_t i = 0; i < count; i++)
		peers_send(replica->peers, &messages[i]);
}

static void write_free(struct write *write)
{
	free(write->held);
	free(write);
}

void replica_on_synced(void *arg, enum err err, uint64_t mark, uint64_t index, uint64_t term)
{
	struct replica *replica = arg;

	if (err) {
		replica_fail(replica, "log", err);
		return;
	}
	raft_persisted(replica->raft, replica_now_ms(replica), index, term);
	while (replica->writes && replica->writes->mark <= mark) {
		struct write *write = replica->writes;
		replica->writes = write->next;
		send_all(replica, write->held, write->held_count);
		if (write->fills > 0)
			raft_filled(replica->raft, write->fills);
		write_free(write);
	}
	if (!replica->writes)
		replica->writes_end = &replica->writes;
	defer_post(&replica->round);
}

static void hold(struct write *write, const struct raft_message *messages, size_t count)
{
	if (count == 0)
		return;
	write->held = mem_resize(write->held, (write->held_count + count) * sizeof(*messages));
	for (size_t i = 0; i < count; i++) {
		check(messages[i].entry_count == 0);
		write->held[write->held_count++] = messages[i];
	}
}

static enum err write_start(struct replica *replica, const struct raft_ready *ready)
{
	uint64_t mark = 0;
	enum err err = OK;

	if (ready->reset)
		err = wal_reset(replica->wal, &ready->hard, ready->reset_index, ready->reset_term, &mark);
	if (err == OK && ready->fill_count > 0)
		err = wal_fill(replica->wal, ready->fills, ready->fill_count, &mark);
	if (err == OK)
		err = wal_append(replica->wal, &ready->hard, ready->entries, ready->entry_count, &mark);
	if (err) {
		replica_fail(replica, "log", err);
		return err;
	}
	struct write *write = mem_zero(1, sizeof(*write));
	write->mark = mark;
	write->fills = ready->fill_count;
	if (ready->reset)
		replica->bytes_kept = 0;
	for (size_t i = 0; i < ready->entry_count; i++)
		replica->bytes_kept += ready->entries[i].payload.size;
	hold(write, ready->messages_after_sync, ready->message_after_sync_count);
	*replica->writes_end = write;
	replica->writes_end = &write->next;
	return OK;
}

static void take_effects(struct replica *replica, const struct raft_ready *ready)
{
	send_all(replica, ready->messages, ready->message_count);
	if (ready->hard_changed || ready->entry_count > 0 || ready->fill_count > 0 || ready->reset) {
		if (write_start(replica, ready))
			return;
	} else if (replica->writes) {
		struct write *last = replica->writes;
		while (last->next)
			last = last->next;
		hold(last, ready->messages_after_sync, ready->message_after_sync_count);
	} else {
		send_all(replica, ready->messages_after_sync, ready->message_after_sync_count);
	}
	replica->commit = ready->commit;
	if (ready->snapshot_from)
		replica_install_wanted(replica, ready->snapshot_from, ready->snapshot_index);
}

static void run_round(void *arg)
{
	struct replica *replica = arg;
	struct raft_ready ready;
	bool accepted = true;

	if (replica->failed)
		return;
	follow_role(replica);
	if (replica->leading_term)
		accepted = propose_waiting(replica);
	while (!replica->failed && raft_ready(replica->raft, &ready)) {
		take_effects(replica, &ready);
		if (replica->role == RAFT_LEADER)
			replica_apply_committed(replica);
	}
	if (replica->failed)
		return;
	if (replica->role == RAFT_LEADER) {
		replica_apply_committed(replica);
		follow_role(replica);
	} else if (!replica->rebuilding && meta_applied_index(replica->meta) < replica->commit &&
		   !timer_is_running(&replica->resume)) {
		/* Nobody waits for it, but the leader waits for what is being written: that and the answer go first. */
		timer_start(&replica->resume, 0);
	}
	/* What follow_role made possible (the first proposals of a new leader) goes with the next round. */
	if (replica->leading_term && replica->waiting && accepted)
		defer_post(&replica->round);
}

static void on_resume(void *arg)
{
	struct replica *replica = arg;

	replica_apply_committed(replica);
	defer_post(&replica->round);
}

static void on_tick(void *arg)
{
	struct replica *replica = arg;

	timer_start(&replica->tick, RAFT_TICK_MS);
	raft_tick(replica->raft, replica_now_ms(replica));
	replica_install_tick(replica);
	defer_post(&replica->round);
}

void replica_step(struct replica *replica, const Granary__RaftMessage *message)
{
	struct raft_message unpacked;
	struct raft_entry *entries;

	if (replica->failed || peers_unpack(message, &unpacked, &entries))
		return;
	raft_step(replica->raft, replica_now_ms(replica), &unpacked);
	free(entries);
	defer_post(&replica->round);
}

enum err replica_open(const struct replica_options *options, struct replica **out, struct buf *message)
{
	struct replica *replica = mem_zero(1, sizeof(*replica));

	*out = NULL;
	replica->options = *options;
	replica->loop = options->loop;
	replica->waiting_end = &replica->waiting;
	replica->batches_end = &replica->batches;
	replica->writes_end = &replica->writes;
	replica->snapshots = snapshots_open(options->loop);
	replica->members_index = UINT64_MAX;
	timer_init(&replica->tick, options->loop, on_tick, replica);
	timer_init(&replica->trim, options->loop, replica_on_trim, replica);
	timer_init(&replica->resume, options->loop, on_resume, replica);
	defer_init(&replica->round, options->loop, run_round, replica);
	enum err err = replica_open_stores(replica, message);
	if (err) {
		log_error("master_restore_failed", "error=%s", err_name(err));
		replica_close(replica);
		return err;
	}
	replica->peers = peers_open(options->rpc, options->members, options->id);
	replica_look_at_space(replica);
	timer_start(&replica->tick, RAFT_TICK_MS);
	timer_start(&replica->trim, HOUSEKEEPING_MS);
	*out = replica;
	return OK;
}

void replica_close(struct replica *replica)
{
	if (!replica)
		return;
	replica->failed = true;
	timer_stop(&replica->tick);
	timer_stop(&replica->trim);
	timer_stop(&replica->resume);
	defer_cancel(&replica->round);
	if (replica->sync)
		replica->sync->replica = NULL;
	proposals_end(replica, ERR_CANCELLED);
	wal_close(replica->wal);
	raft_close(replica->raft);
	peers_close(replica->peers);
	install_close(replica->install);
	snapshots_close(replica->snapshots);
	meta_close(replica->meta);
	while (replica->writes) {
		struct write *write = replica->writes;
		replica->writes = write->next;
		write_free(write);
	}
	buf_deinit(&replica->packed);
	state_store_unref(replica->store);
	free(replica);
}

/* ---- asking */

struct meta *replica_meta(struct replica *replica)
{
	return replica->meta;
}

bool replica_can_read(struct replica *replica)
{
	return replica->leading_term && !replica->failed && raft_can_read(replica->raft, replica_now_ms(replica));
}

bool replica_is_leading(const struct replica *replica)
{
	return replica->leading_term != 0;
}

bool replica_space_is_low(const struct replica *replica)
{
	return replica->space_low;
}

uint64_t replica_term(struct replica *replica)
{
	struct raft_view view;

	raft_view(replica->raft, &view);
	return view.term;
}

const char *replica_leader_address(struct replica *replica)
{
	struct raft_view view;

	raft_view(replica->raft, &view);
	const char *address = view.leader ? members_address(&replica->members, view.leader) : NULL;
	return address ? address : "";
}

void replica_refuse(struct replica *replica, struct rpc_request *request, enum err err)
{
	rpc_reply_error(request, err, err == ERR_NOT_LEADER ? replica_leader_address(replica) : NULL);
}

void replica_view(struct replica *replica, struct raft_view *out)
{
	raft_view(replica->raft, out);
}

uint64_t replica_time_ms(struct replica *replica)
{
	uint64_t wall = loop_wall_ms(replica->loop);
	uint64_t floor = meta_last_time_ns(replica->meta) / NS_PER_MS + 1;

	return wall > floor ? wall : floor;
}

void replica_time_used(struct replica *replica, uint64_t time_ms)
{
	uint64_t time_ns = time_ms * NS_PER_MS;

	if (replica->used_time_ns < time_ns)
		replica->used_time_ns = time_ns;
}

bool replica_is_rebuilding(const struct replica *replica)
{
	return replica->rebuilding;
}

const struct members *replica_members(const struct replica *replica)
{
	return &replica->members;
}

void replica_membership(const struct replica *replica, struct raft_membership *out, uint64_t *index)
{
	*out = *raft_membership(replica->raft, index);
}

enum err replica_propose_members(struct replica *replica, const struct raft_membership *membership)
{
	uint64_t index;
	enum err err = raft_propose_members(replica->raft, replica_now_ms(replica), membership, &index);

	defer_post(&replica->round);
	return err;
}

enum err replica_transfer(struct replica *replica, uint64_t member)
{
	enum err err = raft_transfer(replica->raft, replica_now_ms(replica), member);

	defer_post(&replica->round);
	return err;
}

void replica_persistence(const struct replica *replica, struct replica_persistence *out)
{
	*out = (struct replica_persistence){ .bytes_kept = replica->bytes_kept,
					     .bytes_unsynced = replica->bytes_unsynced,
					     .lags = replica->lags };
}
