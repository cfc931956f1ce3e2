/* Chunks become cold and hot again: each step and each way back, what is garbage, what may not be done in between. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static int setup(void **state)
{
	struct fixture *fixture = mem_zero(1, sizeof(*fixture));
	fixture_open(fixture);
	server_add(fixture, 5);
	server_add(fixture, 6);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;
	invariants_check(fixture->kv);
	fixture_close(fixture);
	free(fixture);
	return 0;
}

static uint64_t garbage_count(struct fixture *f)
{
	struct meta_counts counts;
	meta_counts(f->meta, &counts);
	return counts.garbage;
}

static uint64_t chunk_count(struct fixture *f)
{
	struct meta_counts counts;
	meta_counts(f->meta, &counts);
	return counts.chunks;
}

/* The record; freed by the next call. */
static const Granary__Chunk *record(struct fixture *f, uint64_t id)
{
	static Granary__Chunk *chunk;
	message_free(chunk ? &chunk->base : NULL);
	chunk = NULL;
	if (f)
		(void)!meta_chunk(f->meta, id, &chunk);
	return chunk;
}

static uint64_t servers[] = {1, 2, 3, 4};

/* 2+2. */
static Granary__Coding coding_of(uint64_t *shards)
{
	Granary__Coding coding = GRANARY__CODING__INIT;
	coding.data_shards = 2;
	coding.parity_shards = 2;
	coding.n_shards = 4;
	coding.shards = shards;
	return coding;
}

static enum err cool_begin(struct fixture *f, uint64_t chunk, uint64_t version, uint64_t *shards)
{
	Granary__Coding coding = coding_of(shards);
	for (size_t i = 0; i < 4; i++)
		if (shards[i] == 0)
			shards[i] = f->next_id++;
	return run_cool_begin(f, MESSAGE(CoolBegin, cool_begin, .chunk = chunk, .version = version, .coding = &coding, .n_servers = 4,
					 .servers = servers));
}

static enum err cool_commit(struct fixture *f, uint64_t chunk, uint64_t version, uint64_t *shards)
{
	uint32_t firsts[] = {0, 7};
	Granary__Coding coding = coding_of(shards);
	coding.n_firsts = 2;
	coding.firsts = firsts;
	coding.unit_bytes = CODED_UNIT_BYTES;
	coding.shard_bytes = 4096;
	return run_cool_commit(f, MESSAGE(CoolCommit, cool_commit, .chunk = chunk, .version = version, .coding = &coding));
}

static enum err undo(struct fixture *f, uint64_t chunk, uint64_t version)
{
	return run_cold_undo(f, MESSAGE(ColdUndo, cold_undo, .chunk = chunk, .version = version));
}

static enum err warm_begin(struct fixture *f, uint64_t chunk, uint64_t version)
{
	uint64_t replicas[] = {4, 5, 6};
	return run_warm_begin(f, MESSAGE(WarmBegin, warm_begin, .chunk = chunk, .version = version, .n_replicas = 3, .replicas = replicas));
}

static enum err warm_commit(struct fixture *f, uint64_t chunk, uint64_t version)
{
	return run_warm_commit(f, MESSAGE(WarmCommit, warm_commit, .chunk = chunk, .version = version));
}

static enum err thaw(struct fixture *f, uint64_t chunk, uint64_t version, uint64_t *dead, size_t count)
{
	return run_chunk_thaw(f, MESSAGE(ChunkThaw, chunk_thaw, .chunk = chunk, .version = version, .n_dead = count, .dead = dead));
}

/* All servers but one confirm all garbage. */
static void confirm_all(struct fixture *f, uint64_t but)
{
	for (uint64_t id = 1; id < 200; id++)
		for (uint64_t server = 1; server <= 6; server++)
			if (server != but)
				assert_int_equal(run_garbage_done(f, MESSAGE(GarbageDone, garbage_done, .garbage = id, .server = server)), OK);
}

static uint64_t made_chunk(struct fixture *f, const char *name, uint64_t *file)
{
	uint64_t chunk;
	*file = made_file(f, ROOT, name);
	assert_int_equal(allocate(f, *file, 0, &chunk), OK);
	assert_int_equal(run_commit_chunks(f, MESSAGE(CommitChunks, commit_chunks, .inode = *file, .size = 10000, .blocks = 24, .n_written = 1,
						      .written = &chunk)),
			 OK);
	return chunk;
}

