#include "master/meta/trash.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

#define ITEM_BYTES (96u + STORAGE_CLASS_NAME_BYTES_MAX) /* packed, beside its name and attributes */

static const Granary__TrashEntry *entry_get(struct meta *meta, uint64_t id)
{
	struct key key = key_of(KEY_TRASH, id);
	return store_message(&meta->store, &key, &granary__trash_entry__descriptor);
}

/* ---- in and out */

bool trash_add(struct context *context, uint64_t inode_id, Granary__Inode *inode, const struct dir_name *at)
{
	struct meta *meta = context->meta;
	struct storage_values values;
	meta_class_values(meta, inode->class_, &values);
	if (context->no_trash || values.trash_seconds == 0)
		return false;
	uint64_t id = ++meta->state->trash_last;
	Granary__TrashEntry *entry = mem_alloc(sizeof(*entry));
	granary__trash_entry__init(entry);
	entry->inode = inode_id;
	entry->removed = context->now_ns;
	if (inode->class_[0])
		entry->class_ = mem_string(inode->class_);
	struct buf name = {0};
	if (at) {
		const Granary__Inode *directory = inode_get(meta, at->directory);
		entry->parent = at->directory;
		entry->parent_mtime = directory ? directory->mtime : 0;
		buf_set(&name, at->name);
	} else {
		buf_printf(&name, "%016" PRIx64, inode_id);
	}
	entry->name = (ProtobufCBinaryData){.len = name.size, .data = name.bytes}; /* takes the buffer's memory */
	struct key key = key_of(KEY_TRASH, id);
	store_put_message(&meta->store, &key, &entry->base);
	struct key name_key = key_of_trash_name(entry->parent, message_bytes(entry->name), id);
	store_put(&meta->store, &name_key, (struct slice){0});
	inode->trash = id;
	meta->state->trash++;
	meta->state->trash_bytes += inode->blocks * 512;
	return true;
}

/* The entry goes; its inode (NULL: the store is damaged) has no link yet. */
static void trash_take(struct meta *meta, uint64_t id, const Granary__TrashEntry *entry, Granary__Inode *inode)
{
	struct key name_key = key_of_trash_name(entry->parent, message_bytes(entry->name), id);
	store_delete(&meta->store, &name_key);
	struct key key = key_of(KEY_TRASH, id);
	store_delete(&meta->store, &key); /* the entry with it */
	meta->state->trash--;
	if (!inode)
		return;
	meta->state->trash_bytes -= inode->blocks * 512;
	inode->trash = 0;
}

/* The inode of an entry, to be changed; NULL: the store is damaged, fsck finds it. */
static Granary__Inode *entry_inode(struct meta *meta, uint64_t id, const Granary__TrashEntry *entry)
{
	Granary__Inode *inode = inode_edit(meta, entry->inode);
	return inode && inode->trash == id && inode->nlink == 0 ? inode : NULL;
}

static enum err undelete_check(struct meta *meta, const Granary__Undelete *op, const Granary__Inode *inode)
{
	const Granary__Inode *parent;
	struct slice name = message_bytes(op->name);
	if (op->parent == 0)
		return mode_is_file(inode->mode) && name.size == 0 ? OK : ERR_INVALID;
	enum err err = dir_get(meta, op->parent, &parent);
	if (!err)
		err = name_check(name);
	if (err)
		return err;
	return dir_find(meta, op->parent, name).inode ? ERR_EXISTS : OK;
}

enum err op_undelete(struct context *context, const Granary__Undelete *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	const Granary__TrashEntry *entry = entry_get(meta, op->id);
	if (!entry)
		return ERR_NOT_FOUND;
	uint64_t inode_id = entry->inode;
	Granary__Inode *inode = entry_inode(meta, op->id, entry);
	if (!inode)
		return ERR_CORRUPT;
	enum err err = undelete_check(meta, op, inode);
	if (err)
		return err;
	trash_take(meta, op->id, entry, inode);
	inode->nlink = mode_is_directory(inode->mode) ? 2 : 1;
	if (op->parent == 0) {
		inode->kept = true;
	} else {
		struct dir_name at = {.directory = op->parent, .name = message_bytes(op->name)};
		dir_add(context, &at, inode_id, inode);
	}
	inode_changed(context, inode_id, inode);
	inode_answer(context, inode_id, inode, result);
	return OK;
}

