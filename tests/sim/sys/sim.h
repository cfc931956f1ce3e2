/* The simulated twin of common/sys: many processes on many hosts in one thread, from one seed, in simulated time.
 *
 * A simulation makes hosts (a disk, a clock, a place in the network) and processes on them (a `struct loop` each, handed to
 * the production code), then steps. Each event belongs to one process and is followed by its deferred calls, as an iteration
 * of the real loop. The same seed and the same calls give the same run.
 *
 * Crashes: sim_process_kill and sim_host_power_cut take effect at once: from then on nothing that the process does reaches
 * disk or network, and no event of it runs. The owner then closes the process's objects as usual, which only frees memory,
 * and last the loop (loop_close).
 *
 * Model, by fault:
 * - Network: every frame takes a random time; connections keep order, break as a whole. Frames into a cut wait until it is
 *   healed (TCP sends again). Connecting to a host that is down or cut off never answers. A cut is one way: bridges, rings and islands
 *   are made of several (sim_cut); a link that flaps is a cut that comes and goes. A link may be slow: longer delay, so many bytes a
 *   second, shared by its connections. What a process had sent when it was killed may still arrive, late, before its peers learn of the
 *   end: messages of a former life (not of connections that the other side has heard nothing of yet: README.md).
 * - Disk: writes are in the page cache until synced; a power cut keeps, for every 512-byte sector written since, the old or
 *   the new content at random; unsynced names: a random prefix of the changes survives, of all or of each directory. A killed process
 *   loses nothing. Errors by chance (sim_disk_faults) or of one file (sim_file_faults); what a failed sync did not write no later
 *   sync writes, unless it is written anew; writes that are lost or go to another place
 *   though they are reported done; bits that flip at rest; no space, also for the key-value store; slow; stuck: work of workers waits
 *   until it is released, perhaps for ever (what the loop does itself, from the page cache, goes on).
 * - Key-value store: a power cut keeps the batches up to some point at or after the last sync.
 * - Clock: per host an offset of the wall clock, which jumps, and a rate of both clocks (-500000 ppm: half speed). */
#ifndef GRANARY_TESTS_SIM_SYS_SIM_H
#define GRANARY_TESTS_SIM_SYS_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/base/rng.h"
#include "common/sys/loop.h"

struct sim;
struct sim_host;

struct sim_options {
	uint64_t seed;
	uint64_t net_us_min, net_us_max;   /* delay of a frame; 0, 0: 50..500 */
	uint64_t disk_us_min, disk_us_max; /* of an item of work; 0, 0: 50..1000 */
	uint32_t break_per_million;	   /* chance that a frame breaks its connection instead of arriving */
	uint32_t late_per_million;	   /* chance that what a killed process had sent on a connection arrives after all; */
	uint64_t late_us_max;		   /* so much later */
	bool verbose;			   /* log lines go to standard error as they are made, too */
};

/* One simulation at a time. */
struct sim *sim_open(const struct sim_options *options);
/* All processes have been closed. */
void sim_close(struct sim *sim);
struct rng *sim_rng(struct sim *sim);
uint64_t sim_now_us(const struct sim *sim);
uint64_t sim_steps(const struct sim *sim);

/* Handles the next event. False: there is none. */
bool sim_step(struct sim *sim);
/* Steps until `done` says true (checked after every event) or the time has passed; true if done. NULL: only time. */
bool sim_run(struct sim *sim, uint64_t limit_us, bool (*done)(void *arg), void *arg);
/* Calls fn once after delay_us, outside of every process: for fault schedules. */
void sim_after(struct sim *sim, uint64_t delay_us, void (*fn)(void *arg), void *arg);

/* The same as an event of `loop`: followed by its deferred calls, waiting while it is paused, void (drop(arg), if not NULL)
 * once it is dead. loop NULL: as sim_after. */
void sim_schedule(struct sim *sim, uint64_t delay_us, struct loop *loop, void (*fn)(void *arg), void *arg,
		  void (*drop)(void *arg));

/* The name is the host part of addresses ("m1:7001"); at most 15 bytes, copied. Closed with the sim. */
struct sim_host *sim_host_open(struct sim *sim, const char *name);
/* A process on the host, which is up. loop_close frees it. */
struct loop *sim_process_open(struct sim_host *host, const char *name);
/* Where loop_open makes the next process: for code that opens its own loop. */
void sim_use_host(struct sim_host *host);
/* kill -9: peers see their connections reset. */
void sim_process_kill(struct loop *loop);
bool sim_process_is_dead(const struct loop *loop);
/* Calls `done` for work that a dead process had under way (`run` does nothing any more), for owners that free themselves with
 * their last completion. After they were closed, before loop_close. */
