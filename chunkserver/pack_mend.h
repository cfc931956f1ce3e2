/* Damaged records of packs are written again, from the first other member whose record of the slot is sound. Records do not change, so
 * it does not matter whom one asks; a slot that was deleted meanwhile stays deleted. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_PACK_MEND_H
#define GRANARY_CHUNKSERVER_PACK_MEND_H

#include "chunkserver/service.h"

/* As mend.h. */
void pack_mend_start(struct service *service, struct chunk *chunk);
void pack_mend_abort(struct chunk *chunk);

#endif
