/* Timers, deferred calls, workers and watches of the real loop. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/sys/loop.h"
#include "common/sys/timer.h"

struct ticker {
	struct timer timer;
	struct loop *loop;
	unsigned *sequence;
	unsigned place;
	unsigned calls;
	uint64_t called_ms;
	struct ticker *stops;
};

static int setup(void **state)
{
	struct loop *loop = NULL;
	assert_int_equal(loop_open(&loop), OK);
	*state = loop;
	return 0;
}

static int teardown(void **state)
{
	loop_close(*state);
	return 0;
}

static void on_tick(void *arg)
{
	struct ticker *ticker = arg;
	ticker->calls++;
	ticker->called_ms = loop_now_ms(ticker->loop);
	ticker->place = ++*ticker->sequence;
	if (ticker->stops != NULL)
		timer_stop(&ticker->stops->timer);
}

static void ticker_init(struct ticker *ticker, struct loop *loop, unsigned *sequence)
{
	*ticker = (struct ticker){ .loop = loop, .sequence = sequence };
	timer_init(&ticker->timer, loop, on_tick, ticker);
}

static void test_timers_in_order(void **state)
{
	struct loop *loop = *state;
	static const uint64_t delays[] = { 30, 10, 20, 0, 40 };
	struct ticker tickers[5];
	unsigned sequence = 0;
	for (int i = 0; i < 5; i++) {
		ticker_init(&tickers[i], loop, &sequence);
		assert_false(timer_is_running(&tickers[i].timer));
		timer_start(&tickers[i].timer, delays[i]);
		assert_true(timer_is_running(&tickers[i].timer));
	}
	uint64_t start = loop_now_ms(loop);
	loop_run(loop); /* ends by itself: nothing is left */
	static const unsigned places[] = { 4, 2, 3, 1, 5 };
	for (int i = 0; i < 5; i++) {
		assert_int_equal(tickers[i].calls, 1);
		assert_int_equal(tickers[i].place, places[i]);
		assert_true(tickers[i].called_ms >= start + delays[i]);
		assert_false(timer_is_running(&tickers[i].timer));
	}
}

static void test_timer_moved_and_stopped(void **state)
{
	struct loop *loop = *state;
	unsigned sequence = 0;
	struct ticker a, b, c;
	ticker_init(&a, loop, &sequence);
	ticker_init(&b, loop, &sequence);
	ticker_init(&c, loop, &sequence);
	timer_start(&a.timer, 5);
	timer_start(&a.timer, 20); /* moved behind b */
	timer_start(&b.timer, 10);
	timer_start(&c.timer, 10);
	b.stops = &c;
	c.stops = &b; /* whichever is first stops the other, also when both are due */
	timer_stop(&c.timer);
	timer_stop(&c.timer);
	timer_start(&c.timer, 10);
	loop_run(loop);
	assert_int_equal(b.calls + c.calls, 1);
	assert_int_equal(a.calls, 1);
	assert_int_equal(a.place, 2);
}

/* The heap against a plain search, with thousands of random moves. */
static void test_timer_heap(void **state)
{
	struct loop *loop = *state;
	enum { COUNT = 300 };
	static struct ticker tickers[COUNT];
	unsigned sequence = 0;
	struct rng rng;
	rng_init(&rng, 1);
	for (int i = 0; i < COUNT; i++)
		ticker_init(&tickers[i], loop, &sequence);
	for (int round = 0; round < 20000; round++) {
		struct ticker *ticker = &tickers[rng_below(&rng, COUNT)];
		if (rng_below(&rng, 3) == 0)
			timer_stop(&ticker->timer);
		else
			timer_start(&ticker->timer, 1000 + rng_below(&rng, 100000));
		uint64_t least = UINT64_MAX;
		for (int i = 0; i < COUNT; i++)
			if (timer_is_running(&tickers[i].timer) && tickers[i].timer.due_ms < least)
				least = tickers[i].timer.due_ms;
		assert_true(loop_core_due_ms(loop_core(loop)) == least);
	}
	uint64_t before = 0;
	while (loop_core(loop)->timers_count > 0) {
		struct timer *first = loop_core(loop)->timers[0];
		assert_true(first->due_ms >= before);
		before = first->due_ms;
		timer_stop(first);
	}
}

struct call {
	struct defer defer;
	unsigned calls;
	unsigned again;
	struct call *posts, *cancels;
};

