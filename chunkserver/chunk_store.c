/* The store itself; see chunk_store.h. */
#include "chunkserver/chunk_store_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/chunk_sync.h"
#include "chunkserver/disk_watch.h"
#include "chunkserver/store_start.h"
#include "common/base/check.h"
#include "common/sys/log.h"

#define SPACE_ASK_MS 10u
#define RELIST_MS 10000u

/* ---------------------------------------------------------------- start and end */

static bool note_mark(void *arg, uint64_t chunk)
{
	struct chunk_store *store = arg;
	if (store->marked_count == store->marked_capacity) {
		store->marked_capacity = store->marked_capacity == 0 ? 64 : store->marked_capacity * 2;
		store->marked = mem_resize(store->marked, store->marked_capacity * sizeof(*store->marked));
	}
	store->marked[store->marked_count++] = chunk;
	return true;
}

static bool note_old_mark(void *arg, uint64_t chunk)
{
	struct chunk_store *store = arg;
	uint64_t boot = 0;
	bool name_new = false;
	return !chunk_index_marked(&store->index, chunk, &boot, &name_new) || boot == store->boot || note_mark(store, chunk);
}

static bool count_mark(void *arg, uint64_t chunk)
{
	struct chunk_store *store = arg;
	uint64_t boot = 0;
	bool name_new = false;
	Granary__ChunkLocation *location = NULL;
	if (!chunk_index_marked(&store->index, chunk, &boot, &name_new) || boot == store->boot)
		return true;
	/* One that is being filled, or is not served, is no copy yet, or no more. That it is complete the index may not know. */
	bool counts = chunk_index_get(&store->index, chunk, &location) != OK || location->copy != COPY_RETIRED;
	const struct chunk *open = chunk_store_find(store, chunk);
	if (open != NULL && open->state == CHUNK_READY)
		counts = open->copy == COPY_COMPLETE;
	if (location != NULL)
		message_free(&location->base);
	store->uncertain += counts;
	return true;
}

static void count_uncertain(struct chunk_store *store)
{
	store->uncertain = 0;
	store->uncertain_changed = false;
	if (chunk_index_each_mark(&store->index, count_mark, store) != OK)
		store->uncertain_changed = true; /* again, then */
}

static enum err open_notes(struct chunk_store *store)
{
	char *intents = store_files_join(&store->files, "intents");
	char *writes = store_files_join(&store->files, "writes");
	enum err err = intents_open(store->loop, intents, &store->intents);
	if (err == OK)
		err = write_log_open(store->loop, writes, store->boot, &store->writes);
	free(intents);
	free(writes);
	return err;
}

enum err chunk_store_open(struct loop *loop, const struct chunk_store_options *options,
			  const struct chunk_store_events *events, void *arg, struct chunk_store **out)
{
	struct chunk_store *store = mem_zero(1, sizeof(*store));
	*out = NULL;
	store->loop = loop;
	store->events = events;
	store->arg = arg;
	store->forgotten_ms = op_ring_now(loop); /* of a former life nothing is known */
	store->reserved_bytes = options->reserved_bytes != 0 ? options->reserved_bytes : DISK_RESERVED_BYTES;
	enum err err = options->must_exist ? store_files_must_exist(loop, options->root) : OK;
	if (err == OK)
		err = store_files_open(loop, options->root, &store->files);
	if (err != OK) {
		free(store);
		return err;
	}
	store->boot = disk_watch_boot(store, options->suspect);
	err = open_notes(store);
	if (err == OK)
		err = store_start(&store->files, &store->index, store->boot);
	if (err == OK)
		err = chunk_index_each_mark(&store->index, note_mark, store);
	if (err == OK)
		err = chunk_index_each_damage(&store->index, note_mark, store);
	if (err != OK) {
		chunk_index_close(&store->index);
		intents_close(&store->intents);
		write_log_close(&store->writes);
		store_files_close(&store->files);
		free(store->marked);
		free(store);
		return err;
	}
	chunk_store_refresh_space(store);
	count_uncertain(store);
	if (store->marked_count > 0)
		log_warn("dirty_chunks_found", "count=%zu", store->marked_count);
	*out = store;
	return OK;
}

