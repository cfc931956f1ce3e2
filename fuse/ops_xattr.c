#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "fuse/ops.h"
#include "fuse/reply.h"

/* ACLs stored but not enforced would be worse than none: they are refused. Answers the request when the name is not to be
 * had, else opens it. */
static struct request *open_attribute(fuse_req_t fuse, fuse_ino_t nodeid, const char *name)
{
	if (strncmp(name, "system.", strlen("system.")) == 0) {
		fuse_reply_err(fuse, EOPNOTSUPP);
		return NULL;
	}
	if (strlen(name) > XATTR_NAME_BYTES_MAX) {
		fuse_reply_err(fuse, ERANGE);
		return NULL;
	}
	return request_open(fuse, nodeid);
}

static void change_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;

	request_result(&err, reply, 0, NULL);
	/* An answer from before the change may have come in meanwhile. */
	node_unlease(request->node);
	request_end(request, err);
}

/* An attribute for a file that the master does not know yet: again when it does. */
struct late_attribute {
	struct request *request;
	uint64_t nodeid;
	struct buf value;
	int flags;
};

static void setxattr_stored(void *arg, enum err err)
{
	struct late_attribute *late = arg;
	struct request *request = late->request;

	if (err == OK) {
		request->mount->unique = request->unique;
		on_setxattr(request->fuse, late->nodeid, request->name, (const char *)late->value.bytes, late->value.size,
			    late->flags);
		request_close(request);
	} else {
		request_end(request, err);
	}
	buf_deinit(&late->value);
	free(late);
}

void on_setxattr(fuse_req_t fuse, fuse_ino_t nodeid, const char *name, const char *value, size_t size, int flags)
{
	Granary__SetXattr message = GRANARY__SET_XATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request;

	if (size > XATTR_VALUE_BYTES_MAX) {
		fuse_reply_err(fuse, E2BIG);
		return;
	}
	request = open_attribute(fuse, nodeid, name);
	if (!request)
		return;
	if (node_is_local(request->node)) {
		struct late_attribute *late = mem_zero(1, sizeof *late);

		request->name = mem_string(name);
		*late = (struct late_attribute){.request = request, .nodeid = nodeid, .flags = flags};
		buf_set(&late->value, slice_of(value, size));
		file_io_flush(request->node->io, setxattr_stored, late);
		return;
	}
	request_changes(request, request->node);
	message.inode = request->node->inode;
	message.name = message_borrow(slice_text(name));
	message.value = message_borrow(slice_of(value, size));
	message.create = flags & XATTR_CREATE;
	message.replace = flags & XATTR_REPLACE;
	op.op_case = GRANARY__META_OP__OP_SET_XATTR;
	op.set_xattr = &message;
	request_meta(request, &op, change_done);
}

void on_removexattr(fuse_req_t fuse, fuse_ino_t nodeid, const char *name)
{
	Granary__RemoveXattr message = GRANARY__REMOVE_XATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request = open_attribute(fuse, nodeid, name);

	if (!request)
		return;
	if (node_is_local(request->node)) {
		request_end_errno(request, ENODATA);
		return;
	}
	request_changes(request, request->node);
	message.inode = request->node->inode;
	message.name = message_borrow(slice_text(name));
	op.op_case = GRANARY__META_OP__OP_REMOVE_XATTR;
	op.remove_xattr = &message;
	request_meta(request, &op, change_done);
}

/* Size 0 asks how much there is. */
static void reply_value(struct request *request, const void *bytes, size_t size)
{
	if (request->size == 0)
		fuse_reply_xattr(request->fuse, size);
	else if (request->size < size)
		fuse_reply_err(request->fuse, ERANGE);
	else
		fuse_reply_buf(request->fuse, bytes, size);
	request_close(request);
}

static void getxattr_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	enum err attr_err = OK;
	const Granary__MetaResult *attr = request_result(&attr_err, reply, 1, NULL);

	if (attr && attr->attr)
		node_lease(request->node, attr->attr, request->started_ms + attr->lease_ms);
	if (result)
		reply_value(request, result->value.data, result->value.len);
	else
		request_end(request, err);
}

static bool is_plain(const struct request *request)
{
	return node_is_local(request->node) || loop_now_ms(request->mount->loop) < request->node->plain_until_ms;
}

/* The kernel asks for security.capability before the first write(2) and every chown(2), so that it can drop it. That a file has no
 * attributes is remembered as long as the lease on it lasts, which a new one would recall. */
void on_getxattr(fuse_req_t fuse, fuse_ino_t nodeid, const char *name, size_t size)
{
	Granary__GetXattr message = GRANARY__GET_XATTR__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op[2] = {GRANARY__META_OP__INIT, GRANARY__META_OP__INIT};
	Granary__MetaOp *ops[2] = {&op[0], &op[1]};
	struct request *request = open_attribute(fuse, nodeid, name);

	if (!request)
		return;
	if (is_plain(request)) {
		request_end_errno(request, ENODATA);
		return;
	}
	request->size = size;
	message.inode = getattr.inode = request->node->inode;
	message.name = message_borrow(slice_text(name));
	op[0].op_case = GRANARY__META_OP__OP_GET_XATTR;
	op[0].get_xattr = &message;
	op[1].op_case = GRANARY__META_OP__OP_GETATTR;
	op[1].getattr = &getattr;
	client_meta(request->mount->client, ops, 2, getxattr_done, request);
}

static void listxattr_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	struct buf names = {0};

	if (!result) {
		request_end(request, err);
		return;
	}
	for (size_t i = 0; i < result->n_names; i++) {
		buf_append(&names, result->names[i].data, result->names[i].len);
		buf_append(&names, "", 1);
	}
	reply_value(request, names.bytes, names.size);
	buf_deinit(&names);
}

void on_listxattr(fuse_req_t fuse, fuse_ino_t nodeid, size_t size)
{
	Granary__ListXattr message = GRANARY__LIST_XATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return;
	request->size = size;
	if (is_plain(request)) {
		reply_value(request, "", 0);
		return;
	}
	message.inode = request->node->inode;
	op.op_case = GRANARY__META_OP__OP_LIST_XATTR;
	op.list_xattr = &message;
	request_meta(request, &op, listxattr_done);
}