static void on_call(void *arg)
{
	struct call *call = arg;
	call->calls++;
	if (call->again > 0) {
		call->again--;
		defer_post(&call->defer);
	}
	if (call->posts != NULL)
		defer_post(&call->posts->defer);
	if (call->cancels != NULL)
		defer_cancel(&call->cancels->defer);
}

static void test_defers(void **state)
{
	struct loop *loop = *state;
	struct call calls[4] = { 0 };
	for (int i = 0; i < 4; i++)
		defer_init(&calls[i].defer, loop, on_call, &calls[i]);
	defer_post(&calls[0].defer);
	defer_post(&calls[0].defer);
	defer_post(&calls[1].defer);
	defer_post(&calls[2].defer);
	calls[0].cancels = &calls[1];
	calls[0].again = 2;
	calls[2].posts = &calls[3];
	loop_run_once(loop); /* returns at once although nothing else is there */
	assert_int_equal(calls[0].calls, 3);
	assert_int_equal(calls[1].calls, 0);
	assert_int_equal(calls[2].calls, 1);
	assert_int_equal(calls[3].calls, 1);
	defer_cancel(&calls[3].defer);
	/* One that posts itself for ever does not keep the loop from its other work. */
	calls[0].again = UINT32_MAX;
	unsigned sequence = 0;
	struct ticker ticker;
	ticker_init(&ticker, loop, &sequence);
	timer_start(&ticker.timer, 1);
	defer_post(&calls[0].defer);
	while (ticker.calls == 0)
		loop_run_once(loop);
	defer_cancel(&calls[0].defer);
}

struct job {
	struct work work;
	unsigned number;
	struct loop *loop;
	atomic_uint *running, *most;
	unsigned *expected; /* of the lane: the next to be done, NULL: any */
	unsigned *left;
	pthread_t thread;
	bool out_of_order;
	unsigned run_order;
	atomic_uint *order;
};

static void job_run(struct work *work)
{
	struct job *job = container_of(work, struct job, work);
	job->thread = pthread_self();
	unsigned now = atomic_fetch_add(job->running, 1) + 1;
	unsigned most = atomic_load(job->most);
	while (now > most && !atomic_compare_exchange_weak(job->most, &most, now))
		;
	job->run_order = atomic_fetch_add(job->order, 1);
	atomic_fetch_sub(job->running, 1);
}

static void job_done(struct work *work)
{
	struct job *job = container_of(work, struct job, work);
	if (job->expected != NULL)
		job->out_of_order = job->number != (*job->expected)++;
	if (--*job->left == 0)
		loop_stop(job->loop);
}

static void test_work(void **state)
{
	struct loop *loop = *state;
	enum { LANES = 5, EACH = 200, FREE = 300 };
	static struct job jobs[LANES * EACH + FREE];
	struct work_lane lanes[LANES] = { 0 };
	unsigned expected[LANES] = { 0 };
	unsigned left = LANES * EACH + FREE;
	atomic_uint running = 0, most = 0, order = 0, lane_running[LANES] = { 0 }, lane_most[LANES] = { 0 };
	for (unsigned i = 0; i < LANES * EACH; i++) {
		unsigned lane = i % LANES;
		jobs[i] = (struct job){ .work = { .run = job_run, .done = job_done }, .number = i / LANES, .loop = loop,
					.running = &lane_running[lane], .most = &lane_most[lane],
					.expected = &expected[lane], .left = &left, .order = &order };
		work_submit(loop, &lanes[lane], &jobs[i].work);
	}
	for (unsigned i = LANES * EACH; i < LANES * EACH + FREE; i++) {
		jobs[i] = (struct job){ .work = { .run = job_run, .done = job_done }, .loop = loop, .running = &running,
					.most = &most, .left = &left, .order = &order };
		work_submit(loop, NULL, &jobs[i].work);
	}
	loop_run(loop);
	assert_int_equal(left, 0);
	for (unsigned i = 0; i < LANES * EACH; i++) {
		assert_false(jobs[i].out_of_order);
		assert_false(pthread_equal(jobs[i].thread, pthread_self()));
		if (i >= LANES)
			assert_true(jobs[i].run_order > jobs[i - LANES].run_order);
	}
	for (unsigned lane = 0; lane < LANES; lane++) {
		assert_int_equal(lane_most[lane], 1);
		assert_false(lanes[lane].running);
	}
}

/* Blocks until all WORKERS_COUNT of them are there: shows that so many run side by side. */
struct meeting {
	struct work work;
	pthread_barrier_t *barrier;
	unsigned *left;
	struct loop *loop;
};

static void meeting_run(struct work *work)
{
	pthread_barrier_wait(container_of(work, struct meeting, work)->barrier);
}

