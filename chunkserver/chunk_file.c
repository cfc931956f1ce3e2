#include "chunkserver/chunk_file.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"

#define CHECK_BLOCKS 64u /* read at a time by chunk_file_check */

static uint64_t data_offset(uint32_t block)
{
	return CHUNK_DATA_OFFSET + (uint64_t)block * BLOCK_BYTES;
}

static enum err write_header(struct file *file, uint64_t id, uint64_t version, enum copy_state copy)
{
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct chunk_header header = { .kind = KIND_REPLICATED, .chunk = id, .version = version, .copy = copy };
	chunk_header_write(&header, bytes);
	return file_write(file, 0, bytes, sizeof(bytes));
}

enum err chunk_file_create(struct loop *loop, const char *path, const char *reuse, uint64_t id, uint64_t version,
			   struct chunk_file *out)
{
	struct file *file = NULL;
	enum err err;
	*out = (struct chunk_file){ 0 };
	if (reuse == NULL) {
		err = file_open(loop, path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE, &file);
	} else {
		err = file_open(loop, reuse, FILE_WRITE, &file);
		if (err == OK)
			err = file_truncate(file, 0); /* nothing of its former life may be seen */
	}
	if (err != OK)
		goto done;
	err = file_truncate(file, CHUNK_DATA_OFFSET);
	if (err == OK)
		err = write_header(file, id, version, COPY_COMPLETE);
	if (err == OK && reuse != NULL)
		err = file_rename(loop, reuse, path);
	if (err != OK)
		goto done;
	file_no_readahead(file);
	out->file = file_ref(file);
	out->id = id;
	out->version = version;
	out->crcs = mem_zero(CHUNK_BLOCKS, sizeof(*out->crcs));
done:
	file_unref(file);
	return err;
}

static enum err read_exactly(struct file *file, uint64_t offset, void *bytes, size_t size)
{
	size_t done = 0;
	enum err err = file_read(file, offset, bytes, size, &done);
	if (err == OK && done < size)
		err = ERR_CORRUPT;
	return err;
}

enum err chunk_file_open(struct loop *loop, const char *path, uint64_t id, struct chunk_file *out)
{
	struct file *file = NULL;
	struct chunk_header header;
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	uint8_t *table = NULL;
	uint64_t size = 0;
	*out = (struct chunk_file){ 0 };
	enum err err = file_open(loop, path, FILE_WRITE, &file);
	if (err == OK)
		err = read_exactly(file, 0, bytes, sizeof(bytes));
	if (err == OK)
		err = chunk_header_parse(bytes, &header);
	if (err == OK && (header.kind != KIND_REPLICATED || header.chunk != id))
		err = ERR_CORRUPT;
	if (err == OK)
		err = file_size(file, &size);
	if (err == OK && (size < CHUNK_DATA_OFFSET || size > CHUNK_DATA_OFFSET + (uint64_t)CHUNK_BYTES))
		err = ERR_CORRUPT;
	if (err != OK)
		goto done;
	table = mem_alloc(CHUNK_CRCS_BYTES);
	err = read_exactly(file, CHUNK_CRCS_OFFSET, table, CHUNK_CRCS_BYTES);
	if (err != OK)
		goto done;
	out->crcs = mem_alloc(CHUNK_BLOCKS * sizeof(*out->crcs));
	for (uint32_t i = 0; i < CHUNK_BLOCKS; i++)
		out->crcs[i] = get_le32(table + 4u * i);
	file_no_readahead(file);
	out->file = file_ref(file);
	out->id = id;
	out->version = header.version;
	out->copy = header.copy;
	out->blocks = (uint32_t)((size - CHUNK_DATA_OFFSET + BLOCK_BYTES - 1) / BLOCK_BYTES);
done:
	free(table);
	file_unref(file);
	return err;
}

void chunk_file_close(struct chunk_file *file)
{
	file_unref(file->file);
	file_unref(file->direct);
	free(file->crcs);
	*file = (struct chunk_file){ 0 };
}

void chunk_file_want_direct(struct chunk_file *file, struct loop *loop, const char *path)
{
	if (file->direct != NULL)
		return;
	/* Without it the page cache serves as well: no error. */
	if (file_open(loop, path, FILE_WRITE | FILE_DIRECT, &file->direct) != OK)
		file->direct = file_ref(file->file);
}

/* Stores the entries of [first, first + count) of the table in memory. */
static enum err store_crcs(struct chunk_file *file, uint32_t first, uint32_t count)
{
	uint8_t bytes[CHUNK_WRITE_PIECES_MAX * (FRAME_DATA_BYTES_MAX / BLOCK_BYTES + 1) * 4u];
	check(count * 4u <= sizeof(bytes));
	for (uint32_t i = 0; i < count; i++)
		put_le32(bytes + 4u * i, file->crcs[first + i]);
	return file_write(file->file, CHUNK_CRCS_OFFSET + 4ull * first, bytes, 4u * count);
}

