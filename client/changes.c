#include "client/changes.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "client/delegations.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "common/proto/setattr.h"
#include "common/sys/log.h"

#define INODES_PER_CHANGE 4u

struct change {
	struct change *next;
	uint64_t number;
	Granary__MetaOp *op;
	uint64_t inodes[INODES_PER_CHANGE]; /* that it concerns; 0: no more */
	client_change_fn *done; /* or NULL */
	void *arg;
};

/* An inode that changes on their way concern. */
struct concerned {
	uint64_t inode;
	uint64_t last;	  /* of those changes */
	uint64_t made_by; /* 0: the master knows it */
	UT_hash_handle hh;
};

struct change_wait {
	struct change_wait *next;
	uint64_t number;
	void (*fn)(void *arg);
	void *arg;
};

static struct concerned *concerned_find(const struct client *client, uint64_t inode)
{
	struct concerned *concerned = NULL;
	HASH_FIND(hh, client->changes.concerned, &inode, sizeof inode, concerned);
	return concerned;
}

uint64_t changes_pending(const struct client *client, uint64_t inode)
{
	const struct changes *changes = &client->changes;
	if (inode == 0)
		return changes->last > changes->done ? changes->last : 0;
	const struct concerned *concerned = concerned_find(client, inode);
	return concerned ? concerned->last : 0;
}

bool client_is_changing(struct client *client, uint64_t inode)
{
	return changes_pending(client, inode) != 0;
}

/* ---- names ---- */

static bool is_name(uint64_t directory, struct slice name, uint64_t parent, ProtobufCBinaryData bytes)
{
	return parent == directory && slice_equal(message_bytes(bytes), name);
}

/* Whether the change is about this name. *present: the name is there afterwards. */
static bool changes_name(const Granary__MetaOp *op, uint64_t directory, struct slice name, bool *present)
{
	*present = false;
	switch (op->op_case) {
	case GRANARY__META_OP__OP_CREATE:
		*present = true;
		return is_name(directory, name, op->create->parent, op->create->name);
	case GRANARY__META_OP__OP_UNLINK:
		return is_name(directory, name, op->unlink->parent, op->unlink->name);
	case GRANARY__META_OP__OP_RENAME:
		*present = is_name(directory, name, op->rename->new_parent, op->rename->new_name);
		return *present || is_name(directory, name, op->rename->parent, op->rename->name);
	default:
		return false;
	}
}

static uint64_t last_of_name(const struct client *client, uint64_t directory, struct slice name, bool *present)
{
	const struct change *lists[] = { client->changes.sent, client->changes.waiting }, *change;
	uint64_t last = 0;
	bool there;
	*present = false;
	if (!concerned_find(client, directory))
		return 0;
	for (unsigned i = 0; i < 2; i++) {
		LL_FOREACH (lists[i], change) {
			if (!changes_name(change->op, directory, name, &there))
				continue;
			last = change->number;
			*present = there;
		}
	}
	return last;
}

uint64_t changes_pending_name(const struct client *client, uint64_t directory, struct slice name)
{
	const struct concerned *concerned = concerned_find(client, directory);
	bool present;
	uint64_t last = last_of_name(client, directory, name, &present);
	return concerned && concerned->made_by > last ? concerned->made_by : last;
}

bool client_name_is_removed(struct client *client, uint64_t directory, struct slice name)
{
	bool present;
	return last_of_name(client, directory, name, &present) != 0 && !present;
}

/* ---- what requests wait for ---- */

