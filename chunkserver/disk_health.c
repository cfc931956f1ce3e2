#include "chunkserver/disk_health.h"

#include <stdlib.h>

#include "common/base/limits.h"

#define SAMPLES_MIN 3u

void disk_health_begin(struct disk_health *health, struct work *work, uint64_t now_us)
{
	work->of_owner.submitted_us = now_us;
	work->of_owner.next = NULL;
	work->of_owner.previous = health->last;
	if (health->last != NULL)
		health->last->of_owner.next = work;
	else
		health->first = work;
	health->last = work;
}

void disk_health_end(struct disk_health *health, struct work *work, uint64_t now_us)
{
	struct work *previous = work->of_owner.previous, *next = work->of_owner.next;
	uint64_t took = now_us - work->of_owner.submitted_us;
	if (previous != NULL)
		previous->of_owner.next = next;
	else
		health->first = next;
	if (next != NULL)
		next->of_owner.previous = previous;
	else
		health->last = previous;
	if (work->of_owner.untimed)
		return;
	uint32_t at = health->next++ % DISK_LATENCIES;
	health->latencies_us[at] = took < UINT32_MAX ? (uint32_t)took + 1 : UINT32_MAX;
	health->latencies_ms[at] = now_us / 1000;
}

bool disk_health_is_hung(const struct disk_health *health, uint64_t now_us)
{
	return health->first != NULL && now_us - health->first->of_owner.submitted_us >= DISK_HUNG_MS * 1000ull;
}

static int compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
	return left < right ? -1 : left > right;
}

uint32_t disk_health_latency_us(const struct disk_health *health, uint64_t now_us)
{
	uint32_t recent[DISK_LATENCIES + 1], count = 0;
	for (uint32_t i = 0; i < DISK_LATENCIES; i++) {
		if (health->latencies_us[i] != 0 && now_us / 1000 - health->latencies_ms[i] < DISK_LATENCY_WINDOW_MS)
			recent[count++] = health->latencies_us[i];
	}
	/* One that has been waiting for longer than others took counts, too. */
	if (health->first != NULL && now_us - health->first->of_owner.submitted_us >= DISK_WAITING_MS * 1000ull)
		return (uint32_t)(now_us - health->first->of_owner.submitted_us);
	if (count < SAMPLES_MIN)
		return 0;
	qsort(recent, count, sizeof(*recent), compare);
	return recent[count / 2];
}
