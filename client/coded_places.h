/* Where the shards of cold chunks are, by chunk id; and the indexes of those of which a shard had to be computed. Bounded: the oldest go, and
 * are fetched again.
 *
 * An entry is copied by whoever reads with it; the index is shared by count. */
#ifndef GRANARY_CLIENT_CODED_PLACES_H
#define GRANARY_CLIENT_CODED_PLACES_H

#include "client/servers.h"
#include "common/data/coded.h"

struct coded_head {
	unsigned references;
	struct coded_index index;
};

struct coded_shard {
	uint64_t id, version;
	struct server *server; /* NULL: lost */
};

struct coded_place {
	uint64_t chunk;
	unsigned data_shards, parity_shards;
	uint32_t unit_bytes, shard_bytes; /* as in Coding */
	uint32_t firsts[DATA_SHARDS_MAX];
	struct coded_shard shards[SHARDS_MAX];
	struct coded_head *head; /* NULL: not read yet; only in the table */
	UT_hash_handle hh;
};

/* ERR_PROTOCOL: it makes no sense. */
MUST_USE enum err coded_places_put(struct servers *servers, const Granary__ChunkLocation *message);
/* NULL: not known. Until the next call here. */
struct coded_place *coded_places_find(struct servers *servers, uint64_t chunk);
void coded_places_deinit(struct servers *servers);

/* The data shard that holds a unit, or would. */
unsigned coded_place_of(const struct coded_place *place, uint32_t unit);

void coded_head_ref(struct coded_head *head);
/* NULL is allowed. */
void coded_head_unref(struct coded_head *head);

#endif