static uint64_t later_of(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t before(const struct client *client, const Granary__MetaOp *op)
{
	switch (op->op_case) {
	case GRANARY__META_OP__OP_LOOKUP:
		return changes_pending_name(client, op->lookup->parent, message_bytes(op->lookup->name));
	case GRANARY__META_OP__OP_GETATTR:
		return changes_pending(client, op->getattr->inode);
	case GRANARY__META_OP__OP_READDIR:
		return changes_pending(client, op->readdir->inode);
	case GRANARY__META_OP__OP_OPEN: /* 0: of what this request makes */
		return op->open->inode ? changes_pending(client, op->open->inode) : 0;
	case GRANARY__META_OP__OP_CREATE:
		return changes_pending(client, op->create->parent);
	case GRANARY__META_OP__OP_LINK:
		return later_of(changes_pending(client, op->link->parent), changes_pending(client, op->link->inode));
	case GRANARY__META_OP__OP_UNLINK:
		return later_of(changes_pending(client, op->unlink->parent), changes_pending(client, op->unlink->inode));
	case GRANARY__META_OP__OP_RENAME:
		return later_of(changes_pending(client, op->rename->parent), changes_pending(client, op->rename->new_parent));
	case GRANARY__META_OP__OP_SETATTR:
		return changes_pending(client, op->setattr->inode);
	case GRANARY__META_OP__OP_GET_XATTR:
		return changes_pending(client, op->get_xattr->inode);
	case GRANARY__META_OP__OP_LIST_XATTR:
		return changes_pending(client, op->list_xattr->inode);
	case GRANARY__META_OP__OP_SET_XATTR:
		return changes_pending(client, op->set_xattr->inode);
	case GRANARY__META_OP__OP_REMOVE_XATTR:
		return changes_pending(client, op->remove_xattr->inode);
	case GRANARY__META_OP__OP_SET_LOCK:
	case GRANARY__META_OP__OP_TEST_LOCK:
	case GRANARY__META_OP__OP_CHUNK_MAP:
		return 0;
	default: /* paths, and what is rare */
		return changes_pending(client, 0);
	}
}

uint64_t changes_before(const struct client *client, Granary__MetaOp *const *ops, size_t op_count)
{
	uint64_t last = 0;
	if (!client->changes.concerned)
		return 0;
#ifdef PLANT_CLIENT_CHANGES_UNWAITED
	return 0;
#endif
	for (size_t i = 0; i < op_count; i++)
		last = later_of(last, before(client, ops[i]));
	return last;
}

void changes_hurry(struct client *client)
{
	timer_stop(&client->changes.gather);
	defer_post(&client->changes.send);
}

void changes_wait(struct client *client, uint64_t number, bool hurry, void (*fn)(void *arg), void *arg)
{
	struct change_wait *wait = mem_zero(1, sizeof *wait);
	*wait = (struct change_wait){ .number = number, .fn = fn, .arg = arg };
	LL_APPEND(client->changes.waits, wait);
	if (hurry)
		changes_hurry(client);
}

/* Nobody waits for them. */
static void changes_gather(struct client *client)
{
	struct changes *changes = &client->changes;
	if (changes->count >= CLIENT_CHANGES_PER_REQUEST_MAX)
		changes_hurry(client);
	else if (!timer_is_running(&changes->gather))
		timer_start(&changes->gather, CLIENT_GATHER_MS);
}

/* Calls those whose time has come; they may wait again, for later ones. */
static void waits_run(struct client *client)
{
	struct changes *changes = &client->changes;
	struct change_wait *all = changes->waits, *wait, *next;
	changes->waits = NULL;
	LL_FOREACH_SAFE (all, wait, next) {
		if (wait->number > changes->done && !client->closing) {
			LL_APPEND(changes->waits, wait);
			continue;
		}
		wait->fn(wait->arg);
		free(wait);
	}
}

/* ---- sending ---- */

/* The master knows it. */
static void change_unconcern(struct client *client, const struct change *change)
{
	for (unsigned i = 0; i < INODES_PER_CHANGE && change->inodes[i]; i++) {
		struct concerned *concerned = concerned_find(client, change->inodes[i]);
		if (concerned && concerned->made_by == change->number)
			concerned->made_by = 0;
		if (!concerned || concerned->last > change->number)
			continue;
		check(client->changes.concerned != NULL); /* it was found there */
		HASH_DEL(client->changes.concerned, concerned);
		free(concerned);
	}
}

static void change_lost(struct client *client, const struct change *change, enum err err)
{
	log_error("change_lost", "operation=%u inode=%llu error=%s", (unsigned)change->op->op_case,
		  (unsigned long long)change->inodes[0], err_name(err));
	delegations_note_done(client, change->inodes, INODES_PER_CHANGE);
}

static void change_end(struct client *client, struct change *change, enum err err, const Granary__MetaResult *result)
{
	const Granary__MetaOp *op = change->op;
	if (err && err != ERR_CANCELLED)
		change_lost(client, change, err);
	if (op->op_case == GRANARY__META_OP__OP_CREATE) {
		delegation_made(client, op->create->id);
		if (err || result->lease_ms == 0)
			made_uncache(client, op->create->id, op->create->parent, message_bytes(op->create->name));
	} else if (op->op_case == GRANARY__META_OP__OP_UNLINK && op->unlink->directory) {
		struct delegation *gone = delegation_find(client, op->unlink->inode);
		if (gone && !gone->creations)
			delegation_free(gone);
	}
	if (change->done)
		change->done(change->arg, err, result);
	client->changes.count--;
	message_free(&change->op->base);
	free(change);
}

/* again: an earlier request with it may have been carried out. */
static enum err change_err(const struct change *change, const Granary__MetaResult *result, bool again)
{
	enum err err = result->error ? err_from_wire(result->error) : OK;
	bool was_done = again && change->op->op_case != GRANARY__META_OP__OP_CREATE;
	return was_done && (err == ERR_NOT_FOUND || err == ERR_STALE_HANDLE) ? OK : err;
}

static void changes_send(struct client *client);

/* Programs have been told that it is done: it is not given up because nobody answers. */
static bool is_worth_another_try(struct client *client, enum err err)
{
	if (err == OK || err == ERR_CANCELLED || client->closing)
		return false;
	client->changes.tries++;
	return client_err_may_pass(err) || client->changes.tries < CLIENT_CREATION_TRIES_MAX;
}

static void changes_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct client *client = arg;
	struct changes *changes = &client->changes;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	bool again = changes->tries > 0;
	struct change *change;
	size_t i = 0;
	(void)text;
	if (err == OK && reply->n_results != changes->sent_count)
		err = ERR_PROTOCOL;
	if (is_worth_another_try(client, err)) {
		changes_send(client);
		return;
	}
	changes->tries = 0;
	LL_FOREACH (changes->sent, change) {
		changes->done = change->number;
		change_unconcern(client, change);
	}
	if (err == OK)
		delegations_given(client, changes->sent_ms, reply);
	while (changes->sent) {
		const Granary__MetaResult *result = err == OK ? reply->results[i++] : NULL;
		change = changes->sent;
		LL_DELETE(changes->sent, change);
		change_end(client, change, result ? change_err(change, result, again) : err, result);
	}
	waits_run(client);
	if (changes->waiting && changes->waits)
		changes_hurry(client);
	else if (changes->waiting)
		changes_gather(client);
}

