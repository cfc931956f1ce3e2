/* The write-ahead log of a Raft member: what raft_ready gives to persist, in segment files of a folder.
 *
 * Thread: all functions on the loop; writes and syncs run on a worker (one lane) or, with `sync_inline`, on the loop.
 * One write and its sync are under way at a time; everything appended meanwhile goes with the next (group commit).
 *
 * Promises
 *   - What wal_synced reports is durable, and durable in order: a later record is never there without the earlier ones.
 *   - Restart: a record that a crash tore is cut; a record that was once complete and is damaged now is never taken for
 *     a torn one (wal_format.h says how the two are told apart). While its identity can be read it is given as a damaged
 *     entry; else wal_open says ERR_CORRUPT and logs file, offset and index.
 *   - A failed write or sync is final: ERR_STORE_FAILED from then on, and nothing after it is ever reported durable.
 *
 * Segments are preallocated and zero-filled, so that a write changes no metadata of the file system; only whole 4 KiB
 * pages are written. Buffered write + fdatasync was measured against O_DIRECT + O_DSYNC (ext4 on a virtual disk, one 4
 * KiB page, median): 79 µs against 74..86 µs. So the page cache is used: it costs nothing, a killed process loses
 * nothing that was written, and one sync covers the two places that a batch touches (with O_DSYNC each would pay for
 * its own: 110 µs). */
#ifndef GRANARY_MASTER_WAL_H
#define GRANARY_MASTER_WAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/sys/loop.h"
#include "master/raft/raft.h"

struct wal;

struct wal_options {
	const char *directory;  /* made if it is not there; locked by this process */
	uint32_t segment_bytes; /* 0: WAL_SEGMENT_BYTES */
	/* Writes and syncs on the loop itself: saves two hand-overs between threads and blocks the loop for the time of
	 * a sync. Off by default. Measured on a busy machine, 1 % and 10 % of 1500 appends of 300 bytes: raw overwrite
	 * of a page and fdatasync 61..79 and 89..124 µs, inline 73..77 and 99..114, on a worker 82..117 and 110..168.
	 */
	bool sync_inline;
	/* Called on the loop after each completed sync, from the loop's iteration, never from within wal_append or
	 * wal_sync. index, term: of the last entry appended before the sync began, 0 when none was appended since the
	 * open; mark: of the last wal_append that it covers. err: OK or, once and for all, ERR_STORE_FAILED. */
	void (*synced)(void *arg, enum err err, uint64_t mark, uint64_t index, uint64_t term);
	void *arg;
};

/* What the log held. Payloads are valid until wal_loaded_free. */
struct wal_loaded {
	struct raft_hard_state hard;
	uint64_t first_index;         /* of entries[0]; 1 when fresh */
	uint64_t first_previous_term; /* of entry first_index - 1 */
	struct raft_entry *entries;   /* some may be damaged: no payload */
	size_t entry_count;
	size_t damaged_count; /* of the entries; other damaged records are made good from what is around them */
	uint64_t torn_bytes;  /* cut at the end */
};
void wal_loaded_free(struct wal_loaded *loaded);

/* Opens or makes the log and reads it; what it returns is durable. Blocking, at start. ERR_CORRUPT: see above;
 * ERR_BUSY: another process has it open. */
MUST_USE enum err wal_open(struct loop *loop, const struct wal_options *options, struct wal **out,
			   struct wal_loaded *loaded);
/* Nothing more is reported. What was appended and not synced may be lost. A write under way still ends: the loop runs
 * on or is closed afterwards. NULL is allowed. */
void wal_close(struct wal *wal);

/* Appends a round: the hard state (NULL: unchanged), then entries, ascending; the first may overwrite earlier ones: the
 * log then ends there. Everything is copied. Written and synced with the next sync, which starts by itself at the end
 * of the iteration or when the one under way has ended. *mark numbers the appends from 1. ERR_STORE_FAILED. */
MUST_USE enum err wal_append(struct wal *wal, const struct raft_hard_state *hard, const struct raft_entry *entries,
			     size_t entry_count, uint64_t *mark);
/* Entries that were loaded as damaged, as another member had them: from the next start on they are whole. As wal_append. An
 * entry that the log does not hold as damaged any more when it is read again is passed over. */
MUST_USE enum err wal_fill(struct wal *wal, const struct raft_entry *entries, size_t entry_count, uint64_t *mark);
/* The log becomes empty and begins after entry `index` of `term`, with this hard state; in order with the appends before and
 * after, durable with the mark. A crash leaves either the old log or the new. What was before goes back for reuse. */
MUST_USE enum err wal_reset(struct wal *wal, const struct raft_hard_state *hard, uint64_t index, uint64_t term,
			    uint64_t *mark);
/* Starts the write now instead of at the end of the iteration, if none is under way. */
void wal_sync(struct wal *wal);
/* Changes wal_options.sync_inline, from the next write on. */
void wal_set_inline(struct wal *wal, bool sync_inline);
/* The newest mark that is durable. */
uint64_t wal_synced_mark(const struct wal *wal);
/* Entries below `index` are not needed any more: whole segments before it are taken back for reuse, in the background.
 */
void wal_cut(struct wal *wal, uint64_t index);

/* From time to time: what failed for lack of space is tried again (with the writes it is, too). */
void wal_retry(struct wal *wal);

struct wal_view {
	uint64_t syncs, appends, bytes_written, segments, segments_spare;
	uint64_t sync_us_last, sync_us_max; /* write and sync, with the hand-over */
	bool failed;
	/* The next segment could not be made (no space): what is left of this one, half of it at most, is all that can
	 * be written before the log fails. Tried again every second with the writes and wal_retry. */
	bool space_low;
};
void wal_view(const struct wal *wal, struct wal_view *out);

#endif
