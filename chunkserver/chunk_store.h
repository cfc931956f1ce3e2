/* The chunks of one disk: which there are, those that are open, dirty marks, free space, failure.
 *
 * Thread: the loop; files are opened, synced and removed on workers. Open chunks are bounded (CHUNKS_OPEN_MAX), the least
 * lately used idle clean one makes room. The index knows all others.
 *
 * Dirty marks: a chunk is marked in the index, synced, before its first unsynced write, and the mark goes when it is synced and
 * idle. The mark says in which boot of the machine it was made. Found at the next start it tells what to think of the content
 * (chunk_format.h): if only the process died all that was acknowledged is there, and blocks that disagree with their CRC were being
 * written. If the power went, blocks that agree may be old ones, too: the chunk is *uncertain*. It takes writes, but it is not read and
 * is nobody's source until it has been compared with a copy that is not (mend.h). A *blank* one has nothing that counts: its file was
 * lost, or was not ours.
 *
 * A failed write or sync is final: the store takes no more writes until it is opened anew and has checked what it finds. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_STORE_H
#define GRANARY_CHUNKSERVER_CHUNK_STORE_H

#include <uthash.h>

#include "chunkserver/chunk_damage.h"
#include "chunkserver/chunk_file.h"
#include "chunkserver/chunk_index.h"
#include "chunkserver/op_ring.h"
#include "chunkserver/pack.h"
#include "chunkserver/store_files.h"

struct chunk_store;
struct chunk_op;
struct pack_queue;
struct rejoin;
struct intents;
struct write_log;
struct mend;
struct fill;
struct pack_mend;
struct coded_index;
struct rpc_conn;

enum chunk_state {
	CHUNK_OPENING, /* a worker opens or makes the file; version and blocks are not known yet */
	CHUNK_READY,
	CHUNK_DELETED, /* on its way out: no new use */
};

enum chunk_mark {
	MARK_NONE,
	MARK_SETTING, /* in the index, not yet known to be durable */
	MARK_SET,
};

struct chunk_sync_wait; /* chunk_sync.h */

/* An open chunk. Valid while `uses` is above 0, else until the loop's next event. */
struct chunk {
	UT_hash_handle hh;
	struct chunk_store *store;
	struct chunk *newer, *older; /* by last use */
	uint64_t id;
	enum chunk_kind kind;
	enum chunk_state state;
	uint64_t version;	/* adopted; on disk before anything at this version is acknowledged */
	enum copy_state copy;	/* adopted with the version; on disk likewise */
	Granary__ChunkLocation *chain; /* of `version`; NULL when not heard yet */
	char *path;
	uint32_t uses;
	bool recovered;		/* opened with a mark of a former life */
	bool uncertain;		/* see above */
	bool blank;		/* uncertain, too; */
	bool sourced;		/* but another member has it */
	bool written;		/* its other complete copies have a file, too: something has been acknowledged */
	bool lost_power;	/* what had been acknowledged, and not synced, may be lost here */
	bool never_synced;	/* uncertain or blank: nothing of it had ever been synced here */
	bool ring_sought;	/* others have been asked what they know of operations from before it was opened, or there were none */
	bool loss_untold;	/* what was not synced may be lost with all members: the next sync says so, once */
	bool name_new;		/* made, and its folder not synced since */
	enum chunk_mark mark;
	uint64_t writes_begun, writes_ended; /* counted since opened */
	uint64_t writes_synced;	/* of writes_ended */
	uint64_t written_ms;	/* last write's end */
	struct chunk_file file; /* KIND_REPLICATED */
	struct pack pack;	/* KIND_PACK */
	/* chunk_damage.c: CHUNK_BLOCKS bits each, or NULL: none; of packs: slots */
	uint8_t *damaged, *torn;
	uint32_t *slot_damage, slot_damage_count;
	struct buf bad_slots;	/* uint32_t each: of an uncertain pack: a record is in the file that does not check */
	bool damage_waived;	/* it counts as repaired: nobody reads this copy any more, unless it is filled anew */
	bool damage_is_lost;	/* all members have been asked for all of it: none has it */
	bool misplaced;		/* its name leads elsewhere: to be closed, and opened by its name again */
	bool damage_remembered; /* the index has some of it */
	uint32_t lost;		/* blocks that no member has */

