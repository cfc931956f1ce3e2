/* Why a chunk is kept as it is, and where it is, in words. Pure: what the leader says of it in, lines of text out. */
#ifndef GRANARY_TOOLS_GRANARY_EXPLAIN_WHY_H
#define GRANARY_TOOLS_GRANARY_EXPLAIN_WHY_H

#include "common/base/buf.h"
#include "common/proto/message.h"

#define WHY_LINES_MAX 8u

struct why {
	struct buf lines[WHY_LINES_MAX]; /* each ends with NUL */
	size_t count;
};

void why_chunk(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk, struct why *out);
void why_deinit(struct why *why);

/* "hot", "cooling", "cold", "warming" or "thawing" (master/meta/cold.h). */
const char *chunk_state_text(const Granary__Chunk *record);
/* NULL: the leader does not know it. */
const Granary__ServerStatus *explained_server(const Granary__ExplainReply *reply, uint64_t server);
/* "up", "slow", "failed", "returning" or "away". */
const char *server_state_text(const Granary__ServerStatus *server);

#endif
