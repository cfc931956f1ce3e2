#include "tools/granary/backup_file.h"

#include <errno.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/data/pairs.h"

#define MAGIC "GRNRYBK1"
#define VERSION 1u
#define HEADER_BYTES 64u
#define TRAILER_BYTES 20u
#define PAGE_BYTES_MAX FRAME_MESSAGE_BYTES_MAX

static enum err put(struct backup_file *backup, const void *bytes, size_t size)
{
	return fwrite(bytes, 1, size, backup->file) == size ? OK : err_from_errno(errno);
}

static enum err get(struct backup_file *backup, void *bytes, size_t size)
{
	if (fread(bytes, 1, size, backup->file) == size)
		return OK;
	return ferror(backup->file) ? ERR_IO : ERR_CORRUPT;
}

enum err backup_write_header(struct backup_file *backup, const struct backup_header *header)
{
	uint8_t bytes[HEADER_BYTES] = {0};
	memcpy(bytes, MAGIC, 8);
	put_le32(bytes + 8, VERSION);
	put_le32(bytes + 12, HEADER_BYTES);
	put_le64(bytes + 16, header->cluster);
	put_le64(bytes + 24, header->index);
	put_le64(bytes + 32, header->term);
	put_le64(bytes + 40, header->time_ms);
	put_le32(bytes + 60, crc32c(bytes, 60));
	backup->header = *header;
	return put(backup, bytes, sizeof bytes);
}

static enum err count(struct backup_file *backup, struct slice pairs)
{
	enum err err = pairs_check(pairs, &backup->last_key, &backup->trailer.pairs);
	backup->trailer.digest = crc32c_extend(backup->trailer.digest, pairs.bytes, pairs.size);
	backup->trailer.pages++;
	return err;
}

enum err backup_write_page(struct backup_file *backup, struct slice pairs)
{
	uint8_t bytes[8];
	if (pairs.size == 0)
		return OK;
	if (pairs.size > PAGE_BYTES_MAX)
		return ERR_TOO_LARGE;
	put_le32(bytes, (uint32_t)pairs.size);
	put_le32(bytes + 4, crc32c(pairs.bytes, pairs.size));
	enum err err = count(backup, pairs);
	if (err == OK)
		err = put(backup, bytes, sizeof bytes);
	return err == OK ? put(backup, pairs.bytes, pairs.size) : err;
}

static void trailer_print(const struct backup_trailer *trailer, uint8_t out[TRAILER_BYTES])
{
	put_le64(out, trailer->pairs);
	put_le64(out + 8, trailer->pages);
	put_le32(out + 16, trailer->digest);
}

enum err backup_write_trailer(struct backup_file *backup)
{
	uint8_t bytes[8 + TRAILER_BYTES] = {0};
	trailer_print(&backup->trailer, bytes + 8);
	put_le32(bytes + 4, crc32c(bytes + 8, TRAILER_BYTES));
	return put(backup, bytes, sizeof bytes);
}

enum err backup_read_header(struct backup_file *backup)
{
	uint8_t bytes[HEADER_BYTES];
	enum err err = get(backup, bytes, sizeof bytes);
	if (err)
		return err;
	if (memcmp(bytes, MAGIC, 8) != 0 || get_le32(bytes + 8) != VERSION || get_le32(bytes + 12) != HEADER_BYTES ||
	    get_le32(bytes + 60) != crc32c(bytes, 60))
		return ERR_CORRUPT;
	backup->header = (struct backup_header){.cluster = get_le64(bytes + 16),
						.index = get_le64(bytes + 24),
						.term = get_le64(bytes + 32),
						.time_ms = get_le64(bytes + 40)};
	return OK;
}

static enum err read_trailer(struct backup_file *backup, uint32_t crc)
{
	uint8_t bytes[TRAILER_BYTES], expected[TRAILER_BYTES];
	enum err err = get(backup, bytes, sizeof bytes);
	trailer_print(&backup->trailer, expected);
	if (err == OK && (crc != crc32c(bytes, sizeof bytes) || memcmp(bytes, expected, sizeof bytes) != 0 ||
			  fgetc(backup->file) != EOF))
		err = ERR_CORRUPT;
	return err;
}

enum err backup_read_page(struct backup_file *backup, struct buf *pairs)
{
	uint8_t bytes[8];
	buf_clear(pairs);
	enum err err = get(backup, bytes, sizeof bytes);
	if (err)
		return err;
	uint32_t size = get_le32(bytes), crc = get_le32(bytes + 4);
	if (size == 0)
		return read_trailer(backup, crc);
	if (size > PAGE_BYTES_MAX)
		return ERR_CORRUPT;
	buf_reserve(pairs, size);
	err = get(backup, pairs->bytes, size);
	if (err)
		return err;
	pairs->size = size;
	if (crc32c(pairs->bytes, size) != crc)
		return ERR_CORRUPT;
	return count(backup, buf_slice(pairs));
}

void backup_deinit(struct backup_file *backup)
{
	if (backup->file)
		fclose(backup->file);
	buf_deinit(&backup->last_key);
	*backup = (struct backup_file){0};
}
