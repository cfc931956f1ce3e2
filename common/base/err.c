#include "common/base/err.h"

#include <errno.h>
#include <stddef.h>

struct entry {
	enum err err;
	int number;
	const char *name;
	const char *text;
};

static const struct entry entries[] = {
#define X(name, wire, number, text) { name, number, #name, text },
	ERR_LIST(X)
#undef X
};

#define ENTRIES (sizeof(entries) / sizeof(entries[0]))

/* Names as people and logs see them: written out, so that err_name needs no storage of its own. */
static const char *const names[] = {
	"not_found", "exists", "not_directory", "is_directory", "not_empty", "invalid", "name_too_long", "loop",
	"permission", "not_permitted", "no_space", "no_attribute", "too_many_links", "too_large", "would_block",
	"stale_handle", "range", "too_many", "deadlock", "io", "corrupt", "protocol", "timeout", "closed",
	"unreachable", "busy", "cancelled", "not_supported", "interrupted", "not_leader", "no_leader", "stale_version",
	"no_lease", "chain_broken", "no_chunk", "pack_full", "no_session", "no_servers", "wrong_cluster",
	"version_mismatch", "store_failed", "no_class", "last_voter", "change_under_way", "wrong_master", "uncertain", "data_lost",
	"retry_unknown",
};
_Static_assert(sizeof(names) / sizeof(names[0]) == ENTRIES, "a name for each error");

static const struct entry *find(enum err err)
{
	for (size_t i = 0; i < ENTRIES; i++) {
		if (entries[i].err == err)
			return &entries[i];
	}
	return NULL;
}

const char *err_name(enum err err)
{
	const struct entry *entry = find(err);
	if (entry == NULL)
		return err == OK ? "ok" : "unknown";
	return names[entry - entries];
}

const char *err_text(enum err err)
{
	const struct entry *entry = find(err);
	if (entry == NULL)
		return err == OK ? "success" : "unknown error";
	return entry->text;
}

int err_errno(enum err err)
{
	const struct entry *entry = find(err);
	if (entry == NULL)
		return err == OK ? 0 : EIO;
	return entry->number;
}

enum err err_from_errno(int number)
{
	switch (number) {
	case 0:
		return OK;
	case EDQUOT:
		return ERR_NO_SPACE;
	case EMFILE:
		return ERR_TOO_MANY;
	case ETXTBSY:
		return ERR_BUSY;
	case EPIPE:
	case ECONNABORTED:
		return ERR_CLOSED;
	case ECONNREFUSED:
	case ENETUNREACH:
	case ENETDOWN:
	case EHOSTDOWN:
	case EADDRNOTAVAIL:
		return ERR_UNREACHABLE;
	default:
		break;
	}
	/* Where several errors share a number, the plain one stands first in the list. */
	for (size_t i = 0; i < ENTRIES; i++) {
		if (entries[i].number == number)
			return entries[i].err;
	}
	return ERR_IO;
}

enum err err_from_wire(unsigned number)
{
	if (number == 0)
		return OK;
	for (size_t i = 0; i < ENTRIES; i++) {
		if ((unsigned)entries[i].err == number)
			return entries[i].err;
	}
	return ERR_PROTOCOL;
}
