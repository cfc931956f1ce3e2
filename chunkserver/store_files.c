#include "chunkserver/store_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/log.h"

#define PATH_EXTRA_BYTES 64u

char *store_files_join(const struct store_files *files, const char *name)
{
	size_t size = strlen(files->root) + strlen(name) + 2;
	char *path = mem_alloc(size);
	snprintf(path, size, "%s/%s", files->root, name);
	return path;
}

char *store_files_path(const struct store_files *files, uint64_t chunk, enum chunk_kind kind)
{
	char name[PATH_EXTRA_BYTES];
	/* Ids made in quiet times differ only in their middle: Fibonacci hashing spreads them (Knuth, TAOCP 3, 6.4). */
	unsigned folder = (unsigned)((chunk * 0x9e3779b97f4a7c15ull) >> 56);
	snprintf(name, sizeof(name), "chunks/%x/%x/%016" PRIx64 "%s", folder >> 4, folder & 15, chunk,
		 kind == KIND_PACK ? ".pack" : ".chunk");
	return store_files_join(files, name);
}

/* The folder of a path, as a string of its own. */
static char *folder_of(const char *path)
{
	char *folder = mem_string(path);
	char *slash = strrchr(folder, '/');
	check(slash != NULL);
	*slash = 0;
	return folder;
}

enum err store_files_make_folder(struct loop *loop, const char *path)
{
	char *folder = folder_of(path);
	enum err err = dir_make(loop, folder);
	free(folder);
	return err;
}

enum err store_files_sync_folder(struct loop *loop, const char *path)
{
	char *folder = folder_of(path);
	enum err err = dir_sync(loop, folder);
	free(folder);
	return err;
}

static enum err make(struct store_files *files, const char *name)
{
	char *path = store_files_join(files, name);
	enum err err = dir_make(files->loop, path);
	free(path);
	return err;
}

static bool note_free(void *arg, const char *name)
{
	struct store_files *files = arg;
	char *end = NULL;
	unsigned long number = strtoul(name, &end, 10);
	if (end != name && *end == 0 && strlen(name) == 2 && number < FREE_FILES_MAX)
		files->free_ready[number] = true;
	return true;
}

enum err store_files_open(struct loop *loop, const char *root, struct store_files *files)
{
	*files = (struct store_files){ .loop = loop, .root = mem_string(root) };
	char *lock = store_files_join(files, "lock");
	char *free_files = store_files_join(files, "free");
	enum err err = dir_make(loop, root);
	if (err == OK)
		err = dir_make_private(loop, root);
	if (err == OK)
		err = file_open(loop, lock, FILE_WRITE | FILE_CREATE, &files->lock);
	if (err == OK)
		err = file_lock(files->lock);
	if (err == OK)
		err = dir_identity(loop, root, &files->root_id);
	if (err == OK)
		err = make(files, "chunks");
	if (err == OK)
		err = make(files, "free");
	if (err == OK)
		err = make(files, "quarantine");
	if (err == OK)
		err = dir_list(loop, free_files, note_free, files);
	free(lock);
	free(free_files);
	if (err != OK)
		store_files_close(files);
	return err;
}

enum err store_files_must_exist(struct loop *loop, const char *root)
{
	struct store_files files = { .loop = loop, .root = mem_string(root) };
	char *identity = store_files_join(&files, "identity");
	struct file *file = NULL;
	enum err err = file_open(loop, identity, FILE_READ_ONLY, &file);
	if (err == ERR_NOT_FOUND) {
		log_error("data_folder_gone", "error=%s", err_name(err));
		err = ERR_STALE_HANDLE;
	}
	file_unref(file);
	free(identity);
	free(files.root);
	return err;
}

enum err store_files_check_root(struct store_files *files)
{
	uint64_t id = 0;
	enum err err = dir_identity(files->loop, files->root, &id);
	if (err == ERR_NOT_FOUND || (err == OK && id != files->root_id))
		err = ERR_STALE_HANDLE;
	if (err != OK)
		log_error("data_folder_gone", "error=%s", err_name(err));
	return err;
}

void store_files_close(struct store_files *files)
{
	file_unref(files->lock);
	free(files->root);
	*files = (struct store_files){ 0 };
}

