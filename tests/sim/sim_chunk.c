/* Three whole chunkservers under faults, a master in miniature, and a client that writes, trims, retries and reads.
 *
 * Faults: chunkservers killed and started again, paused beyond their lease; clients that never retry what failed, or die
 * together with a server, so that nobody tells the master. The master
 * drops a server from a chain when it is asked to and the server is dead (connection closed or lease over), and gives a server that
 * comes back a lease only after it has deleted what it was dropped from.
 * Checked on the way: a read from any member gives what was acknowledged last, unless a write of that region is open.
 * At the end: every member of every chunk has exactly what was acknowledged; where a client gave up, all members have the same.
 *
 *	sim_chunk [SEED [COUNT]] ...	see runner.h */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utlist.h>

#include "chunkserver/chunkserver.h"
#include "chunkserver/service.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "tests/sim/chunk_world.h"
#include "tests/sim/runner.h"

_Noreturn void world_failed(struct world *world, const char *what)
{
	sim_print_trace(world->sim, stderr);
	fprintf(stderr, "sim_chunk: seed %" PRIu64 ": %s\n", world->seed, what);
	abort();
}

uint64_t roll(struct world *world, uint64_t bound)
{
	return rng_below(sim_rng(world->sim), bound);
}

static const struct rpc_identity master_identity = { .role = RPC_MASTER, .id = 1, .cluster = CLUSTER };
static const struct rpc_identity client_identity = { .role = RPC_CLIENT, .id = 2, .cluster = CLUSTER };

/* ---- writes */

static void send_write(void *arg);

/* Behind the last region of the write. */
static struct region *regions_end(const struct write *write)
{
	return write->trim ? write->chunk->regions + REGIONS : write->region + 1;
}

static void write_end(struct write *write)
{
	for (struct region *region = write->region; region < regions_end(write); region++)
		region->open = false;
	write->world->open_writes--;
	DL_DELETE2(write->world->writes, write, previous, next);
	timer_stop(&write->timer);
	free(write);
}

static void give_up(struct write *write)
{
	for (struct region *region = write->region; region < regions_end(write); region++)
		region->tainted = true;
	write->world->given_up++;
	write_end(write);
}

static void write_again(struct write *write)
{
	write->retried = true;
	write->world->retries++;
	timer_start(&write->timer, 20 + roll(write->world, 50));
}

static void on_reported(void *arg, const struct rpc_result *result)
{
	(void)result; /* the chain is read from the world */
	write_again(arg);
}

static void model_trim(struct write *write)
{
	uint32_t kept = write->offset % REGION_BYTES;
	for (struct region *region = write->region; region < regions_end(write); region++) {
		memset(region->bytes + kept, 0, REGION_BYTES - kept);
		kept = 0;
	}
}

/* Nobody knows whether it was done; but the head may, if it hears when it was sent. */
static void write_unknown(struct write *write, const char *text)
{
	char *end = NULL;
	uint64_t clock = strtoull(text, &end, 10), ms = strtoull(end, NULL, 10);
	if (clock == write->clock) {
		write->world->unknown++;
		give_up(write);
		return;
	}
	write->clock = clock;
	write->clock_ms = ms;
	write->clock_asked_ms = loop_now_ms(write->world->client_loop);
	send_write(write);
}

static uint64_t sent_by_its_clock(struct write *write)
{
	if (write->sent_ms == 0)
		write->sent_ms = loop_now_ms(write->world->client_loop);
	uint64_t ago = write->clock_asked_ms - write->sent_ms + 2;
	return write->clock != 0 && ago < write->clock_ms ? write->clock_ms - ago : 0;
}

