/* Frame connections against a raw socket that says whatever it likes. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/bytes.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/sys/conn.h"

#define DEADLINE_MS 30000

struct fixture {
	struct loop *loop;
	struct listener *listener;
	struct conn *conn; /* the one accepted, until it closes */
	struct timer deadline;
	bool late;
	unsigned accepted, closed, frames;
	enum err why;
	struct frame_header header;
	struct buf messages; /* of all frames, one behind the other */
	uint32_t data_bytes, data_crc;
	bool pause_after_each, close_after_each;
	int raw;
};

static void on_frame(void *arg, const struct frame_header *header, struct slice message, struct iobuf *data)
{
	struct fixture *f = arg;
	f->frames++;
	f->header = *header;
	buf_append_slice(&f->messages, message);
	if (data != NULL) {
		assert_int_equal(data->size, header->data_bytes);
		f->data_bytes = data->size;
		f->data_crc = crc32c(data->bytes, data->size);
	} else {
		assert_int_equal(header->data_bytes, 0);
	}
	iobuf_unref(data);
	if (f->pause_after_each)
		conn_pause(f->conn, true);
	if (f->close_after_each) {
		conn_close(f->conn);
		f->conn = NULL;
	}
}

static void on_closed(void *arg, enum err why)
{
	struct fixture *f = arg;
	f->closed++;
	f->why = why;
	f->conn = NULL;
}

static const struct conn_events events = { .frame = on_frame, .closed = on_closed };

static void on_accepted(void *arg, struct conn *conn)
{
	struct fixture *f = arg;
	f->accepted++;
	f->conn = conn;
	conn_set_events(conn, &events, f);
}

static void on_late(void *arg)
{
	((struct fixture *)arg)->late = true;
}

#define wait_for(fixture, condition)                                                                                   \
	do {                                                                                                           \
		(fixture)->late = false;                                                                               \
		timer_start(&(fixture)->deadline, DEADLINE_MS);                                                        \
		while (!(condition) && !(fixture)->late)                                                               \
			loop_run_once((fixture)->loop);                                                                \
		timer_stop(&(fixture)->deadline);                                                                      \
		assert_true(condition);                                                                                \
	} while (0)

static void raw_connect(struct fixture *f)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const char *colon = strrchr(listener_address(f->listener), ':');
	address.sin_port = htons((uint16_t)atoi(colon + 1));
	f->raw = socket(AF_INET, SOCK_STREAM, 0);
	unsigned accepted = f->accepted;
	assert_int_equal(connect(f->raw, (struct sockaddr *)&address, sizeof(address)), 0);
	wait_for(f, f->accepted == accepted + 1);
}

