/* The same range of several shards of a set at once: read, written, synced. Over the network, also of those that are here.
 *
 * Each ends by itself, well or not; `done` comes when all have. Data is checked against the CRCs that come with it, and sent with those that
 * are known, or else made here, of what was just computed. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_SHARD_CALLS_H
#define GRANARY_CHUNKSERVER_SHARD_CALLS_H

#include "chunkserver/service.h"

enum shard_call_kind { SHARD_READ, SHARD_WRITE, SHARD_TRIM, SHARD_SYNC };

struct shard_calls;

struct shard_call {
	struct shard_calls *calls;
	unsigned place;
	rpc_call_id id; /* 0: not under way */
};

/* A zeroed struct is one at rest. */
struct shard_calls {
	struct service *service;
	const Granary__CodedLocation *coded; /* borrowed until done */
	/* Of shard_calls_start: */
	enum shard_call_kind kind;
	uint64_t places;	/* bits */
	uint32_t offset, bytes; /* in the shard's file; whole blocks, at most FRAME_DATA_BYTES_MAX; a trim: what stays */
	bool from_disk;		/* a read: past the page cache */
	void (*done)(void *arg);
	void *arg;
	/* Owned: what was read, all of it; or what is to be written. NULL: nothing. */
	struct iobuf *data[SHARDS_MAX];
	/* Of what is to be written: 4 bytes little endian for each block, borrowed until done; NULL: not known. */
	const uint8_t *crcs[SHARDS_MAX];
	enum err errs[SHARDS_MAX]; /* ERR_RANGE: the shard ends before that */
	struct shard_call calls[SHARDS_MAX];
	unsigned running;
	struct defer ended;
};

void shard_calls_init(struct shard_calls *calls, struct service *service, const Granary__CodedLocation *coded);
/* Never calls done from within. */
void shard_calls_start(struct shard_calls *calls);
/* Lets go of the data; what is under way ends without `done`. */
void shard_calls_clear(struct shard_calls *calls);
/* OK: all of `places`. */
enum err shard_calls_err(const struct shard_calls *calls);

/* On the lane of cold tasks, which wait for other servers and are waited for by none. NULL: too many are known. */
struct rpc_peer *shard_peer(struct service *service, const char *address);
/* CRC-32C of each block, 4 bytes little endian. */
void shard_crcs(const uint8_t *bytes, uint32_t size, uint8_t *crcs);
bool shard_crcs_agree(const uint8_t *bytes, uint32_t size, ProtobufCBinaryData crcs);

#endif
