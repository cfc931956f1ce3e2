/* Readdir, Walk, extended attributes, statfs, and the bound of replies. */
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

/* ---- readdir */

static enum err list(struct fixture *f, uint64_t inode, const char *after, uint32_t count, bool attributes)
{
	return run_readdir(f, MESSAGE(Readdir, readdir, .inode = inode, .after = text(after), .count = count,
				      .attributes = attributes));
}

static void name_of(const Granary__DirectoryEntry *entry, char out[NAME_BYTES_MAX + 1])
{
	memcpy(out, entry->name.data, entry->name.len);
	out[entry->name.len] = 0;
}

static void test_readdir(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = made_dir(f, ROOT, "d");
	assert_int_equal(list(f, dir, "", 10, false), OK);
	assert_int_equal(f->result->n_entries, 0);
	assert_true(f->result->end);
	made_file(f, dir, "b");
	made_dir(f, dir, "a");
	assert_int_equal(make_symlink(f, dir, "c", "b"), OK);
	made_file(f, ROOT, "other");
	assert_int_equal(list(f, dir, "", 10, true), OK);
	assert_int_equal(f->result->n_entries, 3);
	assert_true(f->result->end);
	const char *names[] = {"a", "b", "c"};
	const uint32_t types[] = {MODE_DIRECTORY, MODE_FILE, MODE_SYMLINK};
	for (int i = 0; i < 3; i++) {
		char name[NAME_BYTES_MAX + 1];
		name_of(f->result->entries[i], name);
		assert_string_equal(name, names[i]);
		assert_int_equal(f->result->entries[i]->type, types[i] >> 12);
		assert_int_equal(f->result->entries[i]->attr->mode & MODE_TYPE_MASK, types[i]);
	}
	assert_int_equal(list(f, dir, "a", 1, false), OK);
	assert_int_equal(f->result->n_entries, 1);
	assert_false(f->result->end);
	assert_null(f->result->entries[0]->attr);
	assert_int_equal(list(f, dir, "b", 1, false), OK);
	assert_int_equal(f->result->n_entries, 1);
	assert_true(f->result->end);
	assert_int_equal(list(f, dir, "zzz", 1, false), OK);
	assert_int_equal(f->result->n_entries, 0);
	assert_int_equal(list(f, found(f, dir, "b"), "", 1, false), ERR_NOT_DIRECTORY);
	assert_int_equal(list(f, 9999, "", 1, false), ERR_NOT_FOUND);
	/* The longest name is a cursor too. */
	char longest[NAME_BYTES_MAX + 1];
	memset(longest, 0xff, NAME_BYTES_MAX);
	longest[NAME_BYTES_MAX] = 0;
	made_file(f, dir, longest);
	assert_int_equal(list(f, dir, "c", 9, false), OK);
	assert_int_equal(f->result->n_entries, 1);
	assert_int_equal(list(f, dir, longest, 9, false), OK);
	assert_int_equal(f->result->n_entries, 0);
	assert_true(f->result->end);
}

/* Names that stay are seen once, whatever comes and goes between the pages. */
static void test_readdir_while_names_change(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = made_dir(f, ROOT, "d");
	char name[NAME_BYTES_MAX + 1];
	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "%03u-%s", i, i % 2 ? "goes" : "stays");
		made_file(f, dir, name);
	}
	bool seen[200] = {0};
	char after[NAME_BYTES_MAX + 1] = "";
	for (unsigned page = 0;; page++) {
		assert_true(page < 100);
		assert_int_equal(list(f, dir, after, 7, page % 2), OK);
		for (size_t i = 0; i < f->result->n_entries; i++) {
			char listed[NAME_BYTES_MAX + 1];
			name_of(f->result->entries[i], listed);
			assert_true(strcmp(listed, after) > 0);
			strncpy(after, listed, sizeof(after));
			if (strstr(listed, "stays")) {
				unsigned number = (unsigned)strtoul(listed, NULL, 10);
				assert_false(seen[number]);
				seen[number] = true;
			}
		}
		if (f->result->end)
			break;
		/* Some go, before and behind the cursor (which may be among them), some come. */
		for (unsigned i = 0; i < 5; i++) {
			snprintf(name, sizeof(name), "%03u-goes", (page * 37 + i * 41) % 200 | 1);
			enum err err = remove_file(f, dir, name);
			assert_true(err == OK || err == ERR_NOT_FOUND);
			snprintf(name, sizeof(name), "%03u-new-%u", (page * 53 + i * 67) % 200, page);
			assert_int_equal(make(f, dir, name, MODE_FILE), OK);
		}
	}
	for (unsigned i = 0; i < 200; i += 2)
		assert_true(seen[i]);
}

