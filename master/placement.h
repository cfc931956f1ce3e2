/* Where the replicas of a chunk go, or the shards of a cold one. Pure: candidates and a generator in, server ids in random order out.
 *
 * Servers are chosen one after another, each from those that share the least failure domains with the ones chosen before: first as few
 * as possible in the same domain of the broadest level, then of the next, at last on the same host. Among equals it is drawn with
 * probability proportional to the free space above the reserve, but not to more than PLACEMENT_WEIGHT_TIMES_MAX times the mean (a
 * new, empty server would get all writes), halved for each time that its load is twice what is usual. The order is shuffled (Fisher and
 * Yates; Durstenfeld 1964), so that a large server is not always the head.
 *
 * A bound for shards: not more than `per_domain_max` in one domain (those that may be lost), at the broadest level at which that can
 * be had; it then holds for all levels below, too.
 *
 * Copysets (Cidon et al., "Copysets: Reducing the Frequency of Data Loss in Cloud Storage", ATC'13): when many servers fail at once, what
 * counts is in how many different sets the chunks are. So sets are few: all servers are put on some rings, in an order that follows
 * from their ids and the cluster's, and the set of a server on a ring is itself and its next neighbours there that share the least. A ring
 * gives as many sets as there are servers, each in as many of them as a set has members, and 2 * (members - 1) others that it
 * shares chunks with; there are as many rings as the wanted scatter width takes. The servers of a domain stand at even distances, so that
 * they are all in about as many sets. Nothing is kept: a new server changes some of the sets with servers of its domain, and one that goes
 * those that it was in. A set is drawn by its member with the least weight. Where no set is whole, anything is chosen as
 * above; so it is where the width is not less than the number of the others. */
#ifndef GRANARY_MASTER_PLACEMENT_H
#define GRANARY_MASTER_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"
#include "common/base/rng.h"

struct placement_candidate {
	uint64_t server;
	const char *location; /* common/base/location.h; borrowed, likewise below */
	const char *host;     /* the narrowest failure domain */
	uint64_t bytes_free;
	uint64_t load; /* operations under way */
	bool usable;   /* connected and its store in service */
	bool expected; /* or not away for long */
	bool busy;     /* a copy is not to be made there just now (placement_extend) */
};

struct placement_pool {
	const struct placement_candidate *candidates;
	size_t count;
	uint64_t bytes_reserved; /* a server with no more than this free is full */
	uint64_t copyset_seed;
	unsigned copyset_width; /* 0: no copysets */
};

struct placement_wish {
	unsigned count;		 /* 1..SHARDS_MAX */
	unsigned per_domain_max; /* 0: no bound */
	bool whole;		 /* fewer are none */
};

struct placement {
	uint64_t servers[SHARDS_MAX];
	size_t count;
	bool spread; /* the bound holds at every level that has two domains or more */
};

/* Unless `whole` is wanted, fewer are chosen when there are not enough servers; two are the least, or one when only one is known at all.
 * ERR_NO_SPACE: there are enough usable servers, but they are full. ERR_NO_SERVERS. Then out->count is 0. */
MUST_USE enum err placement_choose(const struct placement_pool *pool, const struct placement_wish *wish, struct rng *rng,
				   struct placement *out);

/* One server more for a chunk that has some. */
struct placement_extension {
	const uint64_t *members;
	size_t member_count;	 /* up to SHARDS_MAX - 1 */
	struct placement_wish wish; /* of the chunk as a whole */
	bool urgent; /* now, by whoever has time; else, with copysets, it waits for the one or other that all chunks of these members go to */
};
/* 0: there is none with room and time. The candidates' `usable` says also whether the caller wants it. */
uint64_t placement_extend(const struct placement_pool *pool, const struct placement_extension *extension, struct rng *rng);

/* On how many hosts there is a usable server with room: so many shards can be placed with none beside another; up to SHARDS_MAX. */
size_t placement_hosts(const struct placement_pool *pool);

/* `after` has as many members as `before`, and at no level do more of them share a domain, nor more pairs of them: it may be moved. */
bool placement_keeps_spread(const struct placement_pool *pool, const struct placement *before, const struct placement *after);

#endif
