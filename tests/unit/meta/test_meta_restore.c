/* A backup's pairs put into an empty state machine. */
#include "common/data/pairs.h"
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static enum err restore(struct fixture *fixture, uint32_t step, uint64_t id, struct slice pairs)
{
	Granary__Restore restore = GRANARY__RESTORE__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;

	restore.step = step;
	restore.id = id;
	restore.pairs = message_borrow(pairs);
	op.op_case = GRANARY__META_OP__OP_RESTORE;
	op.restore = &restore;
	return fixture_run(fixture, 0, &op);
}

/* All pairs; without: but the single values. */
static void dump(struct fixture *fixture, bool without, struct buf *out)
{
	struct kv_iterator *iterator = kv_iterator_open(fixture->kv);

	buf_clear(out);
	for (kv_iterator_seek(iterator, (struct slice){ 0 }); kv_iterator_valid(iterator); kv_iterator_next(iterator)) {
		if (!without || kv_iterator_key(iterator).bytes[0] != 'M')
			pairs_add(out, kv_iterator_key(iterator), kv_iterator_value(iterator));
	}
	kv_iterator_close(iterator);
}

static void fill(struct fixture *fixture)
{
	uint64_t directory = made_dir(fixture, ROOT, "directory");

	for (unsigned i = 0; i < 50; i++) {
		char name[16];
		snprintf(name, sizeof(name), "file%u", i);
		uint64_t file = made_file(fixture, i % 2 ? directory : ROOT, name);
		if (i % 5 == 0) {
			uint64_t chunk;
			assert_int_equal(allocate(fixture, file, 0, &chunk), OK);
		}
	}
	/* In the trash, and removed for good; and settings. */
	trash_keep(fixture, 0);
	uint64_t gone = made_file(fixture, directory, "gone"), chunk;
	assert_int_equal(allocate(fixture, gone, 0, &chunk), OK);
	assert_int_equal(remove_file(fixture, directory, "gone"), OK);
	assert_int_equal(truncate_to(fixture, gone, 0), OK);
	Granary__Settings settings = GRANARY__SETTINGS__INIT;
	settings.revision = meta_settings(fixture->meta)->revision;
	settings.trash_seconds = 4711;
	assert_int_equal(run_set_settings(fixture, MESSAGE(SetSettings, set_settings, .settings = &settings)), OK);
}

/* In memory, too: what goes to the trash is decided by them, on every master alike. */
static void expect_settings(struct fixture *to, struct fixture *from)
{
	assert_int_equal(meta_settings(to->meta)->trash_seconds, 4711);
	assert_int_equal(meta_settings(to->meta)->revision, meta_settings(from->meta)->revision);
}

static void test_restore(void **state)
{
	struct fixture from, to;
	struct buf pairs = { 0 }, before = { 0 }, after = { 0 };

	(void)state;
	fixture_open(&from);
	fixture_open(&to);
	fill(&from);
	dump(&from, false, &pairs);
	dump(&from, true, &before);
	struct slice all = buf_slice(&pairs), key, value, half;
	half = all;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(pairs_take(&half, &key, &value), OK);
	half = slice_of(all.bytes, all.size - half.size);

	/* Without a beginning, and into one that is not empty: nothing happens. */
	assert_int_equal(restore(&to, 2, 7, half), ERR_CANCELLED);
	made_dir(&to, ROOT, "here");
	assert_int_equal(restore(&to, 1, 7, (struct slice){ 0 }), ERR_NOT_EMPTY);
	fixture_close(&to);
	fixture_open(&to);

	/* One that is interrupted, another after it. In between nothing else is changed. */
	assert_int_equal(restore(&to, 1, 7, (struct slice){ 0 }), OK);
	assert_int_equal(restore(&to, 2, 7, half), OK);
	assert_int_equal(make(&to, ROOT, "refused", MODE_DIRECTORY | 0755u), ERR_BUSY);
	assert_int_equal(restore(&to, 2, 7, slice_text("no pairs at all")), ERR_CORRUPT);
	assert_int_equal(restore(&to, 1, 8, (struct slice){ 0 }), OK);
	dump(&to, true, &after);
	assert_int_equal(after.size, 0);
	assert_int_equal(restore(&to, 2, 7, half), ERR_CANCELLED);
	assert_int_equal(restore(&to, 3, 8, (struct slice){ 0 }), ERR_INVALID); /* nothing is there yet */
	assert_int_equal(restore(&to, 2, 8, all), OK);
	assert_int_equal(restore(&to, 2, 8, half), OK); /* sent again */
	assert_int_equal(restore(&to, 3, 8, (struct slice){ 0 }), OK);
	assert_true(to.effects.restored);
	expect_settings(&to, &from);
	assert_int_equal(restore(&to, 3, 8, (struct slice){ 0 }), OK); /* sent again */
	assert_int_equal(restore(&to, 1, 8, (struct slice){ 0 }), OK);
	assert_false(to.effects.restored);

	fixture_reopen(&to);
	expect_settings(&to, &from);
	dump(&to, true, &after);
	assert_true(slice_equal(buf_slice(&before), buf_slice(&after)));
	assert_int_equal(meta_cluster(to.meta), meta_cluster(from.meta));
	invariants_check(to.kv);
	assert_int_equal(restore(&to, 1, 9, (struct slice){ 0 }), ERR_NOT_EMPTY);
	to.next_id = 100000;
	to.sequence = from.sequence; /* the session is the one of the backup */
	made_dir(&to, ROOT, "goes on");
	invariants_check(to.kv);
	buf_deinit(&pairs);
	buf_deinit(&before);
	buf_deinit(&after);
	fixture_close(&from);
	fixture_close(&to);
}

/* The masters' membership is not the backup's. */
static void test_members(void **state)
{
	struct fixture from, to;
	struct buf pairs = { 0 }, members = { 0 };
	uint64_t index;

	(void)state;
	fixture_open(&from);
	fixture_open(&to);
	assert_int_equal(meta_members(to.meta, &members, &index), ERR_NOT_FOUND);
	assert_int_equal(meta_apply_members(from.meta, meta_applied_index(from.meta) + 1, 1, slice_text("theirs")), OK);
	uint64_t own = meta_applied_index(to.meta) + 1;
	assert_int_equal(meta_apply_members(to.meta, own, 1, slice_text("ours")), OK);
	dump(&from, false, &pairs);
	meta_close(to.meta);
	kv_close(to.kv);
	char path[96];
	snprintf(path, sizeof(path), "%s/kv", to.folder);
	assert_int_equal(kv_remove(to.loop, path), OK);
	to.kv = NULL;
	to.meta = NULL;
	fixture_reopen(&to);
	assert_int_equal(meta_apply_members(to.meta, 1, 1, slice_text("ours")), OK);
	assert_int_equal(restore(&to, 1, 5, (struct slice){ 0 }), OK);
	assert_int_equal(restore(&to, 2, 5, buf_slice(&pairs)), OK);
	assert_int_equal(restore(&to, 3, 5, (struct slice){ 0 }), OK);
	fixture_reopen(&to);
	assert_int_equal(meta_members(to.meta, &members, &index), OK);
	assert_int_equal(index, 1);
	assert_true(slice_equal(buf_slice(&members), slice_text("ours")));
	buf_deinit(&pairs);
	buf_deinit(&members);
	fixture_close(&from);
	fixture_close(&to);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_restore), cmocka_unit_test(test_members) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
