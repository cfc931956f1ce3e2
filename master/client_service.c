#include "master/client_service.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "common/proto/settings.h"
#include "common/sys/log.h"
#include "master/delegate.h"
#include "master/fences.h"
#include "master/gate.h"
#include "master/grant.h"
#include "master/recall.h"

#define PARKED_RETRY_MS 20u
/* With less room than this what a client has promised by itself might not fit: no delegations. */
#define DELEGATION_BYTES_FREE_MIN (4ull * CLIENT_DIRTY_BYTES_MAX)

/* A client's change from its arrival to its answer. */
struct change {
	struct proposal proposal;
	struct recall_wait wait;
	struct client_service *service;
	struct rpc_request *request;
	Granary__MetaReply *reply; /* held back */
	uint64_t asked_ms;
	bool is_new;		   /* no repetition: its answer shows the present */
	bool full;		   /* ERR_NO_SERVERS in the answer means ERR_NO_SPACE */
	struct change *prev, *next; /* parked */
};

/* A session's begin or end on its way through the log. */
struct session_change {
	struct proposal proposal;
	struct client_service *service;
	struct rpc_request *request; /* begin */
	uint64_t session;	     /* end */
	Granary__MetaRequest message;
	Granary__MetaOp op, *ops[1];
	Granary__SessionBegin begin;
	Granary__SessionEnd end;
};

/* A request that has not been carried out: others' delegations of what it touches are being recalled. */
struct gated {
	struct recall_wait wait;
	struct client_service *service;
	struct rpc_request *request;
};

struct client_service {
	struct client_service_options options;
	struct loop *loop;
	struct replica *replica;
	struct sessions *sessions;
	struct leases *leases;
	struct delegations *delegations;
	struct recalls *recalls;
	struct fences *fences;
	struct change *parked; /* wait for chunkservers to come back after an election */
	struct timer parked_timer;
	/* An earlier leader may have granted leases until then: to one session, or (0) to several. */
	uint64_t foreign_until_ms;
	uint64_t foreign_session;
	uint64_t checked_ms; /* sessions for expiry */
	bool closing;
};

static uint64_t now_ms(const struct client_service *service)
{
	return loop_now_us(service->loop) / 1000;
}

static void refuse(struct client_service *service, struct rpc_request *request, enum err err)
{
	replica_refuse(service->replica, request, err);
}

/* ---- changes */

static void change_free(struct change *change)
{
	if (change->reply)
		message_unref(&change->reply->base);
	free(change);
}

static void note_opened(struct client_service *service, const Granary__MetaRequest *request, const Granary__MetaReply *reply)
{
	for (size_t i = 0; i < request->n_ops && i < reply->n_results; i++) {
		const Granary__MetaResult *result = reply->results[i];
		if (request->ops[i]->op_case != GRANARY__META_OP__OP_OPEN || result->error)
			continue;
		if (sessions_inode_opened(service->sessions, request->session, result->inode))
			log_warn("session_opens_too_many", "session=%016" PRIx64, request->session);
	}
}

static void change_answer(struct change *change, Granary__MetaReply *reply)
{
	for (size_t i = 0; change->full && i < reply->n_results; i++) {
		if (reply->results[i]->error == ERR_NO_SERVERS)
			reply->results[i]->error = ERR_NO_SPACE;
	}
	rpc_reply(change->request, &reply->base);
}

static void on_released(struct recall_wait *wait)
{
	struct change *change = container_of(wait, struct change, wait);

	grant_strip(change->reply);
	change_answer(change, change->reply);
	change_free(change);
}

static bool must_wait_for_foreign(const struct client_service *service, uint64_t session)
{
#ifdef PLANT_HASTY_LEADER
	return false && service->foreign_session == session;
#else
	return service->foreign_session != session && now_ms(service) < service->foreign_until_ms;
#endif
}

