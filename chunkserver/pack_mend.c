#include "chunkserver/pack_mend.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chunkserver/chain.h"
#include "chunkserver/master_link.h"
#include "chunkserver/mend.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

#define PAUSES_MAX 10u

enum stage {
	STAGE_LIST,   /* an uncertain pack: what do the others have? … */
	STAGE_FETCH,  /* … what of it is not here … */
	STAGE_BURY,   /* … and what nobody has */
	STAGE_DAMAGE, /* what is known to be damaged */
};

struct pack_mend {
	struct service *service;
	struct chunk *chunk;
	struct timer timer;
	rpc_call_id call;
	bool working, aborted;
	enum stage stage;
	uint32_t at;	 /* of the chunk's list of damaged slots, of its bad slots, or a slot that others may have */
	uint32_t slot;
	size_t member;	 /* next to be asked */
	unsigned failed; /* of those asked: that could not say */
	unsigned corrupt; /* … that have it damaged, too */
	unsigned pauses;
	uint32_t lost;
	struct iobuf *data;
	/* What the others have: bits, by slot. */
	uint64_t version; /* of the chain that was asked */
	uint8_t *there, *deleted;
	uint32_t slots;
	bool certain;	/* one of them has lost nothing */
	bool any;	/* … or not all */
	uint32_t fetched;
};

static void finish(struct pack_mend *mend, uint64_t after_ms)
{
	struct chunk *chunk = mend->chunk;
	struct service *service = mend->service;
	timer_stop(&mend->timer);
	iobuf_unref(mend->data);
	free(mend->there);
	free(mend->deleted);
	chunk->pack_mend = NULL;
	chunk->mend_after_ms = loop_now_ms(service->loop) + after_ms;
	service->mends--;
	free(mend);
	chunk_unuse(chunk);
}

static bool may_go_on(const struct pack_mend *mend)
{
	return !mend->aborted && !mend->service->stopping && mend->chunk->state == CHUNK_READY &&
	       mend->chunk->copy == COPY_COMPLETE && !chunk_store_failed(mend->chunk->store);
}

static void go_on(struct pack_mend *mend, uint64_t ms)
{
	if (may_go_on(mend))
		timer_start(&mend->timer, ms);
	else
		finish(mend, 0);
}

static void written(void *arg, enum err err)
{
	struct pack_mend *mend = arg;
	struct chunk *chunk = mend->chunk;
	mend->working = false;
	if (err == OK && mend->stage == STAGE_DAMAGE) {
		log_warn("record_mended", "pack=%016" PRIx64 " slot=%" PRIu32, chunk->id, mend->slot);
		pack_repaired(chunk, mend->slot);
	} else if (err == OK) {
		mend->fetched += mend->stage == STAGE_FETCH;
		mend->at++;
	} else if (++mend->pauses > PAUSES_MAX) {
		finish(mend, MEND_RETRY_MS_MAX);
		return;
	}
	mend->member = 0;
	go_on(mend, err == OK ? 0 : MEND_RETRY_MS_MIN);
}

static void write_here(struct pack_mend *mend, struct iobuf *data, uint32_t crc)
{
	struct chunk_op *op = chunk_op_new(mend->service, OP_APPEND, NULL);
	iobuf_unref(mend->data);
	mend->data = data == NULL ? NULL : iobuf_ref(data);
	op->mends = true;
	op->version = mend->chunk->version;
	op->slot = mend->slot;
	op->crc = crc;
	op->deleted = mend->stage == STAGE_BURY;
	op->data = data == NULL ? slice_of(NULL, 0) : slice_of(data->bytes, data->size);
	op->done = written;
	op->arg = mend;
	mend->working = true;
	chunk_op_submit(op, mend->chunk->id, NULL);
}

