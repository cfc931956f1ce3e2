/* Directories: names, the rules of POSIX about them. */
#ifndef GRANARY_MASTER_META_DIR_H
#define GRANARY_MASTER_META_DIR_H

#include "master/meta/state.h"

struct dirent {
	uint64_t inode; /* 0: there is no such name */
	uint32_t type;  /* DT_* */
};

/* ERR_NAME_TOO_LONG; ERR_INVALID for an empty name, ".", "..", or one with "/" or NUL. */
MUST_USE enum err name_check(struct slice name);
bool name_is(struct slice name, const char *text);

/* A directory that can take names: ERR_NOT_FOUND when it does not exist or was removed, ERR_NOT_DIRECTORY. */
MUST_USE enum err dir_get(struct meta *meta, uint64_t id, const Granary__Inode **out);
/* The name has at most NAME_BYTES_MAX bytes. */
struct dirent dir_find(struct meta *meta, uint64_t id, struct slice name);

/* A name of a directory; the functions below change its count of names, its links, times, and the parent of a
 * directory that it names, and recall caches. */
struct dir_name {
	uint64_t directory;
	struct slice name;
};
void dir_add(struct context *context, const struct dir_name *at, uint64_t inode_id, const Granary__Inode *inode);
void dir_remove(struct context *context, const struct dir_name *at, const Granary__Inode *inode);
/* Puts `inode` where another one of the same kind (directory or not) was. */
void dir_replace(struct context *context, const struct dir_name *at, uint64_t inode_id, const Granary__Inode *inode);

#endif