static void on_change_done(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct change *change = container_of(proposal, struct change, proposal);
	struct client_service *service = change->service;
	uint64_t session = proposal->request->session;

	if (err) {
		refuse(service, change->request, err);
		change_free(change);
		return;
	}
	note_opened(service, proposal->request, *reply);
	if (gate_change_was_done(proposal->request)) {
		change_answer(change, *reply);
		change_free(change);
		return;
	}
	if (must_wait_for_foreign(service, session))
		recalls_hold_until(service->recalls, service->foreign_until_ms, &change->wait);
#ifdef PLANT_REPEAT_UNWAITED
	bool held = recalls_hold(service->recalls, session, &change->wait);
#else
	bool held = change->is_new ? recalls_hold(service->recalls, session, &change->wait) :
				     recalls_hold_all(service->recalls, &change->wait);
#endif
	if (held) {
		rpc_request_waits(change->request);
		change->reply = *reply;
		*reply = NULL;
		return;
	}
	change_answer(change, *reply);
	change_free(change);
}

/* What only the leader's soft state knows. Capacity is that of the files: raw space by as many copies as the default class has. */
static void add_space(const struct client_service *service, Granary__Statfs *statfs)
{
	struct storage_values usual;
	uint64_t total = 0, available = 0;
	size_t count = servers_count(service->options.servers);
	meta_class_values(replica_meta(service->replica), "", &usual);
	uint64_t copies = count < usual.copies ? (count ? count : 1) : usual.copies;

	for (size_t i = 0; i < count; i++) {
		const struct server *server = servers_at(service->options.servers, i);
		if (!servers_is_usable(server, now_ms(service)) || server->draining)
			continue;
		total += server->bytes_total;
		available += server->bytes_free > DISK_RESERVED_BYTES ? server->bytes_free - DISK_RESERVED_BYTES : 0;
	}
	statfs->bytes_total = total / copies;
	statfs->bytes_free = available / copies;
}

/* What the files of a delegated directory need. */
static bool has_room(const struct client_service *service)
{
	Granary__Statfs statfs = GRANARY__STATFS__INIT;

	add_space(service, &statfs);
	return statfs.bytes_free >= DELEGATION_BYTES_FREE_MIN && !replica_space_is_low(service->replica);
}

static void delegate(struct client_service *service, const Granary__MetaRequest *request, uint64_t asked_ms, Granary__MetaReply *reply)
{
	if (request->want_ids) {
		reply->ids_first = fill_ids(service->options.fill, replica_time_ms(service->replica));
		reply->ids_count = SNOWFLAKE_BLOCK;
	}
	if (request->want_delegations && has_room(service))
		delegate_reply(service->delegations, replica_meta(service->replica), now_ms(service), asked_ms, request, reply);
}

void client_service_applied(struct client_service *service, const struct replica_applied *applied)
{
	if (!applied->proposals)
		return;
	/* Leases first: what is granted with the first request of an entry may be recalled for the second one. Answers of
	 * those that must wait lose theirs again. */
	for (size_t i = 0; i < applied->entry->n_requests; i++) {
		struct proposal *proposal = applied->proposals[i];
		if (proposal->done != on_change_done || !container_of(proposal, struct change, proposal)->is_new)
			continue;
		if (must_wait_for_foreign(service, proposal->request->session))
			continue;
		grant_reply(service->leases, service->delegations, now_ms(service), proposal->request, applied->replies[i]);
		delegate(service, proposal->request, container_of(proposal, struct change, proposal)->asked_ms, applied->replies[i]);
	}
	recalls_begin(service->recalls);
	for (size_t i = 0; i < applied->effects->touch_count; i++)
		recalls_touch(service->recalls, &applied->effects->touches[i]);
}

/* False: it has to wait for chunkservers. */
static bool change_propose(struct client_service *service, struct change *change)
{
	struct replica *replica = service->replica;

	enum err err = fill_for(service->options.fill, replica, now_ms(service), change->proposal.request, &change->full);
	if (change->full)
		trash_no_space(service->options.trash);
	if (err)
		return false;
	replica_propose(replica, &change->proposal);
	return true;
}

