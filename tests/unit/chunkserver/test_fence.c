/* Sessions that have expired write no more: what a chunkserver makes of what the leader tells it. */
#include "chunkserver/fence.h"

#include "common/base/limits.h"
#include "tests/unit/chunkserver/cluster.h"

static void restart(struct cluster *cluster)
{
	stop_server(cluster, 0);
	start_server(cluster, 0);
	WAIT_FOR(cluster, has_lease(cluster, 0));
}

static int setup(void **state)
{
	struct cluster *cluster = mem_zero(1, sizeof(*cluster));
	cluster_open(cluster);
	cluster->sessions_known = 100;
	cluster->sessions[0] = 90;
	cluster->sessions[1] = 40;
	restart(cluster);
	*state = cluster;
	return 0;
}

static void table(void **state)
{
	static const uint64_t live[] = { 30, 10, 20 };
	struct fence fence = { 0 };
	(void)state;
	assert_false(fence_refuses(&fence, 0));
	assert_false(fence_refuses(&fence, 7));
	fence_set(&fence, 100, live, 3);
	assert_false(fence_refuses(&fence, 0)); /* of none */
	assert_false(fence_refuses(&fence, 10));
	assert_false(fence_refuses(&fence, 30));
	assert_true(fence_refuses(&fence, 15)); /* ended before */
	assert_true(fence_refuses(&fence, 100));
	assert_false(fence_refuses(&fence, 101)); /* begun since */
	fence_add(&fence, 20);
	fence_add(&fence, 20);
	fence_add(&fence, 120);
	fence_add(&fence, 110);
	fence_add(&fence, 120);
	assert_true(fence_refuses(&fence, 20));
	assert_false(fence_refuses(&fence, 10));
	assert_false(fence_refuses(&fence, 30));
	assert_true(fence_refuses(&fence, 110));
	assert_true(fence_refuses(&fence, 120));
	assert_false(fence_refuses(&fence, 115));
	for (uint64_t id = 1000; !fence_is_full(&fence); id++)
		fence_add(&fence, id);
	assert_in_range(fence.ended_count, FENCED_SESSIONS_MAX, FENCED_SESSIONS_MAX + 1);
	fence_set(&fence, 1000000, live, 1);
	assert_false(fence_is_full(&fence));
	assert_true(fence_refuses(&fence, 115));
	assert_false(fence_refuses(&fence, 30));
	fence_deinit(&fence);
}

static enum err write_in(struct cluster *cluster, uint64_t session)
{
	return write_to(cluster, 0, &(struct write_options){ .chunk = CHUNK, .data = slice_text("written"), .session = session });
}

static void start_fence(struct cluster *cluster, int server, uint64_t *session, struct answer *answer)
{
	Granary__Fence message = GRANARY__FENCE__INIT;
	message.n_sessions = 1;
	message.sessions = session;
	*answer = (struct answer){ 0 };
	WAIT_FOR(cluster, cluster->conns[server] != NULL);
	rpc_conn_call(cluster->conns[server], MESSAGE_FENCE, &message.base, 20000, answered, answer);
}

static enum err fence_one(struct cluster *cluster, int server, uint64_t session)
{
	struct answer answer;
	start_fence(cluster, server, &session, &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	answer_free(&answer);
	return err;
}

static void writes_of_the_expired_are_refused(void **state)
{
	struct cluster *cluster = *state;
	uint8_t got[BLOCK_BYTES];
	assert_int_equal(write_in(cluster, 90), OK);
	assert_int_equal(write_in(cluster, 0), OK);
	assert_int_equal(write_in(cluster, 101), OK);
	assert_int_equal(write_in(cluster, 50), ERR_NO_SESSION); /* not among those that there are */
	assert_int_equal(fence_one(cluster, 0, 90), OK);
	assert_int_equal(fence_one(cluster, 0, 101), OK);
	assert_int_equal(write_in(cluster, 90), ERR_NO_SESSION);
	assert_int_equal(write_in(cluster, 101), ERR_NO_SESSION);
	assert_int_equal(write_in(cluster, 40), OK);
	assert_int_equal(write_in(cluster, 102), OK);
	for (int server = 0; server < SERVERS; server++) {
		assert_int_equal(read_from(cluster, server, CHUNK, 0, 7, got), OK);
		assert_memory_equal(got, "written", 7);
	}
	/* A server that starts anew has not been told: it learns it with its registration. */
	cluster->sessions[0] = 40;
	restart(cluster);
	assert_int_equal(write_in(cluster, 90), ERR_NO_SESSION);
	assert_int_equal(write_in(cluster, 40), OK);
}

/* A write that is under way when its session is fenced: the answer waits for it. */
static void fence_waits_for_writes(void **state)
{
	struct cluster *cluster = *state;
	uint64_t session = 90;
	struct answer written, fenced;
	assert_int_equal(write_in(cluster, 90), OK);
	start_write_to(cluster, 0, &(struct write_options){ .chunk = CHUNK, .data = slice_text("late"), .session = 90, .sync = true }, &written);
	struct chunk *chunk = chunk_store_find(chunkserver_service(cluster->servers[0])->store, CHUNK);
	assert_non_null(chunk);
	WAIT_FOR(cluster, chunk->first_op != NULL || written.done);
	start_fence(cluster, 0, &session, &fenced);
	WAIT_FOR(cluster, fenced.done);
	assert_int_equal(fenced.err, OK);
	WAIT_FOR(cluster, written.done);
	assert_true(written.err == OK || written.err == ERR_NO_SESSION);
	assert_null(chunk->first_op);
	answer_free(&written);
	answer_free(&fenced);
}

/* Only masters fence. */
static void clients_cannot_fence(void **state)
{
	struct cluster *cluster = *state;
	uint64_t session = 90;
	struct answer answer;
	Granary__Fence message = GRANARY__FENCE__INIT;
	message.n_sessions = 1;
	message.sessions = &session;
	start_call(cluster, 0, MESSAGE_FENCE, &message.base, slice_of(NULL, 0), &answer);
	WAIT_FOR(cluster, answer.done);
	assert_int_equal(answer.err, ERR_NOT_PERMITTED);
	answer_free(&answer);
	assert_int_equal(write_in(cluster, 90), OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, cluster_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
		TEST(writes_of_the_expired_are_refused),
		TEST(fence_waits_for_writes),
		TEST(clients_cannot_fence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
