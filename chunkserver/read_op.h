/* Reads of chunks. Inline when the page cache has the blocks, else on a worker. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_READ_OP_H
#define GRANARY_CHUNKSERVER_READ_OP_H

#include "chunkserver/service.h"

/* Answers at once if that can be done without waiting; false: it has to become an operation. */
bool read_op_try(struct service *service, struct chunk *chunk, struct rpc_request *request);
/* The operation's turn has come. */
void read_op_start(struct chunk_op *op);

#endif
