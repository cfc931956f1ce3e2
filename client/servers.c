#include "client/servers.h"

#include "client/coded_places.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

#define LATENCY_FIRST_US 1000u
#define LATENCY_LEAST_US 50u
#define LATENCY_SAMPLES 32u /* that the moving average looks back on, roughly */
#define SICK_MS_MIN 1000u
#define SICK_MS_MAX 30000u
#define PROBE_MS 500u /* for one read to find out whether it is well again */
#define HEDGE_FACTOR 8u

void servers_deinit(struct servers *servers)
{
	struct server *server, *next;
	coded_places_deinit(servers);
	HASH_ITER(hh, servers->table, server, next)
	{
		HASH_DEL(servers->table, server);
		rpc_peer_close(server->peer);
		free(server);
	}
}

struct server *servers_get(struct servers *servers, uint64_t id, const char *address)
{
	struct server *server;
	HASH_FIND(hh, servers->table, &id, sizeof id, server);
	if (!server) {
		server = mem_zero(1, sizeof *server);
		server->id = id;
		server->peer = rpc_peer_open(servers->rpc, address);
		server->latency_us = LATENCY_FIRST_US;
		HASH_ADD(hh, servers->table, id, sizeof server->id, server);
	} else if (strcmp(rpc_peer_address(server->peer), address) != 0) {
		struct rpc_peer *old = server->peer;
		server->peer = rpc_peer_open(servers->rpc, address);
		server->sick_until_ms = server->sick_ms = 0;
		rpc_peer_close(old);
	}
	return server;
}

void server_answered(struct server *server, uint64_t latency_us)
{
	server->latency_us = (server->latency_us * (LATENCY_SAMPLES - 1) + latency_us) / LATENCY_SAMPLES;
	server->sick_until_ms = server->sick_ms = 0;
}

void server_failed(struct server *server, uint64_t now_ms)
{
	/* What was asked before it was known counts once. */
	if (server->sick_until_ms > now_ms + PROBE_MS)
		return;
	server->sick_ms = server->sick_ms == 0 ? SICK_MS_MIN : server->sick_ms * 2 < SICK_MS_MAX ? server->sick_ms * 2 : SICK_MS_MAX;
	server->sick_until_ms = now_ms + server->sick_ms;
}

void server_asked(struct server *server, uint64_t now_ms)
{
	if (server->sick_ms != 0 && server->sick_until_ms <= now_ms)
		server->sick_until_ms = now_ms + PROBE_MS;
}

uint64_t server_hedge_ms(const struct server *server)
{
	uint64_t usual_ms = HEDGE_FACTOR * server->latency_us / 1000;
	usual_ms = usual_ms < CLIENT_HEDGE_MS_MIN ? CLIENT_HEDGE_MS_MIN : usual_ms;
	return usual_ms < CLIENT_HEDGE_MS_MAX ? usual_ms : CLIENT_HEDGE_MS_MAX;
}

void servers_read_begins(struct servers *servers)
{
	if (servers->hedge_credit < CLIENT_HEDGES_MAX * CLIENT_READS_PER_HEDGE)
		servers->hedge_credit++;
}

bool servers_may_hedge(struct servers *servers)
{
	if (servers->hedge_credit < CLIENT_READS_PER_HEDGE)
		return false;
	servers->hedge_credit -= CLIENT_READS_PER_HEDGE;
	return true;
}

enum err location_parse(struct servers *servers, const Granary__ChunkLocation *message, struct location *out)
{
	*out = (struct location){.chunk = message->chunk,
				 .version = message->version,
				 .written = message->written,
				 .frozen = message->frozen,
				 .cold = message->coded != NULL,
				 .lossy = message->coded && message->coded->loss_untold};
	if (message->chunk == 0)
		return ERR_PROTOCOL;
	if (out->cold)
		return coded_places_put(servers, message);
	if (message->n_replicas == 0 || message->n_replicas > REPLICAS_MAX)
		return ERR_PROTOCOL;
	for (size_t i = 0; i < message->n_replicas; i++) {
		const Granary__Replica *replica = message->replicas[i];
		if (!strchr(replica->address, ':'))
			return ERR_PROTOCOL;
		out->replicas[out->count++] = servers_get(servers, replica->server, replica->address);
		out->joining = replica->joining;
	}
	return location_readable(out) > 0 ? OK : ERR_PROTOCOL;
}

void location_chain(const struct location *location, struct location_chain *out)
{
	out->count = location->count;
	for (unsigned i = 0; i < location->count; i++) {
		granary__replica__init(&out->replicas[i]);
		out->replicas[i].server = location->replicas[i]->id;
		out->replicas[i].address = (char *)(uintptr_t)rpc_peer_address(location->replicas[i]->peer);
		out->replicas[i].joining = location->joining && i + 1 == location->count;
		out->pointers[i] = &out->replicas[i];
	}
}

/* In large steps, so that the same reads go elsewhere only when latencies differ for good: where a page cache has what another
 * has not, or the other way round, the average of a server wanders. */
static uint64_t weight(const struct server *server)
{
	uint64_t weight = 1u << 24;
	for (uint64_t latency = LATENCY_LEAST_US; latency < server->latency_us && weight > 1; latency *= 4)
		weight /= 4;
	return weight;
}

static void shuffle(struct server **servers, unsigned count, struct rng *rng)
{
	for (unsigned i = 0; i + 1 < count; i++) {
		uint64_t sum = 0;
		for (unsigned j = i; j < count; j++)
			sum += weight(servers[j]);
		/* Not rng_below: the same draw shall mean the same server while the sum changes a little. */
		uint64_t drawn = (rng_next(rng) >> 32) * sum >> 32;
		unsigned chosen = i;
		for (unsigned j = i; j < count; j++) {
			if (drawn < weight(servers[j])) {
				chosen = j;
				break;
			}
			drawn -= weight(servers[j]);
		}
		struct server *server = servers[chosen];
		servers[chosen] = servers[i];
		servers[i] = server;
	}
}

void location_shuffle(const struct location *location, struct rng *rng, uint64_t now_ms,
		      struct server *out[REPLICAS_MAX])
{
	unsigned healthy = 0, count = 0, readable = location_readable(location);
	for (unsigned i = 0; i < readable; i++)
		if (location->replicas[i]->sick_until_ms <= now_ms)
			out[healthy++] = location->replicas[i];
	count = healthy;
	for (unsigned i = 0; i < readable; i++)
		if (location->replicas[i]->sick_until_ms > now_ms)
			out[count++] = location->replicas[i];
	shuffle(out, healthy, rng);
	shuffle(out + healthy, count - healthy, rng);
}
