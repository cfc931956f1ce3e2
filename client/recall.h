/* Serves the master's MESSAGE_INVALIDATE: hands each item to the program, answers when nothing of them is cached any
 * more. */
#ifndef GRANARY_CLIENT_RECALL_H
#define GRANARY_CLIENT_RECALL_H

#include "client/client.h"
#include "common/sys/rpc.h"

/* Takes over the request. */
void recall_serve(struct client *client, struct rpc_request *request);

#endif
