#include "common/data/coded_image.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/coded_dictionary.h"
#include "common/data/erasure.h"

#define CRC_BYTES 4u
#define CACHE_LINE_BYTES 64u
/* What is coded at once, and then summed, of each shard, while the beginning of the next step is fetched (the processor fetches what follows by
 * itself). Measured; a block is a whole number of steps. */
#define STEP_BYTES 1024u
#define FETCH_BYTES 256u
#define PIECE_BLOCKS (CODED_PIECE_BYTES / BLOCK_BYTES)
/* A small chunk has about so many units in each shard, too. */
#define UNITS_PER_SHARD 16u
/* A full chunk, and what is needed to try its last unit: a compressed one with its CRCs is smaller by at least the zeros behind it. A pack has
 * less. */
#define IMAGE_BYTES_MAX (CHUNK_BYTES + CODED_UNIT_BYTES)

/* Where what a data shard holds is in `bytes`. */
struct part {
	/* At the shard's beginning, up to its first uncompressed unit, if there it lies elsewhere with respect to blocks than in `bytes`. */
	uint32_t run, run_bytes;
	uint32_t rest, rest_offset, rest_bytes; /* rest_offset: in the shard */
};

struct coded_image {
	struct coded_index index; /* offsets of units are those in `bytes` until it is finished */
	size_t units_capacity;
	struct compressor *compressor;
	uint8_t *memory, *bytes; /* bytes: the first BLOCK_BYTES boundary in memory */
	size_t size, capacity;	 /* of bytes: units, one after another, as in a shard */
	size_t compressed;	 /* of a pack: so many records are, and take up `size`; no more is added then */
	bool compressing, finished;
	struct part parts[DATA_SHARDS_MAX];
	uint8_t *assembled[DATA_SHARDS_MAX]; /* NULL, or CODED_PIECE_BYTES: where a part's bytes do not follow each other, or zeros follow */
	struct erasure encoder;
	uint8_t room[BLOB_BYTES_MAX]; /* a unit that lies in place, compressed */
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
		.crcs = mem_resize(image->index.crcs, options->raw_bytes / BLOCK_BYTES * CRC_BYTES + 1),
		.dictionary_bytes = image->index.dictionary_bytes,
	};
	buf_clear(&image->index.dictionary_bytes);
	memset(image->parts, 0, sizeof(image->parts));
	image->size = image->compressed = 0;
	image->compressing = image->finished = false;
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
		free(image->assembled[i]);
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
	return memory + (-(uintptr_t)memory & (BLOCK_BYTES - 1));
}

/* Where the next unit goes; there is room for `bytes`. */
static uint8_t *reserve(struct coded_image *image, size_t bytes)
{
	size_t needed = image->size + bytes, capacity = image->capacity == 0 ? MIB : image->capacity;
	check(!image->compressing && !image->finished && needed <= IMAGE_BYTES_MAX);
	while (capacity < needed)
		capacity *= 2;
	capacity = capacity < IMAGE_BYTES_MAX ? capacity : IMAGE_BYTES_MAX;
	if (capacity > image->capacity) {
		ptrdiff_t shift = image->bytes - image->memory;
		image->memory = mem_resize(image->memory, capacity + BLOCK_BYTES);
		image->bytes = aligned(image->memory);
		if (image->bytes != image->memory + shift)
			memmove(image->bytes, image->memory + shift, image->size);
		image->capacity = capacity;
	}
	return image->bytes + image->size;
}

static void append_unit(struct coded_image *image, uint32_t id, uint32_t size, bool compressed)
{
	uint32_t place = coded_unit_place(&image->index, compressed, (uint32_t)image->size);
	struct coded_index *index = &image->index;
	check(index->count == 0 || id > index->units[index->count - 1].id);
	if (index->count == image->units_capacity) {
		image->units_capacity = image->units_capacity == 0 ? CHUNK_BYTES / CODED_UNIT_BYTES : image->units_capacity * 2;
		index->units = mem_resize(index->units, image->units_capacity * sizeof(*index->units));
	}
	memset(image->bytes + image->size, 0, place - image->size);
	index->units[index->count++] = (struct coded_unit){ .id = id, .offset = place, .size = size, .compressed = compressed };
	image->size = place + size;
}

