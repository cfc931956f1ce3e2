#include "common/data/coded_image.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/erasure.h"

#define CRC_BYTES 4u
#define CACHE_LINE_BYTES 64u
/* What is coded at once, and then summed, of each shard: a step of a stock profile's shards and the next one, which is fetched meanwhile, are
 * in the innermost cache. A block is a whole number of steps. */
#define STEP_BYTES 2048u
/* A small chunk has about so many units in each shard, too. */
#define UNITS_PER_SHARD 16u
/* A full chunk with its CRCs; a pack has less. */
#define IMAGE_BYTES_MAX (CHUNK_BYTES + CHUNK_BLOCKS * CRC_BYTES)

struct coded_image {
	struct coded_index index; /* offsets of units are those in `bytes` until it is finished */
	size_t units_capacity;
	struct compressor *compressor;
	uint8_t *memory, *bytes; /* bytes: the first CODED_ALIGN_BYTES boundary in memory */
	size_t size, capacity;	 /* of bytes: units, one after another */
	bool finished;
	uint32_t starts[DATA_SHARDS_MAX + 1]; /* in bytes, of each shard's part */
	uint8_t *tails[DATA_SHARDS_MAX];      /* NULL, or CODED_PIECE_BYTES: the end of a part, and zeros */
	struct erasure encoder;
	uint8_t room[CODED_UNIT_BYTES]; /* a unit that was read in place, compressed */
};

static uint32_t unit_bytes_for(uint64_t raw_bytes, unsigned data_shards)
{
	uint32_t unit_bytes = CODED_UNIT_BYTES;
	while (unit_bytes > CODED_UNIT_BYTES_MIN && raw_bytes / unit_bytes < (uint64_t)UNITS_PER_SHARD * data_shards)
		unit_bytes /= 2;
	return unit_bytes;
}

static void begin(struct coded_image *image, const struct coded_options *options)
{
	check(options->raw_bytes <= (options->pack ? 0 : CHUNK_BYTES) && options->raw_bytes % BLOCK_BYTES == 0);
	image->index = (struct coded_index){
		.data_shards = options->data_shards,
		.parity_shards = options->parity_shards,
		.compression = options->compression,
		.chunk = options->chunk,
		.unit_bytes = options->pack ? 0 : unit_bytes_for(options->raw_bytes, options->data_shards),
		.raw_bytes = options->raw_bytes,
		.units = image->index.units,
	};
	image->size = 0;
	image->finished = false;
	image->compressor = compressor_open(options->compression);
	erasure_init_encoder(&image->encoder, options->data_shards, options->parity_shards);
}

static void end(struct coded_image *image)
{
	compressor_close(image->compressor);
	erasure_deinit(&image->encoder);
}

struct coded_image *coded_image_open(const struct coded_options *options)
{
	struct coded_image *image = mem_zero(1, sizeof(*image));
	begin(image, options);
	return image;
}

void coded_image_reopen(struct coded_image *image, const struct coded_options *options)
{
	end(image);
	begin(image, options);
}

void coded_image_close(struct coded_image *image)
{
	if (image == NULL)
		return;
	end(image);
	for (unsigned i = 0; i < DATA_SHARDS_MAX; i++)
		free(image->tails[i]);
	coded_index_deinit(&image->index);
	free(image->memory);
	free(image);
}

uint32_t coded_image_unit_bytes(const struct coded_image *image)
{
	return image->index.unit_bytes;
}

/* Aligned, since wide loads are slower when they are not; units that are kept as they are leave it so. */
static uint8_t *aligned(uint8_t *memory)
{
	return memory + (-(uintptr_t)memory & (CODED_ALIGN_BYTES - 1));
}

/* Where the next unit goes; there is room for `bytes`. */
static uint8_t *reserve(struct coded_image *image, size_t bytes)
{
	size_t needed = image->size + bytes, capacity = image->capacity == 0 ? MIB : image->capacity;
	check(!image->finished && needed <= IMAGE_BYTES_MAX);
	while (capacity < needed)
		capacity *= 2;
	capacity = capacity < IMAGE_BYTES_MAX ? capacity : IMAGE_BYTES_MAX;
	if (capacity > image->capacity) {
		ptrdiff_t shift = image->bytes - image->memory;
		image->memory = mem_resize(image->memory, capacity + CODED_ALIGN_BYTES);
		image->bytes = aligned(image->memory);
		if (image->bytes != image->memory + shift)
			memmove(image->bytes, image->memory + shift, image->size);
		image->capacity = capacity;
	}
	return image->bytes + image->size;
}

