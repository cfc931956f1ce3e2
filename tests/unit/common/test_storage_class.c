/* Storage classes: names, profiles, bounds, what is in force. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/proto/settings.h"
#include "common/proto/storage_class.h"

static void test_names(void **state)
{
	(void)state;
	char name[STORAGE_CLASS_NAME_BYTES_MAX + 2];
	memset(name, 'a', sizeof(name));
	name[sizeof(name) - 1] = 0;
	assert_false(storage_class_name_is_valid(name));
	name[sizeof(name) - 2] = 0;
	assert_true(storage_class_name_is_valid(name));
	assert_true(storage_class_name_is_valid("archive-2"));
	assert_false(storage_class_name_is_valid(""));
	assert_false(storage_class_name_is_valid("Archive"));
	assert_false(storage_class_name_is_valid("a b"));
	assert_string_equal(storage_class_label("default"), "");
	assert_string_equal(storage_class_label("a"), "a");
	assert_string_equal(storage_class_name(""), "default");
}

static void test_profiles(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint32_t cold;
	} good[] = {{"auto", STORAGE_COLD_AUTO}, {"off", STORAGE_COLD_OFF}, {"2+2", 0x202}, {"4+2", 0x402},
		    {"6+3", 0x603}, {"10+4", 0xa04}, {"32+8", 0x2008}, {"1+1", 0x101}};
	static const char *const bad[] = {"", "4", "4+", "+2", "0+2", "4+0", "33+2", "4+9", "4+2 ", "-4+2", "4++2", "1000000000+2", "on"};
	char text[STORAGE_COLD_TEXT_BYTES];
	uint32_t cold;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		assert_true(storage_cold_parse(good[i].text, &cold));
		assert_int_equal(cold, good[i].cold);
		assert_string_equal(storage_cold_text(cold, text), good[i].text);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(storage_cold_parse(bad[i], &cold));
}

static void test_bounds(void **state)
{
	(void)state;
	Granary__StorageClass storage = GRANARY__STORAGE_CLASS__INIT;
	assert_int_equal(storage_class_check(&storage), ERR_INVALID);
	storage.name = (char *)(uintptr_t) "a";
	assert_int_equal(storage_class_check(&storage), OK);
	storage.copies = COPIES_MAX + 1;
	assert_int_equal(storage_class_check(&storage), ERR_RANGE);
	storage.copies = COPIES_MAX;
	storage.cold = 0x2108;
	assert_int_equal(storage_class_check(&storage), ERR_RANGE);
	storage.cold = 0x2009;
	assert_int_equal(storage_class_check(&storage), ERR_RANGE);
	storage.cold = STORAGE_COLD_OFF;
	storage.cool_seconds = STORAGE_COOL_SECONDS_MAX + 1ull;
	assert_int_equal(storage_class_check(&storage), ERR_RANGE);
	storage.cool_seconds = 1;
	storage.compression = STORAGE_COMPRESSION_AUTO + 1;
	assert_int_equal(storage_class_check(&storage), ERR_RANGE);
	storage.compression = 1;
	storage.trash_seconds = STORAGE_TRASH_SECONDS_MAX + 1ull;
	assert_int_equal(storage_class_check(&storage), ERR_RANGE);
	storage.trash_seconds = STORAGE_TRASH_NONE;
	assert_int_equal(storage_class_check(&storage), OK);
}

/* A class's own values, the built-in ones, those of the default class for a name that is gone. */
static void test_values(void **state)
{
	(void)state;
	Granary__Settings settings = GRANARY__SETTINGS__INIT;
	Granary__StorageClass standard = GRANARY__STORAGE_CLASS__INIT, own = GRANARY__STORAGE_CLASS__INIT, *all[] = {&own, &standard};
	Granary__StorageClasses classes = GRANARY__STORAGE_CLASSES__INIT;
	struct storage_values values;
	storage_class_values(&classes, &settings, "", &values);
	assert_int_equal(values.copies, REPLICAS_DEFAULT);
	assert_true(values.is_cold && values.data_shards == 0);
	assert_int_equal(values.cool_seconds, STORAGE_COOL_SECONDS_DEFAULT);
	assert_int_equal(values.compression, STORAGE_COMPRESSION_AUTO);
	assert_int_equal(values.trash_seconds, setting_value(&settings, SETTING_TRASH));
	classes.classes = all;
	classes.n_classes = 2;
	own.name = (char *)(uintptr_t) "a";
	own.cold = 0x603;
	own.trash_seconds = STORAGE_TRASH_NONE;
	standard.name = (char *)(uintptr_t)STORAGE_CLASS_DEFAULT;
	standard.copies = 2;
	standard.cold = STORAGE_COLD_OFF;
	storage_class_values(&classes, &settings, "a", &values);
	assert_int_equal(values.copies, REPLICAS_DEFAULT);
	assert_true(values.is_cold && values.data_shards == 6 && values.parity_shards == 3);
	assert_int_equal(values.trash_seconds, 0);
	storage_class_values(&classes, &settings, "gone", &values);
	assert_int_equal(values.copies, 2);
	assert_false(values.is_cold);
	assert_false(storage_class_exists(&classes, "gone"));
	assert_true(storage_class_exists(&classes, "a") && storage_class_exists(&classes, ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_profiles),
	    cmocka_unit_test(test_bounds),
	    cmocka_unit_test(test_values),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
