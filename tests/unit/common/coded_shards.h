/* Shards in memory, as a cooler would write them. */
#ifndef GRANARY_TESTS_UNIT_COMMON_CODED_SHARDS_H
#define GRANARY_TESTS_UNIT_COMMON_CODED_SHARDS_H

#include <string.h>

#include "common/base/check.h"
#include "common/data/coded_image.h"

/* Of a finished image: allocated, `bytes` each, which is at least head and data. */
static inline void coded_shards_take(struct coded_image *image, uint32_t bytes, uint8_t *shards[SHARDS_MAX])
{
	const struct coded_index *index = coded_image_index(image);
	unsigned k = index->data_shards, m = index->parity_shards;
	for (unsigned i = 0; i < k + m; i++) {
		shards[i] = mem_zero(1, bytes);
		coded_image_write_head(image, i, shards[i]);
	}
	for (uint32_t offset = 0; offset < index->shard_bytes; offset += CODED_PIECE_BYTES) {
		uint32_t left = index->shard_bytes - offset, piece = left < CODED_PIECE_BYTES ? left : CODED_PIECE_BYTES;
		const uint8_t *data[DATA_SHARDS_MAX];
		uint8_t *parity[PARITY_SHARDS_MAX];
		for (unsigned i = 0; i < m; i++)
			parity[i] = shards[k + i] + index->head_bytes + offset;
		coded_image_piece(image, offset, piece, data, parity, NULL);
		for (unsigned i = 0; i < k; i++)
			memcpy(shards[i] + index->head_bytes + offset, data[i], piece);
	}
}

#endif
