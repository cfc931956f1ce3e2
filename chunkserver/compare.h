/* The copies of a chunk beside each other, block by block, by their tables of CRCs. A disk that reports a write done and loses it, and the
 * table's entry with it, leaves a copy that is sound and old: nothing else notices that.
 *
 * The head compares: all writes come through it. Of blocks that no operation has touched here since before the others were asked it has been
 * acknowledged that all members have them as they are here. So nothing but a disk that lies, or a fault of ours, makes a difference. What
 * most copies have is right; the blocks of the others become damaged (chunk_damage.h), and are mended. Where no most of them agree, nothing
 * is changed: it is told (DiskHealth.copies_differ). Packs are not compared.
 * Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_COMPARE_H
#define GRANARY_CHUNKSERVER_COMPARE_H

#include "chunkserver/service.h"

#define COMPARE_BLOCKS 1024u

struct compare {
	struct service *service;
	struct chunk *chunk; /* in use by the caller */
	uint64_t version, writes; /* as they were */
	uint32_t first, end;	  /* blocks; of the longest copy */
	size_t member;
	rpc_call_id call;
	bool telling; /* what is right, those that have something else */
	uint8_t crcs[REPLICAS_MAX][COMPARE_BLOCKS * 4u], right[COMPARE_BLOCKS * 4u];
	uint32_t differ; /* blocks of which nobody knows */
	void (*done)(void *arg, enum err err);
	void *arg;
};

/* COMPARE_BLOCKS from `first` on. done: OK, `end` says where the chunk ends; ERR_BUSY: they are being written, here or elsewhere; any other:
 * this chunk cannot be compared now. Also from within. */
void compare_next(struct compare *compare, struct service *service, struct chunk *chunk, uint32_t first,
		  void (*done)(void *arg, enum err err), void *arg);
/* No `done` follows. False: nothing is under way. */
bool compare_stop(struct compare *compare);
/* MESSAGE_CHUNK_COMPARE. */
void compare_serve(struct service *service, struct rpc_request *request);

#endif
