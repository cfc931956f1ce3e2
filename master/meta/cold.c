#include "master/meta/cold.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/data/erasure.h"
#include "master/meta/chunk_map.h"
#include "master/meta/garbage.h"
#include "master/meta/ops.h"
#include "master/meta/tasks.h"

#define ERASED_SLOTS 8192u    /* noted in one value: a bit each */
#define ERASED_AT_ONCE_MAX 4u /* values that one ChunkThaw turns into garbage */

/* ---- slots */

void cold_note_slot(struct meta *meta, uint64_t pack, uint32_t slot)
{
	struct key key = key_of_index(KEY_ERASED, pack, slot / ERASED_SLOTS);
	uint8_t bits[ERASED_SLOTS / 8] = {0};
	struct slice value;
	if (store_get(&meta->store, &key, &value) && value.size == sizeof(bits))
		memcpy(bits, value.bytes, sizeof(bits));
	bits[slot % ERASED_SLOTS / 8] |= (uint8_t)(1u << slot % 8);
	store_put(&meta->store, &key, slice_of(bits, sizeof(bits)));
}

/* Up to `max` of what is noted goes; with `as_garbage` the slots are deleted where the pack is now. False: there is more. */
static bool erased_take(struct meta *meta, uint64_t pack, size_t max, bool as_garbage)
{
	struct key prefix = key_of(KEY_ERASED, pack), keys[PACK_SLOTS_MAX / ERASED_SLOTS + 1];
	size_t count = 0;
	bool more = false;
	struct scan scan;
	check(max <= sizeof(keys) / sizeof(keys[0]));
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (scan_next(&scan)) {
		uint64_t id;
		uint32_t index;
		more = count == max;
		if (more || !key_parse_index(scan.key, &id, &index) || scan.value.size != ERASED_SLOTS / 8)
			break;
		keys[count++] = key_of_index(KEY_ERASED, pack, index);
		for (uint32_t i = 0; as_garbage && i < ERASED_SLOTS; i++)
			if (scan.value.bytes[i / 8] & 1u << i % 8)
				garbage_add_slot(meta, pack, index * ERASED_SLOTS + i);
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++)
		store_delete(&meta->store, &keys[i]);
	return !more;
}

static void erased_forget(struct meta *meta, uint64_t pack)
{
	bool all = erased_take(meta, pack, PACK_SLOTS_MAX / ERASED_SLOTS + 1, false);
	check(all);
}

/* ---- parts of a change */

static bool is_cooling(const Granary__Chunk *chunk)
{
	return chunk->coding && !chunk->cold;
}

static bool is_warming(const Granary__Chunk *chunk)
{
	return chunk->cold && chunk->n_replicas > 0;
}

static void coding_free(Granary__Chunk *chunk)
{
	message_free(chunk->coding ? &chunk->coding->base : NULL);
	chunk->coding = NULL;
}

static void shards_remove(struct meta *meta, const Granary__Coding *coding)
{
	for (size_t i = 0; i < coding->n_shards; i++) {
		const Granary__Chunk *shard = chunk_get(meta, coding->shards[i]);
		if (shard && shard->rebuilding)
			garbage_add_chunk(meta, coding->shards[i], &shard->rebuilding, 1);
		chunk_remove(meta, coding->shards[i]);
	}
}

/* Garbage made since `before` has to be confirmed before it is thawed. */
static void fences_add(struct meta *meta, Granary__Chunk *chunk, uint64_t before)
{
	size_t count = (size_t)(meta->state->garbage_last - before);
#ifdef PLANT_COLD_WITHOUT_FENCES
	return;
#endif
	if (count == 0)
		return;
	chunk->fences = mem_resize(chunk->fences, (chunk->n_fences + count) * sizeof(*chunk->fences));
	for (uint64_t id = before + 1; id <= meta->state->garbage_last; id++)
		chunk->fences[chunk->n_fences++] = id;
}

/* Those that are confirmed by now are none any more; the others stay. */
static void fences_settle(struct meta *meta, Granary__Chunk *chunk)
{
	size_t kept = 0;
	for (size_t i = 0; i < chunk->n_fences; i++) {
		struct key key = key_of(KEY_GARBAGE, chunk->fences[i]);
		if (store_has(&meta->store, &key))
			chunk->fences[kept++] = chunk->fences[i];
	}
	chunk->n_fences = kept;
}

