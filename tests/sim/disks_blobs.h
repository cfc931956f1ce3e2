/* Small files for sim_disks, each a blob in a pack: made, read, emptied; what their chunkservers hold of them in the end. */
#ifndef GRANARY_TESTS_SIM_DISKS_BLOBS_H
#define GRANARY_TESTS_SIM_DISKS_BLOBS_H

#include "client/client.h"
#include "tests/sim/cluster_world.h"

struct blobs;

/* From the client's process. */
struct blobs *blobs_start(struct world *world, struct client *client, struct loop *loop);
void blobs_stop(struct blobs *blobs);
/* Nothing new is begun. */
void blobs_finish(struct blobs *blobs);
bool blobs_finished(const struct blobs *blobs);
unsigned blobs_made(const struct blobs *blobs);
unsigned blobs_read(const struct blobs *blobs);
/* Bits of the pack's file have been flipped there. */
void blobs_note_rot(struct blobs *blobs, uint64_t pack);
/* Every chunkserver that has a pack holds all records in it that belong to files, sound, and none that were deleted. For sim_run; what is
 * wrong is in blobs_wrong. */
bool blobs_are_whole(void *blobs);
const char *blobs_wrong(const struct blobs *blobs);

#endif
