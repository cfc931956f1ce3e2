/* Records of packs that are damaged or were lost are written again, from the first other member whose record of the slot is sound.
 * Records do not change, so it does not matter whom one asks; a slot that was deleted meanwhile stays deleted.
 *
 * An uncertain pack (chunk_store.h) asks every other member which slots it has, whether that one is certain or not: what any of them has is
 * fetched. Nothing is deleted because others do not have it. When that is done, it holds all that is left in the chain, and so does,
 * when quiet, every member. A record here that does not check, and that no other member has, was never acknowledged: it is buried.
 * Meanwhile records that are here are read: a slot is given out once. Of those that are not here the reader is told to ask others.
 * Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_PACK_MEND_H
#define GRANARY_CHUNKSERVER_PACK_MEND_H

#include "chunkserver/service.h"

/* As mend.h. */
void pack_mend_start(struct service *service, struct chunk *chunk);
void pack_mend_abort(struct chunk *chunk);

#endif
