/* Storage classes and delayed tasks in the state machine: the table, who inherits, what follows in the background. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static int setup(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	fixture_open(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	invariants_check(f->kv);
	fixture_close(f);
	free(f);
	return 0;
}

static char *writable(const char *name)
{
	return (char *)(uintptr_t)name;
}

static enum err class_put(struct fixture *f, Granary__StorageClass storage)
{
	return run_set_class(f, MESSAGE(SetClass, set_class, .class_ = &storage, .revision = meta_classes(f->meta)->revision));
}

static enum err class_remove(struct fixture *f, const char *name)
{
	Granary__StorageClass storage = MESSAGE(StorageClass, storage_class, .name = writable(name));
	return run_set_class(f, MESSAGE(SetClass, set_class, .class_ = &storage, .remove = true,
					.revision = meta_classes(f->meta)->revision));
}

#define CLASS(f, label, ...) class_put(f, MESSAGE(StorageClass, storage_class, .name = writable(label), __VA_ARGS__))

static enum err assign(struct fixture *f, uint64_t inode, const char *name, bool below)
{
	return run_set_inode_class(f, MESSAGE(SetInodeClass, set_inode_class, .inode = inode, .class_ = writable(name), .below = below));
}

struct first {
	uint64_t due, id, count;
};

static bool on_task(void *arg, uint64_t due_ns, uint64_t id, const Granary__Task *task)
{
	struct first *first = arg;
	(void)task;
	if (first->count++ == 0) {
		first->due = due_ns;
		first->id = id;
	}
	return true;
}

static struct first first_task(struct fixture *f)
{
	struct first first = {0};
	assert_int_equal(meta_each_task(f->meta, 0, 0, on_task, &first), OK);
	return first;
}

/* Carries out one step of what is to be done at once; false: nothing is. */
static bool step(struct fixture *f)
{
	struct first first = first_task(f);
	if (first.count == 0 || first.due > 0)
		return false;
	assert_int_equal(run_task_run(f, MESSAGE(TaskRun, task_run, .due = first.due, .id = first.id)), OK);
	return true;
}

static unsigned run_all(struct fixture *f)
{
	unsigned steps = 0;
	while (step(f))
		assert_true(++steps < 100000);
	return steps;
}

static Granary__Chunk *chunk_of(struct fixture *f, uint64_t id)
{
	Granary__Chunk *chunk;
	assert_int_equal(meta_chunk(f->meta, id, &chunk), OK);
	return chunk;
}

static void chunk_is(struct fixture *f, uint64_t id, const char *label, unsigned copies, uint64_t due_ns)
{
	Granary__Chunk *chunk = chunk_of(f, id);
	assert_string_equal(chunk->class_, label);
	assert_int_equal(chunk->copies_wanted, copies);
	assert_int_equal(chunk->task_due, due_ns);
	message_free(&chunk->base);
}

static const char *class_of(struct fixture *f, uint64_t inode)
{
	return attr(f, inode)->class_;
}

static void test_table(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(CLASS(f, "b", .copies = 2), OK);
	assert_int_equal(CLASS(f, "c", .copies = 5), OK);
	assert_int_equal(CLASS(f, "a", .copies = 4), OK);
	assert_int_equal(CLASS(f, "b", .copies = 1), OK);
	assert_int_equal(CLASS(f, "B", .copies = 1), ERR_INVALID);
	assert_int_equal(CLASS(f, "b", .copies = 6), ERR_RANGE);
	Granary__StorageClass storage = MESSAGE(StorageClass, storage_class, .name = writable("d"));
	assert_int_equal(run_set_class(f, MESSAGE(SetClass, set_class, .class_ = &storage, .revision = 3)), ERR_BUSY);
	assert_int_equal(run_set_class(f, MESSAGE(SetClass, set_class, .revision = 4)), ERR_INVALID);
	assert_int_equal(class_remove(f, "d"), ERR_NO_CLASS);
	assert_int_equal(class_remove(f, "default"), ERR_NOT_PERMITTED);
	assert_int_equal(class_remove(f, "a"), OK);
	fixture_reopen(f);
	const Granary__StorageClasses *classes = meta_classes(f->meta);
	assert_int_equal(classes->n_classes, 2);
	assert_string_equal(classes->classes[0]->name, "b");
	assert_string_equal(classes->classes[1]->name, "c");
	assert_int_equal(classes->revision, 5);
	char name[8];
	for (unsigned i = 2; i < STORAGE_CLASSES_MAX - 1; i++) {
		snprintf(name, sizeof name, "x%u", i);
		assert_int_equal(CLASS(f, name, .copies = 1), OK);
	}
	assert_int_equal(CLASS(f, "one-more", .copies = 1), ERR_TOO_MANY);
	assert_int_equal(CLASS(f, "default", .copies = 2), OK); /* there is room for it always */
	assert_int_equal(meta_classes(f->meta)->n_classes, STORAGE_CLASSES_MAX);
}

