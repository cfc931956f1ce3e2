#include "client/delegations.h"

#include <stdlib.h>

#include "client/changes.h"
#include "client/creations.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"

#define NAMES_MIN 64u
#define EXPIRY_LOOK_MS 50u

struct delegation *delegation_find(struct client *client, uint64_t directory)
{
	struct delegation *delegation;
	HASH_FIND(hh, client->delegations, &directory, sizeof directory, delegation);
	return delegation;
}

static uint64_t runs_until(const struct delegation *delegation)
{
	/* While the master does not know the directory, nobody else can. */
	return delegation->making ? loop_now_ms(delegation->client->loop) + CACHE_LEASE_MS : delegation->until_ms;
}

static bool is_running(const struct delegation *delegation)
{
	return !delegation->recalled && loop_now_ms(delegation->client->loop) < runs_until(delegation);
}

struct delegation *delegation_running(struct client *client, uint64_t directory)
{
	struct delegation *delegation = delegation_find(client, directory);
	return delegation && is_running(delegation) ? delegation : NULL;
}

struct delegation *delegation_usable(struct client *client, uint64_t directory)
{
	struct delegation *delegation = delegation_running(client, directory);
	bool lasts = delegation && loop_now_ms(client->loop) + CLIENT_DELEGATION_MARGIN_MS < runs_until(delegation);
	return lasts && delegation->usable ? delegation : NULL;
}

void delegation_forget_attr(struct delegation *delegation)
{
	if (delegation->attr)
		message_free(&delegation->attr->base);
	delegation->attr = NULL;
	delegation->counted = false;
	delegation->epoch++;
}

/* ---- names of a directory that was empty ---- */

/* FNV-1a; never 0. A collision costs a question to the master. */
static uint64_t name_hash(struct slice name)
{
	uint64_t hash = 0xcbf29ce484222325ull;
	for (size_t i = 0; i < name.size; i++)
		hash = (hash ^ name.bytes[i]) * 0x100000001b3ull;
	return hash | 1;
}

static uint64_t *name_place(const struct delegation *delegation, uint64_t hash)
{
	size_t at = (size_t)(hash >> 7) & (delegation->names_size - 1);
	while (delegation->names[at] != 0 && delegation->names[at] != hash)
		at = (at + 1) & (delegation->names_size - 1);
	return &delegation->names[at];
}

static void names_drop(struct delegation *delegation)
{
	free(delegation->names);
	delegation->names = NULL;
	delegation->names_count = delegation->names_size = 0;
	delegation->complete = false;
}

void delegation_add_name(struct delegation *delegation, struct slice name)
{
	if (!delegation->complete)
		return;
	if (delegation->names_count == CLIENT_DELEGATION_NAMES_MAX) {
		names_drop(delegation);
		return;
	}
	if (2 * delegation->names_count >= delegation->names_size) {
		struct delegation old = *delegation;
		delegation->names_size = old.names_size ? 2 * old.names_size : NAMES_MIN;
		delegation->names = mem_zero(delegation->names_size, sizeof *delegation->names);
		for (size_t i = 0; i < old.names_size; i++)
			if (old.names[i] != 0)
				*name_place(delegation, old.names[i]) = old.names[i];
		free(old.names);
	}
	uint64_t *place = name_place(delegation, name_hash(name));
	delegation->names_count += *place == 0;
	*place = name_hash(name);
}

bool client_knows_absent(struct client *client, uint64_t directory, struct slice name)
{
	struct delegation *delegation = delegation_running(client, directory);
	if (!delegation || !delegation->complete)
		return false;
	return delegation->names_size == 0 || *name_place(delegation, name_hash(name)) == 0;
}

/* ---- their lives ---- */

void delegation_free(struct delegation *delegation)
{
	check(!delegation->creations);
	HASH_DEL(delegation->client->delegations, delegation);
	timer_stop(&delegation->timer);
	names_drop(delegation);
	delegation_forget_attr(delegation);
	free(delegation->label);
	free(delegation);
}

