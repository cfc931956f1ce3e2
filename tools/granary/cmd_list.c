/* ls, tree, du, df: what is there. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/data_sizes.h"
#include "tools/granary/json.h"
#include "tools/granary/leader_call.h"
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
struct du_sum {
	uint64_t logical, stored, physical;
};

#define DU_BATCH 256u

struct du {
	bool summary, human, sizes;
	struct du_sum sums[TREE_DEPTH_MAX];
	/* With `sizes`: files whose leader is yet to be asked, and the depth at which each counts. */
	struct admin admin;
	uint64_t inodes[DU_BATCH];
	unsigned depths[DU_BATCH];
	size_t waiting;
};

static void du_size(const struct du *du, uint64_t bytes)
{
	char size[24];
	if (du->human)
		text_size(bytes, size);
	else
		snprintf(size, sizeof size, "%" PRIu64, bytes);
	printf("%s\t", size);
}

static void du_line(const struct du *du, const struct du_sum *sum, const char *path)
{
	du_size(du, sum->logical);
	if (du->sizes) {
		du_size(du, sum->stored);
		du_size(du, sum->physical);
	}
	print_name(path);
	putchar('\n');
}

static int du_ask(struct du *du, const char *path)
{
	struct data_sizes sizes[DU_BATCH];
	enum err err = du->waiting > 0 ? data_sizes_ask(&du->admin, du->inodes, du->waiting, sizes) : OK;
	for (size_t i = 0; err == OK && i < du->waiting; i++) {
		du->sums[du->depths[i]].stored += sizes[i].stored;
		du->sums[du->depths[i]].physical += sizes[i].physical;
	}
	du->waiting = 0;
	return err ? admin_error(&du->admin, path, err) : EXIT_DONE;
}

static int du_file(struct du *du, const struct visited *visited)
{
	int result = EXIT_DONE;
	unsigned depth = visited->depth > 0 ? visited->depth - 1 : 0;
	if (visited->depth == 0)
		du->sums[0] = (struct du_sum){0};
	du->sums[depth].logical += visited->stat->size;
	if (du->sizes && visited->stat->blocks > 0) {
		du->inodes[du->waiting] = visited->stat->inode;
		du->depths[du->waiting++] = depth;
	}
	if (du->waiting == DU_BATCH || visited->depth == 0)
		result = du_ask(du, visited->path);
	if (visited->depth == 0)
		du_line(du, &du->sums[0], visited->path);
	return result;
}

static int du_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	(void)cli;
	struct du *du = arg;
	check(visited->depth < TREE_DEPTH_MAX);
	struct du_sum *sum = &du->sums[visited->depth];
	int result = EXIT_DONE;
	switch (visited->visit) {
	case VISIT_BEFORE:
		*sum = (struct du_sum){0};
		break;
	case VISIT_FILE:
		return du_file(du, visited);
	case VISIT_AFTER:
		result = du_ask(du, visited->path);
		if (visited->depth > 0) {
			sum[-1].logical += sum->logical;
			sum[-1].stored += sum->stored;
			sum[-1].physical += sum->physical;
		}
		if (!du->summary || visited->depth == 0)
			du_line(du, sum, visited->path);
		break;
	}
	return result;
}

int cmd_du(struct cli *cli, int argc, char **argv)
{
	struct du du = {0};
	const struct cli_option options[] = {
	    {"summary", 's', CLI_FLAG, &du.summary, NULL, "only a total for each PATH"},
	    {"human", 'h', CLI_FLAG, &du.human, NULL, "sizes as 4.0K, 1.5M"},
	    {"sizes", 0, CLI_FLAG, &du.sizes, NULL, "logical, stored and physical size"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	if (result == EXIT_DONE && du.sizes)
		result = admin_open(cli, &du.admin);
	bool ready = result == EXIT_DONE;
	for (int i = 0; i < argc && ready; i++)
		result = cli_worst(result, tree_walk(cli, argv[i], du_visit, &du));
	admin_close(&du.admin);
	return result;
}

struct df {
	struct granary_space space;
	uint64_t stored, physical;
};

/* What the masters count at once, and what they sum up over all chunks. */
static int df_ask(struct cli *cli, struct df *df)
{
	Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	granary_status status = granary_space(cli->cluster, &df->space);
	if (status)
		return cli_error(cli, "cluster", status);
	int result = leader_call(cli, "cluster", MESSAGE_CLUSTER_STATUS, &request.base, &reply);
	if (result != EXIT_DONE)
		return result;
	df->stored = ((const Granary__ClusterStatus *)reply)->stored_bytes;
	df->physical = ((const Granary__ClusterStatus *)reply)->physical_bytes;
	message_free(reply);
	return result;
}

/* Bytes on the disks for each byte of data; 0: there is none. */
static double df_overhead(const struct df *df)
{
	return df->space.bytes_used == 0 ? 0 : (double)df->physical / (double)df->space.bytes_used;
}

static void df_json(const struct df *df)
{
	const struct granary_space *space = &df->space;
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	json_number(&json, "bytes_total", space->bytes_total);
	json_number(&json, "bytes_free", space->bytes_free);
	json_number(&json, "bytes_used", space->bytes_used);
	json_number(&json, "inodes", space->inodes);
	json_number(&json, "trash_bytes", space->trash_bytes);
	json_number(&json, "trash_files", space->trash_files);
	json_number(&json, "stored_bytes", df->stored);
	json_number(&json, "physical_bytes", df->physical);
	json_real(&json, "overhead", df_overhead(df));
	json_close(&json, '}');
}

int cmd_df(struct cli *cli, int argc, char **argv)
{
	bool human = false, as_json = false;
	const struct cli_option options[] = {
	    {"human", 'h', CLI_FLAG, &human, NULL, "sizes as 4.0K, 1.5M"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object"},
	    {0},
	};
	struct df df = {0};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	result = cli_connect(cli);
	if (result == EXIT_DONE)
		result = df_ask(cli, &df);
	if (result != EXIT_DONE)
		return result;
	if (as_json) {
		df_json(&df);
		return EXIT_DONE;
	}
	/* What is in the trash is used, until it is removed for good. */
	const struct {
		const char *title;
		uint64_t value;
	} columns[] = {{"disks", df.space.bytes_total},
		       {"taken", df.space.bytes_total - df.space.bytes_free},
		       {"free", df.space.bytes_free},
		       {"data", df.space.bytes_used},
		       {"of it trash", df.space.trash_bytes},
		       {"stored", df.stored},
		       {"physical", df.physical}};
	const int count = sizeof columns / sizeof *columns;
	for (int i = 0; i < count; i++)
		printf("%*s%16s", i == 5 ? 12 : 0, i == 5 ? "files" : "", columns[i].title);
	printf("%10s\n", "overhead");
	for (int i = 0; i < count; i++) {
		char size[24];
		if (human)
			text_size(columns[i].value, size);
		else
			snprintf(size, sizeof size, "%" PRIu64, columns[i].value);
		if (i == 5)
			printf("%12" PRIu64, df.space.inodes);
		printf("%16s", size);
	}
	printf("%9.2fx\n", df_overhead(&df));
	return EXIT_DONE;
}
