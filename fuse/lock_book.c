#include "fuse/lock_book.h"

#include <stdlib.h>

#include "common/base/check.h"

void lock_book_deinit(struct lock_book *book)
{
	free(book->entries);
	*book = (struct lock_book){0};
}

static bool overlaps(const struct lock_entry *a, const struct lock_entry *b)
{
	return a->owner == b->owner && a->flock == b->flock && a->start <= b->end && b->start <= a->end;
}

static void add(struct lock_book *book, const struct lock_entry *entry)
{
	struct lock_entry copy = *entry;

	if (book->count == book->capacity) {
		book->capacity = book->capacity ? 2 * book->capacity : 4;
		book->entries = mem_resize(book->entries, book->capacity * sizeof *book->entries);
	}
	book->entries[book->count++] = copy;
}

void lock_book_release(struct lock_book *book, const struct lock_entry *entry)
{
	for (size_t i = 0; i < book->count;) {
		struct lock_entry held = book->entries[i];

		if (!overlaps(&held, entry)) {
			i++;
			continue;
		}
		book->entries[i] = book->entries[--book->count];
		/* What sticks out on either side stays; it does not overlap, so going on is harmless. */
		if (held.start < entry->start)
			add(book, &(struct lock_entry){held.owner, held.start, entry->start - 1, held.flock,
						       held.exclusive});
		if (held.end > entry->end)
			add(book,
			    &(struct lock_entry){held.owner, entry->end + 1, held.end, held.flock, held.exclusive});
	}
}

void lock_book_grant(struct lock_book *book, const struct lock_entry *entry)
{
	lock_book_release(book, entry);
	add(book, entry);
}

bool lock_book_holds(const struct lock_book *book, const struct lock_entry *entry, bool only_exclusive)
{
	for (size_t i = 0; i < book->count; i++)
		if (overlaps(&book->entries[i], entry) && (book->entries[i].exclusive || !only_exclusive))
			return true;
	return false;
}
