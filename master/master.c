#include "master/master.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "common/sys/rpc.h"
#include "master/chunkserver_service.h"
#include "master/class_service.h"
#include "master/client_service.h"
#include "master/balance.h"
#include "master/explain.h"
#include "master/failure.h"
#include "master/founding.h"
#include "master/fsck.h"
#include "master/identity.h"
#include "master/members_service.h"
#include "master/moves.h"
#include "master/reclaim.h"
#include "master/restore.h"
#include "master/scrub_service.h"
#include "master/cooling.h"
#include "master/repair.h"
#include "master/settings_service.h"
#include "master/status.h"
#include "master/tasks.h"
#include "master/trash.h"
#include "master/what_if.h"

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
	char *directory, *cluster;
	uint64_t id;
	uint64_t cache_bytes, log_kept_bytes;
	uint32_t segment_bytes;
	void (*failed)(void *arg, enum err err);
	void *failed_arg;
	struct file *lock;
	struct identity identity;
	struct rpc *rpc;
	struct rpc_identity rpc_identity;
	struct founding *founding; /* NULL once it is over */
	struct replica *replica;   /* NULL before */
	struct members_service *members_service;
	struct sessions *sessions;
	struct servers *servers;
	struct fill fill;
	struct commands *commands;
	struct garbage *garbage;
	struct client_service *clients;
	struct chunkserver_service *chunkservers;
	struct chunk_change_context changes;
	struct failure *failure;
	struct repair *repair;
	struct cooling *cooling;
	struct moves *moves;
	struct balance *balance;
	struct reclaim *reclaim;
	struct trash *trash;
	struct tasks *tasks;
	struct status *status;
	struct explain explain;
	struct what_if *what_if;
	struct fsck *fsck;
	struct timer housekeeping;
	struct cluster_init init;
};

static unsigned copies_wanted(void *arg, const Granary__MetaRequest *request, size_t at)
{
	struct master *master = arg;

	return meta_copies_wanted(replica_meta(master->replica), request, at);
}

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
	trash_leading(master->trash);
	tasks_leading(master->tasks);
	repair_leading(master->repair);
	cooling_leading(master->cooling);
	moves_leading(master->moves);
	balance_leading(master->balance);
	members_service_leading(master->members_service);
	cluster_init(master);
}

static void on_deposed(void *arg)
{
	struct master *master = arg;

	client_service_deposed(master->clients);
	garbage_deposed(master->garbage);
	reclaim_deposed(master->reclaim);
	trash_deposed(master->trash);
	tasks_deposed(master->tasks);
	repair_deposed(master->repair);
	cooling_deposed(master->cooling);
	moves_deposed(master->moves);
	balance_deposed(master->balance);
	members_service_deposed(master->members_service);
	status_deposed(master->status);
	what_if_deposed(master->what_if);
	fsck_deposed(master->fsck);
}

static void learn_cluster(struct master *master)
{
	uint64_t cluster = meta_cluster(replica_meta(master->replica));

	if (cluster == 0 || cluster == master->rpc_identity.cluster)
		return;
	master->rpc_identity.cluster = cluster;
	rpc_set_cluster(master->rpc, cluster);
}

