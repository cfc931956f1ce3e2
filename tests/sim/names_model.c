#include "tests/sim/names_model.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/err.h"

#define ENTRIES_MAX 120u
#define PENDING_MAX 8u
#define STATES_MAX 4096u
#define SHOWN 25u

enum event_kind { EVENT_BEGIN, EVENT_END, EVENT_WEAK, EVENT_SETTLED };

struct event {
	enum event_kind kind;
	uint32_t number;
};

struct model {
	struct record *records;
	uint32_t count, capacity;
	struct event *events;
	uint32_t event_count, event_capacity;
	bool is_directory[MODEL_WILD];
};

/* A name that leads somewhere. */
struct entry {
	uint16_t directory, inode, mode;
	uint8_t name;
};

/* Equal states have equal bytes. */
struct state {
	struct entry entries[ENTRIES_MAX]; /* in order */
	uint16_t count;
	uint16_t modes[MODEL_SHARED + 1];
	uint8_t done; /* pending operations that have taken effect */
};

struct checker {
	const struct model *model;
	struct state *states, *work, *out;
	uint32_t count, work_count, out_count, states_max;
	uint32_t pending[PENDING_MAX]; /* numbers + 1; 0: free */
	/* Changes that may come true at any time, by what they change. */
	uint8_t weak[MODEL_WILD][MODEL_NAMES];
	uint8_t weak_mode[MODEL_WILD];
	bool doubtful[MODEL_WILD + 1]; /* directories that a weak change made, moved or removed */
};

/* ---- the history ---- */

struct model *model_open(void)
{
	struct model *model = mem_zero(1, sizeof *model);
	for (uint16_t i = 1; i <= MODEL_SHARED; i++)
		model->is_directory[i] = true;
	return model;
}

void model_close(struct model *model)
{
	free(model->records);
	free(model->events);
	free(model);
}

void model_directory(struct model *model, uint16_t inode)
{
	model->is_directory[inode] = true;
}

struct record *model_record(struct model *model, uint32_t number)
{
	check(number < model->count);
	return &model->records[number];
}

uint32_t model_count(const struct model *model)
{
	return model->count;
}

static void event_add(struct model *model, enum event_kind kind, uint32_t number)
{
	if (model->event_count == model->event_capacity) {
		model->event_capacity = model->event_capacity ? 2 * model->event_capacity : 1024;
		model->events = mem_resize(model->events, model->event_capacity * sizeof *model->events);
	}
	model->events[model->event_count++] = (struct event){ .kind = kind, .number = number };
}

uint32_t model_begin(struct model *model, const struct record *record)
{
	if (model->count == model->capacity) {
		model->capacity = model->capacity ? 2 * model->capacity : 1024;
		model->records = mem_resize(model->records, model->capacity * sizeof *model->records);
	}
	model->records[model->count] = *record;
	model->records[model->count].begin_at = model->event_count;
	event_add(model, EVENT_BEGIN, model->count);
	return model->count++;
}

void model_end(struct model *model, uint32_t number, uint64_t now_us)
{
	struct record *record = model_record(model, number);
	check(record->fate == RECORD_PENDING);
	record->fate = RECORD_ENDED;
	record->end_us = now_us;
	record->end_at = model->event_count;
	event_add(model, EVENT_END, number);
}

void model_unknown(struct model *model, uint32_t number)
{
	struct record *record = model_record(model, number);
	check(record->fate == RECORD_PENDING);
	record->fate = RECORD_UNKNOWN;
}

void model_weak(struct model *model, uint32_t number)
{
	struct record *record = model_record(model, number);
	check(record->deferred && !record->weak && !record->settled);
	record->weak = true;
	event_add(model, EVENT_WEAK, number);
}

void model_settled(struct model *model, uint32_t number)
{
	struct record *record = model_record(model, number);
	check(!record->settled);
	record->settled = true;
	if (record->weak)
		event_add(model, EVENT_SETTLED, number);
}

