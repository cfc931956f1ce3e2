/* The queue of delayed tasks at work (master/meta/tasks.h): what is due at once is carried out step by step through the log; of the others
 * those that are due soon wait in a timing wheel in memory, a bounded number, the first ones first.
 *
 *   store --due within TASKS_HORIZON_MS--> wheel --due--> looked at: written to since? --yes--> moved (TaskRun)
 *                                            ^               |no
 *                                            |               v
 *                                  TASKS_RETRY_MS later <-- `cool` --said so--> moved, or over (TaskRun)
 *
 * A TASK_MOVE is handed over when it is due (moves.h). What is in memory is only what the store says: when a task is gone, or has another time, what was loaded of it is dropped when it comes
 * up, and what is added with an earlier time is read again. A new leader begins from the store. Thread: the loop's. */
#ifndef GRANARY_MASTER_TASKS_H
#define GRANARY_MASTER_TASKS_H

#include "common/sys/rpc.h"
#include "master/replica.h"

struct tasks_options {
	struct loop *loop;
	struct replica *replica;
	/* The chunk has not been written for as long as its class says. True: it needs its task no more. False: it is to be told again at *again_ns,
	 * or, if that is left 0, when TASKS_RETRY_MS are over and it has its task still. NULL: nothing becomes cold. */
	bool (*cool)(void *arg, uint64_t chunk, uint64_t *again_ns);
	void *arg;
	/* A TASK_MOVE is due: True: whoever is asked sees to it, and to its TaskRun. False: again later. NULL: nothing is moved. */
	bool (*move)(void *arg, uint64_t due_ns, uint64_t id, uint64_t inode);
	void *move_arg;
};

struct tasks;

struct tasks *tasks_open(const struct tasks_options *options);
/* After replica_close. */
void tasks_close(struct tasks *tasks);
void tasks_leading(struct tasks *tasks);
void tasks_deposed(struct tasks *tasks);
/* After each entry. */
void tasks_applied(struct tasks *tasks, const struct meta_effects *effects);
/* MESSAGE_TASKS. */
void tasks_serve(struct tasks *tasks, struct rpc_request *request);

#endif
