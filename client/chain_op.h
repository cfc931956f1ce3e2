/* One change of a chunk or pack, sent to the head of its chain until every replica has it: ChunkWrite, ChunkTrim,
 * ChunkSync, BlobAppend.
 *
 *            no location                 answer OK, or final
 *   LOCATING <---------- (step) ----> SENT ------------------> done
 *       |                  ^           |
 *       +------------------+           | chain broken, closed, timed out, …     newer version
 *                          ^           v                                        |
 *                          |       REPORTING (ChunkFailure to the leader) ------+
 *                          |           | the server may be alive                |
 *                          +-------- PAUSED <-----------------------------------+
 *
 * The operation id (client, operation) stays the same however often it is sent, so that the replicas apply it once. Where they cannot
 * know any more whether they did (all of them have started again) it ends with ERR_RETRY_UNKNOWN. A
 * chain that is silent for CLIENT_SUSPECT_MS is reported while its answer is still waited for: the leader knows whether
 * the head is gone. ERR_NO_SPACE, ERR_PACK_FULL and ERR_INVALID are answers; other failures are retried until
 * timeout_ms.
 *
 * A write or trim belongs to the session in which it was asked for: when that has expired others may hold locks on what it changes, and
 * the chunkservers refuse it (master/fences.h). It ends with ERR_NO_SESSION and is not sent in another session. */
#ifndef GRANARY_CLIENT_CHAIN_OP_H
#define GRANARY_CLIENT_CHAIN_OP_H

#include "client/chunk_map.h"
#include "common/base/buf.h"

struct chain_request {
	enum message_type type;
	struct place place;
	uint32_t offset;     /* in the chunk: of the data; for MESSAGE_CHUNK_TRIM the bytes that stay */
	bool sync;           /* ChunkWrite, BlobAppend */
	struct iobuf *iobuf; /* the data; a reference is taken, and the bytes do not change until done */
	uint32_t iobuf_offset, bytes;
};

/* slot: of BlobAppend. */
typedef void chain_done_fn(void *arg, enum err err, uint32_t slot);
/* Never calls done from within. */
void chain_call(struct client *client, const struct chain_request *request, chain_done_fn *done, void *arg);

#endif
