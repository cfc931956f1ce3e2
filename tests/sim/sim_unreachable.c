/* A member of a chain that is alive, holds its lease, and cannot be reached by its predecessor (a cut of one direction or both between
 * the two alone), or whose disk is full: a writer goes on within 2.5 seconds, and at no time are there two chains. The server has retired
 * its copy before the others go on; when the cut ends it gets a copy again. With a disk full another server has all of the chunk by then.
 *
 *	sim_unreachable [SEED [COUNT]] */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chunkserver.h"
#include "client/client.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "master/replica.h"
#include "tests/sim/cluster_world.h"
#include "tests/sim/runner.h"

#define SEEDS 9u
#define CUT_US 8000000u
#define CALM_US 60000000u
#define PAUSE_US_MAX 2500000u

struct writer {
	struct world *world;
	struct loop *loop;
	struct client *client;
	struct file_io *io;
	struct timer timer;
	uint64_t inode, begun_us, longest_us;
	unsigned writes;
	uint8_t bytes[BLOCK_BYTES];
};

static void write_next(void *arg);

static void on_flushed(void *arg, enum err err)
{
	struct writer *writer = arg;
	uint64_t took_us = loop_now_us(writer->loop) - writer->begun_us;

	if (err == ERR_CANCELLED) /* the end */
		return;
	if (err) {
		sim_print_trace(writer->world->sim, stderr);
		fprintf(stderr, "flush: %s after %" PRIu64 " us\n", err_name(err), took_us);
		abort();
	}
	if (took_us > writer->longest_us)
		writer->longest_us = took_us;
	writer->writes++;
	timer_start(&writer->timer, 20);
}

static void on_written(void *arg, enum err err)
{
	struct writer *writer = arg;

	check(err == OK);
	file_io_flush(writer->io, on_flushed, writer);
}

static void write_next(void *arg)
{
	struct writer *writer = arg;

	writer->begun_us = loop_now_us(writer->loop);
	memset(writer->bytes, (int)writer->writes, sizeof(writer->bytes));
	file_io_write(writer->io, 0, slice_of(writer->bytes, sizeof(writer->bytes)), on_written, writer);
}

static void on_created(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct writer *writer = arg;

	check(err == OK && reply->results[0]->error == OK);
	writer->inode = reply->results[0]->inode;
	client_note_opened(writer->client, writer->inode);
	writer->io = file_io_open(writer->client, writer->inode, reply->results[0]->attr);
	write_next(writer);
}

static void create(void *arg)
{
	struct writer *writer = arg;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create change = GRANARY__CREATE__INIT;

	if (writer->io) {
		write_next(writer);
		return;
	}
	change.parent = 1;
	change.name = message_borrow(slice_text("f"));
	change.mode = MODE_FILE | 0600;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &change;
	client_meta(writer->client, (Granary__MetaOp *[]){ &op }, 1, on_created, writer);
}

static void *client_start(struct world *world, unsigned number, struct loop *loop)
{
	struct writer *writer = mem_zero(1, sizeof(*writer));
	struct client_options options = { .cluster = WORLD_MASTER_ADDRESSES };

	(void)number;
	writer->world = world;
	writer->loop = loop;
	check(client_open(loop, &options, &writer->client) == OK);
	timer_init(&writer->timer, loop, create, writer);
	timer_start(&writer->timer, 2000);
	return writer;
}

static void client_stop(void *program)
{
	struct writer *writer = program;

	client_close(writer->client);
	timer_stop(&writer->timer);
	free(writer);
}

struct found {
	uint64_t replicas[REPLICAS_MAX];
	size_t count;
};

/* The one chunk that is no pack. */
static bool find_chunk(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct found *found = arg;

	(void)id;
	if (chunk->kind != GRANARY__CHUNK_KIND__CHUNK_REPLICATED)
		return true;
	found->count = chunk->n_replicas;
	memcpy(found->replicas, chunk->replicas, chunk->n_replicas * sizeof(found->replicas[0]));
	return false;
}

static struct sim_host *host_of(struct world *world, uint64_t server)
{
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++) {
		struct node *node = world_node(world, NODE_CHUNKSERVER, i);
		if (node->loop && chunkserver_id(node->chunkserver) == server)
			return node->host;
	}
	return NULL;
}

static bool disturb(struct world *world, uint64_t seed)
{
	struct found found = { .count = 0 };

	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		struct replica *replica = master_replica(world_node(world, NODE_MASTER, i)->master);
		if (replica_can_read(replica))
			check(meta_each_chunk(replica_meta(replica), 0, find_chunk, &found) == OK);
	}
	if (found.count < 3)
		return false;
	if (seed % 3 == 1) {
		struct sim_host *full = host_of(world, found.replicas[seed / 3 % 3]);
		sim_host_set_disk(full, &(struct sim_disk_faults){ .space_bytes = sim_host_pages_used(full) * 4096 + DISK_RESERVED_BYTES / 4 });
		return true;
	}
	struct sim_host *from = host_of(world, found.replicas[seed % 2]), *to = host_of(world, found.replicas[seed % 2 + 1]);
	sim_cut(world->sim, from, to, true);
	if (seed % 3 == 0)
		sim_cut(world->sim, to, from, true);
	return true;
}

static uint64_t run(uint64_t seed, uint64_t *sum)
{
	struct world world = { .clients = 1, .client_start = client_start, .client_stop = client_stop };

	world_open(&world, seed);
	sim_run(world.sim, 2000000, NULL, NULL);
	node_start(world_node(&world, NODE_CLIENT, 0));
	struct writer *writer = world_node(&world, NODE_CLIENT, 0)->program;
	sim_run(world.sim, 6000000, NULL, NULL);
	check(writer->writes > 20 && disturb(&world, seed));
	writer->longest_us = 0;
	unsigned before = writer->writes;
	sim_run(world.sim, CUT_US, NULL, NULL);
	if (writer->writes < before + 20 || writer->longest_us > PAUSE_US_MAX) {
		sim_print_trace(world.sim, stderr);
		abort();
	}
	sim_heal(world.sim);
	if (seed % 3 == 1 && !world_is_replicated(&world)) {
		sim_print_trace(world.sim, stderr);
		abort();
	}
	if (!sim_run(world.sim, CALM_US, world_is_replicated, &world)) {
		sim_print_trace(world.sim, stderr);
		abort();
	}
	const uint64_t seen[] = { writer->writes - before, writer->longest_us / 1000,
				  sim_steps(world.sim), sim_now_us(world.sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	uint64_t digest = sim_trace_digest(world.sim);
	world_close(&world);
	return digest;
}

static const char *const counts[] = { "writes", "ms of the longest pause", RUNNER_STEPS, RUNNER_MS, NULL };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_unreachable", .standard = SEEDS, .run = run, .counts = counts
	};
	return runner_main(&runner, argc, argv);
}
