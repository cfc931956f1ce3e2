/* The table of storage classes in the state machine: one record, a copy of it in memory; and what files and chunks take from it.
 *
 * An inode gets its class when it is made, from its directory (or as Create says), and keeps it when it is moved. A class that is
 * removed leaves its name where it is: files, chunks and what is made in its directories are treated as of the default class, until
 * there is a class of that name again. So nothing has to be counted or rewritten, and nothing is lost by a slip. */
#ifndef GRANARY_MASTER_META_CLASSES_H
#define GRANARY_MASTER_META_CLASSES_H

#include "common/proto/storage_class.h"
#include "master/meta/state.h"

/* When the store is opened, and when a restore has put another one there: fills meta->classes, which stays as it is with an error. */
MUST_USE enum err classes_load(struct meta *meta);
/* In the store only. */
void classes_clear(struct meta *meta);
/* In pieces, as messages are: the label (storage_class.h) replaces what is in *field. */
void class_set(char **field, const char *label);

#endif
