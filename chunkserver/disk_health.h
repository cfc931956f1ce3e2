/* How long the disk takes: items of work on their way, the oldest of them, and the durations of the latest.
 *
 * An item that has been with a worker for DISK_HUNG_MS hangs: the store then says that it is out of service, until it has come back.
 * Pure: the time comes from the caller. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_DISK_HEALTH_H
#define GRANARY_CHUNKSERVER_DISK_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/loop.h"

#define DISK_LATENCIES 24u

/* Zeroed: nothing is known. */
struct disk_health {
	struct work *first, *last; /* on their way, in order of submission; linked by work->of_owner */
	uint32_t latencies_us[DISK_LATENCIES];
	uint64_t latencies_ms[DISK_LATENCIES]; /* when each came */
	uint32_t next;
};

void disk_health_begin(struct disk_health *health, struct work *work, uint64_t now_us);
void disk_health_end(struct disk_health *health, struct work *work, uint64_t now_us);
bool disk_health_is_hung(const struct disk_health *health, uint64_t now_us);
/* The median of those within DISK_LATENCY_WINDOW_MS; 0: too few. */
uint32_t disk_health_latency_us(const struct disk_health *health, uint64_t now_us);

#endif
