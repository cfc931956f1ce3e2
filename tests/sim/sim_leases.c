/* Chunkserver leases: three masters, chunkservers played by the simulation, a client that allocates chunks and reports failures.
 *
 * Faults: masters and chunkservers killed and started again, pauses, cuts, connections that break. A chunkserver's disk keeps
 * what it held. Checked at each step: a server that holds a copy of a chunk and was left out of its chain (as some client has
 * been told) does not believe that it has a lease, unless it has retired the copy (or deleted it); no member was told to do that;
 * versions only go up; a chain is never empty. At the end everything that was left out has been retired, and all servers have leases.
 * Servers that join never get anything here: see sim_repair.
 *
 *	sim_leases [SEED [COUNT]] */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/rpc.h"
#include "tests/sim/masters.h"
#include "tests/sim/runner.h"

#define SERVERS 5u
#define CHUNKS_MAX 2000u
#define FAULTS_US 30000000u
#define CALM_US 60000000u
#define SEEDS 20u

struct world;

struct server {
	struct world *world;
	struct sim_host *host;
	struct loop *loop; /* NULL: down */
	struct rpc *rpc;
	struct rpc_identity identity;
	struct rpc_peer *peer;
	unsigned leader;
	uint64_t incarnation;
	bool registered;
	uint64_t sent_ms, lease_until_ms;
	struct timer timer;
	uint64_t held[CHUNKS_MAX]; /* the version; 0: no copy. The disk: outlives the process */
};

struct chunk {
	uint64_t id, version;
	bool member[SERVERS];
};

struct world {
	struct sim *sim;
	struct member members[MASTERS];
	struct server servers[SERVERS];
	struct sim_host *client_host;
	struct loop *loop; /* the client */
	struct rpc *rpc;
	struct rpc_peer *peers[MASTERS];
	unsigned leader;
	uint64_t session, sequence, inode;
	struct chunk chunks[CHUNKS_MAX];
	unsigned chunk_count;
	struct timer next;
	bool quiet;
	unsigned changes, busy, grants, deletions, starts;
};

static struct rng *rng(const struct world *world)
{
	return sim_rng(world->sim);
}

/* ---- the property */

static void check_server(const struct server *server)
{
	const struct world *world = server->world;

	if (!server->loop || loop_now_us(server->loop) / 1000 >= server->lease_until_ms)
		return;
	for (unsigned i = 0; i < world->chunk_count; i++) {
		const struct chunk *chunk = &world->chunks[i];
		if (!server->held[i] || chunk->member[server - world->servers])
			continue;
		sim_trace(world->sim, "server %u has a lease and chunk %u, left out by version %" PRIu64,
			  (unsigned)(server - world->servers), i, chunk->version);
		sim_print_trace(world->sim, stderr);
		check(false);
	}
}

/* ---- chunkservers */

static void server_search(struct server *server, const struct rpc_result *result)
{
	server->registered = false;
	server->leader = leader_after(server->leader, result);
	rpc_peer_close(server->peer);
	server->peer = rpc_peer_open(server->rpc, master_addresses[server->leader]);
	timer_start(&server->timer, 50 + rng_below(rng(server->world), 50));
}

static void take_lease(struct server *server, uint32_t lease_ms)
{
	server->world->grants += lease_ms > 0;
	server->lease_until_ms = lease_ms ? server->sent_ms + lease_ms : 0;
	check_server(server);
}

static void on_registered(void *arg, const struct rpc_result *result)
{
	struct server *server = arg;
	const Granary__RegisterReply *reply = (const Granary__RegisterReply *)result->reply;

	if (result->err) {
		server_search(server, result);
		return;
	}
	server->registered = true;
	take_lease(server, reply->lease_ms);
	timer_start(&server->timer, reply->lease_ms ? CHUNKSERVER_HEARTBEAT_MS : 50);
}

static void on_heartbeat(void *arg, const struct rpc_result *result)
{
	struct server *server = arg;
	const Granary__HeartbeatReply *reply = (const Granary__HeartbeatReply *)result->reply;

	if (result->err) {
		server_search(server, result);
		return;
	}
	take_lease(server, reply->lease_ms);
	server->registered = !reply->register_again;
	timer_start(&server->timer, reply->register_again ? 0 : reply->lease_ms ? CHUNKSERVER_HEARTBEAT_MS : 50);
}

