#include "chunkserver/master_link.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "common/base/check.h"
#include "common/sys/log.h"

#define MASTERS_MAX RAFT_MEMBERS_MAX
#define SEARCH_PAUSE_MS 50u /* before the next address is tried */
/* With the heartbeat's period and an election well below the lease: a frozen leader is left before the lease is over. */
#define CALL_TIMEOUT_MS 450u
#define REPORT_PAUSE_MS_MIN 10u /* who has just died is known to be dead a moment later */
#define REPORT_PAUSE_MS_MAX 100u
#define REPORT_ATTEMPTS_MAX 40u

struct report {
	struct master_link *link;
	uint64_t chunk, version, server;
	bool unreachable, full, lost;
	bool is_fill; /* a copy was filled, or (fill_err) could not be; else a chain is broken */
	enum err fill_err;
	uint64_t fill_bytes;
	ProtobufCMessage *done; /* a command has ended: what is said of that; else NULL */
	enum message_type done_type;
	unsigned attempts;
	struct timer timer;
	rpc_call_id call;
	struct report *previous, *next;
};

struct master_link {
	struct rpc *rpc;
	struct loop *loop;
	struct chunk_store *store;
	struct master_link_options options;
	char *masters;
	char *addresses[MASTERS_MAX]; /* in `masters` */
	uint32_t address_count, address_next;
	char *silent; /* the one that did not answer lately: asked last */
	char *host, *location, *address;
	uint64_t cluster;
	uint64_t incarnation;
	Granary__Settings *settings;
	struct rpc_peer *peer; /* the leader, or the one being asked */
	bool registered;
	uint64_t lease_until_ms;
	uint64_t sent_ms; /* of the call under way */
	rpc_call_id call; /* register or heartbeat */
	struct timer timer;
	bool inventory_wanted, inventory_failed; /* there are more pages; all of it once more, when the master is heard */
	uint64_t inventory_after;
	rpc_call_id inventory_call;
	struct report *reports;
	uint32_t report_count;
};

static void send_register(struct master_link *link);
static void begin_inventory(struct master_link *link);

/* ---------------------------------------------------------------- finding the leader */

static void leave(struct master_link *link)
{
	if (link->call != 0)
		rpc_call_cancel(link->rpc, link->call);
	if (link->inventory_call != 0)
		rpc_call_cancel(link->rpc, link->inventory_call);
	link->call = link->inventory_call = 0;
	link->inventory_wanted = link->inventory_failed = false;
	link->registered = false;
	if (link->peer != NULL)
		rpc_peer_close(link->peer);
	link->peer = NULL;
}

static void ask(struct master_link *link, const char *address)
{
	struct rpc_peer *peer = rpc_peer_open(link->rpc, address);
	leave(link);
	link->peer = peer;
	send_register(link);
}

static void search(struct master_link *link)
{
	leave(link);
	timer_start(&link->timer, SEARCH_PAUSE_MS);
}

/* An answer that is no answer: elsewhere, then. */
static void go_on(struct master_link *link, const struct rpc_result *result)
{
	if (result->err == ERR_TIMEOUT) {
		free(link->silent);
		link->silent = mem_string(rpc_peer_address(link->peer));
	}
	if (result->err == ERR_NOT_LEADER && result->text[0] != 0 &&
	    strcmp(result->text, rpc_peer_address(link->peer)) != 0) {
		char *leader = mem_string(result->text);
		ask(link, leader);
		free(leader);
		return;
	}
	search(link);
}

static void on_timer(void *arg);

static void fill_space(struct master_link *link, uint64_t *total, uint64_t *available, uint64_t *chunks)
{
	struct chunk_store_counts counts;
	chunk_store_counts(link->store, &counts);
	*total = counts.bytes_total;
	*available = counts.bytes_free;
	if (chunks != NULL)
		*chunks = counts.chunks;
}

/* ---------------------------------------------------------------- registration and heartbeats */

/* The lease counts from when the answered request was sent. */
static void take_lease(struct master_link *link, uint32_t lease_ms)
{
	link->lease_until_ms = lease_ms == 0 ? 0 : link->sent_ms + lease_ms;
}

static uint64_t now_ms(const struct master_link *link)
{
#ifdef PLANT_CHUNK_LEASE_WALL_CLOCK
	return loop_wall_ms(link->loop);
#endif
	return loop_now_us(link->loop) / 1000;
}

