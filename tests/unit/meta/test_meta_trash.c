/* The trash: what goes there, how it comes back, how it goes for good. After each test the invariants are checked. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static int setup(void **state)
{
	struct fixture *fixture = mem_zero(1, sizeof(*fixture));
	fixture_open(fixture);
	trash_keep(fixture, 0);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	invariants_check(fixture->kv);
	fixture_close(fixture);
	free(fixture);
	return 0;
}

static enum err list(struct fixture *fixture, uint64_t parent, const char *name)
{
	return run_trash_list(fixture, MESSAGE(TrashList, trash_list, .parent = parent, .name = text(name)));
}

/* The newest of that name; 0: none. */
static uint64_t trashed(struct fixture *fixture, uint64_t parent, const char *name)
{
	assert_int_equal(list(fixture, parent, name), OK);
	size_t count = fixture->result->n_trash;
	return count ? fixture->result->trash[count - 1]->id : 0;
}

static enum err undelete(struct fixture *fixture, uint64_t id, uint64_t parent, const char *name)
{
	return run_undelete(fixture, MESSAGE(Undelete, undelete, .id = id, .parent = parent, .name = text(name)));
}

static enum err trash_remove(struct fixture *fixture, uint64_t id)
{
	return run_trash_remove(fixture, MESSAGE(TrashRemove, trash_remove, .n_ids = 1, .ids = &id));
}

static uint64_t trash_count(struct fixture *fixture)
{
	struct meta_counts counts;
	meta_counts(fixture->meta, &counts);
	return counts.trash;
}

/* A file with data comes back as it was: content, attributes, times. */
static void test_file(void **state)
{
	struct fixture *f = *state;
	uint64_t pack = opened_pack(f, 0);
	uint64_t file = made_file(f, ROOT, "file");
	assert_int_equal(commit_blob(f, file, pack, 7, 1000), OK);
	assert_int_equal(run_set_xattr(f, MESSAGE(SetXattr, set_xattr, .inode = file, .name = text("user.a"), .value = text("v"))), OK);
	assert_int_equal(run_setattr(f, MESSAGE(Setattr, setattr, .inode = file, .mask = SETATTR_MTIME | SETATTR_MODE, .mtime = 77,
						.mode = 0640)), OK);
	int64_t root_mtime = attr(f, ROOT)->mtime;
	assert_int_equal(remove_file(f, ROOT, "file"), OK);
	assert_int_equal(f->result->replaced, file);
	assert_int_equal(f->result->replaced_nlink, 0);
	assert_false(f->effects.orphans_added);
	assert_int_equal(lookup(f, ROOT, "file"), ERR_NOT_FOUND);
	assert_int_equal(attr(f, ROOT)->entries, 0);
	struct meta_counts counts;
	meta_counts(f->meta, &counts);
	assert_int_equal(counts.trash, 1);
	assert_int_equal(counts.trash_bytes, 1024);
	/* Who has it open goes on. */
	assert_int_equal(attr(f, file)->size, 1000);
	assert_int_equal(hard_link(f, file, ROOT, "again"), ERR_NOT_FOUND);
	/* Reclaim does not touch it. */
	assert_int_equal(reclaim(f, file), OK);
	invariants_check(f->kv);
	fixture_reopen(f);
	uint64_t id = trashed(f, ROOT, "file");
	assert_int_not_equal(id, 0);
	assert_int_equal(f->result->trash[0]->entry->inode, file);
	assert_int_equal(f->result->trash[0]->entry->parent_mtime, root_mtime);
	assert_int_equal(f->result->trash[0]->attr->size, 1000);
	assert_int_equal(undelete(f, id, ROOT, "file"), OK);
	assert_int_equal(found(f, ROOT, "file"), file);
	const Granary__Inode *inode = attr(f, file);
	assert_int_equal(inode->nlink, 1);
	assert_int_equal(inode->mtime, 77);
	assert_int_equal(inode->mode, MODE_FILE | 0640);
	assert_int_equal(inode->pack, pack);
	assert_int_equal(inode->slot, 7);
	assert_int_equal(inode->trash, 0);
	assert_int_equal(run_get_xattr(f, MESSAGE(GetXattr, get_xattr, .inode = file, .name = text("user.a"))), OK);
	assert_int_equal(trash_count(f), 0);
	assert_int_equal(undelete(f, id, ROOT, "other"), ERR_NOT_FOUND);
}

