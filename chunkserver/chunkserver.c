#include "chunkserver/chunkserver.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chain.h"
#include "chunkserver/master_link.h"
#include "chunkserver/move_op.h"
#include "chunkserver/cold_task.h"
#include "chunkserver/scrub.h"
#include "chunkserver/service.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/sys/log.h"

#define IDENTITY_BYTES_MAX 256u
#define STOP_POLL_MS 10u
#define STOP_GRACE_MS 1000u /* for operations that wait for a successor */

struct chunkserver {
	struct loop *loop;
	struct chunk_store *store;
	struct service service;
	struct rpc *rpc;
	struct master_link *link;
	struct rpc_identity identity;
	struct timer tick;
	struct timer stop_timer;
	uint64_t stop_ms;
	void (*stopped)(void *arg);
	void *stopped_arg;
	void (*failed)(void *arg);
	void *failed_arg;
	bool failure_told;
	uint64_t reopened;
};

static const struct rpc_service rpc_service = { .serve = service_serve, .closed = service_conn_closed };

/* ---------------------------------------------------------------- identity */

static enum err save_identity(struct chunkserver *server)
{
	struct buf text = { 0 };
	char *path = store_files_join(chunk_store_files(server->store), "identity");
	buf_printf(&text, "server=%016" PRIx64 "\n", server->identity.id);
	buf_printf(&text, "life=%016" PRIx64 "\n", server->service.life);
	if (server->identity.cluster != 0)
		buf_printf(&text, "cluster=%016" PRIx64 "\n", server->identity.cluster);
	enum err err = file_replace(server->loop, path, buf_slice(&text));
	buf_deinit(&text);
	free(path);
	return err;
}

/* "name=HEX" on a line of its own; 0 when it is not there. */
static uint64_t parse_field(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	if (at == NULL || (at != text && at[-1] != '\n'))
		return 0;
	return strtoull(at + strlen(name), NULL, 16);
}

/* The index says, too, whose chunks these are: an identity that was copied over another's chunks, or the other way round, is noticed. */
static enum err check_owner(struct chunkserver *server)
{
	struct buf note = { 0 };
	uint8_t id[8];
	enum err err = chunk_index_get_note(chunk_store_index(server->store), "server", &note);
	put_le64(id, server->identity.id);
	if (err == ERR_NOT_FOUND)
		err = chunk_index_put_note(chunk_store_index(server->store), "server", slice_of(id, sizeof(id)));
	else if (err == OK && (note.size != sizeof(id) || get_le64(note.bytes) != server->identity.id)) {
		log_error("foreign_disk", "identity=%016" PRIx64 " chunks_of=%016" PRIx64, server->identity.id,
			  note.size == sizeof(id) ? get_le64(note.bytes) : 0);
		err = ERR_STALE_HANDLE;
	}
	buf_deinit(&note);
	return err;
}

static enum err load_identity(struct chunkserver *server)
{
	struct buf text = { 0 };
	struct chunk_store_counts counts;
	char *path = store_files_join(chunk_store_files(server->store), "identity");
	enum err err = file_load(server->loop, path, IDENTITY_BYTES_MAX, &text);
	free(path);
	server->identity.role = RPC_CHUNKSERVER;
	if (err == OK) {
		buf_append(&text, "", 1);
		server->identity.id = parse_field((const char *)text.bytes, "server=");
		server->identity.cluster = parse_field((const char *)text.bytes, "cluster=");
		server->service.life = parse_field((const char *)text.bytes, "life=");
		if (server->identity.id == 0)
			err = ERR_CORRUPT;
	}
	server->service.life++;
	server->identity.life = server->service.life;
	buf_deinit(&text);
	if (err == ERR_CORRUPT)
		log_error("identity_damaged", "file=identity");
	if (err == OK && save_identity(server) != OK) /* a full disk: the next life may be taken for this one, that is all */
		log_warn("life_not_saved", "life=%" PRIu64, server->service.life);
	if (err != ERR_NOT_FOUND)
		return err;
	/* Under a new name the masters would call all these chunks garbage. */
	chunk_store_counts(server->store, &counts);
	if (counts.chunks > 0) {
		log_error("identity_missing", "chunks=%" PRIu64, counts.chunks);
		return ERR_CORRUPT;
	}
	while (server->identity.id == 0)
		server->identity.id = loop_random(server->loop);
	return save_identity(server);
}

