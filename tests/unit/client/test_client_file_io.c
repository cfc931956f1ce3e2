/* What file_io promises, on a fake cluster without faults. */
#include "tests/unit/client/client_fixture.h"

static struct fake_cluster cluster;
static struct client *client;

static int setup(void **state)
{
	(void)state;
	fake_cluster_open(&cluster, 3);
	client = fixture_client(&cluster, 10000);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	client_close(client);
	fake_cluster_close(&cluster);
	return 0;
}

#define TOTAL(field) FIXTURE_TOTAL(&cluster, field)

static void expect_elsewhere(uint64_t inode, const uint8_t *bytes, size_t size)
{
	fixture_expect_elsewhere(&cluster, inode, bytes, size);
}

static void test_small_file_is_one_append(void **state)
{
	uint64_t inode, appends = TOTAL(appends);
	uint8_t *bytes = fixture_bytes(5000, 1);
	struct file_io *io = fixture_create(&cluster, client, "small", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 3000), OK);
	fixture_expect(&cluster, io, bytes, 3000);
	assert_int_equal(fixture_write(&cluster, io, 3000, bytes + 3000, 2000), OK);
	assert_true(file_io_dirty(io));
	fixture_expect(&cluster, io, bytes, 5000);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_false(file_io_dirty(io));
	assert_int_equal(TOTAL(appends), appends + 1);
	assert_int_equal(file_io_attr(io)->layout, GRANARY__LAYOUT__LAYOUT_BLOB);
	fixture_expect(&cluster, io, bytes, 5000);
	expect_elsewhere(inode, bytes, 5000);
	fixture_close(client, io, inode);
	free(bytes);
}

static void test_large_file_streams(void **state)
{
	uint64_t inode;
	size_t size = 5 * MIB + 12345;
	uint8_t *bytes = fixture_bytes(size, 2);
	struct file_io *io = fixture_create(&cluster, client, "large", &inode);
	(void)state;
	for (size_t at = 0; at < size; at += 100000)
		assert_int_equal(fixture_write(&cluster, io, at, bytes + at, size - at < 100000 ? size - at : 100000),
				 OK);
	fixture_expect(&cluster, io, bytes, size);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	assert_int_equal(file_io_attr(io)->layout, GRANARY__LAYOUT__LAYOUT_CHUNKS);
	assert_int_equal(TOTAL(syncs), 1);
	expect_elsewhere(inode, bytes, size);
	fixture_close(client, io, inode);
	free(bytes);
}

static void test_modified_blob_gets_chunks(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(9000, 3);
	struct file_io *io = fixture_create(&cluster, client, "modified", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 8000), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	bytes[100] ^= 1;
	assert_int_equal(fixture_write(&cluster, io, 100, bytes + 100, 1), OK);
	assert_int_equal(fixture_write(&cluster, io, 8000, bytes + 8000, 1000), OK);
	fixture_expect(&cluster, io, bytes, 9000);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_int_equal(file_io_attr(io)->layout, GRANARY__LAYOUT__LAYOUT_CHUNKS);
	expect_elsewhere(inode, bytes, 9000);
	/* Written from scratch it is a blob again. */
	assert_int_equal(fixture_truncate(&cluster, io, 0), OK);
	fixture_expect(&cluster, io, bytes, 0);
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, 700), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_int_equal(file_io_attr(io)->layout, GRANARY__LAYOUT__LAYOUT_BLOB);
	expect_elsewhere(inode, bytes, 700);
	fixture_close(client, io, inode);
	free(bytes);
}

static void test_synced_overwrite_is_one_round_trip(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(MIB, 4);
	struct file_io *io = fixture_create(&cluster, client, "overwrite", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, MIB), OK);
	assert_int_equal(fixture_flush(&cluster, io, true), OK);
	uint64_t writes = TOTAL(writes), syncs = TOTAL(syncs), synced = TOTAL(synced_writes),
		 change = file_io_attr(io)->change;
	for (unsigned i = 0; i < 10; i++) {
		uint64_t at = (i * 37 % 256) * 4096ull;
		bytes[at + 5] ^= 0x55;
		assert_int_equal(fixture_write(&cluster, io, at, bytes + at, 4096), OK);
		assert_int_equal(fixture_flush(&cluster, io, true), OK);
	}
	assert_int_equal(TOTAL(writes), writes + 10);
	assert_int_equal(TOTAL(synced_writes), synced + 10);
	assert_int_equal(TOTAL(syncs), syncs);
	assert_int_equal(file_io_attr(io)->change, change);
	fixture_expect(&cluster, io, bytes, MIB);
	/* The mtime follows. */
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	assert_true(file_io_attr(io)->change > change);
	expect_elsewhere(inode, bytes, MIB);
	fixture_close(client, io, inode);
	free(bytes);
}

