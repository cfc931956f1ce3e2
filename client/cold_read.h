/* A read of a cold chunk: each part of it is asked of the server whose shard holds it, which unpacks it; where that does not answer in time,
 * or wrongly, the units are computed from other shards (degraded_read.h). Checked like any other read. */
#ifndef GRANARY_CLIENT_COLD_READ_H
#define GRANARY_CLIENT_COLD_READ_H

#include "client/read_op.h"

/* Where it is cannot be helped here it goes on as a read (read_resume), with the chunk's location to be fetched anew. */
void cold_read(struct client *client, const struct read_request *request, uint64_t chunk, const struct read_history *history,
	       read_done_fn *done, void *arg);

#endif
