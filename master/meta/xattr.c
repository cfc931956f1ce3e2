/* Extended attributes: names as the client gives them, "user." and all; values are bytes. */
#include <stdlib.h>

#include "common/base/check.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

static enum err xattr_check_name(struct slice name)
{
	if (name.size == 0)
		return ERR_INVALID;
	return name.size > XATTR_NAME_BYTES_MAX ? ERR_RANGE : OK;
}

enum err op_set_xattr(struct context *context, const Granary__SetXattr *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	struct slice name = message_bytes(op->name);
	enum err err = xattr_check_name(name);
	if (err)
		return err;
	if (op->value.len > XATTR_VALUE_BYTES_MAX)
		return ERR_TOO_LARGE;
	if (!inode_get(meta, id))
		return ERR_NOT_FOUND;
	struct key key = key_of_name(KEY_XATTR, id, name);
	bool there = store_has(&meta->store, &key);
	if (there && op->create)
		return ERR_EXISTS;
	if (!there && op->replace)
		return ERR_NO_ATTRIBUTE;
	Granary__Inode *inode = inode_edit(meta, id);
	if (!there && inode->xattrs >= XATTRS_PER_INODE_MAX)
		return ERR_NO_SPACE;
	store_put(&meta->store, &key, message_bytes(op->value));
	inode->xattrs += !there;
	inode_changed(context, id, inode);
	inode_answer(context, id, inode, result);
	return OK;
}

enum err op_remove_xattr(struct context *context, const Granary__RemoveXattr *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	struct slice name = message_bytes(op->name);
	enum err err = xattr_check_name(name);
	if (err)
		return err;
	const Granary__Inode *found = inode_get(meta, id);
	if (!found)
		return ERR_NOT_FOUND;
	struct key key = key_of_name(KEY_XATTR, id, name);
	if (found->xattrs == 0 || !store_has(&meta->store, &key))
		return ERR_NO_ATTRIBUTE;
	store_delete(&meta->store, &key);
	Granary__Inode *inode = inode_edit(meta, id);
	inode->xattrs--;
	inode_changed(context, id, inode);
	inode_answer(context, id, inode, result);
	return OK;
}

enum err op_get_xattr(struct context *context, const Granary__GetXattr *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	struct slice name = message_bytes(op->name);
	enum err err = xattr_check_name(name);
	if (err)
		return err;
	const Granary__Inode *inode = inode_get(meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	struct key key = key_of_name(KEY_XATTR, id, name);
	struct slice value;
	if (inode->xattrs == 0 || !store_get(&meta->store, &key, &value))
		return ERR_NO_ATTRIBUTE;
	if (!reply_reserve(context, value.size))
		return ERR_TOO_MANY;
	result->inode = id;
	result->value = message_alloc_bytes(context->reply, value);
	return OK;
}

enum err op_list_xattr(struct context *context, const Granary__ListXattr *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	uint64_t id = context_inode(context, op->inode);
	const Granary__Inode *inode = inode_get(meta, id);
	if (!inode)
		return ERR_NOT_FOUND;
	result->inode = id;
	if (inode->xattrs == 0)
		return OK;
	if (!reply_reserve(context, inode->xattrs * (XATTR_NAME_BYTES_MAX + 4u)))
		return ERR_TOO_MANY;
	result->names = message_alloc(context->reply, inode->xattrs * sizeof(*result->names));
	struct key prefix = key_of(KEY_XATTR, id);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (result->n_names < inode->xattrs && scan_next(&scan)) {
		uint64_t owner;
		struct slice name;
		if (key_parse_name(scan.key, &owner, &name))
			result->names[result->n_names++] = message_alloc_bytes(context->reply, name);
	}
	scan_close(&scan);
	return OK;
}
