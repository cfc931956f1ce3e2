/* Where a byte of a file is: chunk index, place in the chunk, block; and how a range falls into pieces.
 *
 * Pure. Offsets and sizes in bytes; chunk i covers [i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES), block b of a chunk
 * [b * BLOCK_BYTES, (b + 1) * BLOCK_BYTES). A range that goes past 2^64 is a programmer's error. */
#ifndef GRANARY_COMMON_DATA_LAYOUT_H
#define GRANARY_COMMON_DATA_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/limits.h"

struct layout_range {
	uint64_t offset;
	uint64_t size;
};

/* A part of a file's range that lies in one chunk. */
struct layout_piece {
	uint64_t file_offset;
	uint32_t chunk_index;
	uint32_t offset; /* in the chunk */
	uint32_t size;	 /* above 0 */
};

uint64_t layout_chunk_index(uint64_t file_offset);
uint32_t layout_chunk_offset(uint64_t file_offset);
/* How many chunks a file of that size has at most: its last byte's index and one more. */
uint64_t layout_chunk_count(uint64_t file_size);

/* The next piece of *range, at most size_max bytes and never across a chunk's end, and with `aligned` never across a
 * multiple of size_max (a power of two) either, so that all pieces but the first and last are whole. *range shrinks by
 * it. False when the range is empty. */
bool layout_next(struct layout_range *range, uint32_t size_max, bool aligned, struct layout_piece *out);

/* Blocks that [offset, offset + size) of a chunk touches; size above 0. */
struct layout_blocks {
	uint32_t first;
	uint32_t count;
	bool first_partial; /* the first block is not covered from its start, or not to its end when it is also the last */
	bool last_partial;  /* the last block is not covered to its end, or not from its start when it is also the first */
};
struct layout_blocks layout_blocks(uint32_t offset, uint32_t size);
/* How many bytes of block `index` of those (0: the first) the range covers, and from where in the block. */
uint32_t layout_block_part(uint32_t offset, uint32_t size, uint32_t index, uint32_t *offset_in_block);

/* Rounded to whole blocks. */
uint64_t layout_block_down(uint64_t offset);
uint64_t layout_block_up(uint64_t offset);

#endif
