/* Three chunkservers in a chain, over loopback, with a master that only gives leases. */
#include "tests/unit/chunkserver/cluster.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/sys/log.h"
#include "tests/unit/chunkserver/leavings.h"

static uint8_t big[FRAME_DATA_BYTES_MAX];
static uint8_t got[FRAME_DATA_BYTES_MAX];

static void expect_text(struct cluster *cluster, int server, uint32_t offset, const char *text)
{
	assert_int_equal(read_from(cluster, server, CHUNK, offset, (uint32_t)strlen(text), got), OK);
	assert_memory_equal(got, text, strlen(text));
}

static enum err sync_chunk(struct cluster *cluster, uint64_t chunk)
{
	struct answer answer;
	Granary__ChunkSync message = GRANARY__CHUNK_SYNC__INIT;
	message.chunk = chunk;
	message.version = cluster->version;
	message.n_replicas = cluster->chain_count;
	message.replicas = cluster->chain;
	start_call(cluster, 0, MESSAGE_CHUNK_SYNC, &message.base, slice_of(NULL, 0), &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	answer_free(&answer);
	return err;
}

static void writes_are_read_from_every_replica(void **state)
{
	struct cluster *cluster = *state;
	struct write_options large = { .chunk = CHUNK, .offset = 1 * MIB, .data = slice_of(big, sizeof(big)) };
	struct write_options odd = { .chunk = CHUNK, .offset = 3 * MIB + 100, .data = slice_of(big, 20000), .sync = true };
	assert_int_equal(write_text(cluster, 5000, "hello chain"), OK);
	assert_int_equal(write_to(cluster, 0, &large), OK);
	assert_int_equal(write_to(cluster, 0, &odd), OK);
	assert_int_equal(write_text(cluster, 5006, "CHAIN"), OK);
	for (int server = 0; server < SERVERS; server++) {
		expect_text(cluster, server, 5000, "hello CHAIN");
		assert_int_equal(read_from(cluster, server, CHUNK, 1 * MIB, sizeof(big), got), OK);
		assert_memory_equal(got, big, sizeof(big));
		assert_int_equal(read_from(cluster, server, CHUNK, 3 * MIB + 100, 20000, got), OK);
		assert_memory_equal(got, big, 20000);
		/* A hole and what was never written. */
		assert_int_equal(read_from(cluster, server, CHUNK, 2 * MIB, 4096, got), OK);
		assert_int_equal(got[0] | got[4095], 0);
		assert_int_equal(read_from(cluster, server, CHUNK, 60 * MIB, 4096, got), OK);
	}
	assert_int_equal(sync_chunk(cluster, CHUNK), OK);
	assert_int_equal(sync_chunk(cluster, CHUNK + 1), ERR_NO_CHUNK);
	assert_int_equal(read_from(cluster, 1, CHUNK + 1, 0, 4096, got), ERR_NO_CHUNK);
}

static void many_writes_at_once(void **state)
{
	struct cluster *cluster = *state;
	enum { COUNT = 200 };
	static struct answer answers[COUNT];
	/* Overlapping in pairs and within blocks: the order of sending decides. */
	for (uint32_t i = 0; i < COUNT; i++) {
		struct write_options options = {
			.chunk = CHUNK, .offset = i / 2 * 1000, .data = slice_of(big + i, 1500), .sync = i % 10 == 0
		};
		start_write_to(cluster, 0, &options, &answers[i]);
	}
	static uint8_t expected[FRAME_DATA_BYTES_MAX];
	memset(expected, 0, sizeof(expected));
	for (uint32_t i = 0; i < COUNT; i++) {
		WAIT_FOR(cluster, answers[i].done);
		assert_int_equal(answers[i].err, OK);
		answer_free(&answers[i]);
		memcpy(expected + i / 2 * 1000, big + i, 1500);
	}
	for (int server = 0; server < SERVERS; server++) {
		assert_int_equal(read_from(cluster, server, CHUNK, 0, 100500, got), OK);
		assert_memory_equal(got, expected, 100500);
	}
}

/* Each server is the head of one chain, in the middle of another and the tail of a third, all with more in flight than a connection
 * serves at a time. */
static void chains_in_a_circle_do_not_wait_for_each_other(void **state)
{
	struct cluster *cluster = *state;
	enum { COUNT = 600 };
	static struct answer answers[SERVERS * COUNT];
	uint64_t since = loop_now_us(cluster->loop);
	for (uint32_t i = 0; i < SERVERS * COUNT; i++) {
		int head = (int)(i % SERVERS);
		use_chain(cluster, head, (head + 1) % SERVERS, (head + 2) % SERVERS);
		struct write_options options = {
			.chunk = CHUNK + i % SERVERS, .offset = i / SERVERS * 4096, .data = slice_of(big, 4096)
		};
		start_write_to(cluster, head, &options, &answers[i]);
	}
	for (uint32_t i = 0; i < SERVERS * COUNT; i++) {
		WAIT_FOR(cluster, answers[i].done);
		assert_int_equal(answers[i].err, OK);
		answer_free(&answers[i]);
	}
	assert_true(loop_now_us(cluster->loop) - since < 1000ull * CHAIN_TIMEOUT_MS);
}

static void retry_is_applied_once(void **state)
{
	struct cluster *cluster = *state;
	struct write_options first = { .chunk = CHUNK, .data = slice_text("first"), .operation = 900 };
	struct write_options again = { .chunk = CHUNK, .data = slice_text("again"), .operation = 900 };
	assert_int_equal(write_to(cluster, 0, &first), OK);
	assert_int_equal(write_text(cluster, 0, "second"), OK);
	assert_int_equal(write_to(cluster, 0, &again), OK);
	for (int server = 0; server < SERVERS; server++)
		expect_text(cluster, server, 0, "second");
	/* Two at once: the second is attached to the first. */
	struct answer answers[2];
	struct write_options twice = { .chunk = CHUNK, .data = slice_text("twice!"), .operation = 901, .sync = true };
	start_write_to(cluster, 0, &twice, &answers[0]);
	start_write_to(cluster, 0, &twice, &answers[1]);
	for (int i = 0; i < 2; i++) {
		WAIT_FOR(cluster, answers[i].done);
		assert_int_equal(answers[i].err, OK);
		answer_free(&answers[i]);
	}
	expect_text(cluster, 2, 0, "twice!");
}

/* A head that lost it with its power, and got it back from the others, has not synced it. */
static void write_that_was_done_is_synced(void **state)
{
	struct cluster *cluster = *state;
	struct write_options first = { .chunk = CHUNK, .data = slice_text("first"), .operation = 900 };
	struct write_options again = { .chunk = CHUNK, .data = slice_text("first"), .operation = 900, .sync = true };
	struct chunk *chunks[SERVERS];
	assert_int_equal(write_to(cluster, 0, &first), OK);
	for (int server = 0; server < SERVERS; server++) {
		chunks[server] = chunk_store_find(chunkserver_service(cluster->servers[server])->store, CHUNK);
		assert_true(chunk_is_unsynced(chunks[server]));
	}
	assert_int_equal(write_to(cluster, 0, &again), OK);
	for (int server = 0; server < SERVERS; server++)
		assert_false(chunk_is_unsynced(chunks[server]));
}

static void versions_only_go_up(void **state)
{
	struct cluster *cluster = *state;
	assert_int_equal(write_text(cluster, 0, "one"), OK);
	cluster->version = 3;
	assert_int_equal(write_text(cluster, 0, "two"), OK);
	cluster->version = 2;
	assert_int_equal(write_text(cluster, 0, "old"), ERR_STALE_VERSION);
	assert_int_equal(read_from(cluster, 1, CHUNK, 0, 3, got), ERR_STALE_VERSION);
	cluster->version = 3;
	for (int server = 0; server < SERVERS; server++)
		expect_text(cluster, server, 0, "two");
	/* The version is in the file: it survives a restart. */
	for (int server = 0; server < SERVERS; server++) {
		stop_server(cluster, server);
		start_server(cluster, server);
		WAIT_FOR(cluster, has_lease(cluster, server));
	}
	cluster->version = 2;
	assert_int_equal(write_text(cluster, 0, "old"), ERR_STALE_VERSION);
	cluster->version = 3;
	expect_text(cluster, 0, 0, "two");
	assert_int_equal(write_text(cluster, 0, "six"), OK);
	expect_text(cluster, 2, 0, "six");
}

static void spoiled_data_is_refused(void **state)
{
	struct cluster *cluster = *state;
	struct write_options spoiled = { .chunk = CHUNK, .data = slice_text("bad"), .spoil = true };
	assert_int_equal(write_text(cluster, 0, "good"), OK);
	assert_int_equal(write_to(cluster, 0, &spoiled), ERR_CORRUPT);
	for (int server = 0; server < SERVERS; server++)
		expect_text(cluster, server, 0, "good");
}

static void wrong_place_in_the_chain_is_refused(void **state)
{
	struct cluster *cluster = *state;
	struct write_options options = { .chunk = CHUNK, .data = slice_text("x") };
	assert_int_equal(write_to(cluster, 1, &options), ERR_INVALID);
	use_chain(cluster, 0, 1, -1);
	assert_int_equal(write_to(cluster, 2, &options), ERR_STALE_VERSION);
	assert_int_equal(read_from(cluster, 0, CHUNK, 0, 4096, got), ERR_NO_CHUNK);
}

static void without_a_lease_nothing_is_served(void **state)
{
	struct cluster *cluster = *state;
	assert_int_equal(write_text(cluster, 0, "leased"), OK);
	cluster->no_lease = true;
	for (int server = 0; server < SERVERS; server++)
		WAIT_FOR(cluster, !has_lease(cluster, server));
	assert_int_equal(write_text(cluster, 0, "nobody"), ERR_NO_LEASE);
	assert_int_equal(read_from(cluster, 1, CHUNK, 0, 4096, got), ERR_NO_LEASE);
	cluster->no_lease = false;
	for (int server = 0; server < SERVERS; server++)
		WAIT_FOR(cluster, has_lease(cluster, server));
	expect_text(cluster, 1, 0, "leased");
}

static void full_disk_says_so_and_recovers(void **state)
{
	struct cluster *cluster = *state;
	assert_int_equal(write_text(cluster, 0, "before"), OK);
	for (int server = 0; server < SERVERS; server++)
		chunk_store_set_reserved(chunkserver_service(cluster->servers[server])->store, UINT64_MAX);
	assert_int_equal(write_text(cluster, 0, "full!!"), ERR_NO_SPACE);
	assert_int_equal(write_to(cluster, 0, &(struct write_options){ .chunk = 99, .data = slice_text("new") }), ERR_NO_SPACE);
	expect_text(cluster, 0, 0, "before");
	for (int server = 0; server < SERVERS; server++)
		chunk_store_set_reserved(chunkserver_service(cluster->servers[server])->store, 1);
	assert_int_equal(write_text(cluster, 0, "after!"), OK);
	expect_text(cluster, 2, 0, "after!");
}

static void failed_store_writes_no_more(void **state)
{
	struct cluster *cluster = *state;
	struct answer answer;
	char id[24];
	assert_int_equal(write_text(cluster, 0, "before"), OK);
	chunk_store_fail(chunkserver_service(cluster->servers[1])->store, "test", ERR_IO);
	struct write_options options = { .chunk = CHUNK, .data = slice_text("after!") };
	start_write_to(cluster, 0, &options, &answer);
	WAIT_FOR(cluster, answer.done);
	snprintf(id, sizeof(id), "%" PRIu64, cluster->ids[1]);
	assert_int_equal(answer.err, ERR_CHAIN_BROKEN);
	assert_string_equal(answer.text, id);
	answer_free(&answer);
	WAIT_FOR(cluster, cluster->failed_server == cluster->ids[1] && cluster->store_failed);
	chunk_store_fail(chunkserver_service(cluster->servers[0])->store, "test", ERR_IO);
	assert_int_equal(write_text(cluster, 0, "after!"), ERR_STORE_FAILED);
	assert_int_equal(sync_chunk(cluster, CHUNK), ERR_STORE_FAILED);
	expect_text(cluster, 2, 0, "before");
}

static void full_tail_is_settled_later(void **state)
{
	struct cluster *cluster = *state;
	struct chunk_store *tail = chunkserver_service(cluster->servers[2])->store;
	assert_int_equal(write_text(cluster, 0, "before"), OK);
	chunk_store_set_reserved(tail, UINT64_MAX);
	assert_int_equal(write_text(cluster, 0, "middle"), ERR_NO_SPACE);
	/* Not readable where it may or may not have happened; elsewhere it has not. */
	assert_int_equal(read_from(cluster, 1, CHUNK, 0, 6, got), ERR_BUSY);
	expect_text(cluster, 2, 0, "before");
	chunk_store_set_reserved(tail, 1);
	/* The head brings them together without any client. */
	for (int server = 0; server < SERVERS; server++) {
		enum err err;
		do {
			err = read_from(cluster, server, CHUNK, 0, 6, got);
		} while (err == ERR_BUSY || err == ERR_NO_SPACE);
		assert_int_equal(err, OK);
	}
	for (int server = 0; server < SERVERS; server++)
		WAIT_FOR(cluster, read_from(cluster, server, CHUNK, 0, 6, got) == OK && memcmp(got, "middle", 6) == 0);
}

/* The master's word on it. */
/* A chunk that has content is not made anew, of zeros, by a write. */
static void lost_chunk_is_not_made_anew(void **state)
{
	struct cluster *cluster = *state;
	struct write_options part = { .chunk = CHUNK, .offset = 3, .data = slice_text("part"), .written = true };
	assert_int_equal(write_to(cluster, 0, &part), ERR_NO_CHUNK);
	WAIT_FOR(cluster, cluster->failed_chunk == CHUNK);
	assert_int_equal(tell_chain(cluster, 0, CHUNK, GRANARY__CHUNK_KIND__CHUNK_REPLICATED), OK);
	assert_int_equal(write_to(cluster, 0, &part), ERR_DATA_LOST);
	assert_int_equal(read_from(cluster, 0, CHUNK, 0, 6, got), ERR_NO_CHUNK);
	/* One that others have is taken from them first. */
	part.chunk = CHUNK + 1;
	use_chain(cluster, 1, 2, -1);
	assert_int_equal(write_to(cluster, 1, &(struct write_options){ .chunk = CHUNK + 1, .data = slice_text("whole content") }), OK);
	use_chain(cluster, 0, 1, 2);
	cluster->version++;
	assert_int_equal(write_to(cluster, 0, &part), ERR_NO_CHUNK);
	assert_int_equal(tell_chain(cluster, 0, CHUNK + 1, GRANARY__CHUNK_KIND__CHUNK_REPLICATED), OK);
	assert_int_equal(write_to(cluster, 0, &part), OK);
	for (int server = 0; server < SERVERS; server++) {
		WAIT_FOR(cluster, read_from(cluster, server, CHUNK + 1, 0, 13, got) == OK);
		assert_memory_equal(got, "whopartontent", 13);
	}
}

static void dead_successor_is_reported_and_left_out(void **state)
{
	struct cluster *cluster = *state;
	struct answer answer;
	assert_int_equal(write_text(cluster, 0, "three copies"), OK);
	stop_server(cluster, 2);
	struct write_options options = { .chunk = CHUNK, .data = slice_text("TWO"), .operation = 555 };
	start_write_to(cluster, 0, &options, &answer);
	WAIT_FOR(cluster, answer.done);
	char id[24];
	snprintf(id, sizeof(id), "%" PRIu64, cluster->ids[2]);
	assert_int_equal(answer.err, ERR_CHAIN_BROKEN);
	assert_string_equal(answer.text, id);
	answer_free(&answer);
	WAIT_FOR(cluster, cluster->failures > 0);
	assert_int_equal(cluster->failed_server, cluster->ids[2]);
	assert_int_equal(cluster->failed_chunk, CHUNK);
	/* What the master would do: a version without it. */
	cluster->version = 2;
	use_chain(cluster, 0, 1, -1);
	assert_int_equal(write_to(cluster, 0, &options), OK);
	assert_int_equal(write_text(cluster, 4, "copies"), OK);
	for (int server = 0; server < 2; server++)
		expect_text(cluster, server, 0, "TWO");
	/* Its copy is stale: it is told by the version. */
	start_server(cluster, 2);
	WAIT_FOR(cluster, has_lease(cluster, 2));
	assert_int_equal(read_from(cluster, 2, CHUNK, 0, 3, got), OK);
	cluster->version = 1;
	use_chain(cluster, 2, 0, 1);
	assert_int_equal(write_to(cluster, 2, &(struct write_options){ .chunk = CHUNK, .data = slice_text("x") }),
			 ERR_STALE_VERSION);
}

/* A process that is stopped: the kernel takes connections for it, nobody answers. */
static int open_silent(char address[32])
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(name);
	int descriptor = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(descriptor >= 0);
	assert_int_equal(bind(descriptor, (struct sockaddr *)&name, sizeof(name)), 0);
	assert_int_equal(listen(descriptor, 16), 0);
	assert_int_equal(getsockname(descriptor, (struct sockaddr *)&name, &size), 0);
	snprintf(address, 32, "127.0.0.1:%d", ntohs(name.sin_port));
	return descriptor;
}

