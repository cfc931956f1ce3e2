#include "tests/sim/masters.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"
#include "master/replica.h"

/* Small, so that logs are cut and who was away for a second or two needs a snapshot. */
#define SEGMENT_BYTES (128u * KIB)
#define LOG_KEPT_BYTES_MAX (24u * KIB)
#define MEMBERS "1=m1:7001,2=m2:7001,3=m3:7001"

const char *const master_addresses[MASTERS] = { "m1:7001", "m2:7001", "m3:7001" };

struct master *master_try(struct loop *loop, unsigned id, void (*failed)(void *arg, enum err err), void *arg)
{
	struct buf message = { 0 };
	struct master *master = NULL;
	struct master_options options = { .directory = "data",
					  .listen = master_addresses[id - 1],
					  .cluster = "sim",
					  .members = MEMBERS,
					  .id = id,
					  .cache_bytes = 16u * MIB,
					  .segment_bytes = SEGMENT_BYTES,
					  .log_kept_bytes = LOG_KEPT_BYTES_MAX,
					  .failed = failed,
					  .arg = arg };

	if (master_open(loop, &options, &master, &message))
		log_error("does_not_start", "master=%u why=%.*s", id, (int)message.size, (const char *)message.bytes);
	buf_deinit(&message);
	return master;
}

struct master *master_on(struct loop *loop, unsigned id, void (*failed)(void *arg, enum err err), void *arg)
{
	struct master *master = master_try(loop, id, failed, arg);

	check(master != NULL);
	return master;
}

/* Its process ends by itself, and is started again. */
static void member_end(void *arg)
{
	struct member *member = arg;

	member_stop(member, false);
	sim_after(member->sim, 200000, member_restart, member);
}

static void on_failed(void *arg, enum err err)
{
	struct member *member = arg;

	if (member->may_fail && err == ERR_CORRUPT) {
		sim_after(member->sim, 1000, member_end, member);
		return;
	}
	sim_print_trace(member->sim, stderr);
	fprintf(stderr, "master %u: its store failed: %s\n", member->id, err_name(err));
	check(false);
}

static void start(struct member *member)
{
	char name[4] = { 'm', (char)('0' + member->id), 0 };

	if (!sim_host_is_up(member->host))
		sim_host_start(member->host);
	member->loop = sim_process_open(member->host, name);
	member->master = master_on(member->loop, member->id, on_failed, member);
	/* What was synced is there again, unless it was damaged. */
	struct replica *replica = master_replica(member->master);
	check(!replica || !replica_is_rebuilding(replica) || member->may_fail);
	member->starts++;
}

void masters_open(struct member members[MASTERS], struct sim *sim)
{
	for (unsigned i = 0; i < MASTERS; i++) {
		char name[4] = { 'm', (char)('1' + i), 0 };
		members[i] = (struct member){ .sim = sim, .id = i + 1, .host = sim_host_open(sim, name) };
		start(&members[i]);
	}
}

void masters_stop(struct member members[MASTERS])
{
	for (unsigned i = 0; i < MASTERS; i++)
		member_stop(&members[i], false);
}

void member_stop(struct member *member, bool power)
{
	if (!member->master)
		return;
	if (power)
		sim_host_power_cut(member->host);
	else
		sim_process_kill(member->loop);
	master_close(member->master);
	member->master = NULL;
	sim_process_drop_work(member->loop);
	loop_close(member->loop);
	member->loop = NULL;
}

void member_restart(void *arg)
{
	struct member *member = arg;

	if (!member->master)
		start(member);
}

void member_resume(void *arg)
{
	const struct member *member = arg;

	if (member->loop)
		sim_process_pause(member->loop, false);
}

unsigned leader_after(unsigned asked, const struct rpc_result *result)
{
	for (unsigned i = 0; result->err == ERR_NOT_LEADER && i < MASTERS; i++) {
		if (strcmp(result->text, master_addresses[i]) == 0)
			return i;
	}
	return (asked + 1) % MASTERS;
}

static struct replica *leading(struct replica *const replicas[MASTERS])
{
	for (unsigned i = 0; i < MASTERS; i++)
		if (replicas[i] && replica_can_read(replicas[i]))
			return replicas[i];
	return NULL;
}

bool masters_are_whole(struct replica *const replicas[MASTERS])
{
	struct replica *leader = leading(replicas);
	struct raft_view view;

	if (!leader)
		return false;
	replica_view(leader, &view);
	if (!view.membership_committed || view.member_count != MASTERS)
		return false;
	for (unsigned i = 0; i < MASTERS; i++) {
		const struct raft_progress_view *member = &view.members[i];
		struct install_view install;
		if (member->learner || member->stranger_node || (!member->caught_up && member->id != view.id))
			return false;
		if (!replicas[i] || replica_install_view(replicas[i], &install) || replica_is_rebuilding(replicas[i]))
			return false;
	}
	return true;
}
