/* Placement: domains, bounds, weights, copysets, what is answered when there is not enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "master/placement.h"

#define GIB (1024ull * MIB)
#define MOST 256u

/* Servers have ids from 1, each a host of its own unless it is said. */
struct cluster {
	struct placement_candidate list[MOST];
	char hosts[MOST][16], locations[MOST][16];
	struct placement_pool pool;
	struct rng rng;
};

static const struct placement_wish three = { .count = 3 };

static void start(struct cluster *cluster, uint64_t seed)
{
	memset(cluster, 0, sizeof(*cluster));
	cluster->pool = (struct placement_pool){ .candidates = cluster->list, .bytes_reserved = DISK_RESERVED_BYTES };
	rng_init(&cluster->rng, seed);
}

static struct placement_candidate *add(struct cluster *cluster, const char *location, uint64_t bytes_free)
{
	size_t i = cluster->pool.count++;

	assert_true(i < MOST);
	snprintf(cluster->hosts[i], sizeof(cluster->hosts[i]), "h%zu", i);
	snprintf(cluster->locations[i], sizeof(cluster->locations[i]), "%s", location);
	cluster->list[i] = (struct placement_candidate){ .server = i + 1,
							 .location = cluster->locations[i],
							 .host = cluster->hosts[i],
							 .bytes_free = bytes_free,
							 .usable = true,
							 .expected = true };
	return &cluster->list[i];
}

static void choose(struct cluster *cluster, const struct placement_wish *wish, struct placement *out)
{
	assert_int_equal(placement_choose(&cluster->pool, wish, &cluster->rng, out), OK);
	assert_int_equal(out->count, wish->count);
	for (size_t i = 0; i < out->count; i++) {
		assert_in_range(out->servers[i], 1, cluster->pool.count);
		assert_true(cluster->list[out->servers[i] - 1].usable);
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(out->servers[i], out->servers[k]);
	}
}

/* How many of the chosen are in the fullest domain, told by so many first characters of the location; hosts: 0. */
static unsigned fullest(const struct cluster *cluster, const struct placement *placement, size_t characters)
{
	unsigned most = 0;

	for (size_t i = 0; i < placement->count; i++) {
		unsigned same = 0;
		for (size_t k = 0; k < placement->count; k++) {
			const struct placement_candidate *a = &cluster->list[placement->servers[i] - 1];
			const struct placement_candidate *b = &cluster->list[placement->servers[k] - 1];
			same += characters ? strncmp(a->location, b->location, characters) == 0 : strcmp(a->host, b->host) == 0;
		}
		most = same > most ? same : most;
	}
	return most;
}

static void test_hosts(void **state)
{
	struct cluster cluster;
	struct placement placement;

	(void)state;
	/* Three hosts with a small and a large disk each: never two on one host. */
	start(&cluster, 1);
	for (int i = 0; i < 6; i++)
		add(&cluster, "", i % 2 ? 100 * GIB : GIB)->host = i < 2 ? "a" : i < 4 ? "b" : "c";
	assert_int_equal(placement_hosts(&cluster.pool), 3);
	for (int round = 0; round < 500; round++) {
		choose(&cluster, &three, &placement);
		assert_int_equal(fullest(&cluster, &placement, 0), 1);
	}
	/* Two hosts: both are used. */
	cluster.pool.count = 4;
	assert_int_equal(placement_hosts(&cluster.pool), 2);
	for (int round = 0; round < 200; round++) {
		choose(&cluster, &three, &placement);
		assert_int_equal(fullest(&cluster, &placement, 0), 2);
	}
}

