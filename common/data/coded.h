/* What the shards of a cold chunk hold: its units, compressed, one after another, cut into k data shards so that none lies in two; and m parity
 * shards of those. In front of each shard is the same index, so that any of them says where everything is.
 *
 *   shard  = head index padding data                   each shard is the content of a chunk file of its own
 *   head   = magic[8]="GRNCODE1" format:u32 data_shards:u8 parity_shards:u8 place:u8 compression:u8 chunk:u64 unit_bytes:u32
 *            raw_bytes:u64 shard_bytes:u32 unit_count:u32 index_bytes:u32 index_crc:u32 firsts:u32[data_shards]
 *            crc:u32                                   integers little endian; crc: CRC-32C of what is before it; format: 1, or 2 of
 *                                                      a pack with a dictionary
 *   index  = dictionary? (gap:varint stored:varint)* crc:u32*
 *                                                      index_crc: CRC-32C of it; LEB128, at most 5 bytes each
 *   dictionary = size:u32 stored:u32 bytes             what its compressed records are compressed with, each by itself: `stored` bytes, which
 *                                                      are a zstd frame of `size` bytes, or (if they are as many) these
 *   padding= zeros up to a multiple of BLOCK_BYTES     so data begins at the same place in each: index->head_bytes
 *   data   = shard_bytes                               a multiple of CODED_ALIGN_BYTES; data shards: units and zeros, parity: of those
 *   unit   = bytes                                     of a file, not compressed: unit_bytes of its chunk (the last one less: up to raw_bytes)
 *                                                      from id * unit_bytes on; begins at a multiple of BLOCK_BYTES, behind zeros
 *          | crcs:u32[blocks] bytes                    of a file, compressed; crcs: CRC-32C of each BLOCK_BYTES of what was compressed, as
 *                                                      its writer made it, the last one extended by zeros
 *          | length:u32 crc:u32 bytes                  of a pack: the record of slot `id`: bytes of the blob, and their CRC-32C
 *
 *   The units are in order of their ids. gap: id - (id of the one before + 1; the first: id). stored: (size of `bytes` * 2) + 1 if they are
 *   compressed. Ids that are not there: zeros in a file, deleted in a pack. firsts[i]: the place in the index (0 ...) of the first unit
 *   that lies in data shard i or later; units follow each other from the beginning of each shard's data. raw_bytes: of a file, the chunk's length in
 *   whole blocks; of a pack, of all blobs. crc* in the index: of each block of each uncompressed unit of a file, in their order, what `crcs` are
 *   of a compressed one. So a block that is not compressed is a block of the shard, and has the checksum that its writer gave it.
 *
 *   Crash cases: none. A shard is synced before the master knows of it, and never changed.
 *
 * Here: reading it, and how the index is written. coded_image.h makes shards, coded_dictionary.h dictionaries. Pure. */
#ifndef GRANARY_COMMON_DATA_CODED_H
#define GRANARY_COMMON_DATA_CODED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/limits.h"
#include "common/data/compress.h"

#define CODED_ALIGN_BYTES 64u
#define CODED_RECORD_BYTES 8u
/* Fixed part of the head, without firsts and crc. */
#define CODED_HEAD_BYTES 52u
/* Of a dictionary, in front of its bytes. */
#define CODED_DICTIONARY_HEAD_BYTES 8u

struct coded_unit {
	uint32_t id;
	uint32_t shard;	 /* data shard that holds it */
	uint32_t offset; /* in the shard's data, of the unit */
	uint32_t size;	 /* of the unit: stored bytes, and what is in front of them */
	uint32_t crcs;	 /* of a file, not compressed: the number in index->crcs of that of its first block */
	bool compressed;
};

/* A zeroed struct is a valid empty one. */
struct coded_index {
	unsigned data_shards, parity_shards, place;
	enum compression compression;
	uint64_t chunk;
	uint32_t unit_bytes; /* 0: a pack */
	uint64_t raw_bytes;
	uint32_t shard_bytes, head_bytes;
	struct coded_unit *units;
	size_t count;
	uint8_t *crcs; /* 4 bytes little endian each */
	uint32_t crc_count;
	uint32_t firsts[DATA_SHARDS_MAX];
	struct dictionary *dictionary; /* of what was read; NULL: none */
	struct buf dictionary_bytes;   /* of what is to be written: as it will lie there; empty: none */
};

/* ---- reading it. */

/* How many bytes of the shard are needed to parse its index; `bytes` are its first BLOCK_BYTES. ERR_CORRUPT: not a shard's. */
MUST_USE enum err coded_head_bytes(struct slice bytes, uint32_t *out);
/* All that the head says, of the same bytes; no units. Likewise. */
MUST_USE enum err coded_head_parse(struct slice bytes, struct coded_index *out);
/* Of the first coded_head_bytes of a shard. ERR_CORRUPT: not such; all that it says is within its bounds and agrees. */
MUST_USE enum err coded_index_parse(struct slice bytes, struct coded_index *out);
void coded_index_deinit(struct coded_index *index);
/* NULL: not there. O(log units). */
const struct coded_unit *coded_index_find(const struct coded_index *index, uint32_t id);
/* So many bytes has unit `id` of a file when it is unpacked; a multiple of BLOCK_BYTES. */
uint32_t coded_unit_raw_bytes(const struct coded_index *index, uint32_t id);

/* Of a file: where block `first` of an uncompressed unit lies in the shard's data, and its CRC (4 bytes little endian, in the index); the
 * unit's other blocks follow, and so do their CRCs. False: it is compressed and can only be had as a whole. */
bool coded_unit_blocks(const struct coded_index *index, const struct coded_unit *unit, uint32_t first, uint32_t *offset, const uint8_t **crcs);
/* Of a file: unpacks a unit as it lies in the shard (unit->size bytes) into `out`, coded_unit_raw_bytes long, and checks every block.
 * crcs: get 4 bytes little endian for each block; or NULL. ERR_CORRUPT. */
MUST_USE enum err coded_unpack(const struct coded_index *index, const struct coded_unit *unit, const uint8_t *bytes,
			       struct decompressor *decompressor, uint8_t *out, uint8_t *crcs);
/* Of a pack: how long the blob is, and its CRC; ERR_CORRUPT: over BLOB_BYTES_MAX, or not in the unit. */
MUST_USE enum err coded_record(const struct coded_unit *unit, const uint8_t *bytes, uint32_t *length, uint32_t *crc);
/* And the blob itself, checked: `out` has room for its length. */
MUST_USE enum err coded_unpack_record(const struct coded_index *index, const struct coded_unit *unit, const uint8_t *bytes,
				      struct decompressor *decompressor, uint8_t *out);

/* Makes the head of a shard (head_bytes of it) that of the one at `place`. */
void coded_head_set_place(uint8_t *head, unsigned place);

/* ---- writing it, for coded_image. */

/* Where in a shard's data a unit begins if the one before it there ends at `end`. */
uint32_t coded_unit_place(const struct coded_index *index, bool compressed, uint32_t end);

/* Of an index with units and shard_bytes: head_bytes. */
uint32_t coded_index_bytes(const struct coded_index *index);
/* Head, index and padding of the shard at `place`: index->head_bytes, which are set. */
void coded_index_write(const struct coded_index *index, unsigned place, uint8_t *out);

#endif
