/* The state machine: namespace, chunk map, sessions, locks, garbage, over an ordered key-value store.
 *
 * Pure: what it does depends only on the store and the entry. No clock, no randomness, no network: ids, times and
 * placement come in the entry, chosen by the leader. Every apply is one batch that includes the applied index, so a
 * restart goes on exactly after the last batch that survived. Replicas that applied the same entries hold equal stores
 * (meta_digest). Memory is caches with a bound (META_CACHE_BYTES_MAX), not the namespace.
 *
 * Keys (first byte is the table; numbers are big endian so that order is numeric):
 *   'I' inode                -> Inode            'D' parent, name        -> Dirent
 *   'K' inode, chunk index   -> ChunkPointer     'C' chunk               -> Chunk
 *   'S' server, chunk        -> (empty)          'X' inode, name         -> value
 *   'N' session              -> Session          'R' session, slot       -> SlotReply
 *   'L' inode                -> LockTable        'l' session, inode      -> (empty: session holds locks there)
 *   'O' inode                -> session or empty: nlink 0, waits for Reclaim (anonymous ones: held by the session)
 *   'G' id                   -> Garbage          'V' server              -> Server
 *   'T' id                   -> TrashEntry       'U' parent, name, id    -> (empty: in the trash under that name)
 *   'Z' chunk                -> (empty: there was such a chunk, and it was removed)
 *   'E' pack, slot / 8192    -> bits: slots that were deleted while the pack has a coding (cold.h)
 *   'M' "state"              -> MetaState: applied index and term, cluster, time, counters, open packs
 *   'Q' due, id              -> Task: to be done then; 0: at once
 *   'M' "settings"           -> Settings: what an operator has changed
 *   'M' "classes"            -> StorageClasses
 *   'M' "members"            -> StoredMembership: the masters
 */
#ifndef GRANARY_MASTER_META_META_H
#define GRANARY_MASTER_META_META_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/proto/message.h"
#include "common/proto/storage_class.h"
#include "common/proto/task.h"
#include "common/sys/kv.h"

#define META_ROOT_INODE 1u

struct meta;

/* What the shell must do beyond answering: collected during one apply, cleared by the next. */
struct meta_touch {
	uint64_t inode;    /* attributes or data changed; or the directory in which `name` changed */
	struct slice name; /* empty: the inode itself */
	uint64_t session;  /* whose request did it: needs no recall */
};
struct meta_effects {
	const struct meta_touch *touches; /* caches to recall */
	size_t touch_count;
	bool garbage_added;
	bool orphans_added;
	bool servers_changed;
	uint64_t task_due_min; /* of the tasks that were added and are not due at once, the first; 0: there is none */
	bool restored; /* everything is another: forget what is known of it */
};

/* The store is borrowed and outlives the meta. A fresh store gets the root directory. */
MUST_USE enum err meta_open(struct kv *kv, struct meta **out);
void meta_close(struct meta *meta);

uint64_t meta_applied_index(const struct meta *meta);
uint64_t meta_applied_term(const struct meta *meta);
uint64_t meta_cluster(const struct meta *meta);
uint64_t meta_last_time_ns(const struct meta *meta);
/* Never NULL; until the next apply. Read through common/proto/settings.h. */
const Granary__Settings *meta_settings(const struct meta *meta);
/* Likewise; through common/proto/storage_class.h, */
const Granary__StorageClasses *meta_classes(const struct meta *meta);
/* or what is in force for a label (Inode.class, Chunk.class). */
void meta_class_values(const struct meta *meta, const char *label, struct storage_values *out);
/* How many copies what the operation `at` makes (AllocateChunk, OpenPack) is to have, by its class as it is now. */
unsigned meta_copies_wanted(struct meta *meta, const Granary__MetaRequest *request, size_t at);

/* Applies one committed entry (index is the applied index + 1; `entry` is NULL for a barrier). replies[i] answers
 * entry->requests[i]: whole messages, message_unref each. A request seen before (session, slot, sequence) gets its first answer again.
 * Errors of operations are in their results; an error returned here means that the store failed: the master must stop.
 */
MUST_USE enum err meta_apply(struct meta *meta, uint64_t index, uint64_t term, const Granary__LogEntry *entry,
			     Granary__MetaReply **replies, struct meta_effects *effects);

/* The same for an entry that changes the membership of the masters. */
MUST_USE enum err meta_apply_members(struct meta *meta, uint64_t index, uint64_t term, struct slice membership);
/* As last applied (`membership` is replaced) and the entry that it is from. ERR_NOT_FOUND: none has been. */
MUST_USE enum err meta_members(struct meta *meta, struct buf *membership, uint64_t *index);

/* True when the request changes nothing and may go to meta_query. */
bool meta_is_query(const Granary__MetaRequest *request);
/* ERR_INVALID for what no client may send (operations of the master itself, bounds, names with "/" or NUL). Called
 * by the leader for every request from outside before anything else. */
MUST_USE enum err meta_validate(const Granary__MetaRequest *request);
/* Answers a request that changes nothing from the current state. The reply is whole and the caller's. Statfs has only what the
 * namespace knows (inodes, bytes_used): the space of the chunkservers is the shell's to add. */
