/* Sessions, slots, locks, validation, scans, and that equal entries make equal stores. */
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

/* ---- slots */

struct sent {
	uint64_t session, sequence;
	uint32_t slot;
	const char *name;
};

static enum err send_create(struct fixture *f, const struct sent *sent)
{
	Granary__Create create = MESSAGE(Create, create, .parent = ROOT, .name = text(sent->name), .exclusive = true,
					 .mode = MODE_FILE | 0644, .id = f->next_id++);
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = {&op};
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT, *requests[1] = {&request};
	Granary__MetaReply *reply = NULL;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	request.ops = ops;
	request.n_ops = 1;
	request.session = sent->session;
	request.slot = sent->slot;
	request.sequence = sent->sequence;
	fixture_apply(f, requests, 1, &reply);
	fixture_keep(f, reply);
	return (enum err)f->result->error;
}

static void test_repeated_request(void **state)
{
	struct fixture *f = *state;
	struct sent sent = {.session = f->session, .slot = 5, .sequence = 1, .name = "a"};
	assert_int_equal(send_create(f, &sent), OK);
	uint64_t inode = f->result->inode, change = attr(f, ROOT)->change;
	assert_int_equal(send_create(f, &sent), OK);
	assert_int_equal(f->result->inode, inode);
	assert_int_equal(f->result->attr->nlink, 1);
	assert_int_equal(f->effects.touch_count, 0);
	assert_int_equal(attr(f, ROOT)->change, change);
	/* Also by a master that has just started. */
	fixture_reopen(f);
	assert_int_equal(send_create(f, &sent), OK);
	assert_int_equal(f->result->inode, inode);
	/* An error is an answer, too. */
	sent.sequence = 2;
	assert_int_equal(send_create(f, &sent), ERR_EXISTS);
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(send_create(f, &sent), ERR_EXISTS);
	assert_int_equal(found(f, ROOT, "a"), 0);
	sent.sequence = 1;
	assert_int_equal(send_create(f, &sent), ERR_INVALID);
	sent.sequence = 4;
	assert_int_equal(send_create(f, &sent), ERR_INVALID);
	sent.slot = 6;
	sent.sequence = 2;
	assert_int_equal(send_create(f, &sent), ERR_INVALID);
	sent.slot = SESSION_SLOTS;
	sent.sequence = 1;
	assert_int_equal(send_create(f, &sent), ERR_INVALID);
	sent.slot = 6;
	sent.session = 9999;
	assert_int_equal(send_create(f, &sent), ERR_NO_SESSION);
	assert_int_equal(found(f, ROOT, "a"), 0);
}

/* Another request under the number of the last one is refused, not answered with what does not fit. */
static void test_number_used_again(void **state)
{
	struct fixture *f = *state;
	Granary__Unlink unlink_op = MESSAGE(Unlink, unlink, .parent = ROOT, .name = text("a"));
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[2] = {&op, &op};
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &unlink_op;
	made_file(f, ROOT, "a");
	f->sequence--;
	assert_int_equal(fixture_request(f, f->session, ops, 2), ERR_INVALID);
	assert_int_equal(f->reply->n_results, 2);
	assert_true(found(f, ROOT, "a") != 0);
}

/* Twice within one entry, as a client's retry may end up. */
static void test_repeated_in_one_entry(void **state)
{
	struct fixture *f = *state;
	Granary__MetaOp op[2], *ops[2];
	Granary__Create create[2];
	Granary__MetaRequest request[2], *requests[2];
	Granary__MetaReply *replies[2];
	for (int i = 0; i < 2; i++) {
		create[i] = MESSAGE(Create, create, .parent = ROOT, .name = text("a"), .exclusive = true,
				    .mode = MODE_FILE | 0644, .id = f->next_id++);
		granary__meta_op__init(&op[i]);
		op[i].op_case = GRANARY__META_OP__OP_CREATE;
		op[i].create = &create[i];
		ops[i] = &op[i];
		granary__meta_request__init(&request[i]);
		request[i].ops = &ops[i];
		request[i].n_ops = 1;
		request[i].session = f->session;
		request[i].slot = 9;
		request[i].sequence = 1;
		requests[i] = &request[i];
	}
	fixture_apply(f, requests, 2, replies);
	assert_int_equal(replies[0]->results[0]->error, OK);
	assert_int_equal(replies[1]->results[0]->error, OK);
	assert_int_equal(replies[0]->results[0]->inode, replies[1]->results[0]->inode);
	message_unref(&replies[0]->base);
	message_unref(&replies[1]->base);
	assert_int_equal(attr(f, ROOT)->entries, 1);
}

