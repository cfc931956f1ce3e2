/* `granary admin restore`: a backup's pairs through the log, into the empty state machine. */
#ifndef GRANARY_MASTER_RESTORE_H
#define GRANARY_MASTER_RESTORE_H

#include "common/sys/rpc.h"
#include "master/replica.h"

/* A Restore: proposed as it is; answered when it is applied. ERR_NOT_LEADER, ERR_NO_SPACE, and what meta's op_restore says. */
void restore_serve(struct replica *replica, struct rpc_request *request);

#endif
