#include "common/sys/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/address.h"
#include "common/sys/conn_out.h"
#include "common/sys/log.h"
#include "common/sys/real.h"
#include "common/sys/timer.h"

#define SCRATCH_BYTES (16u * KIB)
#define ACCEPTS_PER_EVENT_MAX 64
#define ACCEPT_RETRY_MS 100
#define WARN_MS 1000u /* between two lines about the same shortage */

/* Receiving:
 *
 *   HEADER  -> bytes of the header and message collect in `in`, or are used where they lie in the read buffer
 *   DATA    -> the header and message are in `in`, the data is read straight into `data`
 */
struct conn {
	struct loop *loop;
	int descriptor;
	uv_poll_t poll;
	int polled; /* events asked for */
	const struct conn_events *events;
	void *arg;
	bool connecting;
	bool closed;
	bool paused;
	bool paused_lately; /* since `stuck` was started */
	bool write_full; /* the socket took no more: wait until it is writable */
	bool was_full;	 /* conn_is_full has been true since the last `drained` */
	bool accepted;
	struct conn_out out;
	struct defer flush;
	struct defer resume;
	struct timer stuck;

	struct buf in;
	struct frame_header header; /* of the frame whose data is being read */
	struct iobuf *data;
	struct buf stash; /* received but not looked at, because paused */
	size_t stash_used;

	uint64_t received, sent;		   /* bytes in all */
	uint64_t frames;			   /* delivered */
	uint64_t received_before, sent_before, frames_before, queued_before; /* when `stuck` was started */
	char peer[ADDRESS_TEXT_BYTES];
};

static void on_poll(uv_poll_t *handle, int status, int events);

static void update_poll(struct conn *conn)
{
	int wanted = 0;
	if (conn->connecting)
		wanted = UV_WRITABLE;
	else
		wanted = (conn->paused || conn->stash.size > 0 ? 0 : UV_READABLE) | (conn->write_full ? UV_WRITABLE : 0);
	if (conn->closed || wanted == conn->polled)
		return;
	conn->polled = wanted;
	if (wanted == 0)
		uv_poll_stop(&conn->poll);
	else
		uv_poll_start(&conn->poll, wanted, on_poll);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct conn *conn = handle->data;
	conn_out_deinit(&conn->out);
	buf_deinit(&conn->in);
	buf_deinit(&conn->stash);
	iobuf_unref(conn->data);
	free(conn);
}

void conn_close(struct conn *conn)
{
	if (conn == NULL || conn->closed)
		return;
	conn->closed = true;
	defer_cancel(&conn->flush);
	defer_cancel(&conn->resume);
	timer_stop(&conn->stuck);
	loop_conn_counts(conn->loop)->open--;
	loop_conn_counts(conn->loop)->queued -= conn->accepted ? conn->out.queued : 0;
	/* The memory stays until libuv lets go of the handle: frames may be on the stack above us. */
	uv_close((uv_handle_t *)&conn->poll, on_handle_closed);
	close(conn->descriptor);
}

static void fail(struct conn *conn, enum err why)
{
	if (conn->closed)
		return;
	const struct conn_events *events = conn->events;
	void *arg = conn->arg;
	conn_close(conn);
	if (events != NULL && events->closed != NULL)
		events->closed(arg, why);
}

static void malformed(struct conn *conn, const char *what)
{
	loop_conn_counts(conn->loop)->malformed++;
	log_warn("frame_malformed", "peer=%s what=%s", conn->peer, what);
	fail(conn, ERR_PROTOCOL);
}

void conn_reject(struct conn *conn)
{
	malformed(conn, "message");
}

static void start_stuck(struct conn *conn)
{
	conn->received_before = conn->received;
	conn->sent_before = conn->sent;
	conn->frames_before = conn->frames;
	conn->queued_before = conn->out.queued;
	conn->paused_lately = conn->paused;
	timer_start(&conn->stuck, CONN_FRAME_TIMEOUT_MS);
}

