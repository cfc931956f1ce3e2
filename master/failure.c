#include "master/failure.h"

#include <inttypes.h>
#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

#define LEAVING_LOOK_MS 20u

struct report {
	struct rpc_request *request;
	struct report *next;
};

/* A change that was proposed, and who asked for it. */
struct leaving {
	uint64_t chunk;
	struct failure *failure;
	struct chunk_change change;
	uint64_t alive;		/* is left out though it is; 0: those that are dead */
	uint64_t retiring;	/* proposed when this server has confirmed, or is dead; 0: it is proposed */
	struct timer timer;	/* until then: is it dead meanwhile? */
	struct report *reports;
	UT_hash_handle hh;
};

/* A member that is alive and is said not to answer. */
struct suspicion {
	uint64_t chunk, server;
	uint64_t first_ms, last_ms;
	UT_hash_handle hh;
};

struct failure {
	struct chunk_change_context context;
	struct leaving *leavings;
	size_t report_count;
	struct suspicion *suspicions;
	struct repair *repair;
	struct cooling *cooling;
};

static uint64_t now_ms(const struct failure *failure)
{
	return loop_now_us(failure->context.loop) / 1000;
}

static void on_changed(void *arg, enum err err)
{
	struct leaving *leaving = arg;
	struct failure *failure = leaving->failure;

	HASH_DEL(failure->leavings, leaving);
	timer_stop(&leaving->timer);
	if (err == OK)
		repair_active(failure->repair, leaving->chunk, leaving->alive);
	while (leaving->reports) {
		struct report *report = leaving->reports;
		leaving->reports = report->next;
		failure->report_count--;
		/* Somebody else changed it: that is an answer, too. */
		if (err == OK || err == ERR_STALE_VERSION || err == ERR_NO_CHUNK)
			chunk_reply_location(&failure->context, leaving->chunk, report->request);
		else
			replica_refuse(failure->context.replica, report->request, err);
		free(report);
	}
	free(leaving);
}

static void leaving_join(struct leaving *leaving, struct rpc_request *request)
{
	struct report *report = mem_zero(1, sizeof(*report));

	report->request = request;
	report->next = leaving->reports;
	leaving->reports = report;
	leaving->failure->report_count++;
}

/* ---- those that are alive */

static void suspicions_expire(struct failure *failure, bool all)
{
	struct suspicion *suspicion, *next;

	HASH_ITER(hh, failure->suspicions, suspicion, next)
	{
		if (!all && now_ms(failure) - suspicion->last_ms < REPAIR_SUSPECT_MS)
			continue;
		HASH_DEL(failure->suspicions, suspicion);
		free(suspicion);
	}
}

/* The chain has it right before the server. */
static bool is_from_predecessor(const struct failure *failure, const Granary__Chunk *chunk, const struct rpc_request *request)
{
	const Granary__ChunkFailure *message = (const Granary__ChunkFailure *)request->message;

	for (size_t i = 1; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] != message->server)
			continue;
		const struct server *predecessor = servers_find(failure->context.servers, chunk->replicas[i - 1]);
		return request->conn && predecessor && predecessor->connection == request->conn;
	}
	return false;
}

/* A newcomer serves nobody: it may be left out without its lease being waited for. Who has not answered for a while holds up writers. */
static bool is_suspect_for_long(struct failure *failure, const Granary__Chunk *chunk, const struct rpc_request *request)
{
	const Granary__ChunkFailure *message = (const Granary__ChunkFailure *)request->message;
	bool joins = message->server == chunk->joining;
	struct suspicion *suspicion;

	if (!joins && !(message->unreachable && is_from_predecessor(failure, chunk, request)))
		return false;
	HASH_FIND(hh, failure->suspicions, &message->chunk, sizeof(message->chunk), suspicion);
	if (suspicion && (suspicion->server != message->server || now_ms(failure) - suspicion->last_ms >= REPAIR_SUSPECT_MS)) {
		HASH_DEL(failure->suspicions, suspicion);
		free(suspicion);
		suspicion = NULL;
	}
	if (!suspicion) {
		if (HASH_COUNT(failure->suspicions) >= REPAIR_SUSPECTS_MAX)
			suspicions_expire(failure, false);
		if (HASH_COUNT(failure->suspicions) >= REPAIR_SUSPECTS_MAX)
			return false;
		suspicion = mem_zero(1, sizeof(*suspicion));
		suspicion->chunk = message->chunk;
		suspicion->server = message->server;
		suspicion->first_ms = now_ms(failure);
		HASH_ADD(hh, failure->suspicions, chunk, sizeof(suspicion->chunk), suspicion);
	}
	suspicion->last_ms = now_ms(failure);
	return suspicion->last_ms - suspicion->first_ms >= (joins ? REPAIR_SUSPECT_MS : REPAIR_UNREACHABLE_MS);
}

static bool is_member(const Granary__Chunk *chunk, uint64_t server)
{
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] == server)
			return true;
	}
	return false;
}

/* It says so itself, and there is a server that can take its place, and two complete copies without it. The next one has to wait until
 * that copy is complete. */
