#include "tests/sim/cluster_load.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/proto/mode.h"

#define TIMEOUT_MS 8000u
/* What was under way when the faults ended may still fail. */
#define GRACE_US ((TIMEOUT_MS + 4000u) * 1000u)

struct rng *load_rng(const struct program *program)
{
	return sim_rng(program->run->world.sim);
}

uint64_t load_now(const struct program *program)
{
	return sim_now_us(program->run->world.sim);
}

void load_later(const struct program *program, struct timer *timer)
{
	timer_start(timer, rng_below(load_rng(program), 60));
}

uint32_t load_begin(struct program *program, uint32_t number, enum history_kind kind, uint64_t value)
{
	return history_begin(program->run->history, number, kind, value, program->number + 1, load_now(program));
}

void load_wrong(const struct program *program, const char *what, unsigned number, uint64_t found, uint64_t expected)
{
	sim_print_trace(program->run->world.sim, stderr);
	fprintf(stderr, "client%u: %s %u: found %" PRIu64 ", expected %" PRIu64 "\n", program->number + 1, what, number, found, expected);
	abort();
}

void load_failed(struct program *program, const char *what, unsigned number, enum err err)
{
	const struct run *run = program->run;
	sim_trace(run->world.sim, "client%u: %s %u: %s", program->number + 1, what, number, err_name(err));
	program->run->counts.errors++;
	if (!run->ending || load_now(program) < run->ending_us + GRACE_US)
		return;
	sim_print_trace(run->world.sim, stderr);
	fprintf(stderr, "client%u: %s %u: %s, though nothing is broken any more\n", program->number + 1, what, number, err_name(err));
	abort();
}

enum err load_result(enum err err, const Granary__MetaReply *reply)
{
	for (size_t i = 0; err == OK && i < reply->n_results; i++)
		err = (enum err)reply->results[i]->error;
	return err;
}

void load_open_inode(struct program *program, uint64_t inode, client_meta_fn *done, void *arg)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Open open = GRANARY__OPEN__INIT;
	open.inode = inode;
	op.op_case = GRANARY__META_OP__OP_OPEN;
	op.open = &open;
	client_note_opened(program->client, inode);
	client_meta(program->client, (Granary__MetaOp *[]){ &op }, 1, done, arg);
}

/* ---- a client ---- */

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
	for (unsigned i = 0; i < TABLES && !program->dead; i++)
		locks_lost(&program->locks[i]);
}

static const struct client_events events = { .invalidate = invalidate, .session_lost = session_lost };

void load_go(void *arg)
{
	struct program *program = arg;
	for (unsigned i = 0; i < TABLES; i++) {
		load_later(program, &program->blocks[i].timer);
		load_later(program, &program->locks[i].timer);
	}
	load_later(program, &program->names.timer);
	if (program->run->cools)
		cold_go(&program->cold);
}

void *load_start(struct world *world, unsigned number, struct loop *loop)
{
	struct program *program = mem_zero(1, sizeof *program);
	struct client_options options = {
		.cluster = WORLD_MASTER_ADDRESSES, .timeout_ms = TIMEOUT_MS, .events = &events, .events_arg = program
	};
	program->run = world->arg;
	program->number = number;
	program->loop = loop;
	check(client_open(loop, &options, &program->client) == OK);
	for (unsigned i = 0; i < TABLES; i++) {
		program->blocks[i] = (struct block_actor){ .program = program, .table = i };
		program->locks[i] = (struct lock_actor){ .program = program, .lock = i };
		blocks_init(&program->blocks[i]);
		locks_init(&program->locks[i]);
	}
	program->names = (struct name_actor){ .program = program };
	names_init(&program->names);
	program->cold = (struct cold_actor){ .program = program };
	cold_init(&program->cold);
	if (load_is_made(program->run))
		load_go(program);
	return program;
}

void load_stop(void *arg)
{
	struct program *program = arg;
	for (unsigned i = 0; i < TABLES; i++)
		locks_lost(&program->locks[i]);
	program->dead = true;
	client_close(program->client);
	for (unsigned i = 0; i < TABLES; i++) {
		blocks_stop(&program->blocks[i]);
		locks_stop(&program->locks[i]);
	}
	names_stop(&program->names);
	cold_stop(&program->cold);
	free(program);
}

/* ---- the run ---- */

static void tables_made(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct program *program = arg;
	check(load_result(err, reply) == OK);
	for (unsigned i = 0; i < TABLES; i++) {
		program->run->tables[i] = reply->results[i]->inode;
		blocks_write_all(&program->blocks[i]);
	}
}

void load_make(struct run *run)
{
	struct program *program = world_node(&run->world, NODE_CLIENT, 0)->program;
	Granary__MetaOp ops[TABLES], *pointers[TABLES];
	Granary__Create creates[TABLES];
	char names[TABLES][2];
	for (unsigned i = 0; i < TABLES; i++) {
		granary__meta_op__init(&ops[i]);
		granary__create__init(&creates[i]);
		names[i][0] = (char)('A' + i);
		names[i][1] = 0;
		creates[i].parent = 1;
		creates[i].name = message_borrow(slice_text(names[i]));
		creates[i].mode = MODE_FILE | 0600;
		ops[i].op_case = GRANARY__META_OP__OP_CREATE;
		ops[i].create = &creates[i];
		pointers[i] = &ops[i];
	}
	client_meta(program->client, pointers, TABLES, tables_made, program);
}

bool load_is_made(void *arg)
{
	return ((struct run *)arg)->tables_ready == TABLES;
}

bool load_is_checked(void *arg)
{
	struct run *run = arg;
	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct program *program = world_node(&run->world, NODE_CLIENT, i)->program;
		if (!program || !program->names.checked)
			return false;
		for (unsigned j = 0; j < TABLES; j++)
			if (!program->blocks[j].checked || !program->locks[j].checked)
				return false;
	}
	return true;
}

void load_check_again(void *arg)
{
	struct program *program = arg;
	for (unsigned i = 0; i < TABLES; i++) {
		program->blocks[i].checked = false;
		program->blocks[i].looked = 0;
		load_later(program, &program->blocks[i].timer);
	}
	program->names.checked = false;
	program->names.looked = 0;
	load_later(program, &program->names.timer);
}

void load_power_lost(struct world *world, unsigned chunkserver)
{
	struct run *run = world->arg;
	(void)chunkserver;
	run->may_lose = true;
	for (uint32_t i = REGISTER_BLOCKS; i < REGISTER_NAMES; i++)
		history_power_cut(run->history, i, sim_now_us(world->sim));
}

void load_free(struct run *run)
{
	struct known_file *file, *next;
	HASH_ITER (hh, run->files, file, next) {
		HASH_DEL(run->files, file);
		free(file);
	}
	history_close(run->history);
}
