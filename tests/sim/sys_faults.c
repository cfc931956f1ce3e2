#include "tests/sim/sys_faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/sys/conn.h"
#include "common/sys/file.h"
#include "common/sys/kv.h"
#include "tests/sim/sys/sim.h"

/* ---- disks */

static struct file *open_file(struct loop *loop, const char *path)
{
	struct file *file = NULL;
	check(file_open(loop, path, FILE_WRITE | FILE_CREATE, &file) == OK);
	return file;
}

static void errors_of_one_file(struct sim_host *host, struct loop *loop)
{
	struct file *bad = open_file(loop, "/d/bad"), *good = open_file(loop, "/d/good");
	char text[4];
	size_t done;
	check(file_write(bad, 0, "abcd", 4) == OK);
	check(!sim_host_break_file(host, "/d/none", &(struct sim_file_faults){ .read_fails = true }));
	check(sim_host_break_file(host, "/d/bad", &(struct sim_file_faults){ .read_fails = true, .write_fails = true, .sync_fails = true }));
	check(file_read(bad, 0, text, 4, &done) == ERR_IO && file_write(bad, 0, "efgh", 4) == ERR_IO && file_sync(bad) == ERR_IO);
	check(file_write(good, 0, "good", 4) == OK && file_sync(good) == OK && file_read(good, 0, text, 4, &done) == OK);
	check(sim_host_break_file(host, "/d/bad", &(struct sim_file_faults){ .read_fails = false }));
	check(file_read(bad, 0, text, 4, &done) == OK && memcmp(text, "abcd", 4) == 0);
	file_unref(bad);
	file_unref(good);
}

/* A write of whole blocks of one byte each, when some go astray: where is it? */
static void lost_and_misdirected(struct sim_host *host, struct loop *loop)
{
	static uint8_t block[4096], zero[64 * 4096];
	struct file *file = open_file(loop, "/d/blocks");
	check(file_write(file, 0, zero, sizeof(zero)) == OK);
	memset(block, 7, sizeof(block));
	sim_host_set_disk(host, &(struct sim_disk_faults){ .lost_per_million = 1000000 });
	check(file_write(file, 8192, block, sizeof(block)) == OK);
	sim_host_set_disk(host, &(struct sim_disk_faults){ .misdirected_per_million = 1000000 });
	check(file_write(file, 4096, block, sizeof(block)) == OK);
	sim_host_set_disk(host, &(struct sim_disk_faults){ .space_bytes = 0 });
	unsigned found = 0;
	for (unsigned i = 0; i < 64; i++) {
		uint8_t bytes[4096];
		check(sim_host_read_file(host, "/d/blocks", i * 4096, bytes, sizeof(bytes)));
		found += memcmp(bytes, block, sizeof(block)) == 0;
	}
	check(found == 1); /* of two */
	check(!sim_host_read_file(host, "/d/blocks", sizeof(zero), block, 1));
	file_unref(file);
}

/* What a failed sync did not write the next one does not either, though it says so. */
static void failed_sync(uint64_t seed)
{
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed });
	struct sim_host *host = sim_host_open(sim, "a");
	struct loop *loop = sim_process_open(host, "p");
	struct file *file = open_file(loop, "/d/f");
	char text[4];
	check(file_write(file, 0, "old!", 4) == OK && file_sync(file) == OK && dir_sync(loop, "/d") == OK);
	check(file_write(file, 0, "new!", 4) == OK);
	check(sim_host_break_file(host, "/d/f", &(struct sim_file_faults){ .sync_fails = true }) && file_sync(file) == ERR_IO);
	check(sim_host_break_file(host, "/d/f", &(struct sim_file_faults){ .sync_fails = false }) && file_sync(file) == OK);
	check(sim_host_read_durable(host, "/d/f", 0, text, 4) && memcmp(text, "old!", 4) == 0);
	check(file_write(file, 0, "new!", 4) == OK && file_sync(file) == OK);
	check(sim_host_read_durable(host, "/d/f", 0, text, 4) && memcmp(text, "new!", 4) == 0);
	file_unref(file);
	loop_close(loop);
	sim_close(sim);
}

