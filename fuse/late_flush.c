#include "fuse/late_flush.h"

#include <stdlib.h>

#include "client/client.h"
#include "common/base/check.h"
#include "common/sys/log.h"
#include "fuse/recall.h"
#include "fuse/reply.h"
#include "fuse/request.h"

/* Lives with its node until the node is closed; the node's file_io is there as long. */
struct late_flush {
	struct mount *mount;
	struct node *node;
	struct timer timer;
};

static void late_done(void *arg, enum err err)
{
	struct request *request = arg;
	struct node *node = request->node;

	if (err == OK) {
		node_learn(node, file_io_attr(request->io));
	} else {
		log_warn("late_flush_failed", "inode=%llu error=%s", (unsigned long long)node->inode, err_name(err));
		node->late_error = reply_errno(err);
		recall_lost(request->mount, node);
	}
	request_close(request);
}

static void late_run(void *arg)
{
	struct late_flush *late = arg;
	struct node *node = late->node;
	struct request *request;

	if (!file_io_dirty(node->io) || node->unlinked || node->lost)
		return;
	request = request_open_silent(late->mount, node);
	request_changes(request, node);
	/* Shared with the node, which may be closed before this ends. */
	request->io = file_io_open(late->mount->client, node->inode, file_io_attr(node->io));
	file_io_flush(request->io, late_done, request);
}

void late_flush_start(struct mount *mount, struct node *node)
{
	struct late_flush *late = node->late;

	if (!late) {
		late = mem_zero(1, sizeof *late);
		late->mount = mount;
		late->node = node;
		timer_init(&late->timer, mount->loop, late_run, late);
		node->late = late;
	}
	if (!timer_is_running(&late->timer))
		timer_start(&late->timer, LATE_FLUSH_MS);
}

void late_flush_cancel(struct node *node)
{
	if (!node->late)
		return;
	timer_stop(&node->late->timer);
	free(node->late);
	node->late = NULL;
}

int late_flush_error(struct node *node)
{
	int error = node->late_error;

	node->late_error = 0;
	return error;
}
