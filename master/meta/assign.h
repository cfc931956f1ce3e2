/* Files, directories and chunks follow when a class is given to them, or is changed: bounded steps of tasks (tasks.h).
 *
 * SetInodeClass changes the inode at once, and numbers what it does (Inode.class_order). Its tasks walk down from there: one for each
 * directory, and one for each file with many chunks. Each gives way to a higher number, so that of two assignments that meet the later one
 * counts, whichever task comes first; what is made with a class of its own has a number, too; and what was made in a directory after it got its class has its number already.
 *
 * A blob is moved to a pack of its class (TASK_MOVE, master/moves.h), one by one. */
#ifndef GRANARY_MASTER_META_ASSIGN_H
#define GRANARY_MASTER_META_ASSIGN_H

#include "master/meta/state.h"

/* Advances the task. False: it is done. */
MUST_USE bool assign_step(struct context *context, Granary__Task *task);
MUST_USE bool class_step(struct meta *meta, Granary__Task *task);

#endif
