#include "tests/sim/master_disks.h"

#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "master/replica.h"

#define TICK_US 50000u
#define STATES_MAX 64u
#define STUCK_US 200000000u

#define ADD 1u
#define REMOVE 2u
#define TRANSFER 3u

static bool is_whole(const struct disks *disks)
{
	struct replica *replicas[MASTERS];

	for (unsigned i = 0; i < MASTERS; i++)
		replicas[i] = disks->members[i].master ? master_replica(disks->members[i].master) : NULL;
	return masters_are_whole(replicas);
}

/* ---- the operator */

static void on_answer(void *arg, const struct rpc_result *result)
{
	struct disks *disks = arg;
	enum err err = result->err;

	disks->asking = false;
	sim_trace(disks->sim, "operator: step %d of m%u: %s", disks->step, disks->member ? disks->member->id : 0, err_name(err));
	if (err != OK && err != ERR_NOT_FOUND && err != ERR_EXISTS) {
		disks->leader = leader_after(disks->leader, result);
		return;
	}
	if (disks->step == DISKS_REMOVING && err != ERR_EXISTS) {
		disks->removed++;
		disks->step = DISKS_REMOVED;
		disks->since_us = sim_now_us(disks->sim);
	} else if (disks->step == DISKS_ADDING && err == OK) {
		disks->step = DISKS_RECOVERING;
	} else if (disks->step == DISKS_WHOLE && err == OK) {
		disks->transferred++;
	}
}

static void ask(struct disks *disks, uint32_t kind, uint64_t id)
{
	Granary__MembersChange message = GRANARY__MEMBERS_CHANGE__INIT;
	char address[16] = "";

	message.kind = kind;
	message.id = id;
	if (kind == ADD)
		snprintf(address, sizeof(address), "%s", master_addresses[id - 1]);
	message.address = address;
	disks->asking = true;
	rpc_peer_call(disks->peers[disks->leader], MESSAGE_MEMBERS_CHANGE, &message.base, NULL, 6000, on_answer, disks);
}

/* ---- faults */

static void restart_later(struct disks *disks, struct member *member)
{
	sim_after(disks->sim, 1000 + rng_below(sim_rng(disks->sim), 1000000), member_restart, member);
}

static void empty_disk(struct disks *disks, struct member *member)
{
	member_stop(member, true);
	if (sim_host_is_up(member->host))
		sim_host_power_cut(member->host);
	sim_host_wipe(member->host);
	restart_later(disks, member);
}

static void damage(struct disks *disks, struct member *member)
{
	bool at_open = rng_below(sim_rng(disks->sim), 2) == 0, any = false;
	char path[32] = "data/state";

	for (unsigned i = 0; i < STATES_MAX; i++) {
		if (i > 0)
			snprintf(path, sizeof(path), "data/state-%u", i);
		any = sim_host_damage_store(member->host, path, at_open) || any;
	}
	check(any);
	member->may_fail = true;
	member_stop(member, rng_below(sim_rng(disks->sim), 2) == 0);
	restart_later(disks, member);
}

void disks_fault(struct disks *disks)
{
	struct member *member = &disks->members[rng_below(sim_rng(disks->sim), MASTERS)];

	if (disks->quiet || disks->asking || disks->step != DISKS_WHOLE || !member->master || !is_whole(disks))
		return;
	disks->member = member;
	disks->since_us = sim_now_us(disks->sim);
	switch (rng_below(sim_rng(disks->sim), 4)) {
	case 0:
		disks->replaced++;
		disks->step = DISKS_RECOVERING;
		empty_disk(disks, member);
		break;
	case 1:
		disks->damaged++;
		disks->step = DISKS_RECOVERING;
		damage(disks, member);
		break;
	case 2:
		disks->step = DISKS_REMOVING;
		break;
	default:
		ask(disks, TRANSFER, rng_below(sim_rng(disks->sim), MASTERS + 1));
		break;
	}
	sim_trace(disks->sim, "disks: step %d of m%u", disks->step, member->id);
}

static void on_tick(void *arg)
{
	struct disks *disks = arg;
	struct member *member = disks->member;

	if (!disks->loop)
		return;
	sim_after(disks->sim, TICK_US, on_tick, disks);
	if (disks->asking)
		return;
	switch (disks->step) {
	case DISKS_WHOLE:
		break;
	case DISKS_REMOVING:
		ask(disks, REMOVE, member->id);
		break;
	case DISKS_REMOVED:
		/* It does not know yet, or goes on all the same. */
		if (sim_now_us(disks->sim) - disks->since_us < 1500000 || !member->master)
			break;
		empty_disk(disks, member);
		disks->step = DISKS_ADDING;
		break;
	case DISKS_ADDING:
		if (member->master)
			ask(disks, ADD, member->id);
		break;
	case DISKS_RECOVERING:
		if (is_whole(disks)) {
			member->may_fail = false;
			disks->step = DISKS_WHOLE;
			sim_trace(disks->sim, "disks: whole again");
		}
		break;
	}
	if (disks->step != DISKS_WHOLE && sim_now_us(disks->sim) - disks->since_us > STUCK_US) {
		sim_print_trace(disks->sim, stderr);
		check(false);
	}
}

bool disks_are_whole(void *arg)
{
	struct disks *disks = arg;

	disks->quiet = true;
	return disks->step == DISKS_WHOLE && !disks->asking && is_whole(disks);
}

bool disks_under_way(const struct disks *disks)
{
	return disks->step != DISKS_WHOLE;
}

/* ---- */

void disks_open(struct disks *disks, struct sim *sim, struct member members[MASTERS])
{
	static const struct rpc_identity identity = { .role = RPC_TOOL, .id = 8 };

	*disks = (struct disks){ .sim = sim, .members = members };
	disks->host = sim_host_open(sim, "op");
	disks->loop = sim_process_open(disks->host, "op");
	check(rpc_open(disks->loop, &identity, NULL, NULL, &disks->rpc) == OK);
	for (unsigned i = 0; i < MASTERS; i++)
		disks->peers[i] = rpc_peer_open(disks->rpc, master_addresses[i]);
	sim_after(sim, TICK_US, on_tick, disks);
}

void disks_close(struct disks *disks)
{
	rpc_close(disks->rpc);
	loop_close(disks->loop);
	disks->loop = NULL;
}
