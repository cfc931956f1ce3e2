#include "master/chunkserver_service.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/base/location.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "master/missing.h"

struct chunkserver_service {
	struct chunkserver_service_options options;
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	struct probe *probes;
};

/* Asks a server whose connection broke whether it is still there. */
struct probe {
	struct chunkserver_service *service;
	uint64_t server, incarnation;
	struct rpc_peer *peer;
	rpc_call_id call;
	unsigned attempts;
	uint64_t start_ms;
	struct probe *prev, *next;
};

/* A registration on its way through the log. */
struct registration {
	struct proposal proposal;
	struct chunkserver_service *service;
	struct rpc_request *request;
	Granary__MetaRequest message;
	Granary__MetaOp op, *ops[1];
	Granary__ServerRegister change;
};

static uint64_t now_ms(const struct chunkserver_service *service)
{
	return loop_now_us(service->loop) / 1000;
}

static void refuse(struct chunkserver_service *service, struct rpc_request *request, enum err err)
{
	replica_refuse(service->replica, request, err);
}

/* ---- registration */

struct session_list {
	uint64_t *ids;
	size_t count;
};

static void list_session(void *arg, uint64_t session)
{
	struct session_list *list = arg;

	list->ids[list->count++] = session;
}

/* Who may write: what expired while the server was away is never said to it again (fences.h). */
static void accept_reply(struct chunkserver_service *service, struct rpc_request *request, Granary__RegisterReply *reply)
{
	const struct sessions *sessions = service->options.sessions;
	struct session_list list = { .ids = mem_alloc((sessions_count(sessions) + 1) * sizeof(uint64_t)) };

	sessions_each_live(sessions, list_session, &list);
	reply->sessions_known = sessions_known(sessions);
	reply->sessions = list.ids;
	reply->n_sessions = list.count;
	rpc_reply(request, &reply->base);
	free(list.ids);
}

static void accept_server(struct chunkserver_service *service, struct rpc_request *request)
{
	const Granary__RegisterRequest *message = (const Granary__RegisterRequest *)request->message;
	Granary__RegisterReply reply = GRANARY__REGISTER_REPLY__INIT;
	struct server_place where = { .address = message->address, .host = message->host, .location = message->location };
	struct server *server = servers_set(service->servers, message->server, &where);
	struct meta_counts counts;

	if (!server || !request->conn) {
		refuse(service, request, server ? ERR_CLOSED : ERR_TOO_MANY);
		return;
	}
	servers_connected(server, now_ms(service), request->conn, message->incarnation);
	server->uncertain = message->uncertain > 0;
	server->bytes_total = message->bytes_total;
	server->bytes_free = message->bytes_free;
	server->inventory_open = false;
	meta_counts(replica_meta(service->replica), &counts);
	if (counts.garbage == 0 && server->drops == 0 && replica_can_read(service->replica)) {
		servers_cleaned(server, now_ms(service));
		reply.lease_ms = LEASE_GRANTED_MS(CHUNKSERVER_LEASE_MS);
	} else {
		garbage_clean(service->options.garbage, server->id);
	}
	log_info("chunkserver_registered", "server=%016" PRIx64 " address=%s incarnation=%016" PRIx64 " cleaning=%d",
		 server->id, server->address, server->incarnation, server->cleaning);
	reply.cluster = meta_cluster(replica_meta(service->replica));
	reply.send_inventory = true;
	accept_reply(service, request, &reply);
}

static void on_registered(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct registration *registration = container_of(proposal, struct registration, proposal);

	if (err == OK && (*reply)->n_results == 1)
		err = (enum err)(*reply)->results[0]->error;
	if (err)
		refuse(registration->service, registration->request, err);
	else
		accept_server(registration->service, registration->request);
	free(registration);
}

/* Printable, without spaces: it is shown to people and compared. */
static bool text_is_plain(const char *text, size_t bytes_max)
{
	size_t size = strlen(text);

	for (size_t i = 0; i < size; i++) {
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	}
	return size > 0 && size <= bytes_max;
}

