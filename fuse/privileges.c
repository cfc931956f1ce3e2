#include "fuse/privileges.h"

#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/proto/mode.h"

#define CAPABILITY "security.capability" /* linux/xattr.h: XATTR_NAME_CAPS */

/* ---- what libfuse does not know */

static bool wants_drop(uint32_t opcode, const void *body, size_t size)
{
	const struct fuse_write_in *write = body;
	const struct fuse_setattr_in *setattr = body;
	const struct fuse_open_in *open = body;

	switch (opcode) {
	case FUSE_WRITE:
		return size >= sizeof *write && write->write_flags & FUSE_WRITE_KILL_SUIDGID;
	case FUSE_SETATTR:
		return size >= sizeof *setattr && setattr->valid & FATTR_KILL_SUIDGID;
	case FUSE_OPEN:
		return size >= sizeof *open && open->open_flags & FUSE_OPEN_KILL_SUIDGID;
	default:
		return false;
	}
}

void privileges_look(struct mount *mount, const void *bytes, size_t size)
{
	const struct fuse_in_header *header = bytes;
	const struct fuse_init_in *init = (const void *)(header + 1);

	mount->wants_drop = false;
	if (size < sizeof *header)
		return;
	mount->unique = header->unique;
	size -= sizeof *header;
	mount->wants_drop = wants_drop(header->opcode, header + 1, size);
	if (header->opcode == FUSE_INIT && size >= offsetof(struct fuse_init_in, flags) + sizeof init->flags &&
	    init->major == FUSE_KERNEL_VERSION && init->flags & FUSE_HANDLE_KILLPRIV_V2)
		mount->init_unique = header->unique;
}

/* The answer to INIT, of which older kernels get a part only. */
static ssize_t write_init(int descriptor, const struct iovec *vectors)
{
	struct fuse_init_out out = {0};
	struct iovec copy[2] = {vectors[0], {&out, vectors[1].iov_len}};

	memcpy(&out, vectors[1].iov_base, vectors[1].iov_len);
	out.flags |= FUSE_HANDLE_KILLPRIV_V2;
	return writev(descriptor, copy, 2);
}

/* All that libfuse tells the kernel. Called by workers, too (recall.c), but not before INIT has been answered. */
static ssize_t on_writev(int descriptor, struct iovec *vectors, int count, void *userdata)
{
	struct mount *mount = userdata;
	const struct fuse_out_header *header = vectors[0].iov_base;

	if (mount->init_unique == 0 || header->unique != mount->init_unique)
		return writev(descriptor, vectors, count);
	mount->init_unique = 0;
	if (count == 2 && header->error == 0 && vectors[1].iov_len <= sizeof(struct fuse_init_out) &&
	    vectors[1].iov_len >= offsetof(struct fuse_init_out, flags) + sizeof(uint32_t))
		return write_init(descriptor, vectors);
	return writev(descriptor, vectors, count);
}

/* Required by libfuse; requests are read by kernel.c. */
static ssize_t on_read(int descriptor, void *bytes, size_t size, void *userdata)
{
	(void)userdata;
	return read(descriptor, bytes, size);
}

enum err privileges_negotiate(struct mount *mount)
{
	static const struct fuse_custom_io io = {.writev = on_writev, .read = on_read};

	return fuse_session_custom_io(mount->session, &io, fuse_session_fd(mount->session)) == 0 ? OK : ERR_IO;
}

/* ---- dropping
 *
 *	local file:  changed here ------------------------------------------------------------------.
 *	otherwise:   known to have nothing -> go                                                     v
 *	             Getattr, GetXattr -> has nothing -> go,  or Setattr, RemoveXattr -> attributes dropped in the kernel -> go */

static bool has_bits(const struct node *node)
{
	uint32_t ours = node->io ? file_io_attr(node->io)->mode : node->mode;

	return node->mode != mode_unprivileged(node->mode) || ours != mode_unprivileged(ours);
}

bool privileges_possible(const struct request *request)
{
	const struct node *node = request->node;
	uint64_t now_ms = loop_now_ms(request->mount->loop);

	if (has_bits(node))
		return true;
	return !node_is_local(node) && now_ms >= node->plain_until_ms && now_ms >= node->bare_until_ms;
}

/* The kernel forgets the attributes. Unlike other notifications (recall.h) this one is sent from the loop: it waits for no lock that
 * is held around a request, as no pages are dropped (offset below 0), and not for an inode on its way out, as this one is held
 * by the request that we have not answered (fuse_reverse_inval_inode in fs/fuse/inode.c). On a worker it could wait behind
 * notifications that wait for a page which the kernel keeps locked around this very write. */