static void on_written(void *arg, const struct rpc_result *result)
{
	struct write *write = arg;
	struct world *world = write->world;
	struct chunk_model *chunk = write->chunk;
	sim_trace(world->sim, "write %" PRIu64 " chunk %" PRIu64 " at %" PRIu32 "+%" PRIu32 "%s: %s %s", write->operation, chunk->id, write->offset, write->size, write->trim ? " trim" : "", err_name(result->err),
		  result->text);
	if (result->err == OK) {
		memcpy(write->region->bytes + write->offset % REGION_BYTES, write->bytes, write->size);
		if (write->trim)
			model_trim(write);
		world->acknowledged++;
		for (size_t m = 0; m < chunk->member_count; m++)
			chunk->had[chunk->members[m]] = true;
		write_end(write);
		return;
	}
	if (write->gives_up) {
		give_up(write);
		return;
	}
	if (result->err == ERR_RETRY_UNKNOWN) {
		write_unknown(write, result->text);
		return;
	}
	/* A torn block that is to be written in part is mended first. */
	bool torn = result->err == ERR_CORRUPT && world->power_cuts > 0;
	if ((result->err == ERR_CORRUPT && !torn) || result->err == ERR_INVALID || result->err == ERR_STORE_FAILED ||
	    result->err == ERR_NO_SPACE || result->err == ERR_NO_CHUNK)
		world_failed(world, err_name(result->err));
	/* The head is to blame unless it says who is. */
	Granary__ChunkFailure message = GRANARY__CHUNK_FAILURE__INIT;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.server = result->err == ERR_CHAIN_BROKEN ? strtoull(result->text, NULL, 10) :
							   world->servers[chunk->members[0]].id;
	rpc_peer_call(world->to_master, MESSAGE_CHUNK_FAILURE, &message.base, NULL, 2000, on_reported, write);
}

static void send_trim(struct write *write)
{
	struct world *world = write->world;
	struct location location;
	Granary__ChunkTrim message = GRANARY__CHUNK_TRIM__INIT;
	locate(world, write->chunk, &location);
	message.chunk = write->chunk->id;
	message.version = write->chunk->version;
	message.bytes = write->offset;
	message.client = 2;
	message.operation = write->operation;
	message.again = write->sent_ms != 0;
	message.sent_clock = write->clock;
	message.sent_ms = sent_by_its_clock(write);
	message.answered_below = world->writes->operation;
	message.n_replicas = location.message.n_replicas;
	message.replicas = location.message.replicas;
	rpc_peer_call(world->peers[write->chunk->members[0]], MESSAGE_CHUNK_TRIM, &message.base, NULL, 3000, on_written, write);
}

static void send_write(void *arg)
{
	struct write *write = arg;
	struct world *world = write->world;
	if (write->gives_up && write->retried) {
		give_up(write);
		return;
	}
	if (write->trim) {
		send_trim(write);
		return;
	}
	struct location location;
	uint8_t crcs[64];
	size_t count = 0;
	Granary__ChunkWrite message = GRANARY__CHUNK_WRITE__INIT;
	locate(world, write->chunk, &location);
	for (uint32_t at = 0; at < write->size;) {
		uint32_t piece = BLOCK_BYTES - (write->offset + at) % BLOCK_BYTES;
		if (piece > write->size - at)
			piece = write->size - at;
		put_le32(crcs + 4 * count++, crc32c(write->bytes + at, piece));
		at += piece;
	}
	message.chunk = write->chunk->id;
	message.version = write->chunk->version;
	message.offset = write->offset;
	message.client = 2;
	message.operation = write->operation;
	message.again = write->sent_ms != 0;
	message.sent_clock = write->clock;
	message.sent_ms = sent_by_its_clock(write);
	message.answered_below = world->writes->operation;
	message.n_replicas = location.message.n_replicas;
	message.replicas = location.message.replicas;
	message.crcs = message_borrow(slice_of(crcs, 4 * count));
	message.sync = write->operation % 5 == 0;
	struct iobuf *iobuf = iobuf_open(write->size);
	memcpy(iobuf->bytes, write->bytes, write->size);
	iobuf->size = write->size;
	struct conn_data data = { .iobuf = iobuf, .size = write->size };
	rpc_peer_call(world->peers[write->chunk->members[0]], MESSAGE_CHUNK_WRITE, &message.base, &data, 3000, on_written, write);
	iobuf_unref(iobuf);
}

