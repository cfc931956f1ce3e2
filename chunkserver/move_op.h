/* Moves of blobs: the head of a pack fetches a record of another pack and appends it (MoveCommand), with the CRC that its writer made, on disk
 * at all members before the master is told (MoveDone), who then makes it count. Until then the first one does.
 *
 * Nothing of it is durable but the record. If this process, or its word to the master, is lost, the record is nobody's, like that of a
 * client that has died between its BlobAppend and its CommitBlob. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_MOVE_OP_H
#define GRANARY_CHUNKSERVER_MOVE_OP_H

#include "chunkserver/service.h"

/* Begins it, if it has not been begun. ERR_BUSY: too many are under way. */
MUST_USE enum err move_begin(struct service *service, const Granary__MoveCommand *command);
/* The process stops. */
void moves_abort(struct service *service);

#endif
