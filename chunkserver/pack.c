#include "chunkserver/pack.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"

#define SCAN_BYTES (256u * KIB)
#define COPY_DATA_BYTES (16u * KIB) /* smaller records of a batch are gathered into one write */
#define GATHER_BYTES (1u * MIB)
#define TABLE_HEADER_BYTES 24u

static enum err write_header(struct file *file, const struct pack *pack)
{
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct chunk_header header = {
		.kind = KIND_PACK, .chunk = pack->id, .version = pack->version, .slots = pack->slot_count, .salt = pack->salt,
		.copy = pack->copy, .closed = pack->closed
	};
	chunk_header_write(&header, bytes);
	return file_write(file, 0, bytes, sizeof(bytes));
}

static enum err make_file(struct file *file, struct pack *pack)
{
	enum err err = file_truncate(file, 0); /* nothing of its former life may be seen */
	if (err == OK)
		err = file_truncate(file, PACK_DATA_OFFSET);
	if (err == OK)
		err = write_header(file, pack);
	pack->bytes = PACK_DATA_OFFSET;
	return err;
}

enum err pack_create(struct loop *loop, const char *path, const char *reuse, uint64_t id, uint64_t version, uint64_t salt,
		     struct pack *out)
{
	*out = (struct pack){ .id = id, .version = version, .salt = salt };
	enum err err = reuse == NULL ? file_open(loop, path, FILE_WRITE | FILE_CREATE | FILE_EXCLUSIVE, &out->file) :
				       file_open(loop, reuse, FILE_WRITE, &out->file);
	if (err == OK)
		err = make_file(out->file, out);
	if (err == OK && reuse != NULL)
		err = file_rename(loop, reuse, path);
	if (err != OK)
		pack_close(out);
	return err;
}

void pack_close(struct pack *pack)
{
	file_unref(pack->file);
	free(pack->slots);
	*pack = (struct pack){ 0 };
}

static void reserve_slots(struct pack *pack, uint32_t slot)
{
	if (slot > pack->slot_capacity) {
		uint32_t capacity = pack->slot_capacity < 256 ? 256 : pack->slot_capacity * 2;
		if (capacity < slot)
			capacity = slot;
		pack->slots = mem_resize(pack->slots, capacity * sizeof(*pack->slots));
		memset(pack->slots + pack->slot_capacity, 0, (capacity - pack->slot_capacity) * sizeof(*pack->slots));
		pack->slot_capacity = capacity;
	}
	if (slot > pack->slot_count)
		pack->slot_count = slot;
}

static void enter(struct pack *pack, const struct pack_record *record, uint64_t offset)
{
	reserve_slots(pack, record->slot);
	struct pack_slot *slot = &pack->slots[record->slot - 1];
	if (slot->place != 0)
		pack->live_bytes -= pack_record_size(slot->length);
	*slot = (struct pack_slot){ 0, PACK_SLOT_DELETED };
	if (record->flags & PACK_TOMBSTONE)
		return;
	*slot = (struct pack_slot){ (uint32_t)(offset / PACK_ALIGN_BYTES), record->length };
	pack->live_bytes += pack_record_size(record->length);
}

/* Reads all records from pack->bytes on into the table; pack->bytes is then the end of the last one. */
static enum err scan(struct pack *pack, uint64_t size)
{
	uint8_t *window = mem_alloc(SCAN_BYTES);
	uint64_t start = 0;
	size_t filled = 0;
	enum err err = OK;
	for (uint64_t at = pack->bytes; at + PACK_RECORD_BYTES <= size;) {
		if (at < start || at + PACK_RECORD_BYTES > start + filled) {
			start = at;
			err = file_read(pack->file, at, window, SCAN_BYTES, &filled);
			if (err != OK || filled < PACK_RECORD_BYTES)
				break;
		}
		struct pack_record record;
		if (!pack_record_parse(window + (at - start), pack->salt, &record) ||
		    at + PACK_RECORD_BYTES + record.length > size) {
			at += PACK_ALIGN_BYTES;
			continue;
		}
		enter(pack, &record, at);
		at += pack_record_size(record.length);
		pack->bytes = at;
	}
	free(window);
	return err;
}

