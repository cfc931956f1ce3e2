#include "master/members_service.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

enum change_kind { CHANGE_NONE, CHANGE_ADD = 1, CHANGE_REMOVE = 2, CHANGE_TRANSFER = 3 };

/* What the operator has asked for. */
struct wish {
	struct rpc_request *request; /* NULL: nothing */
	enum change_kind kind;
	uint64_t id;
	uint64_t node;	   /* add: as the master there has said; 0: not yet */
	bool proposed;	   /* waits to be committed */
	uint64_t until_ms;
	char address[ADDRESS_BYTES_MAX + 1];
};

/* A master that is asked who it is. */
struct question {
	struct rpc_peer *peer;
	rpc_call_id call; /* 0: none */
	uint64_t id;
	bool for_wish, for_space;
};

struct members_service {
	struct members_service_options options;
	struct timer timer;
	bool leading;
	struct wish wish;
	struct question question;
	uint64_t asked; /* who was asked last, so that each gets its turn */
	uint64_t handed_ms; /* when leadership was last given away for lack of space */
};

static uint64_t now_ms(const struct members_service *service)
{
	return loop_now_us(service->options.loop) / 1000;
}

static void wish_end(struct members_service *service, enum err err, const char *text)
{
	struct rpc_request *request = service->wish.request;
	Granary__Empty empty = GRANARY__EMPTY__INIT;

	service->wish = (struct wish){ 0 };
	if (!request)
		return;
	if (err)
		rpc_reply_error(request, err, text);
	else
		rpc_reply(request, &empty.base);
}

/* ---- asking */

static void question_end(struct members_service *service)
{
	if (service->question.call)
		rpc_call_cancel(service->options.rpc, service->question.call);
	if (service->question.peer)
		rpc_peer_close(service->question.peer);
	service->question = (struct question){ 0 };
}

static bool put_in_force(struct members_service *service, const struct raft_membership *membership, const char *why, uint64_t id)
{
	enum err err = replica_propose_members(service->options.replica, membership);

	if (err == OK)
		log_info("members_change", "why=%s id=%" PRIu64, why, id);
	else if (err != ERR_BUSY)
		log_warn("members_change_refused", "why=%s id=%" PRIu64 " error=%s", why, id, err_name(err));
	return err == OK;
}

/* A node that was not known. */
static void learn_node(struct members_service *service, uint64_t id, uint64_t node)
{
	struct raft_membership membership;
	uint64_t index;

	replica_membership(service->options.replica, &membership, &index);
	const struct raft_member *member = membership_find(&membership, id);
	if (!member || member->node != 0)
		return;
	struct raft_member known = *member;
	known.node = node;
	if (membership_put(&membership, &known))
		put_in_force(service, &membership, "node", id);
}

static void learn_wish(struct members_service *service, const struct rpc_result *result, const Granary__FoundingReply *reply)
{
	enum err err = result->err;

	if (err == OK && strcmp(reply->cluster_name, service->options.cluster) != 0)
		err = ERR_WRONG_CLUSTER;
	if (err == OK && (reply->id != service->wish.id || reply->node == 0))
		err = ERR_WRONG_MASTER;
	if (err == ERR_CLOSED || err == ERR_TIMEOUT || err == ERR_UNREACHABLE)
		return; /* it may be starting: it is asked again */
	if (err)
		wish_end(service, err, NULL);
	else
		service->wish.node = reply->node;
}

static void hand_over(struct members_service *service, uint64_t id)
{
	enum err err = replica_transfer(service->options.replica, id);

	log_warn("master_hands_over", "why=space to=%" PRIu64 " error=%s", id, err_name(err));
	service->handed_ms = now_ms(service);
}

static void on_answer(void *arg, const struct rpc_result *result)
{
	struct members_service *service = arg;
	struct question question = service->question;
	const Granary__FoundingReply *reply = (const Granary__FoundingReply *)result->reply;

	service->question.call = 0;
	if (question.for_wish)
		learn_wish(service, result, reply);
	else if (result->err == OK && reply->id == question.id && question.for_space && !reply->space_low)
		hand_over(service, question.id);
	else if (result->err == OK && reply->id == question.id && reply->node != 0 && !question.for_space)
		learn_node(service, question.id, reply->node);
	question_end(service);
}

static void ask(struct members_service *service, uint64_t id, const char *address, bool for_wish, bool for_space)
{
	Granary__FoundingRequest request = GRANARY__FOUNDING_REQUEST__INIT;
	struct question *question = &service->question;

	if (question->call || !address || !*address)
		return;
	service->asked = id;
	request.id = service->options.id;
	*question = (struct question){ .id = id, .for_wish = for_wish, .for_space = for_space };
	question->peer = rpc_peer_open(service->options.rpc, address);
	question->call =
		rpc_peer_call(question->peer, MESSAGE_FOUNDING, &request.base, NULL, FOUNDING_ATTEMPT_MS, on_answer, service);
}