static void serve_register(struct chunkserver_service *service, struct rpc_request *request)
{
	const Granary__RegisterRequest *message = (const Granary__RegisterRequest *)request->message;
	const struct server *known = servers_find(service->servers, message->server);

	if (message->server == 0 || !text_is_plain(message->address, ADDRESS_BYTES_MAX) ||
	    !text_is_plain(message->host, HOST_LABEL_BYTES_MAX) || !location_is_valid(message->location)) {
		refuse(service, request, ERR_INVALID);
		return;
	}
	if (known && strcmp(known->address, message->address) == 0 && strcmp(known->host, message->host) == 0 &&
	    strcmp(known->location, message->location) == 0) {
		accept_server(service, request);
		return;
	}
	if (!known && servers_count(service->servers) >= SERVERS_MAX) {
		refuse(service, request, ERR_TOO_MANY);
		return;
	}
	struct registration *registration = mem_zero(1, sizeof(*registration));
	registration->service = service;
	registration->request = request;
	granary__meta_request__init(&registration->message);
	granary__meta_op__init(&registration->op);
	granary__server_register__init(&registration->change);
	registration->change.server = message->server;
	registration->change.address = message->address;
	registration->change.host = message->host;
	registration->change.location = message->location;
	registration->op.op_case = GRANARY__META_OP__OP_SERVER_REGISTER;
	registration->op.server_register = &registration->change;
	registration->ops[0] = &registration->op;
	registration->message.n_ops = 1;
	registration->message.ops = registration->ops;
	registration->proposal.request = &registration->message;
	registration->proposal.done = on_registered;
	replica_propose(service->replica, &registration->proposal);
}

/* ---- connections that break */

static void probe_end(struct probe *probe)
{
	DL_DELETE(probe->service->probes, probe);
	if (probe->call)
		rpc_call_cancel(probe->service->options.rpc, probe->call);
	rpc_peer_close(probe->peer);
	free(probe);
}

static void on_probed(void *arg, const struct rpc_result *result);

static void probe_send(struct probe *probe)
{
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	probe->attempts++;
	probe->call = rpc_peer_call(probe->peer, MESSAGE_CHUNKSERVER_STATUS, &empty.base, NULL, RPC_CONNECT_TIMEOUT_MS, on_probed,
				    probe);
}

/* Refused at once: nobody listens there, so the process is gone. Anything else says nothing, its lease has to run out. Accepted
 * and then closed is asked again: the kernel closes what a killed process had open one by one, the listening socket perhaps last. */
static void on_probed(void *arg, const struct rpc_result *result)
{
	struct probe *probe = arg;
	struct chunkserver_service *service = probe->service;
	struct server *server = servers_find(service->servers, probe->server);
	const Granary__ChunkserverStatus *status = (const Granary__ChunkserverStatus *)result->reply;
	bool refused = result->err == ERR_UNREACHABLE && now_ms(service) - probe->start_ms < RPC_CONNECT_TIMEOUT_MS / 2;
	bool another = result->err == OK && status->server != probe->server;

	probe->call = 0;
	if (result->err == ERR_CLOSED && probe->attempts < PROBE_ATTEMPTS_MAX) {
		probe_send(probe);
		return;
	}
	if (server && server->incarnation == probe->incarnation && !server->connection && (refused || another)) {
		log_info("chunkserver_gone", "server=%016" PRIx64 " address=%s", server->id, server->address);
		servers_gone(server, now_ms(service));
	}
	probe_end(probe);
}

void chunkserver_service_connection_lost(struct chunkserver_service *service, const struct rpc_conn *conn)
{
	const struct server *server = servers_connection_lost(service->servers, conn);

	if (!server)
		return;
	log_info("chunkserver_disconnected", "server=%016" PRIx64 " address=%s", server->id, server->address);
	struct probe *probe = mem_zero(1, sizeof(*probe));
	*probe = (struct probe){ .service = service,
				 .server = server->id,
				 .incarnation = server->incarnation,
				 .peer = rpc_peer_open(service->options.rpc, server->address),
				 .start_ms = now_ms(service) };
	DL_APPEND(service->probes, probe);
	probe_send(probe);
}

/* ---- heartbeats */

struct only_copy {
	struct chunkserver_service *service;
	uint64_t server;
	size_t looked;
	bool found;
};

/* A cold chunk's other shards are enough. */
static bool can_do_without(struct chunkserver_service *service, uint64_t id, uint64_t server)
{
	Granary__Chunk *chunk = NULL;
	struct cold_verdict verdict;
	bool enough = true;

	if (meta_chunk(replica_meta(service->replica), id, &chunk))
		return false;
	if (chunk->coding && chunk->cold) {
		cooling_judge(service->options.cooling, chunk, &verdict);
		for (unsigned i = 0; i < verdict.total; i++)
			verdict.available -= verdict.servers[i] == server && verdict.available > 0;
		enough = verdict.available >= verdict.data_shards;
	}
	message_free(&chunk->base);
	return enough;
}

