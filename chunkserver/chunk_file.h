/* One chunk file (chunk_format.h): blocking reads and writes with their checksums.
 *
 * Thread: open, create, want_direct and close on the loop or one worker while nothing else uses the file. The others may
 * run on several workers at a time, as long as no two of them touch the same block with one of them writing: chunk_op.h
 * sees to that. `crcs` follows the same rule, block by block. `blocks` (the length) belongs to the loop; workers are told. */
#ifndef GRANARY_CHUNKSERVER_CHUNK_FILE_H
#define GRANARY_CHUNKSERVER_CHUNK_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "chunkserver/chunk_format.h"
#include "common/sys/file.h"

/* A zeroed struct is a closed file. */
struct chunk_file {
	struct file *file;
	struct file *direct; /* second descriptor that bypasses the page cache; NULL until wanted */
	uint64_t id;
	uint64_t version;    /* as on disk */
	enum copy_state copy; /* as on disk */
	uint32_t *crcs;	     /* CHUNK_BLOCKS entries as on disk: xor of crc32c_zero_block() */
	uint32_t blocks;     /* in the file; what follows is zeros */
};

/* ERR_EXISTS if the path is taken. `reuse` (or NULL) is the path of an empty file that becomes this one. Not synced. */
MUST_USE enum err chunk_file_create(struct loop *loop, const char *path, const char *reuse, uint64_t id, uint64_t version,
				    struct chunk_file *out);
/* ERR_CORRUPT: the header does not check or belongs to another chunk. */
MUST_USE enum err chunk_file_open(struct loop *loop, const char *path, uint64_t id, struct chunk_file *out);
void chunk_file_close(struct chunk_file *file);

/* Opens the second descriptor; without it everything goes through the page cache. */
void chunk_file_want_direct(struct chunk_file *file, struct loop *loop, const char *path);

struct chunk_file_write {
	uint32_t offset;
	struct slice data;
	struct slice crcs;	/* checked against the data before */
	uint32_t blocks_before; /* length of the file when the write was started */
	uint32_t *damaged;	/* or NULL: with ERR_CORRUPT the block that is */
};
/* Blocks that are covered in part are read, checked and merged: ERR_CORRUPT when the old block is damaged (nothing is written
 * then). After any other error the range is undefined on disk. */
MUST_USE enum err chunk_file_write(struct chunk_file *file, const struct chunk_file_write *write);
/* Of whole blocks. */
bool chunk_file_write_is_plain(const struct chunk_file_write *write);
/* Those, at most CHUNK_WRITE_PIECES_MAX, each beginning where the one before ends: in one call of the system. */
MUST_USE enum err chunk_file_write_run(struct chunk_file *file, const struct chunk_file_write *writes, size_t count);
/* After an error: do all blocks agree with their checksums? Blocks behind the end of the file are zeros. */
bool chunk_file_is_whole(struct chunk_file *file, uint32_t first, uint32_t end);
/* Bytes at and above `bytes` become zeros; `blocks` is the length of the file; *blocks_after its new one. ERR_CORRUPT: the block that
 * would be cut is damaged; nothing is changed then. */
MUST_USE enum err chunk_file_trim(struct chunk_file *file, uint32_t bytes, uint32_t blocks, uint32_t *blocks_after);
/* Whole blocks that lie within the file, not verified. `cached`: ERR_WOULD_BLOCK rather than ask the disk. */
MUST_USE enum err chunk_file_read(struct chunk_file *file, uint32_t block, uint32_t count, void *bytes, bool cached);
/* Known not to be in the page cache. (Asking by reading with `cached` would have the system read it.) */
bool chunk_file_must_ask_disk(struct chunk_file *file, uint32_t block, uint32_t count);
/* The disk begins to read them, before a worker comes to it. */
void chunk_file_will_need(struct chunk_file *file, uint32_t block, uint32_t count);
/* As above, past the page cache where that can be (`direct` was wanted). */
MUST_USE enum err chunk_file_read_direct(struct chunk_file *file, uint32_t block, uint32_t count, void *bytes);
/* The CRC-32C of a block at rest. */
uint32_t chunk_file_crc(const struct chunk_file *file, uint32_t block);
MUST_USE enum err chunk_file_sync(struct chunk_file *file);
/* Durable when it returns. */
MUST_USE enum err chunk_file_set_state(struct chunk_file *file, uint64_t version, enum copy_state copy);

/* Which of the blocks disagree with their entry: bit i is block + i. At most 64. */
uint64_t chunk_file_mismatches(const struct chunk_file *file, uint32_t block, uint32_t count, const void *bytes);
/* Reads every block (past the page cache if `direct` was wanted) and counts those that disagree with their entry or cannot be read;
 * `damaged` (CHUNK_BLOCKS bits, zeroed by the caller) gets a bit for each. Blocks cut short at the end count as extended by zeros. */
MUST_USE enum err chunk_file_check(struct chunk_file *file, uint8_t *damaged, uint32_t *mismatches);
/* Reads nothing: only entries of blocks behind the end of the file. `blocks` is extended to hold them, so that reads find them. */
MUST_USE enum err chunk_file_check_end(struct chunk_file *file, uint8_t *damaged, uint32_t *mismatches);
/* What the disk itself says: compares header and entries, past the page cache, with what is in memory. Entries that differ are written
 * again, synced; *differing is how many. A header that differs is only told. While nothing else is written.
 * ERR_CORRUPT: `path` leads to the file of another chunk. */
MUST_USE enum err chunk_file_scrub_table(struct chunk_file *file, struct loop *loop, const char *path, uint32_t *differing,
					 bool *header_differs);

#endif
