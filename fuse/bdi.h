/* What the kernel lets be set of a mount only through sysfs: how far it reads ahead, and how much may be dirty. */
#ifndef GRANARY_FUSE_BDI_H
#define GRANARY_FUSE_BDI_H

#include <stdbool.h>
#include <stddef.h>

/* FUSE starts with 128 KiB of readahead, whatever INIT says, and 1% of the dirty memory. Does nothing without the right
 * to change it. Does not touch the mount itself: its requests would wait for the caller. */
void bdi_tune(const char *mountpoint, size_t readahead_bytes);

/* "MAJOR:MINOR" of a line of /proc/self/mountinfo (proc(5)) if its mount point is this one. For bdi_tune and tests. */
bool bdi_parse_line(const char *line, const char *mountpoint, char *device, size_t device_size);

#endif