static void begin_write(struct world *world, struct chunk_model *chunk)
{
	unsigned index = (unsigned)roll(world, REGIONS);
	struct region *region = &chunk->regions[index];
	bool trim = index >= REGIONS / 2 && roll(world, 8) == 0;
	for (unsigned i = index; i < (trim ? REGIONS : index + 1); i++)
		if (chunk->regions[i].open || chunk->regions[i].tainted)
			return;
	struct write *write = mem_zero(1, sizeof(*write));
	uint32_t within = (uint32_t)roll(world, REGION_BYTES - 1);
	uint32_t most = REGION_BYTES - within < sizeof(write->bytes) ? REGION_BYTES - within : (uint32_t)sizeof(write->bytes);
	write->world = world;
	write->chunk = chunk;
	write->region = region;
	write->offset = index * REGION_BYTES + within;
	write->size = 1 + (uint32_t)roll(world, most);
	write->operation = ++world->operation;
	write->gives_up = roll(world, 100) < GIVE_UP_PERCENT;
	for (uint32_t i = 0; i < write->size; i++)
		write->bytes[i] = (uint8_t)(write->operation * 31 + i);
	timer_init(&write->timer, world->client_loop, send_write, write);
	write->trim = trim;
	if (trim)
		write->size = 0;
	for (struct region *other = region; other < regions_end(write); other++)
		other->open = true;
	chunk->ops++;
	world->open_writes++;
	DL_APPEND2(world->writes, write, previous, next);
	send_write(write);
}

/* ---- reads */

struct read {
	struct world *world;
	struct chunk_model *chunk;
	unsigned region, server;
	bool forbidden;	  /* the server's copy is retired, or not complete: no answer will do */
	uint64_t version; /* of the chunk, then */
	uint8_t expected[REGION_BYTES];
};

/* Has nothing changed since, so that the server must not have answered? */
static bool still_forbidden(const struct read *read)
{
	const struct chunk_model *chunk = read->chunk;
	bool joins = chunk->joining && chunk->members[chunk->member_count - 1] == read->server;
	return read->forbidden && chunk->had[read->server] && chunk->version == read->version && (joins || !is_member(chunk, read->server));
}

static void copy_reply(const struct rpc_result *result, uint8_t *out)
{
	const Granary__ChunkReadReply *reply = (const Granary__ChunkReadReply *)result->reply;
	uint32_t size = result->data == NULL ? 0 : result->data->size;
	memset(out, 0, REGION_BYTES);
	check(size <= REGION_BYTES && reply->crcs.len == size / BLOCK_BYTES * 4ul);
	for (uint32_t at = 0; at < size; at += BLOCK_BYTES)
		check(crc32c(result->data->bytes + at, BLOCK_BYTES) == get_le32(reply->crcs.data + at / BLOCK_BYTES * 4ul));
	if (size > 0)
		memcpy(out, result->data->bytes, size);
}

static void on_read(void *arg, const struct rpc_result *result)
{
	struct read *read = arg;
	struct world *world = read->world;
	uint8_t got[REGION_BYTES];
	world->open_reads--;
	if (result->err == OK && still_forbidden(read))
		{ sim_trace(world->sim, "read of chunk %" PRIu64 " at server %u, version %" PRIu64, read->chunk->id, read->server, read->version); world_failed(world, "a read from a copy that is not to be served"); }
	world->refusals += read->forbidden && result->err != OK;
	if (result->err == OK) {
		copy_reply(result, got);
		world->reads++;
		/* A write that was begun meanwhile may or may not be in it. */
		const struct region *region = &read->chunk->regions[read->region];
		bool same = memcmp(region->bytes, read->expected, REGION_BYTES) == 0;
		if (!region->open && !region->tainted && same && memcmp(got, read->expected, REGION_BYTES) != 0) {
			sim_trace(world->sim, "chunk %" PRIu64 " region %u server %u", read->chunk->id, read->region, read->server);
			uint32_t at = 0;
			while (got[at] == read->expected[at])
				at++;
			sim_trace(world->sim, "first difference at byte %u of the chunk", read->region * REGION_BYTES + at);
			world_failed(world, "a read without what was acknowledged");
		}
	}
	free(read);
}

