#include "master/placement.h"

#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"

struct choice {
	const struct placement_candidate *candidates;
	size_t count;
	uint64_t bytes_reserved;
	size_t chosen[REPLICAS_MAX];
	size_t chosen_count;
};

static bool choice_allows(const struct choice *choice, size_t i, bool new_host)
{
	const struct placement_candidate *candidate = &choice->candidates[i];

	if (!candidate->usable || candidate->bytes_free <= choice->bytes_reserved)
		return false;
	for (size_t k = 0; k < choice->chosen_count; k++) {
		if (choice->chosen[k] == i)
			return false;
		if (new_host && strcmp(choice->candidates[choice->chosen[k]].host, candidate->host) == 0)
			return false;
	}
	return true;
}

/* In MiB, so that the sum over SERVERS_MAX servers cannot overflow. */
static uint64_t choice_weight(const struct choice *choice, size_t i)
{
	return (choice->candidates[i].bytes_free - choice->bytes_reserved) / MIB + 1;
}

static bool choice_draw(struct choice *choice, bool new_host, struct rng *rng)
{
	uint64_t total = 0;

	for (size_t i = 0; i < choice->count; i++) {
		if (choice_allows(choice, i, new_host))
			total += choice_weight(choice, i);
	}
	if (total == 0)
		return false;
	uint64_t ticket = rng_below(rng, total);
	for (size_t i = 0; i < choice->count; i++) {
		if (!choice_allows(choice, i, new_host))
			continue;
		uint64_t weight = choice_weight(choice, i);
		if (ticket < weight) {
			choice->chosen[choice->chosen_count++] = i;
			return true;
		}
		ticket -= weight;
	}
	check(false);
	return false;
}

enum err placement_choose(const struct placement_wish *wish, const struct placement_candidate *candidates, size_t count,
			  struct rng *rng, uint64_t *out, size_t *out_count)
{
	struct choice choice = { .candidates = candidates, .count = count, .bytes_reserved = wish->bytes_reserved };
	size_t usable = 0;
	size_t least = count < 2 ? 1 : 2;

	check(wish->copies >= 1 && wish->copies <= REPLICAS_MAX);
	*out_count = 0;
	if (least > wish->copies)
		least = wish->copies;
	for (size_t i = 0; i < count; i++)
		usable += candidates[i].usable;
	while (choice.chosen_count < wish->copies && choice_draw(&choice, true, rng))
		continue;
	while (choice.chosen_count < wish->copies && choice_draw(&choice, false, rng))
		continue;
	if (choice.chosen_count < least)
		return usable >= least ? ERR_NO_SPACE : ERR_NO_SERVERS;
	for (size_t i = choice.chosen_count; i > 1; i--) {
		size_t k = (size_t)rng_below(rng, i);
		size_t moved = choice.chosen[i - 1];
		choice.chosen[i - 1] = choice.chosen[k];
		choice.chosen[k] = moved;
	}
	for (size_t i = 0; i < choice.chosen_count; i++)
		out[i] = candidates[choice.chosen[i]].server;
	*out_count = choice.chosen_count;
	return OK;
}

uint64_t placement_extend(const struct placement_extension *extension, struct rng *rng)
{
	struct choice choice = { .candidates = extension->candidates,
				 .count = extension->count,
				 .bytes_reserved = extension->bytes_reserved };

	check(extension->member_count < REPLICAS_MAX);
	for (size_t i = 0; i < extension->count && choice.chosen_count < REPLICAS_MAX - 1; i++) {
		for (size_t k = 0; k < extension->member_count; k++) {
			if (extension->candidates[i].server == extension->members[k])
				choice.chosen[choice.chosen_count++] = i;
		}
	}
	if (!choice_draw(&choice, true, rng) && !choice_draw(&choice, false, rng))
		return 0;
	return extension->candidates[choice.chosen[choice.chosen_count - 1]].server;
}
