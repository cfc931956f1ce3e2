/* Whether the shards of a cold chunk are all on their servers' disks, whole, and code the same: for cluster_check's end. */
#ifndef GRANARY_TESTS_SIM_CLUSTER_SHARDS_H
#define GRANARY_TESTS_SIM_CLUSTER_SHARDS_H

#include "master/meta/meta.h"
#include "tests/sim/cluster_world.h"

/* slot: that has to be among them, of a pack; or 0. False: `why` says what is not as it should be. */
bool cluster_shards_look(struct world *world, struct meta *meta, const Granary__Chunk *chunk, uint32_t slot, char *why, size_t why_bytes);

#endif
