/* What the files of sim_chunk share: three of four chunkservers in each chain, a master in miniature, the model of what was written. */
#ifndef GRANARY_TESTS_SIM_CHUNK_WORLD_H
#define GRANARY_TESTS_SIM_CHUNK_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chunkserver/chunkserver.h"
#include "common/base/limits.h"
#include "common/sys/rpc.h"
#include "tests/sim/sys/sim.h"

#define SERVERS 4u
#define COPIES 3u
#define REGIONS 6u
#define REGION_BYTES (24u * BLOCK_BYTES) /* all of them: more than two pieces of a fill */
#define CHUNKS_MAX 200u
#define OPS_PER_CHUNK 60u
#define FAULTS_US 20000000u
#define CALM_US 30000000u
#define SEEDS 150u
#define CLUSTER 77u
#define GIVE_UP_PERCENT 8u

struct world;

struct server {
	struct world *world;
	unsigned index;
	struct sim_host *host;
	struct loop *loop;
	struct chunkserver *process; /* NULL: down */
	bool paused;
	bool loses_power; /* not only its process is killed: at most one of them does */
	bool power_is_back;
	uint64_t id; /* 0: not known yet */
	char address[16];
	/* As the master sees it. */
	struct rpc_conn *conn;
	bool clean;
	uint64_t lease_until_us;
	rpc_call_id cleaning;
};

struct region {
	uint8_t bytes[REGION_BYTES];
	bool open;    /* a write is under way */
	bool tainted; /* a client gave up: old or new, in part */
};

struct chunk_model {
	uint64_t id, version;
	unsigned members[SERVERS]; /* server indexes in chain order */
	size_t member_count;
	bool joining;	     /* the last one's copy is being filled */
	bool stale[SERVERS]; /* left out: its copy is retired */
	bool had[SERVERS];   /* something that was acknowledged; of who never had the master has nothing to retire */
	struct region regions[REGIONS];
	unsigned ops;
};

struct write {
	struct world *world;
	struct chunk_model *chunk;
	struct region *region;
	uint32_t offset, size; /* in the chunk */
	uint64_t operation;
	uint8_t bytes[4 * BLOCK_BYTES];
	bool trim; /* all from the offset on: size 0, and all regions from the first one on */
	bool gives_up;
	bool retried;
	/* As in client/chain_op.c. */
	uint64_t sent_ms, clock, clock_ms, clock_asked_ms;
	struct timer timer;
	struct write *previous, *next; /* of those open */
};

struct world {
	struct sim *sim;
	struct server servers[SERVERS];
	struct loop *master_loop, *client_loop;
	struct rpc *master, *client;
	struct rpc_peer *to_master;
	struct rpc_peer *peers[SERVERS];
	struct chunk_model chunks[CHUNKS_MAX];
	size_t chunk_count;
	uint64_t operation;
	struct write *writes;
	unsigned open_writes, open_reads;
	bool client_dead; /* makes nothing new until a server is back */
	bool calm;
	struct timer pace;
	unsigned acknowledged, retries, drops, reads, kills, power_cuts, given_up, unknown;
	unsigned joins, completions, fills_failed, refusals;
	uint64_t fill_bytes;
	uint64_t seed;
};

_Noreturn void world_failed(struct world *world, const char *what);
uint64_t roll(struct world *world, uint64_t bound);
/* kill -9; on_heal starts it again. */
void server_kill(struct server *server);
void on_heal(void *server);

/* chunk_master.c. The chain of a chunk as a client gets it. */
struct location {
	Granary__ChunkLocation message;
	Granary__Replica replicas[SERVERS], *pointers[SERVERS];
};
void locate(struct world *world, const struct chunk_model *chunk, struct location *out);
bool is_member(const struct chunk_model *chunk, unsigned server);
/* All complete copies are on servers that lost power and have not compared theirs with others yet, or (`now`) may lose it. */
bool is_in_doubt(struct world *world, const struct chunk_model *chunk, const struct server *without, bool now);
/* Members with a complete copy: the first so many. */
size_t complete_count(const struct chunk_model *chunk);
/* Looks for chunks that lack copies, now and then. */
void repair_start(struct world *world);
/* Nothing lacks a copy. */
bool all_complete(void *world);
extern const struct rpc_service master_service;

#endif
