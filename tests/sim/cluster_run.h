/* A run of the simulated cluster with its load: begun, broken by whoever runs it, and ended with all checks. For sim_cluster and
 * sim_scenarios. */
#ifndef GRANARY_TESTS_SIM_CLUSTER_RUN_H
#define GRANARY_TESTS_SIM_CLUSTER_RUN_H

#include "tests/sim/cluster_check.h"
#include "tests/sim/cluster_faults.h"
#include "tests/sim/cluster_load.h"

/* What runs of one program add up, as runner.h wants it. */
extern const char *const cluster_run_counts[];
#define CLUSTER_RUN_TWICE 8u /* the place of "made by two" in them */

struct cluster_run_options {
	uint64_t seed;
	uint32_t break_per_million; /* see world */
	uint32_t late_per_million;
	bool never_sync;
	bool balances;	/* cluster_balance.h; not with loses_one */
	bool loses_one; /* chunkserver, for good, when all is over */
	bool cools;	/* more chunkservers, chunks become cold and hot; in the end all of them, once each */
	unsigned chunkservers; /* 0: WORLD_CHUNKSERVERS */
};

/* Everything runs, the tables are made, the clients are at work. */
struct run *cluster_run_begin(const struct cluster_run_options *options);
/* Steps until `done` holds; ends the program, saying `what` was in vain, if it does not. */
void cluster_run_until(struct run *run, bool (*done)(void *arg), void *arg, uint64_t limit_us, const char *what);
/* What was done by clients so far, of any kind: to see that service goes on. */
uint64_t cluster_run_work(const struct run *run);
/* Nothing is broken any more, and clients change nothing more: they have read everything. */
void cluster_run_rest(struct run *run);
/* After that. They read everything once more. */
void cluster_run_read_again(struct run *run, const char *what);
/* All chunks become cold, or hot, whoever asks for something else; there is nothing besides; and everything is read. Of runs that cool. */
void cluster_run_convert(struct run *run, bool warm);
/* All is mended and checked. Adds to sum, gives a digest of the run. */
uint64_t cluster_run_end(struct run *run, uint64_t *sum);

#endif