static void test_holes_and_ends(void **state)
{
	uint64_t inode;
	uint8_t *bytes = mem_zero(1, 2 * MIB);
	size_t done;
	struct file_io *io = fixture_create(&cluster, client, "holes", &inode);
	(void)state;
	memset(bytes + MIB + 10, 7, 100);
	assert_int_equal(fixture_write(&cluster, io, MIB + 10, bytes + MIB + 10, 100), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	fixture_expect(&cluster, io, bytes, MIB + 110);
	assert_int_equal(fixture_truncate(&cluster, io, 2 * MIB), OK);
	fixture_expect(&cluster, io, bytes, 2 * MIB);
	/* A chunk that was never made. */
	assert_int_equal(fixture_truncate(&cluster, io, 3ull * CHUNK_BYTES), OK);
	uint8_t tail[16];
	memset(tail, 1, sizeof tail);
	assert_int_equal(fixture_read(&cluster, io, 3ull * CHUNK_BYTES - 8, tail, 16, &done), OK);
	assert_int_equal(done, 8);
	assert_memory_equal(tail, bytes, 8);
	/* That there is a hole is asked again after a while, and answered. */
	uint64_t start = loop_now_us(cluster.loop);
	while (loop_now_us(cluster.loop) - start < (CACHE_LEASE_MS + 100) * 1000ull)
		loop_run_once(cluster.loop);
	start = loop_now_us(cluster.loop);
	assert_int_equal(fixture_read(&cluster, io, 2ull * CHUNK_BYTES, tail, 8, &done), OK);
	assert_in_range((loop_now_us(cluster.loop) - start) / 1000, 0, 1000);
	assert_memory_equal(tail, bytes, 8);
	/* What was cut off stays cut off. */
	assert_int_equal(fixture_truncate(&cluster, io, MIB + 50), OK);
	assert_int_equal(fixture_truncate(&cluster, io, 2 * MIB), OK);
	memset(bytes + MIB + 50, 0, 100);
	fixture_expect(&cluster, io, bytes, 2 * MIB);
	expect_elsewhere(inode, bytes, 2 * MIB);
	fixture_close(client, io, inode);
	free(bytes);
}

/* What another client left unsynced is covered by our first sync, and only by that one; holes cost nothing. */
static void test_first_sync_covers_others(void **state)
{
	uint64_t inode;
	uint8_t *bytes = fixture_bytes(MIB, 9);
	struct file_io *io = fixture_create(&cluster, client, "first", &inode);
	(void)state;
	assert_int_equal(fixture_write(&cluster, io, 0, bytes, MIB), OK);
	assert_int_equal(fixture_write(&cluster, io, 500ull * CHUNK_BYTES, bytes, MIB), OK);
	assert_int_equal(fixture_flush(&cluster, io, false), OK);
	struct client *other = fixture_client(&cluster, 10000);
	struct file_io *io_other = fixture_open(&cluster, other, inode);
	uint64_t syncs = TOTAL(syncs);
	assert_int_equal(fixture_flush(&cluster, io_other, true), OK);
	assert_int_equal(TOTAL(syncs), syncs + 2);
	assert_int_equal(fixture_flush(&cluster, io_other, true), OK);
	assert_int_equal(TOTAL(syncs), syncs + 2);
	/* The largest file there is, all hole but for its end. */
	assert_int_equal(fixture_truncate(&cluster, io_other, FILE_BYTES_MAX), OK);
	fixture_close(other, io_other, inode);
	fixture_leave(&cluster, other);
	other = fixture_client(&cluster, 10000);
	io_other = fixture_open(&cluster, other, inode);
	assert_int_equal(fixture_flush(&cluster, io_other, true), OK);
	assert_int_equal(TOTAL(syncs), syncs + 4);
	fixture_close(other, io_other, inode);
	fixture_leave(&cluster, other);
	fixture_close(client, io, inode);
	free(bytes);
}

/* ---- random operations against a model, several of them under way at a time ---- */

struct model {
	struct file_io *io;
	uint8_t *bytes;
	size_t size, most;
	unsigned outstanding;
};

struct model_read {
	struct model *model;
	uint8_t *wanted;
	size_t size;
};

static void model_read_done(void *arg, enum err err, const struct slice *parts, size_t part_count)
{
	struct model_read *read = arg;
	size_t at = 0;
	assert_int_equal(err, OK);
	for (size_t i = 0; i < part_count; i++) {
		assert_true(parts[i].size <= read->size - at);
		assert_memory_equal(parts[i].bytes, read->wanted + at, parts[i].size);
		at += parts[i].size;
	}
	assert_int_equal(at, read->size);
	read->model->outstanding--;
	free(read->wanted);
	free(read);
}

static void model_done(void *arg, enum err err)
{
	struct model *model = arg;
	assert_int_equal(err, OK);
	model->outstanding--;
}

static void model_settle(struct model *model, unsigned outstanding)
{
	uint64_t start = loop_now_us(cluster.loop);
	while (model->outstanding > outstanding) {
		loop_run_once(cluster.loop);
		assert_true(loop_now_us(cluster.loop) - start < 20000000);
	}
}

static void model_write(struct model *model, struct rng *rng)
{
	size_t limit = rng_below(rng, 4) == 0 ? model->most : model->most / 8;
	size_t offset = rng_below(rng, limit);
	size_t size = 1 + rng_below(rng, rng_below(rng, 3) == 0 ? 300000 : 5000);
	size = size < model->most - offset ? size : model->most - offset;
	memset(model->bytes + offset, (int)rng_below(rng, 256), size);
	model->bytes[offset + size / 2] = (uint8_t)rng_next(rng);
	model->size = offset + size > model->size ? offset + size : model->size;
	file_io_write(model->io, offset, slice_of(model->bytes + offset, size), model_done, model);
}

/* As the mount does it: pieces in buffers that are given up at once. Whole windows of the file, as a rule. */
static void model_write_parts(struct model *model, struct rng *rng)
{
	struct file_part parts[4];
	size_t windows = model->most / FRAME_DATA_BYTES_MAX;
	size_t offset = rng_below(rng, windows) * FRAME_DATA_BYTES_MAX + (rng_below(rng, 4) == 0 ? rng_below(rng, 5000) : 0);
	size_t count = 1 + rng_below(rng, 4), at = offset;
	for (size_t i = 0; i < count; i++) {
		size_t size = i + 1 == count && rng_below(rng, 3) == 0 ? 1 + rng_below(rng, 9000) : FRAME_DATA_BYTES_MAX;
		size = size < model->most - at ? size : model->most - at;
		memset(model->bytes + at, (int)rng_below(rng, 256), size);
		parts[i].iobuf = iobuf_open(FRAME_DATA_BYTES_MAX);
		memcpy(parts[i].iobuf->bytes, model->bytes + at, size);
		parts[i].bytes = slice_of(parts[i].iobuf->bytes, size);
		at += size;
	}
	model->size = at > model->size ? at : model->size;
	file_io_write_parts(model->io, offset, parts, count, model_done, model);
	for (size_t i = 0; i < count; i++)
		iobuf_unref(parts[i].iobuf);
}

/* A read sees what was written before it, and may see what is written after it: so nothing is until it is done. */
static void model_read(struct model *model, struct rng *rng)
{
	struct model_read *read = mem_zero(1, sizeof *read);
	size_t offset = rng_below(rng, model->most);
	size_t size = 1 + rng_below(rng, 400000);
	read->model = model;
	read->size = offset >= model->size ? 0 : size < model->size - offset ? size : model->size - offset;
	read->wanted = mem_alloc(read->size + 1);
	memcpy(read->wanted, model->bytes + offset, read->size);
	file_io_read(model->io, offset, size, model_read_done, read);
	model_settle(model, 0);
}

static void model_truncate(struct model *model, struct rng *rng)
{
	size_t size = rng_below(rng, 3) == 0 ? 0 : rng_below(rng, model->most);
	if (size < model->size)
		memset(model->bytes + size, 0, model->size - size);
	model->size = size;
	file_io_truncate(model->io, size, model_done, model);
}

static void run_model(uint64_t seed, size_t most, unsigned steps)
{
	struct rng rng;
	char name[32];
	uint64_t inode;
	rng_init(&rng, seed);
	snprintf(name, sizeof name, "model%llu", (unsigned long long)seed);
	struct model model = {.bytes = mem_zero(1, most), .most = most};
	model.io = fixture_create(&cluster, client, name, &inode);
	for (unsigned i = 0; i < steps; i++) {
		uint64_t what = rng_below(&rng, 20);
		model.outstanding++;
		if (what < 12 && (what < 9 || most < FRAME_DATA_BYTES_MAX))
			model_write(&model, &rng);
		else if (what < 12)
			model_write_parts(&model, &rng);
		else if (what < 16)
			model_read(&model, &rng);
		else if (what < 17)
			model_truncate(&model, &rng);
		else if (what < 19)
			file_io_flush(model.io, model_done, &model);
		else
			file_io_sync(model.io, model_done, &model);
		model_settle(&model, (unsigned)rng_below(&rng, 8));
	}
	model_settle(&model, 0);
	fixture_expect(&cluster, model.io, model.bytes, model.size);
	assert_int_equal(fixture_flush(&cluster, model.io, false), OK);
	expect_elsewhere(inode, model.bytes, model.size);
	fixture_close(client, model.io, inode);
	free(model.bytes);
}

static void test_model(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 12; seed++)
		run_model(seed, seed % 3 == 0 ? 200000 : 3 * MIB, 120);
}

