/* Chunks, blobs and packs: what comes to be, what truncation keeps, what is freed and becomes garbage. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static int setup(void **state)
{
	struct fixture *fixture = mem_zero(1, sizeof(*fixture));
	fixture_open(fixture);
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

static uint64_t bytes_used(struct fixture *f)
{
	check(run_statfs(f, (Granary__StatfsOp)GRANARY__STATFS_OP__INIT) == OK);
	return f->result->statfs->bytes_used;
}

static enum err commit_chunks(struct fixture *f, uint64_t inode, uint64_t size, uint64_t blocks)
{
	return run_commit_chunks(f,
				 MESSAGE(CommitChunks, commit_chunks, .inode = inode, .size = size, .blocks = blocks));
}

/* ---- chunks */

static void test_allocate_and_map(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), first, again;
	assert_int_equal(allocate(f, file, 0, &first), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_CHUNKS);
	const Granary__ChunkLocation *location = f->result->chunks[0];
	assert_int_equal(location->version, 1);
	assert_int_equal(location->n_replicas, 3);
	assert_int_equal(location->replicas[1]->server, 2);
	assert_string_equal(location->replicas[1]->address, "127.0.0.1:7002");
	assert_int_equal(allocate(f, file, 0, &again), OK);
	assert_int_equal(again, first);
	assert_int_equal(chunk_count(f), 1);
	assert_int_equal(allocate(f, file, 3, &again), OK);
	assert_int_equal(allocate(f, file, 1u << 24, NULL), ERR_TOO_LARGE);
	assert_int_equal(allocate(f, ROOT, 0, NULL), ERR_IS_DIRECTORY);
	assert_int_equal(allocate(f, 9999, 0, NULL), ERR_NOT_FOUND);
	Granary__AllocateChunk none = MESSAGE(AllocateChunk, allocate_chunk, .inode = file, .index = 7, .id = 5);
	assert_int_equal(run_allocate_chunk(f, none), ERR_NO_SERVERS);
	assert_int_equal(commit_chunks(f, file, 3ull * CHUNK_BYTES + 10, 20), OK);
	assert_int_equal(f->result->attr->size, 3ull * CHUNK_BYTES + 10);
	assert_int_equal(f->result->attr->blocks, 20);
	assert_int_equal(bytes_used(f), 20 * 512);
	assert_int_equal(run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .count = 100)), OK);
	assert_int_equal(f->result->n_chunks, 2);
	assert_true(f->result->end);
	assert_int_equal(f->result->chunks[1]->index, 3);
	assert_int_equal(run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .first = 3, .count = 1)), OK);
	assert_int_equal(f->result->n_chunks, 1);
	assert_int_equal(run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .first = 1, .count = 2)), OK);
	assert_int_equal(f->result->n_chunks, 0);
	assert_int_equal(run_open(f, MESSAGE(Open, open, .inode = file)), OK);
	assert_int_equal(f->result->n_chunks, 1);
	assert_int_equal(f->result->chunks[0]->chunk, first);
	assert_int_equal(run_open(f, MESSAGE(Open, open, .inode = 9999)), ERR_NOT_FOUND);
	Granary__Create create = MESSAGE(Create, create, .parent = ROOT, .name = text("a"), .mode = MODE_FILE);
	assert_int_equal(run_create(f, create), OK);
	assert_int_equal(f->result->chunks[0]->chunk, first);
}

