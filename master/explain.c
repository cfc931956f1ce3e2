#include "master/explain.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/settings.h"
#include "master/status.h"

struct answer {
	const struct explain *explain;
	struct repair_question question;
	Granary__ExplainReply *reply; /* in pieces */
};

static struct meta *meta_of(const struct answer *answer)
{
	return replica_meta(answer->explain->replica);
}

/* ---- servers */

static void name_server(struct answer *answer, uint64_t id)
{
	Granary__ExplainReply *reply = answer->reply;
	const struct server *server = servers_find(answer->explain->servers, id);

	for (size_t i = 0; i < reply->n_servers; i++) {
		if (reply->servers[i]->server == id)
			return;
	}
	if (!server)
		return;
	if (!reply->servers)
		reply->servers = mem_alloc(SERVERS_MAX * sizeof(*reply->servers));
	reply->servers[reply->n_servers] = mem_alloc(sizeof(**reply->servers));
	status_of_server(server, answer->question.now_ms, answer->explain->start_ms, reply->servers[reply->n_servers++]);
}

static void name_servers(struct answer *answer, const uint64_t *ids, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (ids[i] != 0)
			name_server(answer, ids[i]);
	}
}

static uint32_t count_hosts(const struct answer *answer)
{
	struct placement_candidate *candidates = mem_alloc(SERVERS_MAX * sizeof(*candidates));
	size_t count = servers_candidates(answer->explain->servers, answer->question.now_ms, candidates);
	uint32_t hosts = 0;

	for (size_t i = 0; i < count; i++) {
		bool seen = !candidates[i].usable;
		for (size_t k = 0; k < i && !seen; k++)
			seen = candidates[k].usable && strcmp(candidates[k].host, candidates[i].host) == 0;
		hosts += !seen;
	}
	free(candidates);
	return hosts;
}

/* ---- a chunk */

static void add_shards(struct answer *answer, const struct cold_verdict *verdict, Granary__ExplainedChunk *out)
{
	out->shards = mem_alloc(SHARDS_MAX * sizeof(*out->shards));
	for (unsigned i = 0; i < verdict->total && i < SHARDS_MAX; i++) {
		Granary__ExplainedShard *shard = mem_alloc(sizeof(*shard));
		granary__explained_shard__init(shard);
		shard->server = verdict->servers[i];
		shard->version = verdict->versions[i];
		shard->rebuilding = verdict->rebuilding[i];
		out->shards[out->n_shards++] = shard;
	}
	name_servers(answer, verdict->servers, verdict->total);
	name_servers(answer, verdict->rebuilding, verdict->total);
}

static void add_copies(struct answer *answer, const Granary__Chunk *chunk, Granary__ExplainedChunk *out)
{
	struct repair_verdict verdict;

	repair_judge(&answer->question, chunk, &verdict);
	out->available = verdict.complete;
	out->wanted = verdict.wanted;
	out->lacking = verdict.lacking;
	out->waits = verdict.action == REPAIR_WAIT;
	out->leaves = verdict.leaves;
}

static void add_class(struct answer *answer, const Granary__Chunk *chunk, Granary__ExplainedChunk *out)
{
	struct storage_values values;

	meta_class_values(meta_of(answer), chunk->class_, &values);
	out->stays_hot = !values.is_cold;
	out->data_shards = values.data_shards;
	out->parity_shards = values.parity_shards;
	out->cool_seconds = values.cool_seconds;
}

static void add_chunk(struct answer *answer, uint64_t id)
{
	Granary__Chunk *chunk = NULL;
	struct data_sizes sizes;

	if (meta_chunk(meta_of(answer), id, &chunk))
		return; /* of a blob whose pack is gone */
	Granary__ExplainedChunk *out = mem_alloc(sizeof(*out));
	granary__explained_chunk__init(out);
	meta_chunk_sizes(meta_of(answer), chunk, &sizes);
	out->chunk = id;
	out->logical_bytes = sizes.logical;
	out->stored_bytes = sizes.stored;
	out->physical_bytes = sizes.physical;
	if (!chunk->cold)
		add_copies(answer, chunk, out);
	if (chunk->coding) {
		struct cold_verdict verdict;
		cooling_judge(answer->explain->cooling, chunk, &verdict);
		add_shards(answer, &verdict, out);
		if (chunk->cold) {
			out->available = verdict.available;
			out->wanted = verdict.total;
			out->lacking = verdict.lacking;
		}
	}
	add_class(answer, chunk, out);
	name_servers(answer, chunk->replicas, chunk->n_replicas);
	name_servers(answer, chunk->stale, chunk->n_stale);
	out->record = chunk;
	answer->reply->chunks[answer->reply->n_chunks++] = out;
}

