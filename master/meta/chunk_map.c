#include "master/meta/chunk_map.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/cold.h"
#include "master/meta/garbage.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"
#include "master/meta/pack.h"
#include "master/meta/tasks.h"

#define REPLICA_BYTES 32u /* packed, beside its address */
#define LOCATION_BYTES 64u
#define SHARD_BYTES 48u /* likewise, with its `firsts` */

/* ---- records */

uint64_t chunk_at(struct meta *meta, uint64_t id, const Granary__Inode *inode, uint32_t index)
{
	if (inode->chunks == 0)
		return 0;
	struct key key = key_of_index(KEY_CHUNK_POINTER, id, index);
	const Granary__ChunkPointer *pointer = store_message(&meta->store, &key, &granary__chunk_pointer__descriptor);
	return pointer ? pointer->chunk : 0;
}

bool replicas_valid(const uint64_t *replicas, size_t count)
{
	if (count == 0 || count > REPLICAS_MAX)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (replicas[i] == 0)
			return false;
		for (size_t j = 0; j < i; j++)
			if (replicas[i] == replicas[j])
				return false;
	}
	return true;
}

void chunk_holders_add(struct meta *meta, uint64_t chunk, const uint64_t *servers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct key key = key_of_pair(KEY_SERVER_CHUNK, servers[i], chunk);
		store_put(&meta->store, &key, (struct slice){0});
	}
}

void chunk_holders_remove(struct meta *meta, uint64_t chunk, const uint64_t *servers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct key key = key_of_pair(KEY_SERVER_CHUNK, servers[i], chunk);
		store_delete(&meta->store, &key);
	}
}

enum err chunk_add(struct meta *meta, const struct chunk_options *options)
{
	if (options->id == 0 || !replicas_valid(options->replicas, options->replica_count))
		return ERR_NO_SERVERS;
	struct key key = key_of(KEY_CHUNK, options->id);
	if (store_has(&meta->store, &key))
		return ERR_EXISTS;
	Granary__Chunk *chunk = mem_alloc(sizeof(*chunk));
	granary__chunk__init(chunk);
	chunk->version = 1;
	chunk->kind = options->kind;
	chunk->owner = options->owner;
	chunk->index = options->index;
	struct storage_values values;
	meta_class_values(meta, options->class, &values);
	chunk->copies_wanted = options->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD ? 1 : values.copies;
	if (options->class[0])
		chunk->class_ = mem_string(options->class);
	chunk->n_replicas = options->replica_count;
	chunk->replicas = mem_alloc(options->replica_count * sizeof(*chunk->replicas));
	memcpy(chunk->replicas, options->replicas, options->replica_count * sizeof(*chunk->replicas));
	store_put_message(&meta->store, &key, &chunk->base);
	chunk_holders_add(meta, options->id, chunk->replicas, chunk->n_replicas);
	meta->state->chunks++;
	if (meta->state->newest_chunk < options->id)
		meta->state->newest_chunk = options->id;
	return OK;
}

void chunk_remove(struct meta *meta, uint64_t id)
{
	Granary__Chunk *chunk = chunk_edit(meta, id);
	if (!chunk)
		return;
	task_cool_set(meta, id, chunk, 0);
	garbage_add_chunk(meta, id, chunk->replicas, chunk->n_replicas);
	garbage_note_removed(meta, id);
	garbage_add_chunk(meta, id, chunk->stale, chunk->n_stale);
	cold_remove(meta, id, chunk);
	chunk_holders_remove(meta, id, chunk->replicas, chunk->n_replicas);
	struct key key = key_of(KEY_CHUNK, id);
	store_delete(&meta->store, &key);
	meta->state->chunks--;
}

bool chunks_free(struct meta *meta, uint64_t id, Granary__Inode *inode, uint32_t first, size_t max)
{
	if (inode->chunks == 0 || first >= CHUNK_INDEXES)
		return true;
	uint32_t *indexes = mem_alloc(max * sizeof(*indexes));
	size_t count = 0;
	bool more = false;
	struct key prefix = key_of(KEY_CHUNK_POINTER, id);
	struct key from = key_of_index(KEY_CHUNK_POINTER, id, first);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (scan_next(&scan)) {
		uint64_t inode_id;
		more = count == max;
		if (more)
			break;
		if (key_parse_index(scan.key, &inode_id, &indexes[count]))
			count++;
		else
			store_corrupt(&meta->store);
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++) {
		chunk_remove(meta, chunk_at(meta, id, inode, indexes[i]));
		struct key key = key_of_index(KEY_CHUNK_POINTER, id, indexes[i]);
		store_delete(&meta->store, &key);
	}
	inode->chunks -= count;
	free(indexes);
	return !more;
}