/* ---- a state ---- */

static struct entry *find(struct state *state, uint16_t directory, uint8_t name)
{
	for (unsigned i = 0; i < state->count; i++)
		if (state->entries[i].directory == directory && state->entries[i].name == name)
			return &state->entries[i];
	return NULL;
}

static uint16_t get(struct state *state, uint16_t directory, uint8_t name)
{
	const struct entry *entry = find(state, directory, name);
	return entry ? entry->inode : MODEL_NOTHING;
}

static void erase(struct state *state, const struct entry *entry)
{
	size_t i = (size_t)(entry - state->entries);
	memmove(&state->entries[i], &state->entries[i + 1], (state->count - i - 1) * sizeof *entry);
	state->count--;
	memset(&state->entries[state->count], 0, sizeof *entry);
}

/* Whatever it is, while a weak change may change it at any time. */
static void put(struct checker *checker, struct state *state, uint16_t directory, uint8_t name, uint16_t inode, uint16_t mode)
{
	struct entry *entry = find(state, directory, name);
	if (checker->weak[directory][name] > 0) {
		checker->doubtful[inode] = true;
		inode = mode = MODEL_WILD;
	}
	if (inode == MODEL_NOTHING) {
		if (entry)
			erase(state, entry);
		return;
	}
	if (!entry) {
		unsigned i = state->count;
		check(state->count < ENTRIES_MAX);
		while (i > 0 && (state->entries[i - 1].directory > directory ||
				 (state->entries[i - 1].directory == directory && state->entries[i - 1].name > name)))
			i--;
		entry = &state->entries[i];
		memmove(entry + 1, entry, (state->count++ - i) * sizeof *entry);
		memset(entry, 0, sizeof *entry);
	}
	entry->directory = directory;
	entry->name = name;
	entry->inode = inode;
	entry->mode = mode;
}

static const struct entry *entry_of(const struct state *state, uint16_t inode)
{
	for (unsigned i = 0; i < state->count; i++)
		if (state->entries[i].inode == inode)
			return &state->entries[i];
	return NULL;
}

/* The directory is certainly there, or may be. */
static bool is_there(const struct state *state, uint16_t directory)
{
	return directory <= MODEL_SHARED || entry_of(state, directory);
}

static bool may_be_there(struct checker *checker, const struct state *state, uint16_t directory)
{
	return is_there(state, directory) || checker->doubtful[directory];
}

static uint16_t mode_of(struct checker *checker, const struct state *state, uint16_t directory)
{
	const struct entry *entry = entry_of(state, directory);
	if (checker->weak_mode[directory] > 0)
		return MODEL_WILD;
	return directory <= MODEL_SHARED ? state->modes[directory] : entry ? entry->mode : MODEL_WILD;
}

static void set_mode(struct state *state, uint16_t directory, uint16_t mode)
{
	for (unsigned i = 0; i < state->count; i++)
		if (state->entries[i].inode == directory)
			state->entries[i].mode = mode;
	if (directory <= MODEL_SHARED)
		state->modes[directory] = mode;
}

/* Somebody meant to have this inode there. */
static bool was_placed(struct checker *checker, uint16_t directory, uint8_t name, uint16_t inode)
{
	const struct model *model = checker->model;
	for (uint32_t i = model->count; i-- > 0;) {
		const struct record *record = &model->records[i];
		bool unknown = record->fate != RECORD_ENDED;
		if (record->kind == RECORD_CREATE && record->directory == directory && record->name == name &&
		    (record->inode == inode || unknown))
			return true;
		if (record->kind == RECORD_RENAME && record->to_directory == directory && record->to_name == name &&
		    (record->inode == inode || unknown))
			return true;
	}
	return false;
}

/* The name may lead to this inode, or nowhere. */
static bool may_be(struct checker *checker, struct state *state, uint16_t directory, uint8_t name, uint16_t inode)
{
	uint16_t now = get(state, directory, name);
	return now == inode ||
	       (now == MODEL_WILD && (inode == MODEL_NOTHING || was_placed(checker, directory, name, inode)));
}

