/* What a client does to names in directories that are delegated to it, before the master knows. */
#include "common/proto/setattr.h"
#include "tests/unit/client/client_fixture.h"

static struct fake_cluster cluster;
static struct client *client, *other;
static uint64_t directory; /* of /directory, delegated to client */

static uint64_t inode_of(struct client *by, uint64_t parent, const char *name)
{
	Granary__MetaReply *reply = fixture_lookup(&cluster, by, parent, name, OK);
	uint64_t inode = reply->results[0]->inode;
	message_free(&reply->base);
	return inode;
}

static void absent(struct client *by, uint64_t parent, const char *name)
{
	message_free(&fixture_lookup(&cluster, by, parent, name, ERR_NOT_FOUND)->base);
}

static uint64_t make_at_master(struct client *by, uint64_t parent, const char *name, uint32_t mode)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create message = GRANARY__CREATE__INIT;
	message.parent = parent;
	message.name = message_borrow(slice_text(name));
	message.mode = mode;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &message;
	Granary__MetaReply *reply = fixture_meta(&cluster, by, &op, OK);
	uint64_t inode = reply->results[0]->inode;
	message_free(&reply->base);
	return inode;
}

static int setup(void **state)
{
	(void)state;
	fake_cluster_open(&cluster, 3);
	client = fixture_client(&cluster, 10000);
	other = fixture_client(&cluster, 10000);
	directory = make_at_master(client, 1, "directory", MODE_DIRECTORY | 0755);
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

/* 0: not now. */
static uint64_t make(uint64_t parent, const char *name, uint32_t mode)
{
	Granary__Create message = GRANARY__CREATE__INIT;
	Granary__Inode attr;
	message.parent = parent;
	message.name = message_borrow(slice_text(name));
	message.mode = mode;
	if (mode_is_symlink(mode))
		message.symlink = message_borrow(slice_text("target"));
	return client_make(client, &message, &attr) ? message.id : 0;
}

static void change_done(void *arg, enum err err, const Granary__MetaResult *result)
{
	(void)result;
	answer_err(arg, err);
}

static bool unlink_name(uint64_t parent, const char *name, uint64_t inode, bool is_directory, struct answer *answer)
{
	Granary__Unlink message = GRANARY__UNLINK__INIT;
	message.parent = parent;
	message.name = message_borrow(slice_text(name));
	message.inode = inode;
	message.directory = is_directory;
	*answer = (struct answer){0};
	return client_unlink(client, &message, change_done, answer);
}

static bool rename_name(uint64_t inode, const char *from, const char *to, uint64_t replaced, struct answer *answer)
{
	Granary__Rename message = GRANARY__RENAME__INIT;
	message.parent = message.new_parent = directory;
	message.name = message_borrow(slice_text(from));
	message.new_name = message_borrow(slice_text(to));
	message.inode = inode;
	message.replaced = replaced;
	*answer = (struct answer){0};
	return client_rename(client, &message, change_done, answer);
}

static enum err wait_for(struct answer *answer)
{
	fake_cluster_run(&cluster, &answer->done);
	return answer->err;
}

static void test_directories_and_what_is_in_them(void **state)
{
	uint8_t *bytes = fixture_bytes(3000, 1);
	struct answer answer = {0};
	(void)state;
	uint64_t outer = make(directory, "outer", MODE_DIRECTORY | 0755);
	uint64_t inner = make(outer, "inner", MODE_DIRECTORY | 0700);
	uint64_t link = make(inner, "link", MODE_SYMLINK | 0777);
	assert_true(outer && inner && link);
	assert_true(client_knows_absent(client, inner, slice_text("file")));
	Granary__Create create = GRANARY__CREATE__INIT;
	create.parent = inner;
	create.name = message_borrow(slice_text("file"));
	create.mode = MODE_FILE | 0644;
	struct file_io *io = file_io_create_local(client, &create);
	assert_non_null(io);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 3000), OK);
	file_io_flush_behind(io, answer_err, &answer);
	assert_int_equal(client_directory_attr(client, directory)->nlink, 3);
	assert_int_equal(client_directory_attr(client, inner)->entries, 2);
	/* The other one waits for all of it. */
	assert_int_equal(inode_of(other, directory, "outer"), outer);
	assert_int_equal(inode_of(other, outer, "inner"), inner);
	assert_int_equal(inode_of(other, inner, "link"), link);
	assert_int_equal(inode_of(other, inner, "file"), file_io_inode(io));
	assert_true(answer.done);
	fixture_expect_elsewhere(&cluster, file_io_inode(io), bytes, 3000);
	file_io_close(io);
	free(bytes);
}

