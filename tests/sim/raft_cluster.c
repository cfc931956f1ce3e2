#include "tests/sim/raft_cluster.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"

struct parcel {
	struct parcel *next;
	struct cluster *cluster;
	uint64_t mark; /* held until this is durable */
	struct raft_message message;
	struct raft_entry entries[];
};

bool cluster_chance(struct cluster *cluster, uint32_t per_million)
{
	return per_million > 0 && rng_below(&cluster->rng, 1000000) < per_million;
}

uint64_t cluster_between(struct cluster *cluster, uint64_t least, uint64_t most)
{
	return least + rng_below(&cluster->rng, most - least + 1);
}

void cluster_fail(struct cluster *cluster, const char *format, ...)
{
	if (cluster->failed)
		return;
	cluster->failed = true;
	va_list args;
	va_start(args, format);
	vsnprintf(cluster->failure, sizeof(cluster->failure), format, args);
	va_end(args);
	sim_trace(cluster->sim, "FAILED %s", cluster->failure);
}

void cluster_trace(struct cluster *cluster, const char *format, ...)
{
	if (!cluster->tracing)
		return;
	char line[200];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	sim_trace(cluster->sim, "%s", line);
}

uint64_t member_now_ms(const struct member *member)
{
	return loop_now_us(member->loop) / 1000;
}

/* ---- messages */

static const char *kind_name(enum raft_message_kind kind)
{
	static const char *const names[] = {"?",	  "pre_vote", "pre_vote_reply", "vote",	       "vote_reply", "append",
					    "append_reply", "timeout_now", "snapshot",	"fetch", "fetch_reply"};
	return names[kind];
}

static void trace_message(struct cluster *cluster, const char *what, const struct raft_message *message)
{
	if (cluster->tracing)
		cluster_trace(cluster,
			      "%s %" PRIu64 "->%" PRIu64 " %s term=%" PRIu64 " log=%" PRIu64 "/%" PRIu64
			      " commit=%" PRIu64 " entries=%zu%s context=%" PRIu64,
			      what, message->from, message->to, kind_name(message->kind), message->term,
			      message->log_index, message->log_term, message->commit, message->entry_count,
			      message->reject ? " reject" : "", message->context);
}

/* One block: header, entries, payloads. */
static struct parcel *parcel_of(struct cluster *cluster, const struct raft_message *message, uint64_t mark)
{
	size_t bytes = sizeof(struct parcel) + message->entry_count * sizeof(struct raft_entry);
	for (size_t i = 0; i < message->entry_count; i++)
		bytes += message->entries[i].payload.size;
	struct parcel *parcel = mem_alloc(bytes);
	*parcel = (struct parcel){.cluster = cluster, .mark = mark, .message = *message};
	uint8_t *place = (uint8_t *)&parcel->entries[message->entry_count];
	for (size_t i = 0; i < message->entry_count; i++) {
		parcel->entries[i] = message->entries[i];
		size_t size = message->entries[i].payload.size;
		if (size > 0)
			memcpy(place, message->entries[i].payload.bytes, size);
		parcel->entries[i].payload.bytes = place;
		place += size;
	}
	parcel->message.entries = parcel->entries;
	return parcel;
}

static void deliver(void *arg)
{
	struct parcel *parcel = arg;
	struct cluster *cluster = parcel->cluster;
	struct member *member = &cluster->members[parcel->message.to - 1];
	if (member->paused) {
		sim_schedule(cluster->sim, cluster_between(cluster, 500, 3000), NULL, deliver, parcel, free);
		return;
	}
	if (member->raft && !cluster->failed && !sim_process_is_dead(member->loop)) {
		trace_message(cluster, "got", &parcel->message);
		raft_step(member->raft, member_now_ms(member), &parcel->message);
		member_pump(member);
	}
	free(parcel);
}

