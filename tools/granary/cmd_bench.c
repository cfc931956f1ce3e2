/* bench: operations of the cluster beside what the machine can do. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/rng.h"
#include "common/data/erasure.h"
#include "tools/granary/bench.h"
#include "tools/granary/commands.h"
#include "tools/granary/jobs.h"
#include "tools/granary/json.h"
#include "tools/granary/transfer.h"

#define BENCH_COUNT_MAX 10000000u

enum bench_kind { BENCH_PUT, BENCH_GET, BENCH_WRITE, BENCH_READ, BENCH_META, BENCH_RAW, BENCH_ENCODE };
static const char *const kind_names[] = {"put", "get", "write", "read", "meta", "raw", "encode"};

/* What ISA-L alone is measured with. */
static const struct bench_profile profiles[] = {{2, 2}, {4, 2}, {6, 3}, {10, 4}};

/* The steps of `meta`, one after another over all names. */
enum meta_step { META_CREATE, META_STAT, META_RENAME, META_UNLINK, META_STEPS };
static const char *const meta_names[] = {"create", "stat", "rename", "unlink"};

struct bench {
	struct cli *cli;
	enum bench_kind kind;
	uint64_t bytes, count, threads;
	uint64_t rate; /* operations a second, of all threads together; 0: as fast as it goes */
	char directory[64];
	const uint8_t *data; /* `bytes` random ones, at most TRANSFER_BYTES */
};

/* One pass of one thread over its part of the names. */
struct pass {
	struct bench *bench;
	int (*run)(struct cli *cli, struct pass *pass, uint64_t index);
	enum meta_step step;
	uint64_t first, end;
	double *times_us; /* of each index, shared; every pass writes its own part */
};

static void name_of(const struct bench *bench, uint64_t index, char *out, size_t size)
{
	snprintf(out, size, "%s/%" PRIu64, bench->directory, index);
}

static int put_small(struct cli *cli, struct pass *pass, uint64_t index)
{
	char path[128];
	name_of(pass->bench, index, path, sizeof path);
	granary_status status = granary_put(cli->cluster, path, pass->bench->data, pass->bench->bytes, 0644);
	return status ? cli_error(cli, path, status) : EXIT_DONE;
}

static int write_large(struct cli *cli, struct pass *pass, uint64_t index)
{
	const struct bench *bench = pass->bench;
	char path[128];
	struct granary_file *file;
	name_of(bench, index, path, sizeof path);
	granary_status status = granary_open(cli->cluster, path, O_WRONLY | O_CREAT | O_TRUNC, 0644, &file);
	if (status)
		return cli_error(cli, path, status);
	for (uint64_t offset = 0; offset < bench->bytes && !status; offset += TRANSFER_BYTES) {
		uint64_t left = bench->bytes - offset;
		status = granary_pwrite(file, bench->data, left < TRANSFER_BYTES ? left : TRANSFER_BYTES, offset);
	}
	if (!status)
		status = granary_fsync(file);
	granary_status closed = granary_file_close(file);
	status = status ? status : closed;
	return status ? cli_error(cli, path, status) : EXIT_DONE;
}

static int write_any(struct cli *cli, struct pass *pass, uint64_t index)
{
	return pass->bench->bytes <= TRANSFER_BYTES && pass->bench->kind != BENCH_WRITE &&
		       pass->bench->kind != BENCH_READ
		   ? put_small(cli, pass, index)
		   : write_large(cli, pass, index);
}

static int read_all(struct cli *cli, struct pass *pass, uint64_t index)
{
	const struct bench *bench = pass->bench;
	char path[128];
	struct granary_file *file;
	name_of(bench, index, path, sizeof path);
	granary_status status = granary_open(cli->cluster, path, O_RDONLY, 0, &file);
	if (status)
		return cli_error(cli, path, status);
	uint8_t *bytes = mem_alloc(TRANSFER_BYTES);
	bool same = true;
	for (uint64_t offset = 0; offset < bench->bytes && !status && same; offset += TRANSFER_BYTES) {
		uint64_t left = bench->bytes - offset, wanted = left < TRANSFER_BYTES ? left : TRANSFER_BYTES;
		size_t got = 0;
		status = granary_pread(file, bytes, wanted, offset, &got);
		same = status || (got == wanted && memcmp(bytes, bench->data, got) == 0);
	}
	free(bytes);
	granary_status closed = granary_file_close(file);
	status = status ? status : closed;
	return status ? cli_error(cli, path, status) : same ? EXIT_DONE : cli_error_text(cli, path, "WRONG DATA");
}

