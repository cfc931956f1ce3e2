#include "master/placement.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/location.h"

/* How many of the chosen are in the same domain, one number a level in one word, the broadest level in its highest bits: the smaller word
 * shares less. */
#define LEVEL_BITS 6u
#define HOST_LEVEL LOCATION_DEPTH_MAX
#define LEVELS (HOST_LEVEL + 1u)
#define LEVEL_ONE(level) (1ull << ((HOST_LEVEL - (level)) * LEVEL_BITS))
#define TAKEN UINT64_MAX
_Static_assert(SHARDS_MAX < 1u << LEVEL_BITS && LEVELS * LEVEL_BITS < 64, "a word holds them");

#define LOAD_USUAL 8u	 /* less than that is nothing */
#define LOAD_HALVINGS 3u
#define BUSY_TRIES 2u

struct choice {
	const struct placement_pool *pool;
	unsigned first_level;		      /* the broadest at which there are two domains; LEVELS: not even two hosts */
	unsigned bound_level, per_domain_max; /* LEVELS: no bound */
	bool by_order;			      /* not drawn: the first in `orders` */
	bool with_expected;		      /* those that are away for a moment, too */
	uint64_t *weights;		      /* 0: not to be chosen */
	uint64_t *orders;
	uint64_t *shared;
	size_t chosen[SHARDS_MAX];
	size_t count;
};

static uint64_t shared_of(const struct placement_candidate *a, const struct placement_candidate *b)
{
	unsigned levels = location_shared(a->location, b->location);
	uint64_t shared = strcmp(a->host, b->host) == 0 ? LEVEL_ONE(HOST_LEVEL) : 0;

	for (unsigned level = 0; level < levels; level++)
		shared += LEVEL_ONE(level);
	return shared;
}

static unsigned shared_at(uint64_t shared, unsigned level)
{
	return (shared >> ((HOST_LEVEL - level) * LEVEL_BITS)) & ((1u << LEVEL_BITS) - 1);
}

static bool has_room(const struct placement_pool *pool, size_t i)
{
	return pool->candidates[i].usable && pool->candidates[i].bytes_free > pool->bytes_reserved;
}

/* In MiB, so that the sum over all servers cannot overflow. */
static uint64_t space_of(const struct placement_pool *pool, size_t i)
{
	return (pool->candidates[i].bytes_free - pool->bytes_reserved) / MIB + 1;
}

static void weigh(const struct placement_pool *pool, uint64_t *weights)
{
	uint64_t space = 0, load = 0, count = 0;

	for (size_t i = 0; i < pool->count; i++) {
		if (!has_room(pool, i))
			continue;
		space += space_of(pool, i);
		load += pool->candidates[i].load;
		count++;
	}
	for (size_t i = 0; i < pool->count; i++) {
		weights[i] = 0;
		if (!has_room(pool, i))
			continue;
		uint64_t most = space / count * PLACEMENT_WEIGHT_TIMES_MAX + 1, usual = 2 * (load / count) + LOAD_USUAL;
		weights[i] = space_of(pool, i) < most ? space_of(pool, i) : most;
		for (unsigned k = 0; k < LOAD_HALVINGS && pool->candidates[i].load > usual << k; k++)
			weights[i] = weights[i] / 2 + 1;
	}
}

static unsigned first_level(const struct placement_pool *pool)
{
	size_t first = pool->count;
	unsigned level = LEVELS;

	for (size_t i = 0; i < pool->count; i++) {
		if (!pool->candidates[i].usable && !pool->candidates[i].expected)
			continue;
		if (first == pool->count)
			first = i;
		uint64_t shared = shared_of(&pool->candidates[first], &pool->candidates[i]);
		for (unsigned k = 0; k < level; k++) {
			if (shared_at(shared, k) == 0)
				level = k;
		}
	}
	return level;
}

static void choice_init(struct choice *choice, const struct placement_pool *pool)
{
	*choice = (struct choice){ .pool = pool, .bound_level = LEVELS };
	choice->weights = mem_zero(pool->count + 1, 3 * sizeof(uint64_t));
	choice->orders = choice->weights + pool->count;
	choice->shared = choice->orders + pool->count;
	weigh(pool, choice->weights);
	choice->first_level = first_level(pool);
}

static void choice_deinit(struct choice *choice)
{
	free(choice->weights);
}

