#include "chunkserver/chunk_index.h"

#include "common/base/bytes.h"
#include "common/base/check.h"

#define KEY_BYTES 9u

static struct slice key_of(char table, uint64_t id, uint8_t key[KEY_BYTES])
{
	key[0] = (uint8_t)table;
	put_be64(key + 1, id);
	return slice_of(key, KEY_BYTES);
}

static bool count_chunk(void *arg, const Granary__ChunkLocation *location)
{
	(void)location;
	*(uint64_t *)arg += 1;
	return true;
}

enum err chunk_index_open(struct loop *loop, const char *path, struct chunk_index *index)
{
	*index = (struct chunk_index){ 0 };
	enum err err = kv_open(loop, path, &(struct kv_options){ 0 }, &index->kv);
	if (err != OK)
		return err;
	index->batch = kv_batch_open();
	err = chunk_index_each(index, 0, count_chunk, &index->chunks);
	if (err != OK)
		chunk_index_close(index);
	return err;
}

void chunk_index_close(struct chunk_index *index)
{
	if (index->kv == NULL)
		return;
	kv_batch_close(index->batch);
	kv_close(index->kv);
	*index = (struct chunk_index){ 0 };
}

static enum err flush_batch(struct chunk_index *index)
{
	enum err err = kv_write(index->kv, index->batch, false);
	kv_batch_clear(index->batch);
	return err;
}

static enum err unpack_location(struct slice bytes, uint64_t chunk, Granary__ChunkLocation **out)
{
	ProtobufCMessage *message = NULL;
	*out = NULL;
	if (message_unpack(&granary__chunk_location__descriptor, bytes, &message) != OK)
		return ERR_CORRUPT;
	*out = (Granary__ChunkLocation *)message;
	if ((*out)->chunk == chunk)
		return OK;
	message_free(message);
	*out = NULL;
	return ERR_CORRUPT;
}

enum err chunk_index_get(struct chunk_index *index, uint64_t chunk, Granary__ChunkLocation **out)
{
	uint8_t key[KEY_BYTES];
	struct buf value = { 0 };
	*out = NULL;
	enum err err = kv_get(index->kv, key_of('C', chunk, key), &value);
	if (err == OK)
		err = unpack_location(buf_slice(&value), chunk, out);
	buf_deinit(&value);
	return err;
}

static void batch_put_location(struct chunk_index *index, char table, const Granary__ChunkLocation *location)
{
	uint8_t key[KEY_BYTES];
	struct buf value = { 0 };
	message_pack(&location->base, &value);
	kv_batch_put(index->batch, key_of(table, location->chunk, key), buf_slice(&value));
	buf_deinit(&value);
}

enum err chunk_index_put(struct chunk_index *index, const Granary__ChunkLocation *location, bool is_new)
{
	batch_put_location(index, 'C', location);
	enum err err = flush_batch(index);
	if (err == OK && is_new)
		index->chunks++;
	return err;
}

enum err chunk_index_delete(struct chunk_index *index, uint64_t chunk)
{
	uint8_t key[KEY_BYTES];
	kv_batch_delete(index->batch, key_of('C', chunk, key));
	kv_batch_delete(index->batch, key_of('D', chunk, key));
	kv_batch_delete(index->batch, key_of('P', chunk, key));
	kv_batch_delete(index->batch, key_of('B', chunk, key));
	kv_batch_delete(index->batch, key_of('T', chunk, key));
	enum err err = flush_batch(index);
	if (err == OK && index->chunks > 0)
		index->chunks--;
	return err;
}

enum err chunk_index_forget(struct chunk_index *index, uint64_t chunk)
{
	uint8_t key[KEY_BYTES];
	kv_batch_delete(index->batch, key_of('C', chunk, key));
	kv_batch_delete(index->batch, key_of('T', chunk, key));
	enum err err = flush_batch(index);
	if (err == OK && index->chunks > 0)
		index->chunks--;
	return err;
}

enum err chunk_index_mark(struct chunk_index *index, uint64_t chunk, uint64_t boot, unsigned flags)
{
	uint8_t key[KEY_BYTES], value[9];
	put_le64(value, boot);
	value[8] = (uint8_t)flags;
	kv_batch_put(index->batch, key_of('D', chunk, key), slice_of(value, flags != 0 ? 9 : 8));
	return flush_batch(index);
}

enum err chunk_index_unmark(struct chunk_index *index, uint64_t chunk)
{
	uint8_t key[KEY_BYTES];
	kv_batch_delete(index->batch, key_of('D', chunk, key));
	return flush_batch(index);
}

static unsigned mark_flags(const struct buf *value)
{
	return value->size == 9 ? value->bytes[8] : 0;
}

bool chunk_index_marked(struct chunk_index *index, uint64_t chunk, uint64_t *boot, bool *name_new)
{
	uint8_t key[KEY_BYTES];
	struct buf value = { 0 };
	enum err err = kv_get(index->kv, key_of('D', chunk, key), &value);
	/* What cannot be read counts as marked in another life: the careful way. */
	*boot = err == OK && value.size >= 8 ? get_le64(value.bytes) : CHUNK_BOOT_UNKNOWN;
	*name_new = err == OK && (mark_flags(&value) & CHUNK_MARK_NAME_NEW) != 0;
	buf_deinit(&value);
	return err != ERR_NOT_FOUND;
}

