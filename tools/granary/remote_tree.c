#include "tools/granary/remote_tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"

static bool listing_add(void *arg, const struct granary_entry *entry)
{
	struct listing *listing = arg;
	if ((listing->count & (listing->count - 1)) == 0) {
		size_t capacity = listing->count ? 2 * listing->count : 1;
		listing->entries = mem_resize(listing->entries, capacity * sizeof *listing->entries);
	}
	struct listing_entry *new = &listing->entries[listing->count++];
	new->name = mem_alloc(entry->name_bytes + 1);
	memcpy(new->name, entry->name, entry->name_bytes);
	new->name[entry->name_bytes] = 0;
	new->stat = entry->stat;
	return true;
}

granary_status listing_read(struct cli *cli, const char *path, struct listing *out)
{
	granary_status status = granary_list(cli->cluster, path, listing_add, out);
	if (status)
		listing_deinit(out);
	return status;
}

void listing_deinit(struct listing *listing)
{
	for (size_t i = 0; i < listing->count; i++)
		free(listing->entries[i].name);
	free(listing->entries);
	*listing = (struct listing){0};
}

struct walk {
	struct cli *cli;
	visit_fn *fn;
	void *arg;
	size_t root_bytes; /* of the start's path, for `relative` */
};

/* The depth is bounded by the length of a path. */
static int walk(struct walk *w, const char *path, const struct granary_stat *stat, unsigned depth, bool last)
{
	const char *relative = path + w->root_bytes;
	struct visited visited = {.path = path,
				  .relative = *relative == '/' ? relative + 1 : relative,
				  .stat = stat,
				  .depth = depth,
				  .last = last};
	if (!S_ISDIR(stat->mode)) {
		visited.visit = VISIT_FILE;
		return w->fn(w->cli, &visited, w->arg);
	}
	visited.visit = VISIT_BEFORE;
	int result = w->fn(w->cli, &visited, w->arg);
	if (result != EXIT_DONE)
		return result;
	struct listing listing = {0};
	granary_status status = listing_read(w->cli, path, &listing);
	if (status)
		return cli_error(w->cli, path, status);
	for (size_t i = 0; i < listing.count; i++) {
		char *child = path_join(path, listing.entries[i].name);
		result = cli_worst(result, walk(w, child, &listing.entries[i].stat, depth + 1, i + 1 == listing.count));
		free(child);
	}
	listing_deinit(&listing);
	visited.visit = VISIT_AFTER;
	return cli_worst(result, w->fn(w->cli, &visited, w->arg));
}

int tree_walk(struct cli *cli, const char *path, visit_fn *fn, void *arg)
{
	struct granary_stat stat;
	granary_status status = granary_stat(cli->cluster, path, false, &stat);
	if (status)
		return cli_error(cli, path, status);
	struct walk w = {.cli = cli, .fn = fn, .arg = arg, .root_bytes = strlen(path)};
	return walk(&w, path, &stat, 0, true);
}
