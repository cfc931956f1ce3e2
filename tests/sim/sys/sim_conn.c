/* conn.h, simulated: a connection is a pair of ends, each owned by its process; a frame is one message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/conn.h"
#include "tests/sim/sys/sim_internal.h"

#define RETRY_US 20000 /* how often a frame into a cut is tried again */

struct sim_frame {
	struct frame_header header;
	struct buf message;
	struct iobuf *data;
	struct sim_frame *next;
};

struct conn {
	struct loop *loop; /* NULL: of a former life, see sim->late */
	struct sim_host *host;
	const struct conn_events *events;
	void *arg;
	uint64_t id, peer_id; /* the other end; ids are never used again, so that a stale one is recognised */
	struct sim_host *peer_host;
	char peer[32];
	struct sim_frame *out_first, *out_last; /* sent and not yet arrived, in order */
	struct sim_frame *in_first, *in_last;	/* arrived while paused */
	size_t out_bytes;
	uint64_t late_until_us; /* of a former life: nothing arrives before */
	bool connecting, paused, sending, delivering;
	bool was_full; /* `drained` is due when out_bytes has become half */
	struct conn *next;
	UT_hash_handle hh; /* by id */
};

struct listener {
	struct loop *loop;
	char address[32];
	void (*accepted)(void *arg, struct conn *conn);
	void *arg;
	struct listener *next;
};

/* Names a connection end in an event: the end may be gone when it happens. */
struct end {
	uint64_t id;
	enum err why;
};

static struct conn *find_end(struct sim *sim, uint64_t id)
{
	struct conn *conn = NULL;
	HASH_FIND(hh, sim->conns_by_id, &id, sizeof(id), conn);
	return conn;
}

static struct end *end_of(const struct conn *conn, enum err why)
{
	struct end *end = mem_zero(1, sizeof(*end));
	*end = (struct end){ .id = conn->id, .why = why };
	return end;
}

static void free_frames(struct sim_frame *frame)
{
	while (frame != NULL) {
		struct sim_frame *next = frame->next;
		buf_deinit(&frame->message);
		iobuf_unref(frame->data);
		free(frame);
		frame = next;
	}
}

static struct conn *conn_new(struct loop *loop, struct sim_host *peer_host, const char *peer)
{
	struct conn *conn = mem_zero(1, sizeof(*conn));
	conn->loop = loop;
	conn->host = loop->host;
	conn->id = ++loop->sim->next_id;
	HASH_ADD(hh, loop->sim->conns_by_id, id, sizeof(conn->id), conn);
	conn->peer_host = peer_host;
	snprintf(conn->peer, sizeof(conn->peer), "%s", peer);
	conn->next = loop->conns;
	loop->conns = conn;
	return conn;
}

static void conn_unlink(struct conn *conn, struct conn **list)
{
	while (*list != conn)
		list = &(*list)->next;
	*list = conn->next;
}

static void conn_free(struct conn *conn)
{
	struct sim *sim = conn->host->sim;
	conn_unlink(conn, conn->loop == NULL ? &sim->late : &conn->loop->conns);
	HASH_DEL(sim->conns_by_id, conn);
	free_frames(conn->out_first);
	free_frames(conn->in_first);
	free(conn);
}

/* ---- closing */

static void on_reset(void *arg)
{
	struct end *end = arg;
	struct conn *conn = find_end(sim_current(), end->id);
	enum err why = end->why;
	free(end);
	if (conn == NULL)
		return;
	const struct conn_events *events = conn->events;
	void *owner = conn->arg;
	conn_free(conn);
	if (events != NULL)
		events->closed(owner, why);
}

static void reset_later(struct conn *conn, enum err why, uint64_t delay_us)
{
	sim_schedule(conn->loop->sim, delay_us, conn->loop, on_reset, end_of(conn, why), free);
}

static uint64_t net_delay(struct sim *sim)
{
	return sim_between(sim, sim->options.net_us_min, sim->options.net_us_max);
}

/* Nobody is there any more to hear of it. */
static bool is_dead(const struct conn *conn)
{
	return conn->loop == NULL || conn->loop->dead;
}

/* The other end hears of the end of this one, unless it cannot. */
static void reset_peer(struct conn *conn)
{
	struct sim *sim = conn->host->sim;
	struct conn *peer = find_end(sim, conn->peer_id);
	if (peer == NULL || is_dead(peer))
		return;
	if (sim->cut[conn->host->index][peer->host->index]) {
		peer->peer_id = 0; /* found out when it sends */
		return;
	}
	peer->peer_id = 0;
	reset_later(peer, ERR_CLOSED, net_delay(sim));
}

void conn_close(struct conn *conn)
{
	if (!conn->loop->dead)
		reset_peer(conn);
	conn_free(conn);
}

