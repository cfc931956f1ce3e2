#include "common/base/crc32c.h"

#include <limits.h>

#include <isa-l/crc.h>

uint32_t crc32c_extend(uint32_t crc, const void *bytes, size_t size_bytes)
{
	/* ISA-L leaves initial value and final xor to the caller and takes an int for the length. */
	const uint8_t *p = bytes;
	crc = ~crc;
	while (size_bytes > 0) {
		int piece = size_bytes > INT_MAX ? INT_MAX : (int)size_bytes;
		crc = crc32_iscsi((unsigned char *)(uintptr_t)p, piece, crc);
		p += piece;
		size_bytes -= (size_t)piece;
	}
	return ~crc;
}

uint32_t crc32c(const void *bytes, size_t size_bytes)
{
	return crc32c_extend(0, bytes, size_bytes);
}

uint32_t crc32c_zero_block(void)
{
	return 0x98f94189u;
}
