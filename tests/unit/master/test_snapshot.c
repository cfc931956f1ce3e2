/* A snapshot served by one end and pulled by the other, over loopback; the place of the state machine's database. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/data/pairs.h"
#include "common/sys/file.h"
#include "master/install.h"
#include "master/snapshot.h"

#define PAIRS 4000u
#define DEADLINE_MS 20000u

/* What the server does wrong. */
enum fault { NONE, FLIP_PAGE, DROP_PAIR, END_EARLY, CRASH };

struct both {
	char directory[64], from[96], to[96];
	unsigned pulls;
	struct rpc_peer *peer; /* so that the connection outlives an install */
	struct loop *loop;
	struct rpc *server, *client;
	struct snapshots *snapshots;
	struct state_store *store;
	enum fault fault;
	unsigned reads, opens;
	bool done;
	enum err err;
	struct install_result result;
};

static void pair_of(unsigned i, char key[16], struct buf *value)
{
	snprintf(key, 16, "k%06u", i);
	buf_clear(value);
	for (unsigned k = 0; k < 20 + i % 300; k++)
		buf_append(value, &k, 1);
	if (i == 77) { /* as large as a value may be: a page of its own */
		buf_reserve(value, 900u * KIB);
		memset(value->bytes, 7, 900u * KIB);
		value->size = 900u * KIB;
	}
}

static void serve(void *arg, struct rpc_request *request)
{
	struct both *both = arg;

	if (request->type == MESSAGE_SNAPSHOT_OPEN) {
		struct snapshot_source source = { .store = both->store, .index = 42, .term = 3, .cluster = 9, .pairs_expected = PAIRS };
		both->opens++;
		snapshots_begin(both->snapshots, &source, request);
		return;
	}
	if (request->type == MESSAGE_SNAPSHOT_READ && ++both->reads == 3 && both->fault != NONE) {
		Granary__SnapshotPage page = GRANARY__SNAPSHOT_PAGE__INIT;
		struct buf pairs = { 0 };
		pairs_add(&pairs, slice_text("z"), slice_text("v"));
		page.pairs = message_borrow(buf_slice(&pairs));
		page.crc = crc32c(pairs.bytes, pairs.size) ^ (both->fault == FLIP_PAGE);
		page.last = both->fault == END_EARLY;
		if (both->fault == CRASH)
			rpc_reply_error(request, ERR_NOT_FOUND, NULL);
		else
			rpc_reply(request, &page.base);
		buf_deinit(&pairs);
		return;
	}
	snapshots_serve(both->snapshots, request);
}

static const struct rpc_service service = { .serve = serve };

static void both_open(struct both *both)
{
	static const struct rpc_identity identity = { .role = RPC_MASTER, .id = 1 };
	struct kv *kv;
	struct buf value = { 0 };
	char key[16];

	*both = (struct both){ 0 };
	snprintf(both->directory, sizeof(both->directory), "/tmp/granary-snapshot-XXXXXX");
	assert_non_null(mkdtemp(both->directory));
	snprintf(both->from, sizeof(both->from), "%s/from", both->directory);
	snprintf(both->to, sizeof(both->to), "%s/to", both->directory);
	assert_int_equal(loop_open(&both->loop), OK);
	assert_int_equal(rpc_open(both->loop, &identity, &service, both, &both->server), OK);
	assert_int_equal(rpc_open(both->loop, &identity, NULL, NULL, &both->client), OK);
	assert_int_equal(rpc_listen(both->server, "127.0.0.1:0"), OK);
	both->peer = rpc_peer_open(both->client, rpc_address(both->server));
	both->snapshots = snapshots_open(both->loop);
	assert_int_equal(kv_open(both->loop, both->from, NULL, &kv), OK);
	struct kv_batch *batch = kv_batch_open();
	for (unsigned i = 0; i < PAIRS; i++) {
		pair_of(i, key, &value);
		kv_batch_put(batch, slice_text(key), buf_slice(&value));
	}
	assert_int_equal(kv_write(kv, batch, false), OK);
	kv_batch_close(batch);
	buf_deinit(&value);
	both->store = state_store_of(kv);
}

