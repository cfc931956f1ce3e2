/* Names and attributes: what POSIX says of create, link, unlink, rmdir, rename, chmod, truncate's times. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static int setup(void **state)
{
	struct fixture *fixture = mem_zero(1, sizeof(*fixture));
	fixture_open(fixture);
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

static void test_create_and_lookup(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	assert_int_equal(f->result->attr->nlink, 1);
	assert_int_equal(f->result->attr->mode, MODE_FILE | 0644);
	assert_int_equal(f->result->attr->uid, 1000);
	assert_int_equal(f->result->attr->mtime, f->time_ns);
	assert_int_equal(f->result->attr->btime, f->time_ns);
	assert_int_equal(found(f, ROOT, "a"), file);
	assert_int_equal(lookup(f, ROOT, "b"), ERR_NOT_FOUND);
	assert_int_equal(lookup(f, file, "b"), ERR_NOT_DIRECTORY);
	assert_int_equal(lookup(f, 9999, "b"), ERR_NOT_FOUND);
	assert_int_equal(make(f, ROOT, "a", MODE_FILE | 0644), ERR_EXISTS);
	assert_int_equal(make(f, file, "x", MODE_FILE | 0644), ERR_NOT_DIRECTORY);
	assert_int_equal(make(f, 9999, "x", MODE_FILE | 0644), ERR_NOT_FOUND);
	uint64_t dir = made_dir(f, ROOT, "d");
	assert_int_equal(found(f, dir, "."), dir);
	assert_int_equal(found(f, dir, ".."), ROOT);
	assert_int_equal(found(f, ROOT, ".."), ROOT);
}

static void test_create_names(void **state)
{
	struct fixture *f = *state;
	char name[NAME_BYTES_MAX + 2];
	memset(name, 'n', sizeof(name));
	name[NAME_BYTES_MAX + 1] = 0;
	assert_int_equal(make(f, ROOT, name, MODE_FILE), ERR_NAME_TOO_LONG);
	name[NAME_BYTES_MAX] = 0;
	uint64_t file = made_file(f, ROOT, name);
	assert_int_equal(found(f, ROOT, name), file);
	assert_int_equal(make(f, ROOT, ".", MODE_DIRECTORY), ERR_EXISTS);
	assert_int_equal(make(f, ROOT, "..", MODE_DIRECTORY), ERR_EXISTS);
	assert_int_equal(make(f, ROOT, "a/b", MODE_FILE), ERR_INVALID);
	assert_int_equal(make(f, ROOT, "odd", 0150000 | 0644), ERR_INVALID);
	assert_int_equal(make(f, ROOT, "zero", 0644), OK);
	assert_int_equal(f->result->attr->mode, MODE_FILE | 0644);
	/* Bytes, not text. */
	uint64_t bytes = made_file(f, ROOT, "\xff\x01 \n\"");
	assert_int_equal(found(f, ROOT, "\xff\x01 \n\""), bytes);
}

static void test_create_not_exclusive(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	made_dir(f, ROOT, "d");
	assert_int_equal(make_symlink(f, ROOT, "l", "a"), OK);
	Granary__Create create = MESSAGE(Create, create, .parent = ROOT, .name = text("a"), .mode = MODE_FILE | 0600);
	create.id = f->next_id++;
	assert_int_equal(run_create(f, create), OK);
	assert_int_equal(f->result->inode, file);
	assert_int_equal(f->result->attr->mode, MODE_FILE | 0644);
	create.name = text("d");
	assert_int_equal(run_create(f, create), ERR_IS_DIRECTORY);
	create.name = text("l");
	assert_int_equal(run_create(f, create), ERR_EXISTS);
	create.name = text("a");
	create.mode = MODE_DIRECTORY | 0700;
	assert_int_equal(run_create(f, create), ERR_EXISTS);
}

