#include "fuse/ahead.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "fuse/request.h"

#define PATIENCE_MIN 8u
#define PATIENCE_MAX 1024u

struct ahead_directory {
	uint64_t inode;
	unsigned asked, patience;  /* lookups that went to the master, and how many it takes */
	uint64_t asked_ms;	   /* the last of them */
	unsigned hits;		   /* of the last batch */
	bool running;
	bool whole;		   /* the last batch had all names, or is to have them */
	const Granary__MetaReply *batch; /* names in byte order; or NULL */
	uint64_t epoch, started_ms;
	struct ahead_directory *prev, *next;
	UT_hash_handle hh;
};

static void batch_drop(struct ahead_directory *directory)
{
	if (directory->batch)
		message_unref(&directory->batch->base);
	directory->batch = NULL;
}

static void directory_free(struct ahead *ahead, struct ahead_directory *directory)
{
	HASH_DEL(ahead->table, directory);
	DL_DELETE(ahead->order, directory);
	batch_drop(directory);
	free(directory);
}

void ahead_deinit(struct ahead *ahead)
{
	while (ahead->order)
		directory_free(ahead, ahead->order);
}

static struct ahead_directory *directory_find(const struct ahead *ahead, uint64_t inode)
{
	struct ahead_directory *directory;

	HASH_FIND(hh, ahead->table, &inode, sizeof inode, directory);
	return directory;
}

static struct ahead_directory *directory_use(struct ahead *ahead, uint64_t inode)
{
	struct ahead_directory *directory = directory_find(ahead, inode);

	if (directory) {
		DL_DELETE(ahead->order, directory);
		DL_APPEND(ahead->order, directory);
		return directory;
	}
	if (HASH_COUNT(ahead->table) == AHEAD_DIRECTORIES_MAX)
		directory_free(ahead, ahead->order);
	directory = mem_zero(1, sizeof *directory);
	directory->inode = inode;
	directory->patience = PATIENCE_MIN;
	directory->whole = true;
	HASH_ADD(hh, ahead->table, inode, sizeof directory->inode, directory);
	DL_APPEND(ahead->order, directory);
	return directory;
}

/* ---- asking */

static void fetched(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	struct mount *mount = request->mount;
	struct ahead_directory *directory = directory_find(&mount->ahead, request->node->inode);
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);

	if (directory) {
		directory->running = false;
		directory->whole = directory->whole && result && result->end;
		directory->hits = 0;
		batch_drop(directory);
	}
	if (directory && result && request->offset == mount->epoch) {
		message_ref(&reply->base);
		directory->batch = reply;
		directory->epoch = mount->epoch;
		directory->started_ms = request->started_ms;
	}
	request_close(request);
}

/* All names; in a directory that has too many for that, those from the last one on, which serves who goes by order. */
static void fetch(struct ahead_directory *directory, const struct request *cause)
{
	struct request *request = request_open_silent(cause->mount, cause->node);
	Granary__Readdir readdir = GRANARY__READDIR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	readdir.inode = directory->inode;
	if (!directory->whole)
		readdir.after = message_borrow(slice_text(cause->name));
	readdir.count = READDIR_ENTRIES_MAX;
	readdir.attributes = true;
	op.op_case = GRANARY__META_OP__OP_READDIR;
	op.readdir = &readdir;
	request->offset = request->mount->epoch;
	directory->running = true;
	request_meta(request, &op, fetched);
}

static void missed(struct ahead_directory *directory, const struct request *request)
{
	uint64_t now_ms = loop_now_ms(request->mount->loop);

	if (client_is_changing(request->mount->client, directory->inode)) /* it would be out of date at once */
		return;
	if (now_ms - directory->asked_ms > CACHE_LEASE_MS)
		directory->asked = 0;
	directory->asked_ms = now_ms;
	if (directory->running || ++directory->asked < directory->patience)
		return;
	if (directory->hits > directory->patience)
		directory->patience = PATIENCE_MIN;
	else if (directory->patience < PATIENCE_MAX)
		directory->patience *= 2;
	directory->asked = 0;
	fetch(directory, request);
}

/* ---- answering */

static const Granary__DirectoryEntry *entry_find(const Granary__MetaResult *result, struct slice name)
{
	size_t low = 0, high = result->n_entries;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = slice_compare(message_bytes(result->entries[middle]->name), name);

		if (order == 0)
			return result->entries[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static const Granary__DirectoryEntry *batch_find(const struct mount *mount, const struct ahead_directory *directory, const char *name)
{
	const Granary__DirectoryEntry *entry;

	if (!directory->batch || directory->epoch != mount->epoch)
		return NULL;
	entry = entry_find(directory->batch->results[0], slice_text(name));
	if (!entry || !entry->attr || loop_now_ms(mount->loop) >= directory->started_ms + entry->lease_ms)
		return NULL;
	return entry;
}

const Granary__DirectoryEntry *ahead_find(const struct request *request, uint64_t *started_ms)
{
	struct mount *mount = request->mount;
	struct ahead_directory *directory = directory_use(&mount->ahead, request->node->inode);
	const Granary__DirectoryEntry *entry = batch_find(mount, directory, request->name);

	if (!entry) {
		missed(directory, request);
		return NULL;
	}
	directory->hits++;
	*started_ms = directory->started_ms;
	return entry;
}

const Granary__DirectoryEntry *ahead_known(const struct mount *mount, const struct node *node, uint64_t *started_ms)
{
	const struct node_name *name;

	for (name = node->names; name; name = name->next) {
		const struct node *parent = handles_find(&mount->handles, name->parent);
		const struct ahead_directory *directory = parent ? directory_find(&mount->ahead, parent->inode) : NULL;
		const Granary__DirectoryEntry *entry = directory ? batch_find(mount, directory, name->text) : NULL;

		if (!entry || entry->inode != node->inode)
			continue;
		*started_ms = directory->started_ms;
		return entry;
	}
	return NULL;
}
