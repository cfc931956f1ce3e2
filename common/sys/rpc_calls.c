#include "common/sys/rpc_calls.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"

static void list_remove(struct rpc_call *call)
{
	struct rpc_call_list *list = call->list;
	if (call->previous != NULL)
		call->previous->next = call->next;
	else
		list->first = call->next;
	if (call->next != NULL)
		call->next->previous = call->previous;
	else
		list->last = call->previous;
	list->count--;
	call->list = NULL;
	call->next = call->previous = NULL;
}

static void list_append(struct rpc_call_list *list, struct rpc_call *call)
{
	call->list = list;
	call->next = NULL;
	call->previous = list->last;
	if (list->last != NULL)
		list->last->next = call;
	else
		list->first = call;
	list->last = call;
	list->count++;
}

static void on_fail(void *arg)
{
	struct rpc_calls *calls = arg;
	/* Those that fail meanwhile wait for the next round. */
	size_t count = calls->failing.count;
	while (count-- > 0 && calls->failing.first != NULL) {
		struct rpc_result result = { .err = calls->failing.first->err, .text = "" };
		rpc_call_end(calls->failing.first, &result);
	}
	if (calls->failing.first != NULL)
		defer_post(&calls->fail);
}

void rpc_calls_init(struct rpc_calls *calls, struct loop *loop)
{
	*calls = (struct rpc_calls){ .loop = loop };
	defer_init(&calls->fail, loop, on_fail, calls);
}

void rpc_calls_deinit(struct rpc_calls *calls)
{
	defer_cancel(&calls->fail);
	for (uint32_t i = 0; i < calls->slots_capacity; i++) {
		check(calls->slots[i] == NULL || calls->slots[i]->list == NULL);
		free(calls->slots[i]);
	}
	free(calls->slots);
	*calls = (struct rpc_calls){ 0 };
}

static struct rpc_call *take_slot(struct rpc_calls *calls)
{
	if (calls->free == NULL) {
		uint32_t before = calls->slots_capacity;
		uint32_t after = before == 0 ? 64 : 2 * before;
		check(after <= 1u << 30);
		calls->slots = mem_resize(calls->slots, after * sizeof(calls->slots[0]));
		for (uint32_t i = after; i-- > before;) {
			struct rpc_call *call = mem_zero(1, sizeof(*call));
			call->calls = calls;
			call->slot = i;
			call->next = calls->free;
			calls->free = call;
			calls->slots[i] = call;
		}
		calls->slots_capacity = after;
	}
	struct rpc_call *call = calls->free;
	check(call != NULL);
	calls->free = call->next;
	calls->used++;
	call->next = NULL;
	return call;
}

bool rpc_calls_full(const struct rpc_calls *calls)
{
	return calls->used >= RPC_CALLS_MAX;
}

static void on_deadline(void *arg)
{
	struct rpc_result result = { .err = ERR_TIMEOUT, .text = "" };
	rpc_call_end(arg, &result);
}

struct rpc_call *rpc_calls_add(struct rpc_calls *calls, struct rpc_call_list *list, enum message_type type,
			       rpc_done_fn *done, void *arg)
{
	struct rpc_call *call = take_slot(calls);
	call->generation++;
	call->id = (uint64_t)call->generation << 32 | (call->slot + 1);
	call->type = type;
	call->done = done;
	call->arg = arg;
	call->conn = NULL;
	timer_init(&call->deadline, calls->loop, on_deadline, call);
	list_append(list, call);
	return call;
}

struct rpc_call *rpc_calls_find(struct rpc_calls *calls, rpc_call_id id)
{
	uint32_t slot = (uint32_t)id - 1;
	if (slot >= calls->slots_capacity)
		return NULL;
	struct rpc_call *call = calls->slots[slot];
	return call->id == id && call->list != NULL ? call : NULL;
}

void rpc_call_drop(struct rpc_call *call)
{
	list_remove(call);
	timer_stop(&call->deadline);
	call->conn = NULL;
	call->next = call->calls->free;
	call->calls->free = call;
	call->calls->used--;
}

void rpc_call_end(struct rpc_call *call, const struct rpc_result *result)
{
	rpc_done_fn *done = call->done;
	void *arg = call->arg;
	rpc_call_drop(call);
	done(arg, result);
}

void rpc_call_list_end(struct rpc_call_list *list, enum err err, const char *text)
{
	struct rpc_result result = { .err = err, .text = text };
	while (list->first != NULL)
		rpc_call_end(list->first, &result);
}

void rpc_call_fail_later(struct rpc_call *call, enum err err)
{
	list_remove(call);
	call->err = err;
	call->conn = NULL;
	timer_stop(&call->deadline);
	list_append(&call->calls->failing, call);
	defer_post(&call->calls->fail);
}