static void on_register(void *arg, const struct rpc_result *result)
{
	struct master_link *link = arg;
	const Granary__RegisterReply *reply = (const Granary__RegisterReply *)result->reply;
	link->call = 0;
	if (result->err != OK) {
		if (result->err != ERR_NOT_LEADER && result->err != ERR_UNREACHABLE)
			log_warn("register_failed", "master=%s error=%s", rpc_peer_address(link->peer), err_name(result->err));
		go_on(link, result);
		return;
	}
	if (reply->cluster != 0 && link->cluster != 0 && reply->cluster != link->cluster) {
		log_error("wrong_cluster", "master=%s cluster=%016" PRIx64 " ours=%016" PRIx64,
			  rpc_peer_address(link->peer), reply->cluster, link->cluster);
		search(link);
		return;
	}
	if (link->cluster == 0 && reply->cluster != 0) {
		link->cluster = reply->cluster;
		rpc_set_cluster(link->rpc, reply->cluster);
		link->options.joined(link->options.arg, reply->cluster);
	}
	log_info("registered", "master=%s lease_ms=%" PRIu32, rpc_peer_address(link->peer), reply->lease_ms);
	link->registered = true;
	/* Before the lease: what it says must hold for all that is served under it. */
	link->options.sessions(link->options.arg, reply->sessions_known, reply->sessions, reply->n_sessions);
	take_lease(link, reply->lease_ms);
	if (reply->send_inventory)
		begin_inventory(link);
	/* Without a lease yet the first heartbeat is urgent. */
	timer_start(&link->timer, reply->lease_ms == 0 ? CHUNKSERVER_HEARTBEAT_MS / 6 : CHUNKSERVER_HEARTBEAT_MS);
}

static void send_register(struct master_link *link)
{
	Granary__RegisterRequest message = GRANARY__REGISTER_REQUEST__INIT;
	message.server = link->options.server;
	message.address = link->address;
	message.host = link->host;
	message.location = link->location;
	message.incarnation = link->incarnation;
	fill_space(link, &message.bytes_total, &message.bytes_free, NULL);
	struct chunk_store_counts counts;
	chunk_store_counts(link->store, &counts);
	message.uncertain = counts.uncertain;
	timer_stop(&link->timer);
	link->registered = false;
	link->sent_ms = now_ms(link);
	link->call = rpc_peer_call(link->peer, MESSAGE_REGISTER, &message.base, NULL, CALL_TIMEOUT_MS, on_register, link);
}

/* A master of an earlier version says nothing of them. */
static void take_settings(struct master_link *link, const Granary__Settings *settings)
{
	if (settings == NULL || settings->revision == link->settings->revision)
		return;
	message_free(&link->settings->base);
	link->settings = (Granary__Settings *)message_copy(&settings->base);
	log_info("settings_changed", "revision=%" PRIu64, settings->revision);
}

static void on_heartbeat(void *arg, const struct rpc_result *result)
{
	struct master_link *link = arg;
	const Granary__HeartbeatReply *reply = (const Granary__HeartbeatReply *)result->reply;
	link->call = 0;
	if (result->err == ERR_CLOSED) {
		/* If it is only the connection: the same master may take us for dead, so ask at once. */
		send_register(link);
		return;
	}
	if (result->err != OK) {
		log_info("leader_lost", "master=%s error=%s", rpc_peer_address(link->peer), err_name(result->err));
		go_on(link, result);
		return;
	}
	take_lease(link, reply->lease_ms);
	take_settings(link, reply->settings);
	if ((reply->send_inventory || link->inventory_failed) && !link->inventory_wanted && link->inventory_call == 0)
		begin_inventory(link);
	if (reply->register_again || link->options.wants_registration(link->options.arg)) {
		send_register(link);
		return;
	}
	uint64_t since = now_ms(link) - link->sent_ms;
	uint64_t period = reply->lease_ms == 0 ? CHUNKSERVER_HEARTBEAT_MS / 6 : CHUNKSERVER_HEARTBEAT_MS;
	timer_start(&link->timer, since < period ? period - since : 0);
}