static void test_inherited(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(CLASS(f, "a", .copies = 5, .cool_seconds = 100), OK);
	run_all(f);
	uint64_t dir = made_dir(f, ROOT, "d"), before = made_file(f, dir, "before"), chunk;
	assert_int_equal(assign(f, dir, "no", false), ERR_NO_CLASS);
	assert_int_equal(assign(f, 999999, "a", false), ERR_NOT_FOUND);
	assert_int_equal(assign(f, dir, "a", false), OK);
	assert_int_equal(run_all(f), 0);
	uint64_t file = made_file(f, dir, "file"), below = made_dir(f, dir, "below"), deep = made_file(f, below, "deep");
	assert_int_equal(make_symlink(f, below, "link", "x"), OK);
	assert_string_equal(f->result->attr->class_, "a");
	assert_string_equal(class_of(f, before), "");
	assert_string_equal(class_of(f, file), "a");
	assert_string_equal(class_of(f, deep), "a");
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	chunk_is(f, chunk, "a", 5, f->time_ns + 100 * SECOND);
	/* Moved, it keeps it. */
	assert_int_equal(move(f, dir, "file", ROOT, "file"), OK);
	assert_string_equal(class_of(f, file), "a");
	/* Said, without a name. */
	assert_int_equal(run_create(f, MESSAGE(Create, create, .mode = MODE_FILE, .id = f->next_id++, .class_ = writable("a"))), OK);
	assert_string_equal(f->result->attr->class_, "a");
	assert_int_equal(run_create(f, MESSAGE(Create, create, .parent = dir, .name = text("n"), .mode = MODE_FILE, .id = f->next_id++,
					       .class_ = writable("default"))),
			 OK);
	assert_string_equal(f->result->attr->class_, "");
	assert_int_equal(run_create(f, MESSAGE(Create, create, .mode = MODE_FILE, .id = f->next_id++, .class_ = writable("no"))),
			 ERR_NO_CLASS);
	/* Removed, the name stays, and stands for the default; made again, it counts again. */
	assert_int_equal(class_remove(f, "a"), OK);
	assert_int_equal(run_all(f), 1);
	chunk_is(f, chunk, "a", 3, (uint64_t)attr(f, file)->data_change + STORAGE_COOL_SECONDS_DEFAULT * SECOND);
	assert_int_equal(CLASS(f, "default", .copies = 2), OK);
	run_all(f);
	chunk_is(f, chunk, "a", 2, (uint64_t)attr(f, file)->data_change + STORAGE_COOL_SECONDS_DEFAULT * SECOND);
	assert_int_equal(CLASS(f, "a", .copies = 4, .cold = STORAGE_COLD_OFF), OK);
	run_all(f);
	chunk_is(f, chunk, "a", 4, 0);
}

