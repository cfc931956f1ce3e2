/* The handlers of fuse_lowlevel_ops, by subject. Each is called on the loop with a request of the kernel, starts calls of
 * the client, and ends in exactly one reply. What each must do is said in libfuse's fuse_lowlevel.h. */
#ifndef GRANARY_FUSE_OPS_H
#define GRANARY_FUSE_OPS_H

#include "fuse/request.h"

/* ops_name.c */
void on_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void on_forget(fuse_req_t fuse, fuse_ino_t nodeid, uint64_t lookups);
void on_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *forgets);
void on_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void on_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode);
void on_symlink(fuse_req_t fuse, const char *target, fuse_ino_t parent, const char *name);
void on_readlink(fuse_req_t fuse, fuse_ino_t nodeid);
void on_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void on_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name);
void on_link(fuse_req_t fuse, fuse_ino_t nodeid, fuse_ino_t parent, const char *name);
void on_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	       unsigned flags);

/* ops_attr.c */
void on_getattr(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file);
void on_setattr(fuse_req_t fuse, fuse_ino_t nodeid, struct stat *attr, int valid, struct fuse_file_info *file);
void on_statfs(fuse_req_t fuse, fuse_ino_t nodeid);

/* ops_xattr.c */
void on_setxattr(fuse_req_t fuse, fuse_ino_t nodeid, const char *name, const char *value, size_t size, int flags);
void on_getxattr(fuse_req_t fuse, fuse_ino_t nodeid, const char *name, size_t size);
void on_listxattr(fuse_req_t fuse, fuse_ino_t nodeid, size_t size);
void on_removexattr(fuse_req_t fuse, fuse_ino_t nodeid, const char *name);

/* ops_open.c */
void on_open(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file);
void on_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file);
void on_flush(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file);
void on_release(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file);

/* ops_data.c */
void on_read(fuse_req_t fuse, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *file);
void on_write(fuse_req_t fuse, fuse_ino_t nodeid, const char *bytes, size_t size, off_t offset,
	      struct fuse_file_info *file);
void on_fsync(fuse_req_t fuse, fuse_ino_t nodeid, int data_only, struct fuse_file_info *file);
void on_copy_file_range(fuse_req_t fuse, fuse_ino_t from_nodeid, off_t from_offset, struct fuse_file_info *from_file,
			fuse_ino_t nodeid, off_t offset, struct fuse_file_info *file, size_t size, int flags);
void on_fallocate(fuse_req_t fuse, fuse_ino_t nodeid, int mode, off_t offset, off_t length,
		  struct fuse_file_info *file);

/* ops_dir.c */
/* Forgets what was kept of the last directory. */
void dirs_deinit(struct mount *mount);
void on_opendir(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file);
void on_readdir(fuse_req_t fuse, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *file);
void on_readdirplus(fuse_req_t fuse, fuse_ino_t nodeid, size_t size, off_t offset, struct fuse_file_info *file);
void on_releasedir(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file);
void on_fsyncdir(fuse_req_t fuse, fuse_ino_t nodeid, int data_only, struct fuse_file_info *file);

/* ops_lock.c */
void on_getlk(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file, struct flock *lock);
void on_setlk(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file, struct flock *lock, int sleep);
void on_flock(fuse_req_t fuse, fuse_ino_t nodeid, struct fuse_file_info *file, int op);
bool lock_held(const struct node *node, uint64_t owner, bool flock);
/* Drops all fcntl locks (or the flock) of this owner; `done` gets the request. */
void lock_drop(struct request *request, uint64_t owner, bool flock, client_meta_fn *done);

#endif
