#include "tests/sim/history.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"

#define SHOWN 30u
#define NOTHING UINT32_MAX

enum fate { FATE_PENDING, FATE_DONE, FATE_REFUSED };
enum event_kind { EVENT_BEGIN, EVENT_END, EVENT_CUT };

struct operation {
	enum history_kind kind;
	enum fate fate;
	unsigned client;
	bool sync;
	uint64_t value;
	uint64_t begin_us, end_us;
	uint32_t number; /* of the register */
};

struct event {
	enum event_kind kind;
	uint32_t operation;
	uint64_t at_us;
};

struct events {
	struct event *items;
	uint32_t count, capacity;
	bool cut;      /* a power cut is among them */
	bool presence; /* a CREATE or REMOVE is: what is there matters though nobody reads it */
};

struct history {
	struct operation *operations;
	uint32_t count, capacity;
	struct events *registers;
	uint32_t register_count;
};

/* ---- recording ---- */

struct history *history_open(uint32_t registers)
{
	struct history *history = mem_zero(1, sizeof *history);
	history->registers = mem_zero(registers, sizeof *history->registers);
	history->register_count = registers;
	return history;
}

void history_close(struct history *history)
{
	for (uint32_t i = 0; i < history->register_count; i++)
		free(history->registers[i].items);
	free(history->registers);
	free(history->operations);
	free(history);
}

static void event_add(struct events *events, enum event_kind kind, uint32_t operation, uint64_t now_us)
{
	if (events->count == events->capacity) {
		events->capacity = events->capacity ? 2 * events->capacity : 16;
		events->items = mem_resize(events->items, events->capacity * sizeof *events->items);
	}
	events->items[events->count++] = (struct event){ .kind = kind, .operation = operation, .at_us = now_us };
}

uint32_t history_begin(struct history *history, uint32_t number, enum history_kind kind, uint64_t value, unsigned client, uint64_t now_us)
{
	check(number < history->register_count);
	check((value != 0) == (kind == HISTORY_WRITE || kind == HISTORY_CREATE));
	if (history->count == history->capacity) {
		history->capacity = history->capacity ? 2 * history->capacity : 1024;
		history->operations = mem_resize(history->operations, history->capacity * sizeof *history->operations);
	}
	history->operations[history->count] =
		(struct operation){ .kind = kind, .client = client, .value = value, .begin_us = now_us, .number = number };
	history->registers[number].presence |= kind == HISTORY_CREATE || kind == HISTORY_REMOVE;
	event_add(&history->registers[number], EVENT_BEGIN, history->count, now_us);
	return history->count++;
}

static struct operation *end(struct history *history, uint32_t number, enum fate fate, uint64_t now_us)
{
	check(number < history->count && history->operations[number].fate == FATE_PENDING);
	struct operation *operation = &history->operations[number];
	operation->fate = fate;
	operation->end_us = now_us;
	event_add(&history->registers[operation->number], EVENT_END, number, now_us);
	return operation;
}

void history_done(struct history *history, uint32_t operation, uint64_t value, uint64_t now_us)
{
	struct operation *done = end(history, operation, FATE_DONE, now_us);
	if (done->kind == HISTORY_READ)
		done->value = value;
}

void history_done_synced(struct history *history, uint32_t operation, uint64_t now_us)
{
	struct operation *done = end(history, operation, FATE_DONE, now_us);
	check(done->kind == HISTORY_WRITE);
	done->sync = true;
}

void history_refused(struct history *history, uint32_t operation, uint64_t now_us)
{
	check(end(history, operation, FATE_REFUSED, now_us)->kind >= HISTORY_CREATE);
}

void history_power_cut(struct history *history, uint32_t number, uint64_t now_us)
{
	check(number < history->register_count);
	history->registers[number].cut = true;
	event_add(&history->registers[number], EVENT_CUT, NOTHING, now_us);
}

/* ---- a state of one register ---- */

/* Equal states have equal bytes: no padding, unused entries are 0. */
struct state {
	uint64_t value;
	uint64_t done;	 /* pending operations, by slot, that have taken effect */
	uint64_t synced; /* and those whose sync has */
	uint32_t count;	 /* of `written`: values in order, the last one is `value`; */
	uint32_t floor;	 /* a power cut goes back to this one at most */
	uint64_t written[HISTORY_UNSYNCED_MAX];
};

struct set {
	struct state *states;
	uint32_t count, capacity;
	uint32_t *index; /* open addressing: state + 1; 0: free */
	uint32_t index_size;
};

