#include "common/proto/frame.h"

#include "common/base/bytes.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"

#define CRC_OFFSET 28u

void frame_pack(const struct frame_header *header, struct slice message, uint8_t out[FRAME_HEADER_BYTES])
{
	put_le32(out, FRAME_MAGIC);
	put_le16(out + 4, header->type);
	put_le16(out + 6, header->flags);
	put_le64(out + 8, header->id);
	put_le32(out + 16, header->message_bytes);
	put_le32(out + 20, header->data_bytes);
	put_le32(out + 24, header->error);
	uint32_t crc = crc32c(out, CRC_OFFSET);
	put_le32(out + CRC_OFFSET, crc32c_extend(crc, message.bytes, message.size));
}

static bool flags_are_valid(const struct frame_header *header)
{
	bool reply = header->flags & FRAME_REPLY;
	bool error = header->flags & FRAME_ERROR;
	bool one_way = header->flags & FRAME_ONE_WAY;
	if (header->flags & ~(FRAME_REPLY | FRAME_ERROR | FRAME_ONE_WAY))
		return false;
	if (error && !reply)
		return false;
	if (one_way && (reply || header->id != 0))
		return false;
	if (!one_way && header->id == 0)
		return false;
	return error == (header->error != 0);
}

enum err frame_parse(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *out)
{
	if (get_le32(bytes) != FRAME_MAGIC)
		return ERR_PROTOCOL;
	*out = (struct frame_header){
		.type = get_le16(bytes + 4),
		.flags = get_le16(bytes + 6),
		.id = get_le64(bytes + 8),
		.message_bytes = get_le32(bytes + 16),
		.data_bytes = get_le32(bytes + 20),
		.error = get_le32(bytes + 24),
		.crc = get_le32(bytes + CRC_OFFSET),
	};
	if (out->message_bytes > FRAME_MESSAGE_BYTES_MAX || out->data_bytes > FRAME_DATA_BYTES_MAX)
		return ERR_PROTOCOL;
	if (!flags_are_valid(out))
		return ERR_PROTOCOL;
	return OK;
}

enum err frame_verify(const uint8_t bytes[FRAME_HEADER_BYTES], struct slice message)
{
	uint32_t crc = crc32c_extend(crc32c(bytes, CRC_OFFSET), message.bytes, message.size);
	return crc == get_le32(bytes + CRC_OFFSET) ? OK : ERR_PROTOCOL;
}
