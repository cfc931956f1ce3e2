/* rpc under faults: connections that break, cuts, servers killed and started again, slow answers.
 *
 * Checked: every call ends exactly once and not long after its deadline; OK carries the right answer; what was said to be
 * never sent (ERR_UNREACHABLE, ERR_BUSY) is never served; nothing is served twice; one connection's requests come in order;
 * after the faults a call goes through; equal seeds give equal runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "common/sys/rpc.h"
#include "tests/sim/runner.h"
#include "tests/sim/sys/sim.h"

#define SERVERS 2u
#define CLIENTS 3u
#define CALLS_MAX 4000u
#define FAULTS_US 20000000u
#define SEEDS 60u

struct world;

struct server {
	struct world *world;
	struct sim_host *host;
	struct loop *loop;
	struct rpc *rpc;
	unsigned index;
	struct late *late; /* answers that are not given yet */
};

struct late {
	struct server *server;
	struct rpc_request *request;
	struct timer timer;
	struct late *next;
};

struct client {
	struct world *world;
	struct sim_host *host;
	struct loop *loop;
	struct rpc *rpc;
	struct rpc_peer *peers[SERVERS];
	struct timer next;
};

struct call {
	struct client *client;
	uint64_t deadline_ms;
	unsigned served, ended;
	enum err err;
};

struct world {
	struct sim *sim;
	struct server servers[SERVERS];
	struct client clients[CLIENTS];
	struct call calls[CALLS_MAX];
	unsigned count, ended, succeeded, by_error[100];
	bool quiet;
};

static void answer(struct rpc_request *request)
{
	const Granary__ChunkWrite *write = (const Granary__ChunkWrite *)request->message;
	Granary__ChunkWriteReply reply = GRANARY__CHUNK_WRITE_REPLY__INIT;
	reply.sequence = write->chunk * 3;
	if (write->chunk % 7 == 0)
		rpc_reply_error(request, ERR_NO_SPACE, "no");
	else
		rpc_reply(request, &reply.base);
}

static void late_end(struct late *late)
{
	struct late **link = &late->server->late;
	while (*link != late)
		link = &(*link)->next;
	*link = late->next;
	timer_stop(&late->timer);
	answer(late->request);
	free(late);
}

static void on_late(void *arg)
{
	late_end(arg);
}

static void serve(void *arg, struct rpc_request *request)
{
	struct server *server = arg;
	struct world *world = server->world;
	const Granary__ChunkWrite *write = (const Granary__ChunkWrite *)request->message;
	if (request->type == MESSAGE_CHUNK_SYNC) {
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
		return;
	}
	check(request->type == MESSAGE_CHUNK_WRITE && write->chunk < world->count);
	check(world->calls[write->chunk].served++ == 0);
	/* Numbers of one client grow with time, and a connection keeps order. */
	uint64_t *newest = rpc_conn_data(request->conn);
	check(write->chunk >= *newest);
	*newest = write->chunk;
	check((request->data != NULL) == (write->offset > 0));
	check(request->data == NULL || request->data->size == write->offset);
	uint64_t delay = rng_below(sim_rng(world->sim), 10) < 7 ? 0 : rng_below(sim_rng(world->sim), 1500);
	if (delay == 0) {
		answer(request);
		return;
	}
	struct late *late = mem_zero(1, sizeof(*late));
	late->server = server;
	late->request = request;
	late->next = server->late;
	server->late = late;
	timer_init(&late->timer, server->loop, on_late, late);
	timer_start(&late->timer, delay);
}

static void opened(void *arg, struct rpc_conn *conn)
{
	(void)arg;
	check(rpc_conn_role(conn) == RPC_CLIENT);
	rpc_conn_set_data(conn, mem_zero(1, sizeof(uint64_t)));
}

static void closed(void *arg, struct rpc_conn *conn)
{
	(void)arg;
	free(rpc_conn_data(conn));
}

static const struct rpc_service service = { .serve = serve, .opened = opened, .closed = closed };

static void server_start(struct server *server)
{
	struct rpc_identity identity = { .role = RPC_CHUNKSERVER, .id = server->index, .cluster = 5 };
	char address[16];
	snprintf(address, sizeof(address), "s%u:7100", server->index);
	server->loop = sim_process_open(server->host, "server");
	check(rpc_open(server->loop, &identity, &service, server, &server->rpc) == OK);
	check(rpc_listen(server->rpc, address) == OK);
}

