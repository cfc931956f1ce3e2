#include "common/data/pairs.h"

#include "common/base/bytes.h"
#include "common/base/limits.h"

void pairs_add(struct buf *pairs, struct slice key, struct slice value)
{
	uint8_t sizes[PAIR_HEADER_BYTES];

	put_le32(sizes, (uint32_t)key.size);
	put_le32(sizes + 4, (uint32_t)value.size);
	buf_append(pairs, sizes, sizeof(sizes));
	buf_append_slice(pairs, key);
	buf_append_slice(pairs, value);
}

enum err pairs_take(struct slice *rest, struct slice *key, struct slice *value)
{
	if (rest->size < PAIR_HEADER_BYTES)
		return ERR_CORRUPT;
	size_t key_bytes = get_le32(rest->bytes), value_bytes = get_le32(rest->bytes + 4);
	size_t left = rest->size - PAIR_HEADER_BYTES;
	if (key_bytes == 0 || key_bytes > PAIR_KEY_BYTES_MAX || value_bytes > PAIR_VALUE_BYTES_MAX || key_bytes > left ||
	    value_bytes > left - key_bytes)
		return ERR_CORRUPT;
	*key = slice_of(rest->bytes + PAIR_HEADER_BYTES, key_bytes);
	*value = slice_of(key->bytes + key_bytes, value_bytes);
	*rest = slice_of(value->bytes + value_bytes, left - key_bytes - value_bytes);
	return OK;
}

enum err pairs_check(struct slice pairs, struct buf *last, uint64_t *count)
{
	struct slice before = buf_slice(last), key = { 0 }, value;

	if (pairs.size == 0)
		return OK;
	while (pairs.size > 0) {
		enum err err = pairs_take(&pairs, &key, &value);
		if (err)
			return err;
		if (slice_compare(before, key) >= 0)
			return ERR_CORRUPT;
		before = key;
		*count += 1;
	}
	buf_set(last, key);
	return OK;
}
