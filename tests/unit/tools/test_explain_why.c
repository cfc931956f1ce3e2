/* Why a chunk is where it is, in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tools/granary/explain_why.h"

#define SERVERS 6

struct fixture {
	Granary__ServerStatus servers[SERVERS], *pointers[SERVERS];
	Granary__ExplainReply reply;
	Granary__Chunk record;
	Granary__Coding coding;
	Granary__ExplainedShard shards[SERVERS], *shard_pointers[SERVERS];
	Granary__ExplainedChunk chunk;
	uint64_t replicas[3];
	char text[2048];
};

static char *writable(const char *text)
{
	return (char *)(uintptr_t)text;
}

/* Servers 1 to 6 in two zones, each on a host of its own; a hot chunk on the first three. */
static void open_fixture(struct fixture *f)
{
	static const char *const hosts[SERVERS] = {"a", "b", "c", "d", "e", "f"};
	memset(f, 0, sizeof *f);
	granary__explain_reply__init(&f->reply);
	granary__explained_chunk__init(&f->chunk);
	granary__chunk__init(&f->record);
	granary__coding__init(&f->coding);
	for (unsigned i = 0; i < SERVERS; i++) {
		granary__server_status__init(&f->servers[i]);
		f->servers[i].server = i + 1;
		f->servers[i].host = writable(hosts[i]);
		f->servers[i].location = writable(i % 2 ? "east/r1" : "west/r1");
		f->servers[i].up = true;
		f->pointers[i] = &f->servers[i];
		granary__explained_shard__init(&f->shards[i]);
		f->shards[i].server = i + 1;
		f->shard_pointers[i] = &f->shards[i];
	}
	f->reply.servers = f->pointers;
	f->reply.n_servers = SERVERS;
	f->reply.hosts = SERVERS;
	f->reply.repair_delay_ms = 15000;
	f->reply.time_ns = 1000;
	for (uint64_t i = 0; i < 3; i++)
		f->replicas[i] = i + 1;
	f->record.replicas = f->replicas;
	f->record.n_replicas = 3;
	f->record.task_due = 500;
	f->chunk.record = &f->record;
	f->chunk.wanted = f->chunk.available = 3;
	f->chunk.cool_seconds = 3600;
}

static void make_cold(struct fixture *f)
{
	f->coding.data_shards = 4;
	f->coding.parity_shards = 2;
	f->record.coding = &f->coding;
	f->record.frozen = f->record.cold = true;
	f->record.n_replicas = 0;
	f->chunk.shards = f->shard_pointers;
	f->chunk.n_shards = SERVERS;
	f->chunk.wanted = f->chunk.available = SERVERS;
}

static const char *why(struct fixture *f)
{
	struct why out;
	why_chunk(&f->reply, &f->chunk, &out);
	size_t at = 0;
	for (size_t i = 0; i < out.count; i++)
		at += (size_t)snprintf(f->text + at, sizeof f->text - at, "%s\n", (const char *)out.lines[i].bytes);
	why_deinit(&out);
	return f->text;
}

#define SAYS(f, part) assert_non_null(strstr(why(f), part))
#define DOES_NOT_SAY(f, part) assert_null(strstr(why(f), part))

static void hot(void **state)
{
	struct fixture f;
	(void)state;
	open_fixture(&f);
	assert_string_equal(chunk_state_text(&f.record), "hot");
	SAYS(&f, "class default wants 3 copies\n");
	SAYS(&f, "spread over 3 hosts in 2 locations;");
	SAYS(&f, "becomes cold soon, when nothing has been written to it for 1h\n");
	DOES_NOT_SAY(&f, "in service");
	DOES_NOT_SAY(&f, "copyset");
	f.reply.copyset_width = 4;
	SAYS(&f, "in a copyset (each server shares chunks with about 4 others)");
	f.chunk.stays_hot = true;
	SAYS(&f, "stays hot, by its class\n");
	f.chunk.leaves = 3;
	SAYS(&f, "has one copy more than its class wants: that of server 0000000000000003 goes\n");
}

static void lacking(void **state)
{
	struct fixture f;
	(void)state;
	open_fixture(&f);
	f.servers[1].up = false;
	f.servers[1].contact_ms = 4200;
	assert_string_equal(server_state_text(&f.servers[1]), "away");
	f.chunk.available = 2;
	f.chunk.waits = true;
	SAYS(&f, "2 of 3 copies are in service (a server has been away for 4s): they may come back; others are made when a server has "
		 "been away for 15s\n");
	f.chunk.waits = false;
	f.chunk.lacking = 1;
	SAYS(&f, "others are to be made");
	f.record.joining = 3;
	SAYS(&f, ": another is being made\n");
	f.chunk.available = 0;
	SAYS(&f, "it cannot be read until one is back\n");
	/* As many as there can be: another server has to come. */
	open_fixture(&f);
	f.record.n_replicas = 2;
	f.chunk.available = 2;
	f.reply.hosts = 2;
	SAYS(&f, "spread over 2 hosts in 2 locations: only 2 hosts are in service;");
}

static void cold(void **state)
{
	struct fixture f;
	(void)state;
	open_fixture(&f);
	make_cold(&f);
	assert_string_equal(chunk_state_text(&f.record), "cold");
	SAYS(&f, "cold, as 4+2 shards: class default leaves it to the number of failure domains (6 hosts now); any 4 of them are enough\n");
	SAYS(&f, "spread over 6 hosts in 2 locations;");
	DOES_NOT_SAY(&f, "becomes cold");
	f.chunk.data_shards = 4;
	f.chunk.parity_shards = 2;
	SAYS(&f, "class default wants 4+2;");
	f.chunk.available = 3;
	SAYS(&f, "3 of 6 shards are in service: it cannot be read until another is back\n");
	f.chunk.available = 5;
	f.shards[2].rebuilding = 6;
	SAYS(&f, "5 of 6 shards are in service: another is being made\n");
	f.record.n_replicas = 3;
	assert_string_equal(chunk_state_text(&f.record), "warming");
	SAYS(&f, "is becoming hot");
	f.record.cold = false;
	assert_string_equal(chunk_state_text(&f.record), "cooling");
	SAYS(&f, "is becoming cold");
	f.record.coding = NULL;
	assert_string_equal(chunk_state_text(&f.record), "thawing");
	SAYS(&f, "it is written as soon as");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(hot),
	    cmocka_unit_test(lacking),
	    cmocka_unit_test(cold),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
