#include "client/coded_places.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/data/erasure.h"

void coded_head_ref(struct coded_head *head)
{
	head->references++;
}

void coded_head_unref(struct coded_head *head)
{
	if (!head || --head->references > 0)
		return;
	coded_index_deinit(&head->index);
	free(head);
}

struct coded_place *coded_places_find(struct servers *servers, uint64_t chunk)
{
	struct coded_place *place;
	HASH_FIND(hh, servers->coded, &chunk, sizeof chunk, place);
	return place;
}

static void place_free(struct servers *servers, struct coded_place *place)
{
	HASH_DEL(servers->coded, place);
	coded_head_unref(place->head);
	free(place);
}

void coded_places_deinit(struct servers *servers)
{
	struct coded_place *place, *next;
	HASH_ITER(hh, servers->coded, place, next)
	{
		place_free(servers, place);
	}
}

static bool is_sensible(const Granary__CodedLocation *coded)
{
	uint32_t unit = coded->unit_bytes;
	if (!erasure_profile_valid(coded->data_shards, coded->parity_shards) || coded->n_firsts != coded->data_shards ||
	    coded->n_shards != (size_t)coded->data_shards + coded->parity_shards)
		return false;
	if (unit != 0 && (unit < CODED_UNIT_BYTES_MIN || unit > CODED_UNIT_BYTES || (unit & (unit - 1)) != 0))
		return false;
	for (size_t i = 0; i < coded->n_shards; i++)
		if (coded->shards[i]->server != 0 && !strchr(coded->shards[i]->address, ':'))
			return false;
	return true;
}

static struct coded_place *place_make(struct servers *servers, uint64_t chunk)
{
	struct coded_place *place = coded_places_find(servers, chunk);
	if (place)
		return place;
	if (HASH_COUNT(servers->coded) >= CLIENT_CODED_MAX)
		place_free(servers, servers->coded);
	place = mem_zero(1, sizeof *place);
	place->chunk = chunk;
	HASH_ADD(hh, servers->coded, chunk, sizeof place->chunk, place);
	return place;
}

enum err coded_places_put(struct servers *servers, const Granary__ChunkLocation *message)
{
	const Granary__CodedLocation *coded = message->coded;
	if (!is_sensible(coded))
		return ERR_PROTOCOL;
	struct coded_place *place = place_make(servers, message->chunk);
	/* Made cold anew since: other shards. */
	if (place->shards[0].id != coded->shards[0]->shard) {
		coded_head_unref(place->head);
		place->head = NULL;
	}
	place->data_shards = coded->data_shards;
	place->parity_shards = coded->parity_shards;
	place->unit_bytes = coded->unit_bytes;
	place->shard_bytes = coded->shard_bytes;
	memcpy(place->firsts, coded->firsts, coded->n_firsts * sizeof(place->firsts[0]));
	for (size_t i = 0; i < coded->n_shards; i++) {
		const Granary__ShardLocation *shard = coded->shards[i];
		place->shards[i] = (struct coded_shard){.id = shard->shard, .version = shard->version};
		if (shard->server != 0)
			place->shards[i].server = servers_get(servers, shard->server, shard->address);
	}
	return OK;
}

unsigned coded_place_of(const struct coded_place *place, uint32_t unit)
{
	unsigned shard = 0;
	while (shard + 1 < place->data_shards && place->firsts[shard + 1] <= unit)
		shard++;
	return shard;
}
