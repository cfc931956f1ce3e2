#include "client/session.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/leader.h"
#include "client/open_files.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/sys/log.h"

#define LEAVE_MS 500u

enum call_state { CALL_WAITING, CALL_IN_FLIGHT, CALL_BACKOFF };

struct call {
	struct call *previous, *next; /* in one of the session's lists */
	struct session *session;
	enum call_state state;
	enum message_type type;
	struct buf packed; /* the message; of MESSAGE_META without session, slot and sequence */
	bool change, busy_ends;
	bool sends_done;
	bool ambiguous; /* an attempt may have been carried out */
	int slot;       /* -1: none */
	uint64_t sequence;
	uint64_t generation; /* of the session in which slot is */
	uint64_t deadline_ms, backoff_ms;
	enum err last; /* why the last attempt failed */
	rpc_call_id rpc_call;
	struct rpc_peer *asked;
	struct timer timer;
	session_done_fn *done; /* NULL: nobody waits any more */
	void *arg;
};

struct slot {
	uint64_t sequence; /* last one used */
	struct call *call;
	bool broken; /* whether the sequence was used cannot be known: not used again in this session */
};

struct session {
	struct loop *loop;
	struct rpc *rpc;
	struct leader leader;
	char *name;
	uint64_t timeout_ms;
	bool uncached;
	void (*lost)(void *arg);
	size_t (*keeping)(void *arg, uint64_t *directories, size_t room);
	void *arg;
	struct rng rng;

	uint64_t id; /* 0: none yet */
	uint64_t generation;
	uint64_t term; /* of the leader to which everything open was told; 0: none */
	bool telling_full;
	enum err state;
	struct slot slots[SESSION_SLOTS];
	unsigned broken_slots;
	struct call *waiting_changes; /* for the session or for a slot, in order */
	struct call *waiting_queries; /* for the session */
	struct call *calls;           /* in flight and backing off */
	size_t call_count;
	struct open_files open_files;

	struct timer timer; /* session open or keepalive */
	uint64_t kept_ms; /* when the master was last told what is kept */
	uint64_t backoff_ms;
	rpc_call_id rpc_call;
	struct rpc_peer *asked;
	void (*left)(void *arg);
	void *left_arg;
};

static void session_timer(void *arg);
static void call_start(struct call *call);
static void session_is_lost(struct session *session);

/* ---- pauses ---- */

static uint64_t backoff_next(struct session *session, uint64_t *backoff_ms, uint64_t backoff_ms_max)
{
	uint64_t pause = *backoff_ms;
	*backoff_ms = pause == 0 ? CLIENT_RETRY_MS_MIN : pause * 2;
	if (*backoff_ms > backoff_ms_max)
		*backoff_ms = backoff_ms_max;
	return pause == 0 ? 0 : pause / 2 + rng_below(&session->rng, pause);
}

static bool worth_retrying(enum err err)
{
	switch (err) {
	case ERR_NOT_LEADER:
	case ERR_NO_LEADER:
	case ERR_CLOSED:
	case ERR_TIMEOUT:
	case ERR_UNREACHABLE:
	case ERR_BUSY:
		return true;
	default:
		return false;
	}
}

/* What an attempt's failure says about who leads. */
static void note_failure(struct session *session, const struct rpc_peer *asked, enum err err, const char *text)
{
	bool moved = session->state == OK && err != ERR_BUSY;
	if (err == ERR_NOT_LEADER)
		moved |= leader_redirect(&session->leader, asked, text);
	else if (err != ERR_BUSY)
		moved |= leader_failed(&session->leader, asked);
	session->state = err == ERR_NOT_LEADER || err == ERR_BUSY  ? ERR_NO_LEADER
			 : err == ERR_CLOSED || err == ERR_TIMEOUT ? ERR_UNREACHABLE
								   : err;
	/* The new leader wants to know what is open, and needs a connection to recall caches over. While there is none, this one
	 * looks out for it on behalf of all calls. */
	if (moved && session->id != 0 && session->rpc_call == 0) {
		session->term = 0;
		timer_start(&session->timer, CLIENT_RETRY_MS_MIN);
	}
}

/* ---- requests ---- */

static struct call **call_list(struct call *call)
{
	struct session *session = call->session;
	if (call->state != CALL_WAITING)
		return &session->calls;
	return call->change ? &session->waiting_changes : &session->waiting_queries;
}

static void call_unlink(struct call *call)
{
	timer_stop(&call->timer);
	DL_DELETE2(*call_list(call), call, previous, next);
}

