/* Makes a lost shard anew from others, here.
 *
 *   HEAD -> WRITE_HEAD -> READ <-> (compute) -> TRIM -> SYNC -> CHECK <-> (compute) -> end
 *
 * HEAD: of any other, with our place in it. READ: a piece of k others gives that piece of ours, which is written. CHECK: what is on our disk
 * then is read back, and computed once more, from others of the set if there are more than k, and has to be the same (a buffer that was
 * reused too early makes wrong bytes under a right checksum). It is written in a version of its own; the master counts on it when it is told. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/cold_task.h"
#include "chunkserver/shard_source.h"
#include "common/base/check.h"
#include "common/sys/log.h"

enum rebuild_state {
	REBUILD_HEAD,
	REBUILD_HEAD_READ,
	REBUILD_WRITE_HEAD,
	REBUILD_READ,
	REBUILD_TAKEN,
	REBUILD_MADE,
	REBUILD_SENT,
	REBUILD_TRIM,
	REBUILD_SYNC,
	REBUILD_CHECK,
	REBUILD_CHECK_OTHERS,
	REBUILD_CHECK_COMPUTE,
	REBUILD_CHECKED,
	REBUILD_END,
};

struct rebuild {
	struct cold_task task;
	enum rebuild_state state;
	struct shard_source source;
	struct shard_calls own; /* our shard */
	uint32_t end;		/* of the file: head and data */
	uint32_t offset, bytes;
	bool same;
};

static struct rebuild *rebuild_of(struct cold_task *task)
{
	return container_of(task, struct rebuild, task);
}

static unsigned place_of(const struct rebuild *rebuild)
{
	return rebuild->task.command->shard;
}

static void rebuild_clear(struct cold_task *task)
{
	struct rebuild *rebuild = rebuild_of(task);
	if (rebuild->source.service != NULL)
		shard_source_deinit(&rebuild->source);
	shard_calls_clear(&rebuild->own);
}

/* Without ours. */
static Granary__ChunkLocation *set_of_others(const struct rebuild *rebuild)
{
	const Granary__ColdCommand *command = rebuild->task.command;
	Granary__ChunkLocation *set = (Granary__ChunkLocation *)message_copy(&command->chunk->base);
	set->coded = (Granary__CodedLocation *)message_copy(&command->coded->base);
	set->coded->shards[place_of(rebuild)]->server = 0;
	return set;
}

/* If what was computed twice is not the same, or heads are of different sets, one of the others is wrong: it is looked for, or it would be so
 * every time. */
static void end(struct rebuild *rebuild, enum err err)
{
	struct service *service = rebuild->task.service;
	Granary__ChunkLocation *set = err == ERR_CORRUPT ? set_of_others(rebuild) : NULL;
#ifdef PLANT_WRONG_SOURCE_NOT_SOUGHT
	message_free(set == NULL ? NULL : &set->base);
	set = NULL;
#endif
	cold_task_end(&rebuild->task, err, NULL);
	if (set != NULL && cold_verify(service, set, NULL, NULL) == NULL)
		log_warn("set_not_verified", "chunk=%016" PRIx64 " error=%s", set->chunk, err_name(ERR_BUSY));
	message_free(set == NULL ? NULL : &set->base);
}

static void on_source(void *arg)
{
	struct rebuild *rebuild = arg;
	if (rebuild->source.err == OK)
		rebuild->task.step(&rebuild->task);
	else
		end(rebuild, rebuild->source.err);
}

static void on_own(void *arg)
{
	struct rebuild *rebuild = arg;
	enum err err = shard_calls_err(&rebuild->own);
	if (err == OK)
		rebuild->task.step(&rebuild->task);
	else
		end(rebuild, err);
}

static void call_own(struct rebuild *rebuild, enum shard_call_kind kind, uint32_t offset, uint32_t bytes)
{
	rebuild->own.kind = kind;
	rebuild->own.places = 1ull << place_of(rebuild);
	rebuild->own.offset = offset;
	rebuild->own.bytes = bytes;
	rebuild->own.from_disk = true;
	shard_calls_start(&rebuild->own);
}

static struct iobuf *own_buffer(struct rebuild *rebuild, uint32_t bytes)
{
	struct iobuf **data = &rebuild->own.data[place_of(rebuild)];
	iobuf_unref(*data);
	*data = iobuf_open(bytes);
	(*data)->size = bytes;
	return *data;
}

static void begin(struct rebuild *rebuild)
{
	const Granary__CodedLocation *coded = rebuild->task.command->coded;
	shard_source_init(&rebuild->source, rebuild->task.service, coded, on_source, rebuild);
	rebuild->source.bad |= 1ull << place_of(rebuild);
	shard_calls_init(&rebuild->own, rebuild->task.service, coded);
	rebuild->own.done = on_own;
	rebuild->own.arg = rebuild;
	rebuild->state = REBUILD_HEAD_READ;
	shard_source_read_head(&rebuild->source);
}

static void next_piece(struct rebuild *rebuild, uint32_t end)
{
	uint32_t left = end - rebuild->offset;
	rebuild->bytes = left < FRAME_DATA_BYTES_MAX ? left : FRAME_DATA_BYTES_MAX;
}

