/* Directories of the cluster, walked. */
#ifndef GRANARY_TOOLS_GRANARY_REMOTE_TREE_H
#define GRANARY_TOOLS_GRANARY_REMOTE_TREE_H

#include "tools/granary/cli.h"

struct listing_entry {
	char *name;
	struct granary_stat stat;
};
/* A zeroed struct is empty. */
struct listing {
	struct listing_entry *entries;
	size_t count;
};
/* The whole directory, in byte order. */
granary_status listing_read(struct cli *cli, const char *path, struct listing *out);
void listing_deinit(struct listing *listing);

enum visit { VISIT_BEFORE, VISIT_FILE, VISIT_AFTER };
/* Calls fn for everything below and at path: a directory before and after what is in it. What is no directory is
 * VISIT_FILE. fn and the result are exit statuses; the walk goes on after a failure, and does not enter a directory
 * that fn refused. relative: the path below the start, "" for the start itself. */
struct visited {
	const char *path;
	const char *relative;
	const struct granary_stat *stat;
	enum visit visit;
	unsigned depth;
	bool last; /* of its directory */
};
typedef int visit_fn(struct cli *cli, const struct visited *visited, void *arg);
int tree_walk(struct cli *cli, const char *path, visit_fn *fn, void *arg);

#endif
