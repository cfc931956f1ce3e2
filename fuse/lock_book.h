/* Which locks of one inode programs on this mount hold, as granted by the master. The master's table is the one that counts;
 * this one says what a close must drop, what must be written out before an unlock, and what is lost with a session.
 * Pure. At most LOCKS_PER_INODE_MAX ranges, which the master sees to. */
#ifndef GRANARY_FUSE_LOCK_BOOK_H
#define GRANARY_FUSE_LOCK_BOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lock_entry {
	uint64_t owner;	     /* the kernel's */
	uint64_t start, end; /* inclusive */
	bool flock;
	bool exclusive;
};

struct lock_book {
	struct lock_entry *entries;
	size_t count, capacity;
};

void lock_book_deinit(struct lock_book *book);
/* Takes the place of what the same owner held of the range. */
void lock_book_grant(struct lock_book *book, const struct lock_entry *entry);
/* The range of the entry, of its owner and kind, is not held any more. */
void lock_book_release(struct lock_book *book, const struct lock_entry *entry);
/* Whether the owner holds anything of the entry's range; only_exclusive: to write. */
bool lock_book_holds(const struct lock_book *book, const struct lock_entry *entry, bool only_exclusive);

#endif
