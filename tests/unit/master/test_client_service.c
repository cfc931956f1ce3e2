/* Three real masters: sessions, namespace operations, failover, what a cache lease promises. */
#include "tests/unit/master/master_fixture.h"

#define DIRECTORY (0040000u | 0755u)
#define REGULAR (0100000u | 0644u)

static void test_operations(void **state)
{
	struct fixture fixture;
	uint64_t made, found;
	uint32_t lease_ms;

	(void)state;
	fixture_open(&fixture, NULL, NULL);
	uint64_t session = fixture_session(&fixture);
	assert_int_equal(fixture_create(&fixture, session, 1, "a", DIRECTORY, &made), OK);
	assert_int_equal(fixture_create(&fixture, session, 2, "a", DIRECTORY, NULL), ERR_EXISTS);
	assert_int_equal(fixture_lookup(&fixture, session, "a", &found, &lease_ms), OK);
	assert_int_equal(found, made);
	assert_int_equal(lease_ms, LEASE_GRANTED_MS(CACHE_LEASE_MS));
	assert_int_equal(fixture_lookup(&fixture, session, "b", NULL, NULL), ERR_NOT_FOUND);

	Granary__ClusterStatus *status = fixture_status(&fixture);
	assert_int_equal(status->n_members, 3);
	assert_int_equal(status->sessions, 1);
	assert_int_equal(status->leader, fixture.leader + 1);
	assert_string_equal(status->members[fixture.leader]->address, fixture.addresses[fixture.leader]);
	message_free(&status->base);
	fixture_close(&fixture);
}

static void test_refusals(void **state)
{
	struct fixture fixture;
	enum err err;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__SessionEnd end = GRANARY__SESSION_END__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp *ops[] = { &op };
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;

	(void)state;
	fixture_open(&fixture, NULL, NULL);
	uint64_t session = fixture_session(&fixture);
	request.n_ops = 1;
	request.ops = ops;

	/* A session that does not exist. */
	request.session = session + 1;
	getattr.inode = 1;
	op.op_case = GRANARY__META_OP__OP_GETATTR;
	op.getattr = &getattr;
	assert_null(fixture_call(&fixture, MESSAGE_META, &request.base, &err));
	assert_int_equal(err, ERR_NO_SESSION);
	/* What only the master itself may say. */
	request.session = session;
	request.sequence = 1;
	end.session = session;
	op.op_case = GRANARY__META_OP__OP_SESSION_END;
	op.session_end = &end;
	assert_null(fixture_call(&fixture, MESSAGE_META, &request.base, &err));
	assert_int_equal(err, ERR_INVALID);
	/* A follower says who leads. */
	int follower = (fixture.leader + 1) % FIXTURE_MASTERS;
	struct answer answer = { 0 };
	Granary__SessionOpen open = GRANARY__SESSION_OPEN__INIT;
	open.client = "x";
	rpc_peer_call(fixture.peers[follower], MESSAGE_SESSION_OPEN, &open.base, NULL, 3000, fixture_answered, &answer);
	fixture_wait(&fixture, &answer.done);
	assert_int_equal(answer.err, ERR_NOT_LEADER);
	assert_string_equal(answer.text, fixture.addresses[fixture.leader]);
	fixture_close(&fixture);
}

/* A session that says goodbye is gone at once. */
static void test_session_end(void **state)
{
	struct fixture fixture;
	enum err err;
	Granary__SessionKeepalive keepalive = GRANARY__SESSION_KEEPALIVE__INIT;

	(void)state;
	fixture_open(&fixture, NULL, NULL);
	keepalive.session = fixture_session(&fixture);
	Granary__SessionInfo *info =
		(Granary__SessionInfo *)fixture_call(&fixture, MESSAGE_SESSION_KEEPALIVE, &keepalive.base, &err);
	assert_int_equal(err, OK);
	assert_int_equal(info->session, keepalive.session);
	assert_false(info->send_full);
	message_free(&info->base);
	keepalive.end = true;
	info = (Granary__SessionInfo *)fixture_call(&fixture, MESSAGE_SESSION_KEEPALIVE, &keepalive.base, &err);
	assert_int_equal(err, OK);
	message_free(&info->base);
	keepalive.end = false;
	assert_null(fixture_call(&fixture, MESSAGE_SESSION_KEEPALIVE, &keepalive.base, &err));
	assert_int_equal(err, ERR_NO_SESSION);
	bool gone = false;
	for (int i = 0; i < 2000 && !gone; i++) {
		Granary__ClusterStatus *status = fixture_status(&fixture);
		gone = status->sessions == 0;
		message_free(&status->base);
		fixture_run(&fixture, 5, NULL);
	}
	assert_true(gone);
	fixture_close(&fixture);
}

