#include "tests/sim/sys/sim_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"

/* The one global of the simulator: log_event has no context of its own. */
static struct sim *the_sim;

struct sim *sim_current(void)
{
	return the_sim;
}

struct sim *sim_open(const struct sim_options *options)
{
	check(the_sim == NULL);
	struct sim *sim = mem_zero(1, sizeof(*sim));
	sim->options = *options;
	if (sim->options.net_us_max == 0) {
		sim->options.net_us_min = 50;
		sim->options.net_us_max = 500;
	}
	if (sim->options.disk_us_max == 0) {
		sim->options.disk_us_min = 50;
		sim->options.disk_us_max = 1000;
	}
	rng_init(&sim->rng, options->seed);
	sim->now_us = 1000000;
	sim->trace = mem_zero(SIM_TRACE_LINES, SIM_LINE_BYTES);
	the_sim = sim;
	return sim;
}

void sim_close(struct sim *sim)
{
	check(sim->loops == NULL);
	sim_conns_close(sim);
	for (size_t i = 0; i < sim->heap_count; i++)
		if (sim->heap[i].drop != NULL)
			sim->heap[i].drop(sim->heap[i].arg);
	for (size_t i = 0; i < sim->host_count; i++) {
		sim_disk_close(sim->hosts[i]->disk);
		free(sim->hosts[i]);
	}
	free(sim->heap);
	free(sim->trace);
	free(sim);
	the_sim = NULL;
}

struct rng *sim_rng(struct sim *sim)
{
	return &sim->rng;
}

uint64_t sim_now_us(const struct sim *sim)
{
	return sim->now_us;
}

uint64_t sim_steps(const struct sim *sim)
{
	return sim->steps;
}

uint64_t sim_between(struct sim *sim, uint64_t least, uint64_t most)
{
	return most <= least ? least : least + rng_below(&sim->rng, most - least + 1);
}

bool sim_chance(struct sim *sim, uint32_t per_million)
{
	return per_million != 0 && rng_below(&sim->rng, 1000000) < per_million;
}

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void heap_push(struct sim *sim, const struct sim_event *event)
{
	if (sim->heap_count == sim->heap_capacity) {
		sim->heap_capacity = sim->heap_capacity == 0 ? 256 : 2 * sim->heap_capacity;
		sim->heap = mem_resize(sim->heap, sim->heap_capacity * sizeof(sim->heap[0]));
	}
	size_t at = sim->heap_count++;
	while (at > 0 && event_before(event, &sim->heap[(at - 1) / 2])) {
		sim->heap[at] = sim->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	sim->heap[at] = *event;
}

static struct sim_event heap_pop(struct sim *sim)
{
	struct sim_event first = sim->heap[0];
	struct sim_event last = sim->heap[--sim->heap_count];
	size_t at = 0;
	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= sim->heap_count)
			break;
		if (child + 1 < sim->heap_count && event_before(&sim->heap[child + 1], &sim->heap[child]))
			child++;
		if (!event_before(&sim->heap[child], &last))
			break;
		sim->heap[at] = sim->heap[child];
		at = child;
	}
	if (sim->heap_count > 0)
		sim->heap[at] = last;
	return first;
}

void sim_schedule(struct sim *sim, uint64_t delay_us, struct loop *loop, void (*fn)(void *arg), void *arg,
		  void (*drop)(void *arg))
{
	heap_push(sim, &(struct sim_event){ .at_us = sim->now_us + delay_us, .order = sim->order++, .loop = loop,
					    .generation = loop == NULL ? 0 : loop->id, .fn = fn, .arg = arg, .drop = drop });
}

void sim_after(struct sim *sim, uint64_t delay_us, void (*fn)(void *arg), void *arg)
{
	sim_schedule(sim, delay_us, NULL, fn, arg, NULL);
}