/* Where a unit of a file goes if it is kept as it is. As much room is behind what there is. */
static uint8_t *plain_room(struct coded_image *image, uint32_t raw)
{
	uint8_t *behind = reserve(image, BLOCK_BYTES + raw);
	return behind + (coded_unit_place(&image->index, false, (uint32_t)image->size) - image->size);
}

uint8_t *coded_image_room(struct coded_image *image, uint32_t id)
{
	return plain_room(image, coded_unit_raw_bytes(&image->index, id));
}

static void put_crcs(uint8_t *to, const uint32_t *crcs, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		put_le32(to + i * CRC_BYTES, crcs[i]);
}

void coded_image_add(struct coded_image *image, uint32_t id, const uint8_t *bytes, const uint32_t *crcs)
{
	struct coded_index *index = &image->index;
	uint32_t raw = coded_unit_raw_bytes(index, id), blocks = raw / BLOCK_BYTES, header = blocks * CRC_BYTES;
	/* Whoever was given room has it still: nothing is moved here. */
	uint8_t *plain = plain_room(image, raw), *packed = image->bytes + image->size;
	size_t size = compressor_run(image->compressor, slice_of(bytes, raw), image->room);
	if (size != 0) {
		put_crcs(packed, crcs, blocks);
		memcpy(packed + header, image->room, size);
		append_unit(image, id, header + (uint32_t)size, true);
		return;
	}
	if (bytes != plain)
		memcpy(plain, bytes, raw);
	append_unit(image, id, raw, false);
	check(index->crc_count + blocks <= index->raw_bytes / BLOCK_BYTES);
	index->units[index->count - 1].crcs = index->crc_count;
	put_crcs(index->crcs + (size_t)index->crc_count * CRC_BYTES, crcs, blocks);
	index->crc_count += blocks;
}

void coded_image_add_record(struct coded_image *image, uint32_t slot, struct slice bytes, uint32_t crc)
{
	check(image->index.unit_bytes == 0 && slot >= 1 && slot <= PACK_SLOTS_MAX && bytes.size <= BLOB_BYTES_MAX);
	uint8_t *unit = reserve(image, CODED_RECORD_BYTES + bytes.size), *stored = unit + CODED_RECORD_BYTES;
	put_le32(unit, (uint32_t)bytes.size);
	put_le32(unit + 4, crc);
	if (bytes.size > 0)
		memcpy(stored, bytes.bytes, bytes.size);
	append_unit(image, slot, CODED_RECORD_BYTES + (uint32_t)bytes.size, false);
	image->index.raw_bytes += bytes.size;
}

static void use_dictionary(struct coded_image *image)
{
	struct coded_dictionary dictionary = { 0 };
	if (image->index.compression == COMPRESSION_OFF || !coded_dictionary_choose(&image->index, image->bytes, &dictionary))
		return;
	compressor_use(image->compressor, buf_slice(&dictionary.bytes));
	buf_take(&image->index.dictionary_bytes, &dictionary.stored);
	coded_dictionary_deinit(&dictionary);
}

/* The next record, to behind those that are compressed: none gets larger. */
static void compress_record(struct coded_image *image, struct coded_unit *unit)
{
	uint8_t *from = image->bytes + unit->offset, *to = image->bytes + image->size;
	struct slice stored = slice_of(from + CODED_RECORD_BYTES, unit->size - CODED_RECORD_BYTES);
	size_t size = compressor_run(image->compressor, stored, image->room);
	unit->compressed = size != 0;
	unit->offset = (uint32_t)image->size;
	if (unit->compressed) {
		memmove(to, from, CODED_RECORD_BYTES);
		memcpy(to + CODED_RECORD_BYTES, image->room, size);
		unit->size = CODED_RECORD_BYTES + (uint32_t)size;
	} else if (to != from) {
		memmove(to, from, unit->size);
	}
	image->size += unit->size;
}

