/* Which cache leases an answer grants: the inode whose attributes it carries, the name that it was found by. */
#ifndef GRANARY_MASTER_GRANT_H
#define GRANARY_MASTER_GRANT_H

#include "common/proto/message.h"
#include "master/delegations.h"
#include "master/leases.h"

/* Sets lease_ms in the results of a reply that is sent now. Directories that it tells of count as used. */
void grant_reply(struct leases *leases, struct delegations *delegations, uint64_t now_ms, const Granary__MetaRequest *request, Granary__MetaReply *reply);
/* Takes them, and delegations, back out of a reply that is sent later. */
void grant_strip(Granary__MetaReply *reply);

#endif
