#include "master/recall.h"

#include <stdlib.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"

#define SAME_ITEM_LOOK_BACK 8u

struct item {
	uint64_t inode;
	struct buf name;
	bool delegation;
};

/* One Invalidate, or (session 0) a time to be waited for. */
struct push {
	struct recalls *recalls;
	uint64_t session;
	struct item *items;
	size_t item_count, item_capacity;
	struct recall_wait **waits;
	size_t wait_count, wait_capacity;
	uint64_t mark;
	uint64_t expires_ms;
	struct timer expiry; /* once it is certain that no confirmation comes */
	rpc_call_id call;
	bool sent;
	struct push *prev, *next;
};

/* In the entry being handled: a change of `session` waits for `push`. */
struct link {
	uint64_t session;
	struct push *push;
};

struct recalls {
	struct loop *loop;
	struct rpc *rpc;
	struct leases *leases;
	struct delegations *delegations;
	struct sessions *sessions;
	struct push *pushes;
	struct defer flush;
	struct link *links;
	size_t link_count, link_capacity;
	/* While the holders of one thing are gone through. */
	const struct meta_touch *touch;
	struct slice name;
};

static void push_free(struct push *push)
{
	timer_stop(&push->expiry);
	if (push->call)
		rpc_call_cancel(push->recalls->rpc, push->call);
	for (size_t i = 0; i < push->item_count; i++)
		buf_deinit(&push->items[i].name);
	free(push->items);
	free(push->waits);
	free(push);
}

static void push_end(struct push *push)
{
	struct recalls *recalls = push->recalls;

	DL_DELETE(recalls->pushes, push);
	for (size_t i = 0; i < push->wait_count; i++) {
		if (--push->waits[i]->pending == 0)
			push->waits[i]->released(push->waits[i]);
	}
	push_free(push);
}

/* No confirmation comes: until the leases have run out. */
static void push_wait_for_expiry(struct push *push)
{
	uint64_t now_ms = loop_now_us(push->recalls->loop) / 1000;

	timer_start(&push->expiry, push->expires_ms > now_ms ? push->expires_ms - now_ms : 0);
}

/* A delegation may have been kept beyond the end that it had when it was recalled. */
static bool push_has_delegation(struct push *push)
{
	struct recalls *recalls = push->recalls;
	uint64_t now_ms = loop_now_us(recalls->loop) / 1000;
	bool has = false;

	for (size_t i = 0; i < push->item_count; i++) {
		if (!push->items[i].delegation)
			continue;
		uint64_t until_ms = delegations_until_ms(recalls->delegations, now_ms, push->session, push->items[i].inode);
		if (until_ms > push->expires_ms)
			push->expires_ms = until_ms;
		has = true;
	}
	return has;
}

static void on_expired(void *arg)
{
	struct push *push = arg;

	push_has_delegation(push);
	/* A timer counts from the start of its iteration: it may be early. */
	if (loop_now_us(push->recalls->loop) / 1000 < push->expires_ms)
		push_wait_for_expiry(push);
	else
		push_end(push);
}

static struct push *push_open(struct recalls *recalls, uint64_t session, uint64_t expires_ms)
{
	struct push *push = mem_zero(1, sizeof(*push));

	push->recalls = recalls;
	push->session = session;
	push->expires_ms = expires_ms;
	timer_init(&push->expiry, recalls->loop, on_expired, push);
	DL_APPEND(recalls->pushes, push);
	return push;
}

static void on_confirmed(void *arg, const struct rpc_result *result)
{
	struct push *push = arg;
	struct recalls *recalls = push->recalls;

	push->call = 0;
	if (result->err) {
		push_wait_for_expiry(push);
		return;
	}
	for (size_t i = 0; i < push->item_count; i++) {
		const struct item *item = &push->items[i];
		if (item->delegation)
			delegations_ended(recalls->delegations, push->session, item->inode);
		else
			leases_confirmed(recalls->leases, push->session, item->inode, buf_slice(&item->name), push->mark);
	}
	push_end(push);
}