static bool look_for_only_copy(void *arg, uint64_t id)
{
	struct only_copy *only = arg;
	struct chunkserver_service *service = only->service;
	Granary__Chunk *chunk = NULL;
	bool other = false;

	if (++only->looked > SLOW_CHUNKS_MAX || meta_chunk(replica_meta(service->replica), id, &chunk)) {
		only->found = true;
		return false;
	}
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD)
		other = can_do_without(service, chunk->owner, only->server);
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		const struct server *server = servers_find(service->servers, chunk->replicas[i]);
		other = other || (server && server->id != only->server && servers_is_usable(server, now_ms(service)));
	}
	message_free(&chunk->base);
	only->found = !other;
	return other;
}

/* A slow copy is better than none. More chunks than can be looked at: as if there were one. */
static bool has_only_copy(struct chunkserver_service *service, uint64_t server)
{
	struct only_copy only = { .service = service, .server = server };
	enum err err = meta_each_chunk_on(replica_meta(service->replica), server, 0, look_for_only_copy, &only);

	return err != OK || only.found;
}

/* Who is left out for slowness, and who no more. */
static void judge_slowness(struct chunkserver_service *service)
{
	bool before[SERVERS_MAX];
	size_t count = servers_count(service->servers);

	for (size_t i = 0; i < count; i++)
		before[i] = servers_at(service->servers, i)->slow;
	servers_judge(service->servers, now_ms(service));
	for (size_t i = 0; i < count; i++) {
		struct server *server = servers_at(service->servers, i);
		if (server->slow == before[i])
			continue;
		if (server->slow && has_only_copy(service, server->id)) {
			server->slow = false;
			server->slow_since_ms = 0;
			continue;
		}
		log_warn(server->slow ? "chunkserver_slow" : "chunkserver_slow_no_more", "server=%016" PRIx64 " latency_us=%" PRIu64,
			 server->id, server->disk ? server->disk->latency_us : 0);
	}
}

static void serve_heartbeat(struct chunkserver_service *service, struct rpc_request *request)
{
	const Granary__Heartbeat *message = (const Granary__Heartbeat *)request->message;
	struct server *server = servers_find(service->servers, message->server);
	Granary__HeartbeatReply reply = GRANARY__HEARTBEAT_REPLY__INIT;
	bool again = true;

	/* Only under the leader's own lease: a deposed one must not prolong what its successor counts on to end. */
	if (!replica_can_read(service->replica)) {
		refuse(service, request, ERR_NOT_LEADER);
		return;
	}
	if (server) {
		servers_note_fill(server, now_ms(service), message->fill_bytes, message->filling_bytes);
		servers_set_disk(server, message->disk);
		judge_slowness(service);
		reply.lease_ms = (uint32_t)servers_heartbeat(server, now_ms(service), request->conn, message->incarnation,
							     message->failed, &again);
		if (message->unleased && !again)
			servers_unleased(server, now_ms(service));
		server->bytes_total = message->bytes_total;
		server->bytes_free = message->bytes_free;
		server->chunks = message->chunks;
		server->load = message->load;
		server->malformed_frames = message->malformed_frames;
		bool due = server->inventory_due_ms != 0 && now_ms(service) >= server->inventory_due_ms;
		server->inventory_wanted = server->inventory_wanted || due;
		reply.send_inventory = server->inventory_wanted && !again;
		server->inventory_wanted = false;
	}
	reply.register_again = again;
	/* Borrowed: packed before rpc_reply returns. */
	reply.settings = (Granary__Settings *)(uintptr_t)meta_settings(replica_meta(service->replica));
	rpc_reply(request, &reply.base);
}

/* ---- inventory */

/* No record. */
static Granary__ChunkCommand *judge_unknown(struct chunkserver_service *service, struct server *server, const Granary__ChunkHeld *held)
{
	struct meta *meta = replica_meta(service->replica);

#ifndef PLANT_COLLECTION_ON_A_STALE_MAP
	if (!meta_chunk_was_removed(meta, held->chunk)) {
		server->orphans++;
		server->orphans_newer += held->chunk > meta_newest_chunk(meta);
		return NULL;
	}
#endif
	return command_delete(0, held->chunk, NULL, 0);
}

