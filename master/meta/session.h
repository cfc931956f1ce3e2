/* Sessions of clients and their slots.
 *
 * A slot remembers the last mutating request and its reply (RFC 8881, section 2.10.6.1), so that a client that got no
 * answer sends the request again, to whichever master leads now, and it takes effect once. */
#ifndef GRANARY_MASTER_META_SESSION_H
#define GRANARY_MASTER_META_SESSION_H

#include "master/meta/state.h"

bool session_exists(struct meta *meta, uint64_t session);

/* Whether the request is new. OK: carry it out, then slot_remember. ERR_EXISTS: done before, *reply is its answer.
 * ERR_INVALID: a sequence that is neither. */
MUST_USE enum err slot_check(struct meta *meta, const Granary__MetaRequest *request, Granary__MetaReply **reply);
void slot_remember(struct meta *meta, const Granary__MetaRequest *request, const Granary__MetaReply *reply);

#endif
