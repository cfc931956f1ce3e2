/* Blobs follow their storage class: a record in a pack of another class than its file's is appended to one of the file's own, one by one.
 *
 *   TASK_MOVE due (tasks.h) -> WAITING -> its head is told (MoveCommand) -> RUNNING -> MoveDone -> PROPOSED: BlobMove, TaskRun -> over
 *                                 |                                           '------- failed, or too late ----.
 *                                 '--- nothing is to be done, or it cannot be now ---------------------------> PROPOSED: TaskRun
 *
 * TaskRun ends the task, or moves it to later, as meta/tasks.h sees the file then. Nothing here is durable, and nothing has to be: a new leader
 * begins with the tasks, and takes a MoveDone of which it knows nothing as well. The old record counts, and stays, until BlobMove is committed.
 *
 * The pack is one that is open for the class, as a client gets it by OpenPack; one at a time of each class. Thread: the loop's. */
#ifndef GRANARY_MASTER_MOVES_H
#define GRANARY_MASTER_MOVES_H

#include "master/chunk_change.h"
#include "master/fill.h"

struct moves;

struct moves *moves_open(const struct chunk_change_context *context, struct fill *fill);
/* After replica_close. */
void moves_close(struct moves *moves);
void moves_leading(struct moves *moves);
void moves_deposed(struct moves *moves);
/* A TASK_MOVE is due. False: as many as may wait do; again later. */
bool moves_due(void *moves, uint64_t due_ns, uint64_t id, uint64_t inode);
/* MESSAGE_MOVE_DONE. */
void moves_serve(struct moves *moves, struct rpc_request *request);

#endif
