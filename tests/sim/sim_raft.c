/* sim_raft [--seeds N] [--first SEED] [--seed S [--trace]] [--storm STORM] [--expect-failure]
 *
 * Runs a Raft group (production core and write-ahead log) through a storm of faults for each seed; what must always
 * hold is in raft_checker.c, what goes wrong in raft_faults.c. Prints seeds, steps and how much happened; on failure
 * the seed and the last events of a second run of it. --expect-failure: for builds with a planted bug: success is to
 * find it. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "tests/sim/raft_cluster.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 200
#else
#define SEEDS 2000
#endif

struct arguments {
	uint64_t first, seeds;
	enum storm storm;
	bool trace, expect_failure;
};

/* For the signal handler: a failed check() is a finding, too. */
static struct {
	uint64_t seed;
	bool expect_failure, tracing;
	struct sim *sim;
} running;

static void on_abort(int number)
{
	(void)number;
	fprintf(stderr, "seed %" PRIu64 ": a check() failed\n", running.seed);
	if (running.tracing)
		sim_print_trace(running.sim, stderr);
	_exit(running.expect_failure ? 0 : 1);
}

static void add_counts(struct counts *sum, const struct counts *counts)
{
	sum->proposed += counts->proposed;
	sum->acknowledged += counts->acknowledged;
	sum->reads += counts->reads;
	sum->elections += counts->elections;
	sum->crashes += counts->crashes;
	sum->restarts += counts->restarts;
	sum->torn += counts->torn;
	sum->cuts += counts->cuts;
	sum->applied += counts->applied;
	sum->disk_failures += counts->disk_failures;
	sum->rotten += counts->rotten;
	sum->refused += counts->refused;
	sum->holes += counts->holes;
	sum->filled += counts->filled;
	sum->given_up += counts->given_up;
	sum->mended += counts->mended;
	sum->changes += counts->changes;
	sum->snapshots += counts->snapshots;
	sum->replaced += counts->replaced;
	sum->strangers += counts->strangers;
	sum->removed += counts->removed;
}

/* True: the seed failed. */
static bool run_seed(uint64_t seed, enum storm storm, bool tracing, bool quiet, struct counts *sum, uint64_t *steps)
{
	static struct cluster cluster;
	running.seed = seed;
	running.tracing = tracing;
	cluster_open(&cluster, seed, storm, tracing);
	running.sim = cluster.sim;
	cluster_run(&cluster);
	bool failed = cluster.failed;
	*steps += sim_steps(cluster.sim);
	add_counts(sum, &cluster.counts);
	if (tracing && !quiet)
		sim_print_trace(cluster.sim, failed ? stderr : stdout);
	if (failed)
		fprintf(stderr, "seed %" PRIu64 ": %s\n", seed, cluster.failure);
	cluster_close(&cluster);
	return failed;
}

static bool parse_storm(const char *name, enum storm *out)
{
	static const char *const names[] = {"any", "leaders", "links", "disks", "members", "rot"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		*out = (enum storm)i;
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static bool parse(int argc, char **argv, struct arguments *arguments)
{
	*arguments = (struct arguments){.first = 1, .seeds = SEEDS};
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (strcmp(argv[i], "--trace") == 0)
			arguments->trace = true;
		else if (strcmp(argv[i], "--expect-failure") == 0)
			arguments->expect_failure = true;
		else if (value && strcmp(argv[i], "--seeds") == 0)
			arguments->seeds = strtoull(argv[++i], NULL, 10);
		else if (value && strcmp(argv[i], "--first") == 0)
			arguments->first = strtoull(argv[++i], NULL, 10);
		else if (value && strcmp(argv[i], "--seed") == 0) {
			arguments->first = strtoull(argv[++i], NULL, 10);
			arguments->seeds = 1;
		} else if (value && strcmp(argv[i], "--storm") == 0 && parse_storm(value, &arguments->storm)) {
			i++;
		} else {
			return false;
		}
	}
	return true;
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct arguments arguments;
	if (!parse(argc, argv, &arguments)) {
		fprintf(
		    stderr,
		    "usage: sim_raft [--seeds N] [--first SEED] [--seed S [--trace]] "
		    "[--storm any|leaders|links|disks|members|rot] [--expect-failure]\n");
		return 2;
	}
	running.expect_failure = arguments.expect_failure;
	signal(SIGABRT, on_abort);
	struct counts sum = {0};
	uint64_t steps = 0, failed = 0, seed = arguments.first;
	double start = seconds();
	for (; seed < arguments.first + arguments.seeds && failed == 0; seed++)
		failed += run_seed(seed, arguments.storm, arguments.trace, arguments.expect_failure, &sum, &steps);
	double passed = seconds() - start;
	printf("sim_raft: %" PRIu64 " seeds, %" PRIu64 " steps, %.1f s\n", seed - arguments.first, steps, passed);
	printf("  %" PRIu64 " acknowledged of %" PRIu64 " proposed, %" PRIu64 " reads, %" PRIu64 " elections\n",
	       sum.acknowledged, sum.proposed, sum.reads, sum.elections);
	printf("  %" PRIu64 " crashes (%" PRIu64 " power cuts), %" PRIu64 " torn logs, %" PRIu64
	       " failed disks, %" PRIu64 " of %" PRIu64 " flipped bits refused\n",
	       sum.crashes, sum.cuts, sum.torn, sum.disk_failures, sum.refused, sum.rotten);
	printf("  %" PRIu64 " holes, %" PRIu64 " filled, %" PRIu64 " given up, %" PRIu64
	       " logs mended by hand; %" PRIu64 " snapshots\n",
	       sum.holes, sum.filled, sum.given_up, sum.mended, sum.snapshots);
	printf("  %" PRIu64 " changes of membership (%" PRIu64 " removed), %" PRIu64 " disks replaced, %" PRIu64
	       " strangers\n",
	       sum.changes, sum.removed, sum.replaced, sum.strangers);
	if (arguments.expect_failure) {
		printf("%s\n", failed ? "the planted bug was found" : "the planted bug was not found");
		return failed ? 0 : 1;
	}
	if (failed && !arguments.trace) {
		struct counts ignored = {0};
		uint64_t more = 0;
		bool again = run_seed(seed - 1, arguments.storm, true, false, &ignored, &more);
		fprintf(stderr, "again: sim_raft --seed %" PRIu64 " --trace%s\n", seed - 1,
			again ? "" : " (the second run did not fail: not deterministic!)");
	}
	if (failed == 0 && arguments.seeds >= 500 && arguments.storm == STORM_ANY)
		check(sum.reads > 0 && sum.torn > 0 && sum.acknowledged > 0 && sum.refused > 0 && sum.filled > 0 &&
		      sum.snapshots > 0 && sum.changes > 0 && sum.strangers > 0);
	return failed ? 1 : 0;
}
