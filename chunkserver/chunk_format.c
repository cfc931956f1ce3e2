#include "chunkserver/chunk_format.h"

#include <string.h>

#include "common/base/bytes.h"
#include "common/base/crc32c.h"

static const char chunk_magic[8] = { 'G', 'R', 'N', 'C', 'H', 'N', 'K', '1' };
static const char pack_magic[8] = { 'G', 'R', 'N', 'P', 'A', 'C', 'K', '1' };
static const char record_magic[4] = { 'P', 'R', 'E', 'C' };

void chunk_header_write(const struct chunk_header *header, uint8_t out[CHUNK_HEADER_USED_BYTES])
{
	memset(out, 0, CHUNK_HEADER_USED_BYTES);
	memcpy(out, header->kind == KIND_PACK ? pack_magic : chunk_magic, 8);
	put_le32(out + 8, CHUNK_FORMAT_VERSION);
	put_le32(out + 12, header->kind);
	put_le64(out + 16, header->chunk);
	put_le64(out + 24, header->version);
	put_le32(out + 32, header->slots);
	put_le64(out + 40, header->salt);
	put_le32(out + 48, header->copy);
	put_le32(out + 52, header->closed);
	put_le32(out + 60, crc32c(out, 60));
}

enum err chunk_header_parse(const uint8_t bytes[CHUNK_HEADER_USED_BYTES], struct chunk_header *out)
{
	bool is_pack = memcmp(bytes, pack_magic, 8) == 0;
	if (!is_pack && memcmp(bytes, chunk_magic, 8) != 0)
		return ERR_CORRUPT;
	if (get_le32(bytes + 60) != crc32c(bytes, 60))
		return ERR_CORRUPT;
	if (get_le32(bytes + 8) != CHUNK_FORMAT_VERSION)
		return ERR_VERSION_MISMATCH;
	if (get_le32(bytes + 12) != (is_pack ? KIND_PACK : KIND_REPLICATED) || get_le32(bytes + 32) > PACK_SLOTS_MAX ||
	    get_le32(bytes + 48) > COPY_RETIRED)
		return ERR_CORRUPT;
	*out = (struct chunk_header){
		.kind = is_pack ? KIND_PACK : KIND_REPLICATED,
		.chunk = get_le64(bytes + 16),
		.version = get_le64(bytes + 24),
		.slots = get_le32(bytes + 32),
		.salt = get_le64(bytes + 40),
		.copy = (enum copy_state)get_le32(bytes + 48),
		.closed = get_le32(bytes + 52) != 0,
	};
	return OK;
}

static uint32_t record_crc(const uint8_t *bytes, uint64_t salt)
{
	uint8_t salted[8];
	put_le64(salted, salt);
	return crc32c_extend(crc32c(salted, sizeof(salted)), bytes, 28);
}

void pack_record_write(const struct pack_record *record, uint64_t salt, uint8_t out[PACK_RECORD_BYTES])
{
	memset(out, 0, PACK_RECORD_BYTES);
	memcpy(out, record_magic, 4);
	put_le32(out + 4, record->slot);
	put_le32(out + 8, record->length);
	put_le32(out + 12, record->crc);
	put_le32(out + 16, record->flags);
	put_le32(out + 28, record_crc(out, salt));
}

bool pack_record_parse(const uint8_t bytes[PACK_RECORD_BYTES], uint64_t salt, struct pack_record *out)
{
	if (memcmp(bytes, record_magic, 4) != 0 || get_le32(bytes + 28) != record_crc(bytes, salt))
		return false;
	*out = (struct pack_record){
		.slot = get_le32(bytes + 4),
		.length = get_le32(bytes + 8),
		.crc = get_le32(bytes + 12),
		.flags = get_le32(bytes + 16),
	};
	return out->slot > 0 && out->slot <= PACK_SLOTS_MAX && out->length <= BLOB_BYTES_MAX;
}

uint32_t pack_record_size(uint32_t length)
{
	return PACK_RECORD_BYTES + (length + PACK_ALIGN_BYTES - 1) / PACK_ALIGN_BYTES * PACK_ALIGN_BYTES;
}

uint32_t block_first(uint32_t offset)
{
	return offset / BLOCK_BYTES;
}

uint32_t block_end(uint32_t offset, uint32_t size)
{
	return (offset + size + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

enum err chunk_pieces_verify(uint32_t offset, struct slice data, struct slice crcs)
{
	if (data.size == 0 || data.size > FRAME_DATA_BYTES_MAX || offset > CHUNK_BYTES || data.size > CHUNK_BYTES - offset)
		return ERR_INVALID;
	uint32_t blocks = block_end(offset, (uint32_t)data.size) - block_first(offset);
	if (crcs.size != blocks * 4u)
		return ERR_INVALID;
	size_t at = 0;
	for (uint32_t i = 0; i < blocks; i++) {
		size_t piece = BLOCK_BYTES - (offset + at) % BLOCK_BYTES;
		if (piece > data.size - at)
			piece = data.size - at;
		if (crc32c(data.bytes + at, piece) != get_le32(crcs.bytes + 4u * i))
			return ERR_CORRUPT;
		at += piece;
	}
	return OK;
}
