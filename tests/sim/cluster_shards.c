#include "tests/sim/cluster_shards.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chunk_format.h"
#include "chunkserver/chunkserver.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/data/coded.h"
#include "common/data/erasure.h"
#include "master/replica.h"

/* One after another, from the masters' word to the units. */
struct look {
	struct world *world;
	const Granary__Coding *coding;
	char *why;
	size_t why_bytes;
	uint8_t *shards[SHARDS_MAX]; /* whole files' content: head and data */
	uint32_t bytes;		     /* of each */
};

static bool wrong(struct look *look, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(look->why, look->why_bytes, format, args);
	va_end(args);
	return false;
}

struct finding {
	uint64_t chunk, size;
	const char *path;
};

static bool find_file(void *arg, const char *path, uint64_t size)
{
	struct finding *finding = arg;
	char name[32];
	snprintf(name, sizeof name, "%016" PRIx64 ".chunk", finding->chunk);
	const char *last = strrchr(path, '/');
	if (!last || strcmp(last + 1, name) != 0)
		return true;
	finding->path = path;
	finding->size = size;
	return false;
}

static const struct node *server_of(struct world *world, uint64_t id)
{
	for (unsigned i = 0; i < world_chunkservers(world); i++) {
		const struct node *node = world_node(world, NODE_CHUNKSERVER, i);
		if (node->chunkserver && chunkserver_id(node->chunkserver) == id)
			return node;
	}
	return NULL;
}

/* All of its blocks, right by the checksums of the file. */
static bool read_blocks(struct look *look, struct sim_host *host, const struct finding *file, unsigned place)
{
	static uint8_t crcs[CHUNK_CRCS_BYTES];
	static const uint8_t zeros[BLOCK_BYTES];
	uint64_t data = file->size > CHUNK_DATA_OFFSET ? file->size - CHUNK_DATA_OFFSET : 0;
	if (data == 0 || data % BLOCK_BYTES != 0 || (look->bytes != 0 && look->bytes != data))
		return wrong(look, "shard %u has %" PRIu64 " bytes, others have %u", place, data, look->bytes);
	look->bytes = (uint32_t)data;
	look->shards[place] = mem_alloc(look->bytes);
	check(sim_host_read_file(host, file->path, CHUNK_CRCS_OFFSET, crcs, sizeof crcs));
	check(sim_host_read_file(host, file->path, CHUNK_DATA_OFFSET, look->shards[place], look->bytes));
	for (uint32_t at = 0; at < look->bytes; at += BLOCK_BYTES)
		if ((crc32c(look->shards[place] + at, BLOCK_BYTES) ^ crc32c(zeros, BLOCK_BYTES)) != get_le32(crcs + at / BLOCK_BYTES * 4))
			return wrong(look, "shard %u, block %u: its checksum does not fit", place, at / BLOCK_BYTES);
	return true;
}

static bool read_shard(struct look *look, struct meta *meta, unsigned place)
{
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct chunk_header header;
	Granary__Chunk *shard = NULL;
	struct finding file = { .chunk = look->coding->shards[place] };
	if (meta_chunk(meta, file.chunk, &shard) != OK)
		return wrong(look, "shard %u has no record", place);
	const struct node *node = shard->n_replicas == 1 ? server_of(look->world, shard->replicas[0]) : NULL;
	uint64_t version = shard->version;
	message_free(&shard->base);
	if (!node)
		return wrong(look, "shard %u is nowhere", place);
	sim_host_each_file(node->host, find_file, &file);
	if (!file.path)
		return wrong(look, "shard %u is not at %s", place, node->name);
	if (!sim_host_read_file(node->host, file.path, 0, bytes, sizeof bytes) || chunk_header_parse(bytes, &header) != OK ||
	    header.chunk != file.chunk || header.version != version)
		return wrong(look, "shard %u (%" PRIx64 ") at %s is of version %" PRIu64 ", not %" PRIu64, place, file.chunk, node->name, header.version, version);
	return read_blocks(look, node->host, &file, place);
}

/* The parity is that of the data. */
static bool codes_the_same(struct look *look, const struct coded_index *index)
{
	unsigned k = index->data_shards, m = index->parity_shards;
	const uint8_t *data[DATA_SHARDS_MAX];
	uint8_t *parity[PARITY_SHARDS_MAX];
	struct erasure erasure;
	bool same = true;
	for (unsigned i = 0; i < k; i++)
		data[i] = look->shards[i] + index->head_bytes;
	for (unsigned i = 0; i < m; i++)
		parity[i] = mem_alloc(index->shard_bytes);
	erasure_init_encoder(&erasure, k, m);
	erasure_run(&erasure, index->shard_bytes, data, parity);
	erasure_deinit(&erasure);
	for (unsigned i = 0; i < m; i++) {
		if (same && memcmp(parity[i], look->shards[k + i] + index->head_bytes, index->shard_bytes) != 0)
			same = wrong(look, "shard %u is not the parity of the data", k + i);
		free(parity[i]);
	}
	return same;
}

static bool unit_is_right(const struct look *look, const struct coded_index *index, const struct coded_unit *unit, struct decompressor *decompressor,
			  uint8_t *out)
{
	const uint8_t *bytes = look->shards[unit->shard] + index->head_bytes + unit->offset;
	uint32_t length, crc;
	if (index->unit_bytes != 0)
		return coded_unpack(index, unit, bytes, decompressor, out, NULL) == OK;
	return coded_record(unit, bytes, &length, &crc) == OK && coded_unpack_record(index, unit, bytes, decompressor, out) == OK;
}

static bool units_are_right(struct look *look, const struct coded_index *index)
{
	uint8_t *out = mem_alloc(index->unit_bytes + BLOB_BYTES_MAX);
	struct decompressor *decompressor = decompressor_open();
	bool right = true;
	for (size_t i = 0; i < index->count && right; i++)
		if (!unit_is_right(look, index, &index->units[i], decompressor, out))
			right = wrong(look, "unit %u is not what was written", index->units[i].id);
	decompressor_close(decompressor);
	free(out);
	return right;
}

static bool look_at(struct look *look, struct meta *meta, uint32_t slot)
{
	struct coded_index index = { 0 };
	bool right = true;
	for (unsigned place = 0; place < look->coding->n_shards && right; place++)
		right = read_shard(look, meta, place);
	if (right && coded_index_parse(slice_of(look->shards[0], look->bytes), &index) != OK)
		right = wrong(look, "shard 0 has no index");
	for (unsigned place = 1; place < look->coding->n_shards && right; place++) {
		coded_head_set_place(look->shards[0], place);
		if (memcmp(look->shards[0], look->shards[place], index.head_bytes) != 0)
			right = wrong(look, "shard %u has another index", place);
	}
	if (right && index.head_bytes + (index.shard_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES != look->bytes)
		right = wrong(look, "the shards are not as long as their index says");
	if (right && slot != 0 && !coded_index_find(&index, slot))
		right = wrong(look, "slot %u is not in it", slot);
	right = right && codes_the_same(look, &index) && units_are_right(look, &index);
	coded_index_deinit(&index);
	return right;
}

bool cluster_shards_look(struct world *world, struct meta *meta, const Granary__Chunk *chunk, uint32_t slot, char *why, size_t why_bytes)
{
	struct look look = { .world = world, .coding = chunk->coding, .why = why, .why_bytes = why_bytes };
	bool right = look_at(&look, meta, slot);
	for (unsigned place = 0; place < SHARDS_MAX; place++)
		free(look.shards[place]);
	return right;
}
