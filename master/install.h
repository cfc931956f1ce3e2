/* A snapshot of another master's state, pulled page by page into a database of its own (snapshot.h is the other side).
 *
 *	REMOVING --> OPENING --> PULLING --> SYNCING --> done(OK)
 *	  what an	SnapshotOpen	page by page:	everything is
 *	  earlier one			ask for the	durable
 *	  left				next, write this
 *
 * Each page is checked when it comes, count and digest at the end; nothing of the database is used before. A page that does not
 * come is asked for again; when the snapshot has ended (its server was started anew) or the server is gone for long, the
 * pull has failed and its owner begins another, perhaps elsewhere. Memory: two pages. Writing is done by a worker.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_INSTALL_H
#define GRANARY_MASTER_INSTALL_H

#include "common/sys/kv.h"
#include "common/sys/rpc.h"

struct install;

struct install_result {
	struct kv *kv; /* the callee's; complete, checked, durable */
	uint64_t index, term, cluster;
};

struct install_options {
	struct loop *loop;
	struct rpc *rpc;
	const char *path; /* of the database; what an earlier life left there is removed. Copied */
	const char *address; /* of the server. Copied */
	uint64_t cache_bytes, write_buffer_bytes;
	/* Once, never from within install_start; result is NULL unless err is OK. install_close is to be called afterwards. */
	void (*done)(void *arg, enum err err, const struct install_result *result);
	void *arg;
};

struct install *install_start(const struct install_options *options);
/* At any time; tells the server that its snapshot is not needed any more, and removes what was not completed, in the background: the
 * next pull needs another path. NULL is allowed. */
void install_close(struct install *install);

struct install_view {
	uint64_t pages, pairs, pairs_expected, index;
};
void install_view(const struct install *install, struct install_view *out);

#endif
