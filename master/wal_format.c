#include "master/wal_format.h"

#include <string.h>

#include "common/base/bytes.h"
#include "common/base/crc32c.h"

#define RECORD_MAGIC 0x31525747u /* "GWR1" */
#define IDENTITY_BYTES_BITS 20u
#define IDENTITY_ENTRY 8u
#define IDENTITY_FILL 12u
static const char header_magic[8] = {'G', 'R', 'N', 'W', 'A', 'L', '0', '1'};
static const char reset_magic[8] = {'G', 'R', 'N', 'W', 'A', 'L', 'R', '1'};
_Static_assert(WAL_PAYLOAD_BYTES_MAX < 1u << IDENTITY_BYTES_BITS, "an identity has no more room");

uint32_t wal_identity_bytes(uint32_t segment_bytes)
{
	uint32_t pages = segment_bytes / 16 / WAL_PAGE_BYTES;
	return (pages > 0 ? pages : 1) * WAL_PAGE_BYTES;
}

uint32_t wal_records_offset(uint32_t segment_bytes)
{
	return WAL_IDENTITIES_OFFSET + wal_identity_bytes(segment_bytes);
}

uint32_t wal_record_bytes(uint32_t payload_bytes)
{
	return WAL_RECORD_BYTES + ((payload_bytes + 7) & ~7u);
}

static uint32_t crc_with_salt(const uint8_t *bytes, size_t size, uint64_t salt)
{
	uint8_t salt_bytes[8];
	put_le64(salt_bytes, salt);
	return crc32c_extend(crc32c(bytes, size), salt_bytes, sizeof(salt_bytes));
}

void wal_pack_header(const struct wal_header *header, uint8_t out[WAL_HEADER_BYTES])
{
	memset(out, 0, WAL_HEADER_BYTES);
	memcpy(out, header->reset ? reset_magic : header_magic, 8);
	put_le32(out + 8, header->segment_bytes);
	put_le32(out + 12, header->identity_bytes);
	put_le64(out + 16, header->sequence);
	put_le64(out + 24, header->log_id);
	put_le64(out + 32, header->first_sequence);
	put_le64(out + 40, header->previous_batch);
	put_le64(out + 48, header->previous_index);
	put_le64(out + 56, header->previous_term);
	put_le64(out + 64, header->hard.term);
	put_le64(out + 72, header->hard.vote);
	put_le64(out + 80, header->hard.commit);
	put_le32(out + 88, header->previous_end);
	put_le32(out + 92, crc32c(out, 92));
}

bool wal_parse_header(const uint8_t bytes[WAL_HEADER_BYTES], struct wal_header *out)
{
	*out = (struct wal_header){0};
	bool reset = memcmp(bytes, reset_magic, 8) == 0;
	if ((!reset && memcmp(bytes, header_magic, 8) != 0) || get_le32(bytes + 92) != crc32c(bytes, 92))
		return false;
	*out = (struct wal_header){
	    .segment_bytes = get_le32(bytes + 8),
	    .identity_bytes = get_le32(bytes + 12),
	    .sequence = get_le64(bytes + 16),
	    .log_id = get_le64(bytes + 24),
	    .first_sequence = get_le64(bytes + 32),
	    .previous_batch = get_le64(bytes + 40),
	    .previous_index = get_le64(bytes + 48),
	    .previous_term = get_le64(bytes + 56),
	    .hard = {get_le64(bytes + 64), get_le64(bytes + 72), get_le64(bytes + 80)},
	    .reset = reset,
	    .previous_end = get_le32(bytes + 88),
	};
	return out->segment_bytes >= WAL_SEGMENT_BYTES_MIN && out->segment_bytes % WAL_PAGE_BYTES == 0 &&
	       out->identity_bytes == wal_identity_bytes(out->segment_bytes) && out->sequence > 0 &&
	       out->first_sequence > 0 && out->first_sequence <= out->sequence &&
	       (!reset || out->first_sequence == out->sequence) &&
	       out->previous_batch < UINT64_MAX / 2 && out->previous_index < UINT64_MAX / 2;
}

void wal_pack_record(const struct wal_record *record, uint64_t salt, uint8_t out[WAL_RECORD_BYTES])
{
	put_le32(out, RECORD_MAGIC);
	out[4] = (uint8_t)record->kind;
	out[5] = record->last ? WAL_LAST : 0;
	put_le16(out + 6, record->entry_kind);
	put_le32(out + 8, record->payload_bytes);
	put_le32(out + 12, record->payload_crc);
	put_le64(out + 16, record->batch);
	put_le64(out + 24, record->index);
	put_le64(out + 32, record->term);
	put_le32(out + 40, 0);
	put_le32(out + 44, crc_with_salt(out, 44, salt));
}

