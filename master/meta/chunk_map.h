/* Chunks of files: which there are, where they are, how they come and go. Blobs in packs are in pack.h. */
#ifndef GRANARY_MASTER_META_CHUNK_MAP_H
#define GRANARY_MASTER_META_CHUNK_MAP_H

#include "master/meta/state.h"

/* Indexes of chunks of the largest file. */
#define CHUNK_INDEXES (FILE_BYTES_MAX / CHUNK_BYTES)

/* The chunk at an index, those aside too; 0 when there is none. */
uint64_t chunk_at(struct meta *meta, uint64_t id, const Granary__Inode *inode, uint32_t index);
/* Frees the chunks at and above `first`, at most `max`; false when there are more. */
MUST_USE bool chunks_free(struct meta *meta, uint64_t id, Granary__Inode *inode, uint32_t first, size_t max);

struct chunk_options {
	uint64_t id;
	Granary__ChunkKind kind;
	uint64_t owner;
	uint32_t index;
	const uint64_t *replicas;
	size_t replica_count;
	const char *class;
};
/* ERR_NO_SERVERS when the leader found none or proposes a set that cannot be, ERR_EXISTS when the id is taken. */
MUST_USE enum err chunk_add(struct meta *meta, const struct chunk_options *options);
/* Removes the records and leaves Garbage for the servers that hold it. */
void chunk_remove(struct meta *meta, uint64_t id);
/* 1 to REPLICAS_MAX servers, each once. */
bool replicas_valid(const uint64_t *replicas, size_t count);

/* The index of what a server holds follows the chunk. */
void chunk_holders_add(struct meta *meta, uint64_t chunk, const uint64_t *servers, size_t count);
void chunk_holders_remove(struct meta *meta, uint64_t chunk, const uint64_t *servers, size_t count);

/* In the memory of a whole message (NULL: one of its own). NULL when there is no such chunk. An address that is not known is
 * empty. */
Granary__ChunkLocation *location_open(struct meta *meta, uint64_t chunk, ProtobufCMessage *whole);
/* Adds the location to the result's chunks; nothing when there is no such chunk or no room. */
void location_add(struct context *context, uint64_t chunk, Granary__MetaResult *result);
/* The pack of a blob. */
void location_answer(struct context *context, const Granary__Inode *inode, Granary__MetaResult *result);
/* Attributes, and where a reader starts: the pack of a blob, or chunk 0. */
void open_answer(struct context *context, uint64_t id, const Granary__Inode *inode, Granary__MetaResult *result);

#endif