static void test_levels(void **state)
{
	struct cluster cluster;
	struct placement placement;
	const struct placement_wish six = { .count = 6 };

	(void)state;
	/* Two zones of two racks of three hosts. */
	start(&cluster, 2);
	for (int i = 0; i < 12; i++) {
		char location[16];
		snprintf(location, sizeof(location), "z%d/r%d", i / 6, i / 3 % 2);
		add(&cluster, location, GIB);
	}
	for (int round = 0; round < 300; round++) {
		choose(&cluster, &three, &placement);
		assert_int_equal(fullest(&cluster, &placement, 2), 2);
		assert_int_equal(fullest(&cluster, &placement, 5), 1);
		choose(&cluster, &six, &placement);
		assert_int_equal(fullest(&cluster, &placement, 2), 3);
		assert_int_equal(fullest(&cluster, &placement, 5), 2);
	}
	/* Who says nothing of his rack is in one with those that say nothing, not everywhere. */
	start(&cluster, 3);
	for (int i = 0; i < 4; i++)
		add(&cluster, "", GIB);
	add(&cluster, "r1", GIB);
	add(&cluster, "r2", GIB);
	for (int round = 0; round < 200; round++) {
		choose(&cluster, &three, &placement);
		unsigned unnamed = 0;
		for (int i = 0; i < 3; i++)
			unnamed += placement.servers[i] <= 4;
		assert_int_equal(unnamed, 1);
	}
}

/* 6 + 3 shards, of which a domain may hold three. */
static void test_bound(void **state)
{
	struct cluster cluster;
	struct placement placement;
	const struct placement_wish nine = { .count = 9, .per_domain_max = 3, .whole = true };

	(void)state;
	/* Three racks, one of them with one server: no rack can be had in which there are not four. */
	start(&cluster, 4);
	for (int i = 0; i < 13; i++)
		add(&cluster, i == 0 ? "a" : i % 2 ? "b" : "c", GIB);
	choose(&cluster, &nine, &placement);
	assert_false(placement.spread);
	assert_int_equal(fullest(&cluster, &placement, 1), 4);
	/* With another in it, too; with three it can. */
	add(&cluster, "a", GIB);
	choose(&cluster, &nine, &placement);
	assert_false(placement.spread);
	add(&cluster, "a", GIB);
	for (int round = 0; round < 100; round++) {
		choose(&cluster, &nine, &placement);
		assert_true(placement.spread);
		assert_int_equal(fullest(&cluster, &placement, 1), 3);
	}
	/* Two zones cannot, but racks can, though an even share of the zones would put five in the one rack of the first. */
	start(&cluster, 5);
	for (int i = 0; i < 6; i++)
		add(&cluster, "z0/r", GIB);
	for (int i = 0; i < 8; i++) {
		char location[16];
		snprintf(location, sizeof(location), "z1/%d", i);
		add(&cluster, location, GIB);
	}
	for (int round = 0; round < 100; round++) {
		choose(&cluster, &nine, &placement);
		assert_false(placement.spread);
		assert_int_equal(fullest(&cluster, &placement, 4), 3);
	}
	/* All in one rack: only hosts tell them apart. */
	start(&cluster, 6);
	for (int i = 0; i < 9; i++)
		add(&cluster, "r", GIB)->host = i < 3 ? "a" : i < 6 ? "b" : "c";
	choose(&cluster, &nine, &placement);
	assert_true(placement.spread);
	cluster.list[3].host = "a";
	choose(&cluster, &nine, &placement);
	assert_false(placement.spread);
}

static void test_forty_of_forty_one(void **state)
{
	struct cluster cluster;
	struct placement placement;
	const struct placement_wish forty = { .count = 40, .per_domain_max = 8, .whole = true };
	unsigned left_out[42] = { 0 };

	(void)state;
	start(&cluster, 7);
	for (int i = 0; i < 41; i++) {
		char location[16];
		snprintf(location, sizeof(location), "r%d", i % 6);
		add(&cluster, location, GIB);
	}
	for (unsigned width = 0; width <= 20; width += 20) {
		cluster.pool.copyset_width = width;
		for (int round = 0; round < 100; round++) {
			uint64_t sum = 41 * 42 / 2;
			choose(&cluster, &forty, &placement);
			assert_true(placement.spread);
			for (size_t i = 0; i < placement.count; i++)
				sum -= placement.servers[i];
			left_out[sum]++;
		}
	}
	for (int server = 1; server <= 41; server++)
		assert_in_range(left_out[server], 0, 20);
	cluster.list[3].usable = cluster.list[4].usable = false;
	assert_int_equal(placement_choose(&cluster.pool, &forty, &cluster.rng, &placement), ERR_NO_SERVERS);
	assert_int_equal(placement.count, 0);
}