static void answered(void *arg, const struct rpc_result *result)
{
	struct pack_mend *mend = arg;
	const Granary__BlobReadReply *reply = (const Granary__BlobReadReply *)result->reply;
	mend->call = 0;
	bool sound = may_go_on(mend) && result->err == OK && reply->flags == 0 &&
		     crc32c(result->data == NULL ? NULL : result->data->bytes, result->data == NULL ? 0 : result->data->size) ==
			     reply->crc;
	if (sound) {
		write_here(mend, result->data, reply->crc);
		return;
	}
	mend->corrupt += result->err == ERR_CORRUPT;
	mend->failed += result->err != OK && result->err != ERR_CORRUPT && result->err != ERR_NOT_FOUND && result->err != ERR_NO_CHUNK &&
			result->err != ERR_UNCERTAIN;
	go_on(mend, 0);
}

static void back_off(struct pack_mend *mend)
{
	mend->failed = mend->corrupt = 0;
	mend->member = 0;
	if (++mend->pauses > PAUSES_MAX)
		finish(mend, MEND_RETRY_MS_MAX);
	else
		go_on(mend, MEND_RETRY_MS_MIN << mend->pauses / 2);
}

/* The present slot has been asked for everywhere. */
static void end_of_slot(struct pack_mend *mend)
{
	struct chunk *chunk = mend->chunk;
	struct pack_slot here;
	if (mend->failed > 0) {
		back_off(mend);
		return;
	}
	bool gone = mend->corrupt == 0 && !pack_find(&chunk->pack, mend->slot, &here); /* it has been deleted */
	mend->corrupt = 0;
	mend->member = 0;
	if (!gone) {
		log_error("record_lost", "pack=%016" PRIx64 " slot=%" PRIu32 " reason=no_member_has_it", chunk->id, mend->slot);
		mend->lost++;
	}
	if (gone && mend->stage == STAGE_DAMAGE)
		pack_repaired(chunk, mend->slot);
	else
		mend->at++;
	go_on(mend, 0);
}

/* The next of the others to be asked, or NULL: all have been. */
static const Granary__Replica *next_member(struct pack_mend *mend)
{
	const Granary__ChunkLocation *chain = mend->chunk->chain;
	while (mend->member < chain->n_replicas) {
		const Granary__Replica *replica = chain->replicas[mend->member++];
		if (replica->server != mend->service->server && !replica->joining)
			return replica;
	}
	return NULL;
}

static struct rpc_peer *peer_of(struct pack_mend *mend, const Granary__Replica *replica)
{
	struct rpc_peer *peer = chain_peer(mend->service, replica->address, CHAIN_LANE_READ);
	if (peer == NULL) {
		mend->failed++;
		go_on(mend, MEND_RETRY_MS_MIN);
	}
	return peer;
}

static void ask_for_slot(struct pack_mend *mend)
{
	struct chunk *chunk = mend->chunk;
	const Granary__Replica *replica = next_member(mend);
	if (replica == NULL) {
		end_of_slot(mend);
		return;
	}
	struct rpc_peer *peer = peer_of(mend, replica);
	if (peer == NULL)
		return;
	Granary__BlobRead message = GRANARY__BLOB_READ__INIT;
	message.pack = chunk->id;
	message.version = chunk->version;
	message.slot = mend->slot;
	mend->call = rpc_peer_call(peer, MESSAGE_BLOB_READ, &message.base, NULL, CLIENT_READ_ATTEMPT_MS, answered, mend);
}

/* ---------------------------------------------------------------- what the others have */

static bool has_bit(const uint8_t *bits, uint32_t slot)
{
	return (bits[(slot - 1) / 8] >> (slot - 1) % 8 & 1) != 0;
}

