/* What no client may send, found before anything is proposed. Errors that depend on the state, and those that POSIX
 * has a word for (a name that is too long), are the operations' own. */
#include <string.h>

#include "common/base/limits.h"
#include "master/meta/meta.h"

static bool has_nul(ProtobufCBinaryData bytes)
{
	return bytes.len > 0 && memchr(bytes.data, 0, bytes.len);
}

static bool name_is_possible(ProtobufCBinaryData name)
{
	return !has_nul(name) && (name.len == 0 || !memchr(name.data, '/', name.len));
}

static bool class_is_possible(const char *name)
{
	return !name[0] || storage_class_name_is_valid(name);
}

static bool op_is_valid(const Granary__MetaOp *op)
{
	switch (op->op_case) {
	case GRANARY__META_OP__OP_LOOKUP:
		return name_is_possible(op->lookup->name);
	case GRANARY__META_OP__OP_READDIR:
		return name_is_possible(op->readdir->after);
	case GRANARY__META_OP__OP_WALK:
		return !has_nul(op->walk->path);
	case GRANARY__META_OP__OP_CREATE:
		return class_is_possible(op->create->class_) && name_is_possible(op->create->name) && !has_nul(op->create->symlink) && op->create->id >> 63 == 0 &&
		       op->create->time >= 0 && op->create->ctime >= op->create->time;
	case GRANARY__META_OP__OP_LINK:
		return name_is_possible(op->link->name);
	case GRANARY__META_OP__OP_UNLINK:
		return name_is_possible(op->unlink->name) && op->unlink->time >= 0;
	case GRANARY__META_OP__OP_RENAME:
		return name_is_possible(op->rename->name) && name_is_possible(op->rename->new_name) && op->rename->time >= 0;
	case GRANARY__META_OP__OP_SETATTR:
		return op->setattr->time >= 0;
	case GRANARY__META_OP__OP_SET_XATTR:
		return !has_nul(op->set_xattr->name);
	case GRANARY__META_OP__OP_GET_XATTR:
		return !has_nul(op->get_xattr->name);
	case GRANARY__META_OP__OP_REMOVE_XATTR:
		return !has_nul(op->remove_xattr->name);
	case GRANARY__META_OP__OP_TRASH_LIST:
		return name_is_possible(op->trash_list->name) && name_is_possible(op->trash_list->after_name);
	case GRANARY__META_OP__OP_UNDELETE:
		return name_is_possible(op->undelete->name);
	case GRANARY__META_OP__OP_SET_INODE_CLASS:
		return class_is_possible(op->set_inode_class->class_);
	case GRANARY__META_OP__OP_OPEN_PACK:
		return class_is_possible(op->open_pack->class_);
	case GRANARY__META_OP__OP_COMMIT_CHUNKS:
		return op->commit_chunks->n_written <= CHUNKS_WRITTEN_MAX;
	case GRANARY__META_OP__OP_SET_LOCK:
		return op->set_lock->range != NULL;
	case GRANARY__META_OP__OP_TEST_LOCK:
		return op->test_lock->range != NULL;
	case GRANARY__META_OP__OP_SESSION_BEGIN:
	case GRANARY__META_OP__OP_SESSION_END:
	case GRANARY__META_OP__OP_SERVER_REGISTER:
	case GRANARY__META_OP__OP_CHUNK_CHANGE:
	case GRANARY__META_OP__OP_RECLAIM:
	case GRANARY__META_OP__OP_GARBAGE_DONE:
	case GRANARY__META_OP__OP_CLUSTER_INIT:
	case GRANARY__META_OP__OP_SET_SETTINGS:
	case GRANARY__META_OP__OP_SET_CLASS:
	case GRANARY__META_OP__OP_TASK_RUN:
	case GRANARY__META_OP__OP_FSCK_REPAIR:
	case GRANARY__META_OP__OP_COPY_REMOVE:
	case GRANARY__META_OP__OP_RESTORE:
	case GRANARY__META_OP__OP_COOL_BEGIN:
	case GRANARY__META_OP__OP_COOL_COMMIT:
	case GRANARY__META_OP__OP_WARM_BEGIN:
	case GRANARY__META_OP__OP_WARM_COMMIT:
	case GRANARY__META_OP__OP_COLD_UNDO:
	case GRANARY__META_OP__OP_CHUNK_THAW:
	case GRANARY__META_OP__OP_SHARD_REBUILD:
	case GRANARY__META_OP__OP_SERVER_DRAIN:
	case GRANARY__META_OP__OP_BLOB_MOVE:
		return false;
	default:
		return true;
	}
}

enum err meta_validate(const Granary__MetaRequest *request)
{
	if (request->n_ops > META_OPS_PER_BATCH_MAX)
		return ERR_INVALID;
	for (size_t i = 0; i < request->n_ops; i++)
		if (!op_is_valid(request->ops[i]))
			return ERR_INVALID;
	if (meta_is_query(request))
		return OK;
	if (request->session == 0 || request->slot >= SESSION_SLOTS || request->sequence == 0)
		return ERR_INVALID;
	return OK;
}
