#include "tests/sim/cluster_faults.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"

#define BIT(fault) (1u << (fault))
#define CLOCK_RATE_PPM_MAX 40000 /* two of them differ by less than RAFT_CLOCK_DRIFT_PERCENT */
#define FLAPS 4u

#define PROCESS_FAULTS (BIT(FAULT_KILL) | BIT(FAULT_KILL_LEADER) | BIT(FAULT_KILL_LATE) | BIT(FAULT_PAUSE) | BIT(FAULT_PAUSE_LEADER))
#define NETWORK_FAULTS (BIT(FAULT_CUT) | BIT(FAULT_ISOLATE) | BIT(FAULT_BRIDGE) | BIT(FAULT_FLAP) | BIT(FAULT_SLOW_LINK))
#define POWER_FAULTS (BIT(FAULT_POWER) | BIT(FAULT_POWER_SOON) | BIT(FAULT_POWER_ALL))
#define DISK_FAULTS (BIT(FAULT_SLOW_DISK) | BIT(FAULT_STUCK_DISK) | BIT(FAULT_FAILING_DISK) | BIT(FAULT_FULL_DISK))
#define CLOCK_FAULTS (BIT(FAULT_CLOCK_JUMP) | BIT(FAULT_CLOCK_RATE))

/* The last one, all of it at once, is for SIM_STORM. */
#define STORMS_OF_SEEDS 7u

static const struct storm storms[] = {
	{ .name = "processes", .faults = PROCESS_FAULTS | BIT(FAULT_CUT), .pause_us_min = 100000, .pause_us_max = 900000,
	  .lasts_us_max = 2000000, .unsynced_stays = true },
	{ .name = "network", .faults = NETWORK_FAULTS | BIT(FAULT_PAUSE), .pause_us_min = 50000, .pause_us_max = 600000,
	  .lasts_us_max = 1500000, .unsynced_stays = true },
	{ .name = "masters", .faults = PROCESS_FAULTS | NETWORK_FAULTS | POWER_FAULTS | CLOCK_FAULTS, .pause_us_min = 50000,
	  .pause_us_max = 500000, .lasts_us_max = 1200000, .masters_only = true, .unsynced_stays = true },
	{ .name = "data", .faults = PROCESS_FAULTS | NETWORK_FAULTS, .pause_us_min = 50000, .pause_us_max = 700000,
	  .lasts_us_max = 2500000, .data_only = true, .unsynced_stays = true },
	{ .name = "disks", .faults = DISK_FAULTS | BIT(FAULT_KILL), .pause_us_min = 200000, .pause_us_max = 1000000,
	  .lasts_us_max = 2000000, .unsynced_stays = true },
	{ .name = "clocks", .faults = CLOCK_FAULTS | PROCESS_FAULTS | BIT(FAULT_ISOLATE), .pause_us_min = 100000, .pause_us_max = 800000,
	  .lasts_us_max = 1500000, .unsynced_stays = true },
	{ .name = "power", .faults = POWER_FAULTS | BIT(FAULT_KILL), .pause_us_min = 200000, .pause_us_max = 1500000,
	  .lasts_us_max = 1000000 },
	{ .name = "all", .faults = BIT(FAULTS) - 1u, .pause_us_min = 100000, .pause_us_max = 900000, .lasts_us_max = 1500000 },
};

const struct storm *storm_of(uint64_t seed)
{
	return &storms[seed % STORMS_OF_SEEDS];
}

const struct storm *storm_named(const char *name)
{
	for (size_t i = 0; i < sizeof storms / sizeof storms[0]; i++)
		if (strcmp(storms[i].name, name) == 0)
			return &storms[i];
	return NULL;
}

static struct rng *rng(const struct world *world)
{
	return sim_rng(world->sim);
}

/* ---- ends ---- */

static void on_disk_mended(void *arg)
{
	struct node *node = arg;
	sim_host_set_disk(node->host, &(struct sim_disk_faults){ 0 });
	sim_host_stick_disk(node->host, false);
}

