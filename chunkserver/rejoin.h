/* A chunk that was being written when this process (or its machine) died may differ from the other replicas: what was in flight may
 * be here and not there, or there and not here, and may have been read there. Nothing of it was acknowledged, or lost here without
 * being at the successor: all that anybody has seen has gone through the successor. So its content counts. Before such a chunk is used
 * again its blocks are compared with the successor's (by CRC) and those that differ are taken from there. A successor that has no
 * such chunk is given what is here. The tail has nobody to ask: what is missing there is still unsettled above (settle.h).
 *
 * What is unsettled at the successor waits there for the head, so it is not waited for here: its blocks are taken as they are (nobody
 * has read them, and nothing that was acknowledged is missing in them) and are unsettled here from then on, before anything else
 * happens. So what is unsettled at a server is so at all above it, and a server that returns waits only for those below it.
 *
 * While it lasts all operations of the chunk wait; reads are sent away after a while. Thread: the loop, writes on a worker. */
#ifndef GRANARY_CHUNKSERVER_REJOIN_H
#define GRANARY_CHUNKSERVER_REJOIN_H

#include "chunkserver/service.h"

/* The chunk was opened with a mark of a former life. */
void rejoin_start(struct service *service, struct chunk *chunk);
/* The chunk goes, or the process stops: ends it unless a worker is at it (then it ends by itself). */
void rejoin_abort(struct chunk *chunk);

#endif
