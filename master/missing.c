#include "master/missing.h"

/* The chunks of the map beside those of the page; both ascend. */
struct merge {
	struct meta *meta;
	uint64_t server;
	const Granary__Inventory *page;
	size_t at;
	uint64_t end; /* the page says all up to here */
	missing_fn *fn;
	void *arg;
};

static bool merge_one(void *arg, uint64_t id)
{
	struct merge *merge = arg;
	Granary__Chunk *chunk = NULL;
	bool more = true;

	if (id > merge->end)
		return false;
	while (merge->at < merge->page->n_chunks && merge->page->chunks[merge->at]->chunk < id)
		merge->at++;
	if (merge->at < merge->page->n_chunks && merge->page->chunks[merge->at]->chunk == id)
		return true;
	if (meta_chunk(merge->meta, id, &chunk) == OK && chunk->joining != merge->server)
		more = merge->fn(merge->arg, id, chunk);
	message_free(chunk ? &chunk->base : NULL);
	return more;
}

enum err missing_each(struct meta *meta, uint64_t server, const Granary__Inventory *page, uint64_t *cursor, missing_fn *fn, void *arg)
{
	struct merge merge = { .meta = meta, .server = server, .page = page, .fn = fn, .arg = arg };

	merge.end = page->last || page->n_chunks == 0 ? UINT64_MAX : page->chunks[page->n_chunks - 1]->chunk;
	enum err err = meta_each_chunk_on(meta, server, *cursor, merge_one, &merge);
	*cursor = merge.end;
	return err;
}