static void meeting_done(struct work *work)
{
	struct meeting *meeting = container_of(work, struct meeting, work);
	if (--*meeting->left == 0)
		loop_stop(meeting->loop);
}

static void test_work_side_by_side(void **state)
{
	struct loop *loop = *state;
	pthread_barrier_t barrier;
	pthread_barrier_init(&barrier, NULL, WORKERS_COUNT);
	struct meeting meetings[WORKERS_COUNT];
	unsigned left = WORKERS_COUNT;
	for (unsigned i = 0; i < WORKERS_COUNT; i++) {
		meetings[i] = (struct meeting){ .work = { .run = meeting_run, .done = meeting_done }, .barrier = &barrier,
						.left = &left, .loop = loop };
		work_submit(loop, NULL, &meetings[i].work);
	}
	loop_run(loop);
	assert_int_equal(left, 0);
	pthread_barrier_destroy(&barrier);
}

/* Work that is still under way when the loop is closed is waited for. */
static void test_work_at_close(void **state)
{
	(void)state;
	struct loop *loop = NULL;
	assert_int_equal(loop_open(&loop), OK);
	pthread_barrier_t barrier;
	pthread_barrier_init(&barrier, NULL, 1);
	struct meeting meetings[20];
	unsigned left = 20;
	for (unsigned i = 0; i < 20; i++) {
		meetings[i] = (struct meeting){ .work = { .run = meeting_run, .done = meeting_done }, .barrier = &barrier,
						.left = &left, .loop = loop };
		work_submit(loop, NULL, &meetings[i].work);
	}
	loop_close(loop);
	assert_int_equal(left, 0);
	pthread_barrier_destroy(&barrier);
}

struct reader {
	int descriptor;
	struct loop *loop;
	unsigned calls;
};

static void on_readable(void *arg)
{
	struct reader *reader = arg;
	char byte = 0;
	assert_int_equal(read(reader->descriptor, &byte, 1), 1);
	reader->calls++;
	loop_stop(reader->loop);
}

static void test_watch(void **state)
{
	struct loop *loop = *state;
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	struct reader reader = { .descriptor = ends[0], .loop = loop };
	struct watch *watch = NULL;
	assert_int_equal(watch_open(loop, ends[0], on_readable, &reader, &watch), OK);
	assert_int_equal(write(ends[1], "x", 1), 1);
	loop_run(loop);
	assert_int_equal(reader.calls, 1);
	watch_close(watch);
	close(ends[0]);
	close(ends[1]);
}

static void on_signal(void *arg)
{
	++*(unsigned *)arg;
}

static void test_signals(void **state)
{
	struct loop *loop = *state;
	unsigned terminate = 0, reload = 0, sequence = 0;
	loop_on_terminate(loop, on_signal, &terminate);
	loop_on_reload(loop, on_signal, &reload);
	struct ticker deadline;
	ticker_init(&deadline, loop, &sequence);
	timer_start(&deadline.timer, 10000);
	kill(getpid(), SIGTERM);
	kill(getpid(), SIGHUP);
	while ((terminate == 0 || reload == 0) && deadline.calls == 0)
		loop_run_once(loop);
	assert_int_equal(terminate, 1);
	assert_int_equal(reload, 1);
	timer_stop(&deadline.timer);
}

/* A process that was told to end, and is told again at its very end, ends in order. */
static void test_signals_at_close(void **state)
{
	(void)state;
	unsigned terminate = 0;
	struct loop *loop = NULL;
	sigset_t set;
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (loop_open(&loop) != OK)
			_exit(1);
		loop_on_terminate(loop, on_signal, &terminate);
		loop_close(loop);
		kill(getpid(), SIGTERM);
		kill(getpid(), SIGINT);
		_exit(sigpending(&set) == 0 && sigismember(&set, SIGTERM) ? 0 : 2);
	}
	int status = -1;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void test_clocks(void **state)
{
	struct loop *loop = *state;
	uint64_t before = loop_now_us(loop);
	assert_true(loop_now_us(loop) >= before);
	assert_true(loop_wall_ms(loop) > 1700000000000ull);
	assert_true(loop_random(loop) != loop_random(loop));
}

#define test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_timers_in_order), test(test_timer_moved_and_stopped), test(test_timer_heap), test(test_defers),
		test(test_work), test(test_work_side_by_side), cmocka_unit_test(test_work_at_close), test(test_watch), cmocka_unit_test(test_signals_at_close),
		test(test_signals), test(test_clocks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
