/* LevelDB with paranoid checks, verified checksums and a bloom filter.
 *
 * Syncing is done here and not by LevelDB's own sync flag, for two reasons. LevelDB syncs only the current log file: when
 * the memtable has just been switched, the log before it may still be unsynced, and a crash would lose older batches and
 * keep newer ones. And a synced write makes all other writers queue behind the disk, so that the loop would wait for a
 * worker. LevelDB hands every batch to the kernel before the write returns, so fdatasync of all log files in the
 * directory makes all earlier batches durable; a log that vanishes meanwhile was replaced by a synced table.
 *
 * For the same reason a log that LevelDB has just left for a new one is synced at once by a worker, so that after a power
 * cut the newer one does not survive without the end of the older; and kv_open looks at the logs first (kv_log.h). */
#include "common/sys/kv.h"

#include <leveldb/c.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/file.h"
#include "common/sys/kv_log.h"
#include "common/sys/log.h"

#define CACHE_BYTES_STANDARD (8 * MIB)
#define WRITE_BUFFER_BYTES_STANDARD (4 * MIB)
#define FILTER_BITS_PER_KEY 10

/* A log being synced after LevelDB has left it. Outlives the kv. */
struct left_log {
	struct work work;
	struct kv *kv; /* NULL once that is closed */
	struct file *file;
	enum err err;
};

struct kv {
	struct loop *loop;
	char *path;
	struct file *lock; /* before LevelDB takes its own: the logs are looked at in between */
	struct file *log;  /* the one that LevelDB writes to */
	uint64_t log_size;
	struct left_log *left;
	leveldb_t *db;
	leveldb_options_t *options;
	leveldb_cache_t *cache;
	leveldb_filterpolicy_t *filter;
	leveldb_readoptions_t *read_options, *read_once_options;
	leveldb_writeoptions_t *write_options;
	atomic_bool failed; /* a write or sync failed: what is on disk is unknown, nothing is accepted any more */
	atomic_bool damaged; /* a read failed */
	bool filling;
};

struct kv_batch {
	leveldb_writebatch_t *batch;
};

struct kv_iterator {
	leveldb_iterator_t *iterator;
	struct kv *kv;
};

/* Frees `text`. What cannot be read is as good as damaged. */
static enum err failed(const struct kv *kv, const char *what, bool is_read, char *text)
{
	enum err err = ERR_IO;
	if (strncmp(text, "Corruption", 10) == 0 || (is_read && strstr(text, "Input/output error") != NULL))
		err = ERR_CORRUPT;
	else if (strstr(text, "lock") != NULL)
		err = ERR_BUSY;
	else if (strstr(text, "No space left") != NULL)
		err = ERR_NO_SPACE;
	char escaped[512];
	log_error("kv_failed", "operation=%s path=%s text=%s", what, kv->path,
		  log_escape(text, strlen(text), escaped, sizeof(escaped)));
	leveldb_free(text);
	return err;
}

static char *path_in(const struct kv *kv, const char *name)
{
	struct buf path = { 0 };
	buf_printf(&path, "%s/%s", kv->path, name);
	buf_append(&path, "", 1);
	return (char *)path.bytes;
}

static enum err take_lock(struct kv *kv)
{
	char *path = path_in(kv, "granary.lock");
	enum err err = file_open(kv->loop, path, FILE_WRITE | FILE_CREATE, &kv->lock);
	free(path);
	return err == OK ? file_lock(kv->lock) : err;
}

/* Finds the log that LevelDB writes to now. */
static enum err find_log(struct kv *kv)
{
	char name[32];
	enum err err = kv_log_newest(kv->loop, kv->path, name);
	if (err != OK)
		return err;
	check(name[0] != '\0');
	char *path = path_in(kv, name);
	err = file_open(kv->loop, path, FILE_READ_ONLY, &kv->log);
	free(path);
	return err == OK ? file_size(kv->log, &kv->log_size) : err;
}

