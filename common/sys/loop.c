#include "common/sys/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <uv.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "common/sys/real.h"
#include "common/sys/timer.h"
#include "common/sys/workers.h"

/* Waking a processor that sleeps takes longer than answering most requests. A loop whose waits were mostly short of late looks on
 * for a moment before it sleeps (as KVM's halt polling does); whoever else is ready to run goes first. An idle loop never
 * does. */
#define LOOK_ON_NS 100000u
#define SHORT_WAIT_NS 200000u /* would have been short, had we looked on */
#define LUCK_MAX 256u	     /* moving average over some eight waits */
#define LUCK_MIN 160u
/* A yield that took so long gave the processor to others: there is work enough, and a loop that sleeps is woken before one that
 * yields gets its next turn. */
#define YIELD_LONG_NS 50000u
#define REST_NS 5000000u

struct signal_watch {
	uv_signal_t handle;
	bool open;
};

struct loop {
	uv_loop_t uv;
	struct loop_core core;
	uv_timer_t timer;   /* armed for the first of core's timers */
	uint64_t armed_ms;  /* what `timer` is armed for; UINT64_MAX: stopped */
	uv_prepare_t prepare;
	uv_check_t check_handle;
	struct workers *workers;
	struct conn_counts conn_counts;
	size_t descriptors_max;
	struct signal_watch terminate, interrupt, reload;
	void (*on_terminate)(void *arg);
	void *on_terminate_arg;
	void (*on_reload)(void *arg);
	void *on_reload_arg;
	uint64_t waits_since_ns; /* 0: does not wait */
	unsigned luck;		 /* share of short waits, of LUCK_MAX */
	uint64_t rests_until_ns; /* does not look on until then */
	bool stopping;
	bool once;     /* within loop_run_once */
	bool progress; /* a timer or a defer was called in this iteration */
};

struct loop_core *loop_core(struct loop *loop)
{
	return &loop->core;
}

uv_loop_t *loop_uv(struct loop *loop)
{
	return &loop->uv;
}

struct conn_counts *loop_conn_counts(struct loop *loop)
{
	return &loop->conn_counts;
}

static void arm(struct loop *loop);

static void on_timer(uv_timer_t *handle)
{
	struct loop *loop = handle->data;
	loop->armed_ms = UINT64_MAX;
	loop->progress = true;
	loop_core_run_timers(&loop->core, uv_now(&loop->uv));
}

static void arm(struct loop *loop)
{
	uint64_t due = loop_core_has_defers(&loop->core) ? 0 : loop_core_due_ms(&loop->core);
	if (due == loop->armed_ms && due != 0)
		return;
	loop->armed_ms = due;
	if (due == UINT64_MAX) {
		uv_timer_stop(&loop->timer);
		return;
	}
	uint64_t now = uv_now(&loop->uv);
	uv_timer_start(&loop->timer, on_timer, due > now ? due - now : 0, 0);
}

static void wait_begins(struct loop *loop)
{
	struct pollfd events = { .fd = uv_backend_fd(&loop->uv), .events = POLLIN };

	if (uv_backend_timeout(&loop->uv) == 0)
		return;
	loop->waits_since_ns = uv_hrtime();
	if (loop->luck < LUCK_MIN || loop->waits_since_ns < loop->rests_until_ns)
		return;
	for (uint64_t now = loop->waits_since_ns; now - loop->waits_since_ns < LOOK_ON_NS && poll(&events, 1, 0) == 0;) {
		uint64_t before = uv_hrtime();
		sched_yield();
		now = uv_hrtime();
		if (now - before > YIELD_LONG_NS)
			loop->rests_until_ns = now + REST_NS;
	}
}

static void wait_ends(struct loop *loop)
{
	if (loop->waits_since_ns == 0)
		return;
	bool is_short = uv_hrtime() - loop->waits_since_ns < SHORT_WAIT_NS;
	loop->luck += (is_short ? LUCK_MAX / 8 : 0) - loop->luck / 8;
	loop->waits_since_ns = 0;
}

/* Before the wait: calls what timers and the outside posted, so that nothing is held back by it. */
static void on_prepare(uv_prepare_t *handle)
{
	struct loop *loop = handle->data;
	loop->conn_counts.sent = 0;
	loop->progress |= loop_core_has_defers(&loop->core);
	loop_core_run_defers(&loop->core);
	arm(loop);
	/* What was called may be what the caller of loop_run_once waits for: look what is ready, but do not wait. */
	if (loop->once && loop->progress)
		uv_stop(&loop->uv);
	else
		wait_begins(loop);
}

/* After the events of this iteration. */
static void on_check(uv_check_t *handle)
{
	struct loop *loop = handle->data;
	wait_ends(loop);
	loop_core_run_defers(&loop->core);
	arm(loop);
}

static size_t raise_descriptors(void)
{
	struct rlimit limit = { 0 };
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return FD_SETSIZE;
	if (limit.rlim_cur < limit.rlim_max) {
		rlim_t before = limit.rlim_cur;
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			limit.rlim_cur = before;
	}
	return limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > SIZE_MAX ? SIZE_MAX : (size_t)limit.rlim_cur;
}

size_t loop_descriptors_max(struct loop *loop)
{
	return loop->descriptors_max;
}

