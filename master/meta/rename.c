/* Rename, as rename(2) and renameat2(2) say: over files and empty directories, RENAME_NOREPLACE, RENAME_EXCHANGE. */
#include "common/proto/mode.h"
#include "master/meta/dir.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

struct rename {
	struct dir_name from, to;
	uint64_t source_id, target_id; /* target 0: there is none */
	const Granary__Inode *source, *target;
};

/* Whether `ancestor` is `directory` or above it. Parent pointers end at the root; the number of inodes bounds the walk
 * even of a damaged store. */
static bool is_above(struct meta *meta, uint64_t ancestor, uint64_t directory)
{
	for (uint64_t steps = 0; steps <= meta->state->inodes; steps++) {
		if (directory == ancestor)
			return true;
		if (directory == META_ROOT_INODE)
			return false;
		const Granary__Inode *inode = inode_get(meta, directory);
		if (!inode)
			break;
		directory = inode->parent;
	}
	store_corrupt(&meta->store);
	return true;
}

static enum err rename_find(struct context *context, const Granary__Rename *op, struct rename *rename)
{
	struct meta *meta = context->meta;
	rename->from = (struct dir_name){.directory = op->parent, .name = message_bytes(op->name)};
	rename->to = (struct dir_name){.directory = op->new_parent, .name = message_bytes(op->new_name)};
	const Granary__Inode *parent;
	enum err err = dir_get(meta, rename->from.directory, &parent);
	if (!err)
		err = dir_get(meta, rename->to.directory, &parent);
	if (!err)
		err = name_check(rename->from.name);
	if (!err)
		err = name_check(rename->to.name);
	if (err)
		return err;
	rename->source_id = dir_find(meta, rename->from.directory, rename->from.name).inode;
	if (!rename->source_id)
		return ERR_NOT_FOUND;
	rename->target_id = dir_find(meta, rename->to.directory, rename->to.name).inode;
	rename->source = inode_get(meta, rename->source_id);
	rename->target = rename->target_id ? inode_get(meta, rename->target_id) : NULL;
	if (!rename->source || (rename->target_id && !rename->target)) {
		store_corrupt(&meta->store);
		return ERR_CORRUPT;
	}
	return OK;
}

/* A directory does not go into itself. */
static enum err rename_check_loops(struct meta *meta, const Granary__Rename *op, const struct rename *rename)
{
	if (rename->from.directory == rename->to.directory)
		return OK;
	if (mode_is_directory(rename->source->mode) && is_above(meta, rename->source_id, rename->to.directory))
		return ERR_LOOP;
	if (op->exchange && mode_is_directory(rename->target->mode) &&
	    is_above(meta, rename->target_id, rename->from.directory))
		return ERR_LOOP;
	return OK;
}

static enum err rename_check(struct meta *meta, const Granary__Rename *op, const struct rename *rename)
{
	if (op->inode && (op->inode != rename->source_id || op->replaced != rename->target_id))
		return ERR_STALE_HANDLE;
	if (op->exchange && !rename->target)
		return ERR_NOT_FOUND;
	if (op->no_replace && rename->target)
		return ERR_EXISTS;
	if (rename->source_id == rename->target_id)
		return OK;
	enum err err = rename_check_loops(meta, op, rename);
	if (err || op->exchange || !rename->target)
		return err;
	bool source_directory = mode_is_directory(rename->source->mode);
	bool target_directory = mode_is_directory(rename->target->mode);
	if (source_directory && !target_directory)
		return ERR_NOT_DIRECTORY;
	if (!source_directory && target_directory)
		return ERR_IS_DIRECTORY;
	return target_directory && rename->target->entries > 0 ? ERR_NOT_EMPTY : OK;
}

static void rename_exchange(struct context *context, const struct rename *rename)
{
	Granary__Inode *source = inode_edit(context->meta, rename->source_id);
	Granary__Inode *target = inode_edit(context->meta, rename->target_id);
	if (mode_is_directory(source->mode) == mode_is_directory(target->mode)) {
		dir_replace(context, &rename->from, rename->target_id, target);
		dir_replace(context, &rename->to, rename->source_id, source);
	} else {
		dir_remove(context, &rename->from, source);
		dir_remove(context, &rename->to, target);
		dir_add(context, &rename->from, rename->target_id, target);
		dir_add(context, &rename->to, rename->source_id, source);
	}
	inode_changed(context, rename->target_id, target);
}

enum err op_rename(struct context *context, const Granary__Rename *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	struct rename rename;
	if (op->exchange && op->no_replace)
		return ERR_INVALID;
	enum err err = rename_find(context, op, &rename);
	if (err)
		return err;
	err = rename_check(meta, op, &rename);
	if (err)
		return err;
	Granary__Inode *source = inode_edit(meta, rename.source_id);
	if (rename.source_id != rename.target_id) { /* two names of one file: rename(2) does nothing */
		if (op->exchange) {
			rename_exchange(context, &rename);
		} else if (rename.target) {
			Granary__Inode *target = inode_edit(meta, rename.target_id);
			inode_drop_link(context, rename.target_id, target, &rename.to, result);
			dir_remove(context, &rename.from, source);
			dir_replace(context, &rename.to, rename.source_id, source);
		} else {
			dir_remove(context, &rename.from, source);
			dir_add(context, &rename.to, rename.source_id, source);
		}
		inode_changed(context, rename.source_id, source);
	}
	inode_answer(context, rename.source_id, source, result);
	return OK;
}