void sim_process_drop_work(struct loop *loop);
/* SIGSTOP and SIGCONT: events wait. */
void sim_process_pause(struct loop *loop, bool paused);

/* Every process on it is killed without a word to anyone, what was not synced may be lost. Stays down until sim_host_start. */
void sim_host_power_cut(struct sim_host *host);
void sim_host_start(struct sim_host *host);
bool sim_host_is_up(const struct sim_host *host);
/* The power cut comes by itself within the n-th disk operation from now (1: the next); 0: not. Look with sim_host_is_up. */
void sim_host_power_cut_after(struct sim_host *host, uint64_t disk_operations);
/* Called whenever a host loses power, at once; from within an event of it. */
void sim_on_power_cut(struct sim *sim, void (*fn)(void *arg, struct sim_host *host), void *arg);
/* Called at each persistence point of any host: just before a sync of a file, a directory or a store has its effect, and just after. It may
 * cut the power of any hosts. */
void sim_on_sync(struct sim *sim, void (*fn)(void *arg, struct sim_host *host, bool done), void *arg);
/* Power cuts from now on: nothing that was not synced is kept, or (false) what chance says. */
void sim_lose_unsynced(struct sim *sim, bool all);
/* wall_ms is added to the wall clock; rate_ppm is how much faster both clocks run (may be negative). */
void sim_host_set_clock(struct sim_host *host, int64_t wall_ms, int32_t rate_ppm);

/* Frames from `from` to `to` wait while cut. One way: call twice for both. */
void sim_cut(struct sim *sim, struct sim_host *from, struct sim_host *to, bool cut);
void sim_heal(struct sim *sim);
struct sim_link {
	uint64_t delay_us;	   /* added to each frame's */
	uint64_t bytes_per_second; /* 0: any number */
};
/* One way; NULL: as others. */
void sim_set_link(struct sim *sim, struct sim_host *from, struct sim_host *to, const struct sim_link *link);

struct sim_disk_faults {
	uint32_t read_error_per_million;
	uint32_t write_error_per_million;
	uint32_t sync_error_per_million;
	uint32_t lost_per_million;	  /* a write is reported done and has no effect */
	uint32_t misdirected_per_million; /* a write goes to another place of the file */
	uint64_t space_bytes; /* 0: 1 TiB */
	uint64_t slow_us;     /* added to each item of work */
};
void sim_host_set_disk(struct sim_host *host, const struct sim_disk_faults *faults);
/* Work of this host's processes does not end before it is released. */
void sim_host_stick_disk(struct sim_host *host, bool stuck);
/* Of one file, as long as it exists. False when there is no such file. */
struct sim_file_faults {
	bool read_fails, write_fails, sync_fails;
};
bool sim_host_break_file(struct sim_host *host, const char *path, const struct sim_file_faults *faults);
/* Flips a bit at rest. False when there is no such file or byte. */
bool sim_host_flip_bit(struct sim_host *host, const char *path, uint64_t offset, unsigned bit);
/* Overwrites what is there, at rest: bytes within one page of 4 KiB. False when there is no such file, or nothing of it was ever written there. */
bool sim_host_put(struct sim_host *host, const char *path, uint64_t offset, const void *bytes, size_t size);
/* The key-value store fails to be read from now on (ERR_CORRUPT); at_open: already when it is opened. False when it is empty. */
bool sim_host_damage_store(struct sim_host *host, const char *path, bool at_open);
/* All files and stores of the host are gone: an empty disk. The host is down. */
void sim_host_wipe(struct sim_host *host);

/* What is on a disk, for checks: as programs see it. */
void sim_host_each_file(struct sim_host *host, bool (*fn)(void *arg, const char *path, uint64_t size), void *arg);
/* False: there is no such file, or it ends before that. */
bool sim_host_read_file(struct sim_host *host, const char *path, uint64_t offset, void *bytes, size_t size);
/* The same of what is synced: bytes within one page of 4 KiB. */
bool sim_host_read_durable(struct sim_host *host, const char *path, uint64_t offset, void *bytes, size_t size);
/* Pages of 4 KiB that files take. */
uint64_t sim_host_pages_used(const struct sim_host *host);
/* What is on a host's disk now, to be put back later: an old copy of a disk. No process runs on the host, at both times. */
struct sim_image;
struct sim_image *sim_host_image(const struct sim_host *host);
void sim_host_restore(struct sim_host *host, const struct sim_image *image);
void sim_image_close(struct sim_image *image);

/* The newest log lines and events of the run, oldest first: what a failing seed prints. */
void sim_print_trace(const struct sim *sim, FILE *out);
/* Adds a line of the simulation's own to the trace. */
void sim_trace(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Of all trace lines so far: equal for equal runs. */
uint64_t sim_trace_digest(const struct sim *sim);

#endif
