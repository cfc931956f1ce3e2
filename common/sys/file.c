#include "common/sys/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "common/sys/real.h"

#define DIRECT_ALIGNMENT 4096u

struct file {
	int descriptor;
	int direct; /* the same file with O_DIRECT, or -1 */
	unsigned references;
	char path[];
};

/* Where an error is born: the one place that logs it. Absence and the like are answers, not failures. */
static enum err failed(const char *what, const char *path, int number)
{
	enum err err = err_from_errno(number);
	check(err != OK);
	if (err != ERR_NOT_FOUND && err != ERR_EXISTS && err != ERR_WOULD_BLOCK) {
		char escaped[PATH_BYTES_MAX];
		log_error("file_failed", "operation=%s path=%s errno=%d", what,
			  log_escape(path, strlen(path), escaped, sizeof(escaped)), number);
	}
	return err;
}

enum err file_open(struct loop *loop, const char *path, unsigned flags, struct file **out)
{
	(void)loop;
	*out = NULL;
	int how = O_CLOEXEC | O_NOFOLLOW | (flags & FILE_WRITE ? O_RDWR : O_RDONLY);
	if (flags & FILE_CREATE)
		how |= O_CREAT;
	if (flags & FILE_EXCLUSIVE)
		how |= O_EXCL;
	if (flags & FILE_TRUNCATE)
		how |= O_TRUNC;
	int descriptor = open(path, how, 0600);
	if (descriptor < 0)
		return failed("open", path, errno);
	struct file *file = mem_alloc(sizeof(*file) + strlen(path) + 1);
	file->descriptor = descriptor;
	file->direct = -1;
	file->references = 1;
	memcpy(file->path, path, strlen(path) + 1);
	if (flags & FILE_DIRECT)
		file->direct = open(path, O_CLOEXEC | O_NOFOLLOW | O_DIRECT | (flags & FILE_WRITE ? O_RDWR : O_RDONLY));
	*out = file;
	return OK;
}

int file_descriptor(const struct file *file)
{
	return file->descriptor;
}

struct file *file_ref(struct file *file)
{
	file->references++;
	return file;
}

void file_unref(struct file *file)
{
	if (file == NULL)
		return;
	check(file->references > 0);
	if (--file->references > 0)
		return;
	if (file->direct >= 0 && close(file->direct) != 0)
		(void)failed("close", file->path, errno);
	if (close(file->descriptor) != 0)
		(void)failed("close", file->path, errno);
	free(file);
}

static bool is_aligned(uint64_t offset, const void *bytes, size_t size)
{
	return ((offset | (uintptr_t)bytes | size) & (DIRECT_ALIGNMENT - 1)) == 0;
}

enum err file_read(struct file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
	*done = 0;
	int descriptor = file->direct >= 0 && is_aligned(offset, bytes, size) ? file->direct : file->descriptor;
	while (*done < size) {
		ssize_t got = pread(descriptor, (char *)bytes + *done, size - *done, (off_t)(offset + *done));
		if (got == 0)
			break;
		if (got > 0) {
			*done += (size_t)got;
			/* After a short direct read the rest may be unaligned: the end of the file, as a rule. */
			descriptor = file->descriptor;
			continue;
		}
		if (errno == EINVAL && descriptor == file->direct && descriptor != file->descriptor) {
			descriptor = file->descriptor;
			continue;
		}
		if (errno != EINTR)
			return failed("read", file->path, errno);
	}
	return OK;
}

enum err file_read_cached(struct file *file, uint64_t offset, void *bytes, size_t size, size_t *done)
{
	*done = 0;
	while (*done < size) {
		struct iovec vector = { .iov_base = (char *)bytes + *done, .iov_len = size - *done };
		ssize_t got = preadv2(file->descriptor, &vector, 1, (off_t)(offset + *done), RWF_NOWAIT);
		if (got == 0)
			break;
		if (got > 0) {
			*done += (size_t)got;
			continue;
		}
		/* A file system without RWF_NOWAIT: as if nothing were cached. */
		if (errno == EAGAIN || errno == EOPNOTSUPP || errno == EINVAL)
			return ERR_WOULD_BLOCK;
		if (errno != EINTR)
			return failed("read", file->path, errno);
	}
	return OK;
}

