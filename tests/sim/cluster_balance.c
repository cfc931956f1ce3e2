#include "tests/sim/cluster_balance.h"

#include <inttypes.h>
#include <stdlib.h>

#include "chunkserver/chunkserver.h"
#include "common/base/check.h"
#include "tests/sim/cluster_run.h"

#define PAUSE_US_MIN 20000u
#define PAUSE_US_MAX 400000u
#define ASK_US 100000u
#define LOOK_US 5000u
#define SETTLED_US 5000000u
#define DRAIN_US 60000000u
#define UNPLUGGED_US 3000000u /* longer than anything that is missed takes to be noticed */

struct operator {
	struct run *run;
	uint64_t servers[WORLD_CHUNKSERVERS_MAX]; /* ids; 0: not heard yet */
	/* The end. */
	unsigned drained;
	bool undrained, empty, watching;
};

static void ignore(void *arg, enum err err, const ProtobufCMessage *reply)
{
	(void)arg;
	(void)err;
	(void)reply;
}

/* Over any client that runs; what it says is only heard as long as it does. */
static void ask(struct operator *operator, enum message_type type, const ProtobufCMessage *message, client_reply_fn *done, void *arg)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct program *program = world_node(&operator->run->world, NODE_CLIENT, i)->program;
		if (!program || program->dead)
			continue;
		client_call_leader(program->client, type, message, done, arg);
		return;
	}
}

static void ask_drain(struct operator *operator, unsigned number, bool draining, client_reply_fn *done, void *arg)
{
	Granary__DrainRequest request = GRANARY__DRAIN_REQUEST__INIT;
	request.server = operator->servers[number];
	request.draining = draining;
	sim_trace(operator->run->world.sim, "operator: %s chunkserver %u", draining ? "drain" : "undrain", number + 1);
	ask(operator, MESSAGE_DRAIN, &request.base, done, arg);
}

static void ask_rebalance(struct operator *operator, bool begin)
{
	Granary__RebalanceRequest request = GRANARY__REBALANCE_REQUEST__INIT;
	request.begin = begin;
	request.end = !begin;
	request.target_percent = 1;
	ask(operator, MESSAGE_REBALANCE, &request.base, ignore, NULL);
}

static void learn(struct operator *operator)
{
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++) {
		const struct node *node = world_node(&operator->run->world, NODE_CHUNKSERVER, i);
		if (node->loop && node->chunkserver)
			operator->servers[i] = chunkserver_id(node->chunkserver);
	}
}

static void on_pause(void *arg)
{
	struct operator *operator = arg;
	struct world *world = &operator->run->world;
	struct rng *rng = sim_rng(world->sim);

	if (world->quiet)
		return;
	sim_after(world->sim, PAUSE_US_MIN + rng_below(rng, PAUSE_US_MAX - PAUSE_US_MIN), on_pause, operator);
	learn(operator);
	unsigned number = (unsigned)rng_below(rng, WORLD_CHUNKSERVERS);
	switch (rng_below(rng, 4)) {
	case 0:
	case 1:
		ask_drain(operator, number, true, ignore, NULL);
		break;
	case 2:
		ask_drain(operator, number, false, ignore, NULL);
		break;
	default:
		ask_rebalance(operator, rng_below(rng, 2) == 0);
		break;
	}
}

struct operator *operator_begin(struct run *run)
{
	struct operator *operator = mem_zero(1, sizeof *operator);
	operator->run = run;
	on_pause(operator);
	return operator;
}

void operator_close(struct operator *operator)
{
	free(operator);
}

/* ---- the end */

static void on_undrained(void *arg, enum err err, const ProtobufCMessage *reply)
{
	(void)reply;
	check(err == OK);
	((struct operator *)arg)->undrained = true;
}

static bool is_undrained(void *arg)
{
	return ((struct operator *)arg)->undrained;
}

static void on_drain(void *arg, enum err err, const ProtobufCMessage *reply)
{
	check(err == OK);
	((struct operator *)arg)->empty = ((const Granary__Drain *)reply)->empty;
}

static bool is_empty(void *arg)
{
	return ((struct operator *)arg)->empty;
}

static void on_ask(void *arg)
{
	struct operator *operator = arg;
	if (operator->empty)
		return;
	ask_drain(operator, operator->drained, true, on_drain, operator);
	sim_after(operator->run->world.sim, ASK_US, on_ask, operator);
}

/* Never fewer copies than before. */
static void on_look(void *arg)
{
	struct operator *operator = arg;
	if (!operator->watching)
		return;
	if (!world_has_all_copies(&operator->run->world)) {
		sim_print_trace(operator->run->world.sim, stderr);
		fprintf(stderr, "chunks lack copies while a chunkserver that is well is drained, or after it was\n");
		abort();
	}
	sim_after(operator->run->world.sim, LOOK_US, on_look, operator);
}

void operator_calm(struct operator *operator)
{
	learn(operator);
	for (unsigned i = 0; i < WORLD_CHUNKSERVERS; i++) {
		operator->undrained = false;
		ask_drain(operator, i, false, on_undrained, operator);
		cluster_run_until(operator->run, is_undrained, operator, DRAIN_US, "a server is used again");
	}
}

void operator_end(struct operator *operator)
{
	struct run *run = operator->run;
	struct world *world = &run->world;

	/* A chain that broke in a storm may still be found out by a server that tries again; and what was asked in it may have come since. */
	sim_run(world->sim, SETTLED_US, NULL, NULL);
	operator_calm(operator);
	cluster_check_end(run->check, &(struct cluster_check_want){ 0 }, DRAIN_US);
	operator->drained = (unsigned)rng_below(sim_rng(world->sim), WORLD_CHUNKSERVERS);
	operator->watching = true;
	on_look(operator);
	on_ask(operator);
	cluster_run_until(run, is_empty, operator, DRAIN_US, "a server is drained");
	cluster_check_end(run->check, &(struct cluster_check_want){ 0 }, DRAIN_US);
	struct node *node = world_node(world, NODE_CHUNKSERVER, operator->drained);
	sim_trace(world->sim, "%s is unplugged", node->name);
	node_stop(node, false);
	sim_run(world->sim, UNPLUGGED_US, NULL, NULL);
	operator->watching = false;
	for (unsigned i = 0; i < CLIENTS; i++)
		load_check_again(world_node(world, NODE_CLIENT, i)->program);
	cluster_run_until(run, load_is_checked, run, DRAIN_US, "everything can be read after a chunkserver was unplugged");
	sim_run(world->sim, 2 * LOOK_US, NULL, NULL); /* on_look is not called any more */
}
