#include "fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "fuse/bdi.h"

#define LINGER_MS 5000u /* for programs that still use a mount which is being ended */

struct session {
	struct mount *mount;
	struct session_options options;
	char *mountpoint;
	const struct session_events *events;
	void *arg;
	struct watch *watch;
	struct fuse_buf buf;
	struct work unmount;
	struct timer linger, drain;
	bool ready, stopping, unmounting, ended, stopped;
};

extern char **environ;

static enum err unmount_lazily(const char *mountpoint)
{
	char *const argv[] = {"fusermount3", "-u", "-z", "--", (char *)(uintptr_t)mountpoint, NULL};
	pid_t pid;
	int status;

	if (geteuid() == 0)
		return umount2(mountpoint, MNT_DETACH) == 0 ? OK : err_from_errno(errno);
	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0)
		return ERR_IO;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return ERR_IO;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? OK : ERR_IO;
}

enum err session_recover(const char *mountpoint)
{
	struct stat stat_of;

	/* Several may lie on top of each other. */
	for (int tries = 0; tries < 16; tries++) {
		if (stat(mountpoint, &stat_of) == 0)
			return S_ISDIR(stat_of.st_mode) ? OK : ERR_NOT_DIRECTORY;
		if (errno != ENOTCONN)
			return err_from_errno(errno);
		log_warn("dead_mount", "action=detach tries=%d", tries + 1);
		if (unmount_lazily(mountpoint) != OK)
			return ERR_BUSY;
	}
	return ERR_BUSY;
}

/* ---- the end */

static void session_stopped(struct session *session, bool clean)
{
	if (session->stopped)
		return;
	session->stopped = true;
	session->mount->idle = NULL;
	timer_stop(&session->drain);
	session->events->stopped(session->arg, clean);
}

static void on_idle(void *arg)
{
	struct session *session = arg;

	if (!session->unmounting)
		session_stopped(session, true);
}

static void on_drain_timeout(void *arg)
{
	struct session *session = arg;

	log_error("mount_end_incomplete", "requests=%llu", (unsigned long long)session->mount->busy);
	session_stopped(session, false);
}

/* No request will come any more; those under way end by themselves. */
static void session_ended(struct session *session)
{
	if (session->ended)
		return;
	session->ended = true;
	watch_close(session->watch);
	session->watch = NULL;
	timer_stop(&session->linger);
	timer_start(&session->drain, session->options.drain_ms_max);
	session->mount->idle = on_idle;
	session->mount->idle_arg = session;
	if (session->mount->busy == 0)
		on_idle(session);
}

static void unmount_run(struct work *work)
{
	struct session *session = container_of(work, struct session, unmount);
	int descriptor = open(session->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (descriptor >= 0) {
		syncfs(descriptor);
		close(descriptor);
	}
	/* In use or not: no new user can come, and those that are there have LINGER_MS. */
	if (unmount_lazily(session->mountpoint) != OK)
		log_warn("unmount_failed", "errno=%d", errno);
}

static void unmount_done(struct work *work)
{
	struct session *session = container_of(work, struct session, unmount);

	session->unmounting = false;
	if (!session->ended)
		timer_start(&session->linger, LINGER_MS);
	else if (session->mount->busy == 0)
		session_stopped(session, true);
}

static void on_linger_timeout(void *arg)
{
	struct session *session = arg;

	log_warn("mount_still_used", "action=end after_ms=%u", LINGER_MS);
	session_ended(session);
}

void session_stop(struct session *session)
{
	if (session->stopping || session->ended)
		return;
	session->stopping = session->unmounting = true;
	work_submit(session->mount->loop, NULL, &session->unmount);
}

/* ---- the kernel's requests */

static void on_readable(void *arg)
{
	struct session *session = arg;
	struct mount *mount = session->mount;

	for (unsigned i = 0; i < MOUNT_REQUESTS_PER_TURN; i++) {
		int size = fuse_session_receive_buf(mount->session, &session->buf);

		if (size == -EAGAIN)
			return;
		if (size == -EINTR)
			continue;
		if (size <= 0) {
			session_ended(session);
			return;
		}
		fuse_session_process_buf(mount->session, &session->buf);
		if (mount->initialised && !session->ready) {
			session->ready = true;
			bdi_tune(session->mountpoint, MOUNT_IO_BYTES_MAX);
			session->events->ready(session->arg);
		}
	}
}

/* ---- the start */

static enum err session_mount(struct session *session, struct buf *message)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct buf text = {0};
	struct mount *mount = session->mount;
	enum err err = ERR_IO;
	int descriptor;

	buf_printf(&text, "-odefault_permissions,fsname=granary,subtype=granary,max_read=%u", MOUNT_IO_BYTES_MAX);
	if (session->options.allow_other)
		buf_printf(&text, ",allow_other");
	if (session->options.read_only)
		buf_printf(&text, ",ro");
	if (session->options.extra && session->options.extra[0])
		buf_printf(&text, ",%s", session->options.extra);
	buf_append(&text, "", 1);
	if (fuse_opt_add_arg(&args, "granary-mount") != 0 || fuse_opt_add_arg(&args, (char *)text.bytes) != 0)
		goto done;
	mount->session = fuse_session_new(&args, &mount_ops, sizeof mount_ops, mount);
	if (!mount->session) {
		buf_printf(message, "option not understood (-o %s)", session->options.extra ? session->options.extra : "");
		err = ERR_INVALID;
		goto done;
	}
	if (fuse_session_mount(mount->session, session->mountpoint) != 0) {
		buf_printf(message, "the kernel refused the mount (is /dev/fuse there? may this user mount?)");
		goto done;
	}
	descriptor = fuse_session_fd(mount->session);
	if (fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK) != 0) {
		err = err_from_errno(errno);
		goto done;
	}
	err = watch_open(mount->loop, descriptor, on_readable, session, &session->watch);
done:
	fuse_opt_free_args(&args);
	buf_deinit(&text);
	return err;
}

enum err session_start(struct mount *mount, const struct session_options *options, const struct session_events *events,
		       void *arg, struct session **out, struct buf *message)
{
	struct session *session = mem_zero(1, sizeof *session);
	enum err err;

	session->mount = mount;
	session->options = *options;
	session->mountpoint = mem_string(options->mountpoint);
	session->events = events;
	session->arg = arg;
	session->unmount = (struct work){.run = unmount_run, .done = unmount_done};
	timer_init(&session->linger, mount->loop, on_linger_timeout, session);
	timer_init(&session->drain, mount->loop, on_drain_timeout, session);
	err = session_mount(session, message);
	if (err != OK) {
		session_close(session);
		return err;
	}
	*out = session;
	return OK;
}

void session_close(struct session *session)
{
	if (!session)
		return;
	timer_stop(&session->linger);
	timer_stop(&session->drain);
	if (session->watch)
		watch_close(session->watch);
	if (session->mount->session) {
		/* Sees by itself whether there is still something to unmount. */
		fuse_session_unmount(session->mount->session);
		fuse_session_destroy(session->mount->session);
		session->mount->session = NULL;
	}
	free(session->buf.mem);
	free(session->mountpoint);
	free(session);
}
