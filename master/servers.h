/* What the leader knows of the chunkservers beyond the state machine: connection, space, lease. Soft state.
 *
 * Leases. A chunkserver serves only while it holds a lease, counted from when it sent its heartbeat; it lasts
 * CHUNKSERVER_LEASE_MS at the leader, of which LEASE_GRANTED_MS are granted. A server is *dead*, so
 * that chunks may go on without it, when its process is known to be gone (its connection broke and nobody listens at
 * its address, or another process has come in its place), or when the last lease that anyone may have given it has run
 * out: a new leader waits CHUNKSERVER_LEASE_MS for servers that it has not heard. A broken connection alone is not
 * enough: the server may go on serving for the rest of its lease.
 * A server that comes back may hold copies that were dropped meanwhile. Each of these is garbage in the state machine; it gets
 * a lease only after it has confirmed all garbage that was there when it came (`cleaning`), and not while a
 * change that drops it is on its way through the log (`drops`).
 *
 * Pure: the time comes from the caller; the connection is an opaque pointer. */
#ifndef GRANARY_MASTER_SERVERS_H
#define GRANARY_MASTER_SERVERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"
#include "common/proto/message.h"
#include "master/placement.h"

/* ChunkHeld.copy, as the chunkserver says it (enum copy_state there). */
enum held_copy { HELD_COMPLETE, HELD_JOINING, HELD_RETIRED };

struct server {
	uint64_t id;
	char address[ADDRESS_BYTES_MAX + 1];
	char host[HOST_LABEL_BYTES_MAX + 1];
	char location[LOCATION_BYTES_MAX + 1];
	void *connection; /* NULL: not connected */
	uint64_t incarnation;
	uint64_t heard_ms;	 /* 0: never by this leader */
	uint64_t lease_until_ms; /* as far as this leader knows */
	bool cleaning;		 /* no lease yet: garbage is being delivered */
	unsigned drops;		 /* changes proposed that leave it out of a chunk */
	bool failed;		 /* says that its store is out of service */
	uint64_t fenced;	 /* the last fence that it has confirmed (fences.h) */
	uint64_t bytes_total, bytes_free, chunks, malformed_frames;
	uint64_t load; /* operations under way there, as it says */
	/* As of its last inventory: copies that the state machine has no record of (chunkserver_service.h), and those of them that are
	 * newer than anything it knows. */
	bool inventory_open; /* a page has come that was not the last */
	uint64_t inventory_cursor; /* missing.h */
	uint64_t inventory_due_ms; /* 0: there has been none yet */
	bool inventory_wanted; /* the next heartbeat asks for one */
	uint64_t orphans, orphans_newer;
	/* Left out for being much slower than its peers (servers_judge). */
	bool slow;
	uint64_t slow_since_ms; /* it is out, or as slow as that since then; 0: it is not */
	uint64_t fast_since_ms; /* it is out, and as fast as others since then; 0: it is not */
	bool uncertain; /* has lost power: chunks of it are not known to be up to date yet */
	Granary__DiskHealth *disk; /* as it says; NULL: not heard yet */
	uint64_t fill_bytes;	   /* sent to fill copies, as its process says; */
	uint64_t fill_bytes_heard; /* and summed here over all of its processes */
	uint64_t filling_bytes;	   /* of copies that are not complete yet */
	uint64_t fill_rate;	   /* bytes a second, averaged over some heartbeats */
	bool draining;		   /* of the state machine: nothing new goes there; */
	uint64_t draining_since_ms; /* as this leader knows */
	uint64_t to_fill_bytes;	   /* status: what chunks lack of which it would be the source */
};

struct servers;

struct servers *servers_open(void);
void servers_close(struct servers *servers);
/* On gaining leadership: all are unknown, their leases may run until then. */
void servers_clear(struct servers *servers, uint64_t leases_until_ms);

/* As the state machine has it registered. */
struct server_place {
	const char *address, *host;
	const char *location; /* common/base/location.h */
};
/* NULL above SERVERS_MAX. */
struct server *servers_set(struct servers *servers, uint64_t id, const struct server_place *where);
void servers_set_draining(struct server *server, uint64_t now_ms, bool draining);
struct server *servers_find(const struct servers *servers, uint64_t id);
size_t servers_count(const struct servers *servers);
/* In order of id; i < servers_count. */
struct server *servers_at(const struct servers *servers, size_t i);

/* It has registered over this connection, and is cleaning. */
void servers_connected(struct server *server, uint64_t now_ms, void *connection, uint64_t incarnation);
/* The server whose connection this was, or NULL. */
struct server *servers_connection_lost(struct servers *servers, const void *connection);
/* Its process is gone. */
void servers_gone(struct server *server, uint64_t now_ms);
/* The lease that a heartbeat gives now; 0: none. *again: it has to register anew, because its lease ran out, it
 * was not registered here, or is another process. */
uint64_t servers_heartbeat(struct server *server, uint64_t now_ms, const void *connection, uint64_t incarnation, bool failed,
			   bool *again);
/* After a heartbeat that said that it has no lease: where it has got none either, nobody need wait for one to run out. */
void servers_unleased(struct server *server, uint64_t now_ms);
/* What it says of its disk; copied. NULL: an older one that says nothing. */
void servers_set_disk(struct server *server, const Granary__DiskHealth *disk);
/* Before the lease that a heartbeat gives: a disk whose latency is SLOW_TIMES that of the median of its peers for SLOW_AFTER_MS gets no more leases, as if the
 * store had failed, so that chains go on without it; until it has been good again for SLOW_BACK_MS. Only one server at a time, and only
 * while all others are there: a slow copy is better than none. */
void servers_judge(struct servers *servers, uint64_t now_ms);
/* It is dead, but what it had may be all that there is, since those that live have lost power: they go on without it only if it stays
 * away for UNCERTAIN_WAIT_MS. */
bool servers_is_waited_for(const struct server *server, uint64_t now_ms);
/* Members of a chunk that would go on, and those that they would go on without. */
struct servers_parting {
	const uint64_t *kept, *dropped;
	size_t kept_count, dropped_count;
};
/* All that are kept have lost power, and one that is dropped is waited for: not yet. */
bool servers_leave_doubt(const struct servers *servers, uint64_t now_ms, const struct servers_parting *parting);
/* What it says of filling copies, with the heartbeat that came now; before servers_heartbeat. */
void servers_note_fill(struct server *server, uint64_t now_ms, uint64_t fill_bytes, uint64_t filling_bytes);
/* A copy that it filled is complete: the bytes it sent for it. Its heartbeat will say the same, later than the chunk map does. */
void servers_note_filled(struct server *server, uint64_t sent_bytes);
/* It has confirmed the garbage: heartbeats give leases from now on. */
void servers_cleaned(struct server *server, uint64_t now_ms);

/* It certainly serves nothing now. */
bool servers_is_dead(const struct server *server, uint64_t now_ms);
/* Connected, in service, under a lease: new chunks may go there. */
bool servers_is_usable(const struct server *server, uint64_t now_ms);
/* A server holds chunks that are newer than all that the state machine knows: the masters' state is that of an older snapshot or
 * backup. Nothing is collected then, since what is removed here may be in use in the state that was lost. */
bool servers_are_ahead(const struct servers *servers);
/* Nothing is to be placed on one that is drained. out holds SERVERS_MAX; the labels are borrowed. */
size_t servers_candidates(const struct servers *servers, uint64_t now_ms, struct placement_candidate *out);

#endif
