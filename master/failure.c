#include "master/failure.h"

#include <inttypes.h>
#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

struct report {
	struct rpc_request *request;
	struct report *next;
};

/* A change of one chunk's chain on its way through the log, and who asked for it. */
struct repair {
	uint64_t chunk;
	struct proposal proposal;
	struct failure *failure;
	Granary__MetaRequest request;
	Granary__MetaOp op, *ops[1];
	Granary__ChunkChange change;
	uint64_t kept[REPLICAS_MAX], dropped[REPLICAS_MAX];
	struct report *reports;
	UT_hash_handle hh;
};

struct failure {
	struct failure_options options;
	struct repair *repairs;
	size_t report_count;
};

static uint64_t request_chunk(const struct rpc_request *request)
{
	return ((const Granary__ChunkFailure *)request->message)->chunk;
}

static void reply_location(struct failure *failure, struct rpc_request *request)
{
	Granary__ChunkLocation *location = NULL;
	enum err err = meta_chunk_location(replica_meta(failure->options.replica), request_chunk(request), &location);

	if (err == ERR_NOT_FOUND)
		err = ERR_NO_CHUNK;
	if (err) {
		rpc_reply_error(request, err, NULL);
		return;
	}
	rpc_reply(request, &location->base);
	message_unref(&location->base);
}

static void tell_survivors(struct failure *failure, const struct repair *repair)
{
	Granary__ChunkLocation *location = NULL;

	if (meta_chunk_location(replica_meta(failure->options.replica), repair->chunk, &location))
		return;
	for (size_t i = 0; i < location->n_replicas; i++) {
		if (!commands_add(failure->options.commands, location->replicas[i]->server, command_configure(location)))
			log_debug("configure_not_sent", "chunk=%016" PRIx64, repair->chunk);
	}
	message_unref(&location->base);
}

static void drops_add(struct failure *failure, const struct repair *repair, bool begin)
{
	for (size_t i = 0; i < repair->change.n_dropped; i++) {
		struct server *server = servers_find(failure->options.servers, repair->dropped[i]);
		if (!server)
			continue;
		if (begin) {
			server->drops++;
		} else if (server->drops > 0 && --server->drops == 0 && server->cleaning) {
			garbage_clean(failure->options.garbage, server->id);
		}
	}
}

static void on_changed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct repair *repair = container_of(proposal, struct repair, proposal);
	struct failure *failure = repair->failure;

	(void)reply;
	HASH_DEL(failure->repairs, repair);
	drops_add(failure, repair, false);
	if (err == OK)
		tell_survivors(failure, repair);
	while (repair->reports) {
		struct report *report = repair->reports;
		repair->reports = report->next;
		failure->report_count--;
		if (err == OK)
			reply_location(failure, report->request);
		else
			rpc_reply_error(report->request, err,
					err == ERR_NOT_LEADER ? replica_leader_address(failure->options.replica) : NULL);
		free(report);
	}
	free(repair);
}

static void repair_join(struct repair *repair, struct rpc_request *request)
{
	struct report *report = mem_zero(1, sizeof(*report));

	report->request = request;
	report->next = repair->reports;
	repair->reports = report;
	repair->failure->report_count++;
}

/* All that live have lost power, and one that has not is not long gone: its copy is the one that counts. */
static bool is_left_in_doubt(const struct failure *failure, const struct repair *repair, uint64_t now_ms)
{
	bool waited_for = false;

	for (size_t i = 0; i < repair->change.n_replicas; i++) {
		const struct server *server = servers_find(failure->options.servers, repair->kept[i]);
		if (!server || !server->uncertain)
			return false;
	}
	for (size_t i = 0; i < repair->change.n_dropped; i++) {
		const struct server *server = servers_find(failure->options.servers, repair->dropped[i]);
		waited_for = waited_for || (server && servers_is_waited_for(server, now_ms));
	}
	return waited_for;
}

