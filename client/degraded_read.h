/* A unit of a cold chunk whose shard is lost, slow or wrong is computed from k others: only the range of the shard in which it lies.
 *
 *   INDEX (of any shard, kept) -> GATHER <-> (decode) -> unpacked, checked, done
 *
 * The k that answer first count: of those that are asked one that takes long is not waited for, but another asked as well, as often as
 * servers_may_hedge allows. What does not fit its writer's checksums in the end is ERR_CORRUPT. */
#ifndef GRANARY_CLIENT_DEGRADED_READ_H
#define GRANARY_CLIENT_DEGRADED_READ_H

#include "client/client_internal.h"
#include "client/coded_places.h"

struct degraded_read;

/* data: of a file, the unit (coded_unit_raw_bytes; NULL: it is a hole); of a pack, the blob. Borrowed for the call.
 * ERR_NOT_FOUND: no such blob. */
typedef void degraded_done_fn(void *arg, enum err err, struct iobuf *data);

/* `place` is copied. Never calls done from within. */
struct degraded_read *degraded_read_start(struct client *client, const struct coded_place *place, uint32_t unit, degraded_done_fn *done,
					  void *arg);
/* Without done. */
void degraded_read_cancel(struct degraded_read *read);

#endif