static void dropped(struct request *request)
{
	fuse_lowlevel_notify_inval_inode(request->mount->session, request->node->nodeid, -1, 0);
	request->dropped(request, OK);
}

/* That others changed the data, too, is for the next open or getattr to find. */
static void learn(struct node *node, const Granary__Inode *attr)
{
	if (mount_judge(node, attr) == NODE_CHANGED)
		return;
	node_learn(node, attr);
	if (node->io)
		file_io_update(node->io, attr);
}

static void drop_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	struct node *node = request->node;

	for (size_t i = 0; err == OK && i < reply->n_results; i++) {
		const Granary__MetaResult *result = request_result(&err, reply, i, NULL);

		if (err == ERR_NO_ATTRIBUTE) /* others removed it, too */
			err = OK;
		if (result && result->attr)
			learn(node, result->attr);
	}
	if (err == OK)
		dropped(request);
	else
		request->dropped(request, err);
}

static void drop_send(struct request *request, bool bits, bool capability)
{
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;
	Granary__RemoveXattr remove = GRANARY__REMOVE_XATTR__INIT;
	Granary__MetaOp op[2] = {GRANARY__META_OP__INIT, GRANARY__META_OP__INIT};
	Granary__MetaOp *ops[2];
	size_t count = 0;

	if (bits) {
		setattr.inode = request->node->inode;
		setattr.by_owner_only = true;
		op[0].op_case = GRANARY__META_OP__OP_SETATTR;
		op[0].setattr = &setattr;
		ops[count++] = &op[0];
	}
	if (capability) {
		remove.inode = request->node->inode;
		remove.name = message_borrow(slice_text(CAPABILITY));
		op[1].op_case = GRANARY__META_OP__OP_REMOVE_XATTR;
		op[1].remove_xattr = &remove;
		ops[count++] = &op[1];
	}
	request_changes(request, request->node);
	client_meta(request->mount->client, ops, count, drop_done, request);
}

static void drop_asked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *now = request_result(&err, reply, 0, NULL);
	bool bits, capability;

	if (!now || !now->attr) {
		request->dropped(request, err == OK ? ERR_PROTOCOL : err);
		return;
	}
	capability = request_result(&err, reply, 1, NULL) != NULL;
	if (!capability && err != ERR_NO_ATTRIBUTE) {
		request->dropped(request, err);
		return;
	}
	bits = now->attr->mode != mode_unprivileged(now->attr->mode);
	learn(request->node, now->attr);
	if (!bits && !capability && now->attr->change >= request->node->change)
		request->node->bare_until_ms = request->started_ms + now->lease_ms;
	bits = bits && request->set_id;
	if (bits || capability)
		drop_send(request, bits, capability);
	else
		request->dropped(request, OK);
}

static void drop_ask(struct request *request)
{
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__GetXattr getxattr = GRANARY__GET_XATTR__INIT;
	Granary__MetaOp op[2] = {GRANARY__META_OP__INIT, GRANARY__META_OP__INIT};
	Granary__MetaOp *ops[2] = {&op[0], &op[1]};

	getattr.inode = getxattr.inode = request->node->inode;
	getxattr.name = message_borrow(slice_text(CAPABILITY));
	op[0].op_case = GRANARY__META_OP__OP_GETATTR;
	op[0].getattr = &getattr;
	op[1].op_case = GRANARY__META_OP__OP_GET_XATTR;
	op[1].get_xattr = &getxattr;
	request->started_ms = loop_now_ms(request->mount->loop);
	client_meta(request->mount->client, ops, 2, drop_asked, request);
}

static void drop_stored(void *arg, enum err err)
{
	struct request *request = arg;

	if (err == OK)
		drop_ask(request);
	else
		request->dropped(request, err);
}

void privileges_drop(struct request *request, bool set_id, privileges_fn *go)
{
	struct node *node = request->node;
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;

	if (!privileges_possible(request)) {
		go(request, OK);
		return;
	}
	request->dropped = go;
	request->set_id = set_id;
	if (!node_is_local(node)) {
		drop_ask(request);
		return;
	}
	if (!set_id) { /* what is not at the master has no capability */
		go(request, OK);
		return;
	}
	setattr.by_owner_only = true;
	if (file_io_setattr_local(node->io, &setattr))
		dropped(request);
	else
		file_io_flush(node->io, drop_stored, request);
}
