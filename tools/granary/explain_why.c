#include "tools/granary/explain_why.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/location.h"
#include "common/proto/storage_class.h"
#include "tools/granary/cli.h"

const char *chunk_state_text(const Granary__Chunk *record)
{
	if (!record->frozen)
		return "hot";
	if (!record->coding)
		return "thawing";
	if (!record->cold)
		return "cooling";
	return record->n_replicas > 0 ? "warming" : "cold";
}

const Granary__ServerStatus *explained_server(const Granary__ExplainReply *reply, uint64_t server)
{
	for (size_t i = 0; i < reply->n_servers; i++) {
		if (reply->servers[i]->server == server)
			return reply->servers[i];
	}
	return NULL;
}

const char *server_state_text(const Granary__ServerStatus *server)
{
	if (server->failed)
		return "failed";
	if (server->slow)
		return "slow";
	if (server->up)
		return "up";
	return server->returning ? "returning" : "away";
}

static struct buf *line(struct why *why)
{
	check(why->count < WHY_LINES_MAX);
	return &why->lines[why->count++];
}

static void end_line(struct buf *text)
{
	buf_append(text, "", 1);
}

/* ---- where */

/* Servers that hold what it is read from. */
static size_t holders_of(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk, const Granary__ServerStatus **out)
{
	size_t count = 0;
	const Granary__Chunk *record = chunk->record;
	size_t places = record->cold ? chunk->n_shards : record->n_replicas;
	for (size_t i = 0; i < places && count < SHARDS_MAX; i++) {
		uint64_t server = record->cold ? chunk->shards[i]->server : record->replicas[i];
		const Granary__ServerStatus *found = explained_server(reply, server);
		if (found)
			out[count++] = found;
	}
	return count;
}

/* How many failure domains they are in: at the broadest level, or the hosts. */
static size_t count_domains(const Granary__ServerStatus *const *servers, size_t count, bool hosts)
{
	size_t domains = 0;
	for (size_t i = 0; i < count; i++) {
		bool seen = false;
		for (size_t k = 0; k < i && !seen; k++)
			seen = hosts ? strcmp(servers[i]->host, servers[k]->host) == 0 :
				       location_shared(servers[i]->location, servers[k]->location) > 0;
		domains += !seen;
	}
	return domains;
}

static bool have_locations(const Granary__ServerStatus *const *servers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (servers[i]->location[0] != 0)
			return true;
	}
	return false;
}

static void say_spread(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk, struct why *why)
{
	const Granary__ServerStatus *servers[SHARDS_MAX];
	size_t count = holders_of(reply, chunk, servers);
	size_t hosts = count_domains(servers, count, true);
	struct buf *text = line(why);
	buf_printf(text, "spread over %zu host%s", hosts, hosts == 1 ? "" : "s");
	if (have_locations(servers, count)) {
		size_t domains = count_domains(servers, count, false);
		buf_printf(text, " in %zu location%s", domains, domains == 1 ? "" : "s");
	}
	if (hosts < chunk->wanted && reply->hosts < chunk->wanted)
		buf_printf(text, ": only %" PRIu32 " host%s in service", reply->hosts, reply->hosts == 1 ? " is" : "s are");
	buf_printf(text, "; chosen to share as few failure domains as can be, then by free space");
	if (!chunk->record->cold && reply->copyset_width > 0 && reply->copyset_width < reply->hosts)
		buf_printf(text, ", in a copyset (each server shares chunks with about %" PRIu32 " others)", reply->copyset_width);
	end_line(text);
}

/* ---- what it is kept as */

static void say_kept(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk, struct why *why)
{
	const Granary__Chunk *record = chunk->record;
	const char *class = storage_class_name(record->class_);
	struct buf *text = line(why);
	if (!record->cold) {
		buf_printf(text, "class %s wants %" PRIu32 " cop%s", class, chunk->wanted, chunk->wanted == 1 ? "y" : "ies");
	} else {
		buf_printf(text, "cold, as %" PRIu32 "+%" PRIu32 " shards: ", record->coding->data_shards, record->coding->parity_shards);
		if (chunk->data_shards == 0)
			buf_printf(text, "class %s leaves it to the number of failure domains (%" PRIu32 " hosts now)", class, reply->hosts);
		else
			buf_printf(text, "class %s wants %" PRIu32 "+%" PRIu32, class, chunk->data_shards, chunk->parity_shards);
		buf_printf(text, "; any %" PRIu32 " of them are enough", record->coding->data_shards);
	}
	end_line(text);
}

