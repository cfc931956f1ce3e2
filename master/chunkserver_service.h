/* What chunkservers ask of the leader: to be registered, leases, what to do with what they hold.
 *
 * A chunkserver connects to the leader, registers (through the log when it is new or has moved), sends heartbeats and, when
 * asked, an inventory. Leases and coming back: servers.h. Inventory, judged by the applied state of a leader whose lease runs
 * (replica_can_read):
 *  - a member with an older version, or that has part in a fill, is told the present chain; one that has retired its copy is left out;
 *  - without being a member: retired if it is among the stale copies of the chunk. Else, older than the chunk: deleted while all
 *    members are in service, otherwise left for later. Not older: the masters may be from before a change that made it a member, so it
 *    is left to fsck to tell of;
 *  - without a record: deleted if the state machine has removed the chunk (meta/garbage.h says why that is proof). Otherwise it
 *    is an orphan: counted, reported, kept. CopyRemove, proposed by fsck, takes what is old enough;
 *  - a member that does not name a chunk with content is told the chain: it makes good what it has lost.
 * The inventory is asked for again soon where something was left for later, otherwise after INVENTORY_MS: what went astray, and was told
 * to nobody, is found then.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_CHUNKSERVER_SERVICE_H
#define GRANARY_MASTER_CHUNKSERVER_SERVICE_H

#include "common/sys/rpc.h"
#include "master/commands.h"
#include "master/failure.h"
#include "master/fsck.h"
#include "master/garbage.h"
#include "master/replica.h"
#include "master/servers.h"
#include "master/sessions.h"

struct chunkserver_service;

struct chunkserver_service_options {
	struct loop *loop;
	struct rpc *rpc;
	struct replica *replica;
	struct servers *servers;
	struct sessions *sessions;
	struct commands *commands;
	struct garbage *garbage;
	struct failure *failure;
	struct cooling *cooling;
	struct fsck *fsck;
};

struct chunkserver_service *chunkserver_service_open(const struct chunkserver_service_options *options);
/* After replica_close, before rpc_close. */
void chunkserver_service_close(struct chunkserver_service *service);
/* MESSAGE_REGISTER, MESSAGE_HEARTBEAT, MESSAGE_INVENTORY. */
void chunkserver_service_serve(struct chunkserver_service *service, struct rpc_request *request);
/* An inbound connection has closed: if it was a chunkserver's, somebody has to look whether the process is gone. */
void chunkserver_service_connection_lost(struct chunkserver_service *service, const struct rpc_conn *conn);
/* Servers may have been changed. */
void chunkserver_service_applied(struct chunkserver_service *service, const struct meta_effects *effects);
/* Fills the table of servers from the state machine. */
void chunkserver_service_leading(struct chunkserver_service *service);

#endif