/* Written is what the commits have named, and are this file's. */
static void test_written(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), other = made_file(f, ROOT, "b"), chunks[3], strange;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(allocate(f, file, i, &chunks[i]), OK);
	assert_int_equal(allocate(f, other, 0, &strange), OK);
	Granary__CommitChunks commit = MESSAGE(CommitChunks, commit_chunks, .inode = file, .size = 3ull * CHUNK_BYTES);
	assert_int_equal(run_commit_chunks(f, commit), OK);
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .count = 3)), OK);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(f->result->chunks[i]->written, round == 1 && i == 1);
		uint64_t written[] = {strange, 12345, chunks[1], chunks[1]};
		commit.n_written = 4;
		commit.written = written;
		assert_int_equal(run_commit_chunks(f, commit), OK);
	}
	assert_int_equal(run_open(f, MESSAGE(Open, open, .inode = other)), OK);
	assert_false(f->result->chunks[0]->written);
	assert_int_equal(truncate_to(f, file, CHUNK_BYTES + 5), OK);
	assert_int_equal(run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .first = 1, .count = 1)), OK);
	assert_true(f->result->chunks[0]->written);
}

static void test_truncate_chunks(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(allocate(f, file, i, NULL), OK);
	assert_int_equal(commit_chunks(f, file, 4ull * CHUNK_BYTES, 4ull * CHUNK_BYTES / 512), OK);
	/* At the border of a chunk nothing is stale. */
	assert_int_equal(truncate_to(f, file, 3ull * CHUNK_BYTES), OK);
	assert_int_equal(f->result->attr->trim, 0);
	assert_int_equal(f->result->attr->chunks, 3);
	assert_int_equal(f->result->attr->blocks, 3ull * CHUNK_BYTES / 512);
	assert_true(f->effects.garbage_added);
	assert_int_equal(garbage_count(f), 1);
	/* Inside of one. */
	assert_int_equal(truncate_to(f, file, CHUNK_BYTES + 5000), OK);
	assert_int_equal(f->result->attr->trim, CHUNK_BYTES + 5000);
	assert_int_equal(f->result->attr->chunks, 2);
	assert_int_equal(garbage_count(f), 2);
	/* Longer again: what is stale stays stale. Shorter: more of it is. */
	assert_int_equal(truncate_to(f, file, 10ull * CHUNK_BYTES), OK);
	assert_int_equal(f->result->attr->trim, CHUNK_BYTES + 5000);
	assert_int_equal(truncate_to(f, file, 2ull * CHUNK_BYTES), OK);
	assert_int_equal(f->result->attr->trim, CHUNK_BYTES + 5000);
	assert_int_equal(truncate_to(f, file, CHUNK_BYTES + 7), OK);
	assert_int_equal(f->result->attr->trim, CHUNK_BYTES + 7);
	/* Another trim than the one that was done stays. */
	Granary__CommitChunks commit =
	    MESSAGE(CommitChunks, commit_chunks, .inode = file, .trimmed = true, .trim = CHUNK_BYTES + 5000);
	assert_int_equal(run_commit_chunks(f, commit), OK);
	assert_int_equal(f->result->attr->trim, CHUNK_BYTES + 7);
	commit.trim = CHUNK_BYTES + 7;
	assert_int_equal(run_commit_chunks(f, commit), OK);
	assert_int_equal(f->result->attr->trim, 0);
	assert_int_equal(f->result->attr->size, CHUNK_BYTES + 7);
	/* In a hole there is nothing to trim. */
	assert_int_equal(truncate_to(f, file, 9ull * CHUNK_BYTES), OK);
	assert_int_equal(truncate_to(f, file, 8ull * CHUNK_BYTES + 1), OK);
	assert_int_equal(f->result->attr->trim, 0);
	assert_int_equal(truncate_to(f, file, 0), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_EMPTY);
	assert_int_equal(f->result->attr->blocks, 0);
	assert_int_equal(bytes_used(f), 0);
	assert_int_equal(chunk_count(f), 0);
}

static void allocate_many(struct fixture *f, uint64_t file, uint32_t total)
{
	static Granary__MetaOp ops[1000], *pointers[1000];
	static Granary__AllocateChunk allocates[1000];
	uint64_t replicas[3] = {1, 2, 3};
	for (uint32_t at = 0; at < total;) {
		size_t count = 0;
		for (; count < 1000 && at < total; count++, at++) {
			allocates[count] = MESSAGE(AllocateChunk, allocate_chunk, .inode = file, .index = at,
						   .id = f->next_id++, .replicas = replicas, .n_replicas = 3);
			granary__meta_op__init(&ops[count]);
			ops[count].op_case = GRANARY__META_OP__OP_ALLOCATE_CHUNK;
			ops[count].allocate_chunk = &allocates[count];
			pointers[count] = &ops[count];
		}
		assert_int_equal(fixture_request(f, f->session, pointers, count), OK);
	}
}

