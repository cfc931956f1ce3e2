/* One pack file (chunk_format.h): blobs by slot. The slot table is in memory (8 bytes a slot); the file is the truth.
 *
 * Thread: the table belongs to the loop. Places are given out on the loop (pack_place), bytes are written on a worker
 * (pack_write), one batch of a pack at a time, then the loop enters them (pack_enter). Reads may run meanwhile. */
#ifndef GRANARY_CHUNKSERVER_PACK_H
#define GRANARY_CHUNKSERVER_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "chunkserver/chunk_format.h"
#include "common/sys/file.h"

struct pack_slot {
	uint32_t place; /* offset of the record in units of PACK_ALIGN_BYTES; 0: not here */
	uint32_t length; /* place 0: PACK_SLOT_DELETED where that is known */
};
#define PACK_SLOT_DELETED 1u

/* A zeroed struct is a closed pack. */
struct pack {
	struct file *file;
	uint64_t id;
	uint64_t version; /* as on disk */
	enum copy_state copy; /* as on disk */
	uint64_t salt;
	bool closed; /* no slot is given out here any more; as on disk */
	bool fits_table; /* the table given to pack_open is of this file */
	struct pack_slot *slots; /* of slot 1, 2, … */
	uint32_t slot_count;	 /* highest slot ever given out */
	uint32_t slot_capacity;
	uint64_t bytes;		 /* where the next record goes */
	uint64_t live_bytes;	 /* of records in the table */
};

/* As chunk_file_create. `salt` is random. */
MUST_USE enum err pack_create(struct loop *loop, const char *path, const char *reuse, uint64_t id, uint64_t version,
			      uint64_t salt, struct pack *out);
/* `table` is what pack_table_write made once, or empty: only what follows it is scanned. ERR_CORRUPT as chunk_file_open. */
MUST_USE enum err pack_open(struct loop *loop, const char *path, uint64_t id, struct slice table, struct pack *out);
void pack_close(struct pack *pack);
/* On a worker, after pack_open: reads every record, from `direct` if given (FILE_DIRECT). Those that do not check leave the table; their
 * slots (uint32_t each) are appended to `bad`. */
MUST_USE enum err pack_check(struct pack *pack, struct file *direct, struct buf *bad);
/* No slot is given out from now on; synced. */
MUST_USE enum err pack_set_closed(struct pack *pack);

/* A record to be written. */
struct pack_item {
	struct pack_record record;
	struct slice data; /* record.length bytes */
	uint64_t offset;   /* by pack_place */
};

/* Gives the items their offsets. */
void pack_place(struct pack *pack, struct pack_item *items, uint32_t count);
/* On a worker. */
MUST_USE enum err pack_write(struct pack *pack, const struct pack_item *items, uint32_t count, bool sync);
/* The item has been written: the table knows it (a tombstone: no longer). */
void pack_enter(struct pack *pack, const struct pack_item *item);

/* False: no such slot. */
bool pack_find(const struct pack *pack, uint32_t slot, struct pack_slot *out);
/* It was here, and has been deleted. False when that is not known. */
bool pack_is_deleted(const struct pack *pack, uint32_t slot);
/* A bit for each slot from 1 on that is here, or (`deleted`) for each known to be deleted: (slot_count + 7) / 8 bytes. */
void pack_write_bits(const struct pack *pack, bool deleted, uint8_t *bits);
/* Reads a record from `file`, which may be opened FILE_DIRECT, into `window` (PACK_WINDOW_BYTES, aligned) and checks all of it. OK with
 * *sound false also if it cannot be read. */
#define PACK_WINDOW_BYTES (BLOB_BYTES_MAX + 3u * BLOCK_BYTES)
MUST_USE enum err pack_check_record(struct file *file, uint64_t salt, uint32_t slot, struct pack_slot at, uint8_t *window, bool *sound);
/* Reads the record of a slot, header first, into PACK_RECORD_BYTES + length bytes; *record is its header. ERR_CORRUPT: the header
 * does not check. The data's CRC is left to the reader. */
MUST_USE enum err pack_read(struct pack *pack, uint32_t slot, struct pack_slot at, void *bytes, bool cached,
			    struct pack_record *record);
MUST_USE enum err pack_set_state(struct pack *pack, uint64_t version, enum copy_state copy);

/* Over half is dead and it is worth it. */
bool pack_wants_compaction(const struct pack *pack);
/* On a worker, while nothing is appended: writes the live records to a new file, synced. *out is the pack as it is there; it takes
 * effect when the caller renames the file. A damaged record is copied as it is. */
MUST_USE enum err pack_compact(struct loop *loop, const struct pack *pack, const char *new_path, uint64_t salt,
			       struct pack *out);

/* The table for the index; see pack_open. */
void pack_table_write(const struct pack *pack, struct buf *out);

#endif
