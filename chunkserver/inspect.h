/* MESSAGE_CHUNK_INSPECT: what is on the disk here of some chunks, for `granary explain`.
 *
 * Nothing is opened nor changed for it: what is not open is told as the index knows it. Thread: the loop; the sizes of files on a worker. */
#ifndef GRANARY_CHUNKSERVER_INSPECT_H
#define GRANARY_CHUNKSERVER_INSPECT_H

#include "chunkserver/service.h"

void inspect_serve(struct service *service, struct rpc_request *request);

#endif