static void silent_successor_is_reported_early(void **state)
{
	struct cluster *cluster = *state;
	struct answer answer;
	char address[32];
	int silent = open_silent(address);
	cluster->replicas[2].address = address;
	cluster->replicas[2].server = 4242;
	uint64_t since = loop_now_us(cluster->loop);
	struct write_options options = { .chunk = CHUNK, .data = slice_text("x"), .sync = true };
	start_write_to(cluster, 0, &options, &answer);
	WAIT_FOR(cluster, cluster->failed_server == 4242);
	assert_false(answer.done);
	/* Once it is out of the chain nobody waits for it any longer. */
	cluster->version = 2;
	use_chain(cluster, 0, 1, -1);
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	Granary__ChunkCommand configure = GRANARY__CHUNK_COMMAND__INIT;
	location.chunk = CHUNK;
	location.version = 2;
	location.n_replicas = cluster->chain_count;
	location.replicas = cluster->chain;
	configure.configure = &location;
	for (int server = 0; server < 2; server++)
		assert_int_equal(command(cluster, server, &configure), OK);
	WAIT_FOR(cluster, answer.done);
	assert_int_equal(answer.err, ERR_CHAIN_BROKEN);
	assert_true(loop_now_us(cluster->loop) - since < 1000ull * CHAIN_SYNC_TIMEOUT_MS / 2);
	answer_free(&answer);
	assert_int_equal(write_to(cluster, 0, &options), OK);
	expect_text(cluster, 1, 0, "x");
	close(silent);
}