/* Shortly before its end: what was made under it is sent, which also renews it. */
static void delegation_timer(void *arg)
{
	struct delegation *delegation = arg;
	uint64_t now = loop_now_ms(delegation->client->loop), until = runs_until(delegation);
	if (now + CLIENT_DELEGATION_MARGIN_MS < until) {
		timer_start(&delegation->timer, until - CLIENT_DELEGATION_MARGIN_MS - now);
		return;
	}
	creations_send_open(delegation);
	if (delegation->creations)
		session_keep(delegation->client->session);
	if (now >= until && !delegation->creations && !delegation->recalled)
		delegation_free(delegation);
	else
		timer_start(&delegation->timer, EXPIRY_LOOK_MS);
}

static struct delegation *delegation_open(struct client *client, uint64_t directory)
{
	struct delegation *delegation = mem_zero(1, sizeof *delegation);
	delegation->client = client;
	delegation->directory = directory;
	delegation->since_ms = loop_now_ms(client->loop);
	timer_init(&delegation->timer, client->loop, delegation_timer, delegation);
	HASH_ADD(hh, client->delegations, directory, sizeof delegation->directory, delegation);
	return delegation;
}

static void attr_learn(struct delegation *delegation, const Granary__Inode *attr)
{
	delegation_forget_attr(delegation);
	delegation->attr = (Granary__Inode *)message_copy(&attr->base);
	free(delegation->label);
	delegation->label = mem_string(attr->class_);
	delegation->usable = !(attr->mode & MODE_SETGID);
}

void delegation_make(struct client *client, uint64_t directory, const Granary__Inode *attr)
{
	struct delegation *delegation = delegation_open(client, directory);
	delegation->making = delegation->complete = true;
	attr_learn(delegation, attr);
	delegation->counted = true;
	delegation_timer(delegation);
}

/* What was known counts only if the directory was ours all the time. */
static void given(struct client *client, uint64_t asked_ms, const Granary__Delegation *message)
{
	struct delegation *delegation = delegation_find(client, message->inode);
	uint64_t now = loop_now_ms(client->loop), until = asked_ms + message->lease_ms;
	if (message->lease_ms == 0 || until <= now || client->closing || (delegation && delegation->recalled))
		return;
	if (!delegation)
		delegation = delegation_open(client, message->inode);
	/* (One that we have made was.) */
	if (!delegation->making && (now >= delegation->until_ms || message->attr)) {
		names_drop(delegation);
		delegation_forget_attr(delegation);
		delegation->usable = false;
		delegation->since_ms = now;
	}
	if (!delegation->making && message->attr) {
		attr_learn(delegation, message->attr);
		delegation->counted = !delegation->creations && !changes_pending(client, delegation->directory);
		delegation->complete = delegation->counted && message->attr->entries == 0;
	}
	if (until > delegation->until_ms)
		delegation->until_ms = until;
	if (!timer_is_running(&delegation->timer))
		delegation_timer(delegation);
}

void delegations_given(struct client *client, uint64_t asked_ms, const Granary__MetaReply *reply)
{
	if (reply->ids_count > 0 && client->ids_left < reply->ids_count) {
		client->ids_next = reply->ids_first;
		client->ids_left = reply->ids_count;
	}
	for (size_t i = 0; i < reply->n_delegations; i++)
		given(client, asked_ms, reply->delegations[i]);
}

void delegation_made(struct client *client, uint64_t directory)
{
	struct delegation *delegation = delegation_find(client, directory);
	if (!delegation)
		return;
	delegation->making = false;
	timer_start(&delegation->timer, 0);
}

uint64_t delegations_next_id(struct client *client)
{
	if (client->ids_left == 0)
		return 0;
	client->ids_left--;
	return client->ids_next++;
}

struct giving_back {
	struct client *client;
	uint64_t directory;
	void (*done)(void *arg);
	void *arg;
};

static void given_back(void *arg)
{
	struct giving_back *back = arg;
	struct delegation *delegation = delegation_find(back->client, back->directory);
	const struct client_events *events = back->client->events;
	if (delegation && !delegation->creations)
		delegation_free(delegation);
	/* Its attributes, too, were given away for as long as it was ours. */
	if (events && events->invalidate)
		events->invalidate(back->client->events_arg, back->directory, (struct slice){ 0 }, back->done, back->arg);
	else
		back->done(back->arg);
	free(back);
}

