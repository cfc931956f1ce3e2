/* The write-ahead log on disk, how a torn batch is told from damage, and what of damage can be made good. Pure; wal_reader.c reads, wal.c does the I/O.
 *
 * A segment is the file wal-SSSSSSSSSSSSSSSS (its sequence number, 16 hexadecimal digits), preallocated:
 *
 *   0            header, and a second copy of it at 4096
 *   8192         identities: one of 32 bytes for each record of the segment, in the same order; a sixteenth of the file
 *   ...          records, each at a multiple of 8, one after another; from there to the end zeros, or what the file
 * held before it was reused
 *
 *   header    = "GRNWAL01" or "GRNWALR1" u32:segment_bytes u32:identity_bytes u64:sequence u64:log_id u64:first_sequence
 *               u64:previous_batch u64:previous_index u64:previous_term u64:term u64:vote u64:commit u32:previous_end
 *               u32:crc of bytes 0..91
 *   record    = u32:magic u8:kind u8:flags u16:entry_kind u32:payload_bytes u32:payload_crc u64:batch u64:index
 * u64:term u32:zero u32:crc of bytes 0..43 and the salt; then the payload, filled up with zeros to 8 
 *   identity  = u64:index u64:term u32:offset u32:what u32:payload_crc u32:crc of bytes 0..27 and the salt
 *   what      = bits 0..19 payload_bytes, 20..23 kind (of an entry 8 + entry_kind, of a fill 12 + entry_kind, else the record's;
 *               0: written by a version that did not say it), 24 flag LAST, 25..31 the batch's lowest 7 bits
 *
 * Integers are little endian; crc is CRC-32C. The salt is u64: log_id xor sequence. It makes what a reused file held
 * before invalid (salts that differ only in their low 32 bits never give the same CRC for the same bytes), and nobody
 * who does not know the random log_id can store a payload that looks like records. Kinds: ENTRY (one Raft entry; an
 * index that is there already ends the log before it), FILL (the same as an entry that stands damaged further up), HARD (payload: u64 term, vote, commit), CUT (payload: u64 first
 * sequence still needed), MARK (empty; written after a torn batch was cut). What stood before a segment is summed up in
 * its header: the last batch, entry and hard state, and where the records of the segment before it end. A header of the second
 * kind ("R") resets: the entries before it are given up, the log begins after the index that the header says, with its hard state.
 *
 * Batches. All that is written between two syncs is a batch; its last record has the flag LAST. Batch n+1 is written
 * only after the sync of batch n has succeeded, and the identities of batch n are written only then, too. So, at the
 * first place that does not hold a valid record:
 *   - its own identity is there: this was once complete, and it is known what it was and where the next one stands. An
 *     entry is given as damaged, and damaged it stays until a FILL; a HARD's term holds with a vote that is not known
 *     (RAFT_VOTE_UNKNOWN), unless a later HARD or header says more; a CUT's number is the one that has its CRC (no two numbers below
 *     2^32 share one); a MARK or FILL says nothing that would be missed;
 *   - an identity that reaches beyond it, or a segment that follows and says so, or a valid record further on of a
 *     batch later than the one that the place belongs to: this was once complete, too, but nobody knows what it was. ERR_CORRUPT;
 *   - else it belongs to a batch whose sync has not been reported by anyone: torn, and cut there.
 * The one case that this cannot tell: a record of the very last batch is damaged, and so are the identities of that batch from
 * there on, or they were lost in a crash of the machine: they are written right after its sync but not synced themselves (a
 * killed process loses nothing of the page cache). One damaged block is not enough for the first.
 *
 * Crash cases
 *   new segment   header written and synced under the name of a spare, renamed, folder synced; only then records. A
 *                 segment without a valid header is damage.
 *   batch         any subset of its 512-byte sectors on disk: cut at the first record that is not whole. Records of it
 *                 further on stay as rubbish: their batch is not above that of what is written over, so that they are
 *                 never read again (batches rise along a segment).
 *   page at the end is rewritten with the next batch: its old sectors get the same bytes again.
 *   taking back   the CUT record is durable first; segments are then renamed oldest first, the folder synced each time. Those that
 *                 the last header calls not needed are not read any more, whatever is in them.
 *   reset         the new segment is durable under its name, or it is not there and the old log stands.
 *
 * Example: the first entry of a fresh log, "hi", term 1, batch 2 (batch 1 was the hard state), 16 MiB segments,
 * sequence 1: identity[1] at 8192+32: index 1, term 1, offset 0x102040, 2 bytes; record at 0x102040: magic "GWR1", kind
 * 1, flags 1, entry_kind 1, 2, crc, batch 2, index 1, term 1, 0, crc, "hi" 00 00 00 00 00 00. */
