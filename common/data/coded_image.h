/* Makes the shards of a cold chunk (coded.h): units are added one after another, then it is cut into shards, then read piece by piece.
 *
 * All in memory: at most the chunk; of a file compressed, of a pack as it is until all of it is there. One thread at a time. Pure. */
#ifndef GRANARY_COMMON_DATA_CODED_IMAGE_H
#define GRANARY_COMMON_DATA_CODED_IMAGE_H

#include "common/data/coded.h"

struct coded_image;
struct coded_options {
	unsigned data_shards, parity_shards; /* a valid profile */
	enum compression compression;
	uint64_t chunk;
	bool pack;
	uint64_t raw_bytes; /* of a file: the chunk's length, in whole blocks, at most CHUNK_BYTES. Packs: 0, it is counted */
};
struct coded_image *coded_image_open(const struct coded_options *options);
/* NULL is allowed. */
void coded_image_close(struct coded_image *image);
/* As if it was closed and opened, but its memory is used again: touching fresh memory takes longer than coding. */
void coded_image_reopen(struct coded_image *image, const struct coded_options *options);

/* Of a file: how much goes into a unit. */
uint32_t coded_image_unit_bytes(const struct coded_image *image);
/* Of a file: where the bytes of unit `id` are best read to before they are added: they are not copied then if they are kept as they are.
 * Until the next call. */
uint8_t *coded_image_room(struct coded_image *image, uint32_t id);
/* In order of ids. bytes: coded_unit_raw_bytes of them, and a CRC for each of their blocks, which are believed (the caller has just
 * checked them). */
void coded_image_add(struct coded_image *image, uint32_t id, const uint8_t *bytes, const uint32_t *crcs);
void coded_image_add_record(struct coded_image *image, uint32_t slot, struct slice bytes, uint32_t crc);
/* Of a pack, to which nothing follows: its records are compressed (coded_dictionary.h), as many at a time as CODED_COMPRESS_BYTES.
 * False: there are more. */
#define CODED_COMPRESS_BYTES (4u * MIB)
MUST_USE bool coded_image_compress(struct coded_image *image);
/* Nothing follows: compresses what has not been, and cuts it into shards, as equal as can be. */
void coded_image_finish(struct coded_image *image);

/* After coded_image_finish: */

/* As coded_index_parse would give it for shard 0, but for its dictionary; borrowed. */
const struct coded_index *coded_image_index(const struct coded_image *image);
/* Head, index and padding of the shard: head_bytes. */
void coded_image_write_head(const struct coded_image *image, unsigned place, uint8_t *out);
/* `bytes` bytes from `offset` on of the data of each shard: at most CODED_PIECE_BYTES, both multiples of BLOCK_BYTES but for the end at
 * shard_bytes. data[place] is borrowed until the next call, parity[i] is written. crcs: for each shard, data first, where the CRCs go
 * (4 bytes little endian for what there is of each block, as chunk files are written with), those of uncompressed blocks from their writer; or
 * NULL. */
#define CODED_PIECE_BYTES FRAME_DATA_BYTES_MAX
void coded_image_piece(struct coded_image *image, uint32_t offset, uint32_t bytes, const uint8_t **data, uint8_t *const *parity,
		       uint8_t *const *crcs);

#endif
