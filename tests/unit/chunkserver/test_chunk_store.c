/* The store: what it makes of a data folder after a crash, and of things that do not belong there. */
#include "tests/unit/chunkserver/files.h"

#include <signal.h>
#include <sys/wait.h>

#include "chunkserver/chunk_store.h"
#include "chunkserver/chunk_sync.h"
#include "chunkserver/intents.h"
#include "common/base/bytes.h"
#include "common/base/crc32c.h"

#define CHUNK 0xabcdefull
#define WAIT_US 20000000u

struct watcher {
	unsigned opened;
	enum err err;
};

static void on_opened(void *arg, struct chunk *chunk, enum err err)
{
	struct watcher *watcher = arg;
	(void)chunk;
	watcher->opened++;
	watcher->err = err;
}

static void on_closing(void *arg, struct chunk *chunk)
{
	(void)arg;
	(void)chunk;
}

static void on_missing(void *arg, uint64_t chunk)
{
	(void)arg;
	assert_int_equal(chunk, CHUNK);
}

static const struct chunk_store_events events = {
	.opened = on_opened, .closing = on_closing, .abandon = on_closing, .damaged = on_closing, .missing = on_missing
};

static void note_closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_store(struct chunk_store *store)
{
	bool closed = false;
	chunk_store_close(store, note_closed, &closed);
	assert_true(closed);
}

#define WAIT_FOR(loop, condition)                                                                  \
	do {                                                                                       \
		uint64_t until = loop_now_us(loop) + WAIT_US;                                      \
		while (!(condition)) {                                                             \
			assert_true(loop_now_us(loop) < until);                                    \
			loop_run_once(loop);                                                       \
		}                                                                                  \
	} while (0)

static struct chunk_store *open_store(struct place *place, struct watcher *watcher)
{
	struct chunk_store *store = NULL;
	struct chunk_store_options options = { .root = place->root, .reserved_bytes = 1 };
	*watcher = (struct watcher){ 0 };
	assert_int_equal(chunk_store_open(place->loop, &options, &events, watcher, &store), OK);
	return store;
}

static struct chunk *get(struct place *place, struct chunk_store *store, struct watcher *watcher, uint64_t id, bool create)
{
	struct chunk *chunk = NULL;
	struct chunk_create fresh = { .kind = KIND_REPLICATED, .version = 4 };
	unsigned before = watcher->opened;
	assert_int_equal(chunk_store_get(store, id, create ? &fresh : NULL, &chunk), OK);
	WAIT_FOR(place->loop, watcher->opened > before);
	return watcher->err == OK ? chunk : NULL;
}

static void write_blocks(struct chunk *chunk, uint32_t offset, uint8_t value, uint32_t count)
{
	static uint8_t bytes[16 * BLOCK_BYTES];
	uint8_t crcs[16 * 4];
	memset(bytes, value, sizeof(bytes));
	for (uint32_t i = 0; i < count; i++)
		put_le32(crcs + 4u * i, crc32c(bytes, BLOCK_BYTES));
	struct chunk_file_write write = { .offset = offset,
					  .data = slice_of(bytes, count * BLOCK_BYTES),
					  .crcs = slice_of(crcs, 4u * count),
					  .blocks_before = chunk->file.blocks };
	chunk->writes_begun++;
	assert_int_equal(chunk_file_write(&chunk->file, &write), OK);
	chunk->writes_ended++;
	if (block_end(offset, count * BLOCK_BYTES) > chunk->file.blocks)
		chunk->file.blocks = block_end(offset, count * BLOCK_BYTES);
}

/* A life of the process that ends by SIGKILL with a write in flight: block 2 has data that its CRC does not know. */
static void live_and_be_killed(struct place *place)
{
	loop_close(place->loop);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct watcher watcher;
		if (loop_open(&place->loop) != OK)
			_exit(1);
		struct chunk_store *store = open_store(place, &watcher);
		struct chunk *chunk = get(place, store, &watcher, CHUNK, true);
		write_blocks(chunk, 0, 'a', 8);
		struct intents *intents = chunk_store_intents(store);
		struct intent intent = { CHUNK, 2, 4 };
		if (intents_write(intents, intents_take(intents), &intent) != OK)
			_exit(1);
		if (file_write(chunk->file.file, CHUNK_DATA_OFFSET + 2 * BLOCK_BYTES, "in flight", 9) != OK)
			_exit(1);
		raise(SIGKILL);
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(loop_open(&place->loop), OK);
}