/* linux/mman.h since 6.5; the number is the same on all architectures but alpha. */
#define SYSTEM_CACHESTAT 451
struct system_cachestat_range {
	uint64_t offset, size;
};
struct system_cachestat {
	uint64_t cached, dirty, writeback, evicted, recently_evicted; /* pages */
};

enum err file_is_cached(struct file *file, uint64_t offset, size_t size)
{
	struct system_cachestat_range range = { offset, size };
	struct system_cachestat status = { 0 };
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	if (syscall(SYSTEM_CACHESTAT, file->descriptor, &range, &status, 0) != 0)
		return ERR_NOT_SUPPORTED;
	return status.cached >= (offset + size + page - 1) / page - offset / page ? OK : ERR_WOULD_BLOCK;
}

void file_no_readahead(struct file *file)
{
	(void)posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_RANDOM); /* a hint */
}

void file_will_need(struct file *file, uint64_t offset, size_t size)
{
	(void)posix_fadvise(file->descriptor, (off_t)offset, (off_t)size, POSIX_FADV_WILLNEED); /* whoever reads it waits or meets the error */
}

enum err file_write(struct file *file, uint64_t offset, const void *bytes, size_t size)
{
	int descriptor = file->direct >= 0 && is_aligned(offset, bytes, size) ? file->direct : file->descriptor;
	size_t done = 0;
	while (done < size) {
		ssize_t put = pwrite(descriptor, (const char *)bytes + done, size - done, (off_t)(offset + done));
		if (put > 0) {
			done += (size_t)put;
			descriptor = file->descriptor;
			continue;
		}
		if (put == 0)
			return failed("write", file->path, EIO);
		if (errno == EINVAL && descriptor == file->direct && descriptor != file->descriptor) {
			/* This file system wants a larger alignment. */
			descriptor = file->descriptor;
			continue;
		}
		if (errno != EINTR)
			return failed("write", file->path, errno);
	}
	return OK;
}

enum err file_write_parts(struct file *file, uint64_t offset, const struct slice *parts, size_t count)
{
	struct iovec vectors[FILE_PARTS_MAX];
	bool direct = file->direct >= 0;
	check(count <= FILE_PARTS_MAX);
	for (size_t i = 0; i < count; i++) {
		vectors[i] = (struct iovec){ .iov_base = (void *)(uintptr_t)parts[i].bytes, .iov_len = parts[i].size };
		direct = direct && is_aligned(offset, parts[i].bytes, parts[i].size);
	}
	ssize_t put = pwritev(direct ? file->direct : file->descriptor, vectors, (int)count, (off_t)offset);
	if (put < 0 && errno != EINTR && errno != EINVAL)
		return failed("write", file->path, errno);
	/* What is missing, one after another. */
	size_t skip = put < 0 ? 0 : (size_t)put;
	enum err err = OK;
	for (size_t i = 0; err == OK && i < count; i++) {
		size_t done = skip < parts[i].size ? skip : parts[i].size;
		if (done < parts[i].size)
			err = file_write(file, offset + done, parts[i].bytes + done, parts[i].size - done);
		skip -= done;
		offset += parts[i].size;
	}
	return err;
}

enum err file_sync(struct file *file)
{
	return fdatasync(file->descriptor) == 0 ? OK : failed("sync", file->path, errno);
}

enum err file_truncate(struct file *file, uint64_t size)
{
	return ftruncate(file->descriptor, (off_t)size) == 0 ? OK : failed("truncate", file->path, errno);
}

