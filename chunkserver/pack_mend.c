#include "chunkserver/pack_mend.h"

#include <inttypes.h>
#include <stdlib.h>

#include "chunkserver/chain.h"
#include "chunkserver/master_link.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

#define PAUSES_MAX 10u

struct pack_mend {
	struct service *service;
	struct chunk *chunk;
	struct timer timer;
	rpc_call_id call;
	bool working, aborted;
	uint32_t at;	 /* of the chunk's list of damaged slots */
	uint32_t slot;
	size_t member;	 /* next to be asked */
	unsigned failed; /* of those asked: that could not say */
	unsigned pauses;
	uint32_t lost;
	struct iobuf *data;
};

static void finish(struct pack_mend *mend, uint64_t after_ms)
{
	struct chunk *chunk = mend->chunk;
	struct service *service = mend->service;
	timer_stop(&mend->timer);
	iobuf_unref(mend->data);
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
	if (err == OK) {
		log_warn("record_mended", "pack=%016" PRIx64 " slot=%" PRIu32, chunk->id, mend->slot);
		pack_repaired(chunk, mend->slot);
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
	mend->failed += result->err != OK && result->err != ERR_CORRUPT && result->err != ERR_NOT_FOUND && result->err != ERR_NO_CHUNK;
	go_on(mend, 0);
}

/* The present slot has been asked for everywhere. */
static void end_of_slot(struct pack_mend *mend)
{
	mend->member = 0;
	if (mend->failed > 0) {
		mend->failed = 0;
		if (++mend->pauses > PAUSES_MAX)
			finish(mend, MEND_RETRY_MS_MAX);
		else
			go_on(mend, MEND_RETRY_MS_MIN << mend->pauses / 2);
		return;
	}
	log_error("record_lost", "pack=%016" PRIx64 " slot=%" PRIu32 " reason=no_member_has_it", mend->chunk->id, mend->slot);
	mend->lost++;
	mend->at++;
	go_on(mend, 0);
}

static void step(void *arg)
{
	struct pack_mend *mend = arg;
	struct chunk *chunk = mend->chunk;
	struct pack_slot there;
	if (!may_go_on(mend)) {
		finish(mend, 0);
		return;
	}
	if (chunk->chain == NULL || chunk->chain->n_replicas == 0) {
		master_link_report(mend->service->link,
				   &(struct master_link_failure){ .chunk = chunk->id, .version = chunk->version });
		finish(mend, MEND_RETRY_MS_MAX);
		return;
	}
	if (mend->at >= chunk->slot_damage_count) {
		bool head = service_position(mend->service, chunk->chain->replicas, chunk->chain->n_replicas) == 0;
		chunk_store_set_lost(chunk, head ? mend->lost : 0);
		chunk->damage_is_lost = mend->lost > 0;
		finish(mend, mend->lost > 0 ? MEND_LOST_RETRY_MS : 0);
		return;
	}
	mend->slot = chunk->slot_damage[mend->at];
	if (!pack_find(&chunk->pack, mend->slot, &there)) { /* deleted meanwhile */
		pack_repaired(chunk, mend->slot);
		go_on(mend, 0);
		return;
	}
	while (mend->member < chunk->chain->n_replicas && (chunk->chain->replicas[mend->member]->server == mend->service->server ||
							   chunk->chain->replicas[mend->member]->joining))
		mend->member++;
	if (mend->member >= chunk->chain->n_replicas) {
		end_of_slot(mend);
		return;
	}
	const Granary__Replica *replica = chunk->chain->replicas[mend->member++];
	struct rpc_peer *peer = chain_peer(mend->service, replica->address, CHAIN_LANE_READ);
	if (peer == NULL) {
		mend->failed++;
		go_on(mend, MEND_RETRY_MS_MIN);
		return;
	}
	Granary__BlobRead message = GRANARY__BLOB_READ__INIT;
	message.pack = chunk->id;
	message.version = chunk->version;
	message.slot = mend->slot;
	mend->call = rpc_peer_call(peer, MESSAGE_BLOB_READ, &message.base, NULL, CLIENT_READ_ATTEMPT_MS, answered, mend);
}

void pack_mend_start(struct service *service, struct chunk *chunk)
{
	if (chunk->pack_mend != NULL || chunk->state != CHUNK_READY || chunk->copy != COPY_COMPLETE || chunk->slot_damage_count == 0 || service->stopping ||
	    chunk_store_failed(chunk->store) || service->mends >= MENDS_MAX ||
	    loop_now_ms(service->loop) < chunk->mend_after_ms || service->link == NULL)
		return;
	struct pack_mend *mend = mem_zero(1, sizeof(*mend));
	mend->service = service;
	mend->chunk = chunk;
	timer_init(&mend->timer, service->loop, step, mend);
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
