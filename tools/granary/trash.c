#include "tools/granary/trash.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "tools/granary/remote_tree.h"

#define ROOT_INODE 1u
#define DEPTH_MAX 4096u

bool trash_add(void *arg, const struct granary_trash_entry *entry)
{
	struct trash_items *items = arg;
	if ((items->count & (items->count - 1)) == 0)
		items->items = mem_resize(items->items, (items->count ? 2 * items->count : 1) * sizeof *items->items);
	items->items[items->count++] = (struct trash_item){.id = entry->id,
							   .parent = entry->parent,
							   .name = mem_string(entry->name),
							   .removed_ns = entry->removed_ns,
							   .parent_mtime_ns = entry->parent_mtime_ns,
							   .stat = entry->stat};
	return true;
}

granary_status trash_read(struct cli *cli, uint64_t directory, const char *name, struct trash_items *out)
{
	return granary_trash_list(cli->cluster, directory, name, trash_add, out);
}

void trash_items_deinit(struct trash_items *items)
{
	for (size_t i = 0; i < items->count; i++)
		free(items->items[i].name);
	free(items->items);
	*items = (struct trash_items){0};
}

/* ---- by path: each directory on the way may be there, may have been removed, or both */

struct search {
	struct cli *cli;
	struct trash_items *out;
};

static granary_status search(struct search *s, uint64_t directory, const char *living, const char *rest, unsigned depth);

/* The first component is a directory; the search goes on in it. */
static granary_status search_below(struct search *s, uint64_t directory, const char *living, const char *name, const char *rest,
				   unsigned depth)
{
	struct trash_items removed = {0};
	granary_status status = trash_read(s->cli, directory, name, &removed);
	for (size_t i = 0; i < removed.count && !status; i++)
		if (S_ISDIR(removed.items[i].stat.mode))
			status = search(s, removed.items[i].stat.inode, NULL, rest, depth + 1);
	trash_items_deinit(&removed);
	if (status || !living)
		return status;
	/* Last, so that it is preferred. */
	char *path = path_join(living, name);
	struct granary_stat stat;
	status = granary_stat(s->cli->cluster, path, true, &stat);
	if (!status && S_ISDIR(stat.mode))
		status = search(s, stat.inode, path, rest, depth + 1);
	free(path);
	return status == ERR_NOT_FOUND || status == ERR_NOT_DIRECTORY ? 0 : status;
}

/* living: the directory's path, NULL for one that was removed. */
static granary_status search(struct search *s, uint64_t directory, const char *living, const char *rest, unsigned depth)
{
	rest += strspn(rest, "/");
	size_t size = strcspn(rest, "/");
	if (size == 0 || depth > DEPTH_MAX)
		return 0;
	char *name = mem_alloc(size + 1);
	memcpy(name, rest, size);
	name[size] = 0;
	rest += size;
	bool last = rest[strspn(rest, "/")] == 0;
	granary_status status = last ? trash_read(s->cli, directory, name, s->out) :
				       search_below(s, directory, living, name, rest, depth);
	free(name);
	return status;
}

int trash_find(struct cli *cli, const char *path, struct trash_items *out)
{
	struct search s = {.cli = cli, .out = out};
	granary_status status = search(&s, ROOT_INODE, "/", path, 0);
	return status ? cli_error(cli, path, status) : EXIT_DONE;
}

/* ---- as a tree */

struct walk {
	struct cli *cli;
	trash_visit_fn *fn;
	void *arg;
	bool recursive;
};

/* What was removed from one directory and, for directories among it, from these. */
static int walk_directory(struct walk *w, uint64_t directory, const char *path, unsigned depth)
{
	struct trash_items items = {0};
	granary_status status = trash_read(w->cli, directory, NULL, &items);
	int result = status ? cli_error(w->cli, path, status) : EXIT_DONE;
	for (size_t i = 0; i < items.count; i++) {
		char *child = path_join(path, items.items[i].name);
		w->fn(w->arg, child, &items.items[i]);
		if (w->recursive && S_ISDIR(items.items[i].stat.mode) && depth < DEPTH_MAX)
			result = cli_worst(result, walk_directory(w, items.items[i].stat.inode, child, depth + 1));
		free(child);
	}
	trash_items_deinit(&items);
	return result;
}

static int walk_living(struct cli *cli, const struct visited *visited, void *arg)
{
	(void)cli;
	struct walk *w = arg;
	return visited->visit == VISIT_BEFORE ? walk_directory(w, visited->stat->inode, visited->path, visited->depth) : EXIT_DONE;
}

int trash_walk(struct cli *cli, const char *path, bool recursive, trash_visit_fn *fn, void *arg)
{
	struct walk w = {.cli = cli, .fn = fn, .arg = arg, .recursive = recursive};
	struct trash_items items = {0};
	int result = trash_find(cli, path, &items);
	for (size_t i = 0; i < items.count; i++) {
		fn(arg, path, &items.items[i]);
		if (S_ISDIR(items.items[i].stat.mode))
			result = cli_worst(result, walk_directory(&w, items.items[i].stat.inode, path, 0));
	}
	trash_items_deinit(&items);
	struct granary_stat stat;
	granary_status status = granary_stat(cli->cluster, path, true, &stat);
	if (status == ERR_NOT_FOUND || status == ERR_NOT_DIRECTORY)
		return result;
	if (status)
		return cli_error(cli, path, status);
	if (!S_ISDIR(stat.mode))
		return result;
	return cli_worst(result, recursive ? tree_walk(cli, path, walk_living, &w) : walk_directory(&w, stat.inode, path, 0));
}
