#include "common/sys/rpc_share.h"

#include "common/base/limits.h"

#define WINDOW_MS 250u
#define COST_BYTES 16384u /* count as one more request */

static size_t clients(const struct rpc_share *share)
{
	return share->active > share->active_before ? share->active : share->active_before;
}

static void advance(struct rpc_share *share, uint64_t now_ms)
{
	uint64_t passed = now_ms - share->window_start_ms;

	if (share->window != 0 && passed < WINDOW_MS)
		return;
	share->active_before = passed < 2 * WINDOW_MS ? share->active : 0;
	share->active = 0;
	share->window++;
	share->window_start_ms = now_ms;
}

void rpc_share_ask(struct rpc_share *share, struct rpc_claim *claim, uint64_t now_ms, uint64_t bytes, bool divided)
{
	advance(share, now_ms);
	if (divided && claim->window != share->window) {
		claim->window = share->window;
		share->active++;
	}
	claim->served++;
	claim->bytes += bytes;
	if (claim->turn != share->turn) {
		claim->turn = share->turn;
		claim->turn_cost = 0;
	}
	claim->turn_cost += 1 + (size_t)(bytes / COST_BYTES);
}

void rpc_share_answer(const struct rpc_share *share, struct rpc_claim *claim, uint64_t bytes)
{
	if (claim->turn == share->turn)
		claim->turn_cost += (size_t)(bytes / COST_BYTES);
}

void rpc_share_end(struct rpc_claim *claim, uint64_t bytes, bool waited)
{
	claim->served--;
	claim->waiting -= waited;
	claim->bytes -= bytes;
}

static bool is_above(uint64_t value, uint64_t bound, bool held)
{
	return value >= (held ? bound * 3 / 4 : bound);
}

bool rpc_share_is_used_up(const struct rpc_share *share, const struct rpc_claim *claim, bool divided, bool held)
{
	size_t count = clients(share), counted = claim->served - claim->waiting;
	size_t requests = RPC_SERVED_SHARED_MAX;
	uint64_t bytes = RPC_SERVED_SHARED_BYTES_MAX;

	if (is_above(claim->served, RPC_SERVED_PER_CONN_MAX, held) ||
	    (claim->served > 0 && is_above(claim->bytes, RPC_SERVED_BYTES_PER_CONN_MAX, held)))
		return true;
	if (!divided || count <= 1 || counted == 0)
		return false;
	requests = requests / count < RPC_SERVED_SHARE_MIN ? RPC_SERVED_SHARE_MIN : requests / count;
	bytes /= count;
	return is_above(counted, requests, held) || is_above(claim->bytes, bytes, held);
}

bool rpc_share_turn_is_over(const struct rpc_share *share, const struct rpc_claim *claim, bool divided)
{
	return divided && clients(share) > 1 && claim->turn == share->turn && claim->turn_cost >= RPC_TURN_COST_MAX;
}