static void test_removed(void **state)
{
	struct answer file, folder, inside;
	(void)state;
	uint64_t inode = make_at_master(client, directory, "file", MODE_FILE | 0644);
	uint64_t inner = make(directory, "inner", MODE_DIRECTORY | 0755);
	uint64_t link = make(inner, "link", MODE_SYMLINK | 0777);
	assert_true(unlink_name(directory, "file", inode, false, &file));
	assert_true(client_name_is_removed(client, directory, slice_text("file")));
	assert_false(unlink_name(directory, "inner", inner, true, &folder)); /* not empty */
	assert_true(unlink_name(inner, "link", link, false, &inside));
	assert_true(unlink_name(directory, "inner", inner, true, &folder));
	assert_false(folder.done);
	absent(other, directory, "file");
	absent(other, directory, "inner");
	assert_true(file.done && folder.done);
	assert_int_equal(file.err, OK);
	assert_int_equal(folder.err, OK);
}

static void test_removed_only_if_known_to_be_empty(void **state)
{
	struct answer answer;
	(void)state;
	uint64_t inner = make_at_master(other, make_at_master(other, 1, "others", MODE_DIRECTORY | 0755), "inner", MODE_DIRECTORY | 0755);
	assert_false(unlink_name(directory, "inner", inner, true, &answer));
}

static void test_renamed(void **state)
{
	struct answer first, second;
	(void)state;
	uint64_t a = make_at_master(client, directory, "a", MODE_FILE | 0644);
	uint64_t b = make_at_master(client, directory, "b", MODE_FILE | 0644);
	assert_true(rename_name(a, "a", "c", 0, &first));
	assert_true(rename_name(b, "b", "c", a, &second));
	assert_true(client_name_is_removed(client, directory, slice_text("a")));
	assert_false(client_name_is_removed(client, directory, slice_text("c")));
	assert_int_equal(inode_of(other, directory, "c"), b);
	absent(other, directory, "a");
	absent(other, directory, "b");
	assert_int_equal(first.err, OK);
	assert_int_equal(second.err, OK);
}

/* What a name leads to was promised: another file of that name stays. */
static void test_never_another_file(void **state)
{
	struct answer answer;
	(void)state;
	uint64_t a = make_at_master(client, directory, "a", MODE_FILE | 0644);
	uint64_t b = make_at_master(client, directory, "b", MODE_FILE | 0644);
	assert_true(unlink_name(directory, "a", b, false, &answer));
	assert_int_equal(wait_for(&answer), ERR_STALE_HANDLE);
	assert_true(rename_name(b, "a", "c", 0, &answer));
	assert_int_equal(wait_for(&answer), ERR_STALE_HANDLE);
	assert_true(rename_name(a, "a", "b", 0, &answer));
	assert_int_equal(wait_for(&answer), ERR_STALE_HANDLE);
	assert_int_equal(inode_of(other, directory, "a"), a);
	assert_int_equal(inode_of(other, directory, "b"), b);
}

/* The client's own questions are answered as its changes leave things. */
static void test_questions_wait(void **state)
{
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	struct answer answer;
	(void)state;
	uint64_t inner = make(directory, "inner", MODE_DIRECTORY | 0755);
	setattr.inode = getattr.inode = inner;
	setattr.mask = SETATTR_MODE | SETATTR_MTIME;
	setattr.mode = 0700;
	setattr.mtime = 7000;
	assert_true(client_setattr_directory(client, &setattr));
	assert_int_equal(client_directory_attr(client, inner)->mode, MODE_DIRECTORY | 0700);
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	Granary__MetaReply *reply = fixture_meta(&cluster, client, &op, OK);
	assert_int_equal(reply->results[0]->attr->mode, MODE_DIRECTORY | 0700);
	assert_int_equal(reply->results[0]->attr->mtime, 7000);
	message_free(&reply->base);
	assert_true(rename_name(inner, "inner", "moved", 0, &answer));
	assert_int_equal(inode_of(client, directory, "moved"), inner);
	assert_true(answer.done);
}

static void barrier_done(void *arg)
{
	*(bool *)arg = true;
}

