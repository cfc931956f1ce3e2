/* Which blocks were changed last, and by which operation: the last CHUNK_WRITES_LOGGED changes of this store, in memory and in a file that
 * outlives the process. It tells whether an operation of which nobody knows whether it was done (op_ring.h) may be done now all the same:
 * it may, if nothing else has changed its blocks since it was sent for the first time. Then it was not done, or doing it again changes nothing.
 *
 * DIR/writes: slot*, slot = order:u64 boot:u64 chunk:u64 client:u64 operation:u64 begun_ms:u64 first:u32 end:u32 crc:u32 zero:u32, 64 bytes;
 * the change with number `order` is in slot order mod CHUNK_WRITES_LOGGED. A slot is written before the change begins. Not synced: after a
 * loss of power, or a failure of the store (another boot), nothing counts. What is taken from a member below is no change: it came through
 * here. What is done to blocks by other servers while this copy is no member of the chain is not in it: so a copy that joins, or is made anew,
 * begins with a change of all blocks (client 0).
 * Times are the loop's, of the same clock in all processes of one boot. Thread: the loop; writes on workers. */
#ifndef GRANARY_CHUNKSERVER_WRITE_LOG_H
#define GRANARY_CHUNKSERVER_WRITE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/file.h"

struct write_log_entry {
	uint64_t order, boot; /* write_log_begin's */
	uint64_t chunk;
	uint64_t client, operation; /* 0: content of other members */
	uint64_t begun_ms;	    /* write_log_begin's */
	uint32_t first, end;	    /* blocks */
};

struct write_log {
	struct loop *loop;
	struct file *file;
	struct write_log_entry *entries; /* CHUNK_WRITES_LOGGED; order 0: none */
	uint64_t boot;
	uint64_t order;		 /* the last one */
	uint64_t known_since_ms; /* all changes from then on are here */
};

MUST_USE enum err write_log_open(struct loop *loop, const char *path, uint64_t boot, struct write_log *log);
void write_log_close(struct write_log *log);
/* The change is about to be given to a worker, which notes it first. */
void write_log_begin(struct write_log *log, struct write_log_entry *entry);
/* Worker. */
MUST_USE enum err write_log_note(struct write_log *log, const struct write_log_entry *entry);
/* May the operation, which was first sent at sent_ms or later, be done now? See above. */
bool write_log_allows(const struct write_log *log, const struct write_log_entry *operation, uint64_t sent_ms);

#endif