static void test_there_and_back(void **state)
{
	struct fixture *f = *state;
	uint64_t file, shards[4] = {0}, chunk = made_chunk(f, "a", &file), dead[] = {3};
	assert_int_equal(cool_begin(f, chunk, 1, shards), OK);
	assert_true(f->result->chunks[0]->frozen);
	assert_int_equal(f->result->chunks[0]->n_replicas, 3);
	assert_null(f->result->chunks[0]->coded);
	assert_int_equal(record(f, chunk)->version, 2);
	assert_int_equal(chunk_count(f), 5);
	assert_int_equal(record(f, shards[2])->replicas[0], 3);
	assert_int_equal(record(f, shards[2])->owner, chunk);
	invariants_check(f->kv);
	assert_int_equal(cool_begin(f, chunk, 2, (uint64_t[4]){0}), ERR_BUSY);
	assert_int_equal(cool_commit(f, chunk, 1, shards), ERR_STALE_VERSION);
	assert_int_equal(cool_commit(f, chunk, 2, (uint64_t[4]){1, 2, 3, 4}), ERR_INVALID);
	assert_int_equal(cool_commit(f, chunk, 2, shards), OK);
	const Granary__ChunkLocation *location = f->result->chunks[0];
	assert_int_equal(location->n_replicas, 0);
	assert_int_equal(location->coded->n_shards, 4);
	assert_int_equal(location->coded->firsts[1], 7);
	assert_string_equal(location->coded->shards[3]->address, "127.0.0.1:7004");
	assert_true(record(f, chunk)->cold);
	assert_int_equal(record(f, chunk)->task_due, 0);
	assert_int_equal(garbage_count(f), 1); /* the copies */
	invariants_check(f->kv);
	assert_int_equal(cool_commit(f, chunk, 2, shards), ERR_STALE_VERSION);
	assert_int_equal(run_chunk_change(f, MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 2, .n_replicas = 1,
						     .replicas = servers)),
			 ERR_INVALID);
	assert_int_equal(thaw(f, chunk, 2, NULL, 0), ERR_STALE_VERSION);

	assert_int_equal(warm_begin(f, chunk, 2), OK);
	assert_non_null(f->result->chunks[0]->coded); /* still read from the shards */
	assert_int_equal(record(f, chunk)->version, 3);
	assert_int_equal(warm_begin(f, chunk, 3), ERR_BUSY);
	invariants_check(f->kv);
	assert_int_equal(warm_commit(f, chunk, 3), OK);
	assert_null(f->result->chunks[0]->coded);
	assert_true(f->result->chunks[0]->frozen);
	assert_int_equal(chunk_count(f), 1);
	assert_int_equal(record(f, chunk)->n_fences, 5); /* copies of before, four shards */
	/* Nobody may write before nobody reads what was there. */
	assert_int_equal(thaw(f, chunk, 3, NULL, 0), ERR_BUSY);
	confirm_all(f, 3);
	assert_int_equal(thaw(f, chunk, 3, NULL, 0), ERR_BUSY);
	assert_int_equal(thaw(f, chunk, 3, dead, 1), OK);
	assert_false(f->result->chunks[0]->frozen);
	assert_int_equal(record(f, chunk)->version, 4);
	assert_int_not_equal(record(f, chunk)->task_due, 0);
}

static void test_undo(void **state)
{
	struct fixture *f = *state;
	uint64_t file, shards[4] = {0}, chunk = made_chunk(f, "a", &file);
	assert_int_equal(undo(f, chunk, 1), ERR_STALE_VERSION);
	assert_int_equal(cool_begin(f, chunk, 1, shards), OK);
	assert_int_equal(undo(f, chunk, 2), OK);
	assert_false(f->result->chunks[0]->frozen);
	assert_int_equal(record(f, chunk)->version, 3);
	assert_int_equal(chunk_count(f), 1);
	assert_int_equal(garbage_count(f), 4); /* what may have been made of the shards */
	/* A member that goes makes an end of it, too. */
	memset(shards, 0, sizeof(shards));
	assert_int_equal(cool_begin(f, chunk, 3, shards), OK);
	assert_int_equal(run_chunk_change(f, MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 4, .n_replicas = 2,
						     .replicas = servers, .n_dropped = 1, .dropped = &servers[2])),
			 OK);
	assert_false(record(f, chunk)->frozen);
	assert_int_equal(chunk_count(f), 1);
	assert_int_equal(cool_commit(f, chunk, 5, shards), ERR_STALE_VERSION);
	/* Of what was to be warm, only the copies go. */
	memset(shards, 0, sizeof(shards));
	assert_int_equal(cool_begin(f, chunk, 5, shards), OK);
	assert_int_equal(cool_commit(f, chunk, 6, shards), OK);
	assert_int_equal(warm_begin(f, chunk, 6), OK);
	assert_int_equal(undo(f, chunk, 7), OK);
	assert_true(record(f, chunk)->cold);
	assert_int_equal(record(f, chunk)->n_replicas, 0);
	assert_int_equal(chunk_count(f), 5);
	assert_int_equal(warm_commit(f, chunk, 8), ERR_STALE_VERSION);
	assert_int_equal(warm_begin(f, chunk, 8), OK);
}

