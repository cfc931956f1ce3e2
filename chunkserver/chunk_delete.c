/* Deleting chunks (chunk_store.h). */
#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/chunk_store_internal.h"
#include "common/base/check.h"

struct deleting {
	struct deleting *previous, *next;
	uint64_t id;
	struct work work;
	struct chunk_store *store;
	char *path;
	char *free_path;
	int free_number;
	bool is_free; /* holds an empty file now */
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
	deleting->is_free = deleting->err == OK;
	if (deleting->err == ERR_NOT_FOUND) /* the disk has lost it */
		deleting->err = OK;
	if (deleting->err == OK)
		deleting->err = store_files_sync_folder(loop, deleting->path);
}

static void removed(struct work *work)
{
	struct deleting *deleting = container_of(work, struct deleting, work);
	struct chunk_store *store = deleting->store;
	DL_DELETE2(store->deletings, deleting, previous, next);
	store_files_settle(&store->files, deleting->free_number, deleting->is_free);
	if (deleting->err != OK)
		chunk_store_fail(store, "delete", deleting->err);
	deleting->done(deleting->arg, deleting->err);
	free(deleting->path);
	free(deleting->free_path);
	free(deleting);
	chunk_store_work_end(store);
}

bool chunk_store_deletes(const struct chunk_store *store, uint64_t id)
{
	const struct deleting *deleting;
	DL_FOREACH2 (store->deletings, deleting, next) {
		if (deleting->id == id)
			return true;
	}
	return false;
}

static void remember(struct chunk_store *store, uint64_t id, uint64_t version)
{
	store->deleted[store->deleted_next % DELETED_REMEMBERED].id = id;
	store->deleted[store->deleted_next++ % DELETED_REMEMBERED].version = version;
}

enum err chunk_store_delete(struct chunk_store *store, uint64_t id, uint64_t version, void (*done)(void *arg, enum err err), void *arg)
{
	Granary__ChunkLocation *location = NULL;
	struct chunk *chunk = chunk_store_find(store, id);
	if (chunk != NULL && chunk->uses > 0) {
		if (chunk->state == CHUNK_READY)
			chunk->state = CHUNK_DELETED;
		return ERR_BUSY;
	}
	enum err err = chunk_index_get(&store->index, id, &location);
	if (err == ERR_NOT_FOUND && chunk_index_unmark(&store->index, id) != OK)
		err = ERR_IO;
#ifdef PLANT_DELETED_MADE_ANEW
	if (err == OK)
#else
	if (err == OK || err == ERR_NOT_FOUND)
#endif
		remember(store, id, version == 0 ? UINT64_MAX : version);
	if (err != OK)
		return err == ERR_NOT_FOUND ? ERR_NO_CHUNK : err;
	if (chunk != NULL)
		chunk_store_forget(chunk);
	struct deleting *deleting = mem_zero(1, sizeof(*deleting));
	*deleting = (struct deleting){ .id = id, .store = store, .done = done, .arg = arg };
	deleting->path = store_files_path(&store->files, id, chunk_kind_of(location->kind));
	message_free(&location->base);
	err = chunk_index_delete(&store->index, id);
	if (err != OK) {
		chunk_store_fail(store, "index", err);
		free(deleting->path);
		free(deleting);
		return err;
	}
	deleting->free_number = store_files_vacate(&store->files);
	if (deleting->free_number >= 0)
		deleting->free_path = store_files_free_path(&store->files, deleting->free_number);
	DL_APPEND2(store->deletings, deleting, previous, next);
	deleting->work.run = remove_file;
	deleting->work.done = removed;
	deleting->err = ERR_CANCELLED;
	chunk_store_submit(store, NULL, &deleting->work);
	return OK;
}