void pack_table_write(const struct pack *pack, struct buf *out)
{
	uint8_t header[TABLE_HEADER_BYTES];
	put_le64(header, pack->salt);
	put_le64(header + 8, pack->bytes);
	put_le32(header + 16, pack->slot_count);
	put_le32(header + 20, 0);
	buf_clear(out);
	buf_reserve(out, TABLE_HEADER_BYTES + 8ul * pack->slot_count + 4);
	buf_append(out, header, sizeof(header));
	for (uint32_t i = 0; i < pack->slot_count; i++) {
		uint8_t entry[8];
		put_le32(entry, pack->slots[i].place);
		put_le32(entry + 4, pack->slots[i].length);
		buf_append(out, entry, sizeof(entry));
	}
	uint8_t crc[4];
	put_le32(crc, crc32c(out->bytes, out->size));
	buf_append(out, crc, sizeof(crc));
}

/* A table that does not fit the file is left out: the scan finds everything. */
static bool load_table(struct pack *pack, struct slice table, uint64_t size)
{
	if (table.size < TABLE_HEADER_BYTES + 4 || (table.size - TABLE_HEADER_BYTES - 4) % 8 != 0 ||
	    get_le32(table.bytes + table.size - 4) != crc32c(table.bytes, table.size - 4))
		return false;
	uint64_t bytes = get_le64(table.bytes + 8);
	uint32_t count = get_le32(table.bytes + 16);
	/* The last record may lack its padding. */
	if (get_le64(table.bytes) != pack->salt || bytes >= size + PACK_ALIGN_BYTES || bytes < PACK_DATA_OFFSET ||
	    bytes % PACK_ALIGN_BYTES != 0 || count > PACK_SLOTS_MAX || count != (table.size - TABLE_HEADER_BYTES - 4) / 8)
		return false;
	if (count == 0)
		return true;
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *entry = table.bytes + TABLE_HEADER_BYTES + 8ul * i;
		uint64_t offset = (uint64_t)get_le32(entry) * PACK_ALIGN_BYTES;
		uint32_t length = get_le32(entry + 4);
		if (offset != 0 && (offset < PACK_DATA_OFFSET || length > BLOB_BYTES_MAX || offset + length > bytes))
			return false;
	}
	reserve_slots(pack, count);
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *entry = table.bytes + TABLE_HEADER_BYTES + 8ul * i;
		struct pack_slot slot = { get_le32(entry), get_le32(entry + 4) };
		pack->slots[i] = slot;
		if (slot.place != 0)
			pack->live_bytes += pack_record_size(slot.length);
	}
	pack->bytes = bytes;
	return true;
}

enum err pack_open(struct loop *loop, const char *path, uint64_t id, struct slice table, struct pack *out)
{
	uint8_t bytes[CHUNK_HEADER_USED_BYTES];
	struct chunk_header header;
	uint64_t size = 0;
	size_t done = 0;
	*out = (struct pack){ 0 };
	enum err err = file_open(loop, path, FILE_WRITE, &out->file);
	if (err == OK)
		err = file_read(out->file, 0, bytes, sizeof(bytes), &done);
	if (err == OK && done < sizeof(bytes))
		err = ERR_CORRUPT;
	if (err == OK)
		err = chunk_header_parse(bytes, &header);
	if (err == OK && (header.kind != KIND_PACK || header.chunk != id))
		err = ERR_CORRUPT;
	if (err == OK)
		err = file_size(out->file, &size);
	if (err == OK && size / PACK_ALIGN_BYTES > UINT32_MAX)
		err = ERR_CORRUPT;
	if (err == OK) {
		out->id = id;
		out->version = header.version;
		out->salt = header.salt;
		out->copy = header.copy;
		out->closed = header.closed;
		out->bytes = PACK_DATA_OFFSET;
		out->fits_table = load_table(out, table, size);
		if (header.slots > 0)
			reserve_slots(out, header.slots);
		err = scan(out, size);
	}
	if (err != OK)
		pack_close(out);
	return err;
}

void pack_place(struct pack *pack, struct pack_item *items, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		items[i].offset = pack->bytes;
		pack->bytes += pack_record_size(items[i].record.length);
	}
}

