/* For sim_classes, in half of its seeds: a client keeps asking what `granary explain`, `stat`, `du` and `admin what-if` ask, of whoever leads and of
 * chunkservers, while these come and go. What is answered must hold together; in the end, when all copies are there, the loss of each server
 * alone must be told as the chunk map has it. */
#ifndef GRANARY_TESTS_SIM_CLASSES_ASK_H
#define GRANARY_TESTS_SIM_CLASSES_ASK_H

#include "client/client.h"
#include "tests/sim/cluster_world.h"

struct asking;

struct asking_options {
	struct world *world;
	struct client *client;
	struct loop *loop;
	uint64_t (*some_file)(void *arg); /* an inode; 0: none yet */
	void *arg;
	uint64_t *answers; /* counted there */
};

struct asking *asking_open(const struct asking_options *options);
/* After client_close. */
void asking_close(struct asking *asking);
/* Each server alone; asking_is_verified, for sim_run: all have been asked about. */
void asking_verify(struct asking *asking);
bool asking_is_verified(void *asking);

#endif
