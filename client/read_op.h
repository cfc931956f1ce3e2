/* One read of up to FRAME_DATA_BYTES_MAX of a chunk, or of one blob, from whichever replica answers with right bytes.
 *
 * The replicas are tried in an order shuffled by their latency, those that were slow or silent lately last. One that takes much longer
 * than usual is not waited for: the next one is asked as well (servers.h: how often), and the first right answer counts. Every byte is
 * checked against its CRC. When the location was old, or no replica would do, it is fetched again, until timeout_ms. Bytes that
 * no replica has right are ERR_CORRUPT after two rounds. Of a cold chunk: cold_read.h. */
#ifndef GRANARY_CLIENT_READ_OP_H
#define GRANARY_CLIENT_READ_OP_H

#include "client/chunk_map.h"
#include "common/base/buf.h"

struct read_request {
	struct place place;
	uint32_t offset, bytes; /* in the chunk; within FRAME_DATA_BYTES_MAX of whole blocks */
	uint32_t slot;          /* of a pack: offset and bytes are not used */
};

/* data is borrowed; NULL for a hole. The chunk's bytes at the wanted offset are at data->bytes + skip; what is missing
 * at its end is zeros. */
typedef void read_done_fn(void *arg, enum err err, struct iobuf *data, uint32_t skip);
/* What is known of a read that begins anew. */
struct read_history {
	uint64_t deadline_ms, backoff_ms;
	unsigned rounds_damaged, rounds_absent;
};
/* The same read goes on, with what was learnt. May call done from within. */
void read_resume(struct client *client, const struct read_request *request, const struct read_history *history, read_done_fn *done,
		 void *arg);

/* May call done from within. */
void read_call(struct client *client, const struct read_request *request, read_done_fn *done, void *arg);

#endif
