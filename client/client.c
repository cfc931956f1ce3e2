#include "client/client.h"

#include <stdlib.h>
#include <utlist.h>

#include "client/blob_op.h"
#include "client/changes.h"
#include "client/chunk_map.h"
#include "client/client_internal.h"
#include "client/creations.h"
#include "client/delegations.h"
#include "client/file_commit.h"
#include "client/file_io_internal.h"
#include "client/recall.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"

struct later {
	struct later *next;
	file_io_fn *done;
	void *arg;
	enum err err;
	uint64_t bytes;
};

static void serve(void *arg, struct rpc_request *request)
{
	struct client *client = arg;
	if (request->type == MESSAGE_INVALIDATE) {
		const Granary__Invalidate *message = (const Granary__Invalidate *)request->message;
		for (size_t i = 0; i < message->n_items; i++)
			file_io_recalled(client, message->items[i]->inode);
		recall_serve(client, request);
	} else
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
}

static const struct rpc_service service = {.serve = serve};

static void session_was_lost(void *arg)
{
	struct client *client = arg;
	delegations_session_lost(client);
	file_io_session_lost(client);
	if (client->events && client->events->session_lost)
		client->events->session_lost(client->events_arg);
}

static size_t keeping(void *arg, uint64_t *directories, size_t room)
{
	return delegations_kept(arg, directories, room);
}

/* ---- results that are due at the end of the iteration ---- */

void client_later(struct client *client, uint64_t accepted, file_io_fn *done, void *arg, enum err err)
{
	struct later *later = mem_zero(1, sizeof *later);
	later->done = done;
	later->arg = arg;
	later->err = err;
	later->bytes = accepted;
	if (accepted && (client->writers || client->dirty_bytes > CLIENT_DIRTY_BYTES_MAX)) {
		LL_APPEND(client->writers, later);
		client->writers_bytes += accepted;
		file_io_pressure(client);
	} else {
		LL_APPEND(client->finished, later);
		defer_post(&client->release);
	}
}

static void later_end(struct later **list)
{
	struct later *later = *list;
	LL_DELETE(*list, later);
	later->done(later->arg, later->err);
	free(later);
}

static void writer_end(struct client *client)
{
	client->writers_bytes -= client->writers->bytes;
	later_end(&client->writers);
}

static void release_due(void *arg)
{
	struct client *client = arg;
	struct later *finished = client->finished;
	client->finished = NULL;
	while (client->writers && client->dirty_bytes + client->writers->bytes <= CLIENT_DIRTY_BYTES_MAX + client->writers_bytes)
		writer_end(client);
	if (client->writers)
		file_io_pressure(client);
	while (finished)
		later_end(&finished);
}

bool client_err_may_pass(enum err err)
{
	return err == ERR_NO_LEADER || err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_NO_SESSION || err == ERR_BUSY ||
	       err == ERR_CLOSED;
}

void running_add(struct client *client, struct running *running)
{
	DL_APPEND2(client->running, running, previous, next);
}

void running_remove(struct client *client, struct running *running)
{
	DL_DELETE2(client->running, running, previous, next);
}

/* ---- open, close ---- */

