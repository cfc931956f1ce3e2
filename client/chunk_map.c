#include "client/chunk_map.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"

struct chunk_place {
	uint32_t index;
	uint64_t hole_until_ms;
	struct location location;
	UT_hash_handle hh;
};

struct pack {
	uint64_t id;
	struct location location;
	UT_hash_handle hh;
};

struct waiter {
	struct waiter *next;
	file_io_fn *done;
	void *arg;
};

/* A question to the master about chunks of one file. */
struct fetch {
	struct fetch *previous, *next;
	struct client *client;
	struct chunk_map *map; /* NULL: of this pack, for the inode `generation` */
	uint64_t pack;
	uint64_t generation;
	uint32_t first, count;
	bool allocate; /* AllocateChunk; else ChunkMap */
	uint64_t sent_ms;
	bool writes;   /* for a change, which makes the file's content be in chunks whatever it is now */
	struct waiter *waiters;
};

struct failure {
	uint64_t chunk;
	struct client *client;
	struct failure_waiter *waiters;
	UT_hash_handle hh;
};

struct failure_waiter {
	struct failure_waiter *next;
	struct place place;
	file_io_fn *done;
	void *arg;
};

void chunk_map_init(struct chunk_map *map, struct client *client, uint64_t inode)
{
	*map = (struct chunk_map){.client = client, .inode = inode};
}

void chunk_map_clear(struct chunk_map *map)
{
	struct chunk_place *place, *next;
	map->generation++;
	map->exists_below = 0;
	HASH_ITER(hh, map->table, place, next)
	{
		HASH_DEL(map->table, place);
		free(place);
	}
}

void chunk_map_deinit(struct chunk_map *map)
{
	check(!map->fetches);
	chunk_map_clear(map);
	free(map->written);
	free(map->written_at);
}

static struct chunk_place *map_find(struct chunk_map *map, uint32_t index)
{
	struct chunk_place *place;
	HASH_FIND(hh, map->table, &index, sizeof index, place);
	return place;
}

static struct chunk_place *map_put(struct chunk_map *map, uint32_t index)
{
	struct chunk_place *place = map_find(map, index);
	if (place)
		return place;
	if (HASH_COUNT(map->table) >= CLIENT_LOCATIONS_PER_FILE_MAX) {
		struct chunk_place *oldest = map->table;
		HASH_DEL(map->table, oldest);
		free(oldest);
	}
	place = mem_zero(1, sizeof *place);
	place->index = index;
	HASH_ADD(hh, map->table, index, sizeof place->index, place);
	return place;
}

static struct pack *pack_find(struct client *client, uint64_t id)
{
	struct pack *pack;
	HASH_FIND(hh, client->packs.table, &id, sizeof id, pack);
	return pack;
}

static void pack_put(struct client *client, uint64_t id, const struct location *location)
{
	struct pack *pack = pack_find(client, id);
	if (pack && pack->location.version > location->version)
		return;
	if (!pack) {
		if (HASH_COUNT(client->packs.table) >= CLIENT_PACKS_MAX) {
			struct pack *oldest = client->packs.table;
			HASH_DEL(client->packs.table, oldest);
			free(oldest);
		}
		pack = mem_zero(1, sizeof *pack);
		pack->id = id;
		HASH_ADD(hh, client->packs.table, id, sizeof pack->id, pack);
	}
	bool written = location->written || pack->location.written;
	pack->location = *location;
	pack->location.written = written;
}

void packs_learn(struct client *client, const Granary__MetaReply *reply)
{
	for (size_t i = 0; i < reply->n_results; i++)
		for (size_t j = 0; j < reply->results[i]->n_chunks; j++) {
			const Granary__ChunkLocation *message = reply->results[i]->chunks[j];
			struct location location;
			if (message->kind == GRANARY__CHUNK_KIND__CHUNK_PACK &&
			    location_parse(&client->servers, message, &location) == OK)
				pack_put(client, location.chunk, &location);
		}
}

void packs_deinit(struct client *client)
{
	struct pack *pack, *next;
	HASH_ITER(hh, client->packs.table, pack, next)
	{
		HASH_DEL(client->packs.table, pack);
		free(pack);
	}
}

static bool is_to_be_named(const struct chunk_map *map, uint64_t chunk)
{
	for (size_t i = map->written_count; i > 0; i--) {
		if (map->written[i - 1] == chunk)
			return true;
	}
	return false;
}

