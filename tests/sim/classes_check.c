#include "tests/sim/classes_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/snowflake.h"
#include "common/proto/mode.h"
#include "common/proto/storage_class.h"
#include "master/meta/check.h"

#define SECOND_NS 1000000000ull
#define DAY_NS (86400 * SECOND_NS)

const char *const classes_labels[LABELS + 1] = { "a", "b", "default" };

_Noreturn void classes_wrong(struct world *world, const char *what, uint64_t id)
{
	sim_print_trace(world->sim, stderr);
	fprintf(stderr, "%s: %016" PRIx64 "\n", what, id);
	abort();
}

static bool was_removed(const struct history *history, const char *label)
{
	return (strcmp(label, classes_labels[0]) == 0 && history->removed[0]) || (strcmp(label, classes_labels[1]) == 0 && history->removed[1]);
}

static Granary__MetaReply *list(struct meta *meta, uint64_t directory)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = { &op };
	Granary__Readdir readdir = GRANARY__READDIR__INIT;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaReply *reply;
	readdir.inode = directory;
	readdir.attributes = true;
	op.op_case = GRANARY__META_OP__OP_READDIR;
	op.readdir = &readdir;
	request.ops = ops;
	request.n_ops = 1;
	check(meta_query(meta, &request, &reply) == OK && reply->results[0]->error == OK && reply->results[0]->end);
	return reply;
}

static const struct content *content_of(const struct history *history, uint64_t inode)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		if (history->files[i].inode == inode)
			return &history->files[i];
	}
	return NULL;
}

static void check_file(struct world *world, struct meta *meta, uint64_t id, const Granary__Inode *inode)
{
	struct history *history = world->arg;
	const struct content *file = content_of(history, id);
	Granary__Chunk *pack;
	if (inode->layout != GRANARY__LAYOUT__LAYOUT_BLOB || meta_chunk(meta, inode->pack, &pack))
		return;
	/* What was never synced may be gone, and is not moved then. */
	if (meta_blob_is_misplaced(meta, inode) && file && file->synced > 0 && !was_removed(history, pack->class_) &&
	    !was_removed(history, inode->class_))
		classes_wrong(world, "in a pack of another class", id);
	message_free(&pack->base);
	history->sum.blobs++;
	history->sum.blobs_moved += file && file->pack && file->synced == file->begun && file->pack != inode->pack;
}

static void check_tree(struct world *world, struct meta *meta, uint64_t id, const Granary__Inode *inode)
{
	struct history *history = world->arg;
	Granary__MetaReply *reply = list(meta, id);
	for (size_t i = 0; i < reply->results[0]->n_entries; i++) {
		const Granary__DirectoryEntry *entry = reply->results[0]->entries[i];
		if (entry->attr->class_order < inode->class_order)
			classes_wrong(world, "the walk has not come there", entry->inode);
		if (entry->attr->class_order == inode->class_order && strcmp(entry->attr->class_, inode->class_) != 0)
			classes_wrong(world, "another class of the same assignment", entry->inode);
		history->sum.inodes++;
		check_file(world, meta, entry->inode, entry->attr);
		if (mode_is_directory(entry->attr->mode))
			check_tree(world, meta, entry->inode, entry->attr);
	}
	message_unref(&reply->base);
}

struct chunk_check {
	struct world *world;
	struct meta *meta;
	uint64_t now_ns;
};

static bool check_chunk(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct chunk_check *checking = arg;
	struct world *world = checking->world;
	struct history *history = world->arg;
	struct storage_values values;
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) /* one on each server, as its chunk is coded */
		return true;
	Granary__MetaReply *whole = message_open_whole(&granary__meta_reply__descriptor);
	Granary__Inode *owner = NULL;
	bool is_pack = chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK;
	if (!is_pack && (meta_inode(checking->meta, chunk->owner, &whole->base, &owner) || strcmp(owner->class_, chunk->class_) != 0))
		classes_wrong(world, "not its file's class", id);
	message_unref(&whole->base);
	meta_class_values(checking->meta, chunk->class_, &values);
	history->sum.chunks++;
	if (chunk->copies_wanted != values.copies)
		classes_wrong(world, "not as many copies as its class says", id);
	if (chunk->frozen || chunk->cold)
		return true;
	if (chunk->n_replicas != values.copies)
		classes_wrong(world, "another number of copies than is wanted", id);
	uint64_t unwritten_ns = meta_chunk_unwritten_ns(checking->meta, chunk), made_ns = snowflake_ms(id) * 1000000ull;
	uint64_t cool_ns = values.cool_seconds * SECOND_NS;
	if ((chunk->task_due != 0) != (values.is_cold && (!is_pack || chunk->sealed)))
		classes_wrong(world, "a task, or none", id);
	/* Not as the default class was at first; less than a day later, when it could not be cooled. */
	if (chunk->task_due > checking->now_ns + cool_ns + DAY_NS)
		classes_wrong(world, "a task that is due too late", id);
	/* Nothing was written after it was due, and when it was due it had not been left alone for long enough. */
	if (chunk->task_due && chunk->task_due + SECOND_NS < checking->now_ns && unwritten_ns <= chunk->task_due &&
	    unwritten_ns + cool_ns > chunk->task_due + SECOND_NS / 4)
		classes_wrong(world, "nobody looked at the task when it was due", id);
	history->sum.moved += chunk->task_due > made_ns + cool_ns + SECOND_NS / 2;
	return true;
}

static void fsck_found(void *arg, const struct check_finding *finding)
{
	classes_wrong(arg, check_text(finding->kind), finding->id);
}

static void check_orders(struct world *world, struct meta *meta)
{
	const struct history *history = world->arg;
	for (size_t i = 0; i < history->count; i++) {
		Granary__MetaReply *whole = message_open_whole(&granary__meta_reply__descriptor);
		Granary__Inode *inode;
		check(meta_inode(meta, history->directories[i], &whole->base, &inode) == OK);
		if (inode->class_order < history->orders[i])
			classes_wrong(world, "an earlier assignment has overtaken a later one", history->directories[i]);
		message_unref(&whole->base);
	}
}

void classes_check(struct world *world, struct replica *replica)
{
	struct meta *meta = replica_meta(replica);
	Granary__Inode root = GRANARY__INODE__INIT;
	Granary__MetaReply *whole = message_open_whole(&granary__meta_reply__descriptor);
	Granary__Inode *found;
	check(meta_inode(meta, META_ROOT_INODE, &whole->base, &found) == OK);
	root.class_order = found->class_order;
	root.class_ = found->class_;
	check_tree(world, meta, META_ROOT_INODE, &root);
	message_unref(&whole->base);
	check_orders(world, meta);
	struct chunk_check checking = { .world = world, .meta = meta, .now_ns = replica_time_ms(replica) * 1000000ull };
	check(meta_each_chunk(meta, 0, check_chunk, &checking) == OK);
	struct check *fsck = check_open(meta);
	for (bool end = false; !end;)
		check(check_run(fsck, 1000, fsck_found, world, &end) == OK);
	check_close(fsck);
}
