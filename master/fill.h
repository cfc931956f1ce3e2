/* What the leader chooses for a request before it goes into the log: new ids and where replicas go. Apply is deterministic. */
#ifndef GRANARY_MASTER_FILL_H
#define GRANARY_MASTER_FILL_H

#include "common/base/rng.h"
#include "common/base/snowflake.h"
#include "common/proto/message.h"
#include "master/replica.h"
#include "master/servers.h"

struct fill {
	struct snowflake snowflake;
	struct rng rng;
	struct servers *servers;
	uint64_t wait_until_ms; /* after an election: servers may still be on their way back */
	struct placement_candidate *candidates;
	/* For the placement; by fill_for. */
	uint64_t copyset_seed;
	unsigned copyset_width;
	/* How many copies the chunk or pack of the request's operation `at` is to have, by its storage class. Set by the owner. */
	unsigned (*copies)(void *arg, const Granary__MetaRequest *request, size_t at);
	void *copies_arg;
};

void fill_init(struct fill *fill, uint32_t worker, uint64_t seed, struct servers *servers);
void fill_deinit(struct fill *fill);
uint64_t fill_id(struct fill *fill, uint64_t time_ms);
/* The first of SNOWFLAKE_BLOCK ids in a row, for a client. */
uint64_t fill_ids(struct fill *fill, uint64_t time_ms);
/* The millisecond (since 1970) of the newest id: may be ahead of what was asked for. */
uint64_t fill_time_ms(const struct fill *fill);
/* Overwrites whatever the client had put in these fields, but an id for a Create (the state
 * machine checks that it is free). time_ms: replica_time_ms. An allocation that cannot be placed gets no
 * replicas, which the state machine answers with ERR_NO_SERVERS unless it needs none; *full then says that
 * ERR_NO_SPACE is meant. ERR_WOULD_BLOCK: too few servers are back since the election, ask again soon. */
MUST_USE enum err fill_request(struct fill *fill, uint64_t now_ms, uint64_t time_ms, Granary__MetaRequest *request, bool *full);
/* The same for a request that the replica is about to propose: by its settings and its time, which moves on. */
MUST_USE enum err fill_for(struct fill *fill, struct replica *replica, uint64_t now_ms, Granary__MetaRequest *request, bool *full);

#endif
