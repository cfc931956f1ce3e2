/* ls, tree, du, df: what is there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/json.h"
#include "tools/granary/remote_tree.h"

struct ls {
	bool detailed, recursive, human;
	struct json *json; /* or NULL */
};

static void ls_json(const struct ls *ls, const char *path, const struct granary_stat *stat)
{
	char mode[8];
	snprintf(mode, sizeof mode, "%04o", stat->mode & 07777);
	json_open(ls->json, NULL, '{');
	json_text(ls->json, "path", path);
	json_text(ls->json, "type", text_type(stat->mode));
	json_number(ls->json, "size", stat->size);
	json_text(ls->json, "mode", mode);
	json_number(ls->json, "uid", stat->uid);
	json_number(ls->json, "gid", stat->gid);
	json_number(ls->json, "nlink", stat->nlink);
	json_signed(ls->json, "mtime_ns", stat->mtime_ns);
	json_id(ls->json, "id", stat->inode);
	json_number(ls->json, "tag", stat->change);
	json_close(ls->json, '}');
}

static void ls_entry(struct cli *cli, const struct ls *ls, const char *path, const char *name,
		     const struct granary_stat *stat)
{
	if (ls->json) {
		ls_json(ls, path, stat);
		return;
	}
	if (ls->detailed) {
		char mode[16], size[24], time[32];
		if (ls->human)
			text_size(stat->size, size);
		else
			snprintf(size, sizeof size, "%" PRIu64, stat->size);
		printf("%s %3u %5u %5u %12s %s ", text_mode(stat->mode, mode), stat->nlink, stat->uid, stat->gid, size,
		       text_time(stat->mtime_ns, time));
	}
	print_name(name);
	char target[PATH_BYTES_MAX];
	if (ls->detailed && S_ISLNK(stat->mode) && granary_readlink(cli->cluster, path, target, sizeof target) == 0) {
		fputs(" -> ", stdout);
		print_name(target);
	}
	putchar('\n');
}

static int ls_directory(struct cli *cli, const struct ls *ls, const char *path, bool titled)
{
	struct listing listing = {0};
	granary_status status = listing_read(cli, path, &listing);
	if (status)
		return cli_error(cli, path, status);
	if (titled && !ls->json) {
		print_name(path);
		puts(":");
	}
	int result = EXIT_DONE;
	for (size_t i = 0; i < listing.count; i++) {
		char *child = path_join(path, listing.entries[i].name);
		ls_entry(cli, ls, child, listing.entries[i].name, &listing.entries[i].stat);
		free(child);
	}
	for (size_t i = 0; i < listing.count && ls->recursive; i++) {
		if (!S_ISDIR(listing.entries[i].stat.mode))
			continue;
		char *child = path_join(path, listing.entries[i].name);
		if (!ls->json)
			putchar('\n');
		result = cli_worst(result, ls_directory(cli, ls, child, true));
		free(child);
	}
	listing_deinit(&listing);
	return result;
}