/* No entry frees more than a bounded number of chunks. */
static void test_large_file_is_freed_in_steps(void **state)
{
	struct fixture *f = *state;
	const uint32_t total = 3 * TRUNCATE_CHUNKS_MAX;
	uint64_t file = made_file(f, ROOT, "a"), size = (uint64_t)total * CHUNK_BYTES;
	allocate_many(f, file, total);
	assert_int_equal(commit_chunks(f, file, size, 8), OK);
	uint32_t next = 0;
	do {
		assert_int_equal(
		    run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .first = next, .count = total - next)),
		    OK);
		assert_true(f->result->n_chunks <= CHUNK_MAP_ENTRIES_MAX);
		for (size_t i = 0; i < f->result->n_chunks; i++)
			assert_int_equal(f->result->chunks[i]->index, next++);
	} while (!f->result->end);
	assert_int_equal(next, total);
	for (unsigned step = 1; step <= 2; step++) {
		assert_int_equal(truncate_to(f, file, 10ull * CHUNK_BYTES), ERR_BUSY);
		assert_int_equal(attr(f, file)->size, size);
		assert_int_equal(attr(f, file)->chunks, total - step * TRUNCATE_CHUNKS_MAX);
	}
	assert_int_equal(commit_blob(f, file, opened_pack(f, 0), 1, 100), OK);
	assert_int_equal(attr(f, file)->chunks, 0);
	/* Reclaim, too. */
	const uint32_t chunks = 2 * RECLAIM_CHUNKS_MAX + 1;
	allocate_many(f, file, chunks);
	assert_int_equal(commit_chunks(f, file, 0, 8), OK);
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(attr(f, file)->chunks, chunks - RECLAIM_CHUNKS_MAX);
	invariants_check(f->kv);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(attr(f, file)->chunks, 1);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(run_getattr(f, MESSAGE(Getattr, getattr, .inode = file)), ERR_NOT_FOUND);
	assert_int_equal(reclaim(f, file), OK);
	assert_int_equal(bytes_used(f), 0);
}

static void test_too_many_chunks_for_a_blob(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a");
	allocate_many(f, file, TRUNCATE_CHUNKS_MAX + 1);
	assert_int_equal(commit_blob(f, file, opened_pack(f, 0), 1, 100), ERR_TOO_LARGE);
	assert_int_equal(attr(f, file)->chunks, TRUNCATE_CHUNKS_MAX + 1);
}

/* What the record says of who is to leave, and that it is over: when it has left, or nobody is there in its place. */
static uint64_t moving_from(struct fixture *f, uint64_t id)
{
	Granary__Chunk *chunk = NULL;
	assert_int_equal(meta_chunk(f->meta, id, &chunk), OK);
	uint64_t server = chunk->moving_from;
	message_free(&chunk->base);
	return server;
}

static void test_copy_moves(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), chunk;
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	server_add(f, 4);
	uint64_t all[] = {1, 2, 3, 4}, rest[] = {2, 3, 4}, first[] = {1}, last[] = {4};
	Granary__ChunkChange join = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 1, .replicas = all, .n_replicas = 4,
					    .join = 4, .moving_from = 1);
	assert_int_equal(run_chunk_change(f, join), OK);
	assert_int_equal(moving_from(f, chunk), 1);
	/* Who joins is left out again. */
	assert_int_equal(run_chunk_change(f, MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 2, .replicas = all,
						     .n_replicas = 3, .dropped = last, .n_dropped = 1)), OK);
	assert_int_equal(moving_from(f, chunk), 0);
	join.version = 3;
	assert_int_equal(run_chunk_change(f, join), OK);
	Granary__ChunkChange complete = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 4, .join = 4, .complete = true);
	assert_int_equal(run_chunk_change(f, complete), OK);
	assert_int_equal(moving_from(f, chunk), 1);
	assert_int_equal(run_chunk_change(f, MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 4, .replicas = rest,
						     .n_replicas = 3, .dropped = first, .n_dropped = 1)), OK);
	assert_int_equal(moving_from(f, chunk), 0);
}