static void on_server_timer(void *arg)
{
	struct server *server = arg;
	Granary__RegisterRequest ask = GRANARY__REGISTER_REQUEST__INIT;
	Granary__Heartbeat heartbeat = GRANARY__HEARTBEAT__INIT;
	char address[8] = { 's', (char)('0' + (server - server->world->servers)), ':', '9', 0 };

	server->sent_ms = loop_now_us(server->loop) / 1000;
	ask.server = heartbeat.server = server->identity.id;
	ask.incarnation = heartbeat.incarnation = server->incarnation;
	ask.bytes_total = heartbeat.bytes_total = ask.bytes_free = heartbeat.bytes_free = 1ull << 40;
	ask.address = address;
	ask.host = address;
	if (server->registered)
		rpc_peer_call(server->peer, MESSAGE_HEARTBEAT, &heartbeat.base, NULL, 1000, on_heartbeat, server);
	else
		rpc_peer_call(server->peer, MESSAGE_REGISTER, &ask.base, NULL, 1000, on_registered, server);
}

static void on_server_request(void *arg, struct rpc_request *request)
{
	struct server *server = arg;
	struct world *world = server->world;
	Granary__ChunkserverStatus status = GRANARY__CHUNKSERVER_STATUS__INIT;
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	Granary__ChunkCommandsReply reply = GRANARY__CHUNK_COMMANDS_REPLY__INIT;
	uint32_t errors[COMMANDS_PER_PUSH_MAX] = { 0 };

	if (request->type == MESSAGE_CHUNKSERVER_STATUS) {
		status.server = server->identity.id;
		rpc_reply(request, &status.base);
		return;
	}
	if (request->type == MESSAGE_FENCE) {
		rpc_reply(request, &empty.base);
		return;
	}
	check(request->type == MESSAGE_CHUNK_COMMANDS);
	const Granary__ChunkCommands *commands = (const Granary__ChunkCommands *)request->message;
	for (size_t i = 0; i < commands->n_commands; i++) {
		const Granary__ChunkCommand *command = commands->commands[i];
		for (unsigned k = 0; k < world->chunk_count; k++) {
			if (world->chunks[k].id != command->chunk)
				continue;
			bool meant = command->version == 0 || server->held[k] <= command->version;
			if ((command->delete_chunk || command->retire) && meant) {
				world->deletions += server->held[k] != 0;
				server->held[k] = 0;
			} else if (command->configure && server->held[k]) {
				server->held[k] = command->configure->version;
			}
		}
	}
	reply.n_errors = commands->n_commands;
	reply.errors = errors;
	rpc_reply(request, &reply.base);
}

static const struct rpc_service server_service = { .serve = on_server_request };

static void server_start(struct server *server)
{
	char name[8] = { 's', (char)('0' + (server - server->world->servers)), 0 };

	server->loop = sim_process_open(server->host, name);
	server->identity = (struct rpc_identity){ .role = RPC_CHUNKSERVER, .id = 100 + (uint64_t)(server - server->world->servers) };
	server->incarnation = loop_random(server->loop);
	server->registered = false;
	server->lease_until_ms = 0;
	check(rpc_open(server->loop, &server->identity, &server_service, server, &server->rpc) == OK);
	name[2] = ':';
	name[3] = '9';
	check(rpc_listen(server->rpc, name) == OK);
	server->peer = rpc_peer_open(server->rpc, master_addresses[server->leader]);
	timer_init(&server->timer, server->loop, on_server_timer, server);
	timer_start(&server->timer, 1);
	server->world->starts++;
}

static void server_stop(struct server *server)
{
	sim_process_kill(server->loop);
	rpc_close(server->rpc);
	timer_stop(&server->timer);
	loop_close(server->loop);
	server->loop = NULL;
}

static void on_server_restart(void *arg)
{
	struct server *server = arg;

	if (!server->loop)
		server_start(server);
}

/* ---- the client */

static void next(struct world *world, uint64_t delay_ms)
{
	timer_start(&world->next, delay_ms);
}

static bool try_elsewhere(struct world *world, const struct rpc_result *result)
{
	if (result->err == OK)
		return false;
	check(result->err != ERR_INVALID && result->err != ERR_NO_SESSION && result->err != ERR_PROTOCOL);
	if (result->err != ERR_BUSY)
		world->leader = leader_after(world->leader, result);
	else
		world->busy++;
	next(world, 20 + rng_below(rng(world), 50));
	return true;
}

static void on_session(void *arg, const struct rpc_result *result)
{
	struct world *world = arg;

	if (try_elsewhere(world, result))
		return;
	world->session = ((const Granary__SessionInfo *)result->reply)->session;
	next(world, 1);
}