/* ---- operations: whether the answer can be true, and what the state is then ---- */

static bool is_directory(struct checker *checker, uint16_t inode)
{
	return inode != MODEL_WILD && checker->model->is_directory[inode];
}

static bool has_certain_names(const struct state *state, uint16_t directory)
{
	for (unsigned i = 0; i < state->count; i++)
		if (state->entries[i].directory == directory && state->entries[i].inode != MODEL_WILD)
			return true;
	return false;
}

static bool has_names(const struct state *state, uint16_t directory)
{
	for (unsigned i = 0; i < state->count; i++)
		if (state->entries[i].directory == directory)
			return true;
	return false;
}

static void forget_names(struct state *state, uint16_t directory)
{
	for (unsigned i = state->count; i-- > 0;)
		if (state->entries[i].directory == directory)
			erase(state, &state->entries[i]);
}

/* Errors of an operation on what `now` is, that wants a directory, or wants none. */
static bool kind_error(struct checker *checker, const struct state *state, uint16_t now, enum err err, bool wants_directory)
{
	if (now == MODEL_WILD)
		return err == ERR_IS_DIRECTORY || err == ERR_NOT_DIRECTORY || err == ERR_NOT_EMPTY;
	if (now == MODEL_NOTHING)
		return false;
	if (err == ERR_NOT_DIRECTORY)
		return wants_directory && !is_directory(checker, now);
	if (err == ERR_IS_DIRECTORY)
		return !wants_directory && is_directory(checker, now);
	return err == ERR_NOT_EMPTY && wants_directory && is_directory(checker, now) && has_names(state, now);
}

static bool apply_create(struct checker *checker, struct state *state, const struct record *record)
{
	uint16_t now = get(state, record->directory, record->name);
	if (record->err == ERR_EXISTS)
		return now != MODEL_NOTHING;
	if (record->err || (now != MODEL_NOTHING && now != MODEL_WILD))
		return false;
	put(checker, state, record->directory, record->name, record->inode, record->mode);
	return true;
}

static bool apply_unlink(struct checker *checker, struct state *state, const struct record *record)
{
	bool directory = record->kind == RECORD_RMDIR;
	uint16_t now = get(state, record->directory, record->name);
	if (record->err == ERR_NOT_FOUND)
		return now == MODEL_NOTHING || now == MODEL_WILD;
	if (record->err)
		return kind_error(checker, state, now, record->err, directory);
	if (!may_be(checker, state, record->directory, record->name, record->inode) || record->inode == MODEL_NOTHING ||
	    is_directory(checker, record->inode) != directory || (directory && has_certain_names(state, record->inode)))
		return false;
	put(checker, state, record->directory, record->name, MODEL_NOTHING, 0);
	if (directory)
		forget_names(state, record->inode);
	return true;
}

static bool apply_rename(struct checker *checker, struct state *state, const struct record *record)
{
	uint16_t now = get(state, record->directory, record->name);
	uint16_t target = get(state, record->to_directory, record->to_name);
	if (record->err == ERR_NOT_FOUND)
		return now == MODEL_NOTHING || now == MODEL_WILD;
	if (record->err)
		return now != MODEL_NOTHING && ((now == MODEL_WILD && target != MODEL_NOTHING) ||
						kind_error(checker, state, target, record->err, is_directory(checker, now)));
	bool directory = is_directory(checker, record->inode);
	if (record->inode == MODEL_NOTHING || !may_be(checker, state, record->directory, record->name, record->inode) ||
	    !may_be(checker, state, record->to_directory, record->to_name, record->replaced))
		return false;
	if (record->replaced != MODEL_NOTHING &&
	    (directory != is_directory(checker, record->replaced) || has_certain_names(state, record->replaced)))
		return false;
	uint16_t mode = directory ? mode_of(checker, state, record->inode) : 0;
	put(checker, state, record->directory, record->name, MODEL_NOTHING, 0);
	put(checker, state, record->to_directory, record->to_name, record->inode, mode);
	if (record->replaced != MODEL_NOTHING)
		forget_names(state, record->replaced);
	return true;
}