void chunk_store_forget(struct chunk *chunk)
{
	struct chunk_store *store = chunk->store;
	store->events->closing(store->arg, chunk);
	chunk_store_set_lost(chunk, 0);
	if (store->checking == chunk)
		store->checking = NULL;
	HASH_DEL(store->chunks, chunk);
	DL_DELETE2(store->oldest, chunk, older, newer);
	store->open_count--;
	chunk_file_close(&chunk->file);
	pack_close(&chunk->pack);
	uint64_t newest = op_ring_newest(&chunk->ring);
	if (store->forgotten_ms < newest)
		store->forgotten_ms = newest;
	op_ring_deinit(&chunk->ring);
	if (chunk->chain != NULL)
		message_free(&chunk->chain->base);
	free(chunk->damaged);
	free(chunk->torn);
	free(chunk->slot_damage);
	buf_deinit(&chunk->bad_slots);
	free(chunk->path);
	free(chunk);
}

bool chunk_is_unsynced(const struct chunk *chunk)
{
	return chunk->writes_begun > chunk->writes_synced;
}

void chunk_store_save_slots(struct chunk *chunk)
{
	struct buf table = { 0 };
	pack_table_write(&chunk->pack, &table);
	enum err err = chunk_index_put_slots(&chunk->store->index, chunk->id, buf_slice(&table));
	if (err != OK) /* the others are asked in its place */
		log_warn("slot_table_not_saved", "pack=%016" PRIx64 " error=%s", chunk->id, err_name(err));
	buf_deinit(&table);
}

/* Synced and idle: the mark can go. */
static void clear_mark(struct chunk *chunk)
{
	/* What may be out of date or torn is looked at again by the next life. */
	if (chunk->mark != MARK_SET || chunk->uncertain || chunk->torn != NULL || chunk->store->failed)
		return;
	if (chunk->kind == KIND_PACK)
		chunk_store_save_slots(chunk);
	if (chunk_index_unmark(&chunk->store->index, chunk->id) == OK)
		chunk->mark = MARK_NONE;
}

static void close_chunk(struct chunk *chunk)
{
	check(chunk->uses == 0 && chunk->first_op == NULL);
	if (chunk->state == CHUNK_READY && !chunk_is_unsynced(chunk))
		clear_mark(chunk);
	chunk_store_forget(chunk);
}

static void close_all(struct chunk_store *store)
{
	struct chunk *chunk, *next;
	DL_FOREACH_SAFE2 (store->oldest, chunk, next, newer) {
		struct chunk_sync_job job;
		if (chunk->state == CHUNK_READY && chunk_is_unsynced(chunk) && !store->failed && chunk_sync_begin(chunk, &job)) {
			if (chunk_sync_run(&job) == OK)
				log_debug("synced_at_exit", "chunk=%016" PRIx64, chunk->id);
			chunk_sync_end(&job);
		}
		close_chunk(chunk);
	}
	chunk_index_close(&store->index);
	intents_close(&store->intents);
	write_log_close(&store->writes);
	store_files_close(&store->files);
	free(store->marked);
	void (*closed)(void *arg) = store->closed;
	void *arg = store->closed_arg;
	free(store);
	closed(arg);
}

void chunk_store_close(struct chunk_store *store, void (*closed)(void *arg), void *arg)
{
	store->closed = closed;
	store->closed_arg = arg;
	store->closing = true;
	if (store->works == 0)
		close_all(store);
	else
		store->failed = true; /* nothing new is begun */
}

static void work_returned(struct work *work)
{
	struct chunk_store *store = work->of_owner.owner;
	disk_health_end(&store->health, work, loop_now_us(store->loop));
	work->done = work->of_owner.done;
	work->done(work);
}

void chunk_store_submit(struct chunk_store *store, struct work_lane *lane, struct work *work)
{
	store->works++;
	work->of_owner.owner = store;
	work->of_owner.done = work->done;
	work->done = work_returned;
	disk_health_begin(&store->health, work, loop_now_us(store->loop));
	work_submit(store->loop, lane, work);
}

static void abandon_all(struct chunk_store *store)
{
	struct chunk *chunk, *next;
	DL_FOREACH_SAFE2 (store->oldest, chunk, next, newer)
		store->events->abandon(store->arg, chunk);
}

void chunk_store_work_end(struct chunk_store *store)
{
	check(store->works > 0);
	store->works--;
	if (store->works > 0 || !store->closing)
		return;
	abandon_all(store);
	close_all(store);
}

bool chunk_store_closing(const struct chunk_store *store)
{
	return store->closing;
}

bool chunk_store_busy(const struct chunk_store *store)
{
	if (store->works > 0)
		return true;
	const struct chunk *chunk;
	DL_FOREACH2 (store->oldest, chunk, newer) {
		if (chunk->uses > 0)
			return true;
	}
	return false;
}