/* The leader is killed; the same request, sent again to its successor, has the one answer; all restarted, all is there. */
static void test_failover(void **state)
{
	struct fixture fixture;
	uint64_t first, again, kept;
	char name[16];

	(void)state;
	fixture_open(&fixture, NULL, NULL);
	uint64_t session = fixture_session(&fixture);
	assert_int_equal(fixture_create(&fixture, session, 1, "before", DIRECTORY, &kept), OK);
	for (uint64_t round = 0; round < 3; round++) {
		snprintf(name, sizeof(name), "round%d", (int)round);
		int killed = fixture.leader;
		assert_int_equal(fixture_create(&fixture, session, 2 + round, name, REGULAR, &first), OK);
		assert_int_equal(fixture_stop(&fixture, killed, SIGKILL), -SIGKILL);
		/* Exclusive: done a second time it would say that it exists. */
		assert_int_equal(fixture_create(&fixture, session, 2 + round, name, REGULAR, &again), OK);
		assert_int_equal(again, first);
		assert_int_not_equal(fixture.leader, killed);
		fixture_start(&fixture, killed);
	}
	/* Sent, and the leader killed without waiting: done once or not at all, and then by the retry. */
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;
	struct answer answer = { 0 };
	create.parent = 1;
	create.name = fixture_name("racing");
	create.mode = REGULAR;
	create.exclusive = true;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	request.session = session;
	request.sequence = 5;
	request.n_ops = 1;
	request.ops = ops;
	rpc_peer_call(fixture.peers[fixture.leader], MESSAGE_META, &request.base, NULL, 3000, fixture_answered, &answer);
	loop_run_once(fixture.loop);
	fixture_stop(&fixture, fixture.leader, SIGKILL);
	fixture_start(&fixture, fixture.leader);
	assert_int_equal(fixture_create(&fixture, session, 5, "racing", REGULAR, NULL), OK);
	fixture_wait(&fixture, &answer.done);
	message_free(answer.reply);

	for (int i = 0; i < FIXTURE_MASTERS; i++)
		fixture_stop(&fixture, i, SIGKILL);
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		fixture_start(&fixture, i);
	assert_int_equal(fixture_lookup(&fixture, session, "before", &again, NULL), OK);
	assert_int_equal(again, kept);
	assert_int_equal(fixture_lookup(&fixture, session, "racing", NULL, NULL), OK);
	assert_int_equal(fixture_lookup(&fixture, session, "round2", NULL, NULL), OK);
	/* A clean stop. */
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		assert_int_equal(fixture_stop(&fixture, i, SIGTERM), 0);
	fixture_close(&fixture);
}

static void send_create(struct fixture *fixture, uint64_t session, uint64_t sequence, const char *name, struct answer *answer)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;

	*answer = (struct answer){ 0 };
	create.parent = 1;
	create.name = fixture_name(name);
	create.mode = REGULAR;
	create.exclusive = true;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	request.session = session;
	request.sequence = sequence;
	request.n_ops = 1;
	request.ops = ops;
	rpc_peer_call(fixture->peers[fixture->leader], MESSAGE_META, &request.base, NULL, 5000, fixture_answered, answer);
}

