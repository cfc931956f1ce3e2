/* The index of a store: which chunks are here, which are dirty. In LevelDB; can be rebuilt from the chunk files.
 *
 * Keys (numbers big endian):
 *   'C' chunk -> ChunkLocation (version, kind, the chain as last heard)    a file of it is here
 *   'D' chunk -> boot id, u64 LE, then maybe u8 flags                      dirty mark: writes may be unsynced since that boot; flags 1: nor
 *                                                                          is its name; 2: of a pack
 *   'B' chunk -> (first, count), u32 LE each, repeated                     blocks (packs: slots) known to be damaged
 *   'T' chunk -> u64 LE, wall clock in ms                                  when scrubbing had last read all of it
 *   'M' name  -> bytes                                                     notes of the store: "scrub" (scrub.c), "server" (whose it is)
 *   'P' pack  -> slot table (pack.h)                                       written before the mark goes: a pack with neither is uncertain
 * Puts are not synced (a crash of the process loses nothing); chunk_index_sync makes them durable. Thread: the loop, but
 * for chunk_index_sync. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_INDEX_H
#define GRANARY_CHUNKSERVER_CHUNK_INDEX_H

#include "chunkserver/chunk_format.h"
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
/* With its mark, damage, slot table and the time of its check. */
MUST_USE enum err chunk_index_delete(struct chunk_index *index, uint64_t chunk);
/* There is no file of it any more: only a mark stays. */
MUST_USE enum err chunk_index_forget(struct chunk_index *index, uint64_t chunk);

/* Boot ids that stand for none: the content may be out of date as after a loss of power; nothing of it counts. */
#define CHUNK_BOOT_UNKNOWN 0ull
#define CHUNK_BOOT_BLANK 1ull
#define CHUNK_MARK_NAME_NEW 1u
#define CHUNK_MARK_PACK 2u
static inline enum chunk_kind chunk_kind_of(Granary__ChunkKind kind)
{
	return kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? KIND_PACK : KIND_REPLICATED;
}
static inline unsigned chunk_mark_flags(bool name_new, enum chunk_kind kind)
{
	return (name_new ? CHUNK_MARK_NAME_NEW : 0u) | (kind == KIND_PACK ? CHUNK_MARK_PACK : 0u);
}
MUST_USE enum err chunk_index_mark(struct chunk_index *index, uint64_t chunk, uint64_t boot, unsigned flags);
MUST_USE enum err chunk_index_unmark(struct chunk_index *index, uint64_t chunk);
/* False: not marked. */
bool chunk_index_marked(struct chunk_index *index, uint64_t chunk, uint64_t *boot, bool *name_new);
/* The mark, which is there, is of a pack. */
bool chunk_index_mark_is_pack(struct chunk_index *index, uint64_t chunk);

/* Empty: none is damaged any more. */
MUST_USE enum err chunk_index_put_damage(struct chunk_index *index, uint64_t chunk, struct slice runs);
/* ERR_NOT_FOUND: none. */
MUST_USE enum err chunk_index_get_damage(struct chunk_index *index, uint64_t chunk, struct buf *runs);
/* The damage of a chunk as it is remembered: blocks, or slots. */
uint32_t chunk_index_damage_count(struct chunk_index *index, uint64_t chunk);
MUST_USE enum err chunk_index_put_checked(struct chunk_index *index, uint64_t chunk, uint64_t wall_ms);
/* 0: never. */
uint64_t chunk_index_checked_ms(struct chunk_index *index, uint64_t chunk);
MUST_USE enum err chunk_index_put_note(struct chunk_index *index, const char *name, struct slice bytes);
MUST_USE enum err chunk_index_get_note(struct chunk_index *index, const char *name, struct buf *bytes);

MUST_USE enum err chunk_index_put_slots(struct chunk_index *index, uint64_t pack, struct slice table);
MUST_USE enum err chunk_index_get_slots(struct chunk_index *index, uint64_t pack, struct buf *table);

MUST_USE enum err chunk_index_sync(struct chunk_index *index);

/* In order of ids, strictly after `after`; fn returns false to stop. */
MUST_USE enum err chunk_index_each(struct chunk_index *index, uint64_t after,
				   bool (*fn)(void *arg, const Granary__ChunkLocation *), void *arg);
/* Those in table 'D', and in 'B'. */
MUST_USE enum err chunk_index_each_mark(struct chunk_index *index, bool (*fn)(void *arg, uint64_t chunk), void *arg);
MUST_USE enum err chunk_index_each_damage(struct chunk_index *index, bool (*fn)(void *arg, uint64_t chunk), void *arg);

#endif
