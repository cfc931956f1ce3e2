/* Two clients, one file: what one writes the other sees, whatever form the content takes. */
#include "tests/unit/client/client_fixture.h"

static struct fake_cluster cluster;
static struct client *client, *other;

static int setup(void **state)
{
	(void)state;
	fake_cluster_open(&cluster, 3);
	client = fixture_client(&cluster, 10000);
	other = fixture_client(&cluster, 10000);
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

/* Both have it open all the time; each in turn gives it new content, and the other one reads it. */
static void test_content_of_every_form(void **state)
{
	static const size_t sizes[] = {100, 3 * MIB, 5000, 70000, 0, MIB, 1};
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(4 * MIB, 1);
	struct file_io *io = fixture_create(&cluster, client, "shared", &inode);
	struct file_io *io_other = fixture_open(&cluster, other, inode);
	(void)state;
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct file_io *writer = i % 2 ? io_other : io, *reader = i % 2 ? io : io_other;
		assert_int_equal(fixture_truncate(&cluster, writer, 0), OK);
		assert_int_equal(fixture_write(&cluster, writer, 0, bytes + i, sizes[i]), OK);
		assert_int_equal(fixture_flush(&cluster, writer, false), OK);
		fixture_expect(&cluster, reader, bytes + i, sizes[i]);
		fixture_expect(&cluster, writer, bytes + i, sizes[i]);
	}
	fixture_close(client, io, inode);
	fixture_close(other, io_other, inode);
	free(bytes);
}

/* Another reference to an open file does not make what is known of it any newer. */
static void test_a_reference_is_no_news(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(3000, 8);
	struct file_io *io = fixture_create(&cluster, client, "again", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 1000), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	struct file_io *io_other = fixture_open(&cluster, other, inode);
	fixture_expect(&cluster, io_other, bytes, 1000);
	assert_int_equal(fixture_truncate(&cluster, io, 0), OK);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes + 1000, 2000), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_ptr_equal(file_io_ref(io_other), io_other);
	fixture_expect(&cluster, io_other, bytes + 1000, 2000);
	file_io_close(io_other);
	fixture_expect(&cluster, io_other, bytes + 1000, 2000);
	fixture_close(client, io, inode);
	fixture_close(other, io_other, inode);
	free(bytes);
}

static void test_a_growing_file_is_followed(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(100000, 2);
	struct file_io *io = fixture_create(&cluster, client, "log", &inode);
	struct file_io *io_other = fixture_open(&cluster, other, inode);
	(void)state;
	for (unsigned i = 1; i <= 20; i++) {
		assert_int_equal(fixture_write(&cluster, io, (i - 1) * 500, bytes + (i - 1) * 500, 500), OK);
		assert_int_equal(fixture_flush(&cluster, io, i % 3 == 0), OK);
		fixture_expect(&cluster, io_other, bytes, i * 500);
	}
	fixture_close(client, io, inode);
	fixture_close(other, io_other, inode);
	free(bytes);
}

/* The first recall is not answered until the test calls `held`. */
static void (*held)(void *done_arg);
static void *held_arg;
static bool is_held;

static void hold_recall(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg), void *done_arg)
{
	(void)arg;
	(void)inode;
	(void)name;
	if (is_held) {
		done(done_arg);
		return;
	}
	is_held = true;
	held = done;
	held_arg = done_arg;
}

/* What tells the master a new mtime waits for somebody who caches the old one; he makes the file longer meanwhile. */
static void test_growth_is_seen_while_times_are_told(void **state)
{
	static const struct client_events holding = {.invalidate = hold_recall};
	struct client_options options = {.cluster = fake_cluster_address(&cluster), .timeout_ms = 10000, .events = &holding};
	struct client *holder;
	struct answer flushed = {0};
	uint64_t inode;
	uint8_t part[1000], *bytes = fixture_bytes(MIB + 1000, 4);
	size_t got;
	(void)state;
	struct file_io *io = fixture_create(&cluster, client, "times", &inode);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, MIB), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 1000), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	assert_int_equal(client_open(cluster.loop, &options, &holder), OK);
	struct file_io *io_holder = fixture_open(&cluster, holder, inode);
	file_io_flush(io, answer_err, &flushed);
	fake_cluster_run(&cluster, &is_held);
	assert_int_equal(fixture_write(&cluster, io_holder, MIB, bytes + MIB, 1000), OK);
	assert_int_equal(fixture_flush(&cluster, io_holder, false), OK);
	assert_false(flushed.done);
	assert_int_equal(fixture_read(&cluster, io, MIB, part, sizeof part, &got), OK);
	assert_int_equal(got, sizeof part);
	assert_memory_equal(part, bytes + MIB, sizeof part);
	held(held_arg);
	fake_cluster_run(&cluster, &flushed.done);
	assert_int_equal(flushed.err, OK);
	fixture_expect(&cluster, io, bytes, MIB + 1000);
	fixture_close(client, io, inode);
	fixture_close(holder, io_holder, inode);
	client_close(holder);
	free(bytes);
}

