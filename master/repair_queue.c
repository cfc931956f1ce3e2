#include "master/repair_queue.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "master/repair_policy.h"

struct queued {
	uint64_t chunk;
	unsigned priority;
	struct queued *prev, *next;
	UT_hash_handle hh;
};

struct repair_queue {
	struct queued *lists[REPAIR_PRIORITIES];
	struct queued *table;
};

struct repair_queue *repair_queue_open(void)
{
	return mem_zero(1, sizeof(struct repair_queue));
}

static void forget(struct repair_queue *queue, struct queued *queued)
{
	DL_DELETE(queue->lists[queued->priority], queued);
	HASH_DEL(queue->table, queued);
	free(queued);
}

void repair_queue_clear(struct repair_queue *queue)
{
	struct queued *queued, *next;

	HASH_ITER(hh, queue->table, queued, next)
	{
		forget(queue, queued);
	}
}

void repair_queue_close(struct repair_queue *queue)
{
	if (!queue)
		return;
	repair_queue_clear(queue);
	free(queue);
}

void repair_queue_add(struct repair_queue *queue, uint64_t chunk, unsigned priority)
{
	struct queued *queued;

	check(priority < REPAIR_PRIORITIES);
	HASH_FIND(hh, queue->table, &chunk, sizeof(chunk), queued);
	if (queued) {
		if (queued->priority <= priority)
			return;
		DL_DELETE(queue->lists[queued->priority], queued);
	} else {
		if (HASH_COUNT(queue->table) >= REPAIR_QUEUE_MAX)
			return;
		queued = mem_zero(1, sizeof(*queued));
		queued->chunk = chunk;
		HASH_ADD(hh, queue->table, chunk, sizeof(queued->chunk), queued);
	}
	queued->priority = priority;
	DL_APPEND(queue->lists[priority], queued);
}

uint64_t repair_queue_take(struct repair_queue *queue, unsigned *priority)
{
	for (unsigned i = 0; i < REPAIR_PRIORITIES; i++) {
		struct queued *first = queue->lists[i];
		if (!first)
			continue;
		uint64_t chunk = first->chunk;
		*priority = i;
		forget(queue, first);
		return chunk;
	}
	return 0;
}

size_t repair_queue_count(const struct repair_queue *queue)
{
	return HASH_COUNT(queue->table);
}
