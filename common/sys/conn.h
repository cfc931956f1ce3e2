/* Connections that carry frames (common/proto/frame.h) between processes. Under rpc.h; nobody else uses it.
 *
 * Frames arrive whole, checked and in order, or the connection closes. A malformed frame closes the connection and is
 * counted. In the simulator a frame is one message; there, too, a connection is ordered and breaks as a whole.
 * Sending is queued and flushed once an iteration with one writev; the queue is bounded (conn_is_full). */
#ifndef GRANARY_COMMON_SYS_CONN_H
#define GRANARY_COMMON_SYS_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/proto/frame.h"
#include "common/sys/file.h"
#include "common/sys/loop.h"

struct conn;
struct listener;

struct conn_events {
	/* `data` is NULL or owned by the callee (iobuf_unref). `message` is valid for the call. */
	void (*frame)(void *arg, const struct frame_header *header, struct slice message, struct iobuf *data);
	/* The connection was established (only for conn_connect). */
	void (*connected)(void *arg);
	/* Last call for this connection, which is freed on return. Not called after conn_close. */
	void (*closed)(void *arg, enum err why);
	/* Optional: after conn_is_full the queue has become half of that; or all is sent. */
	void (*drained)(void *arg);
};

/* "host:port" or "[v6]:port". Returns at once; `connected` or `closed` follows. Host names are resolved at once. */
MUST_USE enum err conn_connect(struct loop *loop, const char *address, const struct conn_events *events, void *arg,
			       struct conn **out);
/* The owner changes, e.g. once an accepted connection has said who it is. */
void conn_set_events(struct conn *conn, const struct conn_events *events, void *arg);
/* Drops what is queued. No event follows. */
void conn_close(struct conn *conn);

/* What follows a frame's message: nothing, a range of an iobuf, or a range of a file (sendfile). */
struct conn_data {
	struct iobuf *iobuf; /* borrowed: a reference is taken */
	uint32_t offset;
	uint32_t size;
	struct file *file; /* stays open until sent: the connection takes a reference */
	uint64_t file_offset;
};

/* Queues a frame. header->message_bytes and data_bytes are filled in here. `data` may be NULL. */
void conn_send(struct conn *conn, const struct frame_header *header, struct slice message, const struct conn_data *data);
/* More than CONN_OUT_BYTES_MAX are queued to send; of an accepted connection less, while much is queued for all of them. */
bool conn_is_full(const struct conn *conn);
/* While paused no frame is delivered and the peer is held back. */
void conn_pause(struct conn *conn, bool paused);
/* The message of a whole frame made no sense: counted as malformed and closed, with the event. */
void conn_reject(struct conn *conn);
/* The peer's address as text; valid as long as the connection. */
const char *conn_peer(const struct conn *conn);

/* How many there may be at once in this process: CONNECTIONS_MAX, or what its descriptors allow. */
size_t conn_count_max(struct loop *loop);

/* Accepts on "host:port"; port 0 takes a free one. `accepted` owns the new connection and sets its events at once. */
MUST_USE enum err listener_open(struct loop *loop, const char *address, void (*accepted)(void *arg, struct conn *conn),
				void *arg, struct listener **out);
void listener_close(struct listener *listener);
/* "host:port" as bound. */
const char *listener_address(const struct listener *listener);

/* Frames refused as malformed since the loop was opened, over all its connections. */
uint64_t conn_malformed_count(struct loop *loop);

#endif
