#include "master/master.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "common/sys/rpc.h"
#include "master/chunkserver_service.h"
#include "master/client_service.h"
#include "master/failure.h"
#include "master/identity.h"
#include "master/reclaim.h"
#include "master/status.h"

/* The entry that gives a new cluster its id. */
struct cluster_init {
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp op, *ops[1];
	Granary__ClusterInit change;
	bool proposed;
};

struct master {
	struct loop *loop;
	struct members members;
	char *directory;
	uint64_t id;
	void (*failed)(void *arg, enum err err);
	void *failed_arg;
	struct file *lock;
	struct identity identity;
	struct rpc *rpc;
	struct rpc_identity rpc_identity;
	struct replica *replica;
	struct sessions *sessions;
	struct servers *servers;
	struct fill fill;
	struct commands *commands;
	struct garbage *garbage;
	struct client_service *clients;
	struct chunkserver_service *chunkservers;
	struct failure *failure;
	struct reclaim *reclaim;
	struct status *status;
	struct timer housekeeping;
	struct cluster_init init;
};

/* ---- what the replica says */

static void on_cluster_init(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct cluster_init *init = container_of(proposal, struct cluster_init, proposal);

	(void)err;
	(void)reply;
	init->proposed = false;
}

static void cluster_init(struct master *master)
{
	struct cluster_init *init = &master->init;

	if (meta_cluster(replica_meta(master->replica)) != 0 || init->proposed)
		return;
	granary__meta_request__init(&init->request);
	granary__meta_op__init(&init->op);
	granary__cluster_init__init(&init->change);
	init->change.cluster = loop_random(master->loop) | 1;
	init->op.op_case = GRANARY__META_OP__OP_CLUSTER_INIT;
	init->op.cluster_init = &init->change;
	init->ops[0] = &init->op;
	init->request.n_ops = 1;
	init->request.ops = init->ops;
	init->proposal.request = &init->request;
	init->proposal.done = on_cluster_init;
	init->proposed = true;
	replica_propose(master->replica, &init->proposal);
}

static void on_leading(void *arg)
{
	struct master *master = arg;

	master->fill.wait_until_ms = loop_now_us(master->loop) / 1000 + PLACEMENT_WAIT_MS;
	chunkserver_service_leading(master->chunkservers);
	client_service_leading(master->clients);
	garbage_leading(master->garbage);
	reclaim_leading(master->reclaim);
	cluster_init(master);
}

static void on_deposed(void *arg)
{
	struct master *master = arg;

	client_service_deposed(master->clients);
	garbage_deposed(master->garbage);
	reclaim_deposed(master->reclaim);
	status_deposed(master->status);
}

static void on_applied(void *arg, const struct replica_applied *applied)
{
	struct master *master = arg;

	if (master->rpc_identity.cluster == 0 && meta_cluster(replica_meta(master->replica)) != 0) {
		master->rpc_identity.cluster = meta_cluster(replica_meta(master->replica));
		rpc_set_cluster(master->rpc, master->rpc_identity.cluster);
	}
	client_service_applied(master->clients, applied);
	if (applied->effects->garbage_added)
		garbage_added(master->garbage);
	if (applied->effects->orphans_added)
		reclaim_added(master->reclaim);
}

static void on_failed(void *arg, enum err err)
{
	struct master *master = arg;

	master->failed(master->failed_arg, err);
}

static const struct replica_events replica_events = {
	.leading = on_leading,
	.deposed = on_deposed,
	.applied = on_applied,
	.failed = on_failed,
};

static void on_command_done(void *arg, uint64_t server, const Granary__ChunkCommand *command, enum err err)
{
	struct master *master = arg;

	if (command->garbage)
		garbage_command_done(master->garbage, server, command, err);
	else if (err)
		log_info("chunk_command_failed", "server=%016" PRIx64 " chunk=%016" PRIx64 " error=%s", server, command->chunk,
			 err_name(err));
}

static void on_housekeeping(void *arg)
{
	struct master *master = arg;

	timer_start(&master->housekeeping, HOUSEKEEPING_MS);
	client_service_expire(master->clients);
}

/* ---- what the network says */

static void on_request(void *arg, struct rpc_request *request)
{
	struct master *master = arg;

	switch (request->type) {
	case MESSAGE_RAFT:
		if (rpc_conn_role(request->conn) == RPC_MASTER)
			replica_step(master->replica, (const Granary__RaftMessage *)request->message);
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL); /* one-way: only ends the request */
		break;
	case MESSAGE_SESSION_OPEN:
	case MESSAGE_SESSION_KEEPALIVE:
	case MESSAGE_META:
		client_service_serve(master->clients, request);
		break;
	case MESSAGE_REGISTER:
	case MESSAGE_HEARTBEAT:
	case MESSAGE_INVENTORY:
		chunkserver_service_serve(master->chunkservers, request);
		break;
	case MESSAGE_CHUNK_FAILURE:
		failure_serve(master->failure, request);
		break;
	case MESSAGE_CLUSTER_STATUS:
		status_serve(master->status, request);
		break;
	default:
		rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
		break;
	}
}

static void on_closed(void *arg, struct rpc_conn *conn)
{
	struct master *master = arg;

	sessions_connection_lost(master->sessions, conn);
	if (master->chunkservers)
		chunkserver_service_connection_lost(master->chunkservers, conn);
}

static const struct rpc_service service = { .serve = on_request, .closed = on_closed };

/* ---- opening */

static enum err directory_open(struct master *master, const struct master_options *options, struct buf *message)
{
	struct buf path = { 0 };
	struct identity_options identity = { .directory = options->directory,
					     .cluster = options->cluster,
					     .member = options->id };
	enum err err = dir_make(master->loop, options->directory);

