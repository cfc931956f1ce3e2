/* What the clients of sim_cluster do: several of them, through client.h, to the same things at the same time.
 *
 *   - *tables*: blocks of 4 KiB in chunks, some across the border of two, some in chunks that are made by the first write; each client
 *     writes any of them, flushes or syncs, and reads;
 *   - *names* in the root: a file is written, synced and then linked (in place of what is there, or only where nothing is), removed,
 *     looked up and read whole; small ones are blobs in packs, large ones have chunks;
 *   - *locks*: of the tables, exclusive;
 *   - *cold* (run->cools): an operator who has the chunks of all that made cold, and hot again. It changes nothing of what is read.
 *
 * The first three are registers of one history (history.h). Besides, on the spot: a block is one version, whole; a file is that which its name
 * leads to, whole; once the faults have ended (run->ending) everything works. */
#ifndef GRANARY_TESTS_SIM_CLUSTER_LOAD_H
#define GRANARY_TESTS_SIM_CLUSTER_LOAD_H

#include <uthash.h>

#include "client/client.h"
#include "common/base/limits.h"
#include "tests/sim/cluster_world.h"
#include "tests/sim/history.h"

#define TABLES 3u
#define SPARSE 2u /* the table that begins empty, each block in a chunk of its own */
#define BLOCKS 12u
#define NAMES 4u
#define CLIENTS 3u
#define REGISTER_BLOCKS 0u
#define REGISTER_NAMES (TABLES * BLOCKS)
#define REGISTER_LOCKS (REGISTER_NAMES + NAMES)
#define REGISTERS (REGISTER_LOCKS + TABLES)

struct known_file {
	uint64_t inode, version;
	UT_hash_handle hh;
};

struct counts {
	unsigned writes, syncs, reads, links, removes, lookups, gets, locks, errors, cold, twice;
};

/* What all clients of a run share. */
struct run {
	struct world world;
	struct cluster_check *check; /* cluster_check.h */
	struct history *history;
	uint64_t tables[TABLES]; /* inodes; 0: not made yet */
	unsigned tables_ready;
	uint64_t version; /* the last one given out, to anything */
	struct known_file *files;
	struct counts counts;
	struct operator *operator; /* cluster_balance.h; or NULL */
	bool loses_one;	 /* cluster_run.h */
	bool cools;	 /* likewise; tables are written less often, or they would never become cold */
	bool never_sync; /* tables are flushed only */
	bool may_lose;	 /* unsynced data was lost: blocks of tables may be damaged until they are written again */
	bool ending;
	uint64_t ending_us;
};

struct program;

struct block_actor {
	struct program *program;
	unsigned table;
	struct file_io *io;
	struct timer timer;
	unsigned first, count;
	uint32_t operations[BLOCKS];
	uint64_t version;
	bool sync, checked;
	unsigned looked; /* blocks, at the end */
	uint8_t *bytes;
};

struct name_actor {
	struct program *program;
	unsigned name;
	struct file_io *io;
	struct timer timer;
	uint64_t inode, version;
	uint32_t operation;
	bool replace, checked;
	unsigned looked; /* names, at the end */
	uint8_t *bytes;
};

struct lock_actor {
	struct program *program;
	unsigned lock;
	struct timer timer;
	uint32_t operation;
	bool held, unknown, checked;
};

struct cold_actor {
	struct program *program;
	struct timer timer;
	uint32_t first; /* chunk of the file, where the answer left off */
	/* All of them: the next, how many chunks are not as wanted yet. */
	bool warm, converted;
	unsigned table;
	const struct known_file *file;
	uint64_t undone;
};

struct program {
	struct run *run;
	unsigned number;
	struct loop *loop;
	struct client *client;
	bool dead; /* answers no longer count */
	struct block_actor blocks[TABLES];
	struct name_actor names;
	struct lock_actor locks[TABLES];
	struct cold_actor cold;
};

/* For world.client_start and client_stop. world.arg is the run. */
void *load_start(struct world *world, unsigned number, struct loop *loop);
void load_stop(void *program);
/* Client 0 makes the tables and writes all blocks once. */
void load_make(struct run *run);
bool load_is_made(void *run);
/* The client begins, when the tables are made. One that is started later does by itself. */
void load_go(void *program);
/* After run->ending: each client has seen everything there is. */
bool load_is_checked(void *run);
/* Once more. */
void load_check_again(void *program);
/* Unsynced data of a chunkserver is gone. */
void load_power_lost(struct world *world, unsigned chunkserver);
void load_free(struct run *run);

/* ---- for the parts */
struct rng *load_rng(const struct program *program);
uint64_t load_now(const struct program *program);
void load_later(const struct program *program, struct timer *timer);
uint32_t load_begin(struct program *program, uint32_t number, enum history_kind kind, uint64_t value);
/* Something did not work: allowed as long as there are faults, and a while after. */
void load_failed(struct program *program, const char *what, unsigned number, enum err err);
_Noreturn void load_wrong(const struct program *program, const char *what, unsigned number, uint64_t found, uint64_t expected);
enum err load_result(enum err err, const Granary__MetaReply *reply);
void load_open_inode(struct program *program, uint64_t inode, client_meta_fn *done, void *arg);

void blocks_init(struct block_actor *actor);
void blocks_stop(struct block_actor *actor);
void blocks_write_all(struct block_actor *actor);
void names_init(struct name_actor *actor);
void names_stop(struct name_actor *actor);
void locks_init(struct lock_actor *actor);
void locks_stop(struct lock_actor *actor);
/* The session is over, or the process: what it held will be released by the master some time. */
void locks_lost(struct lock_actor *actor);
void cold_init(struct cold_actor *actor);
void cold_go(struct cold_actor *actor);
void cold_stop(struct cold_actor *actor);
/* After run->ending: all chunks, until actor->converted. */
void cold_convert(struct cold_actor *actor, bool warm);

#endif