static void test_chunk_change(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), chunk;
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	uint64_t two[] = {1, 3}, gone[] = {2}, none[] = {0}, twice[] = {1, 1};
	Granary__ChunkChange change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 1, .replicas = two,
					      .n_replicas = 2, .dropped = gone, .n_dropped = 1);
	assert_int_equal(run_chunk_change(f, change), OK);
	assert_int_equal(f->result->chunks[0]->version, 2);
	assert_int_equal(f->result->chunks[0]->n_replicas, 2);
	assert_true(f->effects.garbage_added);
	assert_int_equal(garbage_count(f), 1);
	assert_int_equal(run_chunk_change(f, change), ERR_STALE_VERSION);
	assert_int_equal(f->result->chunks[0]->version, 2);
	change.version = 2;
	change.replicas = none;
	change.n_replicas = 1;
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID);
	change.replicas = twice;
	change.n_replicas = 2;
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID);
	change.n_replicas = 0;
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID);
	change.replicas = two;
	change.n_replicas = 2;
	change.dropped = two;
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID);
	change.chunk = 9999;
	assert_int_equal(run_chunk_change(f, change), ERR_NO_CHUNK);
}

static const Granary__ChunkLocation *changed(struct fixture *f)
{
	assert_int_equal(f->result->n_chunks, 1);
	return f->result->chunks[0];
}

/* 2 is left out, 4 joins, is complete. */
static void test_chunk_join(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), chunk;
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	uint64_t joined[] = {1, 3, 4}, moved[] = {4, 1, 3}, alone[] = {4}, gone[] = {2}, left[] = {1, 3};
	Granary__ChunkChange change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 1, .replicas = moved,
					      .n_replicas = 3, .dropped = gone, .n_dropped = 1, .join = 4);
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID); /* not the last */
	change.replicas = alone;
	change.n_replicas = 1;
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID); /* nobody who has anything */
	change.replicas = joined;
	change.n_replicas = 3;
	change.join = 3;
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID); /* is a member */
	change.join = 4;
	assert_int_equal(run_chunk_change(f, change), OK);
	assert_int_equal(changed(f)->version, 2);
	assert_true(changed(f)->replicas[2]->joining && !changed(f)->replicas[1]->joining);
	Granary__Chunk *record = NULL;
	assert_int_equal(meta_chunk(f->meta, chunk, &record), OK);
	assert_int_equal(record->joining, 4);
	assert_int_equal(record->n_stale, 1);
	assert_int_equal(record->stale[0], 2);
	message_free(&record->base);
	assert_int_equal(garbage_count(f), 1); /* to be retired */
	/* It joins once, and is never left with nobody. */
	uint64_t five[] = {1, 3, 4, 5};
	change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 2, .replicas = five,
					       .n_replicas = 4, .join = 5);
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID);
	change.join = 0;
	change.replicas = alone;
	change.n_replicas = 1;
	change.dropped = left;
	change.n_dropped = 2;
	assert_int_equal(run_chunk_change(f, change), ERR_INVALID);
	/* Complete: the version stays, the retired copy is of no use any more. */
	change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 2, .join = 5, .complete = true);
	assert_int_equal(run_chunk_change(f, change), ERR_STALE_VERSION);
	change.join = 4;
	assert_int_equal(run_chunk_change(f, change), OK);
	assert_int_equal(changed(f)->version, 2);
	assert_false(changed(f)->replicas[2]->joining);
	assert_int_equal(meta_chunk(f->meta, chunk, &record), OK);
	assert_int_equal(record->joining, 0);
	assert_int_equal(record->n_stale, 0);
	message_free(&record->base);
	assert_int_equal(garbage_count(f), 2);
	assert_int_equal(run_chunk_change(f, change), ERR_STALE_VERSION);
}