static void send_parcel(struct cluster *cluster, struct parcel *parcel)
{
	const struct raft_message *message = &parcel->message;
	const struct profile *profile = &cluster->profile;
	if (message->kind == RAFT_VOTE_REPLY && !message->reject)
		check_vote(&cluster->members[message->from - 1], message->term, message->to);
	bool lost =
	    cluster->cut[message->from][message->to] || (!cluster->calm && cluster_chance(cluster, profile->loss));
	if (lost) {
		trace_message(cluster, "lost", message);
		free(parcel);
		return;
	}
	if (!cluster->calm && cluster_chance(cluster, profile->duplicate)) {
		struct parcel *copy = parcel_of(cluster, message, 0);
		sim_schedule(cluster->sim, cluster_between(cluster, 50, profile->slow_us_max), NULL, deliver, copy,
			     free);
	}
	uint64_t delay_us = cluster_between(cluster, 50, 500);
	if (!cluster->calm && cluster_chance(cluster, profile->slow))
		delay_us = cluster_between(cluster, 500, profile->slow_us_max);
	sim_schedule(cluster->sim, delay_us, NULL, deliver, parcel, free);
}

static void send_held(struct member *member)
{
	while (member->held_first && member->held_first->mark <= member->mark_synced) {
		struct parcel *parcel = member->held_first;
		member->held_first = parcel->next;
		if (!member->held_first)
			member->held_last = NULL;
		send_parcel(member->cluster, parcel);
	}
}

static void drop_held(struct member *member)
{
	while (member->held_first) {
		struct parcel *parcel = member->held_first;
		member->held_first = parcel->next;
		free(parcel);
	}
	member->held_last = NULL;
}

static void hold(struct member *member, struct parcel *parcel)
{
	if (member->held_last)
		member->held_last->next = parcel;
	else
		member->held_first = parcel;
	member->held_last = parcel;
}

/* ---- the shell */

/* The payload begins with who proposed it, in which incarnation. */
static void apply(struct member *member, uint64_t commit)
{
	struct cluster *cluster = member->cluster;
	while (member->applied < commit && !cluster->failed) {
		const struct raft_entry *entry = raft_entry_at(member->raft, member->applied + 1);
		check(entry);
		struct raft_view view;
		raft_view(member->raft, &view);
		check_applied(member, entry, view.term);
		member->applied++;
		member->stored = member->applied;
		cluster->counts.applied++;
		if (entry->payload.size >= 16 && get_le64(entry->payload.bytes) == member->id &&
		    get_le64(entry->payload.bytes + 8) == member->incarnation) {
			cluster->counts.acknowledged++;
			cluster_trace(cluster, "acknowledged member=%" PRIu64 " index=%" PRIu64, member->id,
				      entry->index);
			if (entry->index > cluster->checker.visible)
				cluster->checker.visible = entry->index;
			/* The sharpest moment to ask others whether they would answer. */
			for (size_t i = 0; i < cluster->profile.members; i++)
				member_read(&cluster->members[i]);
		}
	}
	raft_applied(member->raft, member->applied);
}

static void note_fills(struct member *member, const struct raft_ready *ready)
{
	member->cluster->counts.filled += ready->fill_count;
	if (ready->fill_count == 0)
		return;
	check(member->fill_count < CLUSTER_FILLS_MAX);
	member->fills[member->fill_count].mark = member->mark_appended;
	member->fills[member->fill_count++].count = ready->fill_count;
}

static void tell_filled(struct member *member)
{
	size_t count = 0, done = 0;
	while (done < member->fill_count && member->fills[done].mark <= member->mark_synced)
		count += member->fills[done++].count;
	if (done == 0)
		return;
	member->fill_count -= done;
	memmove(member->fills, member->fills + done, member->fill_count * sizeof(member->fills[0]));
	raft_filled(member->raft, count);
}

