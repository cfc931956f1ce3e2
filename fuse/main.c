/* granary-mount: options, the process (foreground or background), the order of start and end. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "common/sys/options.h"
#include "fuse/kernel.h"
#include "fuse/ops.h"
#include "fuse/patience.h"
#include "fuse/recall.h"

#define STOPPING_TIMEOUT_MS 5000u /* of requests, once the mount is to end */

enum status { STATUS_DONE = 0, STATUS_FAILED = 1, STATUS_USAGE = 2, STATUS_UNREACHABLE = 4 };

struct config {
	char *cluster;
	uint64_t timeout_ms;
	bool read_only;
	bool dirsync;
	unsigned log_level, log_format;
	bool foreground;
	bool background;
	bool private_mount;
	char *fuse_options;
};

static const struct option_spec specs[] = {
    {"cluster", 0, OPTION_TEXT, offsetof(struct config, cluster), "HOST:PORT,...", "the masters", NULL},
    {"timeout", 0, OPTION_DURATION, offsetof(struct config, timeout_ms), "TIME",
     "how long an operation may wait for the cluster before it fails with ETIMEDOUT", "30s"},
    {"read-only", 0, OPTION_FLAG, offsetof(struct config, read_only), NULL, "refuse all changes", NULL},
    {"dirsync", 0, OPTION_FLAG, offsetof(struct config, dirsync), NULL,
     "answer changes of names when they are on the masters' disks, not before", NULL},
    {"foreground", 'f', OPTION_FLAG, offsetof(struct config, foreground), NULL, "stay with the terminal (default)", NULL},
    {"background", 'b', OPTION_FLAG, offsetof(struct config, background), NULL,
     "return when the mount works, go on in the background", NULL},
    {"private", 0, OPTION_FLAG, offsetof(struct config, private_mount), NULL,
     "as root: do not let other users in (no allow_other)", NULL},
    {"options", 'o', OPTION_TEXT, offsetof(struct config, fuse_options), "LIST", "further options of FUSE, by comma", NULL},
    {"log-level", 0, OPTION_CHOICE, offsetof(struct config, log_level), LOG_LEVELS, "the least that is logged", "info"},
    {"log-format", 0, OPTION_CHOICE, offsetof(struct config, log_format), LOG_FORMATS, "of a line", "text"},
    {0},
};

static const struct options_program program = {
    .name = "granary-mount",
    .usage = "[options] MOUNTPOINT",
    .summary = "Mounts a Granary cluster. A mount point left behind by a killed granary-mount is cleaned up first.",
    .specs = specs,
};

struct process {
	struct config config;
	char *mountpoint;
	struct buf cluster;
	struct mount mount;
	struct kernel *kernel;
	int report;	/* pipe to the waiting parent; -1: none */
	bool terminated;
	bool idle;	/* at the end: no request is under way */
	enum status status;
};

static void complain(const char *what, const char *why)
{
	fprintf(stderr, "granary-mount: %s: %s\n", what, why);
}

/* Tells a parent that waits in the foreground. */
static void report(struct process *process, enum status status)
{
	uint8_t byte = (uint8_t)status;

	if (process->report < 0)
		return;
	if (write(process->report, &byte, 1) != 1)
		log_warn("parent_gone", "errno=%d", errno);
	close(process->report);
	process->report = -1;
}

static void fail(struct process *process, enum status status, const char *what, const char *why)
{
	complain(what, why);
	process->status = status;
	process->idle = true;
	report(process, status);
	loop_stop(process->mount.loop);
}

/* ---- the way up: find the cluster -> root answered -> mount -> ready */

static void on_ready(void *arg)
{
	struct process *process = arg;
	char text[256];

	log_info("ready", "mountpoint=%s", log_escape(process->mountpoint, strlen(process->mountpoint), text, sizeof text));
	report(process, STATUS_DONE);
}

static void on_stopped(void *arg, bool clean)
{
	struct process *process = arg;

	log_info("unmounted", "clean=%d", clean);
	if (!clean)
		process->status = STATUS_FAILED;
	report(process, STATUS_FAILED);
	process->idle = clean;
	loop_stop(process->mount.loop);
}

static const struct kernel_events kernel_events = {.ready = on_ready, .stopped = on_stopped};

static void on_root(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct process *process = arg;
	const struct config *config = &process->config;
	struct kernel_options options = {
	    .mountpoint = process->mountpoint,
	    .extra = config->fuse_options,
	    .read_only = config->read_only,
	    .allow_other = geteuid() == 0 && !config->private_mount,
	    .drain_ms_max = config->timeout_ms,
	};
	struct buf message = {0};
	struct node *root;
	enum err state;

	if (process->terminated)
		return;
	if (err == OK && (reply->n_results != 1 || reply->results[0]->error || !reply->results[0]->attr))
		err = ERR_PROTOCOL;
	if (err != OK) {
		state = client_state(process->mount.client);
		fail(process, STATUS_UNREACHABLE, "cluster cannot be used", err_text(state != OK ? state : err));
		return;
	}
	root = handles_node(&process->mount.handles, FUSE_ROOT_ID);
	root->lookups = 1;
	node_learn(root, reply->results[0]->attr);
	err = kernel_start(&process->mount, &options, &kernel_events, process, &process->kernel, &message);
	if (err != OK) {
		buf_append(&message, "", 1);
		fail(process, err == ERR_INVALID ? STATUS_USAGE : STATUS_FAILED, process->mountpoint, (char *)message.bytes);
	}
	buf_deinit(&message);
}