static void send_heartbeat(struct master_link *link)
{
	Granary__Heartbeat message = GRANARY__HEARTBEAT__INIT;
	message.server = link->options.server;
	message.incarnation = link->incarnation;
	fill_space(link, &message.bytes_total, &message.bytes_free, &message.chunks);
	message.failed = chunk_store_failed(link->store) || chunk_store_is_hung(link->store);
	message.malformed_frames = conn_malformed_count(link->loop);
	Granary__DiskHealth health = GRANARY__DISK_HEALTH__INIT;
	link->options.health(link->options.arg, &health);
	message.disk = &health;
	link->options.fill_counts(link->options.arg, &message);
	message.unleased = !master_link_has_lease(link);
	link->sent_ms = now_ms(link);
	link->call = rpc_peer_call(link->peer, MESSAGE_HEARTBEAT, &message.base, NULL, CALL_TIMEOUT_MS, on_heartbeat, link);
}

static void on_timer(void *arg)
{
	struct master_link *link = arg;
	if (link->registered) {
		send_heartbeat(link);
		return;
	}
	const char *address = link->addresses[link->address_next++ % link->address_count];
	if (link->silent != NULL && strcmp(address, link->silent) == 0) {
		address = link->addresses[link->address_next++ % link->address_count];
		free(link->silent); /* it gets its turn the next time around */
		link->silent = NULL;
	}
	ask(link, address);
}

bool master_link_has_lease(const struct master_link *link)
{
#ifdef PLANT_CHUNK_LEASE_UNCHECKED
	return link->cluster != 0;
#endif
	return now_ms(link) < link->lease_until_ms;
}

uint64_t master_link_cluster(const struct master_link *link)
{
	return link->cluster;
}

const Granary__Settings *master_link_settings(const struct master_link *link)
{
	return link->settings;
}

/* ---------------------------------------------------------------- inventory */

struct page {
	Granary__ChunkHeld *held[INVENTORY_CHUNKS_MAX];
	size_t count;
};

static bool add_to_page(void *arg, const Granary__ChunkLocation *location)
{
	struct page *page = arg;
	Granary__ChunkHeld *held = mem_alloc(sizeof(*held));
	granary__chunk_held__init(held);
	held->chunk = location->chunk;
	held->version = location->version;
	held->kind = location->kind;
	held->copy = location->copy;
	page->held[page->count++] = held;
	return page->count < INVENTORY_CHUNKS_MAX;
}

static void send_inventory(struct master_link *link);

static void on_inventory(void *arg, const struct rpc_result *result)
{
	struct master_link *link = arg;
	link->inventory_call = 0;
	if (result->err != OK) {
		log_warn("inventory_failed", "error=%s", err_name(result->err));
		link->inventory_wanted = false;
		link->inventory_failed = true;
	}
	if (link->inventory_wanted)
		send_inventory(link);
}

static void send_inventory(struct master_link *link)
{
	struct page *page = mem_zero(1, sizeof(*page));
	enum err err = chunk_store_each(link->store, link->inventory_after, add_to_page, page);
	if (err == OK) {
		Granary__Inventory message = GRANARY__INVENTORY__INIT;
		message.server = link->options.server;
		message.incarnation = link->incarnation;
		message.n_chunks = page->count;
		message.chunks = page->held;
		message.last = page->count < INVENTORY_CHUNKS_MAX;
		link->inventory_wanted = !message.last;
		if (page->count > 0)
			link->inventory_after = page->held[page->count - 1]->chunk;
		link->inventory_call = rpc_peer_call(link->peer, MESSAGE_INVENTORY, &message.base, NULL, RPC_TIMEOUT_MS,
						     on_inventory, link);
	} else {
		chunk_store_fail(link->store, "index", err);
	}
	for (size_t i = 0; i < page->count; i++)
		free(page->held[i]);
	free(page);
}

static void begin_inventory(struct master_link *link)
{
	link->inventory_after = 0;
	link->inventory_wanted = true;
	link->inventory_failed = false;
	if (link->inventory_call == 0)
		send_inventory(link);
}

/* ---------------------------------------------------------------- failures of chains */

static void report_end(struct report *report)
{
	struct master_link *link = report->link;
	timer_stop(&report->timer);
	if (report->call != 0)
		rpc_call_cancel(link->rpc, report->call);
	DL_DELETE2(link->reports, report, previous, next);
	link->report_count--;
	message_free(report->done);
	free(report);
}

