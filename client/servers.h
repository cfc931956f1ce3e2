/* The chunkservers that this client has met: address, connection, how fast they answered. Shared by all locations; an
 * entry lives as long as the client. As many as the cluster has servers. */
#ifndef GRANARY_CLIENT_SERVERS_H
#define GRANARY_CLIENT_SERVERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/proto/message.h"
#include "common/sys/rpc.h"
#include <uthash.h>

struct server {
	uint64_t id;
	struct rpc_peer *peer;
	uint64_t latency_us;    /* of recent answers, moving average */
	/* Did not answer, or much later than another: asked last until then. When it is over one read tries it, and all others follow
	 * once that has been answered; else twice as long, up to SICK_MS_MAX. */
	uint64_t sick_until_ms;
	uint64_t sick_ms; /* how long it was for, 0: it is well */
	UT_hash_handle hh;
};

struct servers {
	struct rpc *rpc;
	struct server *table;
	uint32_t hedge_credit; /* in reads */
	struct coded_place *coded; /* coded_places.h */
};

void servers_deinit(struct servers *servers);
/* A server that has moved to another address is reached there from then on. */
struct server *servers_get(struct servers *servers, uint64_t id, const char *address);
void server_answered(struct server *server, uint64_t latency_us);
/* now_ms: of the loop. */
void server_failed(struct server *server, uint64_t now_ms);
/* It is asked now. */
void server_asked(struct server *server, uint64_t now_ms);
/* After so long without its answer another replica is asked as well. */
uint64_t server_hedge_ms(const struct server *server);
/* A read begins; a second replica is to be asked: false when that has been done too often lately: then all are slow, and asking
 * twice would make it worse. */
void servers_read_begins(struct servers *servers);
MUST_USE bool servers_may_hedge(struct servers *servers);

/* Where a chunk is, as the master gave it out with `version`. count 0: there is no such chunk (a hole), unless it is cold. */
struct location {
	uint64_t chunk, version;
	unsigned count;
	struct server *replicas[REPLICAS_MAX]; /* in chain order */
	bool written; /* it has content, as the master or we know: no copy anywhere is a loss */
	bool frozen;  /* it is not written; who wants to asks the master (place_warm) */
	bool cold;    /* in shards: coded_places.h */
	bool lossy;   /* cold, and writes that were not synced were lost before */
	bool joining; /* the last one's copy is being filled: it takes every write, and is not read */
};

static inline bool location_is_hole(const struct location *location)
{
	return location->count == 0 && !location->cold;
}

/* Replicas that are read: the first so many. */
static inline unsigned location_readable(const struct location *location)
{
	return location->count - (location->joining ? 1 : 0);
}

/* ERR_PROTOCOL: no replica that is read, or too many. */
MUST_USE enum err location_parse(struct servers *servers, const Granary__ChunkLocation *message, struct location *out);

/* The chain as it goes into a message; borrows from the location's servers. */
struct location_chain {
	Granary__Replica replicas[REPLICAS_MAX];
	Granary__Replica *pointers[REPLICAS_MAX];
	size_t count;
};
void location_chain(const struct location *location, struct location_chain *out);

/* The readable replicas in the order in which a read tries them: shuffled, each place drawn with probability about proportional to
 * 1 / latency, sick ones last. The same state of rng gives the same order while latencies stay about the same. */
void location_shuffle(const struct location *location, struct rng *rng, uint64_t now_ms,
		      struct server *out[REPLICAS_MAX]);

#endif