static void joined(void *arg, uint64_t cluster)
{
	struct chunkserver *server = arg;
	server->identity.cluster = cluster;
	enum err err = save_identity(server);
	if (err != OK)
		chunk_store_fail(server->store, "identity", err);
	log_info("cluster_joined", "cluster=%016" PRIx64, cluster);
}

static void configured(void *arg, const Granary__ChunkLocation *location)
{
	struct chunkserver *server = arg;
	enum err err = service_configure(&server->service, location);
	if (err != OK) /* the next write says it again */
		log_debug("not_configured", "chunk=%016" PRIx64 " error=%s", location->chunk, err_name(err));
}

static void sessions_told(void *arg, uint64_t known, const uint64_t *live, size_t live_count)
{
	struct chunkserver *server = arg;
	fence_set(&server->service.fence, known, live, live_count);
}

static bool wants_registration(void *arg)
{
	const struct chunkserver *server = arg;
	return fence_is_full(&server->service.fence);
}

static void report_health(void *arg, Granary__DiskHealth *out)
{
	const struct chunkserver *server = arg;
	struct chunk_store_counts counts;
	chunk_store_counts(server->store, &counts);
	out->uncertain = counts.uncertain;
	out->damage_found = counts.damage_found;
	out->damage_repaired = counts.damage_repaired;
	out->damage_lost = counts.damage_lost;
	out->latency_us = counts.latency_us;
	out->hung = chunk_store_is_hung(server->store);
	out->reopened = server->reopened;
	if (counts.reason[0] != 0)
		out->reason = (char *)(uintptr_t)counts.reason;
	else if (out->hung)
		out->reason = (char *)(uintptr_t) "an input or output does not end";
	scrub_report(server->service.scrub, out);
}

static void fill_counts(void *arg, Granary__Heartbeat *heartbeat)
{
	const struct chunkserver *server = arg;
	heartbeat->fill_bytes = server->service.fill_bytes;
	heartbeat->filling_bytes = server->service.filling_bytes;
	heartbeat->load = server->service.ops;
}

/* ---------------------------------------------------------------- life */

static void on_tick(void *arg)
{
	struct chunkserver *server = arg;
	chunk_store_set_idle(server->store, !master_link_has_lease(server->link));
	service_tick(&server->service);
	timer_start(&server->tick, CHUNKSERVER_HEARTBEAT_MS);
	if (!chunk_store_failed(server->store) || server->failure_told || server->failed == NULL)
		return;
	server->failure_told = true;
	server->failed(server->failed_arg);
}

static enum err open_network(struct chunkserver *server, const struct chunkserver_options *options)
{
	enum err err = rpc_open(server->loop, &server->identity, &rpc_service, &server->service, &server->rpc);
	if (err != OK)
		return err;
	struct master_link_options link = {
		.masters = options->masters,
		.host = options->host,
		.location = options->location,
		.server = server->identity.id,
		.cluster = server->identity.cluster,
		.joined = joined,
		.configured = configured,
		.sessions = sessions_told,
		.wants_registration = wants_registration,
		.health = report_health,
		.fill_counts = fill_counts,
		.arg = server,
	};
	server->service.rpc = server->rpc;
	err = rpc_listen(server->rpc, options->listen);
	if (err != OK)
		return err;
	link.address = options->address != NULL ? options->address : rpc_address(server->rpc);
	err = master_link_open(server->rpc, server->loop, server->store, &link, &server->link);
	server->service.link = server->link;
	return err;
}

