#include "tools/granary/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "tools/granary/cli.h"

#define SYNCS 300
#define ROUND_TRIPS 2000
#define STREAMS 3
#define PIECE_BYTES (256u << 10)
#define STREAM_BYTES (128u << 20)
#define LOOPBACK_BYTES (512ull << 20)
#define MEMORY_BYTES (1u << 20)
#define MEMORY_ROUNDS 2000

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double bench_percentile(double *values, size_t count, double share)
{
	if (count == 0)
		return 0;
	qsort(values, count, sizeof *values, compare);
	size_t at = (size_t)(share * (double)count);
	return values[at < count ? at : count - 1];
}

static uint8_t *aligned_bytes(size_t size)
{
	uint8_t *bytes = aligned_alloc(4096, size);
	check(bytes != NULL);
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 13);
	return bytes;
}

/* A new file of its own that has no name any more. */
static int open_unnamed(const char *directory, int flags)
{
	char path[4096];
	if (snprintf(path, sizeof path, "%s/.granary-bench.XXXXXX", directory) >= (int)sizeof path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int descriptor = mkostemp(path, O_CLOEXEC | flags);
	if (descriptor >= 0)
		unlink(path);
	return descriptor;
}

static int measure_sync(const char *directory, struct bench_raw *out)
{
	double times[SYNCS];
	uint8_t *bytes = aligned_bytes(PIECE_BYTES);
	int descriptor = open_unnamed(directory, 0), error = 0;
	if (descriptor < 0 || pwrite(descriptor, bytes, PIECE_BYTES, 0) != PIECE_BYTES || fsync(descriptor) != 0)
		error = errno;
	for (int i = 0; i < SYNCS && !error; i++) {
		double began = monotonic_seconds();
		bytes[0] = (uint8_t)i;
		if (pwrite(descriptor, bytes, 4096, i % 16 * 4096) != 4096 || fdatasync(descriptor) != 0)
			error = errno;
		times[i] = (monotonic_seconds() - began) * 1e6;
	}
	if (!error) {
		out->sync_median_us = bench_percentile(times, SYNCS, 0.5);
		out->sync_p99_us = bench_percentile(times, SYNCS, 0.99);
	}
	if (descriptor >= 0)
		close(descriptor);
	free(bytes);
	return error;
}

struct stream {
	pthread_t thread;
	int descriptor;
	int error;
};

static void *stream_run(void *arg)
{
	struct stream *stream = arg;
	uint8_t *bytes = aligned_bytes(PIECE_BYTES);
	for (off_t offset = 0; offset < (off_t)STREAM_BYTES && !stream->error; offset += PIECE_BYTES) {
		if (pwrite(stream->descriptor, bytes, PIECE_BYTES, offset) != (ssize_t)PIECE_BYTES)
			stream->error = errno ? errno : EIO;
	}
	if (!stream->error && fdatasync(stream->descriptor) != 0)
		stream->error = errno;
	free(bytes);
	return NULL;
}

static int measure_streams(const char *directory, int flags, double *mib_s)
{
	struct stream streams[STREAMS] = {0};
	int error = 0;
	double began = monotonic_seconds();
	for (int i = 0; i < STREAMS; i++) {
		streams[i].descriptor = open_unnamed(directory, flags);
		if (streams[i].descriptor < 0)
			error = errno;
	}
	for (int i = 0; i < STREAMS && !error; i++)
		check(pthread_create(&streams[i].thread, NULL, stream_run, &streams[i]) == 0);
	for (int i = 0; i < STREAMS && !error; i++)
		pthread_join(streams[i].thread, NULL);
	*mib_s = STREAMS * (double)(STREAM_BYTES >> 20) / (monotonic_seconds() - began);
	for (int i = 0; i < STREAMS; i++) {
		error = error ? error : streams[i].error;
		if (streams[i].descriptor >= 0)
			close(streams[i].descriptor);
	}
	return error;
}

/* Sends the first ROUND_TRIPS bytes back one by one, swallows the rest. */
static void *sink_run(void *arg)
{
	int *listener = arg;
	int descriptor = accept4(*listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
	uint8_t *bytes = aligned_bytes(PIECE_BYTES);
	setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	for (int i = 0; i < ROUND_TRIPS; i++) {
		if (read(descriptor, bytes, 1) != 1 || write(descriptor, bytes, 1) != 1)
			break;
	}
	while (descriptor >= 0 && read(descriptor, bytes, PIECE_BYTES) > 0)
		continue;
	if (descriptor >= 0)
		close(descriptor);
	free(bytes);
	return NULL;
}

static int measure_round_trips(int source, struct bench_raw *out)
{
	double times[ROUND_TRIPS];
	char byte = 0;
	int on = 1;
	setsockopt(source, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	for (int i = 0; i < ROUND_TRIPS; i++) {
		double began = monotonic_seconds();
		if (write(source, &byte, 1) != 1 || read(source, &byte, 1) != 1)
			return errno ? errno : EIO;
		times[i] = (monotonic_seconds() - began) * 1e6;
	}
	out->round_trip_us = bench_percentile(times, ROUND_TRIPS, 0.5);
	return 0;
}

static int measure_loopback(struct bench_raw *out)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	pthread_t sink;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
	    source = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int error = 0;
	if (listener < 0 || source < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
	    listen(listener, 1) != 0 || getsockname(listener, (struct sockaddr *)&address, &size) != 0 ||
	    connect(source, (struct sockaddr *)&address, sizeof address) != 0)
		error = errno;
	if (!error) {
		check(pthread_create(&sink, NULL, sink_run, &listener) == 0);
		uint8_t *bytes = aligned_bytes(PIECE_BYTES);
		uint64_t sent = 0;
		error = measure_round_trips(source, out);
		double began = monotonic_seconds();
		while (sent < LOOPBACK_BYTES && !error) {
			ssize_t put = write(source, bytes, PIECE_BYTES);
			error = put < 0 ? errno : 0;
			sent += put > 0 ? (uint64_t)put : 0;
		}
		shutdown(source, SHUT_WR);
		pthread_join(sink, NULL);
		out->loopback_mib_s = (double)(sent >> 20) / (monotonic_seconds() - began);
		free(bytes);
	}
	if (listener >= 0)
		close(listener);
	if (source >= 0)
		close(source);
	return error;
}

static void measure_memory(struct bench_raw *out)
{
	uint8_t *from = aligned_bytes(MEMORY_BYTES), *to = aligned_bytes(MEMORY_BYTES);
	uint32_t crc = 0;
	double began = monotonic_seconds();
	for (int i = 0; i < MEMORY_ROUNDS; i++) {
		from[0] = (uint8_t)crc;
		crc = crc32c(from, MEMORY_BYTES);
	}
	out->crc_mib_s = MEMORY_ROUNDS / (monotonic_seconds() - began);
	began = monotonic_seconds();
	for (int i = 0; i < MEMORY_ROUNDS; i++) {
		from[0] = to[MEMORY_BYTES - 1];
		memcpy(to, from, MEMORY_BYTES);
	}
	out->memcpy_mib_s = MEMORY_ROUNDS / (monotonic_seconds() - began);
	free(from);
	free(to);
}

int bench_raw_run(const char *directory, struct bench_raw *out)
{
	*out = (struct bench_raw){0};
	int error = measure_sync(directory, out);
	if (!error)
		error = measure_streams(directory, 0, &out->buffered_mib_s);
	if (!error && measure_streams(directory, O_DIRECT, &out->direct_mib_s) != 0)
		out->direct_mib_s = 0;
	if (!error)
		error = measure_loopback(out);
	if (!error)
		measure_memory(out);
	return error;
}
