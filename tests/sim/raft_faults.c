#include <inttypes.h>
#include <string.h>

#include "master/wal_format.h"
#include "tests/sim/raft_cluster.h"

#define MEND_US (5u * 1000000u) /* what can help itself has done so by then */
#define CALM_US_MAX (20u * 1000000u) /* a message may have been under way for 3 s; then a few elections */

static struct member *any_member(struct cluster *cluster)
{
	return &cluster->members[rng_below(&cluster->rng, cluster->profile.members)];
}

/* Half of the time the leader: most of what can go wrong goes wrong around it. */
static struct member *victim(struct cluster *cluster)
{
	if (cluster_chance(cluster, 500000))
		for (size_t i = 0; i < cluster->profile.members; i++)
			if (cluster->members[i].raft && cluster->members[i].role == RAFT_LEADER)
				return &cluster->members[i];
	return any_member(cluster);
}

static void choose_any(struct cluster *cluster)
{
	struct profile *profile = &cluster->profile;
	uint64_t size = rng_below(&cluster->rng, 20);
	profile->members = size == 0 ? 1 : size < 11 ? 3 : 5;
	bool bad_network = cluster_chance(cluster, 500000);
	profile->loss = bad_network ? (uint32_t)rng_below(&cluster->rng, 200000) : 0;
	profile->duplicate = bad_network ? (uint32_t)rng_below(&cluster->rng, 100000) : 0;
	profile->slow = cluster_chance(cluster, 500000) ? (uint32_t)rng_below(&cluster->rng, 100000) : 1000;
	static const uint64_t slow_us_max[] = {5000, 50000, 500000, 3000000};
	profile->slow_us_max = slow_us_max[rng_below(&cluster->rng, 4)];
	static const size_t append_bytes_max[] = {0, 1, 1, 400, 4000};
	profile->append_bytes_max = append_bytes_max[rng_below(&cluster->rng, 5)];
	profile->crashes = cluster_chance(cluster, 700000);
	profile->partitions = cluster_chance(cluster, 600000);
	profile->pauses = cluster_chance(cluster, 400000);
	profile->disks = cluster_chance(cluster, 400000);
	profile->disk_errors = cluster_chance(cluster, 100000);
	profile->transfers = cluster_chance(cluster, 300000);
	profile->compactions = cluster_chance(cluster, 500000);
	profile->rot = cluster_chance(cluster, 200000);
	profile->hard_always = cluster_chance(cluster, 500000);
	profile->trims = cluster_chance(cluster, 400000);
	profile->changes = cluster_chance(cluster, 250000);
	profile->replacements = cluster_chance(cluster, 150000);
	profile->rot_bits_max = 1;
	static const uint64_t pause_ms[] = {20, 100, 300, 1000};
	profile->fault_pause_ms_max = pause_ms[rng_below(&cluster->rng, 4)];
	profile->fault_ms = cluster_between(cluster, 1000, 3000);
	profile->election_ticks = cluster_chance(cluster, 200000) ? RAFT_ELECTION_TICKS : 10;
	profile->heartbeat_ticks = profile->election_ticks == 10 ? 2 : RAFT_HEARTBEAT_TICKS;
	profile->propose_us_max = cluster_chance(cluster, 300000) ? 4000 : 40000;
}

static void choose_leaders(struct cluster *cluster)
{
	cluster->profile = (struct profile){
	    .members = 5,
	    .slow = cluster_chance(cluster, 300000) ? 50000 : 0,
	    .slow_us_max = 20000,
	    .append_bytes_max = 1,
	    .election_ticks = 10,
	    .heartbeat_ticks = 2,
	    .fault_ms = cluster_between(cluster, 2000, 5000),
	    .fault_pause_ms_max = 100,
	    .propose_us_max = 40000,
	    .leader_crashes = true,
	};
}

