#include "client/creations.h"

#include <stdlib.h>
#include <utlist.h>

#include "client/file_io_internal.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "common/proto/setattr.h"
#include "common/sys/log.h"

#define NAMES_MIN 64u
#define EXPIRY_LOOK_MS 50u

struct delegation {
	struct client *client;
	uint64_t directory;
	uint64_t until_ms;
	bool recalled;
	bool complete;		/* `names` are all there are */
	uint64_t *names;	/* hashes, open addressing */
	size_t names_count, names_size;
	Granary__Inode *attr;	/* of the directory, but for what was made here; or NULL */
	bool usable;		/* its mode is known to let us choose the group of new files */
	uint64_t epoch;		/* of what is known of it */
	int64_t touched_ns;
	struct creation *creations;
	struct timer timer;
	UT_hash_handle hh;
};

struct behind {
	struct behind *next;
	struct file_io *io;
	file_io_fn *done;
	void *arg;
};

static struct delegation *find(struct client *client, uint64_t directory)
{
	struct delegation *delegation;
	HASH_FIND(hh, client->creations.delegations, &directory, sizeof directory, delegation);
	return delegation;
}

static bool is_running(const struct delegation *delegation)
{
	return !delegation->recalled && loop_now_ms(delegation->client->loop) < delegation->until_ms;
}

/* The delegation that may be relied upon now. */
static struct delegation *running(struct client *client, uint64_t directory)
{
	struct delegation *delegation = find(client, directory);
	return delegation && is_running(delegation) ? delegation : NULL;
}

static void attr_drop(struct delegation *delegation)
{
	if (delegation->attr)
		message_free(&delegation->attr->base);
	delegation->attr = NULL;
	delegation->epoch++;
}

/* ---- names of a directory that we made ---- */

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

static void name_add(struct delegation *delegation, struct slice name)
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
	struct delegation *delegation = running(client, directory);
	if (!delegation || !delegation->complete)
		return false;
	return delegation->names_size == 0 || *name_place(delegation, name_hash(name)) == 0;
}

/* ---- delegations ---- */

static void delegation_free(struct delegation *delegation)
{
	check(!delegation->creations);
	HASH_DEL(delegation->client->creations.delegations, delegation);
	timer_stop(&delegation->timer);
	names_drop(delegation);
	attr_drop(delegation);
	free(delegation);
}

static void send_all(struct delegation *delegation, file_io_fn *done, void *arg)
{
	struct creation *creation, *next;
	HASH_ITER (hh, delegation->creations, creation, next) {
		if (creation->closed)
			file_io_flush(creation->io, done, arg);
		else
			flush_creation(creation->io, done, arg);
	}
}

/* Shortly before its end: what was made under it is sent, which also renews it. */
static void delegation_timer(void *arg)
{
	struct delegation *delegation = arg;
	uint64_t now = loop_now_ms(delegation->client->loop);
	if (now + CLIENT_DELEGATION_MARGIN_MS < delegation->until_ms) {
		timer_start(&delegation->timer, delegation->until_ms - CLIENT_DELEGATION_MARGIN_MS - now);
		return;
	}
	struct creation *creation, *next;
	HASH_ITER (hh, delegation->creations, creation, next)
		if (!creation->sent && !creation->closed)
			flush_creation(creation->io, NULL, NULL);
	if (now >= delegation->until_ms && !delegation->creations && !delegation->recalled)
		delegation_free(delegation);
	else
		timer_start(&delegation->timer, EXPIRY_LOOK_MS);
}

static void directory_learn(struct delegation *delegation, const Granary__Inode *attr)
{
	attr_drop(delegation);
	delegation->attr = (Granary__Inode *)message_copy(&attr->base);
	delegation->usable = !(attr->mode & MODE_SETGID);
}

