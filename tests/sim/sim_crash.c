/* Every short sequence of operations, with a power cut of the whole cluster at every persistence point (Mohan et al., OSDI 2018: nearly all
 * crash bugs of file systems show with three operations or fewer after an fsync).
 *
 * A tree of processes: each operation runs in a child of the process that has run those before it, so that no prefix is run twice. At each
 * persistence point of the last operation (just before and just after each sync of a file, directory or store, in any process; when the
 * operation is acknowledged; and a while later) a child cuts the power there, once with all lost that was not synced, then as chance says;
 * starts the cluster, and looks:
 *   - what was acknowledged as durable is there byte for byte, and what was not is there wholly or not (crash_model.h);
 *   - once sessions and the trash are over: fsck finds nothing, and no copy is left over;
 *   - after another power cut a client sees the same;
 *   - all that had been synced can be written.
 *
 *	sim_crash [--length N] [--every N] [--losses N] [--of-each N] [--seed N] [--jobs N] [--keep-going] [--expect-failure]
 *	sim_crash [--of-each N] [--seed N] --replay OPERATION,OPERATION POINT LOSS
 *
 * Each operation by itself; after it one in --every (50), and after that one in so many again; --every 1 is all of them, some hours. --of-each:
 * so many masters and chunkservers (1; or 3). --losses: power cuts at each point (2). --keep-going: failures are counted, and what has been done
 * is told now and then. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "tests/sim/crash_ops.h"

#define LENGTH_MAX 3u
#define EVERY 50u
#define LOSSES 2u
#define AFTER_US 1100000u     /* what goes on behind an acknowledged operation */
#define SESSIONS_US 30000000u /* until sessions and the trash are over */
#define CHECK_MS_MAX 20000u  /* an operation after that */
#define READ_TRIES 2u	     /* copies have to be compared first */
#define COLLECT_TRIES 300u
#define NO_POINT UINT32_MAX

/* Of all processes. */
struct counts {
	uint64_t sequences, cuts, failures;
};

struct explorer {
	struct crash crash;
	struct counts *counts;
	unsigned length, every, losses, jobs, job;
	uint64_t seed;
	bool keep_going;
	unsigned sequence[LENGTH_MAX], depth; /* operations so far */
	bool armed;			      /* the power is cut at points */
	unsigned point;			      /* of the last operation, counted */
	unsigned replay_point, replay_loss;   /* only there; or NO_POINT */
};

static void count(uint64_t *what)
{
	__atomic_fetch_add(what, 1, __ATOMIC_RELAXED);
}

static bool is_over(const struct explorer *explorer)
{
	return !explorer->keep_going && __atomic_load_n(&explorer->counts->failures, __ATOMIC_RELAXED) > 0;
}

/* ---- a power cut, and what is looked at then */

static void status_of(struct crash *crash, uint64_t *chunks, uint64_t *copies, bool *quiet)
{
	Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
	request.servers = true;
	ProtobufCMessage *reply = crash_world_ask(crash->client, MESSAGE_CLUSTER_STATUS, &request.base);
	const Granary__ClusterStatus *status = (const Granary__ClusterStatus *)reply;
	*chunks = status->chunks;
	*copies = 0;
	for (size_t i = 0; i < status->n_servers; i++)
		*copies += status->servers[i]->chunks;
	*quiet = status->garbage == 0 && status->trash_files == 0 && status->orphan_copies == 0;
	message_free(reply);
}

static void check_collected(struct crash *crash)
{
	uint64_t chunks = 0, copies = 0;
	bool quiet = false; /* a chunk that was never written has no copies */
	sim_run(crash->world.sim, SESSIONS_US, NULL, NULL);
	for (unsigned i = 0; i < COLLECT_TRIES; i++) {
		status_of(crash, &chunks, &copies, &quiet);
		if (quiet && copies <= chunks * crash->world.of_each)
			return;
		sim_run(crash->world.sim, 200000, NULL, NULL);
	}
	crash_world_fail(&crash->world, "%" PRIu64 " copies are left of %" PRIu64 " chunks%s", copies, chunks, quiet ? "" : ", and garbage");
}

static void check_clean(struct crash *crash)
{
	Granary__FsckRequest request = GRANARY__FSCK_REQUEST__INIT;
	for (bool end = false; !end;) {
		ProtobufCMessage *reply = crash_world_ask(crash->client, MESSAGE_FSCK, &request.base);
		const Granary__FsckReport *report = (const Granary__FsckReport *)reply;
		request.run = report->run;
		end = report->end;
		if (report->n_findings > 0)
			crash_world_fail(&crash->world, "fsck: %s: %016" PRIx64 " %016" PRIx64, report->findings[0]->text,
					 report->findings[0]->id, report->findings[0]->other);
		message_free(reply);
		sim_run(crash->world.sim, 50000, NULL, NULL);
	}
}

