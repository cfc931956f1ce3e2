#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "fuse/ops.h"
#include "fuse/reply.h"

/* The C library knows these only with newer headers of the kernel's interface. */
#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1u
#define RENAME_EXCHANGE 2u
#endif

static ProtobufCBinaryData name_of(const char *name)
{
	return message_borrow(slice_text(name));
}

/* Opens a request on directory `parent` for `name`; NULL when it has been answered already. */
static struct request *open_named(fuse_req_t fuse, fuse_ino_t parent, const char *name, bool changes)
{
	struct request *request;

	if (strlen(name) > NAME_BYTES_MAX) {
		fuse_reply_err(fuse, ENAMETOOLONG);
		return NULL;
	}
	request = request_open(fuse, parent);
	if (!request)
		return NULL;
	request->name = mem_string(name);
	if (changes)
		request_changes(request, request->node);
	return request;
}

/* ---- lookup, forget */

static void lookup_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *failed;
	const Granary__MetaResult *result = request_result(&err, reply, 0, &failed);

	if (result) {
		request_entry(request, result);
		return;
	}
	if (err == ERR_NOT_FOUND)
		handles_drop_name(&request->mount->handles, request->node->nodeid, request->name);
	if (err == ERR_NOT_FOUND && failed && failed->lease_ms > 0) {
		struct fuse_entry_param nothing = {
		    .entry_timeout = reply_timeout(failed->lease_ms, request->started_ms,
						   loop_now_ms(request->mount->loop)),
		};

		fuse_reply_entry(request->fuse, &nothing);
		request_close(request);
		return;
	}
	request_end(request, err);
}

static struct node *named(const struct request *request)
{
	struct node_name *name = handles_find_name(&request->mount->handles, request->node->nodeid, request->name);

	return name ? name->node : NULL;
}

static void reply_local(struct request *request, uint64_t inode, const Granary__Inode *attr)
{
	struct mount *mount = request->mount;

	request_known_entry(request, inode, attr, client_delegation_ms(mount->client, request->node->inode), loop_now_ms(mount->loop));
}

/* The attributes of a directory that is known to have this name, both delegated to us; NULL: not known. */
static const Granary__Inode *known_directory(const struct request *request)
{
	const struct node_name *name = handles_find_name(&request->mount->handles, request->node->nodeid, request->name);

	if (!name || !S_ISDIR(name->node->type) ||
	    !client_is_delegated_since(request->mount->client, request->node->inode, name->seen_ms))
		return NULL;
	return client_directory_attr(request->mount->client, name->node->inode);
}

/* Names in a directory that is delegated to us. */
static bool lookup_local(struct request *request)
{
	struct client *client = request->mount->client;
	uint64_t directory = request->node->inode;
	struct file_io *io = client_find_local(client, directory, slice_text(request->name));
	const Granary__Inode *known = io ? NULL : known_directory(request);

	if (io) {
		reply_local(request, file_io_inode(io), file_io_attr(io));
	} else if (known) {
		reply_local(request, named(request)->inode, known);
	} else if (client_knows_absent(client, directory, slice_text(request->name)) ||
		   client_name_is_removed(client, directory, slice_text(request->name))) {
		/* Not to be remembered: nobody would take it back. */
		handles_drop_name(&request->mount->handles, request->node->nodeid, request->name);
		request_end(request, ERR_NOT_FOUND);
	} else {
		return false;
	}
	return true;
}

/* What was asked for before it was needed. */
static bool lookup_ahead(struct request *request)
{
	uint64_t started_ms;
	const Granary__DirectoryEntry *found = ahead_find(request, &started_ms);

	/* Of a directory in one that is ours the master's answer may bring the delegation, too. */
	if (!found || (S_ISDIR(found->attr->mode) && client_delegation_ms(request->mount->client, request->node->inode) > 0))
		return false;
	request_known_entry(request, found->inode, found->attr, found->lease_ms, started_ms);
	return true;
}

static void lookup_send(struct request *request)
{
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	lookup.parent = request->node->inode;
	lookup.name = name_of(request->name);
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	request_meta(request, &op, lookup_done);
}

void on_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct request *request = open_named(fuse, parent, name, false);
	struct node *node;

	if (!request || lookup_local(request))
		return;
	if (lookup_ahead(request))
		return;
	node = named(request);
	/* Not its attributes of before. */
	if (node && client_is_changing(request->mount->client, node->inode))
		request_barrier(request, node->inode, lookup_send);
	else
		lookup_send(request);
}

void on_forget(fuse_req_t fuse, fuse_ino_t nodeid, uint64_t lookups)
{
	on_forget_multi(fuse, 1, &(struct fuse_forget_data){.ino = nodeid, .nlookup = lookups});
}

