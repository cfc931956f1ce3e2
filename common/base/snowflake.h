/* Ids: 41 bits of milliseconds since 2024-01-01 UTC, 10 bits of worker, 12 bits of sequence, top bit 0.
 * Source: Twitter's Snowflake (2010). Made by the leader before it proposes, never in apply. */
#ifndef GRANARY_COMMON_BASE_SNOWFLAKE_H
#define GRANARY_COMMON_BASE_SNOWFLAKE_H

#include <stdint.h>

#define SNOWFLAKE_EPOCH_MS 1704067200000ull

struct snowflake {
	uint32_t worker; /* 0..1023 */
	uint64_t last;	 /* newest id given out */
};

void snowflake_init(struct snowflake *snowflake, uint32_t worker);
/* Strictly greater than every id given out before by this generator, whatever the clock does. */
uint64_t snowflake_next(struct snowflake *snowflake, uint64_t wall_ms);
/* The millisecond, since 1970 UTC, that the id carries. */
uint64_t snowflake_ms(uint64_t id);
/* SNOWFLAKE_BLOCK ids in a row, the first of them is returned: all sequence numbers of a millisecond that had none so far. */
#define SNOWFLAKE_BLOCK 4096u
uint64_t snowflake_block(struct snowflake *snowflake, uint64_t wall_ms);

#endif
