/* Directory delegations and deferred changes of names: clients make, remove, rename and look up names in a few directories, by themselves
 * where those are delegated to them, while masters are killed, lose power, stand still or are cut off, and clients stand still or
 * are cut off from a master.
 *
 * Checked:
 *   - what a client was told is done, by the master or by the client library itself, is seen by everything that any client begins
 *     afterwards, and what was removed does not come back: all answers together are linearizable (names_model.h);
 *   - no deferred change fails, unless its client stood still, was cut off or was killed while it was on its way;
 *   - nobody sees a file in part once it was closed;
 *   - when the faults end all is done in a bounded time, all masters hold equal state, and all clients see the same tree.
 *
 *	sim_names [SEED [COUNT]] ...	see runner.h */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "master/meta/meta.h"
#include "master/replica.h"
#include "tests/sim/names_client.h"
#include "tests/sim/runner.h"

#define FAULTS_US 20000000u
#define CALM_US 90000000u
/* A client that stands still, or cannot reach a master, for no longer than this loses nothing by it. */
#define HARMLESS_US 100000u
/* When a cut is over its client may still wait for an answer of before. */
#define AFTER_CUT_US 1500000u
#define WATCH_US 1000000u
#define STOPPED_US (SESSION_TIMEOUT_MS * 1000u + 4000000u)
#define GONE_US 5000000u /* after so long nothing of a client that was killed is under way */
#define SEEDS 60u

struct run {
	struct world world;
	struct history history;
	bool dangers; /* clients stand still for long, too */
	struct node *stopped; /* the client that stands still for longer than its session lasts */
	bool watches; /* when something breaks clients look at what others do */
};

/* ---- faults ---- */

static struct rng *rng(const struct run *run)
{
	return sim_rng(run->world.sim);
}

static void on_safe(void *arg)
{
	struct node *node = arg;
	names_client_danger(node->world->arg, node->number, node->program, false);
}

static void on_resume_in_danger(void *arg)
{
	world_on_resume(arg);
	on_safe(arg);
}

static struct node *any_master(struct run *run)
{
	struct node *node = world_node(&run->world, NODE_MASTER, (unsigned)rng_below(rng(run), WORLD_MASTERS));
	bool leader_wanted = run->watches || rng_below(rng(run), 2) == 0;
	for (unsigned i = 0; leader_wanted && i < WORLD_MASTERS; i++) {
		struct node *leader = world_node(&run->world, NODE_MASTER, i);
		struct replica *replica = node_replica(leader);
		if (replica && replica_is_leading(replica))
			return leader;
	}
	return node;
}

static void stop_for_a_while(struct run *run, struct node *node, bool power)
{
	sim_trace(run->world.sim, "fault: %s of master %u", power ? "power cut" : "kill", node->number + 1);
	node_stop(node, power);
	sim_after(run->world.sim, 50000 + rng_below(rng(run), 2500000), world_on_restart, node);
}

static void pause_master(struct run *run, struct node *node)
{
	if (!node->loop)
		return;
	sim_trace(run->world.sim, "fault: pause of master %u", node->number + 1);
	sim_process_pause(node->loop, true);
	sim_after(run->world.sim, 50000 + rng_below(rng(run), 3000000), world_on_resume, node);
}

/* From the other masters, or (all) from everybody; in one direction, or both. */
static void isolate(struct run *run, struct node *node, bool all)
{
	uint64_t directions = 1 + rng_below(rng(run), 3);
	sim_trace(run->world.sim, "fault: master %u is cut off%s, directions %u", node->number + 1, all ? " from all" : "", (unsigned)directions);
	for (unsigned kind = NODE_MASTER; kind <= NODE_CLIENT; kind++) {
		unsigned count = kind == NODE_MASTER ? WORLD_MASTERS : kind == NODE_CLIENT ? NAMES_CLIENTS : 0;
		for (unsigned i = 0; i < count && (all || kind == NODE_MASTER); i++) {
			struct node *other = world_node(&run->world, kind, i);
			if (other == node)
				continue;
			if (directions & 1)
				sim_cut(run->world.sim, node->host, other->host, true);
			if (directions & 2)
				sim_cut(run->world.sim, other->host, node->host, true);
		}
	}
	sim_after(run->world.sim, 50000 + rng_below(rng(run), 3000000), world_on_heal, &run->world);
}