/* Zeros written for real: extents that are merely allocated change their state, which is metadata, when written. */
static enum err write_zeros(struct file *file, uint64_t offset, uint64_t size)
{
	const size_t piece_max = 256 * KIB;
	void *zeros = aligned_alloc(DIRECT_ALIGNMENT, piece_max);
	check(zeros != NULL);
	memset(zeros, 0, piece_max);
	enum err err = OK;
	while (size > 0 && err == OK) {
		size_t piece = size < piece_max ? (size_t)size : piece_max;
		err = file_write(file, offset, zeros, piece);
		offset += piece;
		size -= piece;
	}
	free(zeros);
	return err;
}

enum err file_preallocate(struct file *file, uint64_t offset, uint64_t size)
{
	/* First the space in one piece, or ENOSPC before anything is written. */
	if (fallocate(file->descriptor, 0, (off_t)offset, (off_t)size) != 0 && errno != EOPNOTSUPP)
		return failed("preallocate", file->path, errno);
	return write_zeros(file, offset, size);
}

enum err file_punch(struct file *file, uint64_t offset, uint64_t size)
{
	if (size == 0)
		return OK;
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	if (fallocate(file->descriptor, mode, (off_t)offset, (off_t)size) == 0)
		return OK;
	if (errno != EOPNOTSUPP)
		return failed("punch", file->path, errno);
	uint64_t end = 0;
	enum err err = file_size(file, &end);
	if (err != OK || offset >= end)
		return err;
	return write_zeros(file, offset, size < end - offset ? size : end - offset);
}

enum err file_size(struct file *file, uint64_t *out)
{
	struct stat status;
	*out = 0;
	if (fstat(file->descriptor, &status) != 0)
		return failed("stat", file->path, errno);
	*out = (uint64_t)status.st_size;
	return OK;
}

enum err file_allocated(struct file *file, uint64_t *out)
{
	struct stat status;
	*out = 0;
	if (fstat(file->descriptor, &status) != 0)
		return failed("stat", file->path, errno);
	*out = (uint64_t)status.st_blocks * 512;
	return OK;
}

enum err file_lock(struct file *file)
{
	if (flock(file->descriptor, LOCK_EX | LOCK_NB) == 0)
		return OK;
	return errno == EWOULDBLOCK ? ERR_BUSY : failed("lock", file->path, errno);
}

enum err file_rename(struct loop *loop, const char *from, const char *to)
{
	(void)loop;
	return rename(from, to) == 0 ? OK : failed("rename", from, errno);
}

enum err file_unlink(struct loop *loop, const char *path)
{
	(void)loop;
	return unlink(path) == 0 ? OK : failed("unlink", path, errno);
}

/* The directory that holds `path`, as text in `out`. */
static void parent_of(const char *path, char out[PATH_BYTES_MAX])
{
	const char *slash = strrchr(path, '/');
	size_t size = slash == NULL ? 0 : (size_t)(slash - path);
	if (slash == NULL)
		out[size++] = '.';
	else if (size == 0)
		out[size++] = '/';
	else
		memcpy(out, path, size);
	out[size] = '\0';
}

enum err dir_make(struct loop *loop, const char *path)
{
	char part[PATH_BYTES_MAX], parent[PATH_BYTES_MAX];
	size_t length = strlen(path);
	if (length == 0 || length >= sizeof(part))
		return ERR_NAME_TOO_LONG;
	memcpy(part, path, length + 1);
	for (size_t i = 1; i <= length; i++) {
		if (part[i] != '/' && part[i] != '\0')
			continue;
		part[i] = '\0';
		if (mkdir(part, 0700) == 0) {
			parent_of(part, parent);
			enum err err = dir_sync(loop, parent);
			if (err != OK)
				return err;
		} else if (errno != EEXIST) {
			return failed("mkdir", part, errno);
		}
		part[i] = i < length ? '/' : '\0';
	}
	struct stat status;
	if (stat(path, &status) != 0)
		return failed("stat", path, errno);
	return S_ISDIR(status.st_mode) ? OK : ERR_NOT_DIRECTORY;
}

enum err dir_sync(struct loop *loop, const char *path)
{
	(void)loop;
	int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (descriptor < 0)
		return failed("open", path, errno);
	enum err err = fsync(descriptor) == 0 ? OK : failed("sync", path, errno);
	close(descriptor);
	return err;
}

