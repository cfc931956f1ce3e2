/* What the kernel knows: its inodes (nodeids), and which of ours each stands for.
 *
 * A nodeid is ours to choose. With the kernel's writeback cache, the kernel believes only itself about the size and the
 * modification time of a regular file that it has in memory. A file that another client changed must therefore become
 * another kernel inode: a new `epoch` of the same inode number, with a nodeid of its own. Epochs of one inode share its
 * data (file_io); an old one lives until the kernel forgets it. Directories and all else have one epoch only.
 *
 * Nodeids: the inode number itself for the first epoch (the root is 1 in both worlds), top bit set for later ones
 * (inode numbers have it clear, see snowflake.h).
 *
 * Invariant: a node is in the tables while the kernel has looked it up more often than it forgot it, or while it is held.
 * Thread: the loop's. Owner: struct handles owns the nodes; the mount owns their file_io references. */
#ifndef GRANARY_FUSE_HANDLES_H
#define GRANARY_FUSE_HANDLES_H

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "common/base/buf.h"
#include "common/proto/message.h"
#include "fuse/lock_book.h"

struct file_io;

struct node {
	uint64_t nodeid;
	uint64_t inode;
	UT_hash_handle by_inode; /* newest epoch only; next to its key, so that a look-up misses the processor's cache once */
	uint64_t lookups;	/* counted by the kernel */
	uint32_t holds;		/* requests and jobs of ours that use it */
	uint32_t opens;		/* open files */
	uint32_t write_opens;	/* of those, open for writing */
	uint32_t mutating;	/* changes of it (a directory: of its names) on their way to the master */
	uint32_t type;		/* S_IFMT bits; 0: not known yet */
	struct file_io *io;	/* while opens > 0 or a flush is under way */

	/* What the kernel's picture of a regular file stands for. */
	uint64_t change, data_change;
	uint64_t size;
	int64_t mtime;
	/* As the master told them with that. */
	uint32_t mode, uid, gid, nlink;
	int64_t atime, ctime;

	bool was_read;		/* the kernel was given its data, and may have it still */
	struct lock_book locks; /* held by programs here */
	bool following;		/* after a recall: asking what has become of it */
	uint64_t retry_until_ms; /* the kernel looked it up after an ESTALE: another one would reach the program */
	bool untrue;		/* data that the kernel has of it was lost: no master's word makes it right again */
	bool lost;		/* its locks were lost with the session: writes fail until it is closed */
	uint64_t plain_until_ms; /* it has no extended attributes until then, or until a recall */
	uint64_t bare_until_ms;	 /* in the same way: no set-id bits, no capability (privileges.h) */

	struct node_name *names; /* that the kernel may know it by, the last one first */

	struct node *older, *newer; /* epochs of this inode */
	UT_hash_handle by_nodeid; /* later epochs only, whose nodeid does not tell the inode */
};

struct node_name {
	struct node *node;
	struct node_name *next; /* of the node */
	uint64_t seen_ms;	/* the kernel was told what was true later than that */
	UT_hash_handle hh;
	/* The key, as long as the text. */
	uint64_t parent; /* nodeid of the directory */
	char text[];
};

#define NODE_RETRY_MS 1000u /* within it, the kernel has retried after ESTALE */

struct handles {
	struct node *by_inode; /* newest epochs; the others hang behind them */
	struct node *by_nodeid; /* later epochs */
	struct node_name *by_name;
	uint64_t last_epoch;
};

void handles_init(struct handles *handles);
/* Frees all nodes; their io must have been closed. */
void handles_deinit(struct handles *handles);

/* NULL when the kernel does not know it. */
struct node *handles_find(const struct handles *handles, uint64_t nodeid);
/* The newest epoch of an inode; NULL when the kernel knows none. */
struct node *handles_find_inode(const struct handles *handles, uint64_t inode);
/* The newest epoch, made if there is none. The caller counts a lookup or holds it, else it stays for ever. */
struct node *handles_node(struct handles *handles, uint64_t inode);
/* A new epoch, which takes the place of the one before for lookups to come. */
struct node *handles_renew(struct handles *handles, uint64_t inode);

void node_hold(struct node *node);
/* These two may free the node. */
void node_drop(struct handles *handles, struct node *node);
void node_forget(struct handles *handles, struct node *node, uint64_t lookups);
/* The kernel is told of the node under this name (copied), which is no other node's any more. */
void node_name(struct handles *handles, struct node *node, uint64_t parent, const char *name, uint64_t seen_ms);
/* The node that the kernel may know by the name; NULL: it knows none. */
struct node_name *handles_find_name(const struct handles *handles, uint64_t parent, const char *name);
/* The name is not there any more. */
void handles_drop_name(struct handles *handles, uint64_t parent, const char *name);

enum node_verdict {
	NODE_SAME,    /* nothing new, or older news than what is known */
	NODE_TOUCHED, /* only attributes that the kernel takes from us */
	NODE_CHANGED, /* a regular file: others changed data, size or modification time */
};
/* Compares an attr from the master with what the kernel's picture stands for. own: data_change as this mount's last change of the
 * content left it, or 0: content that only this mount has changed is no news while it is writing. */
enum node_verdict node_judge(const struct node *node, const Granary__Inode *attr, uint64_t own);
/* ESTALE is being answered for this node; its next epoch is looked up as the kernel's one retry. */
void node_stale(struct node *node, uint64_t now_ms);
/* The kernel's picture is now that of attr. */
void node_learn(struct node *node, const Granary__Inode *attr);
/* Data that the kernel has in its pages was lost on the way: whatever the master says from now on is a change, and the
 * next lookup gets a new epoch. */
void node_distrust(struct node *node);
/* attr came with a lease until then: remembers whether there are extended attributes to ask for. */
void node_lease(struct node *node, const Granary__Inode *attr, uint64_t until_ms);
/* That is no longer known. */
void node_unlease(struct node *node);
/* This mount is changing the file: its own picture is the one that counts. */
bool node_is_writing(const struct node *node);

#endif