static void both_close(struct both *both)
{
	rpc_peer_close(both->peer);
	rpc_close(both->client);
	rpc_close(both->server);
	snapshots_close(both->snapshots);
	state_store_unref(both->store);
	loop_close(both->loop);
	assert_int_equal(loop_open(&both->loop), OK);
	assert_int_equal(kv_remove(both->loop, both->from), OK);
	for (unsigned i = 0; i <= both->pulls; i++) {
		snprintf(both->to, sizeof(both->to), "%s/to-%u", both->directory, i);
		assert_int_equal(kv_remove(both->loop, both->to), OK);
		assert_int_equal(kv_remove(both->loop, both->to), OK); /* and when there is none */
	}
	loop_close(both->loop);
	assert_int_equal(rmdir(both->directory), 0);
}

static void on_done(void *arg, enum err err, const struct install_result *result)
{
	struct both *both = arg;

	both->done = true;
	both->err = err;
	if (result)
		both->result = *result;
}

static void nothing(void *arg)
{
	(void)arg;
}

static void run_until(struct both *both, const bool *done, uint64_t ms)
{
	struct timer wake;
	uint64_t until_us = loop_now_us(both->loop) + ms * 1000;

	timer_init(&wake, both->loop, nothing, NULL);
	while (!*done && loop_now_us(both->loop) < until_us) {
		timer_start(&wake, 10);
		loop_run_once(both->loop);
	}
	timer_stop(&wake);
}

static enum err pull(struct both *both)
{
	struct install_options options = { .loop = both->loop, .rpc = both->client, .path = both->to, .address = rpc_address(both->server),
					   .done = on_done, .arg = both };

	both->done = false;
	snprintf(both->to, sizeof(both->to), "%s/to-%u", both->directory, ++both->pulls);
	struct install *install = install_start(&options);
	run_until(both, &both->done, DEADLINE_MS);
	assert_true(both->done);
	install_close(install);
	return both->err;
}

static void check_pulled(struct both *both)
{
	struct kv_iterator *iterator = kv_iterator_open(both->result.kv);
	struct buf value = { 0 };
	char key[16];

	assert_int_equal(both->result.index, 42);
	assert_int_equal(both->result.term, 3);
	kv_iterator_seek(iterator, (struct slice){ 0 });
	for (unsigned i = 0; i < PAIRS; i++) {
		pair_of(i, key, &value);
		assert_true(kv_iterator_valid(iterator));
		assert_true(slice_equal(kv_iterator_key(iterator), slice_text(key)));
		assert_true(slice_equal(kv_iterator_value(iterator), buf_slice(&value)));
		kv_iterator_next(iterator);
	}
	assert_false(kv_iterator_valid(iterator));
	kv_iterator_close(iterator);
	buf_deinit(&value);
}

/* The snapshot stands still while the store goes on; what was pulled is a store as any other. */
static void test_pull(void **state)
{
	struct both both;

	(void)state;
	both_open(&both);
	assert_int_equal(pull(&both), OK);
	check_pulled(&both);
	struct kv_batch *batch = kv_batch_open();
	kv_batch_put(batch, slice_text("new"), slice_text("value"));
	assert_int_equal(kv_write(both.result.kv, batch, true), OK);
	kv_batch_close(batch);
	kv_close(both.result.kv);
	/* Again, into the same place: nothing of the first is left in it. */
	both.pulls--;
	assert_int_equal(pull(&both), OK);
	check_pulled(&both);
	kv_close(both.result.kv);
	assert_int_equal(both.opens, 2);
	both_close(&both);
}

static void test_faults(void **state)
{
	static const struct {
		enum fault fault;
		enum err err;
	} cases[] = { { FLIP_PAGE, ERR_CORRUPT }, { DROP_PAIR, ERR_INVALID }, { END_EARLY, ERR_CORRUPT }, { CRASH, ERR_NOT_FOUND } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct both both;
		both_open(&both);
		both.fault = cases[i].fault;
		assert_int_equal(pull(&both), cases[i].err);
		both.fault = NONE;
		assert_int_equal(pull(&both), OK);
		check_pulled(&both);
		kv_close(both.result.kv);
		both_close(&both);
	}
}

