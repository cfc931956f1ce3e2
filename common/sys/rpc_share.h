/* How much of a process each of its clients may have at once: internal to common/sys. Pure; the time comes from the caller.
 *
 * A client that asks alone may have RPC_SERVED_PER_CONN_MAX requests being served. While others ask too, RPC_SERVED_SHARED_MAX
 * are divided among those that have asked lately, and each has RPC_TURN_COST_MAX a turn of the loop: so the wait of one with a
 * single request does not grow with what another has outstanding. Requests that wait for other clients (rpc_request_waits) do not count: were
 * they to hold their connection back, what those others wait for might not be read. Servers are not divided: they send what a share has
 * been counted for already. */
#ifndef GRANARY_COMMON_SYS_RPC_SHARE_H
#define GRANARY_COMMON_SYS_RPC_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rpc_share {
	uint64_t turn;	 /* number of the loop's present one; raised by the caller */
	uint64_t window; /* number of the present one */
	uint64_t window_start_ms;
	size_t active, active_before; /* clients that asked in it, and in the one before */
};

/* Of one connection. */
struct rpc_claim {
	uint64_t window;	/* in which it asked last */
	size_t served, waiting; /* requests; of those, that wait for others */
	uint64_t bytes;		/* of the requests being served */
	uint64_t turn;
	size_t turn_cost;	/* in that turn */
};

/* A request of so many bytes, message and data, has come. divided: it is a client's. */
void rpc_share_ask(struct rpc_share *share, struct rpc_claim *claim, uint64_t now_ms, uint64_t bytes, bool divided);
/* It was answered with so much data, perhaps in the same turn. */
void rpc_share_answer(const struct rpc_share *share, struct rpc_claim *claim, uint64_t bytes);
void rpc_share_end(struct rpc_claim *claim, uint64_t bytes, bool waited);
/* No more is to be read from it now. held: it was so before; it is let go a good deal below the bounds. */
bool rpc_share_is_used_up(const struct rpc_share *share, const struct rpc_claim *claim, bool divided, bool held);
/* It has had its turn: to be read again in the next one. */
bool rpc_share_turn_is_over(const struct rpc_share *share, const struct rpc_claim *claim, bool divided);

#endif
