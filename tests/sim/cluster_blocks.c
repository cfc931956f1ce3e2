/* Tables: opened -> (write some blocks -> flush or sync | read some) again and again. */
#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "tests/sim/cluster_load.h"

static void fill(uint8_t *block, uint64_t version, unsigned table, uint64_t number)
{
	for (uint32_t i = 0; i < BLOCK_BYTES; i += 16) {
		put_le64(block + i, version);
		put_le64(block + i + 8, (uint64_t)table << 32 | number << 12 | i);
	}
}

/* Far enough into the file for chunks (a shorter one would be a blob, replaced as a whole). */
static uint64_t offset_of(const struct block_actor *actor, unsigned block)
{
	if (actor->table == SPARSE)
		return (block + 1ull) * CHUNK_BYTES;
	return (actor->table % 2 ? CHUNK_BYTES - BLOCKS / 2 * BLOCK_BYTES : 4ull * BLOB_BYTES_MAX) + (uint64_t)block * BLOCK_BYTES;
}

static uint32_t register_of(const struct block_actor *actor, unsigned block)
{
	return REGISTER_BLOCKS + actor->table * BLOCKS + block;
}

static void next(struct block_actor *actor)
{
	free(actor->bytes);
	actor->bytes = NULL;
	load_later(actor->program, &actor->timer);
}

/* ---- writing ---- */

static void on_flushed(void *arg, enum err err)
{
	struct block_actor *actor = arg;
	struct run *run = actor->program->run;
	if (actor->program->dead)
		return;
	if (err) { /* whether it is there, wholly or in part, or will be, nobody knows */
		load_failed(actor->program, actor->sync ? "sync of table" : "flush of table", actor->table, err);
		next(actor);
		return;
	}
	for (unsigned i = 0; i < actor->count; i++) {
		if (actor->sync)
			history_done_synced(run->history, actor->operations[i], load_now(actor->program));
		else
			history_done(run->history, actor->operations[i], 0, load_now(actor->program));
	}
	run->counts.writes++;
	run->counts.syncs += actor->sync;
	sim_trace(run->world.sim, "client%u: table %u, blocks %u to %u: version %u is %s", actor->program->number + 1, actor->table,
		  actor->first, actor->first + actor->count - 1, (unsigned)actor->version, actor->sync ? "synced" : "flushed");
	if (!load_is_made(run)) {
		run->tables_ready++;
		return;
	}
	next(actor);
}

static void on_written(void *arg, enum err err)
{
	struct block_actor *actor = arg;
	if (actor->program->dead)
		return;
	if (err) {
		load_failed(actor->program, "write to table", actor->table, err);
		next(actor);
		return;
	}
	(actor->sync ? file_io_sync : file_io_flush)(actor->io, on_flushed, actor);
}

static void write_some(struct block_actor *actor, unsigned first, unsigned count)
{
	struct program *program = actor->program;
	actor->first = first;
	actor->count = count;
	actor->version = ++program->run->version;
	actor->bytes = mem_alloc(count * BLOCK_BYTES);
	for (unsigned i = 0; i < count; i++) {
		fill(actor->bytes + i * BLOCK_BYTES, actor->version, actor->table, first + i);
		actor->operations[i] = load_begin(program, register_of(actor, first + i), HISTORY_WRITE, actor->version);
	}
	sim_trace(program->run->world.sim, "client%u: table %u, blocks %u to %u: writes version %u", program->number + 1, actor->table, first,
		  first + count - 1, (unsigned)actor->version);
	file_io_write(actor->io, offset_of(actor, first), slice_of(actor->bytes, count * BLOCK_BYTES), on_written, actor);
}

/* ---- reading ---- */

#define SECTOR_BYTES 512u

/* If all members of a chain lost power, a block that was not synced is what one of them has of it: old and new sectors. */
static bool is_torn(const struct block_actor *actor, unsigned i, const uint8_t *bytes)
{
	uint8_t whole[BLOCK_BYTES], zeros[SECTOR_BYTES] = { 0 };
	if (!actor->program->run->may_lose)
		return false;
	if (actor->program->run->cools) /* files are used again: it may be sectors of what was in this one before */
		return true;
	for (uint32_t at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
		fill(whole, get_le64(bytes + at), actor->table, actor->first + i);
		if (memcmp(whole + at, bytes + at, SECTOR_BYTES) != 0 && memcmp(zeros, bytes + at, SECTOR_BYTES) != 0)
			return false;
	}
	return true;
}

