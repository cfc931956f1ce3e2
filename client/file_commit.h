/* The last step of a flush: the master is told of a file's content, of its times, and of the file itself when it was made here.
 *
 * Files that were made here (creations.h) are told together: those that come within CLIENT_GATHER_MS, unless somebody waits for one
 * of them, and while CLIENT_COMMITS_MAX requests are under way. Nobody else can hold such a request up, since their directories are ours. All others are told at once, each
 * in a request of its own, which may have to wait for other clients' caches. */
#ifndef GRANARY_CLIENT_FILE_COMMIT_H
#define GRANARY_CLIENT_FILE_COMMIT_H

#include "client/file_io_internal.h"

/* Ends in flush_committed. */
void file_commit(struct file_io *io);
/* Somebody waits for the file's flush, the one under way or the next. */
void file_commit_hurry(struct file_io *io);
/* After this error a file that was made here is worth another try: counts it. */
bool file_commit_again(struct file_io *io, enum err err);

/* Of the defer `commits.send`, and the timer `commits.gather`. */
void file_commits_deferred(void *arg);
/* The client is closing: those that are gathered end with ERR_CANCELLED. */
void file_commits_cancel(struct client *client);

/* file_flush.c: result is that of the operation on the data; NULL with an error of the request. */
void flush_committed(struct file_io *io, enum err err, const Granary__MetaResult *result);

#endif