/* The process is gone, what it sent is still on its way, and will be for a while. Its owner is yet to close the connection: for him it is
 * as if it had sent nothing. */
static void becomes_late(struct conn *conn)
{
	struct sim *sim = conn->host->sim;
	struct conn *late = mem_zero(1, sizeof(*late));
	sim_trace(sim, "fault: what %s has sent to %s arrives late", conn->loop->name, conn->peer_host->name);
	HASH_DEL(sim->conns_by_id, conn);
	*late = (struct conn){ .host = conn->host, .id = conn->id, .peer_id = conn->peer_id, .peer_host = conn->peer_host, .sending = true,
			       .out_first = conn->out_first, .out_last = conn->out_last, .next = sim->late };
	late->late_until_us = sim->now_us + rng_below(&sim->rng, sim->options.late_us_max + 1);
	sim->late = late;
	HASH_ADD(hh, sim->conns_by_id, id, sizeof(late->id), late);
	conn->id = ++sim->next_id;
	conn->peer_id = 0;
	conn->out_first = conn->out_last = NULL;
	conn->sending = false;
	HASH_ADD(hh, sim->conns_by_id, id, sizeof(conn->id), conn);
}

void sim_conns_killed(struct loop *loop, bool silently)
{
	for (struct conn *conn = loop->conns; conn != NULL && !silently; conn = conn->next) {
		if (conn->sending && sim_chance(loop->sim, loop->sim->options.late_per_million))
			becomes_late(conn);
		else
			reset_peer(conn);
	}
}

void sim_conns_close(struct sim *sim)
{
	while (sim->late != NULL)
		conn_free(sim->late);
}

/* ---- frames */

static void on_arrival(void *arg);

static void deliver(struct conn *conn)
{
	struct sim *sim = conn->loop->sim;
	uint64_t id = conn->id;
	conn->delivering = true;
	while (conn->in_first != NULL && !conn->paused) {
		struct sim_frame *frame = conn->in_first;
		conn->in_first = frame->next;
		if (conn->in_first == NULL)
			conn->in_last = NULL;
		if (conn->events != NULL)
			conn->events->frame(conn->arg, &frame->header, buf_slice(&frame->message), frame->data);
		else
			iobuf_unref(frame->data);
		buf_deinit(&frame->message);
		free(frame);
		conn = find_end(sim, id);
		if (conn == NULL)
			return;
	}
	conn->delivering = false;
}

static void on_deliver(void *arg)
{
	struct end *end = arg;
	struct conn *conn = find_end(sim_current(), end->id);
	free(end);
	if (conn != NULL && !conn->delivering)
		deliver(conn);
}

static void on_drained(void *arg)
{
	struct end *end = arg;
	struct conn *conn = find_end(sim_current(), end->id);
	free(end);
	if (conn != NULL && conn->events != NULL && conn->events->drained != NULL)
		conn->events->drained(conn->arg);
}

static void send_first(struct conn *conn, uint64_t delay_us)
{
	conn->sending = true;
	sim_schedule(conn->host->sim, delay_us, NULL, on_arrival, end_of(conn, OK), free);
}

/* How long the first frame takes, after what others send over the same link. */
static uint64_t frame_delay(const struct conn *conn, uint64_t least_us, uint64_t most_us)
{
	struct sim *sim = conn->host->sim;
	struct link *link = &sim->links[conn->host->index][conn->peer_host->index];
	uint64_t delay = sim_between(sim, least_us, most_us) + link->how.delay_us;
	if (link->how.bytes_per_second == 0)
		return delay;
	const struct frame_header *header = &conn->out_first->header;
	uint64_t bytes = FRAME_HEADER_BYTES + header->message_bytes + header->data_bytes;
	if (link->busy_until_us < sim->now_us)
		link->busy_until_us = sim->now_us;
	link->busy_until_us += bytes * 1000000 / link->how.bytes_per_second;
	return link->busy_until_us - sim->now_us + delay;
}

static void send_next(struct conn *conn, bool again)
{
	const struct sim_options *options = &conn->host->sim->options;
	send_first(conn, again ? frame_delay(conn, 1, 20) : frame_delay(conn, options->net_us_min, options->net_us_max));
}

/* The frame takes its place in the other end's queue. */
static void arrive(struct conn *conn, struct conn *peer)
{
	struct sim *sim = conn->host->sim;
	struct sim_frame *frame = conn->out_first;
	conn->out_first = frame->next;
	if (conn->out_first == NULL)
		conn->out_last = NULL;
	conn->out_bytes -= frame->header.message_bytes + frame->header.data_bytes;
	if (conn->was_full && conn->out_bytes < CONN_OUT_BYTES_MAX / 2) {
		conn->was_full = false;
		if (!is_dead(conn))
			sim_schedule(sim, 0, conn->loop, on_drained, end_of(conn, OK), free);
	}
	frame->next = NULL;
	if (peer->in_last != NULL)
		peer->in_last->next = frame;
	else
		peer->in_first = frame;
	peer->in_last = frame;
	if (!peer->paused)
		sim_schedule(sim, 0, peer->loop, on_deliver, end_of(peer, OK), free);
}

