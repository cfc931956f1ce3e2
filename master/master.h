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
	uint64_t id;
	uint64_t cache_bytes;
	/* The log or the store is broken: nothing is done any more, the process is to end. */
	void (*failed)(void *arg, enum err err);
	void *arg;
};

/* Blocks until the log is read. On an error *message says in one line what is wrong. Texts are copied. */
MUST_USE enum err master_open(struct loop *loop, const struct master_options *options, struct master **out,
			      struct buf *message);
void master_close(struct master *master);
/* For tests: to compare state machines. */
struct replica *master_replica(struct master *master);
/* As bound. */
const char *master_address(const struct master *master);

#endif
