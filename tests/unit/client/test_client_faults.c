/* Chunkservers that die, hang, rot or are full: what the client does about it. */
#include "client/file_io_internal.h"
#include "tests/unit/client/client_fixture.h"

static struct fake_cluster cluster;
static struct client *client;

static int setup(void **state)
{
	(void)state;
	fake_cluster_open(&cluster, 4);
	client = fixture_client(&cluster, 15000);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	client_close(client);
	fake_cluster_close(&cluster);
	return 0;
}

#define TOTAL(field) FIXTURE_TOTAL(&cluster, field)
#define SIZE (3 * MIB + 1000)

/* The head of the file's first chunk: the one that was asked to write. */
static struct fake_server *busiest(void)
{
	struct fake_server *most = &cluster.servers[0];
	for (unsigned i = 1; i < cluster.count; i++)
		if (cluster.servers[i].writes + cluster.servers[i].appends > most->writes + most->appends)
			most = &cluster.servers[i];
	return most;
}

static struct file_io *written_file(const char *name, const uint8_t *bytes, size_t size, uint64_t *inode)
{
	struct file_io *io = fixture_create(&cluster, client, name, inode);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, size), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	return io;
}

static void test_head_is_killed(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(SIZE, 1), *other = fixture_bytes(SIZE, 2);
	struct file_io *io = written_file("killed", bytes, SIZE, &inode);
	(void)state;
	uint64_t start = loop_now_us(cluster.loop);
	fake_server_kill(busiest());
	assert_int_equal(fixture_write(&cluster, io, 0, other, SIZE), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	/* A reset connection is found out at once: no lease is waited for. */
	assert_in_range((loop_now_us(cluster.loop) - start) / 1000, 0, 1000);
	fixture_expect(&cluster, io, other, SIZE);
	fixture_expect_elsewhere(&cluster, inode, other, SIZE);
	fixture_close(client, io, inode);
	free(bytes);
	free(other);
}

static void test_head_is_silent(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(SIZE, 3), *other = fixture_bytes(SIZE, 4);
	struct file_io *io = written_file("silent", bytes, SIZE, &inode);
	struct fake_server *head = busiest();
	(void)state;
	uint64_t start = loop_now_us(cluster.loop);
	head->silent = head->no_heartbeat = true;
	assert_int_equal(fixture_write(&cluster, io, 0, other, SIZE), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	/* The lease time, and until the suspicion after it. */
	assert_in_range((loop_now_us(cluster.loop) - start) / 1000, 500, CHUNKSERVER_LEASE_MS + 2 * CLIENT_SUSPECT_MS);
	fixture_expect(&cluster, io, other, SIZE);
	fixture_expect_elsewhere(&cluster, inode, other, SIZE);
	fixture_close(client, io, inode);
	free(bytes);
	free(other);
}

/* A change is answered, and its file closed, while the leader is still being asked what the chain is now. */
static void test_a_place_goes_before_its_report(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(SIZE, 10);
	struct answer answer = {0};
	struct file_io *io = written_file("gone", bytes, SIZE, &inode);
	struct fake_server *head = busiest();
	struct chunk_map *map = mem_alloc(sizeof *map);
	(void)state;
	const struct location *location = place_find(client, &(struct place){.map = &io->map});
	uint64_t chunk = location->chunk, version = location->version;
	chunk_map_init(map, client, inode);
	fake_server_kill(head);
	place_report(client, &(struct place){.map = map}, chunk, version, head->id, answer_err, &answer);
	place_unreport(client, chunk, &answer);
	chunk_map_deinit(map);
	free(map);
	while (client->failures)
		loop_run_once(cluster.loop);
	assert_false(answer.done);
	fixture_expect(&cluster, io, bytes, SIZE);
	fixture_close(client, io, inode);
	free(bytes);
}

static void test_lost_answers_are_applied_once(void **state)
{
	uint64_t inode, small_inode;
	uint8_t *bytes = fixture_bytes(SIZE, 5);
	struct file_io *io = fixture_create(&cluster, client, "lost", &inode);
	(void)state;
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].lose_replies = 3;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, SIZE), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	assert_true(TOTAL(repeated) >= 1);
	fixture_expect_elsewhere(&cluster, inode, bytes, SIZE);
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].lose_replies = 1;
	struct file_io *small = written_file("lost2", bytes, 1000, &small_inode);
	fixture_expect_elsewhere(&cluster, small_inode, bytes, 1000);
	fixture_close(client, io, inode);
	fixture_close(client, small, small_inode);
	free(bytes);
}

