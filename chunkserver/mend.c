#include "chunkserver/mend.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "chunkserver/chain.h"
#include "chunkserver/chunk_retry.h"
#include "chunkserver/master_link.h"
#include "chunkserver/pack_mend.h"
#include "chunkserver/settle.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

#define WINDOW_BLOCKS (FRAME_DATA_BYTES_MAX / BLOCK_BYTES)
_Static_assert(WINDOW_BLOCKS == 64, "a bit of a word for each block that is asked for");
#define TOUCHED_PAUSE_MS 5u
#define PAUSES_MAX 20u /* then others get their turn */

/* What the others have answered about the blocks that are asked for. */
struct answers {
	unsigned corrupt; /* damaged there, too */
	unsigned torn;	  /* of those: only torn */
	unsigned doubt;	  /* uncertain, not blank */
	unsigned nothing; /* blank, or never had the chunk */
	unsigned never;	  /* of those: never had it */
	unsigned other;	  /* ask again */
	bool torn_above, doubt_above;
};

struct mend {
	struct service *service;
	struct chunk *chunk;
	struct timer timer;
	struct work work;
	rpc_call_id call;
	bool working; /* an operation or a worker is at it */
	bool aborted;
	bool again; /* from the beginning */
	uint32_t cursor;       /* what is before has been seen to */
	uint32_t step;	       /* blocks asked for at a time */
	uint32_t first, count; /* asked for now */
	uint64_t touched;      /* bits: changed here since they were asked for */
	uint32_t touched_end;  /* one past the last block that was */
	uint64_t version;      /* of the chain that is being asked */
	unsigned turn;	       /* of the next to be asked */
	unsigned member;       /* being asked: its place in the chain */
	unsigned below;	       /* the first below us that has the chunk, as far as is known */
	struct answers answers;
	unsigned pauses;
	/* What came. */
	struct iobuf *data;
	uint8_t crcs[WINDOW_BLOCKS * 4];
	uint32_t got;	   /* blocks; the member's chunk ends there if there are fewer than were asked for */
	uint32_t low, end; /* to be written here */
	bool trims;	   /* what is behind them goes */
	uint32_t written, lost;
	bool ring_is_known; /* what a member below knew of operations when it was asked last */
	struct op_ring ring;
	enum err err;
};

static void next(void *arg);
static void ask(struct mend *mend);

static void finish(struct mend *mend, uint64_t after_ms)
{
	struct chunk *chunk = mend->chunk;
	struct service *service = mend->service;
	check(mend->call == 0 && !mend->working);
	timer_stop(&mend->timer);
	iobuf_unref(mend->data);
	op_ring_deinit(&mend->ring);
	if (mend->written > 0)
		log_warn("blocks_mended", "chunk=%016" PRIx64 " blocks=%" PRIu32, chunk->id, mend->written);
	chunk->mend = NULL;
	chunk->mend_after_ms = loop_now_ms(service->loop) + after_ms;
	service->mends--;
	free(mend);
	chunk_unuse(chunk);
}

static bool may_go_on(const struct mend *mend)
{
	const struct chunk *chunk = mend->chunk;
	return !mend->aborted && !mend->service->stopping && chunk->state == CHUNK_READY && chunk->copy == COPY_COMPLETE &&
	       !chunk_store_failed(chunk->store);
}

static void pause_ms(struct mend *mend, uint64_t ms)
{
	if (!may_go_on(mend))
		finish(mend, 0);
	else
		timer_start(&mend->timer, ms);
}

static void back_off(struct mend *mend)
{
	uint64_t ms = (uint64_t)MEND_RETRY_MS_MIN << (mend->pauses < 6 ? mend->pauses : 6);
	if (++mend->pauses > PAUSES_MAX)
		finish(mend, MEND_RETRY_MS_MAX);
	else
		pause_ms(mend, ms < MEND_RETRY_MS_MAX ? ms : MEND_RETRY_MS_MAX);
}

static int place_of(const struct mend *mend)
{
	const Granary__ChunkLocation *chain = mend->chunk->chain;
	return chain == NULL ? -1 : service_position(mend->service, chain->replicas, chain->n_replicas);
}

