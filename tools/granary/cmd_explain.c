/* explain: where each chunk of a file is, in what state, and why. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/data/compress.h"
#include "common/proto/storage_class.h"
#include "tools/granary/admin_call.h"
#include "tools/granary/commands.h"
#include "tools/granary/explain_why.h"
#include "tools/granary/json.h"

/* One copy or shard: as the leader has it, and as its server does. */
struct place {
	uint64_t server, chunk; /* its id as a chunk: a shard's own */
	const char *role;	/* "copy", "joining copy", "retired copy", "data", "parity" */
	uint32_t index;		/* of a shard */
	bool is_shard;
	uint64_t version;
	uint64_t rebuilding;
	const Granary__ServerStatus *status; /* or NULL */
	const Granary__ChunkInspected *found; /* NULL: not there, or its server was not asked */
	bool asked;
};

/* What a server said of what it has. */
struct inspection {
	uint64_t server;
	Granary__ChunkInspectReply *reply; /* NULL: it did not answer */
};

struct page {
	const Granary__ExplainReply *reply;
	struct inspection *inspections;
	size_t count;
};

#define PLACES_MAX (REPLICAS_MAX + STALE_COPIES_MAX + SHARDS_MAX)

/* ---- places */

static void add_place(struct page *page, struct place *places, size_t *count, const struct place *place)
{
	if (*count == PLACES_MAX || place->server == 0)
		return;
	struct place *out = &places[(*count)++];
	*out = *place;
	out->status = explained_server(page->reply, place->server);
	for (size_t i = 0; i < page->count; i++) {
		const struct inspection *inspection = &page->inspections[i];
		if (inspection->server != place->server || !inspection->reply)
			continue;
		out->asked = true;
		for (size_t k = 0; k < inspection->reply->n_chunks; k++) {
			if (inspection->reply->chunks[k]->chunk == place->chunk)
				out->found = inspection->reply->chunks[k];
		}
	}
}

static size_t list_places(struct page *page, const Granary__ExplainedChunk *chunk, struct place *places)
{
	const Granary__Chunk *record = chunk->record;
	size_t count = 0;
	for (size_t i = 0; i < record->n_replicas; i++) {
		bool joins = record->replicas[i] == record->joining || record->cold;
		add_place(page, places, &count,
			  &(struct place){.server = record->replicas[i],
					  .chunk = chunk->chunk,
					  .role = joins ? "joining copy" : "copy",
					  .version = record->version});
	}
	for (size_t i = 0; i < record->n_stale; i++)
		add_place(page, places, &count, &(struct place){.server = record->stale[i], .chunk = chunk->chunk, .role = "retired copy"});
	for (size_t i = 0; i < chunk->n_shards && record->coding && i < record->coding->n_shards; i++)
		add_place(page, places, &count,
			  &(struct place){.server = chunk->shards[i]->server,
					  .chunk = record->coding->shards[i],
					  .role = i < record->coding->data_shards ? "data" : "parity",
					  .index = (uint32_t)i,
					  .is_shard = true,
					  .version = chunk->shards[i]->version,
					  .rebuilding = chunk->shards[i]->rebuilding});
	return count;
}

/* ---- the chunkservers are asked */

static void ask_server(struct admin *admin, struct page *page, const Granary__ServerStatus *server)
{
	Granary__ChunkInspect request = GRANARY__CHUNK_INSPECT__INIT;
	uint64_t chunks[INSPECT_CHUNKS_MAX];
	ProtobufCMessage *reply = NULL;
	request.chunks = chunks;
	for (size_t i = 0; i < page->reply->n_chunks; i++) {
		struct place places[PLACES_MAX];
		size_t count = list_places(page, page->reply->chunks[i], places);
		for (size_t k = 0; k < count && request.n_chunks < INSPECT_CHUNKS_MAX; k++) {
			if (places[k].server == server->server)
				chunks[request.n_chunks++] = places[k].chunk;
		}
	}
	if (request.n_chunks == 0)
		return;
	if (admin_call_address(admin, server->address, MESSAGE_CHUNK_INSPECT, &request.base, &reply))
		return; /* what only it knows is not told */
	page->inspections[page->count++] =
	    (struct inspection){.server = server->server, .reply = (Granary__ChunkInspectReply *)reply};
}

static void ask_servers(struct admin *admin, struct page *page)
{
	page->inspections = mem_zero(page->reply->n_servers + 1, sizeof *page->inspections);
	for (size_t i = 0; i < page->reply->n_servers; i++) {
		const Granary__ServerStatus *server = page->reply->servers[i];
		if (server->up || server->slow)
			ask_server(admin, page, server);
	}
}

