/* MESSAGE_CLASSES: tells the storage classes and changes one of them, through the log. Thread: the loop's. */
#ifndef GRANARY_MASTER_CLASS_SERVICE_H
#define GRANARY_MASTER_CLASS_SERVICE_H

#include "common/sys/rpc.h"
#include "master/replica.h"

/* Answered later; what is under way ends with the replica. ERR_BUSY: somebody else was first, look again; others as op_set_class. */
void classes_serve(struct replica *replica, struct rpc_request *request);

#endif
