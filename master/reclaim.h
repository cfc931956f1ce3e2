/* Frees unlinked inodes (orphans) that nobody has open, in the background.
 *
 * The pass looks through the orphans of the state machine in bounded steps and remembers when it first saw each.
 * One is reclaimed when no session has it open, although every session has announced what it had open by then
 * (sessions_settled_ms: two keepalives later, or the session is newer, or gone). That covers what a mount opened
 * under a lease without asking: the recall reaches it before the answer to the first of the two, and the second
 * tells what is open. Files without a name yet belong to their session and are left alone while it lives.
 * Nothing is, for COLLECTION_WAIT_MS after an election and while the chunkservers show that this state is an old one (servers_are_ahead).
 * At most RECLAIM_INODES_MAX go into one entry every RECLAIM_MS, one entry at a time, so that the foreground's commits
 * do not wait for it.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_RECLAIM_H
#define GRANARY_MASTER_RECLAIM_H

#include "master/replica.h"
#include "master/servers.h"
#include "master/sessions.h"

struct reclaim;

struct reclaim *reclaim_open(struct loop *loop, struct replica *replica, struct sessions *sessions, struct servers *servers);
/* After replica_close. */
void reclaim_close(struct reclaim *reclaim);
void reclaim_leading(struct reclaim *reclaim);
void reclaim_deposed(struct reclaim *reclaim);
/* The state machine has new orphans. */
void reclaim_added(struct reclaim *reclaim);

#endif
