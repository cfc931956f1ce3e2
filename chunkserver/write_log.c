#include "chunkserver/write_log.h"

#include <stdlib.h>

#include "chunkserver/op_ring.h"
#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"
#include "common/sys/loop.h"

#define SLOT_BYTES 64u
#define CRC_AT 56u
#define LOAD_SLOTS 1024u

static void load_slot(struct write_log *log, uint32_t slot, const uint8_t *bytes)
{
	struct write_log_entry entry = { .order = get_le64(bytes),
					 .boot = get_le64(bytes + 8),
					 .chunk = get_le64(bytes + 16),
					 .client = get_le64(bytes + 24),
					 .operation = get_le64(bytes + 32),
					 .begun_ms = get_le64(bytes + 40),
					 .first = get_le32(bytes + 48),
					 .end = get_le32(bytes + 52) };
	if (get_le32(bytes + CRC_AT) != crc32c(bytes, CRC_AT) || entry.order % CHUNK_WRITES_LOGGED != slot)
		return;
	if (log->order < entry.order)
		log->order = entry.order;
	if (entry.boot != log->boot)
		return;
	log->entries[slot] = entry;
	if (entry.begun_ms < log->known_since_ms)
		log->known_since_ms = entry.begun_ms;
}

static enum err load(struct write_log *log)
{
	uint8_t *bytes = mem_alloc(LOAD_SLOTS * SLOT_BYTES);
	enum err err = OK;
	size_t done = LOAD_SLOTS * SLOT_BYTES;
	log->known_since_ms = UINT64_MAX;
	for (uint32_t first = 0; first < CHUNK_WRITES_LOGGED && done == LOAD_SLOTS * SLOT_BYTES && err == OK; first += LOAD_SLOTS) {
		err = file_read(log->file, (uint64_t)first * SLOT_BYTES, bytes, LOAD_SLOTS * SLOT_BYTES, &done);
		for (uint32_t i = 0; err == OK && (i + 1ul) * SLOT_BYTES <= done; i++)
			load_slot(log, first + i, bytes + (size_t)i * SLOT_BYTES);
	}
	free(bytes);
	return err;
}

enum err write_log_open(struct loop *loop, const char *path, uint64_t boot, struct write_log *log)
{
	*log = (struct write_log){ .loop = loop, .boot = boot };
	log->entries = mem_zero(CHUNK_WRITES_LOGGED, sizeof(*log->entries));
	enum err err = file_open(loop, path, FILE_WRITE | FILE_CREATE, &log->file);
	if (err == OK)
		err = load(log);
	if (err == OK && log->known_since_ms == UINT64_MAX) { /* the first process of this boot: says since when */
		struct write_log_entry start = { 0 };
		log->known_since_ms = 0;
		write_log_begin(log, &start);
		log->known_since_ms = start.begun_ms;
		err = write_log_note(log, &start);
	}
	if (err != OK)
		write_log_close(log);
	return err;
}

void write_log_close(struct write_log *log)
{
	file_unref(log->file);
	free(log->entries);
	*log = (struct write_log){ 0 };
}

void write_log_begin(struct write_log *log, struct write_log_entry *entry)
{
	entry->order = ++log->order;
	entry->boot = log->boot;
	entry->begun_ms = op_ring_now(log->loop);
	struct write_log_entry *oldest = &log->entries[entry->order % CHUNK_WRITES_LOGGED];
	if (oldest->order != 0 && log->known_since_ms < oldest->begun_ms)
		log->known_since_ms = oldest->begun_ms;
	*oldest = *entry;
}

enum err write_log_note(struct write_log *log, const struct write_log_entry *entry)
{
	uint8_t bytes[SLOT_BYTES] = { 0 };
	put_le64(bytes, entry->order);
	put_le64(bytes + 8, entry->boot);
	put_le64(bytes + 16, entry->chunk);
	put_le64(bytes + 24, entry->client);
	put_le64(bytes + 32, entry->operation);
	put_le64(bytes + 40, entry->begun_ms);
	put_le32(bytes + 48, entry->first);
	put_le32(bytes + 52, entry->end);
	put_le32(bytes + CRC_AT, crc32c(bytes, CRC_AT));
	return file_write(log->file, entry->order % CHUNK_WRITES_LOGGED * SLOT_BYTES, bytes, sizeof(bytes));
}

bool write_log_allows(const struct write_log *log, const struct write_log_entry *operation, uint64_t sent_ms)
{
	const struct write_log_entry *newest = NULL;
	for (uint32_t i = 0; i < CHUNK_WRITES_LOGGED; i++) {
		const struct write_log_entry *entry = &log->entries[i];
		if (entry->order == 0 || entry->chunk != operation->chunk || entry->first >= operation->end || operation->first >= entry->end)
			continue;
		if (newest == NULL || newest->order < entry->order)
			newest = entry;
	}
	if (newest == NULL)
		return sent_ms >= log->known_since_ms;
	if (newest->client == operation->client && newest->operation == operation->operation)
		return true;
	return sent_ms >= newest->begun_ms && sent_ms >= log->known_since_ms;
}
