/* What the chunkservers hold against what the state machine says that they hold: the part of fsck that takes inventories.
 *
 * Each server in service is asked (by its next heartbeat) for an inventory, whose pages are compared with its part of table 'S' as they
 * come. A copy in doubt may just be on its way: made, deleted, told a newer version. So a server with doubts is asked once more, and only
 * what was in doubt both times counts.
 *
 *   IDLE --begin--> FIRST round --all have answered, or FSCK_INVENTORY_MS--> PAUSE (garbage is delivered) --> SECOND round --> DONE
 *
 * Thread: the loop's. */
#ifndef GRANARY_MASTER_FSCK_COPIES_H
#define GRANARY_MASTER_FSCK_COPIES_H

#include "master/meta/check.h"
#include "master/replica.h"
#include "master/servers.h"

struct copies;

/* A copy that is in doubt, or should be there and is not. */
struct copy {
	uint64_t chunk, server;
	enum check_kind kind; /* CHECK_COPY_… */
	uint64_t version;     /* held; 0: none */
};

struct copies *copies_open(struct loop *loop, struct replica *replica, struct servers *servers);
void copies_close(struct copies *copies);
void copies_begin(struct copies *copies);
void copies_stop(struct copies *copies);
/* From time to time. True when all is known. */
bool copies_step(struct copies *copies);
/* A page of an inventory; `first` of it. Nothing when none is awaited. */
void copies_inventory(struct copies *copies, uint64_t server, const Granary__Inventory *page, bool first);

/* When all is known: in order of chunk and server. */
const struct copy *copies_found(const struct copies *copies, size_t *count);
/* How many servers were compared, and not. */
void copies_servers(const struct copies *copies, uint32_t *compared, uint32_t *missed);

#endif
