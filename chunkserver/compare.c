#include "chunkserver/compare.h"

#include <inttypes.h>
#include <string.h>
#include <utlist.h>

#include "chunkserver/chain.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/sys/log.h"

/* Nothing is under way in the blocks, and nothing is known to be wrong with them. */
static bool is_quiet(const struct chunk *chunk, uint32_t first, uint32_t end)
{
	if (chunk->state != CHUNK_READY || chunk->copy != COPY_COMPLETE || chunk->uncertain || chunk->adopting || chunk->rejoin != NULL ||
	    chunk_is_damaged(chunk, first, end))
		return false;
	const struct chunk_op *op;
	DL_FOREACH2 (chunk->first_op, op, next) {
		if (chunk_op_is_write(op) && chunk_op_overlaps(op, first, end))
			return false;
	}
	return true;
}

static void list_crcs(const struct chunk *chunk, uint32_t first, uint32_t count, uint8_t *to)
{
	for (uint32_t i = 0; i < count; i++)
		put_le32(to + 4u * i, chunk_file_crc(&chunk->file, first + i));
}

/* [first, end) of those here that are not so. */
static void found_wrong(struct chunk *chunk, uint32_t first, uint32_t count, const uint8_t *right)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t from = i;
		while (i < count && get_le32(right + 4u * i) != chunk_file_crc(&chunk->file, first + i))
			i++;
		if (i == from)
			continue;
		if (chunk->file.blocks < first + i)
			chunk->file.blocks = first + i; /* so that reads find the damage */
		chunk_found_damaged(chunk, first + from, first + i, "compare");
	}
}

/* ---- the head ---- */

static void ask(struct compare *compare);

static uint32_t count_of(const struct compare *compare)
{
	uint32_t left = CHUNK_BLOCKS - compare->first;
	return left < COMPARE_BLOCKS ? left : COMPARE_BLOCKS;
}

static size_t member_count(const struct compare *compare)
{
	return compare->chunk->chain->n_replicas;
}

/* As it was when its members were asked. */
static bool is_valid(const struct compare *compare)
{
	const struct chunk *chunk = compare->chunk;
	return is_quiet(chunk, compare->first, compare->first + count_of(compare)) && chain_is_head(compare->service, chunk) &&
	       chunk->version == compare->version && chunk->writes_begun == compare->writes;
}

static void finish(struct compare *compare, enum err err)
{
	compare->call = 0;
	compare->done(compare->arg, err);
}

/* What most copies have of the block; NULL: there is no such thing. */
static const uint8_t *most_have(const struct compare *compare, uint32_t i)
{
	size_t members = member_count(compare);
	for (size_t m = 0; m < members; m++) {
		size_t alike = 0;
		for (size_t other = 0; other < members; other++)
			alike += memcmp(compare->crcs[m] + 4u * i, compare->crcs[other] + 4u * i, 4) == 0;
		if (2 * alike > members)
			return compare->crcs[m] + 4u * i;
	}
	return NULL;
}

/* What is right; where nobody knows, what is here. */
static void judge(struct compare *compare)
{
	uint32_t unknown = 0, first_unknown = 0;
	for (uint32_t i = 0; i < count_of(compare); i++) {
		const uint8_t *right = most_have(compare, i);
#ifdef PLANT_COPIES_NOT_COMPARED
		right = compare->crcs[0] + 4u * i;
		for (size_t m = 1; m < member_count(compare); m++)
			memcpy(compare->crcs[m] + 4u * i, right, 4);
#endif
		if (right == NULL && unknown++ == 0)
			first_unknown = i;
		memcpy(compare->right + 4u * i, right != NULL ? right : compare->crcs[0] + 4u * i, 4);
	}
	compare->differ += unknown;
	if (unknown > 0)
		log_error("copies_differ", "chunk=%016" PRIx64 " first=%" PRIu32 " blocks=%" PRIu32, compare->chunk->id,
			  compare->first + first_unknown, unknown);
}

/* A block of which nobody knows is left as it is at each. */
static void answer_for(struct compare *compare, size_t member, uint8_t *right)
{
	for (uint32_t i = 0; i < count_of(compare); i++)
		memcpy(right + 4u * i, most_have(compare, i) == NULL ? compare->crcs[member] + 4u * i : compare->right + 4u * i, 4);
}

static void answered(void *arg, const struct rpc_result *result)
{
	struct compare *compare = arg;
	const Granary__ChunkCompareReply *reply = (const Granary__ChunkCompareReply *)result->reply;
	uint32_t bytes = 4u * count_of(compare);
	enum err err = result->err;
	compare->call = 0;
	if (err == OK && (reply->crcs.len != bytes || reply->blocks > CHUNK_BLOCKS))
		err = ERR_PROTOCOL;
	if (err == OK && !is_valid(compare))
		err = ERR_BUSY;
	if (err != OK) {
		finish(compare, err);
		return;
	}
	if (!compare->telling) {
		memcpy(compare->crcs[compare->member], reply->crcs.data, bytes);
		compare->end = reply->blocks > compare->end ? reply->blocks : compare->end;
	}
	ask(compare);
}

