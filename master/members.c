#include "master/members.h"

#include <string.h>

static enum err member_add(struct members *members, uint64_t id, struct slice address)
{
	size_t at = 0;

	if (id == 0 || id > MEMBER_ID_MAX || members->count == RAFT_MEMBERS_MAX || address.size == 0 ||
	    address.size > ADDRESS_BYTES_MAX)
		return ERR_INVALID;
	while (at < members->count && members->ids[at] < id)
		at++;
	if (at < members->count && members->ids[at] == id)
		return ERR_INVALID;
	memmove(&members->ids[at + 1], &members->ids[at], (members->count - at) * sizeof(members->ids[0]));
	memmove(members->addresses[at + 1], members->addresses[at], (members->count - at) * sizeof(members->addresses[0]));
	members->ids[at] = id;
	memcpy(members->addresses[at], address.bytes, address.size);
	members->addresses[at][address.size] = 0;
	members->count++;
	return OK;
}

enum err members_put(struct members *members, uint64_t id, const char *address)
{
	size_t at = 0, size = strlen(address);

	while (at < members->count && members->ids[at] != id)
		at++;
	if (at == members->count)
		return member_add(members, id, slice_of(address, size));
	if (size == 0 || size > ADDRESS_BYTES_MAX)
		return ERR_INVALID;
	memcpy(members->addresses[at], address, size + 1);
	return OK;
}

enum err members_parse(const char *text, struct members *out)
{
	enum err err = OK;

	memset(out, 0, sizeof(*out));
	while (err == OK && *text) {
		uint64_t id = 0;
		while (*text >= '0' && *text <= '9' && id <= MEMBER_ID_MAX)
			id = id * 10 + (uint64_t)(*text++ - '0');
		if (*text++ != '=')
			return ERR_INVALID;
		size_t size = strcspn(text, ",");
		err = member_add(out, id, slice_of(text, size));
		text += size;
		if (*text == ',' && !*++text)
			return ERR_INVALID;
	}
	return err == OK && out->count == 0 ? ERR_INVALID : err;
}

const char *members_address(const struct members *members, uint64_t id)
{
	for (size_t i = 0; i < members->count; i++) {
		if (members->ids[i] == id)
			return members->addresses[i];
	}
	return NULL;
}

void members_ids_text(const struct members *members, struct buf *out)
{
	for (size_t i = 0; i < members->count; i++)
		buf_printf(out, "%s%llu", i ? "," : "", (unsigned long long)members->ids[i]);
}