struct checker {
	const struct history *history;
	const struct events *events;
	uint32_t pending[HISTORY_PENDING_MAX]; /* operation; NOTHING: free */
	struct set now, next;
	uint32_t *work; /* states of `next` to go on from */
	uint32_t work_count, work_capacity;
	bool gave_up;
};

static uint32_t state_hash(const struct state *state)
{
	return crc32c(state, offsetof(struct state, written) + state->count * sizeof state->written[0]) * 2654435761u;
}

static bool state_equal(const struct state *a, const struct state *b)
{
	return a->count == b->count && memcmp(a, b, offsetof(struct state, written) + a->count * sizeof a->written[0]) == 0;
}

static void set_clear(struct set *set)
{
	set->count = 0;
	if (set->index)
		memset(set->index, 0, set->index_size * sizeof *set->index);
}

static void set_free(struct set *set)
{
	free(set->states);
	free(set->index);
}

static void set_grow(struct set *set)
{
	set->capacity = set->capacity ? 2 * set->capacity : 64;
	set->states = mem_resize(set->states, set->capacity * sizeof *set->states);
	set->index_size = 4 * set->capacity;
	free(set->index);
	set->index = mem_zero(set->index_size, sizeof *set->index);
	for (uint32_t i = 0; i < set->count; i++) {
		uint32_t at = state_hash(&set->states[i]) % set->index_size;
		while (set->index[at])
			at = (at + 1) % set->index_size;
		set->index[at] = i + 1;
	}
}

/* True: it was not in it yet. */
static bool set_add(struct set *set, const struct state *state)
{
	if (set->count == set->capacity)
		set_grow(set);
	uint32_t at = state_hash(state) % set->index_size;
	for (; set->index[at]; at = (at + 1) % set->index_size)
		if (state_equal(&set->states[set->index[at] - 1], state))
			return false;
	set->index[at] = set->count + 1;
	set->states[set->count++] = *state;
	return true;
}

/* ---- taking effect ---- */

static bool only_looks(const struct operation *operation)
{
	return operation->kind == HISTORY_READ || operation->fate == FATE_REFUSED;
}

static bool is_seen(const struct operation *operation, const struct state *state)
{
	if (operation->kind == HISTORY_READ)
		return state->value == operation->value;
	return operation->kind == HISTORY_CREATE ? state->value != 0 : state->value == 0;
}

/* What only looks takes effect as soon as it can: that never hinders anything. So does a sync. */
static void look(const struct checker *checker, struct state *state)
{
	for (unsigned slot = 0; slot < HISTORY_PENDING_MAX; slot++) {
		uint64_t bit = 1ull << slot;
		if (checker->pending[slot] == NOTHING)
			continue;
		const struct operation *operation = &checker->history->operations[checker->pending[slot]];
		if (!(state->done & bit) && only_looks(operation) && is_seen(operation, state))
			state->done |= bit;
	}
}

static bool sync_step(const struct operation *operation, struct state *state, uint64_t bit)
{
	for (uint32_t i = state->count; i-- > 0;)
		if (state->written[i] == operation->value) {
			if (state->floor < i)
				state->floor = i;
			state->synced |= bit;
			return true;
		}
	return false;
}

/* What no power cut can reach and no sync refers to is forgotten. */
static void forget(const struct checker *checker, struct state *state)
{
	uint32_t kept = 0, floor = state->floor;
	for (uint32_t i = 0; i < state->count; i++) {
		bool wanted = i >= floor;
		for (unsigned slot = 0; slot < HISTORY_PENDING_MAX && !wanted; slot++)
			wanted = checker->pending[slot] != NOTHING &&
				 checker->history->operations[checker->pending[slot]].value == state->written[i];
		if (i == floor)
			state->floor = kept;
		if (wanted)
			state->written[kept++] = state->written[i];
	}
	memset(state->written + kept, 0, (state->count - kept) * sizeof state->written[0]);
	state->count = kept;
}

static void become(struct checker *checker, struct state *state, uint64_t value)
{
	state->value = value;
	if (checker->events->cut) {
		if (state->count == HISTORY_UNSYNCED_MAX)
			forget(checker, state);
		if (state->count == HISTORY_UNSYNCED_MAX)
			checker->gave_up = true;
		else
			state->written[state->count++] = value;
	}
	look(checker, state);
}

/* The operation takes effect, or its sync does. False: it cannot now. */
static bool step(struct checker *checker, const struct operation *operation, uint64_t bit, struct state *state)
{
	if (state->done & bit)
		return operation->sync && checker->events->cut && !(state->synced & bit) && sync_step(operation, state, bit);
	if (only_looks(operation))
		return false;
	if (operation->kind == HISTORY_CREATE && state->value != 0)
		return false;
	if (operation->kind == HISTORY_REMOVE && state->value == 0)
		return false;
	state->done |= bit;
	become(checker, state, operation->kind == HISTORY_REMOVE ? 0 : operation->value);
	return true;
}

