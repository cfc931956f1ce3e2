/* Makes the shards of a frozen chunk, at its head.
 *
 *   CONFIGURE -> READ <-> (add) -> (compress) -> HEAD -> DATA <-> (encode) -> TRIM -> SYNC -> CHECK_HEAD -> CHECK <-> (decode) -> UNITS -> end
 *
 * CONFIGURE: the frozen version is known here, and adopted. So nothing that is written at an older one is acknowledged any more. READ: the
 * chunk, as any reader gets it from its head: what is unsettled is settled before it is read, and is then the same for all. HEAD, DATA, SYNC:
 * the shards are on their disks. From here on all is proved from what comes back from these disks, and from the checksums that came with the chunk:
 * CHECK: every shard is read; the data is kept, and as much of it as there is parity is computed from the rest and all the parity, and has to be
 * the same. UNITS: the data is unpacked, and is what was read, by the checksums of its writer. Only the index of the proof is the one that was read back. */
#include <stdlib.h>
#include <string.h>

#include "chunkserver/cool_internal.h"
#include "common/base/bytes.h"
#include "common/base/crc32c.h"

#ifdef PLANT_COOLED_FROM_THE_TAIL
#define SOURCE_OF(location) ((location)->n_replicas - 1)
#else
#define SOURCE_OF(location) 0 /* the head settles what it gives */
#endif

static void sources_clear(struct cool *cool)
{
	for (unsigned i = 0; i < cool->source_count; i++) {
		if (cool->sources[i].call != 0)
			rpc_call_cancel(cool->task.service->rpc, cool->sources[i].call);
		iobuf_unref(cool->sources[i].data);
	}
	cool->source_count = cool->reading = 0;
}

static void cool_clear(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	sources_clear(cool);
	shard_calls_clear(&cool->calls);
	coded_image_close(cool->image);
	message_free(cool->coding == NULL ? NULL : &cool->coding->base);
	iobuf_unref(cool->slots);
	free(cool->crcs);
	free(cool->seen);
	free(cool->head);
	free(cool->proof);
}

static void cool_fail(struct cool *cool, enum err err)
{
	cold_task_end(&cool->task, err, NULL);
}

static void cool_retry(struct cool *cool, enum err err)
{
	if (!cold_task_retry(&cool->task))
		cool_fail(cool, err);
}

/* ---------------------------------------------------------------- the chunk */

static void configure(struct cool *cool)
{
	struct service *service = cool->task.service;
	const Granary__ChunkLocation *location = command_of(cool)->chunk;
	enum err err = service_configure(service, location);
	const struct chunk *chunk = chunk_store_find(service->store, location->chunk);
	if (err == ERR_BUSY || (err == OK && (chunk == NULL || chunk->state == CHUNK_OPENING || chunk->adopting || chunk->uncertain))) {
		cool_retry(cool, ERR_BUSY);
		return;
	}
	if (err == OK && (chunk->version != location->version || chunk->copy != COPY_COMPLETE ||
			  service_position(service, location->replicas, location->n_replicas) != 0))
		err = ERR_STALE_VERSION;
	if (err != OK) {
		cool_fail(cool, err);
		return;
	}
	cool->pack = chunk->kind == KIND_PACK;
	cool->loss_untold = chunk->loss_untold;
	cool->blocks = cool->pack ? 0 : chunk->file.blocks;
	struct coded_options options = { .data_shards = command_of(cool)->coded->data_shards,
					 .parity_shards = command_of(cool)->coded->parity_shards,
					 .compression = (enum compression)command_of(cool)->coded->compression,
					 .chunk = location->chunk,
					 .pack = cool->pack,
					 .raw_bytes = (uint64_t)cool->blocks * BLOCK_BYTES };
	cool->image = coded_image_open(&options);
	cool->crcs = mem_zero(cool->blocks + 1, sizeof(*cool->crcs));
	cool->state = cool->pack ? COOL_SLOTS : COOL_READ;
	cold_task_go_on(&cool->task, 0);
}

