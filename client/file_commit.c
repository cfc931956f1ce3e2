#include "client/file_commit.h"

#include <stdlib.h>
#include <utlist.h>

#include "client/changes.h"
#include "client/creations.h"
#include "client/delegations.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/setattr.h"

/* What was done of the request is recognised by the inode number. */
bool file_commit_again(struct file_io *io, enum err err)
{
	if (!io->creation || io->client->closing || !client_err_may_pass(err))
		return false;
	return io->creation->closed || ++io->creation->tries < CLIENT_CREATION_TRIES_MAX;
}

/* ---- what is said of one file ---- */

/* The operations of a commit, where they stay until they are packed. */
struct commit {
	Granary__MetaOp op[3], *ops[3];
	unsigned count;
	Granary__Create create;
	Granary__CommitBlob blob;
	Granary__CommitChunks chunks;
	Granary__Setattr times;
	Granary__Open open;
};

static Granary__MetaOp *commit_add(struct commit *commit, Granary__MetaOp__OpCase op_case)
{
	Granary__MetaOp *op = &commit->op[commit->count];
	granary__meta_op__init(op);
	op->op_case = op_case;
	commit->ops[commit->count++] = op;
	return op;
}

static void commit_create(struct file_io *io, struct commit *commit)
{
	granary__create__init(&commit->create);
	creation_message(io->creation, &commit->create);
	io->creation->sent = true;
	commit_add(commit, GRANARY__META_OP__OP_CREATE)->create = &commit->create;
}

/* While a program has it open it must not go when another client unlinks it. */
static void commit_open(struct file_io *io, struct commit *commit)
{
	if (!session_has_open(io->client->session, io->inode))
		return;
	granary__open__init(&commit->open);
	commit->open.inode = io->inode;
	commit_add(commit, GRANARY__META_OP__OP_OPEN)->open = &commit->open;
}

static void commit_data(struct file_io *io, struct commit *commit)
{
	io->commit_main = commit->count;
	if (io->flush_small) {
		Granary__CommitBlob *blob = &commit->blob;
		granary__commit_blob__init(blob);
		blob->inode = io->inode;
		blob->pack = io->blob_pack;
		blob->slot = io->blob_slot;
		blob->bytes = io->flush_small->size;
		blob->mtime = io->attr->mtime;
		blob->atime = io->atime;
		blob->data_change = io->stranded ? io->own_change : 0; /* others could have changed the file meanwhile */
		commit_add(commit, GRANARY__META_OP__OP_COMMIT_BLOB)->commit_blob = blob;
		io->size_changed = io->small != io->flush_small;
		io->blob_unsynced = !io->flush_sync;
	} else if (file_io_in_chunks(io)) {
		Granary__CommitChunks *chunks = &commit->chunks;
		granary__commit_chunks__init(chunks);
		chunks->inode = io->inode;
		chunks->size = io->flush_size;
		chunks->mtime = io->attr->mtime;
		chunks->atime = io->atime;
		chunks->blocks = io->blocks;
		chunks->n_written = chunk_map_written_send(&io->map, &chunks->written);
		commit_add(commit, GRANARY__META_OP__OP_COMMIT_CHUNKS)->commit_chunks = chunks;
		io->size_changed = io->attr->size != io->flush_size;
		io->map.allocated = io->map.found = false;
	} else if (io->times_changed) { /* nothing but the times */
		Granary__Setattr *times = &commit->times;
		granary__setattr__init(times);
		times->inode = io->inode;
		times->mask = SETATTR_MTIME | (io->atime ? SETATTR_ATIME : 0u);
		times->mtime = io->attr->mtime;
		times->atime = io->atime;
		commit_add(commit, GRANARY__META_OP__OP_SETATTR)->setattr = times;
	} else {
		io->commit_main = 0;
	}
	io->commit_atime = io->atime;
	io->times_changed = false;
	io->atime = 0;
	io->blocks = 0;
}

/* The operations of one file, where they stay until they are packed. */
static void commit_fill(struct file_io *io, struct commit *commit)
{
	bool again = io->creation && io->creation->sent;
	if (again && !io->flush_small && !io->flush_alone) /* the same as before */
		io->times_changed = true;
	if (again && io->atime == 0)
		io->atime = io->commit_atime;
	if (io->creation)
		commit_create(io, commit);
	io->commit_main = 0;
	io->map.written_sent = 0; /* of a commit that failed */
	if (!io->flush_alone)
		commit_data(io, commit);
	if (io->creation)
		commit_open(io, commit);
	io->commit_count = commit->count;
}

static enum err result_err(const Granary__MetaResult *result)
{
	return result->error ? err_from_wire(result->error) : OK;
}

/* results: of this file's operations; NULL with an error of the request. */
static void commit_end(struct file_io *io, enum err err, Granary__MetaResult *const *results)
{
	if (err == OK && io->creation) {
		err = result_err(results[0]);
		if (err == OK)
			creation_done(io->creation, results[0]);
	}
	if (err == OK)
		err = result_err(results[io->commit_main]);
	if (file_commit_again(io, err))
		file_commit(io);
	else
		flush_committed(io, err, results ? results[io->commit_main] : NULL);
	file_io_release(io);
}

