/* Operations on packs: appends in batches with one sync, reads, deletions, compaction. Thread: the loop; one worker a pack at a
 * time writes. */
#ifndef GRANARY_CHUNKSERVER_PACK_OP_H
#define GRANARY_CHUNKSERVER_PACK_OP_H

#include "chunkserver/service.h"

/* A client's append gets its slot. ERR_PACK_FULL. */
MUST_USE enum err pack_op_give_slot(struct chunk_op *op);
/* OP_APPEND, OP_DELETE_SLOTS: joins the next batch. */
void pack_op_start(struct chunk_op *op);
/* Answers at once from the page cache; false: it has to become an operation. */
bool pack_op_try_read(struct service *service, struct chunk *chunk, struct rpc_request *request);
void pack_op_read(struct chunk_op *op);
/* Answers OP_SLOTS. */
void pack_op_list(struct chunk_op *op);
/* The chunk goes. */
void pack_op_forget(struct chunk *chunk);

#endif
