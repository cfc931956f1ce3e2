/*   READ (a member, or the shard) -> paid for -> APPEND (to ourselves, as a client would) -> told */
#include "chunkserver/move_op.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "chunkserver/chain.h"
#include "chunkserver/master_link.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/proto/settings.h"
#include "common/sys/log.h"

#define CALL_TIMEOUT_MS 10000u

struct move {
	struct move *previous, *next;
	struct service *service;
	Granary__MoveCommand *command;
	struct timer timer;
	rpc_call_id call;
	size_t tried; /* members that have been asked */
	enum err failed; /* ERR_NOT_FOUND: all of them have said that; OK: none has been asked */
	struct iobuf *data;
	uint32_t crc;
};

static void read_next(struct move *move);

static void move_free(struct move *move)
{
	struct service *service = move->service;
	DL_DELETE2(service->moves, move, previous, next);
	service->move_count--;
	timer_stop(&move->timer);
	if (move->call != 0)
		rpc_call_cancel(service->rpc, move->call);
	iobuf_unref(move->data);
	message_free(&move->command->base);
	free(move);
}

static void move_end(struct move *move, enum err err, uint32_t slot)
{
	const Granary__MoveCommand *command = move->command;
	Granary__MoveDone message = GRANARY__MOVE_DONE__INIT;
	message.inode = command->inode;
	message.pack = command->from->chunk;
	message.slot = command->slot;
	message.to_pack = command->to->chunk;
	message.to_slot = slot;
	message.error = (uint32_t)err;
	if (err != OK)
		log_info("move_failed", "inode=%016" PRIx64 " pack=%016" PRIx64 " to=%016" PRIx64 " error=%s", message.inode, message.pack,
			 message.to_pack, err_name(err));
	master_link_move_done(move->service->link, &message);
	move_free(move);
}

/* On the lane of what waits for other servers and is waited for by none. NULL: not now. */
static struct rpc_peer *peer_at(struct service *service, const char *address)
{
	return service_has_lease(service) && address[0] != 0 ? chain_peer(service, address, CHAIN_LANE_COLD) : NULL;
}

/* ---- the record is appended */

static void on_appended(void *arg, const struct rpc_result *result)
{
	struct move *move = arg;
	move->call = 0;
	uint32_t slot = result->err == OK ? ((const Granary__BlobAppendReply *)result->reply)->slot : 0;
	move_end(move, result->err == OK && slot == 0 ? ERR_PROTOCOL : result->err, slot);
}

static void append(void *arg)
{
	struct move *move = arg;
	const Granary__ChunkLocation *to = move->command->to;
	struct rpc_peer *peer = peer_at(move->service, to->replicas[0]->address);
	Granary__BlobAppend message = GRANARY__BLOB_APPEND__INIT;
	struct conn_data data = { .iobuf = move->data, .size = move->data->size };
	if (peer == NULL) {
		move_end(move, ERR_NO_LEASE, 0);
		return;
	}
	message.pack = to->chunk;
	message.version = to->version;
	message.n_replicas = to->n_replicas;
	message.replicas = to->replicas;
	message.crc = move->crc;
	message.client = move->service->server;
	message.operation = move->service->next_operation++;
	message.sync = true;
	message.written = to->written;
#ifdef PLANT_MOVED_UNSYNCED
	message.sync = false;
#endif
	move->call = rpc_peer_call(peer, MESSAGE_BLOB_APPEND, &message.base, &data, CALL_TIMEOUT_MS, on_appended, move);
}

/* ---- it is read */

static bool is_cold(const struct move *move)
{
	return move->command->from->coded != NULL;
}

/* The CRC that its writer made. */
static enum err crc_of(const struct move *move, const struct rpc_result *result, uint32_t *crc)
{
	if (is_cold(move)) {
		ProtobufCBinaryData crcs = ((const Granary__ColdReadReply *)result->reply)->crcs;
		if (crcs.len != 4)
			return ERR_CORRUPT;
		*crc = get_le32(crcs.data);
		return OK;
	}
	const Granary__BlobReadReply *reply = (const Granary__BlobReadReply *)result->reply;
	*crc = reply->crc;
	return reply->flags == 0 ? OK : ERR_NOT_SUPPORTED;
}

/* Longer than the file it may be, not shorter. */
static enum err take(struct move *move, const struct rpc_result *result)
{
	enum err err = crc_of(move, result, &move->crc);
	if (err == OK && (result->data == NULL || result->data->size < move->command->bytes || result->data->size > BLOB_BYTES_MAX ||
			  crc32c(result->data->bytes, result->data->size) != move->crc))
		err = ERR_CORRUPT;
	if (err == OK)
		move->data = iobuf_ref(result->data);
	return err;
}

