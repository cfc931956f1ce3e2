#include "master/raft/raft_log.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

void raft_log_init(struct raft_log *log, uint64_t first, uint64_t previous_term)
{
	*log = (struct raft_log){.first = first, .previous_term = previous_term};
	log->given = first - 1;
	log->persisted = first - 1;
}

static void entries_free(struct raft_log *log, size_t place, size_t count)
{
	struct raft_entry *entries = log->entries + log->head + place;
	for (size_t i = 0; i < count; i++) {
		log->bytes -= entries[i].payload.size;
		log->hole_count -= entries[i].damaged;
		free((void *)entries[i].payload.bytes);
	}
}

void raft_log_deinit(struct raft_log *log)
{
	if (log->count > 0)
		entries_free(log, 0, log->count);
	free(log->entries);
	*log = (struct raft_log){0};
}

uint64_t raft_log_last(const struct raft_log *log)
{
	return log->first + log->count - 1;
}

uint64_t raft_log_last_term(const struct raft_log *log)
{
	return log->count > 0 ? log->entries[log->head + log->count - 1].term : log->previous_term;
}

const struct raft_entry *raft_log_at(const struct raft_log *log, uint64_t index)
{
	if (index < log->first || index - log->first >= log->count)
		return NULL;
	return &log->entries[log->head + (size_t)(index - log->first)];
}

bool raft_log_term(const struct raft_log *log, uint64_t index, uint64_t *term)
{
	const struct raft_entry *entry = raft_log_at(log, index);
	if (entry) {
		*term = entry->term;
		return true;
	}
	*term = log->previous_term;
	return index == log->first - 1;
}

bool raft_log_matches(const struct raft_log *log, uint64_t index, uint64_t term)
{
	uint64_t have;
	return raft_log_term(log, index, &have) && have == term;
}

/* Room for one more: moves the entries to the front when that frees at least half, else doubles. */
static void make_room(struct raft_log *log)
{
	if (log->head + log->count < log->capacity)
		return;
	if (log->head > log->count) {
		memmove(log->entries, log->entries + log->head, log->count * sizeof(*log->entries));
		log->head = 0;
		return;
	}
	log->capacity = log->capacity > 0 ? log->capacity * 2 : 64;
	log->entries = mem_resize(log->entries, log->capacity * sizeof(*log->entries));
}

static struct raft_entry *add(struct raft_log *log, uint64_t term, enum raft_entry_kind kind)
{
	check(term >= raft_log_last_term(log));
	make_room(log);
	struct raft_entry *entry = &log->entries[log->head + log->count];
	*entry = (struct raft_entry){.index = raft_log_last(log) + 1, .term = term, .kind = kind};
	log->count++;
	return entry;
}

static void set_payload(struct raft_log *log, struct raft_entry *entry, struct slice payload)
{
	if (payload.size == 0)
		return;
	uint8_t *bytes = mem_alloc(payload.size);
	memcpy(bytes, payload.bytes, payload.size);
	entry->payload = (struct slice){bytes, payload.size};
	log->bytes += payload.size;
}

void raft_log_append(struct raft_log *log, uint64_t term, enum raft_entry_kind kind, struct slice payload)
{
	set_payload(log, add(log, term, kind), payload);
}

void raft_log_append_hole(struct raft_log *log, uint64_t term, enum raft_entry_kind kind)
{
	struct raft_entry *entry = add(log, term, kind);
	entry->damaged = true;
	if (log->hole_count++ == 0)
		log->hole_first = entry->index;
	log->hole_last = entry->index;
}

/* After some entries have gone or been filled: the ends of what is still damaged. */
static void narrow_holes(struct raft_log *log)
{
	if (log->hole_count == 0) {
		log->hole_first = log->hole_last = 0;
		return;
	}
	if (log->hole_first < log->first)
		log->hole_first = log->first;
	if (log->hole_last > raft_log_last(log))
		log->hole_last = raft_log_last(log);
	while (!raft_log_at(log, log->hole_first)->damaged)
		log->hole_first++;
	while (!raft_log_at(log, log->hole_last)->damaged)
		log->hole_last--;
}

void raft_log_fill(struct raft_log *log, uint64_t index, enum raft_entry_kind kind, struct slice payload)
{
	check(index >= log->first && index <= raft_log_last(log));
	struct raft_entry *entry = &log->entries[log->head + (size_t)(index - log->first)];
	check(entry->damaged);
	entry->damaged = false;
	entry->kind = kind;
	set_payload(log, entry, payload);
	log->hole_count--;
	narrow_holes(log);
}

uint64_t raft_log_hole(const struct raft_log *log, uint64_t above)
{
	if (log->hole_count == 0 || above >= log->hole_last)
		return 0;
	uint64_t index = above < log->hole_first ? log->hole_first : above + 1;
	while (!raft_log_at(log, index)->damaged)
		index++;
	return index;
}

void raft_log_truncate(struct raft_log *log, uint64_t index, uint64_t term_now)
{
	check(index >= log->first && index <= raft_log_last(log));
	size_t keep = (size_t)(index - log->first);
	entries_free(log, keep, log->count - keep);
	log->count = keep;
	narrow_holes(log);
	if (log->given >= index) {
		log->given = index - 1;
		log->floor = term_now;
	}
	if (log->persisted >= index)
		log->persisted = index - 1;
}

void raft_log_compact(struct raft_log *log, uint64_t index)
{
	if (index <= log->first)
		return;
	check(index <= log->persisted + 1);
	uint64_t previous_term = 0;
	bool known = raft_log_term(log, index - 1, &previous_term);
	check(known);
	size_t drop = (size_t)(index - log->first);
	entries_free(log, 0, drop);
	log->head += drop;
	log->count -= drop;
	log->first = index;
	log->previous_term = previous_term;
	narrow_holes(log);
}

uint64_t raft_log_agree(const struct raft_log *log, uint64_t index, uint64_t term)
{
	uint64_t low = log->first - 1;
	uint64_t high = index < raft_log_last(log) ? index : raft_log_last(log);
	if (high < low)
		return high;
	/* Terms never fall along the log: binary search for the last one at most `term`. */
	while (low < high) {
		uint64_t middle = high - (high - low) / 2;
		uint64_t have = 0;
		bool known = raft_log_term(log, middle, &have);
		check(known);
		if (have <= term)
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}

bool raft_log_persisted(struct raft_log *log, uint64_t index, uint64_t term)
{
	if (index > log->given || index <= log->persisted)
		return false;
	if (term < log->floor || !raft_log_matches(log, index, term))
		return false;
	log->persisted = index;
	return true;
}
