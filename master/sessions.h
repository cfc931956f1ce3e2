/* What the leader knows of its clients' sessions beyond the state machine: when each was last heard, over which
 * connection it can be called, what it has open. Soft state: rebuilt after an election from the state machine (ids) and from
 * what the clients announce again.
 *
 * Pure: the time comes from the caller; the connection is an opaque pointer. */
#ifndef GRANARY_MASTER_SESSIONS_H
#define GRANARY_MASTER_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct sessions;

struct sessions *sessions_open(void);
void sessions_close(struct sessions *sessions);
void sessions_clear(struct sessions *sessions);

/* Counts as heard now. begun: it has just begun, so that nothing of it is from before. A session that is there already stays
 * as it is. ERR_TOO_MANY above SESSIONS_MAX. */
MUST_USE enum err sessions_add(struct sessions *sessions, uint64_t now_ms, uint64_t session, bool begun);
/* With everything that it had open. */
void sessions_remove(struct sessions *sessions, uint64_t session);
bool sessions_has(const struct sessions *sessions, uint64_t session);
size_t sessions_count(const struct sessions *sessions);
/* Ids above it are of sessions that begin later; below it there are, or were, only those of sessions_each_live. Raised by
 * sessions_add, too. */
uint64_t sessions_known(const struct sessions *sessions);
void sessions_know(struct sessions *sessions, uint64_t id);
/* Those that have not expired. */
void sessions_each_live(const struct sessions *sessions, void (*fn)(void *arg, uint64_t session), void *arg);
/* A request came: false when there is no such session, or it has expired. The connection is where it is called from now on. */
bool sessions_heard(struct sessions *sessions, uint64_t now_ms, uint64_t session, void *connection);
/* A keepalive came, after sessions_heard. */
void sessions_kept_alive(struct sessions *sessions, uint64_t now_ms, uint64_t session);
void sessions_connection_lost(struct sessions *sessions, const void *connection);
/* NULL when it is not connected. */
void *sessions_connection(const struct sessions *sessions, uint64_t session);

/* Sessions not heard for timeout_ms, each reported once. They have expired, whatever is heard from now on. fn must not change the
 * sessions. */
void sessions_expire(struct sessions *sessions, uint64_t now_ms, uint64_t timeout_ms, void (*fn)(void *arg, uint64_t session),
		     void *arg);

/* Its end did not get through: it is reported again. */
void sessions_expire_again(struct sessions *sessions, uint64_t session);

/* Open inodes. Opening twice is one opening. ERR_TOO_MANY above SESSION_OPEN_FILES_MAX, ERR_NO_SESSION. */
MUST_USE enum err sessions_inode_opened(struct sessions *sessions, uint64_t session, uint64_t inode);
void sessions_inode_closed(struct sessions *sessions, uint64_t session, uint64_t inode);
/* Before a full announcement. */
void sessions_inodes_forget(struct sessions *sessions, uint64_t session);
bool sessions_inode_is_open(const struct sessions *sessions, uint64_t inode);
/* Everything that any session opened before this time has been announced here (in `term`): two keepalives of each came
 * later, or it began later. UINT64_MAX when there are no sessions. */
uint64_t sessions_settled_ms(const struct sessions *sessions, uint64_t term);
/* Whether the request (slot, sequence) is certainly no repetition: the one before it on that slot came here, too. Remembers
 * it. False for an unknown session or slot. */
bool sessions_request_is_new(struct sessions *sessions, uint64_t session, uint32_t slot, uint64_t sequence);
/* That request was refused without being carried out: it may come again, or another in its place. */
void sessions_request_refused(struct sessions *sessions, uint64_t session, uint32_t slot, uint64_t sequence);
/* The term in which the session's opened inodes were last announced in full. */
uint64_t sessions_announced_term(const struct sessions *sessions, uint64_t session);
void sessions_set_announced_term(struct sessions *sessions, uint64_t session, uint64_t term);

#endif
