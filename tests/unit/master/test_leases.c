/* Cache leases: who holds what for how long, what a confirmation removes, what happens when places run out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/leases.h"

struct seen {
	unsigned count;
	uint64_t sessions; /* bits */
	uint64_t expires_ms;
};

static void on_holder(void *arg, uint64_t session, uint64_t expires_ms)
{
	struct seen *seen = arg;

	seen->count++;
	seen->sessions |= 1ull << session;
	seen->expires_ms = expires_ms;
}

static struct seen holders(const struct leases *leases, uint64_t now_ms, uint64_t session, uint64_t inode, const char *name)
{
	struct seen seen = { 0 };

	leases_holders(leases, now_ms, session, inode, slice_text(name), on_holder, &seen);
	return seen;
}

static void test_holders(void **state)
{
	struct leases *leases = leases_open(100, 1000);

	(void)state;
	assert_true(leases_grant(leases, 5000, 1, 10, slice_text("")));
	assert_true(leases_grant(leases, 5100, 2, 10, slice_text("")));
	assert_true(leases_grant(leases, 5200, 3, 10, slice_text("name")));
	/* Not the one who changes it, not names when it is the inode. */
	assert_int_equal(holders(leases, 5300, 1, 10, "").sessions, 1 << 2);
	assert_int_equal(holders(leases, 5300, 9, 10, "").sessions, 1 << 1 | 1 << 2);
	assert_int_equal(holders(leases, 5300, 9, 10, "name").sessions, 1 << 3);
	assert_int_equal(holders(leases, 5300, 9, 10, "other").count, 0);
	assert_int_equal(holders(leases, 5300, 9, 11, "name").count, 0);
	/* They run out, and are renewed. */
	assert_int_equal(holders(leases, 6000, 9, 10, "").sessions, 1 << 2);
	assert_true(leases_grant(leases, 6050, 2, 10, slice_text("")));
	assert_int_equal(holders(leases, 6100, 9, 10, "").expires_ms, 7050);
	assert_int_equal(holders(leases, 7050, 9, 10, "").count, 0);
	leases_clear(leases);
	assert_int_equal(holders(leases, 5300, 9, 10, "name").count, 0);
	leases_close(leases);
}

static void test_confirmation(void **state)
{
	struct leases *leases = leases_open(100, 1000);

	(void)state;
	leases_grant(leases, 0, 1, 10, slice_text(""));
	uint64_t mark = leases_mark(leases);
	/* Granted anew while the recall was on its way: the confirmation is not about that one. */
	leases_grant(leases, 10, 1, 10, slice_text(""));
	leases_confirmed(leases, 1, 10, slice_text(""), mark);
	assert_int_equal(holders(leases, 20, 2, 10, "").count, 1);
	leases_confirmed(leases, 2, 10, slice_text(""), leases_mark(leases));
	assert_int_equal(holders(leases, 20, 2, 10, "").count, 1);
	leases_confirmed(leases, 1, 10, slice_text(""), leases_mark(leases));
	assert_int_equal(holders(leases, 20, 2, 10, "").count, 0);
	assert_int_equal(leases_count(leases), 0);
	leases_close(leases);
}

static void test_places(void **state)
{
	struct leases *leases = leases_open(64, 1000);

	(void)state;
	for (uint64_t inode = 1; inode <= 64; inode++)
		assert_true(leases_grant(leases, inode, 1, inode, slice_text("")));
	/* All run: no more; a renewal needs no place. */
	assert_false(leases_grant(leases, 100, 1, 65, slice_text("")));
	assert_true(leases_grant(leases, 100, 1, 1, slice_text("")));
	/* The oldest (inode 2, granted at 2) has run out. */
	assert_true(leases_grant(leases, 1002, 1, 65, slice_text("")));
	assert_false(leases_grant(leases, 1002, 1, 66, slice_text("")));
	assert_int_equal(leases_count(leases), 64);
	assert_int_equal(holders(leases, 1002, 2, 1, "").count, 1);
	/* Many rounds of reuse keep the chains whole. */
	for (uint64_t i = 0; i < 10000; i++)
		assert_true(leases_grant(leases, 5000 + i * 20, 1 + i % 5, 1 + i % 37, slice_text(i % 3 ? "" : "n")));
	assert_true(leases_count(leases) <= 64);
	leases_close(leases);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_holders),
		cmocka_unit_test(test_confirmation),
		cmocka_unit_test(test_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
