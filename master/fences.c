#include "master/fences.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

#define STEP_MS 50u

struct fence {
	uint64_t session;
	uint64_t number; /* in order of asking, from 1 */
	uint64_t asked_ms;
	struct fence *prev, *next;
};

/* A Fence on its way to one server. */
struct push {
	struct fences *fences;
	uint64_t server;
	uint64_t through; /* number of the last fence in it */
	rpc_call_id call;
	struct push *prev, *next;
};

struct fences {
	struct fences_options options;
	struct fence *pending; /* in order */
	struct push *pushes;
	uint64_t last;
	struct timer timer;
};

static uint64_t now_ms(const struct fences *fences)
{
	return loop_now_us(fences->options.loop) / 1000;
}

static void push_end(struct push *push)
{
	DL_DELETE(push->fences->pushes, push);
	free(push);
}

static void on_confirmed(void *arg, const struct rpc_result *result)
{
	struct push *push = arg;
	struct fences *fences = push->fences;
	struct server *server = servers_find(fences->options.servers, push->server);

	/* One that does not know fences, of the version before, is not waited for. */
	if (server && (result->err == OK || result->err == ERR_NOT_SUPPORTED) && server->fenced < push->through)
		server->fenced = push->through;
	push_end(push);
	timer_start(&fences->timer, result->err == OK ? 0 : STEP_MS);
}

static bool is_told(const struct fences *fences, uint64_t server)
{
	const struct push *push;

	DL_FOREACH(fences->pushes, push)
	{
		if (push->server == server)
			return true;
	}
	return false;
}

static void push_send(struct fences *fences, const struct server *server)
{
	uint64_t sessions[FENCE_SESSIONS_MAX];
	Granary__Fence message = GRANARY__FENCE__INIT;
	struct push *push = mem_zero(1, sizeof(*push));
	const struct fence *fence;

	*push = (struct push){ .fences = fences, .server = server->id };
	DL_FOREACH(fences->pending, fence)
	{
		if (fence->number <= server->fenced)
			continue;
		if (message.n_sessions == FENCE_SESSIONS_MAX)
			break;
		sessions[message.n_sessions++] = fence->session;
		push->through = fence->number;
	}
	message.sessions = sessions;
	DL_APPEND(fences->pushes, push);
	push->call = rpc_conn_call(server->connection, MESSAGE_FENCE, &message.base, FENCE_WAIT_MS_MAX, on_confirmed, push);
}

/* Whoever could still carry out a write of the session has confirmed that it does not. */
static bool is_fenced(const struct fences *fences, const struct fence *fence)
{
	const struct servers *servers = fences->options.servers;
	uint64_t now = now_ms(fences);

	for (size_t i = 0; i < servers_count(servers); i++) {
		const struct server *server = servers_at(servers, i);
#ifdef PLANT_NOT_FENCED
		continue;
#endif
		if (server->fenced >= fence->number || servers_is_dead(server, now))
			continue;
		if (now - fence->asked_ms < FENCE_WAIT_MS_MAX)
			return false;
		log_warn("fence_unconfirmed", "session=%016" PRIx64 " server=%016" PRIx64, fence->session, server->id);
	}
	return true;
}

static void on_timer(void *arg)
{
	struct fences *fences = arg;
	struct servers *servers = fences->options.servers;
	uint64_t now = now_ms(fences);

	while (fences->pending && is_fenced(fences, fences->pending)) {
		struct fence *fence = fences->pending;
		uint64_t session = fence->session;
		DL_DELETE(fences->pending, fence);
		free(fence);
		fences->options.fenced(fences->options.arg, session);
	}
	if (!fences->pending)
		return;
	for (size_t i = 0; i < servers_count(servers); i++) {
		const struct server *server = servers_at(servers, i);
		if (server->connection && server->fenced < fences->last && !servers_is_dead(server, now) &&
		    !is_told(fences, server->id))
			push_send(fences, server);
	}
	timer_start(&fences->timer, STEP_MS);
}

void fences_add(struct fences *fences, uint64_t session)
{
	struct fence *fence = mem_zero(1, sizeof(*fence));

	*fence = (struct fence){ .session = session, .number = ++fences->last, .asked_ms = now_ms(fences) };
	DL_APPEND(fences->pending, fence);
	timer_start(&fences->timer, 0);
}

void fences_clear(struct fences *fences)
{
	struct fence *fence, *next;

	timer_stop(&fences->timer);
	DL_FOREACH_SAFE(fences->pending, fence, next)
	{
		DL_DELETE(fences->pending, fence);
		free(fence);
	}
	while (fences->pushes) {
		rpc_call_cancel(fences->options.rpc, fences->pushes->call);
		push_end(fences->pushes);
	}
}

struct fences *fences_open(const struct fences_options *options)
{
	struct fences *fences = mem_zero(1, sizeof(*fences));

	fences->options = *options;
	timer_init(&fences->timer, options->loop, on_timer, fences);
	return fences;
}

void fences_close(struct fences *fences)
{
	if (!fences)
		return;
	fences_clear(fences);
	free(fences);
}
