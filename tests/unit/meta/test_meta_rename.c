/* Rename in all its cases. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

/* /a /b files, /e /f empty directories, /d with file /d/x and directory /d/s with file /d/s/y, /l2 another name of /a
 */
struct tree {
	struct fixture fixture;
	uint64_t a, b, e, f, d, x, s, y;
};

static int setup(void **state)
{
	struct tree *tree = mem_zero(1, sizeof(*tree));
	struct fixture *f = &tree->fixture;
	fixture_open(f);
	tree->a = made_file(f, ROOT, "a");
	tree->b = made_file(f, ROOT, "b");
	tree->e = made_dir(f, ROOT, "e");
	tree->f = made_dir(f, ROOT, "f");
	tree->d = made_dir(f, ROOT, "d");
	tree->x = made_file(f, tree->d, "x");
	tree->s = made_dir(f, tree->d, "s");
	tree->y = made_file(f, tree->s, "y");
	assert_int_equal(hard_link(f, tree->a, ROOT, "l2"), OK);
	*state = tree;
	return 0;
}

static int teardown(void **state)
{
	struct tree *tree = *state;
	invariants_check(tree->fixture.kv);
	fixture_close(&tree->fixture);
	free(tree);
	return 0;
}

static void test_plain(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	assert_int_equal(move(f, ROOT, "a", t->d, "z"), OK);
	assert_int_equal(f->result->inode, t->a);
	assert_int_equal(f->result->attr->ctime, f->time_ns);
	assert_int_equal(found(f, t->d, "z"), t->a);
	assert_int_equal(found(f, ROOT, "a"), 0);
	assert_int_equal(attr(f, ROOT)->mtime, f->time_ns);
	assert_int_equal(attr(f, t->d)->mtime, f->time_ns);
	assert_int_equal(attr(f, t->d)->entries, 3);
	/* A directory takes its link to the parent along. */
	assert_int_equal(attr(f, ROOT)->nlink, 5);
	assert_int_equal(move(f, t->d, "s", ROOT, "s"), OK);
	assert_int_equal(attr(f, ROOT)->nlink, 6);
	assert_int_equal(attr(f, t->d)->nlink, 2);
	assert_int_equal(found(f, t->s, ".."), ROOT);
	assert_int_equal(attr(f, t->s)->nlink, 2);
}

static void test_errors(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	const struct {
		uint64_t parent;
		const char *name;
		uint64_t new_parent;
		const char *new_name;
		enum err expected;
	} rows[] = {
	    {ROOT, "none", ROOT, "z", ERR_NOT_FOUND},  {ROOT, "a", 9999, "z", ERR_NOT_FOUND},
	    {9999, "a", ROOT, "z", ERR_NOT_FOUND},     {ROOT, "a", t->b, "z", ERR_NOT_DIRECTORY},
	    {t->b, "a", ROOT, "z", ERR_NOT_DIRECTORY}, {ROOT, "a", ROOT, "e", ERR_IS_DIRECTORY},
	    {ROOT, "e", ROOT, "a", ERR_NOT_DIRECTORY}, {ROOT, "e", ROOT, "d", ERR_NOT_EMPTY},
	    {ROOT, "d", t->s, "z", ERR_LOOP},          {ROOT, "d", t->d, "z", ERR_LOOP},
	    {ROOT, "d", t->d, "x", ERR_LOOP},          {t->d, "s", t->s, "y", ERR_LOOP},
	    {t->d, "s", ROOT, "d", ERR_NOT_EMPTY},     {ROOT, "a", ROOT, ".", ERR_INVALID},
	    {ROOT, "..", ROOT, "z", ERR_INVALID},
	};
	uint32_t before, after;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t change = attr(f, ROOT)->change;
		if (move(f, rows[i].parent, rows[i].name, rows[i].new_parent, rows[i].new_name) != rows[i].expected)
			fail_msg("row %zu: %s", i, err_name((enum err)f->result->error));
		assert_int_equal(f->effects.touch_count, 0);
		assert_int_equal(attr(f, ROOT)->change, change);
	}
	assert_int_equal(meta_digest(f->meta, &before), OK);
	fixture_reopen(f);
	assert_int_equal(meta_digest(f->meta, &after), OK);
	assert_int_equal(before, after);
}

static void test_over_file(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	assert_int_equal(move(f, ROOT, "b", ROOT, "a"), OK);
	assert_int_equal(f->result->replaced, t->a);
	assert_int_equal(f->result->replaced_nlink, 1);
	assert_int_equal(found(f, ROOT, "a"), t->b);
	assert_int_equal(attr(f, ROOT)->entries, 5);
	assert_int_equal(move(f, ROOT, "a", t->d, "x"), OK);
	assert_int_equal(f->result->replaced, t->x);
	assert_int_equal(f->result->replaced_nlink, 0);
	assert_true(f->effects.orphans_added);
	assert_int_equal(attr(f, t->x)->nlink, 0);
}

