/* Directories that the master has delegated to this client (master/delegations.h): as long as one is, nobody else sees or changes
 * its names, and what this client does to them is as good as done before the master knows (creations.h: files, changes.h: all
 * else).
 *
 *	an answer gives it ----> running ----> recalled, or its time is over ----> what was done under it is sent: gone
 *	                          |   ^
 *	                          '---' renewed by each answer to a change in it
 *	a directory that we make ourselves is ours from the start, and running until the master has been told
 *
 * What is known of it meanwhile: its attributes; all its names, if it was empty when it became ours (`complete`). */
#ifndef GRANARY_CLIENT_DELEGATIONS_H
#define GRANARY_CLIENT_DELEGATIONS_H

#include <uthash.h>

#include "client/client_internal.h"

struct creation;

struct delegation {
	struct client *client;
	uint64_t directory;
	uint64_t since_ms, until_ms;
	bool making;		/* by a change that the master does not know yet */
	bool recalled;
	bool usable;		/* its mode is known to let us choose the group of what is made in it */
	bool complete;		/* `names` are all there are, or were */
	uint64_t *names;	/* hashes, open addressing */
	size_t names_count, names_size;
	Granary__Inode *attr;	/* of the directory, as our changes leave it; or NULL. But for the times: touched_ns */
	char *label;		/* its storage class, which what is made in it gets, too */
	bool counted;		/* attr->entries is right, with our creations */
	uint64_t epoch;		/* of what is known of it */
	int64_t touched_ns;	/* when we changed its names last; 0: not since the master told its times */
	struct creation *creations;
	struct timer timer;
	UT_hash_handle hh;
};

struct delegation *delegation_find(struct client *client, uint64_t directory);
/* The delegation that may be relied upon now, or NULL. */
struct delegation *delegation_running(struct client *client, uint64_t directory);
/* The same, for new changes: there is time left to send them. */
struct delegation *delegation_usable(struct client *client, uint64_t directory);
/* Of a directory that is being made, with these attributes. */
void delegation_make(struct client *client, uint64_t directory, const Granary__Inode *attr);
/* An answer to a request that was sent at asked_ms. */
void delegations_given(struct client *client, uint64_t asked_ms, const Granary__MetaReply *reply);
/* The master knows the directory, or never will. After delegations_given. */
void delegation_made(struct client *client, uint64_t directory);
void delegation_free(struct delegation *delegation);

/* We change names in it: so many more names, and links (directories), at this time. */
void delegation_changed(struct delegation *delegation, int names, int links, int64_t time_ns);
void delegation_add_name(struct delegation *delegation, struct slice name);
void delegation_forget_attr(struct delegation *delegation);
/* Attributes of what we make ourselves, at that time. attr's symlink is create's. */
void made_attr(const Granary__Create *create, int64_t time_ns, Granary__Inode *attr);
/* The kernel may have been told that it may cache both until the delegation's end: it no longer may. */
void made_uncache(struct client *client, uint64_t inode, uint64_t directory, struct slice name);

/* Operations are sent as requests, or were answered: what is known of directories that they change. */
void delegations_note(struct client *client, Granary__MetaOp *const *ops, size_t op_count);
void delegations_note_done(struct client *client, const uint64_t *directories, size_t count);
/* Directories that operations change; at most `room`. */
size_t delegations_touched(Granary__MetaOp *const *ops, size_t op_count, uint64_t *directories, size_t room);
/* SESSION_WANTS_…: what a request for these should ask for besides. */
unsigned delegations_wanted(struct client *client, Granary__MetaOp *const *ops, size_t op_count);
/* An inode number of our own; 0: there is none. */
uint64_t delegations_next_id(struct client *client);

/* MESSAGE_INVALIDATE of a delegation. */
void delegations_recall(struct client *client, uint64_t directory, void (*done)(void *arg), void *arg);
/* Those in which files have been made that cannot be sent yet. */
size_t delegations_kept(struct client *client, uint64_t *directories, size_t room);
void delegations_session_lost(struct client *client);
/* Nothing is made under any of them any more. */
void delegations_deinit(struct client *client);

#endif
