/* The two file formats of a chunkserver. Integers are little endian, blocks are BLOCK_BYTES.
 *
 * Chunk file (ID.chunk): one replica of one chunk; sparse.
 *
 *   file   = header crcs data
 *   header = magic[8]="GRNCHNK1" format:u32=1 kind:u32 chunk:u64 version:u64 zero[16] copy:u32 zero[8] crc:u32   64 bytes, then zeros to 4 KiB
 *   crcs   = CHUNK_BLOCKS * crc:u32             at 4 KiB, 64 KiB; entry b is crc32c(block b) XOR crc32c(zero block)
 *   data   = block*                             at 68 KiB; cut after the last block that was written
 *
 *   header.crc is the CRC-32C of its first 60 bytes. The header lies in one disk sector, so that a new version is there
 *   whole or not at all; `copy` (enum copy_state) goes with it, so that a copy that is not complete never looks as if it were.
 *   A block that was never written is a hole, reads as zeros and has entry 0: right by itself.
 *
 *   Crash cases. A write puts data, then CRC entries. Killed between the two, the block disagrees with its entry: only in
 *   a chunk that carries a dirty mark in the index (set and synced before its first unsynced write), and only in blocks that
 *   DIR/intents names (intents.h). It is torn: not read, taken from another member, and as it is only if all members have it torn. Any
 *   other block that disagrees is damaged. After a crash of the machine the whole chunk is uncertain: blocks that agree may be old. A trim
 *   cuts the file, then clears entries: the same. An entry other than 0 behind the end of the file is a block that is missing. A header
 *   that does not check or is of another chunk: the file goes to quarantine, the chunk is filled anew from the others.
 *
 *   Example: chunk 0x1122334455667788, version 3, block 1 = 4096 times 'A', block 0 never written. Size 68 KiB + 8 KiB.
 *     000000  47 52 4e 43 48 4e 4b 31  01 00 00 00 00 00 00 00   "GRNCHNK1", format 1, kind 0 (replicated)
 *     000010  88 77 66 55 44 33 22 11  03 00 00 00 00 00 00 00   chunk, version
 *     00003c  CRC of bytes 0..3b
 *     001000  00 00 00 00 <crc('A' * 4096) ^ crc(0 * 4096)>      entries of blocks 0 and 1
 *     011000  4096 zeros (a hole), then 4096 * 41
 *
 * Pack file (ID.pack): many blobs, append-only; replicas hold the same slots at offsets of their own.
 *
 *   file   = header record*
 *   header = magic[8]="GRNPACK1" format:u32=1 kind:u32=1 pack:u64 version:u64 slots:u32 zero[4] salt:u64 copy:u32
 *            closed:u32 zero[4] crc:u32   64 bytes, then zeros to 4 KiB. `slots`: slots up to here were given out before the last
 *            compaction. `salt`: random. `closed`: 1 from the first opening after a crash: which slots were given out is not known then.
 *   record = magic[4]="PREC" slot:u32 length:u32 data_crc:u32 flags:u32 zero[8] crc:u32 data[length] zero*     8-byte aligned
 *
 *   record.crc is the CRC-32C of the pack's salt (8 bytes) and the record's first 28 bytes, so that a blob that holds a copy
 *   of a pack is never taken for records. flags 1: tombstone, length 0: the slot is deleted. Of two records of a slot the
 *   later one counts.
 *
 *   Crash cases. A record is valid when its header checks and its data lies within the file. The scan at opening steps over
 *   anything else in 8-byte steps until a header checks: records that were written unsynced may be lost in any subset by a
 *   crash of the machine, or torn. In a pack that carries a dirty mark all records are read at opening; one that does not check was
 *   not acknowledged, or lost: it is as if it had not been found. Then the pack is *uncertain*: its slots are compared with those of
 *   the other members (pack_mend.h). A slot is given out once only: two members never hold different data in it. What follows the last
 *   valid record is overwritten by the next append. Without a mark data_crc is checked by whoever reads. A header that does not check:
 *   as with chunk files. Compaction writes ID.pack.new, syncs, renames, syncs the directory: the old or the new file is there.
 *
 *   Example: slot 1 = "hello" in pack 7: at 001000
 *     50 52 45 43  01 00 00 00  05 00 00 00  <crc("hello")>  00 00 00 00  00*8  <crc>   68 65 6c 6c 6f 00 00 00 */
#ifndef GRANARY_CHUNKSERVER_CHUNK_FORMAT_H
#define GRANARY_CHUNKSERVER_CHUNK_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/limits.h"

#define CHUNK_FORMAT_VERSION 1u
#define CHUNK_HEADER_BYTES 4096u
#define CHUNK_HEADER_USED_BYTES 64u
#define CHUNK_CRCS_OFFSET 4096u
#define CHUNK_CRCS_BYTES (CHUNK_BLOCKS * 4u)
#define CHUNK_DATA_OFFSET (CHUNK_CRCS_OFFSET + CHUNK_CRCS_BYTES)
#define PACK_DATA_OFFSET 4096u
#define PACK_RECORD_BYTES 32u
#define PACK_ALIGN_BYTES 8u

/* As in granary.proto: the numbers are on disk. */
enum chunk_kind { KIND_REPLICATED = 0, KIND_PACK = 1 };

/* What a copy is good for. The numbers are on disk. */
enum copy_state {
	COPY_COMPLETE = 0,
	COPY_JOINING = 1, /* takes every write; what is older is being filled in: not to be read */
	COPY_RETIRED = 2, /* its chunk went on without it: never served, never a source; may join again */
};

struct chunk_header {
	enum chunk_kind kind;
	uint64_t chunk;
	uint64_t version;
	uint32_t slots; /* packs */
	uint64_t salt;	/* packs */
	bool closed;	/* packs */
	enum copy_state copy;
};

/* The used part; the rest of CHUNK_HEADER_BYTES is zeros. */
void chunk_header_write(const struct chunk_header *header, uint8_t out[CHUNK_HEADER_USED_BYTES]);
/* ERR_CORRUPT: not such a header. ERR_VERSION_MISMATCH: of a newer format. */
MUST_USE enum err chunk_header_parse(const uint8_t bytes[CHUNK_HEADER_USED_BYTES], struct chunk_header *out);

enum pack_flags { PACK_TOMBSTONE = 1 };

struct pack_record {
	uint32_t slot;
	uint32_t length;
	uint32_t crc; /* of the data */
	uint32_t flags;
};

void pack_record_write(const struct pack_record *record, uint64_t salt, uint8_t out[PACK_RECORD_BYTES]);
/* False: not a record of the pack with this salt. Slot and length are within their bounds. */
bool pack_record_parse(const uint8_t bytes[PACK_RECORD_BYTES], uint64_t salt, struct pack_record *out);
/* Header, data and padding. */
uint32_t pack_record_size(uint32_t length);

/* Blocks touched by [offset, offset + size): first and one past the last. */
uint32_t block_first(uint32_t offset);
uint32_t block_end(uint32_t offset, uint32_t size);
/* Checks data that goes to `offset` of a chunk against its CRCs (4 bytes little endian for the part of each block that it
 * covers). ERR_INVALID: number of CRCs or range is wrong. ERR_CORRUPT: bytes and CRCs disagree. */
MUST_USE enum err chunk_pieces_verify(uint32_t offset, struct slice data, struct slice crcs);

#endif