/* A tree follows its directory, in bounded steps; a restart goes on; the later of two assignments counts. */
static void test_assigned(void **state)
{
	struct fixture *f = *state;
	enum { FILES = TASK_UNITS_MAX + 200, CHUNKS = TASK_CHUNKS_INLINE_MAX + 5 };
	uint64_t chunk, chunks[CHUNKS];
	assert_int_equal(CLASS(f, "a", .copies = 2), OK);
	assert_int_equal(CLASS(f, "b", .copies = 5), OK);
	run_all(f);
	uint64_t dir = made_dir(f, ROOT, "dir"), large = made_file(f, dir, "large"), last = 0;
	for (uint32_t i = 0; i < CHUNKS; i++)
		assert_int_equal(allocate(f, large, i, &chunks[i]), OK);
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];
		snprintf(name, sizeof name, "f%04u", i);
		last = made_file(f, dir, name);
	}
	assert_int_equal(allocate(f, last, 0, &chunk), OK);
	uint64_t below = made_dir(f, dir, "below"), deep = made_file(f, below, "deep");
	assert_int_equal(assign(f, dir, "a", true), OK);
	assert_int_equal(step(f), true);
	assert_string_equal(class_of(f, last), ""); /* one step does not do all */
	fixture_reopen(f);
	invariants_check(f->kv);
	assert_int_equal(assign(f, below, "b", true), OK); /* later, though the walk may come to it later still */
	run_all(f);
	assert_string_equal(class_of(f, last), "a");
	chunk_is(f, chunk, "a", 2, (uint64_t)attr(f, last)->data_change + STORAGE_COOL_SECONDS_DEFAULT * SECOND);
	for (uint32_t i = 0; i < CHUNKS; i++)
		chunk_is(f, chunks[i], "a", 2, (uint64_t)attr(f, large)->data_change + STORAGE_COOL_SECONDS_DEFAULT * SECOND);
	assert_string_equal(class_of(f, below), "b");
	assert_string_equal(class_of(f, deep), "b");
	/* What is made with a class of its own while the walk is on its way. */
	assert_int_equal(assign(f, dir, "a", true), OK);
	assert_int_equal(run_create(f, MESSAGE(Create, create, .parent = below, .name = text("own"), .mode = MODE_FILE, .id = f->next_id++,
					       .class_ = writable("b"))),
			 OK);
	uint64_t own = f->result->inode;
	run_all(f);
	assert_string_equal(class_of(f, own), "b");
	assert_string_equal(class_of(f, deep), "a");
	/* All of it again, before the first has got anywhere. */
	assert_int_equal(assign(f, dir, "b", true), OK);
	assert_int_equal(assign(f, dir, "default", true), OK);
	run_all(f);
	assert_string_equal(class_of(f, deep), "");
	chunk_is(f, chunks[CHUNKS - 1], "", 3, (uint64_t)attr(f, large)->data_change + STORAGE_COOL_SECONDS_DEFAULT * SECOND);
}

/* One for each chunk that may become cold, from the beginning to the end. */
static void test_cool_tasks(void **state)
{
	struct fixture *f = *state;
	uint64_t chunk, counts[TASK_KINDS], file = made_file(f, ROOT, "file");
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	uint64_t due = f->time_ns + STORAGE_COOL_SECONDS_DEFAULT * SECOND;
	assert_int_equal(f->effects.task_due_min, due);
	chunk_is(f, chunk, "", 3, due);
	assert_int_equal(run_task_run(f, MESSAGE(TaskRun, task_run, .due = due, .id = chunk, .again = due + 7)), OK);
	chunk_is(f, chunk, "", 3, due + 7);
	assert_int_equal(run_task_run(f, MESSAGE(TaskRun, task_run, .due = due, .id = chunk)), ERR_NOT_FOUND);
	assert_true(meta_task_exists(f->meta, due + 7, chunk));
	assert_int_equal(run_task_run(f, MESSAGE(TaskRun, task_run, .due = due + 7, .id = chunk)), OK);
	chunk_is(f, chunk, "", 3, 0);
	/* A pack: when it is sealed. */
	uint64_t pack = opened_pack(f, 0), blob = made_file(f, ROOT, "blob");
	chunk_is(f, pack, "", 3, 0);
	assert_int_equal(commit_blob(f, blob, pack, 1, 100), OK);
	opened_pack(f, pack);
	uint64_t sealed = f->time_ns;
	chunk_is(f, pack, "", 3, sealed + STORAGE_COOL_SECONDS_DEFAULT * SECOND);
	/* A shorter time counts for those that are there, too; so does none. */
	assert_int_equal(CLASS(f, "default", .cool_seconds = 10), OK);
	assert_int_equal(first_task(f).due, 0);
	run_all(f);
	chunk_is(f, pack, "", 3, sealed + 10 * SECOND);
	chunk_is(f, chunk, "", 3, (uint64_t)attr(f, file)->data_change + 10 * SECOND);
	meta_task_counts(f->meta, counts);
	assert_int_equal(counts[TASK_COOL], 2);
	assert_int_equal(first_task(f).count, 2);
	assert_int_equal(CLASS(f, "default", .cold = STORAGE_COLD_OFF), OK);
	run_all(f);
	assert_int_equal(first_task(f).count, 0);
	assert_int_equal(CLASS(f, "default", .cool_seconds = 10), OK);
	run_all(f);
	assert_int_equal(first_task(f).count, 2);
	/* Gone with the chunk. */
	assert_int_equal(remove_file(f, ROOT, "file"), OK);
	assert_int_equal(remove_file(f, ROOT, "blob"), OK);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(reclaim(f, blob), OK);
	assert_int_equal(first_task(f).count, 0);
	meta_task_counts(f->meta, counts);
	assert_int_equal(counts[TASK_COOL] + counts[TASK_ASSIGN] + counts[TASK_CLASS], 0);
}

