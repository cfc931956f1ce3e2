#include "chunkserver/intents.h"

#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/base/limits.h"

#define SLOT_BYTES 32u

static void load(struct intents *intents, const uint8_t *bytes, size_t size)
{
	for (uint32_t i = 0; i < INTENT_SLOTS && (i + 1ul) * SLOT_BYTES <= size; i++) {
		const uint8_t *slot = bytes + (size_t)i * SLOT_BYTES;
		if (get_le32(slot + 16) == crc32c(slot, 16))
			intents->before[i] = (struct intent){ get_le64(slot), get_le32(slot + 8), get_le32(slot + 12) };
	}
}

enum err intents_open(struct loop *loop, const char *path, struct intents *intents)
{
	uint8_t bytes[INTENT_SLOTS * SLOT_BYTES];
	size_t done = 0;
	*intents = (struct intents){ 0 };
	enum err err = file_open(loop, path, FILE_WRITE | FILE_CREATE, &intents->file);
	if (err == OK)
		err = file_read(intents->file, 0, bytes, sizeof(bytes), &done);
	if (err == OK)
		load(intents, bytes, done);
	/* They stay in the file: the next life may find a chunk that this one has not come to. */
	if (err != OK)
		intents_close(intents);
	return err;
}

void intents_close(struct intents *intents)
{
	file_unref(intents->file);
	*intents = (struct intents){ 0 };
}

int intents_take(struct intents *intents)
{
	if (~intents->taken == 0)
		return -1;
	int slot = __builtin_ctzll(~intents->taken);
	intents->taken |= 1ull << slot;
	return slot;
}

void intents_release(struct intents *intents, int slot)
{
	if (slot >= 0)
		intents->taken &= ~(1ull << slot);
}

enum err intents_write(struct intents *intents, int slot, const struct intent *intent)
{
	uint8_t bytes[SLOT_BYTES] = { 0 };
	if (slot < 0)
		return OK;
	put_le64(bytes, intent->chunk);
	put_le32(bytes + 8, intent->first);
	put_le32(bytes + 12, intent->end);
	put_le32(bytes + 16, crc32c(bytes, 16));
	return file_write(intents->file, (uint64_t)slot * SLOT_BYTES, bytes, sizeof(bytes));
}

bool intents_had(const struct intents *intents, uint64_t chunk, uint32_t block)
{
	for (uint32_t i = 0; i < INTENT_SLOTS; i++) {
		const struct intent *intent = &intents->before[i];
		if (intent->chunk == chunk && chunk != 0 && block >= intent->first && block < intent->end)
			return true;
	}
	return false;
}