uint32_t chunk_file_crc(const struct chunk_file *file, uint32_t block)
{
	return file->crcs[block] ^ crc32c_zero_block();
}

/* A block of the file into `bytes`, verified; zeros beyond its length. */
static enum err load_block(struct chunk_file *file, uint32_t block, uint32_t blocks, uint8_t *bytes)
{
	if (block >= blocks) {
		memset(bytes, 0, BLOCK_BYTES);
		return OK;
	}
	enum err err = chunk_file_read(file, block, 1, bytes, false);
	if (err == OK && crc32c(bytes, BLOCK_BYTES) != chunk_file_crc(file, block))
		err = ERR_CORRUPT;
	return err;
}

/* Merges a piece within one block into what is there; the result is in `bytes`, its CRC in *crc. */
static enum err merge_block(struct chunk_file *file, uint32_t offset, struct slice piece, uint32_t blocks, uint8_t *bytes,
			    uint32_t *crc)
{
	enum err err = load_block(file, block_first(offset), blocks, bytes);
	if (err != OK)
		return err;
	memcpy(bytes + offset % BLOCK_BYTES, piece.bytes, piece.size);
	*crc = crc32c(bytes, BLOCK_BYTES);
	return OK;
}

/* The blocks that a write covers in part: at most its first and its last. */
struct edges {
	uint8_t head[BLOCK_BYTES], tail[BLOCK_BYTES];
	uint32_t head_crc, tail_crc;
	uint32_t head_bytes, tail_bytes; /* of the data in them; 0: covered whole */
};

static enum err load_edges(struct chunk_file *file, const struct chunk_file_write *write, struct edges *edges)
{
	uint32_t size = (uint32_t)write->data.size;
	uint32_t end = write->offset + size;
	enum err err = OK;
	edges->head_bytes = edges->tail_bytes = 0;
	if (write->damaged != NULL)
		*write->damaged = block_first(write->offset);
	if (write->offset % BLOCK_BYTES != 0 || size < BLOCK_BYTES) {
		uint32_t room = BLOCK_BYTES - write->offset % BLOCK_BYTES;
		edges->head_bytes = size < room ? size : room;
		err = merge_block(file, write->offset, slice_of(write->data.bytes, edges->head_bytes), write->blocks_before,
				  edges->head, &edges->head_crc);
	}
	if (err == OK && end % BLOCK_BYTES != 0 && size > edges->head_bytes) {
		edges->tail_bytes = end % BLOCK_BYTES;
		if (write->damaged != NULL)
			*write->damaged = block_first(end);
		err = merge_block(file, end - edges->tail_bytes,
				  slice_of(write->data.bytes + size - edges->tail_bytes, edges->tail_bytes),
				  write->blocks_before, edges->tail, &edges->tail_crc);
	}
	return err;
}

static enum err write_middle(struct chunk_file *file, uint32_t offset, struct slice bytes)
{
	bool direct = file->direct != NULL && bytes.size >= CHUNK_DIRECT_BYTES_MIN &&
		      (uintptr_t)bytes.bytes % BLOCK_BYTES == 0;
	return file_write(direct ? file->direct : file->file, CHUNK_DATA_OFFSET + (uint64_t)offset, bytes.bytes, bytes.size);
}

enum err chunk_file_write(struct chunk_file *file, const struct chunk_file_write *write)
{
	struct edges edges;
	uint32_t size = (uint32_t)write->data.size;
	uint32_t first = block_first(write->offset), count = block_end(write->offset, size) - first;
	enum err err = load_edges(file, write, &edges);
	if (err != OK)
		return err;
	uint32_t middle = size - edges.head_bytes - edges.tail_bytes;
	if (edges.head_bytes > 0)
		err = file_write(file->file, data_offset(first), edges.head, BLOCK_BYTES);
	if (err == OK && middle > 0)
		err = write_middle(file, write->offset + edges.head_bytes,
				   slice_of(write->data.bytes + edges.head_bytes, middle));
	if (err == OK && edges.tail_bytes > 0)
		err = file_write(file->file, data_offset(first + count - 1), edges.tail, BLOCK_BYTES);
	if (err != OK)
		return err;
	for (uint32_t i = 0; i < count; i++)
		file->crcs[first + i] = get_le32(write->crcs.bytes + 4u * i) ^ crc32c_zero_block();
	if (edges.head_bytes > 0)
		file->crcs[first] = edges.head_crc ^ crc32c_zero_block();
	if (edges.tail_bytes > 0)
		file->crcs[first + count - 1] = edges.tail_crc ^ crc32c_zero_block();
	return store_crcs(file, first, count);
}