void creations_granted(struct client *client, uint64_t directory, bool made, uint64_t asked_ms, const Granary__MetaResult *result)
{
	struct delegation *delegation = find(client, directory);
	uint64_t now = loop_now_ms(client->loop);
	if (result->ids_count > 0 && client->creations.ids_left < result->ids_count) {
		client->creations.ids_next = result->ids_first;
		client->creations.ids_left = result->ids_count;
	}
	uint64_t until = asked_ms + result->delegation_ms;
	if (result->delegation_ms == 0 || until <= now || client->closing)
		return;
	if (!delegation) {
		delegation = mem_zero(1, sizeof *delegation);
		delegation->client = client;
		delegation->directory = directory;
		timer_init(&delegation->timer, client->loop, delegation_timer, delegation);
		HASH_ADD(hh, client->creations.delegations, directory, sizeof delegation->directory, delegation);
	} else if (delegation->recalled) {
		return;
	}
	/* What was known counts only if it was ours all the time. */
	if (now >= delegation->until_ms || result->directory) {
		names_drop(delegation);
		attr_drop(delegation);
		delegation->usable = false;
	}
	if (result->directory) {
		directory_learn(delegation, result->directory);
		delegation->complete = made;
	}
	if (until > delegation->until_ms)
		delegation->until_ms = until;
	if (!timer_is_running(&delegation->timer))
		delegation_timer(delegation);
}

void client_want_delegation(struct client *client, Granary__Create *create)
{
	create->want_delegation = true;
	create->want_ids = client->creations.ids_left < CLIENT_CREATIONS_MAX;
}

uint32_t client_delegation_ms(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = running(client, directory);
	return delegation ? (uint32_t)(delegation->until_ms - loop_now_ms(client->loop)) : 0;
}

const Granary__Inode *client_directory_attr(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = running(client, directory);
	return delegation ? delegation->attr : NULL;
}

uint64_t client_directory_epoch(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = running(client, directory);
	return delegation ? delegation->epoch : 0;
}

void client_directory_learn(struct client *client, uint64_t directory, uint64_t epoch, const Granary__Inode *attr)
{
	struct delegation *delegation = running(client, directory);
	if (delegation && delegation->epoch == epoch)
		directory_learn(delegation, attr);
}

int64_t client_directory_touched(struct client *client, uint64_t directory)
{
	const struct delegation *delegation = find(client, directory);
	return delegation ? delegation->touched_ns : 0;
}

/* ---- what our other operations change ---- */

size_t creations_touched(Granary__MetaOp *const *ops, size_t op_count, uint64_t *directories, size_t room)
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
	struct delegation *delegation = find(client, directory);
	if (delegation)
		name_add(delegation, message_bytes(name));
}

void creations_note(struct client *client, Granary__MetaOp *const *ops, size_t op_count)
{
	if (!client->creations.delegations)
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
			delegation = find(client, op->setattr->inode);
			if (delegation) {
				delegation->usable = false;
				delegation->touched_ns = 0; /* the times may be set, after all that was made before */
			}
		}
	}
}

void creations_note_done(struct client *client, const uint64_t *directories, size_t count)
{
	for (size_t i = 0; i < count && client->creations.delegations; i++) {
		struct delegation *delegation = find(client, directories[i]);
		if (delegation)
			attr_drop(delegation);
	}
}

/* ---- creations ---- */

struct file_io *file_io_create_local(struct client *client, const Granary__Create *create)
{
	struct delegation *delegation = running(client, create->parent);
	struct creations *creations = &client->creations;
	struct slice name = message_bytes(create->name);
	uint64_t now = loop_now_ms(client->loop);
	if (!delegation || !delegation->usable || now + CLIENT_DELEGATION_MARGIN_MS >= delegation->until_ms ||
	    creations->ids_left == 0 || creations->count >= CLIENT_CREATIONS_MAX ||
	    client->dirty_bytes > CLIENT_DIRTY_BYTES_MAX || client_find_local(client, create->parent, name))
		return NULL;
	struct creation *creation = mem_zero(1, sizeof *creation);
	creation->delegation = delegation;
	buf_set(&creation->name, name);
	creation->mode = create->mode;
	creation->uid = create->uid;
	creation->gid = create->gid;
	creation->time_ns = (int64_t)loop_wall_ms(client->loop) * 1000000;
	Granary__Inode attr = GRANARY__INODE__INIT;
	attr.mode = create->mode;
	attr.uid = create->uid;
	attr.gid = create->gid;
	attr.nlink = 1;
	attr.atime = attr.mtime = attr.ctime = attr.btime = creation->time_ns;
	attr.change = attr.data_change = 1; /* anything that the master says is newer */
	creation->io = file_io_open(client, creations->ids_next++, &attr);
	creations->ids_left--;
	creations->count++;
	creation->io->creation = creation;
	file_io_hold(creation->io);
	HASH_ADD_KEYPTR(hh, delegation->creations, creation->name.bytes, creation->name.size, creation);
	name_add(delegation, name);
	delegation->touched_ns = creation->time_ns;
	return creation->io;
}