static void call_to_list(struct call *call, enum call_state state)
{
	call_unlink(call);
	call->state = state;
	DL_APPEND2(*call_list(call), call, previous, next);
}

static void call_free(struct call *call)
{
	call->session->call_count--;
	buf_deinit(&call->packed);
	free(call);
}

/* A slot has become free, or there is a session. */
static void session_pump(struct session *session)
{
	while (session->id != 0 && session->waiting_queries)
		call_start(session->waiting_queries);
	while (session->id != 0 && session->waiting_changes) {
		struct call *call = session->waiting_changes;
		call_start(call);
		if (call == session->waiting_changes)
			break;
	}
}

/* Frees the slot; the sequence is given back when the request was never sent. */
static void call_release_slot(struct call *call, bool broken)
{
	struct session *session = call->session;
	if (call->slot < 0)
		return;
	if (call->generation == session->generation) {
		struct slot *slot = &session->slots[call->slot];
		check(slot->call == call);
		slot->call = NULL;
		slot->broken = broken;
		session->broken_slots += broken;
		if (!call->ambiguous)
			slot->sequence = call->sequence - 1;
	}
	call->slot = -1;
}

static void call_end(struct call *call, enum err err, const ProtobufCMessage *reply, const char *text)
{
	struct session *session = call->session;
	session_done_fn *done = call->done;
	void *arg = call->arg;
	bool had_slot = call->slot >= 0;
	call_unlink(call);
	call_release_slot(call, call->ambiguous && err != OK);
	call_free(call);
	if (session->broken_slots == SESSION_SLOTS)
		session_is_lost(session);
	else if (had_slot)
		session_pump(session);
	if (done)
		done(arg, err, reply, text);
}

/* Nobody answered in time. A request whose fate is open goes on without its caller. */
static void call_expire(struct call *call)
{
	enum err err = call->last == ERR_NOT_LEADER ? ERR_NO_LEADER
		       : call->last == ERR_CLOSED   ? ERR_UNREACHABLE
		       : call->last == OK           ? (call->session->state ? call->session->state : ERR_TIMEOUT)
						    : call->last;
	if (call->slot < 0 || !call->ambiguous || call->generation != call->session->generation) {
		call_end(call, err, NULL, "");
		return;
	}
	session_done_fn *done = call->done;
	call->done = NULL;
	call->deadline_ms = UINT64_MAX;
	timer_start(&call->timer, CLIENT_RETRY_MS_MAX);
	if (done)
		done(call->arg, err, NULL, "");
}

static void call_pause(struct call *call, uint64_t pause_ms)
{
	uint64_t now = loop_now_ms(call->session->loop);
	call_to_list(call, CALL_BACKOFF);
	uint64_t left = call->deadline_ms > now ? call->deadline_ms - now : 0;
	timer_start(&call->timer, pause_ms < left ? pause_ms : left);
}

/* A leader answers again: those that pause because there was none need not wait for their turn. */
static void wake_calls(struct session *session)
{
	struct call *call;
	DL_FOREACH2(session->calls, call, next)
	if (call->state == CALL_BACKOFF && call->last != ERR_BUSY)
		timer_start(&call->timer, 0);
}

static void session_is_lost(struct session *session)
{
	log_warn("session_lost", "session=%llu", (unsigned long long)session->id);
	session->id = 0;
	session->term = 0;
	session->generation++;
	memset(session->slots, 0, sizeof session->slots);
	session->broken_slots = 0;
	rpc_call_cancel(session->rpc, session->rpc_call);
	session->rpc_call = 0;
	timer_start(&session->timer, 0);
	if (session->lost)
		session->lost(session->arg);
}

/* The call's slot was in a session that is gone. */
static void call_without_session(struct call *call, const char *text)
{
	if (call->change && call->ambiguous) {
		call_end(call, ERR_NO_SESSION, NULL, text);
		return;
	}
	call->slot = -1;
	call_to_list(call, CALL_WAITING);
	uint64_t now = loop_now_ms(call->session->loop);
	timer_start(&call->timer, call->deadline_ms > now ? call->deadline_ms - now : 0);
	session_pump(call->session);
}

