/* The loop: time, timers, deferred calls and workers of one process.
 *
 * The seam. loop.h, conn.h, file.h, kv.h and log.h are declared once and implemented twice: for real here (libuv, sockets,
 * files, LevelDB) and in tests/sim (one thread, one seed, simulated time). Which one is a matter of linking. A `struct
 * loop` stands for the process: everything that it opens belongs to it, and in the simulator it dies with it.
 *
 * Thread: all functions are for the loop's own thread, except as said for work. */
#ifndef GRANARY_COMMON_SYS_LOOP_H
#define GRANARY_COMMON_SYS_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct loop;

MUST_USE enum err loop_open(struct loop **out);
/* Everything opened on the loop has been closed before. */
void loop_close(struct loop *loop);
/* Runs until loop_stop. May be run again. */
void loop_run(struct loop *loop);
/* Runs one iteration: waits for the next event (none: returns at once), handles what is there. */
void loop_run_once(struct loop *loop);
void loop_stop(struct loop *loop);
/* Calls fn on the loop when SIGTERM or SIGINT arrives. SIGPIPE is ignored from loop_open on. */
void loop_on_terminate(struct loop *loop, void (*fn)(void *arg), void *arg);
/* Calls fn on the loop when SIGHUP arrives. */
void loop_on_reload(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Descriptors that this process may have open; loop_open raises the soft limit to the hard one. */
size_t loop_descriptors_max(struct loop *loop);

/* Monotonic, never runs backwards; as of the start of this iteration. */
uint64_t loop_now_ms(struct loop *loop);
/* Monotonic, read from the clock now: for measuring. */
uint64_t loop_now_us(struct loop *loop);
/* Wall clock, milliseconds since 1970 UTC; may jump. For timestamps only, never for leases. */
uint64_t loop_wall_ms(struct loop *loop);
/* Random bits: from the system for real, from the seed in the simulator. */
uint64_t loop_random(struct loop *loop);

/* A timer lives in its owner's storage; a zeroed struct is a stopped timer. */
struct timer {
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	uint64_t due_ms;
	uint64_t phase; /* of the loop when it was started: timer.h */
	size_t place;	/* in the loop's heap, from 1; 0: stopped */
};

void timer_init(struct timer *timer, struct loop *loop, void (*fn)(void *arg), void *arg);
/* Once, after delay_ms; a running timer is moved. */
void timer_start(struct timer *timer, uint64_t delay_ms);
void timer_stop(struct timer *timer);
bool timer_is_running(const struct timer *timer);

/* A call at the end of this iteration, after all events that are ready: for batching (group commit, one writev).
 * Lives in its owner's storage; posting one that is already posted does nothing. */
struct defer {
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	struct defer *next, *previous;
	bool posted;
};

void defer_init(struct defer *defer, struct loop *loop, void (*fn)(void *arg), void *arg);
void defer_post(struct defer *defer);
void defer_cancel(struct defer *defer);

/* Work on a pool thread: blocking file calls and long computation. `run` sees only its own struct and what it borrows;
 * `done` is called on the loop afterwards. The struct lives in its owner's storage until `done`. Items of one lane
 * (not NULL) run one after another in the order submitted; others run in any order. */
struct work_lane;
struct work {
	void (*run)(struct work *work);
	void (*done)(struct work *work);
	struct loop *loop;
	struct work_lane *lane;
	struct work *next;
	/* For whoever keeps account of items of work that others make; not touched below. */
	struct {
		void *owner;
		void (*done)(struct work *work);
		uint64_t submitted_us;
		bool untimed; /* set by who submits it: how long it takes says nothing */
		struct work *previous, *next;
	} of_owner;
};
struct work_lane {
	struct work *first, *last;
	bool running;
};

/* At most WORK_QUEUE_MAX wait; callers bound their own queues far below that, and check() fails above it. */
void work_submit(struct loop *loop, struct work_lane *lane, struct work *work);

/* Readiness of a descriptor that is not a frame connection (the mount's /dev/fuse, a progress pipe). Only for real:
 * the simulator has no descriptors. */
struct watch;
MUST_USE enum err watch_open(struct loop *loop, int descriptor, void (*readable)(void *arg), void *arg, struct watch **out);
void watch_close(struct watch *watch);

#endif