static void push_send(struct push *push)
{
	struct recalls *recalls = push->recalls;
	struct rpc_conn *conn = sessions_connection(recalls->sessions, push->session);
	uint64_t now_ms = loop_now_us(recalls->loop) / 1000;
	Granary__Invalidate message = GRANARY__INVALIDATE__INIT;

	push->sent = true;
	if (!conn || push->expires_ms <= now_ms) {
		push_wait_for_expiry(push);
		return;
	}
	Granary__InvalidateItem *items = mem_alloc(push->item_count * sizeof(*items));
	message.n_items = push->item_count;
	message.items = mem_alloc(push->item_count * sizeof(Granary__InvalidateItem *));
	for (size_t i = 0; i < push->item_count; i++) {
		items[i] = (Granary__InvalidateItem)GRANARY__INVALIDATE_ITEM__INIT;
		items[i].inode = push->items[i].inode;
		items[i].name = message_borrow(buf_slice(&push->items[i].name));
		items[i].delegation = push->items[i].delegation;
		message.items[i] = &items[i];
	}
	push->mark = leases_mark(recalls->leases);
	uint64_t patience_ms = push->expires_ms - now_ms;
	if (push_has_delegation(push)) {
		push_wait_for_expiry(push);
		patience_ms += DELEGATION_KEPT_MS_MAX;
	}
	push->call = rpc_conn_call(conn, MESSAGE_INVALIDATE, &message.base, patience_ms, on_confirmed, push);
	free(message.items);
	free(items);
}

static void on_flush(void *arg)
{
	struct recalls *recalls = arg;
	struct push *push, *next;

	DL_FOREACH_SAFE(recalls->pushes, push, next)
	{
		if (!push->sent)
			push_send(push);
	}
}

/* The call being filled for the session in this iteration. Above RECALLS_PER_SESSION_MAX none is sent: its leases run out. */
static struct push *push_for(struct recalls *recalls, uint64_t session)
{
	struct push *push;
	unsigned count = 0;

	DL_FOREACH(recalls->pushes, push)
	{
		if (push->session != session)
			continue;
		count++;
		if (!push->sent && push->item_count < RECALL_ITEMS_MAX)
			return push;
	}
	push = push_open(recalls, session, 0);
	if (count >= RECALLS_PER_SESSION_MAX) {
		push->sent = true;
		push->expires_ms = loop_now_us(recalls->loop) / 1000 + CACHE_LEASE_MS;
		push_wait_for_expiry(push);
	}
	return push;
}

static void push_add(struct push *push, uint64_t inode, struct slice name, bool delegation)
{
	for (size_t i = push->item_count; i > 0 && i + SAME_ITEM_LOOK_BACK > push->item_count; i--) {
		const struct item *item = &push->items[i - 1];
		if (item->inode == inode && item->delegation == delegation && slice_equal(buf_slice(&item->name), name))
			return;
	}
	if (push->item_count == push->item_capacity) {
		push->item_capacity = push->item_capacity ? 2 * push->item_capacity : 8;
		push->items = mem_resize(push->items, push->item_capacity * sizeof(*push->items));
	}
	push->items[push->item_count] = (struct item){ .inode = inode, .delegation = delegation };
	buf_set(&push->items[push->item_count++].name, name);
}

static void link_add(struct recalls *recalls, uint64_t session, struct push *push)
{
	for (size_t i = 0; i < recalls->link_count; i++) {
		if (recalls->links[i].session == session && recalls->links[i].push == push)
			return;
	}
	if (recalls->link_count == recalls->link_capacity) {
		recalls->link_capacity = recalls->link_capacity ? 2 * recalls->link_capacity : 8;
		recalls->links = mem_resize(recalls->links, recalls->link_capacity * sizeof(*recalls->links));
	}
	recalls->links[recalls->link_count++] = (struct link){ .session = session, .push = push };
}

static void on_holder(void *arg, uint64_t session, uint64_t expires_ms)
{
	struct recalls *recalls = arg;

	/* A session that is over caches nothing. */
	if (!sessions_has(recalls->sessions, session))
		return;
	struct push *push = push_for(recalls, session);
	if (!push->sent) {
		push_add(push, recalls->touch->inode, recalls->name, false);
		defer_post(&recalls->flush);
	}
	if (push->expires_ms < expires_ms && !push->sent)
		push->expires_ms = expires_ms;
	link_add(recalls, recalls->touch->session, push);
}

