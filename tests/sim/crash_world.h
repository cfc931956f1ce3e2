/* A small simulated cluster that loses all of its power at once: one master and one chunkserver, or three of each. Clients use granary.h on a
 * host of their own; its blocking calls run the simulation. */
#ifndef GRANARY_TESTS_SIM_CRASH_WORLD_H
#define GRANARY_TESTS_SIM_CRASH_WORLD_H

#include "client/public.h"
#include "master/master.h"
#include "tests/sim/sys/sim.h"

#define CRASH_NODES_MAX 6u

struct crash_node {
	struct sim_host *host;
	struct loop *loop; /* NULL: it does not run */
	struct master *master;
	struct chunkserver *chunkserver;
};

struct crash_world {
	struct sim *sim;
	unsigned of_each; /* masters, and chunkservers */
	struct crash_node nodes[CRASH_NODES_MAX];
	struct sim_host *client_host;
	char what[160]; /* is being done: how to see it again */
	bool tells; /* a failure prints the trace */
	bool dark;  /* the power was cut, and nobody has started anything since */
};

void crash_world_open(struct crash_world *world, uint64_t seed, unsigned of_each);
void crash_world_close(struct crash_world *world);
/* May be called from within an event of any process. Clients keep theirs; nobody answers them. */
void crash_world_cut(struct crash_world *world);
/* What is left of the processes goes, and all start. */
void crash_world_start(struct crash_world *world);
/* Connects, as soon as the cluster answers. */
struct granary_cluster *crash_world_connect(struct crash_world *world, uint32_t timeout_ms);
/* The leader's answer, copied; freed with message_free. It must come. */
ProtobufCMessage *crash_world_ask(struct granary_cluster *client, enum message_type type, const ProtobufCMessage *message);
/* Prints what it is about, and ends the process. */
_Noreturn void crash_world_fail(struct crash_world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