bool file_io_is_local(const struct file_io *io)
{
	return io->creation != NULL;
}

uint64_t file_io_inode(const struct file_io *io)
{
	return io->inode;
}

struct file_io *client_find_local(struct client *client, uint64_t directory, struct slice name)
{
	struct delegation *delegation = find(client, directory);
	struct creation *creation = NULL;
	if (delegation)
		HASH_FIND(hh, delegation->creations, name.bytes, name.size, creation);
	return creation ? creation->io : NULL;
}

bool file_io_setattr_local(struct file_io *io, const Granary__Setattr *change)
{
	struct creation *creation = io->creation;
	int64_t now = (int64_t)loop_wall_ms(io->client->loop) * 1000000;
	if (!creation || creation->sent || (change->mask & SETATTR_SIZE))
		return false;
	if (change->mask & SETATTR_MODE)
		creation->mode = (creation->mode & ~MODE_PERMISSIONS) | (change->mode & MODE_PERMISSIONS);
	if (change->mask & SETATTR_UID)
		creation->uid = change->uid;
	if (change->mask & SETATTR_GID)
		creation->gid = change->gid;
	io->attr->mode = creation->mode;
	io->attr->uid = creation->uid;
	io->attr->gid = creation->gid;
	int64_t atime = change->mask & SETATTR_ATIME_NOW ? now : change->mask & SETATTR_ATIME ? change->atime : 0;
	int64_t mtime = change->mask & SETATTR_MTIME_NOW ? now : change->mask & SETATTR_MTIME ? change->mtime : 0;
	file_io_set_times(io, atime, mtime);
	/* The kernel's own flush of times says when it was. */
	int64_t ctime = change->mask & SETATTR_CTIME ? change->ctime : now;
	if (io->attr->ctime < ctime)
		io->attr->ctime = ctime;
	return true;
}

void creation_message(const struct creation *creation, Granary__Create *message)
{
	message->parent = creation->delegation->directory;
	message->name = message_borrow(buf_slice(&creation->name));
	message->mode = creation->mode;
	message->uid = creation->uid;
	message->gid = creation->gid;
	message->exclusive = true;
	message->id = creation->io->inode;
	message->time = creation->time_ns;
	message->ctime = creation->io->attr->ctime > creation->time_ns ? creation->io->attr->ctime : creation->time_ns;
	client_want_delegation(creation->io->client, message);
}

static void creation_free(struct creation *creation)
{
	struct file_io *io = creation->io;
	HASH_DEL(creation->delegation->creations, creation);
	io->client->creations.count--;
	io->creation = NULL;
	buf_deinit(&creation->name);
	free(creation);
	file_io_release(io);
}

static void nothing(void *arg)
{
	(void)arg;
}

void creation_done(struct creation *creation, uint64_t asked_ms, const Granary__MetaResult *result)
{
	struct client *client = creation->io->client;
	uint64_t directory = creation->delegation->directory, inode = creation->io->inode;
	creations_granted(client, directory, false, asked_ms, result);
	/* The kernel may have been told that it may cache both until the delegation's end. */
	if (result->lease_ms == 0 && client->events && client->events->invalidate) {
		client->events->invalidate(client->events_arg, inode, (struct slice){ 0 }, nothing, NULL);
		client->events->invalidate(client->events_arg, directory, buf_slice(&creation->name), nothing, NULL);
	}
	creation_free(creation);
}

void creation_failed(struct creation *creation, enum err err)
{
	if (err != ERR_CANCELLED)
		log_error("file_lost", "inode=%llu directory=%llu error=%s", (unsigned long long)creation->io->inode,
			  (unsigned long long)creation->delegation->directory, err_name(err));
	creation->io->gone = true;
	creation_free(creation);
}

/* ---- barriers, recalls ---- */

struct barrier {
	size_t left;
	void (*done)(void *arg);
	void *arg;
};