static void replicas_set(struct meta *meta, uint64_t id, Granary__Chunk *chunk, const uint64_t *replicas, size_t count)
{
	chunk_holders_remove(meta, id, chunk->replicas, chunk->n_replicas);
	free(chunk->replicas);
	chunk->replicas = NULL;
	chunk->n_replicas = count;
	chunk->moving_from = 0;
	if (count == 0)
		return;
	chunk->replicas = mem_alloc(count * sizeof(*chunk->replicas));
	memcpy(chunk->replicas, replicas, count * sizeof(*chunk->replicas));
	chunk_holders_add(meta, id, chunk->replicas, count);
}

/* All its copies, up to its version. */
static void copies_remove(struct meta *meta, uint64_t id, Granary__Chunk *chunk)
{
	garbage_add_copies(meta, id, chunk->version, false, chunk->replicas, chunk->n_replicas);
	garbage_add_copies(meta, id, chunk->version, false, chunk->stale, chunk->n_stale);
	free(chunk->stale);
	chunk->stale = NULL;
	chunk->n_stale = 0;
	replicas_set(meta, id, chunk, NULL, 0);
}

void cold_give_up(struct meta *meta, uint64_t id, Granary__Chunk *chunk)
{
	shards_remove(meta, chunk->coding);
	coding_free(chunk);
	chunk->frozen = false;
	erased_forget(meta, id); /* the copies have deleted them, too */
}

void cold_remove(struct meta *meta, uint64_t id, const Granary__Chunk *chunk)
{
	if (!chunk->coding)
		return;
	shards_remove(meta, chunk->coding);
	erased_forget(meta, id);
}

/* ---- becoming cold */

static bool contains(const uint64_t *ids, size_t count, uint64_t id)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static bool coding_valid(struct meta *meta, const Granary__CoolBegin *op)
{
	const Granary__Coding *coding = op->coding;
	if (!coding || !erasure_profile_valid(coding->data_shards, coding->parity_shards))
		return false;
	size_t count = coding->data_shards + coding->parity_shards;
	if (coding->n_shards != count || op->n_servers != count)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct key key = key_of(KEY_CHUNK, coding->shards[i]);
		if (coding->shards[i] == 0 || op->servers[i] == 0 || contains(coding->shards, i, coding->shards[i]) ||
		    contains(op->servers, i, op->servers[i]) || store_has(&meta->store, &key))
			return false;
	}
	return true;
}

/* The chunk, if it is there in that version. */
static enum err chunk_find(struct meta *meta, uint64_t id, uint64_t version, const Granary__Chunk **out)
{
	*out = chunk_get(meta, id);
	if (!*out)
		return ERR_NO_CHUNK;
	return (*out)->version == version ? OK : ERR_STALE_VERSION;
}

enum err op_cool_begin(struct context *context, const Granary__CoolBegin *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *found;
	enum err err = chunk_find(meta, op->chunk, op->version, &found);
	if (err)
		return err;
	bool is_pack = found->kind == GRANARY__CHUNK_KIND__CHUNK_PACK;
	if (found->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD || found->frozen || found->joining || (is_pack && !found->sealed))
		return ERR_BUSY;
	if (!coding_valid(meta, op))
		return ERR_INVALID;
	Granary__Chunk *chunk = chunk_edit(meta, op->chunk);
	chunk->version++;
	chunk->frozen = true;
	chunk->coding = (Granary__Coding *)message_copy(&op->coding->base);
	for (size_t i = 0; i < op->n_servers; i++) {
		struct chunk_options options = {.id = op->coding->shards[i],
						.kind = GRANARY__CHUNK_KIND__CHUNK_SHARD,
						.owner = op->chunk,
						.index = (uint32_t)i,
						.class = "",
						.replicas = &op->servers[i],
						.replica_count = 1};
		enum err added = chunk_add(meta, &options);
		check(added == OK);
	}
	location_add(context, op->chunk, result);
	return OK;
}

