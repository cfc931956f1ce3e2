/* How a master with a fresh directory comes into its cluster.
 *
 * It has no vote: who says that its directory is not one of a member that has voted and was replaced by an empty disk? It asks all
 * masters that it was told of, in rounds. Each answers with its node (the random identity of its directory) and, once it takes part
 * in a cluster, with the list of those that founded it.
 *   - All answer, in two rounds one after the other and with the same nodes, that they are fresh: the cluster is founded, with this
 *     list. Two rounds, so that no answer of the first is older than a disk that was replaced during it: of two lists that
 *     differ in one member's node, nobody who has voted by the one is then counted by the other.
 *   - One answers with a list in which this very directory is a founder: it was there when the others founded the cluster.
 *   - One is founded, by others: there is a cluster, in which this directory has no vote. It waits: the leader notices it, or
 *     `granary admin raft add` names it, and takes it in as a learner (members_service.h).
 *   - Otherwise it asks again.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_FOUNDING_H
#define GRANARY_MASTER_FOUNDING_H

#include "common/sys/rpc.h"
#include "master/identity.h"

struct founding;

struct founding_options {
	struct loop *loop;
	struct rpc *rpc;
	const struct members *members; /* as configured; borrowed */
	uint64_t id, node;
	const char *cluster; /* name; borrowed */
	/* Once, from the loop. No founders: there is a cluster, and this directory did not found it. founding_close may be called from
	 * within. */
	void (*founded)(void *arg, const struct founders *founders);
	void *arg;
};

struct founding *founding_open(const struct founding_options *options);
/* NULL is allowed. */
void founding_close(struct founding *founding);

#endif
