/* What the real and the simulated loop share: timers in a binary heap and the list of deferred calls.
 *
 * Internal to common/sys and tests/sim/sys. Each kind of loop holds one `struct loop_core` and drives it. Timers that
 * are due at the same millisecond run in no particular, but always in the same, order. */
#ifndef GRANARY_COMMON_SYS_TIMER_H
#define GRANARY_COMMON_SYS_TIMER_H

#include "common/sys/loop.h"

struct defer_list {
	struct defer *first, *last;
};

struct loop_core {
	struct timer **timers; /* heap by due_ms; timers[0] is due first; timer->place is index + 1 */
	size_t timers_count;
	size_t timers_capacity;
	uint64_t phase; /* odd while due timers are being called */
	struct defer_list defers;
	struct defer_list flushes; /* run when no defer is left: the connections' writev, once an iteration */
};

/* Implemented by each kind of loop. */
struct loop_core *loop_core(struct loop *loop);

void loop_core_deinit(struct loop_core *core);
/* UINT64_MAX when no timer is running. */
uint64_t loop_core_due_ms(const struct loop_core *core);
/* Calls all that are due, not those that these calls start with no delay. */
void loop_core_run_timers(struct loop_core *core, uint64_t now_ms);
bool loop_core_has_defers(const struct loop_core *core);
/* Calls all defers, those posted meanwhile too, then the flushes. What is posted over and over stays for the next
 * iteration. */
void loop_core_run_defers(struct loop_core *core);
/* Like defer_post, into the list of flushes. defer_cancel works for both. */
void loop_core_post_flush(struct loop_core *core, struct defer *defer);

#endif