static void no_space(struct sim_host *host, struct loop *loop)
{
	struct file *file = open_file(loop, "/d/full");
	struct kv *kv = NULL;
	struct kv_batch *batch = kv_batch_open();
	check(kv_open(loop, "/d/kv", NULL, &kv) == OK);
	kv_batch_put(batch, slice_text("a"), slice_text("b"));
	sim_host_set_disk(host, &(struct sim_disk_faults){ .space_bytes = 4096 });
	check(file_write(file, 0, "abcd", 4) == ERR_NO_SPACE && kv_write(kv, batch, true) == ERR_NO_SPACE);
	sim_host_set_disk(host, &(struct sim_disk_faults){ .space_bytes = 0 });
	check(file_write(file, 0, "abcd", 4) == OK && kv_write(kv, batch, true) == OK);
	kv_batch_close(batch);
	kv_close(kv);
	file_unref(file);
}

struct job {
	struct work work;
	bool done;
};

static void job_run(struct work *work)
{
	(void)work;
}

static void job_done(struct work *work)
{
	container_of(work, struct job, work)->done = true;
}

static bool job_is_done(void *arg)
{
	return ((struct job *)arg)->done;
}

static void slow_and_stuck(struct sim *sim, struct sim_host *host, struct loop *loop)
{
	struct job job = { .work = { .run = job_run, .done = job_done } };
	sim_host_set_disk(host, &(struct sim_disk_faults){ .slow_us = 2000000 });
	work_submit(loop, NULL, &job.work);
	check(!sim_run(sim, 1900000, job_is_done, &job) && sim_run(sim, 200000, job_is_done, &job));
	sim_host_set_disk(host, &(struct sim_disk_faults){ .slow_us = 0 });
	job.done = false;
	sim_host_stick_disk(host, true);
	work_submit(loop, NULL, &job.work);
	check(!sim_run(sim, 10000000, job_is_done, &job));
	sim_host_stick_disk(host, false);
	check(sim_run(sim, 20000, job_is_done, &job));
}

void sys_disk_faults(uint64_t seed)
{
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed });
	struct sim_host *host = sim_host_open(sim, "a");
	struct loop *loop = sim_process_open(host, "p");
	errors_of_one_file(host, loop);
	lost_and_misdirected(host, loop);
	no_space(host, loop);
	slow_and_stuck(sim, host, loop);
	loop_close(loop);
	sim_close(sim);
	failed_sync(seed);
}

/* ---- names */

static bool is_there(struct sim_host *host, const char *path)
{
	uint8_t byte;
	return sim_host_read_file(host, path, 0, &byte, 0);
}

void sys_name_faults(uint64_t seed, unsigned *apart)
{
	static const char *const paths[] = { "/x/1", "/y/1", "/x/2", "/y/2", "/x/3", "/y/3" };
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed });
	struct sim_host *host = sim_host_open(sim, "a");
	struct loop *loop = sim_process_open(host, "p");
	file_unref(open_file(loop, "/x/0"));
	check(dir_sync(loop, "/x") == OK);
	for (unsigned i = 0; i < 6; i++)
		file_unref(open_file(loop, paths[i]));
	check(file_rename(loop, "/x/0", "/y/0") == OK);
	sim_host_power_cut(host);
	loop_close(loop);
	/* The same directory: in order. A synced name that was moved is in one place. */
	for (unsigned i = 2; i < 6; i++)
		check(!is_there(host, paths[i]) || is_there(host, paths[i - 2]));
	check(is_there(host, "/x/0") != is_there(host, "/y/0"));
	check(!is_there(host, "/y/0") || (is_there(host, "/x/3") && is_there(host, "/y/3")));
	*apart += is_there(host, "/y/1") && !is_there(host, "/x/1");
	sim_close(sim);
}

/* ---- links */

struct talk {
	struct loop *server, *client;
	struct listener *listener;
	struct conn *server_conn, *client_conn;
	unsigned received, received_before_end;
	bool connected, ended;
};

static void on_frame(void *arg, const struct frame_header *header, struct slice message, struct iobuf *data)
{
	struct talk *talk = arg;
	(void)header;
	(void)message;
	talk->received++;
	iobuf_unref(data);
}

static void on_connected(void *arg)
{
	((struct talk *)arg)->connected = true;
}

static void on_client_closed(void *arg, enum err why)
{
	(void)why;
	((struct talk *)arg)->client_conn = NULL;
}

static void on_server_closed(void *arg, enum err why)
{
	struct talk *talk = arg;
	(void)why;
	talk->server_conn = NULL;
	talk->received_before_end = talk->received;
	talk->ended = true;
}

static const struct conn_events server_events = { .frame = on_frame, .closed = on_server_closed };
static const struct conn_events client_events = { .frame = on_frame, .connected = on_connected, .closed = on_client_closed };