enum err dir_make_private(struct loop *loop, const char *path)
{
	(void)loop;
	struct stat status;
	if (stat(path, &status) != 0)
		return failed("stat", path, errno);
	if ((status.st_mode & 0777) == 0700)
		return OK;
	return chmod(path, 0700) == 0 ? OK : failed("chmod", path, errno);
}

enum err dir_identity(struct loop *loop, const char *path, uint64_t *id)
{
	(void)loop;
	struct stat status;
	*id = 0;
	if (stat(path, &status) != 0)
		return failed("stat", path, errno);
	*id = (uint64_t)status.st_dev * 0x9e3779b97f4a7c15ull ^ (uint64_t)status.st_ino;
	return OK;
}

enum err dir_list(struct loop *loop, const char *path, bool (*fn)(void *arg, const char *name), void *arg)
{
	(void)loop;
	DIR *directory = opendir(path);
	if (directory == NULL)
		return failed("opendir", path, errno);
	enum err err = OK;
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(directory);
		if (entry == NULL) {
			err = errno == 0 ? OK : failed("readdir", path, errno);
			break;
		}
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (!fn(arg, entry->d_name))
			break;
	}
	closedir(directory);
	return err;
}

enum err disk_space(struct loop *loop, const char *path, struct disk_space *out)
{
	(void)loop;
	*out = (struct disk_space){ 0 };
	struct statvfs status;
	if (statvfs(path, &status) != 0)
		return failed("statvfs", path, errno);
	out->bytes_total = (uint64_t)status.f_blocks * status.f_frsize;
	out->bytes_free = (uint64_t)status.f_bavail * status.f_frsize;
	return OK;
}

uint64_t machine_boot_id(struct loop *loop)
{
	struct buf text = { 0 };
	uint64_t id = 14695981039346656037u; /* FNV-1a of the kernel's UUID */
	enum err err = file_load(loop, "/proc/sys/kernel/random/boot_id", 256, &text);
	check(err == OK && text.size > 0);
	for (size_t i = 0; i < text.size; i++)
		id = (id ^ text.bytes[i]) * 1099511628211u;
	buf_deinit(&text);
	return id;
}

enum err file_replace(struct loop *loop, const char *path, struct slice bytes)
{
	char temporary[PATH_BYTES_MAX], parent[PATH_BYTES_MAX];
	int size = snprintf(temporary, sizeof(temporary), "%s.new", path);
	if (size < 0 || (size_t)size >= sizeof(temporary))
		return ERR_NAME_TOO_LONG;
	struct file *file = NULL;
	enum err err = file_open(loop, temporary, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, &file);
	if (err != OK)
		return err;
	err = file_write(file, 0, bytes.bytes, bytes.size);
	if (err == OK)
		err = file_sync(file);
	file_unref(file);
	if (err == OK)
		err = file_rename(loop, temporary, path);
	if (err != OK)
		return err;
	parent_of(path, parent);
	return dir_sync(loop, parent);
}

enum err file_load(struct loop *loop, const char *path, size_t size_max, struct buf *out)
{
	buf_clear(out);
	struct file *file = NULL;
	enum err err = file_open(loop, path, FILE_READ_ONLY, &file);
	if (err != OK)
		return err;
	/* Files of /proc say that they are empty: read until there is nothing more. */
	uint64_t size = 0;
	err = file_size(file, &size);
	if (err == OK && size > size_max)
		err = ERR_TOO_LARGE;
	size_t piece = err != OK || size < 4096 ? 4096 : (size_t)size + 1;
	size_t done = piece;
	while (err == OK && done == piece && out->size <= size_max) {
		buf_reserve(out, out->size + piece);
		err = file_read(file, out->size, out->bytes + out->size, piece, &done);
		out->size += done;
	}
	file_unref(file);
	if (err == OK && out->size > size_max)
		err = ERR_TOO_LARGE;
	if (err != OK)
		buf_clear(out);
	return err;
}
