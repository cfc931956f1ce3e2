/* Delivers garbage: what the state machine has freed is deleted on the chunkservers, each deletion confirmed through the log.
 *
 * A pass goes through the Garbage records in order of id (new ones come at the end) in bounded steps; a step's
 * deletions are confirmed before the next one. New garbage continues where the last pass ended; a full pass from the
 * start is made when a server has come back, and now and then for what could not be delivered.
 * A server that has come back is `cleaned` by a full pass begun after that in which nothing of it failed (servers.h).
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_GARBAGE_H
#define GRANARY_MASTER_GARBAGE_H

#include "master/commands.h"
#include "master/replica.h"
#include "master/servers.h"

struct garbage;

struct garbage *garbage_open(struct loop *loop, struct replica *replica, struct servers *servers);
/* After replica_close and commands_close. */
void garbage_close(struct garbage *garbage);
/* The two need each other: `done` of commands is garbage_command_done. */
void garbage_set_commands(struct garbage *garbage, struct commands *commands);

void garbage_leading(struct garbage *garbage);
void garbage_deposed(struct garbage *garbage);
/* The state machine has new records. */
void garbage_added(struct garbage *garbage);
/* A server is connected and `cleaning`, or a change that drops it has ended. */
void garbage_clean(struct garbage *garbage, uint64_t server);
/* A command with a garbage id has ended. */
void garbage_command_done(struct garbage *garbage, uint64_t server, const Granary__ChunkCommand *command, enum err err);

#endif