/* The record as on disk, padding included, at the end of `out`. */
static void gather(const struct pack *pack, const struct pack_item *item, struct buf *out)
{
	static const uint8_t zeros[PACK_ALIGN_BYTES] = { 0 };
	uint8_t header[PACK_RECORD_BYTES];
	pack_record_write(&item->record, pack->salt, header);
	buf_append(out, header, sizeof(header));
	buf_append_slice(out, item->data);
	buf_append(out, zeros, pack_record_size(item->record.length) - PACK_RECORD_BYTES - item->record.length);
}

/* A large record: its data is not copied. The padding is left out: nothing reads it, the next record lies behind it. */
static enum err write_large(const struct pack *pack, const struct pack_item *item)
{
	uint8_t header[PACK_RECORD_BYTES];
	pack_record_write(&item->record, pack->salt, header);
	enum err err = file_write(pack->file, item->offset + PACK_RECORD_BYTES, item->data.bytes, item->data.size);
	if (err == OK)
		err = file_write(pack->file, item->offset, header, sizeof(header));
	return err;
}

enum err pack_write(struct pack *pack, const struct pack_item *items, uint32_t count, bool sync)
{
	struct buf gathered = { 0 };
	uint64_t start = 0;
	enum err err = OK;
	for (uint32_t i = 0; err == OK && i < count; i++) {
		bool small = items[i].data.size < COPY_DATA_BYTES;
		if (small) {
			if (gathered.size == 0)
				start = items[i].offset;
			gather(pack, &items[i], &gathered);
		}
		if (gathered.size > 0 && (!small || i + 1 == count || gathered.size >= GATHER_BYTES)) {
			err = file_write(pack->file, start, gathered.bytes, gathered.size);
			buf_clear(&gathered);
		}
		if (err == OK && !small)
			err = write_large(pack, &items[i]);
	}
	if (err == OK && sync)
		err = file_sync(pack->file);
	buf_deinit(&gathered);
	return err;
}

void pack_enter(struct pack *pack, const struct pack_item *item)
{
	enter(pack, &item->record, item->offset);
}

bool pack_find(const struct pack *pack, uint32_t slot, struct pack_slot *out)
{
	if (slot == 0 || slot > pack->slot_count || pack->slots[slot - 1].place == 0)
		return false;
	*out = pack->slots[slot - 1];
	return true;
}

enum err pack_read(struct pack *pack, uint32_t slot, struct pack_slot at, void *bytes, bool cached,
		   struct pack_record *record)
{
	uint64_t offset = (uint64_t)at.place * PACK_ALIGN_BYTES;
	size_t size = PACK_RECORD_BYTES + at.length, done = 0;
	enum err err = cached ? file_read_cached(pack->file, offset, bytes, size, &done) :
				file_read(pack->file, offset, bytes, size, &done);
	if (err != OK)
		return err;
	if (done < size)
		return cached ? ERR_WOULD_BLOCK : ERR_CORRUPT;
	if (!pack_record_parse(bytes, pack->salt, record) || record->slot != slot || record->length != at.length)
		return ERR_CORRUPT;
	return OK;
}

bool pack_is_deleted(const struct pack *pack, uint32_t slot)
{
	return slot > 0 && slot <= pack->slot_count && pack->slots[slot - 1].place == 0 &&
	       pack->slots[slot - 1].length == PACK_SLOT_DELETED;
}

void pack_write_bits(const struct pack *pack, bool deleted, uint8_t *bits)
{
	memset(bits, 0, (pack->slot_count + 7) / 8);
	for (uint32_t i = 0; i < pack->slot_count; i++) {
		if (deleted ? pack_is_deleted(pack, i + 1) : pack->slots[i].place != 0)
			bits[i / 8] |= (uint8_t)(1u << i % 8);
	}
}