#ifndef GRANARY_MASTER_WAL_FORMAT_H
#define GRANARY_MASTER_WAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/limits.h"
#include "master/raft/raft.h"

#define WAL_PAGE_BYTES 4096u
#define WAL_HEADER_BYTES 96u
#define WAL_RECORD_BYTES 48u
#define WAL_IDENTITY_BYTES 32u
#define WAL_IDENTITIES_OFFSET (2 * WAL_PAGE_BYTES)
#define WAL_SEGMENT_BYTES_MIN (8 * WAL_PAGE_BYTES)
#define WAL_PAYLOAD_BYTES_MAX RAFT_ENTRY_BYTES_MAX

enum wal_kind { WAL_ENTRY = 1, WAL_HARD = 2, WAL_CUT = 3, WAL_MARK = 4, WAL_FILL = 5 };
enum wal_flags { WAL_LAST = 1 };

struct wal_header {
	uint32_t segment_bytes, identity_bytes;
	uint64_t sequence, log_id;
	uint64_t first_sequence; /* oldest segment needed when this one was made */
	uint64_t previous_batch, previous_index, previous_term;
	struct raft_hard_state hard;
	bool reset;
	uint32_t previous_end; /* where the records of segment sequence - 1 end; 0 for the first of all */
};

struct wal_record {
	enum wal_kind kind;
	bool last;
	uint16_t entry_kind;
	uint32_t payload_bytes, payload_crc;
	uint64_t batch, index, term;
};

struct wal_identity {
	uint64_t index, term;
	uint32_t offset, payload_bytes, payload_crc;
	enum wal_kind kind; /* 0: not known */
	uint16_t entry_kind;
	bool last;
	uint8_t batch_low; /* 7 bits */
};

/* The identity of a record that stands at `offset`. */
struct wal_identity wal_identity_of(const struct wal_record *record, uint32_t offset);

/* Bytes of the identities' place in a segment of this size. */
uint32_t wal_identity_bytes(uint32_t segment_bytes);
/* Where records start. */
uint32_t wal_records_offset(uint32_t segment_bytes);
/* A record with its payload and filling. */
uint32_t wal_record_bytes(uint32_t payload_bytes);

void wal_pack_header(const struct wal_header *header, uint8_t out[WAL_HEADER_BYTES]);
MUST_USE bool wal_parse_header(const uint8_t bytes[WAL_HEADER_BYTES], struct wal_header *out);
void wal_pack_record(const struct wal_record *record, uint64_t salt, uint8_t out[WAL_RECORD_BYTES]);
/* Whether a record whose header is valid stands at `offset`, whatever its payload. */
MUST_USE bool wal_parse_record_head(struct slice segment, uint32_t offset, uint64_t salt, struct wal_record *out);
/* Whether a valid record with an intact payload stands at `offset`. */
MUST_USE bool wal_parse_record(struct slice segment, uint32_t offset, uint64_t salt, struct wal_record *out);
void wal_pack_identity(const struct wal_identity *identity, uint64_t salt, uint8_t out[WAL_IDENTITY_BYTES]);
MUST_USE bool wal_parse_identity(const uint8_t bytes[WAL_IDENTITY_BYTES], uint64_t salt, struct wal_identity *out);

#endif
