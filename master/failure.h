/* Reports that a replica does not answer (ChunkFailure): the chunk goes on without it once that is safe.
 *
 * Safe is: the server is dead (servers.h), so that it cannot serve what the others change. All members that are dead
 * are left out at once, never the last one. Concurrent reports of one chunk wait for the one change; each is answered with
 * the location as it then is. The survivors are told (configure), and learn it anyway from the next write.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_FAILURE_H
#define GRANARY_MASTER_FAILURE_H

#include "master/commands.h"
#include "master/garbage.h"
#include "master/replica.h"
#include "master/servers.h"

struct failure;

struct failure_options {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct commands *commands;
	struct garbage *garbage;
};

struct failure *failure_open(const struct failure_options *options);
/* After replica_close. */
void failure_close(struct failure *failure);
/* MESSAGE_CHUNK_FAILURE. */
void failure_serve(struct failure *failure, struct rpc_request *request);

#endif