/* A leader that slept through its own deposition answers nothing from the past. */
static void test_paused_leader(void **state)
{
	struct fixture fixture;
	struct answer read = { 0 }, write;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[] = { &op };
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;

	(void)state;
	fixture_open(&fixture, NULL, NULL);
	uint64_t session = fixture_session(&fixture);
	assert_int_equal(fixture_create(&fixture, session, 1, "a", REGULAR, NULL), OK);
	int paused = fixture.leader;
	kill(fixture.pids[paused], SIGSTOP);
	fixture.leader = (paused + 1) % FIXTURE_MASTERS;
	/* Waiting for it while it sleeps: a query and a change. */
	lookup.parent = 1;
	lookup.name = fixture_name("b");
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	request.session = session;
	request.n_ops = 1;
	request.ops = ops;
	rpc_peer_call(fixture.peers[paused], MESSAGE_META, &request.base, NULL, FIXTURE_DEADLINE_MS, fixture_answered, &read);
	struct fixture to_paused = fixture;
	to_paused.leader = paused;
	send_create(&to_paused, session, 3, "late", &write);
	loop_run_once(fixture.loop);
	assert_int_equal(fixture_create(&fixture, session, 2, "b", REGULAR, NULL), OK);
	assert_int_not_equal(fixture.leader, paused);
	kill(fixture.pids[paused], SIGCONT);
	fixture_wait(&fixture, &read.done);
	assert_int_not_equal(read.err, OK);
	fixture_wait(&fixture, &write.done);
	assert_int_not_equal(write.err, OK);
	/* The change that it could not do is done once by its successor. */
	assert_int_equal(fixture_create(&fixture, session, 3, "late", REGULAR, NULL), OK);
	fixture_close(&fixture);
}

static bool log_is_cut(const struct fixture *fixture, int master)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/master%d/log/wal-%016x", fixture->directory, master + 1, 1);
	return access(path, F_OK) != 0;
}

/* What every master holds is cut from the log, and a restart does not need it. */
static void test_log_cut(void **state)
{
	static uint8_t value[XATTR_VALUE_BYTES_MAX];
	struct fixture fixture;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__SetXattr change = GRANARY__SET_XATTR__INIT;
	uint64_t inode, found, sequence = 1;

	(void)state;
	fixture_open(&fixture, NULL, NULL);
	uint64_t session = fixture_session(&fixture);
	assert_int_equal(fixture_create(&fixture, session, sequence++, "f", REGULAR, &inode), OK);
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		assert_false(log_is_cut(&fixture, i));
	op.op_case = GRANARY__META_OP__OP_SET_XATTR;
	op.set_xattr = &change;
	change.inode = inode;
	change.name = fixture_name("user.x");
	change.value = message_borrow(slice_of(value, sizeof(value)));
	uint64_t until_us = loop_now_us(fixture.loop) + FIXTURE_DEADLINE_MS * 1000ull;
	for (int cut = 0; cut < FIXTURE_MASTERS; cut += log_is_cut(&fixture, cut)) {
		Granary__MetaReply *reply = fixture_meta(&fixture, session, sequence++, &op);
		assert_int_equal(reply->results[0]->error, OK);
		message_free(&reply->base);
		assert_true(loop_now_us(fixture.loop) < until_us);
	}
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		fixture_stop(&fixture, i, SIGKILL);
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		fixture_start(&fixture, i);
	assert_int_equal(fixture_lookup(&fixture, session, "f", &found, NULL), OK);
	assert_int_equal(found, inode);
	assert_int_equal(fixture_create(&fixture, session, sequence++, "g", REGULAR, NULL), OK);
	Granary__ClusterStatus *status = fixture_status(&fixture);
	assert_true(status->log_first > 1);
	message_free(&status->base);
	fixture_close(&fixture);
}

/* The first client's cache: recalls wait here for their answer. */
struct cache {
	struct rpc_request *recall;
	bool recalled;
};

static void on_recall(void *arg, struct rpc_request *request)
{
	struct cache *cache = arg;

	assert_int_equal(request->type, MESSAGE_INVALIDATE);
	assert_null(cache->recall);
	cache->recall = request;
	cache->recalled = true;
}