static void call_answered(void *arg, const struct rpc_result *result)
{
	struct call *call = arg;
	struct session *session = call->session;
	bool was_ambiguous = call->ambiguous;
	call->rpc_call = 0;
	if (result->err == OK) {
		if (session->state != OK)
			wake_calls(session);
		session->state = OK;
		call->ambiguous = true; /* carried out: the sequence is used */
		call_end(call, OK, result->reply, "");
		return;
	}
	if (result->err == ERR_NO_SESSION && call->type == MESSAGE_META) {
		if (call->generation == session->generation && session->id != 0)
			session_is_lost(session);
		call->ambiguous = was_ambiguous;
		call_without_session(call, result->text);
		return;
	}
	if (result->err != ERR_UNREACHABLE)
		call->ambiguous = true;
	if (!worth_retrying(result->err) || (result->err == ERR_BUSY && call->busy_ends)) {
		/* Refused before it reached the log (malformed, over a bound): the sequence was not used. */
		call->ambiguous = was_ambiguous || result->err == ERR_PROTOCOL;
		call_end(call, result->err, NULL, result->text);
		return;
	}
	call->last = result->err;
	note_failure(session, call->asked, result->err, result->text);
	if (call->change && call->generation != session->generation) {
		call_without_session(call, result->text);
		return;
	}
	uint64_t pause_ms = backoff_next(session, &call->backoff_ms, session->id ? CLIENT_RETRY_MS_MAX : CLIENT_LEADER_RETRY_MS_MAX);
	call_pause(call, call->sends_done && pause_ms > CLIENT_DONE_RETRY_MS_MAX ? CLIENT_DONE_RETRY_MS_MAX : pause_ms);
}

static void call_send(struct call *call, const ProtobufCMessage *message)
{
	struct session *session = call->session;
	uint64_t now = loop_now_ms(session->loop);
	uint64_t left = call->deadline_ms > now ? call->deadline_ms - now : 1;
	uint64_t attempt = call->sends_done ? CLIENT_DONE_ATTEMPT_MS : CLIENT_ATTEMPT_MS;
	call_to_list(call, CALL_IN_FLIGHT);
	call->asked = leader_peer(&session->leader);
	call->rpc_call = rpc_peer_call(call->asked, call->type, message, NULL,
				       left < attempt ? left : attempt, call_answered, call);
}

/* Sends the request as it was packed. */
static void call_send_packed(struct call *call)
{
	ProtobufCMessage *message;
	enum err err = message_unpack(message_request(call->type), buf_slice(&call->packed), &message);
	check(err == OK); /* we packed it */
	if (call->type == MESSAGE_META) {
		Granary__MetaRequest *request = (Granary__MetaRequest *)message;
		request->session = call->session->id;
		request->slot = call->slot < 0 ? 0 : (uint32_t)call->slot;
		request->sequence = call->slot < 0 ? 0 : call->sequence;
	}
	call_send(call, message);
	message_free(message);
}

/* Gives the call what it needs to be sent; false: it has to wait. */
static bool call_prepare(struct call *call)
{
	struct session *session = call->session;
	if (call->type != MESSAGE_META)
		return true;
	if (session->id == 0)
		return false;
	call->generation = session->generation;
	if (!call->change || call->slot >= 0)
		return true;
	for (unsigned i = 0; i < SESSION_SLOTS; i++)
		if (!session->slots[i].call && !session->slots[i].broken) {
			session->slots[i].call = call;
			call->slot = (int)i;
			call->sequence = ++session->slots[i].sequence;
			call->ambiguous = false;
			return true;
		}
	return false;
}

static void call_start(struct call *call)
{
	if (call_prepare(call))
		call_send_packed(call);
}

static void call_timer(void *arg)
{
	struct call *call = arg;
	struct session *session = call->session;
	if (loop_now_ms(session->loop) >= call->deadline_ms) {
		call_expire(call);
		return;
	}
	if (call->state != CALL_BACKOFF)
		return;
	if (call->change && call->slot >= 0 && call->generation != session->generation)
		call_without_session(call, "");
	else if (call_prepare(call))
		call_send_packed(call);
	else {
		call_to_list(call, CALL_WAITING);
		uint64_t now = loop_now_ms(session->loop);
		timer_start(&call->timer, call->deadline_ms - now);
	}
}

static struct call *call_open(struct session *session, enum message_type type, bool change, session_done_fn *done,
			      void *arg)
{
	struct call *call = mem_zero(1, sizeof *call);
	uint64_t now = loop_now_ms(session->loop);
	call->session = session;
	call->type = type;
	call->slot = -1;
	call->done = done;
	call->arg = arg;
	call->deadline_ms = now + session->timeout_ms;
	call->generation = session->generation;
	timer_init(&call->timer, session->loop, call_timer, call);
	call->change = change;
	call->state = CALL_WAITING;
	DL_APPEND2(*call_list(call), call, previous, next);
	if (++session->call_count > CLIENT_CALLS_MAX) {
		call->last = ERR_BUSY;
		call->deadline_ms = now;
	}
	return call;
}