static void set_certain(struct chunk *chunk)
{
	chunk->uncertain = chunk->blank = chunk->sourced = false;
	chunk->damage_is_lost = false;
	chunk->damage_waived = chunk->damage_waived && (chunk->damaged != NULL || chunk->slot_damage_count > 0);
	/* The mark speaks of this life from now on. */
	if (chunk->mark == MARK_SET && chunk_store_mark(chunk) != OK)
		chunk_store_fail(chunk->store, "mark", ERR_IO);
}

void mend_compare_again(struct chunk *chunk)
{
	if (chunk->mend != NULL && chunk->uncertain)
		chunk->mend->again = true;
}

void mend_filled(struct chunk *chunk)
{
	if (!chunk->uncertain)
		return;
	if (chunk->blank && !chunk->damage_waived)
		chunk_store_count_damage(chunk->store, 0, 1);
	set_certain(chunk);
}

/* From now on the chunk is as good as that of any other member. */
static void is_certain(struct mend *mend, const char *why)
{
	struct chunk *chunk = mend->chunk;
	log_warn("chunk_certain", "chunk=%016" PRIx64 " blocks_taken=%" PRIu32 " why=%s", chunk->id, mend->written, why);
	if (chunk->blank) /* as one piece of damage: its file */
		chunk_store_count_damage(chunk->store, 0, 1);
	set_certain(chunk);
	if (mend->ring_is_known)
		chunk_retry_join(mend->service, chunk, &mend->ring);
	mend->cursor = 0;
	mend->step = WINDOW_BLOCKS;
	chunk_ops_wake(chunk, NULL);
	settle_chunk(mend->service, chunk);
	pause_ms(mend, 0);
}

/* ---------------------------------------------------------------- writing here */

bool mend_is_valid(const struct chunk *chunk)
{
	const struct mend *mend = chunk->mend;
	if (mend->trims && mend->touched_end > mend->end)
		return false;
	for (uint32_t block = mend->low; block < mend->end; block++) {
		if ((mend->touched >> (block - mend->first) & 1) != 0)
			return false;
	}
	return true;
}

static void touch(struct mend *mend, const struct chunk_op *op)
{
	for (uint32_t i = 0; i < mend->count; i++) {
		if (chunk_op_overlaps(op, mend->first + i, mend->first + i + 1))
			mend->touched |= 1ull << i;
	}
	if (op->end > mend->touched_end)
		mend->touched_end = op->end;
}

void mend_note_write(struct chunk *chunk, const struct chunk_op *op)
{
	if (chunk->mend != NULL)
		touch(chunk->mend, op);
}

/* From here on what is changed is noted. What is being changed already may end at any time. */
static void watch(struct mend *mend)
{
	const struct chunk_op *op;
	mend->touched = 0;
	mend->touched_end = 0;
	DL_FOREACH2 (mend->chunk->first_op, op, next) {
		if (chunk_op_is_write(op) && op->state == OP_RUNNING)
			touch(mend, op);
	}
}

static void written(void *arg, enum err err);

static void write_here(struct mend *mend, enum op_kind kind)
{
	struct chunk *chunk = mend->chunk;
	struct chunk_op *op = chunk_op_new(mend->service, kind, NULL);
	op->mends = true;
	op->from_below = (int)mend->member > place_of(mend);
	op->version = chunk->version;
	op->first = kind == OP_TRIM ? mend->end : mend->low;
	op->end = kind == OP_TRIM ? CHUNK_BLOCKS : mend->end;
	op->offset = op->first * BLOCK_BYTES;
	if (kind == OP_WRITE) {
		size_t skip = mend->low - mend->first, blocks = mend->end - mend->low;
		op->size = (uint32_t)blocks * BLOCK_BYTES;
		op->data = slice_of(mend->data->bytes + skip * BLOCK_BYTES, op->size);
		op->crcs = slice_of(mend->crcs + skip * 4, blocks * 4);
	}
	op->done = written;
	op->arg = mend;
	mend->working = true;
	chunk_op_submit(op, chunk->id, NULL);
}

