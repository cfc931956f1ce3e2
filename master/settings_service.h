/* MESSAGE_SETTINGS: tells the cluster's settings and changes one of them, through the log.
 *
 * A change is made to the settings as they are applied here; when another one comes between, it is made again.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_SETTINGS_SERVICE_H
#define GRANARY_MASTER_SETTINGS_SERVICE_H

#include "common/sys/rpc.h"
#include "master/replica.h"

/* Answered later; what is under way ends with the replica. ERR_NOT_SUPPORTED: no such key; ERR_RANGE: out of bounds. */
void settings_serve(struct replica *replica, struct rpc_request *request);

#endif
