/* Locks whose holders stand still, or are cut off, for longer than their sessions: three masters, four chunkservers, three clients, all
 * of them production code, that write one file under one lock.
 *
 * What must hold: from the moment in which a client knows that it has the lock until it gives it back, or another knows to have it,
 * nothing but what it writes itself changes the file; what it has flushed is what it reads. So nothing that an earlier holder had on its way
 * arrives later: not from its own memory, nor from the memory of a chunkserver that stood still. And: locks of the lost are given to others. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/proto/lock.h"
#include "common/proto/mode.h"
#include "tests/sim/cluster_world.h"
#include "tests/sim/runner.h"

#define CLIENTS 3u
#define PIECE_BYTES (32u * KIB)
#define PIECES 12u
#define FILE_BYTES ((uint64_t)PIECES * PIECE_BYTES) /* more than a blob: it has a chunk */
#define FAULTS_US 240000000u
#define CALM_US 120000000u
#define SEEDS 12u

struct history {
	uint64_t inode;
	uint64_t grants;    /* the number of the last one */
	uint64_t last;	    /* value written by anybody */
	bool ending;
	unsigned finished;  /* clients that have had the lock once more at the end */
	unsigned rounds, writes, lost, refused, checks;
};

enum step { STEP_READ, STEP_AGAIN, STEP_WRITTEN };

struct program {
	struct world *world;
	struct history *history;
	unsigned number;
	struct loop *loop;
	struct client *client;
	struct timer timer;
	struct file_io *io;
	uint64_t grant; /* ours; 0: we do not have the lock */
	enum step step;
	uint32_t crc, wanted; /* of the file as it was read; of what was written */
	uint64_t value;
	unsigned writes_running;
	bool failed, lost, finished; /* lost: the session in which the lock was taken */
};

static uint8_t *piece_of(uint64_t value, uint8_t bytes[PIECE_BYTES])
{
	for (unsigned i = 0; i < PIECE_BYTES; i += 8)
		put_le64(bytes + i, value);
	return bytes;
}

static uint64_t below(struct program *program, uint64_t bound)
{
	return rng_below(sim_rng(program->world->sim), bound);
}

static void wrong(struct program *program, const char *what)
{
	sim_print_trace(program->world->sim, stderr);
	fprintf(stderr, "client %u, grant %" PRIu64 ": %s\n", program->number + 1, program->grant, what);
	abort();
}

/* Nobody else knows to have it. */
static bool has_lock(const struct program *program)
{
	return program->grant != 0 && program->grant == program->history->grants;
}

/* ---- lock and unlock */

static void start_over(struct program *program, uint64_t delay_ms)
{
	if (program->io)
		file_io_close(program->io);
	program->io = NULL;
	program->grant = 0;
	timer_start(&program->timer, delay_ms);
}

static void unlocked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	(void)err;
	(void)reply;
	start_over(program, below(program, 300));
}

static void ask_lock(struct program *program, uint32_t kind, client_meta_fn *done)
{
	Granary__SetLock set = GRANARY__SET_LOCK__INIT;
	Granary__LockRange range = GRANARY__LOCK_RANGE__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaOp op[2] = { GRANARY__META_OP__INIT, GRANARY__META_OP__INIT };
	Granary__MetaOp *ops[2] = { &op[0], &op[1] };
	range.session = client_session(program->client);
	range.owner = 1;
	range.end = LOCK_END_MAX;
	range.kind = kind;
	set.inode = getattr.inode = program->history->inode;
	set.range = &range;
	op[0].op_case = GRANARY__META_OP__OP_SET_LOCK;
	op[0].set_lock = &set;
	op[1].op_case = GRANARY__META_OP__OP_GETATTR;
	op[1].getattr = &getattr;
	client_meta(program->client, ops, 2, done, program);
}

static void unlock(struct program *program)
{
	program->grant = 0;
	ask_lock(program, LOCK_NONE, unlocked);
}

/* ---- under the lock */

static void read_file(struct program *program, enum step step);

static void flushed(void *arg, enum err err)
{
	struct program *program = arg;
	sim_trace(program->world->sim, "client %u has flushed %" PRIu64 ": %s", program->number + 1, program->value, err_name(err));
	if (err != OK || program->failed || program->lost) {
		program->history->refused++;
		unlock(program);
		return;
	}
	program->history->writes++;
	read_file(program, STEP_WRITTEN);
}

static void piece_written(void *arg, enum err err)
{
	struct program *program = arg;
	program->failed |= err != OK;
	if (--program->writes_running > 0)
		return;
	if (below(program, 3) == 0)
		file_io_sync(program->io, flushed, program);
	else
		file_io_flush(program->io, flushed, program);
}