/* The blocks asked for are as they should be. */
static void advance(struct mend *mend)
{
	bool ended = mend->got < mend->count;
	mend->pauses = 0;
	mend->step = mend->step * 2 < WINDOW_BLOCKS ? mend->step * 2 : WINDOW_BLOCKS;
	mend->cursor = mend->first + mend->count;
	if (mend->again)
		pause_ms(mend, 0);
	else if (mend->chunk->uncertain && (ended || mend->cursor == CHUNK_BLOCKS))
		is_certain(mend, "compared");
	else
		pause_ms(mend, 0);
}

static void write_rest(struct mend *mend)
{
	if (mend->trims)
		write_here(mend, OP_TRIM);
	else
		advance(mend);
}

static void written(void *arg, enum err err)
{
	struct mend *mend = arg;
	mend->working = false;
	if (!may_go_on(mend)) {
		finish(mend, 0);
	} else if (err == ERR_BUSY) { /* changed meanwhile */
		mend->step = mend->step / 2 > 0 ? mend->step / 2 : 1;
		pause_ms(mend, TOUCHED_PAUSE_MS);
	} else if (err != OK) {
		back_off(mend);
	} else if (mend->low < mend->end) {
		mend->written += mend->end - mend->low;
		mend->low = mend->end;
		settle_chunk(mend->service, mend->chunk);
		write_rest(mend);
	} else {
		advance(mend);
	}
}

/* ---------------------------------------------------------------- when nobody has it */

static void take_own_run(struct work *work)
{
	struct mend *mend = container_of(work, struct mend, work);
	mend->err = chunk_file_read(&mend->chunk->file, mend->first, mend->count, mend->data->bytes, false);
	for (uint32_t i = 0; mend->err == OK && i < mend->count; i++)
		put_le32(mend->crcs + 4ul * i, crc32c(mend->data->bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES));
}

static void take_own_done(struct work *work)
{
	struct mend *mend = container_of(work, struct mend, work);
	struct chunk_store *store = mend->chunk->store;
	mend->working = false;
	if (!may_go_on(mend)) {
		finish(mend, 0);
	} else if (mend->err != OK) {
		back_off(mend);
	} else {
		mend->got = mend->count;
		mend->low = mend->first;
		mend->end = mend->first + mend->count;
		mend->trims = false;
		write_here(mend, OP_WRITE);
	}
	chunk_store_work_end(store);
}

/* What was being written everywhere when everything stopped: it is what is here. */
static void take_own(struct mend *mend)
{
	log_warn("blocks_taken_as_they_are", "chunk=%016" PRIx64 " first=%" PRIu32 " blocks=%" PRIu32, mend->chunk->id, mend->first,
		 mend->count);
	watch(mend);
	iobuf_unref(mend->data);
	mend->data = iobuf_open(mend->count * BLOCK_BYTES);
	mend->data->size = mend->count * BLOCK_BYTES;
	mend->working = true;
	mend->err = ERR_CANCELLED;
	mend->work.run = take_own_run;
	mend->work.done = take_own_done;
	chunk_store_submit(mend->chunk->store, NULL, &mend->work);
}

/* There is nobody to be asked; but if it is a shard it can be made of the others. */
static void tell_lost(const struct mend *mend)
{
	const struct service *service = mend->service;
	const struct chunk *chunk = mend->chunk;
	if (!service->stopping && chain_is_known(chunk) && chunk->chain->n_replicas == 1)
		master_link_report(service->link, &(struct master_link_failure){ .chunk = chunk->id,
										 .version = chunk->version,
										 .server = service->server,
										 .lost = true });
}

static void is_lost(struct mend *mend)
{
	tell_lost(mend);
	log_error("blocks_lost", "chunk=%016" PRIx64 " first=%" PRIu32 " blocks=%" PRIu32 " reason=no_member_has_them", mend->chunk->id,
		  mend->first, mend->count);
	mend->lost += mend->count;
	mend->cursor = mend->first + mend->count;
	pause_ms(mend, 0);
}

/* Block by block: of others among them some member may have a good copy. */
static bool narrow(struct mend *mend)
{
	if (mend->count == 1)
		return false;
	mend->step = 1;
	pause_ms(mend, 0);
	return true;
}

