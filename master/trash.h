/* Empties the trash in the background: TrashRemove for what is due, in order of removal, a bounded number at a time.
 *
 * Due is what was removed longer ago than its storage class says (Settings.trash_seconds, if it says nothing), and the oldest of more than TRASH_ENTRIES_MAX. The oldest go before
 * their time, too, while less than TRASH_FREE_PERCENT of the chunkservers' space is free, or a chunk found no place (trash_no_space):
 * as much as is missing, and then no more until that has been reclaimed, deleted and reported by the chunkservers
 * (TRASH_SETTLE_MS at most), so that not everything goes where a little would do.
 *
 *   WATCHING --something is due, or space is low--> REMOVING --enough, or nothing left--> SETTLING --space is known again--> WATCHING
 *
 * Where classes differ, it goes over what is older than the shortest of their times again and again, a bounded number of entries at a time.
 *
 * A new leader first waits for the chunkservers' inventories (COLLECTION_WAIT_MS), and removes nothing while these show that its state
 * is an old one (servers_are_ahead).
 *
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_TRASH_H
#define GRANARY_MASTER_TRASH_H

#include "master/replica.h"
#include "master/servers.h"

struct trash;

struct trash *trash_open(struct loop *loop, struct replica *replica, struct servers *servers);
/* After replica_close. */
void trash_close(struct trash *trash);
void trash_leading(struct trash *trash);
void trash_deposed(struct trash *trash);
/* A new chunk found no place: every server is full. */
void trash_no_space(struct trash *trash);

#endif