/* ---- locations */

static Granary__ChunkLocation *location_make(uint64_t chunk_id, const Granary__Chunk *chunk, ProtobufCMessage *whole)
{
	Granary__ChunkLocation *location = whole ? message_alloc_message(whole, &granary__chunk_location__descriptor) :
						   message_open_whole(&granary__chunk_location__descriptor);
	location->chunk = chunk_id;
	location->version = chunk->version;
	location->kind = chunk->kind;
	location->index = chunk->index;
	location->written = chunk->written;
	location->frozen = chunk->frozen;
	return location;
}

static void location_add_replicas(struct meta *meta, const Granary__Chunk *chunk, Granary__ChunkLocation *location, ProtobufCMessage *whole)
{
	location->n_replicas = chunk->n_replicas;
	location->replicas = message_alloc(whole, chunk->n_replicas * sizeof(*location->replicas));
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		Granary__Replica *replica = message_alloc_message(whole, &granary__replica__descriptor);
		replica->server = chunk->replicas[i];
		replica->joining = chunk->replicas[i] == chunk->joining;
		struct key key = key_of(KEY_SERVER, replica->server);
		const Granary__Server *server = store_message(&meta->store, &key, &granary__server__descriptor);
		if (server && server->address[0])
			replica->address = message_alloc_text(whole, server->address);
		location->replicas[i] = replica;
	}
}

Granary__ChunkLocation *location_open(struct meta *meta, uint64_t chunk_id, ProtobufCMessage *whole)
{
	const Granary__Chunk *chunk = chunk_get(meta, chunk_id);
	if (!chunk)
		return NULL;
	Granary__ChunkLocation *location = location_make(chunk_id, chunk, whole);
	if (!whole)
		whole = &location->base;
	if (chunk->cold)
		location->coded = cold_location(meta, chunk, whole);
	else
		location_add_replicas(meta, chunk, location, whole);
	return location;
}

enum err meta_cold_location(struct meta *meta, uint64_t chunk_id, Granary__ChunkLocation **out)
{
	const Granary__Chunk *chunk = chunk_get(meta, chunk_id);
	if (!chunk)
		return ERR_NO_CHUNK;
	*out = location_make(chunk_id, chunk, NULL);
	location_add_replicas(meta, chunk, *out, &(*out)->base);
	if (chunk->coding)
		(*out)->coded = cold_location(meta, chunk, &(*out)->base);
	return OK;
}

static size_t location_bytes(const Granary__ChunkLocation *location)
{
	size_t bytes = LOCATION_BYTES;
	for (size_t i = 0; i < location->n_replicas; i++)
		bytes += REPLICA_BYTES + strlen(location->replicas[i]->address);
	const Granary__CodedLocation *coded = location->coded;
	for (size_t i = 0; coded && i < coded->n_shards; i++)
		bytes += SHARD_BYTES + strlen(coded->shards[i]->address);
	return bytes;
}

/* False when there is no such chunk or no room. */
static bool result_add_location(struct context *context, uint64_t chunk, Granary__MetaResult *result)
{
	Granary__ChunkLocation *location = location_open(context->meta, chunk, context->reply);
	if (!location || !reply_reserve(context, location_bytes(location)))
		return false;
	result->chunks = message_alloc_element(context->reply, result->chunks, result->n_chunks, sizeof(*result->chunks));
	result->chunks[result->n_chunks++] = location;
	return true;
}

void location_add(struct context *context, uint64_t chunk, Granary__MetaResult *result)
{
	(void)result_add_location(context, chunk, result);
}

void location_answer(struct context *context, const Granary__Inode *inode, Granary__MetaResult *result)
{
	if (inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB)
		location_add(context, inode->pack, result);
}

void open_answer(struct context *context, uint64_t id, const Granary__Inode *inode, Granary__MetaResult *result)
{
	inode_answer(context, id, inode, result);
	location_answer(context, inode, result);
	if (inode->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS)
		location_add(context, chunk_at(context->meta, id, inode, 0), result);
}

