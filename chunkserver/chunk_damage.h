/* Damaged blocks of a chunk: their content disagrees with its checksum, or was never there. They are not read by anybody and are no
 * source for others; a write of the whole block, or a mend (mend.h) makes them good again.
 *
 * Damage that was found while the chunk was in use is remembered in the index until it is repaired. A *torn* block is one that was
 * found when a chunk with a dirty mark was opened: maybe it was only being written when the process or machine stopped. It is not
 * remembered, since it is found again; and if all copies are torn, one of them is as good as the data can be. Blocks of a write that
 * failed here alone are torn as well: what the successor has of it, may have been read there.
 * Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_DAMAGE_H
#define GRANARY_CHUNKSERVER_CHUNK_DAMAGE_H

#include <stdbool.h>
#include <stdint.h>

struct chunk;

bool chunk_is_damaged(const struct chunk *chunk, uint32_t first, uint32_t end);
/* All damage in the range is torn. */
bool chunk_is_torn(const struct chunk *chunk, uint32_t first, uint32_t end);
/* The first damaged run at or after `from`, of at most count_max blocks, in one window of that many. False: there is none. */
bool chunk_next_damage(const struct chunk *chunk, uint32_t from, uint32_t count_max, uint32_t *first, uint32_t *count);
/* It is blank, and no member has any of it. */
bool chunk_is_lost(const struct chunk *chunk);
uint32_t chunk_damage_count(const struct chunk *chunk);

/* `bits` (CHUNK_BLOCKS of them) were found when it was opened. */
void chunk_found_torn(struct chunk *chunk, const uint8_t *bits);
/* A write of these blocks has failed here. */
void chunk_tear(struct chunk *chunk, uint32_t first, uint32_t end);
/* The copy is not served any more: what is wrong with it is nobody's concern. */
void chunk_waive_damage(struct chunk *chunk);
/* Remembered, counted, told to the store's owner (chunk_store_events.damaged) when any of it is news. */
void chunk_found_damaged(struct chunk *chunk, uint32_t first, uint32_t end, const char *how);
/* What the index remembers. */
void chunk_load_damage(struct chunk *chunk);
/* The blocks were written whole. */
void chunk_repaired(struct chunk *chunk, uint32_t first, uint32_t end);

/* The same of a pack, by slot. */
bool pack_is_damaged(const struct chunk *chunk, uint32_t slot);
void pack_found_damaged(struct chunk *chunk, uint32_t slot, const char *how);
void pack_repaired(struct chunk *chunk, uint32_t slot);

#endif
