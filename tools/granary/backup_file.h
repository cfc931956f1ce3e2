/* The file that `admin backup` writes and `admin restore` reads: all metadata of a cluster as of one moment.
 *
 *	file	:= header page* trailer			integers little endian, CRCs are CRC-32C
 *	header	:= "GRNRYBK1"  version (4) = 1  header_bytes (4) = 64  cluster (8)  index (8)  term (8)  time_ms (8)
 *		   zeros (12)  crc of the 60 bytes before (4)
 *	page	:= bytes (4), not 0  crc (4)  pairs	(common/data/pairs.h)
 *	trailer	:= zeros (4)  crc (4) of what follows  pairs (8)  pages (8)  digest (4): CRC-32C over all pairs
 *
 * Keys ascend over the whole file. Nothing follows the trailer. A file that was cut, or changed anywhere, is recognised: it is read to
 * its end and checked before anything of it is used. It is written under FILE.tmp and gets its name when it is on disk. */
#ifndef GRANARY_TOOLS_GRANARY_BACKUP_FILE_H
#define GRANARY_TOOLS_GRANARY_BACKUP_FILE_H

#include <stdint.h>
#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/err.h"

struct backup_header {
	uint64_t cluster, index, term, time_ms;
};
struct backup_trailer {
	uint64_t pairs, pages;
	uint32_t digest;
};

struct backup_file {
	FILE *file;
	struct backup_header header;
	struct backup_trailer trailer; /* of what was written or read so far */
	struct buf last_key;
};

/* Writing: the file's errors are errno's. */
MUST_USE enum err backup_write_header(struct backup_file *backup, const struct backup_header *header);
MUST_USE enum err backup_write_page(struct backup_file *backup, struct slice pairs);
MUST_USE enum err backup_write_trailer(struct backup_file *backup);

/* Reading. ERR_CORRUPT: not such a file, or damaged. */
MUST_USE enum err backup_read_header(struct backup_file *backup);
/* *pairs is empty at the end, after the trailer was found right. */
MUST_USE enum err backup_read_page(struct backup_file *backup, struct buf *pairs);
void backup_deinit(struct backup_file *backup);

#endif