static void test_special_files(void **state)
{
	struct fixture *f = *state;
	const uint32_t types[] = {MODE_FIFO, MODE_SOCKET, MODE_BLOCK_DEVICE, MODE_CHARACTER_DEVICE};
	for (unsigned i = 0; i < 4; i++) {
		char name[2] = {(char)('a' + i), 0};
		assert_int_equal(run_create(f, MESSAGE(Create, create, .parent = ROOT, .name = text(name),
						       .mode = types[i] | 0600, .rdev = 0x0103, .id = f->next_id++)),
				 OK);
		assert_int_equal(attr(f, found(f, ROOT, name))->rdev, 0x0103);
		assert_int_equal(attr(f, found(f, ROOT, name))->mode, types[i] | 0600);
		assert_int_equal(truncate_to(f, found(f, ROOT, name), 10), ERR_INVALID);
	}
	assert_int_equal(make_symlink(f, ROOT, "l", "some/target"), OK);
	const Granary__Inode *link = attr(f, found(f, ROOT, "l"));
	assert_int_equal(link->size, 11);
	assert_memory_equal(link->symlink.data, "some/target", 11);
	assert_int_equal(make_symlink(f, ROOT, "e", ""), ERR_NOT_FOUND);
	char *target = mem_zero(1, SYMLINK_BYTES_MAX + 2);
	memset(target, 't', SYMLINK_BYTES_MAX + 1);
	assert_int_equal(make_symlink(f, ROOT, "e", target), ERR_NAME_TOO_LONG);
	target[SYMLINK_BYTES_MAX] = 0;
	assert_int_equal(make_symlink(f, ROOT, "e", target), OK);
	free(target);
}

static void test_directory_links_and_times(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(attr(f, ROOT)->nlink, 2);
	uint64_t dir = made_dir(f, ROOT, "d");
	assert_int_equal(attr(f, dir)->nlink, 2);
	assert_int_equal(attr(f, ROOT)->nlink, 3);
	assert_int_equal(attr(f, ROOT)->mtime, f->time_ns);
	assert_int_equal(attr(f, ROOT)->ctime, f->time_ns);
	uint64_t made_at = f->time_ns;
	uint64_t file = made_file(f, dir, "a");
	assert_int_equal(attr(f, ROOT)->mtime, made_at);
	assert_int_equal(attr(f, dir)->mtime, f->time_ns);
	assert_int_equal(attr(f, dir)->entries, 1);
	assert_int_equal(hard_link(f, file, dir, "b"), OK);
	assert_int_equal(attr(f, dir)->nlink, 2);
	assert_int_equal(attr(f, dir)->entries, 2);
	assert_int_equal(attr(f, file)->ctime, f->time_ns);
	assert_int_equal(attr(f, file)->nlink, 2);
	assert_true(attr(f, file)->mtime < (int64_t)f->time_ns);
	assert_int_equal(remove_dir(f, ROOT, "d"), ERR_NOT_EMPTY);
	assert_int_equal(remove_file(f, dir, "a"), OK);
	assert_int_equal(f->result->replaced, file);
	assert_int_equal(f->result->replaced_nlink, 1);
	assert_int_equal(attr(f, file)->ctime, f->time_ns);
	assert_int_equal(remove_file(f, dir, "b"), OK);
	assert_int_equal(f->result->replaced_nlink, 0);
	assert_true(f->effects.orphans_added);
	assert_int_equal(remove_dir(f, ROOT, "d"), OK);
	assert_int_equal(attr(f, ROOT)->nlink, 2);
	assert_int_equal(attr(f, dir)->nlink, 0);
	assert_int_equal(make(f, dir, "x", MODE_FILE), ERR_NOT_FOUND);
}

static void test_time_does_not_go_back(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	uint64_t now = f->time_ns, change = attr(f, file)->change;
	f->time_ns -= 500 * SECOND;
	assert_int_equal(truncate_to(f, file, 10), OK);
	assert_int_equal(f->result->attr->ctime, now);
	assert_int_equal(f->result->attr->mtime, now);
	assert_true(f->result->attr->change > change);
	assert_int_equal(f->result->attr->data_change, f->result->attr->change);
	assert_int_equal(meta_last_time_ns(f->meta), now);
	f->time_ns = now;
}

