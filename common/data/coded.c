#include "common/data/coded.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/erasure.h"

#define FORMAT 1u
#define FORMAT_DICTIONARY 2u
#define VARINT_BYTES_MAX 5u
#define CRC_BYTES 4u
#define DICTIONARY_BYTES_MAX (CODED_DICTIONARY_HEAD_BYTES + CODED_DICTIONARY_BYTES_MAX)

static const uint8_t magic[8] = "GRNCODE1";

/* The part of the head that is about the index. */
struct index_place {
	uint32_t offset, bytes, crc;
	bool with_dictionary;
};

static uint32_t round_up(uint32_t bytes, uint32_t unit)
{
	return (bytes + unit - 1) / unit * unit;
}

/* Ids are below that. */
static uint32_t ids_end(const struct coded_index *index)
{
	if (index->unit_bytes == 0)
		return PACK_SLOTS_MAX + 1;
	return (uint32_t)((index->raw_bytes + index->unit_bytes - 1) / index->unit_bytes);
}

uint32_t coded_unit_raw_bytes(const struct coded_index *index, uint32_t id)
{
	check(index->unit_bytes != 0 && id < ids_end(index));
	uint64_t left = index->raw_bytes - (uint64_t)id * index->unit_bytes;
	return left < index->unit_bytes ? (uint32_t)left : index->unit_bytes;
}

/* A unit of whole blocks of the shard, whose CRCs are in the index. */
static bool is_plain(const struct coded_index *index, bool compressed)
{
	return index->unit_bytes != 0 && !compressed;
}

static uint32_t unit_blocks(const struct coded_index *index, uint32_t id)
{
	return coded_unit_raw_bytes(index, id) / BLOCK_BYTES;
}

/* Of what is in front of a unit's stored bytes. */
static uint32_t unit_header_bytes(const struct coded_index *index, const struct coded_unit *unit)
{
	if (index->unit_bytes == 0)
		return CODED_RECORD_BYTES;
	return unit->compressed ? unit_blocks(index, unit->id) * CRC_BYTES : 0;
}

uint32_t coded_unit_place(const struct coded_index *index, bool compressed, uint32_t end)
{
	return is_plain(index, compressed) ? round_up(end, BLOCK_BYTES) : end;
}

/* ---- parsing */

static bool unit_bytes_valid(uint32_t unit_bytes)
{
	return unit_bytes == 0 || (unit_bytes >= CODED_UNIT_BYTES_MIN && unit_bytes <= CODED_UNIT_BYTES &&
				   (unit_bytes & (unit_bytes - 1)) == 0);
}

static bool bounded(const struct coded_index *index, const struct index_place *place)
{
	if (!unit_bytes_valid(index->unit_bytes) || index->raw_bytes > CHUNK_BYTES ||
	    (index->unit_bytes != 0 && index->raw_bytes % BLOCK_BYTES != 0))
		return false;
	uint64_t crc_bytes_max = index->unit_bytes == 0 ? 0 : index->raw_bytes / BLOCK_BYTES * CRC_BYTES;
	uint64_t dictionary_bytes_max = place->with_dictionary ? DICTIONARY_BYTES_MAX : 0;
	if (place->with_dictionary && index->unit_bytes != 0)
		return false;
	if (index->count > ids_end(index) || place->bytes < 2 * index->count ||
	    place->bytes > 2 * VARINT_BYTES_MAX * index->count + crc_bytes_max + dictionary_bytes_max)
		return false;
	if (index->shard_bytes < CODED_ALIGN_BYTES || index->shard_bytes % CODED_ALIGN_BYTES != 0 ||
	    index->shard_bytes > CHUNK_BYTES - index->head_bytes)
		return false;
	for (unsigned i = 0; i < index->data_shards; i++) {
		if (index->firsts[i] > index->count || index->firsts[i] < (i == 0 ? 0 : index->firsts[i - 1]))
			return false;
	}
	return index->firsts[0] == 0;
}