static void test_shortage(void **state)
{
	struct cluster cluster;
	struct placement placement;
	struct placement_pool *pool = &cluster.pool;
	const struct placement_wish two = { .count = 2 };

	(void)state;
	start(&cluster, 8);
	assert_int_equal(placement_choose(pool, &three, &cluster.rng, &placement), ERR_NO_SERVERS);
	assert_int_equal(placement.count, 0);
	/* The only server that there is will do; one of two will not. */
	add(&cluster, "", GIB);
	assert_int_equal(placement_choose(pool, &three, &cluster.rng, &placement), OK);
	assert_int_equal(placement.count, 1);
	add(&cluster, "", GIB)->usable = false;
	assert_int_equal(placement_choose(pool, &three, &cluster.rng, &placement), ERR_NO_SERVERS);
	cluster.list[1].usable = true;
	assert_int_equal(placement_choose(pool, &three, &cluster.rng, &placement), OK);
	assert_int_equal(placement.count, 2);
	/* Full is something else than absent. */
	cluster.list[0].bytes_free = DISK_RESERVED_BYTES;
	assert_int_equal(placement_choose(pool, &three, &cluster.rng, &placement), ERR_NO_SPACE);
	assert_int_equal(placement.count, 0);
	add(&cluster, "", GIB);
	for (int round = 0; round < 50; round++) {
		choose(&cluster, &two, &placement);
		assert_true(placement.servers[0] != 1 && placement.servers[1] != 1);
	}
}

static void count_uses(struct cluster *cluster, const struct placement_wish *wish, int rounds, unsigned *uses)
{
	struct placement placement;

	memset(uses, 0, (MOST + 1) * sizeof(*uses));
	for (int round = 0; round < rounds; round++) {
		choose(cluster, wish, &placement);
		for (size_t i = 0; i < placement.count; i++)
			uses[placement.servers[i]]++;
	}
}

/* Three times the space, three times the chunks; the head of the chain is any of them. */
static void test_weights(void **state)
{
	struct cluster cluster;
	struct placement placement;
	const struct placement_wish one = { .count = 1 };
	unsigned uses[MOST + 1], heads[4] = { 0 };

	(void)state;
	start(&cluster, 9);
	add(&cluster, "", 30 * GIB);
	add(&cluster, "", 10 * GIB);
	count_uses(&cluster, &one, 4000, uses);
	assert_in_range(uses[1], 2850, 3150);
	add(&cluster, "", 10 * GIB);
	for (int round = 0; round < 3000; round++) {
		choose(&cluster, &three, &placement);
		heads[placement.servers[0]]++;
	}
	for (int i = 1; i <= 3; i++)
		assert_in_range(heads[i], 850, 1150);
	/* Alike: chi-square with 99 degrees of freedom, far beyond its 99.9% (148). */
	start(&cluster, 10);
	for (int i = 0; i < 100; i++)
		add(&cluster, "", 10 * GIB);
	count_uses(&cluster, &one, 10000, uses);
	double chi_square = 0;
	for (int i = 1; i <= 100; i++)
		chi_square += ((double)uses[i] - 100) * ((double)uses[i] - 100) / 100;
	assert_true(chi_square > 50 && chi_square < 160);
	/* A new one among nearly full ones gets more than the others, and not everything. */
	for (int i = 0; i < 99; i++)
		cluster.list[i].bytes_free = GIB;
	cluster.list[99].bytes_free = 1000 * GIB;
	for (int i = 0; i < 100; i++)
		cluster.list[i].host = cluster.hosts[i];
	count_uses(&cluster, &three, 10000, uses);
	assert_in_range(uses[100], 6000, 9900);
	for (int i = 0; i < 99; i++)
		cluster.list[i].bytes_free = 500 * GIB;
	count_uses(&cluster, &three, 10000, uses);
	assert_in_range(uses[100], 500, 700); /* of 300 that a share is: twice the space */
}

