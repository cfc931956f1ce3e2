/* Operations on chunks: their order, their two halves (here and down the chain), their end. Thread: the loop.
 *
 *   request -> ARRIVED -> WAITING -> RUNNING -> answered, gone
 *              (chunk      (overlaps    (local work |
 *               opens)      an earlier)  successor) -> UNSETTLED <-> SETTLING -> gone
 *
 * The list of a chunk is in order of arrival, and is the table of intervals as well:
 *   - a write starts when no earlier operation on any of its blocks waits, reads, or is not yet applied here;
 *   - it is forwarded in the moment in which it starts, so successors see overlapping writes in the same order;
 *   - it stays in the list until it is acknowledged by the successor too: reads of its blocks wait for that;
 *   - a write that was applied here but not acknowledged down the chain stays as UNSETTLED. What its blocks hold is then
 *     decided by the head: it sends its own content down the chain (settle.c) as soon as that is whole again. Until then
 *     nobody reads these blocks here and no client writes them. A write from the predecessor that covers them settles them, too;
 *   - a piece that fills the successor's copy (fill.h) waits for earlier writes on its blocks to be applied here; later ones wait
 *     until it is sent;
 *   - a mend (mend.h) goes before all that wait, which may wait for it: it is refused if something runs on its blocks;
 *   - the predecessor's own read (rejoin.h) waits for writes under way anywhere in the chunk, but not for what is unsettled: that
 *     waits for the predecessor. So a server waits only for those below it.
 * So reads and writes of a chunk are linearizable from any replica (architecture page).
 *
 * Retries of clients are recognised by (client, operation): in the list, the request is attached to the operation; in the ring of
 * those done, it is answered; if it may have been done and forgotten it is refused (op_ring.h). Writes from the predecessor are never
 * suppressed: a replica does what its predecessor did. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_OP_H
#define GRANARY_CHUNKSERVER_CHUNK_OP_H

#include "chunkserver/chunk_store.h"
#include "chunkserver/chunk_sync.h"
#include "chunkserver/write_log.h"
#include "common/sys/rpc.h"

struct service;

enum op_kind { OP_WRITE, OP_TRIM, OP_READ, OP_SYNC, OP_APPEND, OP_BLOB_READ, OP_DELETE_SLOTS, OP_FILL, OP_SUMS, OP_SLOTS };
enum op_state { OP_ARRIVED, OP_WAITING, OP_RUNNING, OP_UNSETTLED, OP_SETTLING };

/* Requests of which one operation answers several. */
struct op_request {
	struct rpc_request *request;
	struct op_request *next;
};

struct chunk_op {
	struct chunk_op *previous, *next;	/* the chunk's list */
	struct chunk_op *ready_previous, *ready_next; /* the service's list of those to be started */
	bool is_ready;
	struct service *service;
	struct chunk *chunk;
	enum op_kind kind;
	enum op_state state;
	struct chunk_op *blocked_by; /* WAITING */
	struct op_request *requests; /* the first owns message and data */
	uint64_t arrived_ms;

	/* From the message. */
	bool from_client;	/* we are the head */
	bool sync;
	bool for_predecessor;	/* a read */
	bool even_uncertain;	/* a read */
	bool from_disk;		/* a read, past the page cache */
	bool exact;		/* a read, of no older version */
	bool scrubs;		/* a read that only checks; without a request; */
	struct iobuf **given;	/* a read without a request: the blocks go there, a reference to them, */
	uint32_t *given_skip;	/* from this one on */
	bool table;		/* of header and table of the chunk: */
	bool header_differs;	/* its result */
	bool mends;		/* a write or trim here alone (mend.h) */
	bool from_below; /* it mends, with what a member below has: nothing is in that which has not come through here */
	uint64_t life;		/* of the predecessor's process; 0: not from one */
	uint64_t version;
	uint64_t client, operation;
	uint64_t session;	/* of the client; 0: of none */
	bool again;		/* from the client: sent before, */
	uint64_t sent_ms;	/* first at this time, by our loop, or later; 0: at any time */
	uint64_t known_ms;	/* a trim: the chunk is made anew (chunk_retry_begin) */
	bool retry_unchecked;	/* as long as chunk_retry_waits */
	bool is_done;		/* it was: it waits to be answered (chunk_retry.h) */
	uint32_t offset, size;	/* trim: offset is the new end */
	uint32_t first, end;	/* blocks; none: overlaps nothing */
	Granary__Replica *const *replicas; /* in the message: valid while there is a request */
	size_t replica_count;
	struct slice crcs, data;
	uint32_t slot, crc;	/* blobs */
	bool marks_damage;	/* the data does not fit its CRCs, on purpose (fill.h) */
	bool keeps_slot;	/* OP_APPEND, of a client: the slot is the one that it says */
	bool deleted;		/* OP_APPEND: the slot has no data any more */
	struct slice slots;	/* OP_DELETE_SLOTS: uint32_t each, owned */

