/* What the files of the cross-check share. */
#ifndef GRANARY_MASTER_META_CHECK_INTERNAL_H
#define GRANARY_MASTER_META_CHECK_INTERNAL_H

#include "master/meta/check.h"
#include "master/meta/state.h"

enum check_stage { STAGE_TABLES, STAGE_NAMES_COLLECT, STAGE_NAMES_COUNT, STAGE_PACKS_COLLECT, STAGE_PACKS_COUNT, STAGE_END };

/* An inode and its names, or a pack and its blobs. */
struct check_counted {
	uint64_t id;
	uint64_t stamp;	   /* Inode.change; Chunk.live_count */
	uint64_t expected; /* names; live bytes */
	uint64_t seen;
};

struct check {
	struct meta *meta;
	enum check_stage stage;
	size_t table; /* of STAGE_TABLES */
	bool has_cursor;
	struct key cursor;
	struct check_counted *counted; /* in order of id */
	size_t count, capacity;
	uint64_t inode_cursor; /* collected up to here */
	bool inodes_over;
	unsigned rounds; /* of the same ones */
	uint64_t looked_at;
	uint64_t undecided;
};

/* True when the stage is over. */
bool check_tables(struct check *check, size_t keys_max, check_fn *fn, void *arg);

#endif