static void report_later(struct report *report)
{
	uint64_t pause = REPORT_PAUSE_MS_MIN;
	for (unsigned i = 1; i < report->attempts && pause < REPORT_PAUSE_MS_MAX; i++)
		pause *= 2;
	timer_start(&report->timer, pause < REPORT_PAUSE_MS_MAX ? pause : REPORT_PAUSE_MS_MAX);
}

static void on_reported(void *arg, const struct rpc_result *result)
{
	struct report *report = arg;
	struct master_link *link = report->link;
	report->call = 0;
	if (result->err == OK && report->done == NULL && !report->lost) { /* no news for who has only said something */
		link->options.configured(link->options.arg, (const Granary__ChunkLocation *)result->reply);
	} else if (report->attempts < REPORT_ATTEMPTS_MAX &&
		   (result->err == ERR_BUSY || result->err == ERR_NOT_LEADER || result->err == ERR_CLOSED ||
		    result->err == ERR_UNREACHABLE || result->err == ERR_TIMEOUT)) {
		report_later(report);
		return;
	} else if (result->err == ERR_NO_CHUNK && report->server == 0 && report->done == NULL) {
		chunk_store_drop_mark(link->store, report->chunk);
	}
	report_end(report);
}

static void send_filled(struct report *report)
{
	struct master_link *link = report->link;
	Granary__ChunkFilled message = GRANARY__CHUNK_FILLED__INIT;
	message.chunk = report->chunk;
	message.version = report->version;
	message.server = report->server;
	message.error = (uint32_t)report->fill_err;
	message.bytes = report->fill_bytes;
	report->call = rpc_peer_call(link->peer, MESSAGE_CHUNK_FILLED, &message.base, NULL, RPC_TIMEOUT_MS, on_reported, report);
}

static void send_report(void *arg)
{
	struct report *report = arg;
	struct master_link *link = report->link;
	Granary__ChunkFailure message = GRANARY__CHUNK_FAILURE__INIT;
	report->attempts++;
	if (!link->registered) {
		if (report->attempts >= REPORT_ATTEMPTS_MAX)
			report_end(report);
		else
			report_later(report);
		return;
	}
	if (report->is_fill) {
		send_filled(report);
		return;
	}
	if (report->done != NULL) {
		report->call = rpc_peer_call(link->peer, report->done_type, report->done, NULL, RPC_TIMEOUT_MS, on_reported, report);
		return;
	}
	message.chunk = report->chunk;
	message.version = report->version;
	message.server = report->server;
	message.unreachable = report->unreachable;
	message.full = report->full;
	message.lost = report->lost;
	report->call = rpc_peer_call(link->peer, MESSAGE_CHUNK_FAILURE, &message.base, NULL, RPC_TIMEOUT_MS, on_reported, report);
}

static void report_begin(struct master_link *link, struct report *report)
{
	report->link = link;
	timer_init(&report->timer, link->loop, send_report, report);
	DL_APPEND2(link->reports, report, previous, next);
	link->report_count++;
	timer_start(&report->timer, 0);
}

void master_link_report(struct master_link *link, const struct master_link_failure *failure)
{
	struct report *report;
	DL_FOREACH2 (link->reports, report, next) {
		if (report->chunk == failure->chunk && report->server == failure->server && report->version >= failure->version &&
		    !report->is_fill && report->done == NULL) {
			report->unreachable = failure->unreachable;
			report->full = failure->full;
			return;
		}
	}
	/* Above the bound the clients' own reports do. */
	if (link->report_count >= CHUNK_FAILURES_REPORTED_MAX)
		return;
	log_warn("chain_broken", "chunk=%016" PRIx64 " version=%" PRIu64 " server=%016" PRIx64, failure->chunk, failure->version,
		 failure->server);
	report = mem_zero(1, sizeof(*report));
	*report = (struct report){ .chunk = failure->chunk,
				   .version = failure->version,
				   .server = failure->server,
				   .unreachable = failure->unreachable,
				   .full = failure->full,
				   .lost = failure->lost };
	report_begin(link, report);
}

