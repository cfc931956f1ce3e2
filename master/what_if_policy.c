#include "master/what_if_policy.h"

enum loss loss_judge(const struct loss_question *question)
{
	if (question->present < question->needed)
		return LOSS_BEFORE;
	if (question->left < question->needed)
		return LOSS_LOST;
	if (question->left == question->needed)
		return LOSS_ALONE;
	return question->left < question->wanted ? LOSS_DEGRADED : LOSS_NONE;
}

unsigned loss_to_make(const struct loss_question *question, size_t servers_left)
{
	unsigned wanted = question->wanted < servers_left ? question->wanted : (unsigned)servers_left;

	return question->left >= question->needed && question->left < wanted ? wanted - question->left : 0;
}

static uint64_t ms_of(uint64_t bytes, uint64_t rate)
{
	return rate == 0 ? 0 : bytes / rate * 1000 + bytes % rate * 1000 / rate;
}

uint64_t repair_load_ms(const struct repair_load *load)
{
	uint64_t copies_ms = ms_of(load->copied_bytes_max, load->copy_rate);
	uint64_t shards_ms = load->servers_left == 0 ? 0 : ms_of(load->gathered_bytes / load->servers_left, load->shard_rate);

	return copies_ms > shards_ms ? copies_ms : shards_ms;
}