static void call_first(struct call *call, const ProtobufCMessage *message)
{
	uint64_t now = loop_now_ms(call->session->loop);
	if (call->deadline_ms > now && call_prepare(call))
		call_send(call, message);
	else
		timer_start(&call->timer, call->deadline_ms - now);
}

void session_meta(struct session *session, Granary__MetaOp *const *ops, size_t op_count, unsigned wants, session_done_fn *done,
		  void *arg)
{
	check(op_count > 0 && op_count <= META_OPS_PER_BATCH_MAX);
	bool change = false;
	for (size_t i = 0; i < op_count; i++)
		change |= ops[i]->op_case >= GRANARY__META_OP__OP_CREATE;
	struct call *call = call_open(session, MESSAGE_META, change, done, arg);
	call->sends_done = wants & SESSION_SENDS_DONE;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	request.uncached = session->uncached;
	request.want_delegations = wants & SESSION_WANTS_DELEGATIONS;
	request.want_ids = wants & SESSION_WANTS_IDS;
	request.n_ops = op_count;
	request.ops = (Granary__MetaOp **)(uintptr_t)ops;
	message_pack(&request.base, &call->packed);
	/* As call_prepare will choose; session 0 is never sent. */
	if (session->id != 0 && call_prepare(call)) {
		request.session = session->id;
		request.slot = call->slot < 0 ? 0 : (uint32_t)call->slot;
		request.sequence = call->slot < 0 ? 0 : call->sequence;
	}
	call_first(call, &request.base);
}

void session_ask(struct session *session, enum message_type type, const ProtobufCMessage *message, bool busy_ends,
		 session_done_fn *done, void *arg)
{
	check(type != MESSAGE_META);
	struct call *call = call_open(session, type, false, done, arg);
	call->busy_ends = busy_ends;
	message_pack(message, &call->packed);
	call_first(call, message);
}

/* ---- the session itself ---- */

static void session_again(struct session *session, const struct rpc_result *result)
{
	if (worth_retrying(result->err)) {
		note_failure(session, session->asked, result->err, result->text);
	} else {
		session->state = result->err;
		leader_failed(&session->leader, session->asked);
	}
	timer_start(&session->timer, backoff_next(session, &session->backoff_ms, CLIENT_LEADER_RETRY_MS_MAX));
}

static void session_opened_at_master(void *arg, const struct rpc_result *result)
{
	struct session *session = arg;
	session->rpc_call = 0;
	if (result->err) {
		session_again(session, result);
		return;
	}
	const Granary__SessionInfo *info = (const Granary__SessionInfo *)result->reply;
	session->id = info->session;
	session->term = 0;
	session->state = OK;
	session->backoff_ms = 0;
	timer_start(&session->timer, session->open_files.changed ? 0 : SESSION_KEEPALIVE_MS);
	session_pump(session);
}

static void keepalive_answered(void *arg, const struct rpc_result *result)
{
	struct session *session = arg;
	session->rpc_call = 0;
	open_files_told(&session->open_files, result->err == OK);
	if (result->err == ERR_NO_SESSION) {
		session_is_lost(session);
		return;
	}
	if (result->err) {
		session->term = 0;
		session_again(session, result);
		return;
	}
	const Granary__SessionInfo *info = (const Granary__SessionInfo *)result->reply;
	if (session->state != OK)
		wake_calls(session);
	bool again = info->send_full || (!session->telling_full && info->term != session->term);
	session->state = OK;
	session->term = again ? 0 : info->term;
	session->backoff_ms = again ? session->backoff_ms : 0;
	if (again)
		timer_start(&session->timer, backoff_next(session, &session->backoff_ms, CLIENT_RETRY_MS_MAX));
	else
		timer_start(&session->timer, session->open_files.changed ? CLIENT_OPENED_MS : SESSION_KEEPALIVE_MS);
}

static void session_timer(void *arg)
{
	struct session *session = arg;
	if (session->rpc_call != 0)
		return;
	session->asked = leader_peer(&session->leader);
	if (session->id == 0) {
		Granary__SessionOpen message = GRANARY__SESSION_OPEN__INIT;
		message.client = session->name;
		session->rpc_call = rpc_peer_call(session->asked, MESSAGE_SESSION_OPEN, &message.base, NULL,
						  CLIENT_ATTEMPT_MS, session_opened_at_master, session);
		return;
	}
	Granary__SessionKeepalive message = GRANARY__SESSION_KEEPALIVE__INIT;
	message.session = session->id;
	message.term = session->term;
	message.full = session->telling_full = session->term == 0;
	open_files_tell(&session->open_files, message.full, &message);
	uint64_t keeping[DELEGATIONS_KEPT_MAX];
	message.keeping = keeping;
	message.n_keeping = session->keeping ? session->keeping(session->arg, keeping, DELEGATIONS_KEPT_MAX) : 0;
	session->kept_ms = loop_now_ms(session->loop);
	session->rpc_call = rpc_peer_call(session->asked, MESSAGE_SESSION_KEEPALIVE, &message.base, NULL,
					  CLIENT_ATTEMPT_MS, keepalive_answered, session);
	open_files_free(&message);
}