/* Those of a window have come. */
static void sources_ended(struct cool *cool)
{
	enum err err = OK;
	for (unsigned i = 0; i < cool->source_count; i++)
		err = err != OK ? err : cool->sources[i].err;
	if (err == OK) {
		cool->state = COOL_READ_ENDED;
		cool->task.step(&cool->task);
		return;
	}
	sources_clear(cool);
	cool_retry(cool, err); /* it may be settled, or mended */
}

static enum err take_piece(struct source *source, const struct rpc_result *result)
{
	const Granary__ChunkReadReply *reply = (const Granary__ChunkReadReply *)result->reply;
	uint32_t size = result->data == NULL ? 0 : result->data->size;
	if (size % BLOCK_BYTES != 0 || (size > 0 && !shard_crcs_agree(result->data->bytes, size, reply->crcs)))
		return ERR_CORRUPT;
	for (uint32_t i = 0; i < PIECE_BLOCKS; i++)
		source->crcs[i] = i < size / BLOCK_BYTES ? get_le32(reply->crcs.data + 4u * i) : crc32c_zero_block();
	source->data = result->data == NULL ? NULL : iobuf_ref(result->data);
	return OK;
}

static enum err take_record(struct source *source, const struct rpc_result *result)
{
	const Granary__BlobReadReply *reply = (const Granary__BlobReadReply *)result->reply;
	const struct iobuf *data = result->data;
	source->crcs[0] = reply->crc;
	if (reply->flags != 0 || (data != NULL && data->size > BLOB_BYTES_MAX))
		return ERR_NOT_SUPPORTED;
	if (crc32c(data == NULL ? NULL : data->bytes, data == NULL ? 0 : data->size) != reply->crc)
		return ERR_CORRUPT;
	source->data = data == NULL ? NULL : iobuf_ref(result->data);
	return OK;
}

static void source_answered(void *arg, const struct rpc_result *result)
{
	struct source *source = arg;
	struct cool *cool = source->cool;
	source->call = 0;
	source->err = result->err;
	if (cool->pack && source->err == ERR_NOT_FOUND) { /* deleted since */
		source->number = 0;
		source->err = OK;
	} else if (source->err == OK) {
		source->err = cool->pack ? take_record(source, result) : take_piece(source, result);
	}
	if (--cool->reading == 0)
		sources_ended(cool);
}

static bool source_begin(struct cool *cool, uint32_t number)
{
	struct service *service = cool->task.service;
	const Granary__ChunkLocation *location = command_of(cool)->chunk;
	struct rpc_peer *peer = shard_peer(service, location->replicas[SOURCE_OF(location)]->address);
	struct source *source = &cool->sources[cool->source_count];
	Granary__ChunkRead piece = GRANARY__CHUNK_READ__INIT;
	Granary__BlobRead record = GRANARY__BLOB_READ__INIT;
	if (peer == NULL)
		return false;
	memset(source, 0, sizeof(*source));
	source->cool = cool;
	source->number = number;
	cool->source_count++;
	cool->reading++;
	if (cool->pack) {
		record.pack = location->chunk;
		record.version = location->version;
		record.slot = number;
		source->call = rpc_peer_call(peer, MESSAGE_BLOB_READ, &record.base, NULL, RPC_TIMEOUT_MS, source_answered, source);
		return true;
	}
	piece.chunk = location->chunk;
	piece.version = location->version;
	piece.offset = number * PIECE_BYTES;
	piece.bytes = PIECE_BYTES;
	source->call = rpc_peer_call(peer, MESSAGE_CHUNK_READ, &piece.base, NULL, RPC_TIMEOUT_MS, source_answered, source);
	return true;
}

static bool slot_is_there(const struct cool *cool, uint32_t slot)
{
	return (cool->slots->bytes[(slot - 1) / 8] >> (slot - 1) % 8 & 1) != 0;
}

/* Files have been, as they came; the records of a pack are from here on, a part of them at a time: others want the workers, too. */
static void compress_image(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	cool->compressed = !cool->pack || coded_image_compress(cool->image);
	if (cool->compressed)
		coded_image_finish(cool->image);
}

