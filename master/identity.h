/* Who this data directory belongs to: DIR/identity, text, one "key = value" a line:
 *
 *	format = 1
 *	node = 16 hex digits, random, made with the directory
 *	cluster = the cluster's name
 *	member = this master's id
 *	founding = ID=NODE,ID=NODE,...	the first voters of the cluster, this one among them (founding.h)
 *	founding = joined		taken into a cluster that was there before
 *
 * Written before anything else in a fresh directory (no log, no state), without the last line: a fresh master has no vote. The
 * line comes, durably, before it takes part in anything. From then on there is a log: a directory that holds a log or state
 * without an identity, or an identity with that line and no log, or one that says otherwise than the command line, is
 * refused: it would be another member's vote, a vote that is forgotten, or another cluster's data. Addresses are no part of it.
 * Directories made before there was `founding` say "members = IDS" instead: the first voters, whose nodes are not known (0). */
#ifndef GRANARY_MASTER_IDENTITY_H
#define GRANARY_MASTER_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/sys/loop.h"
#include "master/members.h"

/* The first voters of a cluster with the identities of their directories. */
struct founders {
	uint64_t ids[RAFT_MEMBERS_MAX]; /* ascending */
	uint64_t nodes[RAFT_MEMBERS_MAX]; /* 0: not known */
	size_t count;
};
void founders_add(struct founders *founders, uint64_t id, uint64_t node);
bool founders_have(const struct founders *founders, uint64_t id, uint64_t node);

struct identity_options {
	const char *directory;
	const char *cluster;
	uint64_t member;
};

struct identity {
	uint64_t node;
	bool founded;		  /* there is a line `founding` */
	struct founders founders; /* none when it joined */
};

/* Makes or compares it. ERR_WRONG_CLUSTER, ERR_CORRUPT, or what the disk says; *message then says what is wrong in one line. */
MUST_USE enum err identity_check(struct loop *loop, const struct identity_options *options, struct identity *out,
				 struct buf *message);
/* Writes the line `founding`: with these founders, or (none) as one that joined. Durable on return. */
MUST_USE enum err identity_found(struct loop *loop, const struct identity_options *options, const struct founders *founders,
				 struct identity *identity);

#endif