void delegations_recall(struct client *client, uint64_t directory, void (*done)(void *arg), void *arg)
{
	struct delegation *delegation = delegation_find(client, directory);
	struct giving_back *back = mem_zero(1, sizeof *back);
	*back = (struct giving_back){ .client = client, .directory = directory, .done = done, .arg = arg };
	if (delegation)
		delegation->recalled = true;
#ifdef PLANT_CLIENT_RECALL_UNSENT
	given_back(back);
	return;
#endif
	if (!client_barrier(client, directory, given_back, back))
		given_back(back);
}

size_t delegations_kept(struct client *client, uint64_t *directories, size_t room)
{
	struct delegation *delegation, *next;
	size_t count = 0;
	HASH_ITER (hh, client->delegations, delegation, next) {
		if (delegation->creations && count < room)
			directories[count++] = delegation->directory;
	}
	return count;
}

void delegations_session_lost(struct client *client)
{
	struct delegation *delegation, *next;
	HASH_ITER (hh, client->delegations, delegation, next) {
		delegation->until_ms = 0;
		names_drop(delegation);
		delegation_forget_attr(delegation);
		if (!timer_is_running(&delegation->timer))
			timer_start(&delegation->timer, 0);
	}
	/* Of the next session they would be as good, but nothing is lost with them. */
	client->ids_left = 0;
}

void delegations_deinit(struct client *client)
{
	struct delegation *delegation, *next;
	HASH_ITER (hh, client->delegations, delegation, next)
		delegation_free(delegation);
}

/* ---- their attributes ---- */

uint32_t client_delegation_ms(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = delegation_running(client, directory);
	return delegation ? (uint32_t)(runs_until(delegation) - loop_now_ms(client->loop)) : 0;
}

bool client_is_delegated_since(struct client *client, uint64_t directory, uint64_t when_ms)
{
	const struct delegation *delegation = delegation_running(client, directory);
	return delegation && delegation->since_ms < when_ms;
}

const Granary__Inode *client_directory_attr(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = delegation_running(client, directory);
	return delegation ? delegation->attr : NULL;
}

uint64_t client_directory_epoch(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = delegation_running(client, directory);
	return delegation ? delegation->epoch : 0;
}

void client_directory_learn(struct client *client, uint64_t directory, uint64_t epoch, const Granary__Inode *attr)
{
	struct delegation *delegation = delegation_running(client, directory);
	if (delegation && delegation->epoch == epoch)
		attr_learn(delegation, attr);
}

int64_t client_directory_touched(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = delegation_find(client, directory);
	return delegation ? delegation->touched_ns : 0;
}

void delegation_changed(struct delegation *delegation, int names, int links, int64_t time_ns)
{
	delegation->touched_ns = time_ns;
	if (!delegation->attr)
		return;
	delegation->attr->entries += (uint64_t)names;
	delegation->attr->nlink += (uint32_t)links;
}

/* ---- what we make ourselves ---- */

void made_attr(const Granary__Create *create, int64_t time_ns, Granary__Inode *attr)
{
	granary__inode__init(attr);
	attr->mode = create->mode;
	attr->uid = create->uid;
	attr->gid = create->gid;
	attr->rdev = create->rdev;
	attr->nlink = 1;
	attr->atime = attr->mtime = attr->ctime = attr->btime = time_ns;
	attr->change = attr->data_change = 1; /* anything that the master says is newer */
	if (mode_is_directory(create->mode)) {
		attr->nlink = 2;
		attr->parent = create->parent;
		attr->size = DIRECTORY_BYTES;
	} else if (mode_is_symlink(create->mode)) {
		attr->layout = GRANARY__LAYOUT__LAYOUT_SYMLINK;
		attr->symlink = create->symlink;
		attr->size = create->symlink.len;
	}
}

static void nothing(void *arg)
{
	(void)arg;
}

void made_uncache(struct client *client, uint64_t inode, uint64_t directory, struct slice name)
{
	const struct client_events *events = client->events;
	if (!events || !events->invalidate)
		return;
	events->invalidate(client->events_arg, inode, (struct slice){ 0 }, nothing, NULL);
	events->invalidate(client->events_arg, directory, name, nothing, NULL);
}

