/* Makes chunks cold and hot, and lost shards anew: sees to it that what master/meta/cold.h allows is done.
 *
 *   cool     due, or asked for -> CoolBegin -> the head makes and proves the shards -> CoolCommit
 *   warm     a writer, or asked for -> WarmBegin -> a server makes the copies -> WarmCommit -> thaw
 *   thaw     until nobody serves what was before -> ChunkThaw -> who waits may write
 *   rebuild  a shard's server is gone -> ShardRebuild 1 -> another makes it -> ShardRebuild 2
 *
 * A job is for one chunk, and a chunk has one at a time. What is under way is in the chunks themselves; a new leader finds it in its pass
 * over all chunks and goes on, or asks the servers again. Whatever fails is undone, and tried again later. Who writes goes first: a chunk that is
 * being cooled is given back at once. Thread: the loop's. */
#ifndef GRANARY_MASTER_COOLING_H
#define GRANARY_MASTER_COOLING_H

#include "master/chunk_change.h"
#include "master/cold_policy.h"
#include "master/fill.h"
#include "master/repair.h"

struct cooling;

struct cooling_options {
	const struct chunk_change_context *context; /* outlives it */
	struct fill *fill;
	struct repair *repair;
};

struct cooling *cooling_open(const struct cooling_options *options);
/* After replica_close. */
void cooling_close(struct cooling *cooling);
void cooling_leading(struct cooling *cooling);
void cooling_deposed(struct cooling *cooling);
/* MESSAGE_COLD_DONE, MESSAGE_CHUNK_WARM, MESSAGE_COOL. */
void cooling_serve(struct cooling *cooling, struct rpc_request *request);
/* The chunk has not been written for as long as its class says. True: it needs no more to be told. Else *again_ns, or 0. */
bool cooling_due(void *cooling, uint64_t chunk, uint64_t *again_ns);
/* A shard is made anew on another server and then counts there; it is read where it was until then. Only if all of its set are there.
 * ERR_BUSY: not now; ERR_UNREACHABLE: not all are there; ERR_NO_SERVERS: nobody may take it. */
struct shard_move {
	uint64_t shard;
	bool empties; /* its server is to be empty: if too few others are left for the profile that was chosen, the chunk gets another */
	bool (*may_take)(void *arg, uint64_t server);
	void *arg;
};
MUST_USE enum err cooling_move_shard(struct cooling *cooling, const Granary__Chunk *shard, const struct shard_move *move, uint64_t *to);
/* A server makes something for this chunk, or (likewise) this server makes something. */
bool cooling_is_at(const struct cooling *cooling, uint64_t chunk);
bool cooling_has_task(const struct cooling *cooling, uint64_t server);
/* Its server says that it has no good copy of this shard, or who has looked at all of the set that it is not what it should be. */
void cooling_shard_lost(struct cooling *cooling, uint64_t shard);
/* For status: what is known of the chunk's shards. */
void cooling_judge(struct cooling *cooling, const Granary__Chunk *chunk, struct cold_verdict *out);

#endif