/* What is in `sent`, also once more. */
static void changes_send(struct client *client)
{
	struct changes *changes = &client->changes;
	Granary__MetaOp *ops[CLIENT_CHANGES_PER_REQUEST_MAX];
	struct change *change;
	size_t count = 0;
	LL_FOREACH (changes->sent, change)
		ops[count++] = change->op;
#ifdef PLANT_CLIENT_CHANGES_UNORDERED
	for (size_t i = 0; i < count / 2; i++) {
		Granary__MetaOp *op = ops[i];
		ops[i] = ops[count - 1 - i];
		ops[count - 1 - i] = op;
	}
#endif
	changes->sent_count = count;
	changes->sent_ms = loop_now_ms(client->loop);
	session_meta(client->session, ops, count, delegations_wanted(client, ops, count) | SESSION_WANTS_DELEGATIONS | SESSION_SENDS_DONE,
		     changes_answered, client);
}

void changes_deferred(void *arg)
{
	struct client *client = arg;
	struct changes *changes = &client->changes;
	if (changes->sent || !changes->waiting)
		return;
	for (unsigned count = 0; changes->waiting && count < CLIENT_CHANGES_PER_REQUEST_MAX; count++) {
		struct change *change = changes->waiting;
		LL_DELETE(changes->waiting, change);
		LL_APPEND(changes->sent, change);
	}
	changes_send(client);
}