static void on_parked(void *arg)
{
	struct client_service *service = arg;
	struct change *change, *next;

	DL_FOREACH_SAFE(service->parked, change, next)
	{
		if (!change_propose(service, change))
			continue;
		DL_DELETE(service->parked, change);
	}
	if (service->parked)
		timer_start(&service->parked_timer, PARKED_RETRY_MS);
}

/* Not what frees, nor what a client has promised already, nor that data has changed which is at the chunkservers by now: others would keep
 * what they have read before. It makes no record longer. */
static bool needs_room(const Granary__MetaRequest *request)
{
	if (request->n_ops == 1 && request->ops[0]->op_case == GRANARY__META_OP__OP_COMMIT_CHUNKS)
		return false;
	for (size_t i = 0; i < request->n_ops; i++) {
		switch (request->ops[i]->op_case) {
		case GRANARY__META_OP__OP_UNLINK:
		case GRANARY__META_OP__OP_REMOVE_XATTR:
		case GRANARY__META_OP__OP_TRASH_REMOVE:
		case GRANARY__META_OP__OP_SET_LOCK:
			return false;
		default:
			break;
		}
	}
	return !gate_change_was_done(request);
}

static void change_start(struct client_service *service, struct rpc_request *request, Granary__MetaRequest *message)
{
	struct change *change = mem_zero(1, sizeof(*change));

	change->service = service;
	change->request = request;
	change->proposal.request = message;
	change->proposal.done = on_change_done;
	change->wait.released = on_released;
	change->asked_ms = now_ms(service);
	change->is_new = sessions_request_is_new(service->sessions, message->session, message->slot, message->sequence);
	/* A repetition is answered as it was the first time. */
	if (change->is_new && replica_space_is_low(service->replica) && needs_room(message)) {
		sessions_request_refused(service->sessions, message->session, message->slot, message->sequence);
		refuse(service, request, ERR_NO_SPACE);
		change_free(change);
		return;
	}
	if (change_propose(service, change))
		return;
	rpc_request_waits(request);
	DL_APPEND(service->parked, change);
	if (!timer_is_running(&service->parked_timer))
		timer_start(&service->parked_timer, PARKED_RETRY_MS);
}

/* ---- requests, held back for other sessions' delegations (delegations.h, gate.h) */

static void execute(struct client_service *service, struct rpc_request *request);

static void on_gate_open(struct recall_wait *wait)
{
	struct gated *gated = container_of(wait, struct gated, wait);
	struct client_service *service = gated->service;
	struct rpc_request *request = gated->request;

	free(gated);
	if (service->closing)
		rpc_reply_error(request, ERR_CANCELLED, NULL);
	else if (!replica_is_leading(service->replica))
		refuse(service, request, ERR_NOT_LEADER);
	else
		execute(service, request);
}

/* While what a request touches is gone through. */
struct gate {
	struct client_service *service;
	struct rpc_request *request;
	uint64_t session;
	struct gated *gated;
};

static struct recall_wait *gate_close(struct gate *gate)
{
	if (!gate->gated) {
		gate->gated = mem_zero(1, sizeof(*gate->gated));
		gate->gated->service = gate->service;
		gate->gated->request = gate->request;
		gate->gated->wait.released = on_gate_open;
		rpc_request_waits(gate->request);
	}
	return &gate->gated->wait;
}

static void gate_touched(void *arg, uint64_t inode)
{
	struct gate *gate = arg;
	struct client_service *service = gate->service;
	uint64_t holder, expires_ms;

	if (delegations_holder(service->delegations, now_ms(service), gate->session, inode, &holder, &expires_ms))
		recalls_delegation(service->recalls, holder, inode, expires_ms, gate_close(gate));
}

static void gate_used(void *arg, uint64_t inode)
{
	struct gate *gate = arg;

	if (inode != 0)
		delegations_used(gate->service->delegations, now_ms(gate->service), gate->session, inode);
}

/* An earlier leader may have given directories away. */
static void gate_foreign(struct gate *gate)
{
	recalls_hold_until(gate->service->recalls, gate->service->foreign_until_ms, gate_close(gate));
}

