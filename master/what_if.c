#include "master/what_if.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/settings.h"
#include "master/what_if_policy.h"

struct count {
	uint64_t chunks, bytes;
};

/* A server, as it was when the run began. */
struct holder {
	uint64_t id;
	bool up, lost;
	uint64_t sends; /* bytes, to fill new copies */
};

struct asking {
	struct rpc_request *request;
	struct asking *next;
};

struct run {
	struct what_if *what_if;
	struct run *next;
	struct asking *askings;
	struct timer slice;
	struct holder *holders; /* by id */
	size_t holder_count;
	size_t servers_left, hosts_left;
	uint64_t room_bytes;
	uint64_t cursor;
	size_t seen; /* in this slice */
	struct count counts[LOSS_BEFORE + 1], homeless;
	uint64_t repair_bytes, gathered_bytes;
	Granary__WhatIfLost lost[WHAT_IF_LOST_MAX];
	size_t lost_count;
};

struct what_if {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct run *runs;
	size_t run_count;
};

static struct meta *meta_of(const struct run *run)
{
	return replica_meta(run->what_if->replica);
}

static struct holder *find(struct run *run, uint64_t id)
{
	size_t low = 0, high = run->holder_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (run->holders[middle].id == id)
			return &run->holders[middle];
		if (run->holders[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* ---- a chunk */

static void count_at(struct run *run, uint64_t server, struct loss_question *question)
{
	const struct holder *holder = find(run, server);

	question->present += holder && holder->up;
#ifdef PLANT_LOST_IS_LEFT
	question->left += holder && holder->up;
#else
	question->left += holder && holder->up && !holder->lost;
#endif
}

static void note_lost(struct run *run, uint64_t id, const Granary__Chunk *chunk, uint64_t bytes)
{
	if (run->lost_count == WHAT_IF_LOST_MAX)
		return;
	Granary__WhatIfLost *lost = &run->lost[run->lost_count++];
	granary__what_if_lost__init(lost);
	lost->inode = chunk->owner;
	lost->chunk = id;
	lost->index = chunk->index;
	lost->bytes = bytes;
	lost->blobs = chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? chunk->live_count : 0;
}

/* What has to be done, and by whom: the last one that has everything sends, as in repair. */
static void count_copies(struct run *run, const Granary__Chunk *chunk, unsigned to_make, uint64_t bytes)
{
	run->repair_bytes += to_make * bytes;
	for (size_t i = chunk->n_replicas; i > 0; i--) {
		struct holder *holder = find(run, chunk->replicas[i - 1]);
		if (!holder || !holder->up || holder->lost || chunk->replicas[i - 1] == chunk->joining)
			continue;
		holder->sends += to_make * bytes;
		return;
	}
}

static void count_shards(struct run *run, const Granary__Coding *coding, unsigned to_make)
{
	uint64_t bytes = (uint64_t)to_make * coding->shard_bytes;

	run->repair_bytes += bytes;
	run->gathered_bytes += bytes * coding->data_shards;
}

static bool is_empty(const Granary__Chunk *chunk)
{
	return chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? chunk->live_count == 0 : !chunk->written && !chunk->cold;
}

static void look_at(struct run *run, uint64_t id, const Granary__Chunk *chunk)
{
	struct loss_question question = { .needed = 1 };
	struct data_sizes sizes;

	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD || is_empty(chunk))
		return;
	if (chunk->cold) {
		question.needed = chunk->coding->data_shards;
		question.wanted = (unsigned)chunk->coding->n_shards;
		for (size_t i = 0; i < chunk->coding->n_shards; i++) {
			Granary__Chunk *shard = NULL;
			if (meta_chunk(meta_of(run), chunk->coding->shards[i], &shard) == OK && shard->n_replicas > 0)
				count_at(run, shard->replicas[0], &question);
			message_free(shard ? &shard->base : NULL);
		}
	} else {
		question.wanted = chunk->copies_wanted ? chunk->copies_wanted : REPLICAS_DEFAULT;
		for (size_t i = 0; i < chunk->n_replicas; i++) {
			if (chunk->replicas[i] != chunk->joining)
				count_at(run, chunk->replicas[i], &question);
		}
	}
	meta_chunk_sizes(meta_of(run), chunk, &sizes);
	enum loss loss = loss_judge(&question);
	run->counts[loss].chunks++;
	run->counts[loss].bytes += sizes.logical;
	if (loss == LOSS_LOST)
		note_lost(run, id, chunk, sizes.logical);
	if (loss == LOSS_LOST || loss == LOSS_BEFORE)
		return;
	if (question.wanted > run->servers_left) {
		run->homeless.chunks++;
		run->homeless.bytes += sizes.logical;
	}
	unsigned to_make = loss_to_make(&question, run->servers_left);
	if (chunk->cold)
		count_shards(run, chunk->coding, to_make);
	else
		count_copies(run, chunk, to_make, sizes.logical);
}

static bool on_chunk(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct run *run = arg;

	run->cursor = id;
	look_at(run, id, chunk);
	return ++run->seen < CHUNKS_SCAN_MAX;
}

/* ---- a run */

/* `reply` is NULL unless err is OK. */
static void run_end(struct run *run, enum err err, const ProtobufCMessage *reply)
{
	struct what_if *what_if = run->what_if;
	struct run **at = &what_if->runs;

	while (run->askings) {
		struct asking *asking = run->askings;
		run->askings = asking->next;
		if (err)
			rpc_reply_error(asking->request, err, NULL);
		else
			rpc_reply(asking->request, reply);
		free(asking);
	}

	while (*at != run)
		at = &(*at)->next;
	*at = run->next;
	what_if->run_count--;
	timer_stop(&run->slice);
	free(run->holders);
	free(run);
}

static Granary__WhatIfCount count_of(const struct count *count)
{
	Granary__WhatIfCount out = GRANARY__WHAT_IF_COUNT__INIT;

	out.chunks = count->chunks;
	out.bytes = count->bytes;
	return out;
}

static void answer(struct run *run)
{
	Granary__WhatIfReply reply = GRANARY__WHAT_IF_REPLY__INIT;
	const Granary__Settings *settings = meta_settings(meta_of(run));
	struct repair_load load = { .gathered_bytes = run->gathered_bytes,
				    .servers_left = run->servers_left,
				    .copy_rate = setting_value(settings, SETTING_REPAIR_RATE),
				    .shard_rate = setting_value(settings, SETTING_COOL_RATE) };
	Granary__WhatIfLost *first[WHAT_IF_LOST_MAX];
	struct count all = { 0 };

	for (size_t i = 0; i <= LOSS_BEFORE; i++) {
		all.chunks += run->counts[i].chunks;
		all.bytes += run->counts[i].bytes;
	}
	for (size_t i = 0; i < run->holder_count; i++)
		load.copied_bytes_max = run->holders[i].sends > load.copied_bytes_max ? run->holders[i].sends : load.copied_bytes_max;
	for (size_t i = 0; i < run->lost_count; i++)
		first[i] = &run->lost[i];
	Granary__WhatIfCount every = count_of(&all), lost = count_of(&run->counts[LOSS_LOST]), alone = count_of(&run->counts[LOSS_ALONE]);
	Granary__WhatIfCount degraded = count_of(&run->counts[LOSS_DEGRADED]), before = count_of(&run->counts[LOSS_BEFORE]);
	Granary__WhatIfCount homeless = count_of(&run->homeless);
	reply.all = &every;
	reply.lost = &lost;
	reply.alone = &alone;
	reply.degraded = &degraded;
	reply.before = &before;
	reply.homeless = &homeless;
	reply.first = first;
	reply.n_first = run->lost_count;
	reply.repair_bytes = run->repair_bytes;
	reply.room_bytes = run->room_bytes;
	reply.servers_left = (uint32_t)run->servers_left;
	reply.hosts_left = (uint32_t)run->hosts_left;
	reply.repair_ms = repair_load_ms(&load);
	run_end(run, OK, &reply.base);
}

static void on_slice(void *arg)
{
	struct run *run = arg;
	enum err err = OK;

	run->seen = 0;
	if (!replica_can_read(run->what_if->replica))
		err = ERR_NOT_LEADER;
	else
		err = meta_each_chunk(meta_of(run), run->cursor, on_chunk, run);
	if (err == OK && run->seen == CHUNKS_SCAN_MAX) {
		timer_start(&run->slice, 0);
		return;
	}
	if (err)
		run_end(run, err, NULL);
	else
		answer(run);
}

static bool host_is_new(const struct run *run, size_t at)
{
	const struct servers *servers = run->what_if->servers;

	for (size_t i = 0; i < at; i++) {
		bool counts = run->holders[i].up && !run->holders[i].lost;
		if (counts && strcmp(servers_at(servers, i)->host, servers_at(servers, at)->host) == 0)
			return false;
	}
	return true;
}

/* False: one that is said to be lost is not known. */
static bool take_servers(struct run *run, const Granary__WhatIfRequest *message)
{
	struct what_if *what_if = run->what_if;

	run->holder_count = servers_count(what_if->servers);
	run->holders = mem_zero(run->holder_count + 1, sizeof(*run->holders));
	for (size_t i = 0; i < run->holder_count; i++) {
		const struct server *server = servers_at(what_if->servers, i);
		run->holders[i].id = server->id;
		run->holders[i].up = servers_is_usable(server, loop_now_us(what_if->loop) / 1000);
	}
	for (size_t i = 0; i < message->n_servers; i++) {
		struct holder *holder = find(run, message->servers[i]);
		if (!holder)
			return false;
		holder->lost = true;
	}
	for (size_t i = 0; i < run->holder_count; i++) {
		uint64_t bytes_free = servers_at(what_if->servers, i)->bytes_free;
		if (!run->holders[i].up || run->holders[i].lost)
			continue;
		run->servers_left++;
		run->hosts_left += host_is_new(run, i);
		run->room_bytes += bytes_free > CHUNK_BYTES ? bytes_free - CHUNK_BYTES : 0; /* as repair keeps it free */
	}
	return true;
}

static void run_add(struct run *run, struct rpc_request *request)
{
	struct asking *asking = mem_zero(1, sizeof(*asking));

	asking->request = request;
	asking->next = run->askings;
	run->askings = asking;
}

/* One that is under way for the same servers. */
static struct run *find_same(const struct what_if *what_if, const struct run *asked)
{
	for (struct run *run = what_if->runs; run; run = run->next) {
		bool same = run != asked && run->holder_count == asked->holder_count;
		for (size_t i = 0; same && i < run->holder_count; i++)
			same = run->holders[i].id == asked->holders[i].id && run->holders[i].lost == asked->holders[i].lost;
		if (same)
			return run;
	}
	return NULL;
}

void what_if_serve(struct what_if *what_if, struct rpc_request *request)
{
	if (!replica_can_read(what_if->replica)) {
		replica_refuse(what_if->replica, request, ERR_NOT_LEADER);
		return;
	}
	struct run *run = mem_zero(1, sizeof(*run));
	run->what_if = what_if;
	run->next = what_if->runs;
	what_if->runs = run;
	what_if->run_count++;
	timer_init(&run->slice, what_if->loop, on_slice, run);
	run_add(run, request);
	bool known = take_servers(run, (const Granary__WhatIfRequest *)request->message);
	struct run *same = known ? find_same(what_if, run) : NULL;
	if (same) {
		run_add(same, request);
		free(run->askings);
		run->askings = NULL;
	}
	if (same || !known || what_if->run_count > WHAT_IF_RUNS_MAX)
		run_end(run, known ? ERR_BUSY : ERR_NOT_FOUND, NULL);
	else
		timer_start(&run->slice, 0);
}

static void end_all(struct what_if *what_if, enum err err)
{
	while (what_if->runs)
		run_end(what_if->runs, err, NULL);
}

void what_if_deposed(struct what_if *what_if)
{
	end_all(what_if, ERR_NOT_LEADER);
}

struct what_if *what_if_open(struct loop *loop, struct replica *replica, struct servers *servers)
{
	struct what_if *what_if = mem_zero(1, sizeof(*what_if));

	what_if->loop = loop;
	what_if->replica = replica;
	what_if->servers = servers;
	return what_if;
}

void what_if_close(struct what_if *what_if)
{
	if (!what_if)
		return;
	end_all(what_if, ERR_CANCELLED);
	free(what_if);
}
