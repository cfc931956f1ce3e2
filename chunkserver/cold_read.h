/* Reads of cold chunks (ColdRead): what a shard here holds is unpacked here, so that a small read is one question to one server, which reads
 * one unit. The index of a shard stays in memory while its file is open. Thread: the loop; unpacking on a worker. */
#ifndef GRANARY_CHUNKSERVER_COLD_READ_H
#define GRANARY_CHUNKSERVER_COLD_READ_H

#include "chunkserver/service.h"

void cold_read_serve(struct service *service, struct rpc_request *request);
/* The chunk is closed. */
void cold_read_forget(struct chunk *chunk);
/* The service goes. */
void cold_read_deinit(struct service *service);

#endif
