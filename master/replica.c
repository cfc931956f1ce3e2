#include "master/replica.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/file.h"
#include "common/sys/kv.h"
#include "common/sys/log.h"
#include "master/wal.h"

#define NS_PER_MS 1000000ull

/* An entry proposed here and not yet applied. */
struct batch {
	uint64_t index, term;
	Granary__LogEntry entry; /* its requests are the proposals' */
	struct proposal **proposals;
	struct batch *next;
};

/* A write of the log under way, and what may be sent once it is durable. */
struct write {
	uint64_t mark;
	struct raft_message *held;
	size_t held_count;
	size_t fill_count; /* damaged entries that it makes good */
	struct write *next;
};

struct replica {
	struct replica_options options;
	struct loop *loop;
	struct kv *kv;
	struct meta *meta;
	struct wal *wal;
	struct raft *raft;
	struct peers *peers;
	struct timer tick;
	struct timer trim;
	struct timer resume; /* of applying, in the next iteration */
	struct defer round;
	struct work sync;	  /* of the store, before the log is cut */
	enum err sync_err;
	uint64_t sync_index;	  /* not 0: under way */
	uint64_t bytes_since_cut; /* of entries written */
	uint64_t alarm_bytes;
	uint64_t cut_index;
	uint64_t commit;
	enum raft_role role; /* as last looked at */
	uint64_t leading_term; /* 0: not leading */
	uint64_t last_time_ns;
	uint64_t used_time_ns; /* of ids made */
	struct proposal *waiting, **waiting_end;
	size_t waiting_count;
	struct batch *batches, **batches_end;
	struct write *writes, **writes_end;
	struct buf packed;
	bool space_low;
	bool failed;
	bool closing;
};

static uint64_t now_ms(const struct replica *replica)
{
	return loop_now_us(replica->loop) / 1000;
}

static void replica_fail(struct replica *replica, const char *what, enum err err)
{
	if (replica->failed)
		return;
	replica->failed = true;
	log_error("master_store_failed", "what=%s error=%s", what, err_name(err));
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

static void batch_free(struct batch *batch)
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
	enum err err = raft_propose(replica->raft, now_ms(replica), RAFT_ENTRY_NORMAL, buf_slice(&replica->packed),
				    &batch->index);
	if (err) {
		batch_free(batch);
		return err;
	}
	replica->last_time_ns = batch->entry.time_ns;
	waiting_drop(replica, count);
	*replica->batches_end = batch;
	replica->batches_end = &batch->next;
	return OK;
}

static void propose_waiting(struct replica *replica)
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
		/* ERR_BUSY: the log is full of entries not committed, these wait for the next round. */
		if (propose_batch(replica, waiting_fit(replica)))
			return;
	}
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
		batch_free(batch);
		batch = next;
	}
	waiting_refuse(replica, err);
}

