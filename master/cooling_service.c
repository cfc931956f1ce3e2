/* `granary admin cool` and `warm`: chunks of an inode are put on the list; how far they are. */
#include <stdio.h>
#include <stdlib.h>

#include "master/cooling_internal.h"

struct answer {
	Granary__CoolReply reply;
	char reason[160];
};

static void note_failed(struct answer *answer, enum err err)
{
	answer->reply.failed++;
	const char *text = err_text(err);
	if (err == ERR_NO_SERVERS)
		text = "too few chunkservers, or failure domains, with room for its shards";
	else if (err == ERR_NOT_PERMITTED)
		text = "its storage class says that it stays hot (granary admin class)";
	snprintf(answer->reason, sizeof(answer->reason), "%s", text);
	answer->reply.reason = answer->reason;
}

/* Seals a pack that is open: nobody appends to it any more, and it can become cold. */
static void seal(struct cooling *cooling, uint64_t id, const Granary__Chunk *chunk)
{
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK && !chunk->sealed)
		chunk_change_propose(cooling->options.context, &(struct chunk_change){ .chunk = id, .version = chunk->version, .seal = true });
}

static void look_at(struct cooling *cooling, const Granary__CoolRequest *message, uint64_t id, struct answer *answer)
{
	Granary__Chunk *chunk = NULL;

	if (meta_chunk(cooling_meta(cooling), id, &chunk))
		return;
	bool hot = !chunk->frozen;
	bool empty = chunk->kind != GRANARY__CHUNK_KIND__CHUNK_PACK && !chunk->written;
	if (empty) { /* given out, and not written yet: there is nothing to be made cold */
		message_free(&chunk->base);
		return;
	}
	answer->reply.chunks++;
	answer->reply.cold += chunk->cold && chunk->n_replicas == 0;
	answer->reply.hot += hot;
	bool is_so = message->warm ? hot : chunk->cold && chunk->n_replicas == 0;
	enum err err = is_so ? OK : cooling_failed_lately(cooling, id);
	if (!message->ask && !is_so && !cooling_find(cooling, id)) {
		if (!message->warm)
			seal(cooling, id, chunk);
		if (!cooling_wish(cooling, id, message->warm ? WISH_HOT : WISH_COLD))
			answer->reply.refused++;
	}
	if (err && err != ERR_BUSY) /* that is tried again soon */
		note_failed(answer, err);
	message_free(&chunk->base);
}

static enum err look_at_inode(struct cooling *cooling, const Granary__CoolRequest *message, struct answer *answer)
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
	enum err err = meta_query(cooling_meta(cooling), &request, &reply);
	if (err)
		return err;
	const Granary__MetaResult *file = reply->results[0], *chunks = reply->results[1];
	err = err_from_wire(file->error);
	if (err == OK && file->attr->layout == GRANARY__LAYOUT__LAYOUT_BLOB && message->first == 0)
		look_at(cooling, message, file->attr->pack, answer);
	for (size_t i = 0; err == OK && i < chunks->n_chunks; i++) {
		look_at(cooling, message, chunks->chunks[i]->chunk, answer);
		answer->reply.next = chunks->end ? 0 : chunks->chunks[i]->index + 1;
	}
	message_unref(&reply->base);
	return err;
}

void cooling_serve_request(struct cooling *cooling, struct rpc_request *request)
{
	struct answer answer = { .reply = GRANARY__COOL_REPLY__INIT };
	enum err err = look_at_inode(cooling, (const Granary__CoolRequest *)request->message, &answer);

	if (err)
		rpc_reply_error(request, err, NULL);
	else
		rpc_reply(request, &answer.reply.base);
}