/* ---- requests ---- */

struct commit_request {
	struct client *client;
	uint64_t sent_ms;
	struct file_io *files[CLIENT_COMMITS_PER_REQUEST_MAX]; /* held */
	unsigned file_count;
	bool gathered;
};

static void commits_post(struct client *client)
{
	timer_stop(&client->commits.gather);
	defer_post(&client->commits.send);
}

static void request_answered(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct commit_request *request = arg;
	struct client *client = request->client;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	size_t wanted = 0, at = 0;
	(void)text;
	for (unsigned i = 0; i < request->file_count; i++)
		wanted += request->files[i]->commit_count;
	if (err == OK && reply->n_results != wanted)
		err = ERR_PROTOCOL;
	if (err == OK)
		delegations_given(client, request->sent_ms, reply);
	client->commits.running -= request->gathered;
	for (unsigned i = 0; i < request->file_count; i++) {
		struct file_io *io = request->files[i];
		unsigned count = io->commit_count;
		commit_end(io, err, err == OK ? reply->results + at : NULL);
		at += count;
	}
	free(request);
	if (client->commits.waiting)
		commits_post(client);
}

static void request_send(struct commit_request *request)
{
	struct client *client = request->client;
	struct commit *commits = mem_zero(request->file_count, sizeof *commits);
	Granary__MetaOp *ops[3 * CLIENT_COMMITS_PER_REQUEST_MAX];
	size_t count = 0;
	for (unsigned i = 0; i < request->file_count; i++) {
		commit_fill(request->files[i], &commits[i]);
		for (unsigned k = 0; k < commits[i].count; k++)
			ops[count++] = commits[i].ops[k];
	}
	request->sent_ms = loop_now_ms(client->loop);
	unsigned wants = request->gathered ? delegations_wanted(client, ops, count) | SESSION_SENDS_DONE : SESSION_WANTS_NOTHING;
	session_meta(client->session, ops, count, wants, request_answered, request);
	free(commits);
}

void file_commits_deferred(void *arg)
{
	struct client *client = arg;
	struct commits *commits = &client->commits;
	while (commits->waiting && commits->running < CLIENT_COMMITS_MAX) {
		struct commit_request *request = mem_zero(1, sizeof *request);
		request->client = client;
		request->gathered = true;
		while (commits->waiting && request->file_count < CLIENT_COMMITS_PER_REQUEST_MAX) {
			struct file_io *io = commits->waiting;
			LL_DELETE2(commits->waiting, io, commit_next);
			commits->waiting_count--;
			request->files[request->file_count++] = io;
		}
		commits->running++;
		request_send(request);
	}
}

void file_commits_cancel(struct client *client)
{
	defer_cancel(&client->commits.send);
	timer_stop(&client->commits.gather);
	while (client->commits.waiting) {
		struct file_io *io = client->commits.waiting;
		LL_DELETE2(client->commits.waiting, io, commit_next);
		flush_committed(io, ERR_CANCELLED, NULL);
		file_io_release(io);
	}
}

static void commit_go_on(void *arg)
{
	struct file_io *io = arg;
	file_commit(io);
	file_io_release(io);
}

/* The directory, or the end of what had this name before, is on its way to the master. */
static bool commit_waits(struct file_io *io)
{
	uint64_t change = changes_pending_name(io->client, io->creation->delegation->directory, buf_slice(&io->creation->name));
	if (change == 0)
		return false;
	file_io_hold(io);
	changes_wait(io->client, change, io->commit_hurried, commit_go_on, io);
	return true;
}

static void commit_gather(struct file_io *io)
{
	struct commits *commits = &io->client->commits;
	LL_APPEND2(commits->waiting, io, commit_next);
	commits->waiting_count++;
	if (io->commit_hurried || commits->waiting_count >= CLIENT_COMMITS_PER_REQUEST_MAX)
		commits_post(io->client);
	else if (!timer_is_running(&commits->gather))
		timer_start(&commits->gather, CLIENT_GATHER_MS);
}

void file_commit_hurry(struct file_io *io)
{
	io->commit_hurried = true;
	if (io->client->commits.waiting)
		commits_post(io->client);
	changes_hurry(io->client);
}

void file_commit(struct file_io *io)
{
	struct client *client = io->client;
	/* What is to be committed was written in a session that has expired. */
	if (!io->creation && io->error == ERR_NO_SESSION) {
		flush_committed(io, ERR_NO_SESSION, NULL);
		return;
	}
	io->flush_state = FLUSH_COMMIT;
	timer_stop(&io->mtime_timer);
	if (io->creation && !client->closing && commit_waits(io))
		return;
	file_io_hold(io);
	if (io->creation && !client->closing) {
		commit_gather(io);
		return;
	}
	struct commit_request *request = mem_zero(1, sizeof *request);
	request->client = client;
	request->files[request->file_count++] = io;
	request_send(request);
}
