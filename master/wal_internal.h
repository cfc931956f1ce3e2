/* Shared by wal.c, wal_open.c and wal_segment.c; nobody else includes it. */
#ifndef GRANARY_MASTER_WAL_INTERNAL_H
#define GRANARY_MASTER_WAL_INTERNAL_H

#include "common/sys/file.h"
#include "master/wal.h"
#include "master/wal_format.h"

#define WAL_SPARES_MAX 2u
#define WAL_BATCH_BYTES_MAX (4u * MIB) /* at least one record */

struct wal_segment {
	uint64_t sequence;
	uint64_t index_max; /* highest entry index in it; 0: none */
};

/* Waits in `pending`; batch and place are given when its batch is formed. */
struct wal_pending {
	struct wal_record record;
	size_t payload_offset; /* in wal.payloads */
	uint64_t mark;
	bool reset; /* begins a segment that resets the log to this: */
	struct raft_hard_state hard;
	uint64_t reset_index, reset_term;
};

/* A batch on its way to the disk: seen by the worker. */
struct wal_job {
	struct work work;
	struct wal *wal;
	bool new_segment;
	struct wal_header header; /* of the new segment */
	uint64_t spare;           /* to make it from; 0: none */
	struct file *file;        /* before and, with new_segment, after */
	struct file *old_file;    /* to let go afterwards */
	struct buf pages;
	uint64_t pages_offset;
	struct buf identities;
	uint64_t identities_offset;
	uint64_t mark, index, term; /* that it reaches */
	uint64_t first_needed;
	uint64_t started_us;
	enum err err;
};

/* A spare segment made, or an old one taken back, in the background. */
struct wal_upkeep {
	struct work work;
	struct wal *wal;
	bool busy;
	bool make_spare;
	uint64_t take_back; /* sequence; with make_spare unset */
	uint64_t spare;     /* number of the spare; 0 with take_back: unlink it */
	enum err err;
};

struct wal {
	struct loop *loop;
	struct wal_options options;
	char *directory;
	struct file *lock;
	uint64_t log_id;
	bool failed, closing, busy;

	/* As of the last batch formed. */
	struct file *file;
	uint32_t file_bytes; /* of the current segment: what its header says */
	uint32_t end;
	uint32_t identity_count;
	uint8_t tail[WAL_PAGE_BYTES];          /* the page that `end` is in */
	uint8_t identity_tail[WAL_PAGE_BYTES]; /* the page that the next identity is in */
	uint64_t batch;
	uint64_t last_index, last_term;       /* of the log */
	uint64_t written_index, written_term; /* last entry appended since the open */
	struct raft_hard_state hard;
	uint64_t first_needed; /* as appended */
	uint64_t first_needed_durable;
	struct wal_segment *segments; /* ascending, the last is the current one */
	size_t segment_count, segment_capacity;

	struct wal_pending *pending;
	size_t pending_first, pending_count, pending_capacity;
	struct buf payloads;
	uint64_t mark_last, mark_synced;
	struct defer defer;
	struct work_lane lane;
	struct wal_job job;

	uint64_t spares[WAL_SPARES_MAX];
	size_t spare_count;
	uint64_t spare_number; /* the last one used */
	bool spare_failed;     /* the last attempt to make one */
	uint64_t spare_due_ms; /* not tried again before */
	struct work_lane upkeep_lane;
	struct wal_upkeep upkeep;

	struct wal_view view;
};

/* wal.c */
void wal_defer_init(struct wal *wal);
void wal_add_segment(struct wal *wal, uint64_t sequence, uint64_t index_max);
/* After the last user of the memory has gone. */
void wal_free(struct wal *wal);

/* wal_segment.c. Paths: a fixed buffer is enough for the longest folder name and "/spare-" with 16 digits. */
struct wal_path {
	char text[PATH_BYTES_MAX];
};
struct wal_path wal_segment_path(const struct wal *wal, uint64_t sequence);
struct wal_path wal_spare_path(const struct wal *wal, uint64_t number);
/* Makes the segment durable under its name, from spare number `spare` or (0) anew. Blocking, on any thread. */
MUST_USE enum err wal_create_segment(struct wal *wal, const struct wal_header *header, uint64_t spare,
				     struct file **out);
/* Starts what is due in the background: old segments to take back, a spare to make. */
void wal_upkeep_start(struct wal *wal);

#endif