int store_files_take(struct store_files *files)
{
	for (unsigned i = 0; i < FREE_FILES_MAX; i++) {
		if (!files->free_ready[i] || files->free_taken[i])
			continue;
		files->free_taken[i] = true;
		files->free_ready[i] = false;
		return (int)i;
	}
	return -1;
}

int store_files_vacate(struct store_files *files)
{
	for (unsigned i = 0; i < FREE_FILES_MAX; i++) {
		if (files->free_ready[i] || files->free_taken[i])
			continue;
		files->free_taken[i] = true;
		return (int)i;
	}
	return -1;
}

void store_files_settle(struct store_files *files, int number, bool ready)
{
	if (number < 0)
		return;
	files->free_taken[number] = false;
	files->free_ready[number] = ready;
}

char *store_files_free_path(const struct store_files *files, int number)
{
	char name[PATH_EXTRA_BYTES];
	snprintf(name, sizeof(name), "free/%02d", number);
	return store_files_join(files, name);
}

enum err store_files_remove(struct loop *loop, const char *path, const char *free_path)
{
	struct file *file = NULL;
	if (free_path == NULL)
		return file_unlink(loop, path);
	enum err err = file_rename(loop, path, free_path);
	if (err == OK)
		err = file_open(loop, free_path, FILE_WRITE | FILE_TRUNCATE, &file);
	file_unref(file);
	return err;
}

enum err store_files_quarantine(struct store_files *files, const char *path)
{
	const char *name = strrchr(path, '/');
	name = name == NULL ? path : name + 1;
	char target[PATH_EXTRA_BYTES + 256], escaped[128];
	snprintf(target, sizeof(target), "quarantine/%.200s.%08" PRIx32, name, (uint32_t)loop_random(files->loop));
	char *to = store_files_join(files, target);
	enum err err = file_rename(files->loop, path, to);
	log_error("quarantined", "file=%s result=%s", log_escape(name, strlen(name), escaped, sizeof(escaped)), err_name(err));
	free(to);
	return err;
}

struct scan {
	struct store_files *files;
	const char *folder;
	store_files_found_fn *fn;
	void *arg;
	enum err err;
};

/* "0123456789abcdef.chunk" in the folder where it belongs. */
static bool parse_name(const char *name, uint64_t *chunk, enum chunk_kind *kind)
{
	char *end = NULL;
	if (strspn(name, "0123456789abcdef") != 16)
		return false;
	*chunk = strtoull(name, &end, 16);
	*kind = strcmp(end, ".pack") == 0 ? KIND_PACK : KIND_REPLICATED;
	return *kind == KIND_PACK || strcmp(end, ".chunk") == 0;
}

static bool scan_file(void *arg, const char *name)
{
	struct scan *scan = arg;
	uint64_t chunk = 0;
	enum chunk_kind kind = KIND_REPLICATED;
	size_t size = strlen(scan->folder) + strlen(name) + 2;
	char *path = mem_alloc(size);
	snprintf(path, size, "%s/%s", scan->folder, name);
	bool known = parse_name(name, &chunk, &kind);
	if (known) {
		char *expected = store_files_path(scan->files, chunk, kind);
		known = strcmp(expected, path) == 0;
		free(expected);
	}
	if (known)
		scan->fn(scan->arg, chunk, kind, path);
	else
		scan->err = store_files_quarantine(scan->files, path);
	free(path);
	return scan->err == OK;
}

enum err store_files_scan(struct store_files *files, store_files_found_fn *fn, void *arg)
{
	struct scan scan = { .files = files, .fn = fn, .arg = arg };
	for (unsigned folder = 0; scan.err == OK && folder < 256; folder++) {
		char name[PATH_EXTRA_BYTES];
		snprintf(name, sizeof(name), "chunks/%x/%x", folder >> 4, folder & 15);
		char *path = store_files_join(files, name);
		scan.folder = path;
		enum err err = dir_list(files->loop, path, scan_file, &scan);
		if (err != OK && err != ERR_NOT_FOUND && scan.err == OK)
			scan.err = err;
		free(path);
	}
	return scan.err;
}
