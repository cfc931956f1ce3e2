#include "chunkserver/chunk_store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/chunk_sync.h"
#include "chunkserver/store_start.h"
#include "common/base/check.h"
#include "common/sys/log.h"

#define DELETED_REMEMBERED 256u
#define SPACE_ASK_MS 10u

struct chunk_store {
	struct loop *loop;
	struct store_files files;
	struct chunk_index index;
	const struct chunk_store_events *events;
	void *arg;
	struct chunk *chunks; /* open, by id */
	struct chunk *oldest; /* list by last use: oldest first, linked by `newer` (DL_FOREACH2) */
	uint32_t open_count;
	uint32_t works; /* under way */
	void (*closed)(void *arg);
	void *closed_arg;
	uint64_t boot;
	uint64_t reserved_bytes;
	struct disk_space space;
	uint64_t space_asked_ms;
	bool failed;
	bool closing;
	/* Lately: a write that comes late, of this version or before it, does not make them anew. */
	struct {
		uint64_t id, version;
	} deleted[DELETED_REMEMBERED];
	unsigned deleted_next;
	uint64_t *marked; /* by a former life, not yet looked at; from the back */
	size_t marked_count, marked_capacity;
	struct chunk *checking; /* opened only to be checked */
	uint64_t blocks_adopted, blocks_damaged;
};

/* What a worker needs to open or make a chunk's file. */
struct opening {
	struct work work;
	struct chunk *chunk;
	bool create;
	bool marked;	/* by a former life of the process … */
	bool same_boot; /* … in this boot of the machine */
	uint64_t version;
	enum copy_state copy; /* `create` */
	uint64_t salt;
	struct buf table;
	char *reuse;
	int reuse_number;
	uint32_t mismatches;
	uint8_t *damaged;
	enum err err;
};

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

enum err chunk_store_open(struct loop *loop, const struct chunk_store_options *options,
			  const struct chunk_store_events *events, void *arg, struct chunk_store **out)
{
	struct chunk_store *store = mem_zero(1, sizeof(*store));
	*out = NULL;
	store->loop = loop;
	store->events = events;
	store->arg = arg;
	store->boot = machine_boot_id(loop);
	store->reserved_bytes = options->reserved_bytes != 0 ? options->reserved_bytes : DISK_RESERVED_BYTES;
	enum err err = store_files_open(loop, options->root, &store->files);
	if (err != OK) {
		free(store);
		return err;
	}
	err = store_start(&store->files, &store->index);
	if (err == OK)
		err = chunk_index_each_mark(&store->index, note_mark, store);
	if (err != OK) {
		chunk_index_close(&store->index);
		store_files_close(&store->files);
		free(store->marked);
		free(store);
		return err;
	}
	chunk_store_refresh_space(store);
	if (store->marked_count > 0)
		log_warn("dirty_chunks_found", "count=%zu", store->marked_count);
	*out = store;
	return OK;
}

static void forget(struct chunk *chunk)
{
	struct chunk_store *store = chunk->store;
	store->events->closing(store->arg, chunk);
	if (store->checking == chunk)
		store->checking = NULL;
	HASH_DEL(store->chunks, chunk);
	DL_DELETE2(store->oldest, chunk, older, newer);
	store->open_count--;
	chunk_file_close(&chunk->file);
	pack_close(&chunk->pack);
	op_ring_deinit(&chunk->ring);
	if (chunk->chain != NULL)
		message_free(&chunk->chain->base);
	free(chunk->damaged);
	free(chunk->path);
	free(chunk);
}

bool chunk_is_unsynced(const struct chunk *chunk)
{
	return chunk->writes_begun > chunk->writes_synced;
}

static void save_slots(struct chunk *chunk)
{
	struct buf table = { 0 };
	pack_table_write(&chunk->pack, &table);
	enum err err = chunk_index_put_slots(&chunk->store->index, chunk->id, buf_slice(&table));
	if (err != OK) /* the scan of the file takes its place */
		log_warn("slot_table_not_saved", "pack=%016" PRIx64 " error=%s", chunk->id, err_name(err));
	buf_deinit(&table);
}

/* Synced and idle: the mark can go. */
static void clear_mark(struct chunk *chunk)
{
	/* With damage the mark stays, so that the next life looks again. */
	if (chunk->mark != MARK_SET || chunk->damaged != NULL || chunk->store->failed)
		return;
	if (chunk_index_unmark(&chunk->store->index, chunk->id) == OK)
		chunk->mark = MARK_NONE;
}