static void survivors_settle_without_the_client(void **state)
{
	struct cluster *cluster = *state;
	assert_int_equal(write_text(cluster, 0, "aaaaaaaa"), OK);
	stop_server(cluster, 2);
	assert_int_equal(write_text(cluster, 2, "BB"), ERR_CHAIN_BROKEN);
	/* Nobody retries. The master's command alone must bring head and middle together. */
	cluster->version = 2;
	use_chain(cluster, 0, 1, -1);
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	Granary__ChunkCommand configure = GRANARY__CHUNK_COMMAND__INIT;
	location.chunk = CHUNK;
	location.version = 2;
	location.n_replicas = cluster->chain_count;
	location.replicas = cluster->chain;
	configure.configure = &location;
	for (int server = 0; server < 2; server++)
		assert_int_equal(command(cluster, server, &configure), OK);
	for (int server = 0; server < 2; server++) {
		enum err err;
		do {
			err = read_from(cluster, server, CHUNK, 0, 8, got);
		} while (err == ERR_BUSY || err == ERR_CHAIN_BROKEN);
		assert_int_equal(err, OK);
		assert_memory_equal(got, "aaBBaaaa", 8);
	}
}

static void returning_replica_takes_what_its_successor_has(void **state)
{
	struct cluster *cluster = *state;
	const uint64_t boots[2] = { machine_boot_id(cluster->loop), 12345 };
	struct write_options large = { .chunk = CHUNK, .data = slice_of(big, sizeof(big)) };
	assert_int_equal(write_to(cluster, 0, &large), OK);
	assert_int_equal(sync_chunk(cluster, CHUNK), OK);
	/* The process died; the machine died. */
	for (int life = 0; life < 2; life++) {
		stop_server(cluster, 0);
		leave_in_flight(cluster, 0, boots[life]);
		start_server(cluster, 0);
		WAIT_FOR(cluster, has_lease(cluster, 0));
		enum err err;
		do {
			err = read_from(cluster, 0, CHUNK, 0, sizeof(big), got);
		} while (err == ERR_BUSY || err == ERR_UNCERTAIN);
		assert_int_equal(err, OK);
		assert_memory_equal(got, big, sizeof(big));
		assert_int_equal(read_from(cluster, 0, CHUNK, 200 * BLOCK_BYTES, BLOCK_BYTES, got), OK);
		assert_int_equal(got[0], 0);
		assert_int_equal(write_text(cluster, 5, "goes on"), OK);
		memcpy(big + 5, "goes on", 7);
		expect_text(cluster, 2, 5, "goes on");
	}
}

