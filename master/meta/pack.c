#include "master/meta/pack.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/chunk_map.h"
#include "master/meta/cold.h"
#include "master/meta/garbage.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"
#include "master/meta/tasks.h"

/* ---- packs */

static void pack_remove_if_dead(struct meta *meta, uint64_t id)
{
	const Granary__Chunk *pack = chunk_get(meta, id);
	if (pack && pack->kind == GRANARY__CHUNK_KIND__CHUNK_PACK && pack->sealed && pack->live_count == 0)
		chunk_remove(meta, id);
}

static void open_packs_remove(Granary__MetaState *state, uint64_t id)
{
	size_t kept = 0;
	for (size_t i = 0; i < state->n_open_packs; i++)
		if (state->open_packs[i] != id)
			state->open_packs[kept++] = state->open_packs[i];
	state->n_open_packs = kept;
}

/* Last of all: one of another class may have to give way. */
static void open_packs_add(struct meta *meta, uint64_t id)
{
	Granary__MetaState *state = meta->state;
	if (state->n_open_packs == OPEN_PACKS_TOTAL_MAX)
		pack_seal(meta, state->open_packs[0]);
	state->open_packs = mem_resize(state->open_packs, (state->n_open_packs + 1) * sizeof(*state->open_packs));
	state->open_packs[state->n_open_packs++] = id;
}

void pack_seal(struct meta *meta, uint64_t id)
{
	Granary__Chunk *pack = chunk_edit(meta, id);
	if (!pack)
		return;
	if (!pack->sealed) {
		pack->sealed_ns = meta->state->time_ns;
		task_cool_new(meta, id, pack);
	}
	pack->sealed = true;
	open_packs_remove(meta->state, id);
	pack_remove_if_dead(meta, id);
}

/* The open packs of a class; how many. */
static size_t open_packs_of(struct meta *meta, const char *label, uint64_t *packs)
{
	Granary__MetaState *state = meta->state;
	size_t count = 0;
	for (size_t i = 0; i < state->n_open_packs && count < OPEN_PACKS_MAX; i++) {
		const Granary__Chunk *pack = chunk_get(meta, state->open_packs[i]);
		if (pack && strcmp(pack->class_, label) == 0)
			packs[count++] = state->open_packs[i];
	}
	return count;
}

/* An open pack to share, or 0. One that has lost replicas gives way when the leader has found more servers. */
static uint64_t open_pack_choose(struct meta *meta, const Granary__OpenPack *op, const char *label)
{
	Granary__MetaState *state = meta->state;
	uint64_t packs[OPEN_PACKS_MAX];
	size_t count = open_packs_of(meta, label, packs);
	bool can_add = op->id != 0 && replicas_valid(op->replicas, op->n_replicas);
	if (count == 0 || (can_add && count < (label[0] ? OPEN_PACKS_CLASS_MAX : OPEN_PACKS_MAX)))
		return 0;
	uint64_t id = packs[op->id % count];
	const Granary__Chunk *pack = chunk_get(meta, id);
	if (can_add && (!pack || pack->n_replicas < op->n_replicas)) {
		pack_seal(meta, id);
		open_packs_remove(state, id);
		return 0;
	}
	return id;
}

enum err op_open_pack(struct context *context, const Granary__OpenPack *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__Chunk *full = op->full ? chunk_get(meta, op->full) : NULL;
	if (full && full->kind == GRANARY__CHUNK_KIND__CHUNK_PACK && !full->sealed)
		pack_seal(meta, op->full);
	const char *label = storage_class_find(meta->classes, op->class_) ? storage_class_label(op->class_) : "";
	uint64_t pack = open_pack_choose(meta, op, label);
	if (!pack) {
		struct chunk_options options = {.id = op->id,
						.kind = GRANARY__CHUNK_KIND__CHUNK_PACK,
						.replicas = op->replicas,
						.replica_count = op->n_replicas,
						.class = label};
		enum err err = chunk_add(meta, &options);
		if (err)
			return err;
		pack = op->id;
		open_packs_add(meta, pack);
	}
	location_add(context, pack, result);
	return OK;
}

/* ---- blobs */

static uint64_t blob_blocks(uint32_t bytes)
{
	return (bytes + 511u) / 512u;
}

static void slot_free(struct meta *meta, uint64_t id, uint32_t slot)
{
	const Granary__Chunk *pack = chunk_get(meta, id);
	if (pack && pack->coding)
		cold_note_slot(meta, id, slot);
	if (pack && !pack->cold)
		garbage_add_slot(meta, id, slot);
}

/* Its record is no one's any more. */
static void record_free(struct meta *meta, const Granary__Inode *inode)
{
	Granary__Chunk *pack = chunk_edit(meta, inode->pack);
	if (!pack)
		return;
	pack->live_bytes -= inode->blob_bytes;
	pack->live_count--;
	slot_free(meta, inode->pack, inode->slot);
	pack_remove_if_dead(meta, inode->pack);
}

void blob_free(struct meta *meta, Granary__Inode *inode)
{
	record_free(meta, inode);
	inode->layout = GRANARY__LAYOUT__LAYOUT_EMPTY;
	inode->pack = 0;
	inode->slot = 0;
	inode->origin_pack = 0;
	inode->origin_slot = 0;
	inode->blob_bytes = 0;
	inode->size = 0;
	inode_set_blocks(meta, inode, 0);
}

