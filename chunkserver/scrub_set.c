#include "chunkserver/scrub_set.h"

#include <inttypes.h>

#include "chunkserver/master_link.h"
#include "common/data/coded.h"
#include "common/sys/log.h"

#define LOOK_MS 200u
#define TRIES_MS 5000u /* for a master, and for room among the tasks */

static void locate(void *arg);

static void finish(struct scrub_set *set, unsigned wrong, unsigned repaired)
{
	message_free(set->location == NULL ? NULL : &set->location->base);
	set->location = NULL;
	set->done(set->arg, wrong, repaired);
}

/* Not now: once more, or it is left. */
static void again(struct scrub_set *set)
{
	if (loop_now_ms(set->service->loop) < set->until_ms) {
		timer_start(&set->timer, LOOK_MS);
		return;
	}
	if (set->wrong == 0)
		log_warn("set_not_verified", "chunk=%016" PRIx64, set->owner);
	finish(set, set->wrong, 0);
}

static uint64_t versions_of(const Granary__CodedLocation *coded)
{
	uint64_t sum = 0;
	for (size_t place = 0; place < coded->n_shards; place++)
		sum += coded->shards[place]->version;
	return sum;
}

static void verified(void *arg, enum err err, uint64_t bad)
{
	struct scrub_set *set = arg;
	unsigned wrong = (unsigned)__builtin_popcountll(bad);
	set->task = NULL;
	if (err == ERR_CORRUPT || err == ERR_TOO_MANY) {
		finish(set, set->wrong > 0 ? set->wrong : 1, 0);
	} else if (err != OK && err != ERR_BUSY && err != ERR_STALE_VERSION && set->wrong == 0) {
		log_warn("set_not_verified", "chunk=%016" PRIx64 " error=%s", set->owner, err_name(err));
		finish(set, 0, 0);
	} else if (err != OK) { /* a shard of it is damaged by its own checksums, perhaps, and being made anew */
		again(set);
	} else if (bad == 0) {
		finish(set, set->wrong, set->wrong);
	} else {
		if (set->wrong == 0)
			set->until_ms = loop_now_ms(set->service->loop) + set->wait_ms;
		set->wrong = wrong > set->wrong ? wrong : set->wrong;
		set->versions = versions_of(set->location->coded) + wrong;
		again(set);
	}
}

/* The set that our shard is in, whatever its bytes say. */
static bool is_ours(const struct scrub_set *set, const Granary__CodedLocation *coded)
{
	return coded != NULL && set->place < coded->n_shards && coded->shards[set->place]->shard == set->shard;
}

static void located(void *arg, const struct rpc_result *result)
{
	struct scrub_set *set = arg;
	const Granary__ChunkLocation *location = (const Granary__ChunkLocation *)result->reply;
	set->call = 0;
	if (result->err != OK && result->err != ERR_NO_CHUNK) {
		again(set);
		return;
	}
	if (result->err != OK || !is_ours(set, location->coded)) { /* it is hot, or deleted, and nothing of it is wrong any more */
		finish(set, set->wrong, set->wrong);
		return;
	}
	if (versions_of(location->coded) < set->versions) { /* not made anew yet */
		again(set);
		return;
	}
	message_free(set->location == NULL ? NULL : &set->location->base);
	set->location = (Granary__ChunkLocation *)message_copy(&location->base);
	set->task = cold_verify(set->service, set->location, verified, set);
	if (set->task == NULL)
		again(set);
}

static void locate(void *arg)
{
	struct scrub_set *set = arg;
	set->call = master_link_locate(set->service->link, set->owner, located, set);
	if (set->call == 0)
		again(set);
}

void scrub_set_init(struct scrub_set *set, struct service *service, scrub_set_fn *done, void *arg)
{
	*set = (struct scrub_set){ .service = service, .done = done, .arg = arg };
	timer_init(&set->timer, service->loop, locate, set);
}

bool scrub_set_begin(struct scrub_set *set, uint64_t shard, struct slice first, uint64_t wait_ms)
{
	struct coded_index head;
	if (coded_head_parse(first, &head) != OK || head.place != head.data_shards)
		return false;
	set->shard = shard;
	set->owner = head.chunk;
	set->place = head.place;
	set->wrong = 0;
	set->versions = 0;
	set->wait_ms = wait_ms;
	set->until_ms = loop_now_ms(set->service->loop) + TRIES_MS;
	timer_start(&set->timer, 0);
	return true;
}

bool scrub_set_stop(struct scrub_set *set)
{
	bool running = set->call != 0 || set->task != NULL || timer_is_running(&set->timer);
	if (set->call != 0)
		rpc_call_cancel(set->service->rpc, set->call);
	set->call = 0;
	if (set->task != NULL)
		cold_task_abort(set->task);
	set->task = NULL;
	timer_stop(&set->timer);
	message_free(set->location == NULL ? NULL : &set->location->base);
	set->location = NULL;
	return running;
}
