/* Where the replicas of a new chunk go. Pure: candidates and a generator in, server ids in chain order out.
 *
 * Servers are drawn without replacement with probability proportional to their free space above the reserve, first
 * only from failure domains (host labels) that hold no replica yet, then, when there are fewer domains than copies,
 * from the rest. The order of the chain is then shuffled (Fisher and Yates; Durstenfeld 1964), so that a large server is
 * not always the head. */
#ifndef GRANARY_MASTER_PLACEMENT_H
#define GRANARY_MASTER_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/rng.h"

struct placement_candidate {
	uint64_t server;
	const char *host; /* failure domain label, borrowed */
	uint64_t bytes_free;
	bool usable; /* connected and its store in service */
};

struct placement_wish {
	unsigned copies;      /* 1..REPLICAS_MAX */
	uint64_t bytes_reserved; /* a server with no more than this free is full */
};

/* out holds `copies` ids. *out_count is less than wish->copies when there are not enough servers; two are the least, or one
 * when only one is known at all. ERR_NO_SPACE: there are enough usable servers, but they are full. ERR_NO_SERVERS. */
MUST_USE enum err placement_choose(const struct placement_wish *wish, const struct placement_candidate *candidates,
				   size_t count, struct rng *rng, uint64_t *out, size_t *out_count);

/* One server more for a chunk that has some. The candidates' `usable` says also whether the caller wants it. 0: there is none with room:
 * of a failure domain of its own if there is one with room, else of any. */
struct placement_extension {
	const struct placement_candidate *candidates;
	size_t count;
	const uint64_t *members;
	size_t member_count;	 /* up to REPLICAS_MAX - 1 */
	uint64_t bytes_reserved; /* a server with no more than this free is full */
};
uint64_t placement_extend(const struct placement_extension *extension, struct rng *rng);

#endif