static void begin_read(struct world *world, struct chunk_model *chunk)
{
	struct read *read = mem_zero(1, sizeof(*read));
	Granary__ChunkRead message = GRANARY__CHUNK_READ__INIT;
	read->world = world;
	read->chunk = chunk;
	read->region = (unsigned)roll(world, REGIONS);
	read->server = chunk->members[roll(world, complete_count(chunk))];
	read->version = chunk->version;
	message.version = chunk->version;
	if (roll(world, 4) == 0) {
		unsigned other = (unsigned)roll(world, SERVERS);
		read->server = other;
		read->forbidden = chunk->joining ? chunk->members[chunk->member_count - 1] == other : !is_member(chunk, other);
		/* A reader may know the chain of before. */
		if (read->forbidden && !chunk->joining && roll(world, 2) == 0)
			message.version -= roll(world, chunk->version);
	}
	memcpy(read->expected, chunk->regions[read->region].bytes, REGION_BYTES);
	message.chunk = chunk->id;
	message.offset = read->region * REGION_BYTES;
	message.bytes = REGION_BYTES;
	world->open_reads++;
	rpc_peer_call(world->peers[read->server], MESSAGE_CHUNK_READ, &message.base, NULL, 1000, on_read, read);
}

static void begin_chunk(struct world *world)
{
	struct chunk_model *chunk = &world->chunks[world->chunk_count];
	unsigned first = (unsigned)roll(world, SERVERS);
	if (world->chunk_count == CHUNKS_MAX)
		return;
	for (unsigned i = 0; i < SERVERS && chunk->member_count < COPIES; i++) {
		struct server *server = &world->servers[(first + i) % SERVERS];
		if (server->conn != NULL && server->clean)
			chunk->members[chunk->member_count++] = server->index;
	}
	if (chunk->member_count < 2) {
		chunk->member_count = 0;
		return;
	}
	chunk->id = 1000 + world->chunk_count++;
	chunk->version = 1;
}

static void on_pace(void *arg)
{
	struct world *world = arg;
	struct chunk_model *last = world->chunk_count == 0 ? NULL : &world->chunks[world->chunk_count - 1];
	if (world->calm)
		return;
	/* Also when so many regions of it are tainted that little is left to do. */
	if (last == NULL || last->ops >= OPS_PER_CHUNK || roll(world, 300) == 0)
		begin_chunk(world);
	if (world->chunk_count > 0 && !world->client_dead) {
		/* Mostly the newest ones: others are idle, synced, forgotten. */
		size_t back = roll(world, world->chunk_count < 3 ? world->chunk_count : 3);
		struct chunk_model *chunk = &world->chunks[world->chunk_count - 1 - back];
		if (roll(world, 3) == 0)
			begin_read(world, chunk);
		else
			begin_write(world, chunk);
	}
	timer_start(&world->pace, 1 + roll(world, 8));
}

/* ---- faults */

static void server_start(struct server *server)
{
	char name[8];
	snprintf(name, sizeof(name), "c%u", server->index);
	if (!sim_host_is_up(server->host))
		sim_host_start(server->host);
	server->loop = sim_process_open(server->host, name);
	struct chunkserver_options options = { .data = "data", .listen = server->address, .masters = "m:7001", .host = name };
	enum err err = chunkserver_open(server->loop, &options, &server->process);
	check(err == OK);
}

void server_kill(struct server *server)
{
	struct world *world = server->world;
	if (server->process == NULL)
		return;
	sim_trace(world->sim, "kill server %u", server->index);
	world->kills++;
	sim_process_kill(server->loop);
	chunkserver_close(server->process);
	sim_process_drop_work(server->loop);
	loop_close(server->loop);
	server->process = NULL;
	server->paused = false;
}

/* Nothing that it had under way is ever asked for again. */
static void client_dies(struct world *world)
{
	struct write *write;
	DL_FOREACH2 (world->writes, write, next)
		write->gives_up = true;
	world->client_dead = true;
}

/* The others are back before anybody is left out: what they had under way they have to sort out with one that is uncertain. */
static void on_others_killed(void *arg)
{
	struct server *uncertain = arg;
	struct world *world = uncertain->world;
	if (world->calm)
		return;
	client_dies(world);
	for (unsigned i = 0; i < SERVERS; i++) {
		struct server *server = &world->servers[i];
		if (server == uncertain || roll(world, 4) == 0)
			continue;
		server_kill(server);
		sim_after(world->sim, 1000 + roll(world, 20000), on_heal, server);
	}
}

