/* get and cat: files and blobs out of the cluster. A download has its name only when it is complete. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tools/granary/commands.h"
#include "tools/granary/jobs.h"
#include "tools/granary/remote_tree.h"
#include "tools/granary/transfer.h"

struct range {
	uint64_t first, end;
};

/* A-B with both ends included, or A- to the end of the file. */
static bool range_parse(const char *text, struct range *out)
{
	char *end;
	errno = 0;
	if (*text < '0' || *text > '9')
		return false;
	out->first = strtoull(text, &end, 10);
	if (*end++ != '-' || errno)
		return false;
	if (*end == 0)
		return true;
	if (*end < '0' || *end > '9')
		return false;
	uint64_t last = strtoull(end, &end, 10);
	if (*end || errno || last < out->first || last == UINT64_MAX)
		return false;
	out->end = last + 1;
	return true;
}

static int get_to_descriptor(struct cli *cli, const char *from, struct range range, int descriptor,
			     struct progress *progress)
{
	struct granary_file *file;
	granary_status status = transfer_open(cli, from, &file);
	if (status)
		return cli_error(cli, from, status);
	struct granary_stat stat;
	status = granary_fstat(file, &stat);
	int result = status ? cli_error(cli, from, status) : EXIT_DONE;
	if (!status && S_ISDIR(stat.mode))
		result = cli_error_text(cli, from, "is a directory (get -r copies it)");
	if (result == EXIT_DONE) {
		uint64_t end = range.end < stat.size ? range.end : stat.size;
		progress_expect(progress, end > range.first ? end - range.first : 0);
		result = transfer_get(cli, from, file, range.first, range.end, descriptor, progress);
	}
	granary_status closed = granary_file_close(file);
	return closed && result == EXIT_DONE ? cli_error(cli, from, closed) : result;
}

/* Puts a nameless download in its place: a name of its own first, from which it can be renamed over what is there. The
 * name is this process's and this descriptor's, which is therefore closed afterwards. */
