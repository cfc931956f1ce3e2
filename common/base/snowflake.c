#include "common/base/snowflake.h"

#include "common/base/check.h"

#define WORKER_BITS 10
#define SEQUENCE_BITS 12

void snowflake_init(struct snowflake *snowflake, uint32_t worker)
{
	check(worker < 1u << WORKER_BITS);
	*snowflake = (struct snowflake){ .worker = worker };
}

uint64_t snowflake_next(struct snowflake *snowflake, uint64_t wall_ms)
{
	const uint64_t step = 1u << SEQUENCE_BITS;
	uint64_t time = wall_ms > SNOWFLAKE_EPOCH_MS ? wall_ms - SNOWFLAKE_EPOCH_MS : 0;
	uint64_t id = time << (WORKER_BITS + SEQUENCE_BITS) | (uint64_t)snowflake->worker << SEQUENCE_BITS;
	if (id <= snowflake->last) {
		/* The same millisecond, or the clock went back: the next sequence number, or the next millisecond of
		 * the last id when those are used up. */
		uint64_t sequence = (snowflake->last & (step - 1)) + 1;
		uint64_t last_time = snowflake->last >> (WORKER_BITS + SEQUENCE_BITS);
		if (sequence == step) {
			sequence = 0;
			last_time++;
		}
		id = last_time << (WORKER_BITS + SEQUENCE_BITS) | (uint64_t)snowflake->worker << SEQUENCE_BITS | sequence;
	}
	check(id >> 63 == 0);
	snowflake->last = id;
	return id;
}

uint64_t snowflake_ms(uint64_t id)
{
	return (id >> (WORKER_BITS + SEQUENCE_BITS)) + SNOWFLAKE_EPOCH_MS;
}

uint64_t snowflake_block(struct snowflake *snowflake, uint64_t wall_ms)
{
	const uint64_t step = SNOWFLAKE_BLOCK;
	uint64_t first;
	_Static_assert(SNOWFLAKE_BLOCK == 1u << SEQUENCE_BITS, "a whole millisecond");
	snowflake->last |= step - 1; /* what is left of the last millisecond is not used */
	first = snowflake_next(snowflake, wall_ms);
	check((first & (step - 1)) == 0);
	snowflake->last = first + step - 1;
	return first;
}
