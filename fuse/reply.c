#include "fuse/reply.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/base/limits.h"
#include "common/proto/setattr.h"

#define SECOND_NS 1000000000ll

int reply_errno(enum err err)
{
	int number;

	switch (err) {
	/* Nothing in the cluster has answered in time, whatever the last attempt met. */
	case ERR_CLOSED:
	case ERR_UNREACHABLE:
	case ERR_BUSY:
	case ERR_NOT_LEADER:
	case ERR_NO_LEADER:
	case ERR_NO_LEASE:
	case ERR_CHAIN_BROKEN:
	case ERR_STALE_VERSION:
		return ETIMEDOUT;
	default:
		number = err_errno(err);
		return number > 0 ? number : EIO;
	}
}

static struct timespec timespec_of(int64_t ns)
{
	int64_t seconds = ns / SECOND_NS;
	int64_t rest = ns % SECOND_NS;

	if (rest < 0) {
		rest += SECOND_NS;
		seconds--;
	}
	return (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
}

void reply_stat(uint64_t inode, const Granary__Inode *attr, const Granary__Inode *data, struct stat *out)
{
	if (!data)
		data = attr;
	*out = (struct stat){
	    .st_ino = inode,
	    .st_mode = attr->mode,
	    .st_nlink = attr->nlink,
	    .st_uid = attr->uid,
	    .st_gid = attr->gid,
	    .st_rdev = attr->rdev,
	    .st_size = (off_t)data->size,
	    .st_blksize = BLOCK_BYTES,
	    .st_blocks = (blkcnt_t)data->blocks,
	    .st_atim = timespec_of(data->atime),
	    .st_mtim = timespec_of(data->mtime),
	    .st_ctim = timespec_of(attr->ctime),
	};
	/* Buffered data has no blocks yet; tools take "size without blocks" for a file of holes. */
	if (data != attr && data->size > 0 && data->blocks == 0)
		out->st_blocks = (blkcnt_t)((data->size + 511) / 512);
}

double reply_timeout(uint32_t lease_ms, uint64_t started_ms, uint64_t now_ms)
{
	uint64_t end_ms = started_ms + lease_ms;

	return end_ms > now_ms ? (double)(end_ms - now_ms) / 1000.0 : 0.0;
}

void reply_statfs(const Granary__Statfs *from, struct statvfs *out)
{
	/* Inodes are not a limited supply: free ones are given as many more as there are, at least 2^30. */
	uint64_t spare = from->inodes > 1ull << 30 ? from->inodes : 1ull << 30;

	*out = (struct statvfs){
	    .f_bsize = BLOCK_BYTES,
	    .f_frsize = BLOCK_BYTES,
	    .f_blocks = from->bytes_total / BLOCK_BYTES,
	    .f_bfree = from->bytes_free / BLOCK_BYTES,
	    .f_bavail = from->bytes_free / BLOCK_BYTES,
	    .f_files = from->inodes + spare,
	    .f_ffree = spare,
	    .f_favail = spare,
	    .f_namemax = NAME_BYTES_MAX,
	};
}

static int64_t ns_of(struct timespec time)
{
	return (int64_t)time.tv_sec * SECOND_NS + time.tv_nsec;
}

void reply_setattr(const struct stat *attr, int valid, Granary__Setattr *out)
{
	if (valid & FUSE_SET_ATTR_MODE) {
		out->mask |= SETATTR_MODE;
		out->mode = attr->st_mode & 07777;
	}
	if (valid & FUSE_SET_ATTR_UID) {
		out->mask |= SETATTR_UID;
		out->uid = attr->st_uid;
	}
	if (valid & FUSE_SET_ATTR_GID) {
		out->mask |= SETATTR_GID;
		out->gid = attr->st_gid;
	}
	if (valid & FUSE_SET_ATTR_ATIME_NOW) {
		out->mask |= SETATTR_ATIME_NOW;
	} else if (valid & FUSE_SET_ATTR_ATIME) {
		out->mask |= SETATTR_ATIME;
		out->atime = ns_of(attr->st_atim);
	}
	if (valid & FUSE_SET_ATTR_MTIME_NOW) {
		out->mask |= SETATTR_MTIME_NOW;
	} else if (valid & FUSE_SET_ATTR_MTIME) {
		out->mask |= SETATTR_MTIME;
		out->mtime = ns_of(attr->st_mtim);
	}
	if (valid & FUSE_SET_ATTR_CTIME) {
		out->mask |= SETATTR_CTIME;
		out->ctime = ns_of(attr->st_ctim);
	}
}