static void note_failed(struct move *move, enum err err)
{
	if (move->failed == OK || move->failed == ERR_NOT_FOUND)
		move->failed = err;
}

static void on_read(void *arg, const struct rpc_result *result)
{
	struct move *move = arg;
	struct service *service = move->service;
	enum err err = result->err;
	move->call = 0;
	if (err == OK)
		err = take(move, result);
	if (err != OK) {
		note_failed(move, err);
		read_next(move);
		return;
	}
	budget_spend(&service->cold_budget, move->data->size);
	timer_init(&move->timer, service->loop, append, move);
	timer_start(&move->timer, budget_wait(&service->cold_budget, loop_now_us(service->loop),
					      setting_value(master_link_settings(service->link), SETTING_COOL_RATE)));
}

static void read_shard(struct move *move)
{
	const Granary__MoveCommand *command = move->command;
	const Granary__CodedLocation *coded = command->from->coded;
	Granary__ColdRead message = GRANARY__COLD_READ__INIT;
	size_t place = 0;
	if (move->tried++ > 0) { /* there is one; if it is lost it is made anew before long */
		move_end(move, move->failed, 0);
		return;
	}
	while (place + 1 < coded->n_firsts && coded->firsts[place + 1] <= command->slot)
		place++;
	struct rpc_peer *peer = peer_at(move->service, coded->shards[place]->server == 0 ? "" : coded->shards[place]->address);
	if (peer == NULL) {
		move_end(move, ERR_UNREACHABLE, 0);
		return;
	}
	message.shard = coded->shards[place]->shard;
	message.version = coded->shards[place]->version;
	message.slot = command->slot;
	move->call = rpc_peer_call(peer, MESSAGE_COLD_READ, &message.base, NULL, CALL_TIMEOUT_MS, on_read, move);
}

static void read_member(struct move *move)
{
	const Granary__ChunkLocation *from = move->command->from;
	Granary__BlobRead message = GRANARY__BLOB_READ__INIT;
	message.pack = from->chunk;
	message.version = from->version;
	message.slot = move->command->slot;
	while (move->tried < from->n_replicas) {
		const Granary__Replica *member = from->replicas[move->tried++];
		if (member->joining)
			continue;
		struct rpc_peer *peer = peer_at(move->service, member->address);
		if (peer == NULL) {
			note_failed(move, ERR_UNREACHABLE);
			continue;
		}
		move->call = rpc_peer_call(peer, MESSAGE_BLOB_READ, &message.base, NULL, CALL_TIMEOUT_MS, on_read, move);
		return;
	}
	move_end(move, move->failed == OK ? ERR_UNREACHABLE : move->failed, 0);
}

static void read_next(struct move *move)
{
	if (is_cold(move))
		read_shard(move);
	else
		read_member(move);
}

static void on_begin(void *arg)
{
	read_next(arg);
}

/* ---- begin and end */

static bool is_valid(const struct service *service, const Granary__MoveCommand *command)
{
	const Granary__ChunkLocation *from = command->from, *to = command->to;
	if (from == NULL || to == NULL || command->slot == 0 || command->bytes > BLOB_BYTES_MAX)
		return false;
	if (to->n_replicas == 0 || to->n_replicas > REPLICAS_MAX || to->replicas[0]->server != service->server)
		return false;
	return from->coded == NULL || (from->coded->n_firsts > 0 && from->coded->n_firsts <= from->coded->n_shards);
}

static bool is_same(const Granary__MoveCommand *one, const Granary__MoveCommand *other)
{
	return one->inode == other->inode && one->from->chunk == other->from->chunk && one->slot == other->slot;
}

enum err move_begin(struct service *service, const Granary__MoveCommand *command)
{
	struct move *move;
	if (!is_valid(service, command))
		return ERR_INVALID;
	DL_FOREACH2 (service->moves, move, next) {
		if (is_same(move->command, command))
			return OK;
	}
	if (service->move_count >= MOVES_MAX)
		return ERR_BUSY;
	move = mem_zero(1, sizeof(*move));
	move->service = service;
	move->command = (Granary__MoveCommand *)message_copy(&command->base);
	timer_init(&move->timer, service->loop, on_begin, move);
	timer_start(&move->timer, 0);
	DL_APPEND2(service->moves, move, previous, next);
	service->move_count++;
	return OK;
}

void moves_abort(struct service *service)
{
	while (service->moves != NULL)
		move_free(service->moves);
}