rpc_call_id master_link_locate(struct master_link *link, uint64_t chunk, rpc_done_fn *done, void *arg)
{
	Granary__ChunkFailure message = GRANARY__CHUNK_FAILURE__INIT;
	if (!link->registered)
		return 0;
	message.chunk = chunk;
	message.lost = true;
	return rpc_peer_call(link->peer, MESSAGE_CHUNK_FAILURE, &message.base, NULL, RPC_TIMEOUT_MS, done, arg);
}

void master_link_filled(struct master_link *link, const struct master_link_fill *fill)
{
	struct report *report;
	DL_FOREACH2 (link->reports, report, next) {
		if (report->is_fill && report->chunk == fill->chunk && report->version >= fill->version)
			return;
	}
	if (link->report_count >= CHUNK_FAILURES_REPORTED_MAX)
		return; /* it is said again */
	report = mem_zero(1, sizeof(*report));
	*report = (struct report){ .chunk = fill->chunk,
				   .version = fill->version,
				   .server = fill->server,
				   .is_fill = true,
				   .fill_err = fill->err,
				   .fill_bytes = fill->bytes };
	report_begin(link, report);
}

bool master_link_tells_cold(const struct master_link *link, const struct cold_attempt *attempt)
{
	const struct report *report;
	DL_FOREACH2 (link->reports, report, next) {
		const Granary__ColdDone *cold = (const Granary__ColdDone *)report->done;
		if (cold != NULL && report->done_type == MESSAGE_COLD_DONE && cold->task == attempt->task &&
		    (cold->shard != 0 ? cold->shard : cold->chunk) == attempt->chunk && cold->version == attempt->version)
			return true;
	}
	return false;
}

static void tell_done(struct master_link *link, enum message_type type, const ProtobufCMessage *message)
{
	struct report *report;
	if (link->report_count >= CHUNK_FAILURES_REPORTED_MAX)
		return; /* the master asks again, and it is done again */
	report = mem_zero(1, sizeof(*report));
	report->done = message_copy(message);
	report->done_type = type;
	report_begin(link, report);
}

void master_link_cold_done(struct master_link *link, const Granary__ColdDone *message)
{
	tell_done(link, MESSAGE_COLD_DONE, &message->base);
}

void master_link_move_done(struct master_link *link, const Granary__MoveDone *message)
{
	tell_done(link, MESSAGE_MOVE_DONE, &message->base);
}

/* ---------------------------------------------------------------- life */

static enum err parse_masters(struct master_link *link, const char *masters)
{
	link->masters = mem_string(masters);
	for (char *at = link->masters; *at != 0;) {
		char *end = at + strcspn(at, ", ");
		bool last = *end == 0;
		*end = 0;
		if (end > at) {
			if (link->address_count == MASTERS_MAX)
				return ERR_INVALID;
			link->addresses[link->address_count++] = at;
		}
		at = last ? end : end + 1;
	}
	return link->address_count > 0 ? OK : ERR_INVALID;
}

enum err master_link_open(struct rpc *rpc, struct loop *loop, struct chunk_store *store,
			  const struct master_link_options *options, struct master_link **out)
{
	struct master_link *link = mem_zero(1, sizeof(*link));
	*out = NULL;
	link->rpc = rpc;
	link->loop = loop;
	link->store = store;
	link->options = *options;
	link->host = mem_string(options->host);
	link->location = mem_string(options->location != NULL ? options->location : "");
	link->address = mem_string(options->address);
	link->cluster = options->cluster;
	link->incarnation = loop_random(loop);
	link->settings = mem_alloc(sizeof(*link->settings));
	granary__settings__init(link->settings);
	timer_init(&link->timer, loop, on_timer, link);
	enum err err = parse_masters(link, options->masters);
	if (err != OK) {
		master_link_close(link);
		return err;
	}
	/* Servers that start together do not all begin with the same master. */
	link->address_next = (uint32_t)(loop_random(loop) % link->address_count);
	timer_start(&link->timer, 0);
	*out = link;
	return OK;
}

void master_link_close(struct master_link *link)
{
	if (link == NULL)
		return;
	while (link->reports != NULL)
		report_end(link->reports);
	timer_stop(&link->timer);
	leave(link);
	free(link->masters);
	free(link->silent);
	message_free(&link->settings->base);
	free(link->host);
	free(link->location);
	free(link->address);
	free(link);
}