static void server_stop(struct server *server)
{
	rpc_close(server->rpc);
	while (server->late != NULL)
		late_end(server->late);
	loop_close(server->loop);
}

static void on_done(void *arg, const struct rpc_result *result)
{
	struct call *call = arg;
	struct world *world = call->client->world;
	uint64_t number = (uint64_t)(call - world->calls);
	call->ended++;
	call->err = result->err;
	world->ended++;
	world->by_error[result->err]++;
	check(loop_now_ms(call->client->loop) <= call->deadline_ms + 1);
	check((result->reply != NULL) == (result->err == OK));
	if (result->err == OK) {
		world->succeeded++;
		check(((const Granary__ChunkWriteReply *)result->reply)->sequence == number * 3);
		check(call->served == 1);
	}
	if (result->err == ERR_NO_SPACE)
		check(call->served == 1 && strcmp(result->text, "no") == 0);
}

static void make_call(struct client *client)
{
	struct world *world = client->world;
	struct rng *rng = sim_rng(world->sim);
	if (world->count == CALLS_MAX)
		return;
	struct call *call = &world->calls[world->count];
	uint64_t timeout_ms = 20 + rng_below(rng, 3000);
	*call = (struct call){ .client = client, .deadline_ms = loop_now_ms(client->loop) + timeout_ms };
	Granary__ChunkWrite write = GRANARY__CHUNK_WRITE__INIT;
	write.chunk = world->count++;
	struct conn_data data = { 0 };
	if (rng_below(rng, 2) == 0) {
		data.size = write.offset = 1 + (uint32_t)rng_below(rng, 10000);
		data.iobuf = iobuf_open(data.size);
		memset(data.iobuf->bytes, 0, data.size);
	}
	rpc_peer_call(client->peers[rng_below(rng, SERVERS)], MESSAGE_CHUNK_WRITE, &write.base, data.size > 0 ? &data : NULL,
		      timeout_ms, on_done, call);
	check(call->ended == 0); /* never from within */
	iobuf_unref(data.iobuf);
}

static void on_next(void *arg)
{
	struct client *client = arg;
	struct rng *rng = sim_rng(client->world->sim);
	if (client->world->quiet)
		return;
	for (uint64_t count = 1 + rng_below(rng, 4); count > 0; count--)
		make_call(client);
	timer_start(&client->next, rng_below(rng, 40));
}

static void client_start(struct client *client, struct sim_host *host, unsigned index)
{
	struct rpc_identity identity = { .role = RPC_CLIENT, .id = index };
	client->host = host;
	client->loop = sim_process_open(host, "client");
	check(rpc_open(client->loop, &identity, NULL, NULL, &client->rpc) == OK);
	for (unsigned i = 0; i < SERVERS; i++) {
		char address[16];
		snprintf(address, sizeof(address), "s%u:7100", i);
		client->peers[i] = rpc_peer_open(client->rpc, address);
	}
	timer_init(&client->next, client->loop, on_next, client);
	timer_start(&client->next, index);
}

static void on_fault(void *arg)
{
	struct world *world = arg;
	struct rng *rng = sim_rng(world->sim);
	struct server *server = &world->servers[rng_below(rng, SERVERS)];
	struct client *client = &world->clients[rng_below(rng, CLIENTS)];
	if (world->quiet)
		return;
	switch (rng_below(rng, 4)) {
	case 0:
		sim_process_kill(server->loop);
		server_stop(server);
		server_start(server);
		break;
	case 1:
		/* One way or the other. */
		if (rng_below(rng, 2) == 0)
			sim_cut(world->sim, server->host, client->host, true);
		else
			sim_cut(world->sim, client->host, server->host, true);
		break;
	case 2:
		sim_process_pause(server->loop, rng_below(rng, 2) == 0);
		break;
	default:
		sim_heal(world->sim);
		for (unsigned i = 0; i < SERVERS; i++)
			sim_process_pause(world->servers[i].loop, false);
		break;
	}
	sim_after(world->sim, 50000 + rng_below(rng, 800000), on_fault, world);
}

static bool all_ended(void *arg)
{
	const struct world *world = arg;
	return world->ended == world->count;
}

