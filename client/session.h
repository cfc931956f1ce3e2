/* The session with the master: finding the leader, request slots, retries, keepalive.
 *
 * A request that changes something holds one of SESSION_SLOTS slots and the slot's next sequence number until it is
 * answered, however often it is sent and to whom: the master gives a repeated (session, slot, sequence) its first
 * answer. (Slots as in NFSv4.1, RFC 8881 section 2.10.6.) Requests beyond the slots wait in order. Queries need the
 * session but no slot.
 *
 *             no session            slot free                 answer
 *   WAITING ------------> WAITING -----------> IN_FLIGHT ---------------> done
 *                                                 |   ^
 *                  not leader, closed, timed out, |   | after a pause, same slot and sequence
 *                  unreachable, busy, no leader   v   |
 *                                                BACKOFF ---- timeout_ms ---> done(error)
 *
 * A request that timed out but may have been done keeps its slot, and is repeated in the background until it is
 * answered or the session ends: the slot's sequence is not known before.
 *
 * An expired session: requests that were never sent go on in the next session; those that may have been done end with
 * ERR_NO_SESSION. So do those that change the content of a file: what was written belongs to the session in which it was, since
 * others may have its locks by now. */
#ifndef GRANARY_CLIENT_SESSION_H
#define GRANARY_CLIENT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/proto/message.h"
#include "common/sys/rpc.h"

struct session;

struct session_options {
	struct loop *loop;
	struct rpc *rpc;
	const char *cluster; /* "host:port,…" */
	const char *name;    /* for people; copied */
	uint64_t timeout_ms;
	bool uncached;	     /* answers are not kept: no leases are asked for */
	bool asks_only;	     /* none is opened: session_ask alone */
	void (*lost)(void *arg); /* the session expired */
	/* Asked before each keepalive; NULL: none. Directories delegated to us in which something cannot be sent yet: at most `room`. */
	size_t (*keeping)(void *arg, uint64_t *directories, size_t room);
	void *arg;
};

MUST_USE enum err session_open(const struct session_options *options, struct session **out);
/* Ends requests with ERR_CANCELLED. */
void session_close(struct session *session);
/* Nothing is under way: tells the master that the session is over, so that nobody has to wait for what it might have
 * cached or locked. done after LEAVE_MS at the latest; only session_close comes after it. */
void session_leave(struct session *session, void (*done)(void *arg), void *arg);
void session_cancel(struct session *session);
uint64_t session_id(const struct session *session);
/* There is something to keep (`keeping`): told soon, and not too often. */
void session_keep(struct session *session);
/* Why nothing answers; OK once a leader has answered. */
enum err session_state(const struct session *session);
/* Somebody says that it is over: the master is asked now. */
void session_doubt(struct session *session);

/* reply is valid for the call, NULL unless err is OK. text explains an error or is "". */
typedef void session_done_fn(void *arg, enum err err, const ProtobufCMessage *reply, const char *text);

/* The operations are packed before it returns. timeout_ms 0: that of the options. SESSION_SENDS_DONE: what was done under a
 * delegation, of which a leader is to know before the delegation is over: a master that does not answer is not waited for long. */
enum session_wants { SESSION_WANTS_NOTHING = 0, SESSION_WANTS_DELEGATIONS = 1, SESSION_WANTS_IDS = 2, SESSION_SENDS_DONE = 4 };
void session_meta(struct session *session, Granary__MetaOp *const *ops, size_t op_count, unsigned wants, session_done_fn *done,
		  void *arg);
/* Any other request to the leader. With busy_ends, ERR_BUSY is an answer and is not retried. */
void session_ask(struct session *session, enum message_type type, const ProtobufCMessage *message, bool busy_ends,
		 session_done_fn *done, void *arg);

void session_opened(struct session *session, uint64_t inode);
void session_closed(struct session *session, uint64_t inode);
bool session_has_open(struct session *session, uint64_t inode);

#endif
