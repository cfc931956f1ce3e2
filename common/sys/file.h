/* Files, blocking. For the loop at start-up and where the page cache is known to answer, otherwise on a worker
 * (loop.h): every function here but file_ref and file_unref may be called from a worker.
 *
 * Errors: ERR_NOT_FOUND, ERR_EXISTS, ERR_NO_SPACE, ERR_IO, … as err_from_errno says. After a failed write or sync the
 * content on disk is unknown and no retry may be taken for success (faults page). Writes are whole or an error. */
#ifndef GRANARY_COMMON_SYS_FILE_H
#define GRANARY_COMMON_SYS_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/sys/loop.h"

struct file;

enum file_flags {
	FILE_READ_ONLY = 0,
	FILE_WRITE = 1,	    /* read and write */
	FILE_CREATE = 2,    /* if it is not there; mode 0600 */
	FILE_EXCLUSIVE = 4, /* with FILE_CREATE: ERR_EXISTS if it is there */
	FILE_TRUNCATE = 8,
	FILE_DIRECT = 16, /* O_DIRECT for writes and reads that are aligned (address, offset and size by 4096); others and file
			     systems without it go through the page cache. May be combined with all of the above */
};

/* With one reference. */
MUST_USE enum err file_open(struct loop *loop, const char *path, unsigned flags, struct file **out);
struct file *file_ref(struct file *file);
/* Closes with the last reference. NULL is allowed. A file whose writes must be durable is synced before. */
void file_unref(struct file *file);

/* Reads up to size bytes; *done is less only at the end of the file. */
MUST_USE enum err file_read(struct file *file, uint64_t offset, void *bytes, size_t size, size_t *done);
/* Only from the page cache (preadv2 RWF_NOWAIT): ERR_WOULD_BLOCK when the disk would have to be asked. */
MUST_USE enum err file_read_cached(struct file *file, uint64_t offset, void *bytes, size_t size, size_t *done);
/* Is all of it in the page cache? OK or ERR_WOULD_BLOCK, without anything being read; ERR_NOT_SUPPORTED: before Linux 6.5. */
MUST_USE enum err file_is_cached(struct file *file, uint64_t offset, size_t size);
/* Nothing but what is asked for is read from the disk. */
void file_no_readahead(struct file *file);
/* Begins to read it into the page cache, and does not wait. */
void file_will_need(struct file *file, uint64_t offset, size_t size);
MUST_USE enum err file_write(struct file *file, uint64_t offset, const void *bytes, size_t size);
/* The same of bytes in several places, at most FILE_PARTS_MAX, one after another in the file. */
#define FILE_PARTS_MAX 16u
MUST_USE enum err file_write_parts(struct file *file, uint64_t offset, const struct slice *parts, size_t count);
/* fdatasync. */
MUST_USE enum err file_sync(struct file *file);
MUST_USE enum err file_truncate(struct file *file, uint64_t size);
/* Allocates and zeroes [offset, offset + size), so that later writes there change no metadata of the file system. */
MUST_USE enum err file_preallocate(struct file *file, uint64_t offset, uint64_t size);
/* The range reads as zeros and takes no space (FALLOC_FL_PUNCH_HOLE | KEEP_SIZE). */
MUST_USE enum err file_punch(struct file *file, uint64_t offset, uint64_t size);
MUST_USE enum err file_size(struct file *file, uint64_t *out);
/* Bytes that the file takes on disk. */
MUST_USE enum err file_allocated(struct file *file, uint64_t *out);
/* Exclusive lock for the life of the file (flock): ERR_BUSY if another process holds it. */
MUST_USE enum err file_lock(struct file *file);

/* Names. A change of a name is durable only after dir_sync of its directory. */
MUST_USE enum err file_rename(struct loop *loop, const char *from, const char *to);
MUST_USE enum err file_unlink(struct loop *loop, const char *path);
/* Like mkdir -p, mode 0700, each new level synced; OK if it is there. */
MUST_USE enum err dir_make(struct loop *loop, const char *path);
/* One that is there gets mode 0700, too. */
MUST_USE enum err dir_make_private(struct loop *loop, const char *path);
MUST_USE enum err dir_sync(struct loop *loop, const char *path);
/* Which directory it is, whatever its name: another one in its place, or below it when a file system was unmounted, has another id. */
MUST_USE enum err dir_identity(struct loop *loop, const char *path, uint64_t *id);
/* Calls fn for each name but "." and "..", in no order. fn returns false to stop. */
MUST_USE enum err dir_list(struct loop *loop, const char *path, bool (*fn)(void *arg, const char *name), void *arg);

struct disk_space {
	uint64_t bytes_total;
	uint64_t bytes_free; /* for us, not for root */
};
MUST_USE enum err disk_space(struct loop *loop, const char *path, struct disk_space *out);
/* Different after each boot of the machine: tells a crash of the process from one of the machine. */
uint64_t machine_boot_id(struct loop *loop);

/* Writes `bytes` under `path` so that after a crash the old or the new content is there: temporary file, sync, rename,
 * directory sync. */
MUST_USE enum err file_replace(struct loop *loop, const char *path, struct slice bytes);
/* The whole of a small file (at most size_max bytes: ERR_TOO_LARGE). */
MUST_USE enum err file_load(struct loop *loop, const char *path, size_t size_max, struct buf *out);

#endif