static void check_history(const struct world *world)
{
	for (unsigned i = 0; i < world->count; i++) {
		const struct call *call = &world->calls[i];
		check(call->ended == 1);
		check(call->served == 0 || (call->err != ERR_UNREACHABLE && call->err != ERR_BUSY));
		check(call->err == OK || call->err == ERR_NO_SPACE || call->err == ERR_TIMEOUT || call->err == ERR_CLOSED ||
		      call->err == ERR_UNREACHABLE || call->err == ERR_BUSY);
	}
}

static void on_probe(void *arg, const struct rpc_result *result)
{
	*(enum err *)arg = result->err;
}

static bool probe_ended(void *arg)
{
	return *(enum err *)arg != ERR_BUSY;
}

/* With the faults gone every client reaches every server. The first try may find a connection that is dead and does not
 * know it yet. */
static void check_reaches_all(struct world *world)
{
	for (unsigned i = 0; i < CLIENTS * SERVERS; i++) {
		struct client *client = &world->clients[i % CLIENTS];
		enum err err = ERR_BUSY;
		for (unsigned attempt = 0; attempt < 3 && err != ERR_NOT_SUPPORTED; attempt++) {
			Granary__ChunkSync sync = GRANARY__CHUNK_SYNC__INIT;
			err = ERR_BUSY;
			rpc_peer_call(client->peers[i / CLIENTS], MESSAGE_CHUNK_SYNC, &sync.base, NULL, 500, on_probe, &err);
			check(sim_run(world->sim, 1000000, probe_ended, &err));
		}
		check(err == ERR_NOT_SUPPORTED);
	}
}

