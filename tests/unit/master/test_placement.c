/* Placement: domains, weights, what is answered when there is not enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "master/placement.h"

#define GIB (1024ull * MIB)

static const struct placement_wish three = { .copies = 3, .bytes_reserved = DISK_RESERVED_BYTES };

static void add(struct placement_candidate *list, size_t *count, const char *host, uint64_t bytes_free, bool usable)
{
	list[*count] = (struct placement_candidate){ .server = *count + 1, .host = host, .bytes_free = bytes_free, .usable = usable };
	(*count)++;
}

static void test_domains(void **state)
{
	struct placement_candidate list[8];
	struct rng rng;
	size_t count = 0, chosen_count;
	uint64_t chosen[REPLICAS_MAX];

	(void)state;
	rng_init(&rng, 1);
	add(list, &count, "a", GIB, true);
	add(list, &count, "a", 100 * GIB, true);
	add(list, &count, "b", GIB, true);
	add(list, &count, "b", 100 * GIB, true);
	add(list, &count, "c", GIB, true);
	add(list, &count, "c", 100 * GIB, true);
	for (int round = 0; round < 1000; round++) {
		unsigned hosts = 0;
		assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), OK);
		assert_int_equal(chosen_count, 3);
		for (int i = 0; i < 3; i++)
			hosts |= 1u << (chosen[i] - 1) / 2;
		assert_int_equal(hosts, 7);
	}
}

static void test_few_domains(void **state)
{
	struct placement_candidate list[8];
	struct rng rng;
	size_t count = 0, chosen_count;
	uint64_t chosen[REPLICAS_MAX];

	(void)state;
	rng_init(&rng, 2);
	/* Two labels, four servers: three copies, both labels used, no server twice. */
	add(list, &count, "a", GIB, true);
	add(list, &count, "a", GIB, true);
	add(list, &count, "b", GIB, true);
	add(list, &count, "b", GIB, true);
	for (int round = 0; round < 200; round++) {
		unsigned servers = 0, hosts = 0;
		assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), OK);
		assert_int_equal(chosen_count, 3);
		for (int i = 0; i < 3; i++) {
			servers += 1u << (8 * (chosen[i] - 1));
			hosts |= 1u << (chosen[i] - 1) / 2;
		}
		assert_int_equal(servers & ~0x01010101u, 0);
		assert_int_equal(hosts, 3);
	}
}

static void test_shortage(void **state)
{
	struct placement_candidate list[8];
	struct rng rng;
	size_t count = 0, chosen_count = 9;
	uint64_t chosen[REPLICAS_MAX];

	(void)state;
	rng_init(&rng, 3);
	assert_int_equal(placement_choose(&three, list, 0, &rng, chosen, &chosen_count), ERR_NO_SERVERS);
	assert_int_equal(chosen_count, 0);
	/* The only server that there is will do; one of two will not. */
	add(list, &count, "a", GIB, true);
	assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), OK);
	assert_int_equal(chosen_count, 1);
	add(list, &count, "b", GIB, false);
	assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), ERR_NO_SERVERS);
	list[1].usable = true;
	assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), OK);
	assert_int_equal(chosen_count, 2);
	/* Full is something else than absent. */
	list[0].bytes_free = DISK_RESERVED_BYTES;
	assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), ERR_NO_SPACE);
	add(list, &count, "c", GIB, true);
	assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), OK);
	assert_int_equal(chosen_count, 2);
	for (size_t i = 0; i < chosen_count; i++)
		assert_int_not_equal(chosen[i], 1);
}

/* Three times the space, about three times the chunks; the head of the chain is any of them. */
static void test_weights(void **state)
{
	struct placement_candidate list[8];
	struct placement_wish one = { .copies = 1, .bytes_reserved = 0 };
	struct rng rng;
	size_t count = 0, chosen_count;
	uint64_t chosen[REPLICAS_MAX];
	unsigned large = 0, heads[4] = { 0 };

	(void)state;
	rng_init(&rng, 4);
	add(list, &count, "a", 30 * GIB, true);
	add(list, &count, "b", 10 * GIB, true);
	for (int round = 0; round < 4000; round++) {
		assert_int_equal(placement_choose(&one, list, count, &rng, chosen, &chosen_count), OK);
		large += chosen[0] == 1;
	}
	assert_in_range(large, 2850, 3150);
	add(list, &count, "c", 10 * GIB, true);
	for (int round = 0; round < 3000; round++) {
		assert_int_equal(placement_choose(&three, list, count, &rng, chosen, &chosen_count), OK);
		heads[chosen[0]]++;
	}
	for (int i = 1; i <= 3; i++)
		assert_in_range(heads[i], 850, 1150);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_domains),
		cmocka_unit_test(test_few_domains),
		cmocka_unit_test(test_shortage),
		cmocka_unit_test(test_weights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
