/* Reads every block and record of the store past the page cache and checks it against its checksum; also each chunk's header and table,
 * and that its name leads to it; then, if we are its head, each chunk's copies against each other (compare.h); and of a cold chunk all
 * shards with each other (scrub_set.h). What is damaged is mended (mend.h), a shard that is wrong made anew.
 *
 * When all of a chunk has been read is kept in the index, for `granary explain`.
 *
 * A full pass begins when Settings.scrub_days have gone by since the last one began, at a rate that would just do; place and times
 * are kept in the index, so that it goes on after a restart. On demand (`granary admin scrub`) it begins at once. One piece is read at a
 * time, as an operation among others of its chunk, and foreground requests go first.
 * Thread: the loop, files on a worker. */
#ifndef GRANARY_CHUNKSERVER_SCRUB_H
#define GRANARY_CHUNKSERVER_SCRUB_H

#include "chunkserver/service.h"

struct scrub;

struct scrub *scrub_open(struct service *service);
/* With nothing running. */
void scrub_close(struct scrub *scrub);
/* The process stops: begins nothing more. */
void scrub_stop(struct scrub *scrub);
/* All chunks, or those. */
void scrub_demand(struct scrub *scrub, const Granary__ScrubCommand *command);
void scrub_report(const struct scrub *scrub, Granary__DiskHealth *out);

/* For read_op.c: the turn of a scrub's operation on header and table has come. */
void scrub_table_start(struct chunk_op *op);

#endif