/* Rot in a chunk that was being written elsewhere is not taken for a write that was cut off. */
static void rot_is_told_from_writes(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct file *file = NULL;
	live_and_be_killed(place);
	struct store_files files = { .loop = place->loop, .root = place->root };
	char *path = store_files_path(&files, CHUNK, KIND_REPLICATED);
	assert_int_equal(file_open(place->loop, path, FILE_WRITE, &file), OK);
	assert_int_equal(file_write(file, CHUNK_DATA_OFFSET + 6 * BLOCK_BYTES, "rot", 3), OK);
	file_unref(file);
	free(path);
	struct chunk_store *store = open_store(place, &watcher);
	struct chunk *chunk = get(place, store, &watcher, CHUNK, false);
	assert_true(chunk_is_damaged(chunk, 2, 3) && chunk_is_torn(chunk, 2, 3));
	assert_true(chunk_is_damaged(chunk, 6, 7) && !chunk_is_torn(chunk, 6, 7));
	assert_int_equal(chunk_damage_count(chunk), 2);
	close_store(store);
}

static void killed_process_loses_nothing(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk_store_counts counts;
	live_and_be_killed(place);
	struct chunk_store *store = open_store(place, &watcher);
	chunk_store_counts(store, &counts);
	assert_int_equal(counts.chunks, 1);
	struct chunk *chunk = get(place, store, &watcher, CHUNK, false);
	chunk_store_counts(store, &counts);
	assert_int_equal(counts.damage_found, 0);
	assert_int_equal(chunk->version, 4);
	assert_int_equal(chunk->file.blocks, 8);
	/* What was in flight is torn: not read before the other members have been asked. All else is as it was. */
	assert_true(chunk_is_damaged(chunk, 2, 3) && chunk_is_torn(chunk, 2, 3));
	assert_false(chunk_is_damaged(chunk, 0, 2) || chunk_is_damaged(chunk, 3, CHUNK_BLOCKS));
	assert_false(chunk->uncertain);
	/* Still marked, until it is whole and has been synced. */
	assert_int_equal(chunk->mark, MARK_SET);
	assert_true(chunk_is_unsynced(chunk));
	close_store(store);
	store = open_store(place, &watcher);
	chunk = get(place, store, &watcher, CHUNK, false);
	assert_int_equal(chunk->mark, MARK_SET);
	write_blocks(chunk, 2 * BLOCK_BYTES, 'n', 1);
	chunk_repaired(chunk, 2, 3);
	close_store(store);
	store = open_store(place, &watcher);
	chunk = get(place, store, &watcher, CHUNK, false);
	assert_int_equal(chunk->mark, MARK_NONE);
	close_store(store);
}

static bool count_name(void *arg, const char *name)
{
	(void)name;
	*(unsigned *)arg += 1;
	return true;
}

/* The mark of a chunk, as another life of the process left it. */
static void set_mark(struct place *place, uint64_t boot, bool name_new)
{
	struct chunk_index index;
	char path[128];
	snprintf(path, sizeof(path), "%s/index", place->root);
	assert_int_equal(chunk_index_open(place->loop, path, &index), OK);
	assert_int_equal(chunk_index_mark(&index, CHUNK, boot, name_new ? CHUNK_MARK_NAME_NEW : 0), OK);
	chunk_index_close(&index);
}

static void loss_of_power_makes_uncertain(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	live_and_be_killed(place);
	set_mark(place, 12345, false);
	for (int life = 0; life < 2; life++) {
		struct chunk_store *store = open_store(place, &watcher);
		struct chunk *chunk = get(place, store, &watcher, CHUNK, false);
		assert_true(chunk->uncertain && !chunk->blank);
		assert_true(chunk_is_damaged(chunk, 2, 3) && chunk_is_torn(chunk, 2, 3));
		assert_false(chunk_is_damaged(chunk, 3, 8));
		if (life == 1) {
			/* Written whole, and compared. */
			write_blocks(chunk, 2 * BLOCK_BYTES, 'n', 1);
			chunk_repaired(chunk, 2, 3);
			assert_false(chunk_is_damaged(chunk, 0, CHUNK_BLOCKS));
			chunk->uncertain = false;
			assert_int_equal(chunk_store_mark(chunk), OK);
		}
		close_store(store);
	}
	struct chunk_store *store = open_store(place, &watcher);
	struct chunk *chunk = get(place, store, &watcher, CHUNK, false);
	assert_int_equal(chunk->mark, MARK_NONE);
	assert_false(chunk->uncertain);
	close_store(store);
}

