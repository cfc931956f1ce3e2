/* Who belongs to the masters: what the leader changes by itself, and what an operator asks for.
 *
 * The leader looks every MEMBERS_CHANGE_MS, and makes one change at a time:
 *   - the first membership of a cluster is written into the log, with nodes and addresses; a node that is not known yet is asked for;
 *   - a learner that has caught up becomes a voter;
 *   - a member in whose place another data directory answers (its disk was replaced by an empty one) becomes a learner with that
 *     directory's node: what the old one has said counts no more, it catches up, and is promoted as any other;
 *   - when the leader's disk is nearly full and another voter's is not, that one is to lead.
 * An operator adds a master (its node is asked for first: it must be there, be what it is said to be, and not belong elsewhere),
 * removes one, or moves leadership. One such request at a time; it is answered when the change is committed.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_MEMBERS_SERVICE_H
#define GRANARY_MASTER_MEMBERS_SERVICE_H

#include "common/sys/rpc.h"
#include "master/replica.h"

struct members_service;

struct members_service_options {
	struct loop *loop;
	struct rpc *rpc;
	struct replica *replica;
	uint64_t id;
	const char *cluster; /* name; borrowed */
};

struct members_service *members_service_open(const struct members_service_options *options);
void members_service_close(struct members_service *service);
/* A MembersChange. ERR_NOT_LEADER; ERR_NOT_FOUND: no such member; ERR_EXISTS: the id is another master's; ERR_WRONG_MASTER,
 * ERR_WRONG_CLUSTER: what answers at the address, or that nothing does; ERR_TOO_MANY; ERR_LAST_VOTER;
 * ERR_CHANGE_UNDER_WAY; ERR_INVALID: a learner cannot lead; ERR_CANCELLED: leadership did not move. */
void members_service_serve(struct members_service *service, struct rpc_request *request);
void members_service_leading(struct members_service *service);
void members_service_deposed(struct members_service *service);

#endif
