/* The trash of the cluster: entries kept in memory, found by path, walked as a tree. */
#ifndef GRANARY_TOOLS_GRANARY_TRASH_H
#define GRANARY_TOOLS_GRANARY_TRASH_H

#include "tools/granary/cli.h"

struct trash_item {
	uint64_t id, parent;
	char *name;
	int64_t removed_ns, parent_mtime_ns;
	struct granary_stat stat;
};
/* A zeroed struct is empty. */
struct trash_items {
	struct trash_item *items;
	size_t count;
};

/* Adds what was removed from the directory (granary_trash_list). */
granary_status trash_read(struct cli *cli, uint64_t directory, const char *name, struct trash_items *out);
/* A granary_trash_fn; arg: struct trash_items. */
bool trash_add(void *arg, const struct granary_trash_entry *entry);
void trash_items_deinit(struct trash_items *items);

/* What was removed as `path`, at every place where its directories are or were: the newest of each place last. An exit status, which
 * it has reported; none is EXIT_DONE. */
int trash_find(struct cli *cli, const char *path, struct trash_items *out);

/* Calls fn for all that was removed at or below the path: from directories that are there and, where one was removed, from it.
 * An exit status. */
typedef void trash_visit_fn(void *arg, const char *path, const struct trash_item *item);
int trash_walk(struct cli *cli, const char *path, bool recursive, trash_visit_fn *fn, void *arg);

#endif