enum err client_open(struct loop *loop, const struct client_options *options, struct client **out)
{
	struct client *client = mem_zero(1, sizeof *client);
	*out = NULL;
	client->loop = loop;
	client->events = options->events;
	client->undelegated = options->undelegated;
	client->events_arg = options->events_arg;
	client->timeout_ms = options->timeout_ms ? options->timeout_ms : CLIENT_TIMEOUT_MS;
	client->id = loop_random(loop) | 1;
	rng_init(&client->rng, loop_random(loop));
	defer_init(&client->commits.send, loop, file_commits_deferred, client);
	timer_init(&client->commits.gather, loop, file_commits_deferred, client);
	timer_init(&client->changes.gather, loop, changes_deferred, client);
	defer_init(&client->changes.send, loop, changes_deferred, client);
	timer_init(&client->creations.retry, loop, creations_retry, client);
	defer_init(&client->release, loop, release_due, client);
	timer_init(&client->writeback, loop, file_io_writeback, client);
	struct rpc_identity identity = {.role = RPC_CLIENT, .id = client->id};
	enum err err = rpc_open(loop, &identity, &service, client, &client->rpc);
	if (err)
		goto done;
	client->servers.rpc = client->rpc;
	client->servers.hedge_credit = CLIENT_HEDGES_MAX * CLIENT_READS_PER_HEDGE;
	struct buf name = {0};
	buf_printf(&name, "client-%016llx", (unsigned long long)client->id);
	buf_append(&name, "", 1);
	struct session_options session_options = {
		.loop = loop,
		.rpc = client->rpc,
		.cluster = options->cluster,
		.name = (const char *)name.bytes,
		.timeout_ms = client->timeout_ms,
		.uncached = !client->events || !client->events->invalidate,
		.asks_only = options->no_session,
		.lost = session_was_lost,
		.keeping = keeping,
		.arg = client,
	};
	err = session_open(&session_options, &client->session);
	buf_deinit(&name);
done:
	if (err) {
		if (client->rpc)
			rpc_close(client->rpc);
		free(client);
		return err;
	}
	*out = client;
	return OK;
}

void client_close(struct client *client)
{
	/* First what waits for the master (its operations end too), then what waits for chunkservers or a pause. */
	client->closing = true;
	changes_cancel(client);
	file_commits_cancel(client);
	session_cancel(client->session);
	while (client->running)
		client->running->cancel(client->running);
	session_cancel(client->session);
	while (client->writers)
		writer_end(client);
	while (client->finished)
		later_end(&client->finished);
	defer_cancel(&client->release);
	timer_stop(&client->writeback);
	creations_deinit(client);
	delegations_deinit(client);
	struct file_io *io, *next;
	HASH_ITER(hh, client->files, io, next)
	file_io_abandon(io);
	packs_deinit(client);
	pack_pools_deinit(client);
	failures_deinit(client);
	session_close(client->session);
	servers_deinit(&client->servers);
	rpc_close(client->rpc);
	if (client->closed)
		*client->closed = true;
	free(client);
}

void client_leave(struct client *client, void (*done)(void *arg), void *arg)
{
	session_leave(client->session, done, arg);
}

enum err client_state(const struct client *client)
{
	return session_state(client->session);
}

uint64_t client_answered_ms(const struct client *client)
{
	return client->answered_ms;
}

struct loop *client_loop(struct client *client)
{
	return client->loop;
}

uint64_t client_session(const struct client *client)
{
	return session_id(client->session);
}

/* ---- requests ---- */

#define TOUCHED_MAX 8u

struct meta_call {
	struct client *client;
	uint64_t asked_ms;
	size_t op_count;
	uint64_t touched[TOUCHED_MAX];
	size_t touched_count;
	Granary__MetaRequest *waiting; /* operations that wait for changes on their way; NULL: sent */
	struct timer timer;	       /* while waiting */
	client_meta_fn *done;
	void *arg;
};

static void meta_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct meta_call call = *(struct meta_call *)arg;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	(void)text;
	free(arg);
	if (err == OK && reply->n_results != call.op_count)
		err = ERR_PROTOCOL;
	delegations_note_done(call.client, call.touched, call.touched_count);
	/* What was renamed, or linked, may be a directory itself. */
	for (size_t i = 0; err == OK && call.touched_count > 0 && i < reply->n_results; i++)
		delegations_note_done(call.client, &reply->results[i]->inode, 1);
	if (err == OK)
		packs_learn(call.client, reply);
	if (err == OK)
		delegations_given(call.client, call.asked_ms, reply);
	struct client *client = call.client;
	bool closed = false, *outer = client->closed; /* done may close the client */
	client->closed = &closed;
	client->asked_ms = call.asked_ms;
	call.done(call.arg, err, err ? NULL : reply);
	if (closed)
		return;
	client->closed = outer;
	client->asked_ms = 0;
}