static void decide_uncertain(struct mend *mend)
{
	struct chunk *chunk = mend->chunk;
	const struct answers *answers = &mend->answers;
	if (answers->torn > 0) { /* it is being decided there */
		back_off(mend);
	} else if (answers->corrupt > 0) {
		if (narrow(mend))
			return;
		chunk_found_damaged(chunk, mend->first, mend->first + 1, "comparison");
		mend->cursor++;
		if (mend->cursor == CHUNK_BLOCKS && !mend->again)
			is_certain(mend, "compared");
		else
			pause_ms(mend, 0);
	} else if (chunk->blank && answers->doubt > 0) { /* they have more than this one */
		back_off(mend);
	} else if (chunk->blank && chunk->never_synced) { /* nor had, then, any other */
		chunk->loss_untold = true;
		is_certain(mend, "never_synced");
	} else if (chunk->blank) {
		log_error("chunk_lost", "chunk=%016" PRIx64 " reason=no_member_has_it", chunk->id);
		tell_lost(mend);
		chunk->damage_is_lost = true;
		chunk_ops_wake(chunk, NULL);
		finish(mend, MEND_LOST_RETRY_MS);
	} else if (answers->doubt_above) {
		back_off(mend);
	} else {
		chunk->loss_untold = true;
		/* Who has lost power, too, asks for what is here, and has to be answered; who never had the chunk would not. */
		bool asks = answers->doubt > 0 || answers->nothing > answers->never;
		if (answers->never > 0 && !asks && place_of(mend) == 0 && chunk->file.blocks > 0)
			settle_inherit(mend->service, chunk, OP_WRITE, 0, chunk->file.blocks);
		is_certain(mend, "first_of_all_that_lost_power");
	}
}

/* All others have answered, and none has given us the blocks. */
static void decide(struct mend *mend)
{
	const struct answers *answers = &mend->answers;
	bool torn = chunk_is_torn(mend->chunk, mend->first, mend->first + mend->count);
	if (answers->other > 0 || mend->version != mend->chunk->version)
		back_off(mend);
	else if (mend->chunk->uncertain)
		decide_uncertain(mend);
	else if (answers->doubt > 0 || (torn && answers->torn_above))
		back_off(mend);
	else if (answers->corrupt > 0 && narrow(mend))
		return;
	else if (torn && answers->corrupt == answers->torn)
		take_own(mend);
	else
		is_lost(mend);
}

/* ---------------------------------------------------------------- asking */

/* ERR_CORRUPT: the answer contradicts itself. */
static enum err take_answer(struct mend *mend, const Granary__ChunkReadReply *reply, struct iobuf *data)
{
	struct chunk *chunk = mend->chunk;
	uint32_t size = data == NULL ? 0 : data->size, got = size / BLOCK_BYTES;
	if (size % BLOCK_BYTES != 0 || got > mend->count || reply->crcs.len != 4ul * got)
		return ERR_CORRUPT;
	mend->got = got;
	mend->low = mend->end = mend->first + got;
	for (uint32_t i = got; i-- > 0;) {
		uint32_t block = mend->first + i, crc = get_le32(reply->crcs.data + 4ul * i);
		if (crc32c(data->bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) != crc)
			return ERR_CORRUPT;
		put_le32(mend->crcs + 4ul * i, crc);
		if (crc == chunk_file_crc(&chunk->file, block) && !chunk_is_damaged(chunk, block, block + 1) && block < chunk->file.blocks)
			continue;
		if (mend->low == mend->first + got)
			mend->end = block + 1;
		mend->low = block;
	}
	if (mend->low == mend->first + got)
		mend->low = mend->end = mend->first + got;
	mend->trims = got < mend->count && chunk->file.blocks > mend->first + got;
	if (mend->trims) /* all up to there, so that the trim follows at once */
		mend->end = mend->first + got;
	iobuf_unref(mend->data);
	mend->data = data == NULL ? NULL : iobuf_ref(data);
	return OK;
}

static bool is_unsettled(const struct chunk *chunk, uint32_t block)
{
	const struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (op->state >= OP_UNSETTLED && chunk_op_overlaps(op, block, block + 1))
			return true;
	}
	return false;
}