MUST_USE enum err meta_query(struct meta *meta, const Granary__MetaRequest *request, Granary__MetaReply **reply);

/* For the shell's policies. */
bool meta_is_directory(struct meta *meta, uint64_t inode);
/* In the memory of a whole message. */
MUST_USE enum err meta_inode(struct meta *meta, uint64_t inode, ProtobufCMessage *whole, Granary__Inode **out);
MUST_USE enum err meta_chunk(struct meta *meta, uint64_t chunk, Granary__Chunk **out);
/* Location with addresses, as clients get it: a whole message. */
MUST_USE enum err meta_chunk_location(struct meta *meta, uint64_t chunk, Granary__ChunkLocation **out);
/* As a ColdCommand needs it: copies and shards (if it has any), whatever it is read from. */
MUST_USE enum err meta_cold_location(struct meta *meta, uint64_t chunk, Granary__ChunkLocation **out);
/* The Garbage record is still there; *servers (up to SHARDS_MAX): who has not confirmed. */
bool meta_garbage_waits(struct meta *meta, uint64_t garbage, uint64_t *servers, size_t *count);
/* There was such a chunk, and it was removed (garbage.h says what that proves). The memory is bounded: false proves nothing. */
bool meta_chunk_was_removed(struct meta *meta, uint64_t chunk);
/* The highest id of any chunk that this state has ever known. */
uint64_t meta_newest_chunk(const struct meta *meta);
/* About how much data it holds: of a pack its live blobs, else as far as its file reaches, holes too. */
uint64_t meta_chunk_bytes(struct meta *meta, const Granary__Chunk *chunk);
/* What a chunk holds (of a file with holes: its share of the blocks that the file has), what is kept of that when it is cold and compressed,
 * and what all of its copies and shards take. */
struct data_sizes {
	uint64_t logical, stored, physical;
};
void meta_chunk_sizes(struct meta *meta, const Granary__Chunk *chunk, struct data_sizes *out);
struct inode_sizes {
	struct data_sizes data;
	uint64_t chunks, cold_chunks;
};
/* The sum over the chunks of an inode from index `first` on, at most `max` of them; of a blob its part of the pack. *next not 0: there are more,
 * from this index on. ERR_NOT_FOUND. */
MUST_USE enum err meta_inode_sizes(struct meta *meta, uint64_t inode, uint32_t first, size_t max, struct inode_sizes *out, uint32_t *next);
/* Since when nothing has been written to it (of a file: to any of its chunks), by the clock of the log; 0: it may be written at any time. */
uint64_t meta_chunk_unwritten_ns(struct meta *meta, const Granary__Chunk *chunk);
/* A blob whose pack is of another class than its own, as both are in force: a class that is removed stands for the default one. */
bool meta_blob_is_misplaced(struct meta *meta, const Granary__Inode *inode);
/* The label, or "" where there is no class of that name. */
const char *meta_label_in_force(const struct meta *meta, const char *label);
bool meta_session_exists(struct meta *meta, uint64_t session);

/* Scans in key order, for bounded background passes: fn returns false to stop. An orphan's session is 0 when nobody
 * holds it: it had names, or its session has ended. */
MUST_USE enum err meta_each_session(struct meta *meta, bool (*fn)(void *arg, uint64_t session), void *arg);
MUST_USE enum err meta_each_server(struct meta *meta, bool (*fn)(void *arg, uint64_t id, const Granary__Server *),
				   void *arg);
MUST_USE enum err meta_each_orphan(struct meta *meta, uint64_t after,
				   bool (*fn)(void *arg, uint64_t inode, uint64_t session), void *arg);
MUST_USE enum err meta_each_garbage(struct meta *meta, uint64_t after,
				    bool (*fn)(void *arg, uint64_t id, const Granary__Garbage *), void *arg);
MUST_USE enum err meta_each_chunk_on(struct meta *meta, uint64_t server, uint64_t after,
				     bool (*fn)(void *arg, uint64_t chunk), void *arg);
MUST_USE enum err meta_each_chunk(struct meta *meta, uint64_t after,
				  bool (*fn)(void *arg, uint64_t chunk, const Granary__Chunk *), void *arg);

/* In order of removal. */
MUST_USE enum err meta_each_trash(struct meta *meta, uint64_t after,
				  bool (*fn)(void *arg, uint64_t id, const Granary__TrashEntry *), void *arg);

/* In order of when they are due, those after this one. */
MUST_USE enum err meta_each_task(struct meta *meta, uint64_t due_ns, uint64_t after_id,
				 bool (*fn)(void *arg, uint64_t due_ns, uint64_t id, const Granary__Task *), void *arg);
bool meta_task_exists(struct meta *meta, uint64_t due_ns, uint64_t id);
/* How many there are of each kind: TASK_KINDS numbers. */
void meta_task_counts(const struct meta *meta, uint64_t *counts);

struct meta_counts {
	uint64_t inodes, chunks, sessions, garbage, trash, trash_bytes;
};
void meta_counts(const struct meta *meta, struct meta_counts *out);
/* CRC-32C over all pairs: equal on all masters at an equal applied index. Slow; for tests and fsck. */
MUST_USE enum err meta_digest(struct meta *meta, uint32_t *out);

#endif