static void close_chunk(struct chunk *chunk)
{
	check(chunk->uses == 0 && chunk->first_op == NULL);
	if (chunk->state == CHUNK_READY && !chunk_is_unsynced(chunk)) {
		clear_mark(chunk);
		if (chunk->kind == KIND_PACK)
			save_slots(chunk);
	}
	forget(chunk);
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

void chunk_store_submit(struct chunk_store *store, struct work_lane *lane, struct work *work)
{
	store->works++;
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

/* ---------------------------------------------------------------- failure and space */

void chunk_store_fail(struct chunk_store *store, const char *operation, enum err err)
{
	if (!store->failed)
		log_error("store_failed", "operation=%s error=%s", operation, err_name(err));
	store->failed = true;
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

static bool fits(const struct chunk_store *store, uint64_t bytes)
{
	return store->space.bytes_free >= store->reserved_bytes && store->space.bytes_free - store->reserved_bytes >= bytes;
}

enum err chunk_store_admit(struct chunk_store *store, uint64_t bytes)
{
	if (store->failed)
		return ERR_STORE_FAILED;
	/* What was admitted may have been overwriting: ask before refusing, though not for every request. */
	if (!fits(store, bytes) && loop_now_ms(store->loop) - store->space_asked_ms >= SPACE_ASK_MS)
		chunk_store_refresh_space(store);
	if (!fits(store, bytes))
		return ERR_NO_SPACE;
	store->space.bytes_free -= bytes;
	return OK;
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
		.blocks_adopted = store->blocks_adopted,
		.blocks_damaged = store->blocks_damaged,
		.bytes_total = store->space.bytes_total,
		.bytes_free = store->space.bytes_free > reserved ? store->space.bytes_free - reserved : 0,
	};
}

/* ---------------------------------------------------------------- opening */

static void recover(struct opening *opening)
{
	if (!opening->marked || opening->err != OK)
		return;
	struct chunk_file *file = &opening->chunk->file;
	if (!opening->same_boot)
		opening->damaged = mem_zero(CHUNK_BLOCKS / 8, 1);
	opening->err = chunk_file_check(file, opening->same_boot, opening->damaged, &opening->mismatches);
}

/* One that is not complete is of no version before it says so on disk. */
static enum err create_file(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct loop *loop = chunk->store->loop;
	bool whole = opening->copy == COPY_COMPLETE;
	uint64_t version = whole ? opening->version : 0;
	if (chunk->kind == KIND_PACK) {
		enum err err = pack_create(loop, chunk->path, opening->reuse, chunk->id, version, opening->salt, &chunk->pack);
		return err != OK || whole ? err : pack_set_state(&chunk->pack, opening->version, opening->copy);
	}
	enum err err = chunk_file_create(loop, chunk->path, opening->reuse, chunk->id, version, &chunk->file);
	return err != OK || whole ? err : chunk_file_set_state(&chunk->file, opening->version, opening->copy);
}

static void open_file(struct work *work)
{
	struct opening *opening = container_of(work, struct opening, work);
	struct chunk *chunk = opening->chunk;
	struct loop *loop = chunk->store->loop;
	if (opening->create) {
		/* The mark is durable before the file is there. */
		opening->err = kv_sync(chunk->store->index.kv);
		if (opening->err == OK)
			opening->err = store_files_make_folder(loop, chunk->path);
		if (opening->err != OK)
			return;
		opening->err = create_file(opening);
		/* What was made just now and by us is in the way of the next attempt. */
		if (opening->err != OK && opening->err != ERR_EXISTS)
			(void)!store_files_remove(loop, chunk->path, NULL);
		return;
	}
	if (chunk->kind == KIND_PACK) {
		opening->err = pack_open(loop, chunk->path, chunk->id, buf_slice(&opening->table), &chunk->pack);
		return;
	}
	opening->err = chunk_file_open(loop, chunk->path, chunk->id, &chunk->file);
	recover(opening);
}

static void note_recovery(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	if (opening->marked) {
		chunk->mark = MARK_SET;
		chunk->recovered = true;
		chunk->writes_begun = chunk->writes_ended = 1; /* to be synced before the mark goes */
	}
	if (opening->mismatches == 0) {
		free(opening->damaged);
		return;
	}
	if (opening->same_boot) {
		chunk->store->blocks_adopted += opening->mismatches;
		log_warn("blocks_adopted", "chunk=%016" PRIx64 " blocks=%" PRIu32 " reason=writes_in_flight", chunk->id,
			 opening->mismatches);
	} else {
		chunk->store->blocks_damaged += opening->mismatches;
		chunk->damaged = opening->damaged;
		log_error("blocks_damaged", "chunk=%016" PRIx64 " blocks=%" PRIu32 " reason=machine_crash", chunk->id,
			  opening->mismatches);
	}
}

static void opening_failed(struct opening *opening)
{
	struct chunk *chunk = opening->chunk;
	struct chunk_store *store = chunk->store;
	log_error("chunk_not_opened", "chunk=%016" PRIx64 " create=%d error=%s", chunk->id, opening->create,
		  err_name(opening->err));
	if (opening->create && opening->err != ERR_NO_SPACE && opening->err != ERR_EXISTS)
		chunk_store_fail(store, "create", opening->err);
	chunk->state = CHUNK_DELETED;
	store->events->opened(store->arg, chunk, opening->err == ERR_NOT_FOUND ? ERR_CORRUPT : opening->err);
	free(opening->damaged);
	chunk->uses--;
	check(chunk->uses == 0 && chunk->first_op == NULL);
	forget(chunk);
}

static void opened(struct work *work)
{
	struct opening *opening = container_of(work, struct opening, work);
	struct chunk *chunk = opening->chunk;
	struct chunk_store *store = chunk->store;
	if (opening->reuse != NULL)
		store_files_settle(&store->files, opening->reuse_number, false);
	if (opening->err != OK) {
		opening_failed(opening);
	} else {
		chunk->state = CHUNK_READY;
		chunk->version = chunk->kind == KIND_PACK ? chunk->pack.version : chunk->file.version;
		chunk->copy = chunk->kind == KIND_PACK ? chunk->pack.copy : chunk->file.copy;
		chunk->name_new = opening->create;
		if (opening->create && chunk->kind == KIND_REPLICATED)
			chunk->mark = MARK_SET;
		if (opening->create)
			chunk->writes_begun = chunk->writes_ended = 1;
		chunk->written_ms = loop_now_ms(store->loop);
		note_recovery(opening);
		if (opening->create)
			chunk_store_save(chunk);
		store->events->opened(store->arg, chunk, OK);
		chunk_unuse(chunk);
	}
	buf_deinit(&opening->table);
	free(opening->reuse);
	free(opening);
	chunk_store_work_end(store);
}

/* Closes the one not used for the longest time, or has it synced for next time. */
static enum err make_room(struct chunk_store *store)
{
	struct chunk *chunk, *next;
	if (store->open_count < CHUNKS_OPEN_MAX)
		return OK;
	unsigned looked = 0;
	DL_FOREACH_SAFE2 (store->oldest, chunk, next, newer) {
		if (chunk->uses > 0)
			continue;
		if (!chunk_is_unsynced(chunk)) {
			close_chunk(chunk);
			return OK;
		}
		if (!store->failed && !chunk->sync_running && looked++ < 4)
			chunk_sync(chunk, NULL, NULL);
	}
	return store->open_count < 2 * CHUNKS_OPEN_MAX ? OK : ERR_BUSY;
}

static struct chunk *enter_chunk(struct chunk_store *store, uint64_t id, enum chunk_kind kind)
{
	struct chunk *chunk = mem_zero(1, sizeof(*chunk));
	chunk->store = store;
	chunk->id = id;
	chunk->kind = kind;
	chunk->state = CHUNK_OPENING;
	chunk->path = store_files_path(&store->files, id, kind);
	HASH_ADD(hh, store->chunks, id, sizeof(chunk->id), chunk);
	DL_APPEND2(store->oldest, chunk, older, newer);
	store->open_count++;
	return chunk;
}

static void submit_opening(struct chunk *chunk, struct opening *opening)
{
	struct chunk_store *store = chunk->store;
	opening->chunk = chunk;
	opening->work.run = open_file;
	opening->work.done = opened;
	chunk->uses++;
	opening->err = ERR_CANCELLED;
	chunk_store_submit(store, NULL, &opening->work);
}

static enum err start_create(struct chunk_store *store, uint64_t id, const struct chunk_create *create, struct chunk **out)
{
	if (chunk_index_is_lost(&store->index, id))
		return ERR_CORRUPT;
	for (unsigned i = 0; i < DELETED_REMEMBERED; i++) {
		if (store->deleted[i].id == id && create->version <= store->deleted[i].version)
			return ERR_NO_CHUNK;
	}
	enum err err = chunk_store_admit(store, CHUNK_DATA_OFFSET);
	if (err == OK && create->kind == KIND_REPLICATED)
		err = chunk_index_mark(&store->index, id, store->boot);
	if (err != OK)
		return err;
	struct opening *opening = mem_zero(1, sizeof(*opening));
	struct chunk *chunk = enter_chunk(store, id, create->kind);
	chunk_set_chain(chunk, create->chain);
	opening->create = true;
	opening->version = create->version;
	opening->copy = create->copy;
	opening->salt = loop_random(store->loop);
	opening->reuse_number = store_files_take(&store->files);
	if (opening->reuse_number >= 0)
		opening->reuse = store_files_free_path(&store->files, opening->reuse_number);
	submit_opening(chunk, opening);
	*out = chunk;
	return OK;
}

static void start_open(struct chunk_store *store, Granary__ChunkLocation *location, struct chunk **out)
{
	enum chunk_kind kind = location->kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? KIND_PACK : KIND_REPLICATED;
	struct opening *opening = mem_zero(1, sizeof(*opening));
	struct chunk *chunk = enter_chunk(store, location->chunk, kind);
	uint64_t boot = 0;
	chunk->chain = location;
	opening->reuse_number = -1;
	if (kind == KIND_PACK) {
		if (chunk_index_get_slots(&store->index, chunk->id, &opening->table) != OK)
			buf_clear(&opening->table);
	} else {
		opening->marked = chunk_index_marked(&store->index, chunk->id, &boot);
		opening->same_boot = boot == store->boot;
	}
	submit_opening(chunk, opening);
	*out = chunk;
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
		start_open(store, location, out);
	else if (err == ERR_NOT_FOUND)
		err = create == NULL ? ERR_NO_CHUNK : start_create(store, id, create, out);
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
	return chunk_index_mark(&chunk->store->index, chunk->id, chunk->store->boot);
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
	struct chunk_index *index = &chunk->store->index;
	Granary__ChunkLocation *known = NULL;
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	if (chunk->chain != NULL)
		location = *chunk->chain;
	location.chunk = chunk->id;
	location.version = chunk->version;
	location.copy = chunk->copy;
	location.kind = chunk->kind == KIND_PACK ? GRANARY__CHUNK_KIND__CHUNK_PACK : GRANARY__CHUNK_KIND__CHUNK_REPLICATED;
	bool is_new = chunk_index_get(index, chunk->id, &known) == ERR_NOT_FOUND;
	if (known != NULL)
		message_free(&known->base);
	enum err err = chunk_index_put(index, &location, is_new);
	if (err != OK)
		chunk_store_fail(chunk->store, "index", err);
}

bool chunk_is_damaged(const struct chunk *chunk, uint32_t first, uint32_t end)
{
	if (chunk->damaged == NULL)
		return false;
	for (uint32_t block = first; block < end && block < CHUNK_BLOCKS; block++) {
		if (chunk->damaged[block / 8] & (1u << block % 8))
			return true;
	}
	return false;
}

void chunk_repaired(struct chunk *chunk, uint32_t first, uint32_t end)
{
	if (chunk->damaged == NULL)
		return;
	for (uint32_t block = first; block < end && block < CHUNK_BLOCKS; block++)
		chunk->damaged[block / 8] &= (uint8_t)~(1u << block % 8);
	if (chunk_is_damaged(chunk, 0, CHUNK_BLOCKS))
		return;
	free(chunk->damaged);
	chunk->damaged = NULL;
	/* From now on the mark speaks of this life. */
	if (chunk->mark == MARK_SET && chunk_store_mark(chunk) != OK)
		log_warn("mark_not_renewed", "chunk=%016" PRIx64, chunk->id);
}

/* ---------------------------------------------------------------- deleting */

struct deleting {
	struct work work;
	struct chunk_store *store;
	char *path;
	char *free_path;
	int free_number;
	void (*done)(void *arg, enum err err);
	void *arg;
	enum err err;
};

static void remove_file(struct work *work)
{
	struct deleting *deleting = container_of(work, struct deleting, work);
	struct loop *loop = deleting->store->loop;
	deleting->err = kv_sync(deleting->store->index.kv);
	if (deleting->err == OK)
		deleting->err = store_files_remove(loop, deleting->path, deleting->free_path);
	if (deleting->err == OK)
		deleting->err = store_files_sync_folder(loop, deleting->path);
}

static void removed(struct work *work)
{
	struct deleting *deleting = container_of(work, struct deleting, work);
	struct chunk_store *store = deleting->store;
	store_files_settle(&store->files, deleting->free_number, deleting->err == OK);
	if (deleting->err != OK)
		chunk_store_fail(store, "delete", deleting->err);
	deleting->done(deleting->arg, deleting->err);
	free(deleting->path);
	free(deleting->free_path);
	free(deleting);
	chunk_store_work_end(store);
}

enum err chunk_store_delete(struct chunk_store *store, uint64_t id, void (*done)(void *arg, enum err err), void *arg)
{
	Granary__ChunkLocation *location = NULL;
	struct chunk *chunk = chunk_store_find(store, id);
	if (chunk != NULL && chunk->uses > 0) {
		if (chunk->state == CHUNK_READY)
			chunk->state = CHUNK_DELETED;
		return ERR_BUSY;
	}
	enum err err = chunk_index_get(&store->index, id, &location);
	if (err == ERR_NOT_FOUND && chunk_index_is_lost(&store->index, id))
		err = chunk_index_drop_lost(&store->index, id);
	if (err != OK || location == NULL)
		return err == ERR_NOT_FOUND || err == OK ? ERR_NO_CHUNK : err;
	if (chunk != NULL)
		forget(chunk);
	struct deleting *deleting = mem_zero(1, sizeof(*deleting));
	*deleting = (struct deleting){ .store = store, .done = done, .arg = arg };
	deleting->path = store_files_path(&store->files, id,
					  location->kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? KIND_PACK : KIND_REPLICATED);
	message_free(&location->base);
	err = chunk_index_delete(&store->index, id);
	if (err != OK) {
		chunk_store_fail(store, "index", err);
		free(deleting->path);
		free(deleting);
		return err;
	}
	store->deleted[store->deleted_next % DELETED_REMEMBERED].id = id;
	store->deleted[store->deleted_next++ % DELETED_REMEMBERED].version = UINT64_MAX;
	deleting->free_number = store_files_vacate(&store->files);
	if (deleting->free_number >= 0)
		deleting->free_path = store_files_free_path(&store->files, deleting->free_number);
	deleting->work.run = remove_file;
	deleting->work.done = removed;
	deleting->err = ERR_CANCELLED;
	chunk_store_submit(store, NULL, &deleting->work);
	return OK;
}

void chunk_store_deleted_version(struct chunk_store *store, uint64_t version)
{
	store->deleted[(store->deleted_next - 1) % DELETED_REMEMBERED].version = version;
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

/* ---------------------------------------------------------------- in the background */

/* One chunk of a former life at a time is opened, which checks it; the rest is as for any idle chunk. */
static void check_next_marked(struct chunk_store *store)
{
	if (store->checking != NULL && (store->checking->state == CHUNK_OPENING || store->checking->sync_running))
		return;
	store->checking = NULL;
	while (store->marked_count > 0 && store->checking == NULL) {
		uint64_t id = store->marked[store->marked_count - 1];
		enum err err = chunk_store_get(store, id, NULL, &store->checking);
		if (err == ERR_BUSY)
			return;
		store->marked_count--;
		if (err == ERR_NO_CHUNK && chunk_index_unmark(&store->index, id) != OK)
			return;
	}
}

void chunk_store_tick(struct chunk_store *store)
{
	struct chunk *chunk, *next;
	uint64_t now = loop_now_ms(store->loop);
	chunk_store_refresh_space(store);
	if (store->failed)
		return;
	DL_FOREACH_SAFE2 (store->oldest, chunk, next, newer) {
		if (chunk->state != CHUNK_READY || chunk->sync_running || chunk->writes_begun > chunk->writes_ended)
			continue;
		if (!chunk_is_unsynced(chunk) && chunk->uses == 0)
			clear_mark(chunk);
		else if (chunk_is_unsynced(chunk) && now - chunk->written_ms >= CHUNK_IDLE_SYNC_MS)
			chunk_sync(chunk, NULL, NULL);
	}
	check_next_marked(store);
}