static void on_stuck(void *arg)
{
	struct conn *conn = arg;
	bool receiving = !conn->paused && !conn->paused_lately && (conn->in.size > 0 || conn->data != NULL);
	bool sending = conn->out.queued > 0;
	uint64_t wanted = conn->queued_before < CONN_PROGRESS_BYTES_MIN ? conn->queued_before : CONN_PROGRESS_BYTES_MIN;
	bool stuck = (receiving && conn->frames == conn->frames_before &&
		      conn->received - conn->received_before < CONN_PROGRESS_BYTES_MIN) ||
		     (sending && conn->sent - conn->sent_before < wanted);
	if (stuck) {
		log_warn("conn_stuck", "peer=%s receiving=%d queued=%llu", conn->peer, receiving,
			 (unsigned long long)conn->out.queued);
		fail(conn, ERR_TIMEOUT);
		return;
	}
	if (conn->in.size > 0 || conn->data != NULL || sending)
		start_stuck(conn);
}

static void watch_progress(struct conn *conn)
{
	if (conn->closed || timer_is_running(&conn->stuck))
		return;
	if (conn->in.size == 0 && conn->data == NULL && conn->out.queued == 0)
		return;
	start_stuck(conn);
}

/* Answers that are not read take memory: with many such peers each may have less. */
static uint64_t full_bytes(const struct conn *conn)
{
	bool much = conn->accepted && loop_conn_counts(conn->loop)->queued > CONN_OUT_TOTAL_BYTES_MAX;
	return much ? CONN_OUT_SHARE_BYTES : CONN_OUT_BYTES_MAX;
}

static void on_flush(void *arg)
{
	struct conn *conn = arg;
	if (conn->connecting)
		return;
	/* The others' turn comes first; the socket stays writable. */
	struct conn_counts *counts = loop_conn_counts(conn->loop);
	if (conn->accepted && counts->sent >= CONN_TURN_BYTES_MAX) {
		conn->write_full = true;
		update_poll(conn);
		return;
	}
	uint64_t before = conn->out.queued;
	enum err err = before > 2ull * CONN_OUT_BYTES_MAX ? ERR_BUSY : conn_out_flush(&conn->out, conn->descriptor);
	conn->sent += before - conn->out.queued;
	counts->queued -= conn->accepted ? before - conn->out.queued : 0;
	counts->sent += conn->accepted ? before - conn->out.queued : 0;
	if (err != OK && err != ERR_WOULD_BLOCK) {
		fail(conn, err);
		return;
	}
	conn->write_full = err == ERR_WOULD_BLOCK;
	update_poll(conn);
	watch_progress(conn);
	/* What others have queued may have made it full without a word: where all is sent it is told, too. */
	if ((conn->was_full && conn->out.queued < full_bytes(conn) / 2) || (conn->accepted && conn->out.queued == 0)) {
		conn->was_full = false;
		if (conn->events != NULL && conn->events->drained != NULL)
			conn->events->drained(conn->arg);
	}
}

void conn_send(struct conn *conn, const struct frame_header *header, struct slice message, const struct conn_data *data)
{
	if (conn->closed)
		return;
	uint64_t before = conn->out.queued;
	conn_out_append(&conn->out, header, message, data);
	loop_conn_counts(conn->loop)->queued += conn->accepted ? conn->out.queued - before : 0;
	if (conn_is_full(conn))
		conn->was_full = true;
	if (!conn->write_full && !conn->connecting)
		loop_core_post_flush(loop_core(conn->loop), &conn->flush);
}

bool conn_is_full(const struct conn *conn)
{
	return conn->out.queued > full_bytes(conn);
}

static void deliver(struct conn *conn, const struct frame_header *header, struct slice message, struct iobuf *data)
{
	check(conn->events != NULL);
	conn->frames++;
	conn->events->frame(conn->arg, header, message, data);
}

