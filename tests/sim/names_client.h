/* One client of sim_names: does to names what a mount does (fuse/ops_name.c), by itself where directories are delegated to it, and tells
 * the model (names_model.h) what it was told. Caches names as the kernel does.
 *
 *	choose -> look the names up -> (pause) -> change, deferred if the client accepts it, else as a request -> (pause) -> choose */
#ifndef GRANARY_TESTS_SIM_NAMES_CLIENT_H
#define GRANARY_TESTS_SIM_NAMES_CLIENT_H

#include <uthash.h>

#include "tests/sim/cluster_world.h"
#include "tests/sim/names_model.h"

#define NAMES_CLIENTS 3u
#define INODES_MAX 8192u
#define GHOSTS_MAX 1024u

struct known_inode {
	uint64_t id;
	uint16_t number;
	UT_hash_handle hh;
};

/* What all clients of a run share: nothing that they could know from each other. */
struct history {
	struct model *model;
	struct known_inode *inodes;
	uint64_t ids[INODES_MAX]; /* by number */
	bool directory[INODES_MAX];
	uint64_t bytes[INODES_MAX];	/* of a file that is complete: since then, or 0 */
	uint64_t complete_us[INODES_MAX];
	uint32_t maker[INODES_MAX]; /* its record */
	uint16_t inode_count;
	uint16_t changed_directory; /* last, by a deferred change */
	uint8_t changed_name;
	uint64_t watch_from_us, watch_until_us; /* clients look often at what others do */
	unsigned visits; /* one step in so many is in a directory that is not the client's own */
	unsigned dangers[NAMES_CLIENTS];
	uint32_t ghosts[GHOSTS_MAX]; /* deferred changes of clients that died */
	unsigned ghost_count;
	bool made;	 /* the shared directories */
	bool ending;
	unsigned deferred, plain, queries, local_answers, unknown, recalls, files, lost;
};

struct program;

void *names_client_start(struct world *world, unsigned number, struct loop *loop);
void names_client_stop(void *program);
/* Makes the directories that all share. */
void names_client_make_shared(struct program *program);
/* When they are there: one step after another. After history->ending: looks at everything, once. */
void names_client_begin(struct program *program);
/* From now on the client may do without what it has not sent, and what it accepts; until the end of it. program: NULL if it is down. */
void names_client_danger(struct history *history, unsigned number, struct program *program, bool begins);
/* The process is about to be killed: what it has not sent may be lost, and is not settled before names_ghosts_settled. */
void names_client_dies(struct program *program);
/* Nothing that a dead client has sent is under way any more. */
void names_ghosts_settled(struct history *history);
/* All that it did is known to the master. */
bool names_client_is_settled(struct program *program);
/* It has looked at everything since history->ending. */
bool names_client_has_looked(const struct program *program);

#endif