static void map_note_written(struct chunk_map *map, uint32_t index, uint64_t chunk)
{
	struct chunk_place *place = map_find(map, index);
	if (place && place->location.chunk == chunk && place->location.written)
		return;
	if (is_to_be_named(map, chunk))
		return;
	if (map->written_count == CLIENT_LOCATIONS_PER_FILE_MAX) /* no commit gets through */
		return;
	if (map->written_count == map->written_capacity) {
		map->written_capacity = map->written_capacity ? 2 * map->written_capacity : 4;
		map->written = mem_resize(map->written, map->written_capacity * sizeof(*map->written));
		map->written_at = mem_resize(map->written_at, map->written_capacity * sizeof(*map->written_at));
	}
	map->written_at[map->written_count] = index;
	map->written[map->written_count++] = chunk;
	if (place && place->location.chunk == chunk)
		place->location.written = true;
}

size_t chunk_map_written_send(struct chunk_map *map, uint64_t **chunks)
{
	map->written_sent = map->written_count < CHUNKS_WRITTEN_MAX ? map->written_count : CHUNKS_WRITTEN_MAX;
	*chunks = map->written;
	return map->written_sent;
}

void chunk_map_written_known(struct chunk_map *map)
{
	size_t sent = map->written_sent;
	map->written_sent = 0;
	map->written_count -= sent;
	for (size_t i = 0; i < sent; i++) {
		struct chunk_place *place = map_find(map, map->written_at[i]);
		if (place && place->location.chunk == map->written[i])
			place->location.written = true;
	}
	for (size_t i = 0; i < map->written_count; i++) {
		map->written[i] = map->written[sent + i];
		map->written_at[i] = map->written_at[sent + i];
	}
}

void chunk_map_forget_holes(struct chunk_map *map)
{
	struct chunk_place *place, *next;
	HASH_ITER(hh, map->table, place, next)
	{
		if (!location_is_hole(&place->location))
			continue;
		HASH_DEL(map->table, place);
		free(place);
	}
}

const struct location *place_find(struct client *client, const struct place *place)
{
	if (!place->map) {
		struct pack *pack = pack_find(client, place->pack);
		return pack ? &pack->location : NULL;
	}
	struct chunk_place *found = map_find(place->map, place->index);
	if (!found)
		return NULL;
	if (location_is_hole(&found->location) && (place->allocate || loop_now_ms(client->loop) >= found->hole_until_ms))
		return NULL;
	return &found->location;
}

void place_forget(struct client *client, const struct place *place)
{
	if (place->map) {
		struct chunk_place *found = map_find(place->map, place->index);
		if (found) {
			HASH_DEL(place->map->table, found);
			free(found);
		}
		return;
	}
	struct pack *pack = pack_find(client, place->pack);
	if (pack) {
		HASH_DEL(client->packs.table, pack);
		free(pack);
	}
}

void place_set(struct client *client, const struct place *place, const struct location *location)
{
	if (!place->map) {
		pack_put(client, place->pack, location);
		return;
	}
	struct chunk_place *found = map_put(place->map, place->index);
	bool written = location->written || (found->location.chunk == location->chunk && found->location.written) ||
		       is_to_be_named(place->map, location->chunk);
	if (found->location.chunk != location->chunk || found->location.version <= location->version)
		found->location = *location;
	found->location.written = written;
}

void place_note_written(struct client *client, const struct place *place, uint64_t chunk)
{
	struct pack *pack = place->map ? NULL : pack_find(client, place->pack);
	if (place->map)
		map_note_written(place->map, place->index, chunk);
	else if (pack)
		pack->location.written = true;
}

/* ---- questions to the master ---- */

/* Made since we last looked, or before: by another, who may not have told the master yet that it has content. */
static bool is_news(struct chunk_map *map, uint32_t index)
{
	const struct chunk_place *place = map_find(map, index);
	return !place || location_is_hole(&place->location);
}

static void fetch_end(struct fetch *fetch, enum err err)
{
	struct waiter *waiter = fetch->waiters;
	if (fetch->map)
		DL_DELETE2(fetch->map->fetches, fetch, previous, next);
	free(fetch);
	while (waiter) {
		struct waiter *next = waiter->next;
		waiter->done(waiter->arg, err);
		free(waiter);
		waiter = next;
	}
}