static void choose_links(struct cluster *cluster)
{
	cluster->profile = (struct profile){
	    .members = cluster_chance(cluster, 500000) ? 3 : 5,
	    .slow_us_max = 20000,
	    .election_ticks = 10,
	    .heartbeat_ticks = (unsigned)cluster_between(cluster, 2, 5),
	    .fault_ms = cluster_between(cluster, 2000, 5000),
	    .fault_pause_ms_max = 100,
	    .propose_us_max = 600000, /* who is cut off must not fall behind, or nobody would vote for it anyway */
	    .partitions = true,
	    .links = true,
	};
}

static void choose_disks(struct cluster *cluster)
{
	cluster->profile = (struct profile){
	    .members = cluster_chance(cluster, 300000) ? 1 : 3,
	    .slow_us_max = 20000,
	    .election_ticks = 10,
	    .heartbeat_ticks = 2,
	    .fault_ms = cluster_between(cluster, 1000, 3000),
	    .fault_pause_ms_max = 40,
	    .propose_us_max = 3000,
	    .crashes = true,
	    .disks = true,
	    .disk_errors = true,
	    .compactions = true,
	    .hard_always = cluster_chance(cluster, 500000),
	};
}

static void choose_members(struct cluster *cluster)
{
	cluster->profile = (struct profile){
	    .members = 5,
	    .founders = (size_t)cluster_between(cluster, 1, 4),
	    .loss = cluster_chance(cluster, 300000) ? 50000 : 0,
	    .slow_us_max = 20000,
	    .append_bytes_max = cluster_chance(cluster, 500000) ? 400 : 0,
	    .election_ticks = 10,
	    .heartbeat_ticks = 2,
	    .fault_ms = cluster_between(cluster, 1500, 4000),
	    .fault_pause_ms_max = 60,
	    .propose_us_max = 20000,
	    .crashes = cluster_chance(cluster, 700000),
	    .partitions = cluster_chance(cluster, 700000),
	    .compactions = true,
	    .trims = cluster_chance(cluster, 700000),
	    .changes = true,
	    .replacements = cluster_chance(cluster, 500000),
	    .transfers = cluster_chance(cluster, 300000),
	};
}

static void choose_rot(struct cluster *cluster)
{
	cluster->profile = (struct profile){
	    .members = cluster_chance(cluster, 700000) ? 3 : 5,
	    .slow_us_max = 20000,
	    .append_bytes_max = cluster_chance(cluster, 500000) ? 400 : 0,
	    .election_ticks = 10,
	    .heartbeat_ticks = 2,
	    .fault_ms = cluster_between(cluster, 1000, 3000),
	    .fault_pause_ms_max = 60,
	    .propose_us_max = 10000,
	    .crashes = true,
	    .partitions = cluster_chance(cluster, 500000),
	    .compactions = cluster_chance(cluster, 500000),
	    .trims = cluster_chance(cluster, 300000),
	    .disks = cluster_chance(cluster, 300000),
	    .rot = true,
	    .rot_bits_max = 20,
	    .hard_always = cluster_chance(cluster, 500000),
	};
}

void faults_choose(struct cluster *cluster, enum storm storm)
{
	if (storm == STORM_LEADERS || (storm == STORM_ANY && cluster_chance(cluster, 150000)))
		choose_leaders(cluster);
	else if (storm == STORM_LINKS || (storm == STORM_ANY && cluster_chance(cluster, 100000)))
		choose_links(cluster);
	else if (storm == STORM_DISKS || (storm == STORM_ANY && cluster_chance(cluster, 150000)))
		choose_disks(cluster);
	else if (storm == STORM_MEMBERS || (storm == STORM_ANY && cluster_chance(cluster, 150000)))
		choose_members(cluster);
	else if (storm == STORM_ROT || (storm == STORM_ANY && cluster_chance(cluster, 150000)))
		choose_rot(cluster);
	else
		choose_any(cluster);
	struct profile *profile = &cluster->profile;
	if (profile->founders == 0)
		profile->founders = profile->members;
	if (profile->changes)
		profile->members = 5;
}

