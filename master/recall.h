/* Recalls of cache leases: Invalidate calls to the sessions that hold what a change touches, and the replies held back until they
 * have confirmed or their leases have run out.
 *
 * Items for one session gather during a loop iteration and go in one call. The leases table says who holds what; a
 * confirmation removes only what was granted before the call was sent.
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_RECALL_H
#define GRANARY_MASTER_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/sys/rpc.h"
#include "master/delegations.h"
#include "master/leases.h"
#include "master/meta/meta.h"
#include "master/sessions.h"

struct recalls;

/* A reply that may have to wait, in its owner's storage. */
struct recall_wait {
	void (*released)(struct recall_wait *wait); /* once, when the last recall it waits for has ended */
	unsigned pending;
};

struct recalls *recalls_open(struct loop *loop, struct rpc *rpc, struct leases *leases, struct delegations *delegations,
			     struct sessions *sessions);
/* Waits that are held are released. */
void recalls_close(struct recalls *recalls);

/* For one applied entry: begin, touch for each of its touches, then hold for each reply. */
void recalls_begin(struct recalls *recalls);
void recalls_touch(struct recalls *recalls, const struct meta_touch *touch);
/* True: changes of this session since begin recall something, `wait` is released later. */
bool recalls_hold(struct recalls *recalls, uint64_t session, struct recall_wait *wait);
/* For a request that may be a repetition: its change was made by an earlier entry, whose recalls may still be under way.
 * Waits for all there are. */
bool recalls_hold_all(struct recalls *recalls, struct recall_wait *wait);
/* `holder` is asked to give the directory's delegation back, if it has not been yet; until it has, or at expires_ms, or when the
 * delegation has run out that is being kept (delegations_keep). */
void recalls_delegation(struct recalls *recalls, uint64_t holder, uint64_t directory, uint64_t expires_ms,
			struct recall_wait *wait);
/* Also until this time: for leases that an earlier leader may have granted. */
void recalls_hold_until(struct recalls *recalls, uint64_t until_ms, struct recall_wait *wait);

#endif