enum err op_trash_remove(struct context *context, const Granary__TrashRemove *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	for (size_t i = 0; i < op->n_ids; i++) {
		const Granary__TrashEntry *entry = entry_get(meta, op->ids[i]);
		if (!entry)
			continue;
		uint64_t inode_id = entry->inode;
		Granary__Inode *inode = entry_inode(meta, op->ids[i], entry);
		trash_take(meta, op->ids[i], entry, inode);
		if (inode)
			orphan_add(meta, inode_id, 0);
	}
	return OK;
}

/* ---- list */

static bool item_add(struct context *context, uint64_t id, Granary__MetaResult *result)
{
	const Granary__TrashEntry *entry = entry_get(context->meta, id);
	if (!entry) {
		store_corrupt(&context->meta->store);
		return false;
	}
	const Granary__Inode *inode = inode_get(context->meta, entry->inode);
	if (!reply_reserve(context, ITEM_BYTES + entry->name.len + (inode ? inode_bytes(inode) : 0)))
		return false;
	Granary__TrashItem *item = message_alloc_message(context->reply, &granary__trash_item__descriptor);
	item->id = id;
	item->entry = message_alloc_message(context->reply, &granary__trash_entry__descriptor);
	item->entry->inode = entry->inode;
	item->entry->parent = entry->parent;
	item->entry->name = message_alloc_bytes(context->reply, message_bytes(entry->name));
	item->entry->removed = entry->removed;
	if (entry->class_[0])
		item->entry->class_ = message_alloc_text(context->reply, entry->class_);
	item->entry->parent_mtime = entry->parent_mtime;
	if (inode)
		item->attr = inode_copy(context->reply, inode);
	result->trash = message_alloc_element(context->reply, result->trash, result->n_trash, sizeof(*result->trash));
	result->trash[result->n_trash++] = item;
	return true;
}

static bool list_key_id(const Granary__TrashList *op, struct slice key, uint64_t *id)
{
	uint64_t parent;
	struct slice name;
	return op->all ? key_parse(key, id) : key_parse_trash_name(key, &parent, &name, id);
}

static void list_range(const Granary__TrashList *op, struct key *prefix, struct key *from)
{
	if (op->all) {
		*prefix = *from = key_of_table(KEY_TRASH);
		if (op->after)
			*from = key_of(KEY_TRASH, op->after);
	} else {
		*prefix = *from = op->name.len ? key_of_trash_name(op->parent, message_bytes(op->name), 0) :
						 key_of(KEY_TRASH_NAME, op->parent);
		if (op->after)
			*from = key_of_trash_name(op->parent, message_bytes(op->name.len ? op->name : op->after_name), op->after);
	}
	if (op->after)
		*from = key_after(from);
}

enum err op_trash_list(struct context *context, const Granary__TrashList *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	if (op->name.len > NAME_BYTES_MAX || op->after_name.len > NAME_BYTES_MAX)
		return ERR_NAME_TOO_LONG;
	uint32_t count = op->count == 0 || op->count > READDIR_ENTRIES_MAX ? READDIR_ENTRIES_MAX : op->count;
	struct key prefix, from;
	list_range(op, &prefix, &from);
	result->end = true;
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, &from);
	while (scan_next(&scan)) {
		uint64_t id;
		result->end = false;
		if (result->n_trash == count)
			break;
		if (!list_key_id(op, scan.key, &id)) {
			store_corrupt(&meta->store);
			break;
		}
		if (!item_add(context, id, result))
			break;
		result->end = true;
	}
	scan_close(&scan);
	/* Not even one: an empty answer without `end` would be asked for again for ever. */
	return !result->end && result->n_trash == 0 ? ERR_TOO_MANY : OK;
}
