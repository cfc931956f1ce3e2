/* The leader's soft tables: sessions and servers; what is filled into requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "master/fill.h"
#include "master/servers.h"
#include "master/sessions.h"

static void on_expired(void *arg, uint64_t session)
{
	uint64_t *sessions = arg;

	*sessions |= 1ull << session;
}

static void test_session_expiry(void **state)
{
	struct sessions *sessions = sessions_open();
	int connection;
	uint64_t expired = 0;

	(void)state;
	assert_int_equal(sessions_add(sessions, 1000, 1, true), OK);
	assert_int_equal(sessions_add(sessions, 1000, 2, true), OK);
	assert_false(sessions_heard(sessions, 1000, 3, NULL));
	assert_true(sessions_heard(sessions, 5000, 2, &connection));
	sessions_expire(sessions, 10999, 10000, on_expired, &expired);
	assert_int_equal(expired, 0);
	sessions_expire(sessions, 11000, 10000, on_expired, &expired);
	assert_int_equal(expired, 1 << 1);
	/* Once each. */
	expired = 0;
	sessions_expire(sessions, 12000, 10000, on_expired, &expired);
	assert_int_equal(expired, 0);
	assert_ptr_equal(sessions_connection(sessions, 2), &connection);
	sessions_connection_lost(sessions, &connection);
	assert_null(sessions_connection(sessions, 2));
	sessions_remove(sessions, 1);
	assert_false(sessions_has(sessions, 1));
	assert_int_equal(sessions_count(sessions), 1);
	sessions_close(sessions);
}

static void test_session_opens(void **state)
{
	struct sessions *sessions = sessions_open();

	(void)state;
	assert_int_equal(sessions_inode_opened(sessions, 1, 10), ERR_NO_SESSION);
	assert_int_equal(sessions_add(sessions, 0, 1, true), OK);
	assert_int_equal(sessions_add(sessions, 0, 2, true), OK);
	assert_int_equal(sessions_inode_opened(sessions, 1, 10), OK);
	assert_int_equal(sessions_inode_opened(sessions, 1, 10), OK);
	assert_int_equal(sessions_inode_opened(sessions, 2, 10), OK);
	sessions_inode_closed(sessions, 1, 10);
	assert_true(sessions_inode_is_open(sessions, 10));
	sessions_inode_closed(sessions, 1, 10);
	sessions_remove(sessions, 2);
	assert_false(sessions_inode_is_open(sessions, 10));
	for (uint64_t inode = 0; inode < SESSION_OPEN_FILES_MAX; inode++)
		assert_int_equal(sessions_inode_opened(sessions, 1, 100 + inode), OK);
	assert_int_equal(sessions_inode_opened(sessions, 1, 1), ERR_TOO_MANY);
	sessions_inodes_forget(sessions, 1);
	assert_false(sessions_inode_is_open(sessions, 100));
	sessions_close(sessions);
}

static void test_session_settled(void **state)
{
	struct sessions *sessions = sessions_open();

	(void)state;
	assert_int_equal(sessions_settled_ms(sessions, 7), UINT64_MAX);
	/* One from before this leader: nothing is certain before it has announced in full and been heard twice. */
	assert_int_equal(sessions_add(sessions, 1000, 1, false), OK);
	assert_int_equal(sessions_settled_ms(sessions, 7), 0);
	sessions_kept_alive(sessions, 2000, 1);
	sessions_kept_alive(sessions, 3000, 1);
	assert_int_equal(sessions_settled_ms(sessions, 7), 0);
	sessions_set_announced_term(sessions, 1, 7);
	assert_int_equal(sessions_settled_ms(sessions, 7), 2000);
	assert_int_equal(sessions_settled_ms(sessions, 8), 0);
	/* A new one had nothing open before it began. */
	assert_int_equal(sessions_add(sessions, 1500, 2, true), OK);
	assert_int_equal(sessions_settled_ms(sessions, 7), 1500);
	sessions_remove(sessions, 2);
	assert_int_equal(sessions_settled_ms(sessions, 7), 2000);
	sessions_close(sessions);
}

static void test_session_repetition(void **state)
{
	struct sessions *sessions = sessions_open();

	(void)state;
	assert_int_equal(sessions_add(sessions, 0, 1, true), OK);
	assert_int_equal(sessions_add(sessions, 0, 2, false), OK);
	assert_true(sessions_request_is_new(sessions, 1, 0, 1));
	assert_false(sessions_request_is_new(sessions, 1, 0, 1));
	assert_true(sessions_request_is_new(sessions, 1, 0, 2));
	sessions_request_refused(sessions, 1, 0, 2);
	assert_true(sessions_request_is_new(sessions, 1, 0, 2));
	assert_false(sessions_request_is_new(sessions, 1, 0, 2));
	/* A new leader does not know what came before. */
	assert_false(sessions_request_is_new(sessions, 2, 3, 1));
	assert_true(sessions_request_is_new(sessions, 2, 3, 2));
	assert_false(sessions_request_is_new(sessions, 2, SESSION_SLOTS, 1));
	assert_false(sessions_request_is_new(sessions, 3, 0, 1));
	sessions_close(sessions);
}