/* units is not set. */
static enum err parse_head(struct slice bytes, struct coded_index *out, struct index_place *place)
{
	const uint8_t *p = bytes.bytes;
	if (bytes.size < BLOCK_BYTES || memcmp(p, magic, sizeof(magic)) != 0 ||
	    (get_le32(p + 8) != FORMAT && get_le32(p + 8) != FORMAT_DICTIONARY))
		return ERR_CORRUPT;
	struct coded_index index = { .data_shards = p[12], .parity_shards = p[13], .place = p[14], .compression = p[15] };
	if (!erasure_profile_valid(index.data_shards, index.parity_shards) || index.place >= index.data_shards + index.parity_shards ||
	    index.compression >= COMPRESSIONS)
		return ERR_CORRUPT;
	uint32_t crc_offset = CODED_HEAD_BYTES + index.data_shards * 4;
	if (get_le32(p + crc_offset) != crc32c(p, crc_offset))
		return ERR_CORRUPT;
	index.chunk = get_le64(p + 16);
	index.unit_bytes = get_le32(p + 24);
	index.raw_bytes = get_le64(p + 28);
	index.shard_bytes = get_le32(p + 36);
	index.count = get_le32(p + 40);
	*place = (struct index_place){ .offset = crc_offset + CRC_BYTES,
				       .bytes = get_le32(p + 44),
				       .crc = get_le32(p + 48),
				       .with_dictionary = get_le32(p + 8) == FORMAT_DICTIONARY };
	for (unsigned i = 0; i < index.data_shards; i++)
		index.firsts[i] = get_le32(p + CODED_HEAD_BYTES + i * 4);
	/* Before anything is added to them. */
	if (index.count > PACK_SLOTS_MAX ||
	    place->bytes > 2 * VARINT_BYTES_MAX * PACK_SLOTS_MAX + CHUNK_BLOCKS * CRC_BYTES + DICTIONARY_BYTES_MAX)
		return ERR_CORRUPT;
	index.head_bytes = round_up(place->offset + place->bytes, BLOCK_BYTES);
	if (!bounded(&index, place))
		return ERR_CORRUPT;
	*out = index;
	return OK;
}

enum err coded_head_parse(struct slice bytes, struct coded_index *out)
{
	struct index_place place;
	enum err err = parse_head(bytes, out, &place);
	if (err == OK)
		out->count = 0;
	return err;
}

enum err coded_head_bytes(struct slice bytes, uint32_t *out)
{
	struct coded_index index;
	enum err err = coded_head_parse(bytes, &index);
	if (err == OK)
		*out = index.head_bytes;
	return err;
}

static enum err take_dictionary(struct slice *rest, struct dictionary **out)
{
	if (rest->size < CODED_DICTIONARY_HEAD_BYTES)
		return ERR_CORRUPT;
	uint32_t size = get_le32(rest->bytes), stored = get_le32(rest->bytes + 4);
	struct slice bytes = slice_of(rest->bytes + CODED_DICTIONARY_HEAD_BYTES, stored);
	if (size > CODED_DICTIONARY_BYTES_MAX || stored > size || stored > rest->size - CODED_DICTIONARY_HEAD_BYTES)
		return ERR_CORRUPT;
	*rest = slice_of(bytes.bytes + stored, rest->size - CODED_DICTIONARY_HEAD_BYTES - stored);
	uint8_t *unpacked = NULL;
	enum err err = OK;
	if (stored < size) {
		struct decompressor *decompressor = decompressor_open();
		unpacked = mem_alloc(size);
		err = decompressor_run(decompressor, bytes, unpacked, size);
		decompressor_close(decompressor);
		bytes = slice_of(unpacked, size);
	}
	if (err == OK)
		*out = dictionary_open(bytes);
	free(unpacked);
	return err == OK && *out == NULL ? ERR_CORRUPT : err;
}

static bool take_varint(struct slice *rest, uint32_t *out)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < VARINT_BYTES_MAX && i < rest->size; i++) {
		uint8_t byte = rest->bytes[i];
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte & 0x80)
			continue;
		*rest = slice_of(rest->bytes + i + 1, rest->size - i - 1);
		*out = (uint32_t)value;
		return value <= UINT32_MAX;
	}
	return false;
}

/* What a unit with so many stored bytes may be. */
static bool stored_valid(const struct coded_index *index, const struct coded_unit *unit, uint32_t stored)
{
	if (index->unit_bytes == 0)
		return stored <= BLOB_BYTES_MAX && (stored > 0 || !unit->compressed);
	uint32_t raw = coded_unit_raw_bytes(index, unit->id);
	return unit->compressed ? stored > 0 && stored < raw : stored == raw;
}

/* Makes what follows of its stored bytes; false: they do not fit behind `end` in its shard. */
static bool set_place(struct coded_index *index, struct coded_unit *unit, uint32_t stored, uint32_t end)
{
	unit->offset = coded_unit_place(index, unit->compressed, end);
	unit->size = unit_header_bytes(index, unit) + stored;
	if (is_plain(index, unit->compressed)) {
		unit->crcs = index->crc_count;
		index->crc_count += unit_blocks(index, unit->id);
	}
	return unit->offset <= index->shard_bytes && unit->size <= index->shard_bytes - unit->offset;
}