static int meta_step(struct cli *cli, struct pass *pass, uint64_t index)
{
	char path[128], renamed[132];
	struct granary_file *file;
	struct granary_stat stat;
	granary_status status = 0;
	name_of(pass->bench, index, path, sizeof path);
	snprintf(renamed, sizeof renamed, "%s.r", path);
	switch (pass->step) {
	case META_CREATE:
		status = granary_open(cli->cluster, path, O_WRONLY | O_CREAT | O_EXCL, 0644, &file);
		if (!status)
			status = granary_file_close(file);
		break;
	case META_STAT:
		status = granary_stat(cli->cluster, path, false, &stat);
		break;
	case META_RENAME:
		status = granary_rename(cli->cluster, path, renamed, 0);
		break;
	case META_UNLINK:
		status = granary_unlink(cli->cluster, renamed);
		break;
	case META_STEPS:
		break;
	}
	return status ? cli_error(cli, path, status) : EXIT_DONE;
}

static int remove_one(struct cli *cli, struct pass *pass, uint64_t index)
{
	char path[128];
	name_of(pass->bench, index, path, sizeof path);
	granary_status status = granary_unlink(cli->cluster, path);
	return status && status != ERR_NOT_FOUND ? cli_error(cli, path, status) : EXIT_DONE;
}

/* When an operation begins. With a rate that is when it is due, even if the one before took longer: who waits for it waits from then. */
static double begin(const struct pass *pass, uint64_t index, double started)
{
	double now = monotonic_seconds();
	if (pass->bench->rate == 0)
		return now;
	double due = started + (double)(index - pass->first) * (double)pass->bench->threads / (double)pass->bench->rate;
	if (due > now) {
		double seconds = due - now;
		nanosleep(&(struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
	}
	return due;
}

static int pass_run(struct cli *cli, void *arg)
{
	struct pass *pass = arg;
	int result = cli_connect(cli);
	double started = monotonic_seconds();
	for (uint64_t i = pass->first; i < pass->end && result == EXIT_DONE; i++) {
		double began = begin(pass, i, started);
		result = pass->run(cli, pass, i);
		pass->times_us[i] = (monotonic_seconds() - began) * 1e6;
	}
	free(pass);
	return result;
}

struct figures {
	double seconds, ops_s, mib_s, median_us, p99_us, max_us;
};

/* Everything once, cut into a part for each thread. */
static int run_pass(struct bench *bench, int (*run)(struct cli *, struct pass *, uint64_t), enum meta_step step,
		    struct figures *out)
{
	double *times = mem_zero(bench->count, sizeof *times);
	struct jobs *jobs = jobs_open(bench->cli, bench->threads);
	double began = monotonic_seconds();
	for (uint64_t t = 0; t < bench->threads; t++) {
		struct pass *pass = mem_zero(1, sizeof *pass);
		*pass = (struct pass){.bench = bench,
				      .run = run,
				      .step = step,
				      .times_us = times,
				      .first = bench->count * t / bench->threads,
				      .end = bench->count * (t + 1) / bench->threads};
		jobs_submit(jobs, pass_run, pass);
	}
	int result = jobs_close(jobs);
	out->seconds = monotonic_seconds() - began;
	out->ops_s = (double)bench->count / out->seconds;
	out->mib_s = out->ops_s * (double)bench->bytes / 1048576;
	out->median_us = bench_percentile(times, bench->count, 0.5);
	out->p99_us = bench_percentile(times, bench->count, 0.99);
	out->max_us = times[bench->count - 1];
	free(times);
	return result;
}

struct limit {
	double share_pct;
	const char *of;
};

/* Written bytes go to three disks, which here are one; bytes read cross the loopback once; an operation that changes
 * something cannot be faster than one synced write, one that only asks than one round trip. */
static struct limit limit_of(const struct bench *bench, const char *name, const struct figures *f,
			     const struct bench_raw *raw)
{
	double disk = raw->direct_mib_s > raw->buffered_mib_s ? raw->direct_mib_s : raw->buffered_mib_s;
	if (bench->kind == BENCH_WRITE)
		return (struct limit){100 * f->mib_s / (disk / 3), "three streams to disk"};
	if (bench->kind == BENCH_READ)
		return (struct limit){100 * f->mib_s / raw->loopback_mib_s, "loopback TCP"};
	if (bench->kind == BENCH_GET || strcmp(name, "stat") == 0)
		return (struct limit){100 * raw->round_trip_us / f->median_us, "the speed of one round trip"};
	return (struct limit){100 * raw->sync_median_us / f->median_us, "the speed of one synced 4 KiB write"};
}

static void report(struct json *json, const struct bench *bench, const char *name, const struct figures *f,
		   const struct bench_raw *raw)
{
	struct limit limit = limit_of(bench, name, f, raw);
	if (json) {
		json_open(json, NULL, '{');
		json_text(json, "name", name);
		json_number(json, "bytes", bench->bytes);
		json_number(json, "count", bench->count);
		json_number(json, "threads", bench->threads);
		json_real(json, "seconds", f->seconds);
		json_real(json, "ops_s", f->ops_s);
		json_real(json, "mib_s", f->mib_s);
		json_real(json, "p50_us", f->median_us);
		json_real(json, "p99_us", f->p99_us);
		json_real(json, "max_us", f->max_us);
		json_real(json, "raw_share_pct", limit.share_pct);
		json_text(json, "raw_of", limit.of);
		json_close(json, '}');
		fflush(stdout);
		return;
	}
	printf("%-8s %10.0f ops/s %10.1f MiB/s   p50 %8.0f us   p99 %8.0f us   max %8.0f us   %3.0f%% of %s\n", name,
	       f->ops_s, f->mib_s, f->median_us, f->p99_us, f->max_us, limit.share_pct, limit.of);
}

static void report_isal(struct json *json, const struct bench_profile *profile)
{
	struct bench_encode isal;
	char names[2][40];
	bench_isal_run(*profile, &isal);
	snprintf(names[0], sizeof names[0], "isal_%u+%u", profile->data_shards, profile->parity_shards);
	snprintf(names[1], sizeof names[1], "isal_%u+%u_memory", profile->data_shards, profile->parity_shards);
	for (int i = 0; i < 2; i++) {
		double value = i == 0 ? isal.isal_cached_mib_s : isal.isal_memory_mib_s;
		if (json)
			json_real(json, names[i], value);
		else
			printf("%-16s %10.1f MiB/s\n", names[i], value);
	}
}

static void report_raw(struct json *json, const struct bench_raw *raw)
{
	const struct {
		const char *name, *unit;
		double value;
	} rows[] = {
	    {"sync_4k_p50", "us", raw->sync_median_us},  {"sync_4k_p99", "us", raw->sync_p99_us},
	    {"round_trip", "us", raw->round_trip_us},    {"disk_buffered", "MiB/s", raw->buffered_mib_s},
	    {"disk_direct", "MiB/s", raw->direct_mib_s}, {"loopback_tcp", "MiB/s", raw->loopback_mib_s},
	    {"crc32c", "MiB/s", raw->crc_mib_s},         {"memcpy", "MiB/s", raw->memcpy_mib_s},
	};
	if (json)
		json_open(json, NULL, '{');
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (json)
			json_real(json, rows[i].name, rows[i].value);
		else
			printf("%-16s %10.1f %s\n", rows[i].name, rows[i].value, rows[i].unit);
	}
	for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++)
		report_isal(json, &profiles[i]);
	if (json)
		json_close(json, '}');
}

