#include "client/servers.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

#define LATENCY_FIRST_US 1000u
#define LATENCY_LEAST_US 50u
#define LATENCY_SAMPLES 32u /* that the moving average looks back on, roughly */
#define SICK_MS 3000u

void servers_deinit(struct servers *servers)
{
	struct server *server, *next;
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
		server->sick_until_ms = 0;
		rpc_peer_close(old);
	}
	return server;
}

void server_answered(struct server *server, uint64_t latency_us)
{
	server->latency_us = (server->latency_us * (LATENCY_SAMPLES - 1) + latency_us) / LATENCY_SAMPLES;
	server->sick_until_ms = 0;
}

void server_failed(struct server *server, uint64_t now_ms)
{
	server->sick_until_ms = now_ms + SICK_MS;
}

enum err location_parse(struct servers *servers, const Granary__ChunkLocation *message, struct location *out)
{
	if (message->n_replicas == 0 || message->n_replicas > REPLICAS_MAX || message->chunk == 0)
		return ERR_PROTOCOL;
	*out = (struct location){.chunk = message->chunk, .version = message->version};
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
	for (unsigned i = 0; i + 1 < healthy; i++) {
		uint64_t sum = 0;
		for (unsigned j = i; j < healthy; j++)
			sum += weight(out[j]);
		/* Not rng_below: the same draw shall mean the same server while the sum changes a little. */
		uint64_t drawn = (rng_next(rng) >> 32) * sum >> 32;
		unsigned chosen = i;
		for (unsigned j = i; j < healthy; j++) {
			if (drawn < weight(out[j])) {
				chosen = j;
				break;
			}
			drawn -= weight(out[j]);
		}
		struct server *server = out[chosen];
		out[chosen] = out[i];
		out[i] = server;
	}
}