static void test_server_leases(void **state)
{
	struct servers *servers = servers_open();
	int connection, other;
	bool again;

	(void)state;
	/* Elected at 10,000: whoever was not heard may still hold a lease. */
	servers_clear(servers, 10000 + CHUNKSERVER_LEASE_MS);
	struct server *server = servers_set(servers, 5, &(struct server_place){ "127.0.0.1:1", "a", "" });
	assert_false(servers_is_dead(server, 10000));
	assert_true(servers_is_dead(server, 10000 + CHUNKSERVER_LEASE_MS));
	/* Registered, but there may be garbage: no lease yet, not usable, not dead either. */
	servers_connected(server, 10100, &connection, 99);
	assert_int_equal(servers_heartbeat(server, 10200, &connection, 99, false, &again), 0);
	assert_false(again);
	assert_false(servers_is_usable(server, 10200));
	servers_cleaned(server, 10300);
	assert_int_equal(servers_heartbeat(server, 10400, &connection, 99, false, &again), LEASE_GRANTED_MS(CHUNKSERVER_LEASE_MS));
	assert_true(servers_is_usable(server, 10400));
	assert_false(servers_is_dead(server, 10400 + CHUNKSERVER_LEASE_MS - 1));
	assert_true(servers_is_dead(server, 10400 + CHUNKSERVER_LEASE_MS));
	/* Its lease ran out: it has to come anew. */
	assert_int_equal(servers_heartbeat(server, 20000, &connection, 99, false, &again), 0);
	assert_true(again);
	/* So has another process, or another connection. */
	servers_connected(server, 20000, &connection, 100);
	servers_cleaned(server, 20000);
	servers_heartbeat(server, 20000, &other, 100, false, &again);
	assert_true(again);
	servers_heartbeat(server, 20000, &connection, 99, false, &again);
	assert_true(again);
	/* The connection broke: it gets nothing new, but may serve on until its lease ends or it is known to be gone. */
	assert_null(servers_connection_lost(servers, &other));
	assert_ptr_equal(servers_connection_lost(servers, &connection), server);
	assert_false(servers_is_dead(server, 20100));
	servers_gone(server, 20100);
	assert_true(servers_is_dead(server, 20100));
	assert_false(servers_is_usable(server, 20100));
	/* Another process in its place: the one before is gone. */
	servers_connected(server, 20150, &connection, 200);
	servers_cleaned(server, 20150);
	assert_false(servers_is_dead(server, 20160));
	servers_connected(server, 20170, &connection, 200);
	assert_false(servers_is_dead(server, 20170));
	servers_connected(server, 20180, &connection, 201);
	assert_true(servers_is_dead(server, 20180));
	/* No lease while a change that drops it is on its way, nor with a failed store. */
	servers_connected(server, 20200, &connection, 101);
	servers_cleaned(server, 20200);
	server->drops = 1;
	assert_int_equal(servers_heartbeat(server, 20300, &connection, 101, false, &again), 0);
	server->drops = 0;
	assert_int_equal(servers_heartbeat(server, 20300, &connection, 101, true, &again), 0);
	assert_false(servers_is_usable(server, 20300));
	/* Nor is one waited for that it has given back; but for that it must get none. */
	assert_false(servers_is_dead(server, 20350));
	servers_unleased(server, 20350);
	assert_true(servers_is_dead(server, 20350));
	servers_connected(server, 20400, &connection, 101);
	servers_cleaned(server, 20400);
	assert_true(servers_heartbeat(server, 20500, &connection, 101, false, &again) > 0);
	servers_unleased(server, 20500);
	assert_false(servers_is_dead(server, 20500));
	servers_close(servers);
}

static void test_server_order(void **state)
{
	const struct server_place where = { "a", "h", "z/r" };
	struct servers *servers = servers_open();

	(void)state;
	for (uint64_t i = 0; i < SERVERS_MAX; i++)
		assert_non_null(servers_set(servers, 1 + i * 7919 % 1031, &where));
	assert_null(servers_set(servers, 5000, &where));
	assert_int_equal(servers_count(servers), SERVERS_MAX);
	for (size_t i = 1; i < SERVERS_MAX; i++)
		assert_true(servers_at(servers, i - 1)->id < servers_at(servers, i)->id);
	assert_null(servers_find(servers, 6000));
	servers_close(servers);
}