static uint64_t pack_of_class(struct fixture *f, const char *name, uint64_t full)
{
	uint64_t replicas[3] = {2, 3, 4};
	assert_int_equal(run_open_pack(f, MESSAGE(OpenPack, open_pack, .full = full, .id = f->next_id++, .replicas = replicas,
						  .n_replicas = 3, .class_ = writable(name))),
			 OK);
	return f->result->chunks[0]->chunk;
}

/* Each class has packs of its own, a bounded number. */
static void test_packs(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(CLASS(f, "a", .copies = 2), OK);
	run_all(f);
	uint64_t first = pack_of_class(f, "a", 0), second = pack_of_class(f, "a", 0), third = pack_of_class(f, "a", 0);
	assert_int_not_equal(first, second);
	assert_true(third == first || third == second);
	chunk_is(f, first, "a", 2, 0);
	uint64_t plain = pack_of_class(f, "", 0);
	chunk_is(f, plain, "", 3, 0);
	chunk_is(f, pack_of_class(f, "unknown", 0), "", 3, 0);
	for (unsigned i = 0; i < STORAGE_CLASSES_MAX - 1; i++) {
		char name[8];
		snprintf(name, sizeof name, "x%u", i);
		if (CLASS(f, name, .copies = 1) == OK)
			for (unsigned k = 0; k < OPEN_PACKS_CLASS_MAX; k++)
				pack_of_class(f, name, 0);
	}
	for (unsigned i = 0; i < OPEN_PACKS_MAX; i++)
		pack_of_class(f, "", 0);
	invariants_check(f->kv);
}

static uint64_t garbage_count(struct fixture *f)
{
	struct meta_counts counts;
	meta_counts(f->meta, &counts);
	return counts.garbage;
}

static uint64_t moves_left(struct fixture *f)
{
	uint64_t counts[TASK_KINDS];
	meta_task_counts(f->meta, counts);
	return counts[TASK_MOVE];
}

static void pack_holds(struct fixture *f, uint64_t id, uint64_t count, uint64_t bytes)
{
	Granary__Chunk *pack = chunk_of(f, id);
	assert_int_equal(pack->live_count, count);
	assert_int_equal(pack->live_bytes, bytes);
	message_free(&pack->base);
}

static void is_at(struct fixture *f, uint64_t inode, uint64_t pack, uint32_t slot)
{
	const Granary__Inode *now = attr(f, inode);
	assert_int_equal(now->pack, pack);
	assert_int_equal(now->slot, slot);
}

static enum err blob_move(struct fixture *f, uint64_t inode, uint64_t pack, uint32_t slot, uint64_t to, uint32_t to_slot)
{
	return run_blob_move(
	    f, MESSAGE(BlobMove, blob_move, .inode = inode, .pack = pack, .slot = slot, .to_pack = to, .to_slot = to_slot));
}

static enum err look_at_first(struct fixture *f, uint64_t again)
{
	struct first first = first_task(f);
	return run_task_run(f, MESSAGE(TaskRun, task_run, .due = first.due, .id = first.id, .again = again));
}

/* Nothing of the file is another but where it is. */
static void test_blob_moves(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(CLASS(f, "a", .copies = 2, .cold = STORAGE_COLD_OFF), OK);
	assert_int_equal(CLASS(f, "default", .cold = STORAGE_COLD_OFF), OK);
	run_all(f);
	uint64_t dir = made_dir(f, ROOT, "d"), file = made_file(f, dir, "f"), plain = opened_pack(f, 0), to = pack_of_class(f, "a", 0);
	assert_int_equal(commit_blob(f, file, plain, 1, 100), OK);
	assert_int_equal(truncate_to(f, file, 60), OK); /* the record is longer */
	opened_pack(f, plain);
	assert_int_equal(first_task(f).count, 0);
	assert_int_equal(assign(f, dir, "a", true), OK);
	assert_int_equal(run_all(f), 1);
	assert_int_equal(moves_left(f), 1);
	assert_int_equal(f->effects.task_due_min, f->time_ns);
	Granary__Inode *before = (Granary__Inode *)message_copy(&attr(f, file)->base);
	assert_int_equal(blob_move(f, file, plain, 1, 4711, 7), ERR_PACK_FULL);
	assert_int_equal(blob_move(f, file, plain, 1, to, 0), ERR_INVALID);
	assert_int_equal(look_at_first(f, 0), OK);
	assert_int_equal(moves_left(f), 1);
	assert_int_equal(blob_move(f, file, plain, 1, to, 7), OK);
	is_at(f, file, to, 7);
	pack_holds(f, to, 1, 60);
	before->pack = to;
	before->slot = 7;
	before->origin_pack = plain;
	before->origin_slot = 1;
	struct buf expected = {0}, now = {0};
	message_pack(&before->base, &expected);
	message_pack(&attr(f, file)->base, &now);
	assert_int_equal(expected.size, now.size);
	assert_memory_equal(expected.bytes, now.bytes, now.size);
	buf_deinit(&expected);
	buf_deinit(&now);
	message_free(&before->base);
	assert_int_equal(garbage_count(f), 1); /* the pack, which had nothing else */
	assert_int_equal(f->effects.touch_count, 0);
	assert_int_equal(blob_move(f, file, plain, 1, to, 7), OK); /* told again */
	is_at(f, file, to, 7);
	pack_holds(f, to, 1, 60);
	assert_int_equal(garbage_count(f), 1);
	assert_int_equal(look_at_first(f, f->time_ns + 5 * SECOND), OK);
	assert_int_equal(first_task(f).count, 0);
}

