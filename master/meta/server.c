/* Chunkservers and the cluster itself. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"

enum err op_server_register(struct context *context, const Granary__ServerRegister *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	if (op->server == 0)
		return ERR_INVALID;
	struct key key = key_of(KEY_SERVER, op->server);
	const Granary__Server *known = store_message(&meta->store, &key, &granary__server__descriptor);
	if (known && strcmp(known->address, op->address) == 0 && strcmp(known->host, op->host) == 0 &&
	    strcmp(known->location, op->location) == 0)
		return OK;
	Granary__Server *server = mem_alloc(sizeof(*server));
	granary__server__init(server);
	server->registered = known ? known->registered : (uint64_t)context->now_ns;
	server->draining = known && known->draining;
	if (op->address[0])
		server->address = mem_string(op->address);
	if (op->host[0])
		server->host = mem_string(op->host);
	if (op->location[0])
		server->location = mem_string(op->location);
	store_put_message(&meta->store, &key, &server->base);
	meta->servers_changed = true;
	return OK;
}

enum err op_server_drain(struct context *context, const Granary__ServerDrain *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	struct key key = key_of(KEY_SERVER, op->server);
	const Granary__Server *known = store_message(&meta->store, &key, &granary__server__descriptor);
	if (!known)
		return ERR_NOT_FOUND;
	if (known->draining == op->draining)
		return OK;
	Granary__Server *server = (Granary__Server *)message_copy(&known->base);
	server->draining = op->draining;
	store_put_message(&meta->store, &key, &server->base);
	meta->servers_changed = true;
	return OK;
}

/* Once; the root directory, which was there before any time was, gets its times. */
enum err op_cluster_init(struct context *context, const Granary__ClusterInit *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	if (op->cluster == 0)
		return ERR_INVALID;
	if (meta->state->cluster)
		return meta->state->cluster == op->cluster ? OK : ERR_EXISTS;
	meta->state->cluster = op->cluster;
	Granary__Inode *root = inode_edit(meta, META_ROOT_INODE);
	if (!root)
		return ERR_CORRUPT;
	inode_data_changed(context, META_ROOT_INODE, root);
	root->atime = root->btime = context->now_ns;
	return OK;
}
