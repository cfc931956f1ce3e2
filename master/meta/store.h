/* The state machine's view of its key-value store: a write-through overlay and a bounded cache in one table.
 *
 * Every read and write of the state machine goes through here. What an entry changes stays in memory ("dirty") until
 * store_commit hands all of it to the kv in one batch; reads and scans in between see it. Clean items stay as a cache
 * of unpacked values, oldest out first but for those that were used meanwhile ("second chance": finding one changes no list and so
 * touches no other item); since nobody else writes to the kv, the cache cannot be stale.
 *
 * A value is bytes or a protobuf message; a key is always used in the same of these two ways. Pointers to values live
 * until the key is put or deleted, or store_trim.
 *
 * A failure of the kv (or a value that does not parse) is sticky: reads then say "not there", store_failed says why,
 * and nothing is committed any more. Operations need not check; apply and query do at their end. */
#ifndef GRANARY_MASTER_META_STORE_H
#define GRANARY_MASTER_META_STORE_H

#include <stdbool.h>

#include "common/proto/message.h"
#include "common/sys/kv.h"
#include "master/meta/keys.h"

struct store_item;

struct store {
	struct kv *kv; /* borrowed */
	struct kv_batch *batch;
	struct store_item **buckets;
	size_t bucket_count; /* a power of two */
	size_t item_count;
	struct store_item *newest, *oldest; /* clean items */
	size_t bytes;
	size_t bytes_max;
	struct store_item **dirty;
	size_t dirty_count, dirty_capacity;
	struct buf scratch;
	enum err failed;
};

void store_init(struct store *store, struct kv *kv);
void store_deinit(struct store *store);

/* Bytes. False when there is no such key. */
bool store_get(struct store *store, const struct key *key, struct slice *value);
bool store_has(struct store *store, const struct key *key);
void store_put(struct store *store, const struct key *key, struct slice value);
void store_delete(struct store *store, const struct key *key);

/* Messages. NULL when there is no such key. */
const void *store_message(struct store *store, const struct key *key, const ProtobufCMessageDescriptor *descriptor);
/* The same, to be changed in place before the next commit. */
void *store_edit(struct store *store, const struct key *key, const ProtobufCMessageDescriptor *descriptor);
/* Takes the message. */
void store_put_message(struct store *store, const struct key *key, ProtobufCMessage *message);

/* Writes everything dirty as one batch. */
MUST_USE enum err store_commit(struct store *store);
/* Evicts down to the bound. Pointers to values end here. */
void store_trim(struct store *store);

static inline enum err store_failed(const struct store *store)
{
	return store->failed;
}

/* A value that does not parse or a key of wrong size: the store is damaged. */
void store_corrupt(struct store *store);

/* All keys with a prefix, in order, dirty ones too. Nothing may be put or deleted while a scan is open. */
struct scan {
	struct slice key, value; /* until the next scan_next */
	struct store *store;
	struct kv_iterator *iterator;
	bool advance; /* the iterator stands on the pair given last */
	struct key prefix;
	struct store_item **dirty; /* those with the prefix, sorted */
	size_t dirty_count, dirty_next;
	struct buf packed;
};

/* From the first key at or after `from` (NULL: the prefix itself). */
void scan_open(struct scan *scan, struct store *store, const struct key *prefix, const struct key *from);
bool scan_next(struct scan *scan);
void scan_close(struct scan *scan);

#endif