static void pause_client(struct run *run, struct node *node)
{
	bool danger = run->dangers && rng_below(rng(run), 2) == 0;
	uint64_t us = rng_below(rng(run), danger ? 3500000 : HARMLESS_US);
	if (node == run->stopped || !node->loop)
		return;
	sim_trace(run->world.sim, "fault: pause of client %u for %" PRIu64 " us", node->number + 1, us);
	sim_process_pause(node->loop, true);
	if (danger)
		names_client_danger(&run->history, node->number, node->program, true);
	sim_after(run->world.sim, us, danger ? on_resume_in_danger : world_on_resume, node);
}

static void on_session_over(void *arg)
{
	struct run *run = arg;
	on_resume_in_danger(run->stopped);
	run->stopped = NULL;
}

static void stop_client(void *arg)
{
	struct run *run = arg;
	run->stopped = world_node(&run->world, NODE_CLIENT, 0);
	sim_trace(run->world.sim, "fault: client 1 stands still until its session is over");
	sim_process_pause(run->stopped->loop, true);
	names_client_danger(&run->history, 0, run->stopped->program, true);
	sim_after(run->world.sim, STOPPED_US, on_session_over, run);
}

/* While it has changes on their way. */
static void stop_client_soon(void *arg)
{
	struct run *run = arg;
	stop_for_a_while(run, any_master(run), false);
	sim_after(run->world.sim, rng_below(rng(run), 400000), stop_client, run);
}

static void on_client_restart(void *arg)
{
	struct node *node = arg;
	names_ghosts_settled(node->world->arg);
	node_start(node);
	names_client_begin(node->program);
}

static void kill_client(void *arg)
{
	struct run *run = arg;
	struct node *node = world_node(&run->world, NODE_CLIENT, (unsigned)rng_below(rng(run), NAMES_CLIENTS));
	sim_trace(run->world.sim, "fault: kill of client %u", node->number + 1);
	names_client_dies(node->program);
	node_stop(node, false);
	sim_after(run->world.sim, GONE_US, on_client_restart, node);
}

static void cut_client(struct run *run, struct node *client, struct node *master)
{
	bool danger = run->dangers && rng_below(rng(run), 2) == 0;
	uint64_t us = rng_below(rng(run), danger ? 3000000 : HARMLESS_US);
	sim_trace(run->world.sim, "fault: client %u is cut off from master %u for %" PRIu64 " us", client->number + 1, master->number + 1, us);
	if (danger) {
		names_client_danger(&run->history, client->number, client->program, true);
		sim_after(run->world.sim, us + AFTER_CUT_US, on_safe, client);
	}
	sim_cut(run->world.sim, client->host, master->host, true);
	if (rng_below(rng(run), 2) == 0)
		sim_cut(run->world.sim, master->host, client->host, true);
	sim_after(run->world.sim, us, world_on_heal, &run->world);
}

static void on_fault(void *arg)
{
	struct run *run = arg;
	struct node *master, *client;
	if (run->world.quiet)
		return;
	master = any_master(run);
	client = world_node(&run->world, NODE_CLIENT, (unsigned)rng_below(rng(run), NAMES_CLIENTS));
	if (run->stopped) { /* a new leader would begin to count anew */
		sim_after(run->world.sim, 1000000, on_fault, run);
		return;
	}
	run->world.faults++;
	run->history.watch_from_us = sim_now_us(run->world.sim) + 400000;
	run->history.watch_until_us = run->history.watch_from_us + (run->watches ? WATCH_US : 0);
	switch (rng_below(rng(run), 8)) {
	case 0:
		stop_for_a_while(run, master, false);
		break;
	case 1:
	case 2:
		stop_for_a_while(run, master, true);
		break;
	case 3:
		pause_master(run, master);
		break;
	case 4:
		isolate(run, master, false);
		break;
	case 5:
		isolate(run, master, true);
		break;
	case 6:
		pause_client(run, client);
		break;
	default:
		cut_client(run, client, master);
		break;
	}
	sim_after(run->world.sim, 300000 + rng_below(rng(run), run->watches ? 6000000 : 2500000), on_fault, run);
}

/* ---- the run ---- */

static struct program *program_of(struct run *run, unsigned i)
{
	return world_node(&run->world, NODE_CLIENT, i)->program;
}

static bool is_made(void *arg)
{
	return ((struct run *)arg)->history.made;
}

static bool all_have_looked(void *arg)
{
	for (unsigned i = 0; i < NAMES_CLIENTS; i++) {
		struct program *program = program_of(arg, i);
		if (!names_client_is_settled(program) || !names_client_has_looked(program))
			return false;
	}
	return true;
}

