/* granary.h: streams and whole blobs. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "client/blob_op.h"
#include "client/public.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/mode.h"
#include "common/proto/storage_class.h"

#define REPLACED_MAX 8u       /* times a file may be replaced while we open it */
#define COPY_BYTES (4u * MIB) /* read or written at a time */

struct granary_file {
	struct granary_cluster *cluster;
	struct file_io *io;
	uint64_t inode;
	int flags;
};

/* ---- open ---- */

static struct granary_file *file_new(struct granary_cluster *cluster, uint64_t inode, const Granary__Inode *attr,
				     int flags)
{
	struct granary_file *file = mem_zero(1, sizeof *file);
	file->cluster = cluster;
	file->inode = inode;
	file->flags = flags;
	file->io = file_io_open(cluster->client, inode, attr);
	return file;
}

/* Opens the inode at the leader, so that an unlink leaves its data. */
static enum err open_inode(struct granary_cluster *cluster, uint64_t inode, int flags, struct granary_file **out)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Open open = GRANARY__OPEN__INIT;
	Granary__MetaReply *reply;
	open.inode = inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &open;
	client_note_opened(cluster->client, inode);
	enum err err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &reply);
	if (err == OK && !reply->results[0]->attr)
		err = ERR_PROTOCOL;
	if (err == OK && reply->results[0]->attr->nlink == 0)
		err = ERR_NOT_FOUND; /* removed; kept only for those who have it open */
	if (err == OK && mode_is_directory(reply->results[0]->attr->mode))
		err = ERR_IS_DIRECTORY;
	if (err == OK && !mode_is_file(reply->results[0]->attr->mode))
		err = ERR_INVALID;
	if (err == OK)
		*out = file_new(cluster, inode, reply->results[0]->attr, flags);
	else
		client_note_closed(cluster->client, inode);
	if (reply)
		message_free(&reply->base);
	return err;
}

/* Without a name: held by the session; the parent only says what it inherits, and may be 0. */
static enum err create_inode(struct granary_cluster *cluster, uint64_t parent, struct slice name, uint32_t mode,
			     int flags, struct granary_file **out)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create create;
	Granary__MetaReply *reply;
	public_create(cluster, parent, name, MODE_FILE | (mode & MODE_PERMISSIONS), &create);
	create.exclusive = flags & O_EXCL;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	enum err err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &reply);
	if (err == OK && (!reply->results[0]->attr || reply->results[0]->inode == 0))
		err = ERR_PROTOCOL;
	if (err == OK) {
		client_note_opened(cluster->client, reply->results[0]->inode);
		*out = file_new(cluster, reply->results[0]->inode, reply->results[0]->attr, flags);
	}
	if (reply)
		message_free(&reply->base);
	return err;
}

static enum err truncate_io(struct granary_file *file, uint64_t size)
{
	struct wait wait = {0};
	file_io_truncate(file->io, size, wait_done, &wait);
	return wait_for(file->cluster, &wait);
}

static void file_free(struct granary_file *file)
{
	client_note_closed(file->cluster->client, file->inode);
	file_io_close(file->io);
	free(file);
}

static enum err open_path_once(struct granary_cluster *cluster, const char *path, int flags, uint32_t mode,
			       struct granary_file **out)
{
	struct walked walked;
	public_walk(cluster, path, !(flags & O_EXCL), &walked);
	enum err err = walked.err;
	if (flags & O_CREAT) {
		if (err == OK && (flags & O_EXCL))
			err = ERR_EXISTS;
		else if (err == ERR_NOT_FOUND)
			err = walked_for_new(&walked);
	}
	if (err == OK && walked.inode != 0) {
		err = open_inode(cluster, walked.inode, flags, out);
		if (err == ERR_NOT_FOUND)
			err = ERR_STALE_HANDLE;
	} else if (err == OK)
		err = create_inode(cluster, walked.parent, walked.name, mode, flags, out);
	if (err == OK && (flags & O_TRUNC) && file_io_attr((*out)->io)->size > 0) {
		err = truncate_io(*out, 0);
		if (err)
			file_free(*out);
	}
	walked_deinit(&walked);
	return err;
}

/* Between the two requests another file may have taken the name. */
static enum err open_path(struct granary_cluster *cluster, const char *path, int flags, uint32_t mode,
			  struct granary_file **out)
{
	enum err err = ERR_STALE_HANDLE;
	for (unsigned i = 0; i < REPLACED_MAX && err == ERR_STALE_HANDLE; i++)
		err = open_path_once(cluster, path, flags, mode, out);
	return err;
}