/* A loop's address may be used again by a later process: the generation tells them apart. */
static bool event_is_void(const struct sim *sim, const struct sim_event *event)
{
	if (event->loop == NULL)
		return false;
	for (const struct loop *loop = sim->loops; loop != NULL; loop = loop->next)
		if (loop == event->loop && loop->id == event->generation)
			return loop->dead;
	return true;
}

static void park(struct loop *loop, const struct sim_event *event)
{
	if (loop->parked_count == loop->parked_capacity) {
		loop->parked_capacity = loop->parked_capacity == 0 ? 16 : 2 * loop->parked_capacity;
		loop->parked = mem_resize(loop->parked, loop->parked_capacity * sizeof(loop->parked[0]));
	}
	loop->parked[loop->parked_count++] = *event;
}

/* After code that ran outside of every event may have started timers anywhere. */
static void arm_all(struct sim *sim)
{
	for (struct loop *loop = sim->loops; loop != NULL; loop = loop->next)
		if (!loop->dead)
			sim_loop_arm(loop);
}

static void run_event(struct sim *sim, const struct sim_event *event)
{
	struct loop *outer = sim->current;
	sim->current = event->loop;
	event->fn(event->arg);
	struct loop *loop = event->loop;
	if (loop == NULL) {
		arm_all(sim);
	} else if (!event_is_void(sim, event)) {
		loop_core_run_defers(&loop->core);
		sim_loop_arm(loop);
	}
	sim->current = outer;
}

bool sim_step(struct sim *sim)
{
	if (sim->heap_count == 0)
		return false;
	struct sim_event event = heap_pop(sim);
	sim->now_us = event.at_us;
	sim->steps++;
	if (event_is_void(sim, &event)) {
		if (event.drop != NULL)
			event.drop(event.arg);
	} else if (event.loop != NULL && event.loop->paused) {
		park(event.loop, &event);
	} else {
		run_event(sim, &event);
	}
	return true;
}

bool sim_run(struct sim *sim, uint64_t limit_us, bool (*done)(void *arg), void *arg)
{
	uint64_t end = sim->now_us + limit_us;
	arm_all(sim);
	for (;;) {
		if (done != NULL && done(arg))
			return true;
		if (sim->heap_count == 0 || sim->heap[0].at_us > end)
			break;
		sim_step(sim);
	}
	sim->now_us = end;
	return false;
}

struct sim_host *sim_host_open(struct sim *sim, const char *name)
{
	check(sim->host_count < SIM_HOSTS_MAX);
	struct sim_host *host = mem_zero(1, sizeof(*host));
	host->sim = sim;
	snprintf(host->name, sizeof(host->name), "%s", name);
	host->index = sim->host_count;
	host->up = true;
	host->clock_set_us = sim->now_us;
	host->clock_base_us = sim_between(sim, 1000000, 100000000);
	host->boot_id = rng_next(&sim->rng);
	host->next_port = 7001;
	host->disk = sim_disk_open(host);
	sim->hosts[sim->host_count++] = host;
	sim->open_host = host;
	return host;
}

void sim_use_host(struct sim_host *host)
{
	host->sim->open_host = host;
}

bool sim_host_is_up(const struct sim_host *host)
{
	return host->up;
}

void sim_host_power_cut(struct sim_host *host)
{
	if (!host->up)
		return;
	sim_trace(host->sim, "power_cut host=%s", host->name);
	host->up = false;
	host->cut_after = 0;
	for (struct loop *loop = host->sim->loops; loop != NULL; loop = loop->next) {
		if (loop->host != host || loop->dead)
			continue;
		loop->dead = true;
		sim_conns_killed(loop, true);
		sim_disk_process_died(host->disk, loop);
	}
	sim_disk_power_cut(host->disk);
	if (host->sim->power_cut != NULL)
		host->sim->power_cut(host->sim->power_cut_arg, host);
}

void sim_on_power_cut(struct sim *sim, void (*fn)(void *arg, struct sim_host *host), void *arg)
{
	sim->power_cut = fn;
	sim->power_cut_arg = arg;
}

