/* Readdir, Walk and Statfs. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/chunk_map.h"
#include "master/meta/dir.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

/* ---- readdir */

#define ENTRY_BYTES 32u /* packed, beside its name and attributes */

static bool entry_add(struct context *context, const Granary__Readdir *op, struct slice name,
		      const Granary__Dirent *dirent, Granary__MetaResult *result)
{
	const Granary__Inode *attr = op->attributes ? inode_get(context->meta, dirent->inode) : NULL;
	if (!reply_reserve(context, ENTRY_BYTES + name.size + (attr ? inode_bytes(attr) : 0)))
		return false;
	Granary__DirectoryEntry *entry = message_alloc_message(context->reply, &granary__directory_entry__descriptor);
	entry->name = message_alloc_bytes(context->reply, name);
	entry->inode = dirent->inode;
	entry->type = dirent->type;
	entry->attr = attr ? inode_copy(context->reply, attr) : NULL;
	result->entries = message_alloc_element(context->reply, result->entries, result->n_entries, sizeof(*result->entries));
	result->entries[result->n_entries++] = entry;
	return true;
}

enum err op_readdir(struct context *context, const Granary__Readdir *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	const Granary__Inode *directory = inode_get(meta, id);
	if (!directory)
		return ERR_NOT_FOUND;
	if (!mode_is_directory(directory->mode))
		return ERR_NOT_DIRECTORY;
	if (op->after.len > NAME_BYTES_MAX)
		return ERR_NAME_TOO_LONG;
	uint32_t count = op->count == 0 || op->count > READDIR_ENTRIES_MAX ? READDIR_ENTRIES_MAX : op->count;
	inode_answer(context, id, directory, result);
	result->end = true;
	if (directory->entries == 0)
		return OK;
	struct key prefix = key_of(KEY_DIRENT, id);
	struct key from = prefix;
	if (op->after.len > 0) {
		from = key_of_name(KEY_DIRENT, id, message_bytes(op->after));
		from = key_after(&from);
	}
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (scan_next(&scan)) {
		uint64_t owner;
		struct slice name;
		Granary__Dirent dirent;
		if (result->n_entries == count) {
			result->end = false;
			break;
		}
		if (!key_parse_name(scan.key, &owner, &name) ||
		    message_read_numbers(&granary__dirent__descriptor, scan.value, &dirent.base)) {
			store_corrupt(&meta->store);
			break;
		}
		result->end = entry_add(context, op, name, &dirent, result);
		if (!result->end)
			break;
	}
	scan_close(&scan);
	/* Not even one entry: an empty answer without `end` would be asked for again for ever. */
	return !result->end && result->n_entries == 0 ? ERR_TOO_MANY : OK;
}

/* ---- statfs */

/* The shell adds what the chunkservers have. */
enum err op_statfs(struct context *context, const Granary__StatfsOp *op, Granary__MetaResult *result)
{
	(void)op;
	Granary__Statfs *statfs = message_alloc_message(context->reply, &granary__statfs__descriptor);
	statfs->inodes = context->meta->state->inodes;
	statfs->bytes_used = context->meta->state->bytes_used;
	statfs->trash_files = context->meta->state->trash;
	statfs->trash_bytes = context->meta->state->trash_bytes;
	result->statfs = statfs;
	return OK;
}

/* ---- walk */

/* A path on its way: what is left of it is remade when a symbolic link is followed. */
struct walk {
	struct buf path;
	size_t at;
	uint64_t directory; /* the component is looked up here */
	uint64_t inode;     /* where we are */
	unsigned symlinks;
	Granary__MetaResult *result;
};

static void walk_visited(struct context *context, struct walk *walk)
{
	Granary__MetaResult *result = walk->result;
	result->visited = message_alloc_element(context->reply, result->visited, result->n_visited, sizeof(*result->visited));
	result->visited[result->n_visited++] = walk->directory;
}

static bool walk_next(struct walk *walk, struct slice *name)
{
	while (walk->at < walk->path.size && walk->path.bytes[walk->at] == '/')
		walk->at++;
	size_t start = walk->at;
	while (walk->at < walk->path.size && walk->path.bytes[walk->at] != '/')
		walk->at++;
	*name = slice_of(walk->path.bytes + start, walk->at - start);
	return name->size > 0;
}

