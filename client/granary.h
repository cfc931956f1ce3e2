/* libgranary: files and blobs of a Granary cluster from C.
 *
 *	struct granary_cluster *cluster;
 *	enum granary_status s = granary_connect(&(struct granary_options){ .cluster = "127.0.0.1:7001" }, &cluster);
 *	...
 *	granary_close(cluster);
 *
 * Threads: a cluster handle and everything opened on it belong to one thread at a time. Calls block until they are done
 * or until timeout_ms has passed without a leader or a reachable replica. Data is checked from writer to reader: a call
 * never returns wrong bytes.
 *
 * Durability: granary_put* and granary_fsync return when the data is on the disks of all its replicas and the metadata on
 * those of a majority of the masters.
 *
 * What others write to a file that is open here is seen within a second; opened after they have closed or synced it, at
 * once. O_APPEND is the end of the file as it is known here: two who append to one file need a lock of their own.
 *
 * Paths are absolute, bytes, at most 4096; ids are what granary_put_id gave. */
#ifndef GRANARY_H
#define GRANARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct granary_cluster;
struct granary_file;

/* 0, or a positive error number; granary_error_text explains, granary_error_errno translates. */
typedef int granary_status;
const char *granary_error_text(granary_status status);
int granary_error_errno(granary_status status);
/* The last failure on this handle in the user's terms (what, why, what to do); valid until the next call. */
const char *granary_message(const struct granary_cluster *cluster);

struct granary_options {
	const char *cluster; /* "host:port,host:port"; NULL: as interface page (environment, configuration files) */
	const char *config;  /* a client.conf; NULL: as above */
	uint32_t timeout_ms; /* 0: 30,000 */
	uint32_t uid, gid;   /* owner of what is created through this handle */
	const char *storage_class; /* of what is created; NULL: that of its directory */
};
/* With a failure, too, *out is a handle, for granary_message and granary_close. */
granary_status granary_connect(const struct granary_options *options, struct granary_cluster **out);
void granary_close(struct granary_cluster *cluster);

struct granary_stat {
	uint64_t inode, size, blocks, change;
	uint32_t mode, uid, gid, nlink, rdev;
	int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
	uint32_t layout; /* 0 empty, 1 symbolic link, 2 blob in a pack, 3 chunks */
	uint64_t pack;
	uint32_t slot;
	char storage_class[64]; /* its name */
};

/* Whole blobs. Nothing half-written is ever visible under its name. */
granary_status granary_put(struct granary_cluster *, const char *path, const void *bytes, size_t size, uint32_t mode);
granary_status granary_put_id(struct granary_cluster *, const void *bytes, size_t size, uint64_t *id);
/* *bytes is malloced for the caller. */
granary_status granary_get(struct granary_cluster *, const char *path, void **bytes, size_t *size);
granary_status granary_get_id(struct granary_cluster *, uint64_t id, void **bytes, size_t *size);

/* Streams. flags as open(2): O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND. */
granary_status granary_open(struct granary_cluster *, const char *path, int flags, uint32_t mode,
			    struct granary_file **out);
granary_status granary_open_id(struct granary_cluster *, uint64_t id, struct granary_file **out);
/* A file without a name, to be written and then given one (or an id) by granary_publish; forgotten if it is not. */
/* path: where it will be published, which says what storage class it gets; or NULL. */
granary_status granary_open_unnamed(struct granary_cluster *, const char *path, uint32_t mode, struct granary_file **out);
struct granary_publish {
	const char *path;   /* NULL: no name, kept by id */
	bool if_absent;     /* fails with "already exists" */
	uint64_t if_change; /* not 0: only over a file whose stat.change is this */
	uint64_t id;        /* out */
};
granary_status granary_publish(struct granary_file *, struct granary_publish *);
/* *done is less than size only at the end of the file. */
granary_status granary_pread(struct granary_file *, void *bytes, size_t size, uint64_t offset, size_t *done);
granary_status granary_pwrite(struct granary_file *, const void *bytes, size_t size, uint64_t offset);
granary_status granary_fsync(struct granary_file *);
granary_status granary_ftruncate(struct granary_file *, uint64_t size);
granary_status granary_fstat(struct granary_file *, struct granary_stat *);
/* Writes what is buffered; an error here means that data was lost that granary_fsync did not cover. */
granary_status granary_file_close(struct granary_file *);