/* ERR_PROTOCOL: it contradicts itself. */
static enum err merge(struct pack_mend *mend, const Granary__PackSlotsReply *reply, const struct iobuf *data)
{
	uint32_t size = (reply->slots + 7) / 8, before = (mend->slots + 7) / 8;
	if (reply->slots > PACK_SLOTS_MAX || (data == NULL ? 0 : data->size) != 2 * size)
		return ERR_PROTOCOL;
	if (size > before) {
		mend->there = mem_resize(mend->there, size);
		mend->deleted = mem_resize(mend->deleted, size);
		memset(mend->there + before, 0, size - before);
		memset(mend->deleted + before, 0, size - before);
	}
	if (reply->slots > mend->slots)
		mend->slots = reply->slots;
	for (uint32_t i = 0; i < size; i++) {
		mend->there[i] |= data->bytes[i];
		mend->deleted[i] |= data->bytes[size + i];
	}
	mend->certain = mend->certain || (!reply->uncertain && !reply->loss_untold);
	mend->any = mend->any || !reply->blank;
	return OK;
}

static void listed(void *arg, const struct rpc_result *result)
{
	struct pack_mend *mend = arg;
	enum err err = result->err;
	mend->call = 0;
	if (err == OK)
		err = merge(mend, (const Granary__PackSlotsReply *)result->reply, result->data);
	if (err == ERR_STALE_VERSION && may_go_on(mend))
		chain_ask_master(mend->service, mend->chunk);
	mend->failed += err != OK && err != ERR_NO_CHUNK;
	go_on(mend, 0);
}

static void begin_list(struct pack_mend *mend)
{
	mend->stage = mend->chunk->uncertain ? STAGE_LIST : STAGE_DAMAGE;
	mend->version = mend->chunk->version;
	mend->member = 0;
	mend->at = 0;
	mend->slots = 0;
	mend->certain = mend->any = false;
	free(mend->there);
	free(mend->deleted);
	mend->there = mend->deleted = NULL;
}

static void ask_for_list(struct pack_mend *mend)
{
	struct chunk *chunk = mend->chunk;
	const Granary__Replica *replica = next_member(mend);
	if (replica == NULL && mend->failed > 0) {
		begin_list(mend);
		back_off(mend);
		return;
	}
	if (replica == NULL) {
		mend->stage = STAGE_FETCH;
		mend->member = 0;
		mend->at = 1;
		go_on(mend, 0);
		return;
	}
	struct rpc_peer *peer = peer_of(mend, replica);
	if (peer == NULL)
		return;
	Granary__PackSlots message = GRANARY__PACK_SLOTS__INIT;
	message.pack = chunk->id;
	message.version = chunk->version;
	mend->call = rpc_peer_call(peer, MESSAGE_PACK_SLOTS, &message.base, NULL, CLIENT_READ_ATTEMPT_MS, listed, mend);
}

static bool is_wanted(const struct pack_mend *mend, uint32_t slot)
{
	const struct pack *pack = &mend->chunk->pack;
	struct pack_slot here;
#ifdef PLANT_LOST_RECORDS_NOT_FETCHED
	return false;
#endif
	return slot <= mend->slots && has_bit(mend->there, slot) && !has_bit(mend->deleted, slot) && !pack_is_deleted(pack, slot) &&
	       !pack_find(pack, slot, &here);
}

static void fetch_next(struct pack_mend *mend)
{
	while (mend->at <= mend->slots && !is_wanted(mend, mend->at)) {
		mend->at++;
		mend->member = 0;
	}
	if (mend->at <= mend->slots) {
		mend->slot = mend->at;
		ask_for_slot(mend);
		return;
	}
	mend->stage = STAGE_BURY;
	mend->at = 0;
	mend->lost = 0;
	go_on(mend, 0);
}

static void end_of_comparison(struct pack_mend *mend)
{
	struct chunk *chunk = mend->chunk;
	if (mend->version != chunk->version) { /* the members are others now */
		begin_list(mend);
		go_on(mend, 0);
		return;
	}
	if (chunk->blank && !mend->any && !chunk->never_synced) {
		log_error("chunk_lost", "chunk=%016" PRIx64 " reason=no_member_has_it", chunk->id);
		finish(mend, MEND_LOST_RETRY_MS);
		return;
	}
	log_warn("pack_certain", "pack=%016" PRIx64 " records_taken=%" PRIu32 " others_certain=%d", chunk->id, mend->fetched, mend->certain);
	chunk->loss_untold = chunk->loss_untold || (!mend->certain && chunk->lost_power);
	buf_deinit(&chunk->bad_slots);
	mend_filled(chunk);
	begin_list(mend);
	chunk_ops_wake(chunk, NULL);
	go_on(mend, 0);
}

