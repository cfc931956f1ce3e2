/* The table of settings: defaults, zero, bounds, names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/proto/settings.h"

static void test_values(void **state)
{
	(void)state;
	Granary__Settings settings = GRANARY__SETTINGS__INIT;
	assert_true(setting_is_default(&settings, SETTING_TRASH));
	assert_int_equal(setting_value(&settings, SETTING_TRASH), 86400);
	assert_int_equal(setting_set(&settings, SETTING_TRASH, 60), OK);
	assert_int_equal(settings.trash_seconds, 60);
	assert_int_equal(setting_value(&settings, SETTING_TRASH), 60);
	assert_false(setting_is_default(&settings, SETTING_TRASH));
	assert_int_equal(setting_set(&settings, SETTING_TRASH, SETTING_ZERO), OK);
	assert_int_equal(setting_value(&settings, SETTING_TRASH), 0);
	assert_false(setting_is_default(&settings, SETTING_TRASH));
	assert_int_equal(setting_set(&settings, SETTING_TRASH, 0), OK);
	assert_true(setting_is_default(&settings, SETTING_TRASH));
}

static void test_bounds(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SETTINGS_COUNT; i++) {
		enum setting_id id = (enum setting_id)i;
		const struct setting *setting = setting_of(id);
		Granary__Settings settings = GRANARY__SETTINGS__INIT;
		assert_true(setting->least > 0 && setting->standard >= setting->least && setting->standard <= setting->most);
		assert_int_equal(setting_set(&settings, id, setting->least), OK);
		assert_int_equal(setting_set(&settings, id, setting->most), OK);
		assert_int_equal(setting_set(&settings, id, setting->most + 1), ERR_RANGE);
		assert_int_equal(setting_value(&settings, id), setting->most);
		assert_int_equal(setting_set(&settings, id, SETTING_ZERO), setting->may_be_zero ? OK : ERR_RANGE);
		assert_int_equal(setting_find(setting->key), id);
	}
}

static void test_names(void **state)
{
	(void)state;
	assert_int_equal(setting_find("trash-seconds"), SETTING_TRASH);
	assert_int_equal(setting_find("trash_second"), SETTINGS_COUNT);
	assert_int_equal(setting_find("trash_secondss"), SETTINGS_COUNT);
	assert_int_equal(setting_find("revision"), SETTINGS_COUNT);
	assert_int_equal(setting_find(""), SETTINGS_COUNT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_values),
	    cmocka_unit_test(test_bounds),
	    cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