static bool may_make_room(const struct failure *failure, const Granary__Chunk *chunk, const struct rpc_request *request)
{
	const Granary__ChunkFailure *message = (const Granary__ChunkFailure *)request->message;
	struct servers *servers = failure->context.servers;
	const struct server *full = servers_find(servers, message->server);
	bool is_told_by_member = false, can_be_replaced = false;

	if (!message->full || chunk->joining || chunk->n_replicas < 3 || full->bytes_free > DISK_RESERVED_BYTES)
		return false;
	for (size_t i = 0; i < servers_count(servers); i++) {
		const struct server *server = servers_at(servers, i);
		if (is_member(chunk, server->id))
			is_told_by_member = is_told_by_member || (request->conn && server->connection == request->conn);
		else if (servers_is_usable(server, now_ms(failure)) && !server->draining && server->bytes_free > DISK_RESERVED_BYTES + CHUNK_BYTES)
			can_be_replaced = true;
	}
	return is_told_by_member && can_be_replaced;
}

/* ---- reports */

/* Who is dead, or (given, may be 0) `suspect`, is left out. False when nobody may be left out now. */
static bool plan(struct failure *failure, const Granary__Chunk *chunk, uint64_t suspect, struct chunk_change *out)
{
	size_t complete = 0;

	for (size_t i = 0; i < chunk->n_replicas && i < REPLICAS_MAX; i++) {
		const struct server *server = servers_find(failure->context.servers, chunk->replicas[i]);
		if (!server || servers_is_dead(server, now_ms(failure)) || chunk->replicas[i] == suspect) {
			out->dropped[out->dropped_count++] = chunk->replicas[i];
			continue;
		}
		out->replicas[out->replica_count++] = chunk->replicas[i];
		complete += chunk->replicas[i] != chunk->joining;
	}
	return complete > 0 && out->dropped_count > 0 &&
	       !servers_leave_doubt(failure->context.servers, now_ms(failure),
				    &(struct servers_parting){ .kept = out->replicas,
							       .kept_count = out->replica_count,
							       .dropped = out->dropped,
							       .dropped_count = out->dropped_count });
}

static void leave_now(struct leaving *leaving)
{
	leaving->retiring = 0;
	timer_stop(&leaving->timer);
	chunk_change_propose(&leaving->failure->context, &leaving->change);
}

/* Whoever has been asked to retire its copy and is frozen does not answer: when its lease has run out it need not. */
static void on_look(void *arg)
{
	struct leaving *leaving = arg;
	const struct failure *failure = leaving->failure;
	const struct server *server = servers_find(failure->context.servers, leaving->retiring);

	if (replica_can_read(failure->context.replica) && (!server || servers_is_dead(server, now_ms(failure))))
		leave_now(leaving);
	else
		timer_start(&leaving->timer, LEAVING_LOOK_MS);
}

/* Proposes it, or first has a member that serves the chunk (given, may be 0) retire its copy. False: that one is not connected. */
static bool leave(struct leaving *leaving, uint64_t alive)
{
	struct failure *failure = leaving->failure;

	leaving->retiring = alive;
	if (!alive) {
		chunk_change_propose(&failure->context, &leaving->change);
		return true;
	}
	if (commands_add(failure->context.commands, alive, command_drop_copy(0, leaving->chunk, leaving->change.version, true))) {
		log_warn("member_leaves", "chunk=%016" PRIx64 " version=%" PRIu64 " server=%016" PRIx64, leaving->chunk,
			 leaving->change.version, alive);
		timer_start(&leaving->timer, LEAVING_LOOK_MS);
		return true;
	}
	HASH_DEL(failure->leavings, leaving);
	free(leaving);
	return false;
}

void failure_command_done(struct failure *failure, uint64_t server, const Granary__ChunkCommand *command, enum err err)
{
	struct leaving *leaving;

	HASH_FIND(hh, failure->leavings, &command->chunk, sizeof(command->chunk), leaving);
	if (!leaving || !command->retire || leaving->retiring != server || command->version != leaving->change.version)
		return;
	if (err == OK)
		leave_now(leaving);
	else
		on_changed(leaving, ERR_BUSY);
}

/* Who thinks of a chain of before (NULL: the chunk is gone) may have made a file for it since its inventory. */
static void look_again(const struct failure *failure, const struct rpc_request *request, const Granary__Chunk *chunk)
{
	for (size_t i = 0; i < servers_count(failure->context.servers); i++) {
		struct server *server = servers_at(failure->context.servers, i);
		uint64_t soon_ms = now_ms(failure) + INVENTORY_SOON_MS;
		if (!request->conn || server->connection != request->conn || (chunk && is_member(chunk, server->id)))
			continue;
		if (server->inventory_due_ms > soon_ms)
			server->inventory_due_ms = soon_ms;
	}
}

/* `alive` (0: those that are dead) leaves, and `serves`: has to retire its copy first. NULL: it is not connected. */
static struct leaving *leaving_begin(struct failure *failure, const struct chunk_change *change, uint64_t alive, bool serves)
{
	struct leaving *leaving = mem_zero(1, sizeof(*leaving));