granary_status granary_open(struct granary_cluster *cluster, const char *path, int flags, uint32_t mode,
			    struct granary_file **out)
{
	*out = NULL;
	enum err err = open_path(cluster, path, flags, mode, out);
	if (err)
		*out = NULL;
	return public_result(cluster, "open", path, err);
}

granary_status granary_open_id(struct granary_cluster *cluster, uint64_t id, struct granary_file **out)
{
	*out = NULL;
	return public_result_id(cluster, "open", id, open_inode(cluster, id, O_RDONLY, out));
}

granary_status granary_open_unnamed(struct granary_cluster *cluster, const char *path, uint32_t mode, struct granary_file **out)
{
	uint64_t parent = 0;
	*out = NULL;
	if (path) {
		struct walked walked;
		public_walk(cluster, path, true, &walked);
		/* What is not there, or is no place for a file, is publish's business. */
		bool is_directory = walked.err == OK && mode_is_directory(walked.attr->mode);
		parent = is_directory ? walked.inode : walked.parent;
		walked_deinit(&walked);
	}
	return public_result(cluster, "create", path ? path : "", create_inode(cluster, parent, slice_of(NULL, 0), mode, O_RDWR, out));
}

/* ---- data ---- */

struct read_wait {
	struct wait wait;
	uint8_t *bytes;
	size_t size, done;
};

static void read_done(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct read_wait *wait = arg;
	for (size_t i = 0; err == OK && i < part_count; i++) {
		check(parts[i].size <= wait->size - wait->done);
		memcpy(wait->bytes + wait->done, parts[i].bytes, parts[i].size);
		wait->done += parts[i].size;
	}
	wait_done(&wait->wait, err);
}

static enum err read_all(struct granary_file *file, void *bytes, size_t size, uint64_t offset, size_t *done)
{
	*done = 0;
	while (*done < size) {
		struct read_wait wait = {.bytes = (uint8_t *)bytes + *done};
		wait.size = size - *done < COPY_BYTES ? size - *done : COPY_BYTES;
		file_io_read(file->io, offset + *done, wait.size, read_done, &wait);
		enum err err = wait_for(file->cluster, &wait.wait);
		*done += wait.done;
		if (err || wait.done == 0)
			return err;
	}
	return OK;
}

static enum err write_all(struct granary_file *file, const void *bytes, size_t size, uint64_t offset)
{
	for (size_t at = 0; at < size;) {
		size_t part = size - at < COPY_BYTES ? size - at : COPY_BYTES;
		struct wait wait = {0};
		file_io_write(file->io, offset + at, slice_of((const uint8_t *)bytes + at, part), wait_done, &wait);
		enum err err = wait_for(file->cluster, &wait);
		if (err)
			return err;
		at += part;
	}
	return OK;
}

static enum err sync_io(struct granary_file *file)
{
	struct wait wait = {0};
	file_io_sync(file->io, wait_done, &wait);
	return wait_for(file->cluster, &wait);
}

static bool may_write(const struct granary_file *file)
{
	return (file->flags & O_ACCMODE) != O_RDONLY;
}

granary_status granary_pread(struct granary_file *file, void *bytes, size_t size, uint64_t offset, size_t *done)
{
	return public_result_id(file->cluster, "read", file->inode, read_all(file, bytes, size, offset, done));
}

granary_status granary_pwrite(struct granary_file *file, const void *bytes, size_t size, uint64_t offset)
{
	enum err err = may_write(file) ? OK : ERR_NOT_PERMITTED;
	if (file->flags & O_APPEND)
		offset = file_io_attr(file->io)->size;
	if (err == OK)
		err = write_all(file, bytes, size, offset);
	return public_result_id(file->cluster, "write", file->inode, err);
}

granary_status granary_fsync(struct granary_file *file)
{
	return public_result_id(file->cluster, "fsync", file->inode, sync_io(file));
}

granary_status granary_ftruncate(struct granary_file *file, uint64_t size)
{
	enum err err = may_write(file) ? truncate_io(file, size) : ERR_NOT_PERMITTED;
	return public_result_id(file->cluster, "truncate", file->inode, err);
}

granary_status granary_fstat(struct granary_file *file, struct granary_stat *out)
{
	public_stat(file->inode, file_io_attr(file->io), out);
	return OK;
}

granary_status granary_file_close(struct granary_file *file)
{
	if (!file)
		return OK;
	struct granary_cluster *cluster = file->cluster;
	struct wait wait = {0};
	file_io_flush(file->io, wait_done, &wait);
	enum err err = wait_for(cluster, &wait);
	uint64_t inode = file->inode;
	file_free(file);
	return public_result_id(cluster, "close", inode, err);
}