/* The next window; `cursor` goes on when it has been added. */
static void read_next(struct cool *cool)
{
	uint32_t end = cool->pack ? cool->slot_count : (cool->blocks + PIECE_BLOCKS - 1) / PIECE_BLOCKS;
	bool sent = true;
	uint32_t next = cool->cursor;
	check(cool->source_count == 0);
	while (next < end && sent && cool->source_count < (cool->pack ? RECORDS_MAX : READS_MAX)) {
		if (!cool->pack)
			sent = source_begin(cool, next++);
		else if (slot_is_there(cool, ++next))
			sent = source_begin(cool, next);
	}
	cool->cursor_next = next;
	if (cool->reading > 0)
		return;
	if (!sent) {
		cool_fail(cool, ERR_TOO_MANY);
		return;
	}
	cool->state = COOL_COMPRESSED;
	cold_task_compute(&cool->task, compress_image);
}

static void slots_answered(void *arg, const struct rpc_result *result)
{
	struct cool *cool = arg;
	const Granary__PackSlotsReply *reply = (const Granary__PackSlotsReply *)result->reply;
	cool->sources[0].call = 0;
	cool->source_count = 0;
	if (result->err != OK) {
		cool_retry(cool, result->err);
		return;
	}
	if (reply->uncertain || reply->blank) {
		cool_retry(cool, ERR_UNCERTAIN);
		return;
	}
	uint32_t bytes = (reply->slots + 7) / 8;
	if (reply->slots > PACK_SLOTS_MAX || (bytes > 0 && (result->data == NULL || result->data->size < bytes))) {
		cool_fail(cool, ERR_PROTOCOL);
		return;
	}
	cool->slot_count = reply->slots;
	cool->slots = bytes == 0 ? iobuf_open(1) : iobuf_ref(result->data);
	cool->state = COOL_READ;
	cold_task_go_on(&cool->task, 0);
}

static void ask_slots(struct cool *cool)
{
	const Granary__ChunkLocation *location = command_of(cool)->chunk;
	struct rpc_peer *peer = shard_peer(cool->task.service, location->replicas[0]->address);
	Granary__PackSlots message = GRANARY__PACK_SLOTS__INIT;
	message.pack = location->chunk;
	message.version = location->version;
	if (peer == NULL) {
		cool_fail(cool, ERR_TOO_MANY);
		return;
	}
	cool->source_count = 1;
	cool->sources[0].data = NULL;
	cool->sources[0].call = rpc_peer_call(peer, MESSAGE_PACK_SLOTS, &message.base, NULL, RPC_TIMEOUT_MS, slots_answered, cool);
}

/* ---------------------------------------------------------------- the image */

static void add_piece(struct cool *cool, const struct source *source)
{
	uint32_t unit = coded_image_unit_bytes(cool->image), size = source->data == NULL ? 0 : source->data->size;
	uint64_t raw_bytes = (uint64_t)cool->blocks * BLOCK_BYTES;
	uint8_t *padded = NULL;
	for (uint32_t at = 0; at < PIECE_BYTES; at += unit) {
		uint64_t offset = (uint64_t)source->number * PIECE_BYTES + at;
		if (offset >= raw_bytes)
			break;
		uint32_t wanted = raw_bytes - offset < unit ? (uint32_t)(raw_bytes - offset) : unit;
		const uint32_t *crcs = source->crcs + at / BLOCK_BYTES;
		memcpy(cool->crcs + offset / BLOCK_BYTES, crcs, wanted / BLOCK_BYTES * sizeof(*crcs));
		if (cool_all_zeros(crcs, wanted / BLOCK_BYTES))
			continue;
		const uint8_t *bytes = size < at + wanted ? NULL : source->data->bytes + at;
		if (bytes == NULL) { /* the chunk has become shorter */
			padded = mem_zero(unit, 1);
			memcpy(padded, source->data->bytes + at, size - at);
			bytes = padded;
		}
		coded_image_add(cool->image, (uint32_t)(offset / unit), bytes, crcs);
	}
	free(padded);
}

static void add_record(struct cool *cool, const struct source *source)
{
	struct slice bytes = source->data == NULL ? slice_of(NULL, 0) : slice_of(source->data->bytes, source->data->size);
	if (source->number == 0)
		return;
	if (cool->seen_count == cool->seen_capacity) {
		cool->seen_capacity = cool->seen_capacity * 2 + 256;
		cool->seen = mem_resize(cool->seen, cool->seen_capacity * sizeof(*cool->seen));
	}
	cool->seen[cool->seen_count++] =
		(struct seen){ .slot = source->number, .length = (uint32_t)bytes.size, .crc = source->crcs[0] };
	coded_image_add_record(cool->image, source->number, bytes, source->crcs[0]);
}

