/* Operations of one chunk that were done lately, by (client, operation): a retry is recognised and not applied again.
 *
 * Holds the last CHUNK_OPS_REMEMBERED; memory is taken with the first. In memory only: after a restart a retry is applied
 * again, with the same bytes. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_OP_RING_H
#define GRANARY_CHUNKSERVER_OP_RING_H

#include <stdbool.h>
#include <stdint.h>

struct op_ring_entry {
	uint64_t client, operation;
	uint32_t result;     /* what the operation gave: a slot */
	uint32_t first, end; /* blocks that it changed */
};

/* A zeroed struct is an empty ring. */
struct op_ring {
	struct op_ring_entry *entries;
	uint32_t count; /* entries in use */
	uint32_t next;	/* where the next one goes */
};

void op_ring_add(struct op_ring *ring, const struct op_ring_entry *entry);
/* The blocks were replaced by what another server has of them, which may be without these operations: a retry is a new one. */
void op_ring_forget(struct op_ring *ring, uint32_t first, uint32_t end);
/* result may be NULL. client 0 is never found. */
bool op_ring_find(const struct op_ring *ring, uint64_t client, uint64_t operation, uint32_t *result);
void op_ring_deinit(struct op_ring *ring);

#endif