/* Damage at the others holds up nothing but its own block, which they get from the head that returns. */
static void returning_replica_passes_over_damage_alone(void **state)
{
	struct cluster *cluster = *state;
	struct write_options large = { .chunk = CHUNK, .data = slice_of(big, sizeof(big)) };
	assert_int_equal(write_to(cluster, 0, &large), OK);
	stop_server(cluster, 0);
	leave_in_flight(cluster, 0, machine_boot_id(cluster->loop));
	write_alone(cluster, 0, 5);
	for (int server = 1; server < SERVERS; server++)
		chunk_found_damaged(chunk_store_find(chunkserver_service(cluster->servers[server])->store, CHUNK), 2, 3, "test");
	start_server(cluster, 0);
	WAIT_FOR(cluster, has_lease(cluster, 0));
	for (int server = 0; server < SERVERS; server++) {
		WAIT_FOR(cluster, read_from(cluster, server, CHUNK, 0, sizeof(big), got) == OK);
		assert_memory_equal(got, big, sizeof(big));
	}
}

/* The tail lost power and is half compared when those above it are killed and come back with a block that it never got. */
static void uncertain_copy_is_compared_anew_with_one_that_returns(void **state)
{
	struct cluster *cluster = *state;
	enum { WINDOWS = 12 };
	static uint8_t window[FRAME_DATA_BYTES_MAX], other[BLOCK_BYTES];
	memset(window, 'w', sizeof(window));
	for (uint32_t i = 0; i < WINDOWS; i++) {
		struct write_options write = { .chunk = CHUNK, .offset = i * FRAME_DATA_BYTES_MAX, .data = slice_of(window, sizeof(window)) };
		assert_int_equal(write_to(cluster, 0, &write), OK);
	}
	assert_int_equal(sync_chunk(cluster, CHUNK), OK);
	stop_server(cluster, 2);
	leave_mark(cluster, 2, 12345);
	write_alone(cluster, 2, 1);
	start_server(cluster, 2);
	struct chunk_store *store = chunkserver_service(cluster->servers[2])->store;
	memset(other, 'w', sizeof(other));
	const struct chunk *copy = NULL;
	WAIT_FOR(cluster, (copy = chunk_store_find(store, CHUNK)) != NULL && copy->state == CHUNK_READY &&
				  chunk_file_crc(&copy->file, 1) == crc32c(other, sizeof(other)));
	assert_true(copy->uncertain);
	for (int server = 0; server < 2; server++) {
		stop_server(cluster, server);
		leave_mark(cluster, server, machine_boot_id(cluster->loop));
	}
	assert_true(copy->uncertain);
	write_alone(cluster, 1, 1);
	for (int server = 0; server < 2; server++)
		start_server(cluster, server);
	for (int server = 0; server < SERVERS; server++) {
		WAIT_FOR(cluster, read_from(cluster, server, CHUNK, BLOCK_BYTES, BLOCK_BYTES, got) == OK);
		assert_int_equal(got[0], 'x');
	}
}

