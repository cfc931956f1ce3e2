#include "chunkserver/store_start.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/sys/log.h"

struct start {
	struct store_files *files;
	struct chunk_index *index;
	uint64_t *found; /* ids of files, sorted later */
	size_t found_count, found_capacity;
	uint64_t *lost; /* entries without a file */
	size_t lost_count, lost_capacity;
	uint64_t boot;
	bool rebuilt; /* the index is new: marks are unknown, so every chunk counts as marked in another life */
	uint64_t added;
	enum err err;
};

static void push(uint64_t **ids, size_t *count, size_t *capacity, uint64_t id)
{
	if (*count == *capacity) {
		*capacity = *capacity == 0 ? 256 : *capacity * 2;
		*ids = mem_resize(*ids, *capacity * sizeof(**ids));
	}
	(*ids)[(*count)++] = id;
}

static enum err read_header(struct loop *loop, const char *path, struct chunk_header *header)
{
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct file *file = NULL;
	size_t done = 0;
	enum err err = file_open(loop, path, FILE_READ_ONLY, &file);
	if (err == OK)
		err = file_read(file, 0, bytes, sizeof(bytes), &done);
	if (err == OK)
		err = done < sizeof(bytes) ? ERR_CORRUPT : chunk_header_parse(bytes, header);
	file_unref(file);
	return err;
}

/* A file that the index does not know: from a crash of the machine, or the index is new. */
static void enter_file(struct start *start, uint64_t chunk, enum chunk_kind kind, const char *path)
{
	struct chunk_header header;
	enum err err = read_header(start->files->loop, path, &header);
	if (err == ERR_CORRUPT || (err == OK && (header.chunk != chunk || header.kind != kind))) {
		start->err = store_files_quarantine(start->files, path);
		return;
	}
	if (err != OK) {
		start->err = err;
		return;
	}
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	location.chunk = chunk;
	location.version = header.version;
	location.copy = header.copy;
	location.written = true; /* for all that is known */
	location.kind = kind == KIND_PACK ? GRANARY__CHUNK_KIND__CHUNK_PACK : GRANARY__CHUNK_KIND__CHUNK_REPLICATED;
	start->err = chunk_index_put(start->index, &location, true);
	/* The mark comes before the entry, and goes after it: a file with neither was elsewhere meanwhile. */
	uint64_t boot = 0;
	bool name_new = false;
	if (start->err == OK && (start->rebuilt || !chunk_index_marked(start->index, chunk, &boot, &name_new)))
		start->err = chunk_index_mark(start->index, chunk, CHUNK_BOOT_UNKNOWN, chunk_mark_flags(false, kind));
	start->added++;
	push(&start->found, &start->found_count, &start->found_capacity, chunk);
}

static void file_found(void *arg, uint64_t chunk, enum chunk_kind kind, const char *path)
{
	struct start *start = arg;
	Granary__ChunkLocation *location = NULL;
	if (start->err != OK)
		return;
	enum err err = chunk_index_get(start->index, chunk, &location);
	bool same = err == OK && (location->kind == GRANARY__CHUNK_KIND__CHUNK_PACK) == (kind == KIND_PACK);
	if (location != NULL)
		message_free(&location->base);
	if (same)
		push(&start->found, &start->found_count, &start->found_capacity, chunk);
	else if (err == ERR_NOT_FOUND)
		enter_file(start, chunk, kind, path);
	else if (err == OK)
		start->err = store_files_quarantine(start->files, path);
	else
		start->err = err;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
	return left < right ? -1 : left > right;
}

static bool entry_found(void *arg, const Granary__ChunkLocation *location)
{
	struct start *start = arg;
	uint64_t id = location->chunk;
	if (start->found_count == 0 || bsearch(&id, start->found, start->found_count, sizeof(id), compare_ids) == NULL)
		push(&start->lost, &start->lost_count, &start->lost_capacity, id);
	return true;
}

/* A file whose name was never synced may go with the power: nobody relied on it (but the mark stays: something may have been read in
 * it). Any other should be there. */
static enum err set_one_lost(struct start *start, const Granary__ChunkLocation *location)
{
	uint64_t boot = 0;
	bool name_new = false;
	bool marked = chunk_index_marked(start->index, location->chunk, &boot, &name_new);
	if (marked && name_new && boot != start->boot)
		return chunk_index_forget(start->index, location->chunk);
	log_error("chunk_file_missing", "chunk=%016" PRIx64 " version=%" PRIu64, location->chunk, location->version);
	return chunk_index_mark(start->index, location->chunk, CHUNK_BOOT_BLANK, chunk_mark_flags(false, chunk_kind_of(location->kind)));
}

static enum err set_lost(struct start *start)
{
	enum err err = OK;
	for (size_t i = 0; err == OK && i < start->lost_count; i++) {
		Granary__ChunkLocation *location = NULL;
		err = chunk_index_get(start->index, start->lost[i], &location);
		if (err != OK)
			break;
		err = set_one_lost(start, location);
		message_free(&location->base);
	}
	return err;
}

static enum err open_index(struct start *start)
{
	char *path = store_files_join(start->files, "index");
	enum err err = chunk_index_open(start->files->loop, path, start->index);
	if (err == ERR_CORRUPT) {
		log_error("index_damaged", "action=rebuild");
		err = store_files_quarantine(start->files, path);
		if (err == OK)
			err = chunk_index_open(start->files->loop, path, start->index);
		start->rebuilt = true;
	}
	free(path);
	return err;
}

enum err store_start(struct store_files *files, struct chunk_index *index, uint64_t boot)
{
	struct start start = { .files = files, .index = index, .boot = boot };
	enum err err = open_index(&start);
	if (err != OK)
		return err;
	if (index->chunks == 0 && !start.rebuilt)
		start.rebuilt = true; /* a new store, or the whole index was taken away */
	err = store_files_scan(files, file_found, &start);
	if (err == OK)
		err = start.err;
	if (err == OK && start.found_count > 0)
		qsort(start.found, start.found_count, sizeof(*start.found), compare_ids);
	if (err == OK)
		err = chunk_index_each(index, 0, entry_found, &start);
	if (err == OK)
		err = set_lost(&start);
	if (err == OK)
		err = chunk_index_sync(index);
	if (err == OK && (start.added > 0 || start.lost_count > 0))
		log_warn("index_compared", "entered=%" PRIu64 " lost=%zu", start.added, start.lost_count);
	if (err != OK)
		chunk_index_close(index);
	free(start.found);
	free(start.lost);
	return err;
}