void changes_cancel(struct client *client)
{
	struct changes *changes = &client->changes;
	defer_cancel(&changes->send);
	timer_stop(&changes->gather);
	while (changes->waiting) {
		struct change *change = changes->waiting;
		LL_DELETE(changes->waiting, change);
		log_error("change_lost", "operation=%u error=closing", (unsigned)change->op->op_case);
		change_unconcern(client, change);
		change_end(client, change, ERR_CANCELLED, NULL);
	}
	waits_run(client);
}

/* ---- new ones ---- */

static void concern(struct client *client, uint64_t inode, const struct change *change, bool made)
{
	struct concerned *concerned = concerned_find(client, inode);
	if (!concerned) {
		concerned = mem_zero(1, sizeof *concerned);
		concerned->inode = inode;
		HASH_ADD(hh, client->changes.concerned, inode, sizeof concerned->inode, concerned);
	}
	concerned->last = change->number;
	if (made)
		concerned->made_by = change->number;
}

/* made: the first of the inodes is new. */
static void change_add(struct client *client, const Granary__MetaOp *op, const uint64_t inodes[INODES_PER_CHANGE], bool made,
		       client_change_fn *done, void *arg)
{
	struct changes *changes = &client->changes;
	struct change *change = mem_zero(1, sizeof *change);
	change->number = ++changes->last;
	change->op = (Granary__MetaOp *)message_copy(&op->base);
	change->done = done;
	change->arg = arg;
	changes->count++;
	for (unsigned i = 0, count = 0; i < INODES_PER_CHANGE; i++) {
		if (inodes[i] == 0)
			continue;
		struct delegation *delegation = delegation_find(client, inodes[i]);
		if (delegation)
			delegation->epoch++;
		change->inodes[count++] = inodes[i];
		concern(client, inodes[i], change, made && i == 0);
	}
	LL_APPEND(changes->waiting, change);
	changes_gather(client);
}

static bool has_room(const struct client *client)
{
	return client->changes.count < CLIENT_CHANGES_MAX && !client->closing;
}

static int64_t now_ns(const struct client *client)
{
	return (int64_t)loop_wall_ms(client->loop) * 1000000;
}

bool client_make(struct client *client, Granary__Create *create, Granary__Inode *attr)
{
	struct delegation *parent = delegation_usable(client, create->parent);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	bool is_directory = mode_is_directory(create->mode);
	if (!parent || !has_room(client) || client_find_local(client, create->parent, message_bytes(create->name)) ||
	    client->ids_left == 0 || create->mode & MODE_SETGID)
		return false;
	create->id = delegations_next_id(client);
	create->time = create->ctime = now_ns(client);
	made_attr(create, create->time, attr);
	if (parent->label)
		attr->class_ = parent->label;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = create;
	delegation_changed(parent, 1, is_directory, create->time);
	delegation_add_name(parent, message_bytes(create->name));
	if (is_directory)
		delegation_make(client, create->id, attr);
	change_add(client, &op, (uint64_t[INODES_PER_CHANGE]){ create->id, create->parent }, true, NULL, NULL);
	return true;
}