enum err chunkserver_open(struct loop *loop, const struct chunkserver_options *options, struct chunkserver **out)
{
	struct chunkserver *server = mem_zero(1, sizeof(*server));
	struct chunk_store_options store = { .root = options->data,
					     .reserved_bytes = options->reserved_bytes,
					     .must_exist = options->again,
					     .suspect = options->again };
	*out = NULL;
	server->loop = loop;
	enum err err = chunk_store_open(loop, &store, &service_store_events, &server->service, &server->store);
	if (err != OK) {
		free(server);
		return err;
	}
	server->service.store = server->store;
	server->failed = options->failed;
	server->failed_arg = options->failed_arg;
	server->reopened = options->reopened;
	err = load_identity(server);
	if (err == OK)
		err = check_owner(server);
	service_init(&server->service, loop, server->identity.id);
	server->service.scrub = scrub_open(&server->service);
	timer_init(&server->tick, loop, on_tick, server);
	if (err == OK)
		err = open_network(server, options);
	if (err != OK) {
		chunkserver_close(server);
		return err;
	}
	timer_start(&server->tick, CHUNKSERVER_HEARTBEAT_MS);
	*out = server;
	return OK;
}

static void close_network(struct chunkserver *server)
{
	if (server->rpc == NULL)
		return;
	chain_close_peers(&server->service);
	rpc_close(server->rpc);
	server->rpc = NULL;
}

static void abandon(void *arg, struct chunk *chunk)
{
	(void)arg;
	if (chunk->state == CHUNK_READY)
		chunk_ops_abandon(chunk, ERR_CANCELLED);
}

static void stop_poll(void *arg)
{
	struct chunkserver *server = arg;
	bool grace_over = loop_now_ms(server->loop) - server->stop_ms >= STOP_GRACE_MS;
	if (grace_over)
		close_network(server);
	chunk_store_each_open(server->store, abandon, NULL);
	commands_abandon(&server->service);
	fence_abandon(&server->service);
	if (service_busy(&server->service) || chunk_store_busy(server->store)) {
		timer_start(&server->stop_timer, STOP_POLL_MS);
		return;
	}
	server->stopped(server->stopped_arg);
}

void chunkserver_stop(struct chunkserver *server, void (*stopped)(void *arg), void *arg)
{
	if (server->service.stopping)
		return;
	server->service.stopping = true;
	server->stopped = stopped;
	server->stopped_arg = arg;
	server->stop_ms = loop_now_ms(server->loop);
	timer_stop(&server->tick);
	scrub_stop(server->service.scrub);
	cold_tasks_abort(&server->service);
	moves_abort(&server->service);
	master_link_close(server->link);
	server->link = server->service.link = NULL;
	timer_init(&server->stop_timer, server->loop, stop_poll, server);
	timer_start(&server->stop_timer, 0);
}

static void store_closed(void *arg)
{
	struct chunkserver *server = arg;
	scrub_close(server->service.scrub);
	service_deinit(&server->service);
	free(server);
}

void chunkserver_close(struct chunkserver *server)
{
	if (server == NULL)
		return;
	server->service.stopping = true;
	scrub_stop(server->service.scrub);
	cold_tasks_abort(&server->service);
	moves_abort(&server->service);
	timer_stop(&server->tick);
	timer_stop(&server->stop_timer);
	master_link_close(server->link);
	server->link = server->service.link = NULL;
	close_network(server);
	commands_abandon(&server->service);
	fence_abandon(&server->service);
	chunk_store_each_open(server->store, abandon, NULL);
	chunk_store_close(server->store, store_closed, server);
}

uint64_t chunkserver_id(const struct chunkserver *server)
{
	return server->identity.id;
}

const char *chunkserver_address(const struct chunkserver *server)
{
	return rpc_address(server->rpc);
}

struct service *chunkserver_service(struct chunkserver *server)
{
	return &server->service;
}
