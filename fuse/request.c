#include "fuse/request.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "fuse/patience.h"
#include "fuse/recall.h"
#include "fuse/reply.h"

struct request *request_open_silent(struct mount *mount, struct node *node)
{
	struct request *request = mem_zero(1, sizeof *request);

	request->mount = mount;
	request->started_ms = loop_now_ms(mount->loop);
	request->node = node;
	node_hold(node);
	mount_busy(mount);
	return request;
}

struct request *request_open(fuse_req_t fuse, uint64_t nodeid)
{
	struct mount *mount = fuse_req_userdata(fuse);
	struct node *node = handles_find(&mount->handles, nodeid);
	struct request *request;

	if (!node) {
		fuse_reply_err(fuse, ESTALE);
		return NULL;
	}
	request = request_open_silent(mount, node);
	request->fuse = fuse;
	request->drop = mount->wants_drop;
	patience_add(request);
	return request;
}

void request_changes(struct request *request, struct node *node)
{
	struct node **place = request->changing[0] ? &request->changing[1] : &request->changing[0];

	if (request->changing[0] == node)
		return;
	check(!*place);
	*place = node;
	node_hold(node);
	node->mutating++;
	recall_yield(request->mount, node->nodeid);
}

bool request_changes_id(struct request *request, uint64_t nodeid)
{
	struct node *node = handles_find(&request->mount->handles, nodeid);

	if (!node) {
		request_end_errno(request, ESTALE);
		return false;
	}
	request_changes(request, node);
	return true;
}

void request_close(struct request *request)
{
	struct mount *mount = request->mount;

	for (int i = 0; i < 2; i++) {
		if (!request->changing[i])
			continue;
		mount->epoch++;
		request->changing[i]->mutating--;
		node_drop(&mount->handles, request->changing[i]);
	}
	if (request->opened_ms != 0)
		patience_remove(request);
	if (request->io)
		file_io_close(request->io);
	for (int i = 0; i < (int)MOUNT_IO_PARTS; i++)
		iobuf_unref(request->parts[i]);
	node_drop(&mount->handles, request->node);
	free(request->name);
	free(request->new_name);
	free(request);
	mount_done(mount);
}

void request_end_errno(struct request *request, int number)
{
	if (request->fuse)
		fuse_reply_err(request->fuse, number);
	request_close(request);
}

void request_end(struct request *request, enum err err)
{
	int number = err == OK ? 0 : reply_errno(err);

	if (number == ETIMEDOUT && request->moves_data)
		request->mount->away_ms = loop_now_ms(request->mount->loop);
	request_end_errno(request, number);
}

static void barrier_done(void *arg)
{
	struct request *request = arg;

	request->go(request);
}

void request_barrier(struct request *request, uint64_t directory, void (*go)(struct request *request))
{
	request->go = go;
	if (!client_barrier(request->mount->client, directory, barrier_done, request))
		go(request);
}

bool node_is_local(const struct node *node)
{
	return node->io && file_io_is_local(node->io);
}

void request_meta(struct request *request, Granary__MetaOp *op, client_meta_fn *done)
{
	request->started_ms = loop_now_ms(request->mount->loop);
	client_meta(request->mount->client, &op, 1, done, request);
}

const Granary__MetaResult *request_result(enum err *err, const Granary__MetaReply *reply, size_t i,
					  const Granary__MetaResult **failed)
{
	const Granary__MetaResult *result;

	if (failed)
		*failed = NULL;
	if (*err != OK)
		return NULL;
	if (!reply || i >= reply->n_results) {
		*err = ERR_PROTOCOL;
		return NULL;
	}
	result = reply->results[i];
	*err = result->error ? err_from_wire(result->error) : OK;
	if (*err == OK)
		return result;
	if (failed)
		*failed = result;
	return NULL;
}

void mount_busy(struct mount *mount)
{
	mount->busy++;
}

void mount_done(struct mount *mount)
{
	check(mount->busy > 0);
	if (--mount->busy == 0 && mount->idle)
		mount->idle(mount->idle_arg);
}