struct loop *chunk_store_loop(struct chunk_store *store)
{
	return store->loop;
}

struct store_files *chunk_store_files(struct chunk_store *store)
{
	return &store->files;
}

struct intents *chunk_store_intents(struct chunk_store *store)
{
	return &store->intents;
}

struct write_log *chunk_store_writes(struct chunk_store *store)
{
	return &store->writes;
}

struct chunk_index *chunk_store_index(struct chunk_store *store)
{
	return &store->index;
}

/* ---------------------------------------------------------------- failure and space */

void chunk_store_fail(struct chunk_store *store, const char *operation, enum err err)
{
	if (store->failed)
		return;
	log_error("store_failed", "operation=%s error=%s", operation, err_name(err));
	/* What is open stays open: only a folder can be missing. */
	const char *missing = err == ERR_NOT_FOUND && strcmp(operation, "data folder") != 0 ? "data folder, " : "";
	snprintf(store->reason, sizeof(store->reason), "%s%s: %s", missing, operation, err_name(err));
	store->failed = true;
	if (!store->closing)
		disk_watch_note_failure(store);
}

bool chunk_store_is_hung(const struct chunk_store *store)
{
	return disk_health_is_hung(&store->health, loop_now_us(store->loop));
}

void chunk_store_set_idle(struct chunk_store *store, bool idle)
{
	store->idle = idle;
}

bool chunk_store_failed(const struct chunk_store *store)
{
	return store->failed;
}

void chunk_store_refresh_space(struct chunk_store *store)
{
	struct disk_space space;
	store->space_asked_ms = loop_now_ms(store->loop);
	if (disk_space(store->loop, store->files.root, &space) == OK)
		store->space = space;
}

static bool fits(const struct chunk_store *store, uint64_t bytes, uint64_t reserved)
{
	return store->space.bytes_free >= reserved && store->space.bytes_free - reserved >= bytes;
}

static enum err admit(struct chunk_store *store, uint64_t bytes, uint64_t reserved)
{
	if (store->failed)
		return ERR_STORE_FAILED;
	/* What was admitted may have been overwriting: ask before refusing, though not for every request. */
	if (!fits(store, bytes, reserved) && loop_now_ms(store->loop) - store->space_asked_ms >= SPACE_ASK_MS)
		chunk_store_refresh_space(store);
	if (!fits(store, bytes, reserved))
		return ERR_NO_SPACE;
	store->space.bytes_free -= bytes;
	return OK;
}

enum err chunk_store_admit(struct chunk_store *store, uint64_t bytes)
{
	return admit(store, bytes, store->reserved_bytes);
}

enum err chunk_store_admit_repair(struct chunk_store *store, uint64_t bytes)
{
	return admit(store, bytes, store->reserved_bytes / 2);
}

void chunk_store_set_reserved(struct chunk_store *store, uint64_t bytes)
{
	store->reserved_bytes = bytes;
}

void chunk_store_counts(const struct chunk_store *store, struct chunk_store_counts *out)
{
	uint64_t reserved = store->reserved_bytes;
	*out = (struct chunk_store_counts){
		.chunks = store->index.chunks,
		.chunks_open = store->open_count,
		.uncertain = store->uncertain,
		.latency_us = disk_health_latency_us(&store->health, loop_now_us(store->loop)),
		.reason = store->reason,
		.damage_found = store->damage_found,
		.damage_repaired = store->damage_repaired,
		.damage_lost = store->damage_lost,
		.bytes_total = store->space.bytes_total,
		.bytes_free = store->space.bytes_free > reserved ? store->space.bytes_free - reserved : 0,
	};
}

/* Of the half of the descriptors that connections do not take: two for each chunk, and twice as many chunks may be in use. */
static uint32_t open_max(const struct chunk_store *store)
{
	size_t descriptors = loop_descriptors_max(store->loop);
	size_t chunks = descriptors > 2 * DESCRIPTORS_RESERVED ? (descriptors - DESCRIPTORS_RESERVED) / 8 : 4;
	return chunks < CHUNKS_OPEN_MAX ? (uint32_t)chunks : CHUNKS_OPEN_MAX;
}

/* Closes the one not used for the longest time, or has it synced for next time. */
static enum err make_room(struct chunk_store *store)
{
	struct chunk *chunk, *next;
	if (store->open_count < open_max(store))
		return OK;
	unsigned looked = 0;
	DL_FOREACH_SAFE2 (store->oldest, chunk, next, newer) {
		if (chunk->uses > 0 || chunk->lost > 0)
			continue;
		if (!chunk_is_unsynced(chunk)) {
			close_chunk(chunk);
			return OK;
		}
		if (!store->failed && !chunk->sync_running && looked++ < 4)
			chunk_sync(chunk, NULL, NULL);
	}
	return store->open_count < 2 * open_max(store) ? OK : ERR_BUSY;
}

