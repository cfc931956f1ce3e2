/* Records of packs, checked where they lie on the disk. Thread: the loop, the file on a worker. */
#ifndef GRANARY_CHUNKSERVER_SCRUB_PACK_H
#define GRANARY_CHUNKSERVER_SCRUB_PACK_H

#include "chunkserver/service.h"

#define SCRUB_PACK_RECORDS 64u

struct scrub_pack {
	struct work work;
	struct service *service;
	struct chunk *chunk; /* in use by the caller */
	struct pack view;    /* as it was: salt and id */
	uint32_t slots[SCRUB_PACK_RECORDS];
	struct pack_slot places[SCRUB_PACK_RECORDS];
	uint32_t count;
	uint64_t bad; /* bits */
	bool header_bad;
	bool misplaced; /* the name leads to another file, or to none */
	uint64_t bytes;
	enum err err;
	void (*done)(void *arg, enum err err, uint64_t bytes);
	void *arg;
};

/* Checks the next records with slots above *slot and moves it on; what is wrong is noted as damage. done with the bytes that were read;
 * ERR_NOT_FOUND: there are no more, also from within; or the name leads elsewhere (chunk_store_set_misplaced). */
void scrub_pack_next(struct scrub_pack *scrub, struct service *service, struct chunk *chunk, uint32_t *slot,
		     void (*done)(void *arg, enum err err, uint64_t bytes), void *arg);

#endif
