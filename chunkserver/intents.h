/* Which blocks are being written: noted before the first byte of a write goes to a chunk file, so that the next life of the process can
 * tell a write that was cut off from rot. Only the first may be taken as it is when no other copy is sound.
 *
 * DIR/intents: slot*, slot = chunk:u64 first:u32 end:u32 crc:u32 zero[12], 32 bytes, one for each write under way. A slot is not cleared but
 * used again: what it says of older writes does no harm, they are whole. Not synced: it speaks of the page cache, and a loss of power
 * makes the whole chunk uncertain. Slots are given out on the loop, written on workers. */
#ifndef GRANARY_CHUNKSERVER_INTENTS_H
#define GRANARY_CHUNKSERVER_INTENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/file.h"

#define INTENT_SLOTS 64u

struct intents {
	struct file *file;
	uint64_t taken; /* bits: slots in use */
	struct intent {
		uint64_t chunk;
		uint32_t first, end;
	} before[INTENT_SLOTS]; /* of the former life; chunk 0: none */
};

/* Takes what the former life left, and begins anew. */
MUST_USE enum err intents_open(struct loop *loop, const char *path, struct intents *intents);
void intents_close(struct intents *intents);
/* -1: none is free; then a write that is cut off counts as damage. */
int intents_take(struct intents *intents);
void intents_release(struct intents *intents, int slot);
/* Worker. */
MUST_USE enum err intents_write(struct intents *intents, int slot, const struct intent *intent);
/* The former life was writing the block. */
bool intents_had(const struct intents *intents, uint64_t chunk, uint32_t block);

#endif
