#include "chunkserver/op_ring.h"

#include <stdlib.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"

struct answered_client {
	UT_hash_handle hh;
	uint64_t client, below;
};

static struct answered_client *find_client(const struct answered *answered, uint64_t client)
{
	struct answered_client *found = NULL;
	HASH_FIND(hh, answered->clients, &client, sizeof(client), found);
	return found;
}

void answered_note(struct answered *answered, uint64_t client, uint64_t below)
{
	struct answered_client *known = find_client(answered, client);
	if (below == 0)
		return;
	if (known == NULL) {
		if (HASH_COUNT(answered->clients) >= CHUNK_CLIENTS_KNOWN) /* most of them have gone long ago */
			answered_deinit(answered);
		known = mem_zero(1, sizeof(*known));
		known->client = client;
		HASH_ADD(hh, answered->clients, client, sizeof(client), known);
	}
	if (known->below < below)
		known->below = below;
}

bool answered_has(const struct answered *answered, uint64_t client, uint64_t operation)
{
	const struct answered_client *known = find_client(answered, client);
	return known != NULL && operation < known->below;
}

void answered_deinit(struct answered *answered)
{
	struct answered_client *client, *next;
	HASH_ITER (hh, answered->clients, client, next) {
		HASH_DEL(answered->clients, client);
		free(client);
	}
}

uint64_t op_ring_now(struct loop *loop)
{
	return loop_now_us(loop) / 1000 + 1;
}

static void forget_before(struct op_ring *ring, uint64_t ms)
{
	if (ring->known_since_ms < ms)
		ring->known_since_ms = ms;
}

static void push_out(struct op_ring *ring, uint64_t done_ms)
{
	if (ring->pushed_out_ms < done_ms)
		ring->pushed_out_ms = done_ms;
	forget_before(ring, done_ms);
}

void op_ring_add(struct op_ring *ring, const struct op_ring_entry *entry, const struct answered *answered)
{
	if (ring->entries == NULL)
		ring->entries = mem_zero(CHUNK_OPS_REMEMBERED, sizeof(*ring->entries));
	struct op_ring_entry *oldest = &ring->entries[ring->next];
	if (ring->count < CHUNK_OPS_REMEMBERED)
		ring->count++;
	else if (oldest->client != 0 && !answered_has(answered, oldest->client, oldest->operation))
		push_out(ring, oldest->done_ms);
	*oldest = *entry;
	ring->next = (ring->next + 1) % CHUNK_OPS_REMEMBERED;
}

const struct op_ring_entry *op_ring_at(const struct op_ring *ring, uint32_t number)
{
	uint32_t oldest = ring->count < CHUNK_OPS_REMEMBERED ? 0 : ring->next;
	return &ring->entries[(oldest + number) % CHUNK_OPS_REMEMBERED];
}

void op_ring_append(struct op_ring *ring, const struct op_ring *more, const struct answered *answered)
{
	for (uint32_t i = 0; i < more->count; i++) {
		const struct op_ring_entry *entry = op_ring_at(more, i);
		if (entry->client != 0)
			op_ring_add(ring, entry, answered);
	}
	push_out(ring, more->pushed_out_ms);
}

void op_ring_replaced(struct op_ring *ring, uint32_t first, uint32_t end, uint64_t now_ms)
{
	for (uint32_t i = 0; i < ring->count; i++) {
		if (ring->entries[i].first < end && first < ring->entries[i].end)
			ring->entries[i].client = 0;
	}
	forget_before(ring, now_ms);
}

void op_ring_restart(struct op_ring *ring, uint64_t now_ms)
{
	op_ring_deinit(ring);
	ring->known_since_ms = now_ms;
}

uint64_t op_ring_newest(const struct op_ring *ring)
{
	uint64_t newest = ring->known_since_ms;
	for (uint32_t i = 0; i < ring->count; i++) {
		if (newest < ring->entries[i].done_ms)
			newest = ring->entries[i].done_ms;
	}
	return newest;
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
