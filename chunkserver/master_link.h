/* The way to the masters: finds the leader, registers, keeps the lease alive, sends the inventory, reports failures of chains.
 *
 *   SEARCHING --register ok--> REGISTERED --heartbeats--> ...
 *       ^  next address, or the one that NOT_LEADER names  |
 *       +--------- not the leader / does not answer -------+
 *
 * The lease counts from the moment at which the heartbeat that was answered was sent, on the monotonic clock: so it ends here
 * before it ends at the master. Losing the leader does not end it at once. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_MASTER_LINK_H
#define GRANARY_CHUNKSERVER_MASTER_LINK_H

#include "chunkserver/chunk_store.h"
#include "common/proto/cold.h"
#include "common/sys/rpc.h"

struct master_link;

struct master_link_options {
	const char *masters; /* "host:port,host:port", copied */
	const char *host;    /* failure domain label, copied */
	const char *location; /* NULL: none; copied */
	const char *address; /* where clients reach us, copied */
	uint64_t server;
	uint64_t cluster; /* 0: not known yet */
	/* The cluster was learned: to be kept on disk. */
	void (*joined)(void *arg, uint64_t cluster);
	/* The master's newer word on a chunk. */
	void (*configured)(void *arg, const Granary__ChunkLocation *location);
	/* Which sessions there are (fence.h), with each registration. */
	void (*sessions)(void *arg, uint64_t known, const uint64_t *live, size_t live_count);
	/* Whether to register anew, asked with each heartbeat. */
	bool (*wants_registration)(void *arg);
	/* What a heartbeat says of the disk. Texts are borrowed for the call. */
	void (*health)(void *arg, Granary__DiskHealth *out);
	/* What a heartbeat says of filling copies from here. */
	void (*fill_counts)(void *arg, Granary__Heartbeat *heartbeat);
	void *arg;
};

/* ERR_INVALID: no address among the masters. */
MUST_USE enum err master_link_open(struct rpc *rpc, struct loop *loop, struct chunk_store *store,
				   const struct master_link_options *options, struct master_link **out);
void master_link_close(struct master_link *link);
bool master_link_has_lease(const struct master_link *link);
/* 0: not known yet. */
uint64_t master_link_cluster(const struct master_link *link);
/* The cluster's settings as of the last heartbeat; the defaults before. Never NULL, until the next one. */
const Granary__Settings *master_link_settings(const struct master_link *link);
struct master_link_failure {
	uint64_t chunk, version, server;
	bool unreachable; /* it does not answer anything else either, or does not serve */
	bool full;
	bool lost; /* this server is the only one, and has not all of it */
};
/* Tells the master that `server` did not answer in the chain of the chunk; tries again while it is not known to be gone. */
void master_link_report(struct master_link *link, const struct master_link_failure *failure);

/* Asks the master where a chunk is, once: the reply is its ChunkLocation. `configured` does not get it. 0: no master is known now. */
rpc_call_id master_link_locate(struct master_link *link, uint64_t chunk, rpc_done_fn *done, void *arg);

struct master_link_fill {
	uint64_t chunk, version;
	uint64_t server; /* the newcomer */
	enum err err;	 /* OK: its copy is complete and on disk */
	uint64_t bytes;
};
/* Tells the master how filling a copy from here has ended; the answer comes as `configured`. */
void master_link_filled(struct master_link *link, const struct master_link_fill *fill);

/* Tells the master how a ColdCommand has ended; copied. */
void master_link_cold_done(struct master_link *link, const Granary__ColdDone *message);
/* Likewise a MoveCommand. */
void master_link_move_done(struct master_link *link, const Granary__MoveDone *message);
/* It is being told of this one. */
bool master_link_tells_cold(const struct master_link *link, const struct cold_attempt *attempt);

#endif