/* The first frame of the sender's queue reaches the other host. Runs outside of both processes: the sender may be dead. */
static void on_arrival(void *arg)
{
	struct end *end = arg;
	struct sim *sim = sim_current();
	struct conn *conn = find_end(sim, end->id);
	free(end);
	if (conn == NULL)
		return;
	conn->sending = false;
	struct conn *peer = find_end(sim, conn->peer_id);
	bool late = conn->loop == NULL;
	if (sim->cut[conn->host->index][conn->peer_host->index] || !conn->peer_host->up ||
	    (late && sim->now_us < conn->late_until_us)) {
		send_first(conn, RETRY_US);
		return;
	}
	if (peer == NULL || is_dead(peer) || sim_chance(sim, sim->options.break_per_million)) {
		if (peer != NULL && !is_dead(peer)) {
			peer->peer_id = 0;
			reset_later(peer, ERR_CLOSED, net_delay(sim));
		}
		if (!is_dead(conn))
			reset_later(conn, ERR_CLOSED, net_delay(sim));
		conn->peer_id = 0;
		if (late)
			conn_free(conn);
		return;
	}
	arrive(conn, peer);
	if (conn->out_first != NULL) {
		send_next(conn, true);
	} else if (late) {
		reset_peer(conn);
		conn_free(conn);
	}
}

/* What sendfile would read at the moment of sending. */
static struct iobuf *data_of(const struct conn_data *data)
{
	struct iobuf *iobuf = iobuf_open(data->size);
	iobuf->size = data->size;
	if (data->iobuf != NULL) {
		memcpy(iobuf->bytes, data->iobuf->bytes + data->offset, data->size);
		return iobuf;
	}
	size_t done = 0;
	if (file_read(data->file, data->file_offset, iobuf->bytes, data->size, &done) != OK)
		done = 0;
	memset(iobuf->bytes + done, 0, data->size - done);
	return iobuf;
}

void conn_send(struct conn *conn, const struct frame_header *header, struct slice message, const struct conn_data *data)
{
	if (conn->loop->dead)
		return;
	struct sim_frame *frame = mem_zero(1, sizeof(*frame));
	frame->header = *header;
	frame->header.message_bytes = (uint32_t)message.size;
	frame->header.data_bytes = data == NULL ? 0 : data->size;
	check(message.size <= FRAME_MESSAGE_BYTES_MAX && frame->header.data_bytes <= FRAME_DATA_BYTES_MAX);
	buf_append_slice(&frame->message, message);
	if (data != NULL && data->size > 0)
		frame->data = data_of(data);
	conn->out_bytes += frame->header.message_bytes + frame->header.data_bytes;
	conn->was_full |= conn->out_bytes > CONN_OUT_BYTES_MAX;
	if (conn->out_last != NULL)
		conn->out_last->next = frame;
	else
		conn->out_first = frame;
	conn->out_last = frame;
	if (!conn->sending && !conn->connecting)
		send_next(conn, false);
}

bool conn_is_full(const struct conn *conn)
{
	return conn->out_bytes > CONN_OUT_BYTES_MAX;
}

size_t conn_count_max(struct loop *loop)
{
	(void)loop;
	return CONNECTIONS_MAX;
}

void conn_reject(struct conn *conn)
{
	const struct conn_events *events = conn->events;
	void *owner = conn->arg;
	conn->loop->malformed++;
	conn_close(conn);
	events->closed(owner, ERR_PROTOCOL);
}

void conn_pause(struct conn *conn, bool paused)
{
	conn->paused = paused;
	if (!paused && conn->in_first != NULL && !conn->delivering && !conn->loop->dead)
		sim_schedule(conn->loop->sim, 0, conn->loop, on_deliver, end_of(conn, OK), free);
}

const char *conn_peer(const struct conn *conn)
{
	return conn->peer;
}

void conn_set_events(struct conn *conn, const struct conn_events *events, void *arg)
{
	conn->events = events;
	conn->arg = arg;
}

uint64_t conn_malformed_count(struct loop *loop)
{
	return loop->malformed;
}

/* ---- connecting */

struct connecting {
	uint64_t id;
	char address[32];
};

static struct sim_host *host_of(struct sim *sim, const char *address)
{
	size_t length = strcspn(address, ":");
	for (size_t i = 0; i < sim->host_count; i++)
		if (strlen(sim->hosts[i]->name) == length && memcmp(sim->hosts[i]->name, address, length) == 0)
			return sim->hosts[i];
	return NULL;
}