/* ---- an inode */

static enum err add_inode(struct answer *answer, const Granary__ExplainRequest *message)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, attr = GRANARY__META_OP__INIT, *ops[2] = { &attr, &op };
	Granary__ChunkMap map = GRANARY__CHUNK_MAP__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__MetaReply *reply = NULL;

	attr.op_case = GRANARY__META_OP__OP_GETATTR;
	attr.getattr = &getattr;
	getattr.inode = message->inode;
	op.op_case = GRANARY__META_OP__OP_CHUNK_MAP;
	op.chunk_map = &map;
	map.inode = message->inode;
	map.first = message->first;
	map.count = UINT32_MAX - message->first;
	request.ops = ops;
	request.n_ops = 2;
	enum err err = meta_query(meta_of(answer), &request, &reply);
	if (err)
		return err;
	const Granary__MetaResult *file = reply->results[0], *chunks = reply->results[1];
	err = err_from_wire(file->error);
	if (err == OK && file->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB && message->first == 0)
		add_chunk(answer, file->attr->pack);
	for (size_t i = 0; err == OK && file->attr->layout == GRANARY__LAYOUT__LAYOUT_CHUNKS && i < chunks->n_chunks; i++) {
		if (answer->reply->n_chunks == EXPLAIN_CHUNKS_MAX) {
			answer->reply->next = chunks->chunks[i]->index;
			break;
		}
		add_chunk(answer, chunks->chunks[i]->chunk);
	}
	message_unref(&reply->base);
	return err;
}

void explain_serve(const struct explain *explain, struct rpc_request *request)
{
	struct answer answer = { .explain = explain };

	if (!replica_can_read(explain->replica)) {
		replica_refuse(explain->replica, request, ERR_NOT_LEADER);
		return;
	}
	repair_question(explain->repair, &answer.question);
	answer.reply = mem_alloc(sizeof(*answer.reply));
	granary__explain_reply__init(answer.reply);
	answer.reply->chunks = mem_alloc(EXPLAIN_CHUNKS_MAX * sizeof(*answer.reply->chunks));
	answer.reply->hosts = count_hosts(&answer);
	answer.reply->copyset_width = (uint32_t)setting_value(meta_settings(meta_of(&answer)), SETTING_COPYSET_WIDTH);
	answer.reply->repair_delay_ms = answer.question.delay_ms;
	answer.reply->time_ns = replica_time_ms(explain->replica) * 1000000;
	enum err err = add_inode(&answer, (const Granary__ExplainRequest *)request->message);
	if (err)
		rpc_reply_error(request, err, NULL);
	else
		rpc_reply(request, &answer.reply->base);
	message_free(&answer.reply->base);
}

/* ---- sizes */

void sizes_serve(struct replica *replica, struct rpc_request *request)
{
	const Granary__SizesRequest *message = (const Granary__SizesRequest *)request->message;
	Granary__SizesReply reply = GRANARY__SIZES_REPLY__INIT;
	size_t left = SIZES_CHUNKS_MAX;
	enum err err = OK;

	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	Granary__DataSizes *sizes = mem_zero(message->n_inodes + 1, sizeof(*sizes));
	reply.sizes = mem_zero(message->n_inodes + 1, sizeof(*reply.sizes));
	for (size_t i = 0; err == OK && left > 0 && reply.next == 0 && i < message->n_inodes; i++) {
		struct inode_sizes sum;
		err = meta_inode_sizes(replica_meta(replica), message->inodes[i], i == 0 ? message->first : 0, left, &sum, &reply.next);
		if (err == ERR_NOT_FOUND) /* removed meanwhile: it takes up nothing */
			err = OK;
		granary__data_sizes__init(&sizes[i]);
		sizes[i].stored_bytes = sum.data.stored;
		sizes[i].physical_bytes = sum.data.physical;
		sizes[i].chunks = sum.chunks;
		sizes[i].cold_chunks = sum.cold_chunks;
		left -= sum.chunks < left ? (size_t)sum.chunks : left;
		reply.sizes[reply.n_sizes++] = &sizes[i];
	}
	if (err)
		rpc_reply_error(request, err, NULL);
	else
		rpc_reply(request, &reply.base);
	free(reply.sizes);
	free(sizes);
}
