/* What tools ask for: a server is drained, or no more; a rebalancing begins, ends, is told. Through the log. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys/log.h"
#include "master/balance_internal.h"

/* On its way through the log. */
struct balance_change {
	struct proposal proposal;
	struct balance *balance;
	struct rpc_request *request; /* NULL: nobody asked */
	Granary__MetaRequest message;
	Granary__MetaOp op, *ops[1];
	Granary__ServerDrain drain;
	Granary__SetSettings settings;
	Granary__Rebalance run; /* id 0: none from now on */
	unsigned attempts;
};

static struct replica *replica_of(const struct balance *balance)
{
	return balance->options.context->replica;
}

static void refuse(const struct balance *balance, struct rpc_request *request, enum err err)
{
	replica_refuse(replica_of(balance), request, err);
}

/* ---- telling */

static void tell_drain(const struct balance *balance, struct rpc_request *request)
{
	const Granary__DrainRequest *asked = (const Granary__DrainRequest *)request->message;
	Granary__Drain reply = GRANARY__DRAIN__INIT;

	balance_tell_drain(balance, asked->server, &reply);
	rpc_reply(request, &reply.base);
}

static enum balance_why why_of_run(const struct balance *balance)
{
	enum balance_why why = WHY_NONE;

	for (const struct source *source = balance->sources; source; source = source->hh.next)
		why = source->why > why ? source->why : why;
	return why;
}

static void tell_servers(struct balance *balance, unsigned percent, Granary__RebalanceStatus *out)
{
	const struct servers *servers = balance->options.context->servers;

	balance_look(balance);
	out->servers = mem_alloc((balance->server_count + 1) * sizeof(Granary__BalancedServer *));
	for (size_t i = 0; i < balance->server_count; i++) {
		Granary__BalancedServer *told = out->servers[out->n_servers++] = mem_alloc(sizeof(*told));
		const struct server *server = servers_find(servers, balance->servers[i].server);
		granary__balanced_server__init(told);
		told->server = server->id;
		told->bytes_total = balance_capacity(server);
		told->bytes_used = told->bytes_total > server->bytes_free ? told->bytes_total - server->bytes_free : 0;
		told->draining = server->draining;
	}
	for (size_t i = 0; i < balance->server_count; i++) {
		struct balance_server *server = &balance->servers[i];
		uint64_t all = server->bytes_used + server->bytes_coming;
		server->bytes_used = all > server->bytes_leaving ? all - server->bytes_leaving : 0;
		server->bytes_coming = server->bytes_leaving = 0;
		server->stuck = false;
	}
	balance_set_fair(balance->servers, balance->server_count);
	out->bytes_to_move = balance_plan(balance->servers, balance->server_count, percent);
	for (size_t i = 0; i < balance->server_count; i++)
		out->servers[i]->bytes_planned = balance->servers[i].bytes_used;
}

static void tell_run(struct balance *balance, struct rpc_request *request)
{
	const Granary__RebalanceRequest *asked = (const Granary__RebalanceRequest *)request->message;
	const Granary__Rebalance *run = balance_run(balance);
	Granary__RebalanceStatus *reply = mem_alloc(sizeof(*reply));

	granary__rebalance_status__init(reply);
	tell_servers(balance, asked->target_percent ? asked->target_percent : run ? run->target_percent : BALANCE_PERCENT_DEFAULT, reply);
	for (const struct move *move = balance->moves; move; move = move->hh.next)
		reply->bytes_to_move += move->over_ms ? 0 : move->bytes;
	reply->id = run ? run->id : 0;
	reply->bytes_moved = balance->moved_bytes;
	reply->moves = balance_moves(balance);
	reply->bytes_per_second = balance_rate(balance);
	if (run && reply->moves == 0)
		reply->waits_for = mem_string(balance_why_text(why_of_run(balance)));
	reply->ended = mem_string(balance->ended);
	rpc_reply(request, &reply->base);
	message_free(&reply->base);
}

/* ---- changes */

static void change_end(struct balance_change *change, enum err err)
{
	struct balance *balance = change->balance;
	struct rpc_request *request = change->request;

	if (!request)
		balance->ending = false;
	else if (err)
		refuse(balance, request, err);
	else if (request->type == MESSAGE_DRAIN)
		tell_drain(balance, request);
	else
		tell_run(balance, request);
	if (change->settings.settings)
		message_free(&change->settings.settings->base);
	free(change);
}