/* One that was left out joins again; one that joins is left out. */
static void test_chunk_join_again(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "a"), chunk;
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	uint64_t two[] = {1, 3}, again[] = {1, 3, 2}, gone[] = {2};
	Granary__ChunkChange change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 1, .replicas = two,
					      .n_replicas = 2, .dropped = gone, .n_dropped = 1);
	Granary__Chunk *record = NULL;
	assert_int_equal(run_chunk_change(f, change), OK);
	change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 2, .replicas = again,
					       .n_replicas = 3, .join = 2);
	assert_int_equal(run_chunk_change(f, change), OK);
	assert_int_equal(meta_chunk(f->meta, chunk, &record), OK);
	assert_int_equal(record->n_stale, 0);
	message_free(&record->base);
	change = MESSAGE(ChunkChange, chunk_change, .chunk = chunk, .version = 3, .replicas = two,
					       .n_replicas = 2, .dropped = gone, .n_dropped = 1);
	assert_int_equal(run_chunk_change(f, change), OK);
	assert_int_equal(meta_chunk(f->meta, chunk, &record), OK);
	assert_int_equal(record->joining, 0);
	assert_int_equal(record->n_stale, 1);
	message_free(&record->base);
}

/* ---- blobs */

static void test_blob(void **state)
{
	struct fixture *f = *state;
	uint64_t pack = opened_pack(f, 0), file = made_file(f, ROOT, "a");
	assert_int_equal(f->result->error, OK);
	assert_int_equal(commit_blob(f, file, pack, 1, 1000), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_BLOB);
	assert_int_equal(f->result->attr->size, 1000);
	assert_int_equal(f->result->attr->blocks, 2);
	assert_int_equal(bytes_used(f), 1024);
	/* One round trip: every way to the inode says where the pack is. */
	assert_int_equal(lookup(f, ROOT, "a"), OK);
	assert_int_equal(f->result->chunks[0]->chunk, pack);
	assert_string_equal(f->result->chunks[0]->replicas[0]->address, "127.0.0.1:7002");
	assert_int_equal(run_open(f, MESSAGE(Open, open, .inode = file)), OK);
	assert_int_equal(f->result->chunks[0]->chunk, pack);
	assert_int_equal(run_walk(f, MESSAGE(Walk, walk, .path = text("/a"))), OK);
	assert_int_equal(f->result->chunks[0]->chunk, pack);
	assert_int_equal(run_getattr(f, MESSAGE(Getattr, getattr, .inode = file)), OK);
	assert_int_equal(f->result->n_chunks, 1);
	/* Again, with another content, and with none. */
	assert_int_equal(commit_blob(f, file, pack, 1, 1000), OK);
	assert_int_equal(garbage_count(f), 0);
	assert_int_equal(commit_blob(f, file, pack, 1, 999), ERR_INVALID);
	assert_int_equal(commit_blob(f, file, pack, 2, 3000), OK);
	assert_int_equal(garbage_count(f), 1);
	assert_int_equal(commit_blob(f, file, 0, 0, 0), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_EMPTY);
	assert_int_equal(f->result->attr->size, 0);
	assert_int_equal(garbage_count(f), 2);
	assert_int_equal(bytes_used(f), 0);
	assert_int_equal(commit_blob(f, file, 9999, 1, 10), ERR_PACK_FULL);
	assert_int_equal(commit_blob(f, file, pack, 0, 10), ERR_INVALID);
	assert_int_equal(commit_blob(f, file, pack, 3, BLOB_BYTES_MAX + 1), ERR_TOO_LARGE);
	assert_int_equal(commit_blob(f, ROOT, pack, 3, 10), ERR_IS_DIRECTORY);
	uint64_t chunk;
	assert_int_equal(allocate(f, file, 0, &chunk), OK);
	assert_int_equal(commit_blob(f, file, chunk, 3, 10), ERR_INVALID);
	/* In place of chunks. */
	assert_int_equal(commit_blob(f, file, pack, 3, BLOB_BYTES_MAX), OK);
	assert_int_equal(f->result->attr->chunks, 0);
	assert_int_equal(garbage_count(f), 3);
	Granary__CommitBlob times = MESSAGE(CommitBlob, commit_blob, .inode = file, .pack = pack, .slot = 4, .bytes = 5,
					    .mtime = 11, .atime = 12);
	assert_int_equal(run_commit_blob(f, times), OK);
	assert_int_equal(f->result->attr->mtime, 11);
	assert_int_equal(f->result->attr->atime, 12);
}

