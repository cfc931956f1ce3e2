/* Where shards and copies are made, and the operations that begin it. */
#include <inttypes.h>
#include <string.h>

#include "common/proto/settings.h"
#include "common/sys/log.h"
#include "master/cooling_internal.h"

static struct placement_pool pool_of(struct cooling *cooling)
{
	struct meta *meta = cooling_meta(cooling);

	return (struct placement_pool){ .candidates = cooling->candidates,
					.count = servers_candidates(cooling_servers(cooling), cooling_now_ms(cooling), cooling->candidates),
					.bytes_reserved = DISK_RESERVED_BYTES + CHUNK_BYTES,
					.copyset_seed = meta_cluster(meta),
					.copyset_width = (unsigned)setting_value(meta_settings(meta), SETTING_COPYSET_WIDTH) };
}

static uint64_t new_id(struct cooling *cooling)
{
	struct replica *replica = cooling->options.context->replica;
	uint64_t id = fill_id(cooling->options.fill, replica_time_ms(replica));

	replica_time_used(replica, fill_time_ms(cooling->options.fill));
	return id;
}

/* ---- cooling */

/* The stock profile that the failure domains are enough for, with one shard in each. */
static bool stock_profile(size_t hosts, unsigned *data_shards, unsigned *parity_shards)
{
	static const struct {
		unsigned data_shards, parity_shards;
	} stock[] = { { 10, 4 }, { 6, 3 }, { 4, 2 }, { 2, 2 } };

	for (size_t i = 0; i < sizeof(stock) / sizeof(stock[0]); i++) {
		if (hosts < stock[i].data_shards + stock[i].parity_shards)
			continue;
		*data_shards = stock[i].data_shards;
		*parity_shards = stock[i].parity_shards;
		return true;
	}
	return false;
}

/* All of its copies are there, and complete: what is lacking is made first. */
static bool is_whole(struct cooling *cooling, const Granary__Chunk *chunk)
{
	struct repair_question question;
	struct repair_verdict verdict;

	repair_question(cooling->options.repair, &question);
	repair_judge(&question, chunk, &verdict);
	return !chunk->joining && verdict.complete == chunk->n_replicas && verdict.complete >= 1;
}

static Granary__MetaOp *op_new(Granary__MetaOp__OpCase op_case)
{
	Granary__MetaOp *op = mem_alloc(sizeof(*op));

	granary__meta_op__init(op);
	op->op_case = op_case;
	return op;
}

static Granary__MetaOp *cool_op(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk, const struct placement *chosen,
				const struct storage_values *values)
{
	Granary__MetaOp *op = op_new(GRANARY__META_OP__OP_COOL_BEGIN);
	Granary__CoolBegin *begin = op->cool_begin = mem_alloc(sizeof(*begin));
	Granary__Coding *coding = mem_alloc(sizeof(*coding));

	granary__cool_begin__init(begin);
	granary__coding__init(coding);
	begin->chunk = id;
	begin->version = chunk->version;
	begin->coding = coding;
	coding->data_shards = values->data_shards;
	coding->parity_shards = values->parity_shards;
	coding->compression = values->compression;
	coding->n_shards = begin->n_servers = chosen->count;
	coding->shards = mem_alloc(chosen->count * sizeof(*coding->shards));
	begin->servers = mem_alloc(chosen->count * sizeof(*begin->servers));
	for (size_t i = 0; i < chosen->count; i++) {
		coding->shards[i] = new_id(cooling);
		begin->servers[i] = chosen->servers[i];
	}
	return op;
}

enum err cooling_begin_cool(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk)
{
	bool pack = chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK;
	struct placement_pool pool = pool_of(cooling);
	struct placement chosen;
	struct storage_values values;

	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD || chunk->n_replicas == 0)
		return ERR_INVALID;
	if (pack ? !chunk->sealed : !chunk->written)
		return pack ? ERR_BUSY : ERR_INVALID; /* nothing is in it */
	if (!is_whole(cooling, chunk) || cooling_tasks_of(cooling, chunk->replicas[0]) >= COOL_TASKS_PER_SERVER_MAX ||
	    HASH_COUNT(cooling->jobs) >= COOL_JOBS_MAX)
		return ERR_BUSY;
	meta_class_values(cooling_meta(cooling), chunk->class_, &values);
	if (!values.is_cold)
		return ERR_NOT_PERMITTED;
	if (values.data_shards == 0 && !stock_profile(placement_hosts(&pool), &values.data_shards, &values.parity_shards))
		return ERR_NO_SERVERS;
	struct placement_wish wish = { .count = values.data_shards + values.parity_shards,
				       .per_domain_max = values.parity_shards,
				       .whole = true };
	enum err err = placement_choose(&pool, &wish, &cooling->options.fill->rng, &chosen);
	if (err)
		return err;
	if (!chosen.spread)
		return ERR_NO_SERVERS;
	struct job *job = cooling_job_add(cooling, id, chunk->version);
	job->task = COLD_COOL;
	job->worker = chunk->replicas[0];
	cooling_propose(job, cool_op(cooling, id, chunk, &chosen, &values));
	return OK;
}

