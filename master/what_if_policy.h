/* What a chunk would be if some servers were lost, and what repair would have to do then. Pure. */
#ifndef GRANARY_MASTER_WHAT_IF_POLICY_H
#define GRANARY_MASTER_WHAT_IF_POLICY_H

#include <stddef.h>
#include <stdint.h>

enum loss {
	LOSS_NONE,
	LOSS_DEGRADED, /* something lacks */
	LOSS_ALONE,    /* likewise, and one failure more is loss */
	LOSS_LOST,
	LOSS_BEFORE, /* it cannot be read as it is */
};

/* A chunk: copies, of which one is needed, or shards. */
struct loss_question {
	unsigned needed, wanted;
	unsigned present; /* on servers in service */
	unsigned left;	  /* of those, on servers that are not lost */
};
enum loss loss_judge(const struct loss_question *question);

/* How many copies or shards are to be made, of a chunk that can be read; on so many servers, each of which holds one at most. */
unsigned loss_to_make(const struct loss_question *question, size_t servers_left);

/* Repair ends when each has done its part; all work at once, each at the rates that are set. */
struct repair_load {
	uint64_t copied_bytes_max; /* of any one server: that it sends to fill new copies */
	uint64_t gathered_bytes;   /* all: read of other shards to make lost ones anew, by those that get them */
	size_t servers_left;
	uint64_t copy_rate, shard_rate; /* bytes a second, each server */
};
uint64_t repair_load_ms(const struct repair_load *load);

#endif