enum err loop_open(struct loop **out)
{
	*out = NULL;
	struct loop *loop = mem_zero(1, sizeof(*loop));
	int status = uv_loop_init(&loop->uv);
	if (status < 0) {
		free(loop);
		return err_from_errno(-status);
	}
	signal(SIGPIPE, SIG_IGN);
	loop->descriptors_max = raise_descriptors();
	loop->armed_ms = UINT64_MAX;
	uv_timer_init(&loop->uv, &loop->timer);
	loop->timer.data = loop;
	uv_prepare_init(&loop->uv, &loop->prepare);
	loop->prepare.data = loop;
	uv_prepare_start(&loop->prepare, on_prepare);
	uv_unref((uv_handle_t *)&loop->prepare);
	uv_check_init(&loop->uv, &loop->check_handle);
	loop->check_handle.data = loop;
	uv_check_start(&loop->check_handle, on_check);
	uv_unref((uv_handle_t *)&loop->check_handle);
	loop->workers = workers_open(&loop->uv);
	*out = loop;
	return OK;
}

/* Whoever has watched a signal goes on to end in order when it comes again: it must not be what it is to others, a death. */
static void signal_close(struct signal_watch *watch, int number)
{
	sigset_t set;

	if (!watch->open)
		return;
	sigemptyset(&set);
	sigaddset(&set, number);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	uv_close((uv_handle_t *)&watch->handle, NULL);
}

void loop_close(struct loop *loop)
{
	if (loop == NULL)
		return;
	workers_close(loop->workers);
	loop_core_run_defers(&loop->core);
	uv_close((uv_handle_t *)&loop->timer, NULL);
	uv_close((uv_handle_t *)&loop->prepare, NULL);
	uv_close((uv_handle_t *)&loop->check_handle, NULL);
	signal_close(&loop->terminate, SIGTERM);
	signal_close(&loop->interrupt, SIGINT);
	signal_close(&loop->reload, SIGHUP);
	while (uv_run(&loop->uv, UV_RUN_NOWAIT) != 0)
		;
	check(uv_loop_close(&loop->uv) == 0);
	loop_core_deinit(&loop->core);
	free(loop);
	iobuf_trim();
}

void loop_run(struct loop *loop)
{
	loop->stopping = false;
	while (!loop->stopping) {
		loop_core_run_defers(&loop->core);
		arm(loop);
		if (uv_run(&loop->uv, UV_RUN_DEFAULT) == 0 && !loop_core_has_defers(&loop->core) &&
		    loop->core.timers_count == 0)
			break;
	}
}

void loop_run_once(struct loop *loop)
{
	uv_update_time(&loop->uv);
	loop->progress = loop_core_has_defers(&loop->core);
	loop_core_run_defers(&loop->core);
	arm(loop);
	loop->once = true;
	uv_run(&loop->uv, loop->progress ? UV_RUN_NOWAIT : UV_RUN_ONCE);
	loop->once = false;
	/* Libuv runs timers after the check phase here: what they posted belongs to this iteration. */
	loop_core_run_defers(&loop->core);
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
	uv_stop(&loop->uv);
}

static void on_terminate_signal(uv_signal_t *handle, int number)
{
	(void)number;
	struct loop *loop = handle->data;
	loop->on_terminate(loop->on_terminate_arg);
}

static void on_reload_signal(uv_signal_t *handle, int number)
{
	(void)number;
	struct loop *loop = handle->data;
	loop->on_reload(loop->on_reload_arg);
}

static void signal_open(struct loop *loop, struct signal_watch *watch, int number, uv_signal_cb fn)
{
	if (watch->open)
		return;
	check(uv_signal_init(&loop->uv, &watch->handle) == 0);
	watch->handle.data = loop;
	watch->open = true;
	check(uv_signal_start(&watch->handle, fn, number) == 0);
	uv_unref((uv_handle_t *)&watch->handle);
}

void loop_on_terminate(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	loop->on_terminate = fn;
	loop->on_terminate_arg = arg;
	signal_open(loop, &loop->terminate, SIGTERM, on_terminate_signal);
	signal_open(loop, &loop->interrupt, SIGINT, on_terminate_signal);
}

void loop_on_reload(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	loop->on_reload = fn;
	loop->on_reload_arg = arg;
	signal_open(loop, &loop->reload, SIGHUP, on_reload_signal);
}

uint64_t loop_now_ms(struct loop *loop)
{
	return uv_now(&loop->uv);
}

uint64_t loop_now_us(struct loop *loop)
{
	(void)loop;
	return uv_hrtime() / 1000;
}

uint64_t loop_wall_ms(struct loop *loop)
{
	(void)loop;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t loop_random(struct loop *loop)
{
	(void)loop;
	uint64_t value = 0;
	check(getrandom(&value, sizeof(value), 0) == sizeof(value));
	return value;
}

void work_submit(struct loop *loop, struct work_lane *lane, struct work *work)
{
	work->loop = loop;
	workers_submit(loop->workers, lane, work);
}

struct watch {
	uv_poll_t handle;
	void (*readable)(void *arg);
	void *arg;
};

static void on_watch(uv_poll_t *handle, int status, int events)
{
	(void)status;
	(void)events;
	struct watch *watch = handle->data;
	/* An error on the descriptor is for the reader to find, too. */
	watch->readable(watch->arg);
}

enum err watch_open(struct loop *loop, int descriptor, void (*readable)(void *arg), void *arg, struct watch **out)
{
	*out = NULL;
	struct watch *watch = mem_zero(1, sizeof(*watch));
	watch->readable = readable;
	watch->arg = arg;
	int status = uv_poll_init(&loop->uv, &watch->handle, descriptor);
	if (status < 0) {
		free(watch);
		log_error("watch_failed", "descriptor=%d error=%s", descriptor, uv_err_name(status));
		return err_from_errno(-status);
	}
	watch->handle.data = watch;
	uv_poll_start(&watch->handle, UV_READABLE, on_watch);
	*out = watch;
	return OK;
}

static void on_watch_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void watch_close(struct watch *watch)
{
	if (watch != NULL)
		uv_close((uv_handle_t *)&watch->handle, on_watch_closed);
}