/* The store of a chunkserver that had an error stays out of service until the process starts anew. */
static void on_failing_disk_mended(void *arg)
{
	struct node *node = arg;
	if (node->world->quiet)
		return;
	on_disk_mended(node);
	node_stop(node, false);
	node_start(node);
}

static void on_clock_mended(void *arg)
{
	sim_host_set_clock(((struct node *)arg)->host, 0, 0);
}

/* The cut came within a disk operation, or did not come at all. */
static void on_power_soon(void *arg)
{
	struct node *node = arg;
	sim_host_power_cut_after(node->host, 0);
	if (sim_host_is_up(node->host))
		return;
	node_stop(node, true);
	node_start(node);
}

struct flap {
	struct world *world;
	struct sim_host *from, *to;
	unsigned left;
	uint64_t us;
	bool cut;
};

static void on_flap(void *arg)
{
	struct flap *flap = arg;
	flap->cut = !flap->cut && flap->left > 0 && !flap->world->quiet;
	sim_cut(flap->world->sim, flap->from, flap->to, flap->cut);
	sim_cut(flap->world->sim, flap->to, flap->from, flap->cut);
	if (!flap->cut && (flap->left == 0 || flap->world->quiet)) {
		free(flap);
		return;
	}
	flap->left -= flap->cut;
	sim_schedule(flap->world->sim, flap->us, NULL, on_flap, flap, free);
}

struct slow_link {
	struct world *world;
	struct sim_host *from, *to;
};

static void on_link_mended(void *arg)
{
	struct slow_link *link = arg;
	sim_set_link(link->world->sim, link->from, link->to, NULL);
	sim_set_link(link->world->sim, link->to, link->from, NULL);
	free(link);
}

/* ---- faults ---- */

static struct node *other_than(struct world *world, const struct node *node)
{
	struct node *other;
	do
		other = &world->nodes[rng_below(rng(world), world_node_count(world))];
	while (other == node);
	return other;
}

static void stop(struct node *node, bool power, uint64_t lasts_us)
{
	node_stop(node, power);
	sim_after(node->world->sim, lasts_us, world_on_restart, node);
}

static void power_all(struct world *world, uint64_t lasts_us, bool masters, bool chunkservers)
{
	for (unsigned i = 0; i < world_node_count(world); i++) {
		struct node *node = &world->nodes[i];
		if ((node->kind == NODE_MASTER && masters) || (node->kind == NODE_CHUNKSERVER && chunkservers))
			stop(node, true, 10000 + rng_below(rng(world), lasts_us));
	}
}

static void pause(struct node *node, uint64_t lasts_us)
{
	if (!node->loop)
		return;
	sim_process_pause(node->loop, true);
	sim_after(node->world->sim, lasts_us, world_on_resume, node);
}

static void isolate(struct node *node, uint64_t lasts_us)
{
	struct world *world = node->world;
	uint64_t directions = 1 + rng_below(rng(world), 3), kinds = 1 + rng_below(rng(world), 7);
	for (unsigned i = 0; i < world_node_count(world); i++) {
		if (&world->nodes[i] == node || !(kinds >> world->nodes[i].kind & 1))
			continue;
		if (directions & 1)
			sim_cut(world->sim, node->host, world->nodes[i].host, true);
		if (directions & 2)
			sim_cut(world->sim, world->nodes[i].host, node->host, true);
	}
	sim_after(world->sim, lasts_us, world_on_heal, world);
}

static void bridge(struct node *node, uint64_t lasts_us)
{
	struct world *world = node->world;
	uint64_t sides = rng_next(rng(world));
	for (unsigned i = 0; i < world_node_count(world); i++)
		for (unsigned j = 0; j < world_node_count(world); j++)
			if (&world->nodes[i] != node && &world->nodes[j] != node && ((sides >> i ^ sides >> j) & 1))
				sim_cut(world->sim, world->nodes[i].host, world->nodes[j].host, true);
	sim_after(world->sim, lasts_us, world_on_heal, world);
}