	/* Here. */
	struct work work;
	bool local_pending, applied;
	bool sync_begun;
	struct chunk_sync_job sync_job;
	uint32_t blocks_before, blocks_after;
	struct iobuf *buffer;	/* read results */
	bool direct;		/* a read: past the page cache; */
	uint32_t skip, extra;	/* blocks that are read before and behind those asked for */
	int intent;		/* a write: its slot there */
	struct write_log_entry logged; /* and what is said of it there */
	uint32_t damaged;	/* a write: the block for which it is ERR_CORRUPT */
	bool partial;		/* a write: of some of its blocks the disk, being full, took a part */
	uint64_t bad;		/* bits: of those asked for, that disagree with their checksum */
	enum err local_err;
	struct chunk_op *queue_next; /* pack_op.c, chunk_write.c */
	struct pack view;	/* the pack as it was when a read of it started */

	/* Down the chain. */
	uint64_t successor;	/* server id; 0: none */
	uint64_t sequence;
	rpc_call_id call;	/* 0: not waiting for the successor */
	uint64_t called_ms;
	enum err chain_err;
	uint64_t failed_server;	/* with ERR_CHAIN_BROKEN */
	uint32_t sent_blocks;	/* SETTLING */

	/* OP_DELETE_SLOTS and others without a request. */
	void (*done)(void *arg, enum err err);
	void *arg;
};

/* The op is the service's from here on; ERR_* is answered to its request when it cannot be taken. `create` as for
 * chunk_store_get. */
struct chunk_op *chunk_op_new(struct service *service, enum op_kind kind, struct rpc_request *request);
void chunk_op_submit(struct chunk_op *op, uint64_t chunk, const struct chunk_create *create);

/* The same for an open chunk, of what has no request. */
void chunk_op_begin(struct chunk_op *op, struct chunk *chunk);

/* Store events. */
void chunk_ops_opened(struct service *service, struct chunk *chunk, enum err err);
/* The chunk goes: what waits is answered, what is unsettled is dropped. */
void chunk_ops_abandon(struct chunk *chunk, enum err err);

/* For the parts of an operation (read_op, pack_op, settle, chain). */
void chunk_op_local_done(struct chunk_op *op, enum err err);
void chunk_op_chain_done(struct chunk_op *op);
/* Answers all requests of it. ERR_CHAIN_BROKEN carries op->failed_server, ERR_NO_SPACE that or our id. */
void chunk_op_answer(struct chunk_op *op, enum err err);
/* Takes it out of the list, frees it, wakes those that it blocked. */
void chunk_op_remove(struct chunk_op *op);
/* Starts those that wait for `by` (NULL: all that wait), later in this iteration. */
void chunk_ops_wake(struct chunk *chunk, const struct chunk_op *by);
/* Starts what is ready; the service's defer. */
void chunk_ops_run_ready(void *service);
/* Answered, and gone. */
void chunk_op_refuse(struct chunk_op *op, enum err err);
bool chunk_op_overlaps(const struct chunk_op *op, uint32_t first, uint32_t end);
bool chunk_op_is_write(const struct chunk_op *op);
/* What unsettled operations in the range did is replaced by what another member has: whoever sends one of them again brings a new one. */
void chunk_ops_replaced(struct chunk *chunk, uint32_t first, uint32_t end);

#endif
