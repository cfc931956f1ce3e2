/* For test_chunk_chain: what a server that was killed, or lost power, leaves on its disk. Written while it is stopped. */
#ifndef GRANARY_TESTS_UNIT_CHUNKSERVER_LEAVINGS_H
#define GRANARY_TESTS_UNIT_CHUNKSERVER_LEAVINGS_H

#include "tests/unit/chunkserver/cluster.h"

/* Of a former life of its process; or, with another boot, of the machine. */
static void leave_mark(struct cluster *cluster, int server, uint64_t boot)
{
	struct chunk_index index;
	char path[128];
	snprintf(path, sizeof(path), "%s/%d/index", cluster->root, server);
	assert_int_equal(chunk_index_open(cluster->loop, path, &index), OK);
	assert_int_equal(chunk_index_mark(&index, CHUNK, boot, 0), OK);
	chunk_index_close(&index);
}

/* What a SIGKILL leaves of a chunk with writes in flight: a mark, blocks that no other replica has, and not those that others have. */
static void leave_in_flight(struct cluster *cluster, int server, uint64_t boot)
{
	struct file *file = NULL;
	char root[96];
	snprintf(root, sizeof(root), "%s/%d", cluster->root, server);
	leave_mark(cluster, server, boot);
	struct store_files files = { .loop = cluster->loop, .root = root };
	char *chunk = store_files_path(&files, CHUNK, KIND_REPLICATED);
	assert_int_equal(file_open(cluster->loop, chunk, FILE_WRITE, &file), OK);
	assert_int_equal(file_write(file, CHUNK_DATA_OFFSET + 3 * BLOCK_BYTES, "only here", 9), OK);
	assert_int_equal(file_write(file, CHUNK_DATA_OFFSET + 200 * BLOCK_BYTES, "beyond", 6), OK);
	file_unref(file);
	free(chunk);
}

/* A block that no other replica has, and nothing is wrong with it by itself. */
static void write_alone(struct cluster *cluster, int server, uint32_t block)
{
	static uint8_t bytes[BLOCK_BYTES];
	uint8_t crc[4];
	struct chunk_file file;
	char root[96];
	snprintf(root, sizeof(root), "%s/%d", cluster->root, server);
	struct store_files files = { .loop = cluster->loop, .root = root };
	char *path = store_files_path(&files, CHUNK, KIND_REPLICATED);
	memset(bytes, 'x', sizeof(bytes));
	put_le32(crc, crc32c(bytes, sizeof(bytes)));
	assert_int_equal(chunk_file_open(cluster->loop, path, CHUNK, &file), OK);
	struct chunk_file_write write = {
		.offset = block * BLOCK_BYTES, .data = slice_of(bytes, sizeof(bytes)), .crcs = slice_of(crc, 4), .blocks_before = file.blocks
	};
	assert_int_equal(chunk_file_write(&file, &write), OK);
	chunk_file_close(&file);
	free(path);
}

#endif