/* ---- warming */

/* A server may still have a copy of before. */
static void leave_out_fenced(struct cooling *cooling, const Granary__Chunk *chunk, size_t count)
{
	for (size_t i = 0; i < chunk->n_fences; i++) {
		uint64_t servers[SHARDS_MAX];
		size_t waiting = 0;
		meta_garbage_waits(cooling_meta(cooling), chunk->fences[i], servers, &waiting);
		for (size_t k = 0; k < waiting; k++)
			for (size_t c = 0; c < count; c++)
				cooling->candidates[c].usable &= cooling->candidates[c].server != servers[k];
	}
}

enum err cooling_begin_warm(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk)
{
	struct placement_pool pool = pool_of(cooling);
	struct placement_wish wish = { .count = chunk->copies_wanted ? chunk->copies_wanted : REPLICAS_DEFAULT };
	struct placement chosen;

	pool.bytes_reserved = DISK_RESERVED_BYTES;
	leave_out_fenced(cooling, chunk, pool.count);
	enum err err = placement_choose(&pool, &wish, &cooling->options.fill->rng, &chosen);
	if (err)
		return err;
	Granary__MetaOp *op = op_new(GRANARY__META_OP__OP_WARM_BEGIN);
	Granary__WarmBegin *begin = op->warm_begin = mem_alloc(sizeof(*begin));
	granary__warm_begin__init(begin);
	begin->chunk = id;
	begin->version = chunk->version;
	begin->n_replicas = chosen.count;
	begin->replicas = mem_alloc(chosen.count * sizeof(*begin->replicas));
	memcpy(begin->replicas, chosen.servers, chosen.count * sizeof(*begin->replicas));
	struct job *job = cooling_find(cooling, id);
	if (!job)
		job = cooling_job_add(cooling, id, chunk->version);
	job->version = chunk->version;
	job->told = false;
	job->task = COLD_WARM;
	job->worker = chosen.servers[0];
	cooling_propose(job, op);
	return OK;
}

/* ---- lost shards */

/* Somebody who has none of the set, with no more in one domain than before; 0: nobody. move: or NULL. */
static uint64_t choose_maker(struct cooling *cooling, const struct cold_verdict *verdict, const struct shard_move *move)
{
	struct placement_pool pool = pool_of(cooling);
	struct placement_extension extension = { .wish = { .count = verdict->total, .per_domain_max = verdict->total - verdict->data_shards },
						 .urgent = verdict->available <= verdict->data_shards };
	struct placement before = { .count = verdict->total }, after = { .count = verdict->total };
	uint64_t members[SHARDS_MAX];

	for (unsigned i = 0; i < verdict->total; i++) {
		before.servers[i] = verdict->servers[i];
		if ((verdict->lost >> i & 1) == 0)
			members[extension.member_count++] = after.servers[i] = verdict->servers[i];
		for (size_t c = 0; c < pool.count; c++)
			cooling->candidates[c].usable &= cooling->candidates[c].server != verdict->servers[i] &&
							 cooling->candidates[c].server != verdict->rebuilding[i];
	}
	for (size_t c = 0; c < pool.count; c++) {
		struct placement_candidate *candidate = &cooling->candidates[c];
		candidate->busy = cooling_tasks_of(cooling, candidate->server) >= COOL_TASKS_PER_SERVER_MAX;
		candidate->usable = candidate->usable && (!move || move->may_take(move->arg, candidate->server));
	}
	extension.members = members;
	uint64_t chosen = placement_extend(&pool, &extension, &cooling->options.fill->rng);
	for (unsigned i = 0; i < verdict->total; i++)
		after.servers[i] = after.servers[i] ? after.servers[i] : chosen;
	return move && chosen && !placement_keeps_spread(&pool, &before, &after) ? 0 : chosen;
}

