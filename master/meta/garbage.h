/* What chunkservers are to delete: Garbage records, each until all its servers have confirmed. */
#ifndef GRANARY_MASTER_META_GARBAGE_H
#define GRANARY_MASTER_META_GARBAGE_H

#include "master/meta/state.h"

/* A whole chunk at these servers. */
void garbage_add_chunk(struct meta *meta, uint64_t chunk, const uint64_t *servers, size_t server_count);
/* Copies up to this version, at servers that may join the chunk again later; with `retire` they are only marked as not to be served. */
void garbage_add_copies(struct meta *meta, uint64_t chunk, uint64_t version, bool retire, const uint64_t *servers,
			size_t server_count);
/* A slot of a pack, at all servers that hold it; recorded by garbage_flush together with others of the same pack. */
void garbage_add_slot(struct meta *meta, uint64_t pack, uint32_t slot);
/* At the end of each entry. */
void garbage_flush(struct meta *meta);
void garbage_deinit(struct meta *meta);

#endif
