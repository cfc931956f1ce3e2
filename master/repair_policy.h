/* What a chunk lacks and what is to be done about it. Pure: the chunk, the table of servers, the time in; a verdict out.
 *
 * A copy counts while its server may still come back: a server that has been away for less than the delay makes nothing move. Of a chunk
 * with one copy left they are waited for only as long as processes take that are started again together (REPAIR_ALONE_MS). A copy that
 * is being filled counts as none. A server whose store is out of service is gone at once.
 * One that is not wanted any more (the storage class was changed, or another has taken its place: Chunk.moving_from) goes only while
 * every other copy is served and no server of these has damage that it has not mended. A server that is drained counts as any other.
 * Who is away when something is done is left out of the chain at the same time: the newcomer would have no predecessor. */
#ifndef GRANARY_MASTER_REPAIR_POLICY_H
#define GRANARY_MASTER_REPAIR_POLICY_H

#include "common/proto/message.h"
#include "master/servers.h"

enum repair_action {
	REPAIR_NOTHING,
	REPAIR_WAIT, /* a server may come back; or there is no copy to make one from */
	REPAIR_DROP, /* members are dead while one joins: without them */
	REPAIR_JOIN,
	REPAIR_LEAVE, /* there is one copy more than wanted, and all are there: without `leaves` */
};

struct repair_question {
	const struct servers *servers;
	uint64_t now_ms;
	uint64_t since_ms; /* leading: what happened before is not known */
	uint64_t delay_ms;
};

struct repair_verdict {
	enum repair_action action;
	unsigned wanted;   /* copies */
	unsigned complete; /* that are served now */
	unsigned lacking;  /* of those wanted, served or not */
	uint64_t kept[REPLICAS_MAX], dropped[REPLICAS_MAX];
	size_t kept_count, dropped_count;
	uint64_t stale[STALE_COPIES_MAX]; /* servers that are up and hold an old copy: they need only what differs */
	size_t stale_count;
	uint64_t leaves;
};

void repair_judge(const struct repair_question *question, const Granary__Chunk *chunk, struct repair_verdict *out);

/* The server is there, or may come back: it has not been away for `delay_ms`. */
bool repair_counts_on(const struct repair_question *question, uint64_t server, uint64_t delay_ms);

/* What goes first: copies that are left, then whether it is being written. 0 is the most urgent. */
#define REPAIR_PRIORITIES 6u
unsigned repair_priority(const struct repair_verdict *verdict, bool active);
/* The same of a chunk that survives so many failures as it is. */
unsigned repair_priority_of(unsigned tolerated, bool active);

#endif
