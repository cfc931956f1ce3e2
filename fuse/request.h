/* A request of the kernel that waits for the cluster.
 *
 * Opened by a handler, passed as `arg` to the client, closed with the one reply. It holds its node, and may mark nodes as
 * being changed, which recalls need to know (recall.h). */
#ifndef GRANARY_FUSE_REQUEST_H
#define GRANARY_FUSE_REQUEST_H

#include <sys/types.h>

#include "fuse/mount.h"

struct dir_handle;

struct request {
	struct mount *mount;
	fuse_req_t fuse;	 /* NULL: nobody waits */
	uint64_t started_ms;	 /* leases run from here */
	/* patience.h */
	struct request *previous, *next;
	uint64_t unique, opened_ms, interrupted_ms;
	pid_t thread;
	bool moves_data;     /* takes as long as it takes, while chunkservers answer */
	bool waits_for_lock; /* as long as it takes */
	bool given_up;	     /* has been answered: the reply goes nowhere */
	struct node *node;	 /* held */
	struct node *changing[2]; /* held and marked */

	/* Of single operations. */
	struct fuse_file_info file;
	struct stat attr;
	int flags;
	uint64_t offset, size, from_offset;
	char *name;
	struct file_io *io; /* a reference of this request's own */
	struct dir_handle *dir;
	struct lock_wait *wait;
	char *new_name;
	void (*go)(struct request *request);
	/* privileges.h */
	bool drop;   /* the kernel asked for it */
	bool set_id; /* being dropped */
	void (*dropped)(struct request *request, enum err err);
	struct iobuf *parts[MOUNT_IO_PARTS]; /* references, of a write that waits for that */
};

/* Of the node with this id, to be held. Replies ESTALE and returns NULL when the node is unknown. */
struct request *request_open(fuse_req_t fuse, uint64_t nodeid);
/* One that no reply belongs to. */
struct request *request_open_silent(struct mount *mount, struct node *node);
/* The node (a directory: its names) will be changed by this request: waiting recalls of it are acknowledged now. */
void request_changes(struct request *request, struct node *node);
/* As above by nodeid; false (and the request closed with ESTALE) when it is unknown. */
MUST_USE bool request_changes_id(struct request *request, uint64_t nodeid);
/* Releases everything. The reply has been sent. */
void request_close(struct request *request);
/* Replies the error, or success without a result, and closes. */
void request_end(struct request *request, enum err err);
void request_end_errno(struct request *request, int number);

/* Calls go once the master knows what this mount has made by itself in the directory, or changed of the inode (0: anything). */
void request_barrier(struct request *request, uint64_t directory, void (*go)(struct request *request));
/* The file of the request's node is made by this mount, and the master does not know it yet. */
bool node_is_local(const struct node *node);
void request_meta(struct request *request, Granary__MetaOp *op, client_meta_fn *done);
/* The result of operation i: NULL and *err set when the request or the operation failed. With an error of the operation
 * the result is still in *failed (may be NULL). */
const Granary__MetaResult *request_result(enum err *err, const Granary__MetaReply *reply, size_t i,
					  const Granary__MetaResult **failed);

/* Replies what the request's name in its node (a directory) leads to (lookup, mkdir, link, …), and closes. */
void request_entry(struct request *request, const Granary__MetaResult *result);
/* The same, known without asking; the lease runs from started_ms. */
void request_known_entry(struct request *request, uint64_t inode, const Granary__Inode *attr, uint32_t lease_ms, uint64_t started_ms);
/* Replies the attributes and closes. */
void request_attr(struct request *request, const Granary__Inode *attr, uint32_t lease_ms);

#endif