	buf_printf(&path, "%s/lock%c", options->directory, 0);
	if (err == OK)
		err = file_open(master->loop, (const char *)path.bytes, FILE_WRITE | FILE_CREATE, &master->lock);
	if (err == OK)
		err = file_lock(master->lock);
	if (err)
		buf_printf(message, "cannot use %s: %s", options->directory, err_text(err));
	if (err == OK)
		err = identity_check(master->loop, &identity, &master->identity, message);
	if (err == OK)
		log_info("master_identity", "node=%016" PRIx64 " member=%" PRIu64 " cluster=%s", master->identity.node, options->id,
			 options->cluster);
	buf_deinit(&path);
	return err;
}

static enum err members_open(struct master *master, const struct master_options *options, struct buf *message)
{
	struct buf alone = { 0 };
	const char *text = options->members;

	if (!text || !*text) {
		buf_printf(&alone, "%" PRIu64 "=%s%c", options->id, options->listen, 0);
		text = (const char *)alone.bytes;
	}
	enum err err = members_parse(text, &master->members);
	if (err)
		buf_printf(message, "members is not of the form 1=host:port,2=host:port,...: %s", text);
	else if (!members_address(&master->members, options->id)) {
		buf_printf(message, "id %" PRIu64 " is not among the members %s", options->id, text);
		err = ERR_INVALID;
	}
	buf_deinit(&alone);
	return err;
}

static enum err replica_start(struct master *master, const struct master_options *options, struct buf *message)
{
	struct replica_options replica = { .loop = master->loop,
					   .rpc = master->rpc,
					   .members = &master->members,
					   .id = options->id,
					   .directory = master->directory,
					   .cache_bytes = options->cache_bytes,
					   .events = &replica_events,
					   .events_arg = master };
	enum err err = replica_open(&replica, &master->replica);

	if (err)
		buf_printf(message, "cannot restore %s: %s", options->directory, err_text(err));
	else if (meta_cluster(replica_meta(master->replica)) != 0) {
		master->rpc_identity.cluster = meta_cluster(replica_meta(master->replica));
		rpc_set_cluster(master->rpc, master->rpc_identity.cluster);
	}
	return err;
}

static void services_open(struct master *master)
{
	struct loop *loop = master->loop;

	master->commands = commands_open(loop, master->rpc, master->servers, on_command_done, master);
	master->garbage = garbage_open(loop, master->replica, master->servers);
	garbage_set_commands(master->garbage, master->commands);
	master->reclaim = reclaim_open(loop, master->replica, master->sessions);
	master->clients = client_service_open(&(struct client_service_options){ .loop = loop,
										.rpc = master->rpc,
										.replica = master->replica,
										.sessions = master->sessions,
										.servers = master->servers,
										.fill = &master->fill });
	master->chunkservers =
		chunkserver_service_open(&(struct chunkserver_service_options){ .loop = loop,
										.rpc = master->rpc,
										.replica = master->replica,
										.servers = master->servers,
										.commands = master->commands,
										.garbage = master->garbage });
	master->failure = failure_open(&(struct failure_options){ .loop = loop,
								  .replica = master->replica,
								  .servers = master->servers,
								  .commands = master->commands,
								  .garbage = master->garbage });
	master->status = status_open(&(struct status_options){ .loop = loop,
							       .replica = master->replica,
							       .servers = master->servers,
							       .sessions = master->sessions,
							       .members = &master->members,
							       .start_ms = loop_now_us(loop) / 1000 });
	timer_init(&master->housekeeping, loop, on_housekeeping, master);
	timer_start(&master->housekeeping, HOUSEKEEPING_MS);
}

enum err master_open(struct loop *loop, const struct master_options *options, struct master **out, struct buf *message)
{
	struct master *master = mem_zero(1, sizeof(*master));

	*out = NULL;
	master->loop = loop;
	master->id = options->id;
	master->failed = options->failed;
	master->failed_arg = options->arg;
	master->directory = mem_string(options->directory);
	master->rpc_identity = (struct rpc_identity){ .role = RPC_MASTER, .id = options->id };
	master->sessions = sessions_open();
	master->servers = servers_open();
	fill_init(&master->fill, (uint32_t)options->id, loop_random(loop), master->servers);
	enum err err = members_open(master, options, message);
	if (err == OK)
		err = directory_open(master, options, message);
	if (err == OK)
		err = rpc_open(loop, &master->rpc_identity, &service, master, &master->rpc);
	if (err == OK)
		err = replica_start(master, options, message);
	if (err == OK)
		services_open(master);
	if (err == OK) {
		err = rpc_listen(master->rpc, options->listen);
		if (err)
			buf_printf(message, "cannot listen on %s: %s", options->listen, err_text(err));
	}
	if (err) {
		master_close(master);
		return err;
	}
	*out = master;
	return OK;
}

void master_close(struct master *master)
{
	if (!master)
		return;
	timer_stop(&master->housekeeping);
	/* First what is under way ends, then those who wait for it go, last the connections. */
	status_close(master->status);
	replica_close(master->replica);
	client_service_close(master->clients);
	chunkserver_service_close(master->chunkservers);
	master->chunkservers = NULL;
	failure_close(master->failure);
	reclaim_close(master->reclaim);
	commands_close(master->commands);
	garbage_close(master->garbage);
	rpc_close(master->rpc);
	sessions_close(master->sessions);
	servers_close(master->servers);
	fill_deinit(&master->fill);
	file_unref(master->lock);
	free(master->directory);
	free(master);
}

struct replica *master_replica(struct master *master)
{
	return master->replica;
}

const char *master_address(const struct master *master)
{
	return rpc_address(master->rpc);
}
