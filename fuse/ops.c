/* The table of operations, and what is agreed with the kernel at INIT. */
#include "fuse/ops.h"

#include "common/sys/log.h"

static void want(struct fuse_conn_info *conn, unsigned capability, bool on)
{
	conn->want &= ~capability;
	if (on && (conn->capable & capability))
		conn->want |= capability;
}

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	struct mount *mount = userdata;

	want(conn, FUSE_CAP_WRITEBACK_CACHE, true);
	want(conn, FUSE_CAP_ASYNC_READ, true);
	want(conn, FUSE_CAP_ASYNC_DIO, true);
	want(conn, FUSE_CAP_ATOMIC_O_TRUNC, true);
	want(conn, FUSE_CAP_READDIRPLUS, true);
	want(conn, FUSE_CAP_READDIRPLUS_AUTO, true);
	want(conn, FUSE_CAP_PARALLEL_DIROPS, true);
	want(conn, FUSE_CAP_POSIX_LOCKS, true);
	want(conn, FUSE_CAP_FLOCK_LOCKS, true);
	want(conn, FUSE_CAP_CACHE_SYMLINKS, true);
	/* Which pages are still right is ours to say: at open, at locks and by recall. */
	want(conn, FUSE_CAP_AUTO_INVAL_DATA, false);
	want(conn, FUSE_CAP_EXPLICIT_INVAL_DATA, true);
	/* Set-id bits are dropped by us, but not in this older way: privileges.h. The umask is applied by the kernel. */
	want(conn, FUSE_CAP_HANDLE_KILLPRIV, false);
	want(conn, FUSE_CAP_DONT_MASK, false);
	want(conn, FUSE_CAP_POSIX_ACL, false);
	/* Data goes from the kernel's pages into frames with checksums: it has to be in memory. */
	want(conn, FUSE_CAP_SPLICE_READ, false);
	want(conn, FUSE_CAP_SPLICE_WRITE, false);
	want(conn, FUSE_CAP_SPLICE_MOVE, false);
	conn->max_write = MOUNT_IO_BYTES_MAX;
	conn->max_read = MOUNT_IO_BYTES_MAX;
	conn->max_readahead = MOUNT_READAHEAD_BYTES;
	conn->max_background = MOUNT_BACKGROUND_MAX;
	conn->congestion_threshold = MOUNT_BACKGROUND_MAX * 3 / 4;
	conn->time_gran = 1;
	mount->initialised = true;
	log_debug("fuse_init", "protocol=%u.%u capable=%08x want=%08x", conn->proto_major, conn->proto_minor,
		  conn->capable, conn->want);
}

/* Not here, answered ENOSYS once and done by the kernel in its own way from then on: access (default_permissions), lseek
 * (all is data up to the end), ioctl, poll, bmap. */
const struct fuse_lowlevel_ops mount_ops = {
    .init = on_init,
    .lookup = on_lookup,
    .forget = on_forget,
    .forget_multi = on_forget_multi,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .readlink = on_readlink,
    .mknod = on_mknod,
    .mkdir = on_mkdir,
    .unlink = on_unlink,
    .rmdir = on_rmdir,
    .symlink = on_symlink,
    .rename = on_rename,
    .link = on_link,
    .open = on_open,
    .create = on_create,
    .read = on_read,
    .write = on_write,
    .flush = on_flush,
    .release = on_release,
    .fsync = on_fsync,
    .fallocate = on_fallocate,
    .copy_file_range = on_copy_file_range,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .readdirplus = on_readdirplus,
    .releasedir = on_releasedir,
    .fsyncdir = on_fsyncdir,
    .statfs = on_statfs,
    .setxattr = on_setxattr,
    .getxattr = on_getxattr,
    .listxattr = on_listxattr,
    .removexattr = on_removexattr,
    .getlk = on_getlk,
    .setlk = on_setlk,
    .flock = on_flock,
};