static void propose_run(struct balance_change *change)
{
	struct balance *balance = change->balance;
	Granary__Settings *settings = (Granary__Settings *)message_copy(&meta_settings(balance_meta(balance))->base);

	if (change->settings.settings)
		message_free(&change->settings.settings->base);
	change->settings.settings = settings;
	message_free(settings->rebalance ? &settings->rebalance->base : NULL);
	settings->rebalance = change->run.id ? (Granary__Rebalance *)message_copy(&change->run.base) : NULL;
	replica_propose(replica_of(balance), &change->proposal);
}

static void on_changed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct balance_change *change = container_of(proposal, struct balance_change, proposal);

	if (err == OK && (*reply)->n_results == 1)
		err = err_from_wire((*reply)->results[0]->error);
	if (err == ERR_BUSY && change->settings.settings && ++change->attempts < SETTING_ATTEMPTS_MAX)
		propose_run(change); /* another setting was changed meanwhile */
	else
		change_end(change, err);
}

static struct balance_change *change_open(struct balance *balance, struct rpc_request *request)
{
	struct balance_change *change = mem_zero(1, sizeof(*change));

	change->balance = balance;
	change->request = request;
	granary__meta_request__init(&change->message);
	granary__meta_op__init(&change->op);
	granary__server_drain__init(&change->drain);
	granary__set_settings__init(&change->settings);
	granary__rebalance__init(&change->run);
	change->ops[0] = &change->op;
	change->message.n_ops = 1;
	change->message.ops = change->ops;
	change->proposal.request = &change->message;
	change->proposal.done = on_changed;
	return change;
}

static void change_run(struct balance_change *change)
{
	change->op.op_case = GRANARY__META_OP__OP_SET_SETTINGS;
	change->op.set_settings = &change->settings;
	propose_run(change);
}

void balance_end_run(struct balance *balance, const char *how)
{
	log_info("rebalance_ended", "moved_bytes=%" PRIu64 " how=\"%s\"", balance->moved_bytes, how);
	snprintf(balance->ended, sizeof(balance->ended), "%s", how);
	balance->ending = true;
	change_run(change_open(balance, NULL));
}

/* ---- requests */

static void serve_drain(struct balance *balance, struct rpc_request *request)
{
	const Granary__DrainRequest *asked = (const Granary__DrainRequest *)request->message;
	const struct server *server = servers_find(balance->options.context->servers, asked->server);

	if (!server) {
		refuse(balance, request, ERR_NOT_FOUND);
		return;
	}
	if (asked->ask || server->draining == asked->draining) {
		tell_drain(balance, request);
		return;
	}
	struct balance_change *change = change_open(balance, request);
	log_info(asked->draining ? "drain_begins" : "drain_ends", "server=%016" PRIx64, server->id);
	change->op.op_case = GRANARY__META_OP__OP_SERVER_DRAIN;
	change->op.server_drain = &change->drain;
	change->drain.server = asked->server;
	change->drain.draining = asked->draining;
	replica_propose(replica_of(balance), &change->proposal);
}

static void serve_rebalance(struct balance *balance, struct rpc_request *request)
{
	const Granary__RebalanceRequest *asked = (const Granary__RebalanceRequest *)request->message;

	if (asked->target_percent > BALANCE_PERCENT_MAX || (asked->begin && asked->end)) {
		refuse(balance, request, ERR_INVALID);
		return;
	}
	if (!asked->begin && !asked->end) {
		tell_run(balance, request);
		return;
	}
	struct balance_change *change = change_open(balance, request);
	if (asked->begin) {
		change->run.id = loop_random(balance->options.context->loop) | 1;
		change->run.bytes_per_second = asked->bytes_per_second;
		change->run.target_percent = asked->target_percent ? asked->target_percent : BALANCE_PERCENT_DEFAULT;
	}
	change_run(change);
}

void balance_serve(struct balance *balance, struct rpc_request *request)
{
	if (!replica_can_read(replica_of(balance)))
		refuse(balance, request, ERR_NOT_LEADER);
	else if (request->type == MESSAGE_DRAIN)
		serve_drain(balance, request);
	else
		serve_rebalance(balance, request);
}
