/* MESSAGE_SCRUB: tells chunkservers to check what they have. Thread: the loop's. */
#ifndef GRANARY_MASTER_SCRUB_SERVICE_H
#define GRANARY_MASTER_SCRUB_SERVICE_H

#include "master/commands.h"
#include "master/replica.h"

void scrub_serve(struct replica *replica, struct servers *servers, struct commands *commands, struct rpc_request *request);

#endif
