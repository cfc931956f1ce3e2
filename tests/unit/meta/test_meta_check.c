/* The cross-check: a store that is whole has nothing to be found; each kind of damage, done to the raw keys, is found and, where it can be,
 * mended so that the invariants hold again. */
#include "master/meta/check.h"
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

struct found {
	struct check_finding findings[32];
	size_t count;
};

static void on_found(void *arg, const struct check_finding *finding)
{
	struct found *found = arg;
	assert_true(found->count < 32);
	assert_non_null(check_text(finding->kind));
	found->findings[found->count++] = *finding;
}

static struct found checked(struct fixture *fixture, size_t keys_max)
{
	struct found found = {0};
	struct check *cross = check_open(fixture->meta);
	bool end = false;
	while (!end)
		assert_int_equal(check_run(cross, keys_max, on_found, &found, &end), OK);
	assert_int_equal(check_progress(cross), 1000);
	check_close(cross);
	return found;
}

/* Files of all kinds: in `ids` a directory, a blob, a file with chunks, one in the trash. */
enum { DIRECTORY, BLOB, CHUNKS, TRASHED, IDS };

static void populate(struct fixture *f, uint64_t ids[IDS])
{
	uint64_t pack = opened_pack(f, 0);
	trash_keep(f, 0);
	ids[DIRECTORY] = made_dir(f, ROOT, "directory");
	made_dir(f, ids[DIRECTORY], "below");
	ids[BLOB] = made_file(f, ids[DIRECTORY], "blob");
	assert_int_equal(commit_blob(f, ids[BLOB], pack, 1, 100), OK);
	assert_int_equal(run_set_xattr(f, MESSAGE(SetXattr, set_xattr, .inode = ids[BLOB], .name = text("user.a"), .value = text("v"))), OK);
	ids[CHUNKS] = made_file(f, ROOT, "chunks");
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(allocate(f, ids[CHUNKS], i, NULL), OK);
	assert_int_equal(run_commit_chunks(f, MESSAGE(CommitChunks, commit_chunks, .inode = ids[CHUNKS], .size = 3ull * CHUNK_BYTES)), OK);
	assert_int_equal(hard_link(f, ids[CHUNKS], ROOT, "again"), OK);
	assert_int_equal(make_symlink(f, ROOT, "link", "target"), OK);
	ids[TRASHED] = made_file(f, ROOT, "gone");
	assert_int_equal(remove_file(f, ROOT, "gone"), OK);
	opened_pack(f, pack); /* the first is sealed */
	run_create(f, MESSAGE(Create, create, .mode = MODE_FILE | 0600, .id = f->next_id++)); /* anonymous */
}

static void test_whole(void **state)
{
	(void)state;
	struct fixture f;
	uint64_t ids[IDS];
	fixture_open(&f);
	populate(&f, ids);
	invariants_check(f.kv);
	for (size_t keys = 1; keys < 50; keys += 7)
		assert_int_equal(checked(&f, keys).count, 0);
	fixture_close(&f);
}

/* In between everything moves. */
static void test_while_changing(void **state)
{
	(void)state;
	struct fixture f;
	struct found wrong = {0};
	bool end = false;
	uint64_t ids[IDS];
	char name[16];
	fixture_open(&f);
	populate(&f, ids);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		made_file(&f, i % 2 ? ROOT : ids[DIRECTORY], name);
	}
	struct check *cross = check_open(f.meta);
	for (int i = 0; !end; i++) {
		assert_int_equal(check_run(cross, 3, on_found, &wrong, &end), OK);
		snprintf(name, sizeof(name), "file%d", i % 40);
		uint64_t from = found(&f, ROOT, name) ? ROOT : ids[DIRECTORY];
		if (i % 5 == 4 && remove_file(&f, from, name) == OK) {
			made_file(&f, from, name);
		} else {
			assert_int_equal(move(&f, from, name, from == ROOT ? ids[DIRECTORY] : ROOT, name), OK);
			if (i % 7 == 0)
				(void)hard_link(&f, found(&f, ROOT, "again"), ROOT, "third");
			else if (i % 7 == 3)
				(void)remove_file(&f, ROOT, "third");
		}
		assert_true(i < 2000);
	}
	assert_int_equal(wrong.count, 0);
	check_close(cross);
	fixture_close(&f);
}

