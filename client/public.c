#include "client/public.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/storage_class.h"

const char *granary_error_text(granary_status status)
{
	return err_text((enum err)status);
}

int granary_error_errno(granary_status status)
{
	return err_errno((enum err)status);
}

const char *granary_message(const struct granary_cluster *cluster)
{
	return cluster->message.size ? (const char *)cluster->message.bytes : "";
}

/* ---- messages ---- */

/* What the user can do about it, where that is known. */
static void append_advice(struct granary_cluster *cluster, enum err err)
{
	const char *addresses = (const char *)cluster->addresses.bytes;
	double seconds = (double)cluster->timeout_ms / 1000;
	switch (err) {
	case ERR_UNREACHABLE:
	case ERR_CLOSED:
		buf_printf(&cluster->message,
			   ": no master answered at %s within %g s (is the cluster running, and the address right?)",
			   addresses, seconds);
		break;
	case ERR_NO_LEADER:
	case ERR_NOT_LEADER:
		buf_printf(&cluster->message,
			   ": the masters at %s have had no leader for %g s (a majority of them must be running and "
			   "reach each other)",
			   addresses, seconds);
		break;
	case ERR_TIMEOUT:
		buf_printf(&cluster->message, ": no answer within %g s (see 'granary admin status')", seconds);
		break;
	case ERR_NO_SPACE:
		buf_printf(
		    &cluster->message,
		    ": the chunkservers are full (add a server, delete something, or run 'granary admin rebalance')");
		break;
	case ERR_NO_SERVERS:
		buf_printf(&cluster->message,
			   ": not enough chunkservers are up to hold the copies (see 'granary admin servers')");
		break;
	case ERR_CORRUPT:
		buf_printf(&cluster->message, ": no replica has these bytes right (see 'granary admin fsck')");
		break;
	case ERR_CHAIN_BROKEN:
	case ERR_NO_LEASE:
	case ERR_NO_CHUNK:
	case ERR_STALE_VERSION:
	case ERR_STORE_FAILED:
		buf_printf(&cluster->message,
			   ": the servers that hold the data do not answer (see 'granary admin servers')");
		break;
	case ERR_NO_SESSION:
		buf_printf(
		    &cluster->message,
		    ": this client was out of touch with the masters for too long; what it had not flushed is lost");
		break;
	case ERR_WRONG_CLUSTER:
		buf_printf(&cluster->message, ": %s is not the cluster that was talked to before", addresses);
		break;
	default:
		break;
	}
}

granary_status public_result(struct granary_cluster *cluster, const char *what, const char *subject, enum err err)
{
	if (err == OK)
		return OK;
	buf_clear(&cluster->message);
	buf_printf(&cluster->message, "%s%s%s: %s", what, *subject ? " " : "", subject, err_text(err));
	append_advice(cluster, err);
	buf_append(&cluster->message, "", 1);
	return (granary_status)err;
}

granary_status public_result_id(struct granary_cluster *cluster, const char *what, uint64_t id, enum err err)
{
	struct buf subject = {0};
	buf_printf(&subject, "%" PRIu64, id);
	buf_append(&subject, "", 1);
	granary_status status = public_result(cluster, what, (const char *)subject.bytes, err);
	buf_deinit(&subject);
	return status;
}

/* ---- waiting ---- */

void wait_done(void *arg, enum err err)
{
	struct wait *wait = arg;
	wait->err = err;
	wait->done = true;
}

enum err wait_for(struct granary_cluster *cluster, struct wait *wait)
{
	while (!wait->done)
		loop_run_once(cluster->loop);
	return wait->err;
}

struct meta_wait {
	struct wait wait;
	Granary__MetaReply *reply;
};

static void meta_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct meta_wait *wait = arg;
	if (err == OK)
		wait->reply = (Granary__MetaReply *)message_copy(&reply->base);
	wait_done(&wait->wait, err);
}

enum err public_meta(struct granary_cluster *cluster, Granary__MetaOp *const *ops, size_t op_count,
		     Granary__MetaReply **reply)
{
	struct meta_wait wait = {0};
	*reply = NULL;
	client_meta(cluster->client, ops, op_count, meta_done, &wait);
	enum err err = wait_for(cluster, &wait.wait);
	*reply = wait.reply;
	for (size_t i = 0; err == OK && i < op_count; i++)
		if (wait.reply->results[i]->error)
			err = err_from_wire(wait.reply->results[i]->error);
	return err;
}

void public_create(struct granary_cluster *cluster, uint64_t parent, struct slice name, uint32_t mode, Granary__Create *out)
{
	granary__create__init(out);
	out->parent = parent;
	out->name = message_borrow(name);
	out->mode = mode;
	out->uid = cluster->uid;
	out->gid = cluster->gid;
	out->class_ = cluster->storage_class;
}