	leaving->chunk = change->chunk;
	leaving->failure = failure;
	leaving->change = *change;
	leaving->alive = alive;
	leaving->change.done = on_changed;
	leaving->change.arg = leaving;
	timer_init(&leaving->timer, failure->context.loop, on_look, leaving);
	HASH_ADD(hh, failure->leavings, chunk, sizeof(leaving->chunk), leaving);
	return leave(leaving, serves ? alive : 0) ? leaving : NULL;
}

bool failure_retired(struct failure *failure, uint64_t id, const Granary__Chunk *chunk, uint64_t server)
{
	struct chunk_change change = { .chunk = id, .version = chunk->version };
	struct leaving *leaving;

#ifdef PLANT_RETIRED_MEMBER_STAYS
	return true;
#endif
	HASH_FIND(hh, failure->leavings, &id, sizeof(id), leaving);
	if (leaving || !plan(failure, chunk, server, &change))
		return false;
	log_warn("retired_member_leaves", "chunk=%016" PRIx64 " version=%" PRIu64 " server=%016" PRIx64, id, chunk->version, server);
	return leaving_begin(failure, &change, server, false) != NULL;
}

static void report(struct failure *failure, struct rpc_request *request, const Granary__Chunk *chunk)
{
	const Granary__ChunkFailure *message = (const Granary__ChunkFailure *)request->message;
	const struct server *server = servers_find(failure->context.servers, message->server);
	struct chunk_change change = { .chunk = message->chunk, .version = chunk->version };
	struct leaving *leaving;

	if (chunk->version > message->version || !is_member(chunk, message->server)) {
		look_again(failure, request, chunk);
		chunk_reply_location(&failure->context, message->chunk, request);
		return;
	}
	HASH_FIND(hh, failure->leavings, &message->chunk, sizeof(message->chunk), leaving);
	bool dead = !server || servers_is_dead(server, now_ms(failure));
	bool suspect = !dead && (is_suspect_for_long(failure, chunk, request) || may_make_room(failure, chunk, request));
	if (!leaving && (dead || suspect) && plan(failure, chunk, suspect ? message->server : 0, &change))
		leaving = leaving_begin(failure, &change, suspect ? message->server : 0, message->server != chunk->joining);
	if (leaving)
		leaving_join(leaving, request);
	else
		rpc_reply_error(request, ERR_BUSY, NULL);
}

void failure_serve(struct failure *failure, struct rpc_request *request)
{
	uint64_t id = ((const Granary__ChunkFailure *)request->message)->chunk;
	Granary__Chunk *chunk = NULL;

	if (!replica_can_read(failure->context.replica)) {
		replica_refuse(failure->context.replica, request, ERR_NOT_LEADER);
		return;
	}
	if (failure->report_count >= FAILURE_REPORTS_MAX) {
		rpc_reply_error(request, ERR_BUSY, NULL);
		return;
	}
	enum err err = meta_chunk(replica_meta(failure->context.replica), id, &chunk);
	if (err == ERR_NO_CHUNK)
		look_again(failure, request, NULL);
	if (err) {
		rpc_reply_error(request, err, NULL);
		return;
	}
	if (((const Granary__ChunkFailure *)request->message)->lost) {
		/* Who says so late may mean one that has been made anew since. */
		if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD && ((const Granary__ChunkFailure *)request->message)->version == chunk->version)
			cooling_shard_lost(failure->cooling, id);
		chunk_reply_location(&failure->context, id, request);
	} else {
		report(failure, request, chunk);
	}
	message_free(&chunk->base);
}

/* One that serves retires its copy first. As many stay as are wanted, all of them alive. */
static void on_surplus(void *arg, uint64_t id, const Granary__Chunk *chunk, uint64_t leaves)
{
	struct failure *failure = arg;
	const struct server *server = servers_find(failure->context.servers, leaves);
	struct chunk_change change = { .chunk = id, .version = chunk->version };
	struct leaving *leaving;

	HASH_FIND(hh, failure->leavings, &id, sizeof(id), leaving);
	if (leaving || HASH_COUNT(failure->leavings) >= REPAIR_LEAVES_MAX || servers_are_ahead(failure->context.servers) || !plan(failure, chunk, leaves, &change) || change.dropped_count != 1)
		return;
	bool dead = !server || servers_is_dead(server, now_ms(failure));
	(void)leaving_begin(failure, &change, dead ? 0 : leaves, !dead);
}

struct failure *failure_open(const struct chunk_change_context *context, struct repair *repair, struct cooling *cooling)
{
	struct failure *failure = mem_zero(1, sizeof(*failure));

	failure->context = *context;
	failure->repair = repair;
	failure->cooling = cooling;
	repair_on_surplus(repair, on_surplus, failure);
	return failure;
}

void failure_close(struct failure *failure)
{
	if (!failure)
		return;
	struct leaving *leaving, *next;

	HASH_ITER(hh, failure->leavings, leaving, next)
	{
		check(leaving->retiring); /* what was proposed has ended */
		on_changed(leaving, ERR_CANCELLED);
	}
	suspicions_expire(failure, true);
	free(failure);
}
