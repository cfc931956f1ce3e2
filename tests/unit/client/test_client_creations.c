/* Files that a client makes by itself in a directory that was delegated to it. */
#include "common/proto/setattr.h"
#include "tests/unit/client/client_fixture.h"

static struct fake_cluster cluster;
static struct client *client, *other;
static uint64_t directory;

static Granary__MetaReply *create(struct client *by, uint64_t parent, const char *name, uint32_t mode, enum err wanted)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create message = GRANARY__CREATE__INIT;
	message.parent = parent;
	message.name = message_borrow(slice_text(name));
	message.mode = mode;
	message.exclusive = true;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &message;
	return fixture_meta(&cluster, by, &op, wanted);
}

static Granary__MetaReply *lookup(struct client *by, const char *name, enum err wanted)
{
	return fixture_lookup(&cluster, by, directory, name, wanted);
}

static int setup(void **state)
{
	(void)state;
	fake_cluster_open(&cluster, 3);
	client = fixture_client(&cluster, 10000);
	other = fixture_client(&cluster, 10000);
	Granary__MetaReply *reply = create(client, 1, "directory", MODE_DIRECTORY | 0755, OK);
	directory = reply->results[0]->inode;
	message_free(&reply->base);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	client_close(client);
	client_close(other);
	fake_cluster_close(&cluster);
	return 0;
}

static struct file_io *make(const char *name)
{
	Granary__Create message = GRANARY__CREATE__INIT;
	message.parent = directory;
	message.name = message_borrow(slice_text(name));
	message.mode = MODE_FILE | 0644;
	return file_io_create_local(client, &message);
}

static void barrier_done(void *arg)
{
	*(bool *)arg = true;
}

static void barrier(uint64_t of)
{
	bool done = false;
	if (client_barrier(client, of, barrier_done, &done))
		fake_cluster_run(&cluster, &done);
}

static void test_the_other_sees_it_at_once(void **state)
{
	uint8_t *bytes = fixture_bytes(5000, 1);
	struct file_io *io = make("file");
	struct answer answer = { 0 };
	(void)state;
	assert_non_null(io);
	assert_true(file_io_is_local(io));
	assert_ptr_equal(client_find_local(client, directory, slice_text("file")), io);
	assert_false(client_knows_absent(client, directory, slice_text("file")));
	assert_true(client_knows_absent(client, directory, slice_text("another")));
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 5000), OK);
	fixture_expect(&cluster, io, bytes, 5000);
	file_io_flush_behind(io, answer_err, &answer);
	Granary__MetaReply *reply = lookup(other, "file", OK);
	assert_int_equal(reply->results[0]->inode, file_io_inode(io));
	assert_int_equal(reply->results[0]->attr->size, 5000);
	assert_true(answer.done);
	assert_int_equal(answer.err, OK);
	assert_false(file_io_is_local(io));
	fixture_expect_elsewhere(&cluster, file_io_inode(io), bytes, 5000);
	message_free(&reply->base);
	/* Given back: and not given again while the other one may have cached something. */
	assert_int_equal(client_delegation_ms(client, directory), 0);
	assert_null(make("next"));
	file_io_close(io);
	free(bytes);
}

/* A mount that is writing knows its own changes by this. */
static void test_own_changes_are_known(void **state)
{
	uint8_t *bytes = fixture_bytes(2 * MIB, 2);
	struct file_io *io = make("file");
	Granary__MetaReply *reply;
	(void)state;
	assert_int_equal(file_io_own_change(io), 0);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 2 * MIB), OK); /* the name is sent, and chunk by chunk */
	barrier(0);
	reply = lookup(client, "file", OK);
	assert_int_equal(file_io_own_change(io), reply->results[0]->attr->data_change);
	message_free(&reply->base);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	reply = lookup(client, "file", OK);
	assert_int_equal(file_io_own_change(io), reply->results[0]->attr->data_change);
	message_free(&reply->base);
	file_io_close(io);
	free(bytes);
}

