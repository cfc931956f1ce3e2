/* A token bucket: background work that may spend so many bytes a second. Pure. */
#ifndef GRANARY_CHUNKSERVER_BUDGET_H
#define GRANARY_CHUNKSERVER_BUDGET_H

#include <stdint.h>

/* A zeroed struct is a valid one. */
struct budget {
	int64_t bytes; /* may be spent; below 0: has been */
	uint64_t refilled_us;
};

/* Milliseconds until something may be spent; 0: now. rate: bytes a second. */
uint64_t budget_wait(struct budget *budget, uint64_t now_us, uint64_t rate);
void budget_spend(struct budget *budget, uint64_t bytes);

#endif
