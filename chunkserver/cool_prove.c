/* The proof of cool_op.c, on workers: from what came back from the disks. */
#include <stdlib.h>
#include <string.h>

#include "chunkserver/cool_internal.h"
#include "common/base/bytes.h"
#include "common/base/crc32c.h"
#include "common/data/erasure.h"

bool cool_all_zeros(const uint32_t *crcs, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (crcs[i] != crc32c_zero_block())
			return false;
	return true;
}

/* All heads are what they should be; the first one is kept, to be used. */
void cool_compare_heads(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	uint8_t *head = mem_alloc(cool->head_bytes);
	cool->err = OK;
	for (unsigned place = 0; place < command_of(cool)->coded->n_shards; place++) {
		coded_image_write_head(cool->image, place, head);
		if (memcmp(cool->calls.data[place]->bytes, head + cool->offset, cool->bytes) != 0)
			cool->err = ERR_CORRUPT;
	}
	memcpy(cool->head + cool->offset, cool->calls.data[0]->bytes, cool->bytes);
	free(head);
}

/* From all but the last `count` data shards, and `count` of the parity from `first` on, these data shards. */
static bool decodes(struct cool *cool, unsigned first, unsigned count)
{
	unsigned k = command_of(cool)->coded->data_shards, m = command_of(cool)->coded->parity_shards;
	uint8_t have[DATA_SHARDS_MAX], wanted[DATA_SHARDS_MAX], *decoded[DATA_SHARDS_MAX];
	const uint8_t *sources[DATA_SHARDS_MAX];
	struct erasure erasure;
	bool same = true;
	for (unsigned i = 0; i < k; i++) {
		have[i] = (uint8_t)(i < k - count ? i : k + first + (i - (k - count)));
		sources[i] = cool->calls.data[have[i]]->bytes;
	}
	for (unsigned i = 0; i < count; i++) {
		wanted[i] = (uint8_t)(k - count + i);
		decoded[i] = mem_alloc(cool->bytes);
	}
	struct erasure_question question = { .data_shards = k, .parity_shards = m, .have = have, .wanted = wanted, .wanted_count = count };
	erasure_init_decoder(&erasure, &question);
	erasure_run(&erasure, cool->bytes, sources, decoded);
	erasure_deinit(&erasure);
	for (unsigned i = 0; i < count; i++) {
		same = same && memcmp(decoded[i], cool->calls.data[wanted[i]]->bytes, cool->bytes) == 0;
		free(decoded[i]);
	}
	return same;
}

void cool_decode_piece(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	unsigned k = command_of(cool)->coded->data_shards, m = command_of(cool)->coded->parity_shards;
	cool->err = OK;
	for (unsigned first = 0; first < m; first += k) {
		unsigned count = m - first < k ? m - first : k;
		if (!decodes(cool, first, count))
			cool->err = ERR_CORRUPT;
	}
	for (unsigned place = 0; place < k; place++)
		memcpy(cool->proof + (size_t)place * cool->shard_bytes + cool->offset, cool->calls.data[place]->bytes, cool->bytes);
}

static const uint8_t *unit_bytes(const struct cool *cool, const struct coded_unit *unit)
{
	return cool->proof + (size_t)unit->shard * cool->shard_bytes + unit->offset;
}

/* Each block of the chunk is there, under the checksum with which it was read. */
static enum err prove_blocks(struct cool *cool, const struct coded_index *index, struct decompressor *decompressor)
{
	uint32_t unit_blocks = index->unit_bytes / BLOCK_BYTES;
	uint8_t *out = mem_alloc(index->unit_bytes), *crcs = mem_alloc(unit_blocks * 4u);
	enum err err = OK;
	for (uint32_t block = 0; err == OK && block < cool->blocks; block += unit_blocks) {
		uint32_t count = cool->blocks - block < unit_blocks ? cool->blocks - block : unit_blocks;
		const struct coded_unit *unit = coded_index_find(index, block / unit_blocks);
		if (unit == NULL) {
			err = cool_all_zeros(cool->crcs + block, count) ? OK : ERR_CORRUPT;
			continue;
		}
		err = coded_unpack(index, unit, unit_bytes(cool, unit), decompressor, out, crcs);
		for (uint32_t i = 0; err == OK && i < count; i++)
			if (get_le32(crcs + 4u * i) != cool->crcs[block + i])
				err = ERR_CORRUPT;
	}
	free(out);
	free(crcs);
	return err;
}

static enum err prove_records(struct cool *cool, const struct coded_index *index, struct decompressor *decompressor)
{
	uint8_t *out = mem_alloc(BLOB_BYTES_MAX);
	enum err err = index->count == cool->seen_count ? OK : ERR_CORRUPT;
	for (uint32_t i = 0; err == OK && i < cool->seen_count; i++) {
		const struct seen *seen = &cool->seen[i];
		const struct coded_unit *unit = coded_index_find(index, seen->slot);
		uint32_t length, crc;
		err = unit == NULL ? ERR_CORRUPT : coded_record(unit, unit_bytes(cool, unit), &length, &crc);
		if (err == OK && (length != seen->length || crc != seen->crc))
			err = ERR_CORRUPT;
		if (err == OK)
			err = coded_unpack_record(index, unit, unit_bytes(cool, unit), decompressor, out);
	}
	free(out);
	return err;
}

static bool tells_the_same(const struct cool *cool, const struct coded_index *index)
{
	const Granary__Coding *coding = cool->coding;
	bool same = index->chunk == command_of(cool)->chunk->chunk && index->data_shards == coding->data_shards &&
		    index->parity_shards == coding->parity_shards && index->unit_bytes == coding->unit_bytes &&
		    index->shard_bytes == coding->shard_bytes && index->head_bytes == cool->head_bytes;
	for (unsigned i = 0; same && i < index->data_shards; i++)
		same = coding->firsts[i] == (index->firsts[i] < index->count ? index->units[index->firsts[i]].id : UINT32_MAX);
	return same;
}

void cool_prove(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	struct coded_index index = { 0 };
	struct decompressor *decompressor = decompressor_open();
	cool->err = coded_index_parse(slice_of(cool->head, cool->head_bytes), &index);
	if (cool->err == OK && !tells_the_same(cool, &index))
		cool->err = ERR_CORRUPT;
	if (cool->err == OK)
		cool->err = cool->pack ? prove_records(cool, &index, decompressor) : prove_blocks(cool, &index, decompressor);
	coded_index_deinit(&index);
	decompressor_close(decompressor);
}

