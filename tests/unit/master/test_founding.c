/* How a master with a fresh directory comes into its cluster: the answers of the others are the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/message.h"
#include "master/founding.h"
#include "master/members.h"

#define OTHERS 2
#define OUR_ID 1u
#define OUR_NODE 0x1111u
#define WAIT_US 20000000u

/* Another master, as it answers. */
struct other {
	struct rpc *rpc;
	struct rpc_identity identity;
	bool silent, founded;
	uint64_t id, node;
	const char *cluster;
	Granary__Founder founders[3], *pointers[3];
	size_t founder_count;
	unsigned asked;
};

struct fixture {
	struct loop *loop;
	struct rpc *rpc;
	struct rpc_identity identity;
	struct other others[OTHERS];
	struct members members;
	struct founding *founding;
	bool ended;
	struct founders founders;
};

static void serve(void *arg, struct rpc_request *request)
{
	struct other *other = arg;
	Granary__FoundingReply reply = GRANARY__FOUNDING_REPLY__INIT;
	assert_int_equal(request->type, MESSAGE_FOUNDING);
	assert_int_equal(((const Granary__FoundingRequest *)request->message)->node, OUR_NODE);
	other->asked++;
	if (other->silent) {
		rpc_reply_error(request, ERR_BUSY, NULL);
		return;
	}
	reply.id = other->id;
	reply.node = other->node;
	reply.founded = other->founded;
	reply.cluster_name = (char *)(uintptr_t)other->cluster;
	reply.founders = other->pointers;
	reply.n_founders = other->founder_count;
	rpc_reply(request, &reply.base);
}

static const struct rpc_service service = { .serve = serve };

static int setup(void **state)
{
	struct fixture *fixture = mem_zero(1, sizeof(*fixture));
	assert_int_equal(loop_open(&fixture->loop), OK);
	fixture->identity = (struct rpc_identity){ .role = RPC_MASTER, .id = OUR_ID };
	assert_int_equal(rpc_open(fixture->loop, &fixture->identity, NULL, NULL, &fixture->rpc), OK);
	assert_int_equal(members_put(&fixture->members, OUR_ID, "127.0.0.1:1"), OK);
	for (unsigned i = 0; i < OTHERS; i++) {
		struct other *other = &fixture->others[i];
		*other = (struct other){ .id = OUR_ID + 1 + i, .node = 0x2222u * (i + 1), .cluster = "here" };
		other->identity = (struct rpc_identity){ .role = RPC_MASTER, .id = other->id };
		assert_int_equal(rpc_open(fixture->loop, &other->identity, &service, other, &other->rpc), OK);
		assert_int_equal(rpc_listen(other->rpc, "127.0.0.1:0"), OK);
		assert_int_equal(members_put(&fixture->members, other->id, rpc_address(other->rpc)), OK);
	}
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	founding_close(fixture->founding);
	rpc_close(fixture->rpc);
	for (unsigned i = 0; i < OTHERS; i++)
		rpc_close(fixture->others[i].rpc);
	loop_close(fixture->loop);
	free(fixture);
	return 0;
}

static void founded(void *arg, const struct founders *founders)
{
	struct fixture *fixture = arg;
	fixture->ended = true;
	fixture->founders = *founders;
	founding_close(fixture->founding);
	fixture->founding = NULL;
}

static void begin(struct fixture *fixture)
{
	struct founding_options options = { .loop = fixture->loop,
					    .rpc = fixture->rpc,
					    .members = &fixture->members,
					    .id = OUR_ID,
					    .node = OUR_NODE,
					    .cluster = "here",
					    .founded = founded,
					    .arg = fixture };
	fixture->founding = founding_open(&options);
}

#define WAIT_FOR(fixture, condition)                                                               \
	do {                                                                                       \
		uint64_t until = loop_now_us((fixture)->loop) + WAIT_US;                           \
		while (!(condition)) {                                                             \
			assert_true(loop_now_us((fixture)->loop) < until);                         \
			loop_run_once((fixture)->loop);                                            \
		}                                                                                  \
	} while (0)

