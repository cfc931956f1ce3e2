/* The data directory: where files lie, the pool of free files, quarantine.
 *
 *   DIR/lock        held while the process lives          DIR/chunks/X/Y/ID.chunk, ID.pack    X, Y: one hex digit of a hash of the id
 *   DIR/identity    server id, cluster id                 DIR/free/NN                         empty files of deleted chunks, for reuse
 *   DIR/index/      LevelDB                               DIR/quarantine/                     whatever was not understood: never deleted
 *   DIR/intents     blocks being written (intents.h)                                          DIR/writes  the last ones (write_log.h)
 *   DIR/failed      a number, new with each failure of the store (disk_watch.h)                  DIR/probe   written to see how the disk is
 *
 * Thread: the loop, but for what says worker. */
#ifndef GRANARY_CHUNKSERVER_STORE_FILES_H
#define GRANARY_CHUNKSERVER_STORE_FILES_H

#include <stdbool.h>

#include "chunkserver/chunk_format.h"
#include "common/sys/file.h"

struct store_files {
	struct loop *loop;
	char *root;
	struct file *lock;
	uint64_t root_id; /* of the folder itself, whatever its name */
	bool free_ready[FREE_FILES_MAX]; /* holds an empty file */
	bool free_taken[FREE_FILES_MAX]; /* being filled or emptied */
};

/* Makes the directories and takes the lock: ERR_BUSY when another process has it. */
MUST_USE enum err store_files_open(struct loop *loop, const char *root, struct store_files *files);
/* ERR_STALE_HANDLE: there is no data folder that has been in use. */
MUST_USE enum err store_files_must_exist(struct loop *loop, const char *root);
void store_files_close(struct store_files *files);

/* Worker: is the folder still the one that was opened? ERR_STALE_HANDLE: it has another in its place, or none: what was mounted there
 * is gone, and nothing may be written below its name. */
MUST_USE enum err store_files_check_root(struct store_files *files);

/* Paths are the caller's (free). */
char *store_files_path(const struct store_files *files, uint64_t chunk, enum chunk_kind kind);
char *store_files_join(const struct store_files *files, const char *name);
/* Worker: makes the folder of `path`. */
MUST_USE enum err store_files_make_folder(struct loop *loop, const char *path);
/* Worker: syncs the folder of `path`. */
MUST_USE enum err store_files_sync_folder(struct loop *loop, const char *path);

/* A free file to become another: its number, or -1. Whoever took it gives it back as used up or (on failure) leaves it. */
int store_files_take(struct store_files *files);
/* A free place for a file that is going: its number, or -1. */
int store_files_vacate(struct store_files *files);
void store_files_settle(struct store_files *files, int number, bool ready);
char *store_files_free_path(const struct store_files *files, int number);
/* Worker: removes a chunk's file; into `free_path` emptied, or (NULL) for good. ERR_NOT_FOUND: it is not there, nor is there now a free one. */
MUST_USE enum err store_files_remove(struct loop *loop, const char *path, const char *free_path);

/* Moves a file or directory out of the way. Also on a worker. */
MUST_USE enum err store_files_quarantine(struct store_files *files, const char *path);

/* Finds all chunk files; those that are not understood go to quarantine. fn gets kind and id. */
typedef void store_files_found_fn(void *arg, uint64_t chunk, enum chunk_kind kind, const char *path);
MUST_USE enum err store_files_scan(struct store_files *files, store_files_found_fn *fn, void *arg);

#endif
