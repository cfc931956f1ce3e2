/* A library to be loaded before libc (LD_PRELOAD): makes the disk and the clocks of one process bad while it runs.
 *
 * $GRANARY_SHIM names a file of 4096 bytes that the test maps, too, and changes at any time (tests/lib/shim.py). All numbers are
 * 64 bits, little endian:
 *
 *	0   sync_failures    so many of the next fsync and fdatasync fail; each takes one off
 *	8   write_failures   so many of the next writes fail
 *	16  error            with this errno
 *	24  delay_us         before each read, write and sync
 *	32  wall_offset_ms   added to CLOCK_REALTIME (signed)
 *	40  rate_permille    how fast all clocks run from the moment of loading on; 0: 1000
 *	48  injected         how many calls have failed
 *	256 path             a text: only files whose path contains it; empty: all
 *
 * Calls of the kernel that do not go through libc's symbols are not seen. Sockets are left alone. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_BYTES 4096u
#define PATH_OFFSET 256u

struct control {
	uint64_t sync_failures, write_failures, error, delay_us;
	int64_t wall_offset_ms;
	uint64_t rate_permille, injected;
};

int fdatasync(int descriptor);
int fsync(int descriptor);

static struct control *control;
static struct timespec started[2]; /* CLOCK_REALTIME, CLOCK_MONOTONIC */

/* The next definition of the symbol, found again at each call: tests can afford it, and there is no state to get wrong. */
#define NEXT(name) (__extension__(__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void load(void)
{
	const char *path = getenv("GRANARY_SHIM");
	int descriptor = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (descriptor < 0)
		return;
	void *mapped = mmap(NULL, CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
	close(descriptor);
	for (int clock = 0; clock < 2; clock++)
		NEXT(clock_gettime)(clock, &started[clock]);
	control = mapped == MAP_FAILED ? NULL : mapped;
}

static int is_meant(int descriptor)
{
	const char *wanted = (const char *)control + PATH_OFFSET;
	char link[64], path[PATH_MAX];
	struct stat status;
	if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode))
		return 0;
	if (*wanted == 0)
		return 1;
	snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
	ssize_t size = readlink(link, path, sizeof path - 1);
	path[size < 0 ? 0 : size] = 0;
	return strstr(path, wanted) != NULL;
}

static int take_one(uint64_t *count)
{
	uint64_t left = __atomic_load_n(count, __ATOMIC_RELAXED);
	while (left > 0) {
		if (__atomic_compare_exchange_n(count, &left, left - 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return 1;
	}
	return 0;
}

/* Waits as asked for; true when the call is to fail, with errno set. */
static int disturbed(int descriptor, uint64_t *failures)
{
	if (!control || (!control->delay_us && !(failures && *failures)) || !is_meant(descriptor))
		return 0;
	uint64_t delay_us = control->delay_us;
	struct timespec pause = {.tv_sec = (time_t)(delay_us / 1000000), .tv_nsec = (long)(delay_us % 1000000 * 1000)};
	if (delay_us)
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	if (!failures || !take_one(failures))
		return 0;
	__atomic_add_fetch(&control->injected, 1, __ATOMIC_RELAXED);
	errno = (int)control->error;
	return 1;
}

int fdatasync(int descriptor)
{
	return disturbed(descriptor, control ? &control->sync_failures : NULL) ? -1 : NEXT(fdatasync)(descriptor);
}

int fsync(int descriptor)
{
	return disturbed(descriptor, control ? &control->sync_failures : NULL) ? -1 : NEXT(fsync)(descriptor);
}

ssize_t write(int descriptor, const void *bytes, size_t size)
{
	return disturbed(descriptor, control ? &control->write_failures : NULL) ? -1 : NEXT(write)(descriptor, bytes, size);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t size, off_t offset)
{
	return disturbed(descriptor, control ? &control->write_failures : NULL)
		       ? -1
		       : NEXT(pwrite64)(descriptor, bytes, size, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
	return disturbed(descriptor, control ? &control->write_failures : NULL)
		       ? -1
		       : NEXT(pwritev64)(descriptor, pieces, count, offset);
}

ssize_t pread64(int descriptor, void *bytes, size_t size, off_t offset)
{
	return disturbed(descriptor, NULL) ? -1 : NEXT(pread64)(descriptor, bytes, size, offset);
}

ssize_t preadv64v2(int descriptor, const struct iovec *pieces, int count, off_t offset, int flags)
{
	/* RWF_NOWAIT on a slow disk: what is in memory does not wait for it, and the rest is not waited for here. */
	if (!(flags & RWF_NOWAIT) && disturbed(descriptor, NULL))
		return -1;
	return NEXT(preadv64v2)(descriptor, pieces, count, offset, flags);
}

static int64_t nanoseconds(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
	int result = NEXT(clock_gettime)(clock, out);
	int wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
	int steady = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE;
	if (result != 0 || !control || !(wall || steady))
		return result;
	int64_t now = nanoseconds(*out), since = nanoseconds(started[!wall]);
	if (control->rate_permille)
		now = since + (now - since) / 1000 * (int64_t)control->rate_permille;
	if (wall)
		now += control->wall_offset_ms * 1000000;
	out->tv_sec = now / 1000000000;
	out->tv_nsec = now % 1000000000;
	return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
	(void)zone;
	struct timespec now;
	int result = clock_gettime(CLOCK_REALTIME, &now);
	out->tv_sec = now.tv_sec;
	out->tv_usec = now.tv_nsec / 1000;
	return result;
}

time_t time(time_t *out)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (out)
		*out = now.tv_sec;
	return now.tv_sec;
}
