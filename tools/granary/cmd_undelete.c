/* undelete: takes files and trees back out of the trash. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "tools/granary/commands.h"
#include "tools/granary/remote_tree.h"
#include "tools/granary/trash.h"

#define DEPTH_MAX 4096u

struct undelete {
	struct cli *cli;
	bool recursive;
	uint64_t restored, taken; /* names that are taken stay in the trash */
};

/* ---- one */

/* An exit status; *status says more, and is not reported. */
static int restore(struct undelete *u, const struct trash_item *item, uint64_t parent, const char *name, granary_status *status)
{
	struct granary_undelete one = {.id = item->id, .parent = parent, .name = name};
	*status = granary_undelete(u->cli->cluster, &one, 1);
	u->restored += *status == 0;
	return *status ? EXIT_FAILED : EXIT_DONE;
}

/* ---- trees */

static int restore_children(struct undelete *u, uint64_t from, uint64_t into, const char *path, bool fresh, unsigned depth);

/* A directory whose name is taken: by another, then what was in it goes there. */
static int merge(struct undelete *u, const struct trash_item *item, const char *path, unsigned depth)
{
	struct granary_stat stat;
	granary_status status = granary_stat(u->cli->cluster, path, false, &stat);
	if (!status && S_ISDIR(stat.mode) && S_ISDIR(item->stat.mode))
		return restore_children(u, item->stat.inode, stat.inode, path, false, depth + 1);
	u->taken++;
	return EXIT_DONE;
}

/* One name after it was tried. */
static int restored_child(struct undelete *u, const struct trash_item *item, granary_status status, const char *path, unsigned depth)
{
	if (status == ERR_EXISTS)
		return merge(u, item, path, depth);
	if (status == ERR_NOT_FOUND)
		return EXIT_DONE; /* its time was over */
	if (status)
		return cli_error_text(u->cli, path, granary_error_text(status));
	u->restored++;
	if (S_ISDIR(item->stat.mode))
		return restore_children(u, item->stat.inode, item->stat.inode, path, true, depth + 1);
	return EXIT_DONE;
}

/* The newest of each name; `items` are by name and then by age. */
static size_t newest_of_each(const struct trash_items *items, struct granary_undelete *out, size_t *places, uint64_t into)
{
	size_t count = 0;
	for (size_t i = 0; i < items->count; i++) {
		if (i + 1 < items->count && strcmp(items->items[i].name, items->items[i + 1].name) == 0)
			continue;
		places[count] = i;
		out[count++] = (struct granary_undelete){.id = items->items[i].id, .parent = into, .name = items->items[i].name};
	}
	return count;
}

/* fresh: it was restored itself, and gets the time back that it had before all this was removed from it. */
static int restore_children(struct undelete *u, uint64_t from, uint64_t into, const char *path, bool fresh, unsigned depth)
{
	struct trash_items items = {0};
	granary_status status = depth < DEPTH_MAX ? trash_read(u->cli, from, NULL, &items) : ERR_TOO_MANY;
	if (status)
		return cli_error(u->cli, path, status);
	struct granary_undelete *tried = mem_alloc((items.count + 1) * sizeof *tried);
	size_t *places = mem_alloc((items.count + 1) * sizeof *places);
	size_t count = newest_of_each(&items, tried, places, into);
	int result = EXIT_DONE;
	const struct trash_item *first = NULL;
	if (count > 0)
		granary_undelete(u->cli->cluster, tried, count); /* each status is looked at */
	for (size_t i = 0; i < count; i++) {
		const struct trash_item *item = &items.items[places[i]];
		char *child = path_join(path, item->name);
		if (!tried[i].status && (!first || item->id < first->id))
			first = item;
		result = cli_worst(result, restored_child(u, item, tried[i].status, child, depth));
		free(child);
	}
	if (fresh && first) {
		status = granary_utimes(u->cli->cluster, path, INT64_MIN, first->parent_mtime_ns);
		if (status)
			result = cli_worst(result, cli_error(u->cli, path, status));
	}
	trash_items_deinit(&items);
	free(tried);
	free(places);
	return result;
}

/* All that was removed from directories that are there. */
static int restore_living(struct undelete *u, const char *path, const struct granary_stat *stat, unsigned depth)
{
	struct listing listing = {0};
	granary_status status = depth < DEPTH_MAX ? listing_read(u->cli, path, &listing) : ERR_TOO_MANY;
	if (status)
		return cli_error(u->cli, path, status);
	int result = restore_children(u, stat->inode, stat->inode, path, false, depth);
	for (size_t i = 0; i < listing.count; i++) {
		if (!S_ISDIR(listing.entries[i].stat.mode))
			continue;
		char *child = path_join(path, listing.entries[i].name);
		result = cli_worst(result, restore_living(u, child, &listing.entries[i].stat, depth + 1));
		free(child);
	}
	listing_deinit(&listing);
	return result;
}

/* ---- the place */

/* The directory of a path, there or brought back. */
static int find_parent(struct undelete *u, const char *path, uint64_t *inode)
{
	char *parent = path_parent(path);
	struct granary_stat stat;
	granary_status status = granary_stat(u->cli->cluster, parent, true, &stat);
	int result = EXIT_DONE;
	if (!status && !S_ISDIR(stat.mode))
		status = ERR_NOT_DIRECTORY;
	if (status == ERR_NOT_FOUND && strcmp(parent, "/") != 0) {
		struct trash_items items = {0};
		uint64_t above = 0;
		result = find_parent(u, parent, &above);
		if (result == EXIT_DONE)
			result = trash_find(u->cli, parent, &items);
		const struct trash_item *newest = NULL;
		for (size_t i = 0; i < items.count; i++)
			if (S_ISDIR(items.items[i].stat.mode))
				newest = &items.items[i];
		char *name = path_base(parent);
		if (result == EXIT_DONE && !newest)
			result = cli_error(u->cli, parent, ERR_NOT_FOUND);
		else if (result == EXIT_DONE && restore(u, newest, above, name, &status))
			result = cli_error(u->cli, parent, status);
		else if (result == EXIT_DONE)
			*inode = newest->stat.inode;
		free(name);
		trash_items_deinit(&items);
	} else if (status) {
		result = cli_error(u->cli, parent, status);
	} else {
		*inode = stat.inode;
	}
	free(parent);
	return result;
}

