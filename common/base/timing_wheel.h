/* A hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7): adding, removing and
 * expiry cost the same however many entries wait. Each level has TIMING_WHEEL_SLOTS slots, each of which is as long as all of the level below;
 * what is in a slot of a higher level is spread over the lower ones when its time begins.
 *
 *   level 0   |0|1|2|...|63|              ticks
 *   level 1   |  0  |  1  | ... | 63 |    64 ticks each, and so on; what is further away than the last level waits in its last slot
 *
 * The unit of time is the caller's. Entries are the caller's memory, linked while they wait. Pure. */
#ifndef GRANARY_COMMON_BASE_TIMING_WHEEL_H
#define GRANARY_COMMON_BASE_TIMING_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMING_WHEEL_BITS 6u
#define TIMING_WHEEL_SLOTS (1u << TIMING_WHEEL_BITS)
#define TIMING_WHEEL_LEVELS 4u

/* A zeroed one is in no wheel. */
struct wheel_entry {
	struct wheel_entry *next;
	struct wheel_entry **link; /* what points to it; NULL: it is in no wheel */
	uint64_t tick;
};

struct timing_wheel {
	uint64_t now;  /* the first tick that is not over */
	bool is_spread; /* the slots of higher levels that begin now have been spread */
	size_t count;
	struct wheel_entry *slots[TIMING_WHEEL_LEVELS][TIMING_WHEEL_SLOTS];
};

void timing_wheel_init(struct timing_wheel *wheel, uint64_t now);
/* Not in a wheel yet. A tick that is over is as good as the present one. */
void timing_wheel_add(struct timing_wheel *wheel, struct wheel_entry *entry, uint64_t tick);
/* One that is in no wheel is left alone. */
void timing_wheel_remove(struct timing_wheel *wheel, struct wheel_entry *entry);
/* Takes out one that is due at `tick` or before, in order of ticks (of the same tick in any order). NULL: there is none, and all ticks up to
 * `tick` are over. */
struct wheel_entry *timing_wheel_take(struct timing_wheel *wheel, uint64_t tick);

#endif