/* Closed in the middle, at any step; and the number of snapshots is bounded. */
static void test_bounds(void **state)
{
	struct both both;
	bool never = false;

	(void)state;
	both_open(&both);
	for (unsigned steps = 0; steps < 12; steps++) {
		struct install_options options = { .loop = both.loop, .rpc = both.client, .path = both.to,
						   .address = rpc_address(both.server), .done = on_done, .arg = &both };
		snprintf(both.to, sizeof(both.to), "%s/to-%u", both.directory, ++both.pulls);
		struct install *install = install_start(&options);
		for (unsigned i = 0; i < steps; i++)
			run_until(&both, &never, 1);
		if (both.done && both.err == OK)
			kv_close(both.result.kv);
		install_close(install);
		both.done = false;
	}
	run_until(&both, &never, 100);
	/* One that was closed before it knew its number is left to its time. */
	assert_true(snapshots_count(both.snapshots) <= 1);
	both_close(&both);
}

static void test_place(void **state)
{
	struct both both;
	struct state_place place = { .number = 3, .index = 17, .term = 4 }, found;
	char path[96];

	(void)state;
	both_open(&both);
	assert_int_equal(state_place_load(both.loop, both.directory, &found), OK);
	assert_int_equal(found.number, 0);
	assert_int_equal(state_place_save(both.loop, both.directory, &place), OK);
	assert_int_equal(state_place_load(both.loop, both.directory, &found), OK);
	assert_int_equal(found.number, 3);
	assert_int_equal(found.index, 17);
	assert_int_equal(found.term, 4);
	snprintf(path, sizeof(path), "%s/store", both.directory);
	assert_int_equal(file_replace(both.loop, path, slice_text("format = 1\nstate = 3\nindex = 17\nterm = 4 \n")), OK);
	assert_int_equal(state_place_load(both.loop, both.directory, &found), ERR_CORRUPT);
	assert_int_equal(file_unlink(both.loop, path), OK);
	assert_false(state_is_marked_damaged(both.loop, both.directory));
	state_mark_damaged(both.loop, both.directory);
	assert_true(state_is_marked_damaged(both.loop, both.directory));
	state_unmark_damaged(both.loop, both.directory);
	assert_false(state_is_marked_damaged(both.loop, both.directory));
	/* Swept: what is not in use, and nothing else. */
	for (unsigned i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), i == 3 ? "%s/states" : i ? "%s/state-%u" : "%s/state", both.directory, i);
		assert_int_equal(dir_make(both.loop, path), OK);
	}
	state_sweep(both.loop, both.directory, 2);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), i == 3 ? "%s/states" : i ? "%s/state-%u" : "%s/state", both.directory, i);
		assert_int_equal(rmdir(path), i >= 2 ? 0 : -1);
	}
	both_close(&both);
}

static void test_pairs(void **state)
{
	struct buf pairs = { 0 }, last = { 0 };
	struct slice rest, key, value;
	uint64_t count = 0;

	(void)state;
	pairs_add(&pairs, slice_text("a"), slice_text("1"));
	pairs_add(&pairs, slice_text("b"), slice_text(""));
	assert_int_equal(pairs_check(buf_slice(&pairs), &last, &count), OK);
	assert_int_equal(count, 2);
	assert_int_equal(pairs_check(buf_slice(&pairs), &last, &count), ERR_CORRUPT); /* not above "b" */
	rest = buf_slice(&pairs);
	assert_int_equal(pairs_take(&rest, &key, &value), OK);
	assert_true(slice_equal(key, slice_text("a")) && slice_equal(value, slice_text("1")));
	for (size_t size = 1; size < rest.size; size++) {
		struct slice cut = slice_of(rest.bytes, size);
		assert_int_equal(pairs_take(&cut, &key, &value), ERR_CORRUPT);
	}
	buf_deinit(&pairs);
	buf_deinit(&last);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs), cmocka_unit_test(test_place), cmocka_unit_test(test_pull),
		cmocka_unit_test(test_faults), cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
