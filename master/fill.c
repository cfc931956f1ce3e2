#include "master/fill.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/proto/settings.h"

void fill_init(struct fill *fill, uint32_t worker, uint64_t seed, struct servers *servers)
{
	*fill = (struct fill){ .servers = servers };
	snowflake_init(&fill->snowflake, worker);
	rng_init(&fill->rng, seed);
	fill->candidates = mem_alloc(SERVERS_MAX * sizeof(*fill->candidates));
}

void fill_deinit(struct fill *fill)
{
	free(fill->candidates);
	fill->candidates = NULL;
}

uint64_t fill_id(struct fill *fill, uint64_t time_ms)
{
	return snowflake_next(&fill->snowflake, time_ms);
}

uint64_t fill_time_ms(const struct fill *fill)
{
	return fill->snowflake.last ? snowflake_ms(fill->snowflake.last) : 0;
}

uint64_t fill_ids(struct fill *fill, uint64_t time_ms)
{
	return snowflake_block(&fill->snowflake, time_ms);
}

struct filled {
	size_t *count;
	uint64_t **replicas;
	bool *full;
};

static enum err fill_replicas(struct fill *fill, uint64_t now_ms, unsigned copies, const struct filled *out)
{
	struct placement_wish wish = { .count = copies };
	struct placement_pool pool = { .candidates = fill->candidates,
				       .count = servers_candidates(fill->servers, now_ms, fill->candidates),
				       .bytes_reserved = DISK_RESERVED_BYTES,
				       .copyset_seed = fill->copyset_seed,
				       .copyset_width = fill->copyset_width };
	struct placement chosen;
	enum err err = placement_choose(&pool, &wish, &fill->rng, &chosen);

	if (now_ms < fill->wait_until_ms && err != ERR_NO_SPACE &&
	    (chosen.count == 0 || (chosen.count < wish.count && chosen.count < pool.count)))
		return ERR_WOULD_BLOCK;
	if (err == ERR_NO_SPACE)
		*out->full = true;
	free(*out->replicas);
	*out->replicas = NULL;
	*out->count = chosen.count;
	if (chosen.count > 0) {
		*out->replicas = mem_alloc(chosen.count * sizeof(**out->replicas));
		memcpy(*out->replicas, chosen.servers, chosen.count * sizeof(**out->replicas));
	}
	return OK;
}

enum err fill_request(struct fill *fill, uint64_t now_ms, uint64_t time_ms, Granary__MetaRequest *request, bool *full)
{
	enum err err = OK;

	*full = false;
	for (size_t i = 0; err == OK && i < request->n_ops; i++) {
		Granary__MetaOp *op = request->ops[i];
		switch (op->op_case) {
		case GRANARY__META_OP__OP_CREATE:
			if (op->create->id == 0)
				op->create->id = fill_id(fill, time_ms);
			break;
		case GRANARY__META_OP__OP_ALLOCATE_CHUNK:
			op->allocate_chunk->id = fill_id(fill, time_ms);
			err = fill_replicas(fill, now_ms, fill->copies(fill->copies_arg, request, i),
					    &(struct filled){ &op->allocate_chunk->n_replicas, &op->allocate_chunk->replicas, full });
			break;
		case GRANARY__META_OP__OP_OPEN_PACK:
			op->open_pack->id = fill_id(fill, time_ms);
			err = fill_replicas(fill, now_ms, fill->copies(fill->copies_arg, request, i),
					    &(struct filled){ &op->open_pack->n_replicas, &op->open_pack->replicas, full });
			break;
		default:
			break;
		}
	}
	return err;
}

enum err fill_for(struct fill *fill, struct replica *replica, uint64_t now_ms, Granary__MetaRequest *request, bool *full)
{
	struct meta *meta = replica_meta(replica);

	fill->copyset_seed = meta_cluster(meta);
	fill->copyset_width = (unsigned)setting_value(meta_settings(meta), SETTING_COPYSET_WIDTH);
	enum err err = fill_request(fill, now_ms, replica_time_ms(replica), request, full);
	replica_time_used(replica, fill_time_ms(fill));
	return err;
}