/* Names. */
granary_status granary_stat(struct granary_cluster *, const char *path, bool follow, struct granary_stat *);
granary_status granary_stat_id(struct granary_cluster *, uint64_t id, struct granary_stat *);
granary_status granary_mkdir(struct granary_cluster *, const char *path, uint32_t mode);
granary_status granary_rmdir(struct granary_cluster *, const char *path);
granary_status granary_unlink(struct granary_cluster *, const char *path);
granary_status granary_unlink_id(struct granary_cluster *, uint64_t id);
/* What is removed goes to the trash, if that is not off (`granary admin set trash_seconds`); with GRANARY_REMOVE_NOW it is gone. */
enum granary_remove_flags { GRANARY_REMOVE_NOW = 1, GRANARY_REMOVE_DIRECTORY = 2 };
granary_status granary_remove(struct granary_cluster *, const char *path, unsigned flags);
granary_status granary_remove_id(struct granary_cluster *, uint64_t id, unsigned flags);
enum granary_rename_flags { GRANARY_RENAME_NOREPLACE = 1, GRANARY_RENAME_EXCHANGE = 2 };
granary_status granary_rename(struct granary_cluster *, const char *from, const char *to, unsigned flags);
granary_status granary_link(struct granary_cluster *, const char *existing, const char *path);
granary_status granary_symlink(struct granary_cluster *, const char *target, const char *path);
granary_status granary_readlink(struct granary_cluster *, const char *path, char *target, size_t size);
granary_status granary_chmod(struct granary_cluster *, const char *path, uint32_t mode);
granary_status granary_chown(struct granary_cluster *, const char *path, uint32_t uid, uint32_t gid);
/* INT64_MIN leaves a time as it is. */
granary_status granary_utimes(struct granary_cluster *, const char *path, int64_t atime_ns, int64_t mtime_ns);
granary_status granary_truncate(struct granary_cluster *, const char *path, uint64_t size);
/* Gives a file or directory another storage class (`granary admin class`); below: what is in the directory gets it, too, in the background.
 * Otherwise that has the class which is made there from now on. */
granary_status granary_set_storage_class(struct granary_cluster *, const char *path, const char *name, bool below);

struct granary_entry {
	const char *name; /* valid for the call */
	size_t name_bytes;
	struct granary_stat stat;
};
/* Names in byte order, without "." and "..". fn returns false to stop. */
granary_status granary_list(struct granary_cluster *, const char *path,
			    bool (*fn)(void *arg, const struct granary_entry *), void *arg);

granary_status granary_xattr_get(struct granary_cluster *, const char *path, const char *name, void *value, size_t size,
				 size_t *done);
granary_status granary_xattr_set(struct granary_cluster *, const char *path, const char *name, const void *value,
				 size_t size);
granary_status granary_xattr_remove(struct granary_cluster *, const char *path, const char *name);
granary_status granary_xattr_list(struct granary_cluster *, const char *path, bool (*fn)(void *arg, const char *name),
				  void *arg);

/* The trash. An entry is a file or directory whose last name was removed; ids follow the order of removal. A removed directory
 * comes back empty: what was in it has entries of its own, in the trash of its inode. */
struct granary_trash_entry {
	uint64_t id;
	uint64_t parent;	/* inode of the directory that it was removed from; 0: it was kept by its id */
	const char *name;	/* its last one; valid for the call */
	int64_t removed_ns;
	int64_t parent_mtime_ns; /* of the directory, before the removal */
	struct granary_stat stat;
};
typedef bool granary_trash_fn(void *arg, const struct granary_trash_entry *);
/* What was removed from a directory (living or removed; 0: blobs kept by id) by name, each name's in order of removal; only that of
 * one name, if it is not NULL. fn returns false to stop. */
granary_status granary_trash_list(struct granary_cluster *, uint64_t directory, const char *name, granary_trash_fn *fn, void *arg);
/* Everything, in order of removal. */
granary_status granary_trash_list_all(struct granary_cluster *, granary_trash_fn *fn, void *arg);
struct granary_undelete {
	uint64_t id;
	uint64_t parent;       /* inode of a directory; 0: keep it by its id */
	const char *name;      /* free there */
	granary_status status; /* out */
};
/* Each by itself, in order. The first status that is not 0. */
granary_status granary_undelete(struct granary_cluster *, struct granary_undelete *, size_t count);
/* For good. What is not in the trash (any more) is no error. */
granary_status granary_trash_remove(struct granary_cluster *, const uint64_t *ids, size_t count);

struct granary_space {
	uint64_t bytes_total, bytes_free, bytes_used, inodes;
	uint64_t trash_bytes, trash_files; /* in the trash; they count among the used bytes and the inodes */
};
granary_status granary_space(struct granary_cluster *, struct granary_space *);

#ifdef __cplusplus
}
#endif
#endif