static bool place_nameless(int descriptor, const char *directory, const char *to)
{
	char link[64], name[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
	snprintf(name, sizeof name, ".granary-get.%d.%d", (int)getpid(), descriptor);
	char *temporary = path_join(directory, name);
	unlink(temporary); /* of a process that had this pid and was ended between the two steps */
	bool placed = linkat(AT_FDCWD, link, AT_FDCWD, temporary, AT_SYMLINK_FOLLOW) == 0 && rename(temporary, to) == 0;
	int number = errno;
	if (!placed)
		unlink(temporary);
	free(temporary);
	errno = number;
	return placed;
}

/* Whole or not at all: `to` is replaced when all has been got. Nameless until then where the file system can do that,
 * so that nothing is left behind when we are ended. */
static int get_to_file(struct cli *cli, const char *from, struct range range, const char *to, uint32_t mode,
		       struct progress *progress)
{
	char *directory = path_parent(to), *temporary = path_join(directory, ".granary-get.XXXXXX");
	int descriptor = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	bool named = descriptor < 0;
	if (named)
		descriptor = mkostemp(temporary, O_CLOEXEC);
	int result = descriptor < 0 ? cli_error_errno(cli, to, errno)
				    : get_to_descriptor(cli, from, range, descriptor, progress);
	if (result == EXIT_DONE && fchmod(descriptor, mode) != 0)
		result = cli_error_errno(cli, to, errno);
	if (result == EXIT_DONE && !named && !place_nameless(descriptor, directory, to))
		result = cli_error_errno(cli, to, errno);
	if (descriptor >= 0 && close(descriptor) != 0 && result == EXIT_DONE)
		result = cli_error_errno(cli, to, errno);
	if (result == EXIT_DONE && named && rename(temporary, to) != 0)
		result = cli_error_errno(cli, to, errno);
	if (result != EXIT_DONE && named && descriptor >= 0)
		unlink(temporary);
	free(directory);
	free(temporary);
	return result;
}

/* Where a download of `from` goes when the user said `to`: below it when it is a directory. To be freed. */
static char *local_target(const char *from, const char *to)
{
	struct stat stat_buffer;
	char *name = path_base(from);
	char *out = !to                                                           ? mem_string(name)
		    : stat(to, &stat_buffer) == 0 && S_ISDIR(stat_buffer.st_mode) ? path_join(to, name)
										  : mem_string(to);
	free(name);
	return out;
}

struct get_tree {
	struct jobs *jobs;
	struct progress *progress;
	const char *local;
};
struct get_job {
	struct progress *progress;
	char *remote, *local;
	uint32_t mode;
};

static int get_job_run(struct cli *cli, void *arg)
{
	struct get_job *job = arg;
	int result = cli_connect(cli);
	if (result == EXIT_DONE)
		result =
		    get_to_file(cli, job->remote, (struct range){0, UINT64_MAX}, job->local, job->mode, job->progress);
	free(job->remote);
	free(job->local);
	free(job);
	return result;
}

static int get_link(struct cli *cli, const char *remote, const char *local)
{
	char target[PATH_BYTES_MAX];
	granary_status status = granary_readlink(cli->cluster, remote, target, sizeof target);
	if (status)
		return cli_error(cli, remote, status);
	if (unlink(local) != 0 && errno != ENOENT)
		return cli_error_errno(cli, local, errno);
	return symlink(target, local) == 0 ? EXIT_DONE : cli_error_errno(cli, local, errno);
}

static int get_visit(struct cli *cli, const struct visited *visited, void *arg)
{
	struct get_tree *tree = arg;
	char *local = *visited->relative ? path_join(tree->local, visited->relative) : mem_string(tree->local);
	int result = EXIT_DONE;
	if (visited->visit == VISIT_BEFORE) {
		/* writable while it is being filled */
		if (mkdir(local, 0700) != 0 && errno != EEXIST)
			result = cli_error_errno(cli, local, errno);
	} else if (visited->visit == VISIT_FILE && S_ISLNK(visited->stat->mode)) {
		result = get_link(cli, visited->path, local);
	} else if (visited->visit == VISIT_FILE && S_ISREG(visited->stat->mode)) {
		struct get_job *job = mem_zero(1, sizeof *job);
		*job = (struct get_job){.progress = tree->progress,
					.remote = mem_string(visited->path),
					.local = mem_string(local),
					.mode = visited->stat->mode & 07777};
		jobs_submit(tree->jobs, get_job_run, job);
	} else if (visited->visit == VISIT_FILE) {
		result = cli_error_text(cli, visited->path, "neither file, directory nor symbolic link: left out");
	}
	free(local);
	return result;
}

/* Once all is in them: the modes of the directories, which may forbid writing. */
static int get_modes(struct cli *cli, const struct visited *visited, void *arg)
{
	struct get_tree *tree = arg;
	if (visited->visit != VISIT_AFTER)
		return EXIT_DONE;
	char *local = *visited->relative ? path_join(tree->local, visited->relative) : mem_string(tree->local);
	int result = chmod(local, visited->stat->mode & 07777) == 0 ? EXIT_DONE : cli_error_errno(cli, local, errno);
	free(local);
	return result;
}

static int get_recursive(struct cli *cli, const char *from, const char *to, uint64_t threads, struct progress *progress)
{
	struct get_tree tree = {.jobs = jobs_open(cli, threads), .progress = progress, .local = to};
	int result = tree_walk(cli, from, get_visit, &tree);
	result = cli_worst(result, jobs_close(tree.jobs));
	return result == EXIT_DONE ? tree_walk(cli, from, get_modes, &tree) : result;
}

/* A device, a pipe: written to, and never replaced. */
static int get_to_special(struct cli *cli, const char *from, struct range range, const char *to, struct progress *progress)
{
	int descriptor = open(to, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (descriptor < 0)
		return cli_error_errno(cli, to, errno);
	int result = get_to_descriptor(cli, from, range, descriptor, progress);
	if (close(descriptor) != 0 && result == EXIT_DONE)
		result = cli_error_errno(cli, to, errno);
	return result;
}

/* "-", /dev/stdout and the like: where our output goes already, be it a file, which is not to be replaced. -1: elsewhere. */
static int standard_descriptor(const char *to)
{
	struct stat named, output;
	if (to && strcmp(to, "-") == 0)
		return STDOUT_FILENO;
	for (int descriptor = STDOUT_FILENO; to && stat(to, &named) == 0 && descriptor <= STDERR_FILENO; descriptor++)
		if (fstat(descriptor, &output) == 0 && output.st_dev == named.st_dev && output.st_ino == named.st_ino && S_ISREG(named.st_mode))
			return descriptor;
	return -1;
}

static int get_one(struct cli *cli, const char *from, const char *to, struct range range, struct progress *progress)
{
	int standard = standard_descriptor(to);
	if (standard >= 0)
		return get_to_descriptor(cli, from, range, standard, progress);
	if (to && path_is_special(to))
		return get_to_special(cli, from, range, to, progress);
	struct granary_stat stat;
	granary_status status = cli_stat(cli, from, true, &stat);
	if (status)
		return cli_error(cli, from, status);
	char *local = local_target(from, to);
	int result = get_to_file(cli, from, range, local, stat.mode & 0777 ? stat.mode & 0777 : 0644, progress);
	free(local);
	return result;
}

int cmd_get(struct cli *cli, int argc, char **argv)
{
	bool recursive = false, forced = false;
	const char *range_text = NULL;
	uint64_t threads = JOBS_DEFAULT, id;
	const struct cli_option options[] = {
	    {"recursive", 'r', CLI_FLAG, &recursive, NULL, "a directory and all that is in it"},
	    {"range", 0, CLI_TEXT, &range_text, "A-B", "bytes A to B (the first is 0, B included); A- to the end"},
	    {"threads", 0, CLI_COUNT, &threads, "N", "files at once with -r (8)"},
	    {"progress", 0, CLI_FLAG, &forced, NULL, "show progress where there is no terminal, too"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	const char *from = argv[0], *to = argc > 1 ? argv[1] : NULL;
	struct range range = {0, UINT64_MAX};
	if (range_text && !range_parse(range_text, &range))
		return cli_usage_error(cli, range_text, "no range (A-B or A-)");
	if (!cli_parse_id(from, &id) && !cli_check_path(cli, from, &result))
		return result;
	if (recursive && (range_text || from[0] != '/' || (to && strcmp(to, "-") == 0)))
		return cli_usage_error(cli, "-r", "not with --range, an id or \"-\"");
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	struct progress *progress = progress_open("get", forced);
	if (recursive) {
		char *local = strcmp(from, "/") == 0 ? mem_string(to ? to : ".") : local_target(from, to);
		result = get_recursive(cli, from, local, threads, progress);
		free(local);
	} else {
		result = get_one(cli, from, to, range, progress);
	}
	progress_close(progress);
	return result;
}

int cmd_cat(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {{0}};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, true, &result))
		return result;
	result = cli_connect(cli);
	for (int i = 0; i < argc && cli->cluster; i++)
		result = cli_worst(result,
				   get_to_descriptor(cli, argv[i], (struct range){0, UINT64_MAX}, STDOUT_FILENO, NULL));
	return result;
}