static void fill_directory(struct fixture *f, uint64_t dir, unsigned total)
{
	enum { BATCH = 1000 };
	static Granary__MetaOp ops[BATCH], *pointers[BATCH];
	static Granary__Create creates[BATCH];
	static char names[BATCH][32];
	for (unsigned at = 0; at < total; at += BATCH) {
		for (unsigned i = 0; i < BATCH; i++) {
			snprintf(names[i], sizeof(names[i]), "file-%06u", (at + i) * 7919u % total);
			creates[i] = MESSAGE(Create, create, .parent = dir, .name = text(names[i]),
					     .mode = MODE_FILE | 0644, .id = f->next_id++);
			granary__meta_op__init(&ops[i]);
			ops[i].op_case = GRANARY__META_OP__OP_CREATE;
			ops[i].create = &creates[i];
			pointers[i] = &ops[i];
		}
		assert_int_equal(fixture_request(f, f->session, pointers, BATCH), OK);
	}
}

static void test_large_directory(void **state)
{
	struct fixture *f = *state;
	const unsigned total = 100000;
	uint64_t dir = made_dir(f, ROOT, "d");
	fill_directory(f, dir, total);
	assert_int_equal(attr(f, dir)->entries, total);
	fixture_reopen(f);
	char after[NAME_BYTES_MAX + 1] = "", expected[32];
	unsigned count = 0;
	do {
		assert_int_equal(list(f, dir, after, READDIR_ENTRIES_MAX, count % 3 != 0), OK);
		for (size_t i = 0; i < f->result->n_entries; i++, count++) {
			name_of(f->result->entries[i], after);
			snprintf(expected, sizeof(expected), "file-%06u", count);
			assert_string_equal(after, expected);
		}
		assert_true(protobuf_c_message_get_packed_size(&f->reply->base) <= FRAME_MESSAGE_BYTES_MAX);
	} while (!f->result->end);
	assert_int_equal(count, total);
	assert_int_equal(remove_file(f, dir, "file-054321"), OK);
	assert_int_equal(lookup(f, dir, "file-054321"), ERR_NOT_FOUND);
	assert_int_equal(attr(f, dir)->entries, total - 1);
}

/* Long targets: the page ends early, the frame's bound holds, and the next page goes on. */
static void test_readdir_bound_by_bytes(void **state)
{
	struct fixture *f = *state;
	char target[SYMLINK_BYTES_MAX + 1], name[32], after[NAME_BYTES_MAX + 1] = "";
	memset(target, 't', SYMLINK_BYTES_MAX);
	target[SYMLINK_BYTES_MAX] = 0;
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "%03u", i);
		assert_int_equal(make_symlink(f, ROOT, name, target), OK);
	}
	unsigned count = 0, pages = 0;
	do {
		assert_int_equal(list(f, ROOT, after, READDIR_ENTRIES_MAX, true), OK);
		assert_true(protobuf_c_message_get_packed_size(&f->reply->base) <= FRAME_MESSAGE_BYTES_MAX);
		assert_true(f->result->n_entries > 0);
		count += (unsigned)f->result->n_entries;
		name_of(f->result->entries[f->result->n_entries - 1], after);
		pages++;
	} while (!f->result->end);
	assert_int_equal(count, 500);
	assert_true(pages > 1);
	/* Many such operations in one request. */
	Granary__MetaOp op = GRANARY__META_OP__INIT, *pointers[100];
	Granary__Readdir readdir = MESSAGE(Readdir, readdir, .inode = ROOT, .attributes = true);
	op.op_case = GRANARY__META_OP__OP_READDIR;
	op.readdir = &readdir;
	for (int i = 0; i < 100; i++)
		pointers[i] = &op;
	assert_int_equal(fixture_request(f, f->session, pointers, 100), ERR_TOO_MANY);
	assert_true(protobuf_c_message_get_packed_size(&f->reply->base) <= FRAME_MESSAGE_BYTES_MAX);
	assert_int_equal(f->reply->results[0]->error, OK);
}

