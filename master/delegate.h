/* Which directories an answer gives to the session that asked (delegations.h): those whose names it changed or that it made, and
 * those that a name led to or whose names it read, so that what comes next in them can be done by the session itself. */
#ifndef GRANARY_MASTER_DELEGATE_H
#define GRANARY_MASTER_DELEGATE_H

#include "common/proto/message.h"
#include "master/delegations.h"
#include "master/meta/meta.h"

/* The request, which came at asked_ms, wants them and was carried out now: adds what is given or renewed to the reply. */
void delegate_reply(struct delegations *delegations, struct meta *meta, uint64_t now_ms, uint64_t asked_ms,
		    const Granary__MetaRequest *request, Granary__MetaReply *reply);

#endif