/* Compares what raft says with what the shell does, after anything that may have changed it. */
static void follow_role(struct replica *replica)
{
	struct raft_view view;

	raft_view(replica->raft, &view);
	replica->role = view.role;
	/* A follower has nothing better to do than to sync, and saves two hand-overs between threads a round. */
	wal_set_inline(replica->wal, view.role == RAFT_FOLLOWER);
	if (replica->leading_term && (view.role != RAFT_LEADER || view.term != replica->leading_term)) {
		log_info("master_deposed", "term=%" PRIu64, view.term);
		proposals_end(replica, ERR_NOT_LEADER);
		replica->options.events->deposed(replica->options.events_arg);
	}
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

static void on_synced(void *arg, enum err err, uint64_t mark, uint64_t index, uint64_t term)
{
	struct replica *replica = arg;

	if (err) {
		replica_fail(replica, "log", err);
		return;
	}
	raft_persisted(replica->raft, now_ms(replica), index, term);
	while (replica->writes && replica->writes->mark <= mark) {
		struct write *write = replica->writes;
		replica->writes = write->next;
		send_all(replica, write->held, write->held_count);
		if (write->fill_count > 0)
			raft_filled(replica->raft, write->fill_count);
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
	uint64_t mark;
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
	write->fill_count = ready->fill_count;
	for (size_t i = 0; i < ready->entry_count; i++)
		replica->bytes_since_cut += ready->entries[i].payload.size;
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
}

static void finish_entry(struct replica *replica, struct batch *batch, const struct replica_applied *applied)
{
	replica->options.events->applied(replica->options.events_arg, applied);
	size_t count = applied->entry ? applied->entry->n_requests : 0;
	for (size_t i = 0; i < count; i++) {
		if (batch)
			batch->proposals[i]->done(batch->proposals[i], OK, &applied->replies[i]);
		if (applied->replies[i])
			message_unref(&applied->replies[i]->base);
	}
}

static struct batch *batch_of(struct replica *replica, const struct raft_entry *entry)
{
	struct batch *batch = replica->batches;

	if (!batch || batch->index != entry->index)
		return NULL;
	check(batch->term == entry->term);
	replica->batches = batch->next;
	if (!replica->batches)
		replica->batches_end = &replica->batches;
	return batch;
}

static enum err apply_entry(struct replica *replica, const struct raft_entry *entry)
{
	struct batch *batch = batch_of(replica, entry);
	ProtobufCMessage *unpacked = NULL;
	const Granary__LogEntry *log_entry = batch ? &batch->entry : NULL;
	struct meta_effects effects = { 0 };
	Granary__MetaReply **replies = NULL;
	enum err err = OK;

	if (!batch && entry->kind == RAFT_ENTRY_NORMAL) {
		err = message_unpack(&granary__log_entry__descriptor, entry->payload, &unpacked);
		log_entry = (const Granary__LogEntry *)unpacked;
	}
	if (err == OK) {
		replies = mem_zero(log_entry ? log_entry->n_requests + 1 : 1, sizeof(Granary__MetaReply *));
		err = meta_apply(replica->meta, entry->index, entry->term, log_entry, replies, &effects);
	}
	if (err == OK) {
		struct replica_applied applied = { .index = entry->index,
						   .entry = log_entry,
						   .replies = replies,
						   .proposals = batch ? batch->proposals : NULL,
						   .effects = &effects };
		raft_applied(replica->raft, entry->index);
		finish_entry(replica, batch, &applied);
	}
	free(replies);
	message_free(unpacked);
	if (batch)
		batch_free(batch);
	return err;
}

/* Applies what is committed, for at most APPLY_SLICE_US at a time. */
static void apply_committed(struct replica *replica)
{
	uint64_t start_us = loop_now_us(replica->loop);

	while (!replica->failed && meta_applied_index(replica->meta) < replica->commit) {
		const struct raft_entry *entry = raft_entry_at(replica->raft, meta_applied_index(replica->meta) + 1);
		check(entry);
		enum err err = apply_entry(replica, entry);
		if (err)
			replica_fail(replica, "state", err);
		if (loop_now_us(replica->loop) - start_us > APPLY_SLICE_US) {
			timer_start(&replica->resume, 0);
			return;
		}
	}
}

static void run_round(void *arg)
{
	struct replica *replica = arg;
	struct raft_ready ready;

	if (replica->failed)
		return;
	follow_role(replica);
	if (replica->leading_term)
		propose_waiting(replica);
	while (!replica->failed && raft_ready(replica->raft, &ready)) {
		take_effects(replica, &ready);
		if (replica->role == RAFT_LEADER)
			apply_committed(replica);
	}
	if (replica->failed)
		return;
	if (replica->role == RAFT_LEADER) {
		apply_committed(replica);
		follow_role(replica);
	} else if (meta_applied_index(replica->meta) < replica->commit && !timer_is_running(&replica->resume)) {
		/* Nobody waits for it, but the leader waits for what is being written: that and the answer go first. */
		timer_start(&replica->resume, 0);
	}
	/* What follow_role made possible (the first proposals of a new leader) goes with the next round. */
	if (replica->leading_term && replica->waiting)
		defer_post(&replica->round);
}

static void on_resume(void *arg)
{
	struct replica *replica = arg;

	apply_committed(replica);
	defer_post(&replica->round);
}

static void on_tick(void *arg)
{
	struct replica *replica = arg;

	timer_start(&replica->tick, RAFT_TICK_MS);
	raft_tick(replica->raft, now_ms(replica));
	defer_post(&replica->round);
}

void replica_step(struct replica *replica, const Granary__RaftMessage *message)
{
	struct raft_message unpacked;
	struct raft_entry *entries;

	if (replica->failed || peers_unpack(message, &unpacked, &entries))
		return;
	raft_step(replica->raft, now_ms(replica), &unpacked);
	free(entries);
	defer_post(&replica->round);
}

/* ---- trimming the log */

/* The last step of closing: the store outlives its sync under way. */
static void replica_free(struct replica *replica)
{
	kv_close(replica->kv);
	free(replica);
}

static void sync_run(struct work *work)
{
	struct replica *replica = container_of(work, struct replica, sync);

	replica->sync_err = kv_sync(replica->kv);
}

static void sync_done(struct work *work)
{
	struct replica *replica = container_of(work, struct replica, sync);
	uint64_t index = replica->sync_index;

	replica->sync_index = 0;
	if (replica->closing)
		replica_free(replica);
	else if (replica->sync_err)
		replica_fail(replica, "state", replica->sync_err);
	else if (!replica->failed)
		wal_cut(replica->wal, index);
}

static void look_at_space(struct replica *replica)
{
	struct wal_view view;
	struct disk_space space;

	wal_retry(replica->wal);
	wal_view(replica->wal, &view);
	bool known = disk_space(replica->loop, replica->options.directory, &space) == OK;
	bool low = view.space_low || (known && space.bytes_free < DISK_RESERVED_BYTES);
	if (low && !replica->space_low)
		log_warn("master_space_low", "bytes_free=%" PRIu64 " kept_free=%u", space.bytes_free, DISK_RESERVED_BYTES);
	if (!low && replica->space_low)
		log_info("master_space_back", "bytes_free=%" PRIu64, space.bytes_free);
	replica->space_low = low;
}

/* Entries that every member holds and that are applied here are forgotten in memory at once, and on disk when a segment's
 * worth has come together: the store is synced first, since until then the log is its journal. */
static void on_trim(void *arg)
{
	struct replica *replica = arg;
	uint64_t applied = meta_applied_index(replica->meta);
	uint64_t safe = raft_safe_to_compact(replica->raft);

	timer_start(&replica->trim, HOUSEKEEPING_MS);
	look_at_space(replica);
	if (replica->bytes_since_cut > replica->alarm_bytes) {
		log_warn("master_log_grows", "bytes=%" PRIu64 " held_by_all=%" PRIu64 " applied=%" PRIu64,
			 replica->bytes_since_cut, safe, applied);
		replica->alarm_bytes *= 2;
	}
	if (safe > applied)
		safe = applied;
	if (safe == 0)
		return;
	raft_compact(replica->raft, safe);
	if (replica->sync_index == 0 && safe > replica->cut_index && replica->bytes_since_cut > WAL_SEGMENT_BYTES) {
		replica->sync_index = safe;
		replica->cut_index = safe;
		replica->bytes_since_cut = 0;
		replica->alarm_bytes = LOG_KEPT_ALARM_BYTES;
		work_submit(replica->loop, NULL, &replica->sync);
	}
}

/* ---- opening */

static enum err open_state(struct replica *replica)
{
	struct buf path = { 0 };
	struct kv_options options = { .cache_bytes = replica->options.cache_bytes / 2,
				      .write_buffer_bytes = replica->options.cache_bytes / 16 };

	buf_printf(&path, "%s/state%c", replica->options.directory, 0);
	enum err err = kv_open(replica->loop, (const char *)path.bytes, &options, &replica->kv);
	if (err == OK)
		err = meta_open(replica->kv, &replica->meta);
	buf_deinit(&path);
	return err;
}

static enum err open_log(struct replica *replica)
{
	struct buf path = { 0 };
	struct wal_loaded loaded = { 0 };
	struct wal_options wal_options = { .synced = on_synced, .arg = replica };
	struct raft_options raft_options = { .id = replica->options.id,
					     .members = replica->options.members->ids,
					     .member_count = replica->options.members->count,
					     .election_ticks = RAFT_ELECTION_TICKS,
					     .heartbeat_ticks = RAFT_HEARTBEAT_TICKS,
					     .tick_ms = RAFT_TICK_MS,
					     .seed = loop_random(replica->loop),
					     .applied = meta_applied_index(replica->meta) };

	buf_printf(&path, "%s/log%c", replica->options.directory, 0);
	wal_options.directory = (const char *)path.bytes;
	enum err err = wal_open(replica->loop, &wal_options, &replica->wal, &loaded);
	if (err == OK)
		err = raft_open(&raft_options, &loaded.hard, loaded.first_index, loaded.first_previous_term, loaded.entries,
				loaded.entry_count, &replica->raft);
	if (err == OK)
		log_info("master_restored",
			 "term=%" PRIu64 " first=%" PRIu64 " entries=%zu damaged=%zu applied=%" PRIu64 " torn_bytes=%" PRIu64,
			 loaded.hard.term, loaded.first_index, loaded.entry_count, loaded.damaged_count,
			 raft_options.applied, loaded.torn_bytes);
	wal_loaded_free(&loaded);
	buf_deinit(&path);
	return err;
}

enum err replica_open(const struct replica_options *options, struct replica **out)
{
	struct replica *replica = mem_zero(1, sizeof(*replica));

	*out = NULL;
	replica->options = *options;
	replica->loop = options->loop;
	replica->waiting_end = &replica->waiting;
	replica->batches_end = &replica->batches;
	replica->writes_end = &replica->writes;
	replica->alarm_bytes = LOG_KEPT_ALARM_BYTES;
	replica->sync = (struct work){ .run = sync_run, .done = sync_done };
	timer_init(&replica->tick, options->loop, on_tick, replica);
	timer_init(&replica->trim, options->loop, on_trim, replica);
	timer_init(&replica->resume, options->loop, on_resume, replica);
	defer_init(&replica->round, options->loop, run_round, replica);
	enum err err = open_state(replica);
	if (err == OK)
		err = open_log(replica);
	if (err) {
		log_error("master_restore_failed", "error=%s", err_name(err));
		replica_close(replica);
		return err;
	}
	replica->peers = peers_open(options->rpc, options->members, options->id);
	look_at_space(replica);
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
	replica->closing = true;
	proposals_end(replica, ERR_CANCELLED);
	wal_close(replica->wal);
	raft_close(replica->raft);
	peers_close(replica->peers);
	meta_close(replica->meta);
	while (replica->writes) {
		struct write *write = replica->writes;
		replica->writes = write->next;
		write_free(write);
	}
	buf_deinit(&replica->packed);
	if (!replica->sync_index)
		replica_free(replica);
}

/* ---- asking */

struct meta *replica_meta(struct replica *replica)
{
	return replica->meta;
}

bool replica_can_read(struct replica *replica)
{
	return replica->leading_term && !replica->failed && raft_can_read(replica->raft, now_ms(replica));
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
	const char *address = view.leader ? members_address(replica->options.members, view.leader) : NULL;
	return address ? address : "";
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