/* ---- single faults */

static void restart(void *arg);

static void restart_later(struct member *member)
{
	uint64_t delay_us = cluster_chance(member->cluster, 300000) ? cluster_between(member->cluster, 1000, 1500000)
								    : cluster_between(member->cluster, 100, 50000);
	sim_after(member->cluster->sim, delay_us, restart, member);
}

/* Until it succeeds: power or disk may fail again within the start. */
static void restart(void *arg)
{
	struct member *member = arg;
	if (member->cluster->failed || member->loop)
		return;
	member_start(member);
	if (!member->loop)
		restart_later(member);
}

static bool rot_bit(struct member *member, uint64_t sequence, uint64_t offset)
{
	if (member->rot_count == CLUSTER_ROT_MAX)
		return false;
	struct rot *place = &member->rot[member->rot_count];
	snprintf(place->file, sizeof(place->file), "wal/wal-%016" PRIx64, sequence);
	place->offset = offset;
	if (!sim_host_flip_bit(member->host, place->file, place->offset, 0) ||
	    !sim_host_read_file(member->host, place->file, place->offset, &place->rotten, 1))
		return false;
	member->rot_count++;
	member->cluster->counts.rotten++;
	return true;
}

/* The first identities of a segment: damaged records are then beyond help. Not of the last one: with those of its last batch gone,
 * too, nobody could tell damage there from a torn write (wal_format.h). */
static void rot_identities(struct member *member)
{
	uint64_t sequence = cluster_between(member->cluster, 1, 4);
	if (!rot_bit(member, sequence + 1, 0))
		return;
	for (uint64_t place = 0; place < 30; place++)
		rot_bit(member, sequence, WAL_IDENTITIES_OFFSET + place * WAL_IDENTITY_BYTES + 3);
}

/* A bit of a log at rest flips. After a kill, not after a power cut: that may also take the identities of the last
 * batch, and then nobody could tell damage there from a torn write (wal_format.h). */
static void rot(struct member *member)
{
	struct cluster *cluster = member->cluster;
	if (!cluster->profile.rot || !sim_host_is_up(member->host) || cluster_chance(cluster, 300000))
		return;
	sim_host_power_cut_after(member->host, 0);
	uint64_t bits = cluster_between(cluster, 1, cluster->profile.rot_bits_max);
	if (cluster_chance(cluster, 200000))
		rot_identities(member);
	for (uint64_t attempt = 0; attempt < 20 * bits && bits > 0 && member->rot_count < CLUSTER_ROT_MAX; attempt++) {
		uint64_t start = cluster->profile.rot_bits_max > 1 ? wal_records_offset(CLUSTER_SEGMENT_BYTES) : 0;
		bits -= rot_bit(member, cluster_between(cluster, 1, 8),
				cluster_between(cluster, start, CLUSTER_SEGMENT_BYTES - 1));
	}
}

static void crash(struct cluster *cluster)
{
	struct member *member = victim(cluster);
	if (!member->loop)
		return;
	switch (rng_below(&cluster->rng, 8)) {
	case 0:
	case 1:
	case 2:
		member_kill(member);
		rot(member);
		break;
	case 3:
	case 4:
		member_power_cut(member);
		break;
	case 5:
	case 6:
		sim_host_power_cut_after(member->host, cluster_between(cluster, 1, 12));
		return;
	case 7:
		for (size_t i = 0; i < cluster->profile.members; i++) {
			if (!cluster->members[i].loop)
				continue;
			member_power_cut(&cluster->members[i]);
			restart_later(&cluster->members[i]);
		}
		return;
	}
	restart_later(member);
}

static void crash_leader(void *arg)
{
	struct member *member = arg;
	if (!member->loop || member->cluster->calm || member->role != RAFT_LEADER)
		return;
	if (cluster_chance(member->cluster, 500000))
		member_kill(member);
	else
		member_power_cut(member);
	restart_later(member);
}

