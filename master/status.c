#include "master/status.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "master/balance.h"
#include "master/cooling.h"

struct asking {
	struct rpc_request *request;
	struct asking *next;
};

struct copies {
	uint64_t one, few, none; /* chunks with one live copy, fewer than wanted, none */
	uint64_t one_bytes, few_bytes, none_bytes;
	uint64_t waiting;	/* chunks: a server may come back */
	uint64_t lacking_bytes; /* to be copied */
	uint64_t stored_bytes, physical_bytes;
	uint64_t shards; /* which are no chunks for people */
	uint64_t cold, cold_raw_bytes, cold_stored_bytes, cold_shard_bytes;
};

struct status {
	struct status_options options;
	struct asking *askings;
	struct timer slice;
	struct copies copies;
	uint64_t cursor;
	size_t seen; /* in this slice */
};

static uint64_t now_ms(const struct status *status)
{
	return loop_now_us(status->options.loop) / 1000;
}

static void add_members(const struct status *status, Granary__ClusterStatus *out)
{
	struct raft_view view;
	uint64_t now = now_ms(status);

	replica_view(status->options.replica, &view);
	out->leader = view.leader;
	out->term = view.term;
	out->commit = view.commit;
	out->applied = view.applied;
	out->log_first = view.first;
	out->log_last = view.last;
	out->members = mem_alloc(RAFT_MEMBERS_MAX * sizeof(Granary__RaftMember *));
	for (size_t i = 0; i < view.member_count; i++) {
		Granary__RaftMember *member = mem_alloc(sizeof(*member));
		const char *address = members_address(replica_members(status->options.replica), view.members[i].id);
		granary__raft_member__init(member);
		member->id = view.members[i].id;
		member->address = mem_string(address ? address : "");
		member->match = member->id == view.id ? view.last : view.members[i].match;
		member->contact_ms = member->id == view.id || now < view.members[i].contact_ms ?
					     0 :
					     now - view.members[i].contact_ms;
		member->learner = view.members[i].learner;
		member->snapshot = view.members[i].snapshot;
		member->node = view.members[i].node;
		out->members[out->n_members++] = member;
	}
}

void status_of_server(const struct server *server, uint64_t at_ms, uint64_t start_ms, Granary__ServerStatus *out)
{
	granary__server_status__init(out);
	out->server = server->id;
	out->address = mem_string(server->address);
	out->host = mem_string(server->host);
	out->location = mem_string(server->location);
	out->up = servers_is_usable(server, at_ms);
	out->bytes_total = server->bytes_total;
	out->bytes_free = server->bytes_free;
	out->chunks = server->chunks;
	out->contact_ms = at_ms - (server->heard_ms ? server->heard_ms : start_ms);
	out->failed = server->failed;
	out->orphan_copies = server->orphans;
	out->slow = server->slow;
	out->disk = server->disk ? (Granary__DiskHealth *)message_copy(&server->disk->base) : NULL;
	out->returning = server->connection && server->cleaning && !server->failed;
}

static void add_drain(const struct status *status, const struct server *server, Granary__ServerStatus *out)
{
	Granary__Drain drain = GRANARY__DRAIN__INIT;

	if (!server->draining)
		return;
	balance_tell_drain(status->options.balance, server->id, &drain);
	out->drain = (Granary__Drain *)message_copy(&drain.base);
}

static void add_servers(const struct status *status, bool wanted, Granary__ClusterStatus *out)
{
	size_t count = servers_count(status->options.servers);

	if (wanted)
		out->servers = mem_alloc((count + 1) * sizeof(Granary__ServerStatus *));
	for (size_t i = 0; i < count; i++) {
		const struct server *server = servers_at(status->options.servers, i);
		out->malformed_frames += server->malformed_frames;
		out->orphan_copies += server->orphans;
		out->orphan_copies_newer += server->orphans_newer;
		if (servers_is_usable(server, now_ms(status))) {
			out->bytes_total += server->bytes_total;
			out->bytes_free += server->bytes_free;
		}
		if (!wanted)
			continue;
		out->servers[out->n_servers] = mem_alloc(sizeof(Granary__ServerStatus));
		status_of_server(server, now_ms(status), status->options.start_ms, out->servers[out->n_servers]);
		add_drain(status, server, out->servers[out->n_servers++]);
	}
}