static void raw_send(struct fixture *f, const void *bytes, size_t size)
{
	const char *p = bytes;
	while (size > 0) {
		ssize_t put = send(f->raw, p, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (put < 0) {
			assert_true(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
			if (errno != EAGAIN)
				return;
			timer_start(&f->deadline, DEADLINE_MS);
			loop_run_once(f->loop);
			continue;
		}
		p += put;
		size -= (size_t)put;
	}
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	assert_int_equal(loop_open(&f->loop), OK);
	timer_init(&f->deadline, f->loop, on_late, f);
	assert_int_equal(listener_open(f->loop, "127.0.0.1:0", on_accepted, f, &f->listener), OK);
	raw_connect(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	close(f->raw);
	conn_close(f->conn);
	listener_close(f->listener);
	buf_deinit(&f->messages);
	timer_stop(&f->deadline);
	loop_close(f->loop);
	free(f);
	return 0;
}

static void frame_append(struct buf *out, const char *message, uint32_t data_bytes)
{
	struct frame_header header = { .type = 7, .id = 1, .message_bytes = (uint32_t)strlen(message), .data_bytes = data_bytes };
	uint8_t packed[FRAME_HEADER_BYTES];
	frame_pack(&header, slice_text(message), packed);
	buf_append(out, packed, sizeof(packed));
	buf_append_slice(out, slice_text(message));
	for (uint32_t i = 0; i < data_bytes; i++)
		buf_append(out, &(uint8_t){ (uint8_t)(i * 13) }, 1);
}

static void test_byte_by_byte(void **state)
{
	struct fixture *f = *state;
	struct buf bytes = { 0 };
	frame_append(&bytes, "one", 0);
	frame_append(&bytes, "two", 10);
	frame_append(&bytes, "", 0);
	frame_append(&bytes, "three", 5000);
	for (size_t i = 0; i < 400; i++) {
		raw_send(f, bytes.bytes + i, 1);
		loop_run_once(f->loop);
	}
	assert_int_equal(f->frames, 3);
	raw_send(f, bytes.bytes + 400, bytes.size - 400);
	wait_for(f, f->frames == 4);
	assert_true(slice_equal(buf_slice(&f->messages), slice_text("onetwothree")));
	assert_int_equal(f->data_bytes, 5000);
	assert_int_equal(f->data_crc, crc32c(bytes.bytes + bytes.size - 5000, 5000));
	assert_int_equal(conn_malformed_count(f->loop), 0);
	buf_deinit(&bytes);
}

/* Any cut of a stream of frames into pieces gives the same frames. */
static void test_random_pieces(void **state)
{
	struct fixture *f = *state;
	struct rng rng;
	rng_init(&rng, 99);
	struct buf bytes = { 0 }, expected = { 0 }, large = { 0 };
	for (unsigned i = 0; i < 300; i++) {
		char message[16];
		snprintf(message, sizeof(message), "m%u;", i);
		buf_append_slice(&expected, slice_text(message));
		frame_append(&bytes, message, rng_below(&rng, 3) == 0 ? (uint32_t)rng_below(&rng, 40000) : 0);
	}
	/* A message that is far larger than a read. */
	for (unsigned i = 0; i < FRAME_MESSAGE_BYTES_MAX; i++)
		buf_append(&large, &"abcdefg"[i % 7], 1);
	buf_append(&large, "", 1);
	frame_append(&bytes, (char *)large.bytes, FRAME_DATA_BYTES_MAX);
	buf_append(&expected, large.bytes, large.size - 1);
	size_t at = 0;
	while (at < bytes.size) {
		size_t piece = 1 + rng_below(&rng, rng_below(&rng, 2) == 0 ? 100 : 70000);
		piece = piece < bytes.size - at ? piece : bytes.size - at;
		raw_send(f, bytes.bytes + at, piece);
		at += piece;
		if (rng_below(&rng, 4) == 0)
			loop_run_once(f->loop);
	}
	wait_for(f, f->frames == 301);
	assert_true(slice_equal(buf_slice(&f->messages), buf_slice(&expected)));
	assert_int_equal(f->data_crc, crc32c(bytes.bytes + bytes.size - FRAME_DATA_BYTES_MAX, FRAME_DATA_BYTES_MAX));
	buf_deinit(&bytes);
	buf_deinit(&expected);
	buf_deinit(&large);
}

static void assert_refused(struct fixture *f, const void *bytes, size_t size)
{
	uint64_t malformed = conn_malformed_count(f->loop);
	unsigned closed = f->closed, frames = f->frames;
	raw_send(f, bytes, size);
	wait_for(f, f->closed == closed + 1);
	assert_int_equal(f->why, ERR_PROTOCOL);
	assert_int_equal(f->frames, frames);
	assert_int_equal(conn_malformed_count(f->loop), malformed + 1);
	close(f->raw);
	raw_connect(f);
}

static void refuse_changed(struct fixture *f, size_t offset, uint32_t value)
{
	struct buf bytes = { 0 };
	frame_append(&bytes, "hello", 0);
	put_le32(bytes.bytes + offset, value);
	if (offset < 28) {
		/* A right checksum over wrong fields. */
		put_le32(bytes.bytes + 28, crc32c_extend(crc32c(bytes.bytes, 28), "hello", 5));
	}
	assert_refused(f, bytes.bytes, bytes.size);
	buf_deinit(&bytes);
}

static void test_malformed(void **state)
{
	struct fixture *f = *state;
	refuse_changed(f, 0, 0x20202020);		     /* magic */
	refuse_changed(f, 4, 7 | 0xff000000u);		     /* flags */
	refuse_changed(f, 16, FRAME_MESSAGE_BYTES_MAX + 1);  /* lengths */
	refuse_changed(f, 16, UINT32_MAX);		     /* 4 GiB */
	refuse_changed(f, 20, FRAME_DATA_BYTES_MAX + 1);
	refuse_changed(f, 20, UINT32_MAX);
	refuse_changed(f, 24, 11);			     /* an error code in a request */
	refuse_changed(f, 28, 0);			     /* checksum */
	refuse_changed(f, 32, 0x41414141);		     /* message */
	assert_refused(f, "GET / HTTP/1.1\r\nHost: granary.example\r\n\r\n", 41);
	struct rng rng;
	rng_init(&rng, 5);
	for (unsigned round = 0; round < 50; round++) {
		uint8_t noise[200];
		for (size_t i = 0; i < sizeof(noise); i++)
			noise[i] = (uint8_t)rng_next(&rng);
		assert_refused(f, noise, sizeof(noise));
	}
	/* It still serves the next one. */
	struct buf bytes = { 0 };
	frame_append(&bytes, "fine", 3);
	raw_send(f, bytes.bytes, bytes.size);
	wait_for(f, f->frames == 1);
	assert_int_equal(f->header.type, 7);
	buf_deinit(&bytes);
}

static void test_truncated(void **state)
{
	struct fixture *f = *state;
	struct buf bytes = { 0 };
	frame_append(&bytes, "hello", 100);
	static const size_t cuts[] = { 1, 31, 32, 34, 37, 38, 136 };
	for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		unsigned closed = f->closed;
		raw_send(f, bytes.bytes, cuts[i]);
		shutdown(f->raw, SHUT_WR);
		wait_for(f, f->closed == closed + 1);
		assert_int_equal(f->why, ERR_CLOSED);
		close(f->raw);
		raw_connect(f);
	}
	assert_int_equal(f->frames, 0);
	assert_int_equal(conn_malformed_count(f->loop), 0);
	buf_deinit(&bytes);
}

/* Waits out CONN_FRAME_TIMEOUT_MS: a header that was begun and never ends. */
static void test_stuck_header(void **state)
{
	struct fixture *f = *state;
	struct buf bytes = { 0 };
	frame_append(&bytes, "hello", 0);
	raw_send(f, bytes.bytes, 5);
	wait_for(f, f->closed == 1);
	assert_int_equal(f->why, ERR_TIMEOUT);
	buf_deinit(&bytes);
}

static void test_pause(void **state)
{
	struct fixture *f = *state;
	struct buf bytes = { 0 };
	for (unsigned i = 0; i < 20; i++)
		frame_append(&bytes, "abc", i % 4 == 3 ? 20000 : 0);
	f->pause_after_each = true;
	raw_send(f, bytes.bytes, bytes.size);
	for (unsigned i = 1; i <= 20; i++) {
		wait_for(f, f->frames == i);
		/* Nothing more comes while paused: a full turn of the loop shows it. */
		timer_start(&f->deadline, 1);
		loop_run_once(f->loop);
		assert_int_equal(f->frames, i);
		conn_pause(f->conn, false);
	}
	assert_int_equal(f->messages.size, 60);
	buf_deinit(&bytes);
}

static void test_close_in_callback(void **state)
{
	struct fixture *f = *state;
	struct buf bytes = { 0 };
	frame_append(&bytes, "a", 0);
	frame_append(&bytes, "b", 0);
	f->close_after_each = true;
	raw_send(f, bytes.bytes, bytes.size);
	wait_for(f, f->frames == 1);
	char byte = 0;
	ssize_t got = recv(f->raw, &byte, 1, 0); /* end, or a reset because something was not read */
	assert_true(got <= 0);
	assert_int_equal(f->frames, 1);
	assert_int_equal(f->closed, 0); /* not called after conn_close */
	buf_deinit(&bytes);
}

/* A peer that never reads: what is queued is bounded by the caller, and the connection ends in time. */
static void test_peer_that_does_not_read(void **state)
{
	struct fixture *f = *state;
	struct iobuf *iobuf = iobuf_open(FRAME_DATA_BYTES_MAX);
	memset(iobuf->bytes, 0, FRAME_DATA_BYTES_MAX);
	struct conn_data data = { .iobuf = iobuf, .size = FRAME_DATA_BYTES_MAX };
	struct frame_header header = { .type = 7, .id = 1 };
	while (!conn_is_full(f->conn))
		conn_send(f->conn, &header, slice_text("x"), &data);
	wait_for(f, f->closed == 1);
	assert_true(f->why == ERR_TIMEOUT || f->why == ERR_CLOSED);
	assert_int_equal(iobuf->references, 1);
	iobuf_unref(iobuf);
}

/* The process has no descriptor left for a connection that comes: it waits without spinning, and is accepted when there is one. To connect
 * fails then, too, and not as if the other side were to blame. */
static void test_no_descriptors(void **state)
{
	struct fixture *f = *state;
	enum { ROOM = 8 };
	int taken[ROOM + 1], count = 0, iterations = 0;
	struct rlimit before;
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);
	struct conn *conn = NULL;
	int raw = socket(AF_INET, SOCK_STREAM, 0), next = dup(raw);
	assert_int_equal(getpeername(f->raw, (struct sockaddr *)&address, &size), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	close(next);
	struct rlimit few = { .rlim_cur = (rlim_t)next + ROOM, .rlim_max = before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (count <= ROOM && (next = dup(raw)) >= 0)
		taken[count++] = next;
	assert_int_equal(errno, EMFILE);
	assert_int_equal(connect(raw, (struct sockaddr *)&address, size), 0);
	f->late = false;
	timer_start(&f->deadline, 350);
	for (; !f->late; iterations++)
		loop_run_once(f->loop);
	assert_int_equal(f->accepted, 1);
	assert_in_range(iterations, 1, 50);
	assert_int_equal(conn_connect(f->loop, listener_address(f->listener), &events, f, &conn), ERR_TOO_MANY);
	while (count > 0)
		close(taken[--count]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	conn_close(f->conn);
	wait_for(f, f->accepted == 2);
	close(raw);
}

static void test_addresses(void **state)
{
	struct fixture *f = *state;
	struct listener *second = NULL;
	assert_int_equal(listener_open(f->loop, listener_address(f->listener), on_accepted, f, &second), ERR_BUSY);
	assert_int_equal(listener_open(f->loop, "127.0.0.1", on_accepted, f, &second), ERR_INVALID);
	assert_int_equal(listener_open(f->loop, "127.0.0.1:", on_accepted, f, &second), ERR_INVALID);
	assert_int_equal(listener_open(f->loop, "127.0.0.1:999999", on_accepted, f, &second), ERR_INVALID);
	struct conn *conn = NULL;
	assert_int_equal(conn_connect(f->loop, ":80", &events, f, &conn), ERR_INVALID);
	assert_null(conn);
	assert_int_equal(listener_open(f->loop, "localhost:0", on_accepted, f, &second), OK);
	assert_non_null(strstr(listener_address(second), ":"));
	listener_close(second);
	assert_memory_equal(conn_peer(f->conn), "127.0.0.1:", 10);
}

#define test(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_byte_by_byte), test(test_random_pieces), test(test_malformed),	 test(test_truncated),
		test(test_stuck_header), test(test_pause),	   test(test_close_in_callback), test(test_peer_that_does_not_read),
		test(test_addresses),	 test(test_no_descriptors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
