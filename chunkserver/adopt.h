/* The version of a chunk here, its chain, and whether its copy counts: in memory at once, in its header before anything is acknowledged at that
 * version, in the index after that. Thread: the loop, the header on a worker. */
#ifndef GRANARY_CHUNKSERVER_ADOPT_H
#define GRANARY_CHUNKSERVER_ADOPT_H

#include "chunkserver/service.h"

/* Takes a newer version, with its chain, and makes it durable. */
void chunk_adopt(struct service *service, struct chunk *chunk, const Granary__ChunkLocation *chain);
/* The master's word on the version that is adopted already: who still joins, and whether the copy here is complete. */
void chunk_adopt_again(struct service *service, struct chunk *chunk, const Granary__ChunkLocation *chain);
/* The copy is never served again, unless it joins anew. Durable when `adopting` is over. */
void chunk_retire(struct service *service, struct chunk *chunk);
/* Writes the header of the chunk again. */
void chunk_write_header(struct service *service, struct chunk *chunk);

#endif