static void add_repair(const struct status *status, Granary__ClusterStatus *out)
{
	const struct copies *copies = &status->copies;
	struct repair_progress progress;

	repair_progress(status->options.repair, &progress);
	out->bytes_one_copy = copies->one_bytes;
	out->bytes_under_replicated = copies->few_bytes;
	out->bytes_unavailable = copies->none_bytes;
	out->bytes_lacking =
		copies->lacking_bytes > progress.bytes_filling ? copies->lacking_bytes - progress.bytes_filling : 0;
	out->chunks_waiting = copies->waiting;
	out->fills = progress.joins;
	out->fill_bytes_per_second = progress.bytes_per_second;
	out->safe_in_ms = progress.safe_in_ms;
}

static void answer(struct status *status, struct rpc_request *request)
{
	const Granary__ClusterStatusRequest *message = (const Granary__ClusterStatusRequest *)request->message;
	Granary__ClusterStatus *out = mem_alloc(sizeof(*out));
	struct meta *meta = replica_meta(status->options.replica);
	struct meta_counts counts;
	struct replica_persistence persistence;

	granary__cluster_status__init(out);
	meta_counts(meta, &counts);
	out->cluster = meta_cluster(meta);
	add_members(status, out);
	add_servers(status, message->servers, out);
	replica_persistence(status->options.replica, &persistence);
	out->log_bytes_kept = persistence.bytes_kept;
	out->log_bytes_unsynced = persistence.bytes_unsynced;
	out->persistence_lags = persistence.lags;
	out->inodes = counts.inodes;
	out->chunks = counts.chunks > status->copies.shards ? counts.chunks - status->copies.shards : 0;
	out->sessions = counts.sessions;
	out->garbage = counts.garbage;
	out->trash_files = counts.trash;
	out->trash_bytes = counts.trash_bytes;
	out->chunks_one_copy = status->copies.one;
	out->chunks_under_replicated = status->copies.few;
	out->chunks_unavailable = status->copies.none;
	out->chunks_cold = status->copies.cold;
	out->cold_raw_bytes = status->copies.cold_raw_bytes;
	out->cold_stored_bytes = status->copies.cold_stored_bytes;
	out->cold_shard_bytes = status->copies.cold_shard_bytes;
	out->stored_bytes = status->copies.stored_bytes;
	out->physical_bytes = status->copies.physical_bytes;
	add_repair(status, out);
	out->malformed_frames += conn_malformed_count(status->options.loop);
	out->uptime_ms = now_ms(status) - status->options.start_ms;
	rpc_reply(request, &out->base);
	message_free(&out->base);
}

static void end_all(struct status *status, enum err err)
{
	while (status->askings) {
		struct asking *asking = status->askings;
		status->askings = asking->next;
		if (err)
			rpc_reply_error(asking->request, err, NULL);
		else
			answer(status, asking->request);
		free(asking);
	}
}

/* It comes from the last one that has everything. */
static void add_lacking(struct status *status, const struct repair_verdict *verdict, const Granary__Chunk *chunk, uint64_t bytes)
{
	status->copies.lacking_bytes += bytes;
	for (size_t i = verdict->kept_count; i > 0; i--) {
		struct server *server = servers_find(status->options.servers, verdict->kept[i - 1]);
		if (!server || verdict->kept[i - 1] == chunk->joining)
			continue;
		server->to_fill_bytes += bytes;
		return;
	}
}

