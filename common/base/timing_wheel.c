#include "common/base/timing_wheel.h"

#include <string.h>

#include "common/base/check.h"

#define TICKS_MAX ((1ull << (TIMING_WHEEL_BITS * TIMING_WHEEL_LEVELS)) - 1)

void timing_wheel_init(struct timing_wheel *wheel, uint64_t now)
{
	memset(wheel, 0, sizeof(*wheel));
	wheel->now = now;
}

static size_t slot_of(uint64_t tick, unsigned level)
{
	return (size_t)(tick >> (TIMING_WHEEL_BITS * level)) % TIMING_WHEEL_SLOTS;
}

static void link_entry(struct timing_wheel *wheel, struct wheel_entry *entry)
{
	uint64_t ticks = entry->tick > wheel->now ? entry->tick - wheel->now : 0;
	unsigned level = 0;

	if (ticks > TICKS_MAX)
		ticks = TICKS_MAX;
	while (ticks >> (TIMING_WHEEL_BITS * (level + 1)))
		level++;
	struct wheel_entry **link = &wheel->slots[level][slot_of(wheel->now + ticks, level)];
	entry->next = *link;
	entry->link = link;
	if (entry->next)
		entry->next->link = &entry->next;
	*link = entry;
}

static void unlink_entry(struct wheel_entry *entry)
{
	*entry->link = entry->next;
	if (entry->next)
		entry->next->link = entry->link;
	entry->next = NULL;
	entry->link = NULL;
}

void timing_wheel_add(struct timing_wheel *wheel, struct wheel_entry *entry, uint64_t tick)
{
	check(!entry->link);
	entry->tick = tick;
	link_entry(wheel, entry);
	wheel->count++;
}

void timing_wheel_remove(struct timing_wheel *wheel, struct wheel_entry *entry)
{
	if (!entry->link)
		return;
	unlink_entry(entry);
	wheel->count--;
}

/* The slots that begin now, level by level, as long as each lower one begins anew. */
static void spread(struct timing_wheel *wheel)
{
	wheel->is_spread = true;
	for (unsigned level = 1; level < TIMING_WHEEL_LEVELS && slot_of(wheel->now, level - 1) == 0; level++) {
		struct wheel_entry *entry = wheel->slots[level][slot_of(wheel->now, level)];
		wheel->slots[level][slot_of(wheel->now, level)] = NULL;
		while (entry) {
			struct wheel_entry *next = entry->next;
			link_entry(wheel, entry);
			entry = next;
		}
	}
}

struct wheel_entry *timing_wheel_take(struct timing_wheel *wheel, uint64_t tick)
{
	while (wheel->count > 0 && wheel->now <= tick) {
		if (!wheel->is_spread)
			spread(wheel);
		struct wheel_entry *entry = wheel->slots[0][slot_of(wheel->now, 0)];
		if (entry) {
			timing_wheel_remove(wheel, entry);
			return entry;
		}
		wheel->now++;
		wheel->is_spread = false;
	}
	if (wheel->now <= tick) {
		wheel->now = tick + 1;
		wheel->is_spread = false;
	}
	return NULL;
}
