/* A master: rpc, the replicated state machine and the services around it, in one loop.
 *
 * Without files of its own and mutable globals, so that a whole cluster of them runs in one simulated process. */
#ifndef GRANARY_MASTER_MASTER_H
#define GRANARY_MASTER_MASTER_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/sys/loop.h"

struct master;
struct replica;

struct master_options {
	const char *directory; /* of this master alone; made if it is not there */
	const char *listen;    /* "host:port" */
	const char *cluster;   /* name */
	const char *members;   /* as members.h says; NULL or "": this one alone */
	bool join;	       /* with a fresh directory: never found a cluster, wait to be taken into one */
	uint64_t id;
	uint64_t cache_bytes;
	uint32_t segment_bytes;	 /* as replica_options says */
	uint64_t log_kept_bytes;
	/* The log or the store is broken: nothing is done any more, the process is to end. */
	void (*failed)(void *arg, enum err err);
	void *arg;
};

/* Blocks until the log is read; a fresh directory waits for the other masters first (founding.h), from the loop. On an error *message says in one line what is wrong. Texts are copied. */
MUST_USE enum err master_open(struct loop *loop, const struct master_options *options, struct master **out,
			      struct buf *message);
void master_close(struct master *master);
/* For tests: to compare state machines. NULL while it waits to be founded. */
struct replica *master_replica(struct master *master);
/* As bound. */
const char *master_address(const struct master *master);

#endif
