/* What a chunk lacks and what is done about it; the queue; where a newcomer goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "master/placement.h"
#include "master/repair_policy.h"
#include "master/repair_queue.h"

#define SERVERS 5
#define NOW 100000u
#define DELAY 15000u

struct fixture {
	struct servers *servers;
	struct repair_question question;
	uint64_t replicas[REPLICAS_MAX], stale[STALE_COPIES_MAX];
	Granary__Chunk chunk;
	struct repair_verdict verdict;
};

static int connection;

static struct server *server_of(struct fixture *f, uint64_t id)
{
	return servers_find(f->servers, id);
}

/* Servers 1 to 5 are up, the chunk is on 1, 2, 3. */
static void open_fixture(struct fixture *f)
{
	static const char *const hosts[SERVERS] = { "a", "b", "c", "d", "e" };

	*f = (struct fixture){ .servers = servers_open() };
	for (uint64_t id = 1; id <= SERVERS; id++) {
		struct server *server = servers_set(f->servers, id, &(struct server_place){ "h:1", hosts[id - 1], "" });
		servers_connected(server, NOW, &connection, 7);
		servers_cleaned(server, NOW);
		server->bytes_free = 1ull << 40;
	}
	f->question = (struct repair_question){ .servers = f->servers, .now_ms = NOW, .since_ms = 1, .delay_ms = DELAY };
	granary__chunk__init(&f->chunk);
	f->chunk.version = 1;
	f->chunk.replicas = f->replicas;
	f->chunk.stale = f->stale;
	f->chunk.n_replicas = 3;
	for (uint64_t i = 0; i < 3; i++)
		f->replicas[i] = i + 1;
}

static void away(struct fixture *f, uint64_t id, uint64_t for_ms)
{
	struct server *server = server_of(f, id);

	server->connection = NULL;
	server->heard_ms = NOW - for_ms;
	server->lease_until_ms = NOW - for_ms;
}

static enum repair_action judge(struct fixture *f)
{
	repair_judge(&f->question, &f->chunk, &f->verdict);
	return f->verdict.action;
}

static void test_delay(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f);
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	assert_int_equal(f.verdict.lacking, 0);
	away(&f, 2, DELAY - 1);
	assert_int_equal(judge(&f), REPAIR_WAIT);
	assert_int_equal(f.verdict.complete, 2);
	away(&f, 2, DELAY);
	assert_int_equal(judge(&f), REPAIR_JOIN);
	assert_int_equal(f.verdict.kept_count, 2);
	assert_int_equal(f.verdict.dropped[0], 2);
	/* A new leader does not know since when. */
	f.question.since_ms = NOW - 10;
	assert_int_equal(judge(&f), REPAIR_WAIT);
	/* One copy left: only as long as servers take that start together. */
	f.question.since_ms = 1;
	away(&f, 2, REPAIR_ALONE_MS - 1);
	away(&f, 3, REPAIR_ALONE_MS - 1);
	assert_int_equal(judge(&f), REPAIR_WAIT);
	away(&f, 2, REPAIR_ALONE_MS);
	assert_int_equal(judge(&f), REPAIR_JOIN);
	assert_int_equal(f.verdict.dropped_count, 2);
	away(&f, 1, DELAY);
	assert_int_equal(judge(&f), REPAIR_WAIT); /* nobody to copy from */
	servers_close(f.servers);
}

static void test_failed_and_returning(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f);
	server_of(&f, 3)->failed = true;
	server_of(&f, 3)->lease_until_ms = NOW;
	assert_int_equal(judge(&f), REPAIR_JOIN); /* at once */
	servers_close(f.servers);
	open_fixture(&f);
	away(&f, 3, DELAY * 2);
	server_of(&f, 3)->connection = &connection; /* it is being cleaned */
	server_of(&f, 3)->cleaning = true;
	assert_int_equal(judge(&f), REPAIR_WAIT);
	servers_close(f.servers);
}

static void test_joining(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f);
	f.chunk.joining = 3;
	assert_int_equal(judge(&f), REPAIR_NOTHING); /* under way */
	assert_int_equal(f.verdict.complete, 2);
	assert_int_equal(f.verdict.lacking, 1);
	away(&f, 2, 1);
	assert_int_equal(judge(&f), REPAIR_DROP); /* its source is dead: the next one */
	assert_int_equal(f.verdict.kept_count, 2);
	away(&f, 1, 1);
	assert_int_equal(judge(&f), REPAIR_WAIT); /* never the newcomer alone */
	servers_close(f.servers);
}

