/* The simulated system itself: equal seeds give equal runs; what is synced survives, what is not may be lost; connections
 * keep order, break as a whole, wait for a cut to heal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/conn.h"
#include "common/sys/file.h"
#include "common/sys/kv.h"
#include "common/sys/log.h"
#include "tests/sim/sys/sim.h"
#include "tests/sim/sys_faults.h"

#define FRAMES 200u

struct talk {
	struct loop *server, *client;
	struct listener *listener;
	struct conn *server_conn, *client_conn;
	uint64_t received, echoed;
	bool closed;
};

static void on_server_frame(void *arg, const struct frame_header *header, struct slice message, struct iobuf *data)
{
	struct talk *talk = arg;
	check(header->id == talk->received + 1);
	check(message.size == 3 && data != NULL && data->size == header->id);
	talk->received++;
	conn_send(talk->server_conn, header, message, NULL);
	iobuf_unref(data);
}

static void on_client_frame(void *arg, const struct frame_header *header, struct slice message, struct iobuf *data)
{
	struct talk *talk = arg;
	(void)message;
	(void)data;
	check(header->id == talk->echoed + 1);
	talk->echoed++;
}

static void on_closed(void *arg, enum err why)
{
	struct talk *talk = arg;
	log_info("closed", "why=%s", err_name(why));
	talk->closed = true;
	talk->client_conn = NULL;
}

static void on_server_closed(void *arg, enum err why)
{
	struct talk *talk = arg;
	(void)why;
	talk->server_conn = NULL;
}

static void on_connected(void *arg)
{
	struct talk *talk = arg;
	for (uint64_t id = 1; id <= FRAMES; id++) {
		struct iobuf *iobuf = iobuf_open((uint32_t)id);
		iobuf->size = (uint32_t)id;
		memset(iobuf->bytes, (int)id, id);
		conn_send(talk->client_conn, &(struct frame_header){ .type = 1, .id = id }, slice_text("abc"),
			  &(struct conn_data){ .iobuf = iobuf, .size = (uint32_t)id });
		iobuf_unref(iobuf);
	}
}

static const struct conn_events server_events = { .frame = on_server_frame, .closed = on_server_closed };
static const struct conn_events client_events = { .frame = on_client_frame, .connected = on_connected, .closed = on_closed };

static void on_accepted(void *arg, struct conn *conn)
{
	struct talk *talk = arg;
	talk->server_conn = conn;
	conn_set_events(conn, &server_events, talk);
}

static bool all_echoed(void *arg)
{
	const struct talk *talk = arg;
	return talk->echoed == FRAMES;
}

static bool is_closed(void *arg)
{
	const struct talk *talk = arg;
	return talk->closed;
}

static void talk_open(struct talk *talk, struct sim_host *a, struct sim_host *b)
{
	*talk = (struct talk){ .server = sim_process_open(a, "server"), .client = sim_process_open(b, "client") };
	check(listener_open(talk->server, "a:0", on_accepted, talk, &talk->listener) == OK);
	check(conn_connect(talk->client, listener_address(talk->listener), &client_events, talk, &talk->client_conn) == OK);
}

static void talk_close(struct talk *talk)
{
	if (talk->client_conn != NULL)
		conn_close(talk->client_conn);
	if (talk->server_conn != NULL)
		conn_close(talk->server_conn);
	listener_close(talk->listener);
	loop_close(talk->server);
	loop_close(talk->client);
}

static uint64_t run_network(uint64_t seed)
{
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed });
	struct sim_host *a = sim_host_open(sim, "a"), *b = sim_host_open(sim, "b");
	struct talk talk;
	talk_open(&talk, a, b);
	check(sim_run(sim, 10000000, all_echoed, &talk));
	talk_close(&talk);

	/* A cut holds frames back; healing lets them through, all of them and in order. */
	talk_open(&talk, a, b);
	sim_run(sim, 1500, NULL, NULL);
	sim_cut(sim, b, a, true);
	check(!sim_run(sim, 1000000, all_echoed, &talk) && !talk.closed);
	sim_heal(sim);
	check(sim_run(sim, 10000000, all_echoed, &talk));
	/* The end of the process is heard of at once. */
	sim_process_kill(talk.server);
	check(sim_run(sim, 2000, is_closed, &talk));
	talk_close(&talk);

	/* The end of the machine is not. */
	talk_open(&talk, a, b);
	check(sim_run(sim, 10000000, all_echoed, &talk));
	sim_host_power_cut(a);
	check(!sim_run(sim, 1000000, is_closed, &talk));
	talk_close(&talk);
	uint64_t digest = sim_trace_digest(sim) ^ sim_steps(sim) ^ sim_now_us(sim);
	sim_close(sim);
	return digest;
}

static void write_text(struct file *file, uint64_t offset, const char *text)
{
	check(file_write(file, offset, text, strlen(text)) == OK);
}