static bool apply_readdir(struct checker *checker, struct state *state, const struct record *record)
{
	for (uint8_t name = 0; name < MODEL_NAMES; name++) {
		if (!may_be(checker, state, record->directory, name, record->found[name]))
			return false;
		if (get(state, record->directory, name) == MODEL_WILD)
			put(checker, state, record->directory, name, record->found[name], MODEL_WILD);
	}
	return true;
}

static bool apply_getattr(struct checker *checker, struct state *state, const struct record *record)
{
	uint16_t mode = mode_of(checker, state, record->directory);
	uint32_t nlink = 2;
	if (mode != MODEL_WILD && mode != record->mode)
		return false;
	if (checker->weak_mode[record->directory] == 0)
		set_mode(state, record->directory, record->mode);
	for (unsigned i = 0; i < state->count; i++) {
		if (state->entries[i].directory != record->directory)
			continue;
		if (state->entries[i].inode == MODEL_WILD)
			return true;
		nlink += is_directory(checker, state->entries[i].inode);
	}
	return checker->doubtful[record->directory] || nlink == record->nlink;
}

/* Of a directory that was removed, but is not yet reclaimed. */
static bool is_of_nameless(const struct record *record)
{
	for (unsigned i = 0; i < MODEL_NAMES; i++)
		if (record->found[i])
			return false;
	return record->err == OK && (record->kind == RECORD_CHMOD || record->kind == RECORD_READDIR);
}

static bool apply(struct checker *checker, struct state *state, const struct record *record)
{
	bool rename = record->kind == RECORD_RENAME;
	if (record->err == ERR_NOT_FOUND &&
	    (!is_there(state, record->directory) || (rename && !is_there(state, record->to_directory))))
		return true;
	if (is_of_nameless(record) && !is_there(state, record->directory))
		return true;
	if (!may_be_there(checker, state, record->directory) || (rename && !may_be_there(checker, state, record->to_directory)))
		return false;
	switch (record->kind) {
	case RECORD_CREATE:
		return apply_create(checker, state, record);
	case RECORD_UNLINK:
	case RECORD_RMDIR:
		return apply_unlink(checker, state, record);
	case RECORD_RENAME:
		return apply_rename(checker, state, record);
	case RECORD_CHMOD:
		set_mode(state, record->directory, checker->weak_mode[record->directory] ? MODEL_WILD : record->mode);
		return record->err == OK;
	case RECORD_LOOKUP:
		if ((record->err && record->err != ERR_NOT_FOUND) ||
		    !may_be(checker, state, record->directory, record->name, record->inode))
			return false;
		if (get(state, record->directory, record->name) == MODEL_WILD)
			put(checker, state, record->directory, record->name, record->inode, MODEL_WILD);
		return true;
	case RECORD_READDIR:
		return record->err == OK && apply_readdir(checker, state, record);
	case RECORD_GETATTR:
		return record->err == OK && apply_getattr(checker, state, record);
	}
	return false;
}

/* ---- the check ---- */

static void state_add(struct state *states, uint32_t *count, const struct state *state)
{
	for (uint32_t i = 0; i < *count; i++)
		if (memcmp(&states[i], state, sizeof *state) == 0)
			return;
	check(*count < STATES_MAX);
	states[(*count)++] = *state;
}