/* An empty one is written to no more often than PLACEMENT_WEIGHT_TIMES_MAX times the mean, but that more often. */
static void test_newcomer(void **state)
{
	struct cluster cluster;
	unsigned uses[MOST + 1];

	(void)state;
	start(&cluster, 11);
	for (int i = 0; i < 200; i++)
		add(&cluster, "", 100 * GIB);
	add(&cluster, "", 10000 * GIB);
	/* The mean is 149 GiB; a share of 201 is 149. */
	count_uses(&cluster, &three, 10000, uses);
	assert_in_range(uses[201], 700, 1000);
}

static void test_load(void **state)
{
	struct cluster cluster;
	const struct placement_wish one = { .count = 1 };
	unsigned uses[MOST + 1];

	(void)state;
	start(&cluster, 12);
	for (int i = 0; i < 10; i++)
		add(&cluster, "", 10 * GIB)->load = 4;
	cluster.list[0].load = 30;
	cluster.list[1].load = 1000; /* an eighth is the least */
	cluster.list[2].load = 0;
	count_uses(&cluster, &one, 16000, uses);
	assert_in_range(uses[2], 180, 260);
	assert_in_range(uses[1], 1600, 2200); /* beside that, 30 is nothing */
	cluster.list[1].load = 4;
	count_uses(&cluster, &one, 19000, uses);
	assert_in_range(uses[1], 900, 1100); /* half of what the others get */
	assert_in_range(uses[3], 1800, 2200);
}

static void test_extend(void **state)
{
	struct cluster cluster;
	const uint64_t members[] = { 1, 2 };
	struct placement_extension extension = { .members = members, .member_count = 2, .wish = { .count = 3 } };

	(void)state;
	start(&cluster, 13);
	cluster.pool.bytes_reserved = GIB;
	for (int i = 0; i < 5; i++)
		add(&cluster, "", i == 3 ? GIB : 10 * GIB);
	cluster.list[2].host = cluster.list[1].host;
	for (int i = 0; i < 50; i++)
		assert_int_equal(placement_extend(&cluster.pool, &extension, &cluster.rng), 5); /* a host of its own, with room */
	cluster.list[4].busy = true;
	assert_int_equal(placement_extend(&cluster.pool, &extension, &cluster.rng), 3); /* for want of another */
	cluster.list[2].usable = false;
	assert_int_equal(placement_extend(&cluster.pool, &extension, &cluster.rng), 0);
	/* Racks, and a bound that a member more would break. */
	start(&cluster, 14);
	const char *const racks[] = { "a", "a", "b", "b", "a", "b", "c" };
	for (int i = 0; i < 7; i++)
		add(&cluster, racks[i], 10 * GIB);
	const uint64_t four[] = { 1, 2, 3, 7 };
	extension = (struct placement_extension){
		.members = four, .member_count = 4, .wish = { .count = 5, .per_domain_max = 2 }
	};
	for (int i = 0; i < 50; i++)
		assert_in_set(placement_extend(&cluster.pool, &extension, &cluster.rng), ((uint64_t[]){ 4, 6 }), 2);
	cluster.list[3].usable = cluster.list[5].usable = false;
	assert_int_equal(placement_extend(&cluster.pool, &extension, &cluster.rng), 5); /* a bound is no reason to stay without */
}