static void meta_send(struct meta_call *call, Granary__MetaOp *const *ops)
{
	struct client *client = call->client;
	call->asked_ms = loop_now_ms(client->loop);
	delegations_note(client, ops, call->op_count);
	delegations_note_done(client, call->touched, call->touched_count);
	session_meta(client->session, ops, call->op_count, delegations_wanted(client, ops, call->op_count), meta_answered, call);
}

/* The changes before it do not get through. */
static void meta_timed_out(void *arg)
{
	struct meta_call *call = arg;
	client_meta_fn *done = call->done;
	call->done = NULL;
	done(call->arg, ERR_TIMEOUT, NULL);
}

static void meta_go_on(void *arg)
{
	struct meta_call *call = arg;
	if (!call->done) {
		message_free(&call->waiting->base);
		free(call);
		return;
	}
	Granary__MetaRequest *waiting = call->waiting;
	uint64_t change = changes_before(call->client, waiting->ops, waiting->n_ops);
	if (change != 0 && !call->client->closing) { /* more came meanwhile */
		changes_wait(call->client, change, true, meta_go_on, call);
		return;
	}
	timer_stop(&call->timer);
	call->waiting = NULL;
	meta_send(call, waiting->ops);
	message_free(&waiting->base);
}

void client_meta(struct client *client, Granary__MetaOp *const *ops, size_t op_count, client_meta_fn *done, void *arg)
{
	struct meta_call *call = mem_zero(1, sizeof *call);
	call->client = client;
	call->op_count = op_count;
	call->done = done;
	call->arg = arg;
	call->touched_count = delegations_touched(ops, op_count, call->touched, TOUCHED_MAX);
	uint64_t change = changes_before(client, ops, op_count);
	if (change == 0) {
		meta_send(call, ops);
		return;
	}
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	request.n_ops = op_count;
	request.ops = (Granary__MetaOp **)(uintptr_t)ops;
	call->waiting = (Granary__MetaRequest *)message_copy(&request.base);
	timer_init(&call->timer, client->loop, meta_timed_out, call);
	timer_start(&call->timer, client->timeout_ms);
	changes_wait(client, change, true, meta_go_on, call);
}

struct plain_call {
	struct rpc_peer *peer;
	client_reply_fn *done;
	void *arg;
};

static void leader_answered(void *arg, enum err err, const ProtobufCMessage *reply, const char *text)
{
	struct plain_call call = *(struct plain_call *)arg;
	(void)text;
	free(arg);
	call.done(call.arg, err, reply);
}

void client_call_leader(struct client *client, enum message_type type, const ProtobufCMessage *message,
			client_reply_fn *done, void *arg)
{
	struct plain_call *call = mem_zero(1, sizeof *call);
	call->done = done;
	call->arg = arg;
	session_ask(client->session, type, message, false, leader_answered, call);
}

static void address_answered(void *arg, const struct rpc_result *result)
{
	struct plain_call call = *(struct plain_call *)arg;
	free(arg);
	call.done(call.arg, result->err, result->reply);
	rpc_peer_close(call.peer);
}

void client_call_address(struct client *client, const char *address, enum message_type type,
			 const ProtobufCMessage *message, client_reply_fn *done, void *arg)
{
	struct plain_call *call = mem_zero(1, sizeof *call);
	call->peer = rpc_peer_open(client->rpc, address);
	call->done = done;
	call->arg = arg;
	rpc_peer_call(call->peer, type, message, NULL, RPC_TIMEOUT_MS, address_answered, call);
}

void client_note_opened(struct client *client, uint64_t inode)
{
	session_opened(client->session, inode);
}

void client_note_closed(struct client *client, uint64_t inode)
{
	session_closed(client->session, inode);
}
