/* Setattr.mask of granary.proto: which attributes a Setattr changes. Numbers are on the wire: never renumber. */
#ifndef GRANARY_COMMON_PROTO_SETATTR_H
#define GRANARY_COMMON_PROTO_SETATTR_H

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

#endif