static void say_change(const Granary__ExplainedChunk *chunk, struct why *why)
{
	static const struct {
		const char *state, *text;
	} texts[] = {{"cooling", "is becoming cold: its shards are being made; it is read from its copies, and nobody writes it"},
		     {"warming", "is becoming hot: its copies are being made; it is read from its shards"},
		     {"thawing", "is becoming hot: it is written as soon as nobody can read what is left of its shards"}};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		if (strcmp(chunk_state_text(chunk->record), texts[i].state) != 0)
			continue;
		struct buf *text = line(why);
		buf_printf(text, "%s", texts[i].text);
		end_line(text);
	}
}

static void say_due(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk, struct why *why)
{
	const Granary__Chunk *record = chunk->record;
	char when[32], after[32];
	if (record->frozen)
		return;
	struct buf *text = line(why);
	if (chunk->stays_hot)
		buf_printf(text, "stays hot, by its class");
	else if (record->kind == GRANARY__CHUNK_KIND__CHUNK_PACK && !record->sealed)
		buf_printf(text, "takes more blobs: it can become cold when it is full");
	else if (record->task_due == 0)
		buf_printf(text, "is not on the list of what becomes cold");
	else
		buf_printf(text, "becomes cold %s%s, when nothing has been written to it for %s",
			   record->task_due > reply->time_ns ? "on " : "soon",
			   record->task_due > reply->time_ns ? text_time((int64_t)record->task_due, when) : "",
			   text_duration(chunk->cool_seconds * 1000, after));
	end_line(text);
}

/* ---- what lacks */

static uint64_t away_longest_ms(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk)
{
	const Granary__ServerStatus *servers[SHARDS_MAX];
	size_t count = holders_of(reply, chunk, servers);
	uint64_t longest = 0;
	for (size_t i = 0; i < count; i++) {
		if (!servers[i]->up && servers[i]->contact_ms > longest)
			longest = servers[i]->contact_ms;
	}
	return longest;
}

static bool is_rebuilt(const Granary__ExplainedChunk *chunk)
{
	for (size_t i = 0; i < chunk->n_shards; i++) {
		if (chunk->shards[i]->rebuilding != 0)
			return true;
	}
	return false;
}

static void say_lacking(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk, struct why *why)
{
	const Granary__Chunk *record = chunk->record;
	const char *pieces = record->cold ? "shards" : "copies";
	unsigned needed = record->cold ? record->coding->data_shards : 1;
	char text_of_time[32];
	if (chunk->leaves != 0) {
		struct buf *text = line(why);
		buf_printf(text, "has one copy more than its class wants: that of server %016" PRIx64 " goes", chunk->leaves);
		end_line(text);
	}
	if (chunk->available >= chunk->wanted)
		return;
	struct buf *text = line(why);
	buf_printf(text, "%" PRIu32 " of %" PRIu32 " %s are in service", chunk->available, chunk->wanted, pieces);
	uint64_t away_ms = away_longest_ms(reply, chunk) / 1000 * 1000;
	if (away_ms > 0)
		buf_printf(text, " (a server has been away for %s)", text_duration(away_ms, text_of_time));
	if (chunk->available < needed)
		buf_printf(text, ": it cannot be read until %s is back", needed == 1 ? "one" : "another");
	else if (record->joining != 0 || is_rebuilt(chunk))
		buf_printf(text, ": another is being made");
	else if (chunk->waits || chunk->lacking == 0)
		buf_printf(text, ": they may come back; others are made when a server has been away for %s",
			   text_duration(reply->repair_delay_ms, text_of_time));
	else
		buf_printf(text, ": others are to be made, as soon as it is its turn and there is a server for them");
	end_line(text);
}

void why_chunk(const Granary__ExplainReply *reply, const Granary__ExplainedChunk *chunk, struct why *out)
{
	*out = (struct why){0};
	say_kept(reply, chunk, out);
	say_spread(reply, chunk, out);
	say_change(chunk, out);
	say_lacking(reply, chunk, out);
	say_due(reply, chunk, out);
}

void why_deinit(struct why *why)
{
	for (size_t i = 0; i < why->count; i++)
		buf_deinit(&why->lines[i]);
	why->count = 0;
}
