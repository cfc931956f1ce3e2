/* Files that this client makes by itself, in directories that are delegated to it (delegations.h).
 *
 *	    file_io_create_local: a file_io with a `creation`: parent, name, owner, mode, an inode number from a block of our own
 *	        setattr, write, truncate, read, stat: here
 *	        closed: file_io_flush_behind --+
 *	        fsync, barrier, recall --------+-> flush: blob appended, then ONE request [Create, CommitBlob, (Open)] -> an
 *	        more than a blob --------------'   ordinary file. (Still open: [Create] alone, so that the name is there.)
 *
 * Who else wants to see the directory waits at the master until we have sent everything in it. Nobody sees a closed file in part.
 * The requests are repeated like all others when masters or chunkservers fail, also in another session: the inode number tells
 * the master that it is the same file. If it fails for good (the name is taken, because the delegation had run out while this
 * process stood still) the file is lost: logged, and its handles answer ERR_IO.
 *
 * When there is no room for what a close has promised, the master is told the name, and the file is *stranded*: its content stays here,
 * where it can be read, and one of those that are stranded is tried again from time to time (also after the session has ended: it is
 * stored only in place of the content that it was left with). Until one can be stored nothing more is done behind a program's back.
 *
 * Bounds: CLIENT_CREATIONS_MAX files, CLIENT_BEHIND_MAX of them flushed at once behind our backs. */
#ifndef GRANARY_CLIENT_CREATIONS_H
#define GRANARY_CLIENT_CREATIONS_H

#include <uthash.h>

#include "client/client_internal.h"

/* What the master is yet to be told of a file, with io's attributes. */
struct creation {
	struct file_io *io;
	struct delegation *delegation;
	struct buf name;
	int64_t time_ns; /* of making */
	unsigned tries;
	bool sent;
	bool closed; /* once */
	UT_hash_handle hh; /* by name */
};

/* Those in the directory that are open and not sent: their names. */
void creations_send_open(struct delegation *delegation);
/* The Create for it, valid as long as the creation. */
void creation_message(const struct creation *creation, Granary__Create *message);
/* The master knows it: result is that of the Create. Or it will never: err. Frees the creation. */
void creation_done(struct creation *creation, const Granary__MetaResult *result);
void creation_failed(struct creation *creation, enum err err);
/* Of the timer `creations.retry`. */
void creations_retry(void *arg);
void creations_deinit(struct client *client);

#endif