static void execute_query(struct client_service *service, struct rpc_request *request, const Granary__MetaRequest *message)
{
	struct gate gate = { .service = service, .request = request, .session = message->session };
	Granary__MetaReply *reply = NULL;
	enum err err = replica_can_read(service->replica) ? OK : ERR_NOT_LEADER;

	if (err == OK)
		err = meta_query(replica_meta(service->replica), message, &reply);
	if (err) {
		refuse(service, request, err);
		return;
	}
	if (must_wait_for_foreign(service, message->session) && gate_query_tells_names(message, reply))
		gate_foreign(&gate);
	else if (delegations_any(service->delegations, now_ms(service)))
		gate_query(message, reply, gate_touched, &gate);
	if (!gate.gated) {
		for (size_t i = 0; i < reply->n_results; i++) {
			if (reply->results[i]->statfs)
				add_space(service, reply->results[i]->statfs);
		}
		note_opened(service, message, reply);
		grant_reply(service->leases, service->delegations, now_ms(service), message, reply);
		if (message->want_delegations && !must_wait_for_foreign(service, message->session))
			delegate(service, message, now_ms(service), reply);
		rpc_reply(request, &reply->base);
	}
	message_unref(&reply->base);
}

static void execute_change(struct client_service *service, struct rpc_request *request, Granary__MetaRequest *message)
{
	struct gate gate = { .service = service, .request = request, .session = message->session };

	if (must_wait_for_foreign(service, message->session) && gate_change_needs_names(message))
		gate_foreign(&gate);
	else if (delegations_any(service->delegations, now_ms(service)))
		gate_change(replica_meta(service->replica), message, gate_touched, &gate);
	if (gate.gated)
		return;
	gate_change(replica_meta(service->replica), message, gate_used, &gate);
	change_start(service, request, message);
}

static void execute(struct client_service *service, struct rpc_request *request)
{
	/* The message belongs to the request, whose server may fill in what the leader chooses. */
	Granary__MetaRequest *message = (Granary__MetaRequest *)(uintptr_t)request->message;

	if (meta_is_query(message))
		execute_query(service, request, message);
	else
		execute_change(service, request, message);
}

static void serve_meta(struct client_service *service, struct rpc_request *request)
{
	const Granary__MetaRequest *message = (const Granary__MetaRequest *)request->message;
	enum err err = meta_validate(message);

	if (err == OK && !sessions_heard(service->sessions, now_ms(service), message->session, request->conn))
		err = ERR_NO_SESSION;
	if (err)
		refuse(service, request, err);
	else
		execute(service, request);
}

/* ---- sessions */

static struct session_change *session_change_open(struct client_service *service,
						  void (*done)(struct proposal *, enum err, Granary__MetaReply **))
{
	struct session_change *change = mem_zero(1, sizeof(*change));

	change->service = service;
	granary__meta_request__init(&change->message);
	granary__meta_op__init(&change->op);
	granary__session_begin__init(&change->begin);
	granary__session_end__init(&change->end);
	change->ops[0] = &change->op;
	change->message.n_ops = 1;
	change->message.ops = change->ops;
	change->proposal.request = &change->message;
	change->proposal.done = done;
	return change;
}

static uint64_t session_timeout_ms(const struct client_service *service)
{
	return setting_value(meta_settings(replica_meta(service->replica)), SETTING_SESSION_TIMEOUT);
}

static void reply_info(struct client_service *service, struct rpc_request *request, uint64_t session)
{
	Granary__SessionInfo info = GRANARY__SESSION_INFO__INIT;

	info.session = session;
	info.term = replica_term(service->replica);
	info.timeout_ms = (uint32_t)session_timeout_ms(service);
	info.cluster = meta_cluster(replica_meta(service->replica));
	info.send_full = sessions_announced_term(service->sessions, session) != info.term;
	rpc_reply(request, &info.base);
}