static void test_over_empty_directory(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	assert_int_equal(attr(f, ROOT)->nlink, 5);
	assert_int_equal(move(f, ROOT, "d", ROOT, "e"), OK);
	assert_int_equal(f->result->replaced, t->e);
	assert_int_equal(attr(f, ROOT)->nlink, 4);
	assert_int_equal(found(f, ROOT, "e"), t->d);
	assert_int_equal(move(f, t->d, "s", ROOT, "f"), OK);
	assert_int_equal(attr(f, ROOT)->nlink, 4);
	assert_int_equal(attr(f, t->d)->nlink, 2);
	assert_int_equal(found(f, t->s, ".."), ROOT);
	assert_int_equal(make(f, t->f, "z", MODE_FILE), ERR_NOT_FOUND);
}

static void test_same_file(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	assert_int_equal(move(f, ROOT, "a", ROOT, "l2"), OK);
	assert_int_equal(f->result->replaced, 0);
	assert_int_equal(attr(f, t->a)->nlink, 2);
	assert_int_equal(found(f, ROOT, "a"), t->a);
	assert_int_equal(found(f, ROOT, "l2"), t->a);
	assert_int_equal(move(f, ROOT, "d", ROOT, "d"), OK);
	assert_int_equal(found(f, ROOT, "d"), t->d);
}

static void test_no_replace(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	Granary__Rename op = MESSAGE(Rename, rename, .parent = ROOT, .name = text("a"), .new_parent = ROOT,
				     .new_name = text("b"), .no_replace = true);
	assert_int_equal(run_rename(f, op), ERR_EXISTS);
	op.new_name = text("l2");
	assert_int_equal(run_rename(f, op), ERR_EXISTS);
	op.exchange = true;
	assert_int_equal(run_rename(f, op), ERR_INVALID);
	op.exchange = false;
	op.new_name = text("new");
	assert_int_equal(run_rename(f, op), OK);
	assert_int_equal(found(f, ROOT, "new"), t->a);
}

static void test_exchange(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	Granary__Rename op = MESSAGE(Rename, rename, .parent = ROOT, .name = text("a"), .new_parent = t->d,
				     .new_name = text("none"), .exchange = true);
	assert_int_equal(run_rename(f, op), ERR_NOT_FOUND);
	/* file and file */
	op.new_name = text("x");
	assert_int_equal(run_rename(f, op), OK);
	assert_int_equal(found(f, ROOT, "a"), t->x);
	assert_int_equal(found(f, t->d, "x"), t->a);
	/* file and directory across parents: links of both parents move */
	op.new_name = text("s");
	assert_int_equal(run_rename(f, op), OK);
	assert_int_equal(found(f, ROOT, "a"), t->s);
	assert_int_equal(found(f, t->d, "s"), t->x);
	assert_int_equal(attr(f, ROOT)->nlink, 6);
	assert_int_equal(attr(f, t->d)->nlink, 2);
	assert_int_equal(found(f, t->s, ".."), ROOT);
	/* directory and directory across parents */
	uint64_t inner = made_dir(f, t->d, "inner");
	op.name = text("e");
	op.new_name = text("inner");
	assert_int_equal(run_rename(f, op), OK);
	assert_int_equal(found(f, ROOT, "e"), inner);
	assert_int_equal(found(f, inner, ".."), ROOT);
	assert_int_equal(found(f, t->e, ".."), t->d);
	/* into themselves, both ways */
	op.name = text("d");
	op.new_name = text("inner");
	assert_int_equal(run_rename(f, op), ERR_LOOP);
	op = MESSAGE(Rename, rename, .parent = t->d, .name = text("inner"), .new_parent = ROOT, .new_name = text("d"),
		     .exchange = true);
	assert_int_equal(run_rename(f, op), ERR_LOOP);
	/* in one directory */
	op = MESSAGE(Rename, rename, .parent = ROOT, .name = text("d"), .new_parent = ROOT, .new_name = text("b"),
		     .exchange = true);
	assert_int_equal(run_rename(f, op), OK);
	assert_int_equal(found(f, ROOT, "d"), t->b);
	assert_int_equal(found(f, ROOT, "b"), t->d);
	assert_int_equal(found(f, t->d, ".."), ROOT);
}

/* What caches of others must drop. */
static void test_touches(void **state)
{
	struct tree *t = *state;
	struct fixture *f = &t->fixture;
	assert_int_equal(move(f, ROOT, "b", t->d, "x"), OK);
	bool old_name = false, new_name = false, source = false, target = false, parent = false, new_parent = false;
	for (size_t i = 0; i < f->effects.touch_count; i++) {
		const struct meta_touch *touch = &f->effects.touches[i];
		assert_int_equal(touch->session, f->session);
		bool is_name = touch->name.size > 0;
		old_name |= touch->inode == ROOT && is_name && slice_equal(touch->name, slice_text("b"));
		new_name |= touch->inode == t->d && is_name && slice_equal(touch->name, slice_text("x"));
		source |= touch->inode == t->b && !is_name;
		target |= touch->inode == t->x && !is_name;
		parent |= touch->inode == ROOT && !is_name;
		new_parent |= touch->inode == t->d && !is_name;
	}
	assert_true(old_name && new_name && source && target && parent && new_parent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_over_file, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_over_empty_directory, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_same_file, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_replace, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_exchange, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_touches, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
