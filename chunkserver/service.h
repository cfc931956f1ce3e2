/* The chunkserver's requests: checks each, makes it an operation (chunk_op.h), keeps what all operations share. Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_SERVICE_H
#define GRANARY_CHUNKSERVER_SERVICE_H

#include "chunkserver/budget.h"
#include "chunkserver/chunk_op.h"
#include "chunkserver/chunk_store.h"
#include "chunkserver/fence.h"
#include "common/proto/cold.h"
#include "common/sys/rpc.h"

struct master_link;
struct chain_peer;

struct commands_batch;
struct scrub;
struct cold_task;
struct move;
struct decompressor;

struct service {
	struct loop *loop;
	struct rpc *rpc;
	struct chunk_store *store;
	struct master_link *link;
	uint64_t server;	  /* our id */
	uint64_t next_operation;  /* of what we send for ourselves */
	uint32_t ops;		  /* in lists */
	struct chunk_op *ready;	  /* to be started; linked by ready_next */
	struct defer run_ready;
	struct chain_peer *peers; /* chain.c */
	uint32_t batches;	  /* of commands, under way */
	struct commands_batch *batch_list;
	struct fence fence;	  /* sessions that write no more */
	struct answered answered;	  /* what clients have been answered */
	uint32_t mends;		  /* running */
	struct scrub *scrub;
	uint64_t corrupt_frames;  /* data refused because its CRC disagreed */
	uint64_t incarnation;	  /* of this process */
	uint64_t life;		  /* how often the store was opened */
	struct budget fill_budget; /* what fills new copies from here */
	struct budget cold_budget; /* what makes chunks cold, and moves blobs */
	struct cold_task *cold_tasks;
	struct cold_attempt cold_ended[COLD_ENDED_REMEMBERED]; /* the last ones */
	unsigned cold_ended_next;
	struct decompressor *decompressors[WORKERS_COUNT]; /* not in use; cold_read.c */
	uint32_t decompressor_count;
	uint32_t cold_task_count;
	struct move *moves;
	uint32_t move_count;
	uint64_t fill_bytes;	/* sent to fill new copies */
	uint64_t filling_bytes; /* of those, of copies that are not complete yet */
	bool stopping;
};

/* `rpc`, `store` and `link` are set by the caller before the first request. */
void service_init(struct service *service, struct loop *loop, uint64_t server);
/* After rpc_close, with nothing running. */
void service_deinit(struct service *service);

/* For struct rpc_service, with the service as arg. */
void service_serve(void *arg, struct rpc_request *request);
void service_conn_closed(void *arg, struct rpc_conn *conn);
/* Every CHUNKSERVER_HEARTBEAT_MS. */
void service_tick(struct service *service);
/* Operations on their way. */
bool service_busy(const struct service *service);

/* chunk_store_events. */
extern const struct chunk_store_events service_store_events;

/* Our place in a chain, or -1. */
int service_position(const struct service *service, Granary__Replica *const *replicas, size_t count);

/* Without a lease nothing is said to other chunkservers, either: who has no copy any more would make one anew from what was meant for
 * a chain of long ago. */
bool service_has_lease(const struct service *service);
/* What such a chain says of the copy here. */
enum copy_state service_copy_state(const struct service *service, Granary__Replica *const *replicas, size_t count);

/* commands.c: MESSAGE_CHUNK_COMMANDS, and one of them from elsewhere (ERR_BUSY: again later). */
void commands_serve(struct service *service, struct rpc_request *request);
/* The process ends: what waits to be tried again is not. */
void commands_abandon(struct service *service);
MUST_USE enum err service_configure(struct service *service, const Granary__ChunkLocation *location);

#endif