static void flap(struct node *node, uint64_t lasts_us)
{
	struct flap *flap = mem_zero(1, sizeof *flap);
	*flap = (struct flap){ .world = node->world, .from = node->host, .to = other_than(node->world, node)->host, .left = FLAPS,
			       .us = lasts_us / (2 * FLAPS) + 1 };
	on_flap(flap);
}

static void slow_link(struct node *node, uint64_t lasts_us)
{
	struct world *world = node->world;
	struct slow_link *link = mem_zero(1, sizeof *link);
	struct sim_link how = { .bytes_per_second = 125000 };
	if (rng_below(rng(world), 2) == 0)
		how = (struct sim_link){ .delay_us = 5000 + rng_below(rng(world), 300000) };
	*link = (struct slow_link){ .world = world, .from = node->host, .to = other_than(world, node)->host };
	sim_set_link(world->sim, link->from, link->to, &how);
	sim_set_link(world->sim, link->to, link->from, &how);
	sim_schedule(world->sim, lasts_us, NULL, on_link_mended, link, free);
}

static void on_kill_late(void *arg)
{
	struct node *node = arg;
	if (!node->world->quiet)
		stop(node, false, 300000);
}

/* All that it sends takes long, for as long as it lives. */
static void kill_late(struct node *node)
{
	struct world *world = node->world;
	uint64_t delay_us = 20000 + rng_below(rng(world), 200000);
	for (unsigned i = 0; i < world_node_count(world); i++) {
		struct slow_link *link = mem_zero(1, sizeof *link);
		*link = (struct slow_link){ .world = world, .from = node->host, .to = world->nodes[i].host };
		sim_set_link(world->sim, link->from, link->to, &(struct sim_link){ .delay_us = delay_us });
		sim_schedule(world->sim, delay_us, NULL, on_link_mended, link, free);
	}
	sim_after(world->sim, delay_us / 2 + rng_below(rng(world), delay_us / 2), on_kill_late, node);
}

static void break_disk(struct node *node, enum fault fault, uint64_t lasts_us)
{
	struct world *world = node->world;
	struct sim_disk_faults faults = { 0 };
	if (node->kind == NODE_CLIENT)
		return;
	if (fault == FAULT_STUCK_DISK) {
		sim_host_stick_disk(node->host, true);
	} else if (fault == FAULT_SLOW_DISK) {
		faults.slow_us = 5000 + rng_below(rng(world), 2000000);
	} else if (fault == FAULT_FAILING_DISK) {
		faults.write_error_per_million = (uint32_t)rng_below(rng(world), 50000);
		faults.sync_error_per_million = (uint32_t)rng_below(rng(world), 200000);
		node->faulty = true;
	} else {
		/* Below what is kept free for metadata; or nothing is left at all, which is known only later. */
		bool none = rng_below(rng(world), 2) == 0;
		faults.space_bytes = sim_host_pages_used(node->host) * 4096 + (none ? 4096 : DISK_RESERVED_BYTES / 2);
		node->faulty = true;
	}
	sim_host_set_disk(node->host, &faults);
	sim_after(world->sim, lasts_us, fault == FAULT_FAILING_DISK ? on_failing_disk_mended : on_disk_mended, node);
}

static void break_clock(struct node *node, enum fault fault, uint64_t lasts_us)
{
	struct world *world = node->world;
	for (unsigned i = 0; i < world_node_count(world) && fault == FAULT_CLOCK_JUMP; i++)
		if (rng_below(rng(world), 2) == 0)
			sim_host_set_clock(world->nodes[i].host, rng_below(rng(world), 2) == 0 ? -3600000 : 3600000, 0);
	if (fault == FAULT_CLOCK_JUMP)
		return;
	sim_host_set_clock(node->host, 0, (int32_t)rng_below(rng(world), 2 * CLOCK_RATE_PPM_MAX) - CLOCK_RATE_PPM_MAX);
	sim_after(world->sim, lasts_us, on_clock_mended, node);
}