int cmd_ls(struct cli *cli, int argc, char **argv)
{
	struct json json;
	struct ls ls = {0};
	bool as_json = false;
	const struct cli_option options[] = {
	    {"long", 'l', CLI_FLAG, &ls.detailed, NULL, "mode, links, owner, size, time"},
	    {"recursive", 'R', CLI_FLAG, &ls.recursive, NULL, "directories below, too"},
	    {"human", 'h', CLI_FLAG, &ls.human, NULL, "sizes as 4.0K, 1.5M"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an array of objects"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	static char root[] = "/";
	char *const standard[] = {root};
	char *const *paths = argc > 0 ? argv : standard;
	int count = argc > 0 ? argc : 1;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	if (as_json) {
		ls.json = &json;
		json_init(&json, stdout);
		json_open(&json, NULL, '[');
	}
	for (int i = 0; i < count; i++) {
		struct granary_stat stat;
		granary_status status = granary_stat(cli->cluster, paths[i], !ls.detailed, &stat);
		if (status)
			result = cli_worst(result, cli_error(cli, paths[i], status));
		else if (S_ISDIR(stat.mode))
			result = cli_worst(result, ls_directory(cli, &ls, paths[i], count > 1 || ls.recursive));
		else
			ls_entry(cli, &ls, paths[i], paths[i], &stat);
	}
	if (as_json)
		json_close(&json, ']');
	return result;
}

#define TREE_DEPTH_MAX (PATH_BYTES_MAX / 2)

struct tree_print {
	uint64_t depth_max, directories, files;
	bool closed[TREE_DEPTH_MAX]; /* by depth: the last of its directory has been shown */
};

static int tree_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	(void)cli;
	struct tree_print *tree = arg;
	if (visited->visit == VISIT_AFTER || (tree->depth_max && visited->depth > tree->depth_max))
		return EXIT_DONE;
	check(visited->depth < TREE_DEPTH_MAX);
	tree->closed[visited->depth] = visited->last;
	for (unsigned i = 1; i < visited->depth; i++)
		fputs(tree->closed[i] ? "    " : "|   ", stdout);
	if (visited->depth > 0)
		fputs(visited->last ? "`-- " : "|-- ", stdout);
	char *name = path_base(visited->path);
	print_name(visited->depth == 0 ? visited->path : name);
	putchar('\n');
	free(name);
	if (visited->depth > 0)
		*(visited->visit == VISIT_FILE ? &tree->files : &tree->directories) += 1;
	return EXIT_DONE;
}

int cmd_tree(struct cli *cli, int argc, char **argv)
{
	struct tree_print tree = {0};
	const struct cli_option options[] = {
	    {"level", 'L', CLI_COUNT, &tree.depth_max, "N", "so many levels at most"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	const char *path = argc > 0 ? argv[0] : "/";
	if (!cli_check_path(cli, path, &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	result = tree_walk(cli, path, tree_visit, &tree);
	printf("\n%" PRIu64 " directories, %" PRIu64 " files\n", tree.directories, tree.files);
	return result;
}

/* Sums are kept by depth: a directory adds its own to the one above when it is left. */
struct du {
	bool summary, human;
	uint64_t sums[TREE_DEPTH_MAX];
};

static void du_line(const struct du *du, uint64_t bytes, const char *path)
{
	char size[24];
	if (du->human)
		text_size(bytes, size);
	else
		snprintf(size, sizeof size, "%" PRIu64, bytes);
	printf("%s\t", size);
	print_name(path);
	putchar('\n');
}

static int du_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	(void)cli;
	struct du *du = arg;
	check(visited->depth < TREE_DEPTH_MAX);
	switch (visited->visit) {
	case VISIT_BEFORE:
		du->sums[visited->depth] = 0;
		break;
	case VISIT_FILE:
		if (visited->depth > 0)
			du->sums[visited->depth - 1] += visited->stat->size;
		else
			du_line(du, visited->stat->size, visited->path);
		break;
	case VISIT_AFTER:
		if (visited->depth > 0)
			du->sums[visited->depth - 1] += du->sums[visited->depth];
		if (!du->summary || visited->depth == 0)
			du_line(du, du->sums[visited->depth], visited->path);
		break;
	}
	return EXIT_DONE;
}

int cmd_du(struct cli *cli, int argc, char **argv)
{
	struct du du = {0};
	const struct cli_option options[] = {
	    {"summary", 's', CLI_FLAG, &du.summary, NULL, "only a total for each PATH"},
	    {"human", 'h', CLI_FLAG, &du.human, NULL, "sizes as 4.0K, 1.5M"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++)
		result = cli_worst(result, tree_walk(cli, argv[i], du_visit, &du));
	return result;
}

int cmd_df(struct cli *cli, int argc, char **argv)
{
	bool human = false, as_json = false;
	const struct cli_option options[] = {
	    {"human", 'h', CLI_FLAG, &human, NULL, "sizes as 4.0K, 1.5M"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	struct granary_space space;
	granary_status status = granary_space(cli->cluster, &space);
	if (status)
		return cli_error(cli, "cluster", status);
	uint64_t taken = space.bytes_total - space.bytes_free;
	if (as_json) {
		struct json json;
		json_init(&json, stdout);
		json_open(&json, NULL, '{');
		json_number(&json, "bytes_total", space.bytes_total);
		json_number(&json, "bytes_free", space.bytes_free);
		json_number(&json, "bytes_used", space.bytes_used);
		json_number(&json, "inodes", space.inodes);
		json_number(&json, "trash_bytes", space.trash_bytes);
		json_number(&json, "trash_files", space.trash_files);
		json_close(&json, '}');
		return EXIT_DONE;
	}
	/* What is in the trash is used, until it is removed for good. */
	const uint64_t values[] = {space.bytes_total, taken, space.bytes_free, space.bytes_used, space.trash_bytes};
	static const char *const titles[] = {"disks", "taken", "free", "data", "of it trash"};
	for (int i = 0; i < 5; i++)
		printf("%16s", titles[i]);
	printf("%12s\n", "files");
	for (int i = 0; i < 5; i++) {
		char size[24];
		if (human)
			text_size(values[i], size);
		else
			snprintf(size, sizeof size, "%" PRIu64, values[i]);
		printf("%16s", size);
	}
	printf("%12" PRIu64 "\n", space.inodes);
	return EXIT_DONE;
}
