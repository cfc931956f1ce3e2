/* The queue of what is to be done later, or in the background: 'Q' due, id -> Task, in order of when it is due. It is durable like all
 * else here, so that a new leader goes on where the last one was. The leader says when one is carried out (TaskRun, master/tasks.h).
 *
 *   TASK_COOL    id: its chunk. A hot chunk has one (Chunk.task_due), if its class lets it become cold: from when it is made, a pack from when
 *                it is sealed, until it is cold or removed. What is to be done then is the leader's business.
 *   TASK_MOVE    id: counts up, above those of chunks. Of a blob whose pack is of another class (blob_follow): from the entry in which that came
 *                about until it is where it should be, or is found to be lost; nothing else knows of it, and there may be more than one of an inode.
 *   TASK_ASSIGN, TASK_CLASS
 *                due 0: at once, before all others, in the order in which they were made. TaskRun carries out a bounded step of them here.
 *                id: counts up, likewise. */
#ifndef GRANARY_MASTER_META_TASKS_H
#define GRANARY_MASTER_META_TASKS_H

#include "common/proto/task.h"
#include "master/meta/state.h"

#define TASK_ID_COUNTED (1ull << 63)

/* At once; the task is copied. */
void task_add_now(struct meta *meta, const Granary__Task *task);
/* Of the inode, due now. */
void task_move_new(struct meta *meta, uint64_t inode);
/* The chunk's TASK_COOL is due then, and not when it was; 0: it has none. */
void task_cool_set(struct meta *meta, uint64_t id, Granary__Chunk *chunk, uint64_t due_ns);
/* For fsck: the chunk's record says what it has. ERR_NOT_FOUND: they agree. */
MUST_USE enum err task_cool_mend(struct meta *meta, uint64_t id, uint64_t due_ns);
/* That of a chunk that is made, or a pack that is sealed, now; none if it stays hot. */
void task_cool_new(struct meta *meta, uint64_t id, Granary__Chunk *chunk);

#endif
