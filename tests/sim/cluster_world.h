/* A simulated cluster: three masters, some chunkservers and some clients, each on a host of its own, all of them production code.
 * Starts and stops them. What breaks them: cluster_faults.h. */
#ifndef GRANARY_TESTS_SIM_CLUSTER_WORLD_H
#define GRANARY_TESTS_SIM_CLUSTER_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/rng.h"
#include "tests/sim/masters.h"

#define WORLD_MASTERS MASTERS
#define WORLD_CHUNKSERVERS 4u /* unless the test says otherwise */
#define WORLD_CHUNKSERVERS_MAX 7u
#define WORLD_CLIENTS_MAX 3u
#define WORLD_NODES_MAX (WORLD_MASTERS + WORLD_CHUNKSERVERS_MAX + WORLD_CLIENTS_MAX)
#define WORLD_MASTER_ADDRESSES "m1:7001,m2:7001,m3:7001"

enum node_kind { NODE_MASTER, NODE_CHUNKSERVER, NODE_CLIENT };

struct node {
	struct world *world;
	enum node_kind kind;
	unsigned number; /* from 0, of its kind */
	char name[16];	 /* "master1" */
	struct sim_host *host;
	struct loop *loop; /* NULL: it does not run */
	struct master *master;
	struct chunkserver *chunkserver;
	void *program; /* of a client: what start gave */
	bool faulty;   /* its disk may fail: it may stop by itself, and not start */
	bool held;     /* down until world_calm */
};

struct world {
	struct sim *sim;
	struct node nodes[WORLD_NODES_MAX];
	unsigned clients;	    /* of WORLD_CLIENTS_MAX */
	unsigned chunkservers;	    /* 0: WORLD_CHUNKSERVERS */
	unsigned racks;		    /* that they are in by turns; 0: none */
	uint32_t break_per_million; /* frames that break their connection; 0: few */
	uint32_t late_per_million;  /* connections of killed processes whose messages arrive late */
	bool quiet;		    /* no more faults */
	unsigned faults, starts;
	/* Clients are the test's: started on a fresh loop; stopped when it is dead or no longer needed. */
	void *(*client_start)(struct world *world, unsigned number, struct loop *loop);
	void (*client_stop)(void *program);
	/* A chunkserver's host loses what was not synced. Or NULL. */
	void (*power_lost)(struct world *world, unsigned chunkserver);
	void *arg;
};

/* All masters and chunkservers run; clients are started one by one. */
void world_open(struct world *world, uint64_t seed);
void world_close(struct world *world);
struct node *world_node(struct world *world, enum node_kind kind, unsigned number);
unsigned world_node_count(const struct world *world);
unsigned world_chunkservers(const struct world *world);
struct node *world_node_of_host(struct world *world, const struct sim_host *host);
void node_start(struct node *node);
/* kill -9, or a power cut of its host. */
void node_stop(struct node *node, bool power);
/* Of a master; NULL: it does not run, or does not take part yet. */
struct replica *node_replica(const struct node *node);
/* The master that leads, if it runs and knows; or NULL. */
struct node *world_leader(struct world *world);
/* The ends of faults, for sim_after: of a stop or a pause, of a node; of all cuts, of the world. */
void world_on_restart(void *node);
void world_on_resume(void *node);
void world_on_heal(void *world);
/* All is repaired, and stays so. */
void world_calm(struct world *world);

/* The leader's word: every chunk has all of its copies, complete, and none on the host that is down; or it is cold and has all of its shards.
 * For sim_run. */
bool world_has_all_copies(void *world);
/* And none is on its way from one to the other, or to another server. */
bool world_is_replicated(void *world);

#endif