/* ---- what the leader changes by itself */

static const char *address_of(const struct members_service *service, uint64_t id)
{
	return members_address(replica_members(service->options.replica), id);
}

/* Addresses and the own node; and the whole, if it is from before the log. */
static bool complete(struct members_service *service, struct raft_membership *membership, uint64_t index)
{
	bool changed = index == 0;

	for (size_t i = 0; i < membership->count; i++) {
		struct raft_member *member = &membership->members[i];
		const char *address = address_of(service, member->id);
		if (address && !member->address[0]) {
			memcpy(member->address, address, strlen(address) + 1);
			changed = true;
		}
	}
	return changed && put_in_force(service, membership, "first", service->options.id);
}

/* Somebody whose node is not known: each in turn. */
static bool find_unknown(struct members_service *service, const struct raft_membership *membership)
{
	const struct raft_member *first = NULL, *next = NULL;

	for (size_t i = 0; i < membership->count; i++) {
		const struct raft_member *member = &membership->members[i];
		if (member->node != 0)
			continue;
		first = first ? first : member;
		if (!next && member->id > service->asked)
			next = member;
	}
	if (!first)
		return false;
	next = next ? next : first;
	ask(service, next->id, address_of(service, next->id), false, false);
	return true;
}

static bool promote(struct members_service *service, struct raft_membership *membership, const struct raft_view *view)
{
	for (size_t i = 0; i < view->member_count; i++) {
		const struct raft_progress_view *progress = &view->members[i];
		if (!progress->learner || !progress->caught_up || progress->node == 0)
			continue;
		struct raft_member member = *membership_find(membership, progress->id);
		member.learner = false;
		return membership_put(membership, &member) && put_in_force(service, membership, "caught_up", progress->id);
	}
	return false;
}

static bool replace_stranger(struct members_service *service, struct raft_membership *membership, const struct raft_view *view)
{
	for (size_t i = 0; i < view->member_count; i++) {
		const struct raft_progress_view *progress = &view->members[i];
		if (progress->stranger_node == 0 || progress->id == service->options.id)
			continue;
		struct raft_member member = *membership_find(membership, progress->id);
		log_warn("master_replaced", "id=%" PRIu64 " node=%016" PRIx64 " before=%016" PRIx64, progress->id,
			 progress->stranger_node, member.node);
		member.node = progress->stranger_node;
		member.learner = true;
		return membership_put(membership, &member) && put_in_force(service, membership, "replaced", progress->id);
	}
	return false;
}

/* Another voter's disk may have room: each is asked in turn. */
static void look_for_space(struct members_service *service, const struct raft_view *view)
{
	const struct raft_progress_view *first = NULL, *next = NULL;

	if (!replica_space_is_low(service->options.replica) ||
	    (service->handed_ms && now_ms(service) - service->handed_ms < SPACE_HAND_OVER_MS))
		return;
	for (size_t i = 0; i < view->member_count; i++) {
		const struct raft_progress_view *progress = &view->members[i];
		if (progress->learner || !progress->caught_up || progress->id == service->options.id)
			continue;
		first = first ? first : progress;
		if (!next && progress->id > service->asked)
			next = progress;
	}
	next = next ? next : first;
	if (next)
		ask(service, next->id, address_of(service, next->id), false, true);
}

/* ---- what an operator asks for */

static enum err add(const struct members_service *service, struct raft_membership *membership)
{
	const struct wish *wish = &service->wish;
	const struct raft_member *known = membership_find(membership, wish->id);
	struct raft_member member = { .id = wish->id, .node = wish->node, .learner = true };

	if (known)
		return known->node == wish->node ? OK : ERR_EXISTS;
	memcpy(member.address, wish->address, sizeof(member.address));
	return membership_put(membership, &member) ? ERR_BUSY : ERR_TOO_MANY;
}

static enum err take_away(const struct members_service *service, struct raft_membership *membership)
{
	const struct raft_member *known = membership_find(membership, service->wish.id);

	if (!known)
		return service->wish.proposed ? OK : ERR_NOT_FOUND;
	if (!known->learner && membership_voters(membership) == 1)
		return ERR_LAST_VOTER;
	membership_remove(membership, service->wish.id);
	return ERR_BUSY;
}

/* The change that is wished for; true: one is under way. */
static bool grant_wish(struct members_service *service, struct raft_membership *membership)
{
	struct wish *wish = &service->wish;

	if (wish->kind == CHANGE_TRANSFER)
		return false;
	if (wish->kind == CHANGE_ADD && wish->node == 0) {
		ask(service, wish->id, wish->address, true, false);
		return false;
	}
	/* ERR_BUSY: it is to be made; OK: it is there, and committed. */
	enum err err = wish->kind == CHANGE_ADD ? add(service, membership) : take_away(service, membership);
	if (err != ERR_BUSY) {
		wish_end(service, err, NULL);
		return false;
	}
	if (!put_in_force(service, membership, wish->kind == CHANGE_ADD ? "add" : "remove", wish->id))
		return false;
	wish->proposed = true;
	return true;
}

