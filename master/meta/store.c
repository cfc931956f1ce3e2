#include "master/meta/store.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"

#define BUCKETS_FIRST 1024u
#define DIRTY_FIRST 64u

struct store_item {
	struct store_item *newer, *older;
	struct buf value; /* bytes, unless there is a message */
	size_t bytes;	  /* counted in store->bytes */
	/* What a look-up needs, side by side. */
	ProtobufCMessage *message; /* the value if it is a message that was used as one */
	struct store_item *chain;  /* in its bucket */
	uint32_t hash;
	uint32_t key_size;
	bool present;
	bool dirty;
	bool used; /* since it was added to the queue, or looked at there */
	uint8_t key[];
};

static struct slice item_key(const struct store_item *item)
{
	return slice_of(item->key, item->key_size);
}

/* ---- the table */

void store_init(struct store *store, struct kv *kv)
{
	*store = (struct store){.kv = kv, .bucket_count = BUCKETS_FIRST, .bytes_max = META_CACHE_BYTES_MAX};
	store->batch = kv_batch_open();
	store->buckets = mem_zero(store->bucket_count, sizeof(*store->buckets));
}

static void item_free(struct store_item *item)
{
	message_free(item->message);
	buf_deinit(&item->value);
	free(item);
}

void store_deinit(struct store *store)
{
	for (size_t i = 0; i < store->bucket_count; i++) {
		struct store_item *next;
		for (struct store_item *item = store->buckets[i]; item; item = next) {
			next = item->chain;
			item_free(item);
		}
	}
	free(store->buckets);
	free(store->dirty);
	buf_deinit(&store->scratch);
	kv_batch_close(store->batch);
	*store = (struct store){0};
}

static void table_grow(struct store *store)
{
	size_t count = store->bucket_count * 2;
	struct store_item **buckets = mem_zero(count, sizeof(*buckets));
	for (size_t i = 0; i < store->bucket_count; i++) {
		struct store_item *next;
		for (struct store_item *item = store->buckets[i]; item; item = next) {
			next = item->chain;
			item->chain = buckets[item->hash & (count - 1)];
			buckets[item->hash & (count - 1)] = item;
		}
	}
	free(store->buckets);
	store->buckets = buckets;
	store->bucket_count = count;
}

static void queue_remove(struct store *store, struct store_item *item)
{
	if (item->newer)
		item->newer->older = item->older;
	else
		store->newest = item->older;
	if (item->older)
		item->older->newer = item->newer;
	else
		store->oldest = item->newer;
	item->newer = item->older = NULL;
}

static void queue_add(struct store *store, struct store_item *item)
{
	item->used = false;
	item->older = store->newest;
	item->newer = NULL;
	if (store->newest)
		store->newest->newer = item;
	else
		store->oldest = item;
	store->newest = item;
}

static struct store_item *table_find(struct store *store, const struct key *key, uint32_t hash)
{
	struct store_item *item = store->buckets[hash & (store->bucket_count - 1)];
	while (item &&
	       (item->hash != hash || item->key_size != key->size || memcmp(item->key, key->bytes, key->size) != 0))
		item = item->chain;
	if (item)
		item->used = true;
	return item;
}

static struct store_item *table_add(struct store *store, const struct key *key, uint32_t hash)
{
	if (store->item_count >= store->bucket_count)
		table_grow(store);
	struct store_item *item = mem_zero(1, sizeof(*item) + key->size);
	item->hash = hash;
	item->key_size = key->size;
	memcpy(item->key, key->bytes, key->size);
	struct store_item **bucket = &store->buckets[hash & (store->bucket_count - 1)];
	item->chain = *bucket;
	*bucket = item;
	store->item_count++;
	queue_add(store, item);
	return item;
}

/* An estimate good enough for a bound: a message takes about twice its packed size beside its struct. */
static void item_account(struct store *store, struct store_item *item, size_t packed_bytes)
{
	size_t bytes = sizeof(*item) + item->key_size + item->value.capacity;
	if (item->message)
		bytes += item->message->descriptor->sizeof_message + 2 * packed_bytes;
	store->bytes += bytes - item->bytes;
	item->bytes = bytes;
}