static void returning_head_does_not_hang_on_a_dead_successor(void **state)
{
	struct cluster *cluster = *state;
	assert_int_equal(write_text(cluster, 0, "three"), OK);
	stop_server(cluster, 0);
	stop_server(cluster, 1);
	leave_in_flight(cluster, 0, machine_boot_id(cluster->loop));
	start_server(cluster, 0);
	WAIT_FOR(cluster, has_lease(cluster, 0));
	assert_int_equal(read_from(cluster, 0, CHUNK, 0, 5, got), ERR_BUSY);
	WAIT_FOR(cluster, cluster->failed_server == cluster->ids[1]);
	cluster->version = 2;
	use_chain(cluster, 0, 2, -1);
	assert_int_equal(write_text(cluster, 0, "TWO"), OK);
	expect_text(cluster, 0, 0, "TWOee");
	expect_text(cluster, 2, 0, "TWOee");
	assert_int_equal(read_from(cluster, 0, CHUNK, 3 * BLOCK_BYTES, 9, got), OK);
	assert_int_equal(got[0], 0);
}

static enum err trim_to(struct cluster *cluster, uint32_t bytes)
{
	struct answer answer;
	Granary__ChunkTrim message = GRANARY__CHUNK_TRIM__INIT;
	message.chunk = CHUNK;
	message.version = cluster->version;
	message.bytes = bytes;
	message.client = 2;
	message.operation = cluster->operation++;
	message.n_replicas = cluster->chain_count;
	message.replicas = cluster->chain;
	start_call(cluster, 0, MESSAGE_CHUNK_TRIM, &message.base, slice_of(NULL, 0), &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	answer_free(&answer);
	return err;
}

/* The middle waits for the head to settle its blocks, and the head asks the middle what was in them. */
static void returning_head_settles_what_its_successor_could_not(void **state)
{
	struct cluster *cluster = *state;
	struct write_options large = { .chunk = CHUNK, .data = slice_of(big, sizeof(big)) };
	assert_int_equal(write_to(cluster, 0, &large), OK);
	stop_server(cluster, 2);
	assert_int_equal(write_text(cluster, 0, "new"), ERR_CHAIN_BROKEN);
	assert_int_equal(trim_to(cluster, 10000), ERR_CHAIN_BROKEN);
	stop_server(cluster, 0);
	leave_in_flight(cluster, 0, machine_boot_id(cluster->loop));
	start_server(cluster, 0);
	WAIT_FOR(cluster, has_lease(cluster, 0));
	/* The tail may have the old. */
	for (int server = 0; server < 2; server++)
		assert_int_not_equal(read_from(cluster, server, CHUNK, 0, 3, got), OK);
	start_server(cluster, 2);
	WAIT_FOR(cluster, has_lease(cluster, 2));
	memcpy(big, "new", 3);
	memset(big + 10000, 0, sizeof(big) - 10000);
	for (int server = 0; server < SERVERS; server++) {
		WAIT_FOR(cluster, read_from(cluster, server, CHUNK, 0, sizeof(big), got) == OK &&
					  memcmp(got, big, sizeof(big)) == 0);
		WAIT_FOR(cluster, read_from(cluster, server, CHUNK, 200 * BLOCK_BYTES, BLOCK_BYTES, got) == OK);
		assert_int_equal(got[0], 0);
	}
	assert_int_equal(write_text(cluster, 90000, "goes on"), OK);
	expect_text(cluster, 2, 90000, "goes on");
}

static void trim_makes_zeros(void **state)
{
	struct cluster *cluster = *state;
	struct write_options large = { .chunk = CHUNK, .data = slice_of(big, sizeof(big)) };
	assert_int_equal(write_to(cluster, 0, &large), OK);
	assert_int_equal(trim_to(cluster, 10000), OK);
	for (int server = 0; server < SERVERS; server++) {
		assert_int_equal(read_from(cluster, server, CHUNK, 0, 20000, got), OK);
		assert_memory_equal(got, big, 10000);
		for (int i = 10000; i < 20000; i++)
			assert_int_equal(got[i], 0);
	}
	assert_int_equal(write_text(cluster, 100000, "far"), OK);
	assert_int_equal(read_from(cluster, 1, CHUNK, 90000, 4096, got), OK);
	assert_int_equal(got[0] | got[4000], 0);
}

static void deleted_chunks_go(void **state)
{
	struct cluster *cluster = *state;
	Granary__ChunkCommand remove = GRANARY__CHUNK_COMMAND__INIT;
	struct write_options large = { .chunk = CHUNK, .data = slice_of(big, sizeof(big)) };
	assert_int_equal(write_to(cluster, 0, &large), OK);
	remove.chunk = CHUNK;
	remove.delete_chunk = true;
	for (int server = 0; server < SERVERS; server++) {
		assert_int_equal(command(cluster, server, &remove), OK);
		assert_int_equal(command(cluster, server, &remove), OK);
		assert_int_equal(read_from(cluster, server, CHUNK, 0, 4096, got), ERR_NO_CHUNK);
	}
	/* A write that comes late does not bring it back; its file serves another chunk, from which nothing old is read. */
	assert_int_equal(write_to(cluster, 0, &large), ERR_NO_CHUNK);
	struct write_options other = { .chunk = CHUNK + 1, .offset = 8192, .data = slice_text("x") };
	assert_int_equal(write_to(cluster, 0, &other), OK);
	assert_int_equal(read_from(cluster, 0, CHUNK + 1, 0, 8192, got), OK);
	for (int i = 0; i < 8192; i++)
		assert_int_equal(got[i], 0);
	/* Only a master may say so. */
	struct answer answer;
	Granary__ChunkCommand *one = &remove;
	Granary__ChunkCommands message = GRANARY__CHUNK_COMMANDS__INIT;
	message.n_commands = 1;
	message.commands = &one;
	start_call(cluster, 0, MESSAGE_CHUNK_COMMANDS, &message.base, slice_of(NULL, 0), &answer);
	WAIT_FOR(cluster, answer.done);
	assert_int_equal(answer.err, ERR_NOT_PERMITTED);
	answer_free(&answer);
}

/* The identity of one server over the chunks of another. */
static void foreign_disks_are_refused(void **state)
{
	struct cluster *cluster = *state;
	char data[96], ours[128], theirs[128];
	struct chunkserver *server = NULL;
	snprintf(data, sizeof(data), "%s/1", cluster->root);
	snprintf(ours, sizeof(ours), "%s/1/identity", cluster->root);
	snprintf(theirs, sizeof(theirs), "%s/2/identity", cluster->root);
	stop_server(cluster, 1);
	stop_server(cluster, 2);
	struct chunkserver_options options = { .data = data, .listen = "127.0.0.1:0", .masters = rpc_address(cluster->master),
					       .host = "here", .reserved_bytes = 1 };
	assert_int_equal(file_rename(cluster->loop, theirs, ours), OK);
	assert_int_equal(chunkserver_open(cluster->loop, &options, &server), ERR_STALE_HANDLE);
	assert_null(server);
}

static void inventory_is_sent_when_asked(void **state)
{
	struct cluster *cluster = *state;
	for (uint64_t chunk = 1; chunk <= 5; chunk++)
		assert_int_equal(write_to(cluster, 0, &(struct write_options){ .chunk = chunk, .data = slice_text("x") }), OK);
	cluster->inventory_chunks = 0;
	stop_server(cluster, 1);
	start_server(cluster, 1);
	WAIT_FOR(cluster, cluster->inventory_chunks == 5);
	assert_int_equal(cluster->ids[1], chunkserver_id(cluster->servers[1]));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, cluster_setup, cluster_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(writes_are_read_from_every_replica),
		TEST(many_writes_at_once),
		TEST(chains_in_a_circle_do_not_wait_for_each_other),
		TEST(retry_is_applied_once),
		TEST(write_that_was_done_is_synced),
		TEST(versions_only_go_up),
		TEST(spoiled_data_is_refused),
		TEST(wrong_place_in_the_chain_is_refused),
		TEST(without_a_lease_nothing_is_served),
		TEST(full_disk_says_so_and_recovers),
		TEST(failed_store_writes_no_more),
		TEST(full_tail_is_settled_later),
		TEST(lost_chunk_is_not_made_anew),
		TEST(dead_successor_is_reported_and_left_out),
		TEST(silent_successor_is_reported_early),
		TEST(survivors_settle_without_the_client),
		TEST(returning_replica_takes_what_its_successor_has),
		TEST(returning_replica_passes_over_damage_alone),
		TEST(uncertain_copy_is_compared_anew_with_one_that_returns),
		TEST(returning_head_does_not_hang_on_a_dead_successor),
		TEST(returning_head_settles_what_its_successor_could_not),
		TEST(trim_makes_zeros),
		TEST(deleted_chunks_go),
		TEST(foreign_disks_are_refused),
		TEST(inventory_is_sent_when_asked),
	};
	log_setup("chunkserver", LOG_ERROR, LOG_TEXT);
	cluster_pattern(big, sizeof(big));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
