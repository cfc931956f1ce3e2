/* Who uses which directory, and which session alone may make names in it for a while (a delegation). Soft state of the leader.
 *
 * A session that makes names in a directory which nobody else has used or cached lately may be given the directory: it
 * then makes files there by itself and tells the leader behind its programs' backs. Before anybody else's request that touches the
 * directory is carried out, the delegation is recalled (gate.h), or has run out. So a holder's names are seen as soon as they are
 * made, and no two sessions make the same.
 *
 *	others' leases and changes: used()      nobody else within lease_ms: grant() -> held -> recalled() -> ended()
 *	                                                         renewed by each grant() <-+  keep()'-> expired
 *
 * Exact towards safety: a user that there was no place to remember keeps all directories from being given away for lease_ms.
 * Pure: the time comes from the caller, in milliseconds of a clock that does not jump. */
#ifndef GRANARY_MASTER_DELEGATIONS_H
#define GRANARY_MASTER_DELEGATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct delegations;

struct delegations *delegations_open(size_t capacity, uint64_t lease_ms);
void delegations_close(struct delegations *delegations);
/* Forgets all: on gaining leadership. */
void delegations_clear(struct delegations *delegations);

/* The session may have cached something of the directory for lease_ms from now, or a change of its names by it is on its way. */
void delegations_used(struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory);
/* Gives or renews; asked_ms is when the request came. *fresh: it did not hold it before. */
bool delegations_grant(struct delegations *delegations, uint64_t now_ms, uint64_t asked_ms, uint64_t session, uint64_t directory,
		       bool *fresh);
/* False when there are certainly none. */
bool delegations_any(const struct delegations *delegations, uint64_t now_ms);
/* Whether another session than this one holds the directory, which one, and when that ends by itself. */
bool delegations_holder(const struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory,
			uint64_t *holder, uint64_t *expires_ms);
/* The holder is being asked to give it back: no longer renewed. */
void delegations_recalled(struct delegations *delegations, uint64_t directory);
/* The holder has done something in it that it cannot send yet, since chunkservers do not answer: lasts on from now, though it is
 * recalled, but then for DELEGATION_KEPT_MS_MAX at most. One that has run out does not come back. */
void delegations_keep(struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory);
/* When the session's delegation of the directory ends by itself; 0: it has none. */
uint64_t delegations_until_ms(const struct delegations *delegations, uint64_t now_ms, uint64_t session, uint64_t directory);
/* The holder has given it back. */
void delegations_ended(struct delegations *delegations, uint64_t session, uint64_t directory);
/* The session has said goodbye, with nothing under way. */
void delegations_session_ended(struct delegations *delegations, uint64_t session);

#endif