/* The header and message are complete at `bytes`. */
static void frame_begin(struct conn *conn, const uint8_t *bytes, const struct frame_header *header)
{
	struct slice message = slice_of(bytes + FRAME_HEADER_BYTES, header->message_bytes);
	if (frame_verify(bytes, message) != OK) {
		malformed(conn, "checksum");
		return;
	}
	if (header->data_bytes == 0) {
		deliver(conn, header, message, NULL);
		if (bytes == conn->in.bytes)
			buf_clear(&conn->in);
		return;
	}
	if (bytes != conn->in.bytes)
		buf_set(&conn->in, slice_of(bytes, FRAME_HEADER_BYTES + header->message_bytes));
	conn->header = *header;
	conn->data = iobuf_open(header->data_bytes);
}

static void data_added(struct conn *conn, size_t size)
{
	conn->data->size += (uint32_t)size;
	if (conn->data->size < conn->header.data_bytes)
		return;
	struct iobuf *data = conn->data;
	conn->data = NULL;
	struct slice message = slice_of(conn->in.bytes + FRAME_HEADER_BYTES, conn->header.message_bytes);
	deliver(conn, &conn->header, message, data);
	buf_clear(&conn->in);
}

/* How many bytes of header and message are still missing in `in`; 0 when they are complete. */
static size_t in_missing(struct conn *conn, struct frame_header *header, bool *bad)
{
	*bad = false;
	if (conn->in.size < FRAME_HEADER_BYTES)
		return FRAME_HEADER_BYTES - conn->in.size;
	*bad = frame_parse(conn->in.bytes, header) != OK;
	return *bad ? 0 : FRAME_HEADER_BYTES + header->message_bytes - conn->in.size;
}

/* Takes bytes into `in` or `data`; returns how many. */
static size_t consume_piece(struct conn *conn, const uint8_t *bytes, size_t size)
{
	struct frame_header header;
	if (conn->data != NULL) {
		size_t piece = conn->header.data_bytes - conn->data->size;
		piece = size < piece ? size : piece;
		memcpy(conn->data->bytes + conn->data->size, bytes, piece);
		data_added(conn, piece);
		return piece;
	}
	if (conn->in.size == 0 && size >= FRAME_HEADER_BYTES) {
		if (frame_parse(bytes, &header) != OK) {
			malformed(conn, "header");
			return size;
		}
		size_t whole = FRAME_HEADER_BYTES + header.message_bytes;
		if (size >= whole) {
			frame_begin(conn, bytes, &header);
			return whole;
		}
		buf_reserve(&conn->in, whole);
	}
	bool bad = false;
	size_t missing = in_missing(conn, &header, &bad);
	size_t piece = size < missing ? size : missing;
	buf_append(&conn->in, bytes, piece);
	missing = in_missing(conn, &header, &bad);
	if (bad)
		malformed(conn, "header");
	else if (missing == 0)
		frame_begin(conn, conn->in.bytes, &header);
	return piece;
}

/* Delivers what is complete. Stops when closed or paused; returns how many bytes were used. */
static size_t consume(struct conn *conn, const uint8_t *bytes, size_t size)
{
	size_t used = 0;
	while (used < size && !conn->closed && !conn->paused)
		used += consume_piece(conn, bytes + used, size - used);
	return used;
}