enum err pack_check_record(struct file *file, uint64_t salt, uint32_t slot, struct pack_slot at, uint8_t *window, bool *sound)
{
	uint64_t offset = (uint64_t)at.place * PACK_ALIGN_BYTES, start = offset / BLOCK_BYTES * BLOCK_BYTES;
	size_t skip = (size_t)(offset - start), size = PACK_RECORD_BYTES + at.length, done = 0;
	struct pack_record record;
	enum err err = file_read(file, start, window, (skip + size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES, &done);
	const uint8_t *bytes = window + skip;
	*sound = err == OK && done >= skip + size && pack_record_parse(bytes, salt, &record) && record.slot == slot &&
		 record.length == at.length && crc32c(bytes + PACK_RECORD_BYTES, record.length) == record.crc;
	return err == ERR_IO ? OK : err;
}

static void drop_record(struct pack *pack, uint32_t slot)
{
	pack->live_bytes -= pack_record_size(pack->slots[slot - 1].length);
	pack->slots[slot - 1] = (struct pack_slot){ 0 };
}

enum err pack_check(struct pack *pack, struct file *direct, struct buf *bad)
{
	struct iobuf *window = iobuf_open(PACK_WINDOW_BYTES);
	enum err err = OK;
	for (uint32_t slot = 1; err == OK && slot <= pack->slot_count; slot++) {
		bool sound = true;
		if (pack->slots[slot - 1].place == 0)
			continue;
		err = pack_check_record(direct != NULL ? direct : pack->file, pack->salt, slot, pack->slots[slot - 1], window->bytes, &sound);
		if (sound || err != OK)
			continue;
		drop_record(pack, slot);
		buf_append(bad, &slot, sizeof(slot));
	}
	iobuf_unref(window);
	return err;
}

enum err pack_set_closed(struct pack *pack)
{
	pack->closed = true;
	return pack_set_state(pack, pack->version, pack->copy);
}

enum err pack_set_state(struct pack *pack, uint64_t version, enum copy_state copy)
{
	check(version >= pack->version);
	uint64_t before = pack->version;
	enum copy_state copy_before = pack->copy;
	pack->version = version;
	pack->copy = copy;
	enum err err = write_header(pack->file, pack);
	if (err == OK)
		err = file_sync(pack->file);
	if (err != OK) {
		pack->version = before;
		pack->copy = copy_before;
	}
	return err;
}

bool pack_wants_compaction(const struct pack *pack)
{
	uint64_t data = pack->bytes - PACK_DATA_OFFSET;
	return data >= PACK_COMPACT_BYTES_MIN && pack->live_bytes * 2 < data;
}

/* Copies one record under the new salt. */
static enum err copy_record(const struct pack *from, struct pack *to, uint32_t slot, uint8_t *bytes)
{
	struct pack_slot at = from->slots[slot - 1];
	size_t done = 0;
	enum err err = file_read(from->file, (uint64_t)at.place * PACK_ALIGN_BYTES, bytes, PACK_RECORD_BYTES + at.length, &done);
	if (err == OK && done < PACK_RECORD_BYTES + at.length)
		err = ERR_CORRUPT;
	if (err != OK)
		return err;
	/* The data's CRC is taken along unchecked: what was damaged stays damaged, and is seen to be. */
	struct pack_item item = {
		.record = { .slot = slot, .length = at.length, .crc = get_le32(bytes + 12), .flags = get_le32(bytes + 16) },
		.data = slice_of(bytes + PACK_RECORD_BYTES, at.length),
	};
	pack_place(to, &item, 1);
	err = pack_write(to, &item, 1, false);
	if (err == OK)
		pack_enter(to, &item);
	return err;
}

enum err pack_compact(struct loop *loop, const struct pack *pack, const char *new_path, uint64_t salt, struct pack *out)
{
	uint8_t *bytes = mem_alloc(PACK_RECORD_BYTES + BLOB_BYTES_MAX);
	*out = (struct pack){
		.id = pack->id, .version = pack->version, .copy = pack->copy, .salt = salt, .closed = pack->closed
	};
	if (pack->slot_count > 0)
		reserve_slots(out, pack->slot_count);
	enum err err = file_open(loop, new_path, FILE_WRITE | FILE_CREATE, &out->file);
	if (err == OK)
		err = make_file(out->file, out);
	for (uint32_t slot = 1; err == OK && slot <= pack->slot_count; slot++) {
		if (pack->slots[slot - 1].place != 0)
			err = copy_record(pack, out, slot, bytes);
		else
			out->slots[slot - 1] = pack->slots[slot - 1];
	}
	if (err == OK)
		err = file_sync(out->file);
	if (err != OK)
		pack_close(out);
	free(bytes);
	return err;
}
