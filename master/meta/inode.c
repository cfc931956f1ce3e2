#include "master/meta/inode.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/proto/mode.h"
#include "common/proto/setattr.h"
#include "master/meta/chunk_map.h"
#include "master/meta/ops.h"
#include "master/meta/pack.h"
#include "master/meta/trash.h"

const Granary__Inode *inode_get(struct meta *meta, uint64_t id)
{
	struct key key = key_of(KEY_INODE, id);
	return store_message(&meta->store, &key, &granary__inode__descriptor);
}

Granary__Inode *inode_edit(struct meta *meta, uint64_t id)
{
	struct key key = key_of(KEY_INODE, id);
	return store_edit(&meta->store, &key, &granary__inode__descriptor);
}

enum err inode_edit_file(struct meta *meta, uint64_t id, Granary__Inode **out)
{
	const Granary__Inode *inode = inode_get(meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	if (mode_is_directory(inode->mode))
		return ERR_IS_DIRECTORY;
	if (!mode_is_file(inode->mode))
		return ERR_INVALID;
	*out = inode_edit(meta, id);
	return OK;
}

Granary__Inode *inode_add(struct context *context, const struct inode_options *options)
{
	Granary__Inode *inode = mem_alloc(sizeof(*inode));
	granary__inode__init(inode);
	inode->mode = options->mode;
	inode->uid = options->uid;
	inode->gid = options->gid;
	inode->nlink = options->nlink;
	inode->atime = inode->mtime = inode->ctime = inode->btime = context->now_ns;
	inode->change = inode->data_change = (uint64_t)context->now_ns;
	if (mode_is_directory(options->mode))
		inode->size = DIRECTORY_BYTES;
	if (options->class && options->class[0])
		inode->class_ = mem_string(options->class);
	inode->class_order = options->class_order;
	struct key key = key_of(KEY_INODE, options->id);
	store_put_message(&context->meta->store, &key, &inode->base);
	context->meta->state->inodes++;
	return inode;
}

void inode_remove(struct meta *meta, uint64_t id, Granary__Inode *inode)
{
	inode_set_blocks(meta, inode, 0);
	struct key key = key_of(KEY_INODE, id);
	store_delete(&meta->store, &key);
	meta->state->inodes--;
}

static int64_t change_time(const struct context *context, uint64_t id)
{
	if (context->done_ns != 0)
		return context->done_ns;
	if (context->made_ns != 0 && id == context->created)
		return context->made_ctime_ns;
	return context->made_ns != 0 && id == context->made_in ? context->made_ns : context->now_ns;
}

/* `change` follows the clock, so that the values of a file and of another that took its name do not meet (RFC 7862
 * section 12.2.3 calls it NFS4_CHANGE_TYPE_IS_TIME_METADATA). */
void inode_changed(struct context *context, uint64_t id, Granary__Inode *inode)
{
	uint64_t now = (uint64_t)context->now_ns;
	int64_t when = change_time(context, id);
	inode->change = inode->change + 1 > now ? inode->change + 1 : now;
	if (inode->ctime < when)
		inode->ctime = when;
	touch_inode(context, id);
}

void inode_data_changed(struct context *context, uint64_t id, Granary__Inode *inode)
{
	inode_changed(context, id, inode);
	inode->data_change = inode->change;
	int64_t when = change_time(context, id);
	bool is_earlier = context->done_ns != 0 || id == context->made_in;
	if (!is_earlier || inode->mtime < when)
		inode->mtime = when;
}

void inode_set_blocks(struct meta *meta, Granary__Inode *inode, uint64_t blocks)
{
	meta->state->bytes_used += (blocks - inode->blocks) * 512;
	if (inode->trash)
		meta->state->trash_bytes += (blocks - inode->blocks) * 512;
	inode->blocks = blocks;
}

uint64_t inode_blocks_max(uint64_t size_bytes)
{
	return (size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * (BLOCK_BYTES / 512);
}

void orphan_add(struct meta *meta, uint64_t id, uint64_t session)
{
	struct key key = key_of(KEY_ORPHAN, id);
	uint8_t value[8];
	put_be64(value, session);
	store_put(&meta->store, &key, slice_of(value, session ? sizeof(value) : 0));
	meta->orphans_added = true;
}

void inode_drop_link(struct context *context, uint64_t id, Granary__Inode *inode, const struct dir_name *at,
		     Granary__MetaResult *result)
{
	check(inode->nlink > 0);
	inode->nlink = mode_is_directory(inode->mode) ? 0 : inode->nlink - 1;
	inode_changed(context, id, inode);
	if (inode->nlink == 0 && !trash_add(context, id, inode, at))
		orphan_add(context->meta, id, 0);
	result->replaced = id;
	result->replaced_nlink = inode->nlink;
}

/* ---- answers */

Granary__Inode *inode_copy(ProtobufCMessage *whole, const Granary__Inode *inode)
{
	Granary__Inode *copy = message_alloc(whole, sizeof(*copy));
	*copy = *inode;
	copy->base.n_unknown_fields = 0;
	copy->base.unknown_fields = NULL;
	copy->symlink = message_alloc_bytes(whole, message_bytes(inode->symlink));
	if (inode->class_[0])
		copy->class_ = message_alloc_text(whole, inode->class_);
	else
		copy->class_ = (char *)(uintptr_t)protobuf_c_empty_string;
	return copy;
}

size_t inode_bytes(const Granary__Inode *inode)
{
	return 25 * 12 + inode->symlink.len + strlen(inode->class_);
}

void inode_answer(struct context *context, uint64_t id, const Granary__Inode *inode, Granary__MetaResult *result)
{
	check(!result->attr);
	result->inode = id;
	result->attr = inode_copy(context->reply, inode);
}

/* ---- setattr */

/* Cuts the content or adds zeros at its end. Chunks above the new end are freed; ERR_BUSY when there were more than
 * may be freed at once (the size is then still the old one). */
static enum err inode_truncate(struct context *context, uint64_t id, Granary__Inode *inode, uint64_t size)
{
	struct meta *meta = context->meta;
	if (size < inode->size) {
		uint32_t first = (uint32_t)((size + CHUNK_BYTES - 1) / CHUNK_BYTES);
		if (!chunks_free(meta, id, inode, first, TRUNCATE_CHUNKS_MAX)) {
			inode_data_changed(context, id, inode);
			return ERR_BUSY;
		}
		if (inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB)
			blob_cut(meta, inode, size);
		if (inode->trim >= size)
			inode->trim = 0;
		if (inode->trim == 0 && size % CHUNK_BYTES != 0 &&
		    chunk_at(meta, id, inode, (uint32_t)(size / CHUNK_BYTES)))
			inode->trim = size;
		if (inode->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS && inode->chunks == 0)
			inode->layout = GRANARY__LAYOUT__LAYOUT_EMPTY;
		if (inode->blocks > inode_blocks_max(size))
			inode_set_blocks(meta, inode, inode_blocks_max(size));
		if (inode->layout == GRANARY__LAYOUT__LAYOUT_EMPTY)
			inode_set_blocks(meta, inode, 0);
	}
	inode->size = size;
	return OK;
}

static enum err setattr_check(const Granary__Inode *inode, const Granary__Setattr *op)
{
	if (op->mask & ~SETATTR_ALL)
		return ERR_INVALID;
	if (!(op->mask & SETATTR_SIZE))
		return OK;
	if (mode_is_directory(inode->mode))
		return ERR_IS_DIRECTORY;
	if (!mode_is_file(inode->mode))
		return ERR_INVALID;
	return op->size > FILE_BYTES_MAX ? ERR_TOO_LARGE : OK;
}

enum err op_setattr(struct context *context, const Granary__Setattr *op, Granary__MetaResult *result)
{
	uint64_t id = context_inode(context, op->inode);
	const Granary__Inode *now = inode_get(context->meta, id);
	if (!now)
		return ERR_NOT_FOUND;
	enum err err = setattr_check(now, op);
	if (err)
		return err;
	if (op->mask == 0 && !op->by_owner_only) {
		inode_answer(context, id, now, result);
		return OK;
	}
	Granary__Inode *inode = inode_edit(context->meta, id);
	if (op->mask & SETATTR_SIZE) {
		err = inode_truncate(context, id, inode, op->size);
		if (err)
			return err;
		inode_data_changed(context, id, inode);
	} else {
		inode_changed(context, id, inode);
	}
	setattr_owner(inode, op);
	if (op->mask & (SETATTR_ATIME | SETATTR_ATIME_NOW))
		inode->atime = op->mask & SETATTR_ATIME_NOW ? context->now_ns : op->atime;
	if (op->mask & (SETATTR_MTIME | SETATTR_MTIME_NOW))
		inode->mtime = op->mask & SETATTR_MTIME_NOW ? context->now_ns : op->mtime;
	if (op->mask & SETATTR_CTIME && op->ctime > inode->ctime)
		inode->ctime = op->ctime;
	inode_answer(context, id, inode, result);
	return OK;
}

enum err op_getattr(struct context *context, const Granary__Getattr *op, Granary__MetaResult *result)
{
	uint64_t id = context_inode(context, op->inode);
	const Granary__Inode *inode = inode_get(context->meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	inode_answer(context, id, inode, result);
	location_answer(context, inode, result);
	return OK;
}