/* The operation in this place ends: it has taken effect by now, after any of the others that are pending. */
static void end(struct checker *checker, unsigned place)
{
	uint8_t bit = (uint8_t)(1u << place);
	checker->out_count = 0;
	checker->work_count = checker->count;
	memcpy(checker->work, checker->states, checker->count * sizeof *checker->states);
	for (uint32_t i = 0; i < checker->work_count; i++) {
		if (checker->work[i].done & bit) {
			struct state state = checker->work[i];
			state.done = (uint8_t)(state.done & ~bit);
			state_add(checker->out, &checker->out_count, &state);
			continue;
		}
		for (unsigned k = 0; k < PENDING_MAX; k++) {
			struct state state = checker->work[i];
			if (checker->pending[k] == 0 || state.done & 1u << k)
				continue;
			const struct record *record = &checker->model->records[checker->pending[k] - 1];
			/* One that never ends, at the end of the history: it may be anything. */
			if (record->fate != RECORD_ENDED || !apply(checker, &state, record))
				continue;
			state.done |= (uint8_t)(1u << k);
			state_add(checker->work, &checker->work_count, &state);
		}
	}
	checker->pending[place] = 0;
	struct state *states = checker->states;
	checker->states = checker->out;
	checker->count = checker->out_count;
	checker->out = states;
	if (checker->states_max < checker->count)
		checker->states_max = checker->count;
}

static void make_wild(struct checker *checker, uint16_t directory, uint8_t name, int weak)
{
	checker->weak[directory][name] = (uint8_t)(checker->weak[directory][name] + weak);
	for (uint32_t i = 0; i < checker->count && weak > 0; i++) {
		checker->doubtful[get(&checker->states[i], directory, name)] = true;
		put(checker, &checker->states[i], directory, name, MODEL_WILD, MODEL_WILD);
	}
}

/* From now on, or (weak -1) no longer. */
static void weaken(struct checker *checker, const struct record *record, int weak)
{
	if (record->kind == RECORD_CHMOD) {
		checker->weak_mode[record->directory] = (uint8_t)(checker->weak_mode[record->directory] + weak);
		for (uint32_t i = 0; i < checker->count; i++)
			set_mode(&checker->states[i], record->directory, MODEL_WILD);
		return;
	}
	if (record->kind >= RECORD_LOOKUP)
		return;
	make_wild(checker, record->directory, record->name, weak);
	if (record->kind == RECORD_RENAME)
		make_wild(checker, record->to_directory, record->to_name, weak);
	checker->doubtful[record->inode] = checker->doubtful[record->replaced] = true;
}

/* What a cached name may be: no change that was over before it was looked at came after the one that made it so. It may be older than
 * a change that others see already, as long as that one is held back. */
static bool was_cached_rightly(const struct model *model, uint32_t number)
{
	const struct record *cached = &model->records[number];
	uint32_t over_since = 0; /* when the last change that was over began */
	for (uint32_t i = number; i-- > 0;) {
		const struct record *record = &model->records[i];
		bool from = record->directory == cached->directory && record->name == cached->name;
		bool to = record->kind == RECORD_RENAME && record->to_directory == cached->directory && record->to_name == cached->name;
		if (record->kind >= RECORD_CHMOD || !(from || to) || record->err)
			continue;
		if (record->fate != RECORD_ENDED || record->weak)
			return true;
		uint16_t left = record->kind == RECORD_CREATE || to ? record->inode : MODEL_NOTHING;
		if (left == cached->inode && record->end_at >= over_since)
			return true;
		if (record->end_at < cached->begin_at && over_since < record->begin_at)
			over_since = record->begin_at;
	}
	return over_since == 0 && cached->inode == MODEL_NOTHING;
}

static void begin(struct checker *checker, uint32_t number)
{
	const struct record *record = &checker->model->records[number];
	unsigned place = 0;
	if (record->fate != RECORD_ENDED) {
		weaken(checker, record, 1);
		return;
	}
	while (checker->pending[place] != 0)
		check(++place < PENDING_MAX);
	checker->pending[place] = number + 1;
}

static unsigned place_of(struct checker *checker, uint32_t number)
{
	unsigned place = 0;
	while (checker->pending[place] != number + 1)
		check(++place < PENDING_MAX);
	return place;
}