/* Damage that was found in use is remembered until it is repaired, and never read. */
static void damage_is_remembered(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk_store_counts counts;
	struct chunk_store *store = open_store(place, &watcher);
	struct chunk *chunk = get(place, store, &watcher, CHUNK, true);
	write_blocks(chunk, 0, 'a', 8);
	chunk_found_damaged(chunk, 3, 5, "test");
	chunk_found_damaged(chunk, 4, 6, "test");
	chunk_store_counts(store, &counts);
	assert_int_equal(counts.damage_found, 3);
	close_store(store);
	store = open_store(place, &watcher);
	chunk = get(place, store, &watcher, CHUNK, false);
	assert_int_equal(chunk_damage_count(chunk), 3);
	assert_true(chunk_is_damaged(chunk, 5, 6) && !chunk_is_torn(chunk, 5, 6));
	assert_false(chunk_is_damaged(chunk, 0, 3) || chunk_is_damaged(chunk, 6, CHUNK_BLOCKS));
	write_blocks(chunk, 3 * BLOCK_BYTES, 'n', 3);
	chunk_repaired(chunk, 3, 6);
	chunk_store_counts(store, &counts);
	assert_int_equal(counts.damage_repaired, 3);
	close_store(store);
	store = open_store(place, &watcher);
	assert_int_equal(chunk_damage_count(get(place, store, &watcher, CHUNK, false)), 0);
	close_store(store);
}

/* A clean file that was cut: what is missing is no zeros. */
static void cut_file_is_damage(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct file *file = NULL;
	struct chunk_store *store = open_store(place, &watcher);
	write_blocks(get(place, store, &watcher, CHUNK, true), 0, 'a', 8);
	char *path = store_files_path(chunk_store_files(store), CHUNK, KIND_REPLICATED);
	close_store(store);
	assert_int_equal(file_open(place->loop, path, FILE_WRITE, &file), OK);
	assert_int_equal(file_truncate(file, CHUNK_DATA_OFFSET + 5 * BLOCK_BYTES), OK);
	file_unref(file);
	free(path);
	store = open_store(place, &watcher);
	struct chunk *chunk = get(place, store, &watcher, CHUNK, false);
	assert_int_equal(chunk_damage_count(chunk), 3);
	assert_true(chunk_is_damaged(chunk, 5, 6));
	assert_int_equal(chunk->file.blocks, 8);
	close_store(store);
}

/* Two files swapped, one that is zeros, one put back from long ago: nothing of them counts, and nothing of them is thrown away. */
static void foreign_content_does_not_count(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	static uint8_t zeros[CHUNK_DATA_OFFSET];
	struct file *file = NULL;
	char *paths[3];
	struct chunk_store *store = open_store(place, &watcher);
	for (uint64_t id = 1; id <= 3; id++) {
		write_blocks(get(place, store, &watcher, id, true), 0, 'a', 8);
		paths[id - 1] = store_files_path(chunk_store_files(store), id, KIND_REPLICATED);
	}
	chunk_store_find(store, 3)->version = 5; /* as if the file's header had been lost */
	struct chunk *old = chunk_store_find(store, 3);
	old->file.version = old->version; /* as if its file were of an earlier time */
	chunk_store_save(old);
	close_store(store);
	assert_int_equal(file_rename(place->loop, paths[0], paths[1]), OK);
	assert_int_equal(file_open(place->loop, paths[0], FILE_WRITE | FILE_CREATE, &file), OK);
	assert_int_equal(file_write(file, 0, zeros, sizeof(zeros)), OK);
	file_unref(file);
	for (int life = 0; life < 2; life++) {
		store = open_store(place, &watcher);
		for (uint64_t id = 1; id <= 3; id++) {
			struct chunk *chunk = get(place, store, &watcher, id, false);
			assert_true(chunk->uncertain && chunk->blank);
			assert_int_equal(chunk->file.blocks, 0);
			assert_int_equal(chunk->version, id == 3 ? 5 : 4);
		}
		close_store(store);
	}
	char path[160];
	unsigned found = 0;
	snprintf(path, sizeof(path), "%s/quarantine", place->root);
	assert_int_equal(dir_list(place->loop, path, count_name, &found), OK);
	assert_int_equal(found, 3);
	for (int i = 0; i < 3; i++)
		free(paths[i]);
}

