/* Which directories a request touches: before it is carried out, delegations of them that other sessions hold are to be recalled.
 *
 * Of a change: the directories in which it looks for names or changes them, the directory that it changes, and what the names lead to
 * (a directory that is removed, replaced or moved). They are in use from then on: not given away while it is on its way. Of a query
 * that was carried out for trial: also every inode in its answer, whose attributes a holder may have changed.
 *
 * That may be more than once. */
#ifndef GRANARY_MASTER_GATE_H
#define GRANARY_MASTER_GATE_H

#include "master/meta/meta.h"

typedef void gate_fn(void *arg, uint64_t inode);

/* All directories that a change touches. */
void gate_change(struct meta *meta, const Granary__MetaRequest *request, gate_fn *fn, void *arg);
/* All that a query and its answer touch. */
void gate_query(const Granary__MetaRequest *request, const Granary__MetaReply *reply, gate_fn *fn, void *arg);

/* Whether the answer tells of names or of directories: another leader may have given such a directory away. */
bool gate_query_tells_names(const Granary__MetaRequest *request, const Granary__MetaReply *reply);
/* Whether the change depends on names. Not: sending in what was done under a delegation. */
bool gate_change_needs_names(const Granary__MetaRequest *request);
/* Whether the answer need not be held back until others' caches are right: of what was done under a delegation, and what belongs to
 * files made so. The programs have had their answers; others cache nothing of such a directory, nor ever of a pack. */
bool gate_change_was_done(const Granary__MetaRequest *request);

#endif