static void write_file(struct program *program)
{
	uint8_t bytes[PIECE_BYTES];
	program->value = ++program->history->last;
	program->failed = false;
	program->wanted = 0;
	sim_trace(program->world->sim, "client %u writes %" PRIu64, program->number + 1, program->value);
	piece_of(program->value, bytes);
	for (unsigned i = 0; i < PIECES; i++)
		program->wanted = crc32c_extend(program->wanted, bytes, PIECE_BYTES);
	program->writes_running = PIECES;
	for (unsigned i = 0; i < PIECES; i++)
		file_io_write(program->io, (uint64_t)i * PIECE_BYTES, slice_of(bytes, PIECE_BYTES), piece_written, program);
}

static void was_read(void *arg, enum err err, const struct slice *parts, size_t count)
{
	struct program *program = arg;
	uint32_t crc = 0;
	if (err != OK || program->lost) {
		unlock(program);
		return;
	}
	for (size_t i = 0; i < count; i++)
		crc = crc32c_extend(crc, parts[i].bytes, parts[i].size);
	program->history->checks += has_lock(program);
	sim_trace(program->world->sim, "client %u has read %08x, step %d, from %" PRIu64 " on", program->number + 1, crc, program->step,
		  count > 0 ? get_le64(parts[0].bytes) : 0);
	switch (program->step) {
	case STEP_READ:
		program->crc = crc;
		timer_start(&program->timer, below(program, below(program, 4) ? 50 : 3000));
		break;
	case STEP_AGAIN:
		if (has_lock(program) && crc != program->crc)
			wrong(program, "the file was changed by others while this client had the lock");
		write_file(program);
		break;
	case STEP_WRITTEN:
		if (has_lock(program) && crc != program->wanted)
			wrong(program, "what was written under the lock is not what is read");
		program->history->rounds++;
		if (program->history->ending && !program->finished) {
			program->finished = true;
			program->history->finished++;
		}
		if (below(program, 8) == 0)
			unlock(program);
		else
			read_file(program, STEP_READ);
		break;
	}
}

static void read_file(struct program *program, enum step step)
{
	program->step = step;
	file_io_read(program->io, 0, FILE_BYTES, was_read, program);
}

static void locked(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	if (err != OK || reply->results[0]->error || reply->results[1]->error) {
		start_over(program, 50 + below(program, 500));
		return;
	}
	program->grant = ++program->history->grants;
	program->lost = false;
	sim_trace(program->world->sim, "grant %" PRIu64 " to client %u", program->grant, program->number + 1);
	program->io = file_io_open(program->client, program->history->inode, reply->results[1]->attr);
	read_file(program, STEP_READ);
}

static void on_timer(void *arg)
{
	struct program *program = arg;
	if (program->io && below(program, 2) == 0) /* whoever has stood still meanwhile writes before anybody tells him */
		write_file(program);
	else if (program->io)
		read_file(program, STEP_AGAIN);
	else if (program->history->inode != 0)
		ask_lock(program, LOCK_EXCLUSIVE, locked);
	else
		timer_start(&program->timer, 100);
}

/* ---- clients */

static void invalidate(void *arg, uint64_t inode, struct slice name, void (*done)(void *done_arg), void *done_arg)
{
	(void)arg;
	(void)inode;
	(void)name;
	done(done_arg);
}

static void session_lost(void *arg)
{
	struct program *program = arg;
	program->history->lost++;
	program->lost = true; /* as a mount does: nothing more is written under that lock */
	sim_trace(program->world->sim, "client %u has lost its session", program->number + 1);
}

static const struct client_events events = { .invalidate = invalidate, .session_lost = session_lost };

static void *client_start(struct world *world, unsigned number, struct loop *loop)
{
	struct program *program = mem_zero(1, sizeof *program);
	struct client_options options = { .cluster = WORLD_MASTER_ADDRESSES, .events = &events, .events_arg = program };
	*program = (struct program){ .world = world, .history = world->arg, .number = number, .loop = loop };
	check(client_open(loop, &options, &program->client) == OK);
	timer_init(&program->timer, loop, on_timer, program);
	timer_start(&program->timer, 100);
	return program;
}

static void client_stop(void *arg)
{
	struct program *program = arg;
	struct history scratch = *program->history;
	program->history = &scratch; /* the process is gone: what is called back now is not looked at */
	program->grant = 0;
	client_close(program->client);
	timer_stop(&program->timer);
	free(program);
}

/* ---- the file */

static void made(void *arg, enum err err, const Granary__MetaReply *reply)
{
	uint64_t *inode = arg;
	check(err == OK && reply->results[0]->error == 0);
	*inode = reply->results[0]->inode;
}

