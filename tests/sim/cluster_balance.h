/* An operator of the simulated cluster: drains chunkservers, takes them back, and begins and ends rebalancings, at random, while everything
 * else goes on. When all is well again one is drained to its end: no chunk has fewer copies at any time, no file is left on it, and it is
 * unplugged without anything being missed. */
#ifndef GRANARY_TESTS_SIM_CLUSTER_BALANCE_H
#define GRANARY_TESTS_SIM_CLUSTER_BALANCE_H

#include "tests/sim/cluster_load.h"

struct operator;

/* From now on, until the world is quiet. */
struct operator *operator_begin(struct run *run);
/* When the world is: all servers are used again. */
void operator_calm(struct operator *operator);
/* When cluster_check_end has found that all is well. */
void operator_end(struct operator *operator);
void operator_close(struct operator *operator);

#endif