enum err session_open(const struct session_options *options, struct session **out)
{
	struct session *session = mem_zero(1, sizeof *session);
	rng_init(&session->rng, loop_random(options->loop));
	enum err err = leader_init(&session->leader, options->rpc, options->cluster, rng_next(&session->rng));
	if (err) {
		free(session);
		return err;
	}
	session->loop = options->loop;
	session->rpc = options->rpc;
	session->name = mem_string(options->name);
	session->timeout_ms = options->timeout_ms;
	session->uncached = options->uncached;
	session->lost = options->lost;
	session->keeping = options->keeping;
	session->arg = options->arg;
	session->state = ERR_NO_LEADER;
	timer_init(&session->timer, session->loop, session_timer, session);
	if (!options->asks_only)
		session_timer(session);
	*out = session;
	return OK;
}

static void cancel_all(struct session *session, struct call **list)
{
	while (*list) {
		struct call *call = *list;
		session_done_fn *done = call->done;
		void *arg = call->arg;
		rpc_call_cancel(session->rpc, call->rpc_call);
		call_unlink(call);
		call_free(call);
		if (done)
			done(arg, ERR_CANCELLED, NULL, "");
	}
}

static void session_left(void *arg, const struct rpc_result *result)
{
	struct session *session = arg;
	(void)result; /* without an answer it expires */
	session->rpc_call = 0;
	session->left(session->left_arg);
}

void session_leave(struct session *session, void (*done)(void *arg), void *arg)
{
	Granary__SessionKeepalive message = GRANARY__SESSION_KEEPALIVE__INIT;
	rpc_call_cancel(session->rpc, session->rpc_call);
	timer_stop(&session->timer);
	session->left = done;
	session->left_arg = arg;
	message.session = session->id;
	message.term = session->term;
	message.end = true;
	session->rpc_call = rpc_peer_call(leader_peer(&session->leader), MESSAGE_SESSION_KEEPALIVE, &message.base, NULL,
					  LEAVE_MS, session_left, session);
}

void session_cancel(struct session *session)
{
	while (session->call_count > 0) {
		cancel_all(session, &session->waiting_queries);
		cancel_all(session, &session->waiting_changes);
		cancel_all(session, &session->calls);
	}
}

void session_close(struct session *session)
{
	session_cancel(session);
	rpc_call_cancel(session->rpc, session->rpc_call);
	timer_stop(&session->timer);
	open_files_deinit(&session->open_files);
	leader_deinit(&session->leader);
	free(session->name);
	free(session);
}

uint64_t session_id(const struct session *session)
{
	return session->id;
}

enum err session_state(const struct session *session)
{
	return session->state;
}

void session_keep(struct session *session)
{
	uint64_t now = loop_now_ms(session->loop), due = session->kept_ms + CLIENT_KEEP_MS;
	if (session->id == 0 || session->rpc_call != 0)
		return;
	if (due < now)
		due = now;
	if (!timer_is_running(&session->timer) || session->timer.due_ms > due)
		timer_start(&session->timer, due - now);
}

/* Told soon: until then the leader knows of an open file only if it answered an Open for it. */
static void tell_soon(struct session *session)
{
	if (session->id == 0 || session->rpc_call != 0)
		return;
	uint64_t now = loop_now_ms(session->loop);
	if (!timer_is_running(&session->timer) || session->timer.due_ms > now + CLIENT_OPENED_MS)
		timer_start(&session->timer, CLIENT_OPENED_MS);
}

void session_opened(struct session *session, uint64_t inode)
{
	open_files_opened(&session->open_files, inode);
	tell_soon(session);
}

void session_closed(struct session *session, uint64_t inode)
{
	open_files_closed(&session->open_files, inode);
	if (session->open_files.changed > CLIENT_CLOSED_PER_MESSAGE_MAX / 2)
		tell_soon(session);
}

bool session_has_open(struct session *session, uint64_t inode)
{
	return open_files_is_open(&session->open_files, inode);
}