static void on_accepted(void *arg, struct conn *conn)
{
	struct talk *talk = arg;
	talk->server_conn = conn;
	conn_set_events(conn, &server_events, talk);
}

static bool is_connected(void *arg)
{
	return ((struct talk *)arg)->connected;
}

static bool has_ended(void *arg)
{
	return ((struct talk *)arg)->ended;
}

static bool has_received(void *arg)
{
	return ((struct talk *)arg)->received > 0;
}

static void talk_open(struct talk *talk, struct sim *sim, struct sim_host *a, struct sim_host *b)
{
	*talk = (struct talk){ .server = sim_process_open(a, "server"), .client = sim_process_open(b, "client") };
	check(listener_open(talk->server, "a:0", on_accepted, talk, &talk->listener) == OK);
	check(conn_connect(talk->client, listener_address(talk->listener), &client_events, talk, &talk->client_conn) == OK);
	check(sim_run(sim, 1000000, is_connected, talk));
}

static void talk_close(struct talk *talk)
{
	if (talk->client_conn != NULL)
		conn_close(talk->client_conn);
	if (talk->server_conn != NULL)
		conn_close(talk->server_conn);
	listener_close(talk->listener);
	loop_close(talk->client);
	loop_close(talk->server);
}

static void send(struct talk *talk, uint32_t size)
{
	struct iobuf *iobuf = iobuf_open(size);
	iobuf->size = size;
	memset(iobuf->bytes, 1, size);
	conn_send(talk->client_conn, &(struct frame_header){ .type = 1, .id = 1 }, slice_text("abc"),
		  &(struct conn_data){ .iobuf = iobuf, .size = size });
	iobuf_unref(iobuf);
}

void sys_link_faults(uint64_t seed, unsigned *late)
{
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed, .late_per_million = 500000, .late_us_max = 3000000 });
	struct sim_host *a = sim_host_open(sim, "a"), *b = sim_host_open(sim, "b");
	struct talk talk;
	talk_open(&talk, sim, a, b);
	/* 1 Mbit/s: 125,000 bytes take a second. */
	sim_set_link(sim, b, a, &(struct sim_link){ .bytes_per_second = 125000 });
	send(&talk, 125000);
	check(!sim_run(sim, 990000, has_received, &talk) && sim_run(sim, 20000, has_received, &talk));
	sim_set_link(sim, b, a, &(struct sim_link){ .delay_us = 300000 });
	talk.received = 0;
	send(&talk, 10);
	check(!sim_run(sim, 290000, has_received, &talk) && sim_run(sim, 20000, has_received, &talk));
	sim_set_link(sim, b, a, NULL);
	talk.received = 0;
	for (unsigned i = 0; i < 5; i++)
		send(&talk, 10);
	sim_process_kill(talk.client);
	conn_close(talk.client_conn);
	talk.client_conn = NULL;
	/* All that it had sent, and only then the end; or nothing of it. */
	check(sim_run(sim, 5000000, has_ended, &talk));
	check(talk.received_before_end == 0 || talk.received_before_end == 5);
	*late += talk.received_before_end > 0;
	talk_close(&talk);
	sim_close(sim);
}

/* ---- clocks */

static void ring(void *arg)
{
	*(bool *)arg = true;
}

static bool has_rung(void *arg)
{
	return *(bool *)arg;
}

void sys_clock_faults(uint64_t seed)
{
	struct sim *sim = sim_open(&(struct sim_options){ .seed = seed });
	struct sim_host *host = sim_host_open(sim, "a");
	struct loop *loop = sim_process_open(host, "p");
	struct timer timer;
	bool rung = false;
	uint64_t wall = loop_wall_ms(loop), now = loop_now_us(loop);
	sim_host_set_clock(host, -3600000, 0);
	check(loop_wall_ms(loop) == wall - 3600000 && loop_now_us(loop) == now);
	sim_host_set_clock(host, 3600000, 0);
	check(loop_wall_ms(loop) == wall + 3600000 && loop_now_us(loop) == now);
	sim_host_set_clock(host, 0, -500000);
	timer_init(&timer, loop, ring, &rung);
	timer_start(&timer, 500);
	check(!sim_run(sim, 990000, has_rung, &rung) && sim_run(sim, 20000, has_rung, &rung));
	check(loop_now_us(loop) - now >= 495000 && loop_now_us(loop) - now <= 505000);
	timer_stop(&timer);
	loop_close(loop);
	sim_close(sim);
}