static void test_setgid_directory(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(run_create(f, MESSAGE(Create, create, .parent = ROOT, .name = text("g"), .gid = 50,
					       .mode = MODE_DIRECTORY | MODE_SETGID | 0775, .id = f->next_id++)),
			 OK);
	uint64_t dir = f->result->inode;
	made_file(f, dir, "a");
	assert_int_equal(f->result->attr->gid, 50);
	assert_int_equal(f->result->attr->mode, MODE_FILE | 0644);
	made_dir(f, dir, "d");
	assert_int_equal(f->result->attr->gid, 50);
	assert_int_equal(f->result->attr->mode, MODE_DIRECTORY | MODE_SETGID | 0755);
}

static void test_hard_links(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), dir = made_dir(f, ROOT, "d");
	assert_int_equal(hard_link(f, dir, ROOT, "x"), ERR_NOT_PERMITTED);
	assert_int_equal(hard_link(f, file, ROOT, "a"), ERR_EXISTS);
	assert_int_equal(hard_link(f, file, ROOT, "d"), ERR_EXISTS);
	assert_int_equal(hard_link(f, 9999, ROOT, "x"), ERR_NOT_FOUND);
	assert_int_equal(hard_link(f, file, file, "x"), ERR_NOT_DIRECTORY);
	assert_int_equal(hard_link(f, file, ROOT, "."), ERR_INVALID);
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(hard_link(f, file, ROOT, "again"), ERR_NOT_FOUND);
}

static void test_links_max(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	for (uint32_t at = 1; at < LINKS_MAX;) {
		Granary__MetaOp ops[1000], *pointers[1000];
		Granary__Link links[1000];
		char names[1000][16];
		size_t count = 0;
		for (; count < 1000 && at < LINKS_MAX; count++, at++) {
			snprintf(names[count], sizeof(names[count]), "l%u", at);
			granary__meta_op__init(&ops[count]);
			links[count] = MESSAGE(Link, link, .inode = file, .parent = ROOT, .name = text(names[count]));
			ops[count].op_case = GRANARY__META_OP__OP_LINK;
			ops[count].link = &links[count];
			pointers[count] = &ops[count];
		}
		assert_int_equal(fixture_request(f, f->session, pointers, count), OK);
	}
	assert_int_equal(attr(f, file)->nlink, LINKS_MAX);
	assert_int_equal(hard_link(f, file, ROOT, "more"), ERR_TOO_MANY_LINKS);
	assert_int_equal(remove_file(f, ROOT, "l7"), OK);
	assert_int_equal(hard_link(f, file, ROOT, "more"), OK);
}

static void test_link_replace(void **state)
{
	struct fixture *f = *state;
	uint64_t old = made_file(f, ROOT, "a"), new = made_file(f, ROOT, "b");
	made_dir(f, ROOT, "d");
	uint64_t change = attr(f, old)->change;
	Granary__Link link = MESSAGE(Link, link, .inode = new, .parent = ROOT, .name = text("a"), .replace = true);
	link.expect_change = change + 1;
	assert_int_equal(run_link(f, link), ERR_EXISTS);
	assert_int_equal(found(f, ROOT, "a"), old);
	link.expect_change = change;
	assert_int_equal(run_link(f, link), OK);
	assert_int_equal(f->result->replaced, old);
	assert_int_equal(f->result->replaced_nlink, 0);
	assert_int_equal(found(f, ROOT, "a"), new);
	assert_int_equal(attr(f, new)->nlink, 2);
	assert_int_equal(attr(f, ROOT)->entries, 3);
	/* Onto itself: nothing happens. */
	link.expect_change = 0;
	assert_int_equal(run_link(f, link), OK);
	assert_int_equal(f->result->replaced, 0);
	assert_int_equal(attr(f, new)->nlink, 2);
	link.name = text("d");
	assert_int_equal(run_link(f, link), ERR_IS_DIRECTORY);
	link.name = text("none");
	link.expect_change = change;
	assert_int_equal(run_link(f, link), ERR_NOT_FOUND);
}