/* A move that comes too late frees what it brings. */
static void test_blob_moves_late(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(CLASS(f, "a", .copies = 2), OK);
	run_all(f);
	uint64_t file = made_file(f, ROOT, "f"), plain = opened_pack(f, 0), to = pack_of_class(f, "a", 0);
	assert_int_equal(commit_blob(f, file, plain, 1, 100), OK);
	assert_int_equal(assign(f, file, "a", false), OK);
	assert_int_equal(commit_blob(f, file, plain, 2, 50), OK); /* by who does not know of the class */
	assert_int_equal(garbage_count(f), 1);
	assert_int_equal(moves_left(f), 2);
	assert_int_equal(blob_move(f, file, plain, 1, to, 7), OK);
	is_at(f, file, plain, 2);
	pack_holds(f, to, 0, 0);
	assert_int_equal(garbage_count(f), 2);
	/* It is tried again, later. */
	uint64_t again = f->time_ns + 30 * SECOND;
	assert_int_equal(look_at_first(f, again), OK);
	assert_int_equal(moves_left(f), 2);
	assert_true(first_task(f).due < again);
	assert_int_equal(look_at_first(f, again + 1), OK);
	struct first first = first_task(f);
	assert_int_equal(first.due, again);
	assert_int_equal(commit_blob(f, file, to, 8, 40), OK); /* where it belongs */
	assert_int_equal(blob_move(f, file, plain, 2, to, 9), OK);
	is_at(f, file, to, 8);
	assert_int_equal(garbage_count(f), 4);
	assert_int_equal(look_at_first(f, 0), OK);
	assert_int_equal(look_at_first(f, 0), OK);
	assert_int_equal(moves_left(f), 0);
	/* Lost, for all that anybody can say. */
	assert_int_equal(commit_blob(f, file, plain, 3, 40), OK);
	first = first_task(f);
	assert_int_equal(run_task_run(f, MESSAGE(TaskRun, task_run, .due = first.due, .id = first.id, .over = true)), OK);
	assert_int_equal(moves_left(f), 0);
	assert_int_equal(commit_blob(f, file, to, 8, 40), OK);
	/* Gone, or not a blob any more. */
	assert_int_equal(truncate_to(f, file, 0), OK);
	assert_int_equal(blob_move(f, file, to, 8, to, 10), OK);
	assert_int_equal(remove_file(f, ROOT, "f"), OK);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(blob_move(f, file, to, 8, to, 11), OK);
	assert_int_equal(garbage_count(f), 9);
}

/* Its writer, whose session has ended before it had an answer, sends again what has been carried out, and moved since: that changes nothing. */
static void test_blob_sent_again(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(CLASS(f, "a", .copies = 2), OK);
	assert_int_equal(CLASS(f, "b", .copies = 2), OK);
	run_all(f);
	uint64_t file = made_file(f, ROOT, "f"), plain = opened_pack(f, 0), first = pack_of_class(f, "a", 0), second = pack_of_class(f, "b", 0);
	assert_int_equal(commit_blob(f, file, plain, 1, 100), OK);
	assert_int_equal(assign(f, file, "a", false), OK);
	assert_int_equal(blob_move(f, file, plain, 1, first, 3), OK);
	assert_int_equal(commit_blob(f, file, plain, 1, 100), OK);
	is_at(f, file, first, 3);
	assert_int_equal(assign(f, file, "b", false), OK);
	assert_int_equal(blob_move(f, file, first, 3, second, 5), OK);
	assert_int_equal(commit_blob(f, file, plain, 1, 100), OK);
	is_at(f, file, second, 5);
	pack_holds(f, plain, 0, 0);
	pack_holds(f, first, 0, 0);
	pack_holds(f, second, 1, 100);
	assert_int_equal(commit_blob(f, file, plain, 1, 99), ERR_INVALID);
	/* Other content has other records. */
	assert_int_equal(commit_blob(f, file, second, 6, 50), OK);
	assert_int_equal(attr(f, file)->origin_pack, 0);
}

