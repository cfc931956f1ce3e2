/* Who gives and who takes when data is moved between servers: near the mean with no more bytes than it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "common/base/rng.h"
#include "master/balance_policy.h"

#define GIB (1024ull * MIB)
#define MOST 8u

static size_t make(struct balance_server *servers, const uint64_t *totals, const uint64_t *used, size_t count)
{
	memset(servers, 0, count * sizeof(*servers));
	for (size_t i = 0; i < count; i++) {
		servers[i].server = i + 1;
		servers[i].bytes_total = totals[i] * GIB;
		servers[i].bytes_used = used[i] * GIB;
		servers[i].part = true;
	}
	balance_set_fair(servers, count);
	return count;
}

static uint64_t difference(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* So much has to leave somebody, or come to somebody, to be within bounds. */
static uint64_t least(const struct balance_server *servers, size_t count, unsigned percent)
{
	uint64_t out = 0, in = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t band = servers[i].bytes_total / 100 * percent / (servers[i].bounded ? 4 : 1), off = difference(servers[i].bytes_used, servers[i].bytes_fair);
		if (off > band)
			*(servers[i].bytes_used > servers[i].bytes_fair ? &out : &in) += off - band;
	}
	return out > in ? out : in;
}

/* Four servers, then two larger ones that are empty. */
static void test_two_that_are_new(void **state)
{
	struct balance_server servers[MOST];
	uint64_t before = 0, after = 0;
	size_t count = make(servers, (uint64_t[]){ 100, 100, 100, 100, 200, 400 }, (uint64_t[]){ 50, 55, 45, 50, 0, 0 }, 6);

	(void)state;
	assert_false(balance_is_within(servers, count, 5));
	for (size_t i = 0; i < count; i++)
		before += servers[i].bytes_used;
	uint64_t bound = least(servers, count, 2), moved = balance_plan(servers, count, 2);
	for (size_t i = 0; i < count; i++)
		after += servers[i].bytes_used;
	assert_int_equal(before, after);
	assert_true(balance_is_within(servers, count, 3));
	for (size_t i = 0; i < count; i++) /* the mean is 20 % */
		assert_true(difference(servers[i].bytes_used * 100, servers[i].bytes_total * 20) <= servers[i].bytes_total * 5);
	assert_true(moved >= bound);
	assert_true(moved <= bound + bound / 10);
	assert_int_equal(balance_plan(servers, count, 3), 0);
}

/* Each can have one copy of a chunk only: 400 of 800 GiB cannot be on one of five. */
static void test_one_that_is_too_large(void **state)
{
	struct balance_server servers[MOST];
	size_t count = make(servers, (uint64_t[]){ 100, 100, 100, 100, 400 }, (uint64_t[]){ 60, 60, 60, 60, 0 }, 5);

	(void)state;
	assert_int_equal(servers[4].bytes_fair, 80 * GIB);
	assert_int_equal(servers[0].bytes_fair, 40 * GIB);
	assert_true(balance_plan(servers, count, 2) > 0);
	assert_true(servers[4].bytes_used <= 81 * GIB);
	assert_true(servers[4].bytes_used >= 77 * GIB); /* 80 are 20 %, and the mean is 30 */
	/* One that has more has it for a reason, and need not give it away. */
	(void)make(servers, (uint64_t[]){ 100, 100, 100, 100, 400 }, (uint64_t[]){ 10, 10, 10, 10, 200 }, 5);
	assert_true(servers[4].bytes_fair > 110 * GIB);
}

static void test_bounds(void **state)
{
	struct balance_server servers[MOST];
	size_t count = make(servers, (uint64_t[]){ 100, 100, 100, 100 }, (uint64_t[]){ 50, 50, 56, 44 }, 4);

	(void)state;
	assert_true(balance_is_within(servers, count, 6));
	assert_int_equal(balance_giver(servers, count, 6), count);
	assert_false(balance_is_within(servers, count, 5));
	assert_int_equal(balance_giver(servers, count, 5), 2);
	assert_true(balance_may_move(&servers[2], &servers[3], GIB, 5));
	assert_false(balance_may_move(&servers[3], &servers[2], GIB, 5));
	assert_false(balance_may_move(&servers[0], &servers[1], GIB, 5)); /* both are where they should be */
	assert_false(balance_may_move(&servers[2], &servers[3], 12 * GIB, 5)); /* they would change places */
	/* One that is stuck, or drained, does not give; one that is drained does not take, and does not count. */
	servers[2].stuck = true;
	assert_int_equal(balance_giver(servers, count, 5), count);
	servers[2].stuck = false;
	servers[3].part = false;
	servers[3].bytes_used = 0;
	balance_set_fair(servers, count);
	assert_int_equal(servers[0].bytes_fair, 52 * GIB);
	assert_false(balance_may_move(&servers[2], &servers[3], GIB, 3));
	/* Nobody has too much, but one lacks something: the fullest gives. */
	count = make(servers, (uint64_t[]){ 100, 100, 100, 100 }, (uint64_t[]){ 51, 52, 53, 40 }, 4);
	assert_int_equal(balance_giver(servers, count, 5), 2);
	assert_true(balance_may_move(&servers[2], &servers[3], GIB, 5));
	/* What is on its way is no reason: who gave does not take for it, who is given does not give, and both do not get more than is needed. */
	count = make(servers, (uint64_t[]){ 100, 100, 100, 100 }, (uint64_t[]){ 60, 40, 50, 50 }, 4);
	servers[0].bytes_leaving = servers[1].bytes_coming = 12 * GIB;
	assert_int_equal(balance_giver(servers, count, 2), count);
	assert_false(balance_may_move(&servers[2], &servers[1], GIB, 2));
	assert_false(balance_may_move(&servers[1], &servers[0], GIB, 2));
	servers[0].bytes_leaving = servers[1].bytes_coming = 5 * GIB;
	assert_int_equal(balance_giver(servers, count, 2), 0);
	assert_true(balance_may_move(&servers[0], &servers[1], 5 * GIB, 2));
	assert_false(balance_may_move(&servers[0], &servers[1], 7 * GIB, 2));
	/* Nothing at all. */
	assert_true(balance_is_within(servers, 0, 5));
	assert_int_equal(balance_giver(servers, 0, 5), 0);
	count = make(servers, (uint64_t[]){ 0, 0 }, (uint64_t[]){ 0, 0 }, 2);
	assert_int_equal(balance_plan(servers, count, 5), 0);
}

/* Whatever there is: it ends, loses nothing, brings nobody out of bounds that was within, and moves no more than needed. */
static void test_any(void **state)
{
	struct rng rng;

	(void)state;
	rng_init(&rng, 11);
	for (unsigned round = 0; round < 300; round++) {
		uint64_t totals[MOST], used[MOST], before = 0, after = 0;
		struct balance_server servers[MOST];
		size_t count = 1 + rng_below(&rng, MOST);
		for (size_t i = 0; i < count; i++) {
			totals[i] = 100 + rng_below(&rng, 400);
			used[i] = rng_below(&rng, totals[i]);
			before += used[i] * GIB;
		}
		(void)make(servers, totals, used, count);
		uint64_t bound = least(servers, count, 2), moved = balance_plan(servers, count, 2);
		for (size_t i = 0; i < count; i++)
			after += servers[i].bytes_used;
		assert_int_equal(before, after);
		assert_true(balance_is_within(servers, count, 3));
		assert_true(moved <= bound + bound / 10 + count * GIB);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_that_are_new),
		cmocka_unit_test(test_one_that_is_too_large),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
