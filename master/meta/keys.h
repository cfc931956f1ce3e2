/* The keys of the state machine's store (the table is in meta.h): built on the stack, taken apart after a scan.
 * Numbers are big endian, so that LevelDB's order is numeric order. */
#ifndef GRANARY_MASTER_META_KEYS_H
#define GRANARY_MASTER_META_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/limits.h"

enum key_table {
	KEY_INODE = 'I',
	KEY_DIRENT = 'D',
	KEY_CHUNK_POINTER = 'K',
	KEY_CHUNK = 'C',
	KEY_SERVER_CHUNK = 'S',
	KEY_XATTR = 'X',
	KEY_SESSION = 'N',
	KEY_REPLY = 'R',
	KEY_LOCKS = 'L',
	KEY_SESSION_LOCK = 'l',
	KEY_ORPHAN = 'O',
	KEY_GARBAGE = 'G',
	KEY_SERVER = 'V',
	KEY_TRASH = 'T',
	KEY_TRASH_NAME = 'U',
	KEY_REMOVED = 'Z',
	KEY_ERASED = 'E',
	KEY_TASK = 'Q',
	KEY_SINGLE = 'M',
};

#define KEY_BYTES_MAX (1u + 8u + NAME_BYTES_MAX + 1u + 8u)

struct key {
	uint32_t size;
	uint8_t bytes[KEY_BYTES_MAX];
};

/* 'I', 'C', 'N', 'L', 'O', 'G', 'V', 'T', 'Z' and, as prefixes of a scan, 'D', 'K', 'S', 'X', 'R', 'l', 'U', 'E'. */
struct key key_of(enum key_table table, uint64_t id);
/* 'S', 'l', 'Q'. */
struct key key_of_pair(enum key_table table, uint64_t first, uint64_t second);
/* 'K', 'R', 'E'. */
struct key key_of_index(enum key_table table, uint64_t id, uint32_t index);
/* 'D', 'X'. The name has at most NAME_BYTES_MAX bytes. */
struct key key_of_name(enum key_table table, uint64_t id, struct slice name);
/* 'U': the name ends with a zero byte, so that those of one name are together. 0 as last: a prefix of a scan. */
struct key key_of_trash_name(uint64_t parent, struct slice name, uint64_t id);
/* 'M'. */
struct key key_of_single(const char *name);
/* All keys of a table. */
struct key key_of_table(enum key_table table);
/* The smallest key that is greater than `key`. */
struct key key_after(const struct key *key);

static inline struct slice key_slice(const struct key *key)
{
	return slice_of(key->bytes, key->size);
}

/* Parts of a key found by a scan; false when it has another size. */
bool key_parse(struct slice key, uint64_t *id);
bool key_parse_pair(struct slice key, uint64_t *first, uint64_t *second);
bool key_parse_index(struct slice key, uint64_t *id, uint32_t *index);
/* The name borrows from the key. */
bool key_parse_name(struct slice key, uint64_t *id, struct slice *name);
bool key_parse_trash_name(struct slice key, uint64_t *parent, struct slice *name, uint64_t *id);

#endif