struct copied {
	bool done;
	enum err err;
	uint64_t bytes;
};

static void copy_done(void *arg, enum err err, uint64_t bytes)
{
	struct copied *copied = arg;
	*copied = (struct copied){true, err, bytes};
}

static void copy(struct model *from, size_t from_offset, struct model *to, size_t to_offset, size_t size)
{
	struct copied copied = {0};
	size_t wanted = from_offset >= from->size ? 0 : size < from->size - from_offset ? size : from->size - from_offset;
	uint64_t start = loop_now_us(cluster.loop);
	file_io_copy(from->io, from_offset, to->io, to_offset, size, copy_done, &copied);
	while (!copied.done) {
		loop_run_once(cluster.loop);
		assert_true(loop_now_us(cluster.loop) - start < 20000000);
	}
	assert_int_equal(copied.err, OK);
	assert_int_equal(copied.bytes, wanted);
	memmove(to->bytes + to_offset, from->bytes + from_offset, wanted);
	if (wanted > 0 && to_offset + wanted > to->size)
		to->size = to_offset + wanted;
}

/* From what is small, a blob, in chunks, and not yet flushed, to anywhere; and within one file. */
static void test_copy(void **state)
{
	const size_t most = 12 * MIB;
	struct model models[2];
	uint64_t inodes[2];
	struct rng rng;
	(void)state;
	rng_init(&rng, 7);
	for (int i = 0; i < 2; i++) {
		models[i] = (struct model){.bytes = mem_zero(1, most), .most = most / 2};
		models[i].io = fixture_create(&cluster, client, i == 0 ? "copy_a" : "copy_b", &inodes[i]);
	}
	for (unsigned i = 0; i < 60; i++) {
		struct model *from = &models[rng_below(&rng, 2)], *to = &models[rng_below(&rng, 2)];
		size_t unit = rng_below(&rng, 2) == 0 ? 1 : FRAME_DATA_BYTES_MAX;
		size_t size = (1 + rng_below(&rng, 2 * MIB) / unit) * unit;
		size_t from_offset = rng_below(&rng, i < 10 ? 1000 : most / 4) / unit * unit;
		size_t to_offset = from == to ? most / 2 : rng_below(&rng, most / 4) / unit * unit;
		from->outstanding++;
		if (i < 10)
			size = size % 20000 + 1, file_io_write(from->io, 0, slice_of(from->bytes, 1), model_done, from);
		else
			model_write(from, &rng);
		from->size = from->size ? from->size : 1;
		if (rng_below(&rng, 3) == 0) {
			from->outstanding++;
			file_io_flush(from->io, model_done, from);
		}
		copy(from, from_offset, to, to_offset, size);
	}
	for (int i = 0; i < 2; i++) {
		model_settle(&models[i], 0);
		assert_int_equal(fixture_flush(&cluster, models[i].io, true), OK);
		fixture_expect(&cluster, models[i].io, models[i].bytes, models[i].size);
		expect_elsewhere(inodes[i], models[i].bytes, models[i].size);
		fixture_close(client, models[i].io, inodes[i]);
		free(models[i].bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_small_file_is_one_append, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_large_file_streams, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_modified_blob_gets_chunks, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_synced_overwrite_is_one_round_trip, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_holes_and_ends, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_first_sync_covers_others, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_model, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
