#include "client/blob_op.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/chain_op.h"
#include "common/base/check.h"
#include "common/base/limits.h"

#define NO_SPACE_PACKS_MAX 2u /* packs tried before "no space" is believed */

struct blob_append {
	struct blob_append *next; /* waits for a pack */
	struct client *client;
	struct pack_pool *pool;
	struct iobuf *data;
	bool sync;
	uint64_t pack;
	uint64_t deadline_ms;
	unsigned packs_without_space;
	blob_append_fn *done;
	void *arg;
};

static void append_send(struct blob_append *append);

/* The default class's, for more classes than there may be. */
static struct pack_pool *pool_of(struct client *client, const char *label)
{
	struct pack_pool *pool;
	size_t count = 0;
	LL_FOREACH(client->packs.pools, pool)
	{
		if (strcmp(pool->label, label) == 0)
			return pool;
		count++;
	}
	size_t size = strlen(label);
	if (size > 0 && (size > STORAGE_CLASS_NAME_BYTES_MAX || count >= CLIENT_PACK_POOLS_MAX))
		return pool_of(client, "");
	pool = mem_zero(1, sizeof *pool);
	pool->client = client;
	memcpy(pool->label, label, size);
	LL_PREPEND(client->packs.pools, pool);
	return pool;
}

void pack_pools_deinit(struct client *client)
{
	while (client->packs.pools) {
		struct pack_pool *pool = client->packs.pools;
		LL_DELETE(client->packs.pools, pool);
		free(pool);
	}
}

static void append_end(struct blob_append *append, enum err err, uint32_t slot)
{
	blob_append_fn *done = append->done;
	void *arg = append->arg;
	uint64_t pack = append->pack;
	iobuf_unref(append->data);
	free(append);
	done(arg, err, pack, slot);
}

static void pack_opened(void *arg, enum err err, const ProtobufCMessage *message, const char *text)
{
	struct pack_pool *pool = arg;
	struct client *client = pool->client;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)message;
	struct location location;
	(void)text;
	pool->opening = false;
	if (err == OK && reply->n_results != 1)
		err = ERR_PROTOCOL;
	if (err == OK && reply->results[0]->error)
		err = err_from_wire(reply->results[0]->error);
	if (err == OK && reply->results[0]->n_chunks != 1)
		err = ERR_PROTOCOL;
	if (err == OK)
		err = location_parse(&client->servers, reply->results[0]->chunks[0], &location);
	if (err == OK) {
		pool->current = location.chunk;
		pool->full = 0;
		place_set(client, &(struct place){.pack = location.chunk}, &location);
	}
	struct blob_append *waiting = pool->waiting;
	pool->waiting = NULL;
	while (waiting) {
		struct blob_append *append = waiting;
		LL_DELETE(waiting, append);
		if (client->closing)
			append_end(append, ERR_CANCELLED, 0);
		else if (err)
			append_end(append, err, 0);
		else
			append_send(append);
	}
}

static void pack_open(struct pack_pool *pool)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__OpenPack open_pack = GRANARY__OPEN_PACK__INIT;
	open_pack.full = pool->full;
	open_pack.class_ = pool->label;
	op.op_case = GRANARY__META_OP__OP_OPEN_PACK;
	op.open_pack = &open_pack;
	pool->opening = true;
	/* Files made under a delegation may wait for it. */
	session_meta(pool->client->session, (Granary__MetaOp *[]){&op}, 1, SESSION_SENDS_DONE, pack_opened, pool);
}

static void append_answered(void *arg, enum err err, uint32_t slot)
{
	struct blob_append *append = arg;
	struct client *client = append->client;
	struct pack_pool *pool = append->pool;
	bool again = err == ERR_PACK_FULL || err == ERR_STALE_VERSION || err == ERR_NO_CHUNK || err == ERR_NOT_FOUND;
	if (err == ERR_NO_SPACE)
		again = ++append->packs_without_space < NO_SPACE_PACKS_MAX;
	if (!again || client->closing || loop_now_ms(client->loop) >= append->deadline_ms) {
		append_end(append, err, slot);
		return;
	}
	if (pool->current == append->pack) { /* the first to find out */
		pool->full = pool->current;
		pool->current = 0;
	}
	append_send(append);
}

static void append_send(struct blob_append *append)
{
	struct client *client = append->client;
	struct pack_pool *pool = append->pool;
	if (pool->current == 0) {
		LL_APPEND(pool->waiting, append);
		if (!pool->opening)
			pack_open(pool);
		return;
	}
	append->pack = pool->current;
	chain_call(client,
		   &(struct chain_request){
		       .type = MESSAGE_BLOB_APPEND,
		       .place = {.pack = append->pack},
		       .sync = append->sync,
		       .iobuf = append->data,
		       .bytes = append->data->size,
		   },
		   append_answered, append);
}

void blob_append(struct client *client, const struct blob_request *request, blob_append_fn *done, void *arg)
{
	struct blob_append *append = mem_zero(1, sizeof *append);
	check(request->data->size > 0 && request->data->size <= BLOB_BYTES_MAX);
	append->client = client;
	append->pool = pool_of(client, request->label);
	append->data = iobuf_ref(request->data);
	append->sync = request->sync;
	append->deadline_ms = loop_now_ms(client->loop) + client->timeout_ms;
	append->done = done;
	append->arg = arg;
	append_send(append);
}