static void append_unit(struct coded_image *image, uint32_t id, uint32_t size, bool compressed)
{
	struct coded_index *index = &image->index;
	check(index->count == 0 || id > index->units[index->count - 1].id);
	if (index->count == image->units_capacity) {
		image->units_capacity = image->units_capacity == 0 ? CHUNK_BYTES / CODED_UNIT_BYTES : image->units_capacity * 2;
		index->units = mem_resize(index->units, image->units_capacity * sizeof(*index->units));
	}
	index->units[index->count++] =
		(struct coded_unit){ .id = id, .offset = (uint32_t)image->size, .size = size, .compressed = compressed };
	image->size += size;
}

uint8_t *coded_image_room(struct coded_image *image, uint32_t id)
{
	uint32_t raw = coded_unit_raw_bytes(&image->index, id), header = raw / BLOCK_BYTES * CRC_BYTES;
	return reserve(image, header + raw) + header;
}

void coded_image_add(struct coded_image *image, uint32_t id, const uint8_t *bytes, const uint32_t *crcs)
{
	uint32_t raw = coded_unit_raw_bytes(&image->index, id), blocks = raw / BLOCK_BYTES, header = blocks * CRC_BYTES;
	/* Whoever was given room has it still: nothing is moved here. */
	uint8_t *unit = reserve(image, header + raw), *stored = unit + header;
	for (uint32_t i = 0; i < blocks; i++)
		put_le32(unit + i * CRC_BYTES, crcs[i]);
	bool in_place = bytes == stored;
	size_t size = compressor_run(image->compressor, slice_of(bytes, raw), in_place ? image->room : stored);
	if (size != 0 && in_place)
		memcpy(stored, image->room, size);
	else if (size == 0 && !in_place)
		memcpy(stored, bytes, raw);
	append_unit(image, id, header + (uint32_t)(size != 0 ? size : raw), size != 0);
}

void coded_image_add_record(struct coded_image *image, uint32_t slot, struct slice bytes, uint32_t crc)
{
	check(image->index.unit_bytes == 0 && slot >= 1 && slot <= PACK_SLOTS_MAX && bytes.size <= BLOB_BYTES_MAX);
	uint8_t *unit = reserve(image, CODED_RECORD_BYTES + bytes.size), *stored = unit + CODED_RECORD_BYTES;
	put_le32(unit, (uint32_t)bytes.size);
	put_le32(unit + 4, crc);
	size_t size = compressor_run(image->compressor, bytes, stored);
	if (size == 0 && bytes.size > 0)
		memcpy(stored, bytes.bytes, bytes.size);
	append_unit(image, slot, CODED_RECORD_BYTES + (uint32_t)(size != 0 ? size : bytes.size), size != 0);
	image->index.raw_bytes += bytes.size;
}

/* Whether the units fit into the shards if each has room for part_bytes. */
static bool fits(const struct coded_index *index, uint32_t part_bytes)
{
	uint32_t filled = 0;
	unsigned shard = 0;
	for (size_t i = 0; i < index->count; i++) {
		uint32_t size = index->units[i].size;
		if (size > part_bytes)
			return false;
		if (filled + size > part_bytes) {
			filled = 0;
			if (++shard == index->data_shards)
				return false;
		}
		filled += size;
	}
	return true;
}