static void test_candidates(void **state)
{
	struct placement_candidate candidates[2];
	struct servers *servers = servers_open();
	int connection;

	(void)state;
	struct server *first = servers_set(servers, 1, &(struct server_place){ "a:1", "h1", "z/r1" });
	servers_set(servers, 2, &(struct server_place){ "a:2", "h2", "" });
	servers_connected(first, 1000, &connection, 1);
	servers_cleaned(first, 1000);
	first->bytes_free = 77;
	first->load = 5;
	assert_int_equal(servers_candidates(servers, 1000, candidates), 2);
	assert_string_equal(candidates[0].location, "z/r1");
	assert_string_equal(candidates[0].host, "h1");
	assert_int_equal(candidates[0].bytes_free, 77);
	assert_int_equal(candidates[0].load, 5);
	assert_true(candidates[0].usable && candidates[0].expected);
	assert_false(candidates[1].usable);
	/* Away: not usable at once, not expected after long. */
	servers_candidates(servers, 1000 + CHUNKSERVER_LEASE_MS, candidates);
	assert_true(!candidates[0].usable && candidates[0].expected);
	servers_candidates(servers, 1000 + CHUNKSERVER_LEASE_MS + PLACEMENT_AWAY_MS, candidates);
	assert_false(candidates[0].expected);
	/* Its place is what it said last. */
	servers_set(servers, 1, &(struct server_place){ "a:1", "h1", "z/r2" });
	servers_candidates(servers, 1000, candidates);
	assert_string_equal(candidates[0].location, "z/r2");
	servers_close(servers);
}

static unsigned copies_wanted(void *arg, const Granary__MetaRequest *request, size_t at)
{
	assert_int_equal(request->ops[at]->op_case, GRANARY__META_OP__OP_ALLOCATE_CHUNK);
	return *(unsigned *)arg;
}

static void test_fill(void **state)
{
	struct servers *servers = servers_open();
	struct fill fill;
	unsigned copies = 3;
	int connection;
	bool full;
	Granary__MetaOp create_op = GRANARY__META_OP__INIT, chunk_op = GRANARY__META_OP__INIT;
	Granary__MetaOp *ops[] = { &create_op, &chunk_op };
	Granary__Create create = GRANARY__CREATE__INIT;
	Granary__AllocateChunk chunk = GRANARY__ALLOCATE_CHUNK__INIT;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;

	(void)state;
	create_op.op_case = GRANARY__META_OP__OP_CREATE;
	create_op.create = &create;
	chunk_op.op_case = GRANARY__META_OP__OP_ALLOCATE_CHUNK;
	chunk_op.allocate_chunk = &chunk;
	request.n_ops = 2;
	request.ops = ops;
	fill_init(&fill, 3, 42, servers);
	fill.copies = copies_wanted;
	fill.copies_arg = &copies;
	uint64_t time_ms = SNOWFLAKE_EPOCH_MS + 1000;

	/* No servers: after an election they are waited for, later the state machine says so. */
	fill.wait_until_ms = 500;
	assert_int_equal(fill_request(&fill, 100, time_ms, &request, &full), ERR_WOULD_BLOCK);
	assert_int_equal(fill_request(&fill, 500, time_ms, &request, &full), OK);
	assert_int_equal(chunk.n_replicas, 0);
	assert_false(full);

	for (uint64_t id = 1; id <= 3; id++) {
		struct server_place where = { "a:1", id == 1 ? "x" : id == 2 ? "y" : "z", "" };
		struct server *server = servers_set(servers, id, &where);
		servers_connected(server, 0, &connection, 1);
		servers_cleaned(server, 0);
		server->bytes_free = 1024ull * MIB;
	}
	assert_int_equal(fill_request(&fill, 100, time_ms, &request, &full), OK);
	assert_int_equal(chunk.n_replicas, 3);
	assert_int_not_equal(create.id, 0);
	assert_true(chunk.id > create.id);
	assert_int_equal(create.id >> 12 & 1023, 3);
	uint64_t last = chunk.id, own = create.id;
	/* An id that the client chose stays. As many copies as the class says. */
	copies = 2;
	assert_int_equal(fill_request(&fill, 100, time_ms, &request, &full), OK);
	assert_int_equal(create.id, own);
	assert_int_equal(chunk.n_replicas, 2);
	/* A block is a millisecond that nothing else is from. */
	uint64_t block = fill_ids(&fill, time_ms);
	assert_int_equal(block % SNOWFLAKE_BLOCK, 0);
	assert_true(block > chunk.id);
	create.id = 0;
	last = block + SNOWFLAKE_BLOCK - 1;
	/* The clock went back: ids still rise. */
	assert_int_equal(fill_request(&fill, 100, time_ms - 500, &request, &full), OK);
	assert_true(create.id > last);
	for (uint64_t id = 1; id <= 3; id++)
		servers_find(servers, id)->bytes_free = 0;
	assert_int_equal(fill_request(&fill, 100, time_ms, &request, &full), OK);
	assert_int_equal(chunk.n_replicas, 0);
	assert_true(full);
	fill_deinit(&fill);
	servers_close(servers);
}

