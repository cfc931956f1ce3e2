/* How many of a cold chunk's shards there are, and which are to be made anew. The counterpart of repair_policy.h for coded chunks. */
#ifndef GRANARY_MASTER_COLD_POLICY_H
#define GRANARY_MASTER_COLD_POLICY_H

#include "master/meta/meta.h"
#include "master/repair_policy.h"

struct cold_verdict {
	unsigned data_shards, total;
	unsigned available; /* on servers in service */
	unsigned lacking;   /* of those that are not: their servers are not counted on any more */
	uint64_t lost;	    /* bits: the places of these */
	/* Of each place: its server, and who makes it anew (0: nobody). */
	uint64_t servers[SHARDS_MAX], rebuilding[SHARDS_MAX];
	uint64_t versions[SHARDS_MAX];
};

/* Of a chunk that has a coding. damaged: says of a shard that its copy is known to be bad; or NULL. */
void cold_judge(const struct repair_question *question, struct meta *meta, const Granary__Chunk *chunk,
		bool (*damaged)(void *arg, uint64_t shard), void *arg, struct cold_verdict *out);

#endif
