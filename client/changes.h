/* Changes of names in delegated directories (delegations.h) that are as good as done before the master knows: directories and
 * symbolic links made, names removed and renamed, attributes of directories. (Files with data: creations.h.)
 *
 *	client_make, client_unlink, … -> waiting -> sent: ONE request at a time, with all that waited, in order -> done
 *
 * In order, so a directory is made before what is made in it. Changes that nobody waits for are gathered for CLIENT_GATHER_MS. Each
 * says which inode it is about (Create.id, Unlink.inode, Rename.inode), so that one that is repeated, even in another session, does
 * what was promised or nothing. If it cannot be done any more (the delegation had run out while this process stood still) that is
 * logged.
 *
 * Whatever else this client asks about an inode, or a name, with a change on its way waits for that change: changes are numbered,
 * and waiting is for a number. Bound: CLIENT_CHANGES_MAX. */
#ifndef GRANARY_CLIENT_CHANGES_H
#define GRANARY_CLIENT_CHANGES_H

#include "client/client_internal.h"

/* The last change on its way that concerns the inode (0: any); 0: there is none. */
uint64_t changes_pending(const struct client *client, uint64_t inode);
/* The same of a name; also when the directory itself is being made. */
uint64_t changes_pending_name(const struct client *client, uint64_t directory, struct slice name);
/* What these operations have to wait for. */
uint64_t changes_before(const struct client *client, Granary__MetaOp *const *ops, size_t op_count);
/* fn when the change of this number is done, or has failed, or the client closes. Not in a hurry: it may be gathered with others for
 * a while. */
void changes_wait(struct client *client, uint64_t number, bool hurry, void (*fn)(void *arg), void *arg);
/* Somebody waits. */
void changes_hurry(struct client *client);
/* Of the defer `send`, and the timer `gather`. */
void changes_deferred(void *arg);
/* The client is closing: nothing more is sent, nobody waits any more. */
void changes_cancel(struct client *client);

#endif