bool chunk_file_write_is_plain(const struct chunk_file_write *write)
{
	return (write->offset | write->data.size) % BLOCK_BYTES == 0;
}

enum err chunk_file_write_run(struct chunk_file *file, const struct chunk_file_write *writes, size_t count)
{
	struct slice parts[CHUNK_WRITE_PIECES_MAX];
	uint32_t first = block_first(writes[0].offset), end = first;
	check(count <= CHUNK_WRITE_PIECES_MAX);
	for (size_t i = 0; i < count; i++) {
		check(chunk_file_write_is_plain(&writes[i]) && block_first(writes[i].offset) == end);
		parts[i] = writes[i].data;
		end += (uint32_t)(parts[i].size / BLOCK_BYTES);
	}
	bool direct = file->direct != NULL && (end - first) * BLOCK_BYTES >= CHUNK_DIRECT_BYTES_MIN;
	enum err err = file_write_parts(direct ? file->direct : file->file, data_offset(first), parts, count);
	for (size_t i = 0; err == OK && i < count; i++) {
		uint32_t *crcs = file->crcs + block_first(writes[i].offset);
		for (uint32_t j = 0; j < parts[i].size / BLOCK_BYTES; j++)
			crcs[j] = get_le32(writes[i].crcs.bytes + 4u * j) ^ crc32c_zero_block();
	}
	if (err == OK)
		err = store_crcs(file, first, end - first);
	return err;
}

bool chunk_file_is_whole(struct chunk_file *file, uint32_t first, uint32_t end)
{
	uint8_t bytes[BLOCK_BYTES];
	for (uint32_t block = first; block < end; block++) {
		if (chunk_file_read(file, block, 1, bytes, false) != OK || crc32c(bytes, BLOCK_BYTES) != chunk_file_crc(file, block))
			return false;
	}
	return true;
}

enum err chunk_file_trim(struct chunk_file *file, uint32_t bytes, uint32_t blocks, uint32_t *blocks_after)
{
	uint8_t block[BLOCK_BYTES];
	uint32_t keep = block_end(0, bytes); /* blocks that stay, the last maybe in part */
	*blocks_after = keep < blocks ? keep : blocks;
	if (blocks <= bytes / BLOCK_BYTES)
		return OK;
	enum err err = OK;
	if (bytes % BLOCK_BYTES != 0) {
		err = load_block(file, keep - 1, blocks, block);
		if (err == OK) {
			memset(block + bytes % BLOCK_BYTES, 0, BLOCK_BYTES - bytes % BLOCK_BYTES);
			err = file_write(file->file, data_offset(keep - 1), block, BLOCK_BYTES);
		}
		if (err == OK) {
			file->crcs[keep - 1] = crc32c(block, BLOCK_BYTES) ^ crc32c_zero_block();
			err = store_crcs(file, keep - 1, 1);
		}
	}
	if (err == OK && blocks > keep)
		err = file_truncate(file->file, data_offset(keep));
	for (uint32_t at = keep; err == OK && at < blocks; at += CHECK_BLOCKS) {
		uint32_t count = blocks - at < CHECK_BLOCKS ? blocks - at : CHECK_BLOCKS;
		memset(file->crcs + at, 0, count * sizeof(*file->crcs));
		err = store_crcs(file, at, count);
	}
	return err;
}

enum err chunk_file_read(struct chunk_file *file, uint32_t block, uint32_t count, void *bytes, bool cached)
{
	size_t size = (size_t)count * BLOCK_BYTES, done = 0;
	enum err err = cached ? file_read_cached(file->file, data_offset(block), bytes, size, &done) :
				file_read(file->file, data_offset(block), bytes, size, &done);
	if (err != OK)
		return err;
	if (done < size && cached)
		return ERR_WOULD_BLOCK;
	if (done < size)
		memset((uint8_t *)bytes + done, 0, size - done);
	return OK;
}

bool chunk_file_must_ask_disk(struct chunk_file *file, uint32_t block, uint32_t count)
{
	return file_is_cached(file->file, data_offset(block), (size_t)count * BLOCK_BYTES) == ERR_WOULD_BLOCK;
}

void chunk_file_will_need(struct chunk_file *file, uint32_t block, uint32_t count)
{
	file_will_need(file->file, data_offset(block), (size_t)count * BLOCK_BYTES);
}

enum err chunk_file_read_direct(struct chunk_file *file, uint32_t block, uint32_t count, void *bytes)
{
	struct chunk_file past = *file;
	past.file = file->direct != NULL ? file->direct : file->file;
	return chunk_file_read(&past, block, count, bytes, false);
}

