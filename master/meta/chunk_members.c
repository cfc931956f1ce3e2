/* Who is in the chain of a chunk: servers are left out, join, become complete.
 *
 * A server that is left out keeps its copy as a *stale* one: it is told to retire it (garbage.h), and may join again and be brought up
 * by differences. When as many copies are complete as are wanted the stale ones are deleted. Copies of packs are deleted at once: their
 * slots may have been given out again. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/chunk_map.h"
#include "master/meta/cold.h"
#include "master/meta/garbage.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"
#include "master/meta/pack.h"

static bool contains(const uint64_t *servers, size_t count, uint64_t server)
{
	for (size_t i = 0; i < count; i++)
		if (servers[i] == server)
			return true;
	return false;
}

/* Who joins when the change is made; 0: nobody. */
static uint64_t joining_after(const Granary__Chunk *chunk, const Granary__ChunkChange *op)
{
	if (op->join)
		return op->join;
	return contains(op->replicas, op->n_replicas, chunk->joining) ? chunk->joining : 0;
}

/* One that joins is the last, is one, and is never alone: it has not everything. */
static bool join_valid(const Granary__Chunk *chunk, const Granary__ChunkChange *op)
{
	uint64_t joining = joining_after(chunk, op);
	if (!joining)
		return true;
	if (op->n_replicas < 2 || op->replicas[op->n_replicas - 1] != joining)
		return false;
	if (!op->join)
		return true;
	if (contains(chunk->replicas, chunk->n_replicas, op->join))
		return false;
	return !chunk->joining || !contains(op->replicas, op->n_replicas, chunk->joining);
}

static enum err change_check(const Granary__Chunk *chunk, const Granary__ChunkChange *op)
{
	if (!chunk)
		return ERR_NO_CHUNK;
	if (chunk->version != op->version)
		return ERR_STALE_VERSION;
	if (op->seal)
		return OK;
	if (chunk->cold)
		return ERR_INVALID;
	if (op->complete)
		return op->join && chunk->joining == op->join ? OK : ERR_STALE_VERSION;
	if (!replicas_valid(op->replicas, op->n_replicas) || op->n_dropped > REPLICAS_MAX || !join_valid(chunk, op))
		return ERR_INVALID;
	for (size_t i = 0; i < op->n_dropped; i++)
		if (op->dropped[i] == 0 || contains(op->replicas, op->n_replicas, op->dropped[i]))
			return ERR_INVALID;
	return OK;
}

static void stale_remove(Granary__Chunk *chunk, size_t at)
{
	memmove(&chunk->stale[at], &chunk->stale[at + 1], (chunk->n_stale - at - 1) * sizeof(*chunk->stale));
	chunk->n_stale--;
}

static void stale_add(struct meta *meta, uint64_t id, Granary__Chunk *chunk, uint64_t server)
{
	if (contains(chunk->stale, chunk->n_stale, server))
		return;
	if (chunk->n_stale >= STALE_COPIES_MAX) {
		garbage_add_copies(meta, id, chunk->version, false, chunk->stale, 1);
		stale_remove(chunk, 0);
	}
	chunk->stale = mem_resize(chunk->stale, (chunk->n_stale + 1) * sizeof(*chunk->stale));
	chunk->stale[chunk->n_stale++] = server;
}

/* There are enough without them. */
static void stale_drop(struct meta *meta, uint64_t id, Granary__Chunk *chunk)
{
	size_t wanted = chunk->copies_wanted ? chunk->copies_wanted : REPLICAS_DEFAULT;
	if (chunk->joining || chunk->n_replicas < wanted || chunk->n_stale == 0)
		return;
	garbage_add_copies(meta, id, chunk->version, false, chunk->stale, chunk->n_stale);
	free(chunk->stale);
	chunk->stale = NULL;
	chunk->n_stale = 0;
}

/* It is over when who is to leave has left, or nobody is there in its place. */
static void moving_settle(Granary__Chunk *chunk, const Granary__ChunkChange *op)
{
	size_t wanted = chunk->copies_wanted ? chunk->copies_wanted : REPLICAS_DEFAULT;
	if (op->join)
		chunk->moving_from = op->moving_from;
	if (!contains(chunk->replicas, chunk->n_replicas, chunk->moving_from) || chunk->n_replicas <= wanted)
		chunk->moving_from = 0;
}

static void change_members(struct meta *meta, Granary__Chunk *chunk, const Granary__ChunkChange *op)
{
	bool pack = chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK;
	if (chunk->coding)
		cold_give_up(meta, op->chunk, chunk);
	chunk->joining = joining_after(chunk, op);
	chunk_holders_remove(meta, op->chunk, chunk->replicas, chunk->n_replicas);
	free(chunk->replicas);
	chunk->n_replicas = op->n_replicas;
	chunk->replicas = mem_alloc(op->n_replicas * sizeof(*chunk->replicas));
	memcpy(chunk->replicas, op->replicas, op->n_replicas * sizeof(*chunk->replicas));
	chunk->version++;
	chunk_holders_add(meta, op->chunk, chunk->replicas, chunk->n_replicas);
	moving_settle(chunk, op);
	for (size_t i = chunk->n_stale; i > 0; i--)
		if (chunk->stale[i - 1] == op->join)
			stale_remove(chunk, i - 1);
	garbage_add_copies(meta, op->chunk, chunk->version, !pack, op->dropped, op->n_dropped);
	for (size_t i = 0; i < op->n_dropped && !pack; i++)
		stale_add(meta, op->chunk, chunk, op->dropped[i]);
}

enum err op_chunk_change(struct context *context, const Granary__ChunkChange *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	enum err err = change_check(chunk_get(meta, op->chunk), op);
	if (err) {
		location_add(context, op->chunk, result);
		return err;
	}
	if (op->seal) {
		pack_seal(meta, op->chunk);
	} else {
		Granary__Chunk *chunk = chunk_edit(meta, op->chunk);
		/* Complete changes no member: writes under way go on. Readers of before leave the newcomer out, that is all. */
		if (op->complete)
			chunk->joining = 0;
		else
			change_members(meta, chunk, op);
		stale_drop(meta, op->chunk, chunk);
	}
	location_add(context, op->chunk, result);
	return OK;
}

uint64_t meta_chunk_bytes(struct meta *meta, const Granary__Chunk *chunk)
{
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK)
		return chunk->live_bytes;
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		const Granary__Chunk *owner = chunk_get(meta, chunk->owner);
		return owner && owner->coding ? owner->coding->shard_bytes : 0;
	}
	const Granary__Inode *inode = inode_get(meta, chunk->owner);
	uint64_t start = (uint64_t)chunk->index * CHUNK_BYTES;
	uint64_t size = inode && inode->size > start ? inode->size - start : 0;
	return size < CHUNK_BYTES ? size : CHUNK_BYTES;
}