static bool is_complete(const struct checker *checker, const struct operation *operation, uint64_t bit, const struct state *state)
{
	return (state->done & bit) && (!operation->sync || !checker->events->cut || (state->synced & bit));
}

static void work_add(struct checker *checker, uint32_t state)
{
	if (checker->work_count == checker->work_capacity) {
		checker->work_capacity = checker->work_capacity ? 2 * checker->work_capacity : 64;
		checker->work = mem_resize(checker->work, checker->work_capacity * sizeof *checker->work);
	}
	checker->work[checker->work_count++] = state;
}

static void try_add(struct checker *checker, const struct state *state)
{
	if (set_add(&checker->next, state))
		work_add(checker, checker->next.count - 1);
	checker->gave_up |= checker->next.count > HISTORY_STATES_MAX;
}

/* `next`: every state that `now` may become by operations under way; from those in which `last` (a slot; or none) is complete nothing
 * further follows. */
static void expand(struct checker *checker, unsigned last)
{
	set_clear(&checker->next);
	checker->work_count = 0;
	for (uint32_t i = 0; i < checker->now.count; i++)
		try_add(checker, &checker->now.states[i]);
	while (checker->work_count > 0 && !checker->gave_up) {
		struct state from = checker->next.states[checker->work[--checker->work_count]];
		if (last < HISTORY_PENDING_MAX &&
		    is_complete(checker, &checker->history->operations[checker->pending[last]], 1ull << last, &from))
			continue;
		for (unsigned slot = 0; slot < HISTORY_PENDING_MAX; slot++) {
			struct state to = from;
			if (checker->pending[slot] != NOTHING &&
			    step(checker, &checker->history->operations[checker->pending[slot]], 1ull << slot, &to))
				try_add(checker, &to);
		}
	}
}

/* ---- events ---- */

/* An operation without an answer that changes nothing that anybody saw: it may as well not have taken effect. */
static bool is_irrelevant(const struct checker *checker, const struct operation *operation)
{
	if (operation->fate != FATE_PENDING)
		return false;
	if (operation->kind == HISTORY_READ)
		return true;
	for (uint32_t i = 0; i < checker->events->count && !checker->events->presence; i++) {
		const struct event *event = &checker->events->items[i];
		const struct operation *other = event->kind == EVENT_END ? &checker->history->operations[event->operation] : NULL;
		if (other && other->kind == HISTORY_READ && other->value == operation->value)
			return false;
	}
	return !checker->events->presence;
}

static void on_begin(struct checker *checker, uint32_t number)
{
	unsigned slot = 0;
	if (is_irrelevant(checker, &checker->history->operations[number]))
		return;
	while (slot < HISTORY_PENDING_MAX && checker->pending[slot] != NOTHING)
		slot++;
	if (slot == HISTORY_PENDING_MAX) {
		checker->gave_up = true;
		return;
	}
	checker->pending[slot] = number;
	set_clear(&checker->next);
	for (uint32_t i = 0; i < checker->now.count; i++) {
		struct state state = checker->now.states[i];
		look(checker, &state);
		set_add(&checker->next, &state);
	}
}

static void on_end(struct checker *checker, uint32_t number)
{
	const struct operation *operation = &checker->history->operations[number];
	unsigned slot = 0;
	while (slot < HISTORY_PENDING_MAX && checker->pending[slot] != number)
		slot++;
	check(slot < HISTORY_PENDING_MAX);
	expand(checker, slot);
	struct set reached = checker->next;
	checker->next = checker->now;
	set_clear(&checker->next);
	checker->pending[slot] = NOTHING;
	for (uint32_t i = 0; i < reached.count; i++) {
		struct state state = reached.states[i];
		if (!is_complete(checker, operation, 1ull << slot, &state))
			continue;
		state.done &= ~(1ull << slot);
		state.synced &= ~(1ull << slot);
		forget(checker, &state);
		set_add(&checker->next, &state);
	}
	checker->now = reached;
}

/* Operations under way that have taken effect in `state`, with a value behind the one that is kept: what was lost may be done again. */
static uint64_t lost_by(const struct checker *checker, const struct state *state, uint32_t kept)
{
	uint64_t lost = 0;
	for (unsigned slot = 0; slot < HISTORY_PENDING_MAX; slot++) {
		if (checker->pending[slot] == NOTHING || !(state->done >> slot & 1))
			continue;
		const struct operation *operation = &checker->history->operations[checker->pending[slot]];
		for (uint32_t i = kept + 1; i < state->count && !only_looks(operation); i++)
			if (state->written[i] == operation->value)
				lost |= 1ull << slot;
	}
	return lost;
}

