#include "chunkserver/scrub.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/adopt.h"
#include "chunkserver/compare.h"
#include "chunkserver/master_link.h"
#include "chunkserver/scrub_pack.h"
#include "chunkserver/scrub_set.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/proto/settings.h"
#include "common/sys/log.h"

#define PIECE_BLOCKS (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)
#define LOOK_MS 1000u	 /* whether a pass is due */
#define AGAIN_MS 50u	 /* what could not be read now, because others are at it */
#define CHUNK_WAIT_MS 2000u /* one chunk holds up the others for so long, */
#define PASS_WAIT_MS 10000u /* all of them a pass that was asked for */
#define LATER_MAX 64u
#define YIELD_MS 5u	 /* to others' requests */
#define SETTLE_MS 30000u /* the end of a pass waits so long for mending */
#define COMPARE_TRIES 20u /* of blocks that are written all the time */
#define NOTE_BYTES 24u

enum stage { STAGE_CHOOSE, STAGE_OPEN, STAGE_TABLE, STAGE_CONTENT, STAGE_COMPARE, STAGE_SET, STAGE_SETTLE };

struct scrub {
	struct service *service;
	struct timer timer;
	enum stage stage;
	bool running, stopped;
	bool asks; /* an operation, a worker or another server is at it */
	bool restarted; /* meanwhile, from the beginning */
	/* The pass. */
	uint64_t id; /* of the command; 0: scheduled */
	uint64_t *wanted;
	size_t wanted_count; /* 0: all */
	size_t wanted_next;
	uint64_t cursor; /* chunks up to here are done */
	uint64_t chunks, chunks_total, blocks, found_before, repaired_before;
	uint64_t settle_ms;
	uint64_t held_ms; /* by chunks that could not be had */
	uint64_t later[LATER_MAX]; /* those: once more at the end */
	size_t later_count, later_next;
	/* The chunk. */
	uint64_t chunk_id;
	struct chunk *chunk; /* in use */
	uint32_t block;	     /* or slot */
	uint64_t stuck_ms; /* since then nothing came of it; 0: it is not */
	struct scrub_pack pack;
	struct compare compare;
	unsigned compare_tries;
	struct iobuf *first; /* its first blocks, from this one on: */
	uint32_t first_skip;
	struct scrub_set set;
	uint64_t set_began_ms, sets_waited_ms;
	uint64_t shards_found, shards_repaired; /* of sets, in this pass */
	uint32_t differed; /* compare.differ of the last pass of everything */
	/* Kept in the index; wall clock. */
	uint64_t full_cursor, full_began_ms, full_ended_ms;
	/* Of the last one on demand. */
	struct {
		uint64_t id, chunks, chunks_total, blocks, damaged, repaired;
		bool ended;
	} demand;
};

static void step(void *arg);

/* ---------------------------------------------------------------- what is kept */

static void save(struct scrub *scrub)
{
	uint8_t note[NOTE_BYTES];
	put_le64(note, scrub->full_cursor);
	put_le64(note + 8, scrub->full_began_ms);
	put_le64(note + 16, scrub->full_ended_ms);
	if (chunk_index_put_note(chunk_store_index(scrub->service->store), "scrub", slice_of(note, sizeof(note))) != OK)
		log_warn("scrub_not_noted", "cursor=%016" PRIx64, scrub->full_cursor); /* some will be read again */
}

static void load(struct scrub *scrub)
{
	struct buf note = { 0 };
	enum err err = chunk_index_get_note(chunk_store_index(scrub->service->store), "scrub", &note);
	if (err == OK && note.size == NOTE_BYTES) {
		scrub->full_cursor = get_le64(note.bytes);
		scrub->full_began_ms = get_le64(note.bytes + 8);
		scrub->full_ended_ms = get_le64(note.bytes + 16);
	}
	buf_deinit(&note);
}