static void add_sources(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	for (unsigned i = 0; i < cool->source_count; i++) {
		if (cool->pack)
			add_record(cool, &cool->sources[i]);
		else
			add_piece(cool, &cool->sources[i]);
	}
}

/* They are in the image. */
static void sources_added(struct cool *cool)
{
	uint64_t bytes = 0;
	for (unsigned i = 0; i < cool->source_count; i++)
		bytes += cool->sources[i].data == NULL ? 0 : cool->sources[i].data->size;
	sources_clear(cool);
	cool->cursor = cool->cursor_next;
	cool->state = COOL_READ;
	cold_task_spend(&cool->task, bytes);
}

/* ---------------------------------------------------------------- writing it */

static uint32_t whole_blocks(uint32_t bytes)
{
	return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static uint32_t shard_count(const struct cool *cool)
{
	return command_of(cool)->coded->data_shards + command_of(cool)->coded->parity_shards;
}

static void describe(struct cool *cool)
{
	const struct coded_index *index = coded_image_index(cool->image);
	const Granary__CodedLocation *coded = command_of(cool)->coded;
	Granary__Coding *coding = mem_alloc(sizeof(*coding));
	granary__coding__init(coding);
	coding->data_shards = coded->data_shards;
	coding->parity_shards = coded->parity_shards;
	coding->n_shards = coded->n_shards;
	coding->shards = mem_alloc(coded->n_shards * sizeof(*coding->shards));
	for (size_t i = 0; i < coded->n_shards; i++)
		coding->shards[i] = coded->shards[i]->shard;
	coding->compression = (uint32_t)index->compression;
	coding->unit_bytes = index->unit_bytes;
	coding->n_firsts = coded->data_shards;
	coding->firsts = mem_alloc(coding->n_firsts * sizeof(*coding->firsts));
	for (size_t i = 0; i < coding->n_firsts; i++)
		coding->firsts[i] = index->firsts[i] < index->count ? index->units[index->firsts[i]].id : UINT32_MAX;
	coding->raw_bytes = index->raw_bytes;
	coding->stored_bytes = index->dictionary_bytes.size * coded->data_shards;
	for (size_t i = 0; i < index->count; i++)
		coding->stored_bytes += index->units[i].size;
	coding->shard_bytes = index->shard_bytes;
	coding->loss_untold = cool->loss_untold;
	cool->coding = coding;
	cool->head_bytes = index->head_bytes;
	cool->shard_bytes = index->shard_bytes;
}

/* The buffers of a piece, whole blocks with zeros at the end. */
static void buffers_open(struct cool *cool)
{
	uint32_t size = whole_blocks(cool->bytes);
	for (unsigned place = 0; place < shard_count(cool); place++) {
		iobuf_unref(cool->calls.data[place]);
		cool->calls.data[place] = iobuf_open(size);
		cool->calls.data[place]->size = size;
		memset(cool->calls.data[place]->bytes + cool->bytes, 0, size - cool->bytes);
	}
}

static void encode_head(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	uint8_t *head = mem_alloc(cool->head_bytes);
	for (unsigned place = 0; place < shard_count(cool); place++) {
		coded_image_write_head(cool->image, place, head);
		memcpy(cool->calls.data[place]->bytes, head + cool->offset, cool->bytes);
		shard_crcs(cool->calls.data[place]->bytes, cool->calls.data[place]->size, cool->piece_crcs[place]);
	}
	free(head);
}

/* The last block is written with the zeros behind it. */
static void extend_last_crc(struct cool *cool, unsigned place)
{
	const struct iobuf *data = cool->calls.data[place];
	uint8_t *crc = cool->piece_crcs[place] + (cool->bytes - 1) / BLOCK_BYTES * 4u;
	put_le32(crc, crc32c_extend(get_le32(crc), data->bytes + cool->bytes, data->size - cool->bytes));
}

static void encode_data(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	unsigned data_shards = command_of(cool)->coded->data_shards;
	const uint8_t *data[DATA_SHARDS_MAX];
	uint8_t *parity[PARITY_SHARDS_MAX], *crcs[SHARDS_MAX];
	for (unsigned place = data_shards; place < shard_count(cool); place++)
		parity[place - data_shards] = cool->calls.data[place]->bytes;
	for (unsigned place = 0; place < shard_count(cool); place++)
		crcs[place] = cool->piece_crcs[place];
	coded_image_piece(cool->image, cool->offset, cool->bytes, data, parity, crcs);
	for (unsigned place = 0; place < data_shards; place++)
		memcpy(cool->calls.data[place]->bytes, data[place], cool->bytes);
	for (unsigned place = 0; place < shard_count(cool); place++)
		extend_last_crc(cool, place);
}

/* The next piece of head or data is made, and then (`next`) written. */
static void encode_next(struct cool *cool, uint32_t end, void (*compute)(struct cold_task *task), enum cool_state next)
{
	cool->bytes = end - cool->offset < PIECE_BYTES ? end - cool->offset : PIECE_BYTES;
	buffers_open(cool);
	cool->state = next;
	cold_task_compute(&cool->task, compute);
}

static void call_all(struct cool *cool, enum shard_call_kind kind, uint32_t offset, uint32_t bytes)
{
	cool->calls.kind = kind;
	cool->calls.offset = offset;
	cool->calls.bytes = bytes;
	cool->calls.from_disk = true;
	cool->calls.places = (1ull << shard_count(cool)) - 1;
	shard_calls_start(&cool->calls);
}

static void on_called(void *arg)
{
	struct cool *cool = arg;
	enum err err = shard_calls_err(&cool->calls);
	if (err == OK)
		cool->task.step(&cool->task);
	else
		cool_fail(cool, err);
}

/* ---------------------------------------------------------------- one after another */

/* The piece at `offset` of what ends at `end` is done with: the next one (`again`), or what follows. */
static void piece_ended(struct cool *cool, uint32_t end, enum cool_state again, enum cool_state next)
{
	if (cool->err != OK) {
		cool_fail(cool, cool->err);
		return;
	}
	cool->offset += cool->bytes;
	cool->state = cool->offset < end ? again : next;
	if (cool->offset == end)
		cool->offset = 0;
	if (again == COOL_CHECK) /* as much is read again, and more */
		cold_task_spend(&cool->task, (uint64_t)cool->bytes * command_of(cool)->coded->data_shards);
	else
		cold_task_go_on(&cool->task, 0);
}

static void read_back(struct cool *cool, uint32_t base, uint32_t end, enum cool_state next)
{
	cool->bytes = end - cool->offset < PIECE_BYTES ? end - cool->offset : PIECE_BYTES;
	cool->state = next;
	call_all(cool, SHARD_READ, base + cool->offset, whole_blocks(cool->bytes));
}

static void begin_writing(struct cool *cool)
{
	if (cool->coding != NULL)
		return;
	describe(cool);
	shard_calls_init(&cool->calls, cool->task.service, command_of(cool)->coded);
	cool->calls.done = on_called;
	cool->calls.arg = cool;
	for (unsigned place = 0; place < shard_count(cool); place++)
		cool->calls.crcs[place] = cool->piece_crcs[place];
}

static void begin_data_check(struct cool *cool)
{
	if (cool->proof != NULL)
		return;
	coded_image_close(cool->image); /* what is proved is not what is in memory */
	cool->image = NULL;
	cool->proof = mem_alloc((size_t)command_of(cool)->coded->data_shards * cool->shard_bytes);
}

/* A calculation and what follows it. */
static void compute(struct cool *cool, void (*fn)(struct cold_task *task), enum cool_state next)
{
	cool->state = next;
	cold_task_compute(&cool->task, fn);
}

static void step_read(struct cool *cool)
{
	switch (cool->state) {
	case COOL_CONFIGURE:
		configure(cool);
		break;
	case COOL_SLOTS:
		ask_slots(cool);
		break;
	case COOL_READ:
		read_next(cool);
		break;
	case COOL_READ_ENDED:
		compute(cool, add_sources, COOL_ADDED);
		break;
	case COOL_ADDED:
		sources_added(cool);
		break;
	default:
		if (cool->compressed) {
			cool->state = COOL_HEAD;
			cool->task.step(&cool->task);
		} else {
			compute(cool, compress_image, COOL_COMPRESSED);
		}
		break;
	}
}

/* A writer has it back: what was to be its shards may be deleted by now, and is not made again. */
static bool is_given_up(const struct cool *cool)
{
	const struct chunk *chunk = chunk_store_find(cool->task.service->store, command_of(cool)->chunk->chunk);
	return chunk != NULL && chunk->version != command_of(cool)->chunk->version;
}

static void step_write(struct cool *cool)
{
	if (is_given_up(cool)) {
		cool_fail(cool, ERR_STALE_VERSION);
		return;
	}
	switch (cool->state) {
	case COOL_HEAD:
		begin_writing(cool);
		encode_next(cool, cool->head_bytes, encode_head, COOL_HEAD_MADE);
		break;
	case COOL_HEAD_MADE:
		cool->state = COOL_HEAD_SENT;
		call_all(cool, SHARD_WRITE, cool->offset, whole_blocks(cool->bytes));
		break;
	case COOL_HEAD_SENT:
		piece_ended(cool, cool->head_bytes, COOL_HEAD, COOL_DATA);
		break;
	case COOL_DATA:
		encode_next(cool, cool->shard_bytes, encode_data, COOL_DATA_MADE);
		break;
	case COOL_DATA_MADE:
		cool->state = COOL_DATA_SENT;
		call_all(cool, SHARD_WRITE, cool->head_bytes + cool->offset, whole_blocks(cool->bytes));
		break;
	case COOL_DATA_SENT:
		piece_ended(cool, cool->shard_bytes, COOL_DATA, COOL_TRIM);
		break;
	case COOL_TRIM: /* an attempt before may have left more */
		cool->state = COOL_SYNC;
		call_all(cool, SHARD_TRIM, cool->head_bytes + whole_blocks(cool->shard_bytes), 0);
		break;
	default:
		cool->state = COOL_CHECK_HEAD;
#ifdef PLANT_SHARDS_NOT_SYNCED
		cold_task_go_on(&cool->task, 0);
		break;
#endif
		call_all(cool, SHARD_SYNC, 0, 0);
		break;
	}
}

static void step_check(struct cool *cool)
{
	Granary__Coding *coding = cool->coding;
	switch (cool->state) {
	case COOL_CHECK_HEAD:
		if (cool->head == NULL)
			cool->head = mem_alloc(cool->head_bytes);
		read_back(cool, 0, cool->head_bytes, COOL_HEAD_READ);
		break;
	case COOL_HEAD_READ:
		compute(cool, cool_compare_heads, COOL_HEAD_COMPARED);
		break;
	case COOL_HEAD_COMPARED:
		piece_ended(cool, cool->head_bytes, COOL_CHECK_HEAD, COOL_CHECK);
		break;
	case COOL_CHECK:
		begin_data_check(cool);
		read_back(cool, cool->head_bytes, cool->shard_bytes, COOL_PIECE_READ);
		break;
	case COOL_PIECE_READ:
		compute(cool, cool_decode_piece, COOL_PIECE_DECODED);
		break;
	case COOL_PIECE_DECODED:
		piece_ended(cool, cool->shard_bytes, COOL_CHECK, COOL_UNITS);
		break;
	case COOL_UNITS:
		compute(cool, cool_prove, COOL_PROVED);
		break;
	default:
		cool->coding = NULL;
		cold_task_end(&cool->task, cool->err, coding);
		break;
	}
}

static void cool_step(struct cold_task *task)
{
	struct cool *cool = cool_of(task);
	if (cool->state <= COOL_COMPRESSED)
		step_read(cool);
	else if (cool->state <= COOL_SYNC)
		step_write(cool);
	else
		step_check(cool);
}

struct cold_task *cool_open(void)
{
	struct cool *cool = mem_zero(1, sizeof(*cool));
	cool->task.step = cool_step;
	cool->task.clear = cool_clear;
	return &cool->task;
}
