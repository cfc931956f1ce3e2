/* Appends a blob to the pack that this client writes to; asks the master for a pack when there is none, it is full, or
 * its servers fail.
 *
 * An append whose answer was lost may leave a record that no inode refers to: the pack's compaction finds it. */
#ifndef GRANARY_CLIENT_BLOB_OP_H
#define GRANARY_CLIENT_BLOB_OP_H

#include "client/chunk_map.h"
#include "common/base/buf.h"

typedef void blob_append_fn(void *arg, enum err err, uint64_t pack, uint32_t slot);
/* `data` (iobuf->size bytes, at most BLOB_BYTES_MAX) does not change until done; a reference is taken. sync: on the
 * disks of all replicas. Never calls done from within. */
void blob_append(struct client *client, struct iobuf *data, bool sync, blob_append_fn *done, void *arg);

#endif
