/* What chunkservers ask of the leader: to be registered, leases, what to do with what they hold.
 *
 * A chunkserver connects to the leader, registers (through the log when it is new or has moved), sends heartbeats and, when
 * asked, an inventory. Leases and coming back: servers.h. Inventory: a chunk without a record is deleted; one on a server that is
 * not a member is retired if it is among the stale copies of the chunk, else deleted, judged only by the applied state of a leader
 * whose lease runs (replica_can_read); a member with an older version, or that has part in a fill, is told the present chain.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_CHUNKSERVER_SERVICE_H
#define GRANARY_MASTER_CHUNKSERVER_SERVICE_H

#include "common/sys/rpc.h"
#include "master/commands.h"
#include "master/garbage.h"
#include "master/replica.h"
#include "master/servers.h"

struct chunkserver_service;

struct chunkserver_service_options {
	struct loop *loop;
	struct rpc *rpc;
	struct replica *replica;
	struct servers *servers;
	struct commands *commands;
	struct garbage *garbage;
};

struct chunkserver_service *chunkserver_service_open(const struct chunkserver_service_options *options);
/* After replica_close, before rpc_close. */
void chunkserver_service_close(struct chunkserver_service *service);
/* MESSAGE_REGISTER, MESSAGE_HEARTBEAT, MESSAGE_INVENTORY. */
void chunkserver_service_serve(struct chunkserver_service *service, struct rpc_request *request);
/* An inbound connection has closed: if it was a chunkserver's, somebody has to look whether the process is gone. */
void chunkserver_service_connection_lost(struct chunkserver_service *service, const struct rpc_conn *conn);
/* Fills the table of servers from the state machine. */
void chunkserver_service_leading(struct chunkserver_service *service);

#endif