static void propose_soon(void *arg)
{
	member_propose(arg);
}

static void cut(struct cluster *cluster, size_t from, size_t to, bool both)
{
	cluster_trace(cluster, "cut %zu%s%zu", from, both ? "<->" : "->", to);
	cluster->cut[from][to] = true;
	if (both)
		cluster->cut[to][from] = true;
}

static void restart_follower(struct cluster *cluster)
{
	struct member *member = any_member(cluster);
	if (!member->loop || member->role == RAFT_LEADER)
		return;
	member_kill(member);
	sim_after(cluster->sim, cluster_between(cluster, 100, 20000), restart, member);
}

/* A leader that has not sent anything yet: its first entries reach nobody, or one, or some before it crashes. */
void faults_on_leader(struct member *member)
{
	struct cluster *cluster = member->cluster;
	if (cluster->calm)
		return;
	if (cluster_chance(cluster, 500000))
		sim_after(cluster->sim, cluster_between(cluster, 10, 3000), propose_soon, member);
	if (!cluster->profile.leader_crashes)
		return;
	if (cluster_chance(cluster, 600000))
		memset(cluster->cut, 0, sizeof(cluster->cut));
	if (cluster_chance(cluster, 400000)) {
		size_t reached = (size_t)cluster_between(cluster, 0, cluster->profile.members);
		for (size_t other = 1; other <= cluster->profile.members; other++)
			if (other != reached)
				cut(cluster, member->id, other, false);
	}
	if (cluster_chance(cluster, 200000))
		return;
	static const uint64_t delay_us_max[] = {500, 2000, 8000, 30000};
	sim_after(cluster->sim, cluster_between(cluster, 50, delay_us_max[rng_below(&cluster->rng, 4)]), crash_leader,
		  member);
}

static void partition(struct cluster *cluster)
{
	size_t count = cluster->profile.members;
	size_t one = victim(cluster)->id;
	memset(cluster->cut, 0, sizeof(cluster->cut));
	switch (cluster->profile.links ? 5 : rng_below(&cluster->rng, 7)) {
	case 0: /* one alone */
		for (size_t other = 1; other <= count; other++)
			cut(cluster, one, other, true);
		break;
	case 1: /* one is not heard */
		for (size_t other = 1; other <= count; other++)
			cut(cluster, one, other, false);
		break;
	case 2: /* one hears nothing */
		for (size_t other = 1; other <= count; other++)
			cut(cluster, other, one, false);
		break;
	case 3: /* a bridge: two halves that only one member sees */
		for (size_t a = 1; a <= count; a++)
			for (size_t b = a + 1; b <= count; b++)
				if (a != one && b != one && (a + b) % 2 == 1)
					cut(cluster, a, b, true);
		break;
	case 4: /* links at random */
		for (size_t a = 1; a <= count; a++)
			for (size_t b = 1; b <= count; b++)
				if (a != b && cluster_chance(cluster, 400000))
					cut(cluster, a, b, false);
		break;
	case 5: /* one pair */
		cut(cluster, one, (size_t)cluster_between(cluster, 1, count), true);
		break;
	case 6:
		cluster_trace(cluster, "heal");
		break;
	}
}

static void resume(void *arg)
{
	struct member *member = arg;
	if (!member->paused)
		return;
	member->paused = false;
	if (!member->loop)
		return;
	sim_process_pause(member->loop, false);
	member_read(member);
}

/* A process that was stopped answers what has waited for it first of all. */
static void pause_member(struct cluster *cluster)
{
	struct member *member = victim(cluster);
	if (!member->loop || member->paused)
		return;
	cluster_trace(cluster, "pause member=%" PRIu64, member->id);
	member->paused = true;
	sim_process_pause(member->loop, true);
	sim_after(cluster->sim, cluster_between(cluster, 10000, 1200000), resume, member);
}

