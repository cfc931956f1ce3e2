#include "master/meta/garbage.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/ops.h"

static void garbage_put(struct meta *meta, Granary__Garbage *garbage)
{
	struct key key = key_of(KEY_GARBAGE, ++meta->state->garbage_last);
	store_put_message(&meta->store, &key, &garbage->base);
	meta->state->garbage++;
	meta->garbage_added = true;
}

static Granary__Garbage *garbage_open(uint64_t chunk, const uint64_t *servers, size_t server_count)
{
	Granary__Garbage *garbage = mem_alloc(sizeof(*garbage));
	granary__garbage__init(garbage);
	garbage->chunk = chunk;
	garbage->n_servers = server_count;
	garbage->servers = mem_alloc(server_count * sizeof(*garbage->servers));
	memcpy(garbage->servers, servers, server_count * sizeof(*garbage->servers));
	return garbage;
}

void garbage_add_chunk(struct meta *meta, uint64_t chunk, const uint64_t *servers, size_t server_count)
{
	if (server_count > 0)
		garbage_put(meta, garbage_open(chunk, servers, server_count));
}

/* Many at once, so that the scan does not go over what was forgotten before each time. Ids are in order of creation. */
static void removed_forget(struct meta *meta)
{
	struct key *keys = mem_alloc(REMOVED_CHUNKS_STEP * sizeof(*keys));
	size_t count = 0;
	struct key prefix = key_of_table(KEY_REMOVED);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (count < REMOVED_CHUNKS_STEP && scan_next(&scan)) {
		uint64_t chunk;
		if (key_parse(scan.key, &chunk))
			keys[count++] = key_of(KEY_REMOVED, chunk);
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++)
		store_delete(&meta->store, &keys[i]);
	meta->state->removed_chunks -= count;
	free(keys);
}

void garbage_note_removed(struct meta *meta, uint64_t chunk)
{
	struct key key = key_of(KEY_REMOVED, chunk);
	if (meta->state->removed_chunks >= REMOVED_CHUNKS_MAX + REMOVED_CHUNKS_STEP)
		removed_forget(meta);
	store_put(&meta->store, &key, (struct slice){0});
	meta->state->removed_chunks++;
}

void garbage_add_copies(struct meta *meta, uint64_t chunk, uint64_t version, bool retire, const uint64_t *servers,
			size_t server_count)
{
	if (server_count == 0)
		return;
	Granary__Garbage *garbage = garbage_open(chunk, servers, server_count);
	garbage->version = version;
	garbage->retire = retire;
	garbage_put(meta, garbage);
}

void garbage_add_slot(struct meta *meta, uint64_t pack, uint32_t slot)
{
	struct slot_garbage *slots = NULL;
	for (size_t i = meta->slot_garbage_count; i > 0 && !slots; i--)
		if (meta->slot_garbage[i - 1].pack == pack && meta->slot_garbage[i - 1].count < GARBAGE_SLOTS_MAX)
			slots = &meta->slot_garbage[i - 1];
	if (!slots) {
		if (meta->slot_garbage_count == meta->slot_garbage_capacity) {
			meta->slot_garbage_capacity = meta->slot_garbage_capacity * 2 + 8;
			meta->slot_garbage =
			    mem_resize(meta->slot_garbage, meta->slot_garbage_capacity * sizeof(*meta->slot_garbage));
		}
		slots = &meta->slot_garbage[meta->slot_garbage_count++];
		*slots = (struct slot_garbage){.pack = pack};
	}
	if ((slots->count & (slots->count - 1)) == 0)
		slots->slots = mem_resize(slots->slots, (slots->count ? slots->count * 2 : 1) * sizeof(*slots->slots));
	slots->slots[slots->count++] = slot;
}

void garbage_flush(struct meta *meta)
{
	for (size_t i = 0; i < meta->slot_garbage_count; i++) {
		struct slot_garbage *slots = &meta->slot_garbage[i];
		/* A pack that is gone as a whole takes its slots along. */
		const Granary__Chunk *pack = chunk_get(meta, slots->pack);
		if (!pack || pack->n_replicas == 0) {
			free(slots->slots);
			continue;
		}
		Granary__Garbage *garbage = garbage_open(slots->pack, pack->replicas, pack->n_replicas);
		garbage->pack_version = pack->version;
		garbage->n_slots = slots->count;
		garbage->slots = slots->slots;
		garbage_put(meta, garbage);
	}
	meta->slot_garbage_count = 0;
}

void garbage_deinit(struct meta *meta)
{
	for (size_t i = 0; i < meta->slot_garbage_count; i++)
		free(meta->slot_garbage[i].slots);
	free(meta->slot_garbage);
}

/* A server that has joined the pack meanwhile may have been given what is deleted elsewhere. */
static void tell_newcomers(struct meta *meta, const Granary__Garbage *garbage)
{
	const Granary__Chunk *pack = garbage->n_slots > 0 ? chunk_get(meta, garbage->chunk) : NULL;
	if (!pack || pack->version == garbage->pack_version)
		return;
	for (size_t i = 0; i < garbage->n_slots; i++)
		garbage_add_slot(meta, garbage->chunk, garbage->slots[i]);
}

enum err op_garbage_done(struct context *context, const Granary__GarbageDone *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	struct key key = key_of(KEY_GARBAGE, op->garbage);
	Granary__Garbage *garbage = store_edit(&meta->store, &key, &granary__garbage__descriptor);
	if (!garbage)
		return OK;
	size_t kept = 0;
	for (size_t i = 0; i < garbage->n_servers; i++)
		if (garbage->servers[i] != op->server)
			garbage->servers[kept++] = garbage->servers[i];
	garbage->n_servers = kept;
	if (kept == 0) {
		tell_newcomers(meta, garbage);
		store_delete(&meta->store, &key);
		meta->state->garbage--;
	}
	return OK;
}

bool meta_garbage_waits(struct meta *meta, uint64_t id, uint64_t *servers, size_t *count)
{
	struct key key = key_of(KEY_GARBAGE, id);
	const Granary__Garbage *garbage = store_message(&meta->store, &key, &granary__garbage__descriptor);
	*count = 0;
	for (size_t i = 0; garbage && i < garbage->n_servers && *count < SHARDS_MAX; i++)
		servers[(*count)++] = garbage->servers[i];
	return garbage != NULL;
}

static bool copy_is_useless(const Granary__Chunk *chunk, uint64_t server, uint64_t version)
{
	if (!chunk)
		return true;
	for (size_t i = 0; i < chunk->n_replicas; i++)
		if (chunk->replicas[i] == server)
			return false;
	for (size_t i = 0; i < chunk->n_stale; i++) /* deleted when it is not wanted any more */
		if (chunk->stale[i] == server)
			return false;
	return version < chunk->version;
}

/* Looked at again here: what is a member, or has a record, by now is left alone; and the version is said, since the server may join
 * before it hears of this. */
enum err op_copy_remove(struct context *context, const Granary__CopyRemove *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	if (op->server == 0 || op->n_chunks != op->n_versions)
		return ERR_INVALID;
	for (size_t i = 0; i < op->n_chunks; i++)
		if (copy_is_useless(chunk_get(meta, op->chunks[i]), op->server, op->versions[i]))
			garbage_add_copies(meta, op->chunks[i], op->versions[i], false, &op->server, 1);
	return OK;
}