static void ask_for_file(struct client *client, uint64_t *inode)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__MetaOp *ops[1] = { &op };
	Granary__Create create = GRANARY__CREATE__INIT;
	create.parent = 1;
	create.name = message_borrow(slice_text("locked"));
	create.mode = MODE_FILE | 0600;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	client_meta(client, ops, 1, made, inode);
}

static bool is_made(void *inode)
{
	return *(uint64_t *)inode != 0;
}

/* ---- faults */

static void on_fault(void *arg)
{
	struct world *world = arg;
	struct sim *sim = world->sim;
	struct rng *rng = sim_rng(sim);
	struct node *client = world_node(world, NODE_CLIENT, (unsigned)rng_below(rng, CLIENTS));
	struct node *server = world_node(world, NODE_CHUNKSERVER, (unsigned)rng_below(rng, WORLD_CHUNKSERVERS));
	struct node *master = world_node(world, NODE_MASTER, (unsigned)rng_below(rng, MASTERS));
	uint64_t expiry_us = SESSION_TIMEOUT_MS * 1000ull;
	if (world->quiet)
		return;
	world->faults++;
	switch (rng_below(rng, 8)) {
	case 0:
	case 1:
	case 2:
		sim_trace(sim, "fault: client %u stands still", client->number + 1);
		if (client->loop)
			sim_process_pause(client->loop, true);
		sim_after(sim, expiry_us / 2 + rng_below(rng, 2 * expiry_us), world_on_resume, client);
		break;
	case 3: /* from the masters only: it reaches the chunkservers */
		sim_trace(sim, "fault: client %u is cut off from the masters", client->number + 1);
		for (unsigned i = 0; i < MASTERS; i++) {
			sim_cut(sim, client->host, world_node(world, NODE_MASTER, i)->host, true);
			sim_cut(sim, world_node(world, NODE_MASTER, i)->host, client->host, true);
		}
		sim_after(sim, expiry_us + rng_below(rng, expiry_us), world_on_heal, world);
		break;
	case 4: /* with requests of clients in its hands */
	case 5:
		sim_trace(sim, "fault: chunkserver %u stands still", server->number + 1);
		if (server->loop)
			sim_process_pause(server->loop, true);
		sim_after(sim, 200000 + rng_below(rng, rng_below(rng, 2) ? 2000000 : 2 * expiry_us), world_on_resume, server);
		break;
	case 6:
		sim_trace(sim, "fault: kill of chunkserver %u", server->number + 1);
		node_stop(server, false);
		sim_after(sim, 50000 + rng_below(rng, 2000000), world_on_restart, server);
		break;
	default:
		sim_trace(sim, "fault: kill of master %u", master->number + 1);
		node_stop(master, false);
		sim_after(sim, 50000 + rng_below(rng, 2000000), world_on_restart, master);
		break;
	}
	sim_after(sim, 1000000 + rng_below(rng, 6000000), on_fault, world);
}

static bool all_finished(void *arg)
{
	return ((struct history *)arg)->finished == CLIENTS;
}

static uint64_t run(uint64_t seed, uint64_t *sum)
{
	struct history history = { 0 };
	struct world world = { .clients = CLIENTS, .client_start = client_start, .client_stop = client_stop, .arg = &history };
	uint64_t inode = 0;
	world_open(&world, seed);
	for (unsigned i = 0; i < CLIENTS; i++)
		node_start(world_node(&world, NODE_CLIENT, i));
	sim_run(world.sim, 2000000, NULL, NULL);
	ask_for_file(((struct program *)world_node(&world, NODE_CLIENT, 0)->program)->client, &inode);
	check(sim_run(world.sim, CALM_US, is_made, &inode));
	history.inode = inode;
	sim_after(world.sim, 3000000, on_fault, &world);
	sim_run(world.sim, FAULTS_US, NULL, NULL);
	world_calm(&world);
	history.ending = true;
	if (!sim_run(world.sim, CALM_US, all_finished, &history)) {
		sim_print_trace(world.sim, stderr);
		fprintf(stderr, "not every client got the lock again\n");
		abort();
	}
	uint64_t digest = sim_trace_digest(world.sim);
	const uint64_t seen[] = { history.grants, history.rounds, history.writes, history.refused, history.lost, history.checks,
				  sim_steps(world.sim), sim_now_us(world.sim) / 1000 };
	runner_add(sum, seen, sizeof seen / sizeof seen[0]);
	world_close(&world);
	return digest;
}

static const char *const counts[] = { "grants", "rounds", "writes", "refused", "sessions lost", "checks", RUNNER_STEPS, RUNNER_MS, NULL };
static const uint64_t least[] = { 0, 1001, 0, 1, 21, 0, 0, 0 };

int main(int argc, char **argv)
{
	const struct runner runner = {
		.name = "sim_locks", .standard = SEEDS, .run = run, .counts = counts, .least = least
	};
	return runner_main(&runner, argc, argv);
}