enum node_verdict mount_judge(const struct node *node, const Granary__Inode *attr)
{
	return node_judge(node, attr, node->io ? file_io_own_change(node->io) : 0);
}

struct node *mount_node(struct mount *mount, uint64_t inode, const Granary__Inode *attr)
{
	struct node *node = handles_node(&mount->handles, inode);

	if (mount_judge(node, attr) != NODE_CHANGED) {
		node_learn(node, attr);
	} else if (!node_is_writing(node)) {
		node = handles_renew(&mount->handles, inode);
		node_learn(node, attr);
	}
	/* Changed by others while this mount changes it, too: the next lock, open or getattr brings it together. */
	return node;
}

/* A directory in which this mount has made files that the master does not know yet. */
static void show_touched(struct mount *mount, uint64_t inode, struct stat *stat)
{
	int64_t touched_ns = S_ISDIR(stat->st_mode) ? client_directory_touched(mount->client, inode) : 0;
	struct timespec touched = {.tv_sec = touched_ns / 1000000000, .tv_nsec = touched_ns % 1000000000};

	if (touched_ns == 0 || touched.tv_sec < stat->st_mtim.tv_sec ||
	    (touched.tv_sec == stat->st_mtim.tv_sec && touched.tv_nsec <= stat->st_mtim.tv_nsec))
		return;
	stat->st_mtim = touched;
	stat->st_ctim = touched;
}

struct node *mount_entry(struct mount *mount, const Granary__Inode *attr, uint64_t inode, uint32_t lease_ms,
			 uint64_t started_ms, struct fuse_entry_param *entry)
{
	struct node *node = mount_node(mount, inode, attr);
	const Granary__Inode *data = node->io && file_io_dirty(node->io) ? file_io_attr(node->io) : NULL;
	const Granary__Inode *ours = S_ISDIR(node->type) ? client_directory_attr(mount->client, inode) : NULL;

	node_lease(node, attr, started_ms + lease_ms);
	node->lookups++;
	*entry = (struct fuse_entry_param){.ino = node->nodeid, .generation = 1};
	reply_stat(inode, ours ? ours : attr, data, &entry->attr);
	show_touched(mount, inode, &entry->attr);
	entry->entry_timeout = reply_timeout(lease_ms, started_ms, loop_now_ms(mount->loop));
	/* The master may have said so before it knew of a change of ours. */
	entry->attr_timeout = !ours && client_is_changing(mount->client, inode) ? 0 : entry->entry_timeout;
	return node;
}

void request_known_entry(struct request *request, uint64_t inode, const Granary__Inode *attr, uint32_t lease_ms, uint64_t started_ms)
{
	struct fuse_entry_param entry;
	struct node *node = mount_entry(request->mount, attr, inode, lease_ms, started_ms, &entry);

	node_name(&request->mount->handles, node, request->node->nodeid, request->name, started_ms);
	if (fuse_reply_entry(request->fuse, &entry) != 0)
		node_forget(&request->mount->handles, node, 1);
	request_close(request);
}

void request_entry(struct request *request, const Granary__MetaResult *result)
{
	if (result->attr && result->inode != 0)
		request_known_entry(request, result->inode, result->attr, result->lease_ms, request->started_ms);
	else
		request_end(request, ERR_PROTOCOL);
}

void request_attr(struct request *request, const Granary__Inode *attr, uint32_t lease_ms)
{
	struct node *node = request->node;
	const Granary__Inode *data = node->io && file_io_dirty(node->io) ? file_io_attr(node->io) : NULL;
	struct stat stat;

	if (lease_ms > 0)
		node_lease(node, attr, request->started_ms + lease_ms);
	reply_stat(node->inode, attr, data, &stat);
	show_touched(request->mount, node->inode, &stat);
	fuse_reply_attr(request->fuse, &stat,
			reply_timeout(lease_ms, request->started_ms, loop_now_ms(request->mount->loop)));
	request_close(request);
}
