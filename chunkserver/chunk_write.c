#include "chunkserver/chunk_write.h"

#include "chunkserver/intents.h"
#include "chunkserver/service.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"

static struct chunk_file_write file_write_of(const struct chunk_op *op)
{
	return (struct chunk_file_write){
		.offset = op->offset, .data = op->data, .crcs = op->crcs, .blocks_before = op->blocks_before
	};
}

static enum err run_one(struct chunk_op *op)
{
	struct chunk_file_write write = file_write_of(op);
	write.damaged = &op->damaged;
	return chunk_file_write(&op->chunk->file, &write);
}

static enum err run_pieces(struct chunk_op *first)
{
	struct chunk_file_write writes[CHUNK_WRITE_PIECES_MAX];
	size_t count = 0;
	for (const struct chunk_op *op = first; op != NULL; op = op->queue_next)
		writes[count++] = file_write_of(op);
	return count == 1 ? run_one(first) :
			    chunk_file_write_run(&first->chunk->file, writes, count);
}

static void begin_log(struct chunk_op *op)
{
	for (; op != NULL; op = op->queue_next) {
		if (op->from_below)
			continue;
		op->logged = (struct write_log_entry){
			.chunk = op->chunk->id, .client = op->client, .operation = op->operation, .first = op->first, .end = op->end
		};
		write_log_begin(chunk_store_writes(op->chunk->store), &op->logged);
	}
}

static enum err note_log(const struct chunk_op *op)
{
	enum err err = OK;
	for (; op != NULL && err == OK; op = op->queue_next)
		err = op->from_below ? OK : write_log_note(chunk_store_writes(op->chunk->store), &op->logged);
	return err;
}

/* All pieces of the run, which continue each other. */
static enum err note_intent(const struct chunk_op *op)
{
	struct intent intent = { .chunk = op->chunk->id, .first = op->first, .end = op->end };
	for (const struct chunk_op *next = op->queue_next; next != NULL; next = next->queue_next)
		intent.end = next->end;
	return intents_write(chunk_store_intents(op->chunk->store), op->intent, &intent);
}

/* The disk is full: some of it may have been written. */
static void note_partial(struct chunk_op *first)
{
	for (struct chunk_op *op = first; op != NULL; op = op->queue_next)
		op->partial = !chunk_file_is_whole(&op->chunk->file, op->first, op->kind == OP_TRIM ? op->first + 1 : op->end);
}

static void write_run(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk *chunk = op->chunk;
	enum err err = note_intent(op);
	if (err == OK)
		err = note_log(op);
	if (err == OK && op->kind == OP_WRITE)
		err = run_pieces(op);
	else if (err == OK)
		err = chunk_file_trim(&chunk->file, op->offset, op->blocks_before, &op->blocks_after);
	if (op->kind == OP_TRIM)
		op->damaged = block_first(op->offset);
	if (err == ERR_NO_SPACE)
		note_partial(op);
	if (err == OK && op->sync_begun)
		err = chunk_sync_run(&op->sync_job);
	op->local_err = err;
}

static void write_synced(void *arg, enum err err)
{
	chunk_op_local_done(arg, err);
}

/* What was written is what no member has. */
static void note_damage(struct chunk_op *op)
{
	for (uint32_t block = op->first; block < op->end; block++) {
		const uint8_t *bytes = op->data.bytes + (size_t)(block - op->first) * BLOCK_BYTES;
		if (crc32c(bytes, BLOCK_BYTES) != get_le32(op->crcs.bytes + 4ul * (block - op->first)))
			chunk_found_damaged(op->chunk, block, block + 1, "fill");
		else
			chunk_repaired(op->chunk, block, block + 1);
	}
}

/* The chunk as it is after a write that went well. */
static void note_written(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	if (op->kind == OP_TRIM) {
		uint32_t keep = block_end(0, op->offset);
		if (chunk->file.blocks > keep)
			chunk->file.blocks = keep;
		chunk_repaired(chunk, keep, CHUNK_BLOCKS);
		return;
	}
	if (op->end > chunk->file.blocks)
		chunk->file.blocks = op->end;
	if (op->marks_damage) {
		note_damage(op);
		return;
	}
	uint32_t whole_first = (op->offset + BLOCK_BYTES - 1) / BLOCK_BYTES;
	chunk_repaired(chunk, whole_first, (op->offset + op->size) / BLOCK_BYTES);
}