static bool all_applied(void *arg)
{
	struct run *run = arg;
	uint64_t applied = 0;
	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		struct raft_view view;
		replica_view(master_replica(world_node(&run->world, NODE_MASTER, i)->master), &view);
		if ((i > 0 && view.applied != applied) || view.applied != view.last)
			return false;
		applied = view.applied;
	}
	return true;
}

static void run_until(struct run *run, bool (*done)(void *arg), const char *what)
{
	if (sim_run(run->world.sim, CALM_US, done, run))
		return;
	sim_print_trace(run->world.sim, stderr);
	fprintf(stderr, "in vain: %s\n", what);
	abort();
}

static void check_end(struct run *run, uint32_t *states_max)
{
	uint32_t digests[WORLD_MASTERS];
	for (unsigned i = 0; i < WORLD_MASTERS; i++) {
		struct meta *meta = replica_meta(master_replica(world_node(&run->world, NODE_MASTER, i)->master));
		check(meta_digest(meta, &digests[i]) == OK);
		check(digests[i] == digests[0]);
	}
	check(model_check(run->history.model, states_max, stderr));
}

static void add(uint64_t *sum, const struct run *run, uint32_t states_max)
{
	const struct history *history = &run->history;
	uint64_t weak = 0;
	for (uint32_t i = 0; i < model_count(history->model); i++)
		weak += model_record(history->model, i)->weak;
	const uint64_t seen[] = { model_count(history->model), history->deferred, history->files, weak, history->plain, history->queries, history->local_answers, history->unknown, history->recalls, run->world.faults, history->lost, states_max,
				  sim_steps(run->world.sim), sim_now_us(run->world.sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
}

static void history_free(struct history *history)
{
	struct known_inode *known, *next;
	HASH_ITER (hh, history->inodes, known, next) {
		HASH_DEL(history->inodes, known);
		free(known);
	}
	model_close(history->model);
}

static uint64_t run_seed(uint64_t seed, uint64_t *sum)
{
	static const unsigned visits[] = { 60, 600, 2500 };
	struct run *run = mem_zero(1, sizeof *run);
	uint32_t states_max = 0;
	run->world = (struct world){ .clients = NAMES_CLIENTS,
				     .break_per_million = 200,
				     .client_start = names_client_start,
				     .client_stop = names_client_stop,
				     .arg = &run->history };
	run->history.model = model_open();
	run->dangers = seed % 2 == 0;
	run->watches = seed / 2 % 2 == 0;
	run->history.visits = visits[run->watches ? 2 : seed % 3];
	world_open(&run->world, seed);
	for (unsigned i = 0; i < NAMES_CLIENTS; i++)
		node_start(world_node(&run->world, NODE_CLIENT, i));
	sim_run(run->world.sim, 2000000, NULL, NULL);
	names_client_make_shared(program_of(run, 0));
	run_until(run, is_made, "shared directories");
	for (unsigned i = 0; i < NAMES_CLIENTS; i++)
		names_client_begin(program_of(run, i));
	sim_after(run->world.sim, 1500000, on_fault, run);
	if (seed % 15 == 6)
		sim_after(run->world.sim, 4000000 + rng_below(rng(run), 2000000), stop_client_soon, run);
	if (seed % 5 == 3)
		sim_after(run->world.sim, 4000000 + rng_below(rng(run), 8000000), kill_client, run);
	sim_run(run->world.sim, seed % 15 == 6 ? FAULTS_US + STOPPED_US / 2 : FAULTS_US, NULL, NULL);
	world_calm(&run->world);
	sim_run(run->world.sim, 2000000, NULL, NULL);
	run->history.ending = true;
	run_until(run, all_have_looked, "everything is known to the master");
	run_until(run, all_applied, "all masters have applied everything");
	check_end(run, &states_max);
	add(sum, run, states_max);
	uint64_t digest = sim_trace_digest(run->world.sim) ^ run->history.deferred ^ (uint64_t)run->history.queries << 32 ^ sim_steps(run->world.sim);
	world_close(&run->world);
	history_free(&run->history);
	free(run);
	return digest;
}

static const char *const counts[] = { "operations", "deferred", "files", "that may have been lost", "requests", "queries",
				      "answered locally", "unknown", "recalls", "faults", "sessions lost", "states at most", RUNNER_STEPS,
				      RUNNER_MS, NULL };
static const uint64_t least[] = { 0, 1001, 501, 0, 1001, 0, 0, 0, 501, 101, 0, 0, 0, 0 };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_names", .standard = SEEDS, .run = run_seed, .counts = counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