/* Overwrites of each other's blocks: the last one flushed is what both see. */
static void test_overwrites_in_turn(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(MIB, 3);
	struct rng rng;
	struct file_io *io = fixture_create(&cluster, client, "turns", &inode);
	(void)state;
	rng_init(&rng, 3);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, MIB), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	struct file_io *io_other = fixture_open(&cluster, other, inode);
	for (unsigned i = 0; i < 40; i++) {
		struct file_io *writer = i % 2 ? io_other : io, *reader = i % 2 ? io : io_other;
		size_t at = rng_below(&rng, MIB - 10000), size = 1 + rng_below(&rng, 10000);
		memset(bytes + at, (int)i, size);
		assert_int_equal(fixture_write(&cluster, writer, at, bytes + at, size), OK);
		assert_int_equal(fixture_flush(&cluster, writer, i % 5 == 0), OK);
		fixture_expect(&cluster, reader, bytes, MIB);
	}
	fixture_close(client, io, inode);
	fixture_close(other, io_other, inode);
	free(bytes);
}

/* Data that nobody flushes is written by itself. */
static void test_writeback(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(1000, 4);
	struct file_io *io = fixture_create(&cluster, client, "idle", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 1000), OK);
	uint64_t start = loop_now_us(cluster.loop);
	while (file_io_dirty(io)) {
		loop_run_once(cluster.loop);
		assert_true(loop_now_us(cluster.loop) - start < (CLIENT_WRITEBACK_MS + 2000) * 1000ull);
	}
	fixture_expect_elsewhere(&cluster, inode, bytes, 1000);
	fixture_close(client, io, inode);
	free(bytes);
}

/* More than CLIENT_DIRTY_BYTES_MAX: writers wait, and everything arrives. */
static void test_backpressure(void **state)
{
	enum { FILES = 100, EACH = 200000 };
	uint64_t inodes[FILES];
	struct file_io *ios[FILES];
	struct answer answers[FILES] = {0};
	uint8_t *bytes = fixture_bytes(EACH, 5);
	(void)state;
	/* Small files are buffered whole: together they are not more than the bound, but with one large file they are.
	 */
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];
		snprintf(name, sizeof name, "p%u", i);
		ios[i] = fixture_create(&cluster, client, name, &inodes[i]);
		file_io_write(ios[i], 0, slice_of(bytes, EACH), answer_err, &answers[i]);
	}
	uint8_t *large = fixture_bytes(CLIENT_DIRTY_BYTES_MAX, 6);
	uint64_t inode;
	struct file_io *io = fixture_create(&cluster, client, "large", &inode);
	struct answer answer = {0};
	file_io_write(io, 0, slice_of(large, CLIENT_DIRTY_BYTES_MAX), answer_err, &answer);
	for (unsigned i = 0; i < 2; i++)
		loop_run_once(cluster.loop);
	assert_false(answer.done);
	fake_cluster_run(&cluster, &answer.done);
	assert_int_equal(answer.err, OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	fixture_expect_elsewhere(&cluster, inode, large, CLIENT_DIRTY_BYTES_MAX);
	for (unsigned i = 0; i < FILES; i++) {
		assert_true(answers[i].done);
		assert_int_equal(fixture_flush(&cluster, ios[i], false), OK);
		fixture_close(client, ios[i], inodes[i]);
	}
	fixture_expect_elsewhere(&cluster, inodes[50], bytes, EACH);
	fixture_close(client, io, inode);
	free(large);
	free(bytes);
}

/* A small file read ahead: fetched once for the reader, not given to him when others have changed it since, and when nobody had it
 * right the reader learns that by himself. */
static void test_read_ahead(void **state)
{
	enum { SIZE = 5000 };
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(2 * SIZE, 7);
	struct file_io *io = fixture_create(&cluster, client, "small", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, SIZE), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	struct file_io *io_other = fixture_open(&cluster, other, inode);
	file_io_read_ahead(io_other);
	file_io_read_ahead(io_other);
	fixture_expect(&cluster, io_other, bytes, SIZE);
	assert_int_equal(FIXTURE_TOTAL(&cluster, blob_reads), 1);
	fixture_expect(&cluster, io_other, bytes, SIZE);
	assert_int_equal(FIXTURE_TOTAL(&cluster, blob_reads), 2);

	for (unsigned i = 0; i < 3; i++) { /* before it has come, while it is there, and after a part of it was read */
		uint8_t part[10];
		size_t got;
		file_io_read_ahead(io_other);
		if (i > 0)
			assert_int_equal(fixture_read(&cluster, io_other, 1, part, sizeof part, &got), OK);
		bytes += i % 2 ? SIZE : 0;
		assert_int_equal(fixture_truncate(&cluster, io, 0), OK);
		assert_int_equal(fixture_write(&cluster, io, 0, bytes, SIZE), OK);
		assert_int_equal(fixture_flush(&cluster, io, false), OK);
		fixture_expect(&cluster, io_other, bytes, SIZE);
		bytes -= i % 2 ? SIZE : 0;
	}
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].corrupt = true;
	size_t got;
	uint8_t part[10];
	file_io_read_ahead(io_other);
	assert_int_equal(fixture_read(&cluster, io_other, 0, part, sizeof part, &got), ERR_CORRUPT);
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].corrupt = false;
	fixture_expect(&cluster, io_other, bytes, SIZE);
	fixture_close(other, io_other, inode);

	io_other = fixture_open(&cluster, other, inode);
	file_io_read_ahead(io_other);
	fixture_close(other, io_other, inode);
	io_other = fixture_open(&cluster, other, inode); /* while the first one's is under way */
	fixture_expect(&cluster, io_other, bytes, SIZE);
	file_io_read_ahead(io_other);
	fixture_close(other, io_other, inode);
	fixture_close(client, io, inode);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_content_of_every_form, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_reference_is_no_news, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_growing_file_is_followed, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_growth_is_seen_while_times_are_told, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_overwrites_in_turn, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_writeback, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_backpressure, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_read_ahead, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