/* ---- damage */

struct damage {
	const char *what;
	enum check_kind kind;
	void (*harm)(struct fixture *f, const uint64_t ids[IDS]);
};

static void raw_put(struct fixture *f, const struct key *key, struct slice value)
{
	struct kv_batch *batch = kv_batch_open();
	kv_batch_put(batch, key_slice(key), value);
	check(kv_write(f->kv, batch, false) == OK);
	kv_batch_close(batch);
}

static void raw_delete(struct fixture *f, struct key key)
{
	struct kv_batch *batch = kv_batch_open();
	kv_batch_delete(batch, key_slice(&key));
	check(kv_write(f->kv, batch, false) == OK);
	kv_batch_close(batch);
}

static void inode_change(struct fixture *f, uint64_t id, void (*change)(Granary__Inode *inode))
{
	struct key key = key_of(KEY_INODE, id);
	struct buf value = {0};
	check(kv_get(f->kv, key_slice(&key), &value) == OK);
	Granary__Inode *inode = unpacked(&granary__inode__descriptor, buf_slice(&value));
	change(inode);
	buf_clear(&value);
	message_pack(&inode->base, &value);
	raw_put(f, &key, buf_slice(&value));
	message_free(&inode->base);
	buf_deinit(&value);
}

static void more_entries(Granary__Inode *inode) { inode->entries++; }
static void more_xattrs(Granary__Inode *inode) { inode->xattrs++; }
static void more_chunks(Granary__Inode *inode) { inode->chunks++; }
static void other_parent(Granary__Inode *inode) { inode->parent = 4711; }

static void harm_entries(struct fixture *f, const uint64_t ids[IDS]) { inode_change(f, ids[DIRECTORY], more_entries); }
static void harm_xattrs(struct fixture *f, const uint64_t ids[IDS]) { inode_change(f, ids[BLOB], more_xattrs); }
static void harm_chunks(struct fixture *f, const uint64_t ids[IDS]) { inode_change(f, ids[CHUNKS], more_chunks); }
static void harm_parent(struct fixture *f, const uint64_t ids[IDS]) { inode_change(f, ids[DIRECTORY], other_parent); }

static void harm_dangling(struct fixture *f, const uint64_t ids[IDS])
{
	(void)ids;
	struct key key = key_of_name(KEY_DIRENT, ROOT, slice_text("nowhere"));
	Granary__Dirent dirent = GRANARY__DIRENT__INIT;
	struct buf value = {0};
	dirent.inode = 4711;
	dirent.type = mode_dirent_type(MODE_FILE);
	message_pack(&dirent.base, &value);
	raw_put(f, &key, buf_slice(&value));
	buf_deinit(&value);
}

static void harm_nameless(struct fixture *f, const uint64_t ids[IDS])
{
	raw_delete(f, key_of_name(KEY_DIRENT, ids[DIRECTORY], slice_text("blob")));
}

static void harm_links(struct fixture *f, const uint64_t ids[IDS])
{
	(void)ids;
	raw_delete(f, key_of_name(KEY_DIRENT, ROOT, slice_text("again")));
}

static void harm_holder(struct fixture *f, const uint64_t ids[IDS])
{
	(void)ids;
	struct key key = key_of_pair(KEY_SERVER_CHUNK, 4, 4711);
	raw_put(f, &key, (struct slice){0});
}

static void harm_trash_name(struct fixture *f, const uint64_t ids[IDS])
{
	(void)ids;
	raw_delete(f, key_of_trash_name(ROOT, slice_text("gone"), 1));
}

static void harm_trash_inode(struct fixture *f, const uint64_t ids[IDS]) { raw_delete(f, key_of(KEY_INODE, ids[TRASHED])); }

static void harm_orphan(struct fixture *f, const uint64_t ids[IDS])
{
	struct key key = key_of(KEY_ORPHAN, ids[BLOB]);
	raw_put(f, &key, (struct slice){0});
}