static void note_progress(struct scrub *scrub, bool ended)
{
	struct chunk_store_counts counts;
	chunk_store_counts(scrub->service->store, &counts);
	if (scrub->id == 0)
		return;
	scrub->demand.chunks = scrub->chunks;
	scrub->demand.chunks_total = scrub->chunks_total;
	scrub->demand.blocks = scrub->blocks;
	scrub->demand.damaged = counts.damage_found - scrub->found_before + scrub->shards_found;
	scrub->demand.repaired = counts.damage_repaired - scrub->repaired_before + scrub->shards_repaired;
	scrub->demand.ended = ended;
}

/* ---------------------------------------------------------------- the rate */

static uint64_t rate(const struct scrub *scrub)
{
	struct chunk_store_counts counts;
	if (scrub->id != 0)
		return SCRUB_DEMAND_BYTES_PER_SECOND;
	uint64_t days = setting_value(master_link_settings(scrub->service->link), SETTING_SCRUB);
	chunk_store_counts(scrub->service->store, &counts);
	uint64_t bytes = counts.bytes_total - counts.bytes_free;
	uint64_t wanted = days == 0 ? 0 : bytes / (days * 86400u);
	if (wanted < SCRUB_BYTES_PER_SECOND_MIN)
		return SCRUB_BYTES_PER_SECOND_MIN;
	return wanted < SCRUB_BYTES_PER_SECOND_MAX ? wanted : SCRUB_BYTES_PER_SECOND_MAX;
}

static void go_on_after(struct scrub *scrub, uint64_t bytes)
{
	uint64_t ms = bytes * 1000 / rate(scrub);
	bool others = scrub->service->ops > 1;
	if (!scrub->stopped)
		timer_start(&scrub->timer, others && ms < YIELD_MS ? YIELD_MS : ms);
}

static void again(struct scrub *scrub, uint64_t ms)
{
	if (!scrub->stopped)
		timer_start(&scrub->timer, ms);
}

/* ---------------------------------------------------------------- passes */

static void begin(struct scrub *scrub, uint64_t id, uint64_t cursor)
{
	struct chunk_store_counts counts;
	chunk_store_counts(scrub->service->store, &counts);
	scrub->id = id;
	scrub->cursor = cursor;
	scrub->chunks = scrub->blocks = 0;
	scrub->held_ms = scrub->stuck_ms = 0;
	scrub->later_count = scrub->later_next = 0;
	scrub->compare.differ = 0;
	scrub->sets_waited_ms = scrub->shards_found = scrub->shards_repaired = 0;
	scrub->chunks_total = scrub->wanted_count > 0 ? scrub->wanted_count : counts.chunks;
	scrub->found_before = counts.damage_found;
	scrub->repaired_before = counts.damage_repaired;
	scrub->running = true;
	scrub->stage = STAGE_CHOOSE;
	note_progress(scrub, false);
	again(scrub, 0);
}

static void end(struct scrub *scrub)
{
	bool full = scrub->wanted_count == 0;
	note_progress(scrub, true);
	log_info("scrub_ended", "id=%" PRIu64 " chunks=%" PRIu64 " blocks=%" PRIu64 " differ=%" PRIu32, scrub->id, scrub->chunks, scrub->blocks,
		 scrub->compare.differ);
	free(scrub->wanted);
	scrub->wanted = NULL;
	scrub->wanted_count = scrub->wanted_next = 0;
	scrub->running = false;
	scrub->id = 0;
	if (full) {
		scrub->differed = scrub->compare.differ;
		scrub->full_cursor = 0;
		scrub->full_ended_ms = loop_wall_ms(scrub->service->loop);
		save(scrub);
	}
	again(scrub, LOOK_MS);
}

static void begin_if_due(struct scrub *scrub)
{
	uint64_t now = loop_wall_ms(scrub->service->loop);
	uint64_t days = setting_value(master_link_settings(scrub->service->link), SETTING_SCRUB);
	uint64_t since = now - scrub->full_began_ms;
	if (days == 0) {
		again(scrub, LOOK_MS);
	} else if (scrub->full_cursor != 0) { /* of a former life, or interrupted */
		begin(scrub, 0, scrub->full_cursor);
	} else if (scrub->full_began_ms == 0 || now < scrub->full_began_ms) { /* a new disk, or a clock that was set */
		scrub->full_began_ms = now;
		save(scrub);
		again(scrub, LOOK_MS);
	} else if (since >= days * 86400000u) {
		scrub->full_began_ms = now;
		begin(scrub, 0, 0);
	} else {
		again(scrub, LOOK_MS);
	}
}

