/* Inside of cool_op.c and cool_prove.c. */
#ifndef GRANARY_CHUNKSERVER_COOL_INTERNAL_H
#define GRANARY_CHUNKSERVER_COOL_INTERNAL_H

#include "chunkserver/cold_task.h"
#include "chunkserver/shard_calls.h"
#include "common/base/check.h"
#include "common/data/coded_image.h"

#define PIECE_BYTES FRAME_DATA_BYTES_MAX
#define PIECE_BLOCKS (PIECE_BYTES / BLOCK_BYTES)
#define READS_MAX 4u
#define RECORDS_MAX 16u

enum cool_state {
	COOL_CONFIGURE,
	COOL_SLOTS,
	COOL_READ,
	COOL_READ_ENDED,
	COOL_ADDED,
	COOL_COMPRESSED,
	COOL_HEAD,
	COOL_HEAD_MADE,
	COOL_HEAD_SENT,
	COOL_DATA,
	COOL_DATA_MADE,
	COOL_DATA_SENT,
	COOL_TRIM,
	COOL_SYNC,
	COOL_CHECK_HEAD,
	COOL_HEAD_READ,
	COOL_HEAD_COMPARED,
	COOL_CHECK,
	COOL_PIECE_READ,
	COOL_PIECE_DECODED,
	COOL_UNITS,
	COOL_PROVED,
};

struct cool;

/* A piece of the chunk, or a record of the pack. */
struct source {
	struct cool *cool;
	rpc_call_id call;
	uint32_t number; /* piece or slot */
	struct iobuf *data;
	uint32_t crcs[PIECE_BLOCKS]; /* of each block; of a record: the first */
	enum err err;
};

/* A record as it was read. */
struct seen {
	uint32_t slot, length, crc;
};

struct cool {
	struct cold_task task;
	enum cool_state state;
	bool pack, loss_untold;
	uint32_t blocks; /* of the chunk */
	uint32_t *crcs;	 /* of its blocks, as they came */
	struct seen *seen;
	uint32_t seen_count, seen_capacity;
	struct iobuf *slots; /* bits: those that are there */
	uint32_t slot_count;
	uint32_t cursor, cursor_next; /* piece or slot; behind the window that is being read */
	struct source sources[RECORDS_MAX];
	unsigned source_count, reading;
	struct coded_image *image;
	bool compressed;	 /* all of it */
	Granary__Coding *coding; /* what is told in the end */
	uint32_t head_bytes, shard_bytes;
	uint32_t offset; /* in head or data */
	uint32_t bytes;	 /* of this piece */
	struct shard_calls calls;
	uint8_t piece_crcs[SHARDS_MAX][PIECE_BLOCKS * 4u]; /* of what they write */
	uint8_t *head;	/* of the first shard, read back */
	uint8_t *proof; /* the data of all data shards, read back */
	enum err err;	/* of a computation */
};

static inline struct cool *cool_of(struct cold_task *task)
{
	return container_of(task, struct cool, task);
}

static inline const Granary__ColdCommand *command_of(const struct cool *cool)
{
	return cool->task.command;
}

/* CRCs of blocks of nothing but zeros. */
bool cool_all_zeros(const uint32_t *crcs, uint32_t count);
/* On a worker: the heads that were read back are what they should be; the first one is kept. The result is in `err`, likewise below. */
void cool_compare_heads(struct cold_task *task);
/* The piece of the data that was read back agrees with all parity; it is kept. */
void cool_decode_piece(struct cold_task *task);
/* What was kept is the chunk. */
void cool_prove(struct cold_task *task);

#endif