static void index_is_rebuilt_from_the_files(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk_store_counts counts;
	char path[128], moved[128];
	struct chunk_store *store = open_store(place, &watcher);
	for (uint64_t id = 1; id <= 20; id++)
		write_blocks(get(place, store, &watcher, id, true), 0, (uint8_t)id, 2);
	close_store(store);
	snprintf(path, sizeof(path), "%s/index", place->root);
	snprintf(moved, sizeof(moved), "%s/gone", place->root);
	assert_int_equal(file_rename(place->loop, path, moved), OK);
	store = open_store(place, &watcher);
	chunk_store_counts(store, &counts);
	assert_int_equal(counts.chunks, 20);
	struct chunk *chunk = get(place, store, &watcher, 13, false);
	assert_int_equal(chunk->version, 4);
	assert_false(chunk_is_damaged(chunk, 0, CHUNK_BLOCKS));
	close_store(store);
}

static void missing_file_is_blank(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk *chunk = NULL;
	struct chunk_store *store = open_store(place, &watcher);
	write_blocks(get(place, store, &watcher, CHUNK, true), 0, 'x', 1);
	char *path = store_files_path(chunk_store_files(store), CHUNK, KIND_REPLICATED);
	close_store(store);
	assert_int_equal(file_unlink(place->loop, path), OK);
	free(path);
	for (int life = 0; life < 2; life++) {
		store = open_store(place, &watcher);
		chunk = get(place, store, &watcher, CHUNK, false);
		assert_true(chunk->uncertain && chunk->blank);
		assert_int_equal(chunk_store_get(store, CHUNK + 1, NULL, &chunk), ERR_NO_CHUNK);
		close_store(store);
	}
}

/* Its name was never synced, and the power went: it is made anew, but what was read in it meanwhile is asked for elsewhere. */
static void unsynced_name_may_be_gone(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk *chunk = NULL;
	struct chunk_create known = { .kind = KIND_REPLICATED, .version = 4, .only_known = true };
	live_and_be_killed(place);
	set_mark(place, 12345, true);
	struct store_files files = { .loop = place->loop, .root = place->root };
	char *path = store_files_path(&files, CHUNK, KIND_REPLICATED);
	assert_int_equal(file_unlink(place->loop, path), OK);
	free(path);
	struct chunk_store *store = open_store(place, &watcher);
	assert_int_equal(chunk_store_get(store, CHUNK, NULL, &chunk), ERR_NO_CHUNK);
	assert_int_equal(chunk_store_get(store, CHUNK + 1, &known, &chunk), ERR_NO_CHUNK);
	assert_int_equal(chunk_store_get(store, CHUNK, &known, &chunk), OK);
	WAIT_FOR(place->loop, watcher.opened == 1);
	assert_true(chunk->uncertain && !chunk->blank);
	close_store(store);
}

static void unknown_files_go_to_quarantine(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk_store_counts counts;
	struct file *file = NULL;
	char path[160];
	unsigned found = 0;
	struct chunk_store *store = open_store(place, &watcher);
	write_blocks(get(place, store, &watcher, CHUNK, true), 0, 'x', 1);
	char *bad = store_files_path(chunk_store_files(store), CHUNK + 1, KIND_REPLICATED);
	assert_int_equal(store_files_make_folder(place->loop, bad), OK);
	close_store(store);
	/* One with a right name and nonsense in it, one with a name that is none. */
	assert_int_equal(file_open(place->loop, bad, FILE_WRITE | FILE_CREATE, &file), OK);
	assert_int_equal(file_write(file, 0, "nonsense", 8), OK);
	file_unref(file);
	memcpy(strrchr(bad, '/'), "/what", 6);
	assert_int_equal(file_open(place->loop, bad, FILE_WRITE | FILE_CREATE, &file), OK);
	file_unref(file);
	store = open_store(place, &watcher);
	chunk_store_counts(store, &counts);
	assert_int_equal(counts.chunks, 1);
	assert_non_null(get(place, store, &watcher, CHUNK, false));
	close_store(store);
	snprintf(path, sizeof(path), "%s/quarantine", place->root);
	assert_int_equal(dir_list(place->loop, path, count_name, &found), OK);
	assert_int_equal(found, 2);
	free(bad);
}

