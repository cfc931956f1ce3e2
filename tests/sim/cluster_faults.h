/* What breaks a simulated cluster, at random: a storm is a choice of faults and how often they come. Each fault ends by itself after a
 * while, or with world_calm. */
#ifndef GRANARY_TESTS_SIM_CLUSTER_FAULTS_H
#define GRANARY_TESTS_SIM_CLUSTER_FAULTS_H

#include "tests/sim/cluster_world.h"

enum fault {
	FAULT_KILL,	    /* a process */
	FAULT_KILL_LEADER,
	FAULT_KILL_LATE,    /* a process, when much of what it has sent is still on its way */
	FAULT_POWER,	    /* of a host, now */
	FAULT_POWER_SOON,   /* of a host, within one of its next disk operations */
	FAULT_POWER_ALL,    /* of all masters, all chunkservers, or everything but clients */
	FAULT_PAUSE,	    /* a process */
	FAULT_PAUSE_LEADER,
	FAULT_CUT,	    /* between two hosts, one way or both */
	FAULT_ISOLATE,	    /* a host from all others of some kinds (masters, chunkservers, clients), in, out or both */
	FAULT_BRIDGE,	    /* the cluster in two parts that only one host can reach both of */
	FAULT_FLAP,	    /* a link comes and goes */
	FAULT_SLOW_LINK,    /* 1 Mbit/s, or a long delay */
	FAULT_SLOW_DISK,
	FAULT_STUCK_DISK,
	FAULT_FAILING_DISK, /* writes and syncs fail now and then; its process stops, or its store does */
	FAULT_FULL_DISK,
	FAULT_CLOCK_JUMP,   /* an hour either way, of several hosts */
	FAULT_CLOCK_RATE,   /* within what leases allow for */
	FAULTS
};

struct storm {
	const char *name;
	uint32_t faults; /* bits of enum fault */
	uint64_t pause_us_min, pause_us_max; /* between two faults */
	uint64_t lasts_us_max;
	bool masters_only, data_only; /* whom it hits (clients always, too) */
	bool unsynced_stays;	      /* no power cut of a chunkserver: nothing that was flushed is lost */
};

/* The storm of a seed. */
const struct storm *storm_of(uint64_t seed);
const struct storm *storm_named(const char *name);
/* From now on, until world->quiet. The storm outlives it. */
void storm_begin(struct world *world, const struct storm *storm);
/* One fault of the kind, to a node it fits; also for scenarios. lasts_us: until it is mended. */
void fault_do(struct world *world, enum fault fault, struct node *node, uint64_t lasts_us);

#endif
