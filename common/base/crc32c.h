/* CRC-32C (Castagnoli; RFC 3720 appendix B.4), by ISA-L. */
#ifndef GRANARY_COMMON_BASE_CRC32C_H
#define GRANARY_COMMON_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of the bytes, initial value and final xor of all ones as the standard says. */
uint32_t crc32c(const void *bytes, size_t size_bytes);
/* Continues `crc` over more bytes: crc32c_extend(crc32c(a), b) == crc32c(a ++ b). */
uint32_t crc32c_extend(uint32_t crc, const void *bytes, size_t size_bytes);
/* The CRC of BLOCK_BYTES zero bytes: what a hole reads as. */
uint32_t crc32c_zero_block(void);

#endif