void on_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *forgets)
{
	struct mount *mount = fuse_req_userdata(fuse);

	for (size_t i = 0; i < count; i++) {
		struct node *node = handles_find(&mount->handles, forgets[i].ino);

		if (node)
			node_forget(&mount->handles, node, forgets[i].nlookup);
	}
	fuse_reply_none(fuse);
}

/* ---- new names */

static void create_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);

	if (result)
		request_entry(request, result);
	else
		request_end(request, err);
}

/* In a directory that is delegated to us. */
static bool create_local(struct request *request, Granary__Create *message)
{
	Granary__Inode attr;

	if (!client_make(request->mount->client, message, &attr))
		return false;
	reply_local(request, message->id, &attr);
	return true;
}

static void create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev, const char *target)
{
	const struct fuse_ctx *context = fuse_req_ctx(fuse);
	Granary__Create message = GRANARY__CREATE__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request = open_named(fuse, parent, name, true);

	if (!request)
		return;
	if (client_find_local(request->mount->client, request->node->inode, slice_text(name))) {
		request_end(request, ERR_EXISTS);
		return;
	}
	message.parent = request->node->inode;
	message.name = name_of(name);
	message.mode = mode;
	message.uid = context->uid;
	message.gid = context->gid;
	message.rdev = (uint32_t)rdev;
	message.exclusive = true;
	if (target)
		message.symlink = name_of(target);
	if (create_local(request, &message))
		return;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &message;
	request_meta(request, &op, create_done);
}

void on_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	create(fuse, parent, name, mode, rdev, NULL);
}

void on_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode)
{
	create(fuse, parent, name, (mode & 07777) | S_IFDIR, 0, NULL);
}

void on_symlink(fuse_req_t fuse, const char *target, fuse_ino_t parent, const char *name)
{
	if (strlen(target) > SYMLINK_BYTES_MAX)
		fuse_reply_err(fuse, ENAMETOOLONG);
	else
		create(fuse, parent, name, S_IFLNK | 0777, 0, target);
}

static void readlink_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);
	char target[SYMLINK_BYTES_MAX + 1];

	if (!result) {
		request_end(request, err);
		return;
	}
	if (!result->attr || !S_ISLNK(result->attr->mode) || result->attr->symlink.len > SYMLINK_BYTES_MAX) {
		request_end_errno(request, EINVAL);
		return;
	}
	memcpy(target, result->attr->symlink.data, result->attr->symlink.len);
	target[result->attr->symlink.len] = '\0';
	fuse_reply_readlink(request->fuse, target);
	request_close(request);
}

void on_readlink(fuse_req_t fuse, fuse_ino_t nodeid)
{
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	struct request *request = request_open(fuse, nodeid);

	if (!request)
		return;
	getattr.inode = request->node->inode;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	request_meta(request, &op, readlink_done);
}

static void link_send(struct request *request)
{
	Granary__Link link = GRANARY__LINK__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	link.inode = request->offset;
	link.parent = request->node->inode;
	link.name = name_of(request->name);
	op.op_case = GRANARY__META_OP__OP_LINK;
	op.link = &link;
	request_meta(request, &op, create_done);
}

void on_link(fuse_req_t fuse, fuse_ino_t nodeid, fuse_ino_t parent, const char *name)
{
	struct request *request = open_named(fuse, parent, name, true);
	struct node *node;

	if (!request)
		return;
	node = handles_find(&request->mount->handles, nodeid);
	if (!node) {
		request_end_errno(request, ESTALE);
		return;
	}
	request_changes(request, node);
	request->offset = node->inode;
	/* The file, too, may be one that the master does not know yet. */
	request_barrier(request, 0, link_send);
}

/* ---- names that go away */

static void unlink_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);

	if (result)
		handles_drop_name(&request->mount->handles, request->node->nodeid, request->name);
	request_end(request, err);
}

/* A change that has been answered as done is: the process does not end before. */
static void change_done(void *arg, enum err err, const Granary__MetaResult *result)
{
	struct request *request = arg;

	(void)err;
	(void)result;
	request_close(request);
}

/* Another name of the file is for others to see: they are not kept away from that. */
static bool has_only_name(const struct node *node)
{
	return node && (S_ISDIR(node->type) || node->nlink == 1) && !node_is_local(node);
}

static void unlink_message(const struct request *request, Granary__Unlink *message)
{
	message->parent = request->node->inode;
	message->name = name_of(request->name);
	message->directory = request->flags;
}

/* In a directory that is delegated to us. */
static bool unlink_local(struct request *request)
{
	struct mount *mount = request->mount;
	struct node *node = named(request);
	Granary__Unlink message = GRANARY__UNLINK__INIT;
	struct request *behind;

	unlink_message(request, &message);
	if (!has_only_name(node) || S_ISDIR(node->type) != message.directory)
		return false;
	message.inode = node->inode;
	behind = request_open_silent(mount, node);
	if (!client_unlink(mount->client, &message, change_done, behind)) {
		request_close(behind);
		return false;
	}
	handles_drop_name(&mount->handles, request->node->nodeid, request->name);
	request_end(request, OK);
	return true;
}

