/* Appends a blob to the pack of its storage class that this client writes to; asks the master for a pack when there is none, it is full, or
 * its servers fail.
 *
 * An append whose answer was lost may leave a record that no inode refers to: the pack's compaction finds it. */
#ifndef GRANARY_CLIENT_BLOB_OP_H
#define GRANARY_CLIENT_BLOB_OP_H

#include "client/chunk_map.h"
#include "common/base/buf.h"

typedef void blob_append_fn(void *arg, enum err err, uint64_t pack, uint32_t slot);
/* label: Inode.class of its file. `data` (iobuf->size bytes, at most BLOB_BYTES_MAX) does not change until done; a reference is taken. sync: on the
 * disks of all replicas. Never calls done from within. */
struct blob_request {
	const char *label;
	struct iobuf *data;
	bool sync;
};
void blob_append(struct client *client, const struct blob_request *request, blob_append_fn *done, void *arg);
/* With the client. */
void pack_pools_deinit(struct client *client);

#endif