bool wal_parse_record_head(struct slice segment, uint32_t offset, uint64_t salt, struct wal_record *out)
{
	*out = (struct wal_record){0};
	if (offset > segment.size || segment.size - offset < WAL_RECORD_BYTES)
		return false;
	const uint8_t *bytes = segment.bytes + offset;
	if (get_le32(bytes) != RECORD_MAGIC || get_le32(bytes + 44) != crc_with_salt(bytes, 44, salt))
		return false;
	*out = (struct wal_record){
	    .kind = bytes[4],
	    .last = bytes[5] & WAL_LAST,
	    .entry_kind = get_le16(bytes + 6),
	    .payload_bytes = get_le32(bytes + 8),
	    .payload_crc = get_le32(bytes + 12),
	    .batch = get_le64(bytes + 16),
	    .index = get_le64(bytes + 24),
	    .term = get_le64(bytes + 32),
	};
	return out->payload_bytes <= WAL_PAYLOAD_BYTES_MAX &&
	       segment.size - offset >= wal_record_bytes(out->payload_bytes);
}

bool wal_parse_record(struct slice segment, uint32_t offset, uint64_t salt, struct wal_record *out)
{
	return wal_parse_record_head(segment, offset, salt, out) &&
	       crc32c(segment.bytes + offset + WAL_RECORD_BYTES, out->payload_bytes) == out->payload_crc;
}

struct wal_identity wal_identity_of(const struct wal_record *record, uint32_t offset)
{
	return (struct wal_identity){
	    .index = record->index,
	    .term = record->term,
	    .offset = offset,
	    .payload_bytes = record->payload_bytes,
	    .payload_crc = record->payload_crc,
	    .kind = record->kind,
	    .entry_kind = record->entry_kind,
	    .last = record->last,
	    .batch_low = record->batch & 0x7f,
	};
}

static uint32_t pack_kind(const struct wal_identity *identity)
{
	bool has_entry = identity->kind == WAL_ENTRY || identity->kind == WAL_FILL;
	if (!has_entry)
		return identity->kind < IDENTITY_ENTRY ? identity->kind : 0;
	if (identity->entry_kind == 0 || identity->entry_kind > RAFT_ENTRY_MEMBERS)
		return 0;
	return (identity->kind == WAL_ENTRY ? IDENTITY_ENTRY : IDENTITY_FILL) + identity->entry_kind;
}

static void parse_kind(uint32_t packed, struct wal_identity *out)
{
	bool has_entry = packed > IDENTITY_ENTRY && packed != IDENTITY_FILL;
	if (has_entry) {
		out->kind = packed < IDENTITY_FILL ? WAL_ENTRY : WAL_FILL;
		out->entry_kind = (uint16_t)(packed & 3);
	} else if (packed >= WAL_HARD && packed <= WAL_MARK) {
		out->kind = packed;
	}
}

void wal_pack_identity(const struct wal_identity *identity, uint64_t salt, uint8_t out[WAL_IDENTITY_BYTES])
{
	uint32_t what = identity->payload_bytes | pack_kind(identity) << IDENTITY_BYTES_BITS |
			(uint32_t)identity->last << 24 | (uint32_t)(identity->batch_low & 0x7f) << 25;
	put_le64(out, identity->index);
	put_le64(out + 8, identity->term);
	put_le32(out + 16, identity->offset);
	put_le32(out + 20, what);
	put_le32(out + 24, identity->payload_crc);
	put_le32(out + 28, crc_with_salt(out, 28, salt));
}

bool wal_parse_identity(const uint8_t bytes[WAL_IDENTITY_BYTES], uint64_t salt, struct wal_identity *out)
{
	uint32_t what = get_le32(bytes + 20);
	*out = (struct wal_identity){
	    .index = get_le64(bytes),
	    .term = get_le64(bytes + 8),
	    .offset = get_le32(bytes + 16),
	    .payload_bytes = what & ((1u << IDENTITY_BYTES_BITS) - 1),
	    .payload_crc = get_le32(bytes + 24),
	    .last = what >> 24 & 1,
	    .batch_low = (uint8_t)(what >> 25),
	};
	parse_kind(what >> IDENTITY_BYTES_BITS & 15, out);
	return get_le32(bytes + 28) == crc_with_salt(bytes, 28, salt) && out->offset > 0 &&
	       out->payload_bytes <= WAL_PAYLOAD_BYTES_MAX;
}