static void begin_making(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk, const struct cold_verdict *verdict, unsigned place,
			 uint64_t server)
{
	Granary__MetaOp *op = op_new(GRANARY__META_OP__OP_SHARD_REBUILD);
	Granary__ShardRebuild *rebuild = op->shard_rebuild = mem_alloc(sizeof(*rebuild));
	granary__shard_rebuild__init(rebuild);
	rebuild->shard = chunk->coding->shards[place];
	rebuild->version = verdict->versions[place];
	rebuild->server = server;
	rebuild->step = 1;
	struct job *job = cooling_job_add(cooling, id, chunk->version);
	job->task = COLD_REBUILD;
	job->place = place;
	job->shard = rebuild->shard;
	job->worker = server;
	cooling_propose(job, op);
	log_info("shard_rebuild", "chunk=%016" PRIx64 " shard=%016" PRIx64 " server=%016" PRIx64 " available=%u of=%u", id, job->shard, server,
		 verdict->available, verdict->total);
}

enum err cooling_begin_rebuild(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk, const struct cold_verdict *verdict)
{
	unsigned place = 0;

	while (place < verdict->total && (verdict->lost >> place & 1) == 0)
		place++;
	if (place == verdict->total || verdict->available < verdict->data_shards || HASH_COUNT(cooling->jobs) >= COOL_JOBS_MAX)
		return ERR_BUSY;
	uint64_t server = choose_maker(cooling, verdict, NULL);
	const struct server *holder = servers_find(cooling_servers(cooling), verdict->servers[place]);
	/* Only its copy is bad. */
	if (server == 0 && holder && servers_is_usable(holder, cooling_now_ms(cooling)))
		server = holder->id;
	if (server == 0)
		return ERR_NO_SERVERS;
	begin_making(cooling, id, chunk, verdict, place, server);
	return OK;
}

/* ---- shards that move */

/* There are fewer failure domains than when its profile was chosen, by us, and enough for another one. */
static bool is_too_wide(struct cooling *cooling, const Granary__Chunk *owner)
{
	struct placement_pool pool = pool_of(cooling);
	struct storage_values values;
	size_t hosts;

	pool.bytes_reserved = 0; /* with room or without */
	hosts = placement_hosts(&pool);
	meta_class_values(cooling_meta(cooling), owner->class_, &values);
	return values.data_shards == 0 && hosts < owner->coding->n_shards &&
	       stock_profile(hosts, &values.data_shards, &values.parity_shards);
}

static enum err move_shard(struct cooling *cooling, const Granary__Chunk *owner, const Granary__Chunk *shard, const struct shard_move *move,
			   uint64_t *to)
{
	struct cold_verdict verdict;

	if (!owner->cold || owner->n_replicas > 0 || cooling_find(cooling, shard->owner) || cooling_failed_lately(cooling, shard->owner) ||
	    HASH_COUNT(cooling->jobs) >= COOL_JOBS_MAX)
		return ERR_BUSY;
	cooling_judge(cooling, owner, &verdict);
	if (verdict.available < verdict.total || verdict.lost)
		return ERR_UNREACHABLE;
	if (shard->rebuilding || shard->index >= verdict.total || owner->coding->shards[shard->index] != move->shard)
		return ERR_BUSY;
	verdict.lost = 1ull << shard->index;
	*to = choose_maker(cooling, &verdict, move);
	if (*to == 0)
		return move->empties && is_too_wide(cooling, owner) && cooling_wish(cooling, shard->owner, WISH_ANEW) ? ERR_BUSY : ERR_NO_SERVERS;
	begin_making(cooling, shard->owner, owner, &verdict, shard->index, *to);
	return OK;
}

enum err cooling_move_shard(struct cooling *cooling, const Granary__Chunk *shard, const struct shard_move *move, uint64_t *to)
{
	Granary__Chunk *owner = NULL;
	enum err err = meta_chunk(cooling_meta(cooling), shard->owner, &owner);

	if (err == OK)
		err = move_shard(cooling, owner, shard, move, to);
	message_free(owner ? &owner->base : NULL);
	return err;
}