/* Several of one name, longer names beside it: each is found by itself, the newest last. */
static void test_versions(void **state)
{
	struct fixture *f = *state;
	uint64_t first = made_file(f, ROOT, "a");
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	uint64_t longer = made_file(f, ROOT, "ab");
	assert_int_equal(remove_file(f, ROOT, "ab"), OK);
	uint64_t second = made_file(f, ROOT, "a");
	uint64_t over = made_file(f, ROOT, "new");
	assert_int_equal(move(f, ROOT, "new", ROOT, "a"), OK); /* second is replaced */
	assert_int_equal(f->result->replaced, second);
	assert_int_equal(list(f, ROOT, "a"), OK);
	assert_int_equal(f->result->n_trash, 2);
	assert_true(f->result->end);
	uint64_t first_id = f->result->trash[0]->id, second_id = f->result->trash[1]->id;
	assert_int_equal(f->result->trash[0]->entry->inode, first);
	assert_int_equal(f->result->trash[1]->entry->inode, second);
	assert_true(first_id < second_id);
	/* The name is taken. */
	assert_int_equal(undelete(f, second_id, ROOT, "a"), ERR_EXISTS);
	assert_int_equal(undelete(f, second_id, ROOT, "older"), OK);
	assert_int_equal(found(f, ROOT, "older"), second);
	assert_int_equal(found(f, ROOT, "a"), over);
	assert_int_equal(undelete(f, first_id, ROOT, ".."), ERR_INVALID);
	assert_int_equal(undelete(f, first_id, 9999, "a"), ERR_NOT_FOUND);
	assert_int_equal(undelete(f, first_id, over, "a"), ERR_NOT_DIRECTORY);
	/* All names, a page at a time. */
	assert_int_equal(run_trash_list(f, MESSAGE(TrashList, trash_list, .parent = ROOT, .count = 1)), OK);
	assert_int_equal(f->result->n_trash, 1);
	assert_false(f->result->end);
	assert_int_equal(f->result->trash[0]->entry->inode, first);
	assert_int_equal(run_trash_list(f, MESSAGE(TrashList, trash_list, .parent = ROOT, .after_name = text("a"), .after = first_id)), OK);
	assert_int_equal(f->result->n_trash, 1);
	assert_true(f->result->end);
	assert_int_equal(f->result->trash[0]->entry->inode, longer);
	assert_int_equal(run_trash_list(f, MESSAGE(TrashList, trash_list, .all = true, .count = 1)), OK);
	assert_int_equal(f->result->n_trash, 1);
	assert_int_equal(f->result->trash[0]->id, first_id);
	assert_int_equal(run_trash_list(f, MESSAGE(TrashList, trash_list, .all = true, .after = first_id)), OK);
	assert_int_equal(f->result->n_trash, 1);
	assert_int_equal(f->result->trash[0]->entry->inode, longer);
}

/* Only the last of several links counts; a link over the last name of another file sends that one there. */
static void test_links(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "one");
	assert_int_equal(hard_link(f, file, ROOT, "two"), OK);
	assert_int_equal(remove_file(f, ROOT, "one"), OK);
	assert_int_equal(trash_count(f), 0);
	uint64_t other = made_file(f, ROOT, "other");
	assert_int_equal(run_link(f, MESSAGE(Link, link, .inode = other, .parent = ROOT, .name = text("two"), .replace = true)), OK);
	assert_int_equal(f->result->replaced, file);
	assert_int_equal(trash_count(f), 1);
	assert_int_equal(undelete(f, trashed(f, ROOT, "two"), ROOT, "one"), OK);
	assert_int_equal(attr(f, file)->nlink, 1);
	assert_int_equal(attr(f, other)->nlink, 2);
}

/* A tree, removed as rm -r does, comes back from the top. */
static void test_tree(void **state)
{
	struct fixture *f = *state;
	uint64_t top = made_dir(f, ROOT, "top"), below = made_dir(f, top, "below"), file = made_file(f, below, "file");
	int64_t below_mtime = attr(f, below)->mtime;
	assert_int_equal(remove_file(f, below, "file"), OK);
	assert_int_equal(remove_dir(f, top, "below"), OK);
	assert_int_equal(remove_dir(f, ROOT, "top"), OK); /* what is in the trash is not in the way */
	assert_int_equal(attr(f, ROOT)->nlink, 2);
	invariants_check(f->kv);
	assert_int_equal(trash_count(f), 3);
	/* A removed directory takes no names. */
	assert_int_equal(undelete(f, trashed(f, below, "file"), below, "file"), ERR_NOT_FOUND);
	assert_int_equal(undelete(f, trashed(f, ROOT, "top"), ROOT, "back"), OK);
	assert_int_equal(attr(f, top)->nlink, 2);
	assert_int_equal(attr(f, top)->entries, 0);
	assert_int_equal(undelete(f, trashed(f, top, "below"), top, "below"), OK);
	assert_int_equal(attr(f, top)->nlink, 3);
	uint64_t id = trashed(f, below, "file");
	assert_int_equal(f->result->trash[0]->entry->parent_mtime, below_mtime);
	assert_int_equal(undelete(f, id, below, "file"), OK);
	assert_int_equal(found(f, below, "file"), file);
	assert_int_equal(attr(f, below)->parent, top);
	assert_int_equal(attr(f, ROOT)->nlink, 3);
	assert_int_equal(trash_count(f), 0);
	/* A rename over an empty directory. */
	uint64_t empty = made_dir(f, ROOT, "empty");
	assert_int_equal(move(f, ROOT, "back", ROOT, "empty"), OK);
	assert_int_equal(undelete(f, trashed(f, ROOT, "empty"), top, "inside"), OK);
	assert_int_equal(attr(f, empty)->parent, top);
}

