/* What chunkservers are to delete: Garbage records, each until all its servers have confirmed; and what was removed.
 *
 * A copy may turn up of which there is no record: a late write made it again, a crashed disk has it back. That there is no record
 * proves nothing, since the state may be older than the chunk: restored from a snapshot or backup, or that of a leader that was
 * deposed and does not know it yet. Nor does a time or id: what was made in the life that a restored state does not know of is older than
 * what it makes next. What proves it is that this very state has removed the chunk ('Z'): an id is given once (snowflake, above all
 * earlier ones), so the chunk is removed in every later state, whichever way that comes about; and a state that does not know the removal yet
 * knows the chunk, or has nothing to say. So a copy without a record is deleted if there is a 'Z', and kept otherwise.
 * (The oldest of more than REMOVED_CHUNKS_MAX are forgotten: then a copy is kept that could go.) */
#ifndef GRANARY_MASTER_META_GARBAGE_H
#define GRANARY_MASTER_META_GARBAGE_H

#include "master/meta/state.h"

/* A whole chunk at these servers. */
void garbage_add_chunk(struct meta *meta, uint64_t chunk, const uint64_t *servers, size_t server_count);
/* Copies up to this version, at servers that may join the chunk again later; with `retire` they are only marked as not to be served. */
void garbage_add_copies(struct meta *meta, uint64_t chunk, uint64_t version, bool retire, const uint64_t *servers,
			size_t server_count);
/* A slot of a pack, at all servers that hold it; recorded by garbage_flush together with others of the same pack. */
void garbage_add_slot(struct meta *meta, uint64_t pack, uint32_t slot);
/* A chunk's record is removed. */
void garbage_note_removed(struct meta *meta, uint64_t chunk);
/* At the end of each entry. */
void garbage_flush(struct meta *meta);
void garbage_deinit(struct meta *meta);

#endif
