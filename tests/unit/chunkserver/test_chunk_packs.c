/* Packs of a chain: blobs, compaction, what a loss of power took. */
#include "tests/unit/chunkserver/cluster.h"

#include <inttypes.h>

#include "common/sys/log.h"

static uint8_t big[FRAME_DATA_BYTES_MAX];

static enum err append_as(struct cluster *cluster, struct slice blob, uint64_t operation, bool written, uint32_t *slot)
{
	struct answer answer;
	Granary__BlobAppend message = GRANARY__BLOB_APPEND__INIT;
	message.pack = CHUNK;
	message.version = cluster->version;
	message.crc = crc32c(blob.bytes, blob.size);
	message.client = 2;
	message.operation = operation;
	message.sync = true;
	message.written = written;
	message.n_replicas = cluster->chain_count;
	message.replicas = cluster->chain;
	start_call(cluster, 0, MESSAGE_BLOB_APPEND, &message.base, blob, &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	if (err == OK)
		*slot = ((const Granary__BlobAppendReply *)answer.reply)->slot;
	answer_free(&answer);
	return err;
}

static enum err append(struct cluster *cluster, struct slice blob, uint64_t operation, uint32_t *slot)
{
	return append_as(cluster, blob, operation, false, slot);
}

static enum err read_blob(struct cluster *cluster, int server, uint32_t slot, struct slice expected)
{
	struct answer answer;
	Granary__BlobRead message = GRANARY__BLOB_READ__INIT;
	message.pack = CHUNK;
	message.version = cluster->version;
	message.slot = slot;
	start_call(cluster, server, MESSAGE_BLOB_READ, &message.base, slice_of(NULL, 0), &answer);
	WAIT_FOR(cluster, answer.done);
	enum err err = answer.err;
	if (err == OK) {
		size_t size = answer.data == NULL ? 0 : answer.data->size;
		assert_int_equal(size, expected.size);
		if (size > 0)
			assert_memory_equal(answer.data->bytes, expected.bytes, size);
		assert_int_equal(((const Granary__BlobReadReply *)answer.reply)->crc, crc32c(expected.bytes, size));
	}
	answer_free(&answer);
	return err;
}

static void blobs_live_in_packs(void **state)
{
	struct cluster *cluster = *state;
	uint32_t one = 0, two = 0, again = 0, empty = 0;
	assert_int_equal(append(cluster, slice_text("blob one"), 1000, &one), OK);
	assert_int_equal(append(cluster, slice_of(big, sizeof(big)), 1001, &two), OK);
	assert_int_equal(append(cluster, slice_text("blob one"), 1000, &again), OK);
	assert_int_equal(append(cluster, slice_of(NULL, 0), 1002, &empty), OK);
	assert_int_equal(one, again);
	assert_int_not_equal(one, two);
	for (int server = 0; server < SERVERS; server++) {
		assert_int_equal(read_blob(cluster, server, one, slice_text("blob one")), OK);
		assert_int_equal(read_blob(cluster, server, two, slice_of(big, sizeof(big))), OK);
		assert_int_equal(read_blob(cluster, server, empty, slice_of(NULL, 0)), OK);
		assert_int_equal(read_blob(cluster, server, 77, slice_text("")), ERR_NOT_FOUND);
	}
	Granary__ChunkCommand remove = GRANARY__CHUNK_COMMAND__INIT;
	remove.chunk = CHUNK;
	remove.n_delete_slots = 1;
	remove.delete_slots = &one;
	for (int server = 0; server < SERVERS; server++)
		assert_int_equal(command(cluster, server, &remove), OK);
	for (int server = 0; server < SERVERS; server++) {
		stop_server(cluster, server);
		start_server(cluster, server);
		WAIT_FOR(cluster, has_lease(cluster, server));
		assert_int_equal(read_blob(cluster, server, one, slice_text("")), ERR_NOT_FOUND);
		assert_int_equal(read_blob(cluster, server, two, slice_of(big, sizeof(big))), OK);
	}
	/* A chunk's write does not fit a pack. */
	assert_int_equal(write_text(cluster, 0, "x"), ERR_INVALID);
}

static void packs_compact_themselves(void **state)
{
	struct cluster *cluster = *state;
	enum { COUNT = 8 };
	uint32_t slots[COUNT];
	for (uint32_t i = 0; i < COUNT; i++)
		assert_int_equal(append(cluster, slice_of(big + i, sizeof(big) - COUNT), 2000 + i, &slots[i]), OK);
	Granary__ChunkCommand remove = GRANARY__CHUNK_COMMAND__INIT;
	remove.chunk = CHUNK;
	remove.n_delete_slots = COUNT - 2;
	remove.delete_slots = slots;
	assert_int_equal(command(cluster, 1, &remove), OK);
	struct chunk *pack = chunk_store_find(chunkserver_service(cluster->servers[1])->store, CHUNK);
	WAIT_FOR(cluster, pack->pack.bytes < 3 * sizeof(big));
	for (int server = 0; server < SERVERS; server++)
		assert_int_equal(read_blob(cluster, server, slots[COUNT - 1], slice_of(big + COUNT - 1, sizeof(big) - COUNT)), OK);
	assert_int_equal(read_blob(cluster, 1, slots[0], slice_text("")), ERR_NOT_FOUND);
	uint32_t next = 0;
	assert_int_equal(append(cluster, slice_text("next"), 3000, &next), OK);
	assert_int_equal(next, slots[COUNT - 1] + 1);
	stop_server(cluster, 1);
	start_server(cluster, 1);
	WAIT_FOR(cluster, has_lease(cluster, 1));
	assert_int_equal(read_blob(cluster, 1, next, slice_text("next")), OK);
}

#define ALL 0u
#define ALL_AND_ENTRY UINT64_MAX

/* The pack's file is cut by so many bytes as if the power had gone before they were on the disk; or it is gone, with what the index says
 * of it or without. */
static void lose_records(struct cluster *cluster, int server, uint64_t bytes)
{
	struct chunk_index index;
	struct file *file = NULL;
	uint64_t size = 0;
	char root[96], path[128];
	stop_server(cluster, server);
	snprintf(root, sizeof(root), "%s/%d", cluster->root, server);
	snprintf(path, sizeof(path), "%s/index", root);
	struct store_files files = { .loop = cluster->loop, .root = root };
	char *pack = store_files_path(&files, CHUNK, KIND_PACK);
	assert_int_equal(chunk_index_open(cluster->loop, path, &index), OK);
	if (bytes == ALL_AND_ENTRY)
		assert_int_equal(chunk_index_delete(&index, CHUNK), OK);
	else if (bytes != ALL)
		assert_int_equal(chunk_index_mark(&index, CHUNK, 12345, CHUNK_MARK_PACK), OK);
	chunk_index_close(&index);
	if (bytes == ALL || bytes == ALL_AND_ENTRY) {
		assert_int_equal(unlink(pack), 0);
	} else {
		assert_int_equal(file_open(cluster->loop, pack, FILE_WRITE, &file), OK);
		assert_int_equal(file_size(file, &size), OK);
		assert_int_equal(file_truncate(file, size - bytes), OK);
		file_unref(file);
	}
	free(pack);
	start_server(cluster, server);
	WAIT_FOR(cluster, has_lease(cluster, server));
}

static void lost_records_of_packs_come_back(void **state)
{
	struct cluster *cluster = *state;
	const char *texts[] = { "blob one", "the second blob", "number three" };
	uint32_t slots[3], next = 0;
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(append(cluster, slice_text(texts[i]), 4000 + i, &slots[i]), OK);
	for (int round = 0; round < 4; round++) { /* one and a half records, and all; of a member, and of the head */
		int server = round < 2 ? 1 : 0;
		lose_records(cluster, server, round % 2 == 0 ? 60 : ALL);
		for (uint32_t i = 0; i < 3; i++) {
			enum err err;
			do { /* never that it has been deleted */
				err = read_blob(cluster, server, slots[i], slice_text(texts[i]));
			} while (err == ERR_UNCERTAIN);
			assert_int_equal(err, OK);
		}
		/* The head gave out slots that it may not know of any more. */
		enum err expected = server == 0 ? ERR_PACK_FULL : OK;
		assert_int_equal(append(cluster, slice_text("next"), 5000 + (uint64_t)round, &next), expected);
		assert_true(expected != OK || next == slots[2] + 1 + (uint32_t)round);
	}
}
/* The head would give out slots that others have used. */
static void lost_pack_is_not_begun_anew(void **state)
{
	struct cluster *cluster = *state;
	uint32_t one = 0, two = 0, next = 0;
	assert_int_equal(append(cluster, slice_text("blob one"), 6000, &one), OK);
	assert_int_equal(append(cluster, slice_text("the second blob"), 6001, &two), OK);
	lose_records(cluster, 0, ALL_AND_ENTRY);
	assert_int_equal(append_as(cluster, slice_text("next"), 6002, true, &next), ERR_NO_CHUNK);
	WAIT_FOR(cluster, cluster->failed_chunk == CHUNK);
	assert_int_equal(tell_chain(cluster, 0, CHUNK, GRANARY__CHUNK_KIND__CHUNK_PACK), OK);
	assert_int_equal(append_as(cluster, slice_text("next"), 6002, true, &next), ERR_PACK_FULL);
	for (int server = 0; server < SERVERS; server++) {
		WAIT_FOR(cluster, read_blob(cluster, server, one, slice_text("blob one")) == OK);
		WAIT_FOR(cluster, read_blob(cluster, server, two, slice_text("the second blob")) == OK);
	}
}

#define SLOTS_OF_ONE 40u /* more commands than are carried out at a time */

/* What ends because its chunk goes makes room for the next command, which is to delete the same chunk. */
static void commands_for_a_pack_that_goes_end_once(void **state)
{
	struct cluster *cluster = *state;
	struct answer answers[2] = { 0 };
	uint32_t slot = 0;
	assert_int_equal(append(cluster, slice_text("blob one"), 7000, &slot), OK);
	Granary__ChunkLocation location = GRANARY__CHUNK_LOCATION__INIT;
	Granary__ChunkCommand commands[SLOTS_OF_ONE + 2], *list[SLOTS_OF_ONE + 2];
	Granary__ChunkCommands message = GRANARY__CHUNK_COMMANDS__INIT;
	for (uint32_t i = 0; i < SLOTS_OF_ONE + 2; i++) {
		granary__chunk_command__init(&commands[i]);
		commands[i].chunk = CHUNK;
		commands[i].n_delete_slots = 1;
		commands[i].delete_slots = &slot;
		list[i] = &commands[i];
	}
	location.chunk = CHUNK;
	location.kind = GRANARY__CHUNK_KIND__CHUNK_PACK;
	location.version = cluster->version + 1;
	location.n_replicas = cluster->chain_count;
	location.replicas = cluster->chain;
	commands[0].configure = &location; /* while that is made durable the others wait */
	commands[0].n_delete_slots = 0;
	commands[SLOTS_OF_ONE + 1].delete_chunk = true;
	commands[SLOTS_OF_ONE + 1].n_delete_slots = 0;
	message.n_commands = SLOTS_OF_ONE + 2;
	message.commands = list;
	rpc_conn_call(cluster->conns[0], MESSAGE_CHUNK_COMMANDS, &message.base, 10000, answered, &answers[0]);
	message.n_commands = 1;
	message.commands = list + SLOTS_OF_ONE + 1;
	rpc_conn_call(cluster->conns[0], MESSAGE_CHUNK_COMMANDS, &message.base, 10000, answered, &answers[1]);
	for (int i = 0; i < 2; i++) {
		WAIT_FOR(cluster, answers[i].done);
		assert_int_equal(answers[i].err, OK);
		answer_free(&answers[i]);
	}
	assert_int_not_equal(read_blob(cluster, 0, slot, slice_text("blob one")), OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, cluster_setup, cluster_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(blobs_live_in_packs), TEST(packs_compact_themselves), TEST(lost_records_of_packs_come_back),
		TEST(lost_pack_is_not_begun_anew),    TEST(commands_for_a_pack_that_goes_end_once),
	};
	log_setup("chunkserver", LOG_ERROR, LOG_TEXT);
	cluster_pattern(big, sizeof(big));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