/* Takes the entries of the index; its CRCs remain. */
static enum err parse_units(struct coded_index *index, struct slice *rest)
{
	uint64_t next = 0, stored_bytes = 0;
	uint32_t shard = 0, offset = 0, largest = 0, gap, stored;
	for (uint32_t i = 0; i < index->count; i++) {
		struct coded_unit *unit = &index->units[i];
		if (!take_varint(rest, &gap) || !take_varint(rest, &stored) || next + gap >= ids_end(index))
			return ERR_CORRUPT;
		while (shard + 1 < index->data_shards && index->firsts[shard + 1] <= i) {
			shard++;
			offset = 0;
		}
		*unit = (struct coded_unit){ .id = (uint32_t)next + gap, .shard = shard, .compressed = stored & 1 };
		stored /= 2;
		if ((index->unit_bytes == 0 && unit->id == 0) || !stored_valid(index, unit, stored) ||
		    !set_place(index, unit, stored, offset))
			return ERR_CORRUPT;
		offset = unit->offset + unit->size;
		largest = offset > largest ? offset : largest;
		next = unit->id + 1ull;
		stored_bytes += stored;
	}
	largest = largest == 0 ? CODED_ALIGN_BYTES : round_up(largest, CODED_ALIGN_BYTES);
	return stored_bytes <= index->raw_bytes && largest == index->shard_bytes ? OK : ERR_CORRUPT;
}

enum err coded_index_parse(struct slice bytes, struct coded_index *out)
{
	struct coded_index index;
	struct index_place place;
	enum err err = parse_head(bytes, &index, &place);
	if (err)
		return err;
	if (bytes.size < index.head_bytes || crc32c(bytes.bytes + place.offset, place.bytes) != place.crc)
		return ERR_CORRUPT;
	for (uint32_t i = place.offset + place.bytes; i < index.head_bytes; i++) {
		if (bytes.bytes[i] != 0)
			return ERR_CORRUPT;
	}
	index.units = mem_alloc(index.count * sizeof(*index.units));
	struct slice rest = slice_of(bytes.bytes + place.offset, place.bytes);
	if (place.with_dictionary)
		err = take_dictionary(&rest, &index.dictionary);
	if (err == OK)
		err = parse_units(&index, &rest);
	if (err == OK && rest.size != (size_t)index.crc_count * CRC_BYTES)
		err = ERR_CORRUPT;
	if (err) {
		coded_index_deinit(&index);
		return err;
	}
	index.crcs = mem_alloc(rest.size);
	if (rest.size > 0)
		memcpy(index.crcs, rest.bytes, rest.size);
	*out = index;
	return OK;
}

void coded_index_deinit(struct coded_index *index)
{
	free(index->units);
	free(index->crcs);
	dictionary_close(index->dictionary);
	buf_deinit(&index->dictionary_bytes);
	*index = (struct coded_index){ 0 };
}