void on_heal(void *arg)
{
	struct server *server = arg;
	if (server->process == NULL)
		server_start(server);
	else if (server->paused)
		sim_process_pause(server->loop, false);
	server->paused = false;
	server->world->client_dead = false;
	if (server->power_is_back && roll(server->world, 2) == 0)
		sim_after(server->world->sim, roll(server->world, 60000), on_others_killed, server);
	server->power_is_back = false;
}

/* What was not synced is lost: not where it is all that there is. */
static bool may_lose_power(struct world *world)
{
	for (size_t i = 0; i < world->chunk_count; i++) {
		if (world->chunks[i].member_count > 0 && is_in_doubt(world, &world->chunks[i], NULL, true))
			return false;
	}
	return true;
}

static void cut_power(struct server *server)
{
	sim_trace(server->world->sim, "power cut of server %u", server->index);
	server->world->power_cuts++;
	sim_host_power_cut(server->host);
	server_kill(server);
	server->power_is_back = true;
}

static void on_fault(void *arg)
{
	struct world *world = arg;
	struct server *server = &world->servers[roll(world, SERVERS)];
	if (world->calm)
		return;
	if (server->process != NULL && !server->paused) {
		if (roll(world, 4) == 0) {
			sim_trace(world->sim, "pause server %u", server->index);
			sim_process_pause(server->loop, true);
			server->paused = true;
		} else {
			if (roll(world, 2) == 0)
				client_dies(world);
			if (server->loses_power && roll(world, 2) == 0 && may_lose_power(world))
				cut_power(server);
			else
				server_kill(server);
		}
		sim_after(world->sim, 1000 + roll(world, roll(world, 2) ? 20000 : 3000000), on_heal, server);
	}
	sim_after(world->sim, 200000 + roll(world, 1500000), on_fault, world);
}

/* ---- the end */

static bool quiet(void *arg)
{
	const struct world *world = arg;
	return world->open_writes == 0 && world->open_reads == 0;
}

struct compare {
	struct world *world;
	bool done;
	enum err err;
	uint8_t bytes[REGION_BYTES];
};

static void on_compared(void *arg, const struct rpc_result *result)
{
	struct compare *compare = arg;
	compare->done = true;
	compare->err = result->err;
	if (result->err == OK)
		copy_reply(result, compare->bytes);
}

static bool compared(void *arg)
{
	return ((struct compare *)arg)->done;
}

/* What a member has; waits while it is busy. */
static void fetch(struct world *world, const struct chunk_model *chunk, unsigned region, unsigned server, uint8_t *out)
{
	struct compare compare;
	Granary__ChunkRead message = GRANARY__CHUNK_READ__INIT;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.offset = region * REGION_BYTES;
	message.bytes = REGION_BYTES;
	for (unsigned attempt = 0; attempt < 100; attempt++) {
		compare = (struct compare){ .world = world };
		rpc_peer_call(world->peers[server], MESSAGE_CHUNK_READ, &message.base, NULL, 2000, on_compared, &compare);
		if (!sim_run(world->sim, 5000000, compared, &compare))
			world_failed(world, "a read without an end");
		if (compare.err == OK || compare.err == ERR_NO_CHUNK)
			break;
		sim_run(world->sim, 100000, NULL, NULL);
	}
	if (compare.err == ERR_NO_CHUNK)
		memset(compare.bytes, 0, REGION_BYTES); /* never written there */
	else if (compare.err != OK)
		world_failed(world, err_name(compare.err));
	memcpy(out, compare.bytes, REGION_BYTES);
}

/* False: the chain has changed meanwhile (a member that had been away is left out only now), and who was asked may have none of it. */
static bool compare_region(struct world *world, const struct chunk_model *chunk, unsigned r)
{
	uint8_t first[REGION_BYTES], other[REGION_BYTES];
	uint64_t version = chunk->version;
	sim_trace(world->sim, "compare chunk %" PRIu64 " region %u", chunk->id, r);
	fetch(world, chunk, r, chunk->members[0], first);
	if (chunk->version != version)
		return false;
	if (!chunk->regions[r].tainted && memcmp(first, chunk->regions[r].bytes, REGION_BYTES) != 0)
		world_failed(world, "the head has lost what was acknowledged");
	for (size_t m = 1; m < chunk->member_count; m++) {
		fetch(world, chunk, r, chunk->members[m], other);
		if (chunk->version != version)
			return false;
		if (memcmp(first, other, REGION_BYTES) != 0)
			world_failed(world, "members differ");
	}
	return true;
}