static void disturb_disk(struct cluster *cluster)
{
	struct member *member = victim(cluster);
	struct sim_disk_faults faults = {0};
	if (cluster_chance(cluster, 600000))
		faults.slow_us = cluster_between(cluster, 1000, 400000);
	if (cluster->profile.rot && cluster->profile.rot_bits_max > 1 && cluster_chance(cluster, 300000))
		faults.read_error_per_million = (uint32_t)rng_below(&cluster->rng, 50000);
	if (cluster->profile.disk_errors) {
		faults.sync_error_per_million = (uint32_t)rng_below(&cluster->rng, 100000);
		faults.write_error_per_million = (uint32_t)rng_below(&cluster->rng, 50000);
	}
	sim_host_set_disk(member->host, &faults);
}

static void disturb_clock(struct cluster *cluster)
{
	/* Two of them differ by less than RAFT_CLOCK_DRIFT_PERCENT. */
	sim_host_set_clock(any_member(cluster)->host, 0, (int32_t)cluster_between(cluster, 0, 90000) - 45000);
}

/* ---- the course of a seed */

/* Processes that ended by themselves: no power, or a log that failed. */
static void look_after(struct cluster *cluster)
{
	for (size_t i = 0; i < cluster->profile.members; i++) {
		struct member *member = &cluster->members[i];
		if (!member->loop || (!member->exiting && !sim_process_is_dead(member->loop)))
			continue;
		cluster->counts.cuts += !sim_host_is_up(member->host);
		cluster_trace(cluster, "found dead member=%" PRIu64, member->id);
		member_bury(member);
		restart_later(member);
	}
}

static void on_look(void *arg)
{
	struct cluster *cluster = arg;
	look_after(cluster);
	if (cluster->profile.changes || cluster->profile.replacements)
		operator_look(cluster);
	sim_after(cluster->sim, 1000, on_look, cluster);
}

static void on_mend(void *arg)
{
	struct cluster *cluster = arg;
	operator_mend(cluster);
	sim_after(cluster->sim, MEND_US, on_mend, cluster);
}

/* Somebody replaces a disk, or changes who belongs to the group. */
static void on_operator(void *arg)
{
	struct cluster *cluster = arg;
	const struct profile *profile = &cluster->profile;
	if (cluster->calm)
		return;
	if (profile->changes)
		operator_change(cluster);
	if (profile->replacements && !cluster->replaced && cluster_chance(cluster, 150000)) {
		struct member *member = victim(cluster);
		operator_replace_disk(member);
		if (!member->loop)
			restart_later(member);
	}
	sim_after(cluster->sim, cluster_between(cluster, 1000, 150000), on_operator, cluster);
}

static void on_fault(void *arg)
{
	struct cluster *cluster = arg;
	const struct profile *profile = &cluster->profile;
	if (cluster->calm)
		return;
	switch (rng_below(&cluster->rng, 8)) {
	case 0:
	case 1:
		if (profile->crashes)
			crash(cluster);
		else if (profile->links)
			restart_follower(cluster);
		break;
	case 2:
	case 3:
		if (profile->partitions)
			partition(cluster);
		break;
	case 4:
		if (profile->pauses)
			pause_member(cluster);
		break;
	case 5:
		if (profile->disks)
			disturb_disk(cluster);
		break;
	case 6:
		disturb_clock(cluster);
		break;
	case 7: {
		struct member *member = victim(cluster);
		if (profile->transfers && member->raft && !member->paused && !member->exiting &&
		    !sim_process_is_dead(member->loop) &&
		    raft_transfer(member->raft, member_now_ms(member),
				  rng_below(&cluster->rng, profile->members + 1)) == OK)
			member_pump(member);
		break;
	}
	}
	sim_after(cluster->sim, cluster_between(cluster, 500, profile->fault_pause_ms_max * 1000), on_fault, cluster);
}

