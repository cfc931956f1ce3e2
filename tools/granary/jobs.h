/* Work on many files at once: threads with a connection each, fed from a bounded queue. A thread is started only when
 * all others are busy. */
#ifndef GRANARY_TOOLS_GRANARY_JOBS_H
#define GRANARY_TOOLS_GRANARY_JOBS_H

#include "tools/granary/cli.h"

#define JOBS_DEFAULT 8u
#define JOBS_MAX 64u
#define JOBS_QUEUE_MAX 256u

struct jobs;

/* fn returns an exit status and has reported what went wrong; it owns arg. */
typedef int job_fn(struct cli *cli, void *arg);

/* cli gives the options of the connections; it is not used by the threads. threads is cut to 1 .. JOBS_MAX. */
struct jobs *jobs_open(const struct cli *cli, uint64_t threads);
/* Waits while the queue is full. */
void jobs_submit(struct jobs *jobs, job_fn *fn, void *arg);
/* Waits for all of it; the first exit status that was not EXIT_DONE. */
int jobs_close(struct jobs *jobs);

#endif