bool coded_image_compress(struct coded_image *image)
{
	struct coded_index *index = &image->index;
	check(index->unit_bytes == 0 && !image->finished);
	if (!image->compressing) {
		use_dictionary(image);
		image->size = 0;
	}
	image->compressing = true;
	for (size_t bytes = 0; image->compressed < index->count && bytes < CODED_COMPRESS_BYTES; image->compressed++) {
		bytes += index->units[image->compressed].size;
		compress_record(image, &index->units[image->compressed]);
	}
	return image->compressed == index->count;
}

/* Whether the units fit into the shards if each has room for part_bytes. */
static bool fits(const struct coded_index *index, uint32_t part_bytes)
{
	uint32_t filled = 0;
	unsigned shard = 0;
	for (size_t i = 0; i < index->count; i++) {
		const struct coded_unit *unit = &index->units[i];
		uint32_t place = coded_unit_place(index, unit->compressed, filled);
		if (unit->size > part_bytes)
			return false;
		if (place + unit->size > part_bytes) {
			place = 0;
			if (++shard == index->data_shards)
				return false;
		}
		filled = place + unit->size;
	}
	return true;
}

/* The next unit of a part: at `at` in the image, at `offset` in the shard. */
static void part_add(struct part *part, uint32_t at, uint32_t offset, uint32_t size)
{
	if (part->rest_bytes == 0)
		part->rest = at;
	if (at - part->rest != offset - part->rest_offset) { /* from an uncompressed one on, they lie alike */
		check(part->run_bytes == 0);
		*part = (struct part){ .run = part->rest, .run_bytes = part->rest_bytes, .rest = at, .rest_offset = offset };
	}
	part->rest_bytes = offset + size - part->rest_offset;
}

/* The largest part is as small as it can be. */
static void cut(struct coded_image *image, uint32_t part_bytes)
{
	struct coded_index *index = &image->index;
	uint32_t filled = 0, shard = 0;
	index->firsts[0] = 0;
	for (size_t i = 0; i < index->count; i++) {
		struct coded_unit *unit = &index->units[i];
		uint32_t place = coded_unit_place(index, unit->compressed, filled);
		if (place + unit->size > part_bytes) {
			place = 0;
			index->firsts[++shard] = (uint32_t)i;
		}
		part_add(&image->parts[shard], unit->offset, place, unit->size);
		unit->shard = shard;
		unit->offset = place;
		filled = place + unit->size;
	}
	while (++shard < index->data_shards)
		index->firsts[shard] = (uint32_t)index->count;
}