/* ---- walk */

static void test_walk(void **state)
{
	struct fixture *f = *state;
	uint64_t a = made_dir(f, ROOT, "a"), b = made_dir(f, a, "b"), file = made_file(f, b, "f");
	assert_int_equal(make_symlink(f, ROOT, "absolute", "/a/b"), OK);
	uint64_t absolute = f->result->inode;
	assert_int_equal(make_symlink(f, b, "relative", "../../absolute/f"), OK);
	assert_int_equal(make_symlink(f, ROOT, "dangling", "a/none"), OK);
	assert_int_equal(make_symlink(f, ROOT, "loop", "loop2"), OK);
	assert_int_equal(make_symlink(f, ROOT, "loop2", "/loop"), OK);
	const struct {
		const char *path;
		bool follow;
		enum err expected;
		uint64_t inode, parent;
		const char *name;
	} rows[] = {
	    {"/", true, OK, ROOT, ROOT, ""},
	    {"///", true, OK, ROOT, ROOT, ""},
	    {"/a/b/f", true, OK, file, b, "f"},
	    {"//a//b/./f", true, OK, file, b, "f"},
	    {"/a/b/../b/f", true, OK, file, b, "f"},
	    {"/../a", true, OK, a, ROOT, "a"},
	    {"/a/b/", true, OK, b, a, "b"},
	    {"/a/b/f/", true, ERR_NOT_DIRECTORY, 0, 0, ""},
	    {"/a/b/f/x", true, ERR_NOT_DIRECTORY, 0, 0, ""},
	    {"/absolute/f", true, OK, file, b, "f"},
	    {"/absolute", true, OK, b, a, "b"},
	    {"/absolute", false, OK, absolute, ROOT, "absolute"},
	    {"/absolute/", false, OK, b, a, "b"},
	    {"/a/b/relative", true, OK, file, b, "f"},
	    {"/a/new", true, ERR_NOT_FOUND, 0, a, "new"},
	    {"/a/new/", true, ERR_NOT_FOUND, 0, a, "new"},
	    {"/a/new/x", true, ERR_NOT_FOUND, 0, 0, ""},
	    {"/dangling", true, ERR_NOT_FOUND, 0, a, "none"},
	    {"/loop", true, ERR_LOOP, 0, 0, ""},
	    {"a/b", true, ERR_INVALID, 0, 0, ""},
	    {"", true, ERR_INVALID, 0, 0, ""},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum err err = run_walk(f, MESSAGE(Walk, walk, .path = text(rows[i].path), .follow = rows[i].follow));
		if (err != rows[i].expected || f->result->inode != rows[i].inode ||
		    f->result->parent != rows[i].parent ||
		    !slice_equal(message_bytes(f->result->name), slice_text(rows[i].name)))
			fail_msg("%s: %s, inode %d, parent %d", rows[i].path, err_name(err), (int)f->result->inode,
				 (int)f->result->parent);
	}
}

/* ---- extended attributes */