static void left_run(struct work *work)
{
	struct left_log *left = container_of(work, struct left_log, work);
	left->err = file_sync(left->file);
}

static void left_done(struct work *work)
{
	struct left_log *left = container_of(work, struct left_log, work);
	if (left->kv != NULL) {
		left->kv->left = NULL;
		if (left->err != OK)
			atomic_store(&left->kv->failed, true);
	}
	file_unref(left->file);
	free(left);
}

/* After a write: if the log has not grown, LevelDB has begun another one. */
static enum err follow_log(struct kv *kv)
{
	uint64_t size = 0;
	enum err err = file_size(kv->log, &size);
	if (err != OK || size != kv->log_size) {
		kv->log_size = size;
		return err;
	}
	struct file *old = kv->log;
	kv->log = NULL;
	if (kv->left != NULL) {
		err = file_sync(old);
		file_unref(old);
	} else {
		kv->left = mem_zero(1, sizeof(*kv->left));
		*kv->left = (struct left_log){ .work = { .run = left_run, .done = left_done }, .kv = kv, .file = old };
		work_submit(kv->loop, NULL, &kv->left->work);
	}
	return err == OK ? find_log(kv) : err;
}

static void make_options(struct kv *kv, const struct kv_options *options)
{
	uint64_t cache_bytes = options != NULL && options->cache_bytes > 0 ? options->cache_bytes : CACHE_BYTES_STANDARD;
	uint64_t buffer_bytes = options != NULL && options->write_buffer_bytes > 0 ? options->write_buffer_bytes :
										      WRITE_BUFFER_BYTES_STANDARD;
	kv->cache = leveldb_cache_create_lru(cache_bytes);
	kv->filter = leveldb_filterpolicy_create_bloom(FILTER_BITS_PER_KEY);
	kv->options = leveldb_options_create();
	leveldb_options_set_create_if_missing(kv->options, 1);
	leveldb_options_set_paranoid_checks(kv->options, 1);
	leveldb_options_set_cache(kv->options, kv->cache);
	leveldb_options_set_filter_policy(kv->options, kv->filter);
	leveldb_options_set_write_buffer_size(kv->options, buffer_bytes);
	leveldb_options_set_compression(kv->options, leveldb_snappy_compression);
	kv->read_options = leveldb_readoptions_create();
	leveldb_readoptions_set_verify_checksums(kv->read_options, 1);
	kv->read_once_options = leveldb_readoptions_create();
	leveldb_readoptions_set_verify_checksums(kv->read_once_options, 1);
	leveldb_readoptions_set_fill_cache(kv->read_once_options, 0);
	kv->write_options = leveldb_writeoptions_create();
}

struct contents {
	bool current, used;
};

static bool look_at_name(void *arg, const char *name)
{
	struct contents *contents = arg;
	const char *dot = strrchr(name, '.');
	if (strcmp(name, "CURRENT") == 0)
		contents->current = true;
	if (dot != NULL && (strcmp(dot, ".ldb") == 0 || strcmp(dot, ".sst") == 0 || strcmp(dot, ".log") == 0))
		contents->used = true;
	return true;
}

/* A store without CURRENT would be taken for a new one, and emptied. */
static enum err check_current(struct kv *kv)
{
	struct contents contents = { 0 };
	enum err err = dir_list(kv->loop, kv->path, look_at_name, &contents);
	if (err == OK && contents.used && !contents.current) {
		log_error("kv_failed", "operation=open path=%s text=CURRENT_is_missing", kv->path);
		err = ERR_CORRUPT;
	}
	return err;
}