/* Chains only get shorter. */
static void compare_all(struct world *world)
{
	for (size_t c = 0; c < world->chunk_count; c++) {
		for (unsigned r = 0; r < REGIONS; r++) {
			while (!compare_region(world, &world->chunks[c], r))
				sim_trace(world->sim, "again");
		}
	}
}

static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	struct world *world = mem_zero(1, sizeof(*world));
	world->seed = seed;
	world->sim = sim_open(&(struct sim_options){ .seed = seed, .verbose = getenv("SIM_VERBOSE") != NULL });
	world->master_loop = sim_process_open(sim_host_open(world->sim, "m"), "m");
	world->client_loop = sim_process_open(sim_host_open(world->sim, "k"), "k");
	enum err err = rpc_open(world->master_loop, &master_identity, &master_service, world, &world->master);
	if (err == OK)
		err = rpc_listen(world->master, "m:7001");
	if (err == OK)
		err = rpc_open(world->client_loop, &client_identity, NULL, NULL, &world->client);
	check(err == OK);
	world->to_master = rpc_peer_open(world->client, "m:7001");
	for (unsigned i = 0; i < SERVERS; i++) {
		struct server *server = &world->servers[i];
		char name[8];
		snprintf(name, sizeof(name), "c%u", i);
		*server = (struct server){ .world = world, .index = i, .host = sim_host_open(world->sim, name) };
		snprintf(server->address, sizeof(server->address), "c%u:7001", i);
		server->loses_power = seed % 2 == 0 && seed / 2 % SERVERS == i;
		server_start(server);
		world->peers[i] = rpc_peer_open(world->client, server->address);
	}
	timer_init(&world->pace, world->client_loop, on_pace, world);
	timer_start(&world->pace, 1000);
	sim_after(world->sim, 2000000, on_fault, world);
	repair_start(world);
	sim_run(world->sim, FAULTS_US, NULL, NULL);
	world->calm = true;
	for (unsigned i = 0; i < SERVERS; i++)
		on_heal(&world->servers[i]);
	if (!sim_run(world->sim, CALM_US, quiet, world))
		world_failed(world, "operations do not end though all faults have");
	if (!sim_run(world->sim, CALM_US, all_complete, world))
		world_failed(world, "chunks lack copies though all faults have ended");
	compare_all(world);
	const uint64_t seen[] = { world->acknowledged, world->retries, world->given_up, world->unknown, world->reads, world->kills, world->power_cuts,
				  world->drops, world->joins, world->completions, world->fill_bytes / KIB, world->refusals, world->chunk_count,
				  sim_steps(world->sim), sim_now_us(world->sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	check(world->acknowledged > 50 && world->reads > 50 && world->kills > 0);
	for (unsigned i = 0; i < SERVERS; i++) {
		server_kill(&world->servers[i]);
		rpc_peer_close(world->peers[i]);
	}
	rpc_peer_close(world->to_master);
	timer_stop(&world->pace);
	rpc_close(world->client);
	rpc_close(world->master);
	loop_close(world->client_loop);
	loop_close(world->master_loop);
	uint64_t digest = sim_trace_digest(world->sim);
	sim_close(world->sim);
	free(world);
	return digest;
}

/* Seeds that once found something: heads that returned to a successor with unsettled blocks, chains that were never heard of. */
static const uint64_t known[] = { 147, 171, 323, 332, 14, 103, 0 };
static const char *const counts[] = { "writes", "retries", "given up", "unknown", "reads", "kills", "power cuts", "drops", "joins", "completed", "KiB filled",
				      "refused", "chunks", RUNNER_STEPS, RUNNER_MS, NULL };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_chunk", .standard = SEEDS, .run = run_seed, .counts = counts, .known = known
	};
	return runner_main(&runner, argc, argv);
}