static void test_anonymous(void **state)
{
	struct fixture *f = *state;
	Granary__Create create = MESSAGE(Create, create, .mode = MODE_FILE | 0600, .id = f->next_id++);
	assert_int_equal(run_create(f, create), OK);
	uint64_t file = f->result->inode;
	assert_int_equal(f->result->attr->nlink, 0);
	assert_true(f->effects.orphans_added);
	/* Only its own session may link it, and Reclaim leaves it alone. */
	assert_int_equal(reclaim(f, file), OK);
	uint64_t mine = f->session, sequence = f->sequence;
	f->session = session_begin(f);
	f->sequence = 0;
	assert_int_equal(hard_link(f, file, ROOT, "stolen"), ERR_NOT_FOUND);
	f->session = mine;
	f->sequence = sequence;
	assert_int_equal(hard_link(f, file, ROOT, "a"), OK);
	assert_int_equal(attr(f, file)->nlink, 1);
	create.id = f->next_id++;
	create.mode = MODE_DIRECTORY | 0700;
	assert_int_equal(run_create(f, create), ERR_INVALID);
	/* Kept by its id. */
	create.mode = MODE_FILE | 0600;
	assert_int_equal(run_create(f, create), OK);
	uint64_t kept = f->result->inode;
	Granary__Link keep = MESSAGE(Link, link, .inode = kept);
	assert_int_equal(run_link(f, keep), OK);
	assert_int_equal(f->result->attr->nlink, 1);
	assert_int_equal(run_link(f, keep), ERR_EXISTS);
	assert_int_equal(hard_link(f, kept, ROOT, "named"), OK);
	assert_int_equal(run_unlink(f, MESSAGE(Unlink, unlink, .inode = file)), ERR_NOT_FOUND);
	assert_int_equal(run_unlink(f, MESSAGE(Unlink, unlink, .inode = kept)), OK);
	assert_int_equal(f->result->replaced_nlink, 1);
	assert_int_equal(run_unlink(f, MESSAGE(Unlink, unlink, .inode = kept)), ERR_NOT_FOUND);
	assert_int_equal(found(f, ROOT, "named"), kept);
}

static void test_unlink_errors(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	made_dir(f, ROOT, "d");
	assert_int_equal(remove_file(f, ROOT, "none"), ERR_NOT_FOUND);
	assert_int_equal(remove_file(f, ROOT, "d"), ERR_IS_DIRECTORY);
	assert_int_equal(remove_dir(f, ROOT, "a"), ERR_NOT_DIRECTORY);
	assert_int_equal(remove_dir(f, ROOT, "none"), ERR_NOT_FOUND);
	assert_int_equal(remove_dir(f, ROOT, "."), ERR_INVALID);
	assert_int_equal(remove_dir(f, ROOT, ".."), ERR_NOT_EMPTY);
	assert_int_equal(remove_file(f, file, "x"), ERR_NOT_DIRECTORY);
}

/* The request's operations see each other; inode 0 is what the last Create made. */
static void test_operations_of_one_request(void **state)
{
	struct fixture *f = *state;
	Granary__MetaOp ops[5], *pointers[5];
	for (int i = 0; i < 5; i++) {
		granary__meta_op__init(&ops[i]);
		pointers[i] = &ops[i];
	}
	Granary__Create dir = MESSAGE(Create, create, .parent = ROOT, .name = text("d"), .mode = MODE_DIRECTORY | 0755,
				      .id = f->next_id++);
	Granary__Create file = MESSAGE(Create, create, .name = text("a"), .mode = MODE_FILE | 0644, .id = f->next_id++);
	Granary__Setattr setattr = MESSAGE(Setattr, setattr, .mask = SETATTR_SIZE, .size = 5);
	Granary__Readdir readdir = MESSAGE(Readdir, readdir, .inode = dir.id, .attributes = true);
	Granary__Lookup missing = MESSAGE(Lookup, lookup, .parent = ROOT, .name = text("none"));
	ops[0].op_case = GRANARY__META_OP__OP_CREATE, ops[0].create = &dir;
	ops[1].op_case = GRANARY__META_OP__OP_LOOKUP, ops[1].lookup = &missing;
	ops[2].op_case = GRANARY__META_OP__OP_CREATE, ops[2].create = &file;
	ops[3].op_case = GRANARY__META_OP__OP_SETATTR, ops[3].setattr = &setattr;
	ops[4].op_case = GRANARY__META_OP__OP_READDIR, ops[4].readdir = &readdir;
	assert_int_equal(fixture_request(f, f->session, pointers, 5), OK);
	assert_int_equal(f->reply->results[1]->error, ERR_NOT_FOUND);
	assert_int_equal(f->reply->results[3]->attr->size, 5);
	assert_int_equal(f->result->n_entries, 1);
	assert_int_equal(f->result->entries[0]->inode, file.id);
	assert_int_equal(f->result->entries[0]->attr->size, 5);
	assert_true(f->result->end);
	assert_int_equal(found(f, dir.id, "a"), file.id);
	/* Nothing was created: 0 is nobody. */
	assert_int_equal(run_setattr(f, setattr), ERR_NOT_FOUND);
}