bool client_unlink(struct client *client, Granary__Unlink *unlink, client_change_fn *done, void *arg)
{
	struct delegation *parent = delegation_usable(client, unlink->parent), *gone = NULL;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	if (!parent || !has_room(client) || client_find_local(client, unlink->parent, message_bytes(unlink->name)))
		return false;
	if (unlink->directory) {
		gone = delegation_usable(client, unlink->inode);
		if (!gone || !gone->counted || gone->attr->entries > 0 || gone->creations)
			return false;
		gone->usable = false;
	}
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = unlink;
	unlink->time = now_ns(client);
	delegation_changed(parent, -1, gone ? -1 : 0, unlink->time);
	change_add(client, &op, (uint64_t[INODES_PER_CHANGE]){ unlink->inode, unlink->parent }, false, done, arg);
	return true;
}

bool client_rename(struct client *client, Granary__Rename *rename, client_change_fn *done, void *arg)
{
	struct delegation *from = delegation_usable(client, rename->parent), *to = delegation_usable(client, rename->new_parent);
	struct slice name = message_bytes(rename->name), new_name = message_bytes(rename->new_name);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	if (!from || !to || !has_room(client) || rename->exchange || client_find_local(client, rename->parent, name) ||
	    client_find_local(client, rename->new_parent, new_name))
		return false;
	op.op_case = GRANARY__META_OP__OP_RENAME;
	op.rename = rename;
	rename->time = now_ns(client);
	delegation_changed(from, -1, 0, rename->time);
	delegation_changed(to, rename->replaced ? 0 : 1, 0, rename->time);
	delegation_add_name(to, new_name);
	struct delegation *moved = delegation_find(client, rename->inode);
	if (moved && moved->attr && moved->attr->ctime < rename->time)
		moved->attr->ctime = rename->time;
	change_add(client, &op,
		   (uint64_t[INODES_PER_CHANGE]){ rename->inode, rename->parent, rename->new_parent, rename->replaced }, false,
		   done, arg);
	return true;
}

/* Times are those of this process from here on. */
static void setattr_resolve(Granary__Setattr *change, int64_t now)
{
	if (change->mask & SETATTR_ATIME_NOW)
		change->atime = now;
	if (change->mask & SETATTR_MTIME_NOW)
		change->mtime = now;
	change->mask |= (change->mask & SETATTR_ATIME_NOW ? SETATTR_ATIME : 0u) | (change->mask & SETATTR_MTIME_NOW ? SETATTR_MTIME : 0u);
	change->mask &= ~(uint32_t)(SETATTR_ATIME_NOW | SETATTR_MTIME_NOW | SETATTR_CTIME);
	change->time = now;
}

static void attr_change(Granary__Inode *attr, const Granary__Setattr *change)
{
	setattr_owner(attr, change);
	if (change->mask & SETATTR_ATIME)
		attr->atime = change->atime;
	if (change->mask & SETATTR_MTIME)
		attr->mtime = change->mtime;
	if (attr->ctime < change->time)
		attr->ctime = change->time;
}

bool client_setattr_directory(struct client *client, Granary__Setattr *setattr)
{
	struct delegation *delegation = delegation_usable(client, setattr->inode);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	if (!delegation || !delegation->attr || !has_room(client) || delegation->creations || setattr->mask & SETATTR_SIZE)
		return false;
	/* What changed its names so far shows in its times. */
	if (delegation->attr->mtime < delegation->touched_ns)
		delegation->attr->mtime = delegation->touched_ns;
	if (delegation->attr->ctime < delegation->touched_ns)
		delegation->attr->ctime = delegation->touched_ns;
	delegation->touched_ns = 0;
	setattr_resolve(setattr, now_ns(client));
	op.op_case = GRANARY__META_OP__OP_SETATTR;
	op.setattr = setattr;
	attr_change(delegation->attr, setattr);
	delegation->usable = !(delegation->attr->mode & MODE_SETGID);
	change_add(client, &op, (uint64_t[INODES_PER_CHANGE]){ setattr->inode }, false, NULL, NULL);
	return true;
}