static void on_session_begun(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct session_change *change = container_of(proposal, struct session_change, proposal);
	struct client_service *service = change->service;
	uint64_t session = 0;

	if (err == OK && (*reply)->n_results == 1) {
		err = (enum err)(*reply)->results[0]->error;
		session = (*reply)->results[0]->session;
	}
	if (err == OK)
		err = sessions_add(service->sessions, now_ms(service), session, true);
	if (err) {
		refuse(service, change->request, err);
	} else {
		sessions_heard(service->sessions, now_ms(service), session, change->request->conn);
		sessions_set_announced_term(service->sessions, session, replica_term(service->replica));
		reply_info(service, change->request, session);
	}
	free(change);
}

static void serve_session_open(struct client_service *service, struct rpc_request *request)
{
	const Granary__SessionOpen *message = (const Granary__SessionOpen *)request->message;

	if (sessions_count(service->sessions) >= SESSIONS_MAX) {
		refuse(service, request, ERR_TOO_MANY);
		return;
	}
	struct session_change *change = session_change_open(service, on_session_begun);
	change->request = request;
	change->op.op_case = GRANARY__META_OP__OP_SESSION_BEGIN;
	change->op.session_begin = &change->begin;
	change->begin.client = message->client; /* bounded by the frame; cut below */
	change->begin.id = fill_id(service->options.fill, replica_time_ms(service->replica));
	replica_time_used(service->replica, fill_time_ms(service->options.fill));
	for (size_t i = 0; change->begin.client[i]; i++) {
		if (i == CLIENT_NAME_BYTES_MAX) {
			change->begin.client[i] = 0;
			break;
		}
	}
	replica_propose(service->replica, &change->proposal);
}

static void on_session_ended(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct session_change *change = container_of(proposal, struct session_change, proposal);

	(void)reply;
	if (err == OK || err == ERR_NO_SESSION)
		sessions_remove(change->service->sessions, change->session);
	else
		sessions_expire_again(change->service->sessions, change->session);
	free(change);
}

static void session_end(void *arg, uint64_t session)
{
	struct client_service *service = arg;
	struct session_change *change = session_change_open(service, on_session_ended);

	change->session = session;
	change->op.op_case = GRANARY__META_OP__OP_SESSION_END;
	change->op.session_end = &change->end;
	change->end.session = session;
	replica_propose(service->replica, &change->proposal);
}

static void serve_session_keepalive(struct client_service *service, struct rpc_request *request)
{
	const Granary__SessionKeepalive *message = (const Granary__SessionKeepalive *)request->message;
	struct sessions *sessions = service->sessions;
	uint64_t session = message->session;
	bool end = message->end; /* the message goes with the answer */
	enum err err = OK;

	if (!replica_can_read(service->replica))
		err = ERR_NOT_LEADER;
	else if (!sessions_heard(sessions, now_ms(service), session, request->conn))
		err = ERR_NO_SESSION;
	if (err) {
		refuse(service, request, err);
		return;
	}
	if (message->full) {
		sessions_inodes_forget(sessions, session);
		sessions_set_announced_term(sessions, session, replica_term(service->replica));
	}
	for (size_t i = 0; i < message->n_keeping && i < DELEGATIONS_KEPT_MAX; i++)
		delegations_keep(service->delegations, now_ms(service), session, message->keeping[i]);
	for (size_t i = 0; i < message->n_closed; i++)
		sessions_inode_closed(sessions, session, message->closed[i]);
	for (size_t i = 0; i < message->n_opened; i++) {
		if (sessions_inode_opened(sessions, session, message->opened[i]))
			log_warn("session_opens_too_many", "session=%016" PRIx64, session);
	}
	sessions_kept_alive(sessions, now_ms(service), session);
	reply_info(service, request, session);
	if (end) {
		/* It caches nothing and has nothing open from now on; the rest goes through the log. */
		sessions_remove(sessions, session);
		delegations_session_ended(service->delegations, session);
		session_end(service, session);
	}
}

static void session_expired(void *arg, uint64_t session)
{
	struct client_service *service = arg;

	log_info("session_expired", "session=%016" PRIx64, session);
	fences_add(service->fences, session);
}

