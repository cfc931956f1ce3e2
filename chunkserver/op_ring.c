#include "chunkserver/op_ring.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"

void op_ring_add(struct op_ring *ring, const struct op_ring_entry *entry)
{
	if (ring->entries == NULL)
		ring->entries = mem_zero(CHUNK_OPS_REMEMBERED, sizeof(*ring->entries));
	ring->entries[ring->next] = *entry;
	ring->next = (ring->next + 1) % CHUNK_OPS_REMEMBERED;
	if (ring->count < CHUNK_OPS_REMEMBERED)
		ring->count++;
}

void op_ring_forget(struct op_ring *ring, uint32_t first, uint32_t end)
{
	for (uint32_t i = 0; i < ring->count; i++) {
		if (ring->entries[i].first < end && first < ring->entries[i].end)
			ring->entries[i].client = 0;
	}
}

bool op_ring_find(const struct op_ring *ring, uint64_t client, uint64_t operation, uint32_t *result)
{
	if (client == 0)
		return false;
	for (uint32_t i = 0; i < ring->count; i++) {
		const struct op_ring_entry *entry = &ring->entries[i];
		if (entry->operation != operation || entry->client != client)
			continue;
		if (result != NULL)
			*result = entry->result;
		return true;
	}
	return false;
}

void op_ring_deinit(struct op_ring *ring)
{
	free(ring->entries);
	*ring = (struct op_ring){ 0 };
}