/* The answer to a change of the times alone tells of content that may be another's. */
static void test_what_the_other_changes_is_not_ours(void **state)
{
	struct file_io *io = make("file");
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, "abc", 3), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	uint64_t own = file_io_own_change(io);
	struct file_io *io_other = fixture_open(&cluster, other, file_io_inode(io));
	assert_int_equal(fixture_truncate(&cluster, io_other, 0), OK);
	assert_int_equal(fixture_write(&cluster, io_other, 0, "def", 3), OK);
	assert_int_equal(fixture_flush(&cluster, io_other, false), OK);
	assert_true(file_io_own_change(io_other) > own);
	file_io_set_times(io, 0, 7000);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_int_equal(file_io_attr(io)->data_change, file_io_own_change(io_other));
	assert_int_equal(file_io_own_change(io), own);
	fixture_close(other, io_other, file_io_inode(io));
	file_io_close(io);
}

static void test_the_other_cannot_make_the_same(void **state)
{
	struct file_io *io = make("file");
	(void)state;
	assert_non_null(io);
	message_free(&create(other, directory, "file", MODE_FILE | 0600, ERR_EXISTS)->base);
	assert_false(file_io_is_local(io));
	assert_int_equal(file_io_attr(io)->mode, MODE_FILE | 0644);
	file_io_close(io);
}

static void test_attributes_go_with_it(void **state)
{
	Granary__Setattr change = GRANARY__SETATTR__INIT;
	struct file_io *io = make("file");
	(void)state;
	assert_non_null(io);
	change.mask = SETATTR_MODE | SETATTR_UID | SETATTR_GID | SETATTR_MTIME | SETATTR_ATIME;
	change.mode = 0600;
	change.uid = 5;
	change.gid = 6;
	change.mtime = 7000;
	change.atime = 8000;
	assert_true(file_io_setattr_local(io, &change));
	change = (Granary__Setattr)GRANARY__SETATTR__INIT;
	change.mask = SETATTR_MODE;
	change.mode = 06710;
	assert_true(file_io_setattr_local(io, &change));
	change.mask = 0;
	change.by_owner_only = true;
	assert_true(file_io_setattr_local(io, &change));
	assert_int_equal(file_io_attr(io)->mode, MODE_FILE | 0710);
	change.by_owner_only = false;
	change.mask = SETATTR_MODE;
	change.mode = 0600;
	assert_true(file_io_setattr_local(io, &change));
	Granary__Inode *before = (Granary__Inode *)message_copy(&file_io_attr(io)->base);
	assert_int_equal(file_io_local_ms(io), client_delegation_ms(client, directory));
	assert_true(file_io_local_ms(io) > 0);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	assert_int_equal(file_io_local_ms(io), 0);
	assert_false(file_io_setattr_local(io, &change));
	Granary__MetaReply *reply = lookup(other, "file", OK);
	const Granary__Inode *attr = reply->results[0]->attr;
	assert_int_equal(attr->mode, MODE_FILE | 0600);
	assert_int_equal(attr->uid, 5);
	assert_int_equal(attr->gid, 6);
	assert_int_equal(attr->mtime, 7000);
	assert_int_equal(attr->atime, 8000);
	assert_int_equal(attr->ctime, before->ctime);
	assert_int_equal(attr->btime, before->btime);
	assert_int_equal(attr->size, 0);
	message_free(&before->base);
	message_free(&reply->base);
	file_io_close(io);
}

static void test_larger_than_a_blob(void **state)
{
	size_t size = BLOB_BYTES_MAX + 5000;
	uint8_t *bytes = fixture_bytes(size, 2);
	struct file_io *io = make("large");
	(void)state;
	assert_non_null(io);
	for (size_t at = 0; at < size; at += 60000)
		assert_int_equal(fixture_write(&cluster, io, at, bytes + at, size - at < 60000 ? size - at : 60000), OK);
	assert_false(file_io_may_be_behind(io)); /* there may be no room for its chunks */
	assert_false(file_io_is_local(io));
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_int_equal(file_io_attr(io)->layout, GRANARY__LAYOUT__LAYOUT_CHUNKS);
	fixture_expect_elsewhere(&cluster, file_io_inode(io), bytes, size);
	file_io_close(io);
	free(bytes);
}