/* Nothing but slashes follows. */
static bool walk_is_last(const struct walk *walk)
{
	for (size_t i = walk->at; i < walk->path.size; i++)
		if (walk->path.bytes[i] != '/')
			return false;
	return true;
}

/* The rest of the path becomes target + rest, from the root or from the directory that holds the link. */
static enum err walk_follow(struct walk *walk, struct slice target)
{
	size_t rest = walk->path.size - walk->at;
	if (++walk->symlinks > WALK_SYMLINKS_MAX)
		return ERR_LOOP;
	if (target.size + rest > 2 * PATH_BYTES_MAX)
		return ERR_NAME_TOO_LONG;
	struct buf path = {0};
	buf_append_slice(&path, target);
	buf_append(&path, walk->path.bytes + walk->at, rest);
	buf_take(&walk->path, &path);
	walk->at = 0;
	walk->inode = target.size > 0 && target.bytes[0] == '/' ? META_ROOT_INODE : walk->directory;
	return OK;
}

/* One component. `is_missing` is set when only the last one is not there. */
static enum err walk_step(struct context *context, struct walk *walk, struct slice name, bool follow, bool *is_missing)
{
	struct meta *meta = context->meta;
	const Granary__Inode *directory;
	enum err err = dir_get(meta, walk->inode, &directory);
	if (err)
		return err;
	walk->directory = walk->inode;
	walk_visited(context, walk);
	if (name_is(name, "."))
		return OK;
	if (name_is(name, "..")) {
		walk->inode = directory->parent;
		return OK;
	}
	err = name_check(name);
	if (err)
		return err;
	uint64_t id = dir_find(meta, walk->directory, name).inode;
	bool is_last = walk_is_last(walk);
	if (id == 0) {
		*is_missing = is_last;
		return ERR_NOT_FOUND;
	}
	walk->inode = id;
	const Granary__Inode *inode = inode_get(meta, id);
	if (!inode) {
		store_corrupt(&meta->store);
		return ERR_CORRUPT;
	}
	/* "link/" is the directory that the link points to. */
	bool slash = is_last && walk->at < walk->path.size;
	if (mode_is_symlink(inode->mode) && (follow || !is_last || slash))
		return walk_follow(walk, message_bytes(inode->symlink));
	return slash && !mode_is_directory(inode->mode) ? ERR_NOT_DIRECTORY : OK;
}

static enum err walk_run(struct context *context, const Granary__Walk *op, struct walk *walk,
			 Granary__MetaResult *result)
{
	struct slice name;
	struct buf last = {0};
	bool is_missing = false;
	enum err err = OK;
	while (!err && walk_next(walk, &name)) {
		buf_set(&last, name);
		err = walk_step(context, walk, name, op->follow, &is_missing);
	}
	if (!err || is_missing) {
		result->parent = walk->directory;
		result->name = message_alloc_bytes(context->reply, buf_slice(&last));
		const Granary__Inode *directory = inode_get(context->meta, walk->directory);
		if (directory && directory->class_[0])
			result->class_ = message_alloc_text(context->reply, directory->class_);
	}
	buf_deinit(&last);
	return err;
}

enum err op_walk(struct context *context, const Granary__Walk *op, Granary__MetaResult *result)
{
	struct slice path = message_bytes(op->path);
	if (path.size > PATH_BYTES_MAX)
		return ERR_NAME_TOO_LONG;
	if (path.size == 0 || path.bytes[0] != '/')
		return ERR_INVALID;
	struct walk walk = {.directory = META_ROOT_INODE, .inode = META_ROOT_INODE, .result = result};
	buf_append_slice(&walk.path, path);
	enum err err = walk_run(context, op, &walk, result);
	const Granary__Inode *inode = err ? NULL : inode_get(context->meta, walk.inode);
	if (inode) {
		inode_answer(context, walk.inode, inode, result);
		location_answer(context, inode, result);
	}
	buf_deinit(&walk.path);
	return err;
}
