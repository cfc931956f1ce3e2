/* Preloaded into the processes of a cluster by disk_faults.py: makes calls on files fail, wait or hang, as the file $DISK_FAULTS says:
 * lines "PART MODE [MS]", for paths that contain PART; MODE is eio, delay (of MS) or hang (until the line is gone). */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { NONE, EIO_NOW, DELAY, HANG };

static enum mode look_up(int descriptor, long *ms)
{
	const char *control = getenv("DISK_FAULTS");
	char link[64], path[4096], part[256], mode[16], line[512];
	enum mode found = NONE;
	snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
	ssize_t size = readlink(link, path, sizeof path - 1);
	FILE *file = control == NULL || size < 0 ? NULL : fopen(control, "re");
	if (file == NULL)
		return NONE;
	path[size] = 0;
	while (found == NONE && fgets(line, sizeof line, file) != NULL) {
		*ms = 0;
		if (sscanf(line, "%255s %15s %ld", part, mode, ms) < 2 || strstr(path, part) == NULL)
			continue;
		found = strcmp(mode, "eio") == 0 ? EIO_NOW : strcmp(mode, "delay") == 0 ? DELAY : HANG;
	}
	fclose(file);
	return found;
}

/* True: the call fails. */
static int fails(int descriptor)
{
	long ms = 0;
	enum mode mode = look_up(descriptor, &ms);
	if (mode == DELAY)
		(void)poll(NULL, 0, (int)ms);
	while (mode == HANG) {
		(void)poll(NULL, 0, 50);
		mode = look_up(descriptor, &ms);
	}
	errno = EIO;
	return mode == EIO_NOW;
}

#define SHIM(result, name, parameters, arguments)                                                                       \
	result name parameters;                                                                                         \
	result name parameters                                                                                          \
	{                                                                                                               \
		static result(*real) parameters;                                                                        \
		if (real == NULL)                                                                                       \
			*(void **)&real = dlsym(RTLD_NEXT, #name);                                                      \
		return fails(descriptor) ? -1 : real arguments;                                                         \
	}

SHIM(ssize_t, pwrite, (int descriptor, const void *bytes, size_t size, off_t offset), (descriptor, bytes, size, offset))
SHIM(ssize_t, pwrite64, (int descriptor, const void *bytes, size_t size, off64_t offset), (descriptor, bytes, size, offset))
SHIM(ssize_t, pwritev, (int descriptor, const struct iovec *v, int count, off_t offset), (descriptor, v, count, offset))
SHIM(ssize_t, pwritev64, (int descriptor, const struct iovec *v, int count, off64_t offset), (descriptor, v, count, offset))
SHIM(ssize_t, pread, (int descriptor, void *bytes, size_t size, off_t offset), (descriptor, bytes, size, offset))
SHIM(ssize_t, pread64, (int descriptor, void *bytes, size_t size, off64_t offset), (descriptor, bytes, size, offset))
SHIM(int, fdatasync, (int descriptor), (descriptor))
