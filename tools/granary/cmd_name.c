/* rm, mv, mkdir, rmdir, ln, readlink: the names. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/jobs.h"
#include "tools/granary/remote_tree.h"

struct rm_tree {
	struct jobs *jobs;
	unsigned flags; /* GRANARY_REMOVE_NOW, or 0 */
	char **directories; /* each after those that hold it */
	size_t count;
};

struct rm_job {
	unsigned flags;
	char path[];
};

static int rm_job_run(struct cli *cli, void *arg)
{
	struct rm_job *job = arg;
	int result = cli_connect(cli);
	if (result == EXIT_DONE) {
		granary_status status = granary_remove(cli->cluster, job->path, job->flags);
		result = status && status != ERR_NOT_FOUND ? cli_error(cli, job->path, status) : EXIT_DONE;
	}
	free(job);
	return result;
}

static struct rm_job *rm_job(const char *path, unsigned flags)
{
	size_t size = strlen(path) + 1;
	struct rm_job *job = mem_alloc(sizeof *job + size);
	job->flags = flags;
	memcpy(job->path, path, size);
	return job;
}

static int rm_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	(void)cli;
	struct rm_tree *tree = arg;
	if (visited->visit == VISIT_FILE) {
		jobs_submit(tree->jobs, rm_job_run, rm_job(visited->path, tree->flags));
	} else if (visited->visit == VISIT_BEFORE) {
		if ((tree->count & (tree->count - 1)) == 0)
			tree->directories = mem_resize(tree->directories,
						       (tree->count ? 2 * tree->count : 1) * sizeof *tree->directories);
		tree->directories[tree->count++] = mem_string(visited->path);
	}
	return EXIT_DONE;
}

static int rm_recursive(struct cli *cli, const char *path, unsigned flags, uint64_t threads)
{
	struct rm_tree tree = {.jobs = jobs_open(cli, threads), .flags = flags};
	int result = tree_walk(cli, path, rm_visit, &tree);
	result = cli_worst(result, jobs_close(tree.jobs));
	while (tree.count > 0) {
		char *directory = tree.directories[--tree.count];
		granary_status status = 0;
		if (result == EXIT_DONE && strcmp(directory, "/") != 0)
			status = granary_remove(cli->cluster, directory, flags | GRANARY_REMOVE_DIRECTORY);
		if (status)
			result = cli_worst(result, cli_error(cli, directory, status));
		free(directory);
	}
	free(tree.directories);
	return result;
}

static int rm_one(struct cli *cli, const char *path, unsigned flags, bool recursive, bool force, uint64_t threads)
{
	uint64_t id;
	bool is_id = cli_parse_id(path, &id);
	granary_status status =
	    is_id ? granary_remove_id(cli->cluster, id, flags) : granary_remove(cli->cluster, path, flags);
	if (status == ERR_IS_DIRECTORY && recursive)
		return rm_recursive(cli, path, flags, threads);
	if (status == ERR_IS_DIRECTORY)
		return cli_error_text(cli, path, "is a directory (rm -r removes it)");
	if (status == ERR_NOT_FOUND && force)
		return EXIT_DONE;
	return status ? cli_error(cli, path, status) : EXIT_DONE;
}

