/* Reads segments of the write-ahead log (wal_format.h) from memory and tells torn from damaged. Pure: also the target
 * of tests/fuzz/fuzz_wal.c. Nothing in a segment is trusted. */
#ifndef GRANARY_MASTER_WAL_READER_H
#define GRANARY_MASTER_WAL_READER_H

#include "master/wal_format.h"

/* Reads segments in order and builds what they hold. A zeroed struct is ready to start. */
struct wal_reader {
	struct raft_hard_state hard;
	uint64_t first_index, first_previous_term;
	struct raft_entry *entries; /* payloads owned, one allocation each */
	size_t entry_count, entry_capacity;
	size_t damaged_count; /* entries without their payload */
	bool vote_lost;	      /* hard.vote is RAFT_VOTE_UNKNOWN for damage */
	uint64_t log_id;
	uint64_t sequence; /* of the last segment read; 0: none yet */
	uint64_t first_needed;
	uint64_t batch; /* the highest seen */
	bool batch_ended;
	/* Of the last segment read. */
	uint32_t segment_bytes;
	uint32_t end;                    /* of its records */
	uint32_t torn_end;               /* of the last remnant of a torn batch; `end` when there is none */
	uint64_t index_max;              /* highest entry index in it */
	struct wal_identity *identities; /* of its records, damaged ones of known identity too */
	size_t identity_count, identity_capacity;
};

/* What is wrong and where, for the log. */
struct wal_damage {
	const char *why;
	uint32_t offset;
	uint64_t index; /* entry that should be there; 0: not known */
};

/* Reads one segment. next: the header of the segment that follows, NULL for the last one. ERR_CORRUPT: *damage. */
MUST_USE enum err wal_read_segment(struct wal_reader *reader, struct slice segment, uint64_t sequence,
				   const struct wal_header *next, struct wal_damage *damage);
/* The header of a segment, from either copy. False: both are damaged. */
MUST_USE bool wal_read_header(struct slice segment, uint64_t sequence, struct wal_header *out);
void wal_reader_deinit(struct wal_reader *reader);

#endif