static void look(struct crash *crash, struct seen *seen)
{
	struct buf why = { 0 };
	bool read = false;
	crash->client = crash_world_connect(&crash->world, CHECK_MS_MAX);
	for (unsigned i = 0; i < READ_TRIES && (!read || seen->lost > 0); i++) {
		if (i > 0)
			sim_run(crash->world.sim, 200000, NULL, NULL);
		buf_clear(&why);
		read = seen_read(seen, crash->client, &why);
	}
	if (!read)
		crash_world_fail(&crash->world, "%.*s", (int)why.size, (const char *)why.bytes);
}

static void check_restarted(struct crash *crash)
{
	struct buf why = { 0 };
	struct seen first, second;
	granary_close(crash->client);
	crash_world_start(&crash->world);
	look(crash, &first);
	if (!model_allows(&crash->done, &first, &why)) {
		buf_printf(&why, "; ");
		if (!model_allows(&crash->begun, &first, &why))
			crash_world_fail(&crash->world, "%.*s", (int)why.size, (const char *)why.bytes);
	}
	check_collected(crash);
	check_clean(crash);
	crash_world_cut(&crash->world);
	granary_close(crash->client);
	crash_world_start(&crash->world);
	buf_clear(&why);
	look(crash, &second);
	if (!seen_equal(&first, &second, &why))
		crash_world_fail(&crash->world, "%.*s", (int)why.size, (const char *)why.bytes);
	crash_check_writable(crash, &second);
}

static void name_run(struct explorer *explorer, unsigned loss)
{
	char *what = explorer->crash.world.what;
	size_t size = sizeof explorer->crash.world.what, used = 0;
	used += (size_t)snprintf(what, size, "sim_crash --of-each %u --seed %" PRIu64 " --replay ", explorer->crash.world.of_each, explorer->seed);
	for (unsigned i = 0; i < explorer->depth; i++)
		used += (size_t)snprintf(what + used, size - used, "%s%s", i ? "," : "", crash_ops[explorer->sequence[i]].name);
	snprintf(what + used, size - used, " %u %u", explorer->point, loss);
}

static void cut(struct explorer *explorer, unsigned loss)
{
	struct crash_world *world = &explorer->crash.world;
	explorer->armed = false;
	name_run(explorer, loss);
	rng_init(sim_rng(world->sim), explorer->seed * 1000003 + explorer->point * 1009 + loss);
	sim_lose_unsynced(world->sim, loss == 0);
	crash_world_cut(world);
}

/* Waits for the child; false: in this process, which is the child. */
static bool in_child_is_done(struct explorer *explorer, bool counted)
{
	int status = 0;
	fflush(NULL);
	pid_t child = fork();
	check(child >= 0);
	if (child == 0)
		return false;
	check(waitpid(child, &status, 0) == child);
	if (status != 0 && counted)
		count(&explorer->counts->failures);
	if (WIFSIGNALED(status))
		fprintf(stderr, "%s: ends with signal %d\n", explorer->crash.world.what, WTERMSIG(status));
	return true;
}

/* Each loss in a child, which goes on from here without power. */
static void at_point(struct explorer *explorer)
{
	if (!explorer->armed)
		return;
	if (explorer->replay_point != NO_POINT) {
		if (explorer->point == explorer->replay_point)
			cut(explorer, explorer->replay_loss);
		explorer->point++;
		return;
	}
	for (unsigned loss = 0; loss < explorer->losses && !is_over(explorer); loss++) {
		name_run(explorer, loss);
		count(&explorer->counts->cuts);
		if (in_child_is_done(explorer, true))
			continue;
		cut(explorer, loss);
		return;
	}
	explorer->point++;
}

static void on_sync(void *arg, struct sim_host *host, bool done)
{
	(void)host;
	(void)done;
	at_point(arg);
}

/* The last operation of the sequence; the power may be cut within. Does not return then. */
static void run_operation(struct explorer *explorer, bool armed)
{
	struct crash *crash = &explorer->crash;
	explorer->armed = armed;
	explorer->point = 0;
	crash_ops[explorer->sequence[explorer->depth - 1]].run(crash);
	if (!crash->world.dark)
		at_point(explorer);
	if (!crash->world.dark)
		sim_run(crash->world.sim, AFTER_US, NULL, NULL);
	if (!crash->world.dark)
		at_point(explorer);
	explorer->armed = false;
	if (!crash->world.dark)
		return;
	check_restarted(crash);
	if (crash->world.tells)
		fprintf(stderr, "nothing is wrong\n");
	_exit(0);
}

/* ---- all sequences */

/* A sample of what a sequence may go on with. */
static bool is_wanted(const struct explorer *explorer)
{
	uint32_t hash = crc32c(explorer->sequence, explorer->depth * sizeof explorer->sequence[0]);
	return explorer->depth == 1 || (hash ^ (uint32_t)explorer->seed * 2654435761u) % explorer->every == 0;
}

/* Sequences are divided by their first two. */
static bool is_ours(const struct explorer *explorer)
{
	unsigned number = explorer->sequence[0] * crash_op_count + (explorer->depth > 1 ? explorer->sequence[1] : 0);
	return number % explorer->jobs == explorer->job;
}