static void on_allocated(void *arg, const struct rpc_result *result)
{
	struct world *world = arg;

	if (try_elsewhere(world, result))
		return;
	const Granary__MetaResult *answer = ((const Granary__MetaReply *)result->reply)->results[0];
	world->sequence++;
	next(world, rng_below(rng(world), 100));
	if (world->inode == 0) {
		check(answer->error == OK);
		world->inode = answer->inode;
		return;
	}
	if (answer->error) {
		check(answer->error == ERR_NO_SERVERS);
		return;
	}
	struct chunk *chunk = &world->chunks[world->chunk_count++];
	*chunk = (struct chunk){ .id = answer->chunks[0]->chunk, .version = answer->chunks[0]->version };
	check(chunk->version == 1);
	for (size_t i = 0; i < answer->chunks[0]->n_replicas; i++) {
		unsigned place = (unsigned)(answer->chunks[0]->replicas[i]->server - 100);
		chunk->member[place] = true;
		world->servers[place].held[chunk - world->chunks] = 1;
	}
}

static void on_reported(void *arg, const struct rpc_result *result)
{
	struct world *world = arg;
	const Granary__ChunkLocation *location = (const Granary__ChunkLocation *)result->reply;

	if (try_elsewhere(world, result))
		return;
	next(world, rng_below(rng(world), 100));
	for (unsigned k = 0; k < world->chunk_count; k++) {
		struct chunk *chunk = &world->chunks[k];
		if (chunk->id != location->chunk)
			continue;
		check(location->version >= chunk->version && location->n_replicas > 0);
		world->changes += location->version > chunk->version;
		chunk->version = location->version;
		memset(chunk->member, 0, sizeof(chunk->member));
		for (size_t i = 0; i < location->n_replicas; i++) {
			unsigned place = (unsigned)(location->replicas[i]->server - 100);
			chunk->member[place] = true;
			/* No member has been told that its copy is no longer wanted. */
			check(location->replicas[i]->joining || world->servers[place].held[k] > 0);
		}
	}
	for (unsigned i = 0; i < SERVERS; i++)
		check_server(&world->servers[i]);
}

static void send_change(struct world *world)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
	Granary__Create create = GRANARY__CREATE__INIT;
	Granary__AllocateChunk allocate = GRANARY__ALLOCATE_CHUNK__INIT;

	create.parent = 1;
	create.name = message_borrow(slice_text("file"));
	create.mode = 0100644;
	allocate.inode = world->inode;
	allocate.index = world->chunk_count;
	if (world->inode == 0) {
		op.op_case = GRANARY__META_OP__OP_CREATE;
		op.create = &create;
	} else {
		op.op_case = GRANARY__META_OP__OP_ALLOCATE_CHUNK;
		op.allocate_chunk = &allocate;
	}
	request.session = world->session;
	request.sequence = world->sequence + 1;
	request.n_ops = 1;
	request.ops = ops;
	rpc_peer_call(world->peers[world->leader], MESSAGE_META, &request.base, NULL, 4000, on_allocated, world);
}

static void on_next(void *arg)
{
	struct world *world = arg;
	Granary__SessionOpen open = GRANARY__SESSION_OPEN__INIT;
	Granary__ChunkFailure failure = GRANARY__CHUNK_FAILURE__INIT;

	open.client = "sim";
	if (world->quiet)
		return;
	if (!world->session) {
		rpc_peer_call(world->peers[world->leader], MESSAGE_SESSION_OPEN, &open.base, NULL, 2000, on_session, world);
		return;
	}
	/* A change under way is repeated until it is answered, so nothing else comes between. */
	if (world->chunk_count == 0 || (rng_below(rng(world), 3) == 0 && world->chunk_count < CHUNKS_MAX)) {
		send_change(world);
		return;
	}
	const struct chunk *chunk = &world->chunks[rng_below(rng(world), world->chunk_count)];
	failure.chunk = chunk->id;
	failure.version = chunk->version;
	failure.server = 100 + rng_below(rng(world), SERVERS);
	rpc_peer_call(world->peers[world->leader], MESSAGE_CHUNK_FAILURE, &failure.base, NULL, 2000, on_reported, world);
}

/* ---- faults */

static void on_server_resume(void *arg)
{
	struct server *server = arg;

	if (server->loop)
		sim_process_pause(server->loop, false);
}

static void on_heal(void *arg)
{
	sim_heal(((struct world *)arg)->sim);
}

static struct sim_host *any_host(struct world *world)
{
	uint64_t dice = rng_below(rng(world), MASTERS + SERVERS);

	return dice < MASTERS ? world->members[dice].host : world->servers[dice - MASTERS].host;
}