enum err chunk_store_get(struct chunk_store *store, uint64_t id, const struct chunk_create *create, struct chunk **out)
{
	Granary__ChunkLocation *location = NULL;
	*out = chunk_store_find(store, id);
	if (*out != NULL)
		return (*out)->state == CHUNK_DELETED ? ERR_NO_CHUNK : OK;
	enum err err = make_room(store);
	if (err == OK)
		err = chunk_index_get(&store->index, id, &location);
	if (err == OK)
		chunk_open_start(store, location, out);
	else if (err == ERR_NOT_FOUND)
		err = create == NULL ? ERR_NO_CHUNK : chunk_open_create(store, id, create, out);
	return err;
}

struct chunk *chunk_store_find(struct chunk_store *store, uint64_t id)
{
	struct chunk *chunk = NULL;
	HASH_FIND(hh, store->chunks, &id, sizeof(id), chunk);
	if (chunk != NULL && chunk->newer != NULL) {
		DL_DELETE2(store->oldest, chunk, older, newer);
		DL_APPEND2(store->oldest, chunk, older, newer);
	}
	return chunk;
}

void chunk_use(struct chunk *chunk)
{
	chunk->uses++;
}

void chunk_unuse(struct chunk *chunk)
{
	check(chunk->uses > 0);
	chunk->uses--;
}

/* ---------------------------------------------------------------- marks, versions, damage */

enum err chunk_store_mark(struct chunk *chunk)
{
	chunk->store->uncertain_changed = true;
	/* What is uncertain stays so, whatever is written meanwhile. */
	bool lost_power = chunk->uncertain && (chunk->kind == KIND_REPLICATED || chunk->lost_power);
	uint64_t boot = chunk->blank ? CHUNK_BOOT_BLANK : lost_power ? CHUNK_BOOT_UNKNOWN : chunk->store->boot;
	/* Of what was lost after it had been synced a new file says nothing. */
	bool name_new = chunk->name_new && (!chunk->uncertain || chunk->never_synced);
	return chunk_index_mark(&chunk->store->index, chunk->id, boot, chunk_mark_flags(name_new, chunk->kind));
}

void chunk_store_drop_mark(struct chunk_store *store, uint64_t id)
{
	Granary__ChunkLocation *location = NULL;
	enum err err = chunk_store_find(store, id) != NULL ? ERR_BUSY : chunk_index_get(&store->index, id, &location);
	if (location != NULL)
		message_free(&location->base);
	if (err == ERR_NOT_FOUND && chunk_index_unmark(&store->index, id) == OK)
		store->uncertain_changed = true;
}

enum err chunk_store_sync_index(struct chunk_store *store)
{
	return chunk_index_sync(&store->index);
}

void chunk_set_chain(struct chunk *chunk, const Granary__ChunkLocation *chain)
{
	ProtobufCMessage *copy = chain == NULL ? NULL : message_copy(&chain->base);
	if (chunk->chain != NULL)
		message_free(&chunk->chain->base);
	chunk->chain = (Granary__ChunkLocation *)copy;
}

void chunk_store_save(struct chunk *chunk)
{
	/* The index is never ahead of the file: it follows when that says so. (Or never, if that could not be written.) */
	uint64_t version = chunk->kind == KIND_PACK ? chunk->pack.version : chunk->file.version;
	if (chunk->adopting || version < chunk->version)
		return;
	struct chunk_index *index = &chunk->store->index;
	chunk->store->uncertain_changed = chunk->store->uncertain_changed || chunk->uncertain;
	Granary__ChunkLocation *known = NULL;
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	if (chunk->chain != NULL)
		location = *chunk->chain;
	location.chunk = chunk->id;
	location.version = chunk->version;
	location.copy = chunk->copy;
	location.written = location.written || chunk->written;
	location.kind = chunk->kind == KIND_PACK ? GRANARY__CHUNK_KIND__CHUNK_PACK : GRANARY__CHUNK_KIND__CHUNK_REPLICATED;
	bool is_new = chunk_index_get(index, chunk->id, &known) == ERR_NOT_FOUND;
	if (known != NULL)
		message_free(&known->base);
	enum err err = chunk_index_put(index, &location, is_new);
	if (err != OK)
		chunk_store_fail(chunk->store, "index", err);
}

