/* For sim_classes: what its clients have done, and whether the masters' tables are as they should be when all has ended. */
#ifndef GRANARY_TESTS_SIM_CLASSES_CHECK_H
#define GRANARY_TESTS_SIM_CLASSES_CHECK_H

#include "master/replica.h"
#include "tests/sim/cluster_world.h"

#define CLIENTS 2u
#define ACTORS 3u /* of a client */
#define DIRECTORIES_MAX 12u
#define NAMES 2u /* of an actor, in each directory */
#define FILES_MAX (DIRECTORIES_MAX * CLIENTS * ACTORS * NAMES)
#define LABELS 2u /* of classes that may be removed; the default one is the last */

extern const char *const classes_labels[LABELS + 1];

struct sum {
	uint64_t directories, files, assigned, classes, moved, inodes, chunks, blobs, blobs_moved, read, read_early, answers;
};

/* All bytes of it are the number of its version. */
struct content {
	uint64_t inode, offset, size;
	uint64_t pack; /* as of the last commit, of a record */
	uint8_t synced, begun;
};

struct history {
	struct content files[FILES_MAX]; /* by directory, client, actor, name */
	size_t at;		      /* the end: read so far */
	uint64_t directories[DIRECTORIES_MAX];
	uint64_t orders[DIRECTORIES_MAX]; /* class_order of the last assignment that was answered */
	size_t count;
	bool ending, idle, asked, read;
	bool asks; /* classes_ask.h */
	bool power; /* goes, in this seed */
	bool removed[LABELS + 1]; /* of labels: it may have been no class for a while */
	struct sum sum;
};

_Noreturn void classes_wrong(struct world *world, const char *what, uint64_t id);
/* Classes of files and chunks, tasks, places of blobs; fsck. */
void classes_check(struct world *world, struct replica *replica);

#endif