static void write_head(struct rebuild *rebuild)
{
	const struct shard_source *source = &rebuild->source;
	next_piece(rebuild, source->head_bytes);
	struct iobuf *data = own_buffer(rebuild, rebuild->bytes);
	memcpy(data->bytes, source->head + rebuild->offset, rebuild->bytes);
	call_own(rebuild, SHARD_WRITE, rebuild->offset, rebuild->bytes);
	rebuild->offset += rebuild->bytes;
	rebuild->state = rebuild->offset < source->head_bytes ? REBUILD_WRITE_HEAD : REBUILD_READ;
}

/* The index has been read. */
static void take_head(struct rebuild *rebuild)
{
	struct shard_source *source = &rebuild->source;
	struct coded_index index = { 0 };
	enum err err = coded_index_parse(slice_of(source->head, source->head_bytes), &index);
	const Granary__ColdCommand *command = rebuild->task.command;
	if (err == OK && (index.chunk != command->chunk->chunk || index.data_shards != command->coded->data_shards ||
			  index.parity_shards != command->coded->parity_shards || index.shard_bytes != command->coded->shard_bytes))
		err = ERR_CORRUPT;
	rebuild->end = source->head_bytes + (index.shard_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	coded_index_deinit(&index);
	if (err != OK) {
		end(rebuild, err);
		return;
	}
	coded_head_set_place(source->head, place_of(rebuild));
	write_head(rebuild);
}

static void read_others(struct rebuild *rebuild, enum rebuild_state next)
{
	next_piece(rebuild, rebuild->end);
	rebuild->state = next;
	shard_source_read(&rebuild->source, place_of(rebuild), rebuild->offset, rebuild->bytes);
}

static void take_piece(struct cold_task *task)
{
	struct rebuild *rebuild = rebuild_of(task);
	shard_source_take(&rebuild->source, rebuild->own.data[place_of(rebuild)]->bytes);
}

static void compare_piece(struct cold_task *task)
{
	struct rebuild *rebuild = rebuild_of(task);
	uint8_t *again = mem_alloc(rebuild->bytes);
	shard_source_take(&rebuild->source, again);
	rebuild->same = memcmp(again, rebuild->own.data[place_of(rebuild)]->bytes, rebuild->bytes) == 0;
	free(again);
}

static void piece_ended(struct rebuild *rebuild, enum rebuild_state again, enum rebuild_state next)
{
	rebuild->offset += rebuild->bytes;
	rebuild->state = rebuild->offset < rebuild->end ? again : next;
	if (rebuild->state == next)
		rebuild->offset = rebuild->source.head_bytes;
	cold_task_spend(&rebuild->task, rebuild->bytes);
}

static void step_check(struct rebuild *rebuild)
{
	switch (rebuild->state) {
	case REBUILD_TRIM:
		rebuild->state = REBUILD_SYNC;
		call_own(rebuild, SHARD_TRIM, rebuild->end, 0);
		break;
	case REBUILD_SYNC:
		rebuild->state = REBUILD_CHECK;
		rebuild->source.other_end = true;
		call_own(rebuild, SHARD_SYNC, 0, 0);
		break;
	case REBUILD_CHECK:
		next_piece(rebuild, rebuild->end);
		rebuild->state = REBUILD_CHECK_OTHERS;
		call_own(rebuild, SHARD_READ, rebuild->offset, rebuild->bytes);
		break;
	case REBUILD_CHECK_OTHERS:
		read_others(rebuild, REBUILD_CHECK_COMPUTE);
		break;
	case REBUILD_CHECK_COMPUTE:
		rebuild->state = REBUILD_CHECKED;
		cold_task_compute(&rebuild->task, compare_piece);
		break;
	case REBUILD_CHECKED:
		if (rebuild->same)
			piece_ended(rebuild, REBUILD_CHECK, REBUILD_END);
		else
			end(rebuild, ERR_CORRUPT);
		break;
	default:
		cold_task_end(&rebuild->task, OK, NULL);
		break;
	}
}

static void rebuild_step(struct cold_task *task)
{
	struct rebuild *rebuild = rebuild_of(task);
	switch (rebuild->state) {
	case REBUILD_HEAD:
		begin(rebuild);
		break;
	case REBUILD_HEAD_READ:
		take_head(rebuild);
		break;
	case REBUILD_WRITE_HEAD:
		write_head(rebuild);
		break;
	case REBUILD_READ:
		read_others(rebuild, REBUILD_TAKEN);
		break;
	case REBUILD_TAKEN:
		own_buffer(rebuild, rebuild->bytes);
		rebuild->state = REBUILD_MADE;
		cold_task_compute(task, take_piece);
		break;
	case REBUILD_MADE:
		rebuild->state = REBUILD_SENT;
		call_own(rebuild, SHARD_WRITE, rebuild->offset, rebuild->bytes);
		break;
	case REBUILD_SENT:
		piece_ended(rebuild, REBUILD_READ, REBUILD_TRIM);
		break;
	default:
		step_check(rebuild);
		break;
	}
}

struct cold_task *rebuild_open(void)
{
	struct rebuild *rebuild = mem_zero(1, sizeof(*rebuild));
	rebuild->task.step = rebuild_step;
	rebuild->task.clear = rebuild_clear;
	return &rebuild->task;
}
