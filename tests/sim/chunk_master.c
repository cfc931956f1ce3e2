/* The master of sim_chunk, in miniature: leases, who is dropped, who joins. */
#include <inttypes.h>
#include <string.h>

#include "chunkserver/service.h"
#include "common/base/check.h"
#include "tests/sim/chunk_world.h"

#define REPAIR_US 300000u

static struct server *server_of(struct world *world, uint64_t id)
{
	for (unsigned i = 0; i < SERVERS; i++) {
		if (world->servers[i].id == id)
			return &world->servers[i];
	}
	return NULL;
}

void locate(struct world *world, const struct chunk_model *chunk, struct location *out)
{
	granary__chunk_location__init(&out->message);
	out->message.chunk = chunk->id;
	out->message.version = chunk->version;
	out->message.n_replicas = chunk->member_count;
	out->message.replicas = out->pointers;
	for (size_t i = 0; i < chunk->member_count; i++) {
		granary__replica__init(&out->replicas[i]);
		out->replicas[i].server = world->servers[chunk->members[i]].id;
		out->replicas[i].address = world->servers[chunk->members[i]].address;
		out->replicas[i].joining = chunk->joining && i + 1 == chunk->member_count;
		out->pointers[i] = &out->replicas[i];
	}
}

bool is_member(const struct chunk_model *chunk, unsigned server)
{
	for (size_t i = 0; i < chunk->member_count; i++) {
		if (chunk->members[i] == server)
			return true;
	}
	return false;
}

size_t complete_count(const struct chunk_model *chunk)
{
	return chunk->member_count - chunk->joining;
}

static uint64_t master_now_us(struct world *world)
{
	return loop_now_us(world->master_loop);
}

static void on_cleaned(void *arg, const struct rpc_result *result)
{
	struct server *server = arg;
	server->cleaning = 0;
	if (result->err == OK)
		server->clean = true;
}

/* It marks what it was dropped from, or deletes it, then may have a lease. */
static void clean(struct world *world, struct server *server)
{
	Granary__ChunkCommands message = GRANARY__CHUNK_COMMANDS__INIT;
	Granary__ChunkCommand commands[CHUNKS_MAX], *pointers[CHUNKS_MAX];
	static struct location locations[CHUNKS_MAX];
	server->clean = false;
	if (server->cleaning != 0)
		rpc_call_cancel(world->master, server->cleaning);
	for (size_t i = 0; i < world->chunk_count; i++) {
		granary__chunk_command__init(&commands[message.n_commands]);
		commands[message.n_commands].chunk = world->chunks[i].id;
		if (is_member(&world->chunks[i], server->index)) {
			locate(world, &world->chunks[i], &locations[i]);
			commands[message.n_commands].configure = &locations[i].message;
			pointers[message.n_commands] = &commands[message.n_commands];
			message.n_commands++;
			continue;
		}
		commands[message.n_commands].version = world->chunks[i].version;
		/* Sometimes there is no use for it any more. (Not where power is lost: there a file may come back that was removed, emptied in
		 * part, which file systems with a journal do not do.) */
		if (world->chunks[i].stale[server->index] && roll(world, 4) == 0 && !server->loses_power)
			world->chunks[i].stale[server->index] = false;
		commands[message.n_commands].retire = world->chunks[i].stale[server->index];
		commands[message.n_commands].delete_chunk = !commands[message.n_commands].retire;
		pointers[message.n_commands] = &commands[message.n_commands];
		message.n_commands++;
	}
	message.commands = pointers;
	server->cleaning = rpc_conn_call(server->conn, MESSAGE_CHUNK_COMMANDS, &message.base, 5000, on_cleaned, server);
}

static void serve_register(struct world *world, struct rpc_request *request)
{
	const Granary__RegisterRequest *message = (const Granary__RegisterRequest *)request->message;
	Granary__RegisterReply reply = GRANARY__REGISTER_REPLY__INIT;
	struct server *server = NULL;
	for (unsigned i = 0; i < SERVERS; i++) {
		if (strcmp(world->servers[i].address, message->address) == 0)
			server = &world->servers[i];
	}
	check(server != NULL && request->conn != NULL);
	server->id = message->server;
	server->conn = request->conn;
	server->lease_until_us = 0;
	reply.cluster = CLUSTER;
	rpc_reply(request, &reply.base);
	clean(world, server);
}