void sim_on_sync(struct sim *sim, void (*fn)(void *arg, struct sim_host *host, bool done), void *arg)
{
	sim->on_sync = fn;
	sim->on_sync_arg = arg;
}

void sim_lose_unsynced(struct sim *sim, bool all)
{
	sim->lose_unsynced = all;
}

void sim_host_start(struct sim_host *host)
{
	check(!host->up);
	sim_trace(host->sim, "start host=%s", host->name);
	host->up = true;
	host->boot_id = rng_next(&host->sim->rng);
}

void sim_host_power_cut_after(struct sim_host *host, uint64_t disk_operations)
{
	host->cut_after = disk_operations;
}

void sim_host_set_disk(struct sim_host *host, const struct sim_disk_faults *faults)
{
	host->faults = *faults;
}

void sim_host_stick_disk(struct sim_host *host, bool stuck)
{
	sim_trace(host->sim, "disk %s host=%s", stuck ? "stuck" : "released", host->name);
	host->stuck = stuck;
}

void sim_process_kill(struct loop *loop)
{
	if (loop->dead)
		return;
	sim_trace(loop->sim, "kill process=%s host=%s", loop->name, loop->host->name);
	loop->dead = true;
	sim_conns_killed(loop, false);
	sim_disk_process_died(loop->host->disk, loop);
}

bool sim_process_is_dead(const struct loop *loop)
{
	return loop->dead;
}

void sim_process_pause(struct loop *loop, bool paused)
{
	if (loop->paused == paused)
		return;
	sim_trace(loop->sim, "%s process=%s", paused ? "pause" : "continue", loop->name);
	loop->paused = paused;
	if (paused)
		return;
	for (size_t i = 0; i < loop->parked_count; i++) {
		struct sim_event event = loop->parked[i];
		event.at_us = loop->sim->now_us;
		event.order = loop->sim->order++;
		heap_push(loop->sim, &event);
	}
	loop->parked_count = 0;
}

void sim_cut(struct sim *sim, struct sim_host *from, struct sim_host *to, bool cut)
{
	sim_trace(sim, "%s from=%s to=%s", cut ? "cut" : "heal", from->name, to->name);
	sim->cut[from->index][to->index] = cut;
}

void sim_heal(struct sim *sim)
{
	sim_trace(sim, "heal_all");
	memset(sim->cut, 0, sizeof(sim->cut));
}

void sim_set_link(struct sim *sim, struct sim_host *from, struct sim_host *to, const struct sim_link *link)
{
	sim_trace(sim, "link from=%s to=%s delay_us=%" PRIu64 " bytes_per_second=%" PRIu64, from->name, to->name,
		  link == NULL ? 0 : link->delay_us, link == NULL ? 0 : link->bytes_per_second);
	sim->links[from->index][to->index] = (struct link){ .how = link == NULL ? (struct sim_link){ 0 } : *link };
}

void sim_trace(struct sim *sim, const char *format, ...)
{
	char *line = sim->trace[sim->trace_count++ % SIM_TRACE_LINES];
	int used = snprintf(line, SIM_LINE_BYTES, "%10.3f ms ", (double)sim->now_us / 1000);
	va_list args;
	va_start(args, format);
	vsnprintf(line + used, (size_t)(SIM_LINE_BYTES - used), format, args);
	va_end(args);
	size_t size = strlen(line);
	sim->trace_digest = sim->trace_digest * 0x9e3779b97f4a7c15u + crc32c(line, size);
	if (sim->options.verbose)
		fprintf(stderr, "%s\n", line);
}

void sim_print_trace(const struct sim *sim, FILE *out)
{
	uint64_t first = sim->trace_count > SIM_TRACE_LINES ? sim->trace_count - SIM_TRACE_LINES : 0;
	for (uint64_t i = first; i < sim->trace_count; i++)
		fprintf(out, "%s\n", sim->trace[i % SIM_TRACE_LINES]);
}

uint64_t sim_trace_digest(const struct sim *sim)
{
	return sim->trace_digest;
}