int cmd_rm(struct cli *cli, int argc, char **argv)
{
	bool recursive = false, force = false, now = false;
	uint64_t threads = JOBS_DEFAULT;
	const struct cli_option options[] = {
	    {"recursive", 'r', CLI_FLAG, &recursive, NULL, "directories and all that is in them"},
	    {"force", 'f', CLI_FLAG, &force, NULL, "what is not there is no error"},
	    {"now", 0, CLI_FLAG, &now, NULL, "for good: nothing of it goes to the trash"},
	    {"threads", 0, CLI_COUNT, &threads, "N", "files at once with -r (8)"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, true, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++)
		result = cli_worst(result, rm_one(cli, argv[i], now ? GRANARY_REMOVE_NOW : 0, recursive, force, threads));
	return result;
}

int cmd_mv(struct cli *cli, int argc, char **argv)
{
	bool no_replace = false, exchange = false;
	const struct cli_option options[] = {
	    {"no-clobber", 'n', CLI_FLAG, &no_replace, NULL, "fail if DST exists"},
	    {"exchange", 0, CLI_FLAG, &exchange, NULL, "each takes the other's name, at once"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	if (exchange && (no_replace || argc != 2))
		return cli_usage_error(cli, "--exchange", "takes two paths and no other option");
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	const char *to = argv[argc - 1];
	struct granary_stat stat;
	granary_status status = granary_stat(cli->cluster, to, true, &stat);
	bool directory = !status && S_ISDIR(stat.mode) && !exchange;
	if (argc > 2 && !directory)
		return cli_error_text(cli, to, "not a directory");
	unsigned flags = exchange ? GRANARY_RENAME_EXCHANGE : no_replace ? GRANARY_RENAME_NOREPLACE : 0;
	for (int i = 0; i + 1 < argc; i++) {
		char *name = path_base(argv[i]), *path = directory ? path_join(to, name) : mem_string(to);
		status = granary_rename(cli->cluster, argv[i], path, flags);
		if (status)
			result = cli_worst(result, cli_error(cli, argv[i], status));
		free(name);
		free(path);
	}
	return result;
}

static granary_status make_parents(struct cli *cli, const char *path)
{
	char *copy = mem_string(path);
	granary_status status = 0;
	for (char *slash = strchr(copy + 1, '/'); slash && !status; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		status = granary_mkdir(cli->cluster, copy, 0777);
		if (status == ERR_EXISTS)
			status = 0;
		*slash = '/';
	}
	free(copy);
	return status;
}

static int mkdir_one(struct cli *cli, const char *path, bool parents, uint32_t mode)
{
	granary_status status = granary_mkdir(cli->cluster, path, mode);
	if (parents && status == ERR_NOT_FOUND) {
		status = make_parents(cli, path);
		if (!status)
			status = granary_mkdir(cli->cluster, path, mode);
	}
	struct granary_stat stat;
	if (parents && status && granary_stat(cli->cluster, path, true, &stat) == 0 && S_ISDIR(stat.mode))
		status = 0;
	return status ? cli_error(cli, path, status) : EXIT_DONE;
}

int cmd_mkdir(struct cli *cli, int argc, char **argv)
{
	bool parents = false;
	const char *mode_text = "755";
	const struct cli_option options[] = {
	    {"parents", 'p', CLI_FLAG, &parents, NULL, "those above it, too; no error if it exists"},
	    {"mode", 'm', CLI_TEXT, &mode_text, "MODE", "octal (755)"},
	    {"class", 0, CLI_TEXT, &cli->storage_class, "CLASS", "storage class of what will be in it (that of the directory above)"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	char *end;
	unsigned long mode = strtoul(mode_text, &end, 8);
	if (*end || end == mode_text || mode > 07777)
		return cli_usage_error(cli, mode_text, "not an octal mode");
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++)
		result = cli_worst(result, mkdir_one(cli, argv[i], parents, (uint32_t)mode));
	return result;
}

int cmd_rmdir(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {{0}};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++) {
		granary_status status = granary_rmdir(cli->cluster, argv[i]);
		if (status)
			result = cli_worst(result, cli_error(cli, argv[i], status));
	}
	return result;
}

int cmd_ln(struct cli *cli, int argc, char **argv)
{
	bool symbolic = false;
	const struct cli_option options[] = {
	    {"symbolic", 's', CLI_FLAG, &symbolic, NULL, "a symbolic link"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if ((!symbolic && !cli_check_path(cli, argv[0], &result)) || !cli_check_path(cli, argv[1], &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	granary_status status =
	    symbolic ? granary_symlink(cli->cluster, argv[0], argv[1]) : granary_link(cli->cluster, argv[0], argv[1]);
	return status ? cli_error(cli, argv[1], status) : EXIT_DONE;
}

int cmd_readlink(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {{0}};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result) || !cli_check_path(cli, argv[0], &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	char target[PATH_BYTES_MAX];
	granary_status status = granary_readlink(cli->cluster, argv[0], target, sizeof target);
	if (status)
		return cli_error(cli, argv[0], status);
	puts(target);
	return EXIT_DONE;
}
