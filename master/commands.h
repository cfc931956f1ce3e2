/* Commands to chunkservers (ChunkCommands), over the connections that they opened: a bounded queue for each, one call at a time.
 *
 * Every command that was taken ends once with `done`; commands are idempotent, so that one whose fate is unknown may be
 * given again.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_COMMANDS_H
#define GRANARY_MASTER_COMMANDS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/rpc.h"
#include "master/servers.h"

struct commands;

/* err: what the server answered for this command, or why it was not reached. Never called from within commands_add. */
typedef void commands_done_fn(void *arg, uint64_t server, const Granary__ChunkCommand *command, enum err err);

struct commands *commands_open(struct loop *loop, struct rpc *rpc, struct servers *servers, commands_done_fn *done, void *arg);
/* Without `done` for what is under way. */
void commands_close(struct commands *commands);

/* Takes the command (allocated as message_free expects). False: not connected or COMMANDS_WAITING_MAX wait; it is freed
 * and `done` is not called. */
bool commands_add(struct commands *commands, uint64_t server, Granary__ChunkCommand *command);

/* The usual ones. Slots of a pack are deleted; or (none) the whole chunk. */
Granary__ChunkCommand *command_delete(uint64_t garbage, uint64_t chunk, const uint32_t *slots, size_t slot_count);
/* A copy up to this version is deleted, or retired: only marked as not to be served. */
Granary__ChunkCommand *command_drop_copy(uint64_t garbage, uint64_t chunk, uint64_t version, bool retire);
/* Copies the location. */
Granary__ChunkCommand *command_configure(const Granary__ChunkLocation *location);

#endif
