/* MESSAGE_CLUSTER_STATUS: what the leader knows of members, servers and the safety of the data.
 *
 * How many chunks lack copies is counted through all chunk records, in slices between other events; requests that
 * come meanwhile are answered by the same count.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_STATUS_H
#define GRANARY_MASTER_STATUS_H

#include "common/sys/rpc.h"
#include "master/repair.h"
#include "master/replica.h"
#include "master/servers.h"
#include "master/sessions.h"

struct status;

struct status_options {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct sessions *sessions;
	const struct repair *repair;
	struct cooling *cooling;
	struct balance *balance;
	uint64_t start_ms; /* of the process, loop_now_ms */
};

struct status *status_open(const struct status_options *options);
/* Before or after replica_close. */
void status_close(struct status *status);
void status_serve(struct status *status, struct rpc_request *request);
void status_deposed(struct status *status);
/* start_ms: of the process; since then it has not been heard, if it has not been heard at all. */
void status_of_server(const struct server *server, uint64_t at_ms, uint64_t start_ms, Granary__ServerStatus *out);

#endif