static uint64_t run(uint64_t seed, uint64_t *sum)
{
	struct world *world = mem_zero(1, sizeof(*world));
	world->sim = sim_open(&(struct sim_options){ .seed = seed, .break_per_million = 1000 });
	for (unsigned i = 0; i < SERVERS; i++) {
		char name[8];
		snprintf(name, sizeof(name), "s%u", i);
		world->servers[i] = (struct server){ .world = world, .index = i, .host = sim_host_open(world->sim, name) };
		server_start(&world->servers[i]);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		char name[8];
		snprintf(name, sizeof(name), "c%u", i);
		world->clients[i].world = world;
		client_start(&world->clients[i], sim_host_open(world->sim, name), i);
	}
	sim_after(world->sim, 500000, on_fault, world);
	sim_run(world->sim, FAULTS_US, NULL, NULL);

	/* Faults end: what is outstanding ends by its deadline, and a call to each server goes through. */
	world->quiet = true;
	sim_heal(world->sim);
	for (unsigned i = 0; i < SERVERS; i++)
		sim_process_pause(world->servers[i].loop, false);
	check(sim_run(world->sim, 10000000, all_ended, world));
	check_history(world);
	check_reaches_all(world);
	check(world->succeeded > world->count / 10);
	const uint64_t seen[] = { world->by_error[OK], world->by_error[ERR_CLOSED], world->by_error[ERR_TIMEOUT], world->by_error[ERR_UNREACHABLE],
				  sim_steps(world->sim), sim_now_us(world->sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	for (unsigned i = 0; i < CLIENTS; i++)
		rpc_close(world->clients[i].rpc);
	for (unsigned i = 0; i < CLIENTS; i++) {
		timer_stop(&world->clients[i].next);
		loop_close(world->clients[i].loop);
	}
	for (unsigned i = 0; i < SERVERS; i++)
		server_stop(&world->servers[i]);
	uint64_t digest = sim_trace_digest(world->sim) ^ world->succeeded ^ (uint64_t)world->count << 32 ^ sim_steps(world->sim);
	sim_close(world->sim);
	free(world);
	return digest;
}

/* ---- a process in the place of another ---- */

enum { ANSWERED, REQUEST_LATE, HELLO_LATE, NEXT_LIFE, HELD, LIFE_CALLS };

struct lives {
	struct sim *sim;
	struct sim_host *host;
	struct loop *loop, *server_loop;
	struct rpc *rpc;
	struct rpc_request *held;
	struct timer answer;
	unsigned served[LIFE_CALLS], ended[LIFE_CALLS];
	enum err err[LIFE_CALLS];
};

static void on_answer_held(void *arg)
{
	struct lives *lives = arg;
	answer(lives->held);
}

static void serve_life(void *arg, struct rpc_request *request)
{
	struct lives *lives = arg;
	uint64_t number = ((const Granary__ChunkWrite *)request->message)->chunk;
	lives->served[number]++;
	if (number == HELD) {
		lives->held = request;
		timer_start(&lives->answer, 2000);
	} else {
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
	}
}

static void life_begins(struct lives *lives, uint64_t life)
{
	struct rpc_identity identity = { .role = RPC_CHUNKSERVER, .id = 9, .cluster = 5, .life = life };
	lives->loop = sim_process_open(lives->host, "life");
	check(rpc_open(lives->loop, &identity, NULL, NULL, &lives->rpc) == OK);
}

static void life_ends(struct lives *lives)
{
	sim_process_kill(lives->loop);
	rpc_close(lives->rpc);
	loop_close(lives->loop);
}

struct life_call {
	struct lives *lives;
	unsigned number;
};

static void on_life_done(void *arg, const struct rpc_result *result)
{
	struct life_call *call = arg;
	call->lives->ended[call->number]++;
	call->lives->err[call->number] = result->err;
	free(call);
}

static void life_call(struct lives *lives, struct rpc_peer *peer, unsigned number)
{
	struct life_call *call = mem_alloc(sizeof *call);
	*call = (struct life_call){ lives, number };
	Granary__ChunkWrite write = GRANARY__CHUNK_WRITE__INIT;
	write.chunk = number;
	rpc_peer_call(peer, MESSAGE_CHUNK_WRITE, &write.base, NULL, 5000, on_life_done, call);
}

/* What a killed process has sent, a request on one connection and the hello of another, arrives when its next one is there: neither is
 * taken for the living one's, nor ends what that has under way. */
static void run_lives(uint64_t seed)
{
	static const struct rpc_service life_service = { .serve = serve_life };
	struct rpc_identity identity = { .role = RPC_MASTER, .id = 1, .cluster = 5 };
	struct lives lives = { .sim = sim_open(&(struct sim_options){ .seed = seed, .late_per_million = 1000000, .late_us_max = 100000 }) };
	struct sim_host *server_host = sim_host_open(lives.sim, "s");
	struct rpc *server;
	lives.host = sim_host_open(lives.sim, "a");
	lives.server_loop = sim_process_open(server_host, "server");
	timer_init(&lives.answer, lives.server_loop, on_answer_held, &lives);
	check(rpc_open(lives.server_loop, &identity, &life_service, &lives, &server) == OK && rpc_listen(server, "s:7100") == OK);

	life_begins(&lives, 1);
	struct rpc_peer *peer = rpc_peer_open(lives.rpc, "s:7100");
	life_call(&lives, peer, ANSWERED);
	sim_run(lives.sim, 50000, NULL, NULL);
	check(lives.err[ANSWERED] == ERR_NOT_SUPPORTED);
	sim_set_link(lives.sim, lives.host, server_host, &(struct sim_link){ .delay_us = 300000 });
	life_call(&lives, peer, REQUEST_LATE);
	life_call(&lives, rpc_peer_open_lane(lives.rpc, "s:7100", 1), HELLO_LATE);
	sim_run(lives.sim, 50000, NULL, NULL);
	life_ends(&lives);
	sim_set_link(lives.sim, lives.host, server_host, NULL);

	life_begins(&lives, 2);
	peer = rpc_peer_open(lives.rpc, "s:7100");
	life_call(&lives, peer, NEXT_LIFE);
	life_call(&lives, peer, HELD);
	sim_run(lives.sim, 6000000, NULL, NULL);
	check(lives.served[REQUEST_LATE] == 0 && lives.served[HELLO_LATE] == 0);
	check(lives.err[NEXT_LIFE] == ERR_NOT_SUPPORTED && lives.ended[HELD] == 1 && lives.err[HELD] == OK);

	life_ends(&lives);
	rpc_close(server);
	loop_close(lives.server_loop);
	sim_close(lives.sim);
}

static uint64_t run_both(uint64_t seed, uint64_t *sum)
{
	run_lives(seed);
	return run(seed, sum);
}

static const char *const counts[] = { "ok", "closed", "timed out", "unreachable", RUNNER_STEPS, RUNNER_MS, NULL };
static const uint64_t least[] = { 1, 1, 1, 1, 0, 0 };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_rpc", .standard = SEEDS, .run = run_both, .counts = counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