static void ask_root(struct process *process)
{
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__MetaOp *ops[1] = {&op};

	getattr.inode = FUSE_ROOT_ID;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	client_meta(process->mount.client, ops, 1, on_root, process);
}

static void on_terminate(void *arg)
{
	struct process *process = arg;

	process->terminated = true;
	patience_shorten(&process->mount, STOPPING_TIMEOUT_MS);
	if (process->kernel)
		kernel_stop(process->kernel);
	else
		loop_stop(process->mount.loop);
}

/* ---- the process */

static void on_left(void *arg)
{
	struct process *process = arg;

	loop_stop(process->mount.loop);
}

static void close_all(struct process *process)
{
	struct mount *mount = &process->mount;
	struct node *newest, *next;

	/* Others need not wait for what we might still cache. */
	if (process->idle && mount->client && client_session(mount->client) != 0) {
		client_leave(mount->client, on_left, process);
		loop_run(mount->loop);
	}
	kernel_close(process->kernel);
	patience_close(mount);
	HASH_ITER(by_inode, mount->handles.by_inode, newest, next)
	for (struct node *node = newest; node; node = node->older) {
		if (node->io)
			file_io_close(node->io);
		node->io = NULL;
	}
	/* Calls that are cut off end here, with ERR_CANCELLED. */
	if (mount->client)
		client_close(mount->client);
	dirs_deinit(mount);
	ahead_deinit(&mount->ahead);
	handles_deinit(&mount->handles);
	loop_close(mount->loop);
}

static enum status run(struct process *process)
{
	struct config *config = &process->config;
	struct client_options options = {
	    .timeout_ms = config->timeout_ms,
	    .undelegated = config->dirsync,
	    .events = &recall_events,
	};
	struct mount *mount = &process->mount;
	enum err err;

	/* Memory is not to be freed by writing to our own mount while we serve it. Needs root; else it stays a risk. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	handles_init(&mount->handles);
	if (loop_open(&mount->loop) != OK)
		return STATUS_FAILED;
	err = client_find_cluster(mount->loop, config->cluster, NULL, &process->cluster);
	if (err != OK) {
		fail(process, STATUS_USAGE, "no cluster given", "use --cluster HOST:PORT,... or --config FILE");
		goto done;
	}
	buf_append(&process->cluster, "", 1);
	options.cluster = (char *)process->cluster.bytes;
	options.events_arg = mount;
	err = client_open(mount->loop, &options, &mount->client);
	if (err != OK) {
		fail(process, STATUS_USAGE, options.cluster, err_text(err));
		goto done;
	}
	patience_open(mount, config->timeout_ms);
	loop_on_terminate(mount->loop, on_terminate, process);
	ask_root(process);
	loop_run(mount->loop);
done:
	close_all(process);
	buf_deinit(&process->cluster);
	return process->status;
}

/* The parent waits until the child says that the mount works, and ends with what it says. */
static void into_background(struct process *process)
{
	int ends[2], null;
	uint8_t status = STATUS_FAILED;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
		complain("cannot start a process", strerror(errno));
		exit(STATUS_FAILED);
	}
	if (pid > 0) {
		close(ends[1]);
		while (read(ends[0], &status, 1) < 0 && errno == EINTR)
			;
		exit(status);
	}
	close(ends[0]);
	process->report = ends[1];
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	if (chdir("/") != 0)
		log_warn("chdir", "errno=%d", errno);
}

static enum status parse(struct process *process, int argc, char **argv)
{
	struct buf message = {0};
	enum status status = STATUS_USAGE;
	int first;

	if (options_parse(&program, &process->config, argc, argv, false, &first, &message) != OK) {
		buf_append(&message, "", 1);
		complain("usage", (char *)message.bytes);
	} else if (argc - first != 1) {
		complain("usage", "granary-mount [options] MOUNTPOINT (see --help)");
	} else {
		log_setup("mount", (enum log_level)process->config.log_level, (enum log_format)process->config.log_format);
		process->mountpoint = argv[first];
		status = STATUS_DONE;
	}
	buf_deinit(&message);
	return status;
}

int main(int argc, char **argv)
{
	struct process process = {.report = -1};
	enum status status = parse(&process, argc, argv);
	char *mountpoint;
	enum err err;

	if (status != STATUS_DONE)
		return status;
	err = kernel_recover(process.mountpoint);
	mountpoint = err == OK ? realpath(process.mountpoint, NULL) : NULL;
	if (!mountpoint) {
		complain(process.mountpoint, err != OK ? err_text(err) : strerror(errno));
		return STATUS_FAILED;
	}
	process.mountpoint = mountpoint;
	if (process.config.background && !process.config.foreground)
		into_background(&process);
	status = run(&process);
	free(mountpoint);
	options_deinit(&program, &process.config);
	return status;
}
