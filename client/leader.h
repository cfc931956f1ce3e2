/* The masters' addresses and which of them is asked as the leader.
 *
 * Whoever made a call that failed says so, with the peer that was asked: only if that is still the one asked, the next
 * one becomes current. So a thousand calls that fail together move on once. */
#ifndef GRANARY_CLIENT_LEADER_H
#define GRANARY_CLIENT_LEADER_H

#include <stdbool.h>

#include "common/base/limits.h"
#include "common/sys/rpc.h"

struct leader {
	struct rpc *rpc;
	struct rpc_peer *peers[CLIENT_MASTERS_MAX];
	unsigned count, current;
};

/* cluster: "host:port,host:port". ERR_INVALID: no address, an empty one, or more than CLIENT_MASTERS_MAX. `start`
 * chooses the one that is asked first. */
MUST_USE enum err leader_init(struct leader *leader, struct rpc *rpc, const char *cluster, uint64_t start);
void leader_deinit(struct leader *leader);
struct rpc_peer *leader_peer(const struct leader *leader);
/* peer did not answer as a leader: the next one is asked from now on. True when that changed anything. */
bool leader_failed(struct leader *leader, const struct rpc_peer *peer);
/* peer says that `address` is the leader. An unknown address is added (the last is replaced when there are too many).
 * True when that changed anything. An empty address: as leader_failed. */
bool leader_redirect(struct leader *leader, const struct rpc_peer *peer, const char *address);

#endif