enum err kv_open(struct loop *loop, const char *path, const struct kv_options *options, struct kv **out)
{
	*out = NULL;
	enum err err = dir_make(loop, path);
	if (err != OK)
		return err;
	struct kv *kv = mem_zero(1, sizeof(*kv));
	kv->loop = loop;
	kv->path = mem_string(path);
	kv->filling = options != NULL && options->filling;
	make_options(kv, options);
	char *text = NULL;
	err = take_lock(kv);
	if (err == OK)
		err = check_current(kv);
	if (err == OK)
		err = kv_log_repair(loop, path);
	if (err == OK) {
		kv->db = leveldb_open(kv->options, path, &text);
		err = kv->db == NULL ? failed(kv, "open", true, text) : find_log(kv);
	}
	if (err != OK) {
		kv_close(kv);
		return err;
	}
	*out = kv;
	return OK;
}

void kv_close(struct kv *kv)
{
	if (kv == NULL)
		return;
	if (kv->db != NULL)
		leveldb_close(kv->db);
	leveldb_writeoptions_destroy(kv->write_options);
	leveldb_readoptions_destroy(kv->read_options);
	leveldb_readoptions_destroy(kv->read_once_options);
	leveldb_options_destroy(kv->options);
	leveldb_filterpolicy_destroy(kv->filter);
	leveldb_cache_destroy(kv->cache);
	if (kv->left != NULL)
		kv->left->kv = NULL;
	file_unref(kv->log);
	file_unref(kv->lock);
	free(kv->path);
	free(kv);
}

enum err kv_settle(struct kv *kv)
{
	check(kv->filling);
	if (atomic_load(&kv->failed))
		return ERR_STORE_FAILED;
	file_unref(kv->log);
	kv->log = NULL;
	kv->filling = false;
	return find_log(kv);
}

bool kv_is_damaged(const struct kv *kv)
{
	return atomic_load(&kv->damaged);
}

static enum err read_failed(struct kv *kv, const char *what, char *text)
{
	atomic_store(&kv->damaged, true);
	return failed(kv, what, true, text);
}

struct removal {
	struct loop *loop;
	const char *path;
	enum err err;
};

static bool remove_one(void *arg, const char *name)
{
	struct removal *removal = arg;
	char path[PATH_BYTES_MAX];
	int size = snprintf(path, sizeof(path), "%s/%s", removal->path, name);
	check(size > 0 && (size_t)size < sizeof(path));
	enum err err = file_unlink(removal->loop, path);
	removal->err = err == ERR_NOT_FOUND ? OK : err;
	return removal->err == OK;
}

enum err kv_remove(struct loop *loop, const char *path)
{
	struct removal removal = { .loop = loop, .path = path };
	enum err err = dir_list(loop, path, remove_one, &removal);
	if (err == ERR_NOT_FOUND)
		return OK;
	if (err == OK)
		err = removal.err;
	if (err == OK && rmdir(path) != 0)
		err = ERR_IO;
	return err;
}

enum err kv_get(struct kv *kv, struct slice key, struct buf *value)
{
	buf_clear(value);
	char *text = NULL;
	size_t size = 0;
	char *found = leveldb_get(kv->db, kv->read_options, (const char *)key.bytes, key.size, &size, &text);
	if (text != NULL)
		return read_failed(kv, "get", text);
	if (found == NULL)
		return ERR_NOT_FOUND;
	buf_append(value, found, size);
	leveldb_free(found);
	return OK;
}

enum err kv_write(struct kv *kv, const struct kv_batch *batch, bool sync)
{
	if (atomic_load(&kv->failed))
		return ERR_STORE_FAILED;
	char *text = NULL;
	leveldb_write(kv->db, kv->write_options, batch->batch, &text);
	if (text != NULL) {
		atomic_store(&kv->failed, true);
		return failed(kv, "write", false, text);
	}
	enum err err = kv->filling ? OK : follow_log(kv);
	if (err != OK) {
		atomic_store(&kv->failed, true);
		return err;
	}
	return sync ? kv_sync(kv) : OK;
}

struct sync_pass {
	struct kv *kv;
	enum err err;
};

