/* What happens to the masters' disks and to their membership while a simulation runs, one at a time: a disk is replaced by an
 * empty one; a database is damaged; a member is removed, goes on for a while, and comes back with an empty disk. Each is over when
 * three voters that have caught up are there again, without anybody's doing (but that a removed one is added). */
#ifndef GRANARY_TESTS_SIM_MASTER_DISKS_H
#define GRANARY_TESTS_SIM_MASTER_DISKS_H

#include "tests/sim/masters.h"

enum disks_step { DISKS_WHOLE, DISKS_RECOVERING, DISKS_REMOVING, DISKS_REMOVED, DISKS_ADDING };

struct disks {
	struct sim *sim;
	struct member *members;
	struct sim_host *host; /* the operator's */
	struct loop *loop;
	struct rpc *rpc;
	struct rpc_peer *peers[MASTERS];
	enum disks_step step;
	struct member *member; /* of the one under way */
	uint64_t since_us;
	unsigned leader; /* asked first */
	bool asking, quiet;
	unsigned replaced, damaged, removed, transferred;
};

void disks_open(struct disks *disks, struct sim *sim, struct member members[MASTERS]);
void disks_close(struct disks *disks);
/* A fault begins, if none is under way. */
void disks_fault(struct disks *disks);
/* No more begin; true once all is whole. */
bool disks_are_whole(void *disks);
/* A voter less than all: no other disk is to be lost now. */
bool disks_under_way(const struct disks *disks);

#endif