static void harm_xattr(struct fixture *f, const uint64_t ids[IDS])
{
	(void)ids;
	struct key key = key_of_name(KEY_XATTR, 4711, slice_text("user.x"));
	raw_put(f, &key, slice_text("v"));
}

static void harm_pointer(struct fixture *f, const uint64_t ids[IDS]) { raw_delete(f, key_of_index(KEY_CHUNK_POINTER, ids[CHUNKS], 1)); }

static bool on_task(void *arg, uint64_t due_ns, uint64_t id, const Granary__Task *task)
{
	struct key *key = arg;
	(void)task;
	*key = key_of_pair(KEY_TASK, due_ns, id);
	return false;
}

static struct key first_task(struct fixture *f)
{
	struct key key = {0};
	struct meta *meta;
	check(meta_open(f->kv, &meta) == OK && meta_each_task(meta, 0, 0, on_task, &key) == OK && key.size > 0);
	meta_close(meta);
	return key;
}

static void harm_task(struct fixture *f, const uint64_t ids[IDS])
{
	(void)ids;
	raw_delete(f, first_task(f));
}

static void harm_task_due(struct fixture *f, const uint64_t ids[IDS])
{
	(void)ids;
	uint64_t due_ns, id;
	struct key task = first_task(f);
	check(key_parse_pair(key_slice(&task), &due_ns, &id));
	struct key key = key_of(KEY_CHUNK, id);
	struct buf value = {0};
	check(kv_get(f->kv, key_slice(&key), &value) == OK);
	Granary__Chunk *chunk = unpacked(&granary__chunk__descriptor, buf_slice(&value));
	chunk->task_due = 0;
	buf_clear(&value);
	message_pack(&chunk->base, &value);
	raw_put(f, &key, buf_slice(&value));
	message_free(&chunk->base);
	buf_deinit(&value);
}

static const struct damage damages[] = {
    {"entries", CHECK_ENTRIES, harm_entries},	    {"xattrs", CHECK_XATTRS, harm_xattrs},
    {"chunks", CHECK_CHUNKS, harm_chunks},	    {"parent", CHECK_PARENT, harm_parent},
    {"dangling", CHECK_NAME_DANGLING, harm_dangling}, {"nameless", CHECK_NAMELESS, harm_nameless},
    {"links", CHECK_LINKS, harm_links},		    {"holder", CHECK_HOLDERS, harm_holder},
    {"trash name", CHECK_TRASH, harm_trash_name},   {"trash inode", CHECK_TRASH, harm_trash_inode},
    {"orphan", CHECK_ORPHAN, harm_orphan},	    {"xattr", CHECK_XATTR_DANGLING, harm_xattr},
    {"pointer", CHECK_OWNER, harm_pointer},	    {"task", CHECK_TASK, harm_task},
    {"task due", CHECK_TASK, harm_task_due},
};

static bool has(const struct found *found, enum check_kind kind)
{
	for (size_t i = 0; i < found->count; i++)
		if (found->findings[i].kind == kind)
			return true;
	return false;
}

/* Until nothing is found that can be mended: mending one thing may show another. */
static size_t mended(struct fixture *f)
{
	size_t left = 0;
	for (int round = 0; round < 4; round++) {
		struct found found = checked(f, 1000);
		left = 0;
		for (size_t i = 0; i < found.count; i++) {
			const struct check_finding *finding = &found.findings[i];
			enum err err = run_fsck_repair(f, MESSAGE(FsckRepair, fsck_repair, .kind = finding->kind, .id = finding->id,
								  .other = finding->other));
			assert_true(err == OK || err == ERR_NOT_FOUND || !check_is_repaired(finding->kind));
			left += !check_is_repaired(finding->kind);
		}
	}
	return left;
}

static void test_damage(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
		struct fixture f;
		uint64_t ids[IDS];
		fixture_open(&f);
		populate(&f, ids);
		meta_close(f.meta); /* its cache would not see it */
		f.meta = NULL;
		damages[i].harm(&f, ids);
		check(meta_open(f.kv, &f.meta) == OK);
		struct found found = checked(&f, 5);
		if (!has(&found, damages[i].kind))
			fail_msg("%s is not found", damages[i].what);
		size_t left = mended(&f);
		if (check_is_repaired(damages[i].kind))
			assert_int_equal(left, 0);
		fixture_close(&f);
	}
}