/* A cold chunk, with all its shards; these are no chunks of their own here. */
static void count_cold(struct status *status, const Granary__Chunk *chunk)
{
	struct copies *copies = &status->copies;
	struct cold_verdict verdict;

	copies->shards += chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD;
	if (!chunk->cold)
		return;
	cooling_judge(status->options.cooling, chunk, &verdict);
	copies->cold++;
	copies->cold_raw_bytes += chunk->coding->raw_bytes;
	copies->cold_stored_bytes += chunk->coding->stored_bytes;
	copies->cold_shard_bytes += (uint64_t)chunk->coding->shard_bytes * chunk->coding->n_shards;
	if (verdict.available == verdict.total)
		return;
	uint64_t bytes = meta_chunk_bytes(replica_meta(status->options.replica), chunk);
	bool none = verdict.available < verdict.data_shards, one = verdict.available == verdict.data_shards;
	copies->few++;
	copies->few_bytes += bytes;
	copies->one += one;
	copies->one_bytes += one ? bytes : 0;
	copies->none += none;
	copies->none_bytes += none ? bytes : 0;
	copies->waiting += verdict.lacking == 0;
	copies->lacking_bytes += (uint64_t)verdict.lacking * chunk->coding->shard_bytes;
}

static void count_bytes(struct status *status, const Granary__Chunk *chunk)
{
	struct data_sizes sizes;

	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) /* counted with their chunk */
		return;
	meta_chunk_sizes(replica_meta(status->options.replica), chunk, &sizes);
	status->copies.stored_bytes += sizes.stored;
	status->copies.physical_bytes += sizes.physical;
}

/* Complete copies on servers that are in service; a server without a lease at the moment does not count. */
static bool count_chunk(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct status *status = arg;
	struct copies *copies = &status->copies;
	struct repair_question question;
	struct repair_verdict verdict;

	status->cursor = id;
	count_bytes(status, chunk);
	if (chunk->cold || chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		count_cold(status, chunk);
		return ++status->seen < CHUNKS_SCAN_MAX;
	}
	repair_question(status->options.repair, &question);
	repair_judge(&question, chunk, &verdict);
	if (verdict.complete < verdict.wanted) {
		uint64_t bytes = meta_chunk_bytes(replica_meta(status->options.replica), chunk);
		copies->few++;
		copies->few_bytes += bytes;
		copies->one += verdict.complete == 1;
		copies->one_bytes += verdict.complete == 1 ? bytes : 0;
		copies->none += verdict.complete == 0;
		copies->none_bytes += verdict.complete == 0 ? bytes : 0;
		copies->waiting += verdict.action == REPAIR_WAIT;
		if (verdict.complete > 0)
			add_lacking(status, &verdict, chunk, bytes * (verdict.wanted - verdict.complete));
	}
	return ++status->seen < CHUNKS_SCAN_MAX;
}

static void on_slice(void *arg)
{
	struct status *status = arg;
	enum err err = OK;

	status->seen = 0;
	if (!replica_can_read(status->options.replica))
		err = ERR_NOT_LEADER;
	else
		err = meta_each_chunk(replica_meta(status->options.replica), status->cursor, count_chunk, status);
	if (err == OK && status->seen == CHUNKS_SCAN_MAX)
		timer_start(&status->slice, 0);
	else
		end_all(status, err);
}

void status_serve(struct status *status, struct rpc_request *request)
{
	if (!replica_can_read(status->options.replica)) {
		replica_refuse(status->options.replica, request, ERR_NOT_LEADER);
		return;
	}
	struct asking *asking = mem_zero(1, sizeof(*asking));
	bool first = status->askings == NULL;
	asking->request = request;
	asking->next = status->askings;
	status->askings = asking;
	if (!first)
		return;
	status->copies = (struct copies){ 0 };
	status->cursor = 0;
	for (size_t i = 0; i < servers_count(status->options.servers); i++)
		servers_at(status->options.servers, i)->to_fill_bytes = 0;
	on_slice(status);
}

void status_deposed(struct status *status)
{
	timer_stop(&status->slice);
	end_all(status, ERR_NOT_LEADER);
}

struct status *status_open(const struct status_options *options)
{
	struct status *status = mem_zero(1, sizeof(*status));

	status->options = *options;
	timer_init(&status->slice, options->loop, on_slice, status);
	return status;
}

void status_close(struct status *status)
{
	if (!status)
		return;
	timer_stop(&status->slice);
	end_all(status, ERR_CANCELLED);
	free(status);
}