static enum err too_late(const struct wish *wish)
{
	if (wish->kind == CHANGE_TRANSFER)
		return ERR_CANCELLED;
	/* Nor is it ERR_TIMEOUT or ERR_UNREACHABLE, which the caller would take for a connection to us that broke. */
	return wish->kind == CHANGE_ADD && wish->node == 0 ? ERR_WRONG_MASTER : ERR_CHANGE_UNDER_WAY;
}

static void on_timer(void *arg)
{
	struct members_service *service = arg;
	struct raft_membership membership;
	struct raft_view view;
	uint64_t index;

	if (!service->leading)
		return;
	timer_start(&service->timer, MEMBERS_CHANGE_MS);
	if (service->wish.request && now_ms(service) >= service->wish.until_ms)
		wish_end(service, too_late(&service->wish), NULL);
	replica_view(service->options.replica, &view);
	if (!view.membership_committed)
		return;
	replica_membership(service->options.replica, &membership, &index);
	if (complete(service, &membership, index))
		return;
	if (service->wish.request && grant_wish(service, &membership))
		return;
	replica_membership(service->options.replica, &membership, &index);
	if (replace_stranger(service, &membership, &view) || promote(service, &membership, &view))
		return;
	if (!find_unknown(service, &membership))
		look_for_space(service, &view);
}

static enum err transfer(struct members_service *service)
{
	uint64_t id = service->wish.id;
	struct raft_membership membership;
	uint64_t index;

	replica_membership(service->options.replica, &membership, &index);
	const struct raft_member *member = id ? membership_find(&membership, id) : NULL;
	if (id && !member)
		return ERR_NOT_FOUND;
	if (member && member->learner)
		return ERR_INVALID;
	if (id == service->options.id)
		return ERR_EXISTS;
	enum err err = replica_transfer(service->options.replica, id);
	return err == ERR_BUSY ? ERR_CHANGE_UNDER_WAY : err;
}

void members_service_serve(struct members_service *service, struct rpc_request *request)
{
	const Granary__MembersChange *message = (const Granary__MembersChange *)request->message;
	struct wish *wish = &service->wish;
	size_t size = strlen(message->address);

	if (!replica_can_read(service->options.replica)) {
		replica_refuse(service->options.replica, request, ERR_NOT_LEADER);
		return;
	}
	if (wish->request) {
		rpc_reply_error(request, ERR_CHANGE_UNDER_WAY, NULL);
		return;
	}
	if (message->kind < CHANGE_ADD || message->kind > CHANGE_TRANSFER || size > ADDRESS_BYTES_MAX || message->id > MEMBER_ID_MAX ||
	    (message->kind != CHANGE_TRANSFER && message->id == 0) || (message->kind == CHANGE_ADD && size == 0)) {
		rpc_reply_error(request, ERR_INVALID, NULL);
		return;
	}
	*wish = (struct wish){ .request = request, .kind = (enum change_kind)message->kind, .id = message->id };
	memcpy(wish->address, message->address, size + 1);
	wish->until_ms = now_ms(service) + MEMBERS_WISH_MS;
	log_info("members_change_asked", "kind=%u id=%" PRIu64, message->kind, message->id);
	if (wish->kind == CHANGE_ADD) {
		question_end(service);
		ask(service, wish->id, wish->address, true, false);
	} else if (wish->kind == CHANGE_TRANSFER) {
		enum err err = transfer(service);
		if (err)
			wish_end(service, err, NULL);
	}
	if (service->wish.request)
		timer_start(&service->timer, 0);
}

/* ---- */

void members_service_leading(struct members_service *service)
{
	service->leading = true;
	timer_start(&service->timer, 0);
}

void members_service_deposed(struct members_service *service)
{
	service->leading = false;
	timer_stop(&service->timer);
	question_end(service);
	/* Of a removed leader, and of one that was asked to go, this is the answer. */
	bool done = service->wish.kind == CHANGE_TRANSFER ||
		    (service->wish.kind == CHANGE_REMOVE && service->wish.id == service->options.id && service->wish.proposed);
	wish_end(service, done ? OK : ERR_NOT_LEADER, "");
}

struct members_service *members_service_open(const struct members_service_options *options)
{
	struct members_service *service = mem_zero(1, sizeof(*service));

	service->options = *options;
	timer_init(&service->timer, options->loop, on_timer, service);
	return service;
}

void members_service_close(struct members_service *service)
{
	if (!service)
		return;
	timer_stop(&service->timer);
	question_end(service);
	wish_end(service, ERR_CANCELLED, NULL);
	free(service);
}