static void on_applied(void *arg, const struct replica_applied *applied)
{
	struct master *master = arg;

	learn_cluster(master);
	client_service_applied(master->clients, applied);
	tasks_applied(master->tasks, applied->effects);
	chunkserver_service_applied(master->chunkservers, applied->effects);
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

static void on_installed(void *arg)
{
	learn_cluster(arg);
}

static struct identity_options identity_options(const struct master *master)
{
	return (struct identity_options){ .directory = master->directory, .cluster = master->cluster, .member = master->id };
}

/* A master that was taken in is from now on one that its directory must speak for. */
static void on_members_changed(void *arg, const struct raft_membership *membership)
{
	struct master *master = arg;
	const struct raft_member *self = membership_find(membership, master->id);
	struct identity_options options = identity_options(master);

	if (master->identity.founded || !self || self->node != master->identity.node)
		return;
	enum err err = identity_found(master->loop, &options, NULL, &master->identity);
	log_info("master_joined", "id=%" PRIu64 " node=%016" PRIx64 " error=%s", master->id, self->node, err_name(err));
	if (err)
		on_failed(master, err);
}

static const struct replica_events replica_events = {
	.leading = on_leading,
	.deposed = on_deposed,
	.applied = on_applied,
	.failed = on_failed,
	.installed = on_installed,
	.members_changed = on_members_changed,
};

static void on_command_done(void *arg, uint64_t server, const Granary__ChunkCommand *command, enum err err)
{
	struct master *master = arg;

	if (command->garbage) {
		garbage_command_done(master->garbage, server, command, err);
		return;
	}
	repair_command_done(master->repair, server, command, err);
	failure_command_done(master->failure, server, command, err);
	if (err)
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

static void founding_serve(struct master *master, struct rpc_request *request)
{
	Granary__FoundingReply reply = GRANARY__FOUNDING_REPLY__INIT;
	Granary__Founder founders[RAFT_MEMBERS_MAX], *pointers[RAFT_MEMBERS_MAX];

	reply.id = master->id;
	reply.node = master->identity.node;
	reply.founded = master->replica != NULL;
	reply.cluster_name = master->cluster;
	reply.space_low = master->replica && replica_space_is_low(master->replica);
	reply.founders = pointers;
	for (size_t i = 0; i < master->identity.founders.count; i++) {
		founders[i] = (Granary__Founder)GRANARY__FOUNDER__INIT;
		founders[i].id = master->identity.founders.ids[i];
		founders[i].node = master->identity.founders.nodes[i];
		pointers[reply.n_founders++] = &founders[i];
	}
	rpc_reply(request, &reply.base);
}

/* From those who look after the cluster. False: it is not of these. */
static bool serve_operator(struct master *master, struct rpc_request *request)
{
	switch (request->type) {
	case MESSAGE_MEMBERS_CHANGE:
		members_service_serve(master->members_service, request);
		return true;
	case MESSAGE_RESTORE:
		restore_serve(master->replica, request);
		return true;
	case MESSAGE_CLUSTER_STATUS:
		status_serve(master->status, request);
		return true;
	case MESSAGE_EXPLAIN:
		explain_serve(&master->explain, request);
		return true;
	case MESSAGE_SIZES:
		sizes_serve(master->replica, request);
		return true;
	case MESSAGE_WHAT_IF:
		what_if_serve(master->what_if, request);
		return true;
	case MESSAGE_SCRUB:
		scrub_serve(master->replica, master->servers, master->commands, request);
		return true;
	case MESSAGE_FSCK:
		fsck_serve(master->fsck, request);
		return true;
	case MESSAGE_TASKS:
		tasks_serve(master->tasks, request);
		return true;
	case MESSAGE_CLASSES:
		classes_serve(master->replica, request);
		return true;
	case MESSAGE_SETTINGS:
		settings_serve(master->replica, request);
		return true;
	case MESSAGE_COOL:
		cooling_serve(master->cooling, request);
		return true;
	case MESSAGE_REBALANCE:
	case MESSAGE_DRAIN:
		balance_serve(master->balance, request);
		return true;
	default:
		return false;
	}
}

static void serve(struct master *master, struct rpc_request *request)
{
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
	case MESSAGE_CHUNK_FILLED:
		repair_serve(master->repair, request);
		break;
	case MESSAGE_COLD_DONE:
	case MESSAGE_CHUNK_WARM:
		cooling_serve(master->cooling, request);
		break;
	case MESSAGE_MOVE_DONE:
		moves_serve(master->moves, request);
		break;
	case MESSAGE_SNAPSHOT_OPEN:
	case MESSAGE_SNAPSHOT_READ:
	case MESSAGE_SNAPSHOT_CLOSE:
		replica_serve_snapshot(master->replica, request);
		break;
	default:
		if (!serve_operator(master, request))
			rpc_reply_error(request, ERR_NOT_SUPPORTED, NULL);
		break;
	}
}

static void on_request(void *arg, struct rpc_request *request)
{
	struct master *master = arg;

	if (request->type == MESSAGE_FOUNDING)
		founding_serve(master, request);
	else if (!master->replica)
		rpc_reply_error(request, ERR_NOT_LEADER, "");
	else
		serve(master, request);
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

static enum err directory_open(struct master *master, struct buf *message)
{
	struct buf path = { 0 };
	struct identity_options identity = identity_options(master);
	enum err err = dir_make(master->loop, master->directory);

	buf_printf(&path, "%s/lock%c", master->directory, 0);
	if (err == OK)
		err = file_open(master->loop, (const char *)path.bytes, FILE_WRITE | FILE_CREATE, &master->lock);
	if (err == OK)
		err = file_lock(master->lock);
	if (err)
		buf_printf(message, "cannot use %s: %s", master->directory, err_text(err));
	if (err == OK)
		err = identity_check(master->loop, &identity, &master->identity, message);
	if (err == OK)
		log_info("master_identity", "node=%016" PRIx64 " member=%" PRIu64 " cluster=%s founded=%d", master->identity.node,
			 master->id, master->cluster, master->identity.founded);
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

static enum err replica_start(struct master *master, const struct founders *founders, struct buf *message)
{
	struct replica_options replica = { .loop = master->loop,
					   .rpc = master->rpc,
					   .members = &master->members,
					   .founders = founders,
					   .id = master->id,
					   .node = master->identity.node,
					   .directory = master->directory,
					   .cache_bytes = master->cache_bytes,
					   .segment_bytes = master->segment_bytes,
					   .log_kept_bytes = master->log_kept_bytes,
					   .events = &replica_events,
					   .events_arg = master };
	enum err err = replica_open(&replica, &master->replica, message);

	if (err && message->size == 0)
		buf_printf(message, "cannot restore %s: %s", master->directory, err_text(err));
	if (err == OK)
		learn_cluster(master);
	return err;
}

static void services_open(struct master *master)
{
	struct loop *loop = master->loop;

	master->commands = commands_open(loop, master->rpc, master->servers, on_command_done, master);
	master->garbage = garbage_open(loop, master->replica, master->servers);
	garbage_set_commands(master->garbage, master->commands);
	master->reclaim = reclaim_open(loop, master->replica, master->sessions, master->servers);
	master->trash = trash_open(loop, master->replica, master->servers);
	master->clients = client_service_open(&(struct client_service_options){ .loop = loop,
										.rpc = master->rpc,
										.replica = master->replica,
										.sessions = master->sessions,
										.servers = master->servers,
										.fill = &master->fill,
										.trash = master->trash });
	master->fsck = fsck_open(loop, master->replica, master->servers);
	master->changes = (struct chunk_change_context){ .loop = loop,
							 .replica = master->replica,
							 .servers = master->servers,
							 .commands = master->commands,
							 .garbage = master->garbage };
	master->repair = repair_open(&master->changes);
	master->cooling = cooling_open(&(struct cooling_options){ .context = &master->changes,
								   .fill = &master->fill,
								   .repair = master->repair });
	master->failure = failure_open(&master->changes, master->repair, master->cooling);
	master->balance = balance_open(&(struct balance_options){ .context = &master->changes,
								  .repair = master->repair,
								  .cooling = master->cooling });
	master->moves = moves_open(&master->changes, &master->fill);
	master->tasks = tasks_open(&(struct tasks_options){ .loop = loop,
							    .replica = master->replica,
							    .cool = cooling_due, .arg = master->cooling,
							    .move = moves_due,
							    .move_arg = master->moves });
	master->chunkservers =
		chunkserver_service_open(&(struct chunkserver_service_options){ .loop = loop,
										.rpc = master->rpc,
										.replica = master->replica,
										.servers = master->servers,
										.sessions = master->sessions,
										.commands = master->commands,
										.garbage = master->garbage,
										.failure = master->failure,
										.cooling = master->cooling,
										.fsck = master->fsck });
	master->status = status_open(&(struct status_options){ .loop = loop,
							       .replica = master->replica,
							       .servers = master->servers,
							       .sessions = master->sessions,
							       .repair = master->repair,
							       .cooling = master->cooling,
							       .balance = master->balance,
							       .start_ms = loop_now_us(loop) / 1000 });
	master->explain = (struct explain){ .loop = loop,
					    .replica = master->replica,
					    .servers = master->servers,
					    .repair = master->repair,
					    .cooling = master->cooling,
					    .start_ms = loop_now_us(loop) / 1000 };
	master->what_if = what_if_open(loop, master->replica, master->servers);
	master->members_service = members_service_open(&(struct members_service_options){ .loop = loop,
											  .rpc = master->rpc,
											  .replica = master->replica,
											  .id = master->id,
											  .cluster = master->cluster });
	timer_init(&master->housekeeping, loop, on_housekeeping, master);
	timer_start(&master->housekeeping, HOUSEKEEPING_MS);
}

/* Takes part, with these founders or (NULL) as one that waits to be taken in. */
static enum err begin(struct master *master, const struct founders *founders, struct buf *message)
{
	struct identity_options identity = identity_options(master);
	struct raft_view view;
	enum err err = replica_start(master, founders, message);

	if (err)
		return err;
	replica_view(master->replica, &view);
	if (!master->identity.founded && founders) {
		/* Nothing has run yet: the list is there before the first vote. */
		if (view.term > 0 || view.last > 0) {
			buf_printf(message, "%s holds the log of another cluster", master->directory);
			return ERR_CORRUPT;
		}
		err = identity_found(master->loop, &identity, founders, &master->identity);
		if (err) {
			buf_printf(message, "cannot write %s/identity: %s", master->directory, err_text(err));
			return err;
		}
	}
	log_info("master_begins", "id=%" PRIu64 " founders=%zu", master->id, founders ? founders->count : 0);
	services_open(master);
	return OK;
}

static void on_founded(void *arg, const struct founders *founders)
{
	struct master *master = arg;
	struct buf message = { 0 };

	founding_close(master->founding);
	master->founding = NULL;
	enum err err = begin(master, founders->count > 0 ? founders : NULL, &message);
	if (err) {
		char escaped[512];
		log_error("master_begin_failed", "error=%s text=%s", err_name(err),
			  log_escape(message.bytes, message.size, escaped, sizeof(escaped)));
		on_failed(master, err);
	}
	buf_deinit(&message);
}

/* A directory that has taken part goes on; a fresh one asks the others first, or founds its cluster if there are none. */
static enum err enter(struct master *master, bool join, struct buf *message)
{
	struct founders alone = { 0 };

	if (master->identity.founded)
		return begin(master, &master->identity.founders, message);
	if (join)
		return begin(master, NULL, message);
	founders_add(&alone, master->id, master->identity.node);
	if (master->members.count == 1)
		return begin(master, &alone, message);
	master->founding = founding_open(&(struct founding_options){ .loop = master->loop,
								     .rpc = master->rpc,
								     .members = &master->members,
								     .id = master->id,
								     .node = master->identity.node,
								     .cluster = master->cluster,
								     .founded = on_founded,
								     .arg = master });
	return OK;
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
	master->cluster = mem_string(options->cluster);
	master->cache_bytes = options->cache_bytes;
	master->segment_bytes = options->segment_bytes;
	master->log_kept_bytes = options->log_kept_bytes;
	master->rpc_identity = (struct rpc_identity){ .role = RPC_MASTER, .id = options->id };
	master->sessions = sessions_open();
	master->servers = servers_open();
	fill_init(&master->fill, (uint32_t)options->id, loop_random(loop), master->servers);
	master->fill.copies = copies_wanted;
	master->fill.copies_arg = master;
	enum err err = members_open(master, options, message);
	if (err == OK)
		err = directory_open(master, message);
	if (err == OK)
		err = rpc_open(loop, &master->rpc_identity, &service, master, &master->rpc);
	if (err == OK)
		err = enter(master, options->join, message);
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
	founding_close(master->founding);
	status_close(master->status);
	what_if_close(master->what_if);
	members_service_close(master->members_service);
	replica_close(master->replica);
	client_service_close(master->clients);
	chunkserver_service_close(master->chunkservers);
	master->chunkservers = NULL;
	failure_close(master->failure);
	balance_close(master->balance);
	cooling_close(master->cooling);
	moves_close(master->moves);
	repair_close(master->repair);
	reclaim_close(master->reclaim);
	trash_close(master->trash);
	tasks_close(master->tasks);
	fsck_close(master->fsck);
	commands_close(master->commands);
	garbage_close(master->garbage);
	rpc_close(master->rpc);
	sessions_close(master->sessions);
	servers_close(master->servers);
	fill_deinit(&master->fill);
	file_unref(master->lock);
	free(master->directory);
	free(master->cluster);
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