/* NULL when nobody may be left out now. */
static struct repair *repair_open(struct failure *failure, uint64_t id, const Granary__Chunk *chunk)
{
	uint64_t now_ms = loop_now_us(failure->options.loop) / 1000;
	struct repair *repair = mem_zero(1, sizeof(*repair));

	granary__meta_request__init(&repair->request);
	granary__meta_op__init(&repair->op);
	granary__chunk_change__init(&repair->change);
	for (size_t i = 0; i < chunk->n_replicas && i < REPLICAS_MAX; i++) {
		const struct server *server = servers_find(failure->options.servers, chunk->replicas[i]);
		if (!server || servers_is_dead(server, now_ms))
			repair->dropped[repair->change.n_dropped++] = chunk->replicas[i];
		else
			repair->kept[repair->change.n_replicas++] = chunk->replicas[i];
	}
	if (repair->change.n_replicas == 0 || repair->change.n_dropped == 0 || is_left_in_doubt(failure, repair, now_ms)) {
		free(repair);
		return NULL;
	}
	repair->chunk = id;
	repair->failure = failure;
	repair->change.chunk = id;
	repair->change.version = chunk->version;
	repair->change.replicas = repair->kept;
	repair->change.dropped = repair->dropped;
	repair->op.op_case = GRANARY__META_OP__OP_CHUNK_CHANGE;
	repair->op.chunk_change = &repair->change;
	repair->ops[0] = &repair->op;
	repair->request.n_ops = 1;
	repair->request.ops = repair->ops;
	repair->proposal.request = &repair->request;
	repair->proposal.done = on_changed;
	return repair;
}

static bool is_member(const Granary__Chunk *chunk, uint64_t server)
{
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] == server)
			return true;
	}
	return false;
}

static void report(struct failure *failure, struct rpc_request *request, const Granary__Chunk *chunk)
{
	const Granary__ChunkFailure *message = (const Granary__ChunkFailure *)request->message;
	const struct server *server = servers_find(failure->options.servers, message->server);
	uint64_t now_ms = loop_now_us(failure->options.loop) / 1000;
	struct repair *repair;

	if (chunk->version > message->version || !is_member(chunk, message->server)) {
		reply_location(failure, request);
		return;
	}
	HASH_FIND(hh, failure->repairs, &message->chunk, sizeof(message->chunk), repair);
	if (!repair && (!server || servers_is_dead(server, now_ms))) {
		repair = repair_open(failure, message->chunk, chunk);
		if (repair) {
			HASH_ADD(hh, failure->repairs, chunk, sizeof(repair->chunk), repair);
			drops_add(failure, repair, true);
			replica_propose(failure->options.replica, &repair->proposal);
		}
	}
	if (repair)
		repair_join(repair, request);
	else
		rpc_reply_error(request, ERR_BUSY, NULL);
}

void failure_serve(struct failure *failure, struct rpc_request *request)
{
	Granary__Chunk *chunk = NULL;

	if (!replica_can_read(failure->options.replica)) {
		rpc_reply_error(request, ERR_NOT_LEADER, replica_leader_address(failure->options.replica));
		return;
	}
	if (failure->report_count >= FAILURE_REPORTS_MAX) {
		rpc_reply_error(request, ERR_BUSY, NULL);
		return;
	}
	enum err err = meta_chunk(replica_meta(failure->options.replica), request_chunk(request), &chunk);
	if (err) {
		rpc_reply_error(request, err == ERR_NOT_FOUND ? ERR_NO_CHUNK : err, NULL);
		return;
	}
	report(failure, request, chunk);
	message_free(&chunk->base);
}

struct failure *failure_open(const struct failure_options *options)
{
	struct failure *failure = mem_zero(1, sizeof(*failure));

	failure->options = *options;
	return failure;
}

void failure_close(struct failure *failure)
{
	if (!failure)
		return;
	check(!failure->repairs);
	free(failure);
}