static void data_folder_has_one_owner(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk_store *store = open_store(place, &watcher), *second = NULL;
	struct chunk_store_options options = { .root = place->root, .reserved_bytes = 1 };
	assert_int_equal(chunk_store_open(place->loop, &options, &events, &watcher, &second), ERR_BUSY);
	assert_null(second);
	close_store(store);
}

static void open_chunks_are_bounded(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk_store_counts counts;
	struct chunk_store *store = open_store(place, &watcher);
	enum { COUNT = CHUNKS_OPEN_MAX + 40 };
	for (uint64_t id = 1; id <= COUNT; id++) {
		struct chunk *chunk = get(place, store, &watcher, id, true);
		struct chunk_sync_job job;
		assert_non_null(chunk);
		assert_true(chunk_sync_begin(chunk, &job));
		job.ran = true; /* as if it had been synced: this is about room */
		chunk_sync_end(&job);
		chunk_store_counts(store, &counts);
		assert_true(counts.chunks_open <= CHUNKS_OPEN_MAX);
	}
	assert_int_equal(counts.chunks, COUNT);
	assert_null(chunk_store_find(store, 1));
	assert_non_null(get(place, store, &watcher, 1, false));
	close_store(store);
}

static void note_deleted(void *arg, enum err err)
{
	assert_int_equal(err, OK);
	*(bool *)arg = true;
}

static const Granary__ChunkLocation *reopen(struct place *place, struct chunk_store **store, struct watcher *watcher)
{
	close_store(*store);
	*store = open_store(place, watcher);
	return get(place, *store, watcher, CHUNK, false)->chain;
}

/* The header is of a newer version than the chain in the index, or that has a newcomer, who may be complete by now: decided alone, or without
 * him, what is right could be what the others do not have. */
static void chain_of_before_is_asked_for(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk *chunk = NULL;
	Granary__Replica self = GRANARY__REPLICA__INIT, newcomer = GRANARY__REPLICA__INIT, *replicas[] = { &self, &newcomer };
	Granary__ChunkLocation chain = GRANARY__CHUNK_LOCATION__INIT;
	struct chunk_create fresh = { .kind = KIND_REPLICATED, .version = 4, .chain = &chain };
	char address[] = "h:1";
	self.address = newcomer.address = address;
	self.server = 1;
	newcomer.server = 2;
	chain.chunk = CHUNK;
	chain.version = 4;
	chain.replicas = replicas;
	chain.n_replicas = 1;
	struct chunk_store *store = open_store(place, &watcher);
	assert_int_equal(chunk_store_get(store, CHUNK, &fresh, &chunk), OK);
	WAIT_FOR(place->loop, watcher.opened > 0);
	write_blocks(chunk, 0, 'a', 1);
	const Granary__ChunkLocation *known = reopen(place, &store, &watcher);
	assert_true(known != NULL && known->n_replicas == 1);
	chunk = chunk_store_find(store, CHUNK);
	assert_int_equal(chunk_file_set_state(&chunk->file, 5, COPY_COMPLETE), OK);
	assert_null(reopen(place, &store, &watcher));
	/* A newcomer matters only where something is to be decided: in a chunk that was being written. */
	chunk = chunk_store_find(store, CHUNK);
	assert_int_equal(chunk->version, 5);
	assert_int_equal(chunk_store_mark(chunk), OK);
	newcomer.joining = true;
	chain.version = 5;
	chain.n_replicas = 2;
	chunk_set_chain(chunk, &chain);
	chunk_store_save(chunk);
	chunk->writes_begun++;
	assert_null(reopen(place, &store, &watcher));
	close_store(store);
}