static void test_removed(void **state)
{
	struct fixture *f = *state;
	uint64_t file, shards[4] = {0}, chunk = made_chunk(f, "a", &file);
	assert_int_equal(cool_begin(f, chunk, 1, shards), OK);
	assert_int_equal(cool_commit(f, chunk, 2, shards), OK);
	assert_int_equal(run_shard_rebuild(f, MESSAGE(ShardRebuild, shard_rebuild, .shard = shards[0], .version = 1, .server = 5, .step = 1)),
			 OK);
	uint64_t before = garbage_count(f);
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(chunk_count(f), 0);
	assert_int_equal(garbage_count(f), before + 5); /* and what was being made anew */
}

static void test_rebuild(void **state)
{
	struct fixture *f = *state;
	uint64_t file, shards[4] = {0}, chunk = made_chunk(f, "a", &file);
	assert_int_equal(cool_begin(f, chunk, 1, shards), OK);
	assert_int_equal(cool_commit(f, chunk, 2, shards), OK);
	uint64_t garbage = garbage_count(f);
	Granary__ShardRebuild rebuild =
	    MESSAGE(ShardRebuild, shard_rebuild, .shard = shards[1], .version = 1, .server = 3, .step = 1);
	assert_int_equal(run_shard_rebuild(f, rebuild), ERR_BUSY); /* has another shard of it */
	rebuild.server = 5;
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	assert_int_equal(run_shard_rebuild(f, rebuild), ERR_BUSY);
	rebuild.shard = shards[2];
	assert_int_equal(run_shard_rebuild(f, rebuild), ERR_BUSY); /* makes another shard of it */
	rebuild.shard = shards[1];
	rebuild.server = 6;
	rebuild.step = 2;
	rebuild.version = 2;
	assert_int_equal(run_shard_rebuild(f, rebuild), ERR_STALE_VERSION);
	rebuild.server = 5;
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	assert_int_equal(record(f, shards[1])->version, 2);
	assert_int_equal(record(f, shards[1])->replicas[0], 5);
	assert_int_equal(garbage_count(f), garbage + 1); /* the old one, up to version 1 */
	assert_int_equal(run_shard_rebuild(f, rebuild), ERR_STALE_VERSION);
	/* In place, and given up: what is there is not counted on, and stays there. */
	rebuild = MESSAGE(ShardRebuild, shard_rebuild, .shard = shards[1], .version = 2, .server = 5, .step = 1);
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	rebuild.step = 3;
	assert_int_equal(run_shard_rebuild(f, rebuild), ERR_STALE_VERSION);
	rebuild.version = 3;
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	assert_int_equal(record(f, shards[1])->version, 4);
	assert_int_equal(garbage_count(f), garbage + 1);
	/* By another, and given up: what it has made goes, and who had it still has it. */
	rebuild = MESSAGE(ShardRebuild, shard_rebuild, .shard = shards[1], .version = 4, .server = 6, .step = 1);
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	rebuild.step = 3;
	rebuild.version = 5;
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	assert_int_equal(record(f, shards[1])->replicas[0], 5);
	assert_int_equal(record(f, shards[1])->version, 4);
	assert_int_equal(garbage_count(f), garbage + 2);
	/* What the next one makes is of no version that the last one may have made. */
	rebuild.step = 1;
	rebuild.version = 4;
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	rebuild.step = 2;
	rebuild.version = 5;
	assert_int_equal(run_shard_rebuild(f, rebuild), ERR_STALE_VERSION);
	rebuild.version = 6;
	assert_int_equal(run_shard_rebuild(f, rebuild), OK);
	assert_int_equal(record(f, shards[1])->version, 6);
	assert_int_equal(record(f, shards[1])->replicas[0], 6);
}

