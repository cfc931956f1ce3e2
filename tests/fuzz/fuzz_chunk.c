/* Chunk files and packs of arbitrary bytes: opened, checked, read, written to; never a crash. The first byte chooses: bit 0 pack or
 * chunk, bit 1 a header that is valid (so that what follows is reached), bit 2 a slot table from the bytes, bit 3 records with right
 * CRCs, bit 4 a slot table with right CRC. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chunkserver/chunk_file.h"
#include "chunkserver/pack.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/sys/log.h"

#define ID 7u
#define SALT 42u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void write_file(struct loop *loop, const char *path, struct slice bytes, bool is_pack, bool valid)
{
	struct file *file = NULL;
	uint8_t header[CHUNK_HEADER_USED_BYTES];
	struct chunk_header fields = {
		.kind = is_pack ? KIND_PACK : KIND_REPLICATED, .chunk = ID, .version = 1, .salt = is_pack ? SALT : 0
	};
	enum err err = file_open(loop, path, FILE_WRITE | FILE_CREATE | FILE_TRUNCATE, &file);
	check(err == OK);
	if (!valid) {
		err = file_write(file, 0, bytes.bytes, bytes.size);
	} else {
		chunk_header_write(&fields, header);
		err = file_write(file, 0, header, sizeof(header));
		if (err == OK)
			err = file_write(file, CHUNK_HEADER_BYTES, bytes.bytes, bytes.size);
	}
	/* A chunk has its whole table: a hole, here. */
	if (err == OK && valid && !is_pack)
		err = file_truncate(file, CHUNK_DATA_OFFSET + (bytes.size > 0 ? bytes.bytes[0] * 511ull : 0));
	check(err == OK);
	file_unref(file);
}

/* Right CRCs, so that the scan goes beyond the headers. */
static void seal_records(uint8_t *bytes, size_t size)
{
	for (size_t at = 0; at + PACK_RECORD_BYTES <= size; at += 64) {
		struct pack_record record = { .slot = get_le32(bytes + at) % 70000, .length = get_le32(bytes + at + 4) % 300,
					      .crc = get_le32(bytes + at + 8), .flags = bytes[at + 12] & 1 };
		pack_record_write(&record, SALT, bytes + at);
	}
}

static void seal_table(uint8_t *bytes, size_t size)
{
	if (size < 28)
		return;
	put_le64(bytes, SALT);
	put_le32(bytes + 16, (uint32_t)((size - 28) / 8));
	put_le32(bytes + size - 4, crc32c(bytes, size - 4));
}

/* honest: no record lies within the data of another and no table about where records end; neither can come from outside (the
 * salt is secret, the table is in the index). What is appended then is found by a scan, whatever came before. */
static void try_pack(struct loop *loop, const char *path, struct slice table, bool honest)
{
	struct pack pack;
	if (pack_open(loop, path, ID, table, &pack) != OK)
		return;
	uint8_t *bytes = mem_alloc(PACK_RECORD_BYTES + BLOB_BYTES_MAX);
	for (uint32_t slot = 0; slot < pack.slot_count + 2 && slot < 1000; slot++) {
		struct pack_slot at;
		struct pack_record record;
		if (!pack_find(&pack, slot, &at))
			continue;
		check(at.length <= BLOB_BYTES_MAX);
		if (pack_read(&pack, slot, at, bytes, false, &record) == OK)
			check(record.slot == slot && record.length == at.length);
	}
	struct pack_item item = { .record = { .slot = 1, .length = 3, .crc = crc32c("abc", 3) }, .data = slice_text("abc") };
	pack_place(&pack, &item, 1);
	enum err err = pack_write(&pack, &item, 1, false);
	check(err == OK);
	pack_enter(&pack, &item);
	pack_close(&pack);
	free(bytes);
	if (honest) {
		struct pack_slot at;
		err = pack_open(loop, path, ID, slice_of(NULL, 0), &pack);
		check(err == OK && pack_find(&pack, 1, &at));
		pack_close(&pack);
	}
}

static void try_chunk(struct loop *loop, const char *path)
{
	struct chunk_file file;
	uint8_t damaged[CHUNK_BLOCKS / 8] = { 0 }, block[BLOCK_BYTES];
	uint32_t mismatches = 0;
	if (chunk_file_open(loop, path, ID, &file) != OK)
		return;
	if (chunk_file_check(&file, damaged, &mismatches) == OK && file.blocks > 0 &&
	    chunk_file_read(&file, 0, 1, block, false) == OK)
		check((crc32c(block, BLOCK_BYTES) != chunk_file_crc(&file, 0)) == (damaged[0] & 1));
	chunk_file_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static struct loop *loop;
	static char path[64];
	if (loop == NULL) {
		log_setup("fuzz", LOG_ERROR, LOG_TEXT);
		check(loop_open(&loop) == OK);
		snprintf(path, sizeof(path), "/dev/shm/granary-fuzz-%d", (int)getpid());
	}
	if (size < 1 || size > 1 * MIB)
		return 0;
	bool is_pack = bytes[0] & 1, valid = bytes[0] & 2;
	uint8_t *copy = mem_alloc(size);
	memcpy(copy, bytes, size);
	if (is_pack && (bytes[0] & 8))
		seal_records(copy + 1, size - 1);
	write_file(loop, path, slice_of(copy + 1, size - 1), is_pack, valid);
	if (bytes[0] & 16)
		seal_table(copy + 1, size - 1);
	if (is_pack)
		try_pack(loop, path, bytes[0] & 4 ? slice_of(copy + 1, size - 1) : slice_of(NULL, 0),
			 (bytes[0] & 12) == 0);
	else
		try_chunk(loop, path);
	check(unlink(path) == 0);
	free(copy);
	return 0;
}
