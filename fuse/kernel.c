#include "fuse/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "fuse/bdi.h"
#include "fuse/privileges.h"

#define WRITE_HEADERS_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in)) /* linux/fuse.h: of fixed size */
#define LINGER_MS 5000u /* for programs that still use a mount which is being ended */

struct kernel {
	struct mount *mount;
	struct kernel_options options;
	char *mountpoint;
	const struct kernel_events *events;
	void *arg;
	struct watch *watch;
	char *head; /* the request that is being handled: see receive */
	struct work unmount;
	struct timer linger, drain;
	bool ready, stopping, unmounting, ended, stopped;
};

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

enum err kernel_recover(const char *mountpoint)
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

static void kernel_stopped(struct kernel *kernel, bool clean)
{
	if (kernel->stopped)
		return;
	kernel->stopped = true;
	kernel->mount->idle = NULL;
	timer_stop(&kernel->drain);
	kernel->events->stopped(kernel->arg, clean);
}

static void on_idle(void *arg)
{
	struct kernel *kernel = arg;

	if (!kernel->unmounting)
		kernel_stopped(kernel, true);
}

static void on_drain_timeout(void *arg)
{
	struct kernel *kernel = arg;

	log_error("mount_end_incomplete", "requests=%llu", (unsigned long long)kernel->mount->busy);
	kernel_stopped(kernel, false);
}

/* No request will come any more; those under way end by themselves. */
static void kernel_ended(struct kernel *kernel)
{
	if (kernel->ended)
		return;
	kernel->ended = true;
	watch_close(kernel->watch);
	kernel->watch = NULL;
	timer_stop(&kernel->linger);
	timer_start(&kernel->drain, kernel->options.drain_ms_max);
	kernel->mount->idle = on_idle;
	kernel->mount->idle_arg = kernel;
	if (kernel->mount->busy == 0)
		on_idle(kernel);
}