static void serve_heartbeat(struct world *world, struct rpc_request *request)
{
	struct server *server = server_of(world, ((const Granary__Heartbeat *)request->message)->server);
	Granary__HeartbeatReply reply = GRANARY__HEARTBEAT_REPLY__INIT;
	reply.register_again = server == NULL || server->conn != request->conn || (!server->clean && server->cleaning == 0);
	if (!reply.register_again && server->clean) {
		reply.lease_ms = CHUNKSERVER_LEASE_MS;
		server->lease_until_us = master_now_us(world) + 1000ull * CHUNKSERVER_LEASE_MS;
	}
	rpc_reply(request, &reply.base);
}

static void on_configured(void *arg, const struct rpc_result *result)
{
	(void)arg;
	(void)result;
}

static void configure(struct world *world, const struct chunk_model *chunk)
{
	struct location location;
	Granary__ChunkCommands message = GRANARY__CHUNK_COMMANDS__INIT;
	Granary__ChunkCommand command = GRANARY__CHUNK_COMMAND__INIT, *pointer = &command;
	locate(world, chunk, &location);
	command.chunk = chunk->id;
	command.configure = &location.message;
	message.n_commands = 1;
	message.commands = &pointer;
	for (size_t i = 0; i < chunk->member_count; i++) {
		struct rpc_conn *conn = world->servers[chunk->members[i]].conn;
		if (conn != NULL && (!chunk->joining || roll(world, 10) != 0))
			rpc_conn_call(conn, MESSAGE_CHUNK_COMMANDS, &message.base, 1000, on_configured, NULL);
	}
}

/* It has to register again, and to hear of everything. */
static void unclean(struct world *world, struct server *server)
{
	server->clean = false;
	if (server->cleaning != 0)
		rpc_call_cancel(world->master, server->cleaning);
	server->cleaning = 0;
}

static void drop_member(struct world *world, struct chunk_model *chunk, struct server *server)
{
	size_t kept = 0;
	if (chunk->joining && chunk->members[chunk->member_count - 1] == server->index)
		chunk->joining = false;
	else
		unclean(world, server);
	chunk->stale[server->index] = true;
	for (size_t i = 0; i < chunk->member_count; i++) {
		if (chunk->members[i] != server->index)
			chunk->members[kept++] = chunk->members[i];
	}
	chunk->member_count = kept;
	chunk->version++;
	world->drops++;
	sim_trace(world->sim, "chunk %" PRIu64 " version %" PRIu64 " without server %u", chunk->id, chunk->version, server->index);
	configure(world, chunk);
}

static bool is_uncertain(const struct server *server)
{
	struct chunk_store_counts counts;
	if (server->process == NULL)
		return server->loses_power;
	chunk_store_counts(chunkserver_service(server->process)->store, &counts);
	return counts.uncertain > 0;
}

bool is_in_doubt(struct world *world, const struct chunk_model *chunk, const struct server *without, bool now)
{
	for (size_t i = 0; i < complete_count(chunk); i++) {
		const struct server *member = &world->servers[chunk->members[i]];
		if (member != without && !(now ? member->loses_power : is_uncertain(member)))
			return false;
	}
	return true;
}

static bool may_be_dropped(struct world *world, const struct chunk_model *chunk, const struct server *server)
{
	bool joins = chunk->joining && chunk->members[chunk->member_count - 1] == server->index;
	bool dead = server->conn == NULL || master_now_us(world) > server->lease_until_us;
	return dead && (joins || (complete_count(chunk) > 1 && !is_in_doubt(world, chunk, server, false)));
}

static struct chunk_model *chunk_of(struct world *world, uint64_t id)
{
	for (size_t i = 0; i < world->chunk_count; i++) {
		if (world->chunks[i].id == id)
			return &world->chunks[i];
	}
	world_failed(world, "a chunk that never was");
}

static void serve_failure(struct world *world, struct rpc_request *request)
{
	const Granary__ChunkFailure *message = (const Granary__ChunkFailure *)request->message;
	struct server *server = server_of(world, message->server);
	struct chunk_model *chunk = chunk_of(world, message->chunk);
	struct location location;
	if (message->version == chunk->version && server != NULL && is_member(chunk, server->index)) {
		if (!may_be_dropped(world, chunk, server)) {
			rpc_reply_error(request, ERR_BUSY, NULL);
			return;
		}
		drop_member(world, chunk, server);
	}
	locate(world, chunk, &location);
	rpc_reply(request, &location.message.base);
}

/* ---- new copies */

