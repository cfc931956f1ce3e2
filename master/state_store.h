/* Where the state machine's database is: which directory of the data directory is in use, and who still uses it.
 *
 *	DIR/state, DIR/state-1, DIR/state-2 ...	LevelDB; one of them is in use, as DIR/store says (absent: DIR/state)
 *	DIR/store				text: "format = 1", "state = N" (0: DIR/state), "index = I", "term = T": the
 *						snapshot that it was filled from; 0: none
 *	DIR/quarantine-state-N-TIME		found damaged at TIME; for people, never deleted
 *
 * A snapshot is filled into state-(N+1), synced, and taken into use by replacing DIR/store: one durable step, before which
 * the old database counts and after which the new one does. What is not in use is removed at the next start. */
#ifndef GRANARY_MASTER_STATE_STORE_H
#define GRANARY_MASTER_STATE_STORE_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/sys/kv.h"

/* A kv that its users share: closed with the last of them. Workers may read it while they hold a reference. */
struct state_store {
	struct kv *kv;
	unsigned references;
};

/* Takes the kv over; one reference. */
struct state_store *state_store_of(struct kv *kv);
struct state_store *state_store_ref(struct state_store *store);
/* NULL is allowed. On the loop. */
void state_store_unref(struct state_store *store);

struct state_place {
	uint64_t number;
	uint64_t index, term;
};

/* ERR_CORRUPT: DIR/store is damaged. */
MUST_USE enum err state_place_load(struct loop *loop, const char *directory, struct state_place *out);
MUST_USE enum err state_place_save(struct loop *loop, const char *directory, const struct state_place *place);
/* "DIR/state-N", ended by a zero. */
void state_path(const char *directory, uint64_t number, struct buf *out);
/* Removes the databases that are not in use: what was replaced, what was not completed. */
void state_sweep(struct loop *loop, const char *directory, uint64_t number);
/* Puts a damaged one aside, durably. */
MUST_USE enum err state_quarantine(struct loop *loop, const char *directory, uint64_t number);

/* Damage was found while it was in use: remembered for the next start (the file DIR/state-damaged), since opening it again
 * would not show it. */
void state_mark_damaged(struct loop *loop, const char *directory);
bool state_is_marked_damaged(struct loop *loop, const char *directory);
void state_unmark_damaged(struct loop *loop, const char *directory);

#endif
