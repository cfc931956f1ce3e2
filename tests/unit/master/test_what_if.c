/* What would be lost with some servers, and how long repair would take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/what_if_policy.h"

static enum loss copies(unsigned wanted, unsigned present, unsigned left)
{
	return loss_judge(&(struct loss_question){ .needed = 1, .wanted = wanted, .present = present, .left = left });
}

/* 4+2 */
static enum loss shards(unsigned present, unsigned left)
{
	return loss_judge(&(struct loss_question){ .needed = 4, .wanted = 6, .present = present, .left = left });
}

static void test_copies(void **state)
{
	(void)state;
	assert_int_equal(copies(3, 3, 3), LOSS_NONE);
	assert_int_equal(copies(3, 3, 2), LOSS_DEGRADED);
	assert_int_equal(copies(3, 3, 1), LOSS_ALONE);
	assert_int_equal(copies(3, 3, 0), LOSS_LOST);
	assert_int_equal(copies(3, 0, 0), LOSS_BEFORE);
	/* One that is wanted once is always one failure from loss; one too many is no lack. */
	assert_int_equal(copies(1, 1, 1), LOSS_ALONE);
	assert_int_equal(copies(2, 3, 2), LOSS_NONE);
}

static void test_shards(void **state)
{
	(void)state;
	assert_int_equal(shards(6, 6), LOSS_NONE);
	assert_int_equal(shards(6, 5), LOSS_DEGRADED);
	assert_int_equal(shards(6, 4), LOSS_ALONE);
	assert_int_equal(shards(6, 3), LOSS_LOST);
	assert_int_equal(shards(4, 3), LOSS_LOST);
	assert_int_equal(shards(3, 3), LOSS_BEFORE);
}

static void test_to_make(void **state)
{
	struct loss_question question = { .needed = 4, .wanted = 6, .present = 6, .left = 4 };

	(void)state;
	assert_int_equal(loss_to_make(&question, 9), 2);
	/* No server gets two of a set. */
	assert_int_equal(loss_to_make(&question, 5), 1);
	assert_int_equal(loss_to_make(&question, 4), 0);
	question.left = 3;
	assert_int_equal(loss_to_make(&question, 9), 0);
	question.left = 6;
	assert_int_equal(loss_to_make(&question, 9), 0);
}

static void test_time(void **state)
{
	struct repair_load load = { .copied_bytes_max = 3500, .servers_left = 4, .copy_rate = 1000, .shard_rate = 100 };

	(void)state;
	/* The one that sends most. */
	assert_int_equal(repair_load_ms(&load), 3500);
	/* Shards are made by all of them. */
	load.gathered_bytes = 4000;
	assert_int_equal(repair_load_ms(&load), 10000);
	/* Large numbers keep their digits. */
	load = (struct repair_load){ .copied_bytes_max = 1ull << 62, .servers_left = 1, .copy_rate = 1ull << 40, .shard_rate = 1 };
	assert_int_equal(repair_load_ms(&load), (1ull << 22) * 1000);
	load = (struct repair_load){ .copied_bytes_max = 0, .gathered_bytes = 0, .servers_left = 0, .copy_rate = 1, .shard_rate = 1 };
	assert_int_equal(repair_load_ms(&load), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_shards),
		cmocka_unit_test(test_to_make),
		cmocka_unit_test(test_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