void fault_do(struct world *world, enum fault fault, struct node *node, uint64_t lasts_us)
{
	static const char *const names[FAULTS] = { "kill", "kill of the leader", "late kill", "power cut", "power cut soon", "power cut of many", "pause",
						   "pause of the leader", "cut", "isolation", "bridge", "flapping link", "slow link", "slow disk",
						   "stuck disk", "failing disk", "full disk", "clock jumps", "clock rate" };
	bool leader = fault == FAULT_KILL_LEADER || fault == FAULT_PAUSE_LEADER;
	if (leader && world_leader(world))
		node = world_leader(world);
	world->faults++;
	sim_trace(world->sim, "fault: %s, %s, for %" PRIu64 " ms", names[fault], node->name, lasts_us / 1000);
	if (fault == FAULT_KILL || fault == FAULT_KILL_LEADER || fault == FAULT_POWER) {
		stop(node, fault == FAULT_POWER && node->kind != NODE_CLIENT, lasts_us);
	} else if (fault == FAULT_KILL_LATE) {
		kill_late(node);
	} else if (fault == FAULT_POWER_SOON && node->kind != NODE_CLIENT) {
		sim_host_power_cut_after(node->host, 1 + rng_below(rng(world), 30));
		sim_after(world->sim, lasts_us, on_power_soon, node);
	} else if (fault == FAULT_POWER_ALL) {
		power_all(world, lasts_us, node->kind != NODE_CHUNKSERVER, node->kind != NODE_MASTER);
	} else if (fault == FAULT_PAUSE || fault == FAULT_PAUSE_LEADER) {
		pause(node, lasts_us);
	} else if (fault == FAULT_CUT) {
		struct node *other = other_than(world, node);
		sim_cut(world->sim, node->host, other->host, true);
		sim_cut(world->sim, other->host, node->host, rng_below(rng(world), 2) == 0);
		sim_after(world->sim, lasts_us, world_on_heal, world);
	} else if (fault == FAULT_ISOLATE) {
		isolate(node, lasts_us);
	} else if (fault == FAULT_BRIDGE) {
		bridge(node, lasts_us);
	} else if (fault == FAULT_FLAP) {
		flap(node, lasts_us);
	} else if (fault == FAULT_SLOW_LINK) {
		slow_link(node, lasts_us);
	} else if (fault >= FAULT_SLOW_DISK && fault <= FAULT_FULL_DISK) {
		break_disk(node, fault, lasts_us);
	} else if (fault >= FAULT_CLOCK_JUMP) {
		break_clock(node, fault, lasts_us);
	}
}

/* ---- storms ---- */

struct blowing {
	struct world *world;
	const struct storm *storm;
};

static bool loses_unsynced(enum fault fault)
{
	return fault >= FAULT_POWER && fault <= FAULT_POWER_ALL;
}

static void on_fault(void *arg)
{
	struct blowing *blowing = arg;
	struct world *world = blowing->world;
	const struct storm *storm = blowing->storm;
	if (world->quiet) {
		free(blowing);
		return;
	}
	enum fault fault;
	do
		fault = (enum fault)rng_below(rng(world), FAULTS);
	while (!(storm->faults & BIT(fault)));
	struct node *node;
	do
		node = &world->nodes[rng_below(rng(world), world_node_count(world))];
	while ((storm->masters_only && node->kind == NODE_CHUNKSERVER) || (storm->data_only && node->kind == NODE_MASTER));
	if (loses_unsynced(fault) && storm->unsynced_stays)
		node = world_node(world, NODE_MASTER, (unsigned)rng_below(rng(world), WORLD_MASTERS));
	fault_do(world, fault, node, 20000 + rng_below(rng(world), storm->lasts_us_max));
	uint64_t pause_us = storm->pause_us_min + rng_below(rng(world), storm->pause_us_max - storm->pause_us_min);
	sim_schedule(world->sim, pause_us, NULL, on_fault, blowing, free);
}

void storm_begin(struct world *world, const struct storm *storm)
{
	struct blowing *blowing = mem_zero(1, sizeof *blowing);
	*blowing = (struct blowing){ .world = world, .storm = storm };
	sim_trace(world->sim, "storm: %s", storm->name);
	sim_schedule(world->sim, storm->pause_us_min, NULL, on_fault, blowing, free);
}