static void test_open_files_get_their_name_alone(void **state)
{
	uint8_t *bytes = fixture_bytes(3000, 3);
	struct file_io *io = make("open");
	(void)state;
	assert_non_null(io);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 3000), OK);
	barrier(directory);
	assert_false(file_io_is_local(io));
	assert_true(file_io_dirty(io));
	Granary__MetaReply *reply = lookup(other, "open", OK);
	assert_int_equal(reply->results[0]->attr->size, 0);
	message_free(&reply->base);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	fixture_expect_elsewhere(&cluster, file_io_inode(io), bytes, 3000);
	file_io_close(io);
	free(bytes);
}

static void nothing(void *arg, enum err err)
{
	(void)arg;
	assert_int_equal(err, OK);
}

/* As a shell does that gives a new file to a program as its standard output: others wait for the last close, too. */
static void test_closed_twice(void **state)
{
	uint8_t *bytes = fixture_bytes(3000, 4);
	struct file_io *io = make("twice");
	(void)state;
	assert_non_null(io);
	assert_true(file_io_may_be_behind(io));
	file_io_flush_behind(io, nothing, NULL);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 3000), OK);
	assert_true(file_io_may_be_behind(io));
	file_io_flush_behind(io, nothing, NULL);
	Granary__MetaReply *reply = lookup(other, "twice", OK);
	assert_int_equal(reply->results[0]->attr->size, 3000);
	message_free(&reply->base);
	file_io_close(io);
	free(bytes);
}

static void test_no_more_than_the_bound(void **state)
{
	unsigned made = 0;
	(void)state;
	for (; made <= CLIENT_CREATIONS_MAX; made++) {
		char name[16];
		snprintf(name, sizeof name, "%u", made);
		struct file_io *io = make(name);
		if (!io)
			break;
		assert_int_equal(file_io_may_be_behind(io), made < CLIENT_CREATIONS_MAX / 2);
		file_io_close(io); /* which is as good as closing it with a flush behind */
	}
	assert_int_equal(made, CLIENT_CREATIONS_MAX);
	barrier(0);
	message_free(&lookup(other, "0", OK)->base);
	message_free(&lookup(other, "1023", OK)->base);
	message_free(&lookup(other, "1024", ERR_NOT_FOUND)->base);
}

static void test_a_name_that_is_taken(void **state)
{
	(void)state;
	message_free(&create(client, directory, "taken", MODE_FILE | 0600, OK)->base);
	assert_false(client_knows_absent(client, directory, slice_text("taken")));
	struct file_io *io = make("taken");
	assert_non_null(io);
	assert_int_equal(fixture_write(&cluster, io, 0, "abc", 3), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), ERR_EXISTS);
	assert_int_equal(fixture_flush(&cluster, io, false), ERR_IO);
	assert_false(file_io_is_local(io));
	file_io_close(io);
}

static void test_closing_loses_nothing_but_says_so(void **state)
{
	struct answer answer = { 0 };
	struct file_io *io = make("late");
	(void)state;
	assert_non_null(io);
	assert_int_equal(fixture_write(&cluster, io, 0, "abc", 3), OK);
	file_io_flush_behind(io, answer_err, &answer);
	client_close(client);
	assert_true(answer.done);
	assert_int_equal(answer.err, ERR_CANCELLED);
	client = fixture_client(&cluster, 10000);
}

static void no_space(bool full)
{
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].no_space = full;
}

/* Closed behind while there is no room. */
static struct file_io *strand(const char *name, const uint8_t *bytes, size_t size, struct answer *answer)
{
	struct file_io *io = make(name);
	bool done = false;
	assert_non_null(io);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, size), OK);
	assert_true(file_io_may_be_behind(io));
	no_space(true);
	file_io_flush_behind(io, answer_err, answer);
	assert_true(client_barrier(client, directory, barrier_done, &done));
	fake_cluster_run(&cluster, &done);
	assert_true(file_io_is_stranded(io));
	return io;
}

