#include "tests/sim/classes_ask.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "master/master.h"
#include "master/replica.h"

#define ASKED_MAX 16u

struct asking {
	struct asking_options options;
	struct timer timer;
	/* As of the last EXPLAIN. */
	char address[ADDRESS_BYTES_MAX + 1];
	uint64_t server, chunks[ASKED_MAX];
	size_t chunk_count;
	bool verifying;
	size_t verified; /* servers */
	uint64_t servers[WORLD_CHUNKSERVERS_MAX];
	size_t server_count;
};

static _Noreturn void wrong(const struct asking *asking, const char *what, uint64_t id)
{
	sim_print_trace(asking->options.world->sim, stderr);
	fprintf(stderr, "%s: %016" PRIx64 "\n", what, id);
	abort();
}

static uint64_t below(const struct asking *asking, uint64_t bound)
{
	return rng_below(sim_rng(asking->options.world->sim), bound);
}

static void next(struct asking *asking, enum err err)
{
	*asking->options.answers += err == OK;
	if (!asking->verifying)
		timer_start(&asking->timer, below(asking, 200));
}

/* ---- explain, and what the servers have */

static bool is_named(const Granary__ExplainReply *reply, uint64_t server)
{
	for (size_t i = 0; i < reply->n_servers; i++) {
		if (reply->servers[i]->server == server)
			return true;
	}
	return false;
}

static void check_chunk(struct asking *asking, const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk)
{
	const Granary__Chunk *record = chunk->record;
	size_t most = record->cold ? chunk->n_shards : record->n_replicas - (record->joining != 0);
	if (chunk->available > most)
		wrong(asking, "more copies than there are", chunk->chunk);
	if (!record->coding && chunk->physical_bytes != record->n_replicas * chunk->stored_bytes)
		wrong(asking, "another physical size than its copies'", chunk->chunk);
	for (size_t i = 0; i < record->n_replicas; i++) {
		if (!is_named(reply, record->replicas[i]))
			wrong(asking, "a server that is not named", record->replicas[i]);
	}
}

static void explained(void *arg, enum err err, const ProtobufCMessage *message)
{
	struct asking *asking = arg;
	const Granary__ExplainReply *reply = (const Granary__ExplainReply *)message;
	for (size_t i = 0; err == OK && i < reply->n_chunks; i++)
		check_chunk(asking, reply, reply->chunks[i]);
	if (err == OK && reply->n_servers > 0) {
		const Granary__ServerStatus *server = reply->servers[below(asking, reply->n_servers)];
		snprintf(asking->address, sizeof asking->address, "%s", server->address);
		asking->server = server->server;
		asking->chunk_count = 0;
		for (size_t i = 0; i < reply->n_chunks && i < ASKED_MAX; i++)
			asking->chunks[asking->chunk_count++] = reply->chunks[i]->chunk;
	}
	next(asking, err);
}

static void ask_explain(struct asking *asking)
{
	Granary__ExplainRequest request = GRANARY__EXPLAIN_REQUEST__INIT;
	request.inode = asking->options.some_file(asking->options.arg);
	client_call_leader(asking->options.client, MESSAGE_EXPLAIN, &request.base, explained, asking);
}

static void inspected(void *arg, enum err err, const ProtobufCMessage *message)
{
	struct asking *asking = arg;
	const Granary__ChunkInspectReply *reply = (const Granary__ChunkInspectReply *)message;
	for (size_t i = 0; err == OK && i < reply->n_chunks; i++) {
		bool asked = false;
		for (size_t k = 0; k < asking->chunk_count; k++)
			asked = asked || asking->chunks[k] == reply->chunks[i]->chunk;
		if (!asked || reply->chunks[i]->version == 0)
			wrong(asking, "a chunk that nobody asked for, or without a version", reply->chunks[i]->chunk);
	}
	next(asking, err);
}

static void ask_inspect(struct asking *asking)
{
	Granary__ChunkInspect request = GRANARY__CHUNK_INSPECT__INIT;
	request.chunks = asking->chunks;
	request.n_chunks = asking->chunk_count;
	if (asking->address[0] == 0)
		ask_explain(asking);
	else
		client_call_address(asking->options.client, asking->address, MESSAGE_CHUNK_INSPECT, &request.base, inspected, asking);
}

/* ---- sizes */

static void sized(void *arg, enum err err, const ProtobufCMessage *message)
{
	struct asking *asking = arg;
	const Granary__SizesReply *reply = (const Granary__SizesReply *)message;
	for (size_t i = 0; err == OK && i < reply->n_sizes; i++) {
		if (reply->sizes[i]->cold_chunks == 0 && reply->sizes[i]->physical_bytes < reply->sizes[i]->stored_bytes && reply->sizes[i]->chunks > 0)
			wrong(asking, "copies that take up less than their content", i);
	}
	next(asking, err);
}