void blob_cut(struct meta *meta, Granary__Inode *inode, uint64_t size)
{
	if (size == 0) {
		blob_free(meta, inode);
		return;
	}
	if (size >= inode->blob_bytes)
		return;
	Granary__Chunk *pack = chunk_edit(meta, inode->pack);
	if (pack)
		pack->live_bytes -= inode->blob_bytes - size;
	inode->blob_bytes = (uint32_t)size;
	inode_set_blocks(meta, inode, blob_blocks(inode->blob_bytes));
}

static enum err commit_blob_check(struct meta *meta, const Granary__CommitBlob *op)
{
	if (op->bytes > BLOB_BYTES_MAX)
		return ERR_TOO_LARGE;
	if (op->bytes == 0 && op->pack == 0)
		return OK;
	const Granary__Chunk *pack = chunk_get(meta, op->pack);
	if (!pack)
		return ERR_PACK_FULL;
	return pack->kind != GRANARY__CHUNK_KIND__CHUNK_PACK || op->slot == 0 ? ERR_INVALID : OK;
}

/* In place of what the inode had before. */
static void blob_set(struct meta *meta, uint64_t id, Granary__Inode *inode, const Granary__CommitBlob *op)
{
	/* Counted first: the pack may be sealed and hold nothing but the old blob. */
	Granary__Chunk *pack = op->pack ? chunk_edit(meta, op->pack) : NULL;
	if (pack && op->bytes > 0) {
		pack->live_bytes += op->bytes;
		pack->live_count++;
		pack->written = true;
	} else if (pack) {
		slot_free(meta, op->pack, op->slot);
	}
	if (inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB)
		blob_free(meta, inode);
	inode->layout = op->bytes > 0 ? GRANARY__LAYOUT__LAYOUT_BLOB : GRANARY__LAYOUT__LAYOUT_EMPTY;
	inode->pack = op->bytes > 0 ? op->pack : 0;
	inode->slot = op->bytes > 0 ? op->slot : 0;
	inode->blob_bytes = op->bytes;
	inode_set_blocks(meta, inode, blob_blocks(op->bytes));
	bool all = chunks_free(meta, id, inode, 0, TRUNCATE_CHUNKS_MAX);
	check(all);
}

static bool blob_is(const Granary__Inode *inode, uint64_t pack, uint32_t slot)
{
	return inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB && inode->pack == pack && inode->slot == slot;
}

enum err op_commit_blob(struct context *context, const Granary__CommitBlob *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	Granary__Inode *inode;
	enum err err = inode_edit_file(meta, id, &inode);
	if (!err)
		err = commit_blob_check(meta, op);
	if (err)
		return err;
	/* Sent again after its first answer was lost with the session: the record that the inode has already, wherever that is by now. What has
	 * been moved away from is freed. */
	bool again = blob_is(inode, op->pack, op->slot) || (op->pack && inode->origin_pack == op->pack && inode->origin_slot == op->slot);
	if (again && op->bytes != inode->blob_bytes)
		return ERR_INVALID;
	if (!again && op->data_change && op->data_change != inode->data_change)
		return ERR_STALE_HANDLE;
	if (inode->chunks > TRUNCATE_CHUNKS_MAX)
		return ERR_TOO_LARGE;
	if (!again)
		blob_set(meta, id, inode, op);
	blob_follow(meta, id, inode); /* who wrote it may not have known of its class */
	inode->trim = 0;
	inode->size = inode->blob_bytes;
	inode_data_changed(context, id, inode);
	if (op->mtime)
		inode->mtime = op->mtime;
	if (op->atime)
		inode->atime = op->atime;
	inode_answer(context, id, inode, result);
	return OK;
}

/* ---- blobs that move */

const char *meta_label_in_force(const struct meta *meta, const char *label)
{
	return storage_class_find(meta->classes, label) ? label : "";
}

bool meta_blob_is_misplaced(struct meta *meta, const Granary__Inode *inode)
{
	const Granary__Chunk *pack = inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB ? chunk_get(meta, inode->pack) : NULL;
	return pack && strcmp(pack->class_, inode->class_) != 0 &&
	       strcmp(meta_label_in_force(meta, pack->class_), meta_label_in_force(meta, inode->class_)) != 0;
}

void blob_follow(struct meta *meta, uint64_t id, const Granary__Inode *inode)
{
	if (meta_blob_is_misplaced(meta, inode))
		task_move_new(meta, id);
}

static bool is_at_source(const Granary__Inode *inode, const Granary__BlobMove *op)
{
#ifdef PLANT_MOVED_UNSEEN
	return inode && inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB && op->slot > 0;
#endif
	return inode && blob_is(inode, op->pack, op->slot);
}

/* All that says that the file has been changed stays as it is. */
enum err op_blob_move(struct context *context, const Granary__BlobMove *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	const Granary__Chunk *found = chunk_get(meta, op->to_pack);
	if (!found)
		return ERR_PACK_FULL;
	if (found->kind != GRANARY__CHUNK_KIND__CHUNK_PACK || op->to_slot == 0)
		return ERR_INVALID;
	Granary__Inode *inode = inode_edit(meta, op->inode);
	if (inode && blob_is(inode, op->to_pack, op->to_slot)) /* told again */
		return OK;
	if (!is_at_source(inode, op)) {
		slot_free(meta, op->to_pack, op->to_slot);
		return OK;
	}
	/* Counted first, as when it is set. */
	Granary__Chunk *pack = chunk_edit(meta, op->to_pack);
	pack->live_bytes += inode->blob_bytes;
	pack->live_count++;
	pack->written = true;
	record_free(meta, inode);
	if (!inode->origin_pack) {
		inode->origin_pack = inode->pack;
		inode->origin_slot = inode->slot;
	}
	inode->pack = op->to_pack;
	inode->slot = op->to_slot;
	return OK;
}