/* Slots that go while a pack is cold are deleted when it is hot again. */
static void test_pack(void **state)
{
	struct fixture *f = *state;
	uint64_t shards[4] = {0}, pack, files[4];
	assert_int_equal(run_open_pack(f, MESSAGE(OpenPack, open_pack, .id = f->next_id++, .n_replicas = 3, .replicas = servers)), OK);
	pack = f->result->chunks[0]->chunk;
	for (uint32_t i = 0; i < 4; i++) {
		char name[] = {(char)('a' + (int)i), 0};
		files[i] = made_file(f, ROOT, name);
		/* Slots of different values of 'E'. */
		assert_int_equal(run_commit_blob(f, MESSAGE(CommitBlob, commit_blob, .inode = files[i], .pack = pack, .slot = 1 + i * 10000,
							    .bytes = 100)),
				 OK);
	}
	assert_int_equal(cool_begin(f, pack, 1, shards), ERR_BUSY); /* it may be appended to */
	assert_int_equal(run_chunk_change(f, MESSAGE(ChunkChange, chunk_change, .chunk = pack, .version = 1, .seal = true)), OK);
	assert_int_equal(cool_begin(f, pack, 1, shards), OK);
	/* While it is being cooled: from the copies, and noted. */
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(reclaim(f, files[0]), OK);
	assert_int_equal(garbage_count(f), 1);
	assert_int_equal(cool_commit(f, pack, 2, shards), OK);
	assert_int_equal(remove_file(f, ROOT, "b"), OK);
	assert_int_equal(reclaim(f, files[1]), OK);
	uint64_t to = opened_pack(f, 0);
	assert_int_equal(run_blob_move(f, MESSAGE(BlobMove, blob_move, .inode = files[3], .pack = pack, .slot = 30001, .to_pack = to,
						  .to_slot = 1)),
			 OK);
	assert_int_equal(garbage_count(f), 2); /* the copies: nothing for the slots */
	assert_int_equal(warm_begin(f, pack, 2), OK);
	assert_int_equal(warm_commit(f, pack, 3), OK);
	confirm_all(f, 0);
	assert_int_equal(garbage_count(f), 0);
	assert_int_equal(thaw(f, pack, 3, NULL, 0), OK);
	assert_int_equal(garbage_count(f), 1); /* the three slots, at the new copies */
	/* The last one: the pack goes, cold or not. */
	memset(shards, 0, sizeof(shards));
	assert_int_equal(cool_begin(f, pack, 4, shards), OK);
	assert_int_equal(cool_commit(f, pack, 5, shards), OK);
	assert_int_equal(remove_file(f, ROOT, "c"), OK);
	assert_int_equal(reclaim(f, files[2]), OK);
	assert_int_equal(chunk_count(f), 1); /* the pack to which one was moved */
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t file, chunk = made_chunk(f, "a", &file), shards[4] = {500, 501, 502, 503}, twice[4] = {500, 501, 500, 503};
	Granary__Coding coding = coding_of(shards);
	Granary__CoolBegin begin =
	    MESSAGE(CoolBegin, cool_begin, .chunk = chunk, .version = 1, .coding = &coding, .n_servers = 3, .servers = servers);
	assert_int_equal(run_cool_begin(f, begin), ERR_INVALID);
	begin.n_servers = 4;
	begin.servers = (uint64_t[]){1, 2, 1, 3};
	assert_int_equal(run_cool_begin(f, begin), ERR_INVALID);
	begin.servers = servers;
	coding.shards = twice;
	assert_int_equal(run_cool_begin(f, begin), ERR_INVALID);
	coding.shards = shards;
	coding.data_shards = 1;
	assert_int_equal(run_cool_begin(f, begin), ERR_INVALID);
	shards[1] = chunk;
	coding.data_shards = 2;
	assert_int_equal(run_cool_begin(f, begin), ERR_INVALID); /* the id is taken */
	shards[1] = 501;
	begin.version = 7;
	assert_int_equal(run_cool_begin(f, begin), ERR_STALE_VERSION);
	begin.chunk = 12345;
	assert_int_equal(run_cool_begin(f, begin), ERR_NO_CHUNK);
	assert_int_equal(chunk_count(f), 1);
	assert_int_equal(run_warm_begin(f, MESSAGE(WarmBegin, warm_begin, .chunk = chunk, .version = 1, .n_replicas = 3, .replicas = servers)),
			 ERR_BUSY);
	record(NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_there_and_back, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_undo, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_removed, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_rebuild, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_pack, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