static void test_keeps_spread(void **state)
{
	struct cluster cluster;
	struct placement before = { .servers = { 1, 3, 5 }, .count = 3 }, after = before;

	(void)state;
	start(&cluster, 15);
	const char *const racks[] = { "z1/a", "z1/a", "z1/b", "z1/b", "z2/c", "z2/d" };
	for (int i = 0; i < 6; i++)
		add(&cluster, racks[i], GIB);
	assert_true(placement_keeps_spread(&cluster.pool, &before, &after));
	after.servers[0] = 6; /* two in the other zone: as good */
	assert_true(placement_keeps_spread(&cluster.pool, &before, &after));
	after.servers[0] = 4; /* two in one rack */
	assert_false(placement_keeps_spread(&cluster.pool, &before, &after));
	after = (struct placement){ .servers = { 1, 3, 4 }, .count = 3 }; /* all in one zone */
	assert_false(placement_keeps_spread(&cluster.pool, &before, &after));
	assert_true(placement_keeps_spread(&cluster.pool, &after, &before));
	after = (struct placement){ .servers = { 1, 5 }, .count = 2 }; /* fewer */
	assert_false(placement_keeps_spread(&cluster.pool, &before, &after));
}

/* ---- copysets */

#define SETS_MOST 20000u

struct sets {
	uint64_t known[SETS_MOST];
	size_t count;
};

/* Of up to nine servers with ids below 128. */
static bool note_set(struct sets *sets, const uint64_t *servers, size_t count)
{
	uint64_t key = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t word = servers[i] * 0x9e3779b97f4a7c15u;
		key += (word ^ (word >> 29)) * 0xbf58476d1ce4e5b9u;
	}
	for (size_t i = 0; i < sets->count; i++) {
		if (sets->known[i] == key)
			return false;
	}
	assert_true(sets->count < SETS_MOST);
	sets->known[sets->count++] = key;
	return true;
}

static void racks_of(struct cluster *cluster, unsigned servers, unsigned racks)
{
	for (unsigned i = 0; i < servers; i++) {
		char location[16];
		snprintf(location, sizeof(location), "r%u", i % racks);
		add(cluster, location, 100 * GIB);
	}
}

static void test_copysets(void **state)
{
	static struct sets sets;
	struct cluster cluster;
	struct placement placement;
	unsigned uses[MOST + 1];
	bool together[101][101] = { { false } };

	(void)state;
	sets.count = 0;
	start(&cluster, 16);
	racks_of(&cluster, 100, 10);
	cluster.pool.copyset_seed = 77;
	cluster.pool.copyset_width = 8; /* two rings */
	for (int round = 0; round < 2500; round++) {
		choose(&cluster, &three, &placement);
		assert_int_equal(fullest(&cluster, &placement, 2), 1);
		note_set(&sets, placement.servers, 3);
		for (int i = 0; i < 3; i++) {
			for (int k = 0; k < 3; k++)
				together[placement.servers[i]][placement.servers[k]] = i != k;
		}
	}
	assert_in_range(sets.count, 190, 200);
	unsigned pairs = 0;
	for (int i = 1; i <= 100; i++) {
		for (int k = 1; k <= 100; k++)
			pairs += together[i][k];
	}
	assert_in_range(pairs, 650, 1000); /* eight others each, less what they have twice or pass by */
	count_uses(&cluster, &three, 2500, uses);
	for (int i = 1; i <= 100; i++)
		assert_in_range(uses[i], 45, 110);
	/* A newcomer makes sets of its own, and changes some of its rack's. */
	size_t before = sets.count;
	add(&cluster, "r3", 100 * GIB);
	count_uses(&cluster, &three, 2500, uses);
	assert_in_range(uses[101], 45, 110);
	for (int round = 0; round < 2500; round++) {
		choose(&cluster, &three, &placement);
		note_set(&sets, placement.servers, 3);
	}
	assert_in_range(sets.count - before, 2, 70);
	/* One that is away for a moment changes nothing but that its sets are not used; no copy is put elsewhere. */
	before = sets.count;
	cluster.list[10].usable = false;
	for (int round = 0; round < 2500; round++) {
		choose(&cluster, &three, &placement);
		assert_false(note_set(&sets, placement.servers, 3));
	}
	/* One that is gone for good: its next neighbours take its place. */
	cluster.list[10].expected = false;
	for (int round = 0; round < 2500; round++) {
		choose(&cluster, &three, &placement);
		note_set(&sets, placement.servers, 3);
	}
	assert_in_range(sets.count - before, 1, 16);
}