static void choice_clear(struct choice *choice)
{
	memset(choice->shared, 0, choice->pool->count * sizeof(uint64_t));
	choice->count = 0;
}

static void choice_take(struct choice *choice, size_t i)
{
	const struct placement_candidate *candidates = choice->pool->candidates;

	check(choice->count < SHARDS_MAX);
	for (size_t k = 0; k < choice->pool->count; k++) {
		if (choice->shared[k] != TAKEN)
			choice->shared[k] += shared_of(&candidates[i], &candidates[k]);
	}
	choice->shared[i] = TAKEN;
	choice->chosen[choice->count++] = i;
}

static bool choice_allows(const struct choice *choice, size_t i)
{
	const struct placement_candidate *candidate = &choice->pool->candidates[i];

	if (choice->shared[i] == TAKEN ||
	    (choice->weights[i] == 0 && !(choice->with_expected && candidate->expected && !candidate->usable)))
		return false;
	return choice->bound_level == LEVELS || shared_at(choice->shared[i], choice->bound_level) < choice->per_domain_max;
}

/* The next; pool->count: there is none. */
static size_t choice_pick(const struct choice *choice, struct rng *rng)
{
	size_t first = choice->pool->count;
	uint64_t total = 0;

	for (size_t i = 0; i < choice->pool->count; i++) {
		if (!choice_allows(choice, i))
			continue;
		bool less = first == choice->pool->count || choice->shared[i] < choice->shared[first];
		bool same = !less && choice->shared[i] == choice->shared[first];
		if (less || (same && choice->by_order && choice->orders[i] < choice->orders[first]))
			first = i;
		if (less)
			total = 0;
		if (less || same)
			total += choice->weights[i];
	}
	if (first == choice->pool->count || choice->by_order)
		return first;
	uint64_t ticket = rng_below(rng, total), least = choice->shared[first];
	for (size_t i = first; i < choice->pool->count; i++) {
		if (!choice_allows(choice, i) || choice->shared[i] != least)
			continue;
		if (ticket < choice->weights[i])
			return i;
		ticket -= choice->weights[i];
	}
	check(false);
	return choice->pool->count;
}

/* So many, the first of them given (pool->count: drawn); under the bound if it can be had. True: it holds as it should. */
static bool choice_complete(struct choice *choice, const struct placement_wish *wish, size_t first, struct rng *rng)
{
	unsigned level = wish->per_domain_max ? choice->first_level : LEVELS, wanted = level;

	choice->per_domain_max = wish->per_domain_max;
	for (;; level++) {
		choice->bound_level = level;
		choice_clear(choice);
		if (first < choice->pool->count)
			choice_take(choice, first);
		while (choice->count < wish->count) {
			size_t next = choice_pick(choice, rng);
			if (next == choice->pool->count)
				break;
			choice_take(choice, next);
		}
		if (choice->count == wish->count || level == LEVELS)
			return level == wanted && choice->count == wish->count;
	}
}

/* ---- copysets */

/* splitmix64's finaliser (Steele, Lea and Flood, 2014). */
static uint64_t mix(uint64_t a, uint64_t b)
{
	uint64_t word = a + (b + 1) * 0x9e3779b97f4a7c15u;

	word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
	word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
	return word ^ (word >> 31);
}

/* The servers of a domain are at even distances on the ring, in an order of their own; domains begin anywhere. */
struct place {
	uint64_t domain, rank;
	size_t i;
};

static int compare_places(const void *a, const void *b)
{
	const struct place *left = a, *right = b;

	if (left->domain != right->domain)
		return left->domain < right->domain ? -1 : 1;
	return left->rank < right->rank ? -1 : left->rank > right->rank;
}

static uint64_t text_number(const char *text)
{
	uint64_t number = 0;

	for (; *text; text++)
		number = mix(number, (uint8_t)*text);
	return number;
}

