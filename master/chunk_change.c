#include "master/chunk_change.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/sys/log.h"

struct proposed {
	struct proposal proposal;
	const struct chunk_change_context *context;
	struct chunk_change change;
	bool fenced[REPLICAS_MAX]; /* of dropped: its lease is held back */
	Granary__MetaRequest request;
	Granary__MetaOp op, *ops[1];
	Granary__ChunkChange message;
};

void chunk_reply_location(const struct chunk_change_context *context, uint64_t chunk, struct rpc_request *request)
{
	Granary__ChunkLocation *location = NULL;
	enum err err = meta_chunk_location(replica_meta(context->replica), chunk, &location);

	if (err) {
		rpc_reply_error(request, err, NULL);
		return;
	}
	rpc_reply(request, &location->base);
	message_unref(&location->base);
}

void chunk_configure(const struct chunk_change_context *context, uint64_t chunk)
{
	Granary__ChunkLocation *location = NULL;

	if (meta_chunk_location(replica_meta(context->replica), chunk, &location))
		return;
	/* The predecessor of one who joins first: it is the one who has something to do. */
	for (size_t i = location->n_replicas; i > 0; i--) {
		if (!commands_add(context->commands, location->replicas[i - 1]->server, command_configure(location)))
			log_debug("configure_not_sent", "chunk=%016" PRIx64, chunk);
	}
	message_unref(&location->base);
}

static void fence(struct proposed *proposed)
{
	const struct chunk_change_context *context = proposed->context;
	uint64_t now_ms = loop_now_us(context->loop) / 1000;

	for (size_t i = 0; i < proposed->change.dropped_count; i++) {
		struct server *server = servers_find(context->servers, proposed->change.dropped[i]);
		/* One that is alive has not served this chunk, or does not any more: who left it out has seen to that. */
		proposed->fenced[i] = server && servers_is_dead(server, now_ms);
		if (proposed->fenced[i])
			server->drops++;
	}
}

static void unfence(struct proposed *proposed)
{
	const struct chunk_change_context *context = proposed->context;

	for (size_t i = 0; i < proposed->change.dropped_count; i++) {
		struct server *server = servers_find(context->servers, proposed->change.dropped[i]);
		if (server && proposed->fenced[i] && server->drops > 0 && --server->drops == 0 && server->cleaning)
			garbage_clean(context->garbage, server->id);
	}
}

static void on_changed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct proposed *proposed = container_of(proposal, struct proposed, proposal);
	const struct chunk_change *change = &proposed->change;

	if (err == OK && (*reply)->n_results == 1)
		err = err_from_wire((*reply)->results[0]->error);
	unfence(proposed);
	if (err == OK)
		chunk_configure(proposed->context, change->chunk);
	if (change->done)
		change->done(change->arg, err);
	free(proposed);
}

void chunk_change_propose(const struct chunk_change_context *context, const struct chunk_change *change)
{
	struct proposed *proposed = mem_zero(1, sizeof(*proposed));

	proposed->context = context;
	proposed->change = *change;
	granary__meta_request__init(&proposed->request);
	granary__meta_op__init(&proposed->op);
	granary__chunk_change__init(&proposed->message);
	proposed->message.chunk = change->chunk;
	proposed->message.version = change->version;
	proposed->message.replicas = proposed->change.replicas;
	proposed->message.n_replicas = change->replica_count;
	proposed->message.dropped = proposed->change.dropped;
	proposed->message.n_dropped = change->dropped_count;
	proposed->message.join = change->join;
	proposed->message.complete = change->complete;
	proposed->message.moving_from = change->moving_from;
	proposed->message.seal = change->seal;
	proposed->op.op_case = GRANARY__META_OP__OP_CHUNK_CHANGE;
	proposed->op.chunk_change = &proposed->message;
	proposed->ops[0] = &proposed->op;
	proposed->request.n_ops = 1;
	proposed->request.ops = proposed->ops;
	proposed->proposal.request = &proposed->request;
	proposed->proposal.done = on_changed;
	fence(proposed);
	replica_propose(context->replica, &proposed->proposal);
}