static void test_setattr(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	Granary__Setattr op = MESSAGE(Setattr, setattr, .inode = file, .mask = SETATTR_MODE | SETATTR_UID,
				      .mode = 06777, .uid = 7, .gid = 8);
	assert_int_equal(run_setattr(f, op), OK);
	assert_int_equal(f->result->attr->mode, MODE_FILE | 06777);
	assert_int_equal(f->result->attr->uid, 7);
	assert_int_equal(f->result->attr->gid, 1000);
	assert_int_equal(f->result->attr->ctime, f->time_ns);
	op = MESSAGE(Setattr, setattr, .inode = file, .mask = SETATTR_GID, .gid = 8, .by_owner_only = true);
	assert_int_equal(run_setattr(f, op), OK);
	assert_int_equal(f->result->attr->mode, MODE_FILE | 0777);
	assert_int_equal(f->result->attr->gid, 8);
	op = MESSAGE(Setattr, setattr, .inode = file, .mask = SETATTR_MODE, .mode = 06767, .by_owner_only = true);
	assert_int_equal(run_setattr(f, op), OK);
	assert_int_equal(f->result->attr->mode, MODE_FILE | 02767); /* the group may not execute it */
	op = MESSAGE(Setattr, setattr, .inode = file, .mask = SETATTR_ATIME | SETATTR_MTIME, .atime = -5, .mtime = 6);
	assert_int_equal(run_setattr(f, op), OK);
	assert_int_equal(f->result->attr->atime, -5);
	assert_int_equal(f->result->attr->mtime, 6);
	assert_int_equal(f->result->attr->ctime, f->time_ns);
	op.mask = SETATTR_ATIME_NOW | SETATTR_MTIME_NOW;
	assert_int_equal(run_setattr(f, op), OK);
	assert_int_equal(f->result->attr->atime, f->time_ns);
	assert_int_equal(f->result->attr->mtime, f->time_ns);
	op.mask = 1u << 20;
	assert_int_equal(run_setattr(f, op), ERR_INVALID);
	uint64_t change = attr(f, file)->change;
	op.mask = 0;
	assert_int_equal(run_setattr(f, op), OK);
	assert_int_equal(f->result->attr->change, change);
	op.mask = SETATTR_MODE;
	op.inode = 9999;
	assert_int_equal(run_setattr(f, op), ERR_NOT_FOUND);
	assert_int_equal(truncate_to(f, ROOT, 0), ERR_IS_DIRECTORY);
	assert_int_equal(truncate_to(f, file, FILE_BYTES_MAX + 1), ERR_TOO_LARGE);
	assert_int_equal(truncate_to(f, file, FILE_BYTES_MAX), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_EMPTY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_create_and_lookup, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_create_names, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_create_not_exclusive, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_special_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_directory_links_and_times, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_time_does_not_go_back, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_setgid_directory, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_hard_links, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_links_max, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_link_replace, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_anonymous, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_unlink_errors, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_operations_of_one_request, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_setattr, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
