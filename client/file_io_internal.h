/* The parts of file_io (client.h): extents, flush, read, reshape, copy. Only they include this.
 *
 * The content of an inode is at any time in one of these forms:
 *
 *   SMALL    the whole content is in `small`, to become a blob: a file written from nothing, up to BLOB_BYTES_MAX
 *   BLOB     a blob of a pack, nothing buffered (attr->layout)
 *   CHUNKS   chunks, and on top of them `extents`: written here, and not yet at every replica
 *   EMPTY    no data: zeros up to the size
 *
 *        write                  grows above BLOB_BYTES_MAX, or flushed once
 *   EMPTY -----> SMALL --------------------------------------------------> CHUNKS
 *                  | flush             write (the blob is read first)         ^
 *                  +------------> BLOB ---------------------------------------+
 *
 * Order: writes are accepted in the order of the calls. What must wait (for a blob to be read, a truncation) waits in
 * `queue`, and everything after it, too. Of two overlapping extents the later one is sent when the earlier one has been
 * answered. A read that overlaps extents waits until they are answered. A flush covers what was accepted before it:
 * extents carry an epoch.
 *
 * Sync: a chunk that was written without sync since the last one is in `unsynced`. A sync that finds a few extents on
 * chunks that are not, sends them with sync: one round trip down the chain. If neither size nor layout changed it is
 * then done, and the mtime follows within CLIENT_MTIME_DELAY_MS or at the next flush: the data is what fdatasync
 * promises. */
#ifndef GRANARY_CLIENT_FILE_IO_INTERNAL_H
#define GRANARY_CLIENT_FILE_IO_INTERNAL_H

#include "client/chunk_map.h"
#include "client/client_internal.h"

#define WINDOW_BYTES FRAME_DATA_BYTES_MAX /* extents do not cross multiples of it */

/* Bytes [offset, offset + size) of the file, written here: those of iobuf from `skip` on. */
struct extent {
	struct extent *previous, *next;
	struct file_io *io;
	uint64_t offset;
	uint64_t epoch;
	struct iobuf *iobuf;
	uint32_t skip, size;
	bool shared; /* iobuf belongs to others, too: its bytes do not change */
	bool sent, sync;
};

struct flush_request {
	struct flush_request *next;
	bool sync;
	bool alone;	  /* only that the file is there */
	file_io_fn *done; /* NULL: started by ourselves */
	void *arg;
};

/* As file_io_read_fn. An iobuf that a part lies in does not change while the callee has a reference; a part without lies in
 * memory that stays. */
typedef void read_parts_fn(void *arg, enum err err, const struct file_part *parts, size_t count);
#define READ_PARTS_MAX (2 * (2 + WINDOW_BYTES / (64 * KIB))) /* of at most WINDOW_BYTES */

enum io_op_kind { IO_WRITE, IO_READ, IO_FLUSH, IO_TRUNCATE };
struct io_op {
	struct io_op *previous, *next;
	enum io_op_kind kind;
	uint64_t offset, size;
	struct buf bytes; /* IO_WRITE */
	bool sync;
	file_io_fn *done;
	file_io_read_fn *read_done; /* or */
	read_parts_fn *parts_done;
	void *arg;
};

struct read_range;

enum flush_state { FLUSH_NONE, FLUSH_MAP, FLUSH_EXTENTS, FLUSH_SYNC, FLUSH_APPEND, FLUSH_COMMIT };

struct file_io {
	struct client *client;
	uint64_t inode;
	unsigned references;  /* of users */
	unsigned holds;       /* operations under way */
	bool lost;            /* freed once nothing holds it */
	Granary__Inode *attr; /* size and mtime with what is buffered */
	struct chunk_map map;
	struct creation *creation; /* the master does not know it yet (creations.h) */
	bool gone;		   /* and never will */
	bool promised;		   /* `small` was closed behind: no program learns any more that it is not stored */
	bool stranded;		   /* so it stays until there is room for it (creations.h), and does not change. Not in dirty_bytes */
	UT_hash_handle hh;
	struct file_io *dirty_previous, *dirty_next; /* in client->dirty */
	bool in_dirty;
	uint64_t dirty_since_ms;

	struct iobuf *small;
	uint64_t master_size; /* as the master had it last */
	uint64_t attr_until_ms; /* until when no other client can have changed the file without telling us; 0: it was */
	bool chunked;           /* content is in chunks, even if attr->layout does not say so yet */
	struct extent *extents;
	unsigned extents_unsent, extents_sent;
	bool hurry; /* somebody waits: send what there is */
	uint64_t epoch;
	struct read_range *reads_waiting; /* for extents that they overlap */
	uint64_t *unsynced;               /* bitmap by chunk index */
	size_t unsynced_words;
	bool blob_unsynced; /* the blob was appended without sync */
	bool synced_before; /* since it was opened here */

	uint64_t own_change; /* attr->data_change as our last change left it */
	bool size_changed;  /* size or layout: the master has to know before a flush ends */
	bool times_changed; /* mtime or atime */
	int64_t atime;      /* to be stored; 0: none */
	uint64_t blocks;    /* newly written since the last commit, estimate */
	enum err error;     /* of an accepted write; reported once */

	uint64_t failed_from, failed_to; /* while error is not reported: what could not be written is in here */

	struct io_op *queue;
	bool queue_running;
	bool reshaping; /* the head of the queue is at work: blob being read, trim, truncation */