static bool note_orphan(void *arg, uint64_t inode, uint64_t session)
{
	uint64_t *noted = arg;
	noted[0] = inode;
	noted[1] = session;
	noted[2]++;
	return true;
}

static void test_session_end(void **state)
{
	struct fixture *f = *state;
	Granary__Create create = MESSAGE(Create, create, .mode = MODE_FILE | 0600, .id = f->next_id++);
	assert_int_equal(run_create(f, create), OK);
	uint64_t file = f->result->inode, session = f->session, noted[3] = {0};
	assert_true(meta_session_exists(f->meta, session));
	assert_int_equal(meta_each_orphan(f->meta, 0, note_orphan, noted), OK);
	assert_int_equal(noted[0], file);
	assert_int_equal(noted[1], session);
	assert_int_equal(meta_each_orphan(f->meta, file, note_orphan, noted), OK);
	assert_int_equal(noted[2], 1);
	assert_int_equal(session_end(f, session), OK);
	assert_true(f->effects.orphans_added);
	assert_false(meta_session_exists(f->meta, session));
	assert_int_equal(session_end(f, session), ERR_NO_SESSION);
	assert_int_equal(meta_each_orphan(f->meta, 0, note_orphan, noted), OK);
	assert_int_equal(noted[1], 0);
	assert_int_equal(run_create(f, create), ERR_NO_SESSION);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(run_getattr(f, MESSAGE(Getattr, getattr, .inode = file)), ERR_NOT_FOUND);
	/* A new session starts with slots of its own. */
	f->session = session_begin(f);
	f->sequence = 0;
	made_file(f, ROOT, "a");
}

/* ---- locks */

struct wish {
	uint64_t session, owner, start, end;
	uint32_t kind;
	bool flock;
};

static Granary__LockRange range_of(const struct wish *wish)
{
	return MESSAGE(LockRange, lock_range, .owner = wish->owner, .kind = wish->kind, .flock = wish->flock,
		       .start = wish->start, .end = wish->end, .pid = (uint32_t)wish->owner);
}

/* Each session here uses a slot of its own, so that sequences do not mix. */
static enum err lock(struct fixture *f, uint64_t inode, const struct wish *wish)
{
	Granary__LockRange range = range_of(wish);
	Granary__SetLock set = MESSAGE(SetLock, set_lock, .inode = inode, .range = &range);
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = {&op};
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT, *requests[1] = {&request};
	Granary__MetaReply *reply = NULL;
	op.op_case = GRANARY__META_OP__OP_SET_LOCK;
	op.set_lock = &set;
	request.ops = ops;
	request.n_ops = 1;
	request.session = wish->session;
	request.slot = 10 + (uint32_t)(wish->session % 40);
	request.sequence = ++f->sequences[request.slot];
	fixture_apply(f, requests, 1, &reply);
	fixture_keep(f, reply);
	return (enum err)f->result->error;
}

/* Who would be in the way of an exclusive lock on one byte, asked by a stranger: owner * 10 + kind, 0 for none. */
static uint64_t holder(struct fixture *f, uint64_t inode, uint64_t byte)
{
	Granary__LockRange range =
	    MESSAGE(LockRange, lock_range, .owner = 777, .kind = LOCK_EXCLUSIVE, .start = byte, .end = byte);
	check(run_test_lock(f, MESSAGE(TestLock, test_lock, .inode = inode, .range = &range)) == OK);
	return f->result->lock->kind ? f->result->lock->owner * 10 + f->result->lock->kind : 0;
}

