#include "tests/sim/crash_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "chunkserver/chunkserver.h"
#include "common/base/check.h"
#include "common/base/limits.h"

/* So short that the log is cut, and the database synced, within a run. */
#define SEGMENT_BYTES (32u * KIB)
#define LOG_KEPT_BYTES_MAX (8u * KIB)
#define CONNECT_TRIES 12u

static const char *members_of(const struct crash_world *world)
{
	return world->of_each == 1 ? "1=m1:7001" : "1=m1:7001,2=m2:7001,3=m3:7001";
}

static const char *masters_of(const struct crash_world *world)
{
	return world->of_each == 1 ? "m1:7001" : "m1:7001,m2:7001,m3:7001";
}

void crash_world_fail(struct crash_world *world, const char *format, ...)
{
	va_list args;
	if (world->tells)
		sim_print_trace(world->sim, stderr);
	fprintf(stderr, "%s: ", world->what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(1);
}

static void on_failed(void *arg, enum err err)
{
	struct crash_world *world = arg;
	if (!world->dark)
		crash_world_fail(world, "a master's store failed: %s", err_name(err));
}

static void start_master(struct crash_world *world, struct crash_node *node, unsigned id)
{
	char address[24];
	struct buf message = { 0 };
	snprintf(address, sizeof address, "m%u:7001", id);
	struct master_options options = { .directory = "data",
					  .listen = address,
					  .cluster = "sim",
					  .members = members_of(world),
					  .id = id,
					  .cache_bytes = 4u * MIB,
					  .segment_bytes = SEGMENT_BYTES,
					  .log_kept_bytes = LOG_KEPT_BYTES_MAX,
					  .failed = on_failed,
					  .arg = world };
	if (master_open(node->loop, &options, &node->master, &message))
		crash_world_fail(world, "master %u does not start: %.*s", id, (int)message.size, (const char *)message.bytes);
	buf_deinit(&message);
}

static void start_chunkserver(struct crash_world *world, struct crash_node *node, unsigned number)
{
	char address[24], host[16];
	snprintf(host, sizeof host, "k%u", number);
	snprintf(address, sizeof address, "%s:7101", host);
	struct chunkserver_options options = { .data = "data", .listen = address, .masters = masters_of(world), .host = host };
	enum err err = chunkserver_open(node->loop, &options, &node->chunkserver);
	if (err)
		crash_world_fail(world, "chunkserver %u does not start: %s", number, err_name(err));
}

static void node_end(struct crash_node *node)
{
	if (!node->loop)
		return;
	sim_process_kill(node->loop);
	if (node->master)
		master_close(node->master);
	if (node->chunkserver)
		chunkserver_close(node->chunkserver);
	sim_process_drop_work(node->loop);
	loop_close(node->loop);
	*node = (struct crash_node){ .host = node->host };
}

void crash_world_start(struct crash_world *world)
{
	for (unsigned i = 0; i < 2 * world->of_each; i++) {
		struct crash_node *node = &world->nodes[i];
		bool is_master = i < world->of_each;
		unsigned number = i % world->of_each + 1;
		char name[16];
		node_end(node);
		if (!sim_host_is_up(node->host))
			sim_host_start(node->host);
		snprintf(name, sizeof name, "%c%u", is_master ? 'm' : 'k', number);
		node->loop = sim_process_open(node->host, name);
		if (is_master)
			start_master(world, node, number);
		else
			start_chunkserver(world, node, number);
	}
	world->dark = false;
}

void crash_world_open(struct crash_world *world, uint64_t seed, unsigned of_each)
{
	check(2 * of_each <= CRASH_NODES_MAX);
	*world = (struct crash_world){ .of_each = of_each };
	world->sim = sim_open(&(struct sim_options){ .seed = seed, .verbose = getenv("SIM_VERBOSE") != NULL });
	for (unsigned i = 0; i < 2 * of_each; i++) {
		char name[8];
		snprintf(name, sizeof name, "%c%u", i < of_each ? 'm' : 'k', i % of_each + 1);
		world->nodes[i].host = sim_host_open(world->sim, name);
	}
	world->client_host = sim_host_open(world->sim, "c1");
	crash_world_start(world);
}

void crash_world_close(struct crash_world *world)
{
	for (unsigned i = 2 * world->of_each; i-- > 0;)
		node_end(&world->nodes[i]);
	sim_close(world->sim);
}

void crash_world_cut(struct crash_world *world)
{
	world->dark = true;
	for (unsigned i = 0; i < 2 * world->of_each; i++)
		sim_host_power_cut(world->nodes[i].host);
}

struct granary_cluster *crash_world_connect(struct crash_world *world, uint32_t timeout_ms)
{
	const struct granary_options options = { .cluster = masters_of(world), .timeout_ms = timeout_ms };
	struct granary_cluster *client = NULL;
	for (unsigned i = 0; i < CONNECT_TRIES; i++) {
		sim_use_host(world->client_host);
		if (granary_connect(&options, &client) == OK)
			return client;
		granary_close(client);
	}
	crash_world_fail(world, "the cluster does not answer");
}

struct question {
	struct wait wait;
	ProtobufCMessage *reply;
};

static void answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct question *question = arg;
	if (err == OK)
		question->reply = message_copy(reply);
	wait_done(&question->wait, err);
}

ProtobufCMessage *crash_world_ask(struct granary_cluster *client, enum message_type type, const ProtobufCMessage *message)
{
	struct question question = { 0 };
	client_call_leader(client->client, type, message, answered, &question);
	check(wait_for(client, &question.wait) == OK);
	return question.reply;
}
