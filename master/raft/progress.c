#include "master/raft/progress.h"

#include "common/base/check.h"

static void inflight_clear(struct progress *progress)
{
	progress->inflight_head = 0;
	progress->inflight_count = 0;
}

void progress_reset(struct progress *progress, uint64_t last, uint64_t now_ms)
{
	progress->state = PROGRESS_PROBE;
	progress->match = 0;
	progress->next = last + 1;
	progress->contact_ms = now_ms;
	progress->echo_ms = 0;
	progress->probing = false;
	progress->heartbeat_due = true;
	inflight_clear(progress);
}

void progress_probe(struct progress *progress)
{
	progress->state = PROGRESS_PROBE;
	progress->next = progress->match + 1;
	progress->probing = false;
	inflight_clear(progress);
}

void progress_snapshot(struct progress *progress)
{
	progress->state = PROGRESS_SNAPSHOT;
	progress->probing = false;
	inflight_clear(progress);
}

bool progress_is_full(const struct progress *progress)
{
	return progress->inflight_count == RAFT_INFLIGHT_MAX;
}

void progress_sent(struct progress *progress, uint64_t last)
{
	if (progress->state == PROGRESS_PROBE) {
		progress->probing = true;
		return;
	}
	if (last < progress->next)
		return; /* empty */
	check(!progress_is_full(progress));
	progress->next = last + 1;
	progress->inflight[(progress->inflight_head + progress->inflight_count++) % RAFT_INFLIGHT_MAX] = last;
}

bool progress_accepted(struct progress *progress, uint64_t match)
{
	bool news = match > progress->match;
	if (news)
		progress->match = match;
	if (progress->next <= progress->match)
		progress->next = progress->match + 1;
	while (progress->inflight_count > 0 && progress->inflight[progress->inflight_head] <= match) {
		progress->inflight_head = (progress->inflight_head + 1) % RAFT_INFLIGHT_MAX;
		progress->inflight_count--;
	}
	/* Only an answer to the probe itself (or better) says where to go on from. */
	if (progress->state != PROGRESS_REPLICATE && match + 1 >= progress->next) {
		progress->state = PROGRESS_REPLICATE;
		progress->probing = false;
		inflight_clear(progress);
	}
	return news;
}

bool progress_refused(struct progress *progress, uint64_t refused, uint64_t agree)
{
	if (refused <= progress->match)
		return false;
	if (progress->state == PROGRESS_REPLICATE) {
		progress_probe(progress);
		return true;
	}
	if (refused != progress->next - 1)
		return false;
	uint64_t next = (agree < refused ? agree : refused - 1) + 1;
	progress->next = next > progress->match ? next : progress->match + 1;
	progress->probing = false;
	return true;
}