static bool sync_log(void *arg, const char *name)
{
	struct sync_pass *pass = arg;
	size_t length = strlen(name);
	if (length < 4 || strcmp(name + length - 4, ".log") != 0)
		return true;
	char path[PATH_BYTES_MAX];
	int size = snprintf(path, sizeof(path), "%s/%s", pass->kv->path, name);
	check(size > 0 && (size_t)size < sizeof(path));
	struct file *file = NULL;
	enum err err = file_open(pass->kv->loop, path, FILE_READ_ONLY, &file);
	if (err == ERR_NOT_FOUND)
		return true;
	if (err == OK)
		err = file_sync(file);
	file_unref(file);
	pass->err = err;
	return err == OK;
}

enum err kv_sync(struct kv *kv)
{
	if (atomic_load(&kv->failed))
		return ERR_STORE_FAILED;
	struct sync_pass pass = { .kv = kv };
	enum err err = dir_list(kv->loop, kv->path, sync_log, &pass);
	if (err == OK)
		err = pass.err;
	if (err == OK)
		err = dir_sync(kv->loop, kv->path);
	if (err != OK)
		atomic_store(&kv->failed, true);
	return err;
}

struct kv_batch *kv_batch_open(void)
{
	struct kv_batch *batch = mem_alloc(sizeof(*batch));
	batch->batch = leveldb_writebatch_create();
	return batch;
}

void kv_batch_close(struct kv_batch *batch)
{
	if (batch == NULL)
		return;
	leveldb_writebatch_destroy(batch->batch);
	free(batch);
}

void kv_batch_clear(struct kv_batch *batch)
{
	leveldb_writebatch_clear(batch->batch);
}

void kv_batch_put(struct kv_batch *batch, struct slice key, struct slice value)
{
	leveldb_writebatch_put(batch->batch, (const char *)key.bytes, key.size, (const char *)value.bytes, value.size);
}

void kv_batch_delete(struct kv_batch *batch, struct slice key)
{
	leveldb_writebatch_delete(batch->batch, (const char *)key.bytes, key.size);
}

static struct kv_iterator *iterator_open(struct kv *kv, const leveldb_readoptions_t *options)
{
	struct kv_iterator *iterator = mem_alloc(sizeof(*iterator));
	iterator->iterator = leveldb_create_iterator(kv->db, options);
	iterator->kv = kv;
	return iterator;
}

struct kv_iterator *kv_iterator_open(struct kv *kv)
{
	return iterator_open(kv, kv->read_options);
}

struct kv_iterator *kv_iterator_open_once(struct kv *kv)
{
	return iterator_open(kv, kv->read_once_options);
}

void kv_iterator_close(struct kv_iterator *iterator)
{
	if (iterator == NULL)
		return;
	leveldb_iter_destroy(iterator->iterator);
	free(iterator);
}

void kv_iterator_seek(struct kv_iterator *iterator, struct slice key)
{
	leveldb_iter_seek(iterator->iterator, (const char *)key.bytes, key.size);
}

void kv_iterator_next(struct kv_iterator *iterator)
{
	check(leveldb_iter_valid(iterator->iterator));
	leveldb_iter_next(iterator->iterator);
}

bool kv_iterator_valid(const struct kv_iterator *iterator)
{
	return leveldb_iter_valid(iterator->iterator);
}

struct slice kv_iterator_key(const struct kv_iterator *iterator)
{
	size_t size = 0;
	const char *key = leveldb_iter_key(iterator->iterator, &size);
	return slice_of(key, size);
}

struct slice kv_iterator_value(const struct kv_iterator *iterator)
{
	size_t size = 0;
	const char *value = leveldb_iter_value(iterator->iterator, &size);
	return slice_of(value, size);
}

enum err kv_iterator_error(const struct kv_iterator *iterator)
{
	char *text = NULL;
	leveldb_iter_get_error(iterator->iterator, &text);
	return text == NULL ? OK : read_failed(iterator->kv, "iterate", text);
}