/* Rounds that say nothing new. */
static void wait_rounds(struct fixture *fixture, unsigned rounds)
{
	unsigned end = fixture->others[1].asked + rounds;
	WAIT_FOR(fixture, fixture->ended || fixture->others[1].asked >= end);
}

static void all_fresh_found_it(void **state)
{
	struct fixture *fixture = *state;
	begin(fixture);
	WAIT_FOR(fixture, fixture->ended);
	assert_int_equal(fixture->founders.count, 3);
	assert_true(founders_have(&fixture->founders, OUR_ID, OUR_NODE));
	for (unsigned i = 0; i < OTHERS; i++) {
		assert_true(founders_have(&fixture->founders, fixture->others[i].id, fixture->others[i].node));
		assert_true(fixture->others[i].asked >= 2);
	}
}

/* Of whoever does not answer, or is another than configured, it is not known that it has no vote. */
static void one_that_is_missing_is_waited_for(void **state)
{
	struct fixture *fixture = *state;
	fixture->others[0].silent = true;
	begin(fixture);
	wait_rounds(fixture, 5);
	assert_false(fixture->ended);
	fixture->others[0].silent = false;
	fixture->others[0].cluster = "elsewhere";
	wait_rounds(fixture, 5);
	assert_false(fixture->ended);
	fixture->others[0].cluster = "here";
	fixture->others[0].id = 7;
	wait_rounds(fixture, 5);
	assert_false(fixture->ended);
	fixture->others[0].id = OUR_ID + 1;
	WAIT_FOR(fixture, fixture->ended);
	assert_int_equal(fixture->founders.count, 3);
}

/* Its disk is replaced between the rounds: the list has the last one. */
static void nodes_that_change_are_asked_again(void **state)
{
	struct fixture *fixture = *state;
	begin(fixture);
	for (unsigned i = 0; i < 4; i++) {
		unsigned asked = fixture->others[0].asked;
		WAIT_FOR(fixture, fixture->others[0].asked > asked || fixture->ended);
		assert_false(fixture->ended);
		fixture->others[0].node += 0x10000;
	}
	uint64_t node = fixture->others[0].node;
	WAIT_FOR(fixture, fixture->ended);
	assert_true(founders_have(&fixture->founders, fixture->others[0].id, node));
}

static void list_founders(struct other *other, uint64_t our_node)
{
	const uint64_t nodes[3] = { our_node, 0x2222, 0x4444 };
	other->founded = true;
	other->founder_count = 3;
	for (unsigned i = 0; i < 3; i++) {
		granary__founder__init(&other->founders[i]);
		other->founders[i].id = OUR_ID + i;
		other->founders[i].node = nodes[i];
		other->pointers[i] = &other->founders[i];
	}
}

/* It was there when the others founded the cluster. */
static void founder_that_slept_takes_the_list(void **state)
{
	struct fixture *fixture = *state;
	list_founders(&fixture->others[1], OUR_NODE);
	begin(fixture);
	WAIT_FOR(fixture, fixture->ended);
	assert_int_equal(fixture->founders.count, 3);
	assert_true(founders_have(&fixture->founders, OUR_ID, OUR_NODE));
}

/* The one of that id voted from another disk: this one has no vote. */
static void empty_disk_of_a_founder_does_not_found(void **state)
{
	struct fixture *fixture = *state;
	list_founders(&fixture->others[1], 0x9999);
	begin(fixture);
	WAIT_FOR(fixture, fixture->ended);
	assert_int_equal(fixture->founders.count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_fresh_found_it),
		TEST(one_that_is_missing_is_waited_for),
		TEST(nodes_that_change_are_asked_again),
		TEST(founder_that_slept_takes_the_list),
		TEST(empty_disk_of_a_founder_does_not_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
