/* Inside of balance.c and balance_service.c. */
#ifndef GRANARY_MASTER_BALANCE_INTERNAL_H
#define GRANARY_MASTER_BALANCE_INTERNAL_H

#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/settings.h"
#include "master/balance.h"
#include "master/balance_policy.h"

/* Why a chunk does not move. The later, the sooner it is told. */
enum balance_why { WHY_NONE, WHY_BUSY, WHY_NOT_WHOLE, WHY_NO_PLACE, WHYS };

/* A server that gives, and the pass over its chunks. */
struct source {
	uint64_t server;
	uint64_t cursor;
	uint64_t chunks, bytes;		  /* so far */
	uint64_t chunks_last, bytes_last; /* of the last whole pass */
	bool counted;			  /* there was one */
	unsigned begun;			  /* moves in this pass */
	unsigned whys[WHYS];
	enum balance_why why;	/* as of the last pass */
	uint64_t stuck_until_ms; /* nothing of it could be moved */
	uint64_t pass_after_ms;
	uint64_t after_ms;	/* the rate: not before */
	UT_hash_handle hh;
};

/* Of a copy or a shard. */
struct move {
	uint64_t chunk, owner; /* owner: of a shard; 0: a copy */
	uint64_t from, to, bytes;
	uint64_t over_ms; /* it has ended; 0: it has not */
	bool failed;
	UT_hash_handle hh;
};

struct balance {
	struct balance_options options;
	bool leading;
	uint64_t since_ms;
	struct timer step;
	struct rng rng;
	struct source *sources;
	struct move *moves;
	struct balance_server *servers; /* as of this step */
	size_t server_count;
	struct placement_candidate *candidates;
	bool gentle;
	/* Of this step, for one source. */
	struct source *source;
	unsigned percent; /* 0: it is drained */
	uint64_t rate;
	size_t seen;
	/* Of what was asked for. */
	uint64_t run, moved_bytes;
	bool ending; /* a change of the settings is on its way */
	char ended[160];
};

uint64_t balance_now_ms(const struct balance *balance);
struct meta *balance_meta(const struct balance *balance);
unsigned balance_moves(const struct balance *balance);
/* What was asked for; NULL: nothing. */
const Granary__Rebalance *balance_run(const struct balance *balance);
/* Bytes a second from each server, when somebody has asked. */
uint64_t balance_rate(const struct balance *balance);
uint64_t balance_capacity(const struct server *server);
/* Fills `servers`. */
void balance_look(struct balance *balance);
const char *balance_why_text(enum balance_why why);
/* balance_service.c: takes what was asked for away, it has ended. */
void balance_end_run(struct balance *balance, const char *how);

#endif