static void unmount_run(struct work *work)
{
	struct kernel *kernel = container_of(work, struct kernel, unmount);
	int descriptor = open(kernel->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (descriptor >= 0) {
		syncfs(descriptor);
		close(descriptor);
	}
	/* In use or not: no new user can come, and those that are there have LINGER_MS. */
	if (unmount_lazily(kernel->mountpoint) != OK)
		log_warn("unmount_failed", "errno=%d", errno);
}

static void unmount_done(struct work *work)
{
	struct kernel *kernel = container_of(work, struct kernel, unmount);

	kernel->unmounting = false;
	if (!kernel->ended)
		timer_start(&kernel->linger, LINGER_MS);
	else if (kernel->mount->busy == 0)
		kernel_stopped(kernel, true);
}

static void on_linger_timeout(void *arg)
{
	struct kernel *kernel = arg;

	log_warn("mount_still_used", "action=end after_ms=%u", LINGER_MS);
	kernel_ended(kernel);
}

void kernel_stop(struct kernel *kernel)
{
	if (kernel->stopping || kernel->ended)
		return;
	kernel->stopping = kernel->unmounting = true;
	work_submit(kernel->mount->loop, NULL, &kernel->unmount);
}

/* ---- the kernel's requests */

/* The next request. The data of a write is read into pieces of the size that the chain takes, which nobody else refers to, and
 * stays there until all replicas have it; `head` gets the rest, and all of any other request. Below 0: -errno; 0: unmounted. */
static ssize_t receive(struct kernel *kernel)
{
	struct mount *mount = kernel->mount;
	const struct fuse_in_header *header = (const struct fuse_in_header *)(const void *)kernel->head;
	struct iovec vectors[1 + MOUNT_IO_PARTS] = {{kernel->head, WRITE_HEADERS_BYTES}};

	for (unsigned i = 0; i < MOUNT_IO_PARTS; i++) {
		struct iobuf **part = &mount->received[i];
		if (*part && (*part)->references > 1) {
			iobuf_unref(*part);
			*part = NULL;
		}
		if (!*part)
			*part = iobuf_open(FRAME_DATA_BYTES_MAX);
		vectors[1 + i] = (struct iovec){(*part)->bytes, FRAME_DATA_BYTES_MAX};
	}
	ssize_t size = readv(fuse_session_fd(mount->session), vectors, 1 + MOUNT_IO_PARTS);
	if (size < 0)
		return errno == ENODEV ? 0 : -errno;
	if (size <= (ssize_t)WRITE_HEADERS_BYTES || header->opcode == FUSE_WRITE)
		return size;
	size_t left = (size_t)size - WRITE_HEADERS_BYTES, at = WRITE_HEADERS_BYTES;
	for (unsigned i = 0; left > 0; i++) {
		size_t piece = left < FRAME_DATA_BYTES_MAX ? left : FRAME_DATA_BYTES_MAX;
		memcpy(kernel->head + at, mount->received[i]->bytes, piece);
		at += piece;
		left -= piece;
	}
	return size;
}

static void on_readable(void *arg)
{
	struct kernel *kernel = arg;
	struct mount *mount = kernel->mount;

	for (unsigned i = 0; i < MOUNT_REQUESTS_PER_TURN; i++) {
		ssize_t size = receive(kernel);

		if (size == -EAGAIN)
			return;
		if (size == -EINTR || size == -ENOENT) /* ENOENT: taken back before it was read */
			continue;
		if (size <= 0) {
			kernel_ended(kernel);
			return;
		}
		struct fuse_buf buf = {.size = (size_t)size, .mem = kernel->head};
		privileges_look(mount, kernel->head, (size_t)size);
		fuse_session_process_buf(mount->session, &buf);
		if (mount->initialised && !kernel->ready) {
			kernel->ready = true;
			bdi_tune(kernel->mountpoint, MOUNT_READAHEAD_BYTES);
			kernel->events->ready(kernel->arg);
		}
	}
}

/* ---- the start */

static enum err kernel_mount(struct kernel *kernel, struct buf *message)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct buf text = {0};
	struct mount *mount = kernel->mount;
	enum err err = ERR_IO;
	int descriptor;

	buf_printf(&text, "-odefault_permissions,fsname=granary,subtype=granary,max_read=%u", MOUNT_IO_BYTES_MAX);
	if (kernel->options.allow_other)
		buf_printf(&text, ",allow_other");
	if (kernel->options.read_only)
		buf_printf(&text, ",ro");
	if (kernel->options.extra && kernel->options.extra[0])
		buf_printf(&text, ",%s", kernel->options.extra);
	buf_append(&text, "", 1);
	if (fuse_opt_add_arg(&args, "granary-mount") != 0 || fuse_opt_add_arg(&args, (char *)text.bytes) != 0)
		goto done;
	mount->session = fuse_session_new(&args, &mount_ops, sizeof mount_ops, mount);
	if (!mount->session) {
		buf_printf(message, "option not understood (-o %s)", kernel->options.extra ? kernel->options.extra : "");
		err = ERR_INVALID;
		goto done;
	}
	if (fuse_session_mount(mount->session, kernel->mountpoint) != 0) {
		buf_printf(message, "the kernel refused the mount (is /dev/fuse there? may this user mount?)");
		goto done;
	}
	descriptor = fuse_session_fd(mount->session);
	if (fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK) != 0) {
		err = err_from_errno(errno);
		goto done;
	}
	err = privileges_negotiate(mount);
	if (err == OK)
		err = watch_open(mount->loop, descriptor, on_readable, kernel, &kernel->watch);
done:
	fuse_opt_free_args(&args);
	buf_deinit(&text);
	return err;
}

enum err kernel_start(struct mount *mount, const struct kernel_options *options, const struct kernel_events *events,
		       void *arg, struct kernel **out, struct buf *message)
{
	struct kernel *kernel = mem_zero(1, sizeof *kernel);
	enum err err;

	kernel->mount = mount;
	kernel->options = *options;
	kernel->mountpoint = mem_string(options->mountpoint);
	kernel->head = mem_alloc(WRITE_HEADERS_BYTES + MOUNT_IO_BYTES_MAX);
	kernel->events = events;
	kernel->arg = arg;
	kernel->unmount = (struct work){.run = unmount_run, .done = unmount_done};
	timer_init(&kernel->linger, mount->loop, on_linger_timeout, kernel);
	timer_init(&kernel->drain, mount->loop, on_drain_timeout, kernel);
	err = kernel_mount(kernel, message);
	if (err != OK) {
		kernel_close(kernel);
		return err;
	}
	*out = kernel;
	return OK;
}

void kernel_close(struct kernel *kernel)
{
	if (!kernel)
		return;
	timer_stop(&kernel->linger);
	timer_stop(&kernel->drain);
	if (kernel->watch)
		watch_close(kernel->watch);
	if (kernel->mount->session) {
		/* Sees by itself whether there is still something to unmount. */
		fuse_session_unmount(kernel->mount->session);
		fuse_session_destroy(kernel->mount->session);
		kernel->mount->session = NULL;
	}
	for (unsigned i = 0; i < MOUNT_IO_PARTS; i++) {
		iobuf_unref(kernel->mount->received[i]);
		kernel->mount->received[i] = NULL;
	}
	free(kernel->head);
	free(kernel->mountpoint);
	free(kernel);
}