/* One read: what is missing of the frame in progress goes straight to its place, what follows to `scratch`. */
static ssize_t read_once(struct conn *conn, uint8_t *scratch, bool *drained)
{
	struct iovec vectors[2] = { { 0 }, { .iov_base = scratch, .iov_len = SCRATCH_BYTES } };
	struct frame_header header;
	bool bad = false;
	if (conn->data != NULL) {
		vectors[0].iov_base = conn->data->bytes + conn->data->size;
		vectors[0].iov_len = conn->header.data_bytes - conn->data->size;
	} else if (conn->in.size >= FRAME_HEADER_BYTES) {
		vectors[0].iov_len = in_missing(conn, &header, &bad);
		buf_reserve(&conn->in, conn->in.size + vectors[0].iov_len);
		vectors[0].iov_base = conn->in.bytes + conn->in.size;
	}
	size_t direct = vectors[0].iov_len;
	ssize_t got = direct == 0 ? recv(conn->descriptor, scratch, SCRATCH_BYTES, MSG_DONTWAIT) :
				    readv(conn->descriptor, vectors, 2);
	if (got <= 0)
		return got;
	*drained = (size_t)got < direct + SCRATCH_BYTES;
	conn->received += (uint64_t)got;
	size_t head = (size_t)got < direct ? (size_t)got : direct;
	if (conn->data != NULL) {
		if (head > 0)
			data_added(conn, head);
	} else if (head > 0) {
		conn->in.size += head;
		if (in_missing(conn, &header, &bad) == 0)
			frame_begin(conn, conn->in.bytes, &header);
	}
	size_t rest = (size_t)got - head;
	size_t used = consume(conn, scratch, rest);
	if (!conn->closed && used < rest)
		buf_append(&conn->stash, scratch + used, rest - used);
	return got;
}

static void on_readable(struct conn *conn)
{
	uint8_t scratch[SCRATCH_BYTES];
	size_t total = 0;
	bool drained = false;
	while (!conn->closed && !conn->paused && !drained && total < CONN_EVENT_BYTES_MAX) {
		ssize_t got = read_once(conn, scratch, &drained);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			break;
		if (got <= 0) {
			enum err why = got == 0 ? ERR_CLOSED : err_from_errno(errno);
			fail(conn, why);
			return;
		}
		total += (size_t)got;
	}
	if (conn->closed)
		return;
	update_poll(conn);
	watch_progress(conn);
}

static void on_resume(void *arg)
{
	struct conn *conn = arg;
	if (conn->stash.size > conn->stash_used)
		conn->stash_used +=
			consume(conn, conn->stash.bytes + conn->stash_used, conn->stash.size - conn->stash_used);
	if (conn->closed)
		return;
	if (conn->stash_used == conn->stash.size) {
		buf_deinit(&conn->stash);
		conn->stash_used = 0;
	}
	update_poll(conn);
	watch_progress(conn);
}

void conn_pause(struct conn *conn, bool paused)
{
	if (conn->closed || conn->paused == paused)
		return;
	conn->paused = paused;
	conn->paused_lately = true;
	/* The poll is changed at the end of the iteration: a pause taken back by then costs nothing. */
	defer_post(&conn->resume);
}

