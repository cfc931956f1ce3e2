/* A cluster for tests of the client, in the test's own process and loop: one real master over a temporary folder, and
 * chunkservers that keep their chunks in memory and can be told to misbehave. Real rpc on loopback between all of them.
 *
 * The chain is kept to in what the client sees: a write goes to the head with the newest version and is in every
 * replica when it is answered; a retried operation id is applied once. */
#ifndef GRANARY_TESTS_LIB_FAKE_CLUSTER_H
#define GRANARY_TESTS_LIB_FAKE_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/rpc.h"

#define FAKE_SERVERS_MAX 5u

struct fake_cluster;

struct fake_server {
	struct fake_cluster *cluster;
	uint64_t id;
	struct rpc *rpc;
	struct rpc_peer *master;
	struct timer heartbeat;
	uint64_t incarnation;
	struct fake_chunk *chunks;
	/* What it does wrong. */
	bool silent; /* requests of clients get no answer */
	bool no_space;
	bool corrupt; /* flips a bit of what it reads */
	bool no_heartbeat;
	unsigned lose_replies; /* so many changes are done, and their answer is lost with the connection's */
	/* What it was asked. */
	uint64_t writes, reads, syncs, synced_writes, trims, appends, blob_reads, repeated;
};

struct fake_cluster {
	struct loop *loop;
	struct master *master;
	char directory[64], address[64];
	struct fake_server servers[FAKE_SERVERS_MAX];
	unsigned count;
	struct fake_request *held; /* requests without an answer */
};

/* Returns when the master leads and all chunkservers are registered. Fails the test when that takes too long. */
void fake_cluster_open(struct fake_cluster *cluster, unsigned servers);
void fake_cluster_close(struct fake_cluster *cluster);
const char *fake_cluster_address(const struct fake_cluster *cluster);
/* For a while there is none. */
void fake_master_stop(struct fake_cluster *cluster);
void fake_master_start(struct fake_cluster *cluster);
/* Its connections are reset, and nobody listens any more. */
void fake_server_kill(struct fake_server *server);
/* It has none of its chunks any more, and does not know that it had them. */
void fake_server_lose(struct fake_server *server);
/* Runs the loop until *done; fails the test after 20 s. */
void fake_cluster_run(struct fake_cluster *cluster, const bool *done);
/* The bytes of a chunk on one server; NULL if it has none. */
const uint8_t *fake_server_chunk(const struct fake_server *server, uint64_t chunk, uint32_t *bytes);

#endif