static void page_deinit(struct page *page)
{
	for (size_t i = 0; i < page->count; i++)
		message_free(&page->inspections[i].reply->base);
	free(page->inspections);
	*page = (struct page){0};
}

/* ---- for people */

static const char *copy_text(uint32_t copy)
{
	static const char *const names[] = {"complete", "joining", "retired"};
	return copy < 3 ? names[copy] : "?";
}

static void print_place(const struct place *place)
{
	char size[16], time[32], role[32];
	if (place->is_shard)
		snprintf(role, sizeof role, "%s %" PRIu32, place->role, place->index);
	else
		snprintf(role, sizeof role, "%s", place->role);
	printf("  %-12s  %016" PRIx64, role, place->server);
	if (place->status)
		printf("  %s  host %s%s%s  %s", place->status->address, place->status->host, place->status->location[0] ? "  " : "",
		       place->status->location, server_state_text(place->status));
	if (place->found) {
		printf("  %s, version %" PRIu64 ", %s on disk, ", copy_text(place->found->copy), place->found->version,
		       text_size(place->found->bytes, size));
		if (place->found->checked_ms)
			printf("verified %s", text_time((int64_t)place->found->checked_ms * 1000000, time));
		else
			printf("not scrubbed yet");
		if (place->found->damaged > 0)
			printf(", %" PRIu32 " damaged", place->found->damaged);
		if (place->found->uncertain)
			printf(", uncertain after a loss of power");
	} else {
		printf("  %s", place->asked ? "nothing of it is there" : "not asked");
	}
	if (place->rebuilding)
		printf(", being made anew by %016" PRIx64, place->rebuilding);
	putchar('\n');
}

static const char *kind_text(const Granary__Chunk *record)
{
	return record->kind == GRANARY__CHUNK_KIND__CHUNK_PACK ? "pack" : "chunk";
}

static void print_chunk(struct page *page, const Granary__ExplainedChunk *chunk, const struct granary_stat *stat)
{
	const Granary__Chunk *record = chunk->record;
	struct place places[PLACES_MAX];
	struct why why;
	char logical[16], stored[16], physical[16];
	if (record->kind == GRANARY__CHUNK_KIND__CHUNK_PACK)
		printf("pack %016" PRIx64 " (slot %u)", chunk->chunk, stat->slot);
	else
		printf("chunk %" PRIu32 " %016" PRIx64, record->index, chunk->chunk);
	printf("  %s  version %" PRIu64 "  %s, stored %s, physical %s", chunk_state_text(record), record->version,
	       text_size(chunk->logical_bytes, logical), text_size(chunk->stored_bytes, stored), text_size(chunk->physical_bytes, physical));
	if (record->cold)
		printf(", compression %s", compression_name((enum compression)record->coding->compression));
	putchar('\n');
	why_chunk(page->reply, chunk, &why);
	for (size_t i = 0; i < why.count; i++)
		printf("  %s\n", (const char *)why.lines[i].bytes);
	why_deinit(&why);
	size_t count = list_places(page, chunk, places);
	for (size_t i = 0; i < count; i++)
		print_place(&places[i]);
}

/* ---- for programs */

static void json_place(struct json *json, const struct place *place)
{
	json_open(json, NULL, '{');
	json_id(json, "server", place->server);
	json_text(json, "role", place->role);
	if (place->is_shard) {
		json_id(json, "shard", place->chunk);
		json_number(json, "index", place->index);
	}
	json_number(json, "version", place->version);
	if (place->rebuilding)
		json_id(json, "rebuilding", place->rebuilding);
	if (place->status) {
		json_text(json, "address", place->status->address);
		json_text(json, "host", place->status->host);
		json_text(json, "location", place->status->location);
		json_text(json, "state", server_state_text(place->status));
	}
	json_bool(json, "asked", place->asked);
	if (place->found) {
		json_open(json, "found", '{');
		json_text(json, "copy", copy_text(place->found->copy));
		json_number(json, "version", place->found->version);
		json_number(json, "bytes", place->found->bytes);
		json_number(json, "verified_ms", place->found->checked_ms);
		json_number(json, "damaged", place->found->damaged);
		json_bool(json, "uncertain", place->found->uncertain);
		json_close(json, '}');
	}
	json_close(json, '}');
}

