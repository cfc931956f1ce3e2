/* The parts of the client that need no cluster: configuration, table of open files, order of replicas. */
#include <unistd.h>

#include "client/open_files.h"
#include "client/servers.h"
#include "common/sys/file.h"
#include "tests/unit/client/client_fixture.h"

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static void expect_cluster(struct loop *loop, const char *cluster, const char *config, const char *wanted)
{
	struct buf out = {0};
	enum err err = client_find_cluster(loop, cluster, config, &out);
	assert_int_equal(err, wanted ? OK : ERR_NOT_FOUND);
	if (wanted)
		assert_string_equal((const char *)out.bytes, wanted);
	buf_deinit(&out);
}

static void test_find_cluster(void **state)
{
	char directory[] = "/tmp/client_parts.XXXXXX", path[64], home[96];
	struct loop *loop;
	(void)state;
	assert_non_null(mkdtemp(directory));
	assert_int_equal(loop_open(&loop), OK);
	unsetenv("GRANARY_CLUSTER");
	unsetenv("GRANARY_CONFIG");
	setenv("HOME", directory, 1);
	if (access("/etc/granary/client.conf", F_OK) != 0)
		expect_cluster(loop, NULL, NULL, NULL);
	snprintf(path, sizeof path, "%s/client.conf", directory);
	write_text(path, "# comment\n[client]\ntimeout = 5s\n  cluster =  a:1,b:2 \r\ncluster = c:3\n");
	expect_cluster(loop, NULL, path, "a:1,b:2");
	expect_cluster(loop, "d:4", path, "d:4");
	setenv("GRANARY_CONFIG", path, 1);
	expect_cluster(loop, NULL, NULL, "a:1,b:2");
	setenv("GRANARY_CLUSTER", "e:5", 1);
	expect_cluster(loop, NULL, path, "e:5");
	unsetenv("GRANARY_CLUSTER");
	unsetenv("GRANARY_CONFIG");
	snprintf(home, sizeof home, "%s/.config/granary", directory);
	assert_int_equal(dir_make(loop, home), OK);
	snprintf(home, sizeof home, "%s/.config/granary/client.conf", directory);
	write_text(home, "cluster=home:1");
	expect_cluster(loop, NULL, NULL, "home:1");
	/* A file that was named and does not say it is an error, not a reason to look elsewhere. */
	write_text(path, "cluster =\n#cluster = x:1\nclusters = y:1\n");
	expect_cluster(loop, NULL, path, NULL);
	expect_cluster(loop, NULL, "/nonexistent", NULL);
	unlink(path);
	unlink(home);
	loop_close(loop);
}

static void tell(struct open_files *files, bool full, size_t opened, size_t closed, bool ok)
{
	Granary__SessionKeepalive message = GRANARY__SESSION_KEEPALIVE__INIT;
	open_files_tell(files, full, &message);
	assert_int_equal(message.n_opened, opened);
	assert_int_equal(message.n_closed, closed);
	open_files_free(&message);
	open_files_told(files, ok);
}

static void test_open_files(void **state)
{
	struct open_files files = {0};
	(void)state;
	open_files_opened(&files, 1);
	open_files_opened(&files, 1);
	open_files_opened(&files, 2);
	tell(&files, false, 2, 0, false);
	tell(&files, false, 2, 0, true); /* it was not taken: again */
	tell(&files, false, 0, 0, true);
	open_files_closed(&files, 1);
	tell(&files, false, 0, 0, true);
	open_files_closed(&files, 1);
	tell(&files, false, 0, 1, false);
	open_files_opened(&files, 1); /* as it is now, not as it was when telling failed */
	tell(&files, false, 1, 0, true);
	tell(&files, true, 2, 0, true);
	open_files_closed(&files, 1);
	open_files_closed(&files, 2);
	tell(&files, true, 0, 0, true);
	assert_null(files.table);
	/* Closed while a message is under way. */
	open_files_opened(&files, 3);
	Granary__SessionKeepalive message = GRANARY__SESSION_KEEPALIVE__INIT;
	open_files_tell(&files, false, &message);
	open_files_closed(&files, 3);
	open_files_free(&message);
	open_files_told(&files, true);
	tell(&files, false, 0, 1, true);
	assert_null(files.table);
	for (uint64_t i = 1; i <= 3 * CLIENT_CLOSED_PER_MESSAGE_MAX; i++) {
		open_files_opened(&files, i);
		open_files_closed(&files, i);
	}
	for (unsigned i = 0; i < 3; i++)
		tell(&files, false, 0, CLIENT_CLOSED_PER_MESSAGE_MAX, true);
	assert_null(files.table);
	open_files_opened(&files, 4);
	open_files_deinit(&files);
}

