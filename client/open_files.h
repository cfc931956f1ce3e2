/* Which inodes this client has open, and what of that the leader has not been told yet.
 *
 * A change is told in the next keepalive; if that fails it is told again in the one after, worked out anew: so what is
 * told is always the state of the moment, never an old message repeated. To a new leader everything is told. */
#ifndef GRANARY_CLIENT_OPEN_FILES_H
#define GRANARY_CLIENT_OPEN_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/message.h"

struct open_file;
/* A zeroed struct is an empty table. */
struct open_files {
	struct open_file *table; /* by inode */
	size_t changed;          /* entries to be told */
};

void open_files_deinit(struct open_files *files);
/* Counted. */
void open_files_opened(struct open_files *files, uint64_t inode);
void open_files_closed(struct open_files *files, uint64_t inode);
bool open_files_is_open(struct open_files *files, uint64_t inode);
/* Fills message's opened and closed (allocated: open_files_free). `full`: everything that is open. Ends with exactly
 * one call of open_files_told. */
void open_files_tell(struct open_files *files, bool full, Granary__SessionKeepalive *message);
/* ok: the leader has taken what open_files_tell gave. */
void open_files_told(struct open_files *files, bool ok);
void open_files_free(Granary__SessionKeepalive *message);

#endif