	enum flush_state flush_state;
	struct flush_request *flush_waiting, *flush_running;
	bool flush_sync, flush_alone;
	bool flush_times_only; /* the commit that is under way is of times, not of content */
	uint64_t flush_epoch, flush_size;
	struct iobuf *flush_small;
	uint64_t *flush_bits; /* chunks to sync */
	size_t flush_words, flush_next;
	unsigned flush_pending;
	enum err flush_error;
	struct timer mtime_timer;
	struct defer flush_defer;
	bool flush_posted;
	unsigned commit_count, commit_main; /* operations sent, and which of them says what has become of the data */
	struct file_io *commit_next; /* gathered for the next request */
	bool commit_hurried;	     /* somebody waits for the flush */
	int64_t commit_atime; /* to be sent again with it */
	uint64_t blob_pack; /* appended, to be committed */
	uint32_t blob_slot;

	struct iobuf *blob_cache; /* the record (attr->pack, attr->slot), when it was read in part, or ahead */
	uint64_t blob_cache_pack;
	uint32_t blob_cache_slot;
	bool blob_ahead;    /* the record was read ahead and is not wanted any more when it has been read */
	bool ahead_running; /* reads wait for that */
};

/* ---- file_io.c ---- */
void file_io_hold(struct file_io *io);
/* May free it. */
void file_io_release(struct file_io *io);
/* Takes a newer attr of the inode that our own change brought. */
void file_io_take_attr(struct file_io *io, const Granary__Inode *attr);
/* Asks the master for the file's attributes, */
void file_io_ask_attr(struct file_io *io, session_done_fn *done, void *arg);
/* which are in its answer. */
MUST_USE enum err file_io_attr_answered(enum err err, const ProtobufCMessage *message, const Granary__Inode **out);
/* Its record is not where we know it, and is the same. */
bool file_io_is_moved(const struct file_io *io, const Granary__Inode *attr);
/* It was made here, and the master tells of it for the first time: attr, or NULL. */
void file_io_made(struct file_io *io, const Granary__Inode *attr);
void file_io_queue_run(struct file_io *io);
/* What is in `small` is stored, or lost. */
void file_io_drop_small(struct file_io *io);
/* Something is buffered, or no longer. */
void file_io_note_dirty(struct file_io *io);
/* Another client may have changed the file since attr was fetched. Never while something is buffered here. */
bool file_io_attr_is_old(const struct file_io *io);
/* As file_io_read. */
void file_io_read_parts(struct file_io *io, uint64_t offset, size_t size, read_parts_fn *done, void *arg);
/* For reads and syncs. Chunks that no commit has made the file's content yet are found only by AllocateChunk. */
struct place file_io_place(struct file_io *io, uint64_t offset);
/* The master says so: fetched again before the next read. */
void file_io_recalled(struct client *client, uint64_t inode);
/* True when the file's content is (or will be with the next commit) in chunks. */
bool file_io_in_chunks(const struct file_io *io);
void file_io_accounted(struct client *client, int64_t bytes);
/* Files that have been dirty for CLIENT_WRITEBACK_MS begin to write. */
void file_io_writeback(void *client);
/* Frees it whoever has it open: the client closes, and nothing is under way. */
void file_io_abandon(struct file_io *io);
/* Too much is dirty: files begin to write what they have gathered, oldest first. */
void file_io_pressure(struct client *client);
/* The session was lost: what is buffered may no longer be written. */
void file_io_session_lost(struct client *client);

/* ---- file_extents.c ---- */
/* iobuf: NULL, or where the bytes are: they do not change, and may be referenced instead of copied. */
void extents_write(struct file_io *io, uint64_t offset, struct slice bytes, struct iobuf *iobuf);
void extents_pump(struct file_io *io);
bool extents_overlap(const struct file_io *io, uint64_t offset, uint64_t size);
/* Is there one of this epoch or an earlier one? */
bool extents_before(const struct file_io *io, uint64_t epoch);
/* Drops what was not sent, at and above `offset`. */
void extents_drop(struct file_io *io, uint64_t offset);
/* Sets `sync` on what is to be sent, where that saves a ChunkSync. */
void extents_prefer_sync(struct file_io *io);
/* The chunk has been written without sync. */
void extents_unsynced(struct file_io *io, uint32_t index);
/* The chunks that begin at or above `size` are gone. */
void extents_synced_above(struct file_io *io, uint64_t size);

/* ---- file_flush.c ---- */
/* done NULL: nobody waits. */
void flush_request(struct file_io *io, bool sync, file_io_fn *done, void *arg);
/* As file_io_flush, where nobody waits: it may be gathered with others for a while. */
void file_io_flush_unhurried(struct file_io *io, file_io_fn *done, void *arg);
/* Of a file that the master does not know yet: tells it, but nothing of what was written. */
void flush_creation(struct file_io *io, file_io_fn *done, void *arg);
/* Called after each event that a flush may wait for. */
void flush_advance(struct file_io *io);
void flush_deferred(void *arg);

/* ---- file_read.c ---- */
/* One of done and parts_done. */
void read_start(struct file_io *io, uint64_t offset, uint64_t size, file_io_read_fn *done, read_parts_fn *parts_done, void *arg);
/* Reads that waited for extents go on when they can. */
void reads_advance(struct file_io *io);
void blob_cache_drop(struct file_io *io);

/* ---- file_reshape.c ---- */
/* What has to happen before a write to [offset, end): false when nothing; otherwise it is begun, and the queue runs on
 * after it. */
bool reshape_before_write(struct file_io *io, uint64_t end);
/* The truncation at the head of the queue goes on. */
void reshape_truncate(struct file_io *io);

#endif
