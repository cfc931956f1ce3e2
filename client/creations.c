#include "client/creations.h"

#include <stdlib.h>
#include <utlist.h>

#include "client/changes.h"
#include "client/delegations.h"
#include "client/file_io_internal.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/setattr.h"
#include "common/sys/log.h"

struct behind {
	struct behind *next;
	struct file_io *io;
	uint64_t directory; /* that the file was made in; nobody else sees it before */
	file_io_fn *done;
	void *arg;
};

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

void creations_send_open(struct delegation *delegation)
{
	struct creation *creation, *next;
	HASH_ITER (hh, delegation->creations, creation, next)
		if (!creation->sent && !creation->closed)
			flush_creation(creation->io, NULL, NULL);
}

/* ---- creations ---- */

struct file_io *file_io_create_local(struct client *client, const Granary__Create *create)
{
	struct delegation *delegation = delegation_usable(client, create->parent);
	struct creations *creations = &client->creations;
	struct slice name = message_bytes(create->name);
	if (!delegation || creations->starved || client->ids_left == 0 || creations->count >= CLIENT_CREATIONS_MAX ||
	    client->dirty_bytes > CLIENT_DIRTY_BYTES_MAX || client_find_local(client, create->parent, name))
		return NULL;
	struct creation *creation = mem_zero(1, sizeof *creation);
	creation->delegation = delegation;
	buf_set(&creation->name, name);
	creation->time_ns = (int64_t)loop_wall_ms(client->loop) * 1000000;
	Granary__Inode attr;
	made_attr(create, creation->time_ns, &attr);
	if (delegation->label)
		attr.class_ = delegation->label;
	creation->io = file_io_open(client, delegations_next_id(client), &attr);
	creations->count++;
	creation->io->creation = creation;
	file_io_hold(creation->io);
	HASH_ADD_KEYPTR(hh, delegation->creations, creation->name.bytes, creation->name.size, creation);
	delegation_add_name(delegation, name);
	delegation_changed(delegation, 1, 0, creation->time_ns);
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

uint32_t file_io_local_ms(const struct file_io *io)
{
	return io->creation ? client_delegation_ms(io->client, io->creation->delegation->directory) : 0;
}

struct file_io *client_find_local(struct client *client, uint64_t directory, struct slice name)
{
	struct delegation *delegation = delegation_find(client, directory);
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
	setattr_owner(io->attr, change);
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
	message->mode = creation->io->attr->mode;
	message->uid = creation->io->attr->uid;
	message->gid = creation->io->attr->gid;
	message->exclusive = true;
	message->id = creation->io->inode;
	message->time = creation->time_ns;
	message->ctime = creation->io->attr->ctime > creation->time_ns ? creation->io->attr->ctime : creation->time_ns;
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

void creation_done(struct creation *creation, const Granary__MetaResult *result)
{
	if (result->lease_ms == 0)
		made_uncache(creation->io->client, creation->io->inode, creation->delegation->directory, buf_slice(&creation->name));
	file_io_made(creation->io, result->attr);
	creation_free(creation);
}

void creation_failed(struct creation *creation, enum err err)
{
	if (err != ERR_CANCELLED)
		log_error("file_lost", "inode=%llu directory=%llu error=%s", (unsigned long long)creation->io->inode,
			  (unsigned long long)creation->delegation->directory, err_name(err));
	delegation_forget_attr(creation->delegation);
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

static void barrier_changes(void *arg)
{
	barrier_step(arg, OK);
}

/* Closed files that the master knows already, but not with all that was in them: a first close came before more was written, or
 * only the name was sent. Counts them, or (barrier) lets it wait for them. */
static size_t behind_known(struct client *client, uint64_t inode, struct barrier *barrier)
{
	struct behind *lists[] = { client->creations.behind, client->creations.behind_sent }, *behind;
	size_t count = 0;
	for (unsigned i = 0; i < 2; i++) {
		LL_FOREACH (lists[i], behind) {
			if (behind->io->creation || (inode != 0 && behind->directory != inode))
				continue;
			count++;
			if (barrier)
				file_io_flush(behind->io, barrier_step, barrier);
		}
	}
	return count;
}

bool client_barrier(struct client *client, uint64_t inode, void (*done)(void *arg), void *arg)
{
	struct delegation *delegation, *next;
	uint64_t change = changes_pending(client, inode);
	size_t count = (change ? 1 : 0) + behind_known(client, inode, NULL);
	HASH_ITER (hh, client->delegations, delegation, next)
		if (inode == 0 || delegation->directory == inode)
			count += HASH_COUNT(delegation->creations);
	if (count == 0)
		return false;
	struct barrier *barrier = mem_zero(1, sizeof *barrier);
	*barrier = (struct barrier){ .left = count, .done = done, .arg = arg };
	if (change)
		changes_wait(client, change, true, barrier_changes, barrier);
	HASH_ITER (hh, client->delegations, delegation, next)
		if (inode == 0 || delegation->directory == inode)
			send_all(delegation, barrier_step, barrier);
	behind_known(client, inode, barrier);
	return true;
}

/* ---- closed files ---- */

static void behind_pump(struct client *client);

/* It stays, and from now on programs are told when there is no room. */
static void behind_strand(struct client *client, struct behind *behind, enum err err)
{
	struct creations *creations = &client->creations;
	if (!creations->starved)
		log_error("file_not_stored_yet", "inode=%llu error=%s", (unsigned long long)behind->io->inode, err_name(err));
	creations->starved = true;
	LL_APPEND(creations->stranded, behind);
	if (!timer_is_running(&creations->retry))
		timer_start(&creations->retry, CLIENT_STRANDED_RETRY_MS);
}

/* One tells for all whether there is room again. */
void creations_retry(void *arg)
{
	struct client *client = arg;
	struct behind *behind = client->creations.stranded;
	if (!behind)
		return;
	LL_DELETE(client->creations.stranded, behind);
	LL_PREPEND(client->creations.behind, behind);
	behind_pump(client);
}

static void stranded_go_on(struct creations *creations, enum err err)
{
	if (err) { /* one of them can never be stored; the next one? */
		creations->starved = creations->stranded;
		if (creations->starved && !timer_is_running(&creations->retry))
			timer_start(&creations->retry, CLIENT_STRANDED_RETRY_MS);
		return;
	}
	creations->starved = false;
	LL_CONCAT(creations->behind, creations->stranded);
	creations->stranded = NULL;
	timer_stop(&creations->retry);
}

static void behind_done(void *arg, enum err err)
{
	struct behind *behind = arg;
	struct file_io *io = behind->io;
	struct client *client = io->client;
	LL_DELETE(client->creations.behind_sent, behind);
	client->creations.behind_running--;
	if (err && io->stranded && !client->closing) {
		behind_strand(client, behind, err);
		behind_pump(client);
		return;
	}
	if (client->creations.starved)
		stranded_go_on(&client->creations, err);
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
		LL_PREPEND(creations->behind_sent, behind);
		creations->behind_running++;
		file_io_flush_unhurried(behind->io, behind_done, behind);
	}
}

void file_io_flush_behind(struct file_io *io, file_io_fn *done, void *arg)
{
	struct client *client = io->client;
	struct behind *behind = mem_zero(1, sizeof *behind);
	*behind = (struct behind){ .io = io, .done = done, .arg = arg };
	if (io->creation) {
		io->creation->closed = true;
		behind->directory = io->creation->delegation->directory;
		io->promised = io->small;
	}
	file_io_hold(io);
	if (io->stranded) {
		LL_APPEND(client->creations.stranded, behind);
		return;
	}
	LL_APPEND(client->creations.behind, behind);
	behind_pump(client);
}

bool file_io_is_stranded(const struct file_io *io)
{
	return io->stranded;
}

bool file_io_may_be_behind(struct file_io *io)
{
	struct client *client = io->client;
	return io->creation && !io->queue && !client->creations.starved && client->creations.count <= CLIENT_CREATIONS_MAX / 2 &&
	       delegation_running(client, io->creation->delegation->directory);
}

/* Nothing is under way any more. */
void creations_deinit(struct client *client)
{
	struct creations *creations = &client->creations;
	timer_stop(&creations->retry);
	LL_CONCAT(creations->behind, creations->stranded);
	creations->stranded = NULL;
	while (creations->behind) {
		struct behind *behind = creations->behind;
		struct file_io *io = behind->io;
		if (io->stranded) { /* (it may be there twice) */
			log_error("file_lost", "inode=%llu error=closing", (unsigned long long)io->inode);
			file_io_drop_small(io);
		}
		LL_DELETE(creations->behind, behind);
		if (behind->done)
			behind->done(behind->arg, ERR_CANCELLED);
		free(behind); /* with its hold: the file is abandoned next */
		check(io->holds > 0);
	}
	struct delegation *delegation, *next;
	HASH_ITER (hh, client->delegations, delegation, next) {
		while (delegation->creations) {
			file_io_hold(delegation->creations->io); /* likewise */
			log_error("file_lost", "inode=%llu error=closing", (unsigned long long)delegation->creations->io->inode);
			creation_failed(delegation->creations, ERR_CANCELLED);
		}
	}
}
