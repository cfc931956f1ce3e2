/* Which answers may be cached. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/limits.h"
#include "master/grant.h"

struct exchange {
	Granary__Lookup lookup;
	Granary__MetaOp op, *ops[1];
	Granary__MetaRequest request;
	Granary__Inode attr;
	Granary__MetaResult result, *results[1];
	Granary__MetaReply reply;
};

static void exchange_init(struct exchange *exchange)
{
	granary__lookup__init(&exchange->lookup);
	granary__meta_op__init(&exchange->op);
	granary__meta_request__init(&exchange->request);
	granary__inode__init(&exchange->attr);
	granary__meta_result__init(&exchange->result);
	granary__meta_reply__init(&exchange->reply);
	exchange->lookup.parent = 1;
	exchange->lookup.name = message_borrow(slice_text("name"));
	exchange->op.op_case = GRANARY__META_OP__OP_LOOKUP;
	exchange->op.lookup = &exchange->lookup;
	exchange->ops[0] = &exchange->op;
	exchange->request.session = 7;
	exchange->request.n_ops = 1;
	exchange->request.ops = exchange->ops;
	exchange->result.inode = 9;
	exchange->result.attr = &exchange->attr;
	exchange->results[0] = &exchange->result;
	exchange->reply.n_results = 1;
	exchange->reply.results = exchange->results;
}

static void test_granted_and_stripped(void **state)
{
	(void)state;
	struct leases *leases = leases_open(100, CACHE_LEASE_MS);
	struct delegations *delegations = delegations_open(100, CACHE_LEASE_MS);
	struct exchange exchange;
	exchange_init(&exchange);
	grant_reply(leases, delegations, 1000, &exchange.request, &exchange.reply);
	assert_int_equal(exchange.result.lease_ms, LEASE_GRANTED_MS(CACHE_LEASE_MS));
	assert_int_equal(leases_count(leases), 2);
	grant_strip(&exchange.reply);
	assert_int_equal(exchange.result.lease_ms, 0);
	leases_close(leases);
	delegations_close(delegations);
}

/* Nobody need ever wait for a client that keeps nothing. */
static void test_uncached(void **state)
{
	(void)state;
	struct leases *leases = leases_open(100, CACHE_LEASE_MS);
	struct delegations *delegations = delegations_open(100, CACHE_LEASE_MS);
	struct exchange exchange;
	exchange_init(&exchange);
	exchange.request.uncached = true;
	grant_reply(leases, delegations, 1000, &exchange.request, &exchange.reply);
	assert_int_equal(exchange.result.lease_ms, 0);
	assert_int_equal(leases_count(leases), 0);
	leases_close(leases);
	delegations_close(delegations);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_granted_and_stripped),
		cmocka_unit_test(test_uncached),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