/* The next member: first what it has; then, if that is wrong, what is right. */
static void ask(struct compare *compare)
{
	struct chunk *chunk = compare->chunk;
	uint32_t bytes = 4u * count_of(compare);
	uint8_t right[COMPARE_BLOCKS * 4u];
	Granary__ChunkCompare message = GRANARY__CHUNK_COMPARE__INIT;
	compare->member++;
	if (compare->member == member_count(compare) && !compare->telling) {
		judge(compare);
		compare->telling = true;
		compare->member = 1;
	}
	for (; compare->telling && compare->member < member_count(compare); compare->member++) {
		answer_for(compare, compare->member, right);
		if (memcmp(right, compare->crcs[compare->member], bytes) != 0)
			break;
	}
	if (compare->member == member_count(compare)) {
		found_wrong(chunk, compare->first, count_of(compare), compare->right);
		finish(compare, OK);
		return;
	}
	const Granary__Replica *replica = chunk->chain->replicas[compare->member];
	struct rpc_peer *peer = chain_peer(compare->service, replica->address, CHAIN_LANE_READ);
	if (peer == NULL || !service_has_lease(compare->service)) {
		finish(compare, ERR_UNREACHABLE);
		return;
	}
	message.chunk = chunk->id;
	message.version = chunk->version;
	message.first = compare->first;
	message.count = count_of(compare);
	if (compare->telling)
		message.right = message_borrow(slice_of(right, bytes));
	compare->call = rpc_peer_call(peer, MESSAGE_CHUNK_COMPARE, &message.base, NULL, CLIENT_READ_ATTEMPT_MS, answered, compare);
}

void compare_next(struct compare *compare, struct service *service, struct chunk *chunk, uint32_t first,
		  void (*done)(void *arg, enum err err), void *arg)
{
	compare->service = service;
	compare->chunk = chunk;
	compare->version = chunk->version;
	compare->writes = chunk->writes_begun;
	compare->first = first;
	compare->end = chunk->file.blocks;
	compare->member = 0;
	compare->telling = false;
	compare->done = done;
	compare->arg = arg;
	check(first < CHUNK_BLOCKS);
	if (!chain_is_head(service, chunk) || member_count(compare) < 2 || member_count(compare) > REPLICAS_MAX ||
	    chain_joining(service, chunk) != NULL) {
		finish(compare, ERR_NOT_SUPPORTED);
		return;
	}
	if (!is_valid(compare)) {
		finish(compare, ERR_BUSY);
		return;
	}
	list_crcs(chunk, first, count_of(compare), compare->crcs[0]);
	ask(compare);
}

bool compare_stop(struct compare *compare)
{
	bool asking = compare->call != 0;
	if (asking)
		rpc_call_cancel(compare->service->rpc, compare->call);
	compare->call = 0;
	return asking;
}

/* ---- the others ---- */

void compare_serve(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkCompare *message = (const Granary__ChunkCompare *)request->message;
	Granary__ChunkCompareReply reply = GRANARY__CHUNK_COMPARE_REPLY__INIT;
	uint8_t crcs[COMPARE_BLOCKS * 4u];
	struct chunk *chunk = NULL;
	if (message->count == 0 || message->count > COMPARE_BLOCKS || message->first > CHUNK_BLOCKS - message->count ||
	    (message->right.len != 0 && message->right.len != 4u * message->count)) {
		rpc_reply_error(request, ERR_INVALID, "range");
		return;
	}
	enum err err = chunk_store_get(service->store, message->chunk, NULL, &chunk);
	if (err == OK && chunk->state == CHUNK_OPENING)
		err = ERR_BUSY;
	else if (err == OK && (chunk->kind != KIND_REPLICATED || message->version < chunk->version))
		err = ERR_STALE_VERSION;
	else if (err == OK && (message->version > chunk->version || !is_quiet(chunk, message->first, message->first + message->count)))
		err = ERR_BUSY;
	if (err != OK) {
		rpc_reply_error(request, err, NULL);
		return;
	}
	list_crcs(chunk, message->first, message->count, crcs);
	reply.crcs = message_borrow(slice_of(crcs, 4u * message->count));
	reply.blocks = chunk->file.blocks;
	if (message->right.len != 0)
		found_wrong(chunk, message->first, message->count, message->right.data);
	rpc_reply(request, &reply.base);
}