/* What a round gives to persist, in its order. */
static enum err write_round(struct member *member, const struct raft_ready *ready)
{
	const struct raft_hard_state *hard =
	    ready->hard_changed || member->cluster->profile.hard_always ? &ready->hard : NULL;
	enum err err = OK;
	if (ready->reset) {
		err = wal_reset(member->wal, &ready->hard, ready->reset_index, ready->reset_term,
				&member->mark_appended);
		if (err)
			return err;
		check_reset(member, ready);
	}
	if (ready->fill_count > 0)
		err = wal_fill(member->wal, ready->fills, ready->fill_count, &member->mark_appended);
	if (err == OK)
		note_fills(member, ready);
	if (err == OK && (hard || ready->entry_count > 0))
		err = wal_append(member->wal, hard, ready->entries, ready->entry_count, &member->mark_appended);
	if (err == OK)
		check_appended(member, hard, ready->entries, ready->entry_count);
	return err;
}

static void note_role(struct member *member)
{
	struct raft_view view;
	raft_view(member->raft, &view);
	member->cluster->counts.given_up += view.given_up - member->given_up;
	member->given_up = view.given_up;
	if (view.role == member->role && view.term == member->term)
		return;
	cluster_trace(member->cluster, "member=%" PRIu64 " role=%d term=%" PRIu64 " last=%" PRIu64 " commit=%" PRIu64,
		      member->id, (int)view.role, view.term, view.last, view.commit);
	if (view.term < member->term)
		cluster_fail(member->cluster, "member %" PRIu64 " goes back from term %" PRIu64 " to %" PRIu64,
			     member->id, member->term, view.term);
	if (view.role == RAFT_LEADER && (member->role != RAFT_LEADER || view.term != member->term)) {
		member->cluster->counts.elections++;
		check_leader(member, &view);
		faults_on_leader(member);
	}
	member->role = view.role;
	member->term = view.term;
}

void member_pump(struct member *member)
{
	struct cluster *cluster = member->cluster;
	struct raft_ready ready;
	while (!member->exiting && !cluster->failed && raft_ready(member->raft, &ready)) {
		note_role(member);
		if (ready.hard_changed || ready.entry_count > 0 || ready.fill_count > 0 || ready.reset) {
			if (write_round(member, &ready)) {
				member->exiting = true;
				return;
			}
		}
		if (ready.snapshot_from != 0)
			member_pull(member, &ready);
		cluster->counts.strangers += ready.stranger != 0;
		for (size_t i = 0; i < ready.message_count; i++) {
			trace_message(cluster, "send", &ready.messages[i]);
			send_parcel(cluster, parcel_of(cluster, &ready.messages[i], 0));
		}
		for (size_t i = 0; i < ready.message_after_sync_count; i++) {
			trace_message(cluster, "hold", &ready.messages_after_sync[i]);
			hold(member, parcel_of(cluster, &ready.messages_after_sync[i], member->mark_appended));
		}
		send_held(member);
		apply(member, ready.commit);
	}
	if (!member->exiting)
		note_role(member);
}

static void on_synced(void *arg, enum err err, uint64_t mark, uint64_t index, uint64_t term)
{
	struct member *member = arg;
	if (err) {
		member->cluster->counts.disk_failures++;
		member->exiting = true;
		return;
	}
	cluster_trace(member->cluster, "synced member=%" PRIu64 " mark=%" PRIu64 " index=%" PRIu64 "/%" PRIu64,
		      member->id, mark, index, term);
	member->mark_synced = mark;
	check_synced(member, mark, index, term);
	raft_persisted(member->raft, member_now_ms(member), index, term);
	tell_filled(member);
	send_held(member);
	member_pump(member);
}

static void on_tick(void *arg)
{
	struct member *member = arg;
	if (member->cluster->failed || member->exiting)
		return;
	raft_tick(member->raft, member_now_ms(member));
	member_pump(member);
	timer_start(&member->tick, RAFT_TICK_MS);
}