struct recalls *recalls_open(struct loop *loop, struct rpc *rpc, struct leases *leases, struct delegations *delegations,
			     struct sessions *sessions)
{
	struct recalls *recalls = mem_zero(1, sizeof(*recalls));

	recalls->loop = loop;
	recalls->rpc = rpc;
	recalls->leases = leases;
	recalls->delegations = delegations;
	recalls->sessions = sessions;
	defer_init(&recalls->flush, loop, on_flush, recalls);
	return recalls;
}

void recalls_close(struct recalls *recalls)
{
	if (!recalls)
		return;
	defer_cancel(&recalls->flush);
	while (recalls->pushes)
		push_end(recalls->pushes);
	free(recalls->links);
	free(recalls);
}

void recalls_begin(struct recalls *recalls)
{
	recalls->link_count = 0;
}

void recalls_touch(struct recalls *recalls, const struct meta_touch *touch)
{
	uint64_t now_ms = loop_now_us(recalls->loop) / 1000;

	recalls->touch = touch;
	if (touch->name.size > 0) {
		recalls->name = touch->name;
		leases_holders(recalls->leases, now_ms, touch->session, touch->inode, touch->name, on_holder, recalls);
	}
	/* A change of a name changes the directory's attributes and its listing, too. */
	recalls->name = (struct slice){ 0 };
	leases_holders(recalls->leases, now_ms, touch->session, touch->inode, recalls->name, on_holder, recalls);
}

static void push_hold(struct push *push, struct recall_wait *wait)
{
	if (push->wait_count == push->wait_capacity) {
		push->wait_capacity = push->wait_capacity ? 2 * push->wait_capacity : 8;
		push->waits = mem_resize(push->waits, push->wait_capacity * sizeof(struct recall_wait *));
	}
	push->waits[push->wait_count++] = wait;
	wait->pending++;
}

bool recalls_hold(struct recalls *recalls, uint64_t session, struct recall_wait *wait)
{
	for (size_t i = 0; i < recalls->link_count; i++) {
		if (recalls->links[i].session == session)
			push_hold(recalls->links[i].push, wait);
	}
	return wait->pending > 0;
}

bool recalls_hold_all(struct recalls *recalls, struct recall_wait *wait)
{
	struct push *push;

	DL_FOREACH(recalls->pushes, push)
	{
		push_hold(push, wait);
	}
	return wait->pending > 0;
}

static struct push *push_with_delegation(struct recalls *recalls, uint64_t holder, uint64_t directory)
{
	struct push *push;

	DL_FOREACH(recalls->pushes, push)
	{
		for (size_t i = 0; push->session == holder && i < push->item_count; i++) {
			if (push->items[i].delegation && push->items[i].inode == directory)
				return push;
		}
	}
	return NULL;
}

void recalls_delegation(struct recalls *recalls, uint64_t holder, uint64_t directory, uint64_t expires_ms,
			struct recall_wait *wait)
{
	struct push *push = push_with_delegation(recalls, holder, directory);

	if (!push) {
		delegations_recalled(recalls->delegations, directory);
		push = push_for(recalls, holder);
		if (!push->sent) {
			push_add(push, directory, (struct slice){ 0 }, true);
			defer_post(&recalls->flush);
			if (push->expires_ms < expires_ms)
				push->expires_ms = expires_ms;
		}
	}
	push_hold(push, wait);
}

void recalls_hold_until(struct recalls *recalls, uint64_t until_ms, struct recall_wait *wait)
{
	struct push *push;

	DL_FOREACH(recalls->pushes, push)
	{
		if (push->session == 0 && push->expires_ms == until_ms)
			break;
	}
	if (!push) {
		push = push_open(recalls, 0, until_ms);
		push->sent = true;
		push_wait_for_expiry(push);
	}
	push_hold(push, wait);
}
