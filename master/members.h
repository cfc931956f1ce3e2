/* The masters of the cluster as configured: "1=host:port,2=host:port,3=host:port", the same on each of them. */
#ifndef GRANARY_MASTER_MEMBERS_H
#define GRANARY_MASTER_MEMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/limits.h"

struct members {
	uint64_t ids[RAFT_MEMBERS_MAX]; /* ascending, from 1 */
	char addresses[RAFT_MEMBERS_MAX][ADDRESS_BYTES_MAX + 1];
	size_t count;
};

/* One more, or another address for one that is there. ERR_INVALID as below. */
MUST_USE enum err members_put(struct members *members, uint64_t id, const char *address);
/* ERR_INVALID: not of that form, an id twice or beyond 1023 (ids are the worker part of snowflakes), too many. */
MUST_USE enum err members_parse(const char *text, struct members *out);
/* NULL when it is not one of them. */
const char *members_address(const struct members *members, uint64_t id);
/* "1,2,3" */
void members_ids_text(const struct members *members, struct buf *out);

#endif