/* ---------------------------------------------------------------- a chunk */

static void let_go(struct scrub *scrub)
{
	if (scrub->chunk != NULL)
		chunk_unuse(scrub->chunk);
	scrub->chunk = NULL;
	iobuf_unref(scrub->first);
	scrub->first = NULL;
}

static void chunk_end(struct scrub *scrub)
{
	let_go(scrub);
	scrub->chunks++;
	if (scrub->cursor < scrub->chunk_id)
		scrub->cursor = scrub->chunk_id;
	if (scrub->id == 0) {
		scrub->full_cursor = scrub->cursor;
		save(scrub);
	}
	note_progress(scrub, false);
	scrub->stage = STAGE_CHOOSE;
	again(scrub, 0);
}

/* Each block, or record, has been read and compared with its checksum. (What is damaged is remembered by itself.) */
static void note_checked(struct scrub *scrub)
{
	uint64_t now = loop_wall_ms(scrub->service->loop);
	if (chunk_index_put_checked(chunk_store_index(scrub->service->store), scrub->chunk_id, now) != OK)
		log_warn("check_not_noted", "chunk=%016" PRIx64, scrub->chunk_id);
}

static void went_on(struct scrub *scrub)
{
	if (scrub->stuck_ms != 0)
		scrub->held_ms += loop_now_ms(scrub->service->loop) - scrub->stuck_ms;
	scrub->stuck_ms = 0;
}

/* What cannot be had now may be later; but one chunk does not hold up all others for ever, nor do many. */
static void try_again(struct scrub *scrub)
{
	uint64_t now = loop_now_ms(scrub->service->loop);
	if (scrub->stuck_ms == 0)
		scrub->stuck_ms = now;
	uint64_t waited = now - scrub->stuck_ms;
	if (waited < CHUNK_WAIT_MS && (scrub->id == 0 || scrub->held_ms + waited < PASS_WAIT_MS)) {
		again(scrub, AGAIN_MS);
		return;
	}
	went_on(scrub);
	bool first = scrub->later_next == 0;
	if (first && scrub->later_count < LATER_MAX) {
		scrub->later[scrub->later_count++] = scrub->chunk_id;
		chunk_end(scrub);
		return;
	}
	log_warn("chunk_not_scrubbed", "chunk=%016" PRIx64 " block=%" PRIu32, scrub->chunk_id, scrub->block);
	chunk_end(scrub);
}

static bool take_id(void *arg, const Granary__ChunkLocation *location)
{
	*(uint64_t *)arg = location->chunk;
	return false;
}

static void choose(struct scrub *scrub)
{
	uint64_t id = 0;
	if (scrub->wanted_count > 0) {
		id = scrub->wanted_next < scrub->wanted_count ? scrub->wanted[scrub->wanted_next++] : 0;
	} else if (chunk_store_each(scrub->service->store, scrub->cursor, take_id, &id) != OK) {
		chunk_store_fail(scrub->service->store, "index", ERR_IO);
		again(scrub, LOOK_MS);
		return;
	}
	if (id == 0 && scrub->later_next < scrub->later_count) {
		scrub->chunks--; /* it has been counted */
		id = scrub->later[scrub->later_next++];
	}
	if (id == 0) {
		scrub->stage = STAGE_SETTLE;
		scrub->settle_ms = loop_now_ms(scrub->service->loop) + SETTLE_MS;
		again(scrub, AGAIN_MS);
		return;
	}
	scrub->chunk_id = id;
	scrub->stage = STAGE_OPEN;
	again(scrub, 0);
}

