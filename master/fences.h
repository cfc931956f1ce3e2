/* Fences: expired sessions that chunkservers are told of before their locks go to others.
 *
 * A client that stood still, or was cut off from the masters, may wake after its session has expired and go on writing to
 * chunkservers, which know nothing of locks. So a session ends in two steps:
 *
 *	expired -> Fence to every chunkserver -> all have confirmed, or serve nothing any more -> SessionEnd in the log: locks are free
 *
 * A chunkserver confirms when it takes no more writes of the session and none is under way there. One whose lease has run out
 * is told which sessions there are when it registers, before it serves again (chunkserver_service.c). So no write of an expired session
 * happens after the next holder of its locks has them.
 * Where a chunkserver serves but does not confirm for FENCE_WAIT_MS_MAX (a write that its chain cannot settle) the session ends
 * nevertheless: that write is ordered before any other of its blocks.
 * Soft state of the leader. Thread: the loop's. */
#ifndef GRANARY_MASTER_FENCES_H
#define GRANARY_MASTER_FENCES_H

#include "common/sys/rpc.h"
#include "master/servers.h"

struct fences;

struct fences_options {
	struct loop *loop;
	struct rpc *rpc;
	struct servers *servers;
	void (*fenced)(void *arg, uint64_t session); /* never from within fences_add */
	void *arg;
};

struct fences *fences_open(const struct fences_options *options);
void fences_close(struct fences *fences);
void fences_add(struct fences *fences, uint64_t session);
/* On gaining and losing leadership: none is pending. */
void fences_clear(struct fences *fences);

#endif
