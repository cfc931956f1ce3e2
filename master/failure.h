/* Reports that a replica does not answer (ChunkFailure): the chunk goes on without it once that is safe.
 *
 * Safe is: the server is dead (servers.h), so that it cannot serve what the others change. All members that are dead
 * are left out at once, never the last one with a complete copy. A newcomer whose copy is being filled serves nobody: one that is
 * alive and does not answer for a while is left out all the same. Concurrent reports of one chunk wait for the one change; each is
 * answered with the location as it then is.
 * A member that is alive, and that its predecessor cannot reach for a while, is told to retire its copy; when it has confirmed that
 * (it will not serve it any more, not even after a restart), or its lease has run out meanwhile, it is left out. Likewise one whose disk
 * is full, if another server has room for its copy. Who has retired its copy and was not left out then (the leader was deposed, or one of
 * the two restarted) is so when its inventory tells.
 * A copy that is not wanted any more goes in the same way: retired first; not while the masters' state is an old one.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_FAILURE_H
#define GRANARY_MASTER_FAILURE_H

#include "master/chunk_change.h"
#include "master/cooling.h"
#include "master/repair.h"

struct failure;

/* What `repair` says is too much leaves, too. Chunks whose chain has changed go to `repair` first, shards that are lost to `cooling`. */
struct failure *failure_open(const struct chunk_change_context *context, struct repair *repair, struct cooling *cooling);
/* After replica_close. */
void failure_close(struct failure *failure);
/* A ChunkCommand without garbage has ended. */
void failure_command_done(struct failure *failure, uint64_t server, const Granary__ChunkCommand *command, enum err err);
/* A member that has retired its copy is left out. False: not now. */
bool failure_retired(struct failure *failure, uint64_t id, const Granary__Chunk *chunk, uint64_t server);
/* MESSAGE_CHUNK_FAILURE. */
void failure_serve(struct failure *failure, struct rpc_request *request);

#endif