void public_walk(struct granary_cluster *cluster, const char *path, bool follow, struct walked *out)
{
	*out = (struct walked){.parent_label = ""};
	if (!path || path[0] != '/') {
		out->err = ERR_INVALID;
		return;
	}
	size_t size = strlen(path);
	if (size > PATH_BYTES_MAX) {
		out->err = ERR_NAME_TOO_LONG;
		return;
	}
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Walk walk = GRANARY__WALK__INIT;
	walk.path = message_borrow(slice_of(path, size));
	walk.follow = follow;
	op.op_case = GRANARY__META_OP__OP_WALK;
	op.walk = &walk;
	out->err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &out->reply);
	if (!out->reply)
		return;
	const Granary__MetaResult *result = out->reply->results[0];
	out->parent = result->parent;
	out->name = message_bytes(result->name);
	out->parent_label = result->class_;
	out->inode = result->inode;
	out->attr = result->attr;
	if (out->err == OK && (!out->attr || out->inode == 0))
		out->err = ERR_PROTOCOL;
}

void walked_deinit(struct walked *walked)
{
	if (walked->reply)
		message_free(&walked->reply->base);
	walked->reply = NULL;
}

enum err walked_for_new(const struct walked *walked)
{
	if (walked->err == ERR_NOT_FOUND && walked->parent != 0 && walked->name.size > 0)
		return OK;
	if (walked->err == OK && (walked->parent == 0 || walked->name.size == 0))
		return ERR_EXISTS; /* the root */
	return walked->err;
}

void public_stat(uint64_t inode, const Granary__Inode *attr, struct granary_stat *out)
{
	*out = (struct granary_stat){
	    .inode = inode,
	    .size = attr->size,
	    .blocks = attr->blocks,
	    .change = attr->change,
	    .mode = attr->mode,
	    .uid = attr->uid,
	    .gid = attr->gid,
	    .nlink = attr->nlink,
	    .rdev = attr->rdev,
	    .atime_ns = attr->atime,
	    .mtime_ns = attr->mtime,
	    .ctime_ns = attr->ctime,
	    .btime_ns = attr->btime,
	    .layout = attr->layout,
	    .pack = attr->pack,
	    .slot = attr->slot,
	};
	snprintf(out->storage_class, sizeof out->storage_class, "%s", storage_class_name(attr->class_));
}

/* ---- connect ---- */

static void status_answered(void *arg, enum err err, const Granary__MetaReply *reply)
{
	(void)reply;
	wait_done(arg, err);
}

/* Asks for the root: the leader answers, and there is a session. */
static enum err try_leader(struct granary_cluster *cluster)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	struct wait wait = {0};
	getattr.inode = 1;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	client_meta(cluster->client, (Granary__MetaOp *[]){&op}, 1, status_answered, &wait);
	return wait_for(cluster, &wait);
}

granary_status granary_connect(const struct granary_options *options, struct granary_cluster **out)
{
	struct granary_cluster *cluster = mem_zero(1, sizeof *cluster);
	*out = cluster; /* with an error, too: for its message */
	cluster->timeout_ms = options->timeout_ms ? options->timeout_ms : CLIENT_TIMEOUT_MS;
	cluster->uid = options->uid;
	cluster->gid = options->gid;
	cluster->storage_class = mem_string(options->storage_class ? options->storage_class : "");
	enum err err = loop_open(&cluster->loop);
	if (err)
		return public_result(cluster, "connect", "", err);
	err = client_find_cluster(cluster->loop, options->cluster, options->config, &cluster->addresses);
	if (err) {
		public_result(cluster, "connect", options->config ? options->config : "", err);
		if (err == ERR_NOT_FOUND && !options->config) {
			buf_clear(&cluster->message);
			buf_printf(&cluster->message, "connect: no cluster is given (use --cluster HOST:PORT,… or "
						      "$GRANARY_CLUSTER, or write 'cluster = "
						      "HOST:PORT,…' to ~/.config/granary/client.conf)");
			buf_append(&cluster->message, "", 1);
		}
		return (granary_status)err;
	}
	struct client_options client_options = {
	    .cluster = (const char *)cluster->addresses.bytes,
	    .timeout_ms = cluster->timeout_ms,
	};
	err = client_open(cluster->loop, &client_options, &cluster->client);
	if (err == OK)
		err = try_leader(cluster);
	return public_result(cluster, "connect", (const char *)cluster->addresses.bytes, err);
}

static void left(void *arg)
{
	wait_done(arg, OK);
}

void granary_close(struct granary_cluster *cluster)
{
	struct wait wait = {0};
	if (!cluster)
		return;
	if (cluster->client) {
		if (client_session(cluster->client) != 0) {
			client_leave(cluster->client, left, &wait);
			while (!wait.done)
				loop_run_once(cluster->loop);
		}
		client_close(cluster->client);
	}
	if (cluster->loop)
		loop_close(cluster->loop);
	buf_deinit(&cluster->addresses);
	buf_deinit(&cluster->message);
	free(cluster->storage_class);
	free(cluster);
}