static void test_what_was_closed_waits_for_room(void **state)
{
	uint8_t *bytes = fixture_bytes(5000, 5);
	struct answer answer = { 0 };
	struct file_io *open = make("open");
	struct file_io *io = strand("closed", bytes, 5000, &answer);
	(void)state;
	fixture_expect(&cluster, io, bytes, 5000);
	assert_int_equal(file_io_attr(io)->size, 5000);
	assert_int_equal(fixture_write(&cluster, io, 5000, bytes, 1), ERR_NO_SPACE);
	assert_int_equal(fixture_truncate(&cluster, io, MIB), ERR_NO_SPACE);
	assert_int_equal(fixture_flush(&cluster, io, true), ERR_NO_SPACE);
	/* Whoever comes now is told; but what is there already can be seen. */
	assert_null(make("next"));
	assert_int_equal(fixture_write(&cluster, open, 0, bytes, 5000), OK);
	assert_false(file_io_may_be_behind(open));
	assert_int_equal(fixture_flush(&cluster, open, false), ERR_NO_SPACE);
	Granary__MetaReply *reply = lookup(other, "closed", OK);
	assert_int_equal(reply->results[0]->attr->size, 0);
	message_free(&reply->base);
	message_free(&lookup(other, "open", OK)->base);
	assert_false(answer.done);
	no_space(false);
	fake_cluster_run(&cluster, &answer.done);
	assert_int_equal(answer.err, OK);
	assert_false(file_io_is_stranded(io));
	fixture_expect(&cluster, io, bytes, 5000);
	fixture_expect_elsewhere(&cluster, file_io_inode(io), bytes, 5000);
	file_io_close(open);
	file_io_close(io);
	free(bytes);
}

/* What others, and we ourselves, do to the file meanwhile counts. */
static void test_what_waits_for_room_replaces_nothing_newer(void **state)
{
	uint8_t *bytes = fixture_bytes(5000, 6);
	struct answer cut = { 0 }, replaced = { 0 };
	struct file_io *io_replaced = strand("replaced", bytes, 5000, &replaced);
	(void)state;
	struct file_io *io_other = fixture_open(&cluster, other, file_io_inode(io_replaced));
	no_space(false);
	assert_int_equal(fixture_write(&cluster, io_other, 0, bytes + 1, 4000), OK);
	assert_int_equal(fixture_flush(&cluster, io_other, false), OK);
	fake_cluster_run(&cluster, &replaced.done);
	assert_int_equal(replaced.err, ERR_STALE_HANDLE);
	fixture_expect_elsewhere(&cluster, file_io_inode(io_replaced), bytes + 1, 4000);
	fixture_close(other, io_other, file_io_inode(io_replaced));
	file_io_close(io_replaced);

	Granary__MetaReply *reply = create(client, 1, "second", MODE_DIRECTORY | 0755, OK);
	directory = reply->results[0]->inode;
	message_free(&reply->base);
	struct file_io *io_cut = strand("cut", bytes, 5000, &cut);
	assert_int_equal(fixture_truncate(&cluster, io_cut, 0), OK);
	assert_false(file_io_is_stranded(io_cut));
	fake_cluster_run(&cluster, &cut.done);
	no_space(false);
	fixture_expect_elsewhere(&cluster, file_io_inode(io_cut), bytes, 0);
	file_io_close(io_cut);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_the_other_sees_it_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_changes_are_known, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_the_other_changes_is_not_ours, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_other_cannot_make_the_same, setup, teardown),
		cmocka_unit_test_setup_teardown(test_attributes_go_with_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_larger_than_a_blob, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open_files_get_their_name_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closed_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_more_than_the_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_name_that_is_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_was_closed_waits_for_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_waits_for_room_replaces_nothing_newer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closing_loses_nothing_but_says_so, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