/* A blob without a name, by its id. */
static void test_kept(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(run_create(f, MESSAGE(Create, create, .mode = MODE_FILE | 0600, .id = f->next_id++)), OK);
	uint64_t file = f->result->inode;
	assert_int_equal(run_link(f, MESSAGE(Link, link, .inode = file)), OK);
	assert_int_equal(run_unlink(f, MESSAGE(Unlink, unlink, .inode = file)), OK);
	char name[20];
	snprintf(name, sizeof(name), "%016llx", (unsigned long long)file);
	uint64_t id = trashed(f, 0, name);
	assert_int_not_equal(id, 0);
	assert_int_equal(undelete(f, id, 0, "name"), ERR_INVALID);
	assert_int_equal(undelete(f, id, 0, ""), OK);
	assert_true(attr(f, file)->kept);
	assert_int_equal(attr(f, file)->nlink, 1);
	uint64_t directory = made_dir(f, ROOT, "d");
	(void)directory;
	assert_int_equal(remove_dir(f, ROOT, "d"), OK);
	assert_int_equal(undelete(f, trashed(f, ROOT, "d"), 0, ""), ERR_INVALID);
}

/* For good: an orphan, then nothing. What changed meanwhile is counted right. */
static void test_remove(void **state)
{
	struct fixture *f = *state;
	uint64_t chunk, file = made_file(f, ROOT, "file");
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	assert_int_equal(remove_file(f, ROOT, "file"), OK);
	/* Its holder goes on to write. */
	assert_int_equal(run_commit_chunks(f, MESSAGE(CommitChunks, commit_chunks, .inode = file, .size = 5000)), OK);
	invariants_check(f->kv);
	uint64_t id = trashed(f, ROOT, "file");
	assert_int_equal(trash_remove(f, id), OK);
	assert_true(f->effects.orphans_added);
	assert_int_equal(undelete(f, id, ROOT, "file"), ERR_NOT_FOUND);
	assert_int_equal(trash_remove(f, id), OK);
	invariants_check(f->kv);
	assert_int_equal(attr(f, file)->size, 5000); /* until nobody has it open */
	assert_int_equal(reclaim(f, file), OK);
	assert_true(f->effects.garbage_added);
	assert_int_equal(run_getattr(f, MESSAGE(Getattr, getattr, .inode = file)), ERR_NOT_FOUND);
	struct meta_counts counts;
	meta_counts(f->meta, &counts);
	assert_int_equal(counts.trash_bytes, 0);
}

/* Not at all: when it is off, or the client says so, or it never had a name. */
static void test_off(void **state)
{
	struct fixture *f = *state;
	made_file(f, ROOT, "a");
	made_file(f, ROOT, "b");
	assert_int_equal(run_unlink(f, MESSAGE(Unlink, unlink, .parent = ROOT, .name = text("a"), .no_trash = true)), OK);
	assert_true(f->effects.orphans_added);
	trash_keep(f, UINT64_MAX);
	assert_int_equal(remove_file(f, ROOT, "b"), OK);
	assert_int_equal(trash_count(f), 0);
	trash_keep(f, 60);
	assert_int_equal(run_create(f, MESSAGE(Create, create, .mode = MODE_FILE | 0600, .id = f->next_id++)), OK);
	assert_int_equal(trash_count(f), 0);
}

/* The longest name. */
static void test_long_name(void **state)
{
	struct fixture *f = *state;
	char name[NAME_BYTES_MAX + 1];
	memset(name, 0xff, NAME_BYTES_MAX);
	name[NAME_BYTES_MAX] = 0;
	for (int i = 0; i < 2; i++) {
		made_file(f, ROOT, name);
		assert_int_equal(remove_file(f, ROOT, name), OK);
	}
	assert_int_equal(list(f, ROOT, name), OK);
	assert_int_equal(f->result->n_trash, 2);
	uint64_t first = f->result->trash[0]->id, second = f->result->trash[1]->id;
	assert_int_equal(run_trash_list(f, MESSAGE(TrashList, trash_list, .parent = ROOT, .after_name = text(name), .after = first)), OK);
	assert_int_equal(f->result->n_trash, 1);
	assert_int_equal(f->result->trash[0]->id, second);
	assert_int_equal(undelete(f, second, ROOT, name), OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_file, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_links, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_tree, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_remove, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_off, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_long_name, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