static void test_stale(void **state)
{
	struct fixture f;

	(void)state;
	open_fixture(&f);
	f.chunk.n_replicas = 2;
	f.stale[0] = 4;
	f.chunk.n_stale = 1;
	assert_int_equal(judge(&f), REPAIR_JOIN);
	assert_int_equal(f.verdict.stale_count, 1);
	assert_int_equal(f.verdict.stale[0], 4);
	away(&f, 4, DELAY - 1);
	assert_int_equal(judge(&f), REPAIR_WAIT); /* it needs little, and may come back */
	away(&f, 4, DELAY);
	assert_int_equal(judge(&f), REPAIR_JOIN);
	assert_int_equal(f.verdict.stale_count, 0);
	servers_close(f.servers);
}

/* Fewer copies are wanted than there are. */
static void test_surplus(void **state)
{
	struct fixture f;
	Granary__DiskHealth disk = GRANARY__DISK_HEALTH__INIT;

	(void)state;
	open_fixture(&f);
	f.chunk.copies_wanted = 2;
	assert_int_equal(judge(&f), REPAIR_LEAVE);
	assert_int_equal(f.verdict.leaves, 3);
	/* Of two in one domain one of them. */
	servers_set(f.servers, 2, &(struct server_place){ "h:1", "a", "" });
	assert_int_equal(judge(&f), REPAIR_LEAVE);
	assert_int_equal(f.verdict.leaves, 2);
	/* Only while all is well. */
	disk.damage_found = 1;
	servers_set_disk(server_of(&f, 1), &disk);
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	disk.damage_repaired = 1;
	servers_set_disk(server_of(&f, 1), &disk);
	assert_int_equal(judge(&f), REPAIR_LEAVE);
	server_of(&f, 3)->uncertain = true;
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	server_of(&f, 3)->uncertain = false;
	away(&f, 3, 1);
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	servers_close(f.servers);
	open_fixture(&f);
	f.chunk.copies_wanted = 2;
	f.chunk.joining = 3;
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	f.chunk.joining = 0;
	f.chunk.frozen = true;
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	servers_close(f.servers);
}

/* Another has taken its place; or it is drained. */
static void test_moved(void **state)
{
	struct fixture f;
	Granary__DiskHealth disk = GRANARY__DISK_HEALTH__INIT;

	(void)state;
	open_fixture(&f);
	f.chunk.copies_wanted = 2;
	servers_set_draining(server_of(&f, 2), 0, true);
	assert_int_equal(judge(&f), REPAIR_LEAVE);
	assert_int_equal(f.verdict.leaves, 2);
	f.chunk.moving_from = 1;
	assert_int_equal(judge(&f), REPAIR_LEAVE);
	assert_int_equal(f.verdict.leaves, 1);
	/* What it has lost itself is no reason to keep it; what others have is. */
	disk.damage_found = 1;
	servers_set_disk(server_of(&f, 1), &disk);
	assert_int_equal(judge(&f), REPAIR_LEAVE);
	servers_set_disk(server_of(&f, 3), &disk);
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	disk.damage_repaired = 1;
	servers_set_disk(server_of(&f, 3), &disk);
	/* Not before the new one is complete, nor when one of the others is missing. */
	f.chunk.joining = 3;
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	f.chunk.joining = 0;
	away(&f, 3, 1);
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	/* There are no more than wanted: it stays, and counts although it is drained. */
	servers_close(f.servers);
	open_fixture(&f);
	f.chunk.moving_from = 1;
	servers_set_draining(server_of(&f, 1), 0, true);
	assert_int_equal(judge(&f), REPAIR_NOTHING);
	assert_int_equal(f.verdict.complete, 3);
	servers_close(f.servers);
}

static void test_queue(void **state)
{
	struct repair_queue *queue = repair_queue_open();
	struct repair_verdict one = { .complete = 1 }, two = { .complete = 2 };
	unsigned priority;

	(void)state;
	assert_int_equal(repair_queue_take(queue, &priority), 0);
	repair_queue_add(queue, 10, repair_priority(&two, false));
	repair_queue_add(queue, 11, repair_priority(&two, true));
	repair_queue_add(queue, 12, repair_priority(&one, false));
	repair_queue_add(queue, 13, repair_priority(&one, true));
	repair_queue_add(queue, 10, repair_priority(&two, false));
	repair_queue_add(queue, 11, repair_priority(&two, false)); /* stays where it is */
	assert_int_equal(repair_queue_count(queue), 4);
	for (uint64_t chunk = 13; chunk >= 10; chunk--)
		assert_int_equal(repair_queue_take(queue, &priority), chunk);
	for (uint64_t chunk = 1; chunk <= REPAIR_QUEUE_MAX + 5; chunk++)
		repair_queue_add(queue, chunk, 0);
	assert_int_equal(repair_queue_count(queue), REPAIR_QUEUE_MAX);
	repair_queue_close(queue);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_delay), cmocka_unit_test(test_failed_and_returning), cmocka_unit_test(test_joining),
		cmocka_unit_test(test_stale), cmocka_unit_test(test_surplus), cmocka_unit_test(test_moved),		   cmocka_unit_test(test_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