static void test_no_more_than_the_bound(void **state)
{
	unsigned made = 0;
	bool done = false;
	char name[16];
	(void)state;
	for (; made <= CLIENT_CHANGES_MAX; made++) {
		snprintf(name, sizeof name, "%u", made);
		if (make(directory, name, MODE_DIRECTORY | 0755) == 0)
			break;
	}
	assert_int_equal(made, CLIENT_CHANGES_MAX);
	assert_true(client_barrier(client, directory, barrier_done, &done));
	fake_cluster_run(&cluster, &done);
	assert_true(make(directory, "more", MODE_DIRECTORY | 0755) != 0);
	inode_of(other, directory, "0");
	inode_of(other, directory, "511");
	inode_of(other, directory, "more");
}

static void test_a_recall_ends_it(void **state)
{
	(void)state;
	assert_true(make(directory, "mine", MODE_DIRECTORY | 0755) != 0);
	make_at_master(other, directory, "theirs", MODE_DIRECTORY | 0755);
	assert_int_equal(make(directory, "next", MODE_DIRECTORY | 0755), 0);
	assert_false(client_knows_absent(client, directory, slice_text("theirs")));
	inode_of(client, directory, "theirs");
	inode_of(other, directory, "mine");
}

static void test_not_under_a_local_file(void **state)
{
	Granary__Create create = GRANARY__CREATE__INIT;
	struct answer answer;
	(void)state;
	create.parent = directory;
	create.name = message_borrow(slice_text("file"));
	create.mode = MODE_FILE | 0644;
	struct file_io *io = file_io_create_local(client, &create);
	assert_non_null(io);
	assert_false(unlink_name(directory, "file", file_io_inode(io), false, &answer));
	assert_false(rename_name(file_io_inode(io), "file", "moved", 0, &answer));
	file_io_close(io);
}

static void test_closing(void **state)
{
	struct answer change, question = {0};
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	(void)state;
	uint64_t inner = make(directory, "inner", MODE_DIRECTORY | 0755);
	assert_true(unlink_name(directory, "inner", inner, true, &change));
	getattr.inode = inner;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	client_meta(client, (Granary__MetaOp *[]){&op}, 1, answer_meta, &question);
	client_close(client);
	assert_true(change.done && question.done);
	assert_int_equal(change.err, ERR_CANCELLED);
	assert_int_equal(question.err, ERR_CANCELLED);
	client = fixture_client(&cluster, 10000);
}

/* However often it has to be sent: programs have been told that it is done. */
static void test_no_answer_for_long(void **state)
{
	const uint64_t timeout_ms = 50;
	struct client *hasty = fixture_client(&cluster, timeout_ms);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;
	Granary__Inode attr;
	struct answer made = {.err = ERR_TIMEOUT}, closed = {0};
	bool all = false;
	(void)state;
	create.parent = 1;
	create.mode = MODE_DIRECTORY | 0755;
	create.name = message_borrow(slice_text("hasty"));
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	while (made.err || made.reply->n_delegations == 0) { /* where answers take longer than that */
		if (made.reply)
			message_free(&made.reply->base);
		made = (struct answer){0};
		client_meta(hasty, (Granary__MetaOp *[]){&op}, 1, answer_meta, &made);
		fake_cluster_run(&cluster, &made.done);
	}
	directory = create.parent = made.reply->results[0]->inode;
	message_free(&made.reply->base);
	create.name = message_borrow(slice_text("inner"));
	assert_true(client_make(hasty, &create, &attr));
	create = (Granary__Create)GRANARY__CREATE__INIT;
	create.parent = directory;
	create.mode = MODE_FILE | 0644;
	create.name = message_borrow(slice_text("file"));
	struct file_io *io = file_io_create_local(hasty, &create);
	assert_non_null(io);
	file_io_flush_behind(io, answer_err, &closed);
	fake_master_stop(&cluster);
	uint64_t until_ms = loop_now_ms(cluster.loop) + (CLIENT_CREATION_TRIES_MAX + 5) * timeout_ms;
	while (loop_now_ms(cluster.loop) < until_ms)
		loop_run_once(cluster.loop);
	fake_master_start(&cluster);
	if (client_barrier(hasty, 0, barrier_done, &all))
		fake_cluster_run(&cluster, &all);
	fake_cluster_run(&cluster, &closed.done);
	assert_int_equal(closed.err, OK);
	inode_of(other, directory, "inner");
	inode_of(other, directory, "file");
	file_io_close(io);
	client_close(hasty);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_directories_and_what_is_in_them, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removed_only_if_known_to_be_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_renamed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_never_another_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_questions_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_more_than_the_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_recall_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_under_a_local_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_answer_for_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closing, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
