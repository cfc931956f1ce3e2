/* What a chunkserver is without: of the chunks that the map says it holds, those that its inventory does not name. */
#ifndef GRANARY_MASTER_MISSING_H
#define GRANARY_MASTER_MISSING_H

#include "common/proto/message.h"
#include "master/meta/meta.h"

/* False ends it. A copy that is still to be filled is not missing. */
typedef bool missing_fn(void *arg, uint64_t chunk, const Granary__Chunk *record);

/* A page of the inventory. cursor: 0 before the first page; afterwards the last chunk that is known of. Errors: of the store. */
MUST_USE enum err missing_each(struct meta *meta, uint64_t server, const Granary__Inventory *page, uint64_t *cursor, missing_fn *fn,
			       void *arg);

#endif
