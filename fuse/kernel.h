/* The connection to the kernel, and the life of a mount: from a mount point (perhaps a dead one) to "ready", and to the end without loss.
 *
 *	kernel_start -> mounted -> INIT answered: ready        SIGTERM: kernel_stop: sync, umount (on a worker)
 *	ended (umount by whomever, ENODEV from the kernel) -> all requests and flushes done -> stopped
 *
 * While the kernel unmounts it writes what is dirty, and that comes here: the loop goes on until the kernel says the end. */
#ifndef GRANARY_FUSE_KERNEL_H
#define GRANARY_FUSE_KERNEL_H

#include "common/base/buf.h"
#include "fuse/mount.h"

struct kernel;

struct kernel_options {
	const char *mountpoint; /* absolute */
	const char *extra;	/* options of -o, or NULL */
	bool read_only;
	bool allow_other;
	uint64_t drain_ms_max;	/* how long the end waits for the cluster */
};

struct kernel_events {
	void (*ready)(void *arg);
	/* Last call: nothing is under way any more. clean is false when something had to be given up. */
	void (*stopped)(void *arg, bool clean);
};

/* Detaches a mount point whose process has died (every access says ENOTCONN). ERR_NOT_FOUND, ERR_NOT_DIRECTORY, or what
 * the system says. */
MUST_USE enum err kernel_recover(const char *mountpoint);
/* Mounts. `mount` has its loop and client; gets its session. message says what is wrong. */
MUST_USE enum err kernel_start(struct mount *mount, const struct kernel_options *options,
				const struct kernel_events *events, void *arg, struct kernel **out, struct buf *message);
/* Unmounts; stopped follows. May be called again. */
void kernel_stop(struct kernel *kernel);
/* After stopped, or when start failed. NULL is allowed. */
void kernel_close(struct kernel *kernel);

#endif