/* ---- what our requests change ---- */

size_t delegations_touched(Granary__MetaOp *const *ops, size_t op_count, uint64_t *directories, size_t room)
{
	size_t count = 0;
	for (size_t i = 0; i < op_count; i++) {
		uint64_t touched[2] = { 0 };
		switch (ops[i]->op_case) {
		case GRANARY__META_OP__OP_CREATE:
			touched[0] = ops[i]->create->parent;
			break;
		case GRANARY__META_OP__OP_LINK:
			touched[0] = ops[i]->link->parent;
			break;
		case GRANARY__META_OP__OP_UNLINK:
			touched[0] = ops[i]->unlink->parent;
			break;
		case GRANARY__META_OP__OP_RENAME:
			touched[0] = ops[i]->rename->parent;
			touched[1] = ops[i]->rename->new_parent;
			break;
		case GRANARY__META_OP__OP_SETATTR:
			touched[0] = ops[i]->setattr->inode;
			break;
		case GRANARY__META_OP__OP_SET_XATTR:
			touched[0] = ops[i]->set_xattr->inode;
			break;
		case GRANARY__META_OP__OP_REMOVE_XATTR:
			touched[0] = ops[i]->remove_xattr->inode;
			break;
		default:
			break;
		}
		for (unsigned k = 0; k < 2 && count < room; k++)
			if (touched[k] != 0)
				directories[count++] = touched[k];
	}
	return count;
}

static void note_name(struct client *client, uint64_t directory, ProtobufCBinaryData name)
{
	struct delegation *delegation = delegation_find(client, directory);
	if (delegation)
		delegation_add_name(delegation, message_bytes(name));
}

void delegations_note(struct client *client, Granary__MetaOp *const *ops, size_t op_count)
{
	if (!client->delegations)
		return;
	for (size_t i = 0; i < op_count; i++) {
		const Granary__MetaOp *op = ops[i];
		struct delegation *delegation;
		if (op->op_case == GRANARY__META_OP__OP_CREATE) {
			note_name(client, op->create->parent, op->create->name);
		} else if (op->op_case == GRANARY__META_OP__OP_LINK) {
			note_name(client, op->link->parent, op->link->name);
		} else if (op->op_case == GRANARY__META_OP__OP_RENAME) {
			note_name(client, op->rename->parent, op->rename->name);
			note_name(client, op->rename->new_parent, op->rename->new_name);
		} else if (op->op_case == GRANARY__META_OP__OP_SETATTR) {
			delegation = delegation_find(client, op->setattr->inode);
			if (delegation) {
				delegation->usable = false;
				delegation->touched_ns = 0; /* the times may be set, after all that was made before */
			}
		}
	}
}

void delegations_note_done(struct client *client, const uint64_t *directories, size_t count)
{
	for (size_t i = 0; i < count && client->delegations; i++) {
		struct delegation *delegation = delegation_find(client, directories[i]);
		if (delegation)
			delegation_forget_attr(delegation);
	}
}

unsigned delegations_wanted(struct client *client, Granary__MetaOp *const *ops, size_t op_count)
{
	bool wanted = false, ids = client->ids_left < CLIENT_CREATIONS_MAX;
	if (client->undelegated || !client->events || !client->events->invalidate)
		return SESSION_WANTS_NOTHING;
	for (size_t i = 0; i < op_count; i++) {
		switch (ops[i]->op_case) {
		case GRANARY__META_OP__OP_CREATE:
		case GRANARY__META_OP__OP_LINK:
		case GRANARY__META_OP__OP_UNLINK:
		case GRANARY__META_OP__OP_RENAME:
			return SESSION_WANTS_DELEGATIONS | (ids ? SESSION_WANTS_IDS : 0u);
		case GRANARY__META_OP__OP_LOOKUP: /* who changes names here may change them there next, or remove it */
			wanted |= delegation_running(client, ops[i]->lookup->parent) != NULL;
			break;
		case GRANARY__META_OP__OP_READDIR:
			wanted |= client->delegations != NULL;
			break;
		default:
			break;
		}
	}
	return wanted ? SESSION_WANTS_DELEGATIONS : SESSION_WANTS_NOTHING;
}
