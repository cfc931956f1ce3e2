/* Chunks that are known to lack copies, by priority; each once. Bounded: what does not fit is found again. Pure. */
#ifndef GRANARY_MASTER_REPAIR_QUEUE_H
#define GRANARY_MASTER_REPAIR_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct repair_queue;

struct repair_queue *repair_queue_open(void);
void repair_queue_close(struct repair_queue *queue);
void repair_queue_clear(struct repair_queue *queue);
/* At the end of its priority (0 first, below REPAIR_PRIORITIES); one that is there already only becomes more urgent. */
void repair_queue_add(struct repair_queue *queue, uint64_t chunk, unsigned priority);
/* The most urgent; 0: none. */
uint64_t repair_queue_take(struct repair_queue *queue, unsigned *priority);
size_t repair_queue_count(const struct repair_queue *queue);

#endif
