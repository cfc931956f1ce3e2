/* MESSAGE_WHAT_IF: what would be lost, what degraded, and how long repair would take, if some servers were lost at once and for good.
 *
 * All chunk records are looked at, in slices between other events, and nothing is changed. Copies and shards count that are on servers in service
 * now. Who asks the same meanwhile (a client, again) gets the same answer. A run belongs to the leader that began it. The policy is in what_if_policy.h. Thread: the loop's. */
#ifndef GRANARY_MASTER_WHAT_IF_H
#define GRANARY_MASTER_WHAT_IF_H

#include "common/sys/rpc.h"
#include "master/replica.h"
#include "master/servers.h"

struct what_if;

struct what_if *what_if_open(struct loop *loop, struct replica *replica, struct servers *servers);
/* Before or after replica_close. */
void what_if_close(struct what_if *what_if);
void what_if_serve(struct what_if *what_if, struct rpc_request *request);
void what_if_deposed(struct what_if *what_if);

#endif