static void test_copysets_of_shards(void **state)
{
	static struct sets sets;
	struct cluster cluster;
	struct placement placement;
	const struct placement_wish nine = { .count = 9, .per_domain_max = 3, .whole = true };

	(void)state;
	sets.count = 0;
	start(&cluster, 17);
	racks_of(&cluster, 60, 4);
	cluster.pool.copyset_width = 16;
	for (int round = 0; round < 2000; round++) {
		choose(&cluster, &nine, &placement);
		assert_true(placement.spread);
		note_set(&sets, placement.servers, 9);
	}
	assert_in_range(sets.count, 55, 60);
	/* Where everything is one set with all others, anything goes. */
	start(&cluster, 18);
	racks_of(&cluster, 12, 4);
	cluster.pool.copyset_width = 16;
	for (int round = 0; round < 500; round++) {
		choose(&cluster, &nine, &placement);
		note_set(&sets, placement.servers, 9);
	}
	assert_true(sets.count > 100);
}

/* No whole set is left: chunks are placed all the same, and as well spread. */
static void test_copysets_fall_back(void **state)
{
	struct cluster cluster;
	struct placement placement;

	(void)state;
	start(&cluster, 19);
	racks_of(&cluster, 60, 6);
	cluster.pool.copyset_width = 8;
	for (unsigned i = 0; i < 60; i++)
		cluster.list[i].usable = i % 20 < 3;
	for (int round = 0; round < 500; round++) {
		choose(&cluster, &three, &placement);
		assert_int_equal(fullest(&cluster, &placement, 2), 1);
	}
	/* Full ones are passed by. */
	for (unsigned i = 0; i < 60; i++) {
		cluster.list[i].usable = true;
		cluster.list[i].bytes_free = i % 3 ? GIB : 0;
	}
	for (int round = 0; round < 500; round++) {
		choose(&cluster, &three, &placement);
		for (int i = 0; i < 3; i++)
			assert_true(placement.servers[i] % 3 != 1);
	}
}

/* The chunks of a server that is lost go to few others, those of one set all to the same. */
static void test_copysets_repaired(void **state)
{
	struct cluster cluster;
	uint64_t members[] = { 5, 17 };
	struct placement_extension extension = { .members = members, .member_count = 2, .wish = { .count = 3 } };

	(void)state;
	start(&cluster, 20);
	racks_of(&cluster, 100, 10);
	cluster.pool.copyset_width = 8;
	uint64_t target = placement_extend(&cluster.pool, &extension, &cluster.rng);
	assert_int_not_equal(target, 0);
	assert_true((target - 1) % 10 != 4 && (target - 1) % 10 != 6);
	members[0] = 17;
	members[1] = 5;
	for (int i = 0; i < 20; i++)
		assert_int_equal(placement_extend(&cluster.pool, &extension, &cluster.rng), target);
	cluster.list[target - 1].busy = true;
	uint64_t second = placement_extend(&cluster.pool, &extension, &cluster.rng);
	assert_true(second != 0 && second != target);
	cluster.list[second - 1].busy = true;
	assert_int_equal(placement_extend(&cluster.pool, &extension, &cluster.rng), 0); /* it waits */
	extension.urgent = true;
	assert_int_not_equal(placement_extend(&cluster.pool, &extension, &cluster.rng), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_forty_of_forty_one),
		cmocka_unit_test(test_shortage),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_newcomer),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_extend),
		cmocka_unit_test(test_keeps_spread),
		cmocka_unit_test(test_copysets),
		cmocka_unit_test(test_copysets_of_shards),
		cmocka_unit_test(test_copysets_fall_back),
		cmocka_unit_test(test_copysets_repaired),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