static void bury_next(struct pack_mend *mend)
{
	const struct chunk *chunk = mend->chunk;
	const struct pack *pack = &chunk->pack;
	for (; mend->at < chunk->bad_slots.size / sizeof(uint32_t); mend->at++) {
		struct pack_slot here;
		uint32_t slot;
		memcpy(&slot, chunk->bad_slots.bytes + mend->at * sizeof(slot), sizeof(slot));
		/* What another has, damaged, may yet be made good. */
		bool known = slot <= mend->slots && has_bit(mend->there, slot);
		if (known || pack_find(pack, slot, &here) || pack_is_deleted(pack, slot))
			continue;
		mend->slot = slot;
		write_here(mend, NULL, crc32c(NULL, 0));
		return;
	}
	end_of_comparison(mend);
}

/* ---------------------------------------------------------------- what is damaged */

static void mend_next(struct pack_mend *mend)
{
	struct chunk *chunk = mend->chunk;
	if (mend->at >= chunk->slot_damage_count) {
		bool head = service_position(mend->service, chunk->chain->replicas, chunk->chain->n_replicas) == 0;
		chunk_store_set_lost(chunk, head ? mend->lost : 0);
		chunk->damage_is_lost = mend->lost > 0;
		finish(mend, mend->lost > 0 ? MEND_LOST_RETRY_MS : 0);
		return;
	}
	mend->slot = chunk->slot_damage[mend->at];
	if (pack_is_deleted(&chunk->pack, mend->slot)) { /* meanwhile */
		pack_repaired(chunk, mend->slot);
		go_on(mend, 0);
		return;
	}
	ask_for_slot(mend);
}

static void step(void *arg)
{
	struct pack_mend *mend = arg;
	struct chunk *chunk = mend->chunk;
	if (!may_go_on(mend)) {
		finish(mend, 0);
		return;
	}
	if (chunk->chain == NULL || service_position(mend->service, chunk->chain->replicas, chunk->chain->n_replicas) < 0) {
		chain_ask_master(mend->service, mend->chunk);
		finish(mend, MEND_RETRY_MS_MAX);
		return;
	}
	switch (mend->stage) {
	case STAGE_LIST:
		ask_for_list(mend);
		break;
	case STAGE_FETCH:
		fetch_next(mend);
		break;
	case STAGE_BURY:
		bury_next(mend);
		break;
	case STAGE_DAMAGE:
		mend_next(mend);
		break;
	}
}

void pack_mend_start(struct service *service, struct chunk *chunk)
{
	if (chunk->pack_mend != NULL || chunk->state != CHUNK_READY || chunk->copy != COPY_COMPLETE || chunk->misplaced ||
	    (!chunk->uncertain && chunk->slot_damage_count == 0) || service->stopping ||
	    chunk_store_failed(chunk->store) || service->mends >= MENDS_MAX ||
	    loop_now_ms(service->loop) < chunk->mend_after_ms || service->link == NULL)
		return;
	struct pack_mend *mend = mem_zero(1, sizeof(*mend));
	mend->service = service;
	mend->chunk = chunk;
	timer_init(&mend->timer, service->loop, step, mend);
	begin_list(mend);
	chunk->pack_mend = mend;
	service->mends++;
	chunk_use(chunk);
	timer_start(&mend->timer, 0);
}

void pack_mend_abort(struct chunk *chunk)
{
	struct pack_mend *mend = chunk->pack_mend;
	if (mend == NULL)
		return;
	mend->aborted = true;
	if (mend->working)
		return;
	if (mend->call != 0)
		rpc_call_cancel(mend->service->rpc, mend->call);
	finish(mend, 0);
}