enum err chunk_file_sync(struct chunk_file *file)
{
	return file_sync(file->file);
}

enum err chunk_file_set_state(struct chunk_file *file, uint64_t version, enum copy_state copy)
{
	check(version >= file->version);
	enum err err = write_header(file->file, file->id, version, copy);
	if (err == OK)
		err = file_sync(file->file);
	if (err == OK) {
		file->version = version;
		file->copy = copy;
	}
	return err;
}

/* Of a trim that was cut off (the blocks are holes), or of blocks that were lost. */
enum err chunk_file_check_end(struct chunk_file *file, uint8_t *damaged, uint32_t *mismatches)
{
	uint32_t blocks = file->blocks;
	for (uint32_t at = file->blocks; at < CHUNK_BLOCKS; at++) {
		if (file->crcs[at] == 0)
			continue;
		*mismatches += 1;
		damaged[at / 8] |= (uint8_t)(1u << at % 8);
		blocks = at + 1;
	}
	file->blocks = blocks;
	return OK;
}

uint64_t chunk_file_mismatches(const struct chunk_file *file, uint32_t block, uint32_t count, const void *bytes)
{
	uint64_t bad = 0;
	check(count <= 64);
	for (uint32_t i = 0; i < count; i++) {
		if (crc32c((const uint8_t *)bytes + (size_t)i * BLOCK_BYTES, BLOCK_BYTES) != chunk_file_crc(file, block + i))
			bad |= 1ull << i;
	}
	return bad;
}

/* A block that the disk cannot give is as bad as one that it gives wrong. */
static enum err check_piece(struct chunk_file *file, uint32_t at, uint32_t count, uint8_t *bytes, uint64_t *bad)
{
	enum err err = chunk_file_read_direct(file, at, count, bytes);
	if (err == OK) {
		*bad = chunk_file_mismatches(file, at, count, bytes);
		return OK;
	}
	*bad = 0;
	for (uint32_t i = 0; i < count && (err == OK || err == ERR_IO); i++) {
		err = chunk_file_read_direct(file, at + i, 1, bytes);
		if (err != OK || chunk_file_mismatches(file, at + i, 1, bytes) != 0)
			*bad |= 1ull << i;
	}
	return err == ERR_IO ? OK : err;
}

enum err chunk_file_check(struct chunk_file *file, uint8_t *damaged, uint32_t *mismatches)
{
	struct iobuf *buffer = iobuf_open(CHECK_BLOCKS * BLOCK_BYTES);
	enum err err = OK;
	*mismatches = 0;
	for (uint32_t at = 0; err == OK && at < file->blocks; at += CHECK_BLOCKS) {
		uint32_t count = file->blocks - at < CHECK_BLOCKS ? file->blocks - at : CHECK_BLOCKS;
		uint64_t bad = 0;
		err = check_piece(file, at, count, buffer->bytes, &bad);
		for (uint32_t i = 0; err == OK && i < count; i++) {
			if ((bad >> i & 1) == 0)
				continue;
			*mismatches += 1;
			damaged[(at + i) / 8] |= (uint8_t)(1u << (at + i) % 8);
		}
	}
	if (err == OK)
		err = chunk_file_check_end(file, damaged, mismatches);
	iobuf_unref(buffer);
	return err;
}

enum err chunk_file_scrub_table(struct chunk_file *file, struct loop *loop, const char *path, uint32_t *differing,
				bool *header_differs)
{
	struct iobuf *buffer = iobuf_open(CHUNK_DATA_OFFSET);
	struct file *fresh = NULL;
	struct chunk_header header;
	*differing = 0;
	*header_differs = false;
	enum err err = file_open(loop, path, FILE_READ_ONLY | FILE_DIRECT, &fresh);
	if (err == OK)
		err = read_exactly(fresh, 0, buffer->bytes, CHUNK_DATA_OFFSET);
	if (err != OK)
		goto done;
	bool sound = chunk_header_parse(buffer->bytes, &header) == OK;
	if (sound && (header.chunk != file->id || header.kind != KIND_REPLICATED)) {
		err = ERR_CORRUPT;
		goto done;
	}
	*header_differs = !sound || header.version != file->version;
	for (uint32_t i = 0; i < CHUNK_BLOCKS; i++)
		*differing += get_le32(buffer->bytes + CHUNK_CRCS_OFFSET + 4u * i) != file->crcs[i];
	for (uint32_t at = 0; err == OK && *differing > 0 && at < CHUNK_BLOCKS; at += CHECK_BLOCKS)
		err = store_crcs(file, at, CHECK_BLOCKS);
	if (err == OK && *differing > 0)
		err = file_sync(file->file);
done:
	file_unref(fresh);
	iobuf_unref(buffer);
	return err;
}
