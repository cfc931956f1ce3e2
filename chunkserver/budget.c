#include "chunkserver/budget.h"

#define BURST_PARTS 20u /* of a second: what may be spent at once after a pause */

static void refill(struct budget *budget, uint64_t now_us, uint64_t rate)
{
	int64_t most = (int64_t)(rate / BURST_PARTS);
	uint64_t since_us = now_us - budget->refilled_us;
	budget->refilled_us = now_us;
	if (since_us > 1000000)
		since_us = 1000000;
	budget->bytes += (int64_t)(rate * since_us / 1000000);
	if (budget->bytes > most)
		budget->bytes = most;
}

uint64_t budget_wait(struct budget *budget, uint64_t now_us, uint64_t rate)
{
	refill(budget, now_us, rate);
	return budget->bytes >= 0 ? 0 : (uint64_t)-budget->bytes * 1000 / rate + 1;
}

void budget_spend(struct budget *budget, uint64_t bytes)
{
	budget->bytes -= (int64_t)bytes;
}
