/* What clients ask of the leader: sessions, namespace operations.
 *
 * Queries are answered at once from the applied state while the leader's lease runs (replica_can_read). Changes go through the
 * log, together with everything else that arrived in the same iteration, and are answered when applied here: at once,
 * or, when other sessions hold cache leases on what was changed, when these are recalled (recall.h).
 * On any other master, and for what was under way when leadership is lost, the answer is ERR_NOT_LEADER with the
 * leader's address as its text ("" if unknown).
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_CLIENT_SERVICE_H
#define GRANARY_MASTER_CLIENT_SERVICE_H

#include "common/sys/rpc.h"
#include "master/fill.h"
#include "master/leases.h"
#include "master/replica.h"
#include "master/servers.h"
#include "master/sessions.h"
#include "master/trash.h"

struct client_service;

struct client_service_options {
	struct loop *loop;
	struct rpc *rpc;
	struct replica *replica;
	struct sessions *sessions;
	struct servers *servers;
	struct fill *fill;
	struct trash *trash;
};

/* What is in the options outlives it. */
struct client_service *client_service_open(const struct client_service_options *options);
/* After replica_close, before rpc_close. */
void client_service_close(struct client_service *service);

/* MESSAGE_SESSION_OPEN, MESSAGE_SESSION_KEEPALIVE, MESSAGE_META. */
void client_service_serve(struct client_service *service, struct rpc_request *request);
/* replica_events of the same names. */
void client_service_leading(struct client_service *service);
void client_service_deposed(struct client_service *service);
void client_service_applied(struct client_service *service, const struct replica_applied *applied);
/* Of sessions that were not heard for SESSION_TIMEOUT_MS. Called every HOUSEKEEPING_MS. */
void client_service_expire(struct client_service *service);

#endif
