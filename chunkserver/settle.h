/* Brings the chain together again after it broke: the head sends its own content of every block range that was applied here and
 * not acknowledged below. Works without the client that wrote: it may be dead. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_SETTLE_H
#define GRANARY_CHUNKSERVER_SETTLE_H

#include "chunkserver/service.h"

/* Tries what is unsettled in the chunk; called when its chain changed, when somebody waits for it, and every tick. Does nothing
 * unless we are the head. */
void settle_chunk(struct service *service, struct chunk *chunk);
void settle_all(struct service *service);
/* The successor's answer to chain_send_content. */
void settle_chain_done(struct chunk_op *op);
/* [first, end) was taken from the successor, where it is unsettled: so it is here, before all operations that wait. OP_TRIM: `first`
 * is the end of the chunk. */
void settle_inherit(struct service *service, struct chunk *chunk, enum op_kind kind, uint32_t first, uint32_t end);
/* A write from the predecessor is acknowledged: it settles what it covers. */
void settle_covered(struct chunk *chunk, uint32_t first, uint32_t end);
/* An unsettled operation did not happen here, and may have happened, and been read, below: what the successor has counts, and is taken
 * from there before it is settled (mend.h). A retry has to be a new operation. */
void settle_failed_here(struct chunk_op *op);
/* The copy is filled anew: what was here does not count any more. */
void settle_drop(struct chunk *chunk);

#endif
