/* Syncs of a chunk in groups: those that ask while one runs share the next one. Thread: the loop.
 *
 * A sync covers every write that had ended (writes_ended) when it began, and the name of a new file. A failed one fails the store. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_SYNC_H
#define GRANARY_CHUNKSERVER_CHUNK_SYNC_H

#include "chunkserver/chunk_store.h"

typedef void chunk_sync_fn(void *arg, enum err err);

/* done (may be NULL) comes later; from within only when the store has failed. The chunk is in use until then. */
void chunk_sync(struct chunk *chunk, chunk_sync_fn *done, void *arg);

/* For a worker that writes and syncs in one go. */
struct chunk_sync_job {
	struct chunk *chunk;
	struct file *file;
	uint64_t writes_ended; /* covered */
	bool name_new;
	bool ran;
	enum err err;
};

/* False when a sync is running: use chunk_sync afterwards. */
bool chunk_sync_begin(struct chunk *chunk, struct chunk_sync_job *job);
/* On the worker, after the write. */
MUST_USE enum err chunk_sync_run(struct chunk_sync_job *job);
/* On the loop; also when the worker did not come to run it. */
void chunk_sync_end(struct chunk_sync_job *job);

#endif