static void set_options(int descriptor)
{
	int on = 1, idle_s = 3, interval_s = 1, count = 3;
	unsigned timeout_ms = CONN_UNACKED_TIMEOUT_MS;
	/* All of these are hints: the connection works without them. */
	(void)setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	(void)setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	(void)setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	/* After a short cut in the network small traffic goes on at once and not after a doubled and doubled wait. */
	(void)setsockopt(descriptor, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, &on, sizeof(on));
	(void)setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

/* Both ends are at one address, so on one machine. */
static bool is_local(int descriptor)
{
	struct sockaddr_storage here = { 0 }, there = { 0 };
	socklen_t here_size = sizeof(here), there_size = sizeof(there);
	if (getsockname(descriptor, (struct sockaddr *)&here, &here_size) != 0 ||
	    getpeername(descriptor, (struct sockaddr *)&there, &there_size) != 0 || here.ss_family != there.ss_family)
		return false;
	if (here.ss_family == AF_INET)
		return ((struct sockaddr_in *)&here)->sin_addr.s_addr == ((struct sockaddr_in *)&there)->sin_addr.s_addr;
	return here.ss_family == AF_INET6 && IN6_ARE_ADDR_EQUAL(&((struct sockaddr_in6 *)&here)->sin6_addr,
								&((struct sockaddr_in6 *)&there)->sin6_addr);
}

/* Within a machine nothing is lost and there is no path to be measured: where BBR is the system's choice, its pacing sets a
 * timer for every burst, which was a third of the time in sendmsg. Reno paces nothing and is always there. */
static void spare_pacing(int descriptor)
{
	if (is_local(descriptor))
		(void)setsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

/* Takes over the descriptor, or closes it when that fails. */
static enum err conn_adopt(struct loop *loop, int descriptor, bool connecting, struct conn **out)
{
	struct conn *conn = mem_zero(1, sizeof(*conn));
	conn->loop = loop;
	conn->descriptor = descriptor;
	conn->connecting = connecting;
	conn->accepted = !connecting;
	int status = uv_poll_init_socket(loop_uv(loop), &conn->poll, descriptor);
	if (status < 0) {
		close(descriptor);
		free(conn);
		return err_from_errno(-status);
	}
	conn->poll.data = conn;
	set_options(descriptor);
	if (!connecting)
		spare_pacing(descriptor);
	defer_init(&conn->flush, loop, on_flush, conn);
	defer_init(&conn->resume, loop, on_resume, conn);
	timer_init(&conn->stuck, loop, on_stuck, conn);
	loop_conn_counts(loop)->open++;
	update_poll(conn);
	*out = conn;
	return OK;
}

static void on_connected(struct conn *conn)
{
	int number = 0;
	socklen_t size = sizeof(number);
	if (getsockopt(conn->descriptor, SOL_SOCKET, SO_ERROR, &number, &size) != 0)
		number = errno;
	if (number != 0) {
		fail(conn, ERR_UNREACHABLE);
		return;
	}
	conn->connecting = false;
	spare_pacing(conn->descriptor);
	if (conn->events->connected != NULL)
		conn->events->connected(conn->arg);
	if (conn->closed)
		return;
	update_poll(conn);
	if (conn->out.queued > 0)
		loop_core_post_flush(loop_core(conn->loop), &conn->flush);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
	struct conn *conn = handle->data;
	if (status < 0)
		events = UV_READABLE | UV_WRITABLE; /* the system calls below find the reason */
	if (conn->connecting) {
		on_connected(conn);
		return;
	}
	if ((events & UV_WRITABLE) && !conn->closed && conn->write_full)
		on_flush(conn);
	/* What was held back by a pause comes first. */
	if ((events & UV_READABLE) && !conn->closed && !conn->paused && conn->stash.size == 0)
		on_readable(conn);
	/* On an error libuv has stopped watching. */
	if (status < 0)
		fail(conn, ERR_CLOSED);
}

enum err conn_connect(struct loop *loop, const char *address_text, const struct conn_events *events, void *arg,
		      struct conn **out)
{
	*out = NULL;
	struct address address;
	enum err err = address_parse(address_text, false, &address);
	if (err != OK)
		return err;
	if (loop_conn_counts(loop)->open >= conn_count_max(loop))
		return ERR_TOO_MANY;
	int descriptor = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (descriptor < 0)
		return err_from_errno(errno);
	if (connect(descriptor, (struct sockaddr *)&address.storage, address.size) != 0 && errno != EINPROGRESS) {
		close(descriptor);
		return ERR_UNREACHABLE;
	}
	err = conn_adopt(loop, descriptor, true, out);
	if (err != OK)
		return err;
	check(*out != NULL);
	(*out)->events = events;
	(*out)->arg = arg;
	address_print(&address, (*out)->peer);
	return OK;
}

void conn_set_events(struct conn *conn, const struct conn_events *events, void *arg)
{
	conn->events = events;
	conn->arg = arg;
}

const char *conn_peer(const struct conn *conn)
{
	return conn->peer;
}

size_t conn_count_max(struct loop *loop)
{
	size_t descriptors = loop_descriptors_max(loop);
	size_t half = (descriptors > 2 * DESCRIPTORS_RESERVED ? descriptors - DESCRIPTORS_RESERVED : descriptors / 2) / 2;
	return half < CONNECTIONS_MAX ? half : CONNECTIONS_MAX;
}

uint64_t conn_malformed_count(struct loop *loop)
{
	return loop_conn_counts(loop)->malformed;
}

struct listener {
	struct loop *loop;
	int descriptor;
	uv_poll_t poll;
	struct timer retry;
	uint64_t warned_ms;
	void (*accepted)(void *arg, struct conn *conn);
	void *arg;
	bool closed;
	char address[ADDRESS_TEXT_BYTES];
};

static void on_acceptable(uv_poll_t *handle, int status, int events);

/* Connections that come and come are not to fill the log as well. */
static bool may_warn(struct listener *listener)
{
	uint64_t now = loop_now_ms(listener->loop);
	if (listener->warned_ms != 0 && now - listener->warned_ms < WARN_MS)
		return false;
	listener->warned_ms = now;
	return true;
}

static void on_accept_retry(void *arg)
{
	struct listener *listener = arg;
	uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
}

static void on_acceptable(uv_poll_t *handle, int status, int events)
{
	(void)status;
	(void)events;
	struct listener *listener = handle->data;
	for (int i = 0; i < ACCEPTS_PER_EVENT_MAX && !listener->closed; i++) {
		struct address address = { .size = sizeof(address.storage) };
		int descriptor = accept4(listener->descriptor, (struct sockaddr *)&address.storage, &address.size,
					 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (descriptor < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			if (errno != EAGAIN) {
				/* No descriptors or no memory: it would be readable for ever. Look again a little later. */
				if (may_warn(listener))
					log_error("accept_failed", "address=%s errno=%d", listener->address, errno);
				uv_poll_stop(&listener->poll);
				timer_start(&listener->retry, ACCEPT_RETRY_MS);
			}
			return;
		}
		struct conn *conn = NULL;
		if (loop_conn_counts(listener->loop)->open >= conn_count_max(listener->loop)) {
			if (may_warn(listener))
				log_warn("connections_max", "address=%s count=%zu", listener->address,
					 conn_count_max(listener->loop));
			close(descriptor);
		} else if (conn_adopt(listener->loop, descriptor, false, &conn) == OK) {
			address_print(&address, conn->peer);
			listener->accepted(listener->arg, conn);
		}
	}
}

static enum err listen_socket(const char *address_text, int *descriptor, char bound[ADDRESS_TEXT_BYTES])
{
	struct address address;
	enum err err = address_parse(address_text, true, &address);
	if (err != OK)
		return err;
	*descriptor = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*descriptor < 0)
		return err_from_errno(errno);
	int on = 1;
	(void)setsockopt(*descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(*descriptor, (struct sockaddr *)&address.storage, address.size) != 0 ||
	    listen(*descriptor, SOMAXCONN) != 0 ||
	    getsockname(*descriptor, (struct sockaddr *)&address.storage, &address.size) != 0) {
		int number = errno;
		close(*descriptor);
		log_error("listen_failed", "address=%s errno=%d", address_text, number);
		return number == EADDRINUSE ? ERR_BUSY : err_from_errno(number);
	}
	address_print(&address, bound);
	return OK;
}

enum err listener_open(struct loop *loop, const char *address, void (*accepted)(void *arg, struct conn *conn), void *arg,
		       struct listener **out)
{
	*out = NULL;
	struct listener *listener = mem_zero(1, sizeof(*listener));
	enum err err = listen_socket(address, &listener->descriptor, listener->address);
	if (err != OK) {
		free(listener);
		return err;
	}
	int status = uv_poll_init_socket(loop_uv(loop), &listener->poll, listener->descriptor);
	if (status < 0) {
		close(listener->descriptor);
		free(listener);
		return err_from_errno(-status);
	}
	listener->loop = loop;
	listener->accepted = accepted;
	listener->arg = arg;
	listener->poll.data = listener;
	timer_init(&listener->retry, loop, on_accept_retry, listener);
	uv_poll_start(&listener->poll, UV_READABLE, on_acceptable);
	*out = listener;
	return OK;
}

static void on_listener_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void listener_close(struct listener *listener)
{
	if (listener == NULL || listener->closed)
		return;
	listener->closed = true;
	timer_stop(&listener->retry);
	uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
	close(listener->descriptor);
}

const char *listener_address(const struct listener *listener)
{
	return listener->address;
}