static enum err open_core(struct member *member, const struct wal_loaded *loaded)
{
	struct cluster *cluster = member->cluster;
	/* Without a state of its own: what the command line says. An empty disk that replaces another must not be told
	 * that it alone is the group. */
	struct raft_membership membership = {0};
	uint64_t membership_index = 0;
	const struct raft_membership *known = check_membership_at(&cluster->checker, member->stored, &membership_index);
	if (known)
		membership = *known;
	else if (member->founder && (member->node < 2000 || cluster->profile.founders >= 3))
		membership = first_membership(cluster);
	/* For every other disk that replaces one the operator has not said the nodes. */
	bool nodes_unknown = !known && member->node >= 2000 && member->node / 1000 % 2 == 0;
	for (size_t i = 0; nodes_unknown && i < membership.count; i++)
		membership.members[i].node = 0;
	struct raft_options options = {
	    .id = member->id,
	    .node = member->node,
	    .membership = &membership,
	    .membership_index = membership_index,
	    .installed_index = member->installed,
	    .installed_term = member->installed_term,
	    .election_ticks = cluster->profile.election_ticks,
	    .heartbeat_ticks = cluster->profile.heartbeat_ticks,
	    .tick_ms = RAFT_TICK_MS,
	    .seed = rng_next(&cluster->rng),
	    .append_bytes_max = cluster->profile.append_bytes_max,
	    .applied = member->stored,
	};
	return raft_open(&options, &loaded->hard, loaded->first_index, loaded->first_previous_term, loaded->entries,
			 loaded->entry_count, &member->raft);
}

void member_start(struct member *member)
{
	struct cluster *cluster = member->cluster;
	if (member->loop)
		return;
	if (!sim_host_is_up(member->host))
		sim_host_start(member->host);
	member->incarnation++;
	cluster->counts.restarts++;
	char name[] = "p1";
	name[1] = (char)('0' + member->id);
	member->loop = sim_process_open(member->host, name);
	struct wal_options options = {
	    .directory = "wal", .segment_bytes = CLUSTER_SEGMENT_BYTES, .synced = on_synced, .arg = member};
	struct wal_loaded loaded;
	enum err err = wal_open(member->loop, &options, &member->wal, &loaded);
	if (err == OK) {
		cluster->counts.torn += loaded.torn_bytes > 0;
		cluster->counts.holes += loaded.damaged_count;
		cluster_trace(cluster,
			      "loaded member=%" PRIu64 " term=%" PRIu64 " vote=%" PRIu64 " first=%" PRIu64
			      " count=%zu torn=%" PRIu64,
			      member->id, loaded.hard.term, loaded.hard.vote, loaded.first_index, loaded.entry_count,
			      loaded.torn_bytes);
		check_loaded(member, &loaded);
		err = open_core(member, &loaded);
		if (err)
			cluster_fail(cluster, "member %" PRIu64 " does not start: %s", member->id, err_name(err));
	} else if (err == ERR_CORRUPT && member->rot_count > 0) {
		/* Right: it must not guess. Somebody repairs it. */
		cluster->counts.refused++;
		member_unrot(member);
	} else if (err == ERR_CORRUPT) {
		cluster_fail(cluster, "member %" PRIu64 " refuses its log", member->id);
	}
	wal_loaded_free(&loaded);
	if (err) {
		member_bury(member);
		return;
	}
	member->applied = member->stored;
	member->mark_appended = member->mark_synced = member->hard_mark = 0;
	member->fill_count = 0;
	member->pulling = false;
	member->given_up = 0;
	member->role = RAFT_FOLLOWER;
	member->term = 0;
	timer_init(&member->tick, member->loop, on_tick, member);
	timer_start(&member->tick, cluster_between(cluster, 0, RAFT_TICK_MS));
}

void member_bury(struct member *member)
{
	if (!member->loop)
		return;
	sim_process_kill(member->loop);
	drop_held(member);
	raft_close(member->raft);
	member->raft = NULL;
	timer_stop(&member->tick);
	wal_close(member->wal);
	member->wal = NULL;
	sim_process_drop_work(member->loop);
	loop_close(member->loop);
	member->loop = NULL;
	member->exiting = member->paused = false;
	member->cluster->counts.crashes++;
	if (!sim_host_is_up(member->host))
		member->stored = cluster_between(member->cluster, member->stored_synced, member->stored);
}

