/* Compression of cold data. The only caller of zstd.
 *
 * Each piece is compressed by itself (one zstd frame, RFC 8878, with its size in it and no checksum: what is compressed has the
 * checksums of its writer). A piece that does not get at least 1/16 smaller is kept as it is. With a dictionary (zstd's format, RFC 8878,
 * section 5), a piece may refer to that, too: small ones of one kind have most of what there is to find in common. */
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

/* From now on: with this dictionary, made by dictionary_train and copied. Not for COMPRESSION_OFF. */
void compressor_use(struct compressor *compressor, struct slice dictionary);

/* Made of pieces that lie one behind the other in `bytes`, at most `bytes_max` into `out`; the same for the same pieces. 0: there is too little
 * of them, or in them. */
struct dictionary_samples {
	const uint8_t *bytes;
	const size_t *sizes;
	unsigned count;
};
size_t dictionary_train(const struct dictionary_samples *samples, uint8_t *out, size_t bytes_max);

/* A dictionary prepared to decompress with: once, for all pieces and any number of threads. It is copied. NULL: it is none. */
struct dictionary;
struct dictionary *dictionary_open(struct slice bytes);
/* NULL is allowed. */
void dictionary_close(struct dictionary *dictionary);

/* As a compressor's, for the way back. */
struct decompressor;
struct decompressor *decompressor_open(void);
void decompressor_close(struct decompressor *decompressor);
/* ERR_CORRUPT: it does not give exactly `bytes` bytes. Nothing is written behind them. */
MUST_USE enum err decompressor_run(struct decompressor *decompressor, struct slice in, uint8_t *out, size_t bytes);
/* Of what was compressed with this dictionary; NULL: with none. */
MUST_USE enum err decompressor_run_with(struct decompressor *decompressor, const struct dictionary *dictionary, struct slice in, uint8_t *out,
					size_t bytes);

#endif
