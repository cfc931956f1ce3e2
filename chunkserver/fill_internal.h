/* Inside of fill.c and fill_pack.c. */
#ifndef GRANARY_CHUNKSERVER_FILL_INTERNAL_H
#define GRANARY_CHUNKSERVER_FILL_INTERNAL_H

#include "chunkserver/fill.h"

#define PIECE_BLOCKS (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)
#define PIECES (CHUNK_BLOCKS / PIECE_BLOCKS)

enum fill_state { FILL_PAUSED, FILL_ASKING, FILL_BARRIER, FILL_COPYING, FILL_SYNCING, FILL_CHECKING, FILL_REPORTING };

struct fill {
	struct service *service;
	struct chunk *chunk;
	enum fill_state state;
	uint64_t version, server; /* the chain's, the newcomer's */
	uint64_t incarnation;	  /* its process, when it was asked */
	uint32_t *sums;		  /* of its blocks, then */
	uint32_t sum_count;
	uint32_t end_block;
	uint64_t todo[PIECES / 64]; /* bits: pieces not yet known to be the same */
	uint32_t cursor;	    /* piece, or slot */
	unsigned in_flight;	    /* pieces or records */
	unsigned failures;	    /* since there was progress */
	unsigned waits;		    /* in a row for what is damaged here to be mended, or known to be lost */
	bool waiting;		    /* some of what is left */
	bool ending;		    /* goes with the last of those */
	enum err err;		    /* REPORTING: why it cannot be done */
	uint64_t sent_bytes;
	rpc_call_id call;
	struct timer timer; /* go on */
	/* Packs. */
	uint32_t slot_count;
	bool deleting; /* second half: slots that are no more */
	uint8_t *sent, *taken; /* bits: it may have it; it has */
};

/* Milliseconds until something may be sent; 0: now. */
uint64_t fill_budget_wait(struct service *service);
void fill_spent(struct fill *fill, uint64_t bytes);
/* A piece or record has ended. */
void fill_part_ended(struct fill *fill, enum err err);
/* Later, from the loop. */
void fill_continue(struct fill *fill, uint64_t delay_ms);
void fill_give_up(struct fill *fill, enum err err);
/* Nothing is left but what is damaged here. */
void fill_wait_for_mend(struct fill *fill);
/* The newcomer, while the chain is the one that this fill is for; else NULL. */
const Granary__Replica *fill_newcomer(const struct fill *fill);
/* Everything is sent and acknowledged. */
void fill_sync(struct fill *fill);

/* fill_pack.c: sends more records. */
void fill_pack_start(struct fill *fill);
void fill_pack_pump(struct fill *fill);

#endif
