/* Logical, stored and physical sizes of chunks and files, hot and cold. */
#include "tests/unit/meta/meta_fixture.h"
#include "tests/unit/meta/meta_invariants.h"

static int setup(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	fixture_open(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	invariants_check(f->kv);
	fixture_close(f);
	free(f);
	return 0;
}

static struct inode_sizes sizes_of(struct fixture *f, uint64_t inode)
{
	struct inode_sizes sizes;
	uint32_t next;
	assert_int_equal(meta_inode_sizes(f->meta, inode, 0, 100, &sizes, &next), OK);
	assert_int_equal(next, 0);
	return sizes;
}

static void sizes_are(struct inode_sizes sizes, uint64_t logical, uint64_t stored, uint64_t physical)
{
	assert_int_equal(sizes.data.logical, logical);
	assert_int_equal(sizes.data.stored, stored);
	assert_int_equal(sizes.data.physical, physical);
}

/* As 2+1, with so much in its shards. */
static Granary__Coding coding_of(uint64_t *shards, uint32_t *firsts)
{
	static uint64_t next = 500000;
	for (unsigned i = 0; i < 3; i++)
		shards[i] = next++;
	return MESSAGE(Coding, coding, .data_shards = 2, .parity_shards = 1, .n_shards = 3, .shards = shards, .n_firsts = 2,
		       .firsts = firsts);
}

static void cool(struct fixture *f, uint64_t chunk, uint64_t raw, uint64_t stored, uint32_t shard_bytes)
{
	Granary__Chunk *record;
	uint64_t shards[3], servers[3] = {2, 3, 4};
	uint32_t firsts[2] = {0, 1};
	Granary__Coding coding = coding_of(shards, firsts);
	assert_int_equal(meta_chunk(f->meta, chunk, &record), OK);
	uint64_t version = record->version;
	message_free(&record->base);
	assert_int_equal(run_cool_begin(f, MESSAGE(CoolBegin, cool_begin, .chunk = chunk, .version = version, .coding = &coding,
						   .n_servers = 3, .servers = servers)),
			 OK);
	coding.raw_bytes = raw;
	coding.stored_bytes = stored;
	coding.shard_bytes = shard_bytes;
	assert_int_equal(
	    run_cool_commit(f, MESSAGE(CoolCommit, cool_commit, .chunk = chunk, .version = version + 1, .coding = &coding)), OK);
}

static void test_file(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "file"), chunks[3];
	uint64_t size = 2ull * CHUNK_BYTES + 1000;
	sizes_are(sizes_of(f, file), 0, 0, 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(allocate(f, file, i, &chunks[i]), OK);
	assert_int_equal(run_commit_chunks(f, MESSAGE(CommitChunks, commit_chunks, .inode = file, .size = size, .blocks = (size + 4095) / 4096 * 8,
						      .n_written = 3, .written = chunks)),
			 OK);
	struct inode_sizes sizes = sizes_of(f, file);
	sizes_are(sizes, size, size, 3 * size);
	assert_int_equal(sizes.chunks, 3);
	assert_int_equal(sizes.cold_chunks, 0);
	/* In parts. */
	struct inode_sizes part;
	uint32_t next;
	assert_int_equal(meta_inode_sizes(f->meta, file, 0, 2, &part, &next), OK);
	assert_int_equal(next, 2);
	sizes_are(part, 2ull * CHUNK_BYTES, 2ull * CHUNK_BYTES, 6ull * CHUNK_BYTES);
	assert_int_equal(meta_inode_sizes(f->meta, file, next, 2, &part, &next), OK);
	assert_int_equal(next, 0);
	sizes_are(part, 1000, 1000, 3000);
	/* One of them cold. */
	cool(f, chunks[1], CHUNK_BYTES, CHUNK_BYTES / 4, CHUNK_BYTES / 8);
	sizes = sizes_of(f, file);
	sizes_are(sizes, size, CHUNK_BYTES + 1000 + CHUNK_BYTES / 4, 3 * (CHUNK_BYTES + 1000ull) + 3 * CHUNK_BYTES / 8);
	assert_int_equal(sizes.cold_chunks, 1);
	assert_int_equal(meta_inode_sizes(f->meta, 987654, 0, 2, &part, &next), ERR_NOT_FOUND);
}

/* Of a file with holes each chunk counts for its share of what was written. */
static void test_holes(void **state)
{
	struct fixture *f = *state;
	uint64_t file = made_file(f, ROOT, "holes"), chunks[2];
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(allocate(f, file, i * 10, &chunks[i]), OK);
	assert_int_equal(run_commit_chunks(f, MESSAGE(CommitChunks, commit_chunks, .inode = file, .size = 11ull * CHUNK_BYTES, .blocks = 16,
						      .n_written = 2, .written = chunks)),
			 OK);
	assert_int_equal(sizes_of(f, file).data.stored, 8192);
}

static void test_blobs(void **state)
{
	struct fixture *f = *state;
	uint64_t a = made_file(f, ROOT, "a"), b = made_file(f, ROOT, "b"), pack = opened_pack(f, 0);
	assert_int_equal(commit_blob(f, a, pack, 1, 3000), OK);
	assert_int_equal(commit_blob(f, b, pack, 2, 1000), OK);
	sizes_are(sizes_of(f, a), 3000, 3000, 9000);
	opened_pack(f, pack); /* which seals it */
	cool(f, pack, 4000, 1000, 700);
	sizes_are(sizes_of(f, a), 3000, 750, 3000 * 2100 / 4000);
	sizes_are(sizes_of(f, b), 1000, 250, 1000 * 2100 / 4000);
	assert_int_equal(sizes_of(f, a).cold_chunks, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_file, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_blobs, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
