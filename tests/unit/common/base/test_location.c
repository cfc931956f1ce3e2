/* Locations: which are taken, what two of them have in common. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "common/base/location.h"

static void test_valid(void **state)
{
	char text[LOCATION_BYTES_MAX + 2];

	(void)state;
	assert_true(location_is_valid(""));
	assert_true(location_is_valid("z1"));
	assert_true(location_is_valid("z1/r-1/pdu.2"));
	assert_true(location_is_valid("1/2/3/4/5/6/7/8"));
	assert_false(location_is_valid("1/2/3/4/5/6/7/8/9"));
	assert_false(location_is_valid("/z1"));
	assert_false(location_is_valid("z1/"));
	assert_false(location_is_valid("z1//r1"));
	assert_false(location_is_valid("z 1"));
	assert_false(location_is_valid("z\n"));
	memset(text, 'a', sizeof(text));
	text[LOCATION_BYTES_MAX] = 0;
	assert_true(location_is_valid(text));
	text[LOCATION_BYTES_MAX] = 'a';
	text[LOCATION_BYTES_MAX + 1] = 0;
	assert_false(location_is_valid(text));
}

static void test_shared(void **state)
{
	(void)state;
	assert_int_equal(location_shared("", ""), LOCATION_DEPTH_MAX);
	assert_int_equal(location_shared("a/b", "a/b"), LOCATION_DEPTH_MAX);
	assert_int_equal(location_shared("a/b", "a/c"), 1);
	assert_int_equal(location_shared("a/b", "a"), 1);
	assert_int_equal(location_shared("a", "a/b"), 1);
	assert_int_equal(location_shared("a/b/c", "a/b"), 2);
	assert_int_equal(location_shared("a/b", "c/b"), 0);
	assert_int_equal(location_shared("a", ""), 0);
	assert_int_equal(location_shared("ab", "a"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_valid), cmocka_unit_test(test_shared) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