static void on_fault(void *arg)
{
	struct world *world = arg;
	struct member *member = &world->members[rng_below(rng(world), MASTERS)];
	struct server *server = &world->servers[rng_below(rng(world), SERVERS)];
	struct sim_host *from = any_host(world), *to = any_host(world);
	uint64_t delay_us = 50000 + rng_below(rng(world), 3000000);

	if (world->quiet)
		return;
	switch (rng_below(rng(world), 8)) {
	case 0:
		if (member->master) {
			member_stop(member, false);
			sim_after(world->sim, delay_us / 2, member_restart, member);
		}
		break;
	case 1:
		if (member->loop) {
			sim_process_pause(member->loop, true);
			sim_after(world->sim, delay_us, member_resume, member);
		}
		break;
	case 2:
	case 3:
		if (server->loop) {
			server_stop(server);
			sim_after(world->sim, delay_us, on_server_restart, server);
		}
		break;
	case 4:
	case 5:
		if (server->loop) {
			sim_process_pause(server->loop, true);
			sim_after(world->sim, delay_us, on_server_resume, server);
		}
		break;
	default:
		sim_cut(world->sim, from, to, true);
		if (rng_below(rng(world), 2) == 0)
			sim_cut(world->sim, to, from, true);
		sim_after(world->sim, delay_us, on_heal, world);
		break;
	}
	sim_after(world->sim, 100000 + rng_below(rng(world), 1000000), on_fault, world);
}

/* ---- the run */

static bool all_clean(void *arg)
{
	const struct world *world = arg;

	for (unsigned i = 0; i < SERVERS; i++) {
		const struct server *server = &world->servers[i];
		if (loop_now_us(server->loop) / 1000 >= server->lease_until_ms)
			return false;
		for (unsigned k = 0; k < world->chunk_count; k++) {
			if (server->held[k] && !world->chunks[k].member[i])
				return false;
		}
	}
	return true;
}

static const struct rpc_identity client_identity = { .role = RPC_CLIENT, .id = 9 };

static void world_open(struct world *world, uint64_t seed)
{
	world->sim = sim_open(&(struct sim_options){
		.seed = seed, .break_per_million = 3000, .verbose = getenv("SIM_VERBOSE") != NULL });
	masters_open(world->members, world->sim);
	for (unsigned i = 0; i < SERVERS; i++) {
		char name[4] = { 's', (char)('0' + i), 0 };
		world->servers[i].world = world;
		world->servers[i].host = sim_host_open(world->sim, name);
		server_start(&world->servers[i]);
	}
	world->client_host = sim_host_open(world->sim, "c");
	world->loop = sim_process_open(world->client_host, "c");
	check(rpc_open(world->loop, &client_identity, NULL, NULL, &world->rpc) == OK);
	for (unsigned i = 0; i < MASTERS; i++)
		world->peers[i] = rpc_peer_open(world->rpc, master_addresses[i]);
	timer_init(&world->next, world->loop, on_next, world);
	timer_start(&world->next, 1000);
}

static void world_close(struct world *world)
{
	rpc_close(world->rpc);
	timer_stop(&world->next);
	loop_close(world->loop);
	for (unsigned i = 0; i < SERVERS; i++)
		server_stop(&world->servers[i]);
	masters_stop(world->members);
	sim_close(world->sim);
}

static uint64_t run(uint64_t seed, uint64_t *sum)
{
	struct world *world = mem_zero(1, sizeof(*world));

	world_open(world, seed);
	sim_after(world->sim, 2000000, on_fault, world);
	sim_run(world->sim, FAULTS_US, NULL, NULL);
	world->quiet = true;
	sim_heal(world->sim);
	for (unsigned i = 0; i < MASTERS; i++) {
		member_resume(&world->members[i]);
		member_restart(&world->members[i]);
	}
	for (unsigned i = 0; i < SERVERS; i++) {
		on_server_resume(&world->servers[i]);
		on_server_restart(&world->servers[i]);
	}
	check(sim_run(world->sim, CALM_US, all_clean, world));
	const uint64_t seen[] = { world->chunk_count, world->changes, world->busy, world->grants, world->deletions, world->starts,
				  sim_steps(world->sim), sim_now_us(world->sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	uint64_t digest = sim_trace_digest(world->sim) ^ world->changes ^ (uint64_t)world->grants << 32 ^ sim_steps(world->sim);
	world_close(world);
	free(world);
	return digest;
}

static const char *const counts[] = { "chunks", "changes", "times busy", "leases", "copies deleted", "starts", RUNNER_STEPS, RUNNER_MS,
				      NULL };
static const uint64_t least[] = { 0, 101, 101, 0, 101, 0, 0, 0 };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_leases", .standard = SEEDS, .run = run, .counts = counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
