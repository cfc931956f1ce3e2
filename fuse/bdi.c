#include "fuse/bdi.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/sys/log.h"

/* Pages written and not yet sent: from three quarters of it on the kernel sends while the program goes on writing, and holds the
 * program to the speed of that. The lower bound is the same, else the kernel's moving share of this mount among all devices
 * takes its place: it falls to some MiB, and a program that is found far above it stands still for seconds. */
#define DIRTY_BYTES (64u * 1024u * 1024u)
#define DIRTY_PERCENT 40u /* before Linux 6.2 */

/* Mount points are written with \040 for a space and the like. */
static bool same_path(const char *escaped, size_t size, const char *path)
{
	size_t i = 0;

	for (; *path; path++) {
		char c;

		if (i >= size)
			return false;
		c = escaped[i++];
		if (c == '\\' && size - i >= 3) {
			c = (char)((escaped[i] - '0') << 6 | (escaped[i + 1] - '0') << 3 | (escaped[i + 2] - '0'));
			i += 3;
		}
		if (c != *path)
			return false;
	}
	return i == size;
}

bool bdi_parse_line(const char *line, const char *mountpoint, char *device, size_t device_size)
{
	const char *field[5];
	size_t size[5];

	/* id, parent, major:minor, root, mount point */
	for (int i = 0; i < 5; i++) {
		size[i] = strcspn(line, " \n");
		field[i] = line;
		line += size[i];
		if (*line != ' ')
			return false;
		line++;
	}
	if (size[2] >= device_size || !same_path(field[4], size[4], mountpoint))
		return false;
	memcpy(device, field[2], size[2]);
	device[size[2]] = '\0';
	return true;
}

static bool set(const char *device, const char *name, unsigned long value)
{
	struct buf path = {0}, text = {0};
	int descriptor;
	bool done = false;

	buf_printf(&path, "/sys/class/bdi/%s/%s", device, name);
	buf_append(&path, "", 1);
	buf_printf(&text, "%lu\n", value);
	descriptor = open((char *)path.bytes, O_WRONLY | O_CLOEXEC);
	if (descriptor >= 0) {
		done = write(descriptor, text.bytes, text.size) == (ssize_t)text.size;
		close(descriptor);
	}
	log_debug("bdi_set", "name=%s value=%lu done=%d", name, value, done);
	buf_deinit(&path);
	buf_deinit(&text);
	return done;
}

void bdi_tune(const char *mountpoint, size_t readahead_bytes)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t capacity = 0;
	char device[32] = "", found[32];

	if (!file)
		return;
	/* The last one lies on top. */
	while (getline(&line, &capacity, file) > 0)
		if (bdi_parse_line(line, mountpoint, found, sizeof found))
			memcpy(device, found, sizeof device);
	free(line);
	fclose(file);
	if (!device[0])
		return;
	set(device, "read_ahead_kb", readahead_bytes / 1024);
	if (set(device, "max_bytes", DIRTY_BYTES))
		set(device, "min_bytes", DIRTY_BYTES);
	else
		set(device, "max_ratio", DIRTY_PERCENT);
}