static bool all_are_there(const struct chunkserver_service *service, const Granary__Chunk *chunk)
{
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		const struct server *member = servers_find(service->servers, chunk->replicas[i]);
		if (!member || !servers_is_usable(member, now_ms(service)))
			return false;
	}
	return true;
}

static bool contains(const uint64_t *servers, size_t count, uint64_t server)
{
	for (size_t i = 0; i < count; i++) {
		if (servers[i] == server)
			return true;
	}
	return false;
}

/* A member: of another version, of a copy that is complete by now, or that it has to fill its successor's. */
static bool must_hear(const Granary__Chunk *chunk, uint64_t server, const Granary__ChunkHeld *held)
{
	bool gives = chunk->joining && chunk->n_replicas >= 2 && chunk->replicas[chunk->n_replicas - 2] == server;

	return held->version < chunk->version || gives || (held->copy == HELD_JOINING && chunk->joining != server);
}

/* Of a version that has passed; of a shard perhaps one that was given up while it was being made; of a cold chunk there are no copies. */
static bool is_older(const Granary__Chunk *chunk, uint64_t server, const Granary__ChunkHeld *held)
{
	bool given_up = held->version <= chunk->rebuild_version && held->version > chunk->version && chunk->rebuilding != server;

	bool is_cold = chunk->cold && chunk->n_replicas == 0 && held->version == chunk->version;

	return held->version < chunk->version || given_up || is_cold;
}

static void inventory_soon(const struct chunkserver_service *service, struct server *server)
{
	server->inventory_due_ms = now_ms(service) + INVENTORY_SOON_MS;
}

/* It is made anew of the others; while it is being made for the first time nobody counts on it. */
static void lost_shard(const struct chunkserver_service *service, uint64_t shard, const Granary__Chunk *record)
{
	Granary__Chunk *owner = NULL;

	if (meta_chunk(replica_meta(service->replica), record->owner, &owner) == OK && owner->cold)
		cooling_shard_lost(service->options.cooling, shard);
	message_free(owner ? &owner->base : NULL);
}

/* What the server is to do about a chunk that it holds; NULL: nothing. */
static Granary__ChunkCommand *judge(struct chunkserver_service *service, struct server *server, const Granary__ChunkHeld *held,
				    bool *unknown)
{
	struct meta *meta = replica_meta(service->replica);
	Granary__Chunk *chunk = NULL;
	Granary__ChunkLocation *location = NULL;
	Granary__ChunkCommand *command = NULL;
	enum err err = meta_chunk(meta, held->chunk, &chunk);

	if (err == ERR_NO_CHUNK) {
		*unknown = true;
		return judge_unknown(service, server, held);
	}
	if (err)
		return NULL;
	if (!contains(chunk->replicas, chunk->n_replicas, server->id)) {
		/* It may join again before this reaches it: only what it holds now is meant. */
		bool stale = contains(chunk->stale, chunk->n_stale, server->id), older = is_older(chunk, server->id, held);
		if (stale ? held->copy != HELD_RETIRED : older && all_are_there(service, chunk))
			command = command_drop_copy(0, held->chunk, held->version, stale);
		else if (!stale && older)
			inventory_soon(service, server);
	} else if (held->copy == HELD_RETIRED && held->version == chunk->version) {
		if (!failure_retired(service->options.failure, held->chunk, chunk, server->id))
			inventory_soon(service, server);
	} else if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		if (held->version != chunk->version && chunk->rebuilding != server->id)
			lost_shard(service, held->chunk, chunk); /* half of it was made anew */
	} else if (must_hear(chunk, server->id, held) && meta_chunk_location(meta, held->chunk, &location) == OK) {
		command = command_configure(location);
		message_unref(&location->base);
	}
	message_free(&chunk->base);
	return command;
}

struct absence {
	struct chunkserver_service *service;
	uint64_t server;
};

/* It may be on its way; if it is not, this is how the server hears that it has lost something. */
static bool tell_missing(void *arg, uint64_t chunk, const Granary__Chunk *record)
{
	const struct absence *absence = arg;
	Granary__ChunkLocation *location = NULL;
	bool told = true;

	if (record->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		lost_shard(absence->service, chunk, record);
		return true;
	}
	if (!record->written || meta_chunk_location(replica_meta(absence->service->replica), chunk, &location))
		return true;
	log_info("copy_missing", "chunk=%016" PRIx64 " server=%016" PRIx64, chunk, absence->server);
	told = commands_add(absence->service->options.commands, absence->server, command_configure(location));
	message_unref(&location->base);
	return told;
}