static void barrier_step(void *arg, enum err err)
{
	struct barrier *barrier = arg;
	(void)err; /* of a file: logged */
	if (--barrier->left > 0)
		return;
	barrier->done(barrier->arg);
	free(barrier);
}

bool client_barrier(struct client *client, uint64_t directory, void (*done)(void *arg), void *arg)
{
	struct delegation *delegation, *next;
	size_t count = 0;
	HASH_ITER (hh, client->creations.delegations, delegation, next)
		if (directory == 0 || delegation->directory == directory)
			count += HASH_COUNT(delegation->creations);
	if (count == 0)
		return false;
	struct barrier *barrier = mem_zero(1, sizeof *barrier);
	*barrier = (struct barrier){ .left = count, .done = done, .arg = arg };
	HASH_ITER (hh, client->creations.delegations, delegation, next)
		if (directory == 0 || delegation->directory == directory)
			send_all(delegation, barrier_step, barrier);
	return true;
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
	struct delegation *delegation = find(back->client, back->directory);
	if (delegation && !delegation->creations)
		delegation_free(delegation);
	back->done(back->arg);
	free(back);
}

void creations_recall(struct client *client, uint64_t directory, void (*done)(void *arg), void *arg)
{
	struct delegation *delegation = find(client, directory);
	struct giving_back *back = mem_zero(1, sizeof *back);
	*back = (struct giving_back){ .client = client, .directory = directory, .done = done, .arg = arg };
	if (delegation)
		delegation->recalled = true;
	if (!client_barrier(client, directory, given_back, back))
		given_back(back);
}

void creations_session_lost(struct client *client)
{
	struct delegation *delegation, *next;
	HASH_ITER (hh, client->creations.delegations, delegation, next) {
		delegation->until_ms = 0;
		names_drop(delegation);
		attr_drop(delegation);
		if (!timer_is_running(&delegation->timer))
			timer_start(&delegation->timer, 0);
	}
	/* Of the next session they would be as good, but nothing is lost with them. */
	client->creations.ids_left = 0;
}

/* ---- closed files ---- */

static void behind_pump(struct client *client);

static void behind_done(void *arg, enum err err)
{
	struct behind *behind = arg;
	struct file_io *io = behind->io;
	struct client *client = io->client;
	client->creations.behind_running--;
	if (behind->done)
		behind->done(behind->arg, err);
	free(behind);
	if (client->closing) /* what is held is abandoned */
		return;
	file_io_release(io);
	behind_pump(client);
}

static void behind_pump(struct client *client)
{
	struct creations *creations = &client->creations;
	while (creations->behind && creations->behind_running < CLIENT_BEHIND_MAX) {
		struct behind *behind = creations->behind;
		LL_DELETE(creations->behind, behind);
		creations->behind_running++;
		file_io_flush(behind->io, behind_done, behind);
	}
}

void file_io_flush_behind(struct file_io *io, file_io_fn *done, void *arg)
{
	struct client *client = io->client;
	struct behind *behind = mem_zero(1, sizeof *behind);
	if (io->creation)
		io->creation->closed = true;
	*behind = (struct behind){ .io = io, .done = done, .arg = arg };
	file_io_hold(io);
	LL_APPEND(client->creations.behind, behind);
	behind_pump(client);
}

bool client_is_behind(const struct client *client)
{
	return client->creations.count > CLIENT_CREATIONS_MAX / 2;
}

/* Nothing is under way any more. */
void creations_deinit(struct client *client)
{
	struct creations *creations = &client->creations;
	while (creations->behind) {
		struct behind *behind = creations->behind;
		struct file_io *io = behind->io;
		LL_DELETE(creations->behind, behind);
		if (behind->done)
			behind->done(behind->arg, ERR_CANCELLED);
		free(behind); /* with its hold: the file is abandoned next */
		check(io->holds > 0);
	}
	struct delegation *delegation, *next;
	HASH_ITER (hh, creations->delegations, delegation, next) {
		while (delegation->creations) {
			file_io_hold(delegation->creations->io); /* likewise */
			log_error("file_lost", "inode=%llu error=closing", (unsigned long long)delegation->creations->io->inode);
			creation_failed(delegation->creations, ERR_CANCELLED);
		}
		delegation_free(delegation);
	}
}
