/* Directory positions: exact, stable, bounded; and the line of mountinfo that tells the device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "fuse/bdi.h"
#include "fuse/cursor.h"

static void test_positions(void **state)
{
	struct cursor cursor = {0};
	char name[32];

	(void)state;
	assert_int_equal(cursor_last(&cursor).size, 0);
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(name, sizeof name, "name-%u", i);
		assert_int_equal(cursor_add(&cursor, slice_text(name), 1000 + i, i % 16), OK);
	}
	assert_int_equal(cursor.count, 5000);
	for (unsigned i = 0; i < 5000; i += 7) {
		struct cursor_name got = cursor_get(&cursor, i);

		snprintf(name, sizeof name, "name-%u", i);
		assert_string_equal(got.name, name);
		assert_int_equal(got.name_bytes, strlen(name));
		assert_int_equal(got.inode, 1000 + i);
		assert_int_equal(got.type, i % 16);
	}
	assert_true(slice_equal(cursor_last(&cursor), slice_text("name-4999")));
	cursor.end = true;
	cursor_reset(&cursor);
	assert_int_equal(cursor.count, 0);
	assert_false(cursor.end);
	cursor_deinit(&cursor);
}

static void test_longest_name(void **state)
{
	struct cursor cursor = {0};
	char name[NAME_BYTES_MAX + 1];

	(void)state;
	memset(name, 0xff, NAME_BYTES_MAX);
	name[NAME_BYTES_MAX] = '\0';
	assert_int_equal(cursor_add(&cursor, slice_text(name), UINT64_MAX, 8), OK);
	assert_int_equal(cursor_get(&cursor, 0).name_bytes, NAME_BYTES_MAX);
	assert_string_equal(cursor_get(&cursor, 0).name, name);
	assert_int_equal(cursor_get(&cursor, 0).inode, UINT64_MAX);
	cursor_deinit(&cursor);
}

static void test_mountinfo(void **state)
{
	const char *line = "36 35 0:45 / /mnt/a\\040b rw,noatime master:1 - fuse.granary granary rw\n";
	char device[16] = "";

	(void)state;
	assert_true(bdi_parse_line(line, "/mnt/a b", device, sizeof device));
	assert_string_equal(device, "0:45");
	assert_false(bdi_parse_line(line, "/mnt/a", device, sizeof device));
	assert_false(bdi_parse_line(line, "/mnt/a bc", device, sizeof device));
	assert_false(bdi_parse_line("36 35 0:45 /\n", "/", device, sizeof device));
	assert_false(bdi_parse_line("", "/", device, sizeof device));
	assert_false(bdi_parse_line(line, "/mnt/a b", device, 4));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_positions),
	    cmocka_unit_test(test_longest_name),
	    cmocka_unit_test(test_mountinfo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