static void open_chunk(struct scrub *scrub)
{
	struct chunk *chunk = NULL;
	enum err err = chunk_store_get(scrub->service->store, scrub->chunk_id, NULL, &chunk);
	if (err == ERR_BUSY || (err == OK && (chunk->state == CHUNK_OPENING || chunk->uncertain || chunk->rejoin != NULL))) {
		try_again(scrub);
	} else if (err != OK || chunk->copy != COPY_COMPLETE) { /* deleted meanwhile, cannot be opened, is not read by anybody */
		chunk_end(scrub);
	} else {
		chunk_use(chunk);
		scrub->chunk = chunk;
		scrub->block = 0;
		went_on(scrub);
		scrub->stage = chunk->kind == KIND_PACK ? STAGE_CONTENT : STAGE_TABLE;
		again(scrub, 0);
	}
}

static bool is_gone(const struct scrub *scrub)
{
	return scrub->chunk->state != CHUNK_READY || scrub->service->stopping;
}

/* Who was asked has answered. False: what it said of this chunk is not wanted any more. */
static bool answered(struct scrub *scrub)
{
	scrub->asks = false;
	if (scrub->restarted) {
		scrub->restarted = false;
		let_go(scrub);
		again(scrub, 0);
		return false;
	}
	if (is_gone(scrub)) {
		chunk_end(scrub);
		return false;
	}
	return true;
}

static void submit(struct scrub *scrub, uint32_t first, uint32_t blocks, bool table, void (*done)(void *arg, enum err err))
{
	struct chunk_op *op = chunk_op_new(scrub->service, OP_READ, NULL);
	op->scrubs = true;
	op->table = table;
	op->version = scrub->chunk->version;
	op->first = first;
	op->end = first + blocks;
	op->done = done;
	op->arg = scrub;
	if (!table && first == 0) {
		op->given = &scrub->first;
		op->given_skip = &scrub->first_skip;
	}
	scrub->asks = true;
	chunk_op_submit(op, scrub->chunk_id, NULL);
}

static void piece_done(void *arg, enum err err)
{
	struct scrub *scrub = arg;
	if (!answered(scrub))
		return;
	if (err != OK && err != ERR_CORRUPT) {
		try_again(scrub);
		return;
	}
	went_on(scrub);
	scrub->block += PIECE_BLOCKS;
	scrub->blocks += PIECE_BLOCKS;
	note_progress(scrub, false);
	go_on_after(scrub, PIECE_BLOCKS * BLOCK_BYTES);
}

static void table_done(void *arg, enum err err)
{
	struct scrub *scrub = arg;
	if (!answered(scrub))
		return;
	if (err == ERR_CORRUPT || err == ERR_NOT_FOUND) {
		chunk_store_set_misplaced(scrub->chunk);
		chunk_end(scrub);
	} else if (err != OK) {
		try_again(scrub);
	} else {
		went_on(scrub);
		scrub->stage = STAGE_CONTENT;
		go_on_after(scrub, CHUNK_DATA_OFFSET);
	}
}