static enum err set_xattr(struct fixture *f, uint64_t inode, const char *name, const char *value)
{
	return run_set_xattr(f, MESSAGE(SetXattr, set_xattr, .inode = inode, .name = text(name), .value = text(value)));
}

static void test_xattr(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	Granary__GetXattr get = MESSAGE(GetXattr, get_xattr, .inode = file, .name = text("user.x"));
	assert_int_equal(run_get_xattr(f, get), ERR_NO_ATTRIBUTE);
	assert_int_equal(set_xattr(f, file, "user.x", "one"), OK);
	assert_int_equal(f->result->attr->ctime, f->time_ns);
	assert_int_equal(run_get_xattr(f, get), OK);
	assert_true(slice_equal(message_bytes(f->result->value), slice_text("one")));
	Granary__SetXattr set =
	    MESSAGE(SetXattr, set_xattr, .inode = file, .name = text("user.x"), .value = text("two"), .create = true);
	assert_int_equal(run_set_xattr(f, set), ERR_EXISTS);
	set.create = false;
	set.replace = true;
	assert_int_equal(run_set_xattr(f, set), OK);
	set.name = text("user.y");
	assert_int_equal(run_set_xattr(f, set), ERR_NO_ATTRIBUTE);
	assert_int_equal(set_xattr(f, file, "user.empty", ""), OK);
	assert_int_equal(run_list_xattr(f, MESSAGE(ListXattr, list_xattr, .inode = file)), OK);
	assert_int_equal(f->result->n_names, 2);
	assert_true(slice_equal(message_bytes(f->result->names[0]), slice_text("user.empty")));
	Granary__RemoveXattr drop = MESSAGE(RemoveXattr, remove_xattr, .inode = file, .name = text("user.x"));
	assert_int_equal(run_remove_xattr(f, drop), OK);
	assert_int_equal(run_remove_xattr(f, drop), ERR_NO_ATTRIBUTE);
	assert_int_equal(set_xattr(f, file, "", "v"), ERR_INVALID);
	assert_int_equal(set_xattr(f, 9999, "user.x", "v"), ERR_NOT_FOUND);
	char name[XATTR_NAME_BYTES_MAX + 2];
	memset(name, 'n', sizeof(name));
	name[XATTR_NAME_BYTES_MAX + 1] = 0;
	assert_int_equal(set_xattr(f, file, name, "v"), ERR_RANGE);
	name[XATTR_NAME_BYTES_MAX] = 0;
	assert_int_equal(set_xattr(f, file, name, "v"), OK);
	uint8_t *value = mem_zero(1, XATTR_VALUE_BYTES_MAX + 1);
	set = MESSAGE(SetXattr, set_xattr, .inode = file, .name = text("user.big"));
	set.value = (ProtobufCBinaryData){.len = XATTR_VALUE_BYTES_MAX + 1, .data = value};
	assert_int_equal(run_set_xattr(f, set), ERR_TOO_LARGE);
	set.value.len--;
	assert_int_equal(run_set_xattr(f, set), OK);
	free(value);
	for (unsigned i = 3; i < XATTRS_PER_INODE_MAX; i++) {
		snprintf(name, sizeof(name), "user.%u", i);
		assert_int_equal(set_xattr(f, file, name, "v"), OK);
	}
	assert_int_equal(set_xattr(f, file, "user.more", "v"), ERR_NO_SPACE);
	assert_int_equal(set_xattr(f, file, "user.3", "w"), OK);
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(reclaim(f, file), OK);
}

static void test_statfs(void **state)
{
	struct fixture *f = *state;
	made_file(f, ROOT, "a");
	assert_int_equal(run_statfs(f, (Granary__StatfsOp)GRANARY__STATFS_OP__INIT), OK);
	assert_int_equal(f->result->statfs->inodes, 2);
	assert_int_equal(f->result->statfs->bytes_used, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_readdir, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_readdir_while_names_change, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_large_directory, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_readdir_bound_by_bytes, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_xattr, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_statfs, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