enum err op_open(struct context *context, const Granary__Open *op, Granary__MetaResult *result)
{
	uint64_t id = context_inode(context, op->inode);
	const Granary__Inode *inode = inode_get(context->meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	open_answer(context, id, inode, result);
	return OK;
}

enum err op_chunk_map(struct context *context, const Granary__ChunkMap *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	const Granary__Inode *inode = inode_get(meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	inode_answer(context, id, inode, result);
	result->end = true;
	if (inode->layout != GRANARY__LAYOUT__LAYOUT_CHUNKS || op->count == 0)
		return OK;
	if (op->count == 1) {
		location_add(context, chunk_at(meta, id, inode, op->first), result);
		return OK;
	}
	uint64_t end = (uint64_t)op->first + op->count;
	struct key prefix = key_of(KEY_CHUNK_POINTER, id);
	struct key from = key_of_index(KEY_CHUNK_POINTER, id, op->first);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (scan_next(&scan)) {
		uint64_t inode_id;
		uint32_t index = 0;
		if (!key_parse_index(scan.key, &inode_id, &index))
			store_corrupt(&meta->store);
		if (index >= end)
			break;
		uint64_t chunk = chunk_at(meta, id, inode, index);
		if (result->n_chunks == CHUNK_MAP_ENTRIES_MAX ||
		    !result_add_location(context, chunk, result)) {
			result->end = false;
			break;
		}
	}
	scan_close(&scan);
	return OK;
}

/* ---- changes */

enum err op_allocate_chunk(struct context *context, const Granary__AllocateChunk *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	if (op->index >= CHUNK_INDEXES)
		return ERR_TOO_LARGE;
	Granary__Inode *inode;
	enum err err = inode_edit_file(meta, id, &inode);
	if (err)
		return err;
	uint64_t chunk = chunk_at(meta, id, inode, op->index);
	if (!chunk) {
		struct chunk_options options = {.id = op->id,
						.kind = GRANARY__CHUNK_KIND__CHUNK_REPLICATED,
						.owner = id,
						.index = op->index,
						.replicas = op->replicas,
						.replica_count = op->n_replicas,
						.class = inode->class_};
		err = chunk_add(meta, &options);
		if (err)
			return err;
		chunk = op->id;
		task_cool_new(meta, chunk, chunk_edit(meta, chunk));
		Granary__ChunkPointer *pointer = mem_alloc(sizeof(*pointer));
		granary__chunk_pointer__init(pointer);
		pointer->chunk = chunk;
		struct key key = key_of_index(KEY_CHUNK_POINTER, id, op->index);
		store_put_message(&meta->store, &key, &pointer->base);
		inode->chunks++;
		if (inode->layout == GRANARY__LAYOUT__LAYOUT_EMPTY)
			inode->layout = GRANARY__LAYOUT__LAYOUT_CHUNKS;
		inode_changed(context, id, inode);
	}
	inode_answer(context, id, inode, result);
	location_add(context, chunk, result);
	return OK;
}

/* From now on it is a loss if no server has them. What is no longer this file's has been cut off meanwhile. */
static void note_written(struct meta *meta, uint64_t owner, const uint64_t *chunks, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const Granary__Chunk *chunk = chunk_get(meta, chunks[i]);
		if (!chunk || chunk->written || chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK || chunk->owner != owner)
			continue;
		struct key key = key_of(KEY_CHUNK, chunks[i]);
		Granary__Chunk *edited = store_edit(&meta->store, &key, &granary__chunk__descriptor);
		edited->written = true;
	}
}

enum err op_commit_chunks(struct context *context, const Granary__CommitChunks *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	if (op->size > FILE_BYTES_MAX)
		return ERR_TOO_LARGE;
	Granary__Inode *inode;
	enum err err = inode_edit_file(meta, id, &inode);
	if (err)
		return err;
	if (inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB) {
		/* The blob's bytes must have been copied: all of them are in chunk 0. */
		if (!chunk_at(meta, id, inode, 0))
			return ERR_INVALID;
		uint64_t size = inode->size;
		blob_free(meta, inode);
		inode->size = size;
		inode->layout = GRANARY__LAYOUT__LAYOUT_CHUNKS;
	}
	note_written(meta, id, op->written, op->n_written);
	if (op->size > inode->size)
		inode->size = op->size;
	if (op->trimmed && (op->trim == 0 || op->trim == inode->trim))
		inode->trim = 0;
	uint64_t blocks = inode->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS ? inode_blocks_max(inode->size) : 0;
	if (op->blocks < blocks && inode->blocks < blocks - op->blocks)
		blocks = inode->blocks + op->blocks;
	inode_set_blocks(meta, inode, blocks);
	inode_data_changed(context, id, inode);
	if (op->mtime)
		inode->mtime = op->mtime;
	if (op->atime)
		inode->atime = op->atime;
	inode_answer(context, id, inode, result);
	return OK;
}
