/* The bytes of a connection, as rpc takes them apart: header, checksum, message by its number and direction. A second
 * pass gives the input a right checksum, so that the fuzzer gets behind it. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/proto/frame.h"
#include "common/proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const ProtobufCMessageDescriptor *descriptor_of(const struct frame_header *header)
{
	if (header->flags & FRAME_ERROR)
		return &granary__error_reply__descriptor;
	return header->flags & FRAME_REPLY ? message_reply(header->type) : message_request(header->type);
}

/* One frame at the start of the bytes; returns how many it takes, 0 when the connection would be closed. */
static size_t take_frame(const uint8_t *bytes, size_t size)
{
	struct frame_header header;
	if (size < FRAME_HEADER_BYTES || frame_parse(bytes, &header) != OK)
		return 0;
	check(header.message_bytes <= FRAME_MESSAGE_BYTES_MAX && header.data_bytes <= FRAME_DATA_BYTES_MAX);
	size_t whole = (size_t)FRAME_HEADER_BYTES + header.message_bytes + header.data_bytes;
	if (size < whole)
		return 0;
	struct slice message = slice_of(bytes + FRAME_HEADER_BYTES, header.message_bytes);
	if (frame_verify(bytes, message) != OK)
		return 0;
	const ProtobufCMessageDescriptor *descriptor = descriptor_of(&header);
	ProtobufCMessage *unpacked = NULL;
	if (descriptor != NULL && message_unpack(descriptor, message, &unpacked) != OK)
		return 0;
	message_free(unpacked);
	return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	size_t at = 0, taken = 0;
	do {
		taken = take_frame(bytes + at, size - at);
		at += taken;
	} while (taken > 0);

	if (size < FRAME_HEADER_BYTES)
		return 0;
	uint8_t *fixed = malloc(size);
	memcpy(fixed, bytes, size);
	put_le32(fixed, FRAME_MAGIC);
	put_le32(fixed + 16, (uint32_t)(size - FRAME_HEADER_BYTES));
	put_le32(fixed + 20, 0);
	put_le32(fixed + 28, crc32c_extend(crc32c(fixed, 28), fixed + FRAME_HEADER_BYTES, size - FRAME_HEADER_BYTES));
	(void)take_frame(fixed, size);
	free(fixed);
	return 0;
}
