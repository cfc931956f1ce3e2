/* The calls of one rpc that wait for their reply. Internal to common/sys.
 *
 * A call's id is that of its request frame: a slot of the table and a generation, so that a late reply to a call that is
 * over finds nothing. Each call is in exactly one list: that of its connection, or that of the calls about to fail. */
#ifndef GRANARY_COMMON_SYS_RPC_CALLS_H
#define GRANARY_COMMON_SYS_RPC_CALLS_H

#include "common/sys/rpc.h"

struct rpc_call;

struct rpc_call_list {
	struct rpc_call *first, *last;
	size_t count;
};

struct rpc_calls {
	struct loop *loop;
	struct rpc_call **slots;
	uint32_t slots_capacity;
	struct rpc_call *free; /* linked by next */
	uint32_t used;
	struct rpc_call_list failing;
	struct defer fail;
};

struct rpc_call {
	struct rpc_calls *calls;
	rpc_call_id id;
	uint32_t slot;
	uint32_t generation;
	enum message_type type;
	struct rpc_conn *conn; /* that it was sent on, or NULL */
	rpc_done_fn *done;
	void *arg;
	enum err err; /* while in `failing` */
	struct timer deadline;
	struct rpc_call_list *list;
	struct rpc_call *previous, *next;
};

void rpc_calls_init(struct rpc_calls *calls, struct loop *loop);
/* No call is left. */
void rpc_calls_deinit(struct rpc_calls *calls);

/* RPC_CALLS_MAX are waiting: no more are to be sent. Some more may be added to fail. */
bool rpc_calls_full(const struct rpc_calls *calls);
struct rpc_call *rpc_calls_add(struct rpc_calls *calls, struct rpc_call_list *list, enum message_type type,
			       rpc_done_fn *done, void *arg);
/* NULL for an id that is over. */
struct rpc_call *rpc_calls_find(struct rpc_calls *calls, rpc_call_id id);
/* Forgets the call. */
void rpc_call_drop(struct rpc_call *call);
/* Forgets it and calls `done`. */
void rpc_call_end(struct rpc_call *call, const struct rpc_result *result);
/* Ends all calls of a list. Calls made meanwhile are not in it. */
void rpc_call_list_end(struct rpc_call_list *list, enum err err, const char *text);
/* Ends it with an error later in this iteration. */
void rpc_call_fail_later(struct rpc_call *call, enum err err);

#endif