	/* chunk_sync.c */
	bool sync_running;
	struct chunk_sync_wait *syncs_running, *syncs_waiting;
	/* chunk_op.c */
	struct chunk_op *first_op, *last_op;
	struct op_ring ring;
	uint64_t sequence; /* last one sent to the successor */
	const struct rpc_conn *received_from; /* the predecessor's connection, and the last sequence on it */
	uint64_t received_sequence;
	uint64_t filled_version; /* the predecessor has compared all of it with its own, in this life; 0: not */
	uint64_t received_life; /* of the predecessor's process, when it compared our copy with its own */
	bool adopting;
	unsigned settle_failures; /* in a row */
	uint64_t settle_after_ms;
	/* chunk_write.c */
	bool write_running;
	struct chunk_op *writes_waiting;
	/* read_op.c */
	uint32_t read_windows[CHUNK_BYTES / FRAME_DATA_BYTES_MAX / 32]; /* bits: read from the disk since the chunk was opened */
	uint32_t missed_ms[CHUNK_BYTES / FRAME_DATA_BYTES_MAX]; /* when a small read of a window last met the disk; 0: never */
	/* pack_op.c */
	struct pack_queue *queue;
	/* rejoin.c: operations wait */
	struct rejoin *rejoin;
	/* mend.c */
	struct mend *mend;
	struct pack_mend *pack_mend;
	uint64_t mend_after_ms; /* not before */
	/* cold_read.c: of a shard: what it holds; NULL: not read yet */
	struct coded_index *coded;
	/* fill.c: the successor's copy is being filled from here */
	struct fill *fill;
};

struct chunk_store_events {
	/* A chunk that was CHUNK_OPENING is ready, or (err) could not be opened and is freed when this returns. */
	void (*opened)(void *arg, struct chunk *chunk, enum err err);
	/* The chunk is closed: what hangs on it is freed. */
	void (*closing)(void *arg, struct chunk *chunk);
	/* The store closes: operations of the chunk that wait are given up. */
	void (*abandon)(void *arg, struct chunk *chunk);
	/* Damage was found in a chunk that is ready. */
	void (*damaged)(void *arg, struct chunk *chunk);
	/* There was a chunk here, of which nothing is on the disk. */
	void (*missing)(void *arg, uint64_t chunk);
};

struct chunk_store_options {
	const char *root;
	uint64_t reserved_bytes; /* 0: DISK_RESERVED_BYTES */
	bool must_exist; /* it was there before: ERR_STALE_HANDLE if it is not */
	bool suspect;	 /* it had failed: what is dirty is looked at as after a loss of power */
};

struct chunk_store_counts {
	uint64_t chunks;	   /* here */
	uint64_t chunks_open;
	uint64_t damage_found, damage_repaired; /* blocks, and records of packs, since the store was opened */
	uint64_t uncertain;			/* chunks known to be */
	uint32_t latency_us;			/* disk_health.h */
	const char *reason;			/* of the failure; "": none; until the store is closed */
	uint64_t damage_lost;			/* now: no copy has them; counted at the head */
	uint64_t bytes_total, bytes_free;
};

/* Takes the lock, opens or rebuilds the index, compares it with the files. ERR_BUSY: in use. */
MUST_USE enum err chunk_store_open(struct loop *loop, const struct chunk_store_options *options,
				   const struct chunk_store_events *events, void *arg, struct chunk_store **out);
/* Syncs what is dirty. Nothing waits for an answer any more (chunk_store_busy): closed(arg) is called at once. In a process that was
 * killed (the simulator) work may be under way of which only `done` will be heard: closed(arg) is then called with the last of it. */
void chunk_store_close(struct chunk_store *store, void (*closed)(void *arg), void *arg);
/* All work on chunks goes through here: submit, and as the very last thing in `done`, end. err fields of the work say ERR_CANCELLED
 * until it has run. */
void chunk_store_submit(struct chunk_store *store, struct work_lane *lane, struct work *work);
void chunk_store_work_end(struct chunk_store *store);
bool chunk_store_closing(const struct chunk_store *store);
/* Work items on their way. */
bool chunk_store_busy(const struct chunk_store *store);
struct loop *chunk_store_loop(struct chunk_store *store);
struct store_files *chunk_store_files(struct chunk_store *store);
struct chunk_index *chunk_store_index(struct chunk_store *store);
struct intents *chunk_store_intents(struct chunk_store *store);
struct write_log *chunk_store_writes(struct chunk_store *store);

