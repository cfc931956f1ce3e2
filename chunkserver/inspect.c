#include "chunkserver/inspect.h"

#include <stdlib.h>

#include "common/base/check.h"

struct inspect {
	struct service *service;
	struct rpc_request *request;
	struct work work;
	Granary__ChunkInspected *chunks, **pointers;
	char **paths;
	size_t count;
};

static void sizes_run(struct work *work)
{
	struct inspect *inspect = container_of(work, struct inspect, work);
	for (size_t i = 0; i < inspect->count; i++) {
		struct file *file = NULL;
		enum err err = file_open(inspect->service->loop, inspect->paths[i], FILE_READ_ONLY, &file);
		if (err == OK)
			err = file_allocated(file, &inspect->chunks[i].bytes);
		if (err != OK)
			inspect->chunks[i].bytes = 0; /* removed meanwhile, or misplaced */
		file_unref(file);
	}
}

static void sizes_ran(struct work *work)
{
	struct inspect *inspect = container_of(work, struct inspect, work);
	struct service *service = inspect->service;
	Granary__ChunkInspectReply reply = GRANARY__CHUNK_INSPECT_REPLY__INIT;
	reply.chunks = inspect->pointers;
	reply.n_chunks = inspect->count;
	rpc_reply(inspect->request, &reply.base);
	for (size_t i = 0; i < inspect->count; i++)
		free(inspect->paths[i]);
	free(inspect->paths);
	free(inspect->pointers);
	free(inspect->chunks);
	free(inspect);
	chunk_store_work_end(service->store);
}

static void look_at(struct inspect *inspect, uint64_t id)
{
	struct chunk_store *store = inspect->service->store;
	struct chunk_index *index = chunk_store_index(store);
	const struct chunk *chunk = chunk_store_find(store, id);
	Granary__ChunkInspected *out = &inspect->chunks[inspect->count];
	Granary__ChunkLocation *location = NULL;
	if (chunk_index_get(index, id, &location) != OK)
		return;
	granary__chunk_inspected__init(out);
	out->chunk = id;
	out->checked_ms = chunk_index_checked_ms(index, id);
	if (chunk != NULL && chunk->state == CHUNK_READY) {
		out->version = chunk->version;
		out->copy = chunk->copy;
		out->damaged = chunk_damage_count(chunk);
		out->uncertain = chunk->uncertain;
	} else {
		out->version = location->version;
		out->copy = location->copy;
		out->damaged = chunk_index_damage_count(index, id);
	}
	inspect->paths[inspect->count] = store_files_path(chunk_store_files(store), id, chunk_kind_of(location->kind));
	inspect->pointers[inspect->count++] = out;
	message_free(&location->base);
}

void inspect_serve(struct service *service, struct rpc_request *request)
{
	const Granary__ChunkInspect *message = (const Granary__ChunkInspect *)request->message;
	if (chunk_store_failed(service->store) || chunk_store_closing(service->store)) {
		rpc_reply_error(request, ERR_STORE_FAILED, NULL);
		return;
	}
	struct inspect *inspect = mem_zero(1, sizeof(*inspect));
	inspect->service = service;
	inspect->request = request;
	inspect->chunks = mem_zero(message->n_chunks + 1, sizeof(*inspect->chunks));
	inspect->pointers = mem_zero(message->n_chunks + 1, sizeof(*inspect->pointers));
	inspect->paths = mem_zero(message->n_chunks + 1, sizeof(*inspect->paths));
	for (size_t i = 0; i < message->n_chunks; i++)
		look_at(inspect, message->chunks[i]);
	inspect->work.run = sizes_run;
	inspect->work.done = sizes_ran;
	chunk_store_submit(service->store, NULL, &inspect->work);
}
