/* put: local files into the cluster. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/jobs.h"
#include "tools/granary/transfer.h"

struct put_tree {
	struct cli *cli;
	struct jobs *jobs;
	struct progress *progress;
};

struct put_job {
	struct progress *progress;
	char *local, *remote;
};

/* One regular file under its own name. */
static int put_file(struct cli *cli, const char *local, struct target *target, struct progress *progress)
{
	int descriptor = open(local, O_RDONLY | O_CLOEXEC);
	if (descriptor < 0)
		return cli_error_errno(cli, local, errno);
	struct stat stat;
	int result = fstat(descriptor, &stat) == 0 ? EXIT_DONE : cli_error_errno(cli, local, errno);
	if (result == EXIT_DONE && S_ISDIR(stat.st_mode))
		result = cli_error_text(cli, local, "is a directory (put -r copies it)");
	if (result == EXIT_DONE) {
		target->mode = stat.st_mode & 07777;
		progress_expect(progress, (uint64_t)stat.st_size);
		result = transfer_put(cli, target->path ? target->path : local, descriptor, target, progress);
	}
	close(descriptor);
	return result;
}

static int put_job_run(struct cli *cli, void *arg)
{
	struct put_job *job = arg;
	int result = cli_connect(cli);
	if (result == EXIT_DONE)
		result = put_file(cli, job->local, &(struct target){.path = job->remote}, job->progress);
	free(job->local);
	free(job->remote);
	free(job);
	return result;
}

static int put_link(struct cli *cli, const char *local, const char *remote)
{
	char target[PATH_BYTES_MAX];
	ssize_t size = readlink(local, target, sizeof target - 1);
	if (size < 0)
		return cli_error_errno(cli, local, errno);
	target[size] = 0;
	granary_status status = granary_symlink(cli->cluster, target, remote);
	return status ? cli_error(cli, remote, status) : EXIT_DONE;
}

static int put_entry(struct put_tree *tree, const char *local, const char *remote);

static int put_directory(struct put_tree *tree, const char *local, const char *remote, uint32_t mode)
{
	struct cli *cli = tree->cli;
	granary_status status = granary_mkdir(cli->cluster, remote, mode);
	if (status && status != ERR_EXISTS)
		return cli_error(cli, remote, status);
	DIR *directory = opendir(local);
	if (!directory)
		return cli_error_errno(cli, local, errno);
	int result = EXIT_DONE;
	for (;;) {
		errno = 0;
		struct dirent *entry = readdir(directory);
		if (!entry)
			break;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		char *from = path_join(local, entry->d_name), *to = path_join(remote, entry->d_name);
		result = cli_worst(result, put_entry(tree, from, to));
		free(from);
		free(to);
	}
	if (errno)
		result = cli_worst(result, cli_error_errno(cli, local, errno));
	closedir(directory);
	return result;
}

static int put_entry(struct put_tree *tree, const char *local, const char *remote)
{
	struct stat stat;
	if (lstat(local, &stat) != 0)
		return cli_error_errno(tree->cli, local, errno);
	if (S_ISDIR(stat.st_mode))
		return put_directory(tree, local, remote, stat.st_mode & 07777);
	if (S_ISLNK(stat.st_mode))
		return put_link(tree->cli, local, remote);
	if (!S_ISREG(stat.st_mode))
		return cli_error_text(tree->cli, local, "neither file, directory nor symbolic link: left out");
	struct put_job *job = mem_zero(1, sizeof *job);
	*job = (struct put_job){.progress = tree->progress, .local = mem_string(local), .remote = mem_string(remote)};
	jobs_submit(tree->jobs, put_job_run, job);
	return EXIT_DONE;
}

/* As cp -r: into the directory `to` when there is one, else a new directory of that name. */
static int put_recursive(struct cli *cli, const char *from, const char *to, uint64_t threads, struct progress *progress)
{
	struct granary_stat stat;
	granary_status status = granary_stat(cli->cluster, to, true, &stat);
	if (status && status != ERR_NOT_FOUND)
		return cli_error(cli, to, status);
	char *resolved = realpath(from, NULL);
	if (!resolved)
		return cli_error_errno(cli, from, errno);
	char *name = path_base(resolved);
	char *remote = !status && S_ISDIR(stat.mode) ? path_join(to, name) : mem_string(to);
	struct put_tree tree = {.cli = cli, .jobs = jobs_open(cli, threads), .progress = progress};
	int result = put_entry(&tree, resolved, remote);
	result = cli_worst(result, jobs_close(tree.jobs));
	free(resolved);
	free(name);
	free(remote);
	return result;
}

static int put_one(struct cli *cli, const char *from, struct target *target, struct progress *progress)
{
	if (strcmp(from, "-") == 0) {
		target->mode = 0644;
		return transfer_put(cli, target->path ? target->path : "-", STDIN_FILENO, target, progress);
	}
	char *name = path_base(from);
	target->name_if_directory = name;
	int result = put_file(cli, from, target, progress);
	free(name);
	return result;
}

int cmd_put(struct cli *cli, int argc, char **argv)
{
	bool recursive = false, by_id = false, forced = false;
	struct target target = {0};
	uint64_t threads = JOBS_DEFAULT;
	const struct cli_option options[] = {
	    {"recursive", 'r', CLI_FLAG, &recursive, NULL, "a directory and all that is in it"},
	    {"id", 0, CLI_FLAG, &by_id, NULL, "without a name: prints the blob's id"},
	    {"if-absent", 0, CLI_FLAG, &target.if_absent, NULL, "fail if DST exists"},
	    {"if-match", 0, CLI_COUNT, &target.if_change, "TAG", "fail unless DST's tag (granary stat) is this one"},
	    {"class", 0, CLI_TEXT, &cli->storage_class, "CLASS", "storage class (that of the directory)"},
	    {"threads", 0, CLI_COUNT, &threads, "N", "files at once with -r (8)"},
	    {"progress", 0, CLI_FLAG, &forced, NULL, "show progress where there is no terminal, too"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	const char *from = argv[0];
	if (by_id != (argc == 1))
		return cli_usage_error(cli, from, by_id ? "--id takes no DST" : "DST is missing");
	if (!by_id && !cli_check_path(cli, argv[1], &result))
		return result;
	if (recursive && (by_id || target.if_absent || target.if_change || strcmp(from, "-") == 0))
		return cli_usage_error(cli, "-r", "not with --id, --if-absent, --if-match or \"-\"");
	if (by_id && (target.if_absent || target.if_change))
		return cli_usage_error(cli, "--id", "not with --if-absent or --if-match");
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	target.path = by_id ? NULL : argv[1];
	struct progress *progress = progress_open("put", forced);
	result =
	    recursive ? put_recursive(cli, from, argv[1], threads, progress) : put_one(cli, from, &target, progress);
	progress_close(progress);
	if (result == EXIT_DONE && by_id)
		printf("%016" PRIx64 "\n", target.id);
	return result;
}