bool chunk_index_mark_is_pack(struct chunk_index *index, uint64_t chunk)
{
	uint8_t key[KEY_BYTES];
	struct buf value = { 0 };
	bool is_pack = kv_get(index->kv, key_of('D', chunk, key), &value) == OK && (mark_flags(&value) & CHUNK_MARK_PACK) != 0;
	buf_deinit(&value);
	return is_pack;
}

enum err chunk_index_put_slots(struct chunk_index *index, uint64_t pack, struct slice table)
{
	uint8_t key[KEY_BYTES];
	kv_batch_put(index->batch, key_of('P', pack, key), table);
	return flush_batch(index);
}

enum err chunk_index_get_slots(struct chunk_index *index, uint64_t pack, struct buf *table)
{
	uint8_t key[KEY_BYTES];
	return kv_get(index->kv, key_of('P', pack, key), table);
}

enum err chunk_index_sync(struct chunk_index *index)
{
	return kv_sync(index->kv);
}

enum err chunk_index_each(struct chunk_index *index, uint64_t after, bool (*fn)(void *arg, const Granary__ChunkLocation *),
			  void *arg)
{
	uint8_t key[KEY_BYTES];
	enum err err = OK;
	if (after == UINT64_MAX)
		return OK;
	struct kv_iterator *iterator = kv_iterator_open(index->kv);
	for (kv_iterator_seek(iterator, key_of('C', after + 1, key)); kv_iterator_valid(iterator); kv_iterator_next(iterator)) {
		struct slice at = kv_iterator_key(iterator);
		if (at.size != KEY_BYTES || at.bytes[0] != 'C')
			break;
		Granary__ChunkLocation *location;
		err = unpack_location(kv_iterator_value(iterator), get_be64(at.bytes + 1), &location);
		if (err != OK)
			break;
		bool more = fn(arg, location);
		message_free(&location->base);
		if (!more)
			break;
	}
	if (err == OK)
		err = kv_iterator_error(iterator);
	kv_iterator_close(iterator);
	return err;
}

static enum err each_id(struct chunk_index *index, char table, bool (*fn)(void *arg, uint64_t chunk), void *arg)
{
	uint8_t key[KEY_BYTES];
	struct kv_iterator *iterator = kv_iterator_open(index->kv);
	for (kv_iterator_seek(iterator, key_of(table, 0, key)); kv_iterator_valid(iterator); kv_iterator_next(iterator)) {
		struct slice at = kv_iterator_key(iterator);
		if (at.size != KEY_BYTES || at.bytes[0] != (uint8_t)table || !fn(arg, get_be64(at.bytes + 1)))
			break;
	}
	enum err err = kv_iterator_error(iterator);
	kv_iterator_close(iterator);
	return err;
}

enum err chunk_index_each_mark(struct chunk_index *index, bool (*fn)(void *arg, uint64_t chunk), void *arg)
{
	return each_id(index, 'D', fn, arg);
}

enum err chunk_index_each_damage(struct chunk_index *index, bool (*fn)(void *arg, uint64_t chunk), void *arg)
{
	return each_id(index, 'B', fn, arg);
}

enum err chunk_index_put_damage(struct chunk_index *index, uint64_t chunk, struct slice runs)
{
	uint8_t key[KEY_BYTES];
	if (runs.size == 0)
		kv_batch_delete(index->batch, key_of('B', chunk, key));
	else
		kv_batch_put(index->batch, key_of('B', chunk, key), runs);
	return flush_batch(index);
}

enum err chunk_index_get_damage(struct chunk_index *index, uint64_t chunk, struct buf *runs)
{
	uint8_t key[KEY_BYTES];
	return kv_get(index->kv, key_of('B', chunk, key), runs);
}

uint32_t chunk_index_damage_count(struct chunk_index *index, uint64_t chunk)
{
	struct buf runs = { 0 };
	uint32_t count = 0;
	if (chunk_index_get_damage(index, chunk, &runs) == OK) {
		for (size_t at = 0; at + 8 <= runs.size; at += 8)
			count += get_le32(runs.bytes + at + 4);
	}
	buf_deinit(&runs);
	return count;
}

enum err chunk_index_put_checked(struct chunk_index *index, uint64_t chunk, uint64_t wall_ms)
{
	uint8_t key[KEY_BYTES], value[8];
	put_le64(value, wall_ms);
	kv_batch_put(index->batch, key_of('T', chunk, key), slice_of(value, sizeof(value)));
	return flush_batch(index);
}

uint64_t chunk_index_checked_ms(struct chunk_index *index, uint64_t chunk)
{
	uint8_t key[KEY_BYTES];
	struct buf value = { 0 };
	bool known = kv_get(index->kv, key_of('T', chunk, key), &value) == OK && value.size == 8;
	uint64_t wall_ms = known ? get_le64(value.bytes) : 0;
	buf_deinit(&value);
	return wall_ms;
}

enum err chunk_index_put_note(struct chunk_index *index, const char *name, struct slice bytes)
{
	struct buf key = { 0 };
	buf_printf(&key, "M%s", name);
	kv_batch_put(index->batch, buf_slice(&key), bytes);
	buf_deinit(&key);
	return flush_batch(index);
}

enum err chunk_index_get_note(struct chunk_index *index, const char *name, struct buf *bytes)
{
	struct buf key = { 0 };
	buf_printf(&key, "M%s", name);
	enum err err = kv_get(index->kv, buf_slice(&key), bytes);
	buf_deinit(&key);
	return err;
}