static void test_shuffle(void **state)
{
	struct server servers[3] = {{.id = 1, .latency_us = 100}, {.id = 2, .latency_us = 100}, {.id = 3, .latency_us = 10000}};
	struct location location = {.count = 3, .replicas = {&servers[0], &servers[1], &servers[2]}};
	struct server *order[REPLICAS_MAX];
	unsigned first[4] = {0};
	struct rng rng;
	(void)state;
	rng_init(&rng, 1);
	for (unsigned i = 0; i < 10000; i++) {
		location_shuffle(&location, &rng, 1000, order);
		assert_int_equal(order[0]->id ^ order[1]->id ^ order[2]->id, 1 ^ 2 ^ 3);
		assert_true(order[0] != order[1] && order[1] != order[2]);
		first[order[0]->id]++;
	}
	assert_in_range(first[1], 4500, 5500);
	assert_in_range(first[3], 10, 150); /* one hundredth of the others' weight */
	/* The same draw stays with its server when latencies change a little. */
	for (uint64_t i = 0; i < 100; i++) {
		struct server *later[REPLICAS_MAX];
		rng_init(&rng, i);
		location_shuffle(&location, &rng, 1000, order);
		servers[i % 2].latency_us = 101 + i / 4;
		rng_init(&rng, i);
		location_shuffle(&location, &rng, 1000, later);
		assert_memory_equal(order, later, 3 * sizeof order[0]);
	}
	/* Sick ones come last, but they come. */
	server_failed(&servers[0], 1000);
	for (unsigned i = 0; i < 100; i++) {
		location_shuffle(&location, &rng, 1001, order);
		assert_int_equal(order[2]->id, 1);
	}
	server_answered(&servers[0], 100);
	location_shuffle(&location, &rng, 1001, order);
	for (unsigned i = 0; i < 100 && order[0]->id != 1; i++)
		location_shuffle(&location, &rng, 1001, order);
	assert_int_equal(order[0]->id, 1);
}

static bool is_avoided(struct server *server, struct server *other, uint64_t now_ms)
{
	struct location location = {.count = 2, .replicas = {server, other}};
	struct server *order[REPLICAS_MAX];
	struct rng rng;
	rng_init(&rng, now_ms);
	for (unsigned i = 0; i < 50; i++) {
		location_shuffle(&location, &rng, now_ms, order);
		if (order[0] == server)
			return false;
	}
	return true;
}

/* Left for longer and longer; one read finds out whether it is back. */
static void test_ejection_and_return(void **state)
{
	struct server server = {.id = 1, .latency_us = 100}, other = {.id = 2, .latency_us = 100};
	(void)state;
	server_failed(&server, 1000);
	server_failed(&server, 1001); /* another read that was under way */
	assert_true(is_avoided(&server, &other, 1999));
	assert_false(is_avoided(&server, &other, 2000));
	server_asked(&server, 2000);
	assert_true(is_avoided(&server, &other, 2001));
	server_failed(&server, 2030);
	assert_true(is_avoided(&server, &other, 4029));
	assert_false(is_avoided(&server, &other, 4030));
	uint64_t now = 4030;
	for (unsigned i = 0; i < 10; i++) {
		server_asked(&server, now);
		server_failed(&server, now + 30);
		now = server.sick_until_ms;
	}
	assert_int_equal(server.sick_ms, 30000);
	server_asked(&server, now);
	server_answered(&server, 100);
	assert_false(is_avoided(&server, &other, now + 1));
	server_failed(&server, now + 10);
	assert_false(is_avoided(&server, &other, now + 1010));
}

static void test_hedges_are_bounded(void **state)
{
	struct servers servers = {0};
	unsigned hedges = 0;
	(void)state;
	assert_false(servers_may_hedge(&servers));
	for (unsigned i = 0; i < 10000; i++)
		servers_read_begins(&servers);
	for (unsigned i = 0; i < 100; i++)
		hedges += servers_may_hedge(&servers);
	assert_int_equal(hedges, CLIENT_HEDGES_MAX);
	for (unsigned i = 0; i < CLIENT_READS_PER_HEDGE; i++)
		servers_read_begins(&servers);
	assert_true(servers_may_hedge(&servers));
	assert_false(servers_may_hedge(&servers));
	struct server usual = {.latency_us = 200}, slow = {.latency_us = 20000}, very_slow = {.latency_us = 2000000};
	assert_int_equal(server_hedge_ms(&usual), CLIENT_HEDGE_MS_MIN);
	assert_int_equal(server_hedge_ms(&slow), 160);
	assert_int_equal(server_hedge_ms(&very_slow), CLIENT_HEDGE_MS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find_cluster),
		cmocka_unit_test(test_open_files),
		cmocka_unit_test(test_shuffle),
		cmocka_unit_test(test_ejection_and_return),
		cmocka_unit_test(test_hedges_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
