/* The client's own state, shared by the files of this folder. */
#ifndef GRANARY_CLIENT_CLIENT_INTERNAL_H
#define GRANARY_CLIENT_CLIENT_INTERNAL_H

#include "client/client.h"
#include "client/servers.h"
#include "client/session.h"
#include "common/base/limits.h"
#include "common/base/rng.h"

struct chain_op;
struct read_op;
struct failure;
struct pack;
struct blob_append;
struct later;
struct delegation;
struct behind;
struct change;
struct change_wait;
struct concerned;

/* An operation under way that client_close ends. A zeroed struct is not in the list. */
struct running {
	struct running *previous, *next;
	void (*cancel)(struct running *running); /* ends it with ERR_CANCELLED, and takes it out of the list */
};

/* blob_op.c: the pack to append to, of one storage class. */
struct pack_pool {
	struct pack_pool *next;
	struct client *client;
	char label[STORAGE_CLASS_NAME_BYTES_MAX + 1];
	uint64_t current;   /* 0: none */
	uint64_t full;      /* the last one, to be replaced */
	bool opening;
	struct blob_append *waiting; /* for a pack */
};

struct packs {
	struct pack *table; /* locations by pack id */
	struct pack_pool *pools;
};

/* creations.c */
struct creations {
	unsigned count; /* files that the master does not know yet */
	struct behind *behind, *behind_sent; /* closed, to be flushed, and being flushed */
	unsigned behind_running;
	struct behind *stranded; /* closed, and not stored for want of room, or of anybody who answers: tried again */
	bool starved;		 /* there was such a one, and none has been stored since: programs wait for what they make, and are told */
	struct timer retry;
};

/* file_commit.c */
struct commits {
	struct file_io *waiting; /* gathered */
	unsigned waiting_count;
	unsigned running;	 /* requests with what was gathered */
	struct timer gather;
	struct defer send;
};

/* changes.c */
struct changes {
	struct change *waiting, *sent; /* in order */
	size_t sent_count;
	uint64_t sent_ms;
	unsigned tries; /* of what is sent */
	uint64_t last, done; /* numbers; those in between are on their way */
	unsigned count;
	struct concerned *concerned; /* by inode */
	struct change_wait *waits;
	struct timer gather;
	struct defer send;
};

struct client {
	struct loop *loop;
	struct rpc *rpc;
	struct session *session;
	struct rng rng;
	uint64_t id; /* of this process's operations on chunks: with `operation` it recognises a repeated one */
	uint64_t operation;
	struct chain_op *chain_ops; /* not answered yet, in order */
	uint64_t timeout_ms;
	uint64_t answered_ms; /* when a chunkserver did last */
	const struct client_events *events;
	void *events_arg;
	bool undelegated;
	bool closing;
	bool *closed; /* of the answer that is being handed on: set by client_close */
	unsigned ahead_files; /* read ahead, or being read */
	uint64_t asked_ms; /* while an answer of the master is handed on: when it was asked for; 0: none is */
	struct servers servers;
	struct packs packs;
	struct failure *failures;
	struct running *running;
	struct delegation *delegations; /* by directory */
	uint64_t ids_next;		/* inode numbers of our own */
	uint32_t ids_left;
	struct creations creations;
	struct changes changes;
	struct commits commits;

	struct file_io *files;  /* by inode */
	struct file_io *dirty;  /* with unflushed data, oldest first */
	struct timer writeback; /* running while files are dirty */
	uint64_t dirty_bytes;   /* accepted, and not yet at all replicas */
	struct later *writers;  /* writes that are accepted, and wait for what was accepted before them */
	uint64_t writers_bytes;
	struct later *finished;
	struct defer release;
};

/* done(arg, err) at the end of this iteration. accepted: bytes of a write, counted in dirty_bytes; not before all that is dirty up
 * to these is below its bound. */
void client_later(struct client *client, uint64_t accepted, file_io_fn *done, void *arg, enum err err);
/* What fails so may go well later: nobody answers, or not us. */
bool client_err_may_pass(enum err err);
void running_add(struct client *client, struct running *running);
void running_remove(struct client *client, struct running *running);

#endif