static void encode(struct bench_profile profile, enum compression compression, struct json *json)
{
	struct bench_encode f;
	char name[40];
	bench_encode_run(profile, compression, &f);
	snprintf(name, sizeof name, "%u+%u", profile.data_shards, profile.parity_shards);
	double of_memory = 100 * f.coded_mib_s / f.isal_memory_mib_s, of_cached = 100 * f.coded_mib_s / f.isal_cached_mib_s;
	if (!json) {
		printf("encode %s, compression %s: %.1f MiB/s, stored %.1f%%; %.0f%% of ISA-L alone over a chunk in memory (%.1f MiB/s), "
		       "%.0f%% of it in the cache (%.1f MiB/s)\n",
		       name, compression_name(compression), f.coded_mib_s, f.stored_share_pct, of_memory, f.isal_memory_mib_s, of_cached,
		       f.isal_cached_mib_s);
		return;
	}
	json_open(json, NULL, '{');
	json_text(json, "name", "encode");
	json_text(json, "profile", name);
	json_text(json, "compression", compression_name(compression));
	json_real(json, "mib_s", f.coded_mib_s);
	json_real(json, "stored_share_pct", f.stored_share_pct);
	json_real(json, "isal_memory_mib_s", f.isal_memory_mib_s);
	json_real(json, "isal_memory_share_pct", of_memory);
	json_real(json, "isal_cached_mib_s", f.isal_cached_mib_s);
	json_real(json, "isal_cached_share_pct", of_cached);
	json_close(json, '}');
}

