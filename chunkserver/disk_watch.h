/* What the store looks at by itself, on workers: is the data folder still the one that was opened, how is a disk that is given nothing
 * to do; and that it has failed, for the next life. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_DISK_WATCH_H
#define GRANARY_CHUNKSERVER_DISK_WATCH_H

#include "chunkserver/chunk_store_internal.h"

/* The boot id that marks of this life carry. After a failed write or sync the page cache does not say what is on the disk, so that a
 * store that has failed is opened as in another boot of the machine: known from DIR/failed, or said by the caller. */
uint64_t disk_watch_boot(struct chunk_store *store, bool suspect);
/* Every heartbeat. */
void disk_watch_tick(struct chunk_store *store);
/* Writes DIR/failed, if the disk still can. */
void disk_watch_note_failure(struct chunk_store *store);

#endif
