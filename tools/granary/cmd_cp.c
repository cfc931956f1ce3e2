/* cp: within the cluster. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/jobs.h"
#include "tools/granary/remote_tree.h"
#include "tools/granary/transfer.h"

struct copy_tree {
	struct jobs *jobs;
	struct progress *progress;
	const char *to;
};
struct copy_job {
	struct progress *progress;
	char *from, *to;
	uint32_t mode;
	uint64_t size;
};

static int copy_job_run(struct cli *cli, void *arg)
{
	struct copy_job *job = arg;
	int result = cli_connect(cli);
	if (result == EXIT_DONE) {
		progress_expect(job->progress, job->size);
		result =
		    transfer_copy(cli, job->from, &(struct target){.path = job->to, .mode = job->mode}, job->progress);
	}
	free(job->from);
	free(job->to);
	free(job);
	return result;
}

static int copy_link(struct cli *cli, const char *from, const char *to)
{
	char target[PATH_BYTES_MAX];
	granary_status status = granary_readlink(cli->cluster, from, target, sizeof target);
	if (status)
		return cli_error(cli, from, status);
	status = granary_symlink(cli->cluster, target, to);
	return status ? cli_error(cli, to, status) : EXIT_DONE;
}

static int copy_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	struct copy_tree *tree = arg;
	const struct granary_stat *stat = visited->stat;
	char *to = *visited->relative ? path_join(tree->to, visited->relative) : mem_string(tree->to);
	int result = EXIT_DONE;
	if (visited->visit == VISIT_BEFORE) {
		granary_status status = granary_mkdir(cli->cluster, to, stat->mode & 07777);
		if (status && status != ERR_EXISTS)
			result = cli_error(cli, to, status);
	} else if (visited->visit == VISIT_FILE && S_ISLNK(stat->mode)) {
		result = copy_link(cli, visited->path, to);
	} else if (visited->visit == VISIT_FILE && S_ISREG(stat->mode)) {
		struct copy_job *job = mem_zero(1, sizeof *job);
		*job = (struct copy_job){.progress = tree->progress,
					 .from = mem_string(visited->path),
					 .to = mem_string(to),
					 .mode = stat->mode & 07777,
					 .size = stat->size};
		jobs_submit(tree->jobs, copy_job_run, job);
	} else if (visited->visit == VISIT_FILE) {
		result = cli_error_text(cli, visited->path, "neither file, directory nor symbolic link: left out");
	}
	free(to);
	return result;
}

static int copy_one(struct cli *cli, const char *from, const char *to, bool recursive, uint64_t threads,
		    struct progress *progress)
{
	struct granary_stat stat;
	granary_status status = granary_stat(cli->cluster, from, !recursive, &stat);
	if (status)
		return cli_error(cli, from, status);
	size_t length = strlen(from);
	if (S_ISDIR(stat.mode) && !recursive)
		return cli_error_text(cli, from, "is a directory (cp -r copies it)");
	if (S_ISDIR(stat.mode) && strncmp(from, to, length) == 0 && (to[length] == '/' || to[length] == 0))
		return cli_error_text(cli, from, "a directory cannot be copied into itself");
	struct copy_tree tree = {.jobs = jobs_open(cli, threads), .progress = progress, .to = to};
	int result;
	if (S_ISREG(stat.mode) && !recursive) {
		progress_expect(progress, stat.size);
		result = transfer_copy(cli, from, &(struct target){.path = to, .mode = stat.mode & 07777}, progress);
	} else {
		result = tree_walk(cli, from, copy_visit, &tree);
	}
	return cli_worst(result, jobs_close(tree.jobs));
}

int cmd_cp(struct cli *cli, int argc, char **argv)
{
	bool recursive = false, forced = false;
	uint64_t threads = JOBS_DEFAULT;
	const struct cli_option options[] = {
	    {"recursive", 'r', CLI_FLAG, &recursive, NULL, "directories and all that is in them"},
	    {"threads", 0, CLI_COUNT, &threads, "N", "files at once with -r (8)"},
	    {"progress", 0, CLI_FLAG, &forced, NULL, "show progress where there is no terminal, too"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, false, &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	const char *to = argv[argc - 1];
	struct granary_stat stat;
	granary_status status = granary_stat(cli->cluster, to, true, &stat);
	bool directory = !status && S_ISDIR(stat.mode);
	if (status && status != ERR_NOT_FOUND)
		return cli_error(cli, to, status);
	if (argc > 2 && !directory)
		return cli_error_text(cli, to, "not a directory");
	struct progress *progress = progress_open("cp", forced);
	for (int i = 0; i + 1 < argc; i++) {
		char *name = path_base(argv[i]), *path = directory ? path_join(to, name) : mem_string(to);
		result = cli_worst(result, copy_one(cli, argv[i], path, recursive, threads, progress));
		free(name);
		free(path);
	}
	progress_close(progress);
	return result;
}