static enum err fetch_take(struct fetch *fetch, const Granary__MetaResult *result, const Granary__Inode *attr)
{
	struct chunk_map *map = fetch->map;
	struct client *client = fetch->client;
	if (result->error)
		return err_from_wire(result->error);
	if (fetch->allocate && result->n_chunks != 1)
		return ERR_PROTOCOL;
	if (attr && !fetch->writes && attr->layout != GRANARY__LAYOUT__LAYOUT_CHUNKS)
		return ERR_STALE_HANDLE; /* given other content by another client */
	for (size_t i = 0; i < result->n_chunks; i++) {
		struct location location;
		enum err err = location_parse(&client->servers, result->chunks[i], &location);
		if (err)
			return err;
		uint32_t index = fetch->allocate ? fetch->first : result->chunks[i]->index;
		if (index < fetch->first || index - fetch->first >= fetch->count)
			return ERR_PROTOCOL;
		map->found = map->found || (!fetch->allocate && is_news(map, index));
		place_set(client, &(struct place){.map = map, .index = index}, &location);
	}
	if (fetch->allocate) {
		map->allocated = true;
		return OK;
	}
	for (uint32_t i = 0; i < fetch->count; i++) {
		struct chunk_place *place = map_put(map, fetch->first + i);
		if (location_is_hole(&place->location)) /* a hole, newly found or still */
			place->hole_until_ms = fetch->sent_ms + LEASE_GRANTED_MS(CACHE_LEASE_MS); /* that of the attributes */
	}
	return OK;
}

/* The file's content is somewhere else: another, or moved. */
static bool is_elsewhere(const struct fetch *fetch, const Granary__Inode *attr)
{
	return attr && (attr->layout != GRANARY__LAYOUT__LAYOUT_BLOB || attr->pack != fetch->pack);
}

static void fetch_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct fetch *fetch = arg;
	(void)text;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	if (err == OK && reply->n_results != (fetch->map && !fetch->allocate ? 2 : 1))
		err = ERR_PROTOCOL;
	if (err == OK && !fetch->map) {
		packs_learn(fetch->client, reply);
		err = reply->results[0]->error ? err_from_wire(reply->results[0]->error) : OK;
		if (err == OK && is_elsewhere(fetch, reply->results[0]->attr))
			err = ERR_STALE_HANDLE;
	} else if (err == OK && fetch->generation == fetch->map->generation)
		err = fetch_take(fetch, reply->results[0], reply->n_results == 2 ? reply->results[1]->attr : NULL);
	fetch_end(fetch, err);
}

static void fetch_send(struct fetch *fetch)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT, attr_op = GRANARY__META_OP__INIT;
	Granary__ChunkMap chunk_map = GRANARY__CHUNK_MAP__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__AllocateChunk allocate = GRANARY__ALLOCATE_CHUNK__INIT;
	if (fetch->allocate) {
		allocate.inode = fetch->map->inode;
		allocate.index = fetch->first;
		op.op_case = GRANARY__META_OP__OP_ALLOCATE_CHUNK;
		op.allocate_chunk = &allocate;
	} else {
		chunk_map.inode = fetch->map->inode;
		chunk_map.first = fetch->first;
		chunk_map.count = fetch->count;
		op.op_case = GRANARY__META_OP__OP_CHUNK_MAP;
		op.chunk_map = &chunk_map;
		getattr.inode = fetch->map->inode;
		attr_op.op_case = GRANARY__META_OP__OP_GETATTR;
		attr_op.getattr = &getattr;
	}
	fetch->sent_ms = loop_now_ms(fetch->client->loop);
	session_meta(fetch->client->session, (Granary__MetaOp *[]){&op, &attr_op}, fetch->allocate ? 1 : 2, SESSION_WANTS_NOTHING,
		     fetch_answered, fetch);
}

static void fetch_wait(struct fetch *fetch, file_io_fn *done, void *arg)
{
	struct waiter *waiter = mem_zero(1, sizeof *waiter);
	waiter->done = done;
	waiter->arg = arg;
	LL_APPEND(fetch->waiters, waiter);
}

static void pack_fetch_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct fetch *fetch = arg;
	/* The Open counted for the leader: whether the inode is really open is told by the keepalive. */
	session_closed(fetch->client->session, fetch->generation);
	fetch_answered(arg, err, message, text);
}

/* The location of a pack comes with an Open of one of its blobs. */
static void pack_fetch(struct client *client, const struct place *place, file_io_fn *done, void *arg)
{
	struct fetch *fetch = mem_zero(1, sizeof *fetch);
	fetch->client = client;
	fetch->generation = place->inode;
	fetch->pack = place->pack;
	fetch_wait(fetch, done, arg);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Open open = GRANARY__OPEN__INIT;
	open.inode = place->inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &open;
	session_opened(client->session, place->inode);
	session_meta(client->session, (Granary__MetaOp *[]){&op}, 1, SESSION_WANTS_NOTHING, pack_fetch_answered, fetch);
}

