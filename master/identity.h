/* Who this data directory belongs to: DIR/identity, text, one "key = value" a line:
 *
 *	format = 1
 *	node = 16 hex digits, random, made with the directory
 *	cluster = the cluster's name
 *	member = this master's id
 *	members = ids of all masters, ascending
 *
 * Written once, before anything else in a fresh directory (no log, no state); a directory that holds a log or state without an
 * identity, or one that says otherwise than the command line, is refused: it would be another member's vote or
 * another cluster's data. Addresses may change from start to start, they are not part of it. */
#ifndef GRANARY_MASTER_IDENTITY_H
#define GRANARY_MASTER_IDENTITY_H

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/sys/loop.h"
#include "master/members.h"

struct identity_options {
	const char *directory;
	const char *cluster;
	uint64_t member;
	const struct members *members;
};

/* Makes or compares it. ERR_WRONG_CLUSTER, ERR_CORRUPT, or what the disk says; *message then says what is wrong in one line.
 * *node is the directory's own identity. */
MUST_USE enum err identity_check(struct loop *loop, const struct identity_options *options, uint64_t *node,
				 struct buf *message);

#endif
