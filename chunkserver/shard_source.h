/* A set of shards to read from: pieces of any of them, computed from others where it cannot be had, and the index.
 *
 * A shard that did not answer, or answered with wrong bytes, is not asked again. Thread: the loop; what says so may run on a worker while
 * nothing is under way. */
#ifndef GRANARY_CHUNKSERVER_SHARD_SOURCE_H
#define GRANARY_CHUNKSERVER_SHARD_SOURCE_H

#include "chunkserver/shard_calls.h"
#include "common/data/coded.h"

struct shard_source {
	struct service *service;
	const Granary__CodedLocation *coded;
	uint64_t bad;	 /* bits: places that are not to be asked */
	bool other_end;	 /* of those that could be, others are asked */
	struct shard_calls calls;
	unsigned place;	 /* that is wanted; */
	bool computed;	 /* from `used` */
	uint64_t used;
	enum err err;
	/* Head and index. */
	uint8_t *head;
	uint32_t head_bytes, head_have; /* 0: not known yet */
	unsigned head_place;
	bool in_head;
	void (*done)(void *arg);
	void *arg;
};

void shard_source_init(struct shard_source *source, struct service *service, const Granary__CodedLocation *coded,
		       void (*done)(void *arg), void *arg);
void shard_source_deinit(struct shard_source *source);

/* The head of a shard, whichever: `head`, `head_bytes` when done with `err` OK. Owned by the source. */
void shard_source_read_head(struct shard_source *source);

/* Whole blocks at `offset` of the file of the shard at `place`. When done with `err` OK: shard_source_take. Never calls done from within. */
void shard_source_read(struct shard_source *source, unsigned place, uint32_t offset, uint32_t bytes);
/* What was read, into `out`; on a worker. */
void shard_source_take(struct shard_source *source, uint8_t *out);

#endif