static void expect_bytes(struct fixture *f, uint64_t inode, const uint64_t *expected, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (holder(f, inode, i) != expected[i])
			fail_msg("byte %zu: %d, expected %d", i, (int)holder(f, inode, i), (int)expected[i]);
}

static void test_lock_ranges(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), s = session_begin(f), other = session_begin(f);
	struct wish wish = {.session = s, .owner = 1, .kind = LOCK_EXCLUSIVE, .start = 2, .end = 7};
	assert_int_equal(lock(f, file, &wish), OK);
	expect_bytes(f, file, (uint64_t[]){0, 0, 12, 12, 12, 12, 12, 12, 0}, 9);
	/* Part of it shared: split in three. */
	wish = (struct wish){.session = s, .owner = 1, .kind = LOCK_SHARED, .start = 4, .end = 5};
	assert_int_equal(lock(f, file, &wish), OK);
	expect_bytes(f, file, (uint64_t[]){0, 0, 12, 12, 11, 11, 12, 12, 0}, 9);
	/* Another owner of the same session, and another session, may share just that. */
	wish = (struct wish){.session = s, .owner = 2, .kind = LOCK_SHARED, .start = 4, .end = 4};
	assert_int_equal(lock(f, file, &wish), OK);
	wish = (struct wish){.session = other, .owner = 1, .kind = LOCK_SHARED, .start = 4, .end = 6};
	assert_int_equal(lock(f, file, &wish), ERR_WOULD_BLOCK);
	assert_int_equal(f->result->lock->session, s);
	assert_int_equal(f->result->lock->kind, LOCK_EXCLUSIVE);
	assert_int_equal(f->result->lock->start, 6);
	wish.end = 5;
	assert_int_equal(lock(f, file, &wish), OK);
	/* Upgrade: not while others share. */
	wish = (struct wish){.session = s, .owner = 1, .kind = LOCK_EXCLUSIVE, .start = 4, .end = 5};
	assert_int_equal(lock(f, file, &wish), ERR_WOULD_BLOCK);
	wish = (struct wish){.session = s, .owner = 2, .kind = LOCK_NONE, .start = 0, .end = LOCK_END_MAX};
	assert_int_equal(lock(f, file, &wish), OK);
	assert_int_equal(session_end(f, other), OK);
	wish = (struct wish){.session = s, .owner = 1, .kind = LOCK_EXCLUSIVE, .start = 4, .end = 5};
	assert_int_equal(lock(f, file, &wish), OK);
	expect_bytes(f, file, (uint64_t[]){0, 0, 12, 12, 12, 12, 12, 12, 0}, 9);
	/* Neighbours of one kind are one range again: nothing is left beside a hole in the middle. */
	wish = (struct wish){.session = s, .owner = 1, .kind = LOCK_NONE, .start = 3, .end = 6};
	assert_int_equal(lock(f, file, &wish), OK);
	expect_bytes(f, file, (uint64_t[]){0, 0, 12, 0, 0, 0, 0, 12, 0}, 9);
	wish = (struct wish){.session = s, .owner = 1, .kind = LOCK_NONE, .start = 0, .end = UINT64_MAX};
	assert_int_equal(lock(f, file, &wish), OK);
	expect_bytes(f, file, (uint64_t[]){0, 0, 0, 0, 0, 0, 0, 0, 0}, 9);
	assert_int_equal(lock(f, file, &wish), OK);
	wish.start = 5;
	wish.end = 4;
	assert_int_equal(lock(f, file, &wish), ERR_INVALID);
	wish = (struct wish){.session = s, .owner = 1, .kind = 3, .end = 4};
	assert_int_equal(lock(f, file, &wish), ERR_INVALID);
	wish.kind = LOCK_SHARED;
	assert_int_equal(lock(f, 9999, &wish), ERR_NOT_FOUND);
}

