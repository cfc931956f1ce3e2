#include "master/cold_policy.h"

#include <string.h>

#include "common/base/limits.h"

void cold_judge(const struct repair_question *question, struct meta *meta, const Granary__Chunk *chunk,
		bool (*damaged)(void *arg, uint64_t shard), void *arg, struct cold_verdict *out)
{
	const Granary__Coding *coding = chunk->coding;
	uint64_t delay_ms = question->delay_ms;

	memset(out, 0, sizeof(*out));
	out->data_shards = coding->data_shards;
	out->total = (unsigned)coding->n_shards;
	for (unsigned i = 0; i < out->total && i < SHARDS_MAX; i++) {
		Granary__Chunk *shard = NULL;
		if (meta_chunk(meta, coding->shards[i], &shard))
			continue;
		const struct server *server = servers_find(question->servers, shard->replicas[0]);
		out->servers[i] = shard->replicas[0];
		out->rebuilding[i] = shard->rebuilding;
		out->versions[i] = shard->version;
		bool bad = damaged && damaged(arg, coding->shards[i]);
		if (server && !bad && servers_is_usable(server, question->now_ms))
			out->available++;
		out->lost |= bad ? 1ull << i : 0;
		message_free(&shard->base);
	}
	/* No more may be lost: only as long as processes take that are started again together. */
	if (out->available <= out->data_shards && delay_ms > REPAIR_ALONE_MS)
		delay_ms = REPAIR_ALONE_MS;
	for (unsigned i = 0; i < out->total && i < SHARDS_MAX; i++) {
		if (out->servers[i] == 0 || !repair_counts_on(question, out->servers[i], delay_ms))
			out->lost |= 1ull << i;
		out->lacking += (unsigned)(out->lost >> i & 1);
	}
}