/* A holder that has said goodbye holds up nobody. */
static void check_goodbye(struct fixture *fixture, uint64_t holder, struct fixture *other, uint64_t changer)
{
	Granary__SessionKeepalive goodbye = GRANARY__SESSION_KEEPALIVE__INIT;
	struct answer answer;
	enum err err;

	assert_int_equal(fixture_lookup(fixture, holder, "z", NULL, NULL), ERR_NOT_FOUND);
	goodbye.session = holder;
	goodbye.end = true;
	message_free(fixture_call(fixture, MESSAGE_SESSION_KEEPALIVE, &goodbye.base, &err));
	assert_int_equal(err, OK);
	uint64_t start_us = loop_now_us(fixture->loop);
	send_create(other, changer, 3, "z", &answer);
	fixture_wait(other, &answer.done);
	assert_int_equal(answer.err, OK);
	assert_true((loop_now_us(fixture->loop) - start_us) / 1000 < CACHE_LEASE_MS / 2);
	message_free(answer.reply);
}

static void test_recall(void **state)
{
	static const struct rpc_service service = { .serve = on_recall };
	static const struct rpc_identity identity = { .role = RPC_CLIENT, .id = 78 };
	struct fixture fixture;
	struct cache cache = { 0 };
	struct answer answer;
	Granary__Empty empty = GRANARY__EMPTY__INIT;
	uint32_t lease_ms;

	(void)state;
	fixture_open(&fixture, &service, &cache);
	uint64_t holder = fixture_session(&fixture);
	/* Another client: another connection. */
	struct fixture other = fixture;
	assert_int_equal(rpc_open(fixture.loop, &identity, NULL, NULL, &other.rpc), OK);
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		other.peers[i] = rpc_peer_open(other.rpc, other.addresses[i]);
	uint64_t changer = fixture_session(&other);

	/* The holder has cached that there is no "x". Its own change recalls nothing. */
	assert_int_equal(fixture_lookup(&fixture, holder, "x", NULL, &lease_ms), ERR_NOT_FOUND);
	assert_int_equal(lease_ms, LEASE_GRANTED_MS(CACHE_LEASE_MS));
	assert_int_equal(fixture_create(&fixture, holder, 1, "own", REGULAR, NULL), OK);
	assert_false(cache.recalled);

	/* The other's change is answered after the holder has confirmed. */
	assert_int_equal(fixture_lookup(&fixture, holder, "x", NULL, NULL), ERR_NOT_FOUND);
	send_create(&other, changer, 1, "x", &answer);
	fixture_wait(&fixture, &cache.recalled);
	fixture_run(&fixture, 100, &answer.done);
	assert_false(answer.done);
	const Granary__Invalidate *invalidate = (const Granary__Invalidate *)cache.recall->message;
	assert_int_equal(invalidate->n_items, 1);
	assert_int_equal(invalidate->items[0]->inode, 1);
	assert_true(slice_equal(message_bytes(invalidate->items[0]->name), slice_text("x")));
	rpc_reply(cache.recall, &empty.base);
	cache.recall = NULL;
	fixture_wait(&fixture, &answer.done);
	assert_int_equal(answer.err, OK);
	message_free(answer.reply);

	/* A holder that does not confirm holds it up for the time of its lease, no longer. */
	cache.recalled = false;
	assert_int_equal(fixture_lookup(&fixture, holder, "y", NULL, NULL), ERR_NOT_FOUND);
	uint64_t start_us = loop_now_us(fixture.loop);
	send_create(&other, changer, 2, "y", &answer);
	fixture_wait(&fixture, &answer.done);
	assert_int_equal(answer.err, OK);
	uint64_t waited_ms = (loop_now_us(fixture.loop) - start_us) / 1000;
	assert_true(waited_ms + 50 >= CACHE_LEASE_MS && waited_ms < 3 * CACHE_LEASE_MS);
	assert_true(cache.recalled);
	message_free(answer.reply);
	rpc_reply(cache.recall, &empty.base);

	check_goodbye(&fixture, holder, &other, changer);

	for (int i = 0; i < FIXTURE_MASTERS; i++)
		rpc_peer_close(other.peers[i]);
	rpc_close(other.rpc);
	fixture_close(&fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operations), cmocka_unit_test(test_refusals), cmocka_unit_test(test_session_end),
		cmocka_unit_test(test_failover),   cmocka_unit_test(test_log_cut),  cmocka_unit_test(test_recall),
		cmocka_unit_test(test_paused_leader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
