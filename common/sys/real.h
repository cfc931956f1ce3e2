/* What the real implementations share with each other: loop.c, conn.c, file.c. Internal to common/sys. */
#ifndef GRANARY_COMMON_SYS_REAL_H
#define GRANARY_COMMON_SYS_REAL_H

#include <uv.h>

#include "common/sys/file.h"
#include "common/sys/loop.h"

uv_loop_t *loop_uv(struct loop *loop);

/* Counters of conn.c. */
struct conn_counts {
	uint64_t malformed;
	uint32_t open;
	uint64_t queued; /* bytes, at accepted ones */
	uint64_t sent;	 /* bytes, by accepted ones in this iteration */
};
struct conn_counts *loop_conn_counts(struct loop *loop);

/* The descriptor that goes through the page cache. */
int file_descriptor(const struct file *file);

#endif
