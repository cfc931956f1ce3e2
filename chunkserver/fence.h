/* Which clients' sessions may still write: what the leader says of those that have expired (master/fences.h).
 *
 * With each registration comes the list of all sessions up to an id; of later ones a Fence tells which have expired. So a session
 * that is in neither has begun since and may write. A Fence is answered when no write of its sessions is under way here any more;
 * those that have not started are refused when their turn comes.
 * Thread: the loop. */
#ifndef GRANARY_CHUNKSERVER_FENCE_H
#define GRANARY_CHUNKSERVER_FENCE_H

#include "common/sys/rpc.h"

struct service;
struct fence_wait;

struct fence {
	uint64_t known; /* ids up to this one are judged by `live` */
	uint64_t *live; /* sorted */
	size_t live_count;
	uint64_t *ended; /* sorted; of ids above `known` */
	size_t ended_count;
	struct fence_wait *waits; /* requests that are not answered yet */
};

/* Zeroed is a fence that lets all pass. */
void fence_deinit(struct fence *fence);
void fence_set(struct fence *fence, uint64_t known, const uint64_t *live, size_t live_count);
void fence_add(struct fence *fence, uint64_t session);
bool fence_refuses(const struct fence *fence, uint64_t session);
/* More has been added than is kept (FENCED_SESSIONS_MAX): a new list is wanted. */
bool fence_is_full(const struct fence *fence);

/* MESSAGE_FENCE. */
void fence_serve(struct service *service, struct rpc_request *request);
/* Answers those whose sessions have nothing under way any more. */
void fence_tick(struct service *service);
/* The process ends. */
void fence_abandon(struct service *service);

#endif
