/* loop.h and log.h, simulated. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/log.h"
#include "tests/sim/sys/sim_internal.h"

struct loop *sim_process_open(struct sim_host *host, const char *name)
{
	check(host->up);
	struct sim *sim = host->sim;
	struct loop *loop = mem_zero(1, sizeof(*loop));
	loop->sim = sim;
	loop->host = host;
	snprintf(loop->name, sizeof(loop->name), "%s", name);
	loop->id = ++sim->next_id;
	loop->wake_us = UINT64_MAX;
	loop->next = sim->loops;
	sim->loops = loop;
	sim_trace(sim, "process=%s host=%s", name, host->name);
	return loop;
}

enum err loop_open(struct loop **out)
{
	check(sim_current() != NULL && sim_current()->open_host != NULL);
	*out = sim_process_open(sim_current()->open_host, "process");
	return OK;
}

void loop_close(struct loop *loop)
{
	if (loop == NULL)
		return;
	check(loop->conns == NULL && loop->listeners == NULL);
	struct loop **link = &loop->sim->loops;
	while (*link != loop)
		link = &(*link)->next;
	*link = loop->next;
	for (size_t i = 0; i < loop->parked_count; i++)
		if (loop->parked[i].drop != NULL)
			loop->parked[i].drop(loop->parked[i].arg);
	if (!loop->dead)
		sim_disk_process_died(loop->host->disk, loop);
	loop_core_deinit(&loop->core);
	free(loop->parked);
	free(loop);
}

struct loop_core *loop_core(struct loop *loop)
{
	return &loop->core;
}

/* Local time runs at the host's rate. */
static uint64_t local_us(const struct sim_host *host)
{
	uint64_t passed = host->sim->now_us - host->clock_set_us;
	return host->clock_base_us + (uint64_t)((int64_t)passed + (int64_t)passed / 1000000 * host->rate_ppm +
						(int64_t)passed % 1000000 * host->rate_ppm / 1000000);
}

void sim_host_set_clock(struct sim_host *host, int64_t wall_ms, int32_t rate_ppm)
{
	host->clock_base_us = local_us(host);
	host->clock_set_us = host->sim->now_us;
	host->wall_offset_ms = wall_ms;
	host->rate_ppm = rate_ppm;
}

static void on_wake(void *arg)
{
	struct loop *loop = arg;
	if (loop->wake_us > loop->sim->now_us)
		return;
	loop->wake_us = UINT64_MAX;
	loop_core_run_timers(&loop->core, loop_now_ms(loop));
}

void sim_loop_arm(struct loop *loop)
{
	uint64_t due_ms = loop_core_has_defers(&loop->core) ? 0 : loop_core_due_ms(&loop->core);
	if (due_ms == UINT64_MAX)
		return;
	uint64_t local = local_us(loop->host);
	uint64_t wait = due_ms * 1000 > local ? due_ms * 1000 - local : 0;
	/* The local wait in simulated time; one too short only wakes once more. */
	uint64_t rate = (uint64_t)(1000000 + loop->host->rate_ppm);
	uint64_t at = loop->sim->now_us + wait / rate * 1000000 + wait % rate * 1000000 / rate;
	if (wait > 0 && at == loop->sim->now_us)
		at++;
	if (at >= loop->wake_us && loop->wake_us >= loop->sim->now_us)
		return;
	loop->wake_us = at;
	sim_schedule(loop->sim, at - loop->sim->now_us, loop, on_wake, loop, NULL);
}

void loop_run_once(struct loop *loop)
{
	if (!loop->dead) {
		loop_core_run_defers(&loop->core);
		sim_loop_arm(loop);
	}
	check(sim_step(loop->sim));
}

void loop_run(struct loop *loop)
{
	loop->stopping = false;
	while (!loop->stopping && !loop->dead)
		loop_run_once(loop);
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}

void loop_on_terminate(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	loop->on_terminate = fn;
	loop->on_terminate_arg = arg;
}

void loop_on_reload(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	(void)loop;
	(void)fn;
	(void)arg;
}

uint64_t loop_now_ms(struct loop *loop)
{
	return local_us(loop->host) / 1000;
}

uint64_t loop_now_us(struct loop *loop)
{
	return local_us(loop->host);
}

uint64_t loop_wall_ms(struct loop *loop)
{
	/* 2024-06-01, somewhere after the epoch of snowflake ids. */
	return 1717200000000u + local_us(loop->host) / 1000 + (uint64_t)loop->host->wall_offset_ms;
}