const struct coded_unit *coded_index_find(const struct coded_index *index, uint32_t id)
{
	size_t low = 0, high = index->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (index->units[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < index->count && index->units[low].id == id ? &index->units[low] : NULL;
}

/* ---- units */

bool coded_unit_blocks(const struct coded_index *index, const struct coded_unit *unit, uint32_t first, uint32_t *offset, const uint8_t **crcs)
{
	if (!is_plain(index, unit->compressed))
		return false;
	check(first < unit_blocks(index, unit->id));
	*offset = unit->offset + first * BLOCK_BYTES;
	*crcs = index->crcs + (size_t)(unit->crcs + first) * CRC_BYTES;
	return true;
}

enum err coded_unpack(const struct coded_index *index, const struct coded_unit *unit, const uint8_t *bytes,
		      struct decompressor *decompressor, uint8_t *out, uint8_t *crcs)
{
	uint32_t raw = coded_unit_raw_bytes(index, unit->id), header = unit_header_bytes(index, unit);
	struct slice stored = slice_of(bytes + header, unit->size - header);
	const uint8_t *said = unit->compressed ? bytes : index->crcs + (size_t)unit->crcs * CRC_BYTES;
	enum err err = OK;
	if (unit->compressed)
		err = decompressor_run(decompressor, stored, out, raw);
	if (err)
		return err;
	for (uint32_t offset = 0; offset < raw; offset += BLOCK_BYTES) {
		if (!unit->compressed)
			memcpy(out + offset, stored.bytes + offset, BLOCK_BYTES);
		if (crc32c(out + offset, BLOCK_BYTES) != get_le32(said + offset / BLOCK_BYTES * CRC_BYTES))
			return ERR_CORRUPT;
	}
	if (crcs != NULL)
		memcpy(crcs, said, raw / BLOCK_BYTES * CRC_BYTES);
	return OK;
}

enum err coded_record(const struct coded_unit *unit, const uint8_t *bytes, uint32_t *length, uint32_t *crc)
{
	uint32_t said = get_le32(bytes), stored = unit->size - CODED_RECORD_BYTES;
	if (said > BLOB_BYTES_MAX || (unit->compressed ? said <= stored : said != stored))
		return ERR_CORRUPT;
	*length = said;
	*crc = get_le32(bytes + 4);
	return OK;
}

enum err coded_unpack_record(const struct coded_index *index, const struct coded_unit *unit, const uint8_t *bytes,
			     struct decompressor *decompressor, uint8_t *out)
{
	struct slice stored = slice_of(bytes + CODED_RECORD_BYTES, unit->size - CODED_RECORD_BYTES);
	uint32_t length, crc;
	enum err err = coded_record(unit, bytes, &length, &crc);
	if (err == OK && unit->compressed)
		err = decompressor_run_with(decompressor, index->dictionary, stored, out, length);
	else if (err == OK && length > 0)
		memcpy(out, stored.bytes, length);
	if (err)
		return err;
	return crc32c(out, length) == crc ? OK : ERR_CORRUPT;
}

/* ---- writing */

static uint32_t varint_bytes(uint32_t value)
{
	uint32_t bytes = 1;
	for (; value >= 0x80; value >>= 7)
		bytes++;
	return bytes;
}

static uint8_t *put_varint(uint8_t *p, uint32_t value)
{
	for (; value >= 0x80; value >>= 7)
		*p++ = (uint8_t)(value | 0x80);
	*p++ = (uint8_t)value;
	return p;
}

/* The two numbers that the index has of unit i. */
static void entry(const struct coded_index *index, size_t i, uint32_t *gap, uint32_t *stored)
{
	const struct coded_unit *unit = &index->units[i];
	*gap = i == 0 ? unit->id : unit->id - (unit[-1].id + 1);
	*stored = (unit->size - unit_header_bytes(index, unit)) * 2 + unit->compressed;
}

uint32_t coded_index_bytes(const struct coded_index *index)
{
	uint32_t bytes = CODED_HEAD_BYTES + index->data_shards * 4 + CRC_BYTES + (uint32_t)index->dictionary_bytes.size;
	for (size_t i = 0; i < index->count; i++) {
		uint32_t gap, stored;
		entry(index, i, &gap, &stored);
		bytes += varint_bytes(gap) + varint_bytes(stored);
	}
	return round_up(bytes + index->crc_count * CRC_BYTES, BLOCK_BYTES);
}

void coded_index_write(const struct coded_index *index, unsigned place, uint8_t *out)
{
	uint32_t crc_offset = CODED_HEAD_BYTES + index->data_shards * 4;
	uint8_t *begin = out + crc_offset + CRC_BYTES, *end = begin + index->dictionary_bytes.size;
	if (end > begin)
		memcpy(begin, index->dictionary_bytes.bytes, index->dictionary_bytes.size);
	for (size_t i = 0; i < index->count; i++) {
		uint32_t gap, stored;
		entry(index, i, &gap, &stored);
		end = put_varint(end, gap);
		end = put_varint(end, stored);
	}
	if (index->crc_count > 0)
		memcpy(end, index->crcs, (size_t)index->crc_count * CRC_BYTES);
	end += (size_t)index->crc_count * CRC_BYTES;
	memset(end, 0, index->head_bytes - (size_t)(end - out));
	memcpy(out, magic, sizeof(magic));
	put_le32(out + 8, index->dictionary_bytes.size > 0 ? FORMAT_DICTIONARY : FORMAT);
	out[12] = (uint8_t)index->data_shards;
	out[13] = (uint8_t)index->parity_shards;
	out[14] = (uint8_t)place;
	out[15] = (uint8_t)index->compression;
	put_le64(out + 16, index->chunk);
	put_le32(out + 24, index->unit_bytes);
	put_le64(out + 28, index->raw_bytes);
	put_le32(out + 36, index->shard_bytes);
	put_le32(out + 40, (uint32_t)index->count);
	put_le32(out + 44, (uint32_t)(end - begin));
	put_le32(out + 48, crc32c(begin, (size_t)(end - begin)));
	for (unsigned i = 0; i < index->data_shards; i++)
		put_le32(out + CODED_HEAD_BYTES + i * 4, index->firsts[i]);
	put_le32(out + crc_offset, crc32c(out, crc_offset));
}

void coded_head_set_place(uint8_t *head, unsigned place)
{
	uint32_t crc_offset = CODED_HEAD_BYTES + head[12] * 4u;
	head[14] = (uint8_t)place;
	put_le32(head + crc_offset, crc32c(head, crc_offset));
}