granary_status granary_truncate(struct granary_cluster *cluster, const char *path, uint64_t size)
{
	struct granary_file *file = NULL;
	enum err err = open_path(cluster, path, O_RDWR, 0, &file);
	if (err == OK) {
		err = truncate_io(file, size);
		struct wait wait = {0};
		file_io_flush(file->io, wait_done, &wait);
		enum err flushed = wait_for(cluster, &wait);
		err = err ? err : flushed;
		file_free(file);
	}
	return public_result(cluster, "truncate", path, err);
}

/* ---- publish ---- */

/* Where it is to be published. An error is one of the publication. */
static enum err walk_to(struct granary_cluster *cluster, const struct granary_publish *publish, struct walked *walked)
{
	*walked = (struct walked){.parent_label = ""};
	if (!publish->path)
		return OK;
	public_walk(cluster, publish->path, true, walked);
	enum err err = walked_for_new(walked);
	return err == OK && publish->if_absent && walked->err == OK ? ERR_EXISTS : err;
}

/* `before`: at most 2 operations that come first. inode 0: what they make. */
static enum err link_request(struct granary_cluster *cluster, Granary__MetaOp *const *before, uint64_t inode,
			     const struct walked *walked, const struct granary_publish *publish, uint64_t *id)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Link link = GRANARY__LINK__INIT;
	Granary__MetaOp *ops[3];
	Granary__MetaReply *reply;
	size_t count = 0;
	link.inode = inode;
	link.parent = walked->parent;
	link.name = message_borrow(walked->name);
	link.replace = publish->path && !publish->if_absent;
	link.expect_change = publish->if_change;
	op.op_case = GRANARY__META_OP__OP_LINK;
	op.link = &link;
	for (; before && before[count]; count++)
		ops[count] = before[count];
	ops[count] = &op;
	enum err err = public_meta(cluster, ops, count + 1, &reply);
	if (err == OK && id)
		*id = inode ? inode : reply->results[0]->inode;
	if (reply)
		message_free(&reply->base);
	return err;
}

static enum err publish_file(struct granary_file *file, const struct granary_publish *publish, uint64_t *id)
{
	struct walked walked;
	enum err err = sync_io(file);
	if (err)
		return err;
	err = walk_to(file->cluster, publish, &walked);
	if (err == OK)
		err = link_request(file->cluster, NULL, file->inode, &walked, publish, id);
	walked_deinit(&walked);
	return err;
}

granary_status granary_publish(struct granary_file *file, struct granary_publish *publish)
{
	return public_result(file->cluster, "put", publish->path ? publish->path : "", publish_file(file, publish, &publish->id));
}

/* ---- whole blobs ---- */

struct append_wait {
	struct wait wait;
	uint64_t pack;
	uint32_t slot;
};

static void append_done(void *arg, enum err err, uint64_t pack, uint32_t slot)
{
	struct append_wait *wait = arg;
	wait->pack = pack;
	wait->slot = slot;
	wait_done(&wait->wait, err);
}

static enum err append(struct granary_cluster *cluster, const void *bytes, size_t size, const char *label, Granary__CommitBlob *commit)
{
	struct append_wait wait = {0};
	struct iobuf *data = iobuf_open((uint32_t)size);
	memcpy(data->bytes, bytes, size);
	data->size = (uint32_t)size;
	blob_append(cluster->client, &(struct blob_request){.label = label, .data = data, .sync = true}, append_done, &wait);
	iobuf_unref(data);
	enum err err = wait_for(cluster, &wait.wait);
	commit->pack = wait.pack;
	commit->slot = wait.slot;
	commit->bytes = (uint32_t)size;
	return err;
}

/* The record first, then one request: the file, its content, its name. */
static enum err put_small(struct granary_cluster *cluster, const void *bytes, size_t size, uint32_t mode,
			  const struct granary_publish *publish, uint64_t *id)
{
	Granary__MetaOp create_op = GRANARY__META_OP__INIT, commit_op = GRANARY__META_OP__INIT;
	Granary__Create create;
	Granary__CommitBlob commit = GRANARY__COMMIT_BLOB__INIT;
	struct walked walked;
	enum err err = walk_to(cluster, publish, &walked);
	public_create(cluster, walked.parent, slice_of(NULL, 0), MODE_FILE | (mode & MODE_PERMISSIONS), &create);
	create_op.op_case = GRANARY__META_OP__OP_CREATE;
	create_op.create = &create;
	commit_op.op_case = GRANARY__META_OP__OP_COMMIT_BLOB;
	commit_op.commit_blob = &commit;
	const char *label = cluster->storage_class[0] ? storage_class_label(cluster->storage_class) : walked.parent_label;
	if (err == OK && size > 0)
		err = append(cluster, bytes, size, label, &commit);
	Granary__MetaOp *ops[] = {&create_op, size > 0 ? &commit_op : NULL, NULL};
	if (err == OK)
		err = link_request(cluster, ops, 0, &walked, publish, id);
	walked_deinit(&walked);
	return err;
}

