#include "master/meta/keys.h"

#include <string.h>

#include "common/base/bytes.h"
#include "common/base/check.h"

#define ID_END (1u + 8u)

static void put_be32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

struct key key_of(enum key_table table, uint64_t id)
{
	struct key key;
	key.size = ID_END;
	key.bytes[0] = (uint8_t)table;
	put_be64(key.bytes + 1, id);
	return key;
}

struct key key_of_pair(enum key_table table, uint64_t first, uint64_t second)
{
	struct key key = key_of(table, first);
	put_be64(key.bytes + ID_END, second);
	key.size = ID_END + 8;
	return key;
}

struct key key_of_index(enum key_table table, uint64_t id, uint32_t index)
{
	struct key key = key_of(table, id);
	put_be32(key.bytes + ID_END, index);
	key.size = ID_END + 4;
	return key;
}

struct key key_of_name(enum key_table table, uint64_t id, struct slice name)
{
	check(name.size <= NAME_BYTES_MAX);
	struct key key = key_of(table, id);
	if (name.size > 0)
		memcpy(key.bytes + ID_END, name.bytes, name.size);
	key.size = ID_END + (uint32_t)name.size;
	return key;
}

struct key key_of_trash_name(uint64_t parent, struct slice name, uint64_t id)
{
	struct key key = key_of_name(KEY_TRASH_NAME, parent, name);
	key.bytes[key.size++] = 0;
	if (id) {
		put_be64(key.bytes + key.size, id);
		key.size += 8;
	}
	return key;
}

struct key key_of_single(const char *name)
{
	size_t size = strlen(name);
	check(size < KEY_BYTES_MAX);
	struct key key;
	key.bytes[0] = KEY_SINGLE;
	memcpy(key.bytes + 1, name, size);
	key.size = 1 + (uint32_t)size;
	return key;
}

struct key key_of_table(enum key_table table)
{
	struct key key;
	key.size = 1;
	key.bytes[0] = (uint8_t)table;
	return key;
}

struct key key_after(const struct key *key)
{
	struct key after = *key;
	if (after.size < KEY_BYTES_MAX) {
		after.bytes[after.size++] = 0;
		return after;
	}
	/* The longest name: the next key in order is the prefix counted up. */
	uint32_t at = after.size;
	while (at > 0 && after.bytes[at - 1] == 0xff)
		at--;
	check(at > 0);
	after.bytes[at - 1]++;
	after.size = at;
	return after;
}

bool key_parse(struct slice key, uint64_t *id)
{
	if (key.size != ID_END)
		return false;
	*id = get_be64(key.bytes + 1);
	return true;
}

bool key_parse_pair(struct slice key, uint64_t *first, uint64_t *second)
{
	if (key.size != ID_END + 8)
		return false;
	*first = get_be64(key.bytes + 1);
	*second = get_be64(key.bytes + ID_END);
	return true;
}

bool key_parse_index(struct slice key, uint64_t *id, uint32_t *index)
{
	if (key.size != ID_END + 4)
		return false;
	*id = get_be64(key.bytes + 1);
	*index = get_be32(key.bytes + ID_END);
	return true;
}

bool key_parse_name(struct slice key, uint64_t *id, struct slice *name)
{
	if (key.size < ID_END)
		return false;
	*id = get_be64(key.bytes + 1);
	*name = slice_of(key.bytes + ID_END, key.size - ID_END);
	return true;
}

bool key_parse_trash_name(struct slice key, uint64_t *parent, struct slice *name, uint64_t *id)
{
	if (key.size < ID_END + 1 + 8 || key.bytes[key.size - 9] != 0)
		return false;
	*parent = get_be64(key.bytes + 1);
	*name = slice_of(key.bytes + ID_END, key.size - ID_END - 9);
	*id = get_be64(key.bytes + key.size - 8);
	return true;
}