static void test_rotten_replicas(void **state)
{
	uint64_t inode, small_inode;
	uint8_t *bytes = fixture_bytes(SIZE, 6), *got = mem_alloc(SIZE);
	size_t done;
	struct file_io *io = written_file("rotten", bytes, SIZE, &inode);
	struct file_io *small = written_file("rotten2", bytes, 5000, &small_inode);
	(void)state;
	cluster.servers[0].corrupt = cluster.servers[1].corrupt = true;
	for (unsigned i = 0; i < 10; i++) {
		fixture_expect(&cluster, io, bytes, SIZE);
		fixture_expect(&cluster, small, bytes, 5000);
	}
	cluster.servers[2].corrupt = cluster.servers[3].corrupt = true;
	uint64_t start = loop_now_us(cluster.loop);
	assert_int_equal(fixture_read(&cluster, io, 0, got, 5000, &done), ERR_CORRUPT);
	assert_int_equal(fixture_read(&cluster, small, 0, got, 5000, &done), ERR_CORRUPT);
	assert_in_range((loop_now_us(cluster.loop) - start) / 1000, 0, 2000);
	fixture_close(client, io, inode);
	fixture_close(client, small, small_inode);
	free(bytes);
	free(got);
}

static void test_reader_leaves_a_silent_replica(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(SIZE, 7);
	struct file_io *io = written_file("reader", bytes, SIZE, &inode);
	(void)state;
	cluster.servers[1].silent = cluster.servers[2].silent = true;
	uint64_t start = loop_now_us(cluster.loop);
	fixture_expect(&cluster, io, bytes, SIZE);
	/* Long before an attempt is over: once each. */
	assert_in_range((loop_now_us(cluster.loop) - start) / 1000, 0, 2 * CLIENT_HEDGE_MS_MAX + 200);
	/* Now it knows better. */
	start = loop_now_us(cluster.loop);
	fixture_expect(&cluster, io, bytes, SIZE);
	assert_in_range((loop_now_us(cluster.loop) - start) / 1000, 0, CLIENT_HEDGE_MS_MAX);
	fixture_close(client, io, inode);
	free(bytes);
}

static void test_no_space_is_told_once(void **state)
{
	uint64_t inode, small_inode;
	uint8_t *bytes = fixture_bytes(SIZE, 8);
	struct file_io *io = fixture_create(&cluster, client, "full", &inode);
	struct file_io *small = fixture_create(&cluster, client, "full2", &small_inode);
	(void)state;
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].no_space = true;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, SIZE), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), ERR_NO_SPACE);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_int_equal(fixture_write(&cluster, small, 0, bytes, 100), OK);
	assert_int_equal(fixture_flush(&cluster, small, true), ERR_NO_SPACE);
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].no_space = false;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, SIZE), OK);
	assert_int_equal(fixture_write(&cluster, small, 0, bytes, 100), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_int_equal(fixture_flush(&cluster, small, true), OK);
	fixture_expect_elsewhere(&cluster, inode, bytes, SIZE);
	fixture_expect_elsewhere(&cluster, small_inode, bytes, 100);
	fixture_close(client, io, inode);
	fixture_close(client, small, small_inode);
	free(bytes);
}