size_t loop_descriptors_max(struct loop *loop)
{
	(void)loop;
	return 65536;
}

uint64_t loop_random(struct loop *loop)
{
	return rng_next(&loop->sim->rng);
}

/* Work: `run` in one event at the end of its latency, `done` in the same. */
static void start_work(struct work *work);

#define STUCK_RETRY_US 5000u /* how often stuck work looks whether it may go on */

static void on_work(void *arg)
{
	struct work *work = arg;
	struct work_lane *lane = work->lane;
	if (work->loop->host->stuck) {
		sim_schedule(work->loop->sim, STUCK_RETRY_US, work->loop, on_work, work, NULL);
		return;
	}
	work->run(work);
	if (lane != NULL) {
		lane->running = false;
		struct work *next = lane->first;
		if (next != NULL) {
			lane->first = next->next;
			if (lane->first == NULL)
				lane->last = NULL;
			start_work(next);
		}
	}
	/* The power may have been cut within `run`. */
	if (!work->loop->dead) {
		work->done(work);
		return;
	}
	work->next = work->loop->undone;
	work->loop->undone = work;
}

static void nothing(void *arg)
{
	(void)arg;
}

static void start_work(struct work *work)
{
	struct sim *sim = work->loop->sim;
	if (work->lane != NULL)
		work->lane->running = true;
	uint64_t latency = sim_between(sim, sim->options.disk_us_min, sim->options.disk_us_max);
	sim_schedule(sim, latency + work->loop->host->faults.slow_us, work->loop, on_work, work, NULL);
}

void work_submit(struct loop *loop, struct work_lane *lane, struct work *work)
{
	work->loop = loop;
	work->lane = lane;
	work->next = NULL;
	if (loop->dead)
		return;
	if (lane == NULL || !lane->running) {
		start_work(work);
		return;
	}
	if (lane->last != NULL)
		lane->last->next = work;
	else
		lane->first = work;
	lane->last = work;
}

void sim_process_drop_work(struct loop *loop)
{
	check(loop->dead);
	struct sim *sim = loop->sim;
	struct work *dropped = loop->undone, **last = &dropped;
	loop->undone = NULL;
	while (*last != NULL)
		last = &(*last)->next;
	for (size_t i = 0; i < sim->heap_count + loop->parked_count; i++) {
		struct sim_event *event = i < sim->heap_count ? &sim->heap[i] : &loop->parked[i - sim->heap_count];
		if (event->loop != loop || event->generation != loop->id || event->fn != on_work)
			continue;
		struct work *work = event->arg;
		event->loop = NULL;
		event->fn = nothing;
		event->drop = NULL;
		*last = work;
		work->next = NULL;
		if (work->lane != NULL)
			work->next = work->lane->first;
		while (*last != NULL)
			last = &(*last)->next;
	}
	while (dropped != NULL) {
		struct work *work = dropped;
		dropped = work->next;
		work->done(work);
	}
}

/* No descriptors here. */
enum err watch_open(struct loop *loop, int descriptor, void (*readable)(void *arg), void *arg, struct watch **out)
{
	(void)loop;
	(void)descriptor;
	(void)readable;
	(void)arg;
	*out = NULL;
	return ERR_NOT_SUPPORTED;
}

void watch_close(struct watch *watch)
{
	check(watch == NULL);
}

void log_setup(const char *component, enum log_level least, enum log_format format)
{
	(void)component;
	(void)least;
	(void)format;
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };
	struct sim *sim = sim_current();
	if (sim == NULL)
		return;
	char pairs[SIM_LINE_BYTES];
	va_list args;
	va_start(args, format);
	vsnprintf(pairs, sizeof(pairs), format, args);
	va_end(args);
	sim_trace(sim, "%s: %s %s %s", sim->current == NULL ? "-" : sim->current->name, names[level], event, pairs);
}

const char *log_escape(const void *bytes, size_t size_bytes, char *out, size_t out_size)
{
	const unsigned char *from = bytes;
	size_t used = 0;
	for (size_t i = 0; i < size_bytes && used + 5 < out_size; i++) {
		if (from[i] > 0x20 && from[i] < 0x7f && from[i] != '"' && from[i] != '=')
			out[used++] = (char)from[i];
		else
			used += (size_t)snprintf(out + used, out_size - used, "\\x%02x", from[i]);
	}
	out[used] = '\0';
	return out;
}