void member_kill(struct member *member)
{
	cluster_trace(member->cluster, "kill member=%" PRIu64, member->id);
	member_bury(member);
}

void member_power_cut(struct member *member)
{
	cluster_trace(member->cluster, "power cut member=%" PRIu64, member->id);
	member->cluster->counts.cuts++;
	sim_host_power_cut(member->host);
	member_bury(member);
}

/* ---- clients */

bool member_is_running(const struct member *member)
{
	return member->raft && !member->paused && !member->exiting && !sim_process_is_dead(member->loop);
}

static bool propose_one(struct member *member)
{
	struct cluster *cluster = member->cluster;
	uint8_t payload[3000];
	size_t size = 24 + (size_t)cluster_between(cluster, 0, cluster_chance(cluster, 50000) ? 2900 : 100);
	memset(payload, (int)(cluster->next_operation & 0xff), size);
	put_le64(payload, member->id);
	put_le64(payload + 8, member->incarnation);
	put_le64(payload + 16, ++cluster->next_operation);
	uint64_t index;
	enum err err =
	    raft_propose(member->raft, member_now_ms(member), RAFT_ENTRY_NORMAL, slice_of(payload, size), &index);
	if (err)
		return false;
	cluster->counts.proposed++;
	cluster_trace(cluster, "propose member=%" PRIu64 " index=%" PRIu64, member->id, index);
	return true;
}

/* Now and then many at once: batches of many records. */
void member_propose(struct member *member)
{
	if (!member_is_running(member))
		return;
	uint64_t count = cluster_chance(member->cluster, 100000) ? cluster_between(member->cluster, 2, 20) : 1;
	while (count > 0 && propose_one(member))
		count--;
	member_pump(member);
}

void member_read(struct member *member)
{
	if (!member_is_running(member) || !raft_can_read(member->raft, member_now_ms(member)))
		return;
	member->cluster->counts.reads++;
	check_read(member);
}

/* As a master would: the store synced first, then the log cut. */
void member_compact(struct member *member)
{
	if (!member_is_running(member))
		return;
	uint64_t kept_bytes_max = member->cluster->profile.trims ? cluster_between(member->cluster, 0, 4000) : UINT64_MAX;
	uint64_t safe = raft_compactable(member->raft, kept_bytes_max);
	if (safe > member->applied)
		safe = member->applied;
	if (safe < 2)
		return;
	member->stored_synced = member->applied;
	uint64_t index = cluster_between(member->cluster, safe / 2, safe);
	raft_compact(member->raft, index);
	struct raft_view view;
	raft_view(member->raft, &view);
	wal_cut(member->wal, view.first);
}

/* ---- ends */

void cluster_open(struct cluster *cluster, uint64_t seed, enum storm storm, bool tracing)
{
	memset(cluster, 0, sizeof(*cluster));
	cluster->tracing = tracing;
	rng_init(&cluster->rng, seed ^ 0x5bd1e995);
	struct sim_options options = {
	    .seed = seed, .verbose = tracing && getenv("SIM_VERBOSE") != NULL, .disk_us_min = 50, .disk_us_max = 2000};
	cluster->sim = sim_open(&options);
	faults_choose(cluster, storm);
	for (size_t i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
		struct member *member = &cluster->members[i];
		member->cluster = cluster;
		member->id = i + 1;
		member->node = 1000 + i;
		member->founder = i < cluster->profile.founders;
	}
	for (size_t i = 0; i < cluster->profile.members; i++) {
		struct member *member = &cluster->members[i];
		member->overwritten = UINT64_MAX;
		char name[] = "h1";
		name[1] = (char)('1' + i);
		member->host = sim_host_open(cluster->sim, name);
		member_start(member);
	}
}

void cluster_close(struct cluster *cluster)
{
	for (size_t i = 0; i < cluster->profile.members; i++)
		member_bury(&cluster->members[i]);
	sim_close(cluster->sim);
	checker_deinit(&cluster->checker);
}
