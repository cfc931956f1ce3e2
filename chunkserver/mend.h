/* Damaged blocks, and chunks that may be out of date after a loss of power, are made good from the other members of the chain.
 *
 * A mend asks another member for blocks, verifies them, and writes them here if no operation has changed these blocks since before it
 * asked; otherwise it asks again. It holds nothing back meanwhile, so nobody ever waits for it but readers, and it may ask in any
 * direction. Whom it asks, and why that is right:
 *   - members above, the nearest first, as any reader would: they answer when what they have is acknowledged by all below them, so
 *     also here, and not while it is unsettled. What comes is what would be here.
 *   - then the successor, as its predecessor does when it rejoins: whatever is unsettled there becomes unsettled here, too; one that has
 *     never had the chunk (it was full when it should have made it) is passed over;
 *   - others further below only to know whether all is lost: they mend our successor, and it mends us.
 * A damaged block is nobody's source. If no member has it, it is lost: it stays damaged, and reads of it fail, until it is written.
 *
 * An uncertain chunk (chunk_store.h) is compared block by block with a member that is not. If all members are uncertain, they have
 * all lost power: the first of them that is not blank counts, in that only data that was never synced can be missing; the others then
 * take it from there. Likewise a torn block (chunk_damage.h) that is torn at all members.
 *
 * Thread: the loop, files on a worker. */
#ifndef GRANARY_CHUNKSERVER_MEND_H
#define GRANARY_CHUNKSERVER_MEND_H

#include "chunkserver/service.h"

/* Texts with ERR_CORRUPT and ERR_UNCERTAIN. */
#define MEND_TEXT_TORN "torn"
#define MEND_TEXT_BLANK "blank"

/* If there is anything to mend, and it is not being done. */
void mend_start(struct service *service, struct chunk *chunk);
/* The chunk has been filled by its predecessor (fill.h): all of it is as there. */
void mend_filled(struct chunk *chunk);
/* The predecessor has come back, and would have compared its copy with the uncertain one here: what it did last, and did not send, is here
 * only if all of it is compared after that. */
void mend_compare_again(struct chunk *chunk);
/* Starts those that had to wait for others. */
void mend_tick(struct service *service);
/* The chunk goes, or the process stops. */
void mend_abort(struct chunk *chunk);

/* For chunk_op.c: an operation of others starts to change its blocks. */
void mend_note_write(struct chunk *chunk, const struct chunk_op *op);
/* Nothing has changed what the mend's own operation is about to write. */
bool mend_is_valid(const struct chunk *chunk);

#endif
