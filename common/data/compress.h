/* Compression of cold data. The only caller of zstd.
 *
 * Each piece is compressed by itself (one zstd frame, RFC 8878, with its size in it and no checksum: what is compressed has the
 * checksums of its writer). A piece that does not get at least 1/16 smaller is kept as it is. */
#ifndef GRANARY_COMMON_DATA_COMPRESS_H
#define GRANARY_COMMON_DATA_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

/* The numbers are stored. */
enum compression {
	COMPRESSION_DEFAULT = 0, /* auto */
	COMPRESSION_OFF = 1,
	COMPRESSION_FAST = 2, /* zstd level 1 */
	COMPRESSION_HIGH = 3, /* zstd level 9 */
	COMPRESSION_AUTO = 4, /* level 3; what samples say does not pay is not tried */
};
#define COMPRESSIONS 5u

/* "off", "fast", "high", "auto"; "?" */
const char *compression_name(enum compression compression);
bool compression_parse(const char *name, enum compression *out);

/* Memory for compressing, reused from piece to piece; one thread at a time. */
struct compressor;
struct compressor *compressor_open(enum compression compression);
void compressor_close(struct compressor *compressor);
/* Into `out`, which has room for `in.size` bytes. 0: it is to be kept as it is. */
size_t compressor_run(struct compressor *compressor, struct slice in, uint8_t *out);

/* Likewise for the way back. */
struct decompressor;
struct decompressor *decompressor_open(void);
void decompressor_close(struct decompressor *decompressor);
/* ERR_CORRUPT: it does not give exactly `bytes` bytes. Nothing is written behind them. */
MUST_USE enum err decompressor_run(struct decompressor *decompressor, struct slice in, uint8_t *out, size_t bytes);

#endif
