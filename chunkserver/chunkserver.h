/* A chunkserver: store, service, link to the masters. main.c runs one in a process, tests and the simulator several.
 *
 * The data directory keeps who it is: identity holds "server=HEX", "life=HEX" (one more with every start) and, once known,
 * "cluster=HEX". Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_CHUNKSERVER_H
#define GRANARY_CHUNKSERVER_CHUNKSERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/sys/loop.h"

struct chunkserver;
struct service;

/* Strings are borrowed for the call. */
struct chunkserver_options {
	const char *data;
	const char *listen;  /* "host:port", port 0: a free one */
	const char *masters; /* "host:port,host:port" */
	const char *host;    /* failure domain label */
	const char *location; /* of those above the host (common/base/location.h); NULL: none */
	const char *address; /* that clients connect to; NULL: as bound */
	uint64_t reserved_bytes; /* 0: DISK_RESERVED_BYTES */
	/* The store has failed, once: to be stopped, closed and after a while opened anew with `again`. NULL: nobody does. */
	void (*failed)(void *arg);
	void *failed_arg;
	bool again;	   /* it was open before and has failed: ERR_STALE_HANDLE if its folder is gone */
	uint64_t reopened; /* how often, for people */
};

/* ERR_BUSY: another process has the data directory. ERR_CORRUPT: chunks without an identity.
 * ERR_STALE_HANDLE: the chunks are not those of the server that the identity names. */
MUST_USE enum err chunkserver_open(struct loop *loop, const struct chunkserver_options *options, struct chunkserver **out);
/* Takes no more requests, ends those on their way, then calls stopped(arg) once; then close. */
void chunkserver_stop(struct chunkserver *server, void (*stopped)(void *arg), void *arg);
/* After stop, or at a moment at which nothing runs. Everything is synced. In a process that was killed (the simulator) the memory goes
 * with the `done` of the last work that was under way. */
void chunkserver_close(struct chunkserver *server);

uint64_t chunkserver_id(const struct chunkserver *server);
/* "host:port" as bound. */
const char *chunkserver_address(const struct chunkserver *server);
/* For tests: what is inside. */
struct service *chunkserver_service(struct chunkserver *server);

#endif
