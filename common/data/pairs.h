/* Key-value pairs packed one after another: what snapshots of the masters' state are sent in, and what backups hold.
 *
 *	pairs := pair*		pair := key_bytes (4, LE)  value_bytes (4, LE)  key  value
 *
 * Keys ascend over all pairs of a snapshot. Its digest is the CRC-32C over all of them, page after page. */
#ifndef GRANARY_COMMON_DATA_PAIRS_H
#define GRANARY_COMMON_DATA_PAIRS_H

#include "common/base/buf.h"
#include "common/base/err.h"

#define PAIR_HEADER_BYTES 8u

void pairs_add(struct buf *pairs, struct slice key, struct slice value);
/* Takes the next pair off *rest, which is not empty; key and value borrow from it. ERR_CORRUPT: that is no pair (an empty or too
 * long key or value, or cut short). */
MUST_USE enum err pairs_take(struct slice *rest, struct slice *key, struct slice *value);

/* Checks pairs of outside: whole, and each key above the one before. `last` is the newest key so far (at first empty) and is
 * replaced; *count grows. */
MUST_USE enum err pairs_check(struct slice pairs, struct buf *last, uint64_t *count);

#endif