/* The item of a key, read from the kv if need be; NULL only when the store has failed. */
static struct store_item *item_load(struct store *store, const struct key *key)
{
	uint32_t hash = crc32c(key->bytes, key->size);
	struct store_item *item = table_find(store, key, hash);
	if (item)
		return item;
	if (store->failed)
		return NULL;
	enum err err = kv_get(store->kv, key_slice(key), &store->scratch);
	if (err && err != ERR_NOT_FOUND) {
		store->failed = err;
		return NULL;
	}
	item = table_add(store, key, hash);
	item->present = err == OK;
	if (item->present)
		buf_set(&item->value, buf_slice(&store->scratch));
	item_account(store, item, 0);
	return item;
}

/* The item of a key that is about to be overwritten: the kv is not asked. */
static struct store_item *item_claim(struct store *store, const struct key *key)
{
	uint32_t hash = crc32c(key->bytes, key->size);
	struct store_item *item = table_find(store, key, hash);
	return item ? item : table_add(store, key, hash);
}

static void item_set_dirty(struct store *store, struct store_item *item)
{
	if (item->dirty)
		return;
	item->dirty = true;
	queue_remove(store, item);
	if (store->dirty_count == store->dirty_capacity) {
		store->dirty_capacity = store->dirty_capacity ? store->dirty_capacity * 2 : DIRTY_FIRST;
		store->dirty = mem_resize(store->dirty, store->dirty_capacity * sizeof(struct store_item *));
	}
	store->dirty[store->dirty_count++] = item;
}

/* ---- bytes */

bool store_get(struct store *store, const struct key *key, struct slice *value)
{
	struct store_item *item = item_load(store, key);
	if (!item || !item->present)
		return false;
	check(!item->message);
	*value = buf_slice(&item->value);
	return true;
}

bool store_has(struct store *store, const struct key *key)
{
	struct store_item *item = item_load(store, key);
	return item && item->present;
}

void store_put(struct store *store, const struct key *key, struct slice value)
{
	struct store_item *item = item_claim(store, key);
	check(!item->message);
	item->present = true;
	buf_set(&item->value, value);
	item_account(store, item, 0);
	item_set_dirty(store, item);
}

void store_delete(struct store *store, const struct key *key)
{
	struct store_item *item = item_claim(store, key);
	item->present = false;
	message_free(item->message);
	item->message = NULL;
	buf_deinit(&item->value);
	item->value = (struct buf){0};
	item_account(store, item, 0);
	item_set_dirty(store, item);
}

/* ---- messages */

void store_corrupt(struct store *store)
{
	if (!store->failed)
		store->failed = ERR_CORRUPT;
}

static struct store_item *item_message(struct store *store, const struct key *key,
				       const ProtobufCMessageDescriptor *descriptor)
{
	struct store_item *item = item_load(store, key);
	if (!item || !item->present)
		return NULL;
	if (!item->message) {
		size_t packed_bytes = item->value.size;
		if (message_unpack(descriptor, buf_slice(&item->value), &item->message)) {
			item->message = NULL;
			store_corrupt(store);
			return NULL;
		}
		buf_deinit(&item->value);
		item->value = (struct buf){0};
		item_account(store, item, packed_bytes);
	}
	check(item->message->descriptor == descriptor);
	return item;
}

const void *store_message(struct store *store, const struct key *key, const ProtobufCMessageDescriptor *descriptor)
{
	struct store_item *item = item_message(store, key, descriptor);
	return item ? item->message : NULL;
}

void *store_edit(struct store *store, const struct key *key, const ProtobufCMessageDescriptor *descriptor)
{
	struct store_item *item = item_message(store, key, descriptor);
	if (!item)
		return NULL;
	item_set_dirty(store, item);
	return item->message;
}

void store_put_message(struct store *store, const struct key *key, ProtobufCMessage *message)
{
	struct store_item *item = item_claim(store, key);
	if (item->message != message)
		message_free(item->message);
	item->message = message;
	item->present = true;
	buf_deinit(&item->value);
	item->value = (struct buf){0};
	item_set_dirty(store, item);
}

/* ---- commit and eviction */

