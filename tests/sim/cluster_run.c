#include "tests/sim/cluster_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "tests/sim/cluster_balance.h"
#include "tests/sim/runner.h"

#define START_US 10000000u /* until everything is made, at most */
#define CALM_US 60000000u
#define RACKS 3u /* of four servers */

enum { SUM_FAULTS, SUM_OPERATIONS, SUM_WRITES, SUM_READS, SUM_LINKS, SUM_GETS, SUM_LOCKS, SUM_COLD, SUM_TWICE, SUM_ERRORS, SUM_UNDECIDED, SUM_STEPS, SUM_MS };
_Static_assert(SUM_TWICE == CLUSTER_RUN_TWICE, "");

const char *const cluster_run_counts[] = { "faults", "operations", "writes", "reads", "links", "gets", "locks", "cold chunks",
					   "made by two", "errors", "registers undecided", RUNNER_STEPS, RUNNER_MS, NULL };

void cluster_run_until(struct run *run, bool (*done)(void *arg), void *arg, uint64_t limit_us, const char *what)
{
	if (sim_run(run->world.sim, limit_us, done, arg))
		return;
	sim_print_trace(run->world.sim, stderr);
	fprintf(stderr, "in vain: %s\n", what);
	abort();
}

static void on_set(void *arg, enum err err, const ProtobufCMessage *reply)
{
	(void)reply;
	check(err == OK);
	*(bool *)arg = true;
}

static bool is_set(void *arg)
{
	return *(bool *)arg;
}

static void set(struct run *run, char *key, uint64_t value)
{
	Granary__SettingsRequest request = GRANARY__SETTINGS_REQUEST__INIT;
	const struct program *program = world_node(&run->world, NODE_CLIENT, 0)->program;
	bool done = false;
	request.key = key;
	request.value = value;
	client_call_leader(program->client, MESSAGE_SETTINGS, &request.base, on_set, &done);
	cluster_run_until(run, is_set, &done, START_US, "a setting");
}

static bool has_become_cold(void *arg)
{
	return ((struct run *)arg)->counts.cold >= 3;
}

struct run *cluster_run_begin(const struct cluster_run_options *options)
{
	struct run *run = mem_zero(1, sizeof *run);
	run->world = (struct world){ .clients = CLIENTS,
				     .break_per_million = options->break_per_million,
				     .late_per_million = options->late_per_million,
				     .chunkservers = options->chunkservers,
				     .racks = options->loses_one && !options->cools ? RACKS : 0,
				     .client_start = load_start,
				     .client_stop = load_stop,
				     .power_lost = load_power_lost,
				     .arg = run };
	run->never_sync = options->never_sync;
	run->loses_one = options->loses_one;
	run->cools = options->cools;
	run->history = history_open(REGISTERS);
	world_open(&run->world, options->seed);
	run->check = cluster_check_begin(&run->world);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_start(world_node(&run->world, NODE_CLIENT, i));
	if (options->loses_one && !options->cools)
		set(run, (char[]){ "copyset_width" }, 2); /* the least: even four servers are more than that */
	if (options->cools)
		set(run, (char[]){ "trash_seconds" }, 1); /* blobs and chunks are deleted while they are cold */
	load_make(run);
	cluster_run_until(run, load_is_made, run, START_US, "the tables are made");
	for (unsigned i = 0; i < CLIENTS; i++)
		load_go(world_node(&run->world, NODE_CLIENT, i)->program);
	if (options->cools)
		cluster_run_until(run, has_become_cold, run, START_US, "some chunks become cold");
	if (options->balances)
		run->operator = operator_begin(run);
	return run;
}

uint64_t cluster_run_work(const struct run *run)
{
	const struct counts *counts = &run->counts;
	return (uint64_t)counts->writes + counts->reads + counts->links + counts->removes + counts->gets;
}

static void check_history(const struct run *run, uint64_t *sum)
{
	struct history_report report;
	if (!history_check(run->history, &report, stderr)) {
		sim_print_trace(run->world.sim, stderr);
		abort();
	}
	sum[SUM_OPERATIONS] += report.operations;
	sum[SUM_UNDECIDED] += report.undecided;
}

static void add(const struct run *run, uint64_t *sum)
{
	const struct counts *counts = &run->counts;
	sum[SUM_FAULTS] += run->world.faults;
	sum[SUM_WRITES] += counts->writes;
	sum[SUM_READS] += counts->reads;
	sum[SUM_LINKS] += counts->links;
	sum[SUM_GETS] += counts->gets;
	sum[SUM_LOCKS] += counts->locks;
	sum[SUM_COLD] += counts->cold;
	sum[SUM_TWICE] += counts->twice;
	sum[SUM_ERRORS] += counts->errors;
	sum[SUM_STEPS] += sim_steps(run->world.sim);
	sum[SUM_MS] += sim_now_us(run->world.sim) / 1000;
}

void cluster_run_read_again(struct run *run, const char *what)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		load_check_again(world_node(&run->world, NODE_CLIENT, i)->program);
	cluster_run_until(run, load_is_checked, run, CALM_US, what);
}

/* For good: what is read afterwards is read from the new copies. */
static void lose_one(struct run *run)
{
	struct node *node = world_node(&run->world, NODE_CHUNKSERVER, (unsigned)rng_below(sim_rng(run->world.sim), world_chunkservers(&run->world)));
	sim_trace(run->world.sim, "%s is lost for good", node->name);
	node_stop(node, false);
	cluster_run_until(run, world_is_replicated, &run->world, CALM_US, "all copies after a chunkserver was lost");
	cluster_run_read_again(run, "everything can be read after a chunkserver was lost");
}

static bool is_converted(void *arg)
{
	return ((struct cold_actor *)arg)->converted;
}

void cluster_run_convert(struct run *run, bool warm)
{
	struct program *program = world_node(&run->world, NODE_CLIENT, 0)->program;
	sim_trace(run->world.sim, "all chunks become %s", warm ? "hot" : "cold");
	cold_convert(&program->cold, warm);
	cluster_run_until(run, is_converted, &program->cold, CALM_US, warm ? "all chunks are hot" : "all chunks are cold");
	cluster_check_end(run->check, &(struct cluster_check_want){ .may_be_damaged = run->may_lose }, CALM_US);
	cluster_run_read_again(run, warm ? "everything can be read when it is hot again" : "everything can be read when it is cold");
}

void cluster_run_rest(struct run *run)
{
	world_calm(&run->world);
	run->ending = true;
	run->ending_us = sim_now_us(run->world.sim);
	cluster_run_until(run, load_is_checked, run, CALM_US, "all work is done when nothing is broken any more");
}

uint64_t cluster_run_end(struct run *run, uint64_t *sum)
{
	cluster_run_rest(run);
	if (run->operator)
		operator_calm(run->operator);
	cluster_check_end(run->check, &(struct cluster_check_want){ .may_be_damaged = run->may_lose }, CALM_US);
	if (run->cools)
		cluster_run_convert(run, false);
	if (run->loses_one && !run->may_lose)
		lose_one(run);
	else if (run->operator && !run->may_lose)
		operator_end(run->operator);
	if (run->cools)
		cluster_run_convert(run, true);
	check_history(run, sum);
	add(run, sum);
	uint64_t digest = sim_trace_digest(run->world.sim) ^ sim_steps(run->world.sim) ^ (uint64_t)run->counts.reads << 32;
	world_close(&run->world);
	cluster_check_close(run->check);
	operator_close(run->operator);
	load_free(run);
	free(run);
	return digest;
}