/* The largest part is as small as it can be. */
static void cut(struct coded_image *image, uint32_t part_bytes)
{
	struct coded_index *index = &image->index;
	uint32_t filled = 0, shard = 0;
	image->starts[0] = 0;
	index->firsts[0] = 0;
	for (size_t i = 0; i < index->count; i++) {
		struct coded_unit *unit = &index->units[i];
		if (filled + unit->size > part_bytes) {
			filled = 0;
			image->starts[++shard] = unit->offset;
			index->firsts[shard] = (uint32_t)i;
		}
		unit->shard = shard;
		unit->offset = filled;
		filled += unit->size;
	}
	while (++shard <= index->data_shards) {
		image->starts[shard] = (uint32_t)image->size;
		if (shard < index->data_shards)
			index->firsts[shard] = (uint32_t)index->count;
	}
}

void coded_image_finish(struct coded_image *image)
{
	struct coded_index *index = &image->index;
	uint32_t low = 0, high = (uint32_t)image->size;
	check(!image->finished);
	image->finished = true;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (fits(index, middle))
			high = middle;
		else
			low = middle + 1;
	}
	cut(image, high);
	uint32_t rounded = (high + CODED_ALIGN_BYTES - 1) / CODED_ALIGN_BYTES * CODED_ALIGN_BYTES;
	index->shard_bytes = rounded == 0 ? CODED_ALIGN_BYTES : rounded;
	index->head_bytes = coded_index_bytes(index);
}

const struct coded_index *coded_image_index(const struct coded_image *image)
{
	check(image->finished);
	return &image->index;
}

void coded_image_write_head(const struct coded_image *image, unsigned place, uint8_t *out)
{
	check(image->finished && place < image->index.data_shards + image->index.parity_shards);
	coded_index_write(&image->index, place, out);
}

/* Shard i from `offset` on: its part, or a copy of what there is of it with zeros behind. */
static const uint8_t *shard_bytes_at(struct coded_image *image, unsigned i, uint32_t offset, uint32_t bytes)
{
	uint32_t part_bytes = image->starts[i + 1] - image->starts[i], left = offset < part_bytes ? part_bytes - offset : 0;
	const uint8_t *part = image->bytes + image->starts[i];
	if (left >= bytes)
		return part + offset;
	if (image->tails[i] == NULL)
		image->tails[i] = mem_alloc(CODED_PIECE_BYTES);
	if (left > 0)
		memcpy(image->tails[i], part + offset, left);
	memset(image->tails[i] + left, 0, bytes - left);
	return image->tails[i];
}

/* May go beyond the end: nothing is read. */
static void fetch(const uint8_t *bytes, uint32_t size)
{
	for (uint32_t i = 0; i < size; i += CACHE_LINE_BYTES)
		__builtin_prefetch(bytes + i);
}

void coded_image_piece(struct coded_image *image, uint32_t offset, uint32_t bytes, const uint8_t **data, uint8_t *const *parity,
		       uint8_t *const *crcs)
{
	const struct coded_index *index = &image->index;
	unsigned k = index->data_shards, m = index->parity_shards;
	const uint8_t *sources[DATA_SHARDS_MAX];
	uint8_t *targets[PARITY_SHARDS_MAX];
	check(image->finished && offset % BLOCK_BYTES == 0 && offset <= index->shard_bytes);
	check(bytes <= CODED_PIECE_BYTES && bytes <= index->shard_bytes - offset);
	check(bytes % BLOCK_BYTES == 0 || bytes == index->shard_bytes - offset);
	for (unsigned i = 0; i < k; i++)
		data[i] = shard_bytes_at(image, i, offset, bytes);
	for (uint32_t at = 0, size; at < bytes; at += size) {
		uint32_t block = at / BLOCK_BYTES * CRC_BYTES;
		size = bytes - at < STEP_BYTES ? bytes - at : STEP_BYTES;
		for (unsigned i = 0; i < k; i++)
			sources[i] = data[i] + at;
		for (unsigned i = 0; i < m; i++)
			targets[i] = parity[i] + at;
		erasure_run(&image->encoder, size, sources, targets);
		for (unsigned i = 0; i < k + m && crcs != NULL; i++) {
			const uint8_t *summed = i < k ? sources[i] : targets[i - k];
			uint32_t before = at % BLOCK_BYTES == 0 ? 0 : get_le32(crcs[i] + block);
			if (i < k)
				fetch(summed + size, size);
			put_le32(crcs[i] + block, crc32c_extend(before, summed, size));
		}
	}
}