static void show(const struct model *model, uint32_t number, FILE *out)
{
	static const char *const kinds[] = { "create", "unlink", "rmdir", "rename", "chmod", "lookup", "readdir", "getattr" };
	const struct record *record = &model->records[number];
	fprintf(out, "%6" PRIu32 " %10" PRIu64 "..%10" PRIu64 " c%u %-7s %u/%c", number, record->begin_us, record->end_us, record->client + 1,
		kinds[record->kind], record->directory, 'a' + record->name);
	if (record->kind == RECORD_RENAME)
		fprintf(out, " to %u/%c (replaced %u)", record->to_directory, 'a' + record->to_name, record->replaced);
	if (record->kind == RECORD_READDIR)
		for (unsigned i = 0; i < MODEL_NAMES; i++)
			fprintf(out, " %u", record->found[i]);
	fprintf(out, " inode=%u mode=%o nlink=%" PRIu32 " %s%s%s%s%s\n", record->inode, record->mode, record->nlink, err_name(record->err),
		record->deferred ? " deferred" : "", record->weak ? " weak" : "", record->fate == RECORD_ENDED ? " " : " unanswered ",
		record->how ? record->how : "");
}

static bool is_near(const struct record *record, const struct record *failed)
{
	return record->directory == failed->directory || (record->kind == RECORD_RENAME && record->to_directory == failed->directory) ||
	       (failed->kind == RECORD_RENAME && record->directory == failed->to_directory) || record->inode == failed->directory;
}

void model_show(const struct model *model, uint32_t number, FILE *out)
{
	uint32_t shown = 0, first = number;
	while (first > 0 && shown < SHOWN)
		shown += is_near(&model->records[--first], &model->records[number]);
	fprintf(out, "what was said of the same directories before:\n");
	for (uint32_t i = first; i < model->count && i < number + 2 * SHOWN; i++)
		if (is_near(&model->records[i], &model->records[number]))
			show(model, i, out);
}

static void show_failure(struct checker *checker, uint32_t number, FILE *out)
{
	const struct model *model = checker->model;
	model_show(model, number, out);
	fprintf(out, "the states before (work %" PRIu32 "):\n", checker->work_count);
	for (uint32_t i = 0; i < checker->work_count && i < 3; i++) {
		for (unsigned k = 0; k < checker->work[i].count; k++)
			fprintf(out, " %u/%c=%u", checker->work[i].entries[k].directory, 'a' + checker->work[i].entries[k].name,
				checker->work[i].entries[k].inode);
		fprintf(out, "\n");
	}
	fprintf(out, "not linearizable; cannot be true:\n");
	show(model, number, out);
}

bool model_check(const struct model *model, uint32_t *states_max, FILE *out)
{
	struct checker *checker = mem_zero(1, sizeof *checker);
	bool good = true;
	checker->model = model;
	checker->states = mem_zero(3 * STATES_MAX, sizeof *checker->states);
	struct state *all = checker->states;
	checker->work = all + STATES_MAX;
	checker->out = all + 2 * STATES_MAX;
	checker->count = 1;
	for (unsigned i = 1; i <= MODEL_SHARED; i++)
		checker->states[0].modes[i] = 0755;
	for (uint32_t i = 0; i < model->event_count && good; i++) {
		const struct event *event = &model->events[i];
		if (model->records[event->number].cached)
			good = event->kind == EVENT_BEGIN || was_cached_rightly(model, event->number);
		else if (event->kind == EVENT_BEGIN)
			begin(checker, event->number);
		else if (event->kind == EVENT_END)
			end(checker, place_of(checker, event->number));
		else
			weaken(checker, &model->records[event->number], event->kind == EVENT_WEAK ? 1 : -1);
		good = good && checker->count > 0;
		if (!good)
			show_failure(checker, event->number, out);
	}
	*states_max = checker->states_max;
	free(all);
	free(checker);
	return good;
}
