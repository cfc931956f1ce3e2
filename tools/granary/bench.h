/* Measuring: of the machine (bench_raw.c), of coding (bench_encode.c) and of the cluster (cmd_bench.c). */
#ifndef GRANARY_TOOLS_GRANARY_BENCH_H
#define GRANARY_TOOLS_GRANARY_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "common/data/compress.h"

struct bench_profile {
	unsigned data_shards, parity_shards;
};

/* Coding, with one core, in MiB/s of data: medians. */
struct bench_encode {
	double isal_cached_mib_s; /* ISA-L alone, the same data again and again, in the cache of one core */
	double isal_memory_mib_s; /* ISA-L alone, over a chunk in memory, in pieces as a chunk is coded in */
	double coded_mib_s;       /* a chunk: its writer's checksums, its units, parity, and all shards' checksums */
	double stored_share_pct;  /* size of all data shards, of the chunk's */
};

/* What the hardware allows, in MiB/s and microseconds. */
struct bench_raw {
	double sync_median_us, sync_p99_us; /* 4 KiB overwrite + fdatasync */
	double buffered_mib_s,
	    direct_mib_s;               /* three streams of 256 KiB writes to files of their own, synced at the end */
	double round_trip_us;           /* one byte there and back over 127.0.0.1: median */
	double loopback_mib_s;          /* TCP over 127.0.0.1, 256 KiB writes, one thread at each end */
	double crc_mib_s, memcpy_mib_s; /* 1 MiB at a time, in the cache of one core */
};

/* Uses files in `directory`, which it removes. 0 or an errno. direct_mib_s is 0 where O_DIRECT is not to be had. */
int bench_raw_run(const char *directory, struct bench_raw *out);

/* What ISA-L does alone. The profile is a valid one. */
void bench_isal_run(struct bench_profile profile, struct bench_encode *out);
/* All. */
void bench_encode_run(struct bench_profile profile, enum compression compression, struct bench_encode *out);

/* Sorts the values; share 0.5 is the median. */
double bench_percentile(double *values, size_t count, double share);

#endif