/* One entry under its name. */
static int restore_at(struct undelete *u, const struct trash_item *item, const char *to)
{
	uint64_t parent = 0;
	granary_status status = 0;
	if (S_ISDIR(item->stat.mode) && !u->recursive)
		return cli_error_text(u->cli, to, "was a directory (-r brings it back with all that was in it)");
	int result = find_parent(u, to, &parent);
	if (result != EXIT_DONE)
		return result;
	char *name = path_base(to);
	result = restore(u, item, parent, name, &status);
	free(name);
	if (status == ERR_EXISTS && S_ISDIR(item->stat.mode))
		return merge(u, item, to, 0);
	if (status == ERR_EXISTS)
		return cli_error_text(u->cli, to, "already exists (--to PATH puts it elsewhere)");
	if (status)
		return cli_error(u->cli, to, status);
	if (S_ISDIR(item->stat.mode))
		return restore_children(u, item->stat.inode, item->stat.inode, to, true, 0);
	return result;
}

static int undelete_path(struct undelete *u, const char *path, const char *to, uint64_t id)
{
	struct trash_items items = {0};
	struct granary_stat stat;
	granary_status status = granary_stat(u->cli->cluster, path, false, &stat);
	bool living = !status && S_ISDIR(stat.mode) && !to && !id;
	int result = trash_find(u->cli, path, &items);
	const struct trash_item *chosen = NULL;
	for (size_t i = 0; i < items.count; i++)
		if (!id || items.items[i].id == id)
			chosen = &items.items[i];
	if (result == EXIT_DONE && chosen && !(living && !S_ISDIR(chosen->stat.mode)))
		result = restore_at(u, chosen, to ? to : path);
	else if (result == EXIT_DONE && !living)
		result = status == 0 && !id ? cli_error_text(u->cli, path, "already exists, and nothing of that name was removed") :
					      cli_error_text(u->cli, path, "not in the trash");
	if (result == EXIT_DONE && living && !u->recursive)
		result = cli_error_text(u->cli, path, "is a directory (-r brings back what was removed from it)");
	else if (result == EXIT_DONE && living)
		result = restore_living(u, path, &stat, 0);
	trash_items_deinit(&items);
	return result == EXIT_FAILED && !living && status == ERR_NOT_FOUND && !chosen ? EXIT_NOT_FOUND : result;
}

/* A blob that was kept by its id. */
static int undelete_blob(struct undelete *u, uint64_t inode, const char *word)
{
	char name[20];
	struct trash_items items = {0};
	snprintf(name, sizeof name, "%016" PRIx64, inode);
	granary_status status = trash_read(u->cli, 0, name, &items);
	if (!status && items.count == 0)
		status = ERR_NOT_FOUND;
	if (!status)
		restore(u, &items.items[items.count - 1], 0, NULL, &status);
	trash_items_deinit(&items);
	return status ? cli_error(u->cli, word, status) : EXIT_DONE;
}

/* ---- list */

static void print_item(void *arg, const char *path, const struct trash_item *item)
{
	(void)arg;
	char time[32], size[24];
	printf("%016" PRIx64 "  %s  %8s  ", item->id, text_time(item->removed_ns, time), text_size(item->stat.size, size));
	print_name(path);
	puts(S_ISDIR(item->stat.mode) ? "/" : "");
}

int cmd_undelete(struct cli *cli, int argc, char **argv)
{
	bool list = false;
	const char *to = NULL, *id_text = NULL;
	uint64_t id = 0, blob;
	struct undelete u = {.cli = cli};
	const struct cli_option options[] = {
	    {"recursive", 'r', CLI_FLAG, &u.recursive, NULL, "directories with all that was removed from them"},
	    {"list", 'l', CLI_FLAG, &list, NULL, "only show what there is, with the ids that --id takes"},
	    {"id", 0, CLI_TEXT, &id_text, "ID", "this one of several that were removed as PATH (the newest)"},
	    {"to", 0, CLI_TEXT, &to, "PATH", "under this name"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, !list, &result) || (to && !cli_check_path(cli, to, &result)))
		return result;
	if (id_text && !cli_parse_id(id_text, &id))
		return cli_usage_error(cli, id_text, "not an id of 16 hexadecimal digits (--list shows them)");
	if ((to || id_text) && argc != 1)
		return cli_usage_error(cli, to ? "--to" : "--id", "takes one PATH");
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++) {
		if (list)
			result = cli_worst(result, trash_walk(cli, argv[i], u.recursive, print_item, NULL));
		else if (argv[i][0] != '/' && cli_parse_id(argv[i], &blob))
			result = cli_worst(result, undelete_blob(&u, blob, argv[i]));
		else
			result = cli_worst(result, undelete_path(&u, argv[i], to, id));
	}
	if (u.taken)
		fprintf(stderr, "granary: undelete: %" PRIu64 " restored; %" PRIu64 " left in the trash, as their names are taken\n",
			u.restored, u.taken);
	return result;
}
