/* Setattr of granary.proto: which attributes its mask changes, and what becomes of mode and owner at the master and at a client
 * that changes them by itself. Numbers are on the wire: never renumber. */
#ifndef GRANARY_COMMON_PROTO_SETATTR_H
#define GRANARY_COMMON_PROTO_SETATTR_H

#include "common/proto/mode.h"
#include "granary.pb-c.h"

enum setattr_mask {
	SETATTR_MODE = 1,
	SETATTR_UID = 2,
	SETATTR_GID = 4,
	SETATTR_SIZE = 8,
	SETATTR_ATIME = 16,
	SETATTR_MTIME = 32,
	SETATTR_CTIME = 64,
	SETATTR_ATIME_NOW = 128, /* the time of the log entry */
	SETATTR_MTIME_NOW = 256,
};
#define SETATTR_ALL 511u

static inline void setattr_owner(Granary__Inode *attr, const Granary__Setattr *change)
{
	if (change->mask & SETATTR_MODE)
		attr->mode = (attr->mode & ~MODE_PERMISSIONS) | (change->mode & MODE_PERMISSIONS);
	if (change->mask & SETATTR_UID)
		attr->uid = change->uid;
	if (change->mask & SETATTR_GID)
		attr->gid = change->gid;
	if (change->by_owner_only && !mode_is_directory(attr->mode))
		attr->mode = mode_unprivileged(attr->mode);
}

#endif