static void write_ended(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	enum err err = op->local_err;
	chunk->writes_ended++;
	chunk->written_ms = loop_now_ms(op->service->loop);
	if (err == OK)
		note_written(op);
	else if (err == ERR_CORRUPT) /* nobody had read it before this */
		chunk_found_damaged(chunk, op->damaged, op->damaged + 1, "write");
	else if (err == ERR_NO_SPACE && op->partial)
		chunk_tear(chunk, op->first, op->kind == OP_TRIM ? op->first + 1 : op->end);
	else if (err != ERR_NO_SPACE)
		chunk_store_fail(chunk->store, "write", err);
	if (op->sync_begun)
		chunk_sync_end(&op->sync_job);
	if (err == OK && op->sync && !op->sync_begun) {
		op->applied = true;
		chunk_ops_wake(chunk, op);
		chunk_sync(chunk, write_synced, op);
		return;
	}
	chunk_op_local_done(op, err != OK && chunk_store_failed(chunk->store) ? ERR_STORE_FAILED : err);
}

static void all_ended(struct chunk_op *first, enum err err)
{
	while (first != NULL) {
		struct chunk_op *op = first;
		first = op->queue_next;
		op->queue_next = NULL;
		op->local_err = err;
		write_ended(op);
	}
}

static bool is_plain(const struct chunk_op *op)
{
	struct chunk_file_write write = file_write_of(op);
	return op->kind == OP_WRITE && chunk_file_write_is_plain(&write);
}

/* Cuts what goes in one call off the front of the queue. */
static struct chunk_op *take(struct chunk *chunk)
{
	struct chunk_op *first = chunk->writes_waiting, *last = first;
	for (unsigned count = 1; count < CHUNK_WRITE_PIECES_MAX && last->queue_next != NULL; count++) {
		const struct chunk_op *next = last->queue_next;
		if (!is_plain(last) || !is_plain(next) || next->first != last->end)
			break;
		last = last->queue_next;
	}
	chunk->writes_waiting = last->queue_next;
	last->queue_next = NULL;
	return first;
}

static void write_done(struct work *work);

static void submit(struct chunk_op *op)
{
	op->intent = intents_take(chunk_store_intents(op->chunk->store));
	begin_log(op);
	op->work.run = write_run;
	op->work.done = write_done;
	op->local_err = ERR_CANCELLED;
	chunk_store_submit(op->chunk->store, NULL, &op->work);
}

static void write_done(struct work *work)
{
	struct chunk_op *op = container_of(work, struct chunk_op, work);
	struct chunk *chunk = op->chunk;
	struct chunk_store *store = chunk->store;
	intents_release(chunk_store_intents(store), op->intent);
	chunk_use(chunk);
	if (!op->sync_begun) {
		struct chunk_op *given_up = NULL;
		chunk->write_running = false;
		if (chunk_store_closing(store)) {
			given_up = chunk->writes_waiting;
			chunk->writes_waiting = NULL;
		} else if (chunk->writes_waiting != NULL) {
			chunk->write_running = true;
			submit(take(chunk));
		}
		all_ended(given_up, ERR_CANCELLED);
	}
	all_ended(op, op->local_err);
	chunk_unuse(chunk);
	chunk_store_work_end(store);
}

void chunk_write_start(struct chunk_op *op)
{
	struct chunk *chunk = op->chunk;
	check(op->queue_next == NULL);
	if (op->sync_begun) { /* nobody waits behind a sync */
		submit(op);
		return;
	}
	if (!chunk->write_running) {
		chunk->write_running = true;
		submit(op);
		return;
	}
	struct chunk_op **end = &chunk->writes_waiting;
	while (*end != NULL)
		end = &(*end)->queue_next;
	*end = op;
}