struct chunk_create {
	enum chunk_kind kind;
	uint64_t version;
	enum copy_state copy;
	const Granary__ChunkLocation *chain; /* copied */
	bool only_known; /* only one that was here before; otherwise ERR_NO_CHUNK */
	bool written;	 /* it has content, so a complete copy was here: if it is lost it is made anew as a blank one, */
	bool on_word;	 /* on the master's word; otherwise he is asked, and it is ERR_NO_CHUNK */
};

/* The chunk, open or opening. With `create` one that is not here is made; otherwise ERR_NO_CHUNK.
 * ERR_BUSY: too many are open. ERR_STORE_FAILED, ERR_NO_SPACE: none can be made. */
MUST_USE enum err chunk_store_get(struct chunk_store *store, uint64_t id, const struct chunk_create *create,
				  struct chunk **out);
/* A write or sync has come for it, which was refused: it has content, and there is no file of it. */
bool chunk_store_misses(const struct chunk_store *store, uint64_t id);
/* Only if it is open. */
struct chunk *chunk_store_find(struct chunk_store *store, uint64_t id);
void chunk_use(struct chunk *chunk);
void chunk_unuse(struct chunk *chunk);

/* ERR_STORE_FAILED, ERR_NO_SPACE, or takes `bytes` off what is known to be free. */
MUST_USE enum err chunk_store_admit(struct chunk_store *store, uint64_t bytes);
/* Of what brings a complete copy together with the others: it may have half of what is reserved. */
MUST_USE enum err chunk_store_admit_repair(struct chunk_store *store, uint64_t bytes);
/* For good. */
void chunk_store_fail(struct chunk_store *store, const char *operation, enum err err);
bool chunk_store_failed(const struct chunk_store *store);
/* Something given to the disk does not come back. */
bool chunk_store_is_hung(const struct chunk_store *store);
/* Nobody gives it anything to do, so that only probes can tell how it is. */
void chunk_store_set_idle(struct chunk_store *store, bool idle);
/* Asks the file system again. */
void chunk_store_refresh_space(struct chunk_store *store);
void chunk_store_counts(const struct chunk_store *store, struct chunk_store_counts *out);
void chunk_store_set_reserved(struct chunk_store *store, uint64_t bytes);

/* Puts the mark into the index; durable after chunk_store_sync_index (on a worker). */
MUST_USE enum err chunk_store_mark(struct chunk *chunk);
MUST_USE enum err chunk_store_sync_index(struct chunk_store *store);
/* Of a chunk that is not here: nobody counts on ours any more. */
void chunk_store_drop_mark(struct chunk_store *store, uint64_t id);
/* Version and chain of the chunk go into the index. */
void chunk_store_save(struct chunk *chunk);
/* The slot table of a pack goes into the index. */
void chunk_store_save_slots(struct chunk *chunk);
void chunk_set_chain(struct chunk *chunk, const Granary__ChunkLocation *chain);
bool chunk_is_unsynced(const struct chunk *chunk);

/* For chunk_damage.c and mend.c. */
void chunk_store_count_damage(struct chunk_store *store, uint64_t found, uint64_t repaired);
void chunk_store_set_lost(struct chunk *chunk, uint32_t blocks);
void chunk_store_tell_damaged(struct chunk *chunk);
/* Its name leads to another file, or to none. */
void chunk_store_set_misplaced(struct chunk *chunk);

/* Deletes a chunk; done(arg, err) once its name is gone for good. A write that comes late does not make it anew, here or not, unless in a
 * version above the given one (0: in none). ERR_BUSY (returned): it is in use now; ERR_NO_CHUNK (returned): it is not here. */
MUST_USE enum err chunk_store_delete(struct chunk_store *store, uint64_t id, uint64_t version, void (*done)(void *arg, enum err err),
				     void *arg);
/* Chunks here by id, after `after`. */
MUST_USE enum err chunk_store_each(struct chunk_store *store, uint64_t after,
				   bool (*fn)(void *arg, const Granary__ChunkLocation *), void *arg);
/* Open ones; fn may end operations but open or delete nothing. */
void chunk_store_each_open(struct chunk_store *store, void (*fn)(void *arg, struct chunk *chunk), void *arg);
/* Syncs chunks that have been idle, clears marks, checks chunks marked by a former life. Called every heartbeat. */
void chunk_store_tick(struct chunk_store *store);

#endif