static void on_client(void *arg)
{
	struct cluster *cluster = arg;
	if (cluster->failed || cluster->quiet)
		return;
	struct member *member = any_member(cluster);
	if (cluster_chance(cluster, 500000))
		for (size_t i = 0; i < cluster->profile.members; i++)
			if (cluster->members[i].raft && cluster->members[i].role == RAFT_LEADER)
				member = &cluster->members[i];
	member_propose(member);
	for (size_t i = 0; i < cluster->profile.members; i++)
		member_read(&cluster->members[i]);
	if (cluster->profile.compactions && cluster_chance(cluster, 30000))
		member_compact(any_member(cluster));
	uint64_t wait_us_max = cluster->calm ? 10000 : cluster->profile.propose_us_max;
	sim_after(cluster->sim, cluster_between(cluster, 100, wait_us_max), on_client, cluster);
}

static bool has_failed(void *arg)
{
	return ((struct cluster *)arg)->failed;
}

/* Clients are served again. */
static bool is_serving(void *arg)
{
	struct cluster *cluster = arg;
	return cluster->failed || cluster->counts.acknowledged >= cluster->goal + 20;
}

static bool belongs(const struct cluster *cluster, const struct member *member)
{
	uint64_t from;
	const struct raft_membership *membership =
	    check_membership_at(&cluster->checker, cluster->checker.committed_count, &from);
	if (!membership)
		return member->founder;
	return membership_find(membership, member->id) != NULL;
}

/* There is a leader that answers reads, and everyone has applied all that is committed. */
static bool is_settled(void *arg)
{
	struct cluster *cluster = arg;
	if (cluster->failed)
		return true;
	uint64_t goal = 0;
	for (size_t i = 0; i < cluster->profile.members; i++)
		if (cluster->members[i].raft && cluster->members[i].role == RAFT_LEADER &&
		    raft_can_read(cluster->members[i].raft, member_now_ms(&cluster->members[i])))
			goal = cluster->checker.committed_count;
	for (size_t i = 0; i < cluster->profile.members; i++)
		if (belongs(cluster, &cluster->members[i]) &&
		    (!cluster->members[i].raft || cluster->members[i].applied < goal))
			return false;
	return goal > 0;
}

static void end_faults(struct cluster *cluster)
{
	cluster_trace(cluster, "calm");
	cluster->calm = true;
	memset(cluster->cut, 0, sizeof(cluster->cut));
	for (size_t i = 0; i < cluster->profile.members; i++) {
		struct member *member = &cluster->members[i];
		resume(member);
		sim_host_power_cut_after(member->host, 0);
		sim_host_set_disk(member->host, &(struct sim_disk_faults){0});
		if (!member->loop)
			restart_later(member);
	}
}

void cluster_run(struct cluster *cluster)
{
	sim_after(cluster->sim, cluster_between(cluster, 1000, 400000), on_fault, cluster);
	sim_after(cluster->sim, 1000, on_client, cluster);
	sim_after(cluster->sim, 1000, on_look, cluster);
	if (cluster->profile.changes || cluster->profile.replacements)
		sim_after(cluster->sim, cluster_between(cluster, 1000, 400000), on_operator, cluster);
	sim_run(cluster->sim, cluster->profile.fault_ms * 1000, has_failed, cluster);
	if (cluster->failed)
		return;
	look_after(cluster);
	end_faults(cluster);
	if (cluster->profile.rot)
		sim_after(cluster->sim, MEND_US, on_mend, cluster);
	uint64_t acknowledged = cluster->goal = cluster->counts.acknowledged;
	bool reached = sim_run(cluster->sim, CALM_US_MAX, is_serving, cluster);
	cluster->quiet = true;
	reached = reached && sim_run(cluster->sim, CALM_US_MAX, is_settled, cluster);
	if (!cluster->failed && !reached)
		cluster_fail(cluster,
			     "no progress after the faults ended: %" PRIu64 " committed, %" PRIu64
			     " acknowledged since",
			     cluster->checker.committed_count, cluster->counts.acknowledged - acknowledged);
}
