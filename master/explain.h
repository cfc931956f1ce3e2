/* MESSAGE_EXPLAIN: what is known of an inode's chunks, and where they are; MESSAGE_SIZES: what inodes' data takes up.
 * Both are questions to the leader that change nothing. Thread: the loop's. */
#ifndef GRANARY_MASTER_EXPLAIN_H
#define GRANARY_MASTER_EXPLAIN_H

#include "common/sys/rpc.h"
#include "master/cooling.h"
#include "master/repair.h"
#include "master/replica.h"
#include "master/servers.h"

struct explain {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	const struct repair *repair;
	struct cooling *cooling;
	uint64_t start_ms; /* of the process */
};

void explain_serve(const struct explain *explain, struct rpc_request *request);
void sizes_serve(struct replica *replica, struct rpc_request *request);

#endif