static void serve_inventory(struct chunkserver_service *service, struct rpc_request *request)
{
	const Granary__Inventory *message = (const Granary__Inventory *)request->message;
	struct server *server = servers_find(service->servers, message->server);
	Granary__InventoryReply reply = GRANARY__INVENTORY_REPLY__INIT;
	enum err err = OK;

	if (!replica_can_read(service->replica))
		err = ERR_NOT_LEADER;
	else if (!server || server->connection != request->conn || server->incarnation != message->incarnation ||
		 message->n_chunks > INVENTORY_PAGE_MAX)
		err = ERR_INVALID;
	if (err) {
		refuse(service, request, err);
		return;
	}
	fsck_inventory(service->options.fsck, message, !server->inventory_open);
	if (!server->inventory_open) {
		server->orphans = server->orphans_newer = server->inventory_cursor = 0;
		server->inventory_due_ms = now_ms(service) + INVENTORY_MS;
	}
	server->inventory_open = !message->last;
	for (size_t i = 0; i < message->n_chunks; i++) {
		bool unknown = false;
		Granary__ChunkCommand *command = judge(service, server, message->chunks[i], &unknown);
		reply.unknown += unknown;
		if (command && !commands_add(service->options.commands, message->server, command))
			log_warn("inventory_command_dropped", "server=%016" PRIx64, message->server);
	}
	struct absence absence = { service, server->id };
	if (missing_each(replica_meta(service->replica), server->id, message, &server->inventory_cursor, tell_missing, &absence))
		log_error("chunks_unreadable", "server=%016" PRIx64, server->id);
	if (reply.unknown > 0)
		log_info("inventory_unknown_chunks", "server=%016" PRIx64 " count=%u", message->server, reply.unknown);
	if (message->last && server->orphans > 0)
		log_warn("orphan_copies", "server=%016" PRIx64 " count=%" PRIu64 " newer_than_known=%" PRIu64, server->id,
			 server->orphans, server->orphans_newer);
	rpc_reply(request, &reply.base);
}

/* ---- the service */

void chunkserver_service_serve(struct chunkserver_service *service, struct rpc_request *request)
{
	if (!replica_is_leading(service->replica)) {
		refuse(service, request, ERR_NOT_LEADER);
		return;
	}
	switch (request->type) {
	case MESSAGE_REGISTER:
		serve_register(service, request);
		break;
	case MESSAGE_HEARTBEAT:
		serve_heartbeat(service, request);
		break;
	case MESSAGE_INVENTORY:
		serve_inventory(service, request);
		break;
	default:
		refuse(service, request, ERR_NOT_SUPPORTED);
		break;
	}
}

static bool add_server(void *arg, uint64_t id, const Granary__Server *server)
{
	struct chunkserver_service *service = arg;

	struct server_place where = { .address = server->address, .host = server->host, .location = server->location };

	struct server *known = servers_set(service->servers, id, &where);

	if (known)
		servers_set_draining(known, now_ms(service), server->draining);
	return known != NULL;
}

void chunkserver_service_applied(struct chunkserver_service *service, const struct meta_effects *effects)
{
	if (effects->servers_changed && meta_each_server(replica_meta(service->replica), add_server, service))
		log_error("servers_unreadable", "index=%" PRIu64, meta_applied_index(replica_meta(service->replica)));
}

void chunkserver_service_leading(struct chunkserver_service *service)
{
	servers_clear(service->servers, now_ms(service) + CHUNKSERVER_LEASE_MS);
	if (meta_each_server(replica_meta(service->replica), add_server, service))
		log_error("servers_unreadable", "index=%" PRIu64, meta_applied_index(replica_meta(service->replica)));
}

struct chunkserver_service *chunkserver_service_open(const struct chunkserver_service_options *options)
{
	struct chunkserver_service *service = mem_zero(1, sizeof(*service));

	service->options = *options;
	service->loop = options->loop;
	service->replica = options->replica;
	service->servers = options->servers;
	return service;
}

void chunkserver_service_close(struct chunkserver_service *service)
{
	if (!service)
		return;
	while (service->probes)
		probe_end(service->probes);
	free(service);
}