/* What is unsettled at the successor is so here, also where we have the same. */
static void inherit(struct mend *mend, const Granary__ChunkReadReply *reply)
{
	struct chunk *chunk = mend->chunk;
	uint32_t end = mend->first + mend->got;
	for (uint32_t block = mend->first; block < end; block++) {
		if ((reply->unsettled >> (block - mend->first) & 1) != 0 && !is_unsettled(chunk, block))
			settle_inherit(mend->service, chunk, OP_WRITE, block, block + 1);
	}
	if (mend->got < mend->count && reply->unsettled_end && !is_unsettled(chunk, end))
		settle_inherit(mend->service, chunk, OP_TRIM, end, CHUNK_BLOCKS);
}

static void received(struct mend *mend, const struct rpc_result *result)
{
	const Granary__ChunkReadReply *reply = (const Granary__ChunkReadReply *)result->reply;
	struct chunk *chunk = mend->chunk;
	int place = place_of(mend);
	bool below = (int)mend->member > place;
	if (take_answer(mend, reply, result->data) != OK || place < 0 || mend->version != chunk->version ||
	    (below && mend->member != mend->below)) {
		mend->answers.other++;
		ask(mend);
	} else if (!mend_is_valid(chunk)) {
		mend->step = mend->step / 2 > 0 ? mend->step / 2 : 1;
		pause_ms(mend, TOUCHED_PAUSE_MS);
	} else {
		chunk->sourced = true;
		if (chunk->blank)
			chunk_ops_wake(chunk, NULL);
		if (below)
			inherit(mend, reply);
		if (below && chunk->uncertain) {
			chunk_retry_take(mend->service->loop, reply, &mend->ring);
			mend->ring_is_known = true;
		}
		/* Syncs come to the head, which need not be the first one that still had a copy. */
		chunk->loss_untold = chunk->loss_untold || (chunk->uncertain && reply->loss_untold);
		if (mend->low < mend->end)
			write_here(mend, OP_WRITE);
		else
			write_rest(mend);
	}
}

static void answered(void *arg, const struct rpc_result *result)
{
	struct mend *mend = arg;
	struct answers *answers = &mend->answers;
	bool above = (int)mend->member < place_of(mend);
	mend->call = 0;
	if (!may_go_on(mend)) {
		finish(mend, 0);
		return;
	}
	switch (result->err) {
	case OK:
		received(mend, result);
		return;
	case ERR_CORRUPT: {
		bool torn = strcmp(result->text, MEND_TEXT_TORN) == 0;
		answers->corrupt++;
		answers->torn += torn;
		answers->torn_above = answers->torn_above || (torn && above);
		/* What all have torn down to there was acknowledged to nobody. One that is uncertain waits for us, and we for nobody. */
		mend->below += torn && !mend->chunk->uncertain && mend->member == mend->below;
		break;
	}
	case ERR_UNCERTAIN:
		if (strcmp(result->text, MEND_TEXT_BLANK) == 0) {
			answers->nothing++;
			break;
		}
		answers->doubt++;
		answers->doubt_above = answers->doubt_above || above;
		break;
	case ERR_NO_CHUNK: /* it never got anything: what is further below is what our successor has */
		mend->below += mend->member == mend->below;
		answers->nothing++;
		answers->never++;
		break;
	case ERR_STALE_VERSION: /* the new chain is on its way to us, or we are out of it; if that was lost, the answer says it */
		chain_ask_master(mend->service, mend->chunk);
		answers->other++;
		break;
	default:
		answers->other++;
	}
	ask(mend);
}

