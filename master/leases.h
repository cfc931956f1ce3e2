/* Cache leases: which session may have cached which inode's attributes or which name. Soft state of the leader.
 *
 * A lease is granted with a reply and runs CACHE_LEASE_MS from then (the client counts from when it asked, which is
 * earlier, and is told LEASE_GRANTED_MS). A change by another session is answered only after the holders have confirmed an Invalidate or their
 * leases ran out. All leases run equally long, so the list in order of granting is the list in order of expiry.
 *
 * Names are known by a hash of (directory, name): a collision costs a needless recall, nothing else.
 * Pure: the time comes from the caller. */
#ifndef GRANARY_MASTER_LEASES_H
#define GRANARY_MASTER_LEASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"

struct leases;

struct leases *leases_open(size_t capacity, uint64_t lease_ms);
void leases_close(struct leases *leases);
/* Forgets all: on losing and on gaining leadership. */
void leases_clear(struct leases *leases);

/* Grants or renews; name empty: the inode itself, otherwise this name in directory `inode`. False when all places are taken by
 * leases still running: the reply then says that nothing may be cached. */
bool leases_grant(struct leases *leases, uint64_t now_ms, uint64_t session, uint64_t inode, struct slice name);

/* A number above that of every lease granted so far: say it in leases_confirmed for an Invalidate sent now. */
uint64_t leases_mark(const struct leases *leases);
/* The session has dropped what it had cached of this under leases granted before `mark`. */
void leases_confirmed(struct leases *leases, uint64_t session, uint64_t inode, struct slice name, uint64_t mark);

/* Calls fn for every other session that holds a running lease on this. expires_ms is when it ends by itself. fn must not
 * change the leases. */
void leases_holders(const struct leases *leases, uint64_t now_ms, uint64_t session, uint64_t inode, struct slice name,
		    void (*fn)(void *arg, uint64_t session, uint64_t expires_ms), void *arg);
/* Running and not yet collected ones. */
size_t leases_count(const struct leases *leases);

#endif
