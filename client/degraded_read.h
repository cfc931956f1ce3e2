/* A unit of a cold chunk whose shard is lost, slow or wrong is computed from k others: only the range of the shard in which it lies; of one that
 * is not compressed, only the blocks that are wanted.
 *
 *   INDEX (of any shard, kept) -> GATHER <-> (decode) -> unpacked, checked, done
 *
 * The k that answer first count: of those that are asked one that takes long is not waited for, but another asked as well, as often as
 * servers_may_hedge allows. If the unit does not fit its writer's checksums then, one of those was wrong, too, and sound by its own (the scrub will
 * find it): all that are there are gathered, and k of them tried after others until it fits. ERR_CORRUPT: it never did. */
#ifndef GRANARY_CLIENT_DEGRADED_READ_H
#define GRANARY_CLIENT_DEGRADED_READ_H

#include "client/client_internal.h"
#include "client/coded_places.h"

struct degraded_read;

struct degraded_wanted {
	uint32_t unit;
	uint32_t first, count; /* blocks of it; of a pack: 0 */
};

/* data: of a file, the blocks, or those of them that the chunk has (NULL: a hole); of a pack, the blob. Borrowed for the call.
 * ERR_NOT_FOUND: no such blob. */
typedef void degraded_done_fn(void *arg, enum err err, struct iobuf *data);

/* `place` is copied. Never calls done from within. */
struct degraded_read *degraded_read_start(struct client *client, const struct coded_place *place, struct degraded_wanted wanted,
					  degraded_done_fn *done, void *arg);
/* Without done. */
void degraded_read_cancel(struct degraded_read *read);

#endif