static void test_flock(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), s = session_begin(f), other = session_begin(f);
	struct wish one = {.session = s, .owner = 1, .kind = LOCK_EXCLUSIVE, .flock = true, .start = 5, .end = 5};
	struct wish two = {.session = other, .owner = 2, .kind = LOCK_SHARED, .flock = true};
	struct wish range = {.session = other, .owner = 2, .kind = LOCK_EXCLUSIVE, .start = 0, .end = 9};
	assert_int_equal(lock(f, file, &one), OK);
	assert_int_equal(lock(f, file, &two), ERR_WOULD_BLOCK);
	assert_int_equal(lock(f, file, &range), OK);
	one.kind = LOCK_SHARED;
	assert_int_equal(lock(f, file, &one), OK);
	assert_int_equal(lock(f, file, &two), OK);
	one.kind = LOCK_EXCLUSIVE;
	assert_int_equal(lock(f, file, &one), ERR_WOULD_BLOCK);
	two.kind = LOCK_NONE;
	assert_int_equal(lock(f, file, &two), OK);
	assert_int_equal(lock(f, file, &one), OK);
	/* The end of the inode takes its locks along. */
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(session_end(f, s), OK);
}

static void test_locks_max(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), s = session_begin(f);
	struct wish wish = {.session = s, .owner = 1, .kind = LOCK_EXCLUSIVE, .start = 0, .end = LOCK_END_MAX};
	assert_int_equal(lock(f, file, &wish), OK);
	enum err err = OK;
	unsigned count = 0;
	wish.kind = LOCK_NONE;
	for (; !err && count < 2 * LOCKS_PER_INODE_MAX; count++) {
		wish.start = wish.end = 10 + 2ull * count;
		err = lock(f, file, &wish);
	}
	assert_int_equal(err, ERR_TOO_MANY);
	assert_true(count > LOCKS_PER_INODE_MAX - 8);
	wish.start = 0;
	wish.end = LOCK_END_MAX;
	assert_int_equal(lock(f, file, &wish), OK);
	assert_int_equal(holder(f, file, 0), 0);
}

/* ---- validation */

static enum err validate(Granary__MetaOp *op, uint64_t session)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	request.ops = &op;
	request.n_ops = 1;
	request.session = session;
	request.sequence = session ? 1 : 0;
	return meta_validate(&request);
}

static void test_validate(void **state)
{
	(void)state;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Lookup lookup_op = MESSAGE(Lookup, lookup, .parent = ROOT, .name = text("a"));
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup_op;
	assert_int_equal(validate(&op, 0), OK);
	lookup_op.name = text("a/b");
	assert_int_equal(validate(&op, 0), ERR_INVALID);
	lookup_op.name = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)(uintptr_t) "a\0b"};
	assert_int_equal(validate(&op, 0), ERR_INVALID);
	Granary__Unlink unlink_op = MESSAGE(Unlink, unlink, .parent = ROOT, .name = text("a"));
	op.op_case = GRANARY__META_OP__OP_UNLINK;
	op.unlink = &unlink_op;
	assert_int_equal(validate(&op, 5), OK);
	assert_int_equal(validate(&op, 0), ERR_INVALID);
	Granary__SessionEnd end = MESSAGE(SessionEnd, session_end, .session = 1);
	op.op_case = GRANARY__META_OP__OP_SESSION_END;
	op.session_end = &end;
	assert_int_equal(validate(&op, 5), ERR_INVALID);
	Granary__SetLock set = MESSAGE(SetLock, set_lock, .inode = 1);
	op.op_case = GRANARY__META_OP__OP_SET_LOCK;
	op.set_lock = &set;
	assert_int_equal(validate(&op, 5), ERR_INVALID);
	Granary__MetaOp *many[META_OPS_PER_BATCH_MAX + 1];
	Granary__MetaOp getattr = GRANARY__META_OP__INIT;
	for (size_t i = 0; i <= META_OPS_PER_BATCH_MAX; i++)
		many[i] = &getattr;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	request.ops = many;
	request.n_ops = META_OPS_PER_BATCH_MAX + 1;
	assert_int_equal(meta_validate(&request), ERR_INVALID);
	request.n_ops--;
	assert_int_equal(meta_validate(&request), OK);
}

/* ---- the master's own */