static void records_done(void *arg, enum err err, uint64_t bytes)
{
	struct scrub *scrub = arg;
	if (!answered(scrub))
		return;
	scrub->blocks += (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
	if (err == ERR_NOT_FOUND) {
		if (!scrub->chunk->misplaced)
			note_checked(scrub);
		chunk_end(scrub);
	} else if (err != OK) {
		try_again(scrub);
	} else {
		went_on(scrub);
		go_on_after(scrub, bytes);
	}
}

static void check_content(struct scrub *scrub)
{
	struct chunk *chunk = scrub->chunk;
	if (is_gone(scrub)) {
		chunk_end(scrub);
	} else if (chunk->kind == KIND_PACK) {
		scrub->asks = true;
		scrub_pack_next(&scrub->pack, scrub->service, chunk, &scrub->block, records_done, scrub);
	} else if (scrub->block >= chunk->file.blocks) {
		note_checked(scrub);
		scrub->stage = STAGE_COMPARE;
		scrub->block = scrub->compare_tries = 0;
		again(scrub, 0);
	} else {
		submit(scrub, scrub->block, PIECE_BLOCKS, false, piece_done);
	}
}

/* The chunk is not held meanwhile: it may have to go, since it is made anew elsewhere. */
static void set_checked(void *arg, unsigned wrong, unsigned repaired)
{
	struct scrub *scrub = arg;
	scrub->asks = false;
	scrub->shards_found += wrong;
	scrub->shards_repaired += repaired;
	if (wrong > 0)
		scrub->sets_waited_ms += loop_now_ms(scrub->service->loop) - scrub->set_began_ms;
	chunk_end(scrub);
}

static void check_set(struct scrub *scrub)
{
	const struct chunk *chunk = scrub->chunk;
	uint64_t wait = scrub->sets_waited_ms < SETTLE_MS ? SETTLE_MS - scrub->sets_waited_ms : 0;
	bool alone = chunk->chain != NULL && chunk->chain->n_replicas == 1;
#ifdef PLANT_SETS_NOT_LOOKED_AT
	alone = false;
#endif
	if (alone && scrub->first != NULL && scrub->first->size > scrub->first_skip * BLOCK_BYTES &&
	    scrub_set_begin(&scrub->set, chunk->id, slice_of(scrub->first->bytes + scrub->first_skip * BLOCK_BYTES, BLOCK_BYTES), wait)) {
		let_go(scrub);
		scrub->asks = true;
		scrub->stage = STAGE_SET;
		scrub->set_began_ms = loop_now_ms(scrub->service->loop);
	} else {
		chunk_end(scrub);
	}
}

static void compared(void *arg, enum err err)
{
	struct scrub *scrub = arg;
	if (!answered(scrub))
		return;
	if (err == ERR_BUSY && ++scrub->compare_tries < COMPARE_TRIES) {
		again(scrub, AGAIN_MS);
		return;
	}
	scrub->compare_tries = 0;
	scrub->block += COMPARE_BLOCKS;
	if ((err != OK && err != ERR_BUSY) || scrub->block >= scrub->compare.end)
		check_set(scrub);
	else
		go_on_after(scrub, COMPARE_BLOCKS * 4u);
}

/* What was found is repaired, or nobody tries any more at the moment. */
static bool is_settled(const struct scrub *scrub)
{
	struct chunk_store_counts counts;
	uint64_t now = loop_now_ms(scrub->service->loop);
	chunk_store_counts(scrub->service->store, &counts);
	if (scrub->service->mends == 0 && counts.damage_repaired - scrub->repaired_before >= counts.damage_found - scrub->found_before)
		return true;
	uint64_t waited = now + SETTLE_MS - scrub->settle_ms;
	bool idle = scrub->service->mends == 0 && counts.uncertain == 0;
	return now >= scrub->settle_ms || (idle && waited >= 4 * CHUNKSERVER_HEARTBEAT_MS);
}

static void step(void *arg)
{
	struct scrub *scrub = arg;
	if (scrub->asks || scrub->stopped)
		return;
	if (!scrub->running) {
		begin_if_due(scrub);
		return;
	}
	if (chunk_store_failed(scrub->service->store)) {
		again(scrub, LOOK_MS);
		return;
	}
	switch (scrub->stage) {
	case STAGE_CHOOSE:
		choose(scrub);
		break;
	case STAGE_OPEN:
		open_chunk(scrub);
		break;
	case STAGE_TABLE:
		if (scrub->chunk->adopting)
			try_again(scrub);
		else
			submit(scrub, 0, CHUNK_BLOCKS, true, table_done);
		break;
	case STAGE_CONTENT:
		check_content(scrub);
		break;
	case STAGE_COMPARE:
		if (is_gone(scrub)) {
			chunk_end(scrub);
			break;
		}
		scrub->asks = true;
		compare_next(&scrub->compare, scrub->service, scrub->chunk, scrub->block, compared, scrub);
		break;
	case STAGE_SET: /* set_checked follows */
		break;
	case STAGE_SETTLE:
		if (!is_settled(scrub))
			again(scrub, AGAIN_MS);
		else
			end(scrub);
		break;
	}
}

/* ---------------------------------------------------------------- header and table */

static void table_run(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk *chunk = op->chunk;
	op->local_err = chunk_file_scrub_table(&chunk->file, op->service->loop, chunk->path, &op->size, &op->header_differs);
}

static void table_ran(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk *chunk = op->chunk;
	struct chunk_store *store = chunk->store;
	enum err err = op->local_err;
	op->local_pending = false;
	if (op->size > 0)
		log_error("table_damaged", "chunk=%016" PRIx64 " entries=%" PRIu32 " result=%s", chunk->id, op->size, err_name(err));
	chunk_store_count_damage(store, op->size, err == OK ? op->size : 0);
	/* If it is not about to be written anyway. */
	if (err == OK && op->header_differs && !chunk->adopting && chunk->file.version == chunk->version) {
		log_error("header_damaged", "chunk=%016" PRIx64, chunk->id);
		chunk_store_count_damage(store, 1, 1);
		chunk_write_header(op->service, chunk);
	}
	if (op->size > 0 && err != OK && err != ERR_NO_SPACE) /* a failed write or sync */
		chunk_store_fail(store, "scrub", err);
	chunk_op_answer(op, err);
	chunk_op_remove(op);
	chunk_store_work_end(store);
}

void scrub_table_start(struct chunk_op *op)
{
	op->state = OP_RUNNING;
	op->local_pending = true;
	op->local_err = ERR_CANCELLED;
	op->work.run = table_run;
	op->work.done = table_ran;
	chunk_store_submit(op->chunk->store, NULL, &op->work);
}

/* ---------------------------------------------------------------- life */

void scrub_demand(struct scrub *scrub, const Granary__ScrubCommand *command)
{
	if (scrub->stopped || command->id == 0 || command->id == scrub->demand.id || command->n_chunks > SCRUB_CHUNKS_MAX)
		return;
	free(scrub->wanted);
	scrub->wanted = NULL;
	scrub->wanted_next = 0;
	scrub->wanted_count = command->n_chunks;
	if (command->n_chunks > 0) {
		scrub->wanted = mem_alloc(command->n_chunks * sizeof(*scrub->wanted));
		memcpy(scrub->wanted, command->chunks, command->n_chunks * sizeof(*scrub->wanted));
	}
	scrub->demand.id = command->id;
	log_info("scrub_begins", "id=%" PRIu64 " chunks=%zu", command->id, command->n_chunks);
	if (scrub_set_stop(&scrub->set))
		scrub->asks = false;
	scrub->restarted = scrub->asks;
	if (!scrub->asks)
		let_go(scrub);
	begin(scrub, command->id, 0);
}

void scrub_report(const struct scrub *scrub, Granary__DiskHealth *out)
{
	out->scrub_id = scrub->demand.id;
	out->scrub_ended = scrub->demand.ended;
	out->scrub_chunks = scrub->demand.chunks;
	out->scrub_chunks_total = scrub->demand.chunks_total;
	out->scrub_blocks = scrub->demand.blocks;
	out->scrub_damaged = scrub->demand.damaged;
	out->scrub_repaired = scrub->demand.repaired;
	out->scrub_passed_ms = scrub->full_ended_ms;
	out->copies_differ = scrub->compare.differ > scrub->differed ? scrub->compare.differ : scrub->differed;
}

struct scrub *scrub_open(struct service *service)
{
	struct scrub *scrub = mem_zero(1, sizeof(*scrub));
	scrub->service = service;
	timer_init(&scrub->timer, service->loop, step, scrub);
	scrub_set_init(&scrub->set, service, set_checked, scrub);
	load(scrub);
	timer_start(&scrub->timer, LOOK_MS);
	return scrub;
}

void scrub_stop(struct scrub *scrub)
{
	scrub->stopped = true;
	timer_stop(&scrub->timer);
	if (compare_stop(&scrub->compare) || scrub_set_stop(&scrub->set))
		scrub->asks = false;
	if (!scrub->asks)
		let_go(scrub);
}

void scrub_close(struct scrub *scrub)
{
	if (scrub == NULL)
		return;
	timer_stop(&scrub->timer);
	iobuf_unref(scrub->first);
	free(scrub->wanted);
	free(scrub);
}
