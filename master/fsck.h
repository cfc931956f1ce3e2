/* MESSAGE_FSCK: namespace, chunk map and what the chunkservers hold, cross-checked while the cluster works.
 *
 *   TABLES check_run, a slice at a time --> COPIES inventories (fsck_copies.h) --> REPAIR, if asked for --> END
 *
 * One run at a time, of the leader, in soft state: whoever began it asks for its report again and again; a run that nobody asks for
 * ends. Slices are small (FSCK_KEYS_MAX) and leave as much time to others as they take.
 * Repair: FsckRepair for what the tables say; CopyRemove for copies of chunks that there is no record of, if these are old enough, not
 * newer than what the masters know, and no chunkserver shows that the masters' state is an old one; and for old copies of chunks that all
 * their members hold. All goes through the log and is looked at again there.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_FSCK_H
#define GRANARY_MASTER_FSCK_H

#include "common/sys/rpc.h"
#include "master/replica.h"
#include "master/servers.h"

struct fsck;

/* As on the wire. */
enum fsck_repair { FSCK_NOT_TRIED, FSCK_REPAIRED, FSCK_NOT_NEEDED, FSCK_REPAIR_FAILED };

struct fsck *fsck_open(struct loop *loop, struct replica *replica, struct servers *servers);
/* After replica_close. */
void fsck_close(struct fsck *fsck);
void fsck_serve(struct fsck *fsck, struct rpc_request *request);
void fsck_deposed(struct fsck *fsck);
/* A page of an inventory of a server, which is registered; `first`: of a new inventory. */
void fsck_inventory(struct fsck *fsck, const Granary__Inventory *page, bool first);

#endif
