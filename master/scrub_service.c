#include "master/scrub_service.h"

#include <stdlib.h>

#include "common/base/check.h"

static bool is_wanted(const Granary__ScrubRequest *request, uint64_t server)
{
	for (size_t i = 0; i < request->n_servers; i++) {
		if (request->servers[i] == server)
			return true;
	}
	return request->n_servers == 0;
}

struct wanted {
	uint64_t ids[SCRUB_CHUNKS_MAX];
	size_t count;
};

static void want(struct wanted *wanted, uint64_t chunk)
{
	if (wanted->count < SCRUB_CHUNKS_MAX)
		wanted->ids[wanted->count++] = chunk;
}

/* The chunks of a file, a page of them at a time. */
static enum err want_inode(struct meta *meta, uint64_t inode, struct wanted *wanted)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = { &op };
	Granary__ChunkMap map = GRANARY__CHUNK_MAP__INIT;
	bool end = false;
	enum err err = OK;

	op.op_case = GRANARY__META_OP__OP_CHUNK_MAP;
	op.chunk_map = &map;
	request.ops = ops;
	request.n_ops = 1;
	map.inode = inode;
	while (err == OK && !end) {
		Granary__MetaReply *reply = NULL;
		map.count = UINT32_MAX - map.first;
		err = meta_query(meta, &request, &reply);
		if (err)
			break;
		const Granary__MetaResult *result = reply->results[0];
		err = result->error ? err_from_wire(result->error) : OK;
		for (size_t i = 0; i < result->n_chunks; i++) {
			want(wanted, result->chunks[i]->chunk);
			map.first = result->chunks[i]->index + 1;
		}
		end = result->end || result->n_chunks == 0 || wanted->count == SCRUB_CHUNKS_MAX;
		message_unref(&reply->base);
	}
	return err;
}

static bool is_on(const Granary__Chunk *chunk, uint64_t server)
{
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] == server)
			return true;
	}
	return false;
}

/* What the server has of the chunk: a copy, or of a cold one a shard; 0: nothing. */
static uint64_t part_on(struct meta *meta, uint64_t id, const Granary__Chunk *chunk, uint64_t server)
{
	uint64_t part = !chunk->cold && is_on(chunk, server) ? id : 0;

	for (size_t i = 0; chunk->cold && part == 0 && i < chunk->coding->n_shards; i++) {
		Granary__Chunk *shard = NULL;
		if (meta_chunk(meta, chunk->coding->shards[i], &shard))
			continue;
		part = is_on(shard, server) ? chunk->coding->shards[i] : 0;
		message_free(&shard->base);
	}
	return part;
}

/* Those of the chunks that the server is to have. */
static Granary__ScrubCommand *command_of(struct meta *meta, const struct wanted *wanted, uint64_t id, uint64_t server)
{
	Granary__ScrubCommand *scrub = mem_alloc(sizeof(*scrub));

	granary__scrub_command__init(scrub);
	scrub->id = id;
	scrub->chunks = mem_alloc((wanted->count + 1) * sizeof(*scrub->chunks));
	for (size_t i = 0; i < wanted->count; i++) {
		Granary__Chunk *chunk = NULL;
		if (meta_chunk(meta, wanted->ids[i], &chunk))
			continue;
		uint64_t part = part_on(meta, wanted->ids[i], chunk, server);
		if (part != 0)
			scrub->chunks[scrub->n_chunks++] = part;
		message_free(&chunk->base);
	}
	return scrub;
}

void scrub_serve(struct replica *replica, struct servers *servers, struct commands *commands, struct rpc_request *request)
{
	const Granary__ScrubRequest *message = (const Granary__ScrubRequest *)request->message;
	Granary__ScrubReply reply = GRANARY__SCRUB_REPLY__INIT;
	bool some = message->n_chunks > 0 || message->inode != 0;

	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	struct wanted *wanted = mem_zero(1, sizeof(*wanted));
	uint64_t *told = mem_alloc(SERVERS_MAX * sizeof(*told));
	for (size_t i = 0; i < message->n_chunks; i++)
		want(wanted, message->chunks[i]);
	enum err err = message->inode == 0 ? OK : want_inode(replica_meta(replica), message->inode, wanted);
	for (size_t i = 0; err == OK && i < servers_count(servers); i++) {
		uint64_t server = servers_at(servers, i)->id;
		if (!is_wanted(message, server))
			continue;
		Granary__ScrubCommand *scrub = command_of(replica_meta(replica), wanted, message->id, server);
		if (some && scrub->n_chunks == 0)
			message_free(&scrub->base);
		else if (commands_add(commands, server, command_scrub(scrub)))
			told[reply.n_servers++] = server;
	}
	reply.servers = told;
	if (err)
		rpc_reply_error(request, err, NULL);
	else
		rpc_reply(request, &reply.base);
	free(told);
	free(wanted);
}