/* A repair that is no longer called for changes nothing. */
static void test_repair_is_careful(void **state)
{
	(void)state;
	struct fixture f;
	uint64_t ids[IDS];
	fixture_open(&f);
	populate(&f, ids);
	for (unsigned kind = 1; kind < CHECK_KINDS_MAX; kind++) {
		if (!check_text(kind) || kind == CHECK_ENTRIES || kind == CHECK_XATTRS || kind == CHECK_CHUNKS)
			continue;
		for (size_t i = 0; i < IDS; i++) {
			enum err err = run_fsck_repair(&f, MESSAGE(FsckRepair, fsck_repair, .kind = kind, .id = ids[i], .other = ROOT));
			assert_true(err == ERR_NOT_FOUND || err == ERR_NOT_SUPPORTED);
		}
	}
	invariants_check(f.kv);
	assert_int_equal(checked(&f, 1000).count, 0);
	/* Copies: only those that belong to nothing. */
	uint64_t chunks[2] = {4711, 0}, versions[2] = {1, 1};
	run_chunk_map(&f, MESSAGE(ChunkMap, chunk_map, .inode = ids[CHUNKS], .count = 1));
	chunks[1] = f.result->chunks[0]->chunk;
	struct meta_counts before, after;
	meta_counts(f.meta, &before);
	assert_int_equal(run_copy_remove(&f, MESSAGE(CopyRemove, copy_remove, .server = 1, .chunks = chunks, .n_chunks = 2,
						     .versions = versions, .n_versions = 2)), OK);
	meta_counts(f.meta, &after);
	assert_int_equal(after.garbage, before.garbage + 1);
	assert_int_equal(checked(&f, 1000).count, 0);
	fixture_close(&f);
}

/* A server that is left out and comes back: neither is what it is to retire still in use, nor is its old copy taken as one that is left
 * over while it is to join again. */
static void test_left_out_and_back(void **state)
{
	(void)state;
	struct fixture f;
	uint64_t ids[IDS], two = 2, four = 4;
	fixture_open(&f);
	populate(&f, ids);
	run_chunk_map(&f, MESSAGE(ChunkMap, chunk_map, .inode = ids[CHUNKS], .count = 1));
	uint64_t chunk = f.result->chunks[0]->chunk, version = f.result->chunks[0]->version;
	uint64_t without[] = {1, 3, 4}, again[] = {1, 3, 2};
	Granary__ChunkChange change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = version, .replicas = without,
					      .n_replicas = 3, .dropped = &two, .n_dropped = 1, .join = 4);
	assert_int_equal(run_chunk_change(&f, change), OK);
	struct meta_counts before, after;
	meta_counts(f.meta, &before);
	Granary__CopyRemove remove = MESSAGE(CopyRemove, copy_remove, .server = 2, .chunks = &chunk, .n_chunks = 1, .versions = &version,
					     .n_versions = 1);
	assert_int_equal(run_copy_remove(&f, remove), OK);
	meta_counts(f.meta, &after);
	assert_int_equal(after.garbage, before.garbage);
	assert_int_equal(checked(&f, 1000).count, 0);
	/* Nobody's: 5. It may join before it hears of it. */
	remove.server = 5;
	assert_int_equal(run_copy_remove(&f, remove), OK);
	change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = version + 1, .replicas = again, .n_replicas = 3,
			 .dropped = &four, .n_dropped = 1, .join = 2);
	assert_int_equal(run_chunk_change(&f, change), OK);
	again[2] = 5;
	change.version++;
	change.dropped = &two;
	change.join = 5;
	assert_int_equal(run_chunk_change(&f, change), OK);
	assert_int_equal(checked(&f, 1000).count, 0);
	invariants_check(f.kv);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_whole),
	    cmocka_unit_test(test_while_changing),
	    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_repair_is_careful),
	    cmocka_unit_test(test_left_out_and_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