void place_fetch(struct client *client, const struct place *place, file_io_fn *done, void *arg)
{
	if (!place->map) {
		pack_fetch(client, place, done, arg);
		return;
	}
	struct chunk_map *map = place->map;
	struct chunk_place *found = map_find(map, place->index);
	bool missing = place->index >= map->exists_below || (found && location_is_hole(&found->location));
	bool allocate = place->allocate && missing;
	struct fetch *fetch;
	DL_FOREACH(map->fetches, fetch)
	if (fetch->generation == map->generation && fetch->allocate == allocate && fetch->writes == place->allocate &&
	    place->index >= fetch->first && place->index - fetch->first < fetch->count) {
		fetch_wait(fetch, done, arg);
		return;
	}
	fetch = mem_zero(1, sizeof *fetch);
	fetch->client = client;
	fetch->map = map;
	fetch->generation = map->generation;
	fetch->allocate = allocate;
	fetch->writes = place->allocate;
	fetch->first = place->index;
	fetch->count = allocate || place->index >= map->exists_below ? 1 : map->exists_below - place->index;
	if (fetch->count > CLIENT_MAP_CHUNKS)
		fetch->count = CLIENT_MAP_CHUNKS;
	DL_APPEND2(map->fetches, fetch, previous, next);
	fetch_wait(fetch, done, arg);
	fetch_send(fetch);
}

/* ---- failures ---- */

static void failure_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct failure *failure = arg;
	struct client *client = failure->client;
	struct failure_waiter *waiters = failure->waiters, *waiter, *next;
	struct location location;
	(void)text;
	if (err == OK)
		err = location_parse(&client->servers, (const Granary__ChunkLocation *)message, &location);
	if (err == OK && location.chunk != failure->chunk)
		err = ERR_PROTOCOL;
	HASH_DEL(client->failures, failure);
	free(failure);
	if (err == OK)
		LL_FOREACH (waiters, waiter)
			place_set(client, &waiter->place, &location);
	LL_FOREACH_SAFE (waiters, waiter, next) {
		waiter->done(waiter->arg, err);
		free(waiter);
	}
}

/* True: the question is to be sent; false: one about this chunk is under way. */
static bool failure_wait(struct client *client, const struct place *place, uint64_t chunk, file_io_fn *done, void *arg,
			 struct failure **out)
{
	struct failure *failure;
	HASH_FIND(hh, client->failures, &chunk, sizeof chunk, failure);
	bool ask = !failure;
	if (ask) {
		failure = mem_zero(1, sizeof *failure);
		failure->chunk = chunk;
		failure->client = client;
		HASH_ADD(hh, client->failures, chunk, sizeof failure->chunk, failure);
	}
	struct failure_waiter *waiter = mem_zero(1, sizeof *waiter);
	waiter->place = *place;
	waiter->done = done;
	waiter->arg = arg;
	LL_APPEND(failure->waiters, waiter);
	*out = failure;
	return ask;
}

void place_warm(struct client *client, const struct place *place, uint64_t chunk, file_io_fn *done, void *arg)
{
	struct failure *failure;
	Granary__ChunkWarm message = GRANARY__CHUNK_WARM__INIT;
	message.chunk = chunk;
	if (failure_wait(client, place, chunk, done, arg, &failure))
		session_ask(client->session, MESSAGE_CHUNK_WARM, &message.base, true, failure_answered, failure);
}

void place_report(struct client *client, const struct place *place, uint64_t chunk, uint64_t version, uint64_t server,
		  file_io_fn *done, void *arg)
{
	struct failure *failure;
	if (!failure_wait(client, place, chunk, done, arg, &failure))
		return;
	Granary__ChunkFailure message = GRANARY__CHUNK_FAILURE__INIT;
	message.chunk = chunk;
	message.version = version;
	message.server = server;
	session_ask(client->session, MESSAGE_CHUNK_FAILURE, &message.base, true, failure_answered, failure);
}

void place_unreport(struct client *client, uint64_t chunk, const void *arg)
{
	struct failure *failure;
	struct failure_waiter *waiter, *next;
	HASH_FIND(hh, client->failures, &chunk, sizeof chunk, failure);
	if (!failure)
		return;
	LL_FOREACH_SAFE (failure->waiters, waiter, next) {
		if (waiter->arg != arg)
			continue;
		LL_DELETE(failure->waiters, waiter);
		free(waiter);
	}
}

void failures_deinit(struct client *client)
{
	check(!client->failures); /* their calls were ended with the session */
}