static void test_truncate_blob(void **state)
{
	struct fixture *f = *state;
	uint64_t pack = opened_pack(f, 0), file = made_file(f, ROOT, "a");
	assert_int_equal(commit_blob(f, file, pack, 1, 1000), OK);
	assert_int_equal(truncate_to(f, file, 600), OK);
	assert_int_equal(f->result->attr->size, 600);
	assert_int_equal(f->result->attr->blob_bytes, 600);
	assert_int_equal(f->result->attr->slot, 1);
	/* The bytes that were cut off do not come back. */
	assert_int_equal(truncate_to(f, file, 5000), OK);
	assert_int_equal(f->result->attr->size, 5000);
	assert_int_equal(f->result->attr->blob_bytes, 600);
	assert_int_equal(truncate_to(f, file, 700), OK);
	assert_int_equal(f->result->attr->blob_bytes, 600);
	invariants_check(f->kv);
	assert_int_equal(truncate_to(f, file, 0), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_EMPTY);
	assert_int_equal(garbage_count(f), 1);
	assert_int_equal(truncate_to(f, file, 10), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_EMPTY);
}

/* A blob that is modified: its content goes to chunks aside, which CommitChunks makes the content. */
static void test_blob_to_chunks(void **state)
{
	struct fixture *f = *state;
	uint64_t pack = opened_pack(f, 0), file = made_file(f, ROOT, "a"), aside;
	assert_int_equal(commit_blob(f, file, pack, 1, 1000), OK);
	assert_int_equal(commit_chunks(f, file, 2000, 4), ERR_INVALID);
	assert_int_equal(allocate(f, file, 0, &aside), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_BLOB);
	assert_int_equal(run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .count = 10)), OK);
	assert_int_equal(f->result->n_chunks, 0);
	assert_int_equal(commit_chunks(f, file, 2000, 4), OK);
	assert_int_equal(f->result->attr->layout, GRANARY__LAYOUT__LAYOUT_CHUNKS);
	assert_int_equal(f->result->attr->size, 2000);
	assert_int_equal(f->result->attr->blob_bytes, 0);
	assert_int_equal(f->result->attr->blocks, 4);
	assert_int_equal(garbage_count(f), 1);
	assert_int_equal(run_chunk_map(f, MESSAGE(ChunkMap, chunk_map, .inode = file, .count = 10)), OK);
	assert_int_equal(f->result->chunks[0]->chunk, aside);
	/* An aside that is not used goes with the blob. */
	uint64_t other = made_file(f, ROOT, "b");
	assert_int_equal(commit_blob(f, other, pack, 2, 1000), OK);
	assert_int_equal(allocate(f, other, 0, &aside), OK);
	assert_int_equal(truncate_to(f, other, 500), OK);
	assert_int_equal(f->result->attr->trim, 500);
	assert_int_equal(remove_file(f, ROOT, "b"), OK);
	assert_int_equal(reclaim(f, other), OK);
	assert_int_equal(garbage_count(f), 3);
}