/* How far each is from that one on the ring. */
static void order_from(struct choice *choice, uint64_t ring, size_t from)
{
	const struct placement_pool *pool = choice->pool;
	struct place *places = mem_alloc(pool->count * sizeof(*places));
	uint64_t seed = mix(pool->copyset_seed, ring);

	for (size_t i = 0; i < pool->count; i++) {
		const struct placement_candidate *candidate = &pool->candidates[i];
		const char *domain = choice->first_level < HOST_LEVEL ? candidate->location : candidate->host;
		places[i] = (struct place){ .domain = text_number(domain), .rank = mix(seed, candidate->server), .i = i };
	}
	qsort(places, pool->count, sizeof(*places), compare_places);
	for (size_t first = 0, end; first < pool->count; first = end) {
		for (end = first; end < pool->count && places[end].domain == places[first].domain; end++)
			continue;
		uint64_t servers = end - first, begin = mix(seed, places[first].domain) / servers;
		for (size_t k = first; k < end; k++)
			choice->orders[places[k].i] = (k - first) * (UINT64_MAX / servers) + begin;
	}
	uint64_t zero = choice->orders[from];
	for (size_t i = 0; i < pool->count; i++)
		choice->orders[i] -= zero;
	free(places);
	choice->by_order = true;
}

/* 0: there are no copysets. */
static unsigned rings_of(const struct placement_pool *pool, unsigned set_count)
{
	unsigned neighbours = 2 * (set_count - 1);
	size_t expected = 0;

	if (pool->copyset_width == 0 || set_count < 2)
		return 0;
	for (size_t i = 0; i < pool->count; i++)
		expected += pool->candidates[i].expected;
	if (expected <= (size_t)pool->copyset_width + 1 || expected <= set_count)
		return 0;
	return (pool->copyset_width + neighbours - 1) / neighbours;
}

static size_t draw_first(const struct choice *choice, struct rng *rng)
{
	uint64_t total = 0, ticket;
	size_t i = 0;

	for (size_t k = 0; k < choice->pool->count; k++)
		total += choice->weights[k];
	if (total == 0)
		return choice->pool->count;
	for (ticket = rng_below(rng, total); ticket >= choice->weights[i]; i++)
		ticket -= choice->weights[i];
	return i;
}

/* 0: not all of them can take anything now. */
static uint64_t least_weight(const struct choice *choice)
{
	uint64_t least = UINT64_MAX;

	for (size_t i = 0; i < choice->count; i++) {
		if (choice->weights[choice->chosen[i]] < least)
			least = choice->weights[choice->chosen[i]];
	}
	return least;
}

/* Rejection sampling: each set as often as its member with the least weight says. After some tries, the best of what was tried. */
static bool choose_copyset(struct choice *choice, const struct placement_wish *wish, struct rng *rng, bool *spread)
{
	unsigned rings = rings_of(choice->pool, wish->count);
	size_t best[SHARDS_MAX];
	uint64_t best_least = 0;
	bool accepted = false;

	choice->with_expected = true;
	for (unsigned tries = 0; rings && tries < PLACEMENT_COPYSET_TRIES && !accepted; tries++) {
		size_t first = draw_first(choice, rng);
		if (first == choice->pool->count)
			break;
		order_from(choice, rng_below(rng, rings), first);
		bool holds = choice_complete(choice, wish, first, rng);
		uint64_t least = choice->count == wish->count ? least_weight(choice) : 0;
		accepted = least > 0 && rng_below(rng, choice->weights[first]) < least;
		if (least > best_least || accepted) {
			memcpy(best, choice->chosen, sizeof(best));
			best_least = least;
			*spread = holds;
		}
	}
	choice->with_expected = choice->by_order = false;
	if (best_least == 0)
		return false;
	memcpy(choice->chosen, best, sizeof(best));
	choice->count = wish->count;
	return true;
}

/* ---- what is asked for */

static void shuffle(struct choice *choice, struct rng *rng)
{
	for (size_t i = choice->count; i > 1; i--) {
		size_t k = (size_t)rng_below(rng, i);
		size_t moved = choice->chosen[i - 1];
		choice->chosen[i - 1] = choice->chosen[k];
		choice->chosen[k] = moved;
	}
}

enum err placement_choose(const struct placement_pool *pool, const struct placement_wish *wish, struct rng *rng,
			  struct placement *out)
{
	size_t usable = 0, least = wish->whole ? wish->count : pool->count < 2 ? 1 : 2;
	struct choice choice;