static void on_bad_moment(void *arg)
{
	struct server *server = arg;
	if (server->world->calm)
		return;
	server_kill(server);
	sim_after(server->world->sim, 1000 + roll(server->world, 2000000), on_heal, server);
}

/* The one who gives, the one who takes, or another dies while a copy is being filled. */
static void at_a_bad_moment(struct world *world, const struct chunk_model *chunk)
{
	if (world->calm || roll(world, 3) != 0)
		return;
	size_t back = roll(world, chunk->member_count);
	sim_after(world->sim, roll(world, 40000), on_bad_moment, &world->servers[chunk->members[back]]);
}

static void join(struct world *world, struct chunk_model *chunk)
{
	unsigned first = (unsigned)roll(world, SERVERS);
	for (unsigned i = 0; i < SERVERS; i++) {
		struct server *server = &world->servers[(first + i) % SERVERS];
		bool alive = server->conn != NULL && server->clean && master_now_us(world) < server->lease_until_us;
		if (!alive || is_member(chunk, server->index))
			continue;
		chunk->members[chunk->member_count++] = server->index;
		chunk->joining = true;
		chunk->stale[server->index] = false;
		chunk->version++;
		world->joins++;
		sim_trace(world->sim, "chunk %" PRIu64 " version %" PRIu64 ": server %u joins", chunk->id, chunk->version,
			  server->index);
		configure(world, chunk);
		at_a_bad_moment(world, chunk);
		return;
	}
}

static void serve_filled(struct world *world, struct rpc_request *request)
{
	const Granary__ChunkFilled *message = (const Granary__ChunkFilled *)request->message;
	struct chunk_model *chunk = chunk_of(world, message->chunk);
	struct location location;
	bool joins = chunk->joining && world->servers[chunk->members[chunk->member_count - 1]].id == message->server;
	if (message->version != chunk->version) {
		rpc_reply_error(request, ERR_STALE_VERSION, NULL);
		return;
	}
	if (joins && message->error != 0) {
		world->fills_failed++;
		drop_member(world, chunk, &world->servers[chunk->members[chunk->member_count - 1]]);
	} else if (joins) {
		chunk->joining = false;
		world->completions++;
		world->fill_bytes += message->bytes;
		sim_trace(world->sim, "chunk %" PRIu64 " version %" PRIu64 ": complete", chunk->id, chunk->version);
		configure(world, chunk);
	}
	locate(world, chunk, &location);
	rpc_reply(request, &location.message.base);
}

static void repair(struct world *world, struct chunk_model *chunk)
{
	for (size_t i = 0; i < chunk->member_count; i++) {
		struct server *server = &world->servers[chunk->members[i]];
		if (may_be_dropped(world, chunk, server) && (chunk->joining || roll(world, 8) == 0)) {
			drop_member(world, chunk, server);
			return;
		}
	}
	if (chunk->joining)
		configure(world, chunk); /* it may not have been heard */
	else if (chunk->member_count > 0 && chunk->member_count < COPIES)
		join(world, chunk);
}

static void on_repair(void *arg)
{
	struct world *world = arg;
	for (size_t i = 0; i < world->chunk_count; i++)
		repair(world, &world->chunks[i]);
	sim_after(world->sim, REPAIR_US, on_repair, world);
}

void repair_start(struct world *world)
{
	sim_after(world->sim, REPAIR_US, on_repair, world);
}

bool all_complete(void *arg)
{
	const struct world *world = arg;
	for (size_t i = 0; i < world->chunk_count; i++) {
		if (world->chunks[i].member_count > 0 && complete_count(&world->chunks[i]) < COPIES)
			return false;
	}
	return true;
}

/* ---- requests */

static void master_serve(void *arg, struct rpc_request *request)
{
	if (request->type == MESSAGE_REGISTER)
		serve_register(arg, request);
	else if (request->type == MESSAGE_HEARTBEAT)
		serve_heartbeat(arg, request);
	else if (request->type == MESSAGE_CHUNK_FAILURE)
		serve_failure(arg, request);
	else if (request->type == MESSAGE_CHUNK_FILLED)
		serve_filled(arg, request);
	else
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
}

static void master_closed(void *arg, struct rpc_conn *conn)
{
	struct world *world = arg;
	for (unsigned i = 0; i < SERVERS; i++) {
		if (world->servers[i].conn == conn)
			world->servers[i].conn = NULL;
	}
}

const struct rpc_service master_service = { .serve = master_serve, .closed = master_closed };

