#include "master/servers.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

struct servers {
	struct server *table[SERVERS_MAX]; /* by id */
	size_t count;
	uint64_t leases_until_ms;
	uint64_t judged_ms;
};

struct servers *servers_open(void)
{
	return mem_zero(1, sizeof(struct servers));
}

void servers_close(struct servers *servers)
{
	if (!servers)
		return;
	servers_clear(servers, 0);
	free(servers);
}

void servers_clear(struct servers *servers, uint64_t leases_until_ms)
{
	for (size_t i = 0; i < servers->count; i++) {
		servers_set_disk(servers->table[i], NULL);
		free(servers->table[i]);
	}
	servers->count = 0;
#ifdef PLANT_LEASES_FORGOTTEN
	leases_until_ms = 0;
#endif
	servers->leases_until_ms = leases_until_ms;
}

/* The first place whose id is not below `id`. */
static size_t servers_place(const struct servers *servers, uint64_t id)
{
	size_t low = 0, high = servers->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (servers->table[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct server *servers_find(const struct servers *servers, uint64_t id)
{
	size_t place = servers_place(servers, id);

	return place < servers->count && servers->table[place]->id == id ? servers->table[place] : NULL;
}

static void text_set(char *to, size_t size, const char *from)
{
	size_t length = strnlen(from, size - 1);

	memcpy(to, from, length);
	to[length] = 0;
}

struct server *servers_set(struct servers *servers, uint64_t id, const struct server_place *where)
{
	struct server *server = servers_find(servers, id);

	if (!server) {
		size_t place = servers_place(servers, id);
		if (servers->count == SERVERS_MAX)
			return NULL;
		memmove(&servers->table[place + 1], &servers->table[place],
			(servers->count - place) * sizeof(servers->table[0]));
		server = servers->table[place] = mem_zero(1, sizeof(*server));
		server->id = id;
		server->lease_until_ms = servers->leases_until_ms;
		servers->count++;
	}
	text_set(server->address, sizeof(server->address), where->address);
	text_set(server->host, sizeof(server->host), where->host);
	text_set(server->location, sizeof(server->location), where->location);
	return server;
}

void servers_set_draining(struct server *server, uint64_t now_ms, bool draining)
{
	if (server->draining != draining)
		server->draining_since_ms = now_ms;
	server->draining = draining;
}

size_t servers_count(const struct servers *servers)
{
	return servers->count;
}

struct server *servers_at(const struct servers *servers, size_t i)
{
	check(i < servers->count);
	return servers->table[i];
}

void servers_gone(struct server *server, uint64_t now_ms)
{
	if (server->lease_until_ms > now_ms)
		server->lease_until_ms = now_ms;
}

void servers_connected(struct server *server, uint64_t now_ms, void *connection, uint64_t incarnation)
{
	/* The process before it was heard here and is no more. */
	if (server->heard_ms && server->incarnation != incarnation)
		servers_gone(server, now_ms);
	server->connection = connection;
	server->incarnation = incarnation;
	server->heard_ms = now_ms;
	server->cleaning = true;
#ifdef PLANT_LEASE_UNCLEAN
	servers_cleaned(server, now_ms);
#endif
}

struct server *servers_connection_lost(struct servers *servers, const void *connection)
{
	for (size_t i = 0; i < servers->count; i++) {
		struct server *server = servers->table[i];
		if (server->connection != connection)
			continue;
		server->connection = NULL;
#ifdef PLANT_RESET_IS_DEAD
		server->lease_until_ms = 0;
#endif
		return server;
	}
	return NULL;
}

uint64_t servers_heartbeat(struct server *server, uint64_t now_ms, const void *connection, uint64_t incarnation, bool failed,
			   bool *again)
{
	*again = server->connection != connection || server->incarnation != incarnation;
	if (*again)
		return 0;
	server->heard_ms = now_ms;
	server->failed = failed;
	if (server->cleaning || server->drops || failed || server->slow)
		return 0;
	if (now_ms >= server->lease_until_ms) {
		*again = true;
		return 0;
	}
	server->lease_until_ms = now_ms + CHUNKSERVER_LEASE_MS;
	return LEASE_GRANTED_MS(CHUNKSERVER_LEASE_MS);
}

void servers_unleased(struct server *server, uint64_t now_ms)
{
	if ((server->slow || server->failed) && server->lease_until_ms > now_ms)
		server->lease_until_ms = now_ms;
}

void servers_set_disk(struct server *server, const Granary__DiskHealth *disk)
{
	if (server->disk)
		message_free(&server->disk->base);
	server->disk = disk ? (Granary__DiskHealth *)message_copy(&disk->base) : NULL;
	server->uncertain = disk && disk->uncertain > 0;
}

static int compare_latencies(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static uint64_t latency_us(const struct server *server)
{
	return server->disk ? server->disk->latency_us : 0;
}

/* 0: too few of them say. */
static uint64_t peers_latency_us(const struct servers *servers, const struct server *but)
{
	uint64_t *latencies = mem_alloc((servers->count + 1) * sizeof(*latencies));
	size_t count = 0;

	for (size_t i = 0; i < servers->count; i++) {
		if (servers->table[i] != but && latency_us(servers->table[i]) > 0)
			latencies[count++] = latency_us(servers->table[i]);
	}
	qsort(latencies, count, sizeof(*latencies), compare_latencies);
	uint64_t median = count < 2 ? 0 : latencies[count / 2];
	free(latencies);
	return median;
}

/* Every other server is there, with its chunks, and none is out for slowness. */
static bool can_do_without(const struct servers *servers, const struct server *but, uint64_t now_ms)
{
	for (size_t i = 0; i < servers->count; i++) {
		const struct server *server = servers->table[i];
		if (server != but && (server->slow || server->uncertain || !servers_is_usable(server, now_ms)))
			return false;
	}
	return servers->count > REPLICAS_DEFAULT;
}

static void judge_one(const struct servers *servers, struct server *server, uint64_t now_ms)
{
	uint64_t peers = peers_latency_us(servers, server), own = latency_us(server);
	bool is_slow = peers > 0 && own >= SLOW_US_MIN && own >= SLOW_TIMES * peers;
	bool is_fast = own > 0 && (own < SLOW_US_MIN / 2 || (peers > 0 && own < SLOW_TIMES / 2 * peers));

	if (!server->slow) {
		if (!is_slow)
			server->slow_since_ms = 0;
		else if (server->slow_since_ms == 0) /* it has shown by then for as long as that took */
			server->slow_since_ms = own / 1000 < now_ms ? now_ms - own / 1000 : 1;
		server->slow = is_slow && now_ms - server->slow_since_ms >= SLOW_AFTER_MS && can_do_without(servers, server, now_ms);
		server->fast_since_ms = 0;
		return;
	}
	if (!is_fast)
		server->fast_since_ms = 0;
	else if (server->fast_since_ms == 0)
		server->fast_since_ms = now_ms;
	bool back = is_fast && now_ms - server->fast_since_ms >= SLOW_BACK_MS;
	if (back || !can_do_without(servers, server, now_ms)) {
		server->slow = false;
		server->slow_since_ms = 0;
	}
}

void servers_judge(struct servers *servers, uint64_t now_ms)
{
	if (now_ms < servers->judged_ms + SLOW_JUDGE_MS)
		return;
	servers->judged_ms = now_ms;
	for (size_t i = 0; i < servers->count; i++)
		judge_one(servers, servers->table[i], now_ms);
}

bool servers_is_waited_for(const struct server *server, uint64_t now_ms)
{
	return !server->uncertain && now_ms < server->lease_until_ms + UNCERTAIN_WAIT_MS;
}

bool servers_leave_doubt(const struct servers *servers, uint64_t now_ms, const struct servers_parting *parting)
{
	for (size_t i = 0; i < parting->kept_count; i++) {
		const struct server *server = servers_find(servers, parting->kept[i]);
		if (!server || !server->uncertain)
			return false;
	}
	for (size_t i = 0; i < parting->dropped_count; i++) {
		const struct server *server = servers_find(servers, parting->dropped[i]);
		if (server && servers_is_waited_for(server, now_ms))
			return true;
	}
	return false;
}

void servers_note_fill(struct server *server, uint64_t now_ms, uint64_t fill_bytes, uint64_t filling_bytes)
{
	/* A process that has just started begins again. */
	uint64_t more = fill_bytes - (fill_bytes < server->fill_bytes ? 0 : server->fill_bytes);
	uint64_t since_ms = now_ms > server->heard_ms ? now_ms - server->heard_ms : 1;
	uint64_t rate = more * 1000 / since_ms;

	server->fill_bytes_heard += more;
	server->fill_bytes = fill_bytes;
	server->filling_bytes = filling_bytes;
	if (more == 0 && filling_bytes == 0)
		server->fill_rate = 0;
	else
		server->fill_rate = server->fill_rate ? (server->fill_rate * 3 + rate) / 4 : rate;
}

void servers_note_filled(struct server *server, uint64_t sent_bytes)
{
	server->filling_bytes -= sent_bytes < server->filling_bytes ? sent_bytes : server->filling_bytes;
}

void servers_cleaned(struct server *server, uint64_t now_ms)
{
	server->cleaning = false;
	server->lease_until_ms = now_ms + CHUNKSERVER_LEASE_MS;
}

bool servers_is_dead(const struct server *server, uint64_t now_ms)
{
	return now_ms >= server->lease_until_ms;
}

bool servers_is_usable(const struct server *server, uint64_t now_ms)
{
	return server->connection && !server->failed && !server->slow && !server->cleaning && now_ms < server->lease_until_ms;
}

bool servers_are_ahead(const struct servers *servers)
{
	for (size_t i = 0; i < servers->count; i++) {
#ifdef PLANT_OLD_STATE_COLLECTS
		continue;
#endif
		if (servers->table[i]->orphans_newer > 0)
			return true;
	}
	return false;
}

size_t servers_candidates(const struct servers *servers, uint64_t now_ms, struct placement_candidate *out)
{
	for (size_t i = 0; i < servers->count; i++) {
		const struct server *server = servers->table[i];
		out[i] = (struct placement_candidate){ .server = server->id,
						       .location = server->location,
						       .host = server->host,
						       .bytes_free = server->bytes_free,
						       .load = server->load,
						       .usable = servers_is_usable(server, now_ms) && !server->draining,
						       .expected = !server->draining && now_ms < server->lease_until_ms + PLACEMENT_AWAY_MS };
	}
	return servers->count;
}