static int measure(struct bench *bench, struct json *json, const struct bench_raw *raw)
{
	struct figures figures, ignored;
	int result;
	if (bench->kind == BENCH_META) {
		bench->bytes = 0;
		result = EXIT_DONE;
		for (int step = 0; step < META_STEPS && result == EXIT_DONE; step++) {
			result = run_pass(bench, meta_step, (enum meta_step)step, &figures);
			if (result == EXIT_DONE)
				report(json, bench, meta_names[step], &figures, raw);
		}
		return result;
	}
	result = run_pass(bench, write_any, 0, &figures);
	if (result == EXIT_DONE && (bench->kind == BENCH_GET || bench->kind == BENCH_READ))
		result = run_pass(bench, read_all, 0, &figures);
	if (result == EXIT_DONE)
		report(json, bench, kind_names[bench->kind], &figures, raw);
	return cli_worst(result, run_pass(bench, remove_one, 0, &ignored));
}

static int run(struct bench *bench, const char *disk, struct json *json)
{
	struct cli *cli = bench->cli;
	struct bench_raw raw;
	int error = bench_raw_run(disk, &raw);
	if (error)
		return cli_error_errno(cli, disk, error);
	if (bench->kind == BENCH_RAW) {
		report_raw(json, &raw);
		return EXIT_DONE;
	}
	int result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	size_t size = bench->bytes < TRANSFER_BYTES ? bench->bytes : TRANSFER_BYTES;
	uint8_t *data = mem_alloc(size + 8);
	struct rng rng;
	rng_init(&rng, 1);
	for (size_t i = 0; i < size; i += 8) {
		uint64_t bits = rng_next(&rng);
		memcpy(data + i, &bits, 8);
	}
	bench->data = data;
	snprintf(bench->directory, sizeof bench->directory, "/granary-bench-%d", (int)getpid());
	granary_status status = granary_mkdir(cli->cluster, bench->directory, 0755);
	result = status ? cli_error(cli, bench->directory, status) : measure(bench, json, &raw);
	if (!status)
		status = granary_rmdir(cli->cluster, bench->directory);
	if (status)
		result = cli_worst(result, cli_error(cli, bench->directory, status));
	free(data);
	return result;
}

static bool parse_profile(const char *text, struct bench_profile *out)
{
	int end = 0;
	return sscanf(text, "%2u+%1u%n", &out->data_shards, &out->parity_shards, &end) == 2 && text[end] == '\0' &&
	       erasure_profile_valid(out->data_shards, out->parity_shards);
}

int cmd_bench(struct cli *cli, int argc, char **argv)
{
	struct bench bench = {.cli = cli, .threads = 1};
	bool as_json = false;
	const char *disk = ".", *profile = "4+2", *compression_text = "off";
	struct bench_profile shards = {0};
	enum compression compression = COMPRESSION_OFF;
	const struct cli_option options[] = {
	    {"size", 0, CLI_BYTES, &bench.bytes, "SIZE", "of each file (put, get: 4K; write, read: 256M)"},
	    {"count", 0, CLI_COUNT, &bench.count, "N", "how many files (1000; write, read: one a thread)"},
	    {"threads", 0, CLI_COUNT, &bench.threads, "N", "clients at once (1)"},
	    {"rate", 0, CLI_COUNT, &bench.rate, "N", "no more than N operations a second; times count from when each was due"},
	    {"dir", 0, CLI_TEXT, &disk, "DIR", "where the disk is measured (this directory)"},
	    {"profile", 0, CLI_TEXT, &profile, "K+M", "encode: data and parity shards (4+2)"},
	    {"compression", 0, CLI_TEXT, &compression_text, "HOW", "encode: off, fast, high, auto (off)"},
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object for each row"},
	    {0},
	};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	int kind = 0;
	while (kind <= BENCH_ENCODE && strcmp(kind_names[kind], argv[0]) != 0)
		kind++;
	if (kind > BENCH_ENCODE)
		return cli_usage_error(cli, argv[0], "unknown (there are put, get, write, read, meta, raw, encode)");
	bench.kind = (enum bench_kind)kind;
	if (bench.threads < 1 || bench.threads > JOBS_MAX || bench.count > BENCH_COUNT_MAX)
		return cli_usage_error(cli, "--threads, --count", "1 to 64 threads, at most ten million files");
	if (!parse_profile(profile, &shards))
		return cli_usage_error(cli, "--profile", "2 to 32 data shards and 1 to 8 parity shards, as 4+2");
	if (!compression_parse(compression_text, &compression))
		return cli_usage_error(cli, "--compression", "off, fast, high or auto");
	bool large = kind == BENCH_WRITE || kind == BENCH_READ;
	bench.bytes = bench.bytes ? bench.bytes : large ? 256u * (uint64_t)MIB : 4u * KIB;
	bench.count = bench.count ? bench.count : large ? bench.threads : 1000;
	struct json json;
	json_init(&json, stdout);
	if (kind == BENCH_ENCODE) {
		encode(shards, compression, as_json ? &json : NULL);
		return EXIT_DONE;
	}
	return run(&bench, disk, as_json ? &json : NULL);
}
