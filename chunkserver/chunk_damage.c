#include "chunkserver/chunk_damage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chunk_store.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/sys/log.h"

#define RUN_BYTES 8u
#define SLOTS_DAMAGED_MAX 65536u /* of one pack that are remembered; others are found again when they are read */

static bool has(const uint8_t *bits, uint32_t block)
{
	return bits != NULL && (bits[block / 8] & (1u << block % 8)) != 0;
}

static void set(uint8_t **bits, uint32_t block)
{
	if (*bits == NULL)
		*bits = mem_zero(CHUNK_BLOCKS / 8, 1);
	(*bits)[block / 8] |= (uint8_t)(1u << block % 8);
}

static void clear(uint8_t *bits, uint32_t block)
{
	if (bits != NULL)
		bits[block / 8] &= (uint8_t)~(1u << block % 8);
}

bool chunk_is_damaged(const struct chunk *chunk, uint32_t first, uint32_t end)
{
	if (chunk->damaged == NULL)
		return false;
	for (uint32_t block = first; block < end && block < CHUNK_BLOCKS; block++) {
		if (has(chunk->damaged, block))
			return true;
	}
	return false;
}

bool chunk_is_torn(const struct chunk *chunk, uint32_t first, uint32_t end)
{
	for (uint32_t block = first; block < end && block < CHUNK_BLOCKS; block++) {
		if (has(chunk->damaged, block) && !has(chunk->torn, block))
			return false;
	}
	return true;
}

bool chunk_next_damage(const struct chunk *chunk, uint32_t from, uint32_t count_max, uint32_t *first, uint32_t *count)
{
	uint32_t at = from;
	if (chunk->damaged == NULL)
		return false;
	while (at < CHUNK_BLOCKS && !has(chunk->damaged, at))
		at++;
	*first = at;
	*count = 0;
	while (at < CHUNK_BLOCKS && *count < count_max && has(chunk->damaged, at) && at / count_max == *first / count_max &&
	       has(chunk->torn, at) == has(chunk->torn, *first)) {
		*count += 1;
		at++;
	}
	return *count > 0;
}

bool chunk_is_lost(const struct chunk *chunk)
{
	return chunk->blank && chunk->damage_is_lost;
}

uint32_t chunk_damage_count(const struct chunk *chunk)
{
	uint32_t count = chunk->slot_damage_count;
	for (uint32_t i = 0; chunk->damaged != NULL && i < CHUNK_BLOCKS / 8; i++)
		count += (uint32_t)__builtin_popcount(chunk->damaged[i]);
	return count;
}

/* The known damage, without what is torn, goes into the index. */
static void remember(struct chunk *chunk)
{
	struct buf runs = { 0 };
	uint8_t run[RUN_BYTES];
	for (uint32_t at = 0; chunk->damaged != NULL && at < CHUNK_BLOCKS; at++) {
		uint32_t first = at;
		while (at < CHUNK_BLOCKS && has(chunk->damaged, at) && !has(chunk->torn, at))
			at++;
		if (at == first)
			continue;
		put_le32(run, first);
		put_le32(run + 4, at - first);
		buf_append(&runs, run, sizeof(run));
	}
	for (uint32_t i = 0; i < chunk->slot_damage_count; i++) {
		put_le32(run, chunk->slot_damage[i]);
		put_le32(run + 4, 1);
		buf_append(&runs, run, sizeof(run));
	}
	if (chunk_index_put_damage(chunk_store_index(chunk->store), chunk->id, buf_slice(&runs)) != OK)
		log_warn("damage_not_remembered", "chunk=%016" PRIx64, chunk->id); /* it will be found again */
	chunk->damage_remembered = runs.size > 0;
	buf_deinit(&runs);
}

void chunk_found_torn(struct chunk *chunk, const uint8_t *bits)
{
	for (uint32_t block = 0; block < CHUNK_BLOCKS; block++) {
		if (!has(bits, block) || has(chunk->damaged, block))
			continue;
		set(&chunk->damaged, block);
		set(&chunk->torn, block);
		chunk->damage_is_lost = false;
	}
}

void chunk_tear(struct chunk *chunk, uint32_t first, uint32_t end)
{
	for (uint32_t block = first; block < end; block++) {
		if (has(chunk->damaged, block))
			continue;
		set(&chunk->damaged, block);
		set(&chunk->torn, block);
	}
	if (end > chunk->file.blocks)
		chunk->file.blocks = end; /* so that reads find it */
	chunk->damage_is_lost = false;
	chunk_store_tell_damaged(chunk);
}

/* In one that is about to be deleted nothing is wrong for anybody. */
static void count_found(const struct chunk *chunk, uint32_t count)
{
	bool waived = chunk->damage_waived || chunk->state == CHUNK_DELETED;
	chunk_store_count_damage(chunk->store, count, waived ? count : 0);
}