void coded_image_finish(struct coded_image *image)
{
	struct coded_index *index = &image->index;
	check(!image->finished);
	while (index->unit_bytes == 0 && !coded_image_compress(image))
		continue;
	image->finished = true;
	uint32_t low = 0, high = (uint32_t)image->size;
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

/* What of `size` bytes at `at` of a shard lies in the `bytes` bytes of it from `offset` on. */
static void copy_overlap(uint8_t *out, uint32_t offset, uint32_t bytes, const uint8_t *from, uint32_t at, uint32_t size)
{
	uint32_t begin = at > offset ? at : offset, end = at + size < offset + bytes ? at + size : offset + bytes;
	if (begin < end)
		memcpy(out + (begin - offset), from + (begin - at), end - begin);
}

/* Shard i from `offset` on: where it lies, or put together from what there is of it, with zeros between and behind. */
static const uint8_t *shard_bytes_at(struct coded_image *image, unsigned i, uint32_t offset, uint32_t bytes)
{
	const struct part *part = &image->parts[i];
	if (offset + bytes <= part->run_bytes)
		return image->bytes + part->run + offset;
	if (offset >= part->rest_offset && offset + bytes <= part->rest_offset + part->rest_bytes)
		return image->bytes + part->rest + (offset - part->rest_offset);
	if (image->assembled[i] == NULL)
		image->assembled[i] = mem_alloc(CODED_PIECE_BYTES);
	memset(image->assembled[i], 0, bytes);
	copy_overlap(image->assembled[i], offset, bytes, image->bytes + part->run, 0, part->run_bytes);
	copy_overlap(image->assembled[i], offset, bytes, image->bytes + part->rest, part->rest_offset, part->rest_bytes);
	return image->assembled[i];
}

/* The CRCs of those blocks of a data shard's piece that are blocks of uncompressed units. Bits: which. */
static uint64_t known_crcs(const struct coded_index *index, unsigned shard, uint32_t offset, uint32_t bytes, uint8_t *crcs)
{
	size_t end = shard + 1 < index->data_shards ? index->firsts[shard + 1] : index->count;
	uint64_t known = 0;
	_Static_assert(PIECE_BLOCKS <= 64, "a bit for each block");
	for (size_t i = index->firsts[shard]; i < end && index->units[i].offset < offset + bytes; i++) {
		const struct coded_unit *unit = &index->units[i];
		uint32_t from = unit->offset > offset ? unit->offset : offset, at;
		uint32_t to = unit->offset + unit->size < offset + bytes ? unit->offset + unit->size : offset + bytes;
		const uint8_t *said;
		if (from >= to || !coded_unit_blocks(index, unit, (from - unit->offset) / BLOCK_BYTES, &at, &said))
			continue;
		uint32_t first = (from - offset) / BLOCK_BYTES, count = (to - from) / BLOCK_BYTES;
		memcpy(crcs + first * CRC_BYTES, said, count * CRC_BYTES);
		known |= UINT64_MAX >> (64 - count) << first;
	}
	return known;
}

/* May go beyond the end: nothing is read. */
static void fetch(const uint8_t *bytes)
{
	for (uint32_t i = 0; i < FETCH_BYTES; i += CACHE_LINE_BYTES)
		__builtin_prefetch(bytes + i);
}

/* Of a step at `at` of a piece, whose block may have begun before. */
static void sum(const uint8_t *bytes, uint32_t at, uint32_t size, uint8_t *crcs)
{
	uint8_t *crc = crcs + at / BLOCK_BYTES * CRC_BYTES;
	put_le32(crc, crc32c_extend(at % BLOCK_BYTES == 0 ? 0 : get_le32(crc), bytes, size));
}

void coded_image_piece(struct coded_image *image, uint32_t offset, uint32_t bytes, const uint8_t **data, uint8_t *const *parity,
		       uint8_t *const *crcs)
{
	const struct coded_index *index = &image->index;
	unsigned k = index->data_shards, m = index->parity_shards;
	const uint8_t *sources[DATA_SHARDS_MAX];
	uint8_t *targets[PARITY_SHARDS_MAX];
	uint64_t known[DATA_SHARDS_MAX];
	check(image->finished && offset % BLOCK_BYTES == 0 && offset <= index->shard_bytes);
	check(bytes <= CODED_PIECE_BYTES && bytes <= index->shard_bytes - offset);
	check(bytes % BLOCK_BYTES == 0 || bytes == index->shard_bytes - offset);
	for (unsigned i = 0; i < k; i++) {
		data[i] = shard_bytes_at(image, i, offset, bytes);
		known[i] = crcs == NULL ? UINT64_MAX : known_crcs(index, i, offset, bytes, crcs[i]);
	}
	for (uint32_t at = 0, size; at < bytes; at += size) {
		size = bytes - at < STEP_BYTES ? bytes - at : STEP_BYTES;
		for (unsigned i = 0; i < k; i++)
			sources[i] = data[i] + at;
		for (unsigned i = 0; i < m; i++)
			targets[i] = parity[i] + at;
		erasure_run(&image->encoder, size, sources, targets);
		for (unsigned i = 0; i < k; i++) {
			fetch(sources[i] + size);
			if ((known[i] >> at / BLOCK_BYTES & 1) == 0)
				sum(sources[i], at, size, crcs[i]);
		}
		for (unsigned i = 0; i < m && crcs != NULL; i++)
			sum(targets[i], at, size, crcs[k + i]);
	}
}