/* Five servers; their latencies are told and judged for a while. */
static void tell(struct servers *servers, uint64_t *now_ms, uint64_t for_ms, const uint64_t *latencies)
{
	for (uint64_t end = *now_ms + for_ms; *now_ms < end; *now_ms += SLOW_JUDGE_MS) {
		for (size_t i = 0; i < 5; i++) {
			Granary__DiskHealth disk = GRANARY__DISK_HEALTH__INIT;
			struct server *server = servers_at(servers, i);
			bool again = false;
			disk.latency_us = latencies[i];
			servers_set_disk(server, &disk);
			if (servers_heartbeat(server, *now_ms, &servers, 1, false, &again) == 0 && again) {
				servers_connected(server, *now_ms, &servers, 1);
				servers_cleaned(server, *now_ms);
			}
		}
		servers_judge(servers, *now_ms);
	}
}

static void much_slower_than_peers_is_left_out(void **state)
{
	const uint64_t even[5] = { 900, 1000, 1100, 1200, 800 };
	const uint64_t one[5] = { 900, 1000, SLOW_JUDGE_MS * 1000, 1200, 800 };
	const uint64_t for_long[5] = { 900, 1000, SLOW_AFTER_MS * 1000, 1200, 800 };
	const uint64_t two[5] = { 900, 1000, 2000000, 1200, 2000000 };
	const uint64_t all[5] = { 300000, 300000, 400000, 300000, 500000 };
	struct servers *servers = servers_open();
	uint64_t now_ms = 100000;
	(void)state;
	for (uint64_t id = 1; id <= 5; id++) {
		struct server *server = servers_set(servers, id, &(struct server_place){ "a:1", "host", "" });
		servers_connected(server, now_ms, &servers, 1);
		servers_cleaned(server, now_ms);
	}
	struct server *third = servers_at(servers, 2), *fifth = servers_at(servers, 4);
	tell(servers, &now_ms, 10000, even);
	tell(servers, &now_ms, 10000, all); /* all are slow: nobody is */
	assert_false(third->slow || fifth->slow);
	tell(servers, &now_ms, SLOW_AFTER_MS - 3 * SLOW_JUDGE_MS, one);
	assert_false(third->slow);
	tell(servers, &now_ms, 5 * SLOW_JUDGE_MS, one);
	assert_true(third->slow);
	tell(servers, &now_ms, 3000, one);
	assert_true(servers_is_dead(third, now_ms) && !servers_is_usable(third, now_ms));
	/* Not a second one. */
	tell(servers, &now_ms, 10000, two);
	assert_true(third->slow && !fifth->slow);
	/* A moment's relief does not bring it back, a longer one does. */
	tell(servers, &now_ms, 5000, even);
	tell(servers, &now_ms, 1000, one);
	tell(servers, &now_ms, SLOW_BACK_MS - 2000, even);
	assert_true(third->slow);
	tell(servers, &now_ms, 4000, even);
	assert_false(third->slow);
	assert_true(servers_is_usable(third, now_ms));
	/* Another fails: it is needed. */
	tell(servers, &now_ms, SLOW_JUDGE_MS, for_long); /* it began then */
	assert_true(third->slow);
	fifth->failed = true;
	servers_judge(servers, now_ms + SLOW_JUDGE_MS);
	assert_false(third->slow);
	servers_close(servers);
}

/* What is left to be filled is what lacks copies less what has been sent of unfinished ones: both must lose a copy at once. */
static void test_copy_filled(void **state)
{
	struct server server = { .heard_ms = 1000 };

	(void)state;
	servers_note_fill(&server, 1300, 30, 30);
	servers_note_filled(&server, 20);
	assert_int_equal(server.filling_bytes, 10);
	servers_note_filled(&server, 20); /* its heartbeat was first */
	assert_int_equal(server.filling_bytes, 0);
	assert_int_equal(server.fill_bytes_heard, 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(much_slower_than_peers_is_left_out),
		cmocka_unit_test(test_session_expiry),	   cmocka_unit_test(test_session_opens),
		cmocka_unit_test(test_session_settled),	   cmocka_unit_test(test_session_repetition),
		cmocka_unit_test(test_server_leases),	   cmocka_unit_test(test_server_order),
		cmocka_unit_test(test_candidates),	   cmocka_unit_test(test_fill),
		cmocka_unit_test(test_copy_filled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