static void explore(struct explorer *explorer)
{
	unsigned depth = explorer->depth++;
	for (unsigned i = 0; i < crash_op_count && !is_over(explorer); i++) {
		explorer->sequence[depth] = i;
		bool ours = is_ours(explorer), last = explorer->depth == explorer->length;
		if (!crash_ops[i].fits(&explorer->crash) || !is_wanted(explorer) || (!ours && (last || depth > 0)))
			continue;
		if (in_child_is_done(explorer, false)) {
			if (explorer->keep_going && depth == 0)
				fprintf(stderr, "%s, all jobs: %" PRIu64 " sequences, %" PRIu64 " power cuts\n", crash_ops[i].name,
					explorer->counts->sequences, explorer->counts->cuts);
			continue;
		}
		if (ours)
			count(&explorer->counts->sequences);
		run_operation(explorer, ours);
		if (!last)
			explore(explorer);
		_exit(0);
	}
	explorer->depth = depth;
}

static void explore_all(struct explorer *explorer)
{
	for (explorer->job = 0; explorer->job < explorer->jobs; explorer->job++) {
		fflush(NULL);
		pid_t child = fork();
		check(child >= 0);
		if (child > 0)
			continue;
		explore(explorer);
		_exit(0);
	}
	for (int status = 0; wait(&status) > 0;)
		if (status != 0)
			count(&explorer->counts->failures);
}

static int replay(struct explorer *explorer, char *operations)
{
	explorer->crash.world.tells = true;
	for (char *rest = operations, *name; (name = strtok_r(rest, ",", &rest)) != NULL;) {
		unsigned i = 0;
		while (i < crash_op_count && strcmp(crash_ops[i].name, name) != 0)
			i++;
		check(i < crash_op_count && explorer->depth < LENGTH_MAX);
		explorer->sequence[explorer->depth++] = i;
		sim_trace(explorer->crash.world.sim, "%s", name);
		run_operation(explorer, *rest == 0);
	}
	fprintf(stderr, "it has %u points\n", explorer->point);
	return 1;
}

static void keep_trash_short(struct crash *crash)
{
	Granary__SettingsRequest request = GRANARY__SETTINGS_REQUEST__INIT;
	char key[] = "trash_seconds";
	request.key = key;
	request.value = 1;
	message_free(crash_world_ask(crash->client, MESSAGE_SETTINGS, &request.base));
}

static void begin(struct explorer *explorer, unsigned of_each)
{
	explorer->counts = mmap(NULL, sizeof *explorer->counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(explorer->counts != MAP_FAILED);
	snprintf(explorer->crash.world.what, sizeof explorer->crash.world.what, "the beginning");
	crash_world_open(&explorer->crash.world, explorer->seed, of_each);
	crash_set_up(&explorer->crash);
	keep_trash_short(&explorer->crash);
	sim_run(explorer->crash.world.sim, 3000000, NULL, NULL);
	sim_on_sync(explorer->crash.world.sim, on_sync, explorer);
}

static void end(struct explorer *explorer)
{
	sim_on_sync(explorer->crash.world.sim, NULL, NULL);
	granary_close(explorer->crash.client);
	crash_world_close(&explorer->crash.world);
}

int main(int argc, char **argv)
{
	static struct explorer explorer = { .length = LENGTH_MAX, .every = EVERY, .losses = LOSSES, .seed = 1, .replay_point = NO_POINT };
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned of_each = 1;
	bool expect_failure = false;
	char *operations = NULL;
	explorer.jobs = processors > 0 ? (unsigned)processors : 1;
	for (int i = 1; i < argc; i++) {
		unsigned *to = strcmp(argv[i], "--length") == 0	 ? &explorer.length :
			       strcmp(argv[i], "--every") == 0	 ? &explorer.every :
			       strcmp(argv[i], "--losses") == 0	 ? &explorer.losses :
			       strcmp(argv[i], "--of-each") == 0 ? &of_each :
			       strcmp(argv[i], "--jobs") == 0	 ? &explorer.jobs :
								   NULL;
		if (to && i + 1 < argc) {
			*to = (unsigned)strtoul(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
			explorer.seed = strtoull(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--replay") == 0 && i + 3 < argc) {
			operations = argv[++i];
			explorer.replay_point = (unsigned)strtoul(argv[++i], NULL, 10);
			explorer.replay_loss = (unsigned)strtoul(argv[++i], NULL, 10);
		} else if (strcmp(argv[i], "--keep-going") == 0) {
			explorer.keep_going = true;
		} else if (strcmp(argv[i], "--expect-failure") == 0) {
			expect_failure = true;
		} else {
			fprintf(stderr, "sim_crash: %s: see sim_crash.c\n", argv[i]);
			return 2;
		}
	}
	check(explorer.length >= 1 && explorer.length <= LENGTH_MAX && explorer.every > 0 && explorer.jobs > 0);
	begin(&explorer, of_each);
	if (operations)
		return replay(&explorer, operations);
	explore_all(&explorer);
	end(&explorer);
	const struct counts *counts = explorer.counts;
	printf("sim_crash: %" PRIu64 " sequences, %" PRIu64 " power cuts, %" PRIu64 " failures\n", counts->sequences, counts->cuts,
	       counts->failures);
	return (counts->failures > 0) != expect_failure;
}