/* No file of it is there to be used again. */
static void missing_file_is_deleted(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	bool deleted = false;
	struct chunk_store *store = open_store(place, &watcher);
	get(place, store, &watcher, CHUNK, true);
	char *path = store_files_path(chunk_store_files(store), CHUNK, KIND_REPLICATED);
	assert_int_equal(file_unlink(place->loop, path), OK);
	free(path);
	assert_int_equal(chunk_store_delete(store, CHUNK, 0, note_deleted, &deleted), OK);
	WAIT_FOR(place->loop, deleted);
	assert_non_null(get(place, store, &watcher, CHUNK + 1, true));
	assert_false(chunk_store_failed(store));
	close_store(store);
}

static void failed_store_takes_nothing(void **state)
{
	struct place *place = *state;
	struct watcher watcher;
	struct chunk *chunk = NULL;
	struct chunk_create fresh = { .kind = KIND_PACK, .version = 1 };
	bool deleted = false;
	struct chunk_store *store = open_store(place, &watcher);
	write_blocks(get(place, store, &watcher, CHUNK + 2, true), 0, 'x', 1);
	get(place, store, &watcher, CHUNK, true);
	assert_int_equal(chunk_store_delete(store, CHUNK, 0, note_deleted, &deleted), OK);
	WAIT_FOR(place->loop, deleted);
	chunk_store_fail(store, "test", ERR_IO);
	assert_true(chunk_store_failed(store));
	assert_int_equal(chunk_store_get(store, CHUNK + 1, &fresh, &chunk), ERR_STORE_FAILED);
	assert_int_equal(chunk_store_admit(store, 1), ERR_STORE_FAILED);
	WAIT_FOR(place->loop, !chunk_store_busy(store));
	close_store(store);
	/* What was dirty then is looked at as after a loss of power. */
	store = open_store(place, &watcher);
	assert_true(get(place, store, &watcher, CHUNK + 2, false)->uncertain);
	close_store(store);
	struct chunk_store_options options = { .root = place->root, .reserved_bytes = 1, .must_exist = true };
	assert_int_equal(chunk_store_open(place->loop, &options, &events, &watcher, &store), ERR_STALE_HANDLE);
}

/* When a chunk was last verified is forgotten with its file: what comes in its place has not been. */
static void check_time_goes_with_the_file(void **state)
{
	struct place *place = *state;
	struct chunk_index index;
	char path[128];
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	snprintf(path, sizeof(path), "%s/index", place->root);
	for (int forgets = 0; forgets < 2; forgets++) {
		assert_int_equal(chunk_index_open(place->loop, path, &index), OK);
		location.chunk = CHUNK;
		assert_int_equal(chunk_index_put(&index, &location, true), OK);
		assert_int_equal(chunk_index_checked_ms(&index, CHUNK), 0);
		assert_int_equal(chunk_index_put_checked(&index, CHUNK, 12345), OK);
		assert_int_equal(chunk_index_checked_ms(&index, CHUNK + 1), 0);
		chunk_index_close(&index);
		assert_int_equal(chunk_index_open(place->loop, path, &index), OK);
		assert_int_equal(chunk_index_checked_ms(&index, CHUNK), 12345);
		assert_int_equal(forgets ? chunk_index_forget(&index, CHUNK) : chunk_index_delete(&index, CHUNK), OK);
		assert_int_equal(chunk_index_checked_ms(&index, CHUNK), 0);
		chunk_index_close(&index);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		PLACE_TEST(killed_process_loses_nothing), PLACE_TEST(rot_is_told_from_writes), PLACE_TEST(loss_of_power_makes_uncertain),
		PLACE_TEST(damage_is_remembered), PLACE_TEST(cut_file_is_damage),
		PLACE_TEST(foreign_content_does_not_count), PLACE_TEST(unsynced_name_may_be_gone),
		PLACE_TEST(index_is_rebuilt_from_the_files), PLACE_TEST(missing_file_is_blank),
		PLACE_TEST(missing_file_is_deleted),
		PLACE_TEST(unknown_files_go_to_quarantine), PLACE_TEST(data_folder_has_one_owner),
		PLACE_TEST(open_chunks_are_bounded),	  PLACE_TEST(failed_store_takes_nothing),
		PLACE_TEST(chain_of_before_is_asked_for), PLACE_TEST(check_time_goes_with_the_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
