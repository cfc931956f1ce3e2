/* An ordered key-value store: LevelDB for real, a map in memory in the simulator. Keys are bytes in memcmp order.
 *
 * Writes are atomic by batch and, unless synced, durable only after a later synced write (in batch order: a crash keeps
 * a prefix of the batches). Thread: the loop; kv_sync also from a worker; an iterator, once it is open, from one thread at a time; a
 * store that is being filled (kv_options.filling) is written by one worker at a time. */
#ifndef GRANARY_COMMON_SYS_KV_H
#define GRANARY_COMMON_SYS_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/sys/loop.h"

struct kv;
struct kv_batch;
struct kv_iterator;

struct kv_options {
	uint64_t cache_bytes;	     /* block cache; 0: 8 MiB */
	uint64_t write_buffer_bytes; /* 0: 4 MiB */
	/* Nobody relies on what is in it before it is complete: batches that are not synced survive a crash in no order, and kv_write
	 * may be called from a worker. Until kv_settle. */
	bool filling;
};

/* Creates the directory if needed. ERR_CORRUPT when it is damaged (paranoid checks are on), ERR_BUSY when in use. */
MUST_USE enum err kv_open(struct loop *loop, const char *path, const struct kv_options *options, struct kv **out);
void kv_close(struct kv *kv);
/* Ends `filling`, after a kv_sync: from here on it is a store as any other. */
MUST_USE enum err kv_settle(struct kv *kv);
/* A read has found damage, or could not be done: what the store holds is to be had from elsewhere. */
bool kv_is_damaged(const struct kv *kv);
/* Removes a store that nobody has open, with its directory; OK if there is none. Also from a worker. */
MUST_USE enum err kv_remove(struct loop *loop, const char *path);

/* *value is replaced. ERR_NOT_FOUND leaves it empty. */
MUST_USE enum err kv_get(struct kv *kv, struct slice key, struct buf *value);
/* Applies and keeps the batch as it is; kv_batch_clear makes it reusable. */
MUST_USE enum err kv_write(struct kv *kv, const struct kv_batch *batch, bool sync);
/* Makes all earlier writes durable. */
MUST_USE enum err kv_sync(struct kv *kv);

struct kv_batch *kv_batch_open(void);
void kv_batch_close(struct kv_batch *batch);
void kv_batch_clear(struct kv_batch *batch);
void kv_batch_put(struct kv_batch *batch, struct slice key, struct slice value);
void kv_batch_delete(struct kv_batch *batch, struct slice key);

/* Sees the store as of its opening. Key and value are valid until the iterator moves or closes. */
struct kv_iterator *kv_iterator_open(struct kv *kv);
/* The same for a pass over everything: what it reads does not push out what is in the cache. */
struct kv_iterator *kv_iterator_open_once(struct kv *kv);
void kv_iterator_close(struct kv_iterator *iterator);
/* To the first key at or after `key`. */
void kv_iterator_seek(struct kv_iterator *iterator, struct slice key);
void kv_iterator_next(struct kv_iterator *iterator);
/* False at the end and after an error (kv_iterator_error). */
bool kv_iterator_valid(const struct kv_iterator *iterator);
struct slice kv_iterator_key(const struct kv_iterator *iterator);
struct slice kv_iterator_value(const struct kv_iterator *iterator);
MUST_USE enum err kv_iterator_error(const struct kv_iterator *iterator);

#endif