enum err op_cool_commit(struct context *context, const Granary__CoolCommit *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *found;
	const Granary__Coding *coding = op->coding;
	enum err err = chunk_find(meta, op->chunk, op->version, &found);
	if (err)
		return err;
	if (!is_cooling(found))
		return ERR_STALE_VERSION;
	if (!coding || coding->n_shards != found->coding->n_shards || coding->data_shards != found->coding->data_shards ||
	    coding->parity_shards != found->coding->parity_shards || coding->n_firsts != coding->data_shards ||
	    memcmp(coding->shards, found->coding->shards, coding->n_shards * sizeof(*coding->shards)) != 0)
		return ERR_INVALID;
	Granary__Chunk *chunk = chunk_edit(meta, op->chunk);
	uint64_t before = meta->state->garbage_last;
	copies_remove(meta, op->chunk, chunk);
	fences_settle(meta, chunk);
	fences_add(meta, chunk, before);
	coding_free(chunk);
	chunk->coding = (Granary__Coding *)message_copy(&coding->base);
	chunk->cold = true;
	task_cool_set(meta, op->chunk, chunk, 0);
	location_add(context, op->chunk, result);
	return OK;
}

/* ---- becoming hot */

enum err op_warm_begin(struct context *context, const Granary__WarmBegin *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *found;
	enum err err = chunk_find(meta, op->chunk, op->version, &found);
	if (err)
		return err;
	if (!found->cold || is_warming(found))
		return ERR_BUSY;
	if (!replicas_valid(op->replicas, op->n_replicas))
		return ERR_INVALID;
	Granary__Chunk *chunk = chunk_edit(meta, op->chunk);
	chunk->version++;
	replicas_set(meta, op->chunk, chunk, op->replicas, op->n_replicas);
	location_add(context, op->chunk, result);
	return OK;
}

enum err op_warm_commit(struct context *context, const Granary__WarmCommit *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *found;
	enum err err = chunk_find(meta, op->chunk, op->version, &found);
	if (err)
		return err;
	if (!is_warming(found))
		return ERR_STALE_VERSION;
	Granary__Chunk *chunk = chunk_edit(meta, op->chunk);
	uint64_t before = meta->state->garbage_last;
	shards_remove(meta, chunk->coding);
	fences_settle(meta, chunk);
	fences_add(meta, chunk, before);
	coding_free(chunk);
	chunk->cold = false;
	location_add(context, op->chunk, result);
	return OK;
}

enum err op_cold_undo(struct context *context, const Granary__ColdUndo *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *found;
	enum err err = chunk_find(meta, op->chunk, op->version, &found);
	if (err)
		return err;
	if (!is_cooling(found) && !is_warming(found))
		return ERR_STALE_VERSION;
	Granary__Chunk *chunk = chunk_edit(meta, op->chunk);
	if (is_warming(chunk))
		copies_remove(meta, op->chunk, chunk);
	else
		cold_give_up(meta, op->chunk, chunk);
	chunk->version++;
	location_add(context, op->chunk, result);
	return OK;
}

/* Each fence has been confirmed, but by those that serve nothing: they get no lease before they have. */
static bool fences_are_down(struct meta *meta, const Granary__Chunk *chunk, const Granary__ChunkThaw *op)
{
	for (size_t i = 0; i < chunk->n_fences; i++) {
		struct key key = key_of(KEY_GARBAGE, chunk->fences[i]);
		const Granary__Garbage *garbage = store_message(&meta->store, &key, &granary__garbage__descriptor);
		for (size_t k = 0; garbage && k < garbage->n_servers; k++)
			if (!contains(op->dead, op->n_dead, garbage->servers[k]))
				return false;
	}
	return true;
}

enum err op_chunk_thaw(struct context *context, const Granary__ChunkThaw *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *found;
	enum err err = chunk_find(meta, op->chunk, op->version, &found);
	if (err)
		return err;
	if (!found->frozen || found->coding)
		return ERR_STALE_VERSION;
	if (!fences_are_down(meta, found, op))
		return ERR_BUSY;
#ifndef PLANT_ERASED_NOT_DELETED
	if (!erased_take(meta, op->chunk, ERASED_AT_ONCE_MAX, true))
		return ERR_BUSY;
#endif
	Granary__Chunk *chunk = chunk_edit(meta, op->chunk);
	chunk->version++;
	chunk->frozen = false;
	free(chunk->fences);
	chunk->fences = NULL;
	chunk->n_fences = 0;
	task_cool_new(meta, op->chunk, chunk);
	location_add(context, op->chunk, result);
	return OK;
}

/* ---- lost shards */

