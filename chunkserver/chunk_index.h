/* The index of a store: which chunks are here, which are dirty. In LevelDB; can be rebuilt from the chunk files.
 *
 * Keys (numbers big endian):
 *   'C' chunk -> ChunkLocation (version, kind, the chain as last heard)    a file of it is here
 *   'L' chunk -> ChunkLocation                                             a file of it was here and is gone: never made anew
 *   'D' chunk -> boot id, u64 LE                                           dirty mark: writes may be unsynced since that boot
 *   'P' pack  -> slot table (pack.h)                                       only saves reading the whole file
 * Puts are not synced (a crash of the process loses nothing); chunk_index_sync makes them durable. Thread: the loop, but
 * for chunk_index_sync. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_INDEX_H
#define GRANARY_CHUNKSERVER_CHUNK_INDEX_H

#include "common/proto/message.h"
#include "common/sys/kv.h"

struct chunk_index {
	struct kv *kv;
	struct kv_batch *batch;
	uint64_t chunks; /* entries in table 'C' */
};

MUST_USE enum err chunk_index_open(struct loop *loop, const char *path, struct chunk_index *index);
void chunk_index_close(struct chunk_index *index);

/* The caller frees *out (message_free). */
MUST_USE enum err chunk_index_get(struct chunk_index *index, uint64_t chunk, Granary__ChunkLocation **out);
/* `is_new`: it is not there yet. */
MUST_USE enum err chunk_index_put(struct chunk_index *index, const Granary__ChunkLocation *location, bool is_new);
/* With its mark and slot table. */
MUST_USE enum err chunk_index_delete(struct chunk_index *index, uint64_t chunk);
/* From 'C' to 'L'. */
MUST_USE enum err chunk_index_set_lost(struct chunk_index *index, const Granary__ChunkLocation *location);
MUST_USE enum err chunk_index_drop_lost(struct chunk_index *index, uint64_t chunk);
bool chunk_index_is_lost(struct chunk_index *index, uint64_t chunk);

MUST_USE enum err chunk_index_mark(struct chunk_index *index, uint64_t chunk, uint64_t boot);
MUST_USE enum err chunk_index_unmark(struct chunk_index *index, uint64_t chunk);
/* False: not marked. */
bool chunk_index_marked(struct chunk_index *index, uint64_t chunk, uint64_t *boot);

MUST_USE enum err chunk_index_put_slots(struct chunk_index *index, uint64_t pack, struct slice table);
MUST_USE enum err chunk_index_get_slots(struct chunk_index *index, uint64_t pack, struct buf *table);

MUST_USE enum err chunk_index_sync(struct chunk_index *index);

/* In order of ids, strictly after `after`; fn returns false to stop. */
MUST_USE enum err chunk_index_each(struct chunk_index *index, uint64_t after,
				   bool (*fn)(void *arg, const Granary__ChunkLocation *), void *arg);
MUST_USE enum err chunk_index_each_mark(struct chunk_index *index, bool (*fn)(void *arg, uint64_t chunk), void *arg);

#endif
