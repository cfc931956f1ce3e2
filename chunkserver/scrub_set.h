/* For the scrub, at the end of the first parity shard of a cold chunk: whether all shards of its set are what they should be (verify_op.c).
 *
 *   locate -> verify -> (some are wrong: the master is told, and makes them anew) -> until it has: locate -> verify -> end
 *
 * The server of the first parity shard looks, so that each set is looked at once in a pass of all. Where a set is says the master. What
 * cannot be read now is left for the next scrub. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_SCRUB_SET_H
#define GRANARY_CHUNKSERVER_SCRUB_SET_H

#include "chunkserver/cold_task.h"

/* Shards: `wrong`, and of those `repaired` so far. */
typedef void scrub_set_fn(void *arg, unsigned wrong, unsigned repaired);

struct scrub_set {
	struct service *service;
	uint64_t shard, owner; /* ours; the cold chunk */
	unsigned place;
	rpc_call_id call;
	struct cold_task *task;
	struct timer timer;
	uint64_t until_ms, wait_ms;
	unsigned wrong;
	uint64_t versions; /* of all shards together; they grow with each that is made anew */
	Granary__ChunkLocation *location;
	scrub_set_fn *done;
	void *arg;
};

void scrub_set_init(struct scrub_set *set, struct service *service, scrub_set_fn *done, void *arg);
/* `first`: the first block of the chunk. False: it is not such a shard. It waits at most so long for what is made anew. Never calls done from
 * within. */
bool scrub_set_begin(struct scrub_set *set, uint64_t shard, struct slice first, uint64_t wait_ms);
/* No `done` follows. False: nothing is under way. */
bool scrub_set_stop(struct scrub_set *set);

#endif
