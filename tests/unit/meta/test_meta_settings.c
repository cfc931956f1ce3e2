/* Settings in the state machine: changed as a whole, from the revision that is stored. */
#include "common/proto/settings.h"
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static enum err set(struct fixture *fixture, uint64_t revision, uint64_t trash_seconds)
{
	Granary__Settings settings = GRANARY__SETTINGS__INIT;
	settings.revision = revision;
	settings.trash_seconds = trash_seconds;
	return run_set_settings(fixture, MESSAGE(SetSettings, set_settings, .settings = &settings));
}

static void test_settings(void **state)
{
	(void)state;
	struct fixture fixture;
	fixture_open(&fixture);
	assert_int_equal(setting_value(meta_settings(fixture.meta), SETTING_TRASH), 86400);
	uint64_t revision = meta_settings(fixture.meta)->revision;
	assert_int_equal(set(&fixture, revision, 60), OK);
	assert_int_equal(set(&fixture, revision, 70), ERR_BUSY);
	assert_int_equal(setting_value(meta_settings(fixture.meta), SETTING_TRASH), 60);
	assert_int_equal(meta_settings(fixture.meta)->revision, revision + 1);
	invariants_check(fixture.kv);
	fixture_reopen(&fixture);
	assert_int_equal(setting_value(meta_settings(fixture.meta), SETTING_TRASH), 60);
	assert_int_equal(set(&fixture, revision + 1, 0), OK);
	assert_true(setting_is_default(meta_settings(fixture.meta), SETTING_TRASH));
	assert_int_equal(run_set_settings(&fixture, MESSAGE(SetSettings, set_settings, .settings = NULL)), ERR_INVALID);
	fixture_close(&fixture);
}

/* No client may. */
static void test_not_by_clients(void **state)
{
	(void)state;
	Granary__Settings settings = GRANARY__SETTINGS__INIT;
	Granary__SetSettings change = GRANARY__SET_SETTINGS__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = {&op};
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	change.settings = &settings;
	op.op_case = GRANARY__META_OP__OP_SET_SETTINGS;
	op.set_settings = &change;
	request.session = request.sequence = 1;
	request.n_ops = 1;
	request.ops = ops;
	assert_int_equal(meta_validate(&request), ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_settings),
	    cmocka_unit_test(test_not_by_clients),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
