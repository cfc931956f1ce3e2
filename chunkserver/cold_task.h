/* Tasks that take a while: the master's (ColdCommand: making a chunk cold or hot, making a lost shard anew), and the scrub's (whether the
 * shards of a set fit). A bounded number at a time; each of the master's ends with ColdDone, or with the process: then the master, which hears
 * nothing, asks again, and is told that it has failed. None is begun twice: what the first attempt has sent may still be on its way to files
 * that the master counts on by then. Nothing of
 * a task is durable but what it has written into chunks that the master does not count on yet.
 *
 * Thread: the loop; computing and checking is done on workers. A task is a sequence of steps (`step`), each of which starts calls or
 * a piece of work and is followed by the next when that has ended. */
#ifndef GRANARY_CHUNKSERVER_COLD_TASK_H
#define GRANARY_CHUNKSERVER_COLD_TASK_H

#include "chunkserver/service.h"
#include "common/proto/cold.h"

struct cold_task {
	struct cold_task *previous, *next;
	struct service *service;
	Granary__ColdCommand *command;
	struct timer timer;
	struct work work;
	bool working; /* on a worker, or about to be */
	bool ending;  /* goes when that has ended */
	unsigned retries;
	/* Of its kind: the next step; what it has besides; the end, with nothing under way. */
	void (*step)(struct cold_task *task);
	void (*clear)(struct cold_task *task);
	void (*compute)(struct cold_task *task);
};

/* A ColdCommand: begins it, if it has not been begun. ERR_BUSY: too many are under way. */
MUST_USE enum err cold_task_begin(struct service *service, const Granary__ColdCommand *command);
/* What it makes, and in which version: no two attempts have the same. */
struct cold_attempt cold_task_attempt(const struct cold_task *task);
/* A shard is being made anew here, in that version. */
bool cold_task_makes(const struct service *service, uint64_t shard, uint64_t version);
/* The process stops. */
void cold_tasks_abort(struct service *service);
/* One alone; only for COLD_VERIFY. */
void cold_task_abort(struct cold_task *task);

/* What a set of shards has been found to be. ERR_CORRUPT, ERR_TOO_MANY as coded_judge; else it could not be read. bad: bits. */
typedef void cold_verified_fn(void *arg, enum err err, uint64_t bad);
/* Not the master's: looks whether all shards of a set are what they should be (verify_op.c), and tells the master which are not. Never calls
 * done (or NULL) from within, nor after an abort. NULL: too many tasks are under way, or the location is not of a set. */
struct cold_task *cold_verify(struct service *service, const Granary__ChunkLocation *location, cold_verified_fn *done, void *arg);

/* For the kinds: allocated by mem_zero, with step and clear set. */
struct cold_task *cool_open(void);
struct cold_task *warm_open(void);
struct cold_task *rebuild_open(void);
struct cold_task *verify_open(cold_verified_fn *done, void *arg);
/* The next step, now or later, from the loop. */
void cold_task_go_on(struct cold_task *task, uint64_t delay_ms);
/* `compute` on a worker, then the next step. */
void cold_task_compute(struct cold_task *task, void (*compute)(struct cold_task *task));
/* So many bytes have been read for it: goes on when its server may spend more. */
void cold_task_spend(struct cold_task *task, uint64_t bytes);
/* Once more after a pause, or (too often) false. */
bool cold_task_retry(struct cold_task *task);
/* It is over: the master is told, if it was its command. coding: of a chunk that has been made cold, taken; else NULL. */
void cold_task_end(struct cold_task *task, enum err err, Granary__Coding *coding);

#endif
