/* The names of one open directory, in the order in which they were fetched: position i is the i-th name, for as long as
 * the directory is open. So telldir and seekdir are exact, whatever is created or removed meanwhile.
 *
 * Positions as the kernel counts them: 0 is ".", 1 is "..", 2 + i is names[i]. Pure; memory is bounded. */
#ifndef GRANARY_FUSE_CURSOR_H
#define GRANARY_FUSE_CURSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

#define CURSOR_BYTES_MAX (1024ull * 1024 * 1024)
#define CURSOR_DOTS 2u

struct cursor_name {
	const char *name; /* ends with NUL; valid until the next cursor_add */
	size_t name_bytes;
	uint64_t inode;
	uint32_t type; /* DT_* */
};

struct cursor {
	struct buf records;	/* inode 8, type 1, length 1, name, NUL */
	uint64_t *places;	/* of record i */
	size_t count, capacity;
	bool end;		/* nothing follows */
};

void cursor_deinit(struct cursor *cursor);
/* Back to the state of a fresh one: what rewinddir asks for. */
void cursor_reset(struct cursor *cursor);
/* name is at most NAME_BYTES_MAX long. ERR_TOO_MANY above CURSOR_BYTES_MAX. */
MUST_USE enum err cursor_add(struct cursor *cursor, struct slice name, uint64_t inode, uint32_t type);
/* i is below count. */
struct cursor_name cursor_get(const struct cursor *cursor, size_t i);
/* The last name, to continue after; empty when there is none. */
struct slice cursor_last(const struct cursor *cursor);

#endif