static void unlink_send(struct request *request)
{
	Granary__Unlink message = GRANARY__UNLINK__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	unlink_message(request, &message);
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &message;
	request_meta(request, &op, unlink_done);
}

static void unlink_settled(struct request *request)
{
	if (!unlink_local(request))
		unlink_send(request);
}

static void unlink_name(fuse_req_t fuse, fuse_ino_t parent, const char *name, bool directory)
{
	struct request *request = open_named(fuse, parent, name, true);
	struct node *node;

	if (!request)
		return;
	request->flags = directory;
	if (unlink_local(request))
		return;
	node = named(request);
	/* A directory is empty only if nothing in it is on its way. */
	if (directory)
		request_barrier(request, node ? node->inode : 0, unlink_send);
	else if (client_find_local(request->mount->client, request->node->inode, slice_text(name)))
		request_barrier(request, request->node->inode, unlink_settled);
	else
		unlink_send(request);
}

void on_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	unlink_name(fuse, parent, name, false);
}

void on_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	unlink_name(fuse, parent, name, true);
}

/* What a rename's new name leads to. */
static struct node *named_new(const struct request *request)
{
	struct node_name *name = handles_find_name(&request->mount->handles, request->offset, request->new_name);

	return name ? name->node : NULL;
}

/* The node at the old name is found at the new one. */
static void rename_names(struct request *request, struct node *node)
{
	struct handles *handles = &request->mount->handles;

	handles_drop_name(handles, request->node->nodeid, request->name);
	handles_drop_name(handles, request->offset, request->new_name);
	if (node)
		node_name(handles, node, request->offset, request->new_name, loop_now_ms(request->mount->loop));
}

static void rename_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct request *request = arg;
	const Granary__MetaResult *result = request_result(&err, reply, 0, NULL);

	if (result)
		rename_names(request, handles_find_inode(&request->mount->handles, result->inode));
	request_end(request, err);
}

/* In directories that are delegated to us. */
static bool rename_local(struct request *request, Granary__Rename *message)
{
	struct mount *mount = request->mount;
	struct node *node = named(request), *replaced = named_new(request);
	struct request *behind;

	if (!has_only_name(node) || (S_ISDIR(node->type) && (replaced || request->offset != request->node->nodeid)) ||
	    (replaced && (!has_only_name(replaced) || S_ISDIR(replaced->type) || message->no_replace)))
		return false;
	message->inode = node->inode;
	message->replaced = replaced ? replaced->inode : 0;
	behind = request_open_silent(mount, node);
	if (!client_rename(mount->client, message, change_done, behind)) {
		message->inode = message->replaced = 0;
		request_close(behind);
		return false;
	}
	rename_names(request, node);
	request_end(request, OK);
	return true;
}

/* What is replaced would be gone, and there is no room for what replaces it. */
static bool would_lose_both(const struct request *request)
{
	const struct node *node = named(request);

	return node && node->io && file_io_is_stranded(node->io) && named_new(request) && !(request->flags & RENAME_EXCHANGE);
}

static void rename_send(struct request *request)
{
	Granary__Rename message = GRANARY__RENAME__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	message.parent = request->node->inode;
	message.name = name_of(request->name);
	message.new_parent = handles_find(&request->mount->handles, request->offset)->inode; /* held as changing */
	message.new_name = name_of(request->new_name);
	message.no_replace = request->flags & RENAME_NOREPLACE;
	message.exchange = request->flags & RENAME_EXCHANGE;
	if (would_lose_both(request)) {
		request_end(request, ERR_NO_SPACE);
		return;
	}
	if (rename_local(request, &message))
		return;
	op.op_case = GRANARY__META_OP__OP_RENAME;
	op.rename = &message;
	request_meta(request, &op, rename_done);
}

/* Any of the names may lead to what the master does not know yet, or to a directory that is empty only by then. */
static bool rename_must_wait(const struct request *request)
{
	const struct node *node = named(request), *replaced = named_new(request);

	return !node || node_is_local(node) || (replaced && (S_ISDIR(replaced->type) || node_is_local(replaced)));
}

void on_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	       unsigned flags)
{
	struct request *request;

	if (strlen(new_name) > NAME_BYTES_MAX) {
		fuse_reply_err(fuse, ENAMETOOLONG);
		return;
	}
	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
		fuse_reply_err(fuse, EINVAL);
		return;
	}
	request = open_named(fuse, parent, name, true);
	if (!request || !request_changes_id(request, new_parent))
		return;
	request->new_name = mem_string(new_name);
	request->offset = new_parent;
	request->flags = (int)flags;
	if (rename_must_wait(request))
		request_barrier(request, 0, rename_send);
	else
		rename_send(request);
}