static void json_chunk(struct json *json, struct page *page, const Granary__ExplainedChunk *chunk)
{
	const Granary__Chunk *record = chunk->record;
	struct place places[PLACES_MAX];
	struct why why;
	size_t count = list_places(page, chunk, places);
	json_open(json, NULL, '{');
	json_number(json, "index", record->index);
	json_id(json, "id", chunk->chunk);
	json_text(json, "kind", kind_text(record));
	json_text(json, "state", chunk_state_text(record));
	json_number(json, "version", record->version);
	json_text(json, "class", storage_class_name(record->class_));
	json_number(json, "logical_bytes", chunk->logical_bytes);
	json_number(json, "stored_bytes", chunk->stored_bytes);
	json_number(json, "physical_bytes", chunk->physical_bytes);
	json_number(json, "available", chunk->available);
	json_number(json, "wanted", chunk->wanted);
	json_number(json, "lacking", chunk->lacking);
	json_number(json, "cool_due_ns", record->task_due);
	if (record->coding) {
		json_number(json, "data_shards", record->coding->data_shards);
		json_number(json, "parity_shards", record->coding->parity_shards);
		json_text(json, "compression", compression_name((enum compression)record->coding->compression));
	}
	json_open(json, "why", '[');
	why_chunk(page->reply, chunk, &why);
	for (size_t i = 0; i < why.count; i++)
		json_text(json, NULL, (const char *)why.lines[i].bytes);
	why_deinit(&why);
	json_close(json, ']');
	json_open(json, "places", '[');
	for (size_t i = 0; i < count; i++)
		json_place(json, &places[i]);
	json_close(json, ']');
	json_close(json, '}');
}

/* ---- the file */

static int explain_pages(struct admin *admin, const char *path, const struct granary_stat *stat, struct json *json)
{
	Granary__ExplainRequest request = GRANARY__EXPLAIN_REQUEST__INIT;
	request.inode = stat->inode;
	do {
		ProtobufCMessage *message = NULL;
		enum err err = admin_call(admin, MESSAGE_EXPLAIN, &request.base, &message);
		if (err)
			return admin_error(admin, path, err);
		struct page page = {.reply = (const Granary__ExplainReply *)message};
		ask_servers(admin, &page);
		for (size_t i = 0; i < page.reply->n_chunks; i++) {
			if (json)
				json_chunk(json, &page, page.reply->chunks[i]);
			else
				print_chunk(&page, page.reply->chunks[i], stat);
		}
		request.first = page.reply->next;
		page_deinit(&page);
		message_free(message);
	} while (request.first != 0);
	return EXIT_DONE;
}

static void print_file(const char *path, const struct granary_stat *stat)
{
	char size[16];
	print_name(path);
	printf("  %016" PRIx64 "  %s, class %s", stat->inode, text_size(stat->size, size), stat->storage_class);
	if (stat->layout < 2)
		printf(": no data on chunkservers");
	putchar('\n');
}

static int explain_json(struct admin *admin, const char *path, const struct granary_stat *stat)
{
	struct json json;
	json_init(&json, stdout);
	json_open(&json, NULL, '{');
	json_text(&json, "path", path);
	json_id(&json, "id", stat->inode);
	json_text(&json, "class", stat->storage_class);
	json_number(&json, "size", stat->size);
	if (stat->layout == 2)
		json_number(&json, "slot", stat->slot);
	json_open(&json, "chunks", '[');
	int result = explain_pages(admin, path, stat, &json);
	json_close(&json, ']');
	json_close(&json, '}');
	return result;
}

int cmd_explain(struct cli *cli, int argc, char **argv)
{
	bool as_json = false;
	const struct cli_option options[] = {
	    {"json", 0, CLI_FLAG, &as_json, NULL, "an object"},
	    {0},
	};
	struct granary_stat stat;
	struct admin admin = {0};
	int result = EXIT_DONE;
	if (!cli_parse(cli, options, &argc, argv, &result))
		return result;
	if (!cli_check_paths(cli, argc, argv, true, &result))
		return result;
	result = cli_connect(cli);
	if (result != EXIT_DONE)
		return result;
	granary_status status = cli_stat(cli, argv[0], true, &stat);
	if (status)
		return cli_error(cli, argv[0], status);
	result = admin_open(cli, &admin);
	if (result == EXIT_DONE && as_json) {
		result = explain_json(&admin, argv[0], &stat);
	} else if (result == EXIT_DONE) {
		print_file(argv[0], &stat);
		result = explain_pages(&admin, argv[0], &stat, NULL);
	}
	admin_close(&admin);
	return result;
}