static bool count_server(void *arg, uint64_t id, const Granary__Server *server)
{
	unsigned *count = arg;
	assert_int_equal(id, ++*count);
	assert_true(server->registered > 0);
	return id < 3;
}

static bool is_drained(void *arg, uint64_t id, const Granary__Server *server)
{
	if (id == 5)
		*(bool *)arg = server->draining;
	return true;
}

static bool count_id(void *arg, uint64_t id)
{
	(void)id;
	++*(unsigned *)arg;
	return true;
}

static void test_cluster_and_servers(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(meta_cluster(f->meta), 77);
	assert_int_equal(run_cluster_init(f, MESSAGE(ClusterInit, cluster_init, .cluster = 77)), OK);
	assert_int_equal(run_cluster_init(f, MESSAGE(ClusterInit, cluster_init, .cluster = 78)), ERR_EXISTS);
	server_add(f, 1);
	assert_false(f->effects.servers_changed);
	server_add(f, 5);
	assert_true(f->effects.servers_changed);
	unsigned count = 0;
	assert_int_equal(meta_each_server(f->meta, count_server, &count), OK);
	assert_int_equal(count, 3);
	/* Drained; also when it comes back with another address. */
	bool draining = false;
	assert_int_equal(run_server_drain(f, MESSAGE(ServerDrain, server_drain, .server = 9, .draining = true)), ERR_NOT_FOUND);
	assert_int_equal(run_server_drain(f, MESSAGE(ServerDrain, server_drain, .server = 5, .draining = true)), OK);
	assert_true(f->effects.servers_changed);
	assert_int_equal(run_server_register(f, MESSAGE(ServerRegister, server_register, .server = 5, .address = "x:1", .host = "x", .location = "")), OK);
	assert_int_equal(meta_each_server(f->meta, is_drained, &draining), OK);
	assert_true(draining);
	assert_int_equal(run_server_drain(f, MESSAGE(ServerDrain, server_drain, .server = 5)), OK);
	assert_int_equal(meta_each_server(f->meta, is_drained, &draining), OK);
	assert_false(draining);
	uint64_t file = made_file(f, ROOT, "a"), chunk;
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	count = 0;
	assert_int_equal(meta_each_chunk_on(f->meta, 2, 0, count_id, &count), OK);
	assert_int_equal(count, 1);
	assert_int_equal(meta_each_chunk_on(f->meta, 2, chunk, count_id, &count), OK);
	assert_int_equal(meta_each_chunk_on(f->meta, 4, 0, count_id, &count), OK);
	assert_int_equal(count, 1);
	count = 0;
	assert_int_equal(meta_each_session(f->meta, count_id, &count), OK);
	assert_int_equal(count, 1);
	Granary__ChunkLocation *location;
	assert_int_equal(meta_chunk_location(f->meta, chunk, &location), OK);
	assert_int_equal(location->n_replicas, 3);
	message_unref(&location->base);
	Granary__Inode *inode;
	assert_int_equal(meta_inode(f->meta, file, &f->reply->base, &inode), OK);
	assert_int_equal(inode->chunks, 1);
	assert_int_equal(meta_inode(f->meta, 9999, &f->reply->base, &inode), ERR_NOT_FOUND);
}

static void test_barrier_and_reopen(void **state)
{
	struct fixture *f = *state;
	uint64_t index = meta_applied_index(f->meta);
	assert_int_equal(meta_apply(f->meta, index + 1, 9, NULL, NULL, &f->effects), OK);
	assert_int_equal(meta_applied_index(f->meta), index + 1);
	assert_int_equal(meta_applied_term(f->meta), 9);
	fixture_reopen(f);
	assert_int_equal(meta_applied_index(f->meta), index + 1);
	assert_int_equal(meta_applied_term(f->meta), 9);
	assert_int_equal(meta_cluster(f->meta), 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_repeated_request, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_number_used_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_repeated_in_one_entry, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_session_end, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_lock_ranges, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_flock, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_locks_max, setup, teardown),
	    cmocka_unit_test(test_validate),
	    cmocka_unit_test_setup_teardown(test_cluster_and_servers, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_barrier_and_reopen, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