enum err chunk_store_each(struct chunk_store *store, uint64_t after,
			  bool (*fn)(void *arg, const Granary__ChunkLocation *), void *arg)
{
	return chunk_index_each(&store->index, after, fn, arg);
}

void chunk_store_each_open(struct chunk_store *store, void (*fn)(void *arg, struct chunk *chunk), void *arg)
{
	struct chunk *chunk, *next;
	DL_FOREACH_SAFE2 (store->oldest, chunk, next, newer)
		fn(arg, chunk);
}

/* ---------------------------------------------------------------- damage */

void chunk_store_count_damage(struct chunk_store *store, uint64_t found, uint64_t repaired)
{
	store->damage_found += found;
	store->damage_repaired += repaired;
}

void chunk_store_set_lost(struct chunk *chunk, uint32_t blocks)
{
	chunk->store->damage_lost += blocks;
	chunk->store->damage_lost -= chunk->lost;
	chunk->lost = blocks;
}

void chunk_store_set_misplaced(struct chunk *chunk)
{
	struct chunk_store *store = chunk->store;
	if (chunk->misplaced)
		return;
	log_error("chunk_misplaced", "chunk=%016" PRIx64, chunk->id);
	chunk_store_count_damage(store, 1, 0);
	chunk->misplaced = chunk->uncertain = chunk->blank = true;
	if (chunk_store_mark(chunk) != OK)
		chunk_store_fail(store, "mark", ERR_IO);
	note_mark(store, chunk->id);
}

void chunk_store_tell_damaged(struct chunk *chunk)
{
	if (chunk->state == CHUNK_READY)
		chunk->store->events->damaged(chunk->store->arg, chunk);
}

/* ---------------------------------------------------------------- in the background */

/* One chunk of a former life at a time is opened, which checks it; the rest is as for any idle chunk. */
static void check_next_marked(struct chunk_store *store)
{
	if (store->checking != NULL && (store->checking->state == CHUNK_OPENING || store->checking->sync_running))
		return;
	store->checking = NULL;
	while (store->marked_count > 0 && store->checking == NULL) {
		uint64_t id = store->marked[store->marked_count - 1];
		const struct chunk *open = chunk_store_find(store, id);
		if (open != NULL && open->misplaced)
			return;
		enum err err = chunk_store_get(store, id, NULL, &store->checking);
		if (err == ERR_BUSY)
			return;
		store->marked_count--;
		/* Marked and not made before the process ended: nothing of it was ever acknowledged. If it was the power that went,
		 * there may have been something. */
		uint64_t boot = 0;
		bool name_new = false;
		if (err == ERR_NO_CHUNK && chunk_index_marked(&store->index, id, &boot, &name_new)) {
			if (boot != store->boot)
				store->events->missing(store->arg, id);
			else if (chunk_index_unmark(&store->index, id) != OK)
				return;
		}
	}
}

void chunk_store_tick(struct chunk_store *store)
{
	struct chunk *chunk, *next;
	uint64_t now = loop_now_ms(store->loop);
	if (chunk_store_is_hung(store))
		return; /* whoever asks it now hangs, too */
	chunk_store_refresh_space(store);
	if (store->failed)
		return;
	disk_watch_tick(store);
	if (store->uncertain_changed || store->uncertain > 0)
		count_uncertain(store);
	DL_FOREACH_SAFE2 (store->oldest, chunk, next, newer) {
		if (chunk->state != CHUNK_READY || chunk->sync_running || chunk->writes_begun > chunk->writes_ended)
			continue;
		if (chunk->misplaced && chunk->uses == 0 && chunk->first_op == NULL) {
			chunk_store_forget(chunk);
			continue;
		}
		if (!chunk_is_unsynced(chunk) && chunk->uses == 0)
			clear_mark(chunk);
		else if (chunk_is_unsynced(chunk) && now - chunk->written_ms >= CHUNK_IDLE_SYNC_MS)
			chunk_sync(chunk, NULL, NULL);
	}
	/* What could not be seen to then: the master was not there, or other copies were not. */
	if (store->marked_count == 0 && now - store->relisted_ms >= RELIST_MS) {
		store->relisted_ms = now;
		if ((store->uncertain > 0 && chunk_index_each_mark(&store->index, note_old_mark, store) != OK) ||
		    chunk_index_each_damage(&store->index, note_mark, store) != OK)
			log_warn("marks_not_listed", "uncertain=%" PRIu64, store->uncertain);
	}
	check_next_marked(store);
}
