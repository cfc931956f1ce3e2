#include "master/gate.h"

#include "common/proto/mode.h"

/* Directories whose names it changes. */
static void parents(const Granary__MetaRequest *request, gate_fn *fn, void *arg)
{
	for (size_t i = 0; i < request->n_ops; i++) {
		const Granary__MetaOp *op = request->ops[i];
		switch (op->op_case) {
		case GRANARY__META_OP__OP_CREATE:
			fn(arg, op->create->parent);
			break;
		case GRANARY__META_OP__OP_LINK:
			fn(arg, op->link->parent);
			break;
		case GRANARY__META_OP__OP_UNLINK:
			fn(arg, op->unlink->parent);
			break;
		case GRANARY__META_OP__OP_RENAME:
			fn(arg, op->rename->parent);
			fn(arg, op->rename->new_parent);
			break;
		case GRANARY__META_OP__OP_UNDELETE:
			fn(arg, op->undelete->parent);
			break;
		default:
			break;
		}
	}
}

/* The directory that a name leads to now. */
static void resolve(struct meta *meta, uint64_t parent, ProtobufCBinaryData name, gate_fn *fn, void *arg)
{
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = { &op };
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaReply *reply = NULL;

	lookup.parent = parent;
	lookup.name = name;
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	request.n_ops = 1;
	request.ops = ops;
	if (meta_query(meta, &request, &reply))
		return; /* the change itself will find out */
	if (reply->results[0]->error == OK && mode_is_directory(reply->results[0]->attr->mode))
		fn(arg, reply->results[0]->inode);
	message_unref(&reply->base);
}

/* What cannot be given away is not looked after either. */
static void directory(struct meta *meta, uint64_t inode, gate_fn *fn, void *arg)
{
	if (inode != 0 && meta_is_directory(meta, inode))
		fn(arg, inode);
}

void gate_change(struct meta *meta, const Granary__MetaRequest *request, gate_fn *fn, void *arg)
{
	parents(request, fn, arg);
	for (size_t i = 0; i < request->n_ops; i++) {
		const Granary__MetaOp *op = request->ops[i];
		switch (op->op_case) {
		case GRANARY__META_OP__OP_UNLINK:
			if (op->unlink->directory)
				resolve(meta, op->unlink->parent, op->unlink->name, fn, arg);
			break;
		case GRANARY__META_OP__OP_RENAME:
			resolve(meta, op->rename->parent, op->rename->name, fn, arg);
			resolve(meta, op->rename->new_parent, op->rename->new_name, fn, arg);
			break;
		case GRANARY__META_OP__OP_SETATTR:
			directory(meta, op->setattr->inode, fn, arg);
			break;
		case GRANARY__META_OP__OP_SET_INODE_CLASS:
			directory(meta, op->set_inode_class->inode, fn, arg);
			break;
		case GRANARY__META_OP__OP_SET_XATTR:
			directory(meta, op->set_xattr->inode, fn, arg);
			break;
		case GRANARY__META_OP__OP_REMOVE_XATTR:
			directory(meta, op->remove_xattr->inode, fn, arg);
			break;
		case GRANARY__META_OP__OP_LOOKUP:
			fn(arg, op->lookup->parent);
			break;
		case GRANARY__META_OP__OP_READDIR:
			fn(arg, op->readdir->inode);
			break;
		case GRANARY__META_OP__OP_GETATTR:
			fn(arg, op->getattr->inode);
			break;
		default:
			break;
		}
	}
}

void gate_query(const Granary__MetaRequest *request, const Granary__MetaReply *reply, gate_fn *fn, void *arg)
{
	for (size_t i = 0; i < request->n_ops; i++) {
		const Granary__MetaOp *op = request->ops[i];
#ifndef PLANT_GATE_WITHOUT_DIRECTORY
		if (op->op_case == GRANARY__META_OP__OP_LOOKUP)
			fn(arg, op->lookup->parent);
		else
#endif
			if (op->op_case == GRANARY__META_OP__OP_READDIR)
			fn(arg, op->readdir->inode);
		else if (op->op_case == GRANARY__META_OP__OP_TRASH_LIST)
			fn(arg, op->trash_list->parent);
	}
	for (size_t i = 0; i < reply->n_results; i++) {
		const Granary__MetaResult *result = reply->results[i];
		fn(arg, result->inode);
		fn(arg, result->parent);
		for (size_t k = 0; k < result->n_visited; k++)
			fn(arg, result->visited[k]);
		for (size_t k = 0; k < result->n_entries; k++) {
			if (result->entries[k]->attr)
				fn(arg, result->entries[k]->inode);
		}
	}
}

bool gate_query_tells_names(const Granary__MetaRequest *request, const Granary__MetaReply *reply)
{
	for (size_t i = 0; i < request->n_ops; i++) {
		const Granary__Inode *attr = i < reply->n_results ? reply->results[i]->attr : NULL;
		switch (request->ops[i]->op_case) {
		case GRANARY__META_OP__OP_LOOKUP:
		case GRANARY__META_OP__OP_READDIR:
		case GRANARY__META_OP__OP_WALK:
		case GRANARY__META_OP__OP_TRASH_LIST:
			return true;
		default:
			if (attr && mode_is_directory(attr->mode))
				return true;
		}
	}
	return false;
}

bool gate_change_needs_names(const Granary__MetaRequest *request)
{
	for (size_t i = 0; i < request->n_ops; i++) {
		const Granary__MetaOp *op = request->ops[i];
		switch (op->op_case) {
		case GRANARY__META_OP__OP_CREATE:
			if (op->create->id == 0 && op->create->name.len > 0)
				return true;
			break;
		case GRANARY__META_OP__OP_LOOKUP:
		case GRANARY__META_OP__OP_READDIR:
		case GRANARY__META_OP__OP_WALK:
		case GRANARY__META_OP__OP_TRASH_LIST:
		case GRANARY__META_OP__OP_LINK:
		case GRANARY__META_OP__OP_UNDELETE:
			return true;
		case GRANARY__META_OP__OP_UNLINK:
			if (op->unlink->inode == 0)
				return true;
			break;
		case GRANARY__META_OP__OP_RENAME:
			if (op->rename->inode == 0)
				return true;
			break;
		default:
			break;
		}
	}
	return false;
}

bool gate_change_was_done(const Granary__MetaRequest *request)
{
	bool made = false, was_done = true;

#ifdef PLANT_DONE_IS_HELD
	return false;
#endif
	for (size_t i = 0; i < request->n_ops && was_done; i++) {
		const Granary__MetaOp *op = request->ops[i];
		switch (op->op_case) {
		case GRANARY__META_OP__OP_CREATE:
			was_done = op->create->time != 0;
			made |= was_done && mode_is_file(op->create->mode);
			break;
		case GRANARY__META_OP__OP_UNLINK:
			was_done = op->unlink->time != 0;
			break;
		case GRANARY__META_OP__OP_RENAME:
			was_done = op->rename->time != 0;
			break;
		case GRANARY__META_OP__OP_SETATTR:
			was_done = made || op->setattr->time != 0;
			break;
		case GRANARY__META_OP__OP_COMMIT_BLOB:
		case GRANARY__META_OP__OP_COMMIT_CHUNKS:
		case GRANARY__META_OP__OP_OPEN:
			was_done = made;
			break;
		case GRANARY__META_OP__OP_OPEN_PACK: /* where the data of such files goes */
			break;
		default:
			was_done = false;
			break;
		}
	}
	return was_done;
}