/* A class that is removed stands for the default one: nothing has to move. */
static void test_blob_of_no_class(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(CLASS(f, "a", .copies = 2), OK);
	run_all(f);
	uint64_t pack = pack_of_class(f, "a", 0), plain = opened_pack(f, 0);
	assert_int_equal(class_remove(f, "a"), OK);
	run_all(f);
	uint64_t file = made_file(f, ROOT, "f"), other = made_file(f, ROOT, "g");
	assert_int_equal(commit_blob(f, file, pack, 1, 100), OK);
	assert_int_equal(commit_blob(f, other, plain, 1, 100), OK);
	assert_int_equal(moves_left(f), 0);
	assert_int_equal(CLASS(f, "a", .copies = 2), OK);
	run_all(f);
	assert_int_equal(assign(f, file, "default", false), OK);
	assert_int_equal(assign(f, other, "a", false), OK);
	assert_int_equal(moves_left(f), 2);
	assert_int_equal(assign(f, file, "a", false), OK); /* it was not moved yet */
	assert_int_equal(look_at_first(f, f->time_ns + SECOND), OK);
	assert_int_equal(moves_left(f), 1);
}

/* A class's own time, or none. */
static void test_trash(void **state)
{
	struct fixture *f = *state;
	trash_keep(f, 60);
	assert_int_equal(CLASS(f, "none", .trash_seconds = STORAGE_TRASH_NONE), OK);
	assert_int_equal(CLASS(f, "long", .trash_seconds = 1000), OK);
	uint64_t none = made_file(f, ROOT, "none"), kept = made_file(f, ROOT, "long");
	assert_int_equal(assign(f, none, "none", false), OK);
	assert_int_equal(assign(f, kept, "long", false), OK);
	assert_int_equal(remove_file(f, ROOT, "none"), OK);
	assert_int_equal(remove_file(f, ROOT, "long"), OK);
	assert_int_equal(run_trash_list(f, MESSAGE(TrashList, trash_list, .all = true)), OK);
	assert_int_equal(f->result->n_trash, 1);
	assert_int_equal(f->result->trash[0]->entry->inode, kept);
	assert_string_equal(f->result->trash[0]->entry->class_, "long");
}

static void test_not_by_clients(void **state)
{
	(void)state;
	Granary__SetClass change = GRANARY__SET_CLASS__INIT;
	Granary__TaskRun run = GRANARY__TASK_RUN__INIT;
	Granary__BlobMove moved = GRANARY__BLOB_MOVE__INIT;
	Granary__SetInodeClass given = GRANARY__SET_INODE_CLASS__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = {&op};
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	request.session = request.sequence = 1;
	request.n_ops = 1;
	request.ops = ops;
	op.op_case = GRANARY__META_OP__OP_SET_CLASS;
	op.set_class = &change;
	assert_int_equal(meta_validate(&request), ERR_INVALID);
	op.op_case = GRANARY__META_OP__OP_TASK_RUN;
	op.task_run = &run;
	assert_int_equal(meta_validate(&request), ERR_INVALID);
	op.op_case = GRANARY__META_OP__OP_BLOB_MOVE;
	op.blob_move = &moved;
	assert_int_equal(meta_validate(&request), ERR_INVALID);
	op.op_case = GRANARY__META_OP__OP_SET_INODE_CLASS;
	op.set_inode_class = &given;
	assert_int_equal(meta_validate(&request), OK);
	given.class_ = writable("Not a name");
	assert_int_equal(meta_validate(&request), ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_table, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_inherited, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_assigned, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cool_tasks, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_packs, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_blob_moves, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_blob_moves_late, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_blob_sent_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_blob_of_no_class, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_trash, setup, teardown),
	    cmocka_unit_test(test_not_by_clients),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