/* Others of its set are there, or being made. */
static bool set_is_on(struct meta *meta, uint64_t owner, uint64_t but, uint64_t server)
{
	const Granary__Chunk *chunk = chunk_get(meta, owner);
	bool is_on = false;
	if (!chunk || !chunk->coding)
		return true;
	for (size_t i = 0; i < chunk->coding->n_shards; i++) {
		const Granary__Chunk *shard = chunk_get(meta, chunk->coding->shards[i]);
		is_on = is_on || (shard && chunk->coding->shards[i] != but && (contains(shard->replicas, shard->n_replicas, server) || shard->rebuilding == server));
	}
	return is_on;
}

enum err op_shard_rebuild(struct context *context, const Granary__ShardRebuild *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *found;
	bool begins = op->step == 1;
	(void)result;
	found = chunk_get(meta, op->shard);
	if (!found)
		return ERR_NO_CHUNK;
	if (found->kind != GRANARY__CHUNK_KIND__CHUNK_SHARD || op->server == 0)
		return ERR_INVALID;
	if (op->version != (begins ? found->version : found->rebuild_version))
		return ERR_STALE_VERSION;
	if (begins && (found->rebuilding || found->joining || set_is_on(meta, found->owner, op->shard, op->server)))
		return ERR_BUSY;
	if (!begins && found->rebuilding != op->server)
		return ERR_STALE_VERSION;
	Granary__Chunk *shard = chunk_edit(meta, op->shard);
	if (begins) {
		shard->rebuilding = op->server;
#ifdef PLANT_REBUILD_VERSION_REUSED
		shard->rebuild_version = 0;
#endif
		shard->rebuild_version = (shard->rebuild_version ? shard->rebuild_version : shard->version) + 1;
		return OK;
	}
	shard->rebuilding = 0;
	if (shard->replicas[0] == op->server) { /* what was bad there is written again; half of it, it has no version that is asked for */
		shard->version = op->step == 2 ? shard->rebuild_version : shard->rebuild_version + 1;
		shard->rebuild_version = 0;
	} else if (op->step == 2) {
		copies_remove(meta, op->shard, shard);
		replicas_set(meta, op->shard, shard, &op->server, 1);
		shard->version = shard->rebuild_version;
		shard->rebuild_version = 0;
	} else { /* who had it may come back */
		garbage_add_copies(meta, op->shard, shard->rebuild_version, false, &op->server, 1);
	}
	return OK;
}

/* ---- where it is */

static Granary__ShardLocation *shard_location(struct meta *meta, uint64_t id, ProtobufCMessage *whole)
{
	Granary__ShardLocation *location = message_alloc_message(whole, &granary__shard_location__descriptor);
	const Granary__Chunk *shard = chunk_get(meta, id);
	location->shard = id;
	if (!shard || shard->n_replicas == 0)
		return location;
	location->version = shard->version;
	location->server = shard->replicas[0];
	struct key key = key_of(KEY_SERVER, location->server);
	const Granary__Server *server = store_message(&meta->store, &key, &granary__server__descriptor);
	if (server && server->address[0])
		location->address = message_alloc_text(whole, server->address);
	return location;
}

Granary__CodedLocation *cold_location(struct meta *meta, const Granary__Chunk *chunk, ProtobufCMessage *whole)
{
	const Granary__Coding *coding = chunk->coding;
	Granary__CodedLocation *location = message_alloc_message(whole, &granary__coded_location__descriptor);
	location->data_shards = coding->data_shards;
	location->parity_shards = coding->parity_shards;
	location->unit_bytes = coding->unit_bytes;
	location->shard_bytes = coding->shard_bytes;
	location->compression = coding->compression;
	location->loss_untold = coding->loss_untold;
	location->n_firsts = coding->n_firsts;
	location->firsts = message_alloc(whole, coding->n_firsts * sizeof(*location->firsts));
	if (coding->n_firsts > 0)
		memcpy(location->firsts, coding->firsts, coding->n_firsts * sizeof(*location->firsts));
	location->n_shards = coding->n_shards;
	location->shards = message_alloc(whole, coding->n_shards * sizeof(*location->shards));
	for (size_t i = 0; i < coding->n_shards; i++)
		location->shards[i] = shard_location(meta, coding->shards[i], whole);
	return location;
}
