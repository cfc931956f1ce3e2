/* Logical, stored and physical sizes. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/inode.h"
#include "master/meta/state.h"

static bool is_cold(const Granary__Chunk *chunk)
{
	return chunk->cold && chunk->coding;
}

static uint64_t shards_bytes(const Granary__Coding *coding)
{
	return (uint64_t)coding->shard_bytes * coding->n_shards;
}

static uint64_t used_bytes(struct meta *meta, const Granary__Chunk *chunk)
{
	uint64_t reach = meta_chunk_bytes(meta, chunk);
	const Granary__Inode *inode = chunk->kind == GRANARY__CHUNK_KIND__CHUNK_REPLICATED ? inode_get(meta, chunk->owner) : NULL;
	if (!inode || inode->chunks == 0 || inode->blocks * 512 >= inode->size)
		return reach;
	uint64_t share = inode->blocks * 512 / inode->chunks;
	return share < CHUNK_BYTES ? share : CHUNK_BYTES;
}

void meta_chunk_sizes(struct meta *meta, const Granary__Chunk *chunk, struct data_sizes *out)
{
	out->logical = used_bytes(meta, chunk);
	out->stored = is_cold(chunk) ? chunk->coding->stored_bytes : out->logical;
	out->physical = out->logical * chunk->n_replicas + (chunk->coding ? shards_bytes(chunk->coding) : 0);
}

/* Its part of a cold pack as its part of what was in that. */
static void blob_sizes(struct meta *meta, const Granary__Inode *inode, struct inode_sizes *out)
{
	const Granary__Chunk *pack = chunk_get(meta, inode->pack);
	uint64_t bytes = inode->blob_bytes;
	out->data.logical = out->data.stored = bytes;
	if (!pack)
		return;
	out->chunks = 1;
	out->data.physical = bytes * pack->n_replicas;
	uint64_t raw = pack->coding ? pack->coding->raw_bytes : 0; /* 0: there was nothing in it any more, the record was lost unsynced */
	out->data.physical += raw ? bytes * shards_bytes(pack->coding) / raw : 0;
	if (!is_cold(pack))
		return;
	out->cold_chunks = 1;
	out->data.stored = raw ? bytes * pack->coding->stored_bytes / raw : 0;
}

static void add_chunk(struct meta *meta, uint64_t id, struct inode_sizes *out)
{
	struct data_sizes one;
	const Granary__Chunk *chunk = chunk_get(meta, id);
	if (!chunk)
		return;
	meta_chunk_sizes(meta, chunk, &one);
	out->data.logical += one.logical;
	out->data.stored += one.stored;
	out->data.physical += one.physical;
	out->chunks++;
	out->cold_chunks += is_cold(chunk);
}

enum err meta_inode_sizes(struct meta *meta, uint64_t id, uint32_t first, size_t max, struct inode_sizes *out, uint32_t *next)
{
	const Granary__Inode *inode = inode_get(meta, id);
	struct key prefix = key_of(KEY_CHUNK_POINTER, id), from = key_of_index(KEY_CHUNK_POINTER, id, first);
	*next = 0;
	*out = (struct inode_sizes){0};
	if (!inode)
		return ERR_NOT_FOUND;
	if (inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB) {
		blob_sizes(meta, inode, out);
		return store_failed(&meta->store);
	}
	if (inode->layout != GRANARY__LAYOUT__LAYOUT_CHUNKS || inode->chunks == 0)
		return OK;
	uint64_t *chunks = mem_alloc(max * sizeof(*chunks));
	size_t count = 0;
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (scan_next(&scan)) {
		uint64_t owner;
		uint32_t index;
		Granary__ChunkPointer pointer;
		if (!key_parse_index(scan.key, &owner, &index) ||
		    message_read_numbers(&granary__chunk_pointer__descriptor, scan.value, &pointer.base)) {
			store_corrupt(&meta->store);
			break;
		}
		if (count == max) {
			*next = index;
			break;
		}
		chunks[count++] = pointer.chunk;
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++)
		add_chunk(meta, chunks[i], out);
	free(chunks);
	return store_failed(&meta->store);
}
