/* The frame: the one format on every connection.
 *
 *   offset size
 *        0    4  magic 'G' 'R' 'N' '1'
 *        4    2  type (enum message_type)
 *        6    2  flags (enum frame_flags)
 *        8    8  request id; a reply carries that of its request; 0 for one-way messages
 *       16    4  message length in bytes, at most FRAME_MESSAGE_BYTES_MAX
 *       20    4  data length in bytes, at most FRAME_DATA_BYTES_MAX
 *       24    4  error: 0, or with FRAME_ERROR the wire number of an enum err (the message is then ErrorReply)
 *       28    4  CRC-32C of bytes 0..27 followed by the message
 *       32       message (protobuf), then data
 *
 * Integers are little endian. The data has checksums of its own, in the message (a CRC-32C per 4 KiB block), made by
 * whoever wrote it first. Lengths are checked before anything is allocated. */
#ifndef GRANARY_COMMON_PROTO_FRAME_H
#define GRANARY_COMMON_PROTO_FRAME_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

#define FRAME_HEADER_BYTES 32u
#define FRAME_MAGIC 0x314e5247u

enum frame_flags {
	FRAME_REPLY = 1,
	FRAME_ERROR = 2,   /* with FRAME_REPLY */
	FRAME_ONE_WAY = 4, /* no reply is expected */
};

struct frame_header {
	uint16_t type;
	uint16_t flags;
	uint64_t id;
	uint32_t message_bytes;
	uint32_t data_bytes;
	uint32_t error;
	uint32_t crc; /* filled in by frame_pack, read by frame_parse */
};

/* Writes the header with its CRC over itself and the message. */
void frame_pack(const struct frame_header *header, struct slice message, uint8_t out[FRAME_HEADER_BYTES]);
/* Checks magic, flags and lengths; ERR_PROTOCOL when any is wrong. The CRC is checked by frame_verify, once the message is there. */
MUST_USE enum err frame_parse(const uint8_t bytes[FRAME_HEADER_BYTES], struct frame_header *out);
MUST_USE enum err frame_verify(const uint8_t bytes[FRAME_HEADER_BYTES], struct slice message);

#endif
