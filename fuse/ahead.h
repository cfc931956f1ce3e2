/* Lookups ahead. A program that looks up many names of a directory (git status, rsync, make) would wait for the master at each.
 * After a few lookups the mount asks for the directory's names with their attributes at once, as a readdirplus does, and
 * answers from that while it holds: while the leases run that came with it, and until anything is recalled or changed by this
 * mount (mount.epoch). Where that turned out to be of little use, more lookups have to come before the next. (Lustre calls it
 * statahead.)
 *
 * Bound: AHEAD_DIRECTORIES_MAX, the least recently used ones go. */
#ifndef GRANARY_FUSE_AHEAD_H
#define GRANARY_FUSE_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/message.h"

#define AHEAD_DIRECTORIES_MAX 32u

struct mount;
struct node;
struct request;
struct ahead_directory;

struct ahead {
	struct ahead_directory *table; /* by inode */
	struct ahead_directory *order; /* least recently used first */
};

/* What is known of the name that the request looks up in its node; NULL: nothing, the master is to be asked. *started_ms: the
 * entry's lease runs from there. Valid until the next call of anything here. */
const Granary__DirectoryEntry *ahead_find(const struct request *request, uint64_t *started_ms);
/* What is known of a node that the kernel has: the same, but nothing is asked for. */
const Granary__DirectoryEntry *ahead_known(const struct mount *mount, const struct node *node, uint64_t *started_ms);
void ahead_deinit(struct ahead *ahead);

#endif
