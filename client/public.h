/* What the files of granary.h share: the handle, running the loop until a call is done, the message for the user. */
#ifndef GRANARY_CLIENT_PUBLIC_H
#define GRANARY_CLIENT_PUBLIC_H

#include "client/client.h"
#include "client/granary.h"

struct granary_cluster {
	struct loop *loop;
	struct client *client;
	struct buf addresses;
	struct buf message; /* ends with NUL */
	uint64_t timeout_ms;
	uint32_t uid, gid;
	char *storage_class; /* "": that of the directory */
};

/* The result of an asynchronous call. */
struct wait {
	bool done;
	enum err err;
};
void wait_done(void *arg, enum err err); /* arg: struct wait */
/* Runs the loop until done. */
MUST_USE enum err wait_for(struct granary_cluster *cluster, struct wait *wait);

/* Sends the operations and waits. The error of the request, or of the first operation that failed; *reply (may be set
 * with an error of an operation) is freed by message_free. */
MUST_USE enum err public_meta(struct granary_cluster *cluster, Granary__MetaOp *const *ops, size_t op_count,
			      Granary__MetaReply **reply);
/* Notes what failed ("put", "/a/b") and why, for granary_message; OK clears nothing. Returns err. */
granary_status public_result(struct granary_cluster *cluster, const char *what, const char *subject, enum err err);
granary_status public_result_id(struct granary_cluster *cluster, const char *what, uint64_t id, enum err err);

/* Where a path leads. */
struct walked {
	enum err err; /* ERR_NOT_FOUND with parent not 0: only the last component is missing */
	uint64_t inode, parent;
	const Granary__Inode *attr;
	struct slice name;
	const char *parent_label; /* Inode.class of the parent */
	Granary__MetaReply *reply; /* holds attr and name: walked_deinit */
};
/* The inode's class is to be the handle's own, or its parent's. */
void public_create(struct granary_cluster *cluster, uint64_t parent, struct slice name, uint32_t mode, Granary__Create *out);
void public_walk(struct granary_cluster *cluster, const char *path, bool follow, struct walked *out);
void walked_deinit(struct walked *walked);
/* As an error for an operation that needs the file: walked.err. For one that makes a name: OK when only the name is
 * missing. */
MUST_USE enum err walked_for_new(const struct walked *walked);

void public_stat(uint64_t inode, const Granary__Inode *attr, struct granary_stat *out);

#endif
