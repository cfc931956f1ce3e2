/* The pool of threads behind work_submit. Internal to common/sys.
 *
 * Threads are started when work waits for one, WORKERS_COUNT at most, and end with workers_close. Lanes are kept in
 * order by the loop's side: only the first item of a lane is ever in the pool. */
#ifndef GRANARY_COMMON_SYS_WORKERS_H
#define GRANARY_COMMON_SYS_WORKERS_H

#include <uv.h>

#include "common/sys/loop.h"

struct workers;

struct workers *workers_open(uv_loop_t *loop);
/* Waits for all work and calls its `done`. */
void workers_close(struct workers *workers);
void workers_submit(struct workers *workers, struct work_lane *lane, struct work *work);

#endif