static void ask_sizes(struct asking *asking)
{
	Granary__SizesRequest request = GRANARY__SIZES_REQUEST__INIT;
	uint64_t inodes[8];
	for (size_t i = 0; i < 8; i++)
		inodes[i] = asking->options.some_file(asking->options.arg);
	request.inodes = inodes;
	request.n_inodes = 8;
	client_call_leader(asking->options.client, MESSAGE_SIZES, &request.base, sized, asking);
}

/* ---- what if */

static void check_counts(struct asking *asking, const Granary__WhatIfReply *reply)
{
	uint64_t some = reply->lost->chunks + reply->alone->chunks + reply->degraded->chunks + reply->before->chunks;
	if (some > reply->all->chunks || reply->n_first > reply->lost->chunks)
		wrong(asking, "more chunks than there are", some);
}

static void considered(void *arg, enum err err, const ProtobufCMessage *message)
{
	struct asking *asking = arg;
	const Granary__WhatIfReply *reply = (const Granary__WhatIfReply *)message;
	if (err == OK) {
		check_counts(asking, reply);
		if (reply->lost->chunks > 0 && asking->server == 0)
			wrong(asking, "nothing is taken away, and something is lost", reply->lost->chunks);
	}
	next(asking, err);
}

static void ask_what_if(struct asking *asking)
{
	Granary__WhatIfRequest request = GRANARY__WHAT_IF_REQUEST__INIT;
	request.servers = &asking->server;
	request.n_servers = asking->server != 0;
	client_call_leader(asking->options.client, MESSAGE_WHAT_IF, &request.base, considered, asking);
}

static void on_timer(void *arg)
{
	struct asking *asking = arg;
	static void (*const questions[])(struct asking *asking) = {ask_explain, ask_inspect, ask_inspect, ask_sizes, ask_what_if};
	if (asking->verifying)
		return;
	if (asking->options.some_file(asking->options.arg) == 0)
		timer_start(&asking->timer, 100);
	else
		questions[below(asking, sizeof questions / sizeof *questions)](asking);
}

/* ---- the end */

struct alone {
	uint64_t server, chunks;
};

/* All that there is of it is there. */
static bool count_alone(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct alone *alone = arg;
	bool filled = chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? chunk->live_count > 0 : chunk->written;
	(void)id;
	alone->chunks += filled && !chunk->cold && chunk->kind != GRANARY__CHUNK_KIND__CHUNK_SHARD && chunk->n_replicas == 1 &&
			 chunk->replicas[0] == alone->server;
	return true;
}

static bool add_server(void *arg, uint64_t id, const Granary__Server *server)
{
	struct asking *asking = arg;
	(void)server;
	check(asking->server_count < WORLD_CHUNKSERVERS_MAX);
	asking->servers[asking->server_count++] = id;
	return true;
}

static struct meta *meta_now(const struct asking *asking)
{
	struct node *leader = world_leader(asking->options.world);
	check(leader);
	return replica_meta(node_replica(leader));
}

static void verify_next(struct asking *asking);

static void verified(void *arg, enum err err, const ProtobufCMessage *message)
{
	struct asking *asking = arg;
	const Granary__WhatIfReply *reply = (const Granary__WhatIfReply *)message;
	struct alone alone = {.server = asking->servers[asking->verified]};
	if (err)
		wrong(asking, err_text(err), alone.server);
	check_counts(asking, reply);
	check(meta_each_chunk(meta_now(asking), 0, count_alone, &alone) == OK);
	if (reply->lost->chunks != alone.chunks || reply->before->chunks > 0)
		wrong(asking, "not what would be lost with this server", alone.server);
	asking->verified++;
	verify_next(asking);
}

static void verify_next(struct asking *asking)
{
	Granary__WhatIfRequest request = GRANARY__WHAT_IF_REQUEST__INIT;
	if (asking->verified == asking->server_count)
		return;
	request.servers = &asking->servers[asking->verified];
	request.n_servers = 1;
	client_call_leader(asking->options.client, MESSAGE_WHAT_IF, &request.base, verified, asking);
}

void asking_verify(struct asking *asking)
{
	asking->verifying = true;
	check(meta_each_server(meta_now(asking), add_server, asking) == OK);
	verify_next(asking);
}

bool asking_is_verified(void *arg)
{
	const struct asking *asking = arg;
	return asking->verifying && asking->verified == asking->server_count;
}

struct asking *asking_open(const struct asking_options *options)
{
	struct asking *asking = mem_zero(1, sizeof *asking);
	asking->options = *options;
	timer_init(&asking->timer, options->loop, on_timer, asking);
	timer_start(&asking->timer, below(asking, 200));
	return asking;
}

void asking_close(struct asking *asking)
{
	if (!asking)
		return;
	timer_stop(&asking->timer);
	free(asking);
}