/* A blob that could not be turned into chunks is as it was. */
static void test_a_blob_survives_a_failed_change(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(SIZE, 10);
	struct file_io *io = written_file("survivor", bytes, 5000, &inode);
	(void)state;
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].no_space = true;
	assert_int_equal(fixture_write(&cluster, io, 4000, bytes, 300000), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), ERR_NO_SPACE);
	fixture_expect(&cluster, io, bytes, 5000);
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].no_space = false;
	fixture_expect_elsewhere(&cluster, inode, bytes, 5000);
	memmove(bytes + 4000, bytes, 1000);
	assert_int_equal(fixture_write(&cluster, io, 4000, bytes + 4000, 1000), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	fixture_expect_elsewhere(&cluster, inode, bytes, 5000);
	fixture_close(client, io, inode);
	free(bytes);
}

/* No server has a chunk any more that was written: an error, for those who wrote it and for others. One that was given out and never
 * written is zeros. */
static void test_lost_everywhere(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(SIZE, 10), got[5000], zeros[5000] = {0};
	size_t done;
	struct file_io *io = written_file("gone", bytes, SIZE, &inode);
	(void)state;
	/* Overwritten in one round trip, as ever: the chunk is known to have content. */
	uint64_t syncs = TOTAL(synced_writes);
	assert_int_equal(fixture_write(&cluster, io, 4096, bytes, 4096), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	assert_int_equal(TOTAL(synced_writes), syncs + 1);
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__AllocateChunk allocate = GRANARY__ALLOCATE_CHUNK__INIT;
	allocate.inode = inode;
	allocate.index = 2;
	op.op_case = GRANARY__META_OP__OP_ALLOCATE_CHUNK;
	op.allocate_chunk = &allocate;
	Granary__MetaReply *reply = fixture_meta(&cluster, client, &op, OK);
	message_free(&reply->base);
	assert_int_equal(fixture_truncate(&cluster, io, 3ull * CHUNK_BYTES), OK);
	for (unsigned i = 0; i < cluster.count; i++)
		fake_server_lose(&cluster.servers[i]);
	struct client *other = fixture_client(&cluster, 15000);
	struct file_io *theirs = fixture_open(&cluster, other, inode);
	assert_int_equal(fixture_read(&cluster, theirs, 0, got, sizeof got, &done), ERR_NO_CHUNK);
	assert_int_equal(fixture_read(&cluster, io, 0, got, sizeof got, &done), ERR_NO_CHUNK);
	assert_int_equal(fixture_read(&cluster, theirs, 2ull * CHUNK_BYTES, got, sizeof got, &done), OK);
	assert_int_equal(done, sizeof got);
	assert_memory_equal(got, zeros, sizeof got);
	fixture_close(other, theirs, inode);
	client_close(other);
	fixture_close(client, io, inode);
	free(bytes);
}

/* Closing ends what is under way: each call once, with ERR_CANCELLED. */
static void test_close_cancels(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(SIZE, 9);
	struct answer flush = {0}, read = {0}, truncate = {0}, later = {0};
	struct client *other = fixture_client(&cluster, 15000);
	struct file_io *io = fixture_create(&cluster, other, "cancel", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, SIZE), OK);
	for (unsigned i = 0; i < cluster.count; i++)
		cluster.servers[i].silent = true;
	file_io_flush(io, answer_err, &flush);
	file_io_read(io, 0, 1000, answer_read, &read);
	file_io_truncate(io, 5, answer_err, &truncate);
	file_io_sync(io, answer_err, &later);
	for (unsigned i = 0; i < 5; i++)
		loop_run_once(cluster.loop);
	client_close(other);
	assert_true(flush.done && read.done && truncate.done && later.done);
	assert_int_equal(flush.err, ERR_CANCELLED);
	assert_int_equal(read.err, ERR_CANCELLED);
	assert_int_equal(truncate.err, ERR_CANCELLED);
	assert_int_equal(later.err, ERR_CANCELLED);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_head_is_killed, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_head_is_silent, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_place_goes_before_its_report, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_lost_answers_are_applied_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_rotten_replicas, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_reader_leaves_a_silent_replica, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_space_is_told_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_blob_survives_a_failed_change, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_lost_everywhere, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_close_cancels, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
