/* What the leader says about the cluster, for `admin` and `dev`. */
#ifndef GRANARY_TOOLS_GRANARY_CLUSTER_STATUS_H
#define GRANARY_TOOLS_GRANARY_CLUSTER_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/proto/message.h"

/* Asks the leader; *out is freed with cluster_status_free. ERR_NO_LEADER, ERR_UNREACHABLE or ERR_TIMEOUT when there is
 * none within timeout_ms. */
MUST_USE enum err cluster_status(const char *addresses, uint64_t timeout_ms, Granary__ClusterStatus **out);
void cluster_status_free(Granary__ClusterStatus *status);

/* Asks the leader again and again until `enough` says so. `enough` may also end it with *failed = true, which makes
 * this return ERR_CANCELLED. The last status is in *out (or NULL) however it ended. */
typedef bool cluster_enough_fn(void *arg, const Granary__ClusterStatus *status, bool *failed);
MUST_USE enum err cluster_wait(const char *addresses, uint64_t timeout_ms, cluster_enough_fn *enough, void *arg,
			       Granary__ClusterStatus **out);

/* Chunkservers that are up and not failed. */
unsigned cluster_servers_up(const Granary__ClusterStatus *status);

#endif