void chunk_found_damaged(struct chunk *chunk, uint32_t first, uint32_t end, const char *how)
{
	uint32_t news = 0;
	for (uint32_t block = first; block < end && block < CHUNK_BLOCKS; block++) {
		if (has(chunk->damaged, block)) /* known, or torn and being seen to */
			continue;
		news++;
		set(&chunk->damaged, block);
	}
	if (news == 0)
		return;
	chunk->damage_is_lost = false;
	if (chunk_damage_count(chunk) == news) /* what could not be mended was made anew since */
		chunk->mend_after_ms = 0;
	log_error("blocks_damaged", "chunk=%016" PRIx64 " first=%" PRIu32 " blocks=%" PRIu32 " found_by=%s", chunk->id, first,
		  end - first, how);
	count_found(chunk, news);
	remember(chunk);
	chunk_store_tell_damaged(chunk);
}

void chunk_load_damage(struct chunk *chunk)
{
	struct buf runs = { 0 };
	if (chunk_index_get_damage(chunk_store_index(chunk->store), chunk->id, &runs) != OK) {
		buf_deinit(&runs);
		return;
	}
	chunk->damage_remembered = true;
	for (size_t at = 0; at + RUN_BYTES <= runs.size; at += RUN_BYTES) {
		uint32_t first = get_le32(runs.bytes + at), count = get_le32(runs.bytes + at + 4);
		if (chunk->kind == KIND_PACK) {
			pack_found_damaged(chunk, first, NULL);
			continue;
		}
		for (uint32_t block = first; block < CHUNK_BLOCKS && block - first < count; block++) {
			set(&chunk->damaged, block);
			clear(chunk->torn, block);
			if (block >= chunk->file.blocks)
				chunk->file.blocks = block + 1; /* so that reads find the damage */
		}
	}
	buf_deinit(&runs);
}

void chunk_repaired(struct chunk *chunk, uint32_t first, uint32_t end)
{
	uint32_t repaired = 0;
	if (chunk->damaged == NULL)
		return;
	for (uint32_t block = first; block < end && block < CHUNK_BLOCKS; block++) {
		repaired += has(chunk->damaged, block) && !has(chunk->torn, block);
		clear(chunk->damaged, block);
		clear(chunk->torn, block);
	}
	if (repaired > 0 && !chunk->damage_waived)
		chunk_store_count_damage(chunk->store, 0, repaired);
	if (chunk->damage_remembered && repaired > 0)
		remember(chunk);
	if (chunk_is_damaged(chunk, 0, CHUNK_BLOCKS))
		return;
	free(chunk->damaged);
	free(chunk->torn);
	chunk->damaged = chunk->torn = NULL;
	chunk->damage_waived = chunk->damage_is_lost = false;
	chunk_store_set_lost(chunk, 0); /* what no member had has been written */
}

void chunk_waive_damage(struct chunk *chunk)
{
	uint32_t count = chunk->slot_damage_count + chunk->blank;
	for (uint32_t block = 0; block < CHUNK_BLOCKS && chunk->damaged != NULL; block++)
		count += has(chunk->damaged, block) && !has(chunk->torn, block);
	chunk_store_set_lost(chunk, 0);
	if (count == 0 || chunk->damage_waived)
		return;
	chunk_store_count_damage(chunk->store, 0, count);
	chunk->damage_waived = true;
}

/* ---------------------------------------------------------------- packs */

bool pack_is_damaged(const struct chunk *chunk, uint32_t slot)
{
	for (uint32_t i = 0; i < chunk->slot_damage_count; i++) {
		if (chunk->slot_damage[i] == slot)
			return true;
	}
	return false;
}

void pack_found_damaged(struct chunk *chunk, uint32_t slot, const char *how)
{
	if (chunk->slot_damage_count == SLOTS_DAMAGED_MAX || pack_is_damaged(chunk, slot))
		return;
	chunk->damage_is_lost = false;
	chunk->slot_damage = mem_resize(chunk->slot_damage, (chunk->slot_damage_count + 1ul) * sizeof(*chunk->slot_damage));
	chunk->slot_damage[chunk->slot_damage_count++] = slot;
	if (how == NULL)
		return; /* only remembered */
	log_error("record_damaged", "pack=%016" PRIx64 " slot=%" PRIu32 " found_by=%s", chunk->id, slot, how);
	count_found(chunk, 1);
	remember(chunk);
	chunk_store_tell_damaged(chunk);
}

void pack_repaired(struct chunk *chunk, uint32_t slot)
{
	for (uint32_t i = 0; i < chunk->slot_damage_count; i++) {
		if (chunk->slot_damage[i] != slot)
			continue;
		chunk->slot_damage[i] = chunk->slot_damage[--chunk->slot_damage_count];
		if (!chunk->damage_waived)
			chunk_store_count_damage(chunk->store, 0, 1);
		chunk->damage_waived = chunk->damage_waived && chunk->slot_damage_count > 0;
		remember(chunk);
		return;
	}
}