static void cut_to(struct checker *checker, const struct state *from, uint32_t kept)
{
	uint64_t lost = lost_by(checker, from, kept), again = lost;
	struct state state = *from;
	memset(state.written + kept + 1, 0, (state.count - kept - 1) * sizeof state.written[0]);
	state.count = kept + 1; /* and may go back further at the next one: that may meet another replica */
	state.value = state.written[kept];
	for (;;) { /* each subset of the lost ones */
		struct state to = state;
		to.done &= ~again;
		look(checker, &to);
		forget(checker, &to);
		set_add(&checker->next, &to);
		if (again == 0)
			return;
		again = (again - 1) & lost;
	}
}

static void on_cut(struct checker *checker)
{
	expand(checker, HISTORY_PENDING_MAX);
	struct set reached = checker->next;
	checker->next = checker->now;
	set_clear(&checker->next);
	for (uint32_t i = 0; i < reached.count && !checker->gave_up; i++)
		for (uint32_t kept = reached.states[i].floor; kept < reached.states[i].count; kept++) {
			cut_to(checker, &reached.states[i], kept);
			checker->gave_up |= checker->next.count > HISTORY_STATES_MAX;
		}
	checker->now = reached;
}

static void show(const struct history *history, const struct events *events, uint32_t until, FILE *out)
{
	static const char *const kinds[] = { "read", "write", "create", "remove" };
	static const char *const fates[] = { "no answer", "done", "refused" };
	static const char *const sides[] = { "begins", "ends", "power cut" };
	for (uint32_t i = until > SHOWN ? until - SHOWN : 0; i <= until; i++) {
		const struct event *event = &events->items[i];
		fprintf(out, "%10.3f ms %s", (double)event->at_us / 1000, sides[event->kind]);
		if (event->operation != NOTHING) {
			const struct operation *operation = &history->operations[event->operation];
			fprintf(out, ": client %u %s %" PRIu64 " (operation %" PRIu32 ", %s%s)", operation->client, kinds[operation->kind],
				operation->value, event->operation, fates[operation->fate], operation->sync ? ", synced" : "");
		}
		fprintf(out, "\n");
	}
}

static void show_states(const struct set *before, FILE *out)
{
	fprintf(out, "the value could be:");
	for (uint32_t i = 0; i < before->count && i < SHOWN; i++)
		fprintf(out, " %" PRIu64, before->states[i].value);
	fprintf(out, "\n");
}

/* False: it cannot be. */
static bool check_register(struct checker *checker, uint32_t number, struct history_report *report, FILE *out)
{
	checker->events = &checker->history->registers[number];
	checker->gave_up = false;
	for (unsigned i = 0; i < HISTORY_PENDING_MAX; i++)
		checker->pending[i] = NOTHING;
	set_clear(&checker->now);
	set_add(&checker->now, &(struct state){ .count = checker->events->cut ? 1 : 0 });
	for (uint32_t i = 0; i < checker->events->count && !checker->gave_up; i++) {
		const struct event *event = &checker->events->items[i];
		if (event->kind == EVENT_BEGIN && is_irrelevant(checker, &checker->history->operations[event->operation]))
			continue;
		if (event->kind == EVENT_BEGIN)
			on_begin(checker, event->operation);
		else if (event->kind == EVENT_END)
			on_end(checker, event->operation);
		else
			on_cut(checker);
		if (checker->next.count == 0 && !checker->gave_up) {
			fprintf(out, "register %" PRIu32 ": not linearizable at its event %" PRIu32 ":\n", number, i);
			show(checker->history, checker->events, i, out);
			show_states(&checker->now, out);
			return false;
		}
		struct set before = checker->now;
		checker->now = checker->next;
		checker->next = before;
		if (report->states_max < checker->now.count)
			report->states_max = checker->now.count;
	}
	report->undecided += checker->gave_up;
	return true;
}

bool history_check(const struct history *history, struct history_report *report, FILE *out)
{
	struct checker checker = { .history = history };
	bool possible = true;
	*report = (struct history_report){ .operations = history->count };
	for (uint32_t i = 0; possible && i < history->register_count; i++)
		possible = check_register(&checker, i, report, out);
	set_free(&checker.now);
	set_free(&checker.next);
	free(checker.work);
	return possible;
}
