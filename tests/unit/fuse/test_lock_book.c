/* What is held after grants, conversions, partial unlocks: against a table of single bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/rng.h"
#include "fuse/lock_book.h"

#define BYTES 40u
#define OWNERS 3u

static void test_parts(void **state)
{
	struct lock_book book = {0};
	struct lock_entry all = {.owner = 1, .start = 0, .end = INT64_MAX, .exclusive = true};
	struct lock_entry middle = {.owner = 1, .start = 10, .end = 19};
	struct lock_entry other = {.owner = 2, .start = 0, .end = INT64_MAX};
	struct lock_entry flock = {.owner = 1, .start = 0, .end = INT64_MAX, .flock = true};

	(void)state;
	assert_false(lock_book_holds(&book, &all, false));
	lock_book_grant(&book, &all);
	assert_true(lock_book_holds(&book, &middle, true));
	assert_false(lock_book_holds(&book, &other, false));
	assert_false(lock_book_holds(&book, &flock, false));
	lock_book_release(&book, &middle);
	assert_false(lock_book_holds(&book, &middle, false));
	assert_true(lock_book_holds(&book, &all, true));
	assert_int_equal(book.count, 2);
	lock_book_grant(&book, &middle);
	assert_true(lock_book_holds(&book, &middle, false));
	assert_false(lock_book_holds(&book, &middle, true));
	lock_book_release(&book, &all);
	assert_int_equal(book.count, 0);
	lock_book_deinit(&book);
}

static void test_against_bytes(void **state)
{
	struct lock_book book = {0};
	uint8_t held[OWNERS][2][BYTES] = {{{0}}}; /* 0 free, 1 shared, 2 exclusive */
	struct rng rng;

	(void)state;
	rng_init(&rng, 11);
	for (int step = 0; step < 20000; step++) {
		struct lock_entry entry = {.owner = rng_below(&rng, OWNERS), .flock = rng_below(&rng, 2)};
		unsigned kind = (unsigned)rng_below(&rng, 3);

		entry.start = rng_below(&rng, BYTES);
		entry.end = entry.start + rng_below(&rng, BYTES - entry.start);
		entry.exclusive = kind == 2;
		if (kind == 0)
			lock_book_release(&book, &entry);
		else
			lock_book_grant(&book, &entry);
		memset(held[entry.owner][entry.flock] + entry.start, (int)kind, entry.end - entry.start + 1);
		for (unsigned i = 0; i < BYTES; i++) {
			struct lock_entry byte = {.owner = entry.owner, .flock = entry.flock, .start = i, .end = i};
			uint8_t expected = held[entry.owner][entry.flock][i];

			assert_int_equal(lock_book_holds(&book, &byte, false), expected > 0);
			assert_int_equal(lock_book_holds(&book, &byte, true), expected == 2);
		}
		assert_true(book.count <= OWNERS * 2 * BYTES);
	}
	lock_book_deinit(&book);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_parts),
	    cmocka_unit_test(test_against_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