void client_service_expire(struct client_service *service)
{
	uint64_t now = now_ms(service);
	/* After a pause of this process what the clients sent meanwhile is still to be read. */
	bool paused = now - service->checked_ms > 4 * HOUSEKEEPING_MS;

	service->checked_ms = now;
	if (replica_can_read(service->replica) && !paused)
		sessions_expire(service->sessions, now, session_timeout_ms(service), session_expired, service);
}

/* ---- leadership */

static bool add_session(void *arg, uint64_t session)
{
	struct client_service *service = arg;

	if (sessions_add(service->sessions, now_ms(service), session, false))
		log_warn("sessions_too_many", "session=%016" PRIx64, session);
	return true;
}

static bool first_session(void *arg, uint64_t session)
{
	*(uint64_t *)arg = session;
	return false;
}

void client_service_leading(struct client_service *service)
{
	struct meta *meta = replica_meta(service->replica);

	sessions_clear(service->sessions);
	fences_clear(service->fences);
	leases_clear(service->leases);
	delegations_clear(service->delegations);
	service->foreign_session = 0;
	service->foreign_until_ms = now_ms(service) + CACHE_LEASE_MS;
	enum err err = meta_each_session(meta, add_session, service);
	/* All that began before are in the log; those that begin from now on get later ids. */
	sessions_know(service->sessions, fill_id(service->options.fill, replica_time_ms(service->replica)));
	replica_time_used(service->replica, fill_time_ms(service->options.fill));
	if (err == OK && sessions_count(service->sessions) == 1)
		err = meta_each_session(meta, first_session, &service->foreign_session);
	if (sessions_count(service->sessions) == 0)
		service->foreign_until_ms = 0;
	if (err)
		log_error("sessions_unreadable", "error=%s", err_name(err));
}

static void parked_end(struct client_service *service, enum err err)
{
	struct change *change, *next;

	timer_stop(&service->parked_timer);
	DL_FOREACH_SAFE(service->parked, change, next)
	{
		DL_DELETE(service->parked, change);
		replica_refuse(service->replica, change->request, err);
		change_free(change);
	}
}

void client_service_deposed(struct client_service *service)
{
	parked_end(service, ERR_NOT_LEADER);
	fences_clear(service->fences);
	sessions_clear(service->sessions);
}

/* ---- the service */

void client_service_serve(struct client_service *service, struct rpc_request *request)
{
	if (!replica_is_leading(service->replica)) {
		refuse(service, request, ERR_NOT_LEADER);
		return;
	}
	switch (request->type) {
	case MESSAGE_SESSION_OPEN:
		serve_session_open(service, request);
		break;
	case MESSAGE_SESSION_KEEPALIVE:
		serve_session_keepalive(service, request);
		break;
	case MESSAGE_META:
		serve_meta(service, request);
		break;
	default:
		refuse(service, request, ERR_NOT_SUPPORTED);
		break;
	}
}

struct client_service *client_service_open(const struct client_service_options *options)
{
	struct client_service *service = mem_zero(1, sizeof(*service));

	service->options = *options;
	service->loop = options->loop;
	service->replica = options->replica;
	service->sessions = options->sessions;
	service->leases = leases_open(CACHE_LEASES_MAX, CACHE_LEASE_MS);
	service->delegations = delegations_open(DELEGATION_DIRECTORIES_MAX, CACHE_LEASE_MS);
	service->recalls = recalls_open(options->loop, options->rpc, service->leases, service->delegations, options->sessions);
	service->fences = fences_open(&(struct fences_options){ .loop = options->loop,
								.rpc = options->rpc,
								.servers = options->servers,
								.fenced = session_end,
								.arg = service });
	timer_init(&service->parked_timer, options->loop, on_parked, service);
	return service;
}

void client_service_close(struct client_service *service)
{
	if (!service)
		return;
	service->closing = true;
	parked_end(service, ERR_CANCELLED);
	fences_close(service->fences);
	recalls_close(service->recalls);
	delegations_close(service->delegations);
	leases_close(service->leases);
	free(service);
}
