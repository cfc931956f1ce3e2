/* Three masters of production code, each on a simulated host of its own: started, stopped, broken. */
#ifndef GRANARY_TESTS_SIM_MASTERS_H
#define GRANARY_TESTS_SIM_MASTERS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/rpc.h"
#include "master/master.h"
#include "tests/sim/sys/sim.h"

#define MASTERS 3u

extern const char *const master_addresses[MASTERS];

struct member {
	struct sim *sim;
	struct sim_host *host;
	struct loop *loop;     /* NULL: down */
	struct master *master; /* NULL: down */
	unsigned id;	       /* 1..MASTERS */
	unsigned starts;
	bool may_fail; /* its database is damaged: it may find out and stop, and is started again */
};

/* The master `id` on a fresh loop of its host. `arg` goes to `failed`. NULL: it does not start, as the trace then says. */
struct master *master_try(struct loop *loop, unsigned id, void (*failed)(void *arg, enum err err), void *arg);
/* It must start. */
struct master *master_on(struct loop *loop, unsigned id, void (*failed)(void *arg, enum err err), void *arg);

/* Makes the hosts m1.. and starts all. A store that fails ends the program. */
void masters_open(struct member members[MASTERS], struct sim *sim);
void masters_stop(struct member members[MASTERS]);
/* kill -9, or a power cut of its host; nothing when it is down. */
void member_stop(struct member *member, bool power);
/* For sim_after: a struct member *. They do nothing where there is nothing to do. */
void member_restart(void *member);
void member_resume(void *member);
/* Whom to ask after this answer of member `asked`: the one that it names as leader, or the next. */
unsigned leader_after(unsigned asked, const struct rpc_result *result);

/* All of them are voters that have caught up, with databases of their own. NULL: one that does not run. */
bool masters_are_whole(struct replica *const replicas[MASTERS]);

#endif