static void check_block(struct block_actor *actor, unsigned i, const uint8_t *bytes)
{
	uint8_t whole[BLOCK_BYTES];
	uint64_t version = get_le64(bytes);
	fill(whole, version, actor->table, actor->first + i);
	if (version == 0) /* never written */
		memset(whole, 0, sizeof whole);
	if (memcmp(whole, bytes, BLOCK_BYTES) != 0 && is_torn(actor, i, bytes))
		return;
	if (memcmp(whole, bytes, BLOCK_BYTES) != 0)
		load_wrong(actor->program, "a block is not one version: table", actor->table, version, actor->first + i);
	history_done(actor->program->run->history, actor->operations[i], version, load_now(actor->program));
}

static void on_read(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct block_actor *actor = arg;
	struct run *run = actor->program->run;
	size_t size = actor->count * BLOCK_BYTES, at = 0;
	if (actor->program->dead)
		return;
	if (err) {
		if (!run->may_lose)
			load_failed(actor->program, "read of table", actor->table, err);
		run->counts.errors++;
		if (run->ending && run->may_lose) /* lost, and known to be */
			actor->looked += actor->count;
		actor->checked = actor->looked >= BLOCKS;
		next(actor);
		return;
	}
	actor->bytes = mem_zero(1, size);
	for (size_t i = 0; i < part_count; i++) {
		check(parts[i].size <= size - at);
		memcpy(actor->bytes + at, parts[i].bytes, parts[i].size);
		at += parts[i].size;
	}
	for (unsigned i = 0; i < actor->count; i++)
		check_block(actor, i, actor->bytes + i * BLOCK_BYTES);
	run->counts.reads++;
	if (run->ending)
		actor->looked += actor->count;
	actor->checked = actor->looked >= BLOCKS;
	next(actor);
}

static void read_some(struct block_actor *actor, unsigned first, unsigned count)
{
	actor->first = first;
	actor->count = count;
	for (unsigned i = 0; i < count; i++)
		actor->operations[i] = load_begin(actor->program, register_of(actor, first + i), HISTORY_READ, 0);
	file_io_read(actor->io, offset_of(actor, first), count * BLOCK_BYTES, on_read, actor);
}

/* ---- */

static void on_opened(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct block_actor *actor = arg;
	struct program *program = actor->program;
	err = load_result(err, reply);
	if (program->dead)
		return;
	if (err) {
		client_note_closed(program->client, program->run->tables[actor->table]);
		load_failed(program, "open of table", actor->table, err);
	} else {
		actor->io = file_io_open(program->client, program->run->tables[actor->table], reply->results[0]->attr);
	}
	if (actor->io && !load_is_made(program->run)) {
		bool sparse = actor->table == SPARSE; /* holes, and a size that stays */
		actor->sync = true;
		write_some(actor, sparse ? BLOCKS - 1 : 0, sparse ? 1 : BLOCKS);
	} else {
		next(actor);
	}
}

void blocks_write_all(struct block_actor *actor)
{
	load_open_inode(actor->program, actor->program->run->tables[actor->table], on_opened, actor);
}

static void step(void *arg)
{
	struct block_actor *actor = arg;
	struct run *run = actor->program->run;
	struct rng *rng = load_rng(actor->program);
	unsigned first = (unsigned)rng_below(rng, BLOCKS);
	unsigned count = 1 + (unsigned)rng_below(rng, rng_below(rng, 4) == 0 ? BLOCKS : 3);
	if (count > BLOCKS - first)
		count = BLOCKS - first;
	if (actor->table == SPARSE)
		count = 1;
	if (actor->checked)
		return;
	if (!actor->io) {
		blocks_write_all(actor);
	} else if (run->ending) {
		read_some(actor, actor->looked, actor->table == SPARSE ? 1 : BLOCKS - actor->looked);
	} else if (rng_below(rng, run->cools ? 10 : 2) == 0) {
		actor->sync = rng_below(rng, 2) == 0 && !run->never_sync;
		write_some(actor, first, count);
	} else {
		read_some(actor, first, count);
	}
}

void blocks_init(struct block_actor *actor)
{
	timer_init(&actor->timer, actor->program->loop, step, actor);
}

void blocks_stop(struct block_actor *actor)
{
	timer_stop(&actor->timer);
	free(actor->bytes);
}