/* What a power cut leaves of synced and unsynced writes and names; *lost and *kept count both outcomes. */
static void run_disk(uint64_t seed, unsigned *lost, unsigned *kept)
{
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed });
	struct sim_host *host = sim_host_open(sim, "a");
	struct loop *loop = sim_process_open(host, "p");
	struct file *file = NULL;
	check(file_open(loop, "/d/synced", FILE_WRITE | FILE_CREATE, &file) == OK);
	write_text(file, 0, "old!");
	write_text(file, 100000, "far");
	check(file_sync(file) == OK && dir_sync(loop, "/d") == OK);
	write_text(file, 0, "new!");
	struct file *other = NULL;
	check(file_open(loop, "/d/unsynced", FILE_WRITE | FILE_CREATE, &other) == OK);
	struct kv *kv = NULL;
	check(kv_open(loop, "/d/kv", NULL, &kv) == OK);
	struct kv_batch *batch = kv_batch_open();
	for (uint8_t i = 0; i < 20; i++) {
		kv_batch_clear(batch);
		kv_batch_put(batch, slice_of(&i, 1), slice_of(&i, 1));
		check(kv_write(kv, batch, i == 9) == OK);
	}
	kv_batch_close(batch);
	sim_host_power_cut(host);
	check(file_write(file, 0, "late", 4) == ERR_IO);
	kv_close(kv);
	file_unref(file);
	file_unref(other);
	loop_close(loop);

	sim_host_start(host);
	loop = sim_process_open(host, "p");
	char text[5] = { 0 };
	size_t done = 0;
	check(file_open(loop, "/d/synced", FILE_READ_ONLY, &file) == OK);
	check(file_read(file, 0, text, 4, &done) == OK && done == 4);
	check(strcmp(text, "old!") == 0 || strcmp(text, "new!") == 0);
	*(strcmp(text, "old!") == 0 ? lost : kept) += 1;
	memset(text, 0, sizeof(text));
	check(file_read(file, 100000, text, 4, &done) == OK && done == 3 && strcmp(text, "far") == 0);
	file_unref(file);
	check(kv_open(loop, "/d/kv", NULL, &kv) == OK);
	struct kv_iterator *iterator = kv_iterator_open(kv);
	uint8_t count = 0;
	for (kv_iterator_seek(iterator, slice_of("", 0)); kv_iterator_valid(iterator); kv_iterator_next(iterator))
		check(kv_iterator_key(iterator).bytes[0] == count++);
	check(count >= 10 && count <= 20);
	kv_iterator_close(iterator);
	kv_close(kv);
	loop_close(loop);
	sim_close(sim);
}

/* Ordered map against a plain table. */
static void run_kv(uint64_t seed)
{
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed });
	struct loop *loop = sim_process_open(sim_host_open(sim, "a"), "p");
	struct kv *kv = NULL;
	check(kv_open(loop, "/kv", NULL, &kv) == OK);
	int table[256];
	memset(table, -1, sizeof(table));
	struct kv_batch *batch = kv_batch_open();
	struct buf value = { 0 };
	for (int step = 0; step < 2000; step++) {
		uint8_t key = (uint8_t)rng_below(sim_rng(sim), 256), byte = (uint8_t)step;
		kv_batch_clear(batch);
		if (rng_below(sim_rng(sim), 3) == 0) {
			kv_batch_delete(batch, slice_of(&key, 1));
			table[key] = -1;
		} else {
			kv_batch_put(batch, slice_of(&key, 1), slice_of(&byte, 1));
			table[key] = byte;
		}
		check(kv_write(kv, batch, false) == OK);
		enum err err = kv_get(kv, slice_of(&key, 1), &value);
		check(table[key] < 0 ? err == ERR_NOT_FOUND : err == OK && value.bytes[0] == table[key]);
	}
	struct kv_iterator *iterator = kv_iterator_open(kv);
	kv_iterator_seek(iterator, slice_of("", 0));
	for (int key = 0; key < 256; key++) {
		if (table[key] < 0)
			continue;
		check(kv_iterator_valid(iterator) && kv_iterator_key(iterator).bytes[0] == key);
		kv_iterator_next(iterator);
	}
	check(!kv_iterator_valid(iterator));
	kv_iterator_close(iterator);
	buf_deinit(&value);
	kv_batch_close(batch);
	kv_close(kv);
	loop_close(loop);
	sim_close(sim);
}

int main(void)
{
	unsigned lost = 0, kept = 0, apart = 0, late = 0;
	for (uint64_t seed = 1; seed <= 50; seed++) {
		check(run_network(seed) == run_network(seed));
		run_disk(seed, &lost, &kept);
		run_kv(seed);
		sys_disk_faults(seed);
		sys_name_faults(seed, &apart);
		sys_link_faults(seed, &late);
		sys_clock_faults(seed);
	}
	check(lost > 0 && kept > 0 && apart > 0 && late > 0 && late < 50);
	check(run_network(1) != run_network(2));
	printf("sim_sys: 50 seeds, a power cut lost %u and kept %u unsynced writes\n", lost, kept);
	return 0;
}