/* Those above, the nearest first, then those below. */
static void ask(struct mend *mend)
{
	struct service *service = mend->service;
	struct chunk *chunk = mend->chunk;
	int place = place_of(mend);
	size_t count = chunk->chain == NULL ? 0 : chunk->chain->n_replicas;
	if (place < 0 || mend->turn + 1 >= count) {
		decide(mend);
		return;
	}
	unsigned turn = mend->turn++;
	mend->member = turn < (unsigned)place ? (unsigned)place - 1 - turn : turn + 1;
	const Granary__Replica *replica = chunk->chain->replicas[mend->member];
	if (replica->joining) { /* what it has it has from one of us */
		ask(mend);
		return;
	}
	struct rpc_peer *peer = chain_peer(service, replica->address, CHAIN_LANE_READ);
	if (peer == NULL) {
		mend->answers.other++;
		back_off(mend);
		return;
	}
	Granary__ChunkRead message = GRANARY__CHUNK_READ__INIT;
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.offset = mend->first * BLOCK_BYTES;
	message.bytes = mend->count * BLOCK_BYTES;
	message.predecessor = (int)mend->member > place;
	message.operations = message.predecessor && chunk->uncertain;
	message.even_uncertain = !chunk->uncertain && chunk_is_torn(chunk, mend->first, mend->first + mend->count);
	watch(mend);
	mend->call = rpc_peer_call(peer, MESSAGE_CHUNK_READ, &message.base, NULL, CLIENT_READ_ATTEMPT_MS, answered, mend);
}

static bool choose(struct mend *mend)
{
	struct chunk *chunk = mend->chunk;
	if (!chunk->uncertain)
		return chunk_next_damage(chunk, mend->cursor, mend->step, &mend->first, &mend->count);
	uint32_t left = WINDOW_BLOCKS - mend->cursor % WINDOW_BLOCKS;
	mend->first = mend->cursor;
	mend->count = left < mend->step ? left : mend->step;
	return true;
}

static void next(void *arg)
{
	struct mend *mend = arg;
	struct chunk *chunk = mend->chunk;
	if (!may_go_on(mend)) {
		finish(mend, 0);
		return;
	}
	if (chunk->rejoin != NULL) {
		back_off(mend);
		return;
	}
	if (mend->again) {
		mend->cursor = 0;
		mend->ring_is_known = false;
	}
	mend->again = false;
	if (place_of(mend) < 0) { /* the master's answer says it */
		chain_ask_master(mend->service, mend->chunk);
		back_off(mend);
		return;
	}
	if (!choose(mend) && mend->cursor > 0 && mend->lost == 0) { /* what was found meanwhile */
		mend->cursor = 0;
		if (chunk->damaged != NULL && choose(mend)) {
			pause_ms(mend, 0);
			return;
		}
	}
	if (!choose(mend)) {
		chunk_store_set_lost(chunk, place_of(mend) == 0 ? mend->lost : 0);
		chunk->damage_is_lost = mend->lost > 0;
		finish(mend, mend->lost > 0 ? MEND_LOST_RETRY_MS : 0);
		return;
	}
	mend->turn = 0;
	mend->below = (unsigned)place_of(mend) + 1;
	mend->version = chunk->version;
	mend->answers = (struct answers){ 0 };
	watch(mend);
	ask(mend);
}

/* ---------------------------------------------------------------- life */

void mend_start(struct service *service, struct chunk *chunk)
{
	if (chunk->kind == KIND_PACK) {
		pack_mend_start(service, chunk);
		return;
	}
	if (chunk->mend != NULL || chunk->misplaced || chunk->kind != KIND_REPLICATED || chunk->copy != COPY_COMPLETE ||
	    chunk->state != CHUNK_READY || service->stopping ||
	    (!chunk->uncertain && chunk->damaged == NULL) || chunk_store_failed(chunk->store) || service->mends >= MENDS_MAX ||
	    loop_now_ms(service->loop) < chunk->mend_after_ms || service->link == NULL)
		return;
	struct mend *mend = mem_zero(1, sizeof(*mend));
	mend->service = service;
	mend->chunk = chunk;
	mend->step = WINDOW_BLOCKS;
	timer_init(&mend->timer, service->loop, next, mend);
	chunk->mend = mend;
	service->mends++;
	chunk_use(chunk);
	timer_start(&mend->timer, 0);
}

static void start_one(void *arg, struct chunk *chunk)
{
	mend_start(arg, chunk);
}

void mend_tick(struct service *service)
{
	chunk_store_each_open(service->store, start_one, service);
}

void mend_abort(struct chunk *chunk)
{
	struct mend *mend = chunk->mend;
	pack_mend_abort(chunk);
	if (mend == NULL)
		return;
	mend->aborted = true;
	if (mend->working)
		return;
	if (mend->call != 0)
		rpc_call_cancel(mend->service->rpc, mend->call);
	mend->call = 0;
	finish(mend, 0);
}
