/* Shards of cold chunks as a disk or a stranger may give them: an index that is within its bounds or an error, units that are unpacked
 * within theirs. The first byte chooses: bit 0 checksums of the head are made right (so that what they guard is reached), bit 1 those of
 * the units, too; bit 2: the rest is a frame to be decompressed, into as many bytes as its first two say. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/coded.h"

#define INPUT_BYTES_MAX (1u * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void decompress(const uint8_t *bytes, size_t size)
{
	if (size < 2)
		return;
	struct decompressor *decompressor = decompressor_open();
	size_t said = bytes[0] | (size_t)bytes[1] << 8;
	uint8_t *out = mem_alloc(said);
	enum err err = decompressor_run(decompressor, slice_of(bytes + 2, size - 2), out, said);
	check(err == OK || err == ERR_CORRUPT);
	free(out);
	decompressor_close(decompressor);
}

static void seal_head(uint8_t *bytes, size_t size)
{
	uint32_t crc_offset = CODED_HEAD_BYTES + bytes[12] % (DATA_SHARDS_MAX + 1) * 4, index_bytes = get_le32(bytes + 44);
	if (index_bytes <= size - crc_offset - 4)
		put_le32(bytes + 48, crc32c(bytes + crc_offset + 4, index_bytes));
	put_le32(bytes + crc_offset, crc32c(bytes, crc_offset));
}

/* Units are ordered, lie one behind the other, and are found. */
static void check_index(const struct coded_index *index, size_t head_bytes)
{
	uint32_t offset = 0, shard = 0, crcs = 0;
	check(index->head_bytes == head_bytes && index->shard_bytes <= CHUNK_BYTES);
	for (size_t i = 0; i < index->count; i++) {
		const struct coded_unit *unit = &index->units[i];
		check(i == 0 || unit->id > unit[-1].id);
		check(unit->shard < index->data_shards && unit->shard >= shard);
		offset = unit->shard == shard ? offset : 0;
		shard = unit->shard;
		check(unit->offset == coded_unit_place(index, unit->compressed, offset) && unit->size <= index->shard_bytes - unit->offset);
		check(coded_index_find(index, unit->id) == unit);
		offset = unit->offset + unit->size;
		if (index->unit_bytes == 0 || unit->compressed)
			continue;
		check(unit->offset % BLOCK_BYTES == 0 && unit->crcs == crcs);
		crcs += unit->size / BLOCK_BYTES;
	}
	check(crcs == index->crc_count);
	check(coded_index_find(index, UINT32_MAX) == NULL);
}

/* It is written as it was read; bytes from outside may have numbers longer than they need be. */
static void check_writing(const struct coded_index *index, struct slice head)
{
	struct coded_index copy = *index, again;
	uint32_t entries = CODED_HEAD_BYTES + index->data_shards * 4 + 4;
	if (index->dictionary != NULL)
		buf_append(&copy.dictionary_bytes, head.bytes + entries, CODED_DICTIONARY_HEAD_BYTES + get_le32(head.bytes + entries + 4));
	copy.head_bytes = coded_index_bytes(&copy);
	check(copy.head_bytes <= index->head_bytes);
	uint8_t *bytes = mem_alloc(copy.head_bytes);
	coded_index_write(&copy, index->place, bytes);
	check(coded_index_parse(slice_of(bytes, copy.head_bytes), &again) == OK);
	check(again.count == index->count && again.raw_bytes == index->raw_bytes && again.shard_bytes == index->shard_bytes);
	check(again.crc_count == index->crc_count && (again.dictionary != NULL) == (index->dictionary != NULL));
	check(index->crc_count == 0 || memcmp(again.crcs, index->crcs, index->crc_count * 4ull) == 0);
	check(index->count == 0 || memcmp(again.firsts, index->firsts, sizeof(again.firsts)) == 0);
	if (copy.head_bytes == head.size && memcmp(bytes, head.bytes, head.size) != 0)
		check(get_le32(bytes + 44) < get_le32(head.bytes + 44));
	coded_index_deinit(&again);
	buf_deinit(&copy.dictionary_bytes);
	free(bytes);
}

static void unpack_record(const struct coded_index *index, const struct coded_unit *unit, const uint8_t *bytes,
			  struct decompressor *decompressor)
{
	uint32_t length, crc;
	if (coded_record(unit, bytes, &length, &crc) != OK)
		return;
	check(length <= BLOB_BYTES_MAX);
	uint8_t *out = mem_alloc(length);
	if (coded_unpack_record(index, unit, bytes, decompressor, out) == OK)
		check(crc32c(out, length) == crc);
	free(out);
}

static void unpack(struct coded_index *index, const struct coded_unit *unit, const uint8_t *bytes, struct decompressor *decompressor, bool seal)
{
	uint32_t raw = coded_unit_raw_bytes(index, unit->id), blocks = raw / BLOCK_BYTES;
	for (uint32_t i = 0; seal && !unit->compressed && i < blocks; i++)
		put_le32(index->crcs + (unit->crcs + i) * 4ull, crc32c(bytes + i * BLOCK_BYTES, BLOCK_BYTES));
	uint8_t *crcs = mem_alloc(blocks * 4), *out = mem_alloc(raw);
	enum err err = coded_unpack(index, unit, bytes, decompressor, out, crcs);
	check(!seal || unit->compressed || err == OK);
	for (uint32_t i = 0; err == OK && i < blocks; i++)
		check(get_le32(crcs + i * 4) == crc32c(out + i * BLOCK_BYTES, BLOCK_BYTES));
	free(crcs);
	free(out);
}

static void read_shard(uint8_t *bytes, size_t size, bool seal)
{
	struct coded_index index = { 0 };
	uint32_t head_bytes = 0;
	if (coded_head_bytes(slice_of(bytes, BLOCK_BYTES), &head_bytes) != OK) {
		check(coded_index_parse(slice_of(bytes, size), &index) == ERR_CORRUPT);
		return;
	}
	if (head_bytes > size || coded_index_parse(slice_of(bytes, head_bytes), &index) != OK)
		return;
	check_index(&index, head_bytes);
	check_writing(&index, slice_of(bytes, head_bytes));
	struct decompressor *decompressor = decompressor_open();
	for (size_t i = 0; i < index.count && i < 100; i++) {
		const struct coded_unit *unit = &index.units[i];
		if (unit->offset + (size_t)unit->size > size - head_bytes)
			continue;
		/* Of its own, so that a byte too much is seen. */
		uint8_t *exact = mem_alloc(unit->size);
		memcpy(exact, bytes + head_bytes + unit->offset, unit->size);
		if (index.unit_bytes == 0)
			unpack_record(&index, unit, exact, decompressor);
		else
			unpack(&index, unit, exact, decompressor, seal);
		free(exact);
	}
	decompressor_close(decompressor);
	coded_index_deinit(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	if (size < 1 || size > INPUT_BYTES_MAX)
		return 0;
	if (bytes[0] & 4) {
		decompress(bytes + 1, size - 1);
		return 0;
	}
	/* Short ones are made whole by zeros: heads of units that are not there are quickly tried. */
	size_t whole = size - 1 < BLOCK_BYTES ? BLOCK_BYTES : size - 1;
	uint8_t *shard = mem_zero(whole, 1);
	memcpy(shard, bytes + 1, size - 1);
	if (bytes[0] & 1)
		seal_head(shard, whole);
	read_shard(shard, whole, bytes[0] & 2);
	free(shard);
	return 0;
}
