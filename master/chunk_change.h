/* A change of a chunk's chain on its way through the log: servers are left out, join, become complete. Members are told of the result,
 * and learn it anyway from the next write. While a change that leaves a dead server out is under way that server gets no lease
 * (servers.h). Thread: the loop's. */
#ifndef GRANARY_MASTER_CHUNK_CHANGE_H
#define GRANARY_MASTER_CHUNK_CHANGE_H

#include "master/commands.h"
#include "master/garbage.h"
#include "master/replica.h"
#include "master/servers.h"

struct chunk_change_context {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct commands *commands;
	struct garbage *garbage;
};

struct chunk_change {
	uint64_t chunk, version; /* as it is now */
	uint64_t replicas[REPLICAS_MAX], dropped[REPLICAS_MAX];
	size_t replica_count, dropped_count;
	uint64_t join; /* the last of replicas is new; with `complete` it has everything: no member changes */
	bool complete;
	uint64_t moving_from; /* with join: whose place it takes; 0: nobody's */
	bool seal; /* only that: no member changes */
	/* err: of the log, or of the operation (ERR_STALE_VERSION: the chunk has another version by now). */
	void (*done)(void *arg, enum err err);
	void *arg;
};

/* The context outlives it; done comes later. */
void chunk_change_propose(const struct chunk_change_context *context, const struct chunk_change *change);
/* Its members hear where the chunk is; those that are not connected do when they come back. */
void chunk_configure(const struct chunk_change_context *context, uint64_t chunk);
/* Answers with the location of the chunk as it is now. */
void chunk_reply_location(const struct chunk_change_context *context, uint64_t chunk, struct rpc_request *request);

#endif