static void test_packs(void **state)
{
	struct fixture *f = *state;
	uint64_t packs[OPEN_PACKS_MAX];
	for (size_t i = 0; i < OPEN_PACKS_MAX; i++)
		packs[i] = opened_pack(f, 0);
	assert_int_equal(chunk_count(f), OPEN_PACKS_MAX);
	/* Enough are open: one of them. */
	uint64_t shared = opened_pack(f, 0);
	assert_int_equal(chunk_count(f), OPEN_PACKS_MAX);
	bool is_known = false;
	for (size_t i = 0; i < OPEN_PACKS_MAX; i++)
		is_known = is_known || packs[i] == shared;
	assert_true(is_known);
	/* A full one with blobs stays until the last of them goes. */
	uint64_t a = made_file(f, ROOT, "a"), b = made_file(f, ROOT, "b");
	assert_int_equal(commit_blob(f, a, packs[0], 1, 100), OK);
	uint64_t next = opened_pack(f, packs[0]);
	assert_true(next != packs[0]);
	assert_int_equal(chunk_count(f), OPEN_PACKS_MAX + 1);
	assert_int_equal(commit_blob(f, b, packs[0], 2, 100), OK);
	assert_int_equal(remove_file(f, ROOT, "a"), OK);
	assert_int_equal(reclaim(f, a), OK);
	assert_int_equal(chunk_count(f), OPEN_PACKS_MAX + 1);
	uint64_t before = garbage_count(f);
	assert_int_equal(commit_blob(f, b, next, 1, 100), OK);
	assert_int_equal(chunk_count(f), OPEN_PACKS_MAX);
	assert_int_equal(garbage_count(f), before + 1);
	assert_int_equal(commit_blob(f, b, packs[0], 3, 100), ERR_PACK_FULL);
	/* The last blob of a sealed pack is replaced by a later one of the same pack. */
	opened_pack(f, next);
	assert_int_equal(commit_blob(f, b, next, 2, 100), OK);
	assert_int_equal(attr(f, b)->slot, 2);
	/* Sealed by the master; empty, so gone. */
	Granary__ChunkChange seal = MESSAGE(ChunkChange, chunk_change, .chunk = packs[3], .version = 1, .seal = true);
	assert_int_equal(run_chunk_change(f, seal), OK);
	assert_int_equal(run_chunk_change(f, seal), ERR_NO_CHUNK);
}

/* Blobs of one pack that go together are one Garbage. */
static void test_garbage(void **state)
{
	struct fixture *f = *state;
	uint64_t pack = opened_pack(f, 0), files[10];
	for (uint32_t i = 0; i < 10; i++) {
		char name[8];
		snprintf(name, sizeof(name), "%u", i);
		files[i] = made_file(f, ROOT, name);
		assert_int_equal(commit_blob(f, files[i], pack, i + 1, 100), OK);
		assert_int_equal(remove_file(f, ROOT, name), OK);
	}
	assert_int_equal(run_reclaim(f, MESSAGE(Reclaim, reclaim, .inodes = files, .n_inodes = 10)), OK);
	assert_int_equal(garbage_count(f), 1);
	assert_true(f->effects.garbage_added);
	for (uint64_t server = 2; server <= 4; server++) {
		assert_int_equal(garbage_count(f), 1);
		Granary__GarbageDone done = MESSAGE(GarbageDone, garbage_done, .garbage = 1, .server = server);
		assert_int_equal(run_garbage_done(f, done), OK);
		assert_int_equal(run_garbage_done(f, done), OK);
	}
	assert_int_equal(garbage_count(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_allocate_and_map, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_written, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_truncate_chunks, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_large_file_is_freed_in_steps, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_too_many_chunks_for_a_blob, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_copy_moves, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_chunk_change, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_chunk_join, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_chunk_join_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_blob, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_truncate_blob, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_blob_to_chunks, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_packs, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
