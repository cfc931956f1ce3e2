#include "common/sys/timer.h"

#include <stdlib.h>

#include "common/base/check.h"

/* Rounds of defers posted by defers within one iteration. */
#define DEFER_ROUNDS_MAX 16

void loop_core_deinit(struct loop_core *core)
{
	free(core->timers);
	*core = (struct loop_core){ 0 };
}

uint64_t loop_core_due_ms(const struct loop_core *core)
{
	return core->timers_count == 0 ? UINT64_MAX : core->timers[0]->due_ms;
}

static void place(struct loop_core *core, size_t index, struct timer *timer)
{
	core->timers[index] = timer;
	timer->place = index + 1;
}

static void sift_up(struct loop_core *core, size_t index, struct timer *timer)
{
	while (index > 0) {
		size_t parent = (index - 1) / 2;
		if (core->timers[parent]->due_ms <= timer->due_ms)
			break;
		place(core, index, core->timers[parent]);
		index = parent;
	}
	place(core, index, timer);
}

static void sift_down(struct loop_core *core, size_t index, struct timer *timer)
{
	for (;;) {
		size_t child = 2 * index + 1;
		if (child >= core->timers_count)
			break;
		if (child + 1 < core->timers_count && core->timers[child + 1]->due_ms < core->timers[child]->due_ms)
			child++;
		if (core->timers[child]->due_ms >= timer->due_ms)
			break;
		place(core, index, core->timers[child]);
		index = child;
	}
	place(core, index, timer);
}

void timer_init(struct timer *timer, struct loop *loop, void (*fn)(void *arg), void *arg)
{
	*timer = (struct timer){ .loop = loop, .fn = fn, .arg = arg };
}

void timer_start(struct timer *timer, uint64_t delay_ms)
{
	check(timer->fn != NULL);
	timer_stop(timer);
	struct loop_core *core = loop_core(timer->loop);
	if (core->timers_count == core->timers_capacity) {
		core->timers_capacity = core->timers_capacity == 0 ? 64 : 2 * core->timers_capacity;
		core->timers = mem_resize(core->timers, core->timers_capacity * sizeof(core->timers[0]));
	}
	uint64_t now = loop_now_ms(timer->loop);
	timer->phase = core->phase;
	timer->due_ms = delay_ms > UINT64_MAX - 1 - now ? UINT64_MAX - 1 : now + delay_ms;
	sift_up(core, core->timers_count++, timer);
}

void timer_stop(struct timer *timer)
{
	if (timer->place == 0)
		return;
	struct loop_core *core = loop_core(timer->loop);
	size_t index = timer->place - 1;
	check(index < core->timers_count && core->timers[index] == timer);
	timer->place = 0;
	struct timer *last = core->timers[--core->timers_count];
	if (last == timer)
		return;
	if (index > 0 && core->timers[(index - 1) / 2]->due_ms > last->due_ms)
		sift_up(core, index, last);
	else
		sift_down(core, index, last);
}

bool timer_is_running(const struct timer *timer)
{
	return timer->place != 0;
}

void loop_core_run_timers(struct loop_core *core, uint64_t now_ms)
{
	core->phase++;
	/* A call that starts its own timer with no delay would go on for ever: what is started meanwhile comes in the next iteration, and with
	 * it what happens to lie behind it. */
	while (core->timers_count > 0 && core->timers[0]->due_ms <= now_ms && core->timers[0]->phase != core->phase) {
		struct timer *timer = core->timers[0];
		timer_stop(timer);
		timer->fn(timer->arg);
	}
	core->phase++;
}

void defer_init(struct defer *defer, struct loop *loop, void (*fn)(void *arg), void *arg)
{
	*defer = (struct defer){ .loop = loop, .fn = fn, .arg = arg };
}

static void list_append(struct defer_list *list, struct defer *defer)
{
	check(defer->fn != NULL);
	defer->posted = true;
	defer->next = NULL;
	defer->previous = list->last;
	if (list->last != NULL)
		list->last->next = defer;
	else
		list->first = defer;
	list->last = defer;
}

void defer_post(struct defer *defer)
{
	if (!defer->posted)
		list_append(&loop_core(defer->loop)->defers, defer);
}

void loop_core_post_flush(struct loop_core *core, struct defer *defer)
{
	if (!defer->posted)
		list_append(&core->flushes, defer);
}

void defer_cancel(struct defer *defer)
{
	if (!defer->posted)
		return;
	struct loop_core *core = loop_core(defer->loop);
	struct defer_list *list = &core->defers;
	if (core->flushes.first == defer || core->flushes.last == defer)
		list = &core->flushes;
	if (defer->previous != NULL)
		defer->previous->next = defer->next;
	else
		list->first = defer->next;
	if (defer->next != NULL)
		defer->next->previous = defer->previous;
	else
		list->last = defer->previous;
	defer->next = defer->previous = NULL;
	defer->posted = false;
}

bool loop_core_has_defers(const struct loop_core *core)
{
	return core->defers.first != NULL || core->flushes.first != NULL;
}

/* Calls as many as are in the list now. The list stays whole meanwhile, so that each may cancel any other. */
static void run_round(struct defer_list *list)
{
	size_t count = 0;
	for (const struct defer *defer = list->first; defer != NULL; defer = defer->next)
		count++;
	while (count-- > 0 && list->first != NULL) {
		struct defer *defer = list->first;
		defer_cancel(defer);
		defer->fn(defer->arg);
	}
}

void loop_core_run_defers(struct loop_core *core)
{
	for (int round = 0; round < DEFER_ROUNDS_MAX && loop_core_has_defers(core); round++) {
		if (core->defers.first != NULL)
			run_round(&core->defers);
		else
			run_round(&core->flushes);
	}
}
