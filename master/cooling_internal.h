/* Inside of cooling.c, cooling_begin.c, cooling_notes.c and cooling_service.c. */
#ifndef GRANARY_MASTER_COOLING_INTERNAL_H
#define GRANARY_MASTER_COOLING_INTERNAL_H

#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/cold.h"
#include "master/cooling.h"

enum job_state {
	JOB_PROPOSED, /* a change is on its way through the log */
	JOB_RUNNING,  /* a server is at it */
	JOB_THAWING,
};

/* A writer. */
struct warm_wait {
	struct warm_wait *next;
	struct rpc_request *request;
	uint64_t until_ms;
};

struct job {
	uint64_t chunk, version;
	struct cooling *cooling;
	enum job_state state;
	enum cold_task_kind task;
	unsigned place; /* of the shard that is made anew; */
	uint64_t shard; /* its id, */
	uint64_t worker; /* and who does it, likewise for the other tasks; 0: not known yet */
	uint64_t begun_ms, told_ms;
	bool told; /* by us, or by a predecessor */
	struct rpc_request *done; /* ColdDone, answered when what follows is committed */
	struct warm_wait *waits;
	/* What is proposed. */
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp *op;
	UT_hash_handle hh;
};

/* Failed lately: not again for a while. */
struct failed {
	uint64_t chunk, until_ms;
	enum err err;
};

enum wish_kind {
	WISH_ANEW, /* hot, and cold again at once: another profile, or less in it; what else is wished for the chunk goes before */
	WISH_COLD,
	WISH_HOT,
};

/* What a chunk is to become. */
struct wish {
	uint64_t chunk;
	enum wish_kind kind;
	UT_hash_handle hh;
};

/* A shard whose copy is known to be bad. */
struct lost_shard {
	uint64_t shard;
	UT_hash_handle hh;
};

struct cooling {
	struct cooling_options options;
	bool leading;
	struct timer step;
	struct job *jobs; /* by chunk */
	struct lost_shard *lost;
	struct failed failed[COOL_FAILED_MAX];
	unsigned failed_next;
	struct wish *wishes; /* by chunk, in order */
	/* The pass over all chunks. */
	uint64_t cursor, pass_after_ms;
	uint64_t begin_after_ms; /* nothing new before, unless all servers are there */
	bool heard;		 /* all have said what they hold, or have had the time to */
	uint64_t heard_after_ms;
	size_t seen;
	struct placement_candidate *candidates;
	/* When chunks became cold, by our loop: the last ones, and what holds for all others. */
	struct {
		uint64_t chunk, ms;
	} colds[COOL_COLDS_REMEMBERED];
	unsigned colds_next;
	uint64_t colds_before_ms;
};

uint64_t cooling_now_ms(const struct cooling *cooling);
struct meta *cooling_meta(const struct cooling *cooling);
struct servers *cooling_servers(const struct cooling *cooling);
struct job *cooling_find(const struct cooling *cooling, uint64_t chunk);
struct job *cooling_job_add(struct cooling *cooling, uint64_t chunk, uint64_t version);
/* Takes the operation. */
void cooling_propose(struct job *job, Granary__MetaOp *op);
/* Gives up what it does, through the log. */
void cooling_undo(struct job *job);
void cooling_note_failed(struct cooling *cooling, uint64_t chunk, enum err err);
/* OK: not lately. */
enum err cooling_failed_lately(const struct cooling *cooling, uint64_t chunk);
/* Tasks of a server. */
unsigned cooling_tasks_of(const struct cooling *cooling, uint64_t server);

/* cooling_notes.c */
bool cooling_shard_is_lost(void *cooling, uint64_t shard);
void cooling_lost_forget(struct cooling *cooling, uint64_t shard);
/* Shards whose chunk has become hot, or was removed, are not lost any more. */
void cooling_forget_gone(struct cooling *cooling);
/* The chunk has become cold just now. */
void cooling_note_cold(struct cooling *cooling, uint64_t chunk);
/* How long ago it became cold, at least: by no clock that jumps. */
uint64_t cooling_cold_ms(const struct cooling *cooling, uint64_t chunk);

/* cooling_wishes.c. False: there is no room. */
bool cooling_wish(struct cooling *cooling, uint64_t chunk, enum wish_kind kind);
/* What is asked for, in order; what cannot be done now waits at the end. */
void cooling_step_wishes(struct cooling *cooling);
void cooling_forget_wishes(struct cooling *cooling);

/* cooling_service.c: MESSAGE_COOL. */
void cooling_serve_request(struct cooling *cooling, struct rpc_request *request);

/* cooling_begin.c: what is to be made where. OK: a job has begun. ERR_BUSY: not now, again later; others: it cannot be. */
enum err cooling_begin_cool(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk);
enum err cooling_begin_warm(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk);
enum err cooling_begin_rebuild(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk, const struct cold_verdict *verdict);

#endif