	check(wish->count >= 1 && wish->count <= SHARDS_MAX);
	*out = (struct placement){ 0 };
	if (least > wish->count)
		least = wish->count;
	for (size_t i = 0; i < pool->count; i++)
		usable += pool->candidates[i].usable;
	choice_init(&choice, pool);
	if (!choose_copyset(&choice, wish, rng, &out->spread))
		out->spread = choice_complete(&choice, wish, pool->count, rng);
	if (choice.count >= least) {
		shuffle(&choice, rng);
		for (size_t i = 0; i < choice.count; i++)
			out->servers[i] = pool->candidates[choice.chosen[i]].server;
		out->count = choice.count;
	}
	choice_deinit(&choice);
	return out->count > 0 ? OK : usable >= least ? ERR_NO_SPACE : ERR_NO_SERVERS;
}

static size_t index_of(const struct placement_pool *pool, uint64_t server)
{
	size_t i = 0;

	while (i < pool->count && pool->candidates[i].server != server)
		i++;
	return i;
}

/* All chunks that have these members and lack one go to the same server, so that there are no more sets than before. */
static void order_from_members(struct choice *choice, unsigned rings)
{
	size_t first = choice->pool->count;
	uint64_t sum = 0;

	for (size_t i = 0; i < choice->count; i++) {
		first = choice->chosen[i] < first ? choice->chosen[i] : first;
		sum += mix(0, choice->pool->candidates[choice->chosen[i]].server);
	}
	order_from(choice, sum % rings, first);
}

uint64_t placement_extend(const struct placement_pool *pool, const struct placement_extension *extension, struct rng *rng)
{
	uint64_t server = 0;
	struct choice choice;

	check(extension->member_count < SHARDS_MAX);
	choice_init(&choice, pool);
	for (size_t i = 0; i < extension->member_count; i++) {
		size_t member = index_of(pool, extension->members[i]);
		if (member < pool->count && choice.shared[member] != TAKEN)
			choice_take(&choice, member);
	}
	unsigned rings = choice.count > 0 ? rings_of(pool, extension->wish.count) : 0;
	unsigned tries = rings && !extension->urgent ? BUSY_TRIES : 1;
	for (size_t i = 0; i < pool->count; i++) {
		if (pool->candidates[i].busy && (!rings || extension->urgent))
			choice.weights[i] = 0;
	}
	if (rings)
		order_from_members(&choice, rings);
#ifdef PLANT_COPYSET_WITH_THE_DEAD
	choice.with_expected = rings > 0;
#endif
	choice.per_domain_max = extension->wish.per_domain_max;
	choice.bound_level = choice.per_domain_max ? choice.first_level : LEVELS;
	while (server == 0 && tries > 0) {
		size_t next = choice_pick(&choice, rng);
		if (next < pool->count && !pool->candidates[next].busy) {
			server = pool->candidates[next].server;
		} else if (next < pool->count) {
			choice.weights[next] = 0;
			tries--;
		} else if (choice.bound_level++ == LEVELS) {
			break;
		}
	}
	choice_deinit(&choice);
	return server;
}

size_t placement_hosts(const struct placement_pool *pool)
{
	const char *hosts[SHARDS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < pool->count && count < SHARDS_MAX; i++) {
		bool known = !has_room(pool, i);
		for (size_t k = 0; k < count && !known; k++)
			known = strcmp(hosts[k], pool->candidates[i].host) == 0;
		if (!known)
			hosts[count++] = pool->candidates[i].host;
	}
	return count;
}

/* ---- the spread of what there is */

struct sharing {
	unsigned pairs[LEVELS], most[LEVELS];
};

static void sharing_of(const struct placement_pool *pool, const struct placement *set, struct sharing *out)
{
	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < set->count; i++) {
		size_t member = index_of(pool, set->servers[i]);
		uint64_t shared = 0;
		for (size_t k = 0; k < set->count && member < pool->count; k++) {
			size_t other = index_of(pool, set->servers[k]);
			if (k != i && other < pool->count)
				shared += shared_of(&pool->candidates[member], &pool->candidates[other]);
		}
		for (unsigned level = 0; level < LEVELS; level++) {
			unsigned count = shared_at(shared, level);
			out->pairs[level] += count;
			if (count > out->most[level])
				out->most[level] = count;
		}
	}
}

bool placement_keeps_spread(const struct placement_pool *pool, const struct placement *before, const struct placement *after)
{
	struct sharing old, new;

	if (after->count < before->count)
		return false;
	sharing_of(pool, before, &old);
	sharing_of(pool, after, &new);
	for (unsigned level = 0; level < LEVELS; level++) {
		if (new.pairs[level] > old.pairs[level] || new.most[level] > old.most[level])
			return false;
	}
	return true;
}
