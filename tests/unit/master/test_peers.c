/* Members, Raft messages from the wire, the identity of a data directory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/sys/file.h"
#include "master/identity.h"
#include "master/peers.h"

static void test_members(void **state)
{
	struct members members;
	struct buf text = { 0 };
	static const char *const wrong[] = { "",	  "1",		 "1=",	      "=a:1",	 "0=a:1",	"1024=a:1",
					     "1=a:1,1=b:1", "1=a:1,",	 "x=a:1",     "1=a:1,2", ",1=a:1" };

	(void)state;
	assert_int_equal(members_parse("2=b:7002,1=a:7001,10=c:7003", &members), OK);
	assert_int_equal(members.count, 3);
	assert_string_equal(members_address(&members, 1), "a:7001");
	assert_string_equal(members_address(&members, 10), "c:7003");
	assert_null(members_address(&members, 3));
	members_ids_text(&members, &text);
	assert_true(slice_equal(buf_slice(&text), slice_text("1,2,10")));
	buf_deinit(&text);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(members_parse(wrong[i], &members), ERR_INVALID);
	assert_int_equal(members_parse("1=a,2=a,3=a,4=a,5=a,6=a,7=a,8=a,9=a", &members), OK);
	assert_int_equal(members_parse("1=a,2=a,3=a,4=a,5=a,6=a,7=a,8=a,9=a,10=a", &members), ERR_INVALID);
}

static enum err unpack(Granary__RaftMessage *message)
{
	struct raft_message out;
	struct raft_entry *entries;
	enum err err = peers_unpack(message, &out, &entries);

	if (err)
		assert_null(entries);
	free(entries);
	return err;
}

static void test_messages(void **state)
{
	Granary__RaftMessage message = GRANARY__RAFT_MESSAGE__INIT;
	Granary__RaftEntry one = GRANARY__RAFT_ENTRY__INIT, two = GRANARY__RAFT_ENTRY__INIT, *entries[] = { &one, &two };
	struct raft_message out;
	struct raft_entry *unpacked;

	(void)state;
	message.kind = RAFT_APPEND;
	message.from = 1;
	message.to = 2;
	message.term = 5;
	message.log_index = 7;
	message.n_entries = 2;
	message.entries = entries;
	one.index = 8;
	two.index = 9;
	one.term = two.term = 5;
	one.kind = two.kind = RAFT_ENTRY_NORMAL;
	one.payload = message_borrow(slice_text("payload"));
	assert_int_equal(peers_unpack(&message, &out, &unpacked), OK);
	assert_int_equal(out.entry_count, 2);
	assert_int_equal(out.entries[1].index, 9);
	assert_true(slice_equal(out.entries[0].payload, slice_text("payload")));
	free(unpacked);

	two.index = 10;
	assert_int_equal(unpack(&message), ERR_PROTOCOL);
	two.index = 9;
	two.term = 6;
	assert_int_equal(unpack(&message), ERR_PROTOCOL);
	two.term = 5;
	two.kind = 9;
	assert_int_equal(unpack(&message), ERR_PROTOCOL);
	two.kind = RAFT_ENTRY_BARRIER;
	message.kind = RAFT_VOTE;
	assert_int_equal(unpack(&message), ERR_PROTOCOL);
	message.kind = 77;
	assert_int_equal(unpack(&message), ERR_PROTOCOL);
	message.kind = RAFT_APPEND;
	message.log_index = UINT64_MAX;
	assert_int_equal(unpack(&message), ERR_PROTOCOL);
	message.log_index = 7;
	message.from = 0;
	assert_int_equal(unpack(&message), ERR_PROTOCOL);
	message.from = 1;
	assert_int_equal(unpack(&message), OK);
}

static void test_identity(void **state)
{
	struct loop *loop;
	char directory[] = "/tmp/granary-identity-XXXXXX", path[64];
	struct buf message = { 0 };
	struct identity first, again;
	struct founders founders = { 0 };

	(void)state;
	assert_non_null(mkdtemp(directory));
	assert_int_equal(loop_open(&loop), OK);
	struct identity_options options = { .directory = directory, .cluster = "granary", .member = 2 };
	assert_int_equal(identity_check(loop, &options, &first, &message), OK);
	assert_false(first.founded);
	assert_int_equal(identity_check(loop, &options, &again, &message), OK);
	assert_int_equal(first.node, again.node);
	assert_false(again.founded);
	assert_int_equal(message.size, 0);
	options.member = 1;
	assert_int_equal(identity_check(loop, &options, &again, &message), ERR_WRONG_CLUSTER);
	assert_true(message.size > 0);
	options.member = 2;
	options.cluster = "another";
	assert_int_equal(identity_check(loop, &options, &again, &message), ERR_WRONG_CLUSTER);
	options.cluster = "granary";

	/* Founded: the list is there again. Then there must be a log. */
	founders_add(&founders, 3, 0x33);
	founders_add(&founders, 2, first.node);
	founders_add(&founders, 1, 0x11);
	assert_int_equal(founders.ids[0], 1);
	assert_int_equal(identity_found(loop, &options, &founders, &first), OK);
	assert_int_equal(identity_check(loop, &options, &again, &message), ERR_CORRUPT);
	snprintf(path, sizeof(path), "%s/log", directory);
	assert_int_equal(dir_make(loop, path), OK);
	assert_int_equal(identity_check(loop, &options, &again, &message), OK);
	assert_true(again.founded);
	assert_int_equal(again.founders.count, 3);
	assert_true(founders_have(&again.founders, 2, first.node));
	assert_true(founders_have(&again.founders, 3, 0x33));
	assert_false(founders_have(&again.founders, 3, 0x11));
	assert_int_equal(identity_found(loop, &options, NULL, &first), OK);
	assert_int_equal(identity_check(loop, &options, &again, &message), OK);
	assert_true(again.founded && again.founders.count == 0);

	/* One from before there were founders: who they were, but not their nodes. */
	snprintf(path, sizeof(path), "%s/identity", directory);
	assert_int_equal(file_replace(loop, path, slice_text("format = 1\nnode = 00000000000000ab\ncluster = granary\nmember = 2\nmembers = 1,2,3\n")), OK);
	assert_int_equal(identity_check(loop, &options, &again, &message), OK);
	assert_int_equal(again.node, 0xab);
	assert_true(again.founded && again.founders.count == 3);
	assert_true(founders_have(&again.founders, 1, 0));
	assert_int_equal(file_replace(loop, path, slice_text("format = 1\nnode = 00000000000000ab\ncluster = granary\nmember = 2\nfounding = 1=,x\n")), OK);
	assert_int_equal(identity_check(loop, &options, &again, &message), ERR_CORRUPT);

	/* A log without an identity is nobody's. */
	assert_int_equal(file_unlink(loop, path), OK);
	snprintf(path, sizeof(path), "%s/log", directory);
	assert_int_equal(identity_check(loop, &options, &again, &message), ERR_CORRUPT);
	buf_deinit(&message);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(directory), 0);
	loop_close(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_identity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
