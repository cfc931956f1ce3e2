/* What the parts of the simulated system share. Only for tests/sim/sys. */
#ifndef GRANARY_TESTS_SIM_SYS_SIM_INTERNAL_H
#define GRANARY_TESTS_SIM_SYS_SIM_INTERNAL_H

#include "common/sys/timer.h"
#include "tests/sim/sys/sim.h"

#define SIM_HOSTS_MAX 32
#define SIM_TRACE_LINES 400
#define SIM_LINE_BYTES 240

struct sim_disk;
struct sim_conn_table;

/* An event runs fn(arg) at its time. With a process: not before it is running again, never after its death. */
struct sim_event {
	uint64_t at_us;
	uint64_t order; /* of making: breaks ties */
	struct loop *loop;
	uint64_t generation; /* of the loop: a freed loop's events are void */
	void (*fn)(void *arg);
	void *arg;
	void (*drop)(void *arg); /* frees arg when the event is void; or NULL */
};

struct sim_host {
	struct sim *sim;
	char name[16];
	size_t index;
	bool up;
	int64_t wall_offset_ms;
	int32_t rate_ppm;
	uint64_t clock_base_us; /* local monotonic time when the rate was last set, and the simulated time then */
	uint64_t clock_set_us;
	uint64_t boot_id;
	uint64_t cut_after; /* disk operations until the power cut; 0: none */
	uint16_t next_port;
	struct sim_disk_faults faults;
	bool stuck; /* work waits */
	struct sim_disk *disk;
};

struct loop {
	struct loop_core core;
	struct sim *sim;
	struct sim_host *host;
	char name[24];
	uint64_t id; /* unique in the run */
	bool dead, paused, stopping;
	uint64_t wake_us; /* simulated time of the wake-up that is scheduled for timers and defers; UINT64_MAX: none */
	uint64_t wake_order;
	struct loop *next;
	struct work *undone; /* the process died within their `run` */
	struct sim_event *parked; /* events that came while paused */
	size_t parked_count, parked_capacity;
	struct conn *conns;
	struct listener *listeners;
	uint64_t malformed;
	void (*on_terminate)(void *arg);
	void *on_terminate_arg;
};

struct link {
	struct sim_link how;
	uint64_t busy_until_us; /* what was sent before has gone by then */
};

struct sim {
	struct sim_options options;
	struct rng rng;
	uint64_t now_us, order, steps, next_id;
	struct sim_event *heap;
	size_t heap_count, heap_capacity;
	struct sim_host *hosts[SIM_HOSTS_MAX];
	size_t host_count;
	bool cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX];
	struct link links[SIM_HOSTS_MAX][SIM_HOSTS_MAX];
	struct conn *conns_by_id;
	struct conn *late; /* ends of processes that were killed, with frames that are still on their way */
	struct loop *loops;
	struct loop *current; /* whose event is running; for log lines */
	struct sim_host *open_host;
	void (*power_cut)(void *arg, struct sim_host *host);
	void *power_cut_arg;
	void (*on_sync)(void *arg, struct sim_host *host, bool done);
	void *on_sync_arg;
	bool lose_unsynced;
	char (*trace)[SIM_LINE_BYTES];
	uint64_t trace_count;
	uint64_t trace_digest;
};

/* The simulation that is open; NULL between. */
struct sim *sim_current(void);

/* Before a process waits: makes sure that it wakes for its timers and defers. */
void sim_loop_arm(struct loop *loop);
uint64_t sim_between(struct sim *sim, uint64_t least, uint64_t most);
bool sim_chance(struct sim *sim, uint32_t per_million);

/* conn: the process died (with a reset to its peers) or its host lost power (silently). */
void sim_conns_killed(struct loop *loop, bool silently);
void sim_conns_close(struct sim *sim);

struct sim_disk *sim_disk_open(struct sim_host *host);
void sim_disk_close(struct sim_disk *disk);
void sim_disk_power_cut(struct sim_disk *disk);
void sim_disk_process_died(struct sim_disk *disk, const struct loop *loop);
/* Counts one disk operation; false: the power was cut just now or before, nothing has an effect any more. */
bool sim_disk_operation(struct loop *loop);
/* The two sides of a persistence point. False: the power was cut there. */
bool sim_sync_begins(struct loop *loop);
bool sim_sync_is_done(struct loop *loop);
bool sim_disk_has_room(const struct sim_disk *disk, size_t bytes);

/* Ordered maps with old versions (sim_map.c): the stores of a host's disk. */
struct sim_store;
struct sim_store *sim_store_open(struct sim_disk *disk, const char *path);
void sim_stores_power_cut(struct sim_host *host, struct sim_store *stores);
void sim_stores_close(struct sim_store *stores);
/* Adds copies of their newest states. */
void sim_stores_copy(struct sim_disk *to, const struct sim_store *stores);
struct sim_store **sim_disk_stores(struct sim_disk *disk);

#endif
