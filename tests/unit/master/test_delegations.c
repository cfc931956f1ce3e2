/* Who may make names in a directory by himself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "master/delegations.h"

#define LEASE 1000u
#define A 1u
#define B 2u
#define DIRECTORY 77u

static struct delegations *table;

static int setup(void **state)
{
	(void)state;
	table = delegations_open(4, LEASE);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	delegations_close(table);
	return 0;
}

static bool grant(uint64_t now, uint64_t session, uint64_t directory)
{
	bool fresh;
	return delegations_grant(table, now, now, session, directory, &fresh);
}

static bool is_held(uint64_t now, uint64_t asking, uint64_t directory)
{
	uint64_t holder, expires;
	return delegations_holder(table, now, asking, directory, &holder, &expires);
}

/* A holder that cannot send what it has done says so: it lasts on, recalled for DELEGATION_KEPT_MS_MAX at most. */
static void test_kept(void **state)
{
	(void)state;
	assert_true(grant(100, A, DIRECTORY));
	delegations_keep(table, 900, B, DIRECTORY);
	assert_int_equal(delegations_until_ms(table, 900, A, DIRECTORY), 100 + LEASE);
	assert_int_equal(delegations_until_ms(table, 900, B, DIRECTORY), 0);
	delegations_keep(table, 900, A, DIRECTORY);
	assert_true(is_held(1800, B, DIRECTORY));
	delegations_recalled(table, DIRECTORY);
	uint64_t now = 1800;
	for (; is_held(now, B, DIRECTORY); now += 500) {
		assert_true(delegations_any(table, now));
		delegations_keep(table, now, A, DIRECTORY);
		assert_false(grant(now, A, DIRECTORY));
		assert_false(grant(now, B, DIRECTORY));
	}
	assert_in_range(now, 1800 + DELEGATION_KEPT_MS_MAX, 1800 + DELEGATION_KEPT_MS_MAX + 500);
	/* run out: too late */
	delegations_keep(table, now, A, DIRECTORY);
	assert_false(is_held(now, B, DIRECTORY));
	assert_true(grant(now, B, DIRECTORY));
}

static void test_granted_renewed_expired(void **state)
{
	uint64_t holder, expires;
	bool fresh;
	(void)state;
	assert_false(delegations_any(table, 100));
	assert_true(delegations_grant(table, 100, 100, A, DIRECTORY, &fresh));
	assert_true(fresh);
	assert_true(delegations_any(table, 100));
	assert_false(is_held(100, A, DIRECTORY));
	assert_true(delegations_holder(table, 100, B, DIRECTORY, &holder, &expires));
	assert_int_equal(holder, A);
	assert_int_equal(expires, 100 + LEASE);
	assert_false(grant(200, B, DIRECTORY));
	assert_true(delegations_grant(table, 600, 600, A, DIRECTORY, &fresh));
	assert_false(fresh);
	assert_true(is_held(600 + LEASE - 1, B, DIRECTORY));
	assert_false(is_held(600 + LEASE, B, DIRECTORY));
	assert_false(delegations_any(table, 600 + LEASE));
	assert_true(delegations_grant(table, 600 + LEASE, 600 + LEASE, B, DIRECTORY, &fresh));
	assert_true(fresh);
}

static void test_not_while_others_use_it(void **state)
{
	(void)state;
	delegations_used(table, 100, B, DIRECTORY);
	assert_false(grant(100 + LEASE - 1, A, DIRECTORY));
	assert_true(grant(100 + LEASE, A, DIRECTORY));
	/* Two in turn: the older use counts, too. */
	delegations_used(table, 5000, B, DIRECTORY + 1);
	delegations_used(table, 5500, A, DIRECTORY + 1);
	assert_false(grant(5600, A, DIRECTORY + 1));
	assert_true(grant(5000 + LEASE, A, DIRECTORY + 1));
	/* Its own use is none. */
	delegations_used(table, 9000, A, DIRECTORY + 2);
	assert_true(grant(9001, A, DIRECTORY + 2));
}

static void test_recalled_is_not_renewed(void **state)
{
	(void)state;
	assert_true(grant(100, A, DIRECTORY));
	delegations_recalled(table, DIRECTORY);
	assert_false(grant(200, A, DIRECTORY));
	assert_true(is_held(200, B, DIRECTORY));
	delegations_ended(table, B, DIRECTORY); /* not B's to give back */
	assert_true(is_held(200, B, DIRECTORY));
	delegations_ended(table, A, DIRECTORY);
	assert_false(is_held(200, B, DIRECTORY));
	assert_true(grant(300, A, DIRECTORY));
	delegations_session_ended(table, A);
	assert_false(is_held(300, B, DIRECTORY));
}

static void test_asked_too_long_ago(void **state)
{
	bool fresh;
	(void)state;
	assert_false(delegations_grant(table, 100 + LEASE, 100, A, DIRECTORY, &fresh));
	assert_true(delegations_grant(table, 100 + LEASE, 101, A, DIRECTORY, &fresh));
}

static void test_full_table_gives_nothing_away(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 4; i++)
		delegations_used(table, 100, B, 10 + i);
	delegations_used(table, 200, B, 50); /* no place */
	assert_false(grant(100 + LEASE, A, 50));
	assert_false(grant(100 + LEASE, A, 60));
	assert_true(grant(200 + LEASE, A, 50));
	/* A held directory keeps its place. */
	for (uint64_t i = 0; i < 8; i++)
		delegations_used(table, 300 + LEASE, B, 20 + i);
	assert_true(is_held(300 + LEASE, B, 50));
	delegations_clear(table);
	assert_false(is_held(300 + LEASE, B, 50));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_granted_renewed_expired, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_while_others_use_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_recalled_is_not_renewed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_asked_too_long_ago, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_table_gives_nothing_away, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
