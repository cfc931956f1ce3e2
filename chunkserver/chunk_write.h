/* The local half of writes and trims. Those of one chunk go to the disk one at a time: in the kernel they would only wait for each
 * other, spinning. What has gathered meanwhile and continues what came before it goes in one call, up to CHUNK_WRITE_PIECES_MAX
 * pieces of a stream: so the disk does not wait for this process between them. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_WRITE_H
#define GRANARY_CHUNKSERVER_CHUNK_WRITE_H

#include "chunkserver/chunk_op.h"

/* chunk_op_local_done follows, later. op is RUNNING, its blocks are its own, the chunk is marked; sync_begun is set as it will be. */
void chunk_write_start(struct chunk_op *op);

#endif
