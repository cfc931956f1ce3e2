#include <stdlib.h>
#include <string.h>

#include "chunkserver/chain.h"
#include "chunkserver/fill_internal.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

/* One record on its way. */
struct record {
	struct work work;
	struct fill *fill;
	uint32_t slot;
	struct pack_slot at;
	struct pack view; /* as it was when the read started: a compaction may come between */
	struct pack_record header;
	struct iobuf *buffer;
	rpc_call_id call;
	bool lost; /* no member has it */
	enum err err;
};

static void record_end(struct record *record, enum err err)
{
	struct fill *fill = record->fill;
	/* From there on again. */
	if (err != OK && record->slot - 1 < fill->cursor)
		fill->cursor = record->slot - 1;
	else if (err == OK && record->buffer != NULL && !fill->ending) {
		fill->taken[record->slot / 8] |= (uint8_t)(1u << record->slot % 8);
		fill->waits = 0;
	}
	file_unref(record->view.file);
	iobuf_unref(record->buffer);
	free(record);
	fill_part_ended(fill, err);
}

static void on_appended(void *arg, const struct rpc_result *result)
{
	record_end(arg, result->err);
}

static void record_send(struct record *record)
{
	struct fill *fill = record->fill;
	struct service *service = fill->service;
	struct chunk *chunk = fill->chunk;
	const Granary__Replica *newcomer = fill_newcomer(fill);
	struct rpc_peer *peer = newcomer == NULL || service->stopping ?
					NULL :
					chain_peer(service, newcomer->address, chain_lane(service, chunk));
	Granary__BlobAppend message = GRANARY__BLOB_APPEND__INIT;
	if (peer == NULL || !service_has_lease(service)) {
		record_end(record, ERR_CANCELLED);
		return;
	}
	message.pack = chunk->id;
	message.version = chunk->version;
	message.replicas = chunk->chain->replicas;
	message.n_replicas = chunk->chain->n_replicas;
	message.client = service->server;
	message.operation = service->next_operation++;
	message.slot = record->slot;
	message.deleted = record->buffer == NULL;
	message.damaged = record->lost;
	message.crc = record->buffer == NULL ? crc32c(NULL, 0) : record->header.crc;
	message.sequence = ++chunk->sequence;
	message.life = service->life;
	struct conn_data data = { .iobuf = record->buffer, .offset = PACK_RECORD_BYTES, .size = record->header.length };
	fill_spent(fill, PACK_RECORD_BYTES + record->header.length);
	record->call = rpc_peer_call(peer, MESSAGE_BLOB_APPEND, &message.base, record->header.length == 0 ? NULL : &data,
				     CHAIN_TIMEOUT_MS, on_appended, record);
}

/* As it is, under a CRC that it does not fit: the one that it had, if the header can be read. */
static void take_lost(struct record *record)
{
	uint8_t *data = record->buffer->bytes + PACK_RECORD_BYTES;
	if (record->err != OK) {
		memset(record->buffer->bytes, 0, record->buffer->size);
		record->header = (struct pack_record){ .slot = record->slot, .length = record->at.length,
						       .crc = ~crc32c(data, record->at.length) };
	}
	record->err = OK;
}

static void record_run(struct work *work)
{
	struct record *record = container_of(work, struct record, work);
	const uint8_t *bytes = record->buffer->bytes;
	record->err = pack_read(&record->view, record->slot, record->at, record->buffer->bytes, false, &record->header);
	if (record->lost && (record->err == OK || record->err == ERR_CORRUPT || record->err == ERR_IO)) {
		take_lost(record);
		return;
	}
	if (record->err == OK && crc32c(bytes + PACK_RECORD_BYTES, record->header.length) != record->header.crc)
		record->err = ERR_CORRUPT;
}

static void record_done(struct work *work)
{
	struct record *record = container_of(work, struct record, work);
	struct fill *fill = record->fill;
	struct chunk_store *store = fill->chunk->store;
	if (record->err == OK) {
		record_send(record);
	} else {
		if (record->err == ERR_CORRUPT)
			pack_found_damaged(fill->chunk, record->slot, "fill");
		record_end(record, record->err == ERR_CORRUPT ? ERR_BUSY : record->err); /* it is mended */
	}
	chunk_store_work_end(store);
}

static void record_begin(struct fill *fill, uint32_t slot, const struct pack_slot *at)
{
	struct record *record = mem_zero(1, sizeof(*record));
	record->fill = fill;
	record->slot = slot;
	fill->in_flight++;
	if (at == NULL) {
		record_send(record);
		return;
	}
	record->at = *at;
	record->view = fill->chunk->pack;
	file_ref(record->view.file);
	record->buffer = iobuf_open(PACK_RECORD_BYTES + at->length);
	record->buffer->size = PACK_RECORD_BYTES + at->length;
	record->work.run = record_run;
	record->work.done = record_done;
	record->lost = pack_is_damaged(fill->chunk, slot);
	record->err = ERR_CANCELLED;
	fill->sent[slot / 8] |= (uint8_t)(1u << slot % 8);
	chunk_store_submit(fill->chunk->store, NULL, &record->work);
}

void fill_pack_start(struct fill *fill)
{
	free(fill->sent);
	free(fill->taken);
	fill->sent = mem_zero(fill->slot_count / 8 + 1, 1);
	fill->taken = mem_zero(fill->slot_count / 8 + 1, 1);
	fill->waiting = false;
	fill->deleting = false;
}

/* Is there something to be said of the slot? */
static bool record_next(struct fill *fill, uint32_t slot)
{
	struct pack_slot at;
	bool here = pack_find(&fill->chunk->pack, slot, &at);
	if (!fill->deleting) {
		bool wanted = here && (fill->taken[slot / 8] >> slot % 8 & 1) == 0;
		if (wanted && !fill->chunk->damage_is_lost && pack_is_damaged(fill->chunk, slot)) {
			fill->waiting = true; /* it is being mended */
			return false;
		}
		if (wanted)
			record_begin(fill, slot, &at);
		return wanted;
	}
	/* Deleted since it was sent; and the last one, so that no slot is ever given out again. */
	bool was_sent = (fill->sent[slot / 8] >> slot % 8 & 1) != 0;
	if (here || !(was_sent || slot == fill->slot_count))
		return false;
	record_begin(fill, slot, NULL);
	return true;
}

void fill_pack_pump(struct fill *fill)
{
	while (fill->in_flight < FILL_RECORDS_MAX && fill->state == FILL_COPYING && fill_newcomer(fill) != NULL) {
		uint64_t wait_ms = fill_budget_wait(fill->service);
		if (wait_ms > 0) {
			fill_continue(fill, wait_ms);
			return;
		}
		uint32_t slot = fill->cursor;
		bool begun = false;
		while (!begun && slot < fill->slot_count) {
			fill->cursor = ++slot;
			begun = record_next(fill, slot);
		}
		if (fill->in_flight > 0 && begun)
			continue;
		if (fill->in_flight > 0 || begun) /* those under way, or it could not be sent: later */
			return;
		if (fill->deleting) {
			fill_sync(fill);
			return;
		}
		fill->cursor = 0;
		if (fill->waiting) {
			fill->waiting = false;
			fill_wait_for_mend(fill);
			return;
		}
		fill->deleting = true;
	}
}