static struct listener *listener_at(struct sim *sim, const char *address)
{
	for (struct loop *loop = sim->loops; loop != NULL; loop = loop->next)
		for (struct listener *l = loop->listeners; l != NULL && !loop->dead; l = l->next)
			if (strcmp(l->address, address) == 0)
				return l;
	return NULL;
}

struct accepting {
	uint64_t client_id;
	char address[32];
};

static void on_connected(void *arg)
{
	struct end *end = arg;
	struct conn *conn = find_end(sim_current(), end->id);
	free(end);
	if (conn == NULL)
		return;
	conn->connecting = false;
	if (conn->out_first != NULL && !conn->sending)
		send_next(conn, false);
	if (conn->events != NULL)
		conn->events->connected(conn->arg);
}

static void on_accept(void *arg)
{
	struct accepting *accepting = arg;
	struct sim *sim = sim_current();
	struct conn *client = find_end(sim, accepting->client_id);
	struct listener *listener = listener_at(sim, accepting->address);
	free(accepting);
	if (client == NULL || client->loop->dead || listener == NULL)
		return;
	char from[32];
	snprintf(from, sizeof(from), "%s:%u", client->loop->host->name, 40000u + (unsigned)(client->id % 20000));
	struct conn *server = conn_new(listener->loop, client->loop->host, from);
	server->peer_id = client->id;
	client->peer_id = server->id;
	sim_schedule(sim, net_delay(sim), client->loop, on_connected, end_of(client, OK), free);
	listener->accepted(listener->arg, server);
}

static void on_arrive_at_listener(void *arg)
{
	struct connecting *connecting = arg;
	struct sim *sim = sim_current();
	struct conn *conn = find_end(sim, connecting->id);
	if (conn == NULL || conn->loop->dead) {
		free(connecting);
		return;
	}
	size_t from = conn->loop->host->index, to = conn->peer_host->index;
	if (!conn->peer_host->up || sim->cut[from][to] || sim->cut[to][from]) {
		sim_schedule(sim, RETRY_US, NULL, on_arrive_at_listener, connecting, free);
		return;
	}
	struct listener *listener = listener_at(sim, connecting->address);
	if (listener == NULL) {
		reset_later(conn, ERR_UNREACHABLE, net_delay(sim));
	} else {
		struct accepting *accepting = mem_zero(1, sizeof(*accepting));
		accepting->client_id = conn->id;
		memcpy(accepting->address, connecting->address, sizeof(accepting->address));
		sim_schedule(sim, 0, listener->loop, on_accept, accepting, free);
	}
	free(connecting);
}

enum err conn_connect(struct loop *loop, const char *address, const struct conn_events *events, void *arg,
		      struct conn **out)
{
	*out = NULL;
	struct sim_host *host = host_of(loop->sim, address);
	if (host == NULL || strlen(address) >= sizeof(((struct connecting *)NULL)->address))
		return ERR_INVALID;
	struct conn *conn = conn_new(loop, host, address);
	conn->connecting = true;
	conn_set_events(conn, events, arg);
	struct connecting *connecting = mem_zero(1, sizeof(*connecting));
	connecting->id = conn->id;
	snprintf(connecting->address, sizeof(connecting->address), "%s", address);
	sim_schedule(loop->sim, net_delay(loop->sim), NULL, on_arrive_at_listener, connecting, free);
	*out = conn;
	return OK;
}

enum err listener_open(struct loop *loop, const char *address, void (*accepted)(void *arg, struct conn *conn),
		       void *arg, struct listener **out)
{
	*out = NULL;
	const char *colon = strrchr(address, ':');
	if (colon == NULL || host_of(loop->sim, address) != loop->host)
		return ERR_INVALID;
	struct listener *listener = mem_zero(1, sizeof(*listener));
	listener->loop = loop;
	listener->accepted = accepted;
	listener->arg = arg;
	unsigned port = (unsigned)strtoul(colon + 1, NULL, 10);
	if (port == 0)
		port = loop->host->next_port++;
	snprintf(listener->address, sizeof(listener->address), "%s:%u", loop->host->name, port);
	if (listener_at(loop->sim, listener->address) != NULL) {
		free(listener);
		return ERR_BUSY;
	}
	listener->next = loop->listeners;
	loop->listeners = listener;
	*out = listener;
	return OK;
}

void listener_close(struct listener *listener)
{
	if (listener == NULL)
		return;
	struct listener **link = &listener->loop->listeners;
	while (*link != listener)
		link = &(*link)->next;
	*link = listener->next;
	free(listener);
}

const char *listener_address(const struct listener *listener)
{
	return listener->address;
}