static enum err put_large(struct granary_cluster *cluster, const void *bytes, size_t size, uint32_t mode,
			  const struct granary_publish *publish, uint64_t *id)
{
	struct granary_file *file = NULL;
	struct walked walked;
	enum err err = walk_to(cluster, publish, &walked);
	if (err == OK)
		err = create_inode(cluster, walked.parent, slice_of(NULL, 0), mode, O_RDWR, &file);
	walked_deinit(&walked);
	if (err)
		return err;
	err = write_all(file, bytes, size, 0);
	if (err == OK)
		err = publish_file(file, publish, id);
	file_free(file);
	return err;
}

static enum err put(struct granary_cluster *cluster, const void *bytes, size_t size, uint32_t mode,
		    const struct granary_publish *publish, uint64_t *id)
{
	return size <= BLOB_BYTES_MAX ? put_small(cluster, bytes, size, mode, publish, id)
				      : put_large(cluster, bytes, size, mode, publish, id);
}

granary_status granary_put(struct granary_cluster *cluster, const char *path, const void *bytes, size_t size,
			   uint32_t mode)
{
	struct granary_publish publish = {.path = path};
	return public_result(cluster, "put", path, put(cluster, bytes, size, mode, &publish, NULL));
}

granary_status granary_put_id(struct granary_cluster *cluster, const void *bytes, size_t size, uint64_t *id)
{
	struct granary_publish publish = {0};
	return public_result(cluster, "put", "--id", put(cluster, bytes, size, 0600, &publish, id));
}

static enum err get(struct granary_file *file, void **bytes, size_t *size)
{
	uint64_t wanted = file_io_attr(file->io)->size;
	if (wanted > SIZE_MAX / 2)
		return ERR_TOO_LARGE;
	*bytes = malloc(wanted + 1);
	if (!*bytes)
		return ERR_TOO_LARGE;
	enum err err = read_all(file, *bytes, (size_t)wanted, 0, size);
	if (err) {
		free(*bytes);
		*bytes = NULL;
	}
	return err;
}

/* A blob comes as a whole: it need not be opened, but if it was replaced meanwhile it may be gone (ERR_STALE_HANDLE).
 * ERR_NOT_SUPPORTED: no blob. */
static enum err get_blob(struct granary_cluster *cluster, const char *path, void **bytes, size_t *size)
{
	struct walked walked;
	public_walk(cluster, path, true, &walked);
	enum err err = walked.err;
	if (err == OK && walked.attr->layout != GRANARY__LAYOUT__LAYOUT_BLOB)
		err = ERR_NOT_SUPPORTED;
	if (err == OK) {
		client_note_opened(cluster->client, walked.inode);
		struct granary_file *file = file_new(cluster, walked.inode, walked.attr, O_RDONLY);
		err = get(file, bytes, size);
		if (err == ERR_NOT_FOUND || (err == OK && *size != walked.attr->size))
			err = ERR_STALE_HANDLE;
		if (err) {
			free(*bytes);
			*bytes = NULL;
		}
		file_free(file);
	}
	walked_deinit(&walked);
	return err;
}

granary_status granary_get(struct granary_cluster *cluster, const char *path, void **bytes, size_t *size)
{
	struct granary_file *file = NULL;
	*bytes = NULL;
	*size = 0;
	enum err err = ERR_STALE_HANDLE;
	for (unsigned i = 0; i < REPLACED_MAX && err == ERR_STALE_HANDLE; i++)
		err = get_blob(cluster, path, bytes, size);
	if (err != ERR_NOT_SUPPORTED)
		return public_result(cluster, "get", path, err);
	err = open_path(cluster, path, O_RDONLY, 0, &file);
	if (err == OK) {
		err = get(file, bytes, size);
		file_free(file);
	}
	return public_result(cluster, "get", path, err);
}

granary_status granary_get_id(struct granary_cluster *cluster, uint64_t id, void **bytes, size_t *size)
{
	struct granary_file *file = NULL;
	*bytes = NULL;
	*size = 0;
	enum err err = open_inode(cluster, id, O_RDONLY, &file);
	if (err == OK) {
		err = get(file, bytes, size);
		file_free(file);
	}
	return public_result_id(cluster, "get", id, err);
}
