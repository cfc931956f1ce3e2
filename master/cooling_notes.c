/* What the leader remembers of chunks: which shards are bad, what failed lately, what became cold when. None of it is durable. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/sys/log.h"
#include "master/cooling_internal.h"

/* ---- what is known to be bad, and what failed */

bool cooling_shard_is_lost(void *arg, uint64_t shard)
{
	const struct cooling *cooling = arg;
	struct lost_shard *lost;

	HASH_FIND(hh, cooling->lost, &shard, sizeof(shard), lost);
	return lost != NULL;
}

void cooling_shard_lost(struct cooling *cooling, uint64_t shard)
{
	struct repair *repair = cooling->options.repair;
	if (cooling_shard_is_lost(cooling, shard) || HASH_COUNT(cooling->lost) >= COOL_WISHES_MAX)
		return;
	struct lost_shard *lost = mem_zero(1, sizeof(*lost));
	lost->shard = shard;
	HASH_ADD(hh, cooling->lost, shard, sizeof(lost->shard), lost);
	log_warn("shard_lost", "shard=%016" PRIx64, shard);
	repair_look(repair, shard);
}

void cooling_lost_forget(struct cooling *cooling, uint64_t shard)
{
	struct lost_shard *lost;

	HASH_FIND(hh, cooling->lost, &shard, sizeof(shard), lost);
	if (!lost)
		return;
	HASH_DEL(cooling->lost, lost);
	free(lost);
}

void cooling_judge(struct cooling *cooling, const Granary__Chunk *chunk, struct cold_verdict *out)
{
	struct repair_question question;

	repair_question(cooling->options.repair, &question);
	cold_judge(&question, cooling_meta(cooling), chunk, cooling_shard_is_lost, cooling, out);
}

/* Nothing that stays so: a server or a link that failed, or what is looked at just now. */
static bool may_pass(enum err err)
{
	return err == ERR_BUSY || err == ERR_CLOSED || err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_CHAIN_BROKEN ||
	       err == ERR_NO_LEASE || err == ERR_UNCERTAIN || err == ERR_CANCELLED || err == ERR_STALE_VERSION;
}

void cooling_note_failed(struct cooling *cooling, uint64_t chunk, enum err err)
{
	bool passes = may_pass(err);

	cooling->failed[cooling->failed_next++ % COOL_FAILED_MAX] =
		(struct failed){ .chunk = chunk,
				 .until_ms = cooling_now_ms(cooling) + (passes ? COOL_AGAIN_MS : COOL_FAILED_MS),
				 .err = passes ? ERR_BUSY : err };
}

enum err cooling_failed_lately(const struct cooling *cooling, uint64_t chunk)
{
	for (size_t i = 0; i < COOL_FAILED_MAX; i++) {
		const struct failed *failed = &cooling->failed[i];
		if (failed->chunk == chunk && cooling_now_ms(cooling) < failed->until_ms)
			return failed->err;
	}
	return OK;
}

void cooling_note_cold(struct cooling *cooling, uint64_t chunk)
{
	unsigned slot = cooling->colds_next++ % COOL_COLDS_REMEMBERED;

	if (cooling->colds[slot].chunk != 0)
		cooling->colds_before_ms = cooling->colds[slot].ms;
	cooling->colds[slot].chunk = chunk;
	cooling->colds[slot].ms = cooling_now_ms(cooling);
}


uint64_t cooling_cold_ms(const struct cooling *cooling, uint64_t chunk)
{
	uint64_t since_ms = cooling->colds_before_ms;

	for (size_t i = 0; i < COOL_COLDS_REMEMBERED; i++) {
		if (cooling->colds[i].chunk == chunk && cooling->colds[i].ms > since_ms)
			since_ms = cooling->colds[i].ms;
	}
	return cooling_now_ms(cooling) - since_ms;
}

/* Shards whose chunk has become hot, or was removed. */
void cooling_forget_gone(struct cooling *cooling)
{
	struct lost_shard *lost, *next;

	HASH_ITER(hh, cooling->lost, lost, next)
	{
		Granary__Chunk *shard = NULL;
		if (meta_chunk(cooling_meta(cooling), lost->shard, &shard) == ERR_NO_CHUNK)
			cooling_lost_forget(cooling, lost->shard);
		message_free(shard ? &shard->base : NULL);
	}
}
