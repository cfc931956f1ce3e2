/* What must hold in a cluster of sim_cluster, as it is seen from outside: in the masters' memory and on the chunkservers' disks.
 *
 * All along (cluster_check_begin, then every few milliseconds): one leader a term; two masters that have applied the same index hold equal states;
 * a term in which a master led, and what it applied, never runs backwards; versions of chunks on the disks never go down; no master counts on
 * what a chunkserver is still making: a cold chunk, a hot one, a shard.
 *
 * When it is quiet (cluster_check_end): every chunk has all its copies, complete (world_is_replicated); all masters hold the same; each
 * replica of a chunk is on its server's disk, at the version the masters know, byte for byte like the others, checksums too; packs hold
 * the same blobs, all that inodes refer to; no chunkserver has a file of a chunk that it is no member of. */
#ifndef GRANARY_TESTS_SIM_CLUSTER_CHECK_H
#define GRANARY_TESTS_SIM_CLUSTER_CHECK_H

#include "tests/sim/cluster_world.h"

struct cluster_check;

struct cluster_check *cluster_check_begin(struct world *world);
void cluster_check_close(struct cluster_check *check);
/* The master's disk is replaced by an empty one: it knows of no terms. */
void cluster_check_empty_disk(struct cluster_check *check, const struct node *master);
/* The masters are of another past for a while, and have empty copies made in its versions: only the end is looked at. */
void cluster_check_end_looks(struct cluster_check *check);

struct cluster_check_want {
	/* Unsynced data was lost in power cuts: of copies nothing is asked. (One that was new and not synced has no header then, and is
	 * neither replaced nor removed yet.) */
	bool may_be_damaged;
};
/* Steps the simulation until all of it holds; ends the program, saying what does not, when it does not within limit_us. */
void cluster_check_end(struct cluster_check *check, const struct cluster_check_want *want, uint64_t limit_us);

#endif