enum err store_commit(struct store *store)
{
	if (store->failed)
		return store->failed;
	kv_batch_clear(store->batch);
	for (size_t i = 0; i < store->dirty_count; i++) {
		struct store_item *item = store->dirty[i];
		if (!item->present) {
			kv_batch_delete(store->batch, item_key(item));
		} else if (item->message) {
			buf_clear(&store->scratch);
			message_pack(item->message, &store->scratch);
			kv_batch_put(store->batch, item_key(item), buf_slice(&store->scratch));
			item_account(store, item, store->scratch.size);
		} else {
			kv_batch_put(store->batch, item_key(item), buf_slice(&item->value));
		}
	}
	store->failed = kv_write(store->kv, store->batch, false);
	if (store->failed)
		return store->failed;
	for (size_t i = 0; i < store->dirty_count; i++) {
		store->dirty[i]->dirty = false;
		queue_add(store, store->dirty[i]);
	}
	store->dirty_count = 0;
	return OK;
}

void store_trim(struct store *store)
{
	while (store->bytes > store->bytes_max && store->oldest) {
		struct store_item *item = store->oldest;
		queue_remove(store, item);
		if (item->used) {
			queue_add(store, item);
			continue;
		}
		struct store_item **link = &store->buckets[item->hash & (store->bucket_count - 1)];
		while (*link != item)
			link = &(*link)->chain;
		*link = item->chain;
		store->bytes -= item->bytes;
		store->item_count--;
		item_free(item);
	}
}

/* ---- scan */

static int item_compare(const void *a, const void *b)
{
	const struct store_item *const *first = a;
	const struct store_item *const *second = b;
	return slice_compare(item_key(*first), item_key(*second));
}

void scan_open(struct scan *scan, struct store *store, const struct key *prefix, const struct key *from)
{
	*scan = (struct scan){.store = store, .prefix = *prefix};
	struct slice first = key_slice(from ? from : prefix);
	if (store->failed)
		return;
	for (size_t i = 0; i < store->dirty_count; i++) {
		struct slice key = item_key(store->dirty[i]);
		if (!slice_starts_with(key, key_slice(prefix)) || slice_compare(key, first) < 0)
			continue;
		if (!scan->dirty)
			scan->dirty = mem_alloc(store->dirty_count * sizeof(struct store_item *));
		scan->dirty[scan->dirty_count++] = store->dirty[i];
	}
	if (scan->dirty_count > 1)
		qsort(scan->dirty, scan->dirty_count, sizeof(struct store_item *), item_compare);
	scan->iterator = kv_iterator_open(store->kv);
	kv_iterator_seek(scan->iterator, first);
}

static bool scan_stored_key(struct scan *scan, struct slice *key)
{
	if (scan->advance)
		kv_iterator_next(scan->iterator);
	scan->advance = false;
	if (!kv_iterator_valid(scan->iterator)) {
		enum err err = kv_iterator_error(scan->iterator);
		if (err && !scan->store->failed)
			scan->store->failed = err;
		return false;
	}
	*key = kv_iterator_key(scan->iterator);
	return slice_starts_with(*key, key_slice(&scan->prefix));
}

bool scan_next(struct scan *scan)
{
	if (!scan->iterator)
		return false;
	for (;;) {
		struct slice stored = {0};
		bool has_stored = scan_stored_key(scan, &stored);
		if (scan->store->failed)
			return false;
		struct store_item *item = scan->dirty_next < scan->dirty_count ? scan->dirty[scan->dirty_next] : NULL;
		int order = !item ? -1 : !has_stored ? 1 : slice_compare(stored, item_key(item));
		if (order < 0) {
			if (!has_stored)
				return false;
			scan->advance = true;
			scan->key = stored;
			scan->value = kv_iterator_value(scan->iterator);
			return true;
		}
		scan->advance = order == 0;
		scan->dirty_next++;
		if (!item->present)
			continue;
		scan->key = item_key(item);
		scan->value = buf_slice(&item->value);
		if (item->message) {
			buf_clear(&scan->packed);
			message_pack(item->message, &scan->packed);
			scan->value = buf_slice(&scan->packed);
		}
		return true;
	}
}

void scan_close(struct scan *scan)
{
	if (scan->iterator)
		kv_iterator_close(scan->iterator);
	free(scan->dirty);
	buf_deinit(&scan->packed);
	*scan = (struct scan){0};
}
