#include "master/repair.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/settings.h"
#include "common/sys/log.h"
#include "master/repair_queue.h"

#define RATE_SAMPLES 11u
#define RATE_SAMPLE_MS 500u
#define PASS_PAUSE_MS 2000u /* between two passes over all chunks */
#define QUIET_STEPS 4u	    /* one in so many looks on while nothing is known to be amiss */
#define ACTIVE_PRIORITY 0u

enum join_state {
	JOIN_PROPOSED,
	JOIN_FILLING,
	JOIN_COMPLETE, /* committed; the newcomer is to hear of it */
};

struct join {
	uint64_t chunk, version;
	uint64_t source, target;
	enum join_state state;
	bool moves; /* nothing is lacking: it takes another's place */
	uint64_t told_ms;
	struct repair *repair;
	UT_hash_handle hh;
};

/* A fill that failed, or a member that could not be reached. */
struct avoided {
	uint64_t chunk, server, until_ms;
};

/* Somebody waits for what a change that he asked for comes to. */
struct asked {
	struct repair *repair;
	uint64_t chunk, sent_bytes;
	struct rpc_request *request;
};

struct repair {
	struct chunk_change_context context;
	struct rng rng;
	void (*surplus)(void *arg, uint64_t chunk, const Granary__Chunk *, uint64_t leaves);
	void *surplus_arg;
	bool leading;
	uint64_t since_ms;
	struct timer step;
	struct repair_queue *queue;
	struct join *joins;
	struct placement_candidate *candidates;
	struct repair_coded coded;
	struct avoided avoided[REPAIR_AVOIDED_MAX];
	unsigned avoided_next;
	/* The pass over all chunks. */
	uint64_t cursor, pass_after_ms;
	size_t seen;
	unsigned skipped;
	/* The chunks of servers that are gone. */
	uint64_t gone_server, gone_cursor;
	uint64_t gone_done[SERVERS_MAX]; /* servers whose chunks have been looked at since they went; by place in the table */
	/* The rate. */
	uint64_t samples[RATE_SAMPLES], sample_ms[RATE_SAMPLES];
	unsigned sample_count;
	uint64_t sampled_ms;
};

static uint64_t now_ms(const struct repair *repair)
{
	return loop_now_us(repair->context.loop) / 1000;
}

static struct meta *meta_of(const struct repair *repair)
{
	return replica_meta(repair->context.replica);
}

void repair_question(const struct repair *repair, struct repair_question *out)
{
	*out = (struct repair_question){ .servers = repair->context.servers,
					 .now_ms = now_ms(repair),
					 .since_ms = repair->since_ms,
					 .delay_ms = setting_value(meta_settings(meta_of(repair)), SETTING_REPAIR_DELAY) };
}

static void judge(const struct repair *repair, const Granary__Chunk *chunk, struct repair_verdict *out)
{
	struct repair_question question;

	repair_question(repair, &question);
	repair_judge(&question, chunk, out);
}

/* ---- what is under way */

static struct join *join_find(const struct repair *repair, uint64_t chunk)
{
	struct join *join;

	HASH_FIND(hh, repair->joins, &chunk, sizeof(chunk), join);
	return join;
}

static struct join *join_add(struct repair *repair, uint64_t chunk, uint64_t version, uint64_t source, uint64_t target)
{
	struct join *join = mem_zero(1, sizeof(*join));

	*join = (struct join){ .chunk = chunk, .version = version, .source = source, .target = target, .repair = repair };
	HASH_ADD(hh, repair->joins, chunk, sizeof(join->chunk), join);
	return join;
}

static void join_end(struct join *join)
{
	struct repair *repair = join->repair;

	HASH_DEL(repair->joins, join);
	free(join);
}

static unsigned joins_of(const struct repair *repair, uint64_t server, bool as_source)
{
	unsigned count = 0;

	for (const struct join *join = repair->joins; join; join = join->hh.next)
		count += join->state != JOIN_COMPLETE && (as_source ? join->source : join->target) == server;
	return count;
}

static void avoid(struct repair *repair, uint64_t chunk, uint64_t server, uint64_t ms)
{
	repair->avoided[repair->avoided_next++ % REPAIR_AVOIDED_MAX] =
		(struct avoided){ .chunk = chunk, .server = server, .until_ms = now_ms(repair) + ms };
}

static bool is_avoided(const struct repair *repair, uint64_t chunk, uint64_t server)
{
	for (size_t i = 0; i < REPAIR_AVOIDED_MAX; i++) {
		const struct avoided *avoided = &repair->avoided[i];
		if (avoided->chunk == chunk && avoided->server == server && now_ms(repair) < avoided->until_ms)
			return true;
	}
	return false;
}

/* ---- beginning */

static void on_joined(void *arg, enum err err)
{
	struct join *join = arg;

	if (err) {
		join_end(join);
		return;
	}
	join->version++;
	join->state = JOIN_FILLING;
	join->told_ms = now_ms(join->repair);
}

static bool has_time(const struct repair *repair, uint64_t server)
{
	return joins_of(repair, server, false) < REPAIR_JOINS_PER_SERVER_MAX;
}

/* Who holds an old copy is worth waiting for while he is busy, unless the chunk is one failure from loss. 0: nobody now. */
static uint64_t choose(struct repair *repair, uint64_t id, const Granary__Chunk *chunk, const struct repair_verdict *verdict)
{
	struct placement_pool pool = { .candidates = repair->candidates,
				       .bytes_reserved = CHUNK_BYTES,
				       .copyset_seed = meta_cluster(meta_of(repair)),
				       .copyset_width = (unsigned)setting_value(meta_settings(meta_of(repair)),
										SETTING_COPYSET_WIDTH) };
	struct placement_extension extension = { .members = verdict->kept,
						 .member_count = verdict->kept_count,
						 .wish = { .count = REPLICAS_DEFAULT },
						 .urgent = verdict->complete <= 1 };

	for (size_t i = 0; i < verdict->stale_count; i++) {
		const struct server *server = servers_find(repair->context.servers, verdict->stale[i]);
		if (server->bytes_free <= CHUNK_BYTES || server->draining || is_avoided(repair, id, server->id))
			continue;
		if (has_time(repair, server->id))
			return server->id;
		if (verdict->complete > 1)
			return 0;
	}
	pool.count = servers_candidates(repair->context.servers, now_ms(repair), repair->candidates);
	for (size_t i = 0; i < pool.count; i++) {
		struct placement_candidate *candidate = &repair->candidates[i];
		candidate->usable = candidate->usable && !is_avoided(repair, id, candidate->server);
		candidate->busy = !has_time(repair, candidate->server);
		for (size_t k = 0; k < chunk->n_replicas; k++)
			candidate->usable = candidate->usable && candidate->server != chunk->replicas[k];
	}
	return placement_extend(&pool, &extension, &repair->rng);
}

/* False: later, nobody has time or room for it. */
static bool begin_join(struct repair *repair, uint64_t id, const Granary__Chunk *chunk, const struct repair_verdict *verdict)
{
	uint64_t source = verdict->kept[verdict->kept_count - 1];
	struct chunk_change change = { .chunk = id, .version = chunk->version, .done = on_joined };

	if (joins_of(repair, source, true) >= REPAIR_JOINS_PER_SERVER_MAX || verdict->kept_count >= REPLICAS_MAX)
		return false;
	uint64_t target = choose(repair, id, chunk, verdict);
	if (!target)
		return false;
	memcpy(change.replicas, verdict->kept, sizeof(change.replicas));
	memcpy(change.dropped, verdict->dropped, sizeof(change.dropped));
	change.replica_count = verdict->kept_count;
	change.dropped_count = verdict->dropped_count;
	change.replicas[change.replica_count++] = target;
	change.join = target;
	change.arg = join_add(repair, id, chunk->version, source, target);
	chunk_change_propose(&repair->context, &change);
	return true;
}

/* ---- moving */

bool repair_may_move(const struct repair *repair, uint64_t id, const Granary__Chunk *chunk)
{
	struct repair_verdict verdict;

	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD || chunk->frozen || chunk->joining || chunk->moving_from || join_find(repair, id))
		return false;
	judge(repair, chunk, &verdict);
	return verdict.action == REPAIR_NOTHING && verdict.complete == verdict.wanted && chunk->n_replicas == verdict.wanted;
}

bool repair_has_time(const struct repair *repair, uint64_t server, bool as_source)
{
	return joins_of(repair, server, as_source) < REBALANCE_JOINS_PER_SERVER_MAX;
}

bool repair_is_joining(const struct repair *repair, uint64_t chunk)
{
	return join_find(repair, chunk) != NULL;
}

bool repair_is_busy(const struct repair *repair)
{
	for (const struct join *join = repair->joins; join; join = join->hh.next) {
		if (!join->moves && join->state != JOIN_COMPLETE)
			return true;
	}
	return false;
}

bool repair_move(struct repair *repair, const Granary__Chunk *chunk, const struct repair_move *move)
{
	struct chunk_change change = { .chunk = move->chunk,
				       .version = chunk->version,
				       .join = move->to,
				       .moving_from = move->from,
				       .done = on_joined };

	if (!repair_may_move(repair, move->chunk, chunk) || is_avoided(repair, move->chunk, move->to) ||
	    HASH_COUNT(repair->joins) >= REPAIR_JOINS_MAX)
		return false;
	uint64_t source = chunk->replicas[chunk->n_replicas - 1];
	if (!repair_has_time(repair, source, true) || !repair_has_time(repair, move->to, false))
		return false;
	for (size_t i = 0; i < chunk->n_replicas; i++) {
#ifdef PLANT_OLD_COPY_LEAVES_EARLY
		if (chunk->replicas[i] == move->from) {
			change.dropped[change.dropped_count++] = move->from;
			continue;
		}
#endif
		change.replicas[change.replica_count++] = chunk->replicas[i];
	}
	change.replicas[change.replica_count++] = move->to;
	struct join *join = join_add(repair, move->chunk, chunk->version, source, move->to);
	join->moves = true;
	change.arg = join;
	chunk_change_propose(&repair->context, &change);
	return true;
}

static void propose_drop(struct repair *repair, uint64_t id, const Granary__Chunk *chunk, const struct repair_verdict *verdict)
{
	struct chunk_change change = { .chunk = id, .version = chunk->version };

	memcpy(change.replicas, verdict->kept, sizeof(change.replicas));
	memcpy(change.dropped, verdict->dropped, sizeof(change.dropped));
	change.replica_count = verdict->kept_count;
	change.dropped_count = verdict->dropped_count;
	chunk_change_propose(&repair->context, &change);
}

/* False: later. */
static bool begin(struct repair *repair, uint64_t id, const Granary__Chunk *chunk)
{
	struct repair_verdict verdict;

	if (chunk->cold)
		return repair->coded.begin(repair->coded.arg, id, chunk) != ERR_BUSY;
	judge(repair, chunk, &verdict);
	return verdict.action != REPAIR_JOIN || begin_join(repair, id, chunk, &verdict);
}

/* The queue: as far as there are servers with time for it. */
static void work_queue(struct repair *repair)
{
	uint64_t later[REPAIR_TRIES_MAX];
	unsigned priorities[REPAIR_TRIES_MAX], count = 0;

	if (now_ms(repair) - repair->since_ms < REPAIR_START_MS)
		return;
	for (unsigned tries = 0; tries < REPAIR_TRIES_MAX && HASH_COUNT(repair->joins) < REPAIR_JOINS_MAX; tries++) {
		Granary__Chunk *chunk = NULL;
		unsigned priority;
		uint64_t id = repair_queue_take(repair->queue, &priority);
		if (!id)
			break;
		if (join_find(repair, id) || meta_chunk(meta_of(repair), id, &chunk))
			continue;
		if (!begin(repair, id, chunk)) {
			later[count] = id;
			priorities[count++] = priority;
		}
		message_free(&chunk->base);
	}
	for (unsigned i = 0; i < count; i++)
		repair_queue_add(repair->queue, later[i], priorities[i]);
}

/* ---- going on */

/* Both ends may have forgotten it, or not have heard. */
static void tell_again(struct join *join)
{
	struct repair *repair = join->repair;

	if (now_ms(repair) - join->told_ms < REPAIR_TOLD_AGAIN_MS)
		return;
	join->told_ms = now_ms(repair);
	chunk_configure(&repair->context, join->chunk);
}

static void step_join(struct join *join)
{
	struct repair *repair = join->repair;
	struct repair_verdict verdict;
	Granary__Chunk *chunk = NULL;

	if (join->state == JOIN_PROPOSED)
		return;
	if (meta_chunk(meta_of(repair), join->chunk, &chunk)) {
		join_end(join);
		return;
	}
	if (join->state == JOIN_FILLING && (chunk->version != join->version || chunk->joining != join->target)) {
		/* Who was left out while he was being filled is not to be tried again at once. */
		if (chunk->joining == 0 && chunk->version != join->version)
			avoid(repair, join->chunk, join->target, REPAIR_AVOIDED_MS);
		join_end(join);
	} else if (join->state == JOIN_FILLING) {
		judge(repair, chunk, &verdict);
		if (verdict.action == REPAIR_DROP)
			propose_drop(repair, join->chunk, chunk, &verdict);
		else
			tell_again(join);
	} else {
		const struct server *server = servers_find(repair->context.servers, join->target);
		if (!server || !server->connection || chunk->version != join->version)
			join_end(join); /* it hears of it when it comes back; another version says it as well */
		else
			tell_again(join);
	}
	message_free(&chunk->base);
}

static void step_joins(struct repair *repair)
{
	struct join *join, *next;

	HASH_ITER(hh, repair->joins, join, next)
	{
		step_join(join);
	}
}

void repair_command_done(struct repair *repair, uint64_t server, const Granary__ChunkCommand *command, enum err err)
{
	struct join *join = command->configure ? join_find(repair, command->chunk) : NULL;

	if (join && err == OK && join->state == JOIN_COMPLETE && join->target == server &&
	    command->configure->version == join->version && !command->configure->replicas[command->configure->n_replicas - 1]->joining)
		join_end(join);
}

/* ---- ending */

static void asked_end(struct asked *asked, enum err err)
{
	struct repair *repair = asked->repair;

	if (err == OK || err == ERR_STALE_VERSION || err == ERR_NO_CHUNK)
		chunk_reply_location(&repair->context, asked->chunk, asked->request);
	else
		replica_refuse(repair->context.replica, asked->request, err);
	free(asked);
}

static void on_complete(void *arg, enum err err)
{
	struct asked *asked = arg;
	struct join *join = join_find(asked->repair, asked->chunk);

	if (err == OK && join && join->state == JOIN_FILLING) {
		struct server *source = servers_find(join->repair->context.servers, join->source);
		if (source)
			servers_note_filled(source, asked->sent_bytes);
		join->state = JOIN_COMPLETE;
		join->told_ms = now_ms(join->repair);
		log_info("copy_complete", "chunk=%016" PRIx64 " version=%" PRIu64 " server=%016" PRIx64, join->chunk, join->version,
			 join->target);
		if (join->moves)
			repair_look(join->repair, join->chunk); /* who leaves may do so now */
	}
	asked_end(asked, err);
}

static void on_given_up(void *arg, enum err err)
{
	asked_end(arg, err);
}

static void filled(struct repair *repair, struct rpc_request *request, const Granary__Chunk *chunk)
{
	const Granary__ChunkFilled *message = (const Granary__ChunkFilled *)request->message;
	struct chunk_change change = { .chunk = message->chunk, .version = chunk->version };
	struct asked *asked;

	if (chunk->version != message->version || chunk->joining == 0 || chunk->joining != message->server) {
		chunk_reply_location(&repair->context, message->chunk, request);
		return;
	}
	asked = mem_zero(1, sizeof(*asked));
	*asked = (struct asked){ .repair = repair, .chunk = message->chunk, .sent_bytes = message->bytes, .request = request };
	change.arg = asked;
	if (message->error == 0) {
		change.join = message->server;
		change.complete = true;
		change.done = on_complete;
	} else {
		log_warn("fill_failed", "chunk=%016" PRIx64 " server=%016" PRIx64 " error=%s", message->chunk, message->server,
			 err_name(err_from_wire(message->error)));
		avoid(repair, message->chunk, message->server, REPAIR_AVOIDED_MS);
		change.replica_count = chunk->n_replicas - 1;
		memcpy(change.replicas, chunk->replicas, change.replica_count * sizeof(change.replicas[0]));
		change.dropped[change.dropped_count++] = message->server;
		change.done = on_given_up;
	}
	chunk_change_propose(&repair->context, &change);
}

void repair_serve(struct repair *repair, struct rpc_request *request)
{
	const Granary__ChunkFilled *message = (const Granary__ChunkFilled *)request->message;
	Granary__Chunk *chunk = NULL;

	if (!replica_can_read(repair->context.replica)) {
		replica_refuse(repair->context.replica, request, ERR_NOT_LEADER);
		return;
	}
	if (!request->conn || rpc_conn_role(request->conn) != RPC_CHUNKSERVER) {
		rpc_reply_error(request, ERR_NOT_PERMITTED, NULL);
		return;
	}
	enum err err = meta_chunk(meta_of(repair), message->chunk, &chunk);
	if (err) {
		rpc_reply_error(request, err == ERR_NOT_FOUND ? ERR_NO_CHUNK : err, NULL);
		return;
	}
	filled(repair, request, chunk);
	message_free(&chunk->base);
}

/* ---- looking for work */

static void look_at_coded(struct repair *repair, uint64_t id, const Granary__Chunk *chunk)
{
	unsigned tolerated;

	if (repair->coded.lacks(repair->coded.arg, id, chunk, &tolerated))
		repair_queue_add(repair->queue, id, repair_priority_of(tolerated, false));
}

static void look_at_owner(struct repair *repair, uint64_t id)
{
	Granary__Chunk *chunk = NULL;

	if (meta_chunk(meta_of(repair), id, &chunk))
		return;
	if (chunk->cold)
		look_at_coded(repair, id, chunk);
	message_free(&chunk->base);
}

/* A chunk record that somebody came across. */
static void look_at(struct repair *repair, uint64_t id, const Granary__Chunk *chunk, bool active)
{
	struct repair_verdict verdict;

	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		look_at_owner(repair, chunk->owner);
		return;
	}
	if (chunk->cold) {
		look_at_coded(repair, id, chunk);
		return;
	}
	judge(repair, chunk, &verdict);
	if (chunk->joining && !join_find(repair, id) && chunk->n_replicas >= 2) {
		struct join *join = join_add(repair, id, chunk->version, chunk->replicas[chunk->n_replicas - 2], chunk->joining);
		join->state = JOIN_FILLING;
		join->moves = chunk->moving_from != 0;
	}
	if (verdict.action == REPAIR_JOIN)
		repair_queue_add(repair->queue, id, repair_priority(&verdict, active));
	else if (verdict.action == REPAIR_LEAVE && now_ms(repair) - repair->since_ms >= REPAIR_START_MS)
		repair->surplus(repair->surplus_arg, id, chunk, verdict.leaves);
}

void repair_on_surplus(struct repair *repair, void (*fn)(void *arg, uint64_t chunk, const Granary__Chunk *, uint64_t leaves), void *arg)
{
	repair->surplus = fn;
	repair->surplus_arg = arg;
}

static bool on_chunk(void *arg, uint64_t id, const Granary__Chunk *chunk)
{
	struct repair *repair = arg;

	look_at(repair, id, chunk, false);
	repair->cursor = id;
	return ++repair->seen < REPAIR_SCAN_MAX;
}

static void step_pass(struct repair *repair)
{
	bool quiet = !repair->joins && repair_queue_count(repair->queue) == 0;

	if (now_ms(repair) < repair->pass_after_ms || (quiet && ++repair->skipped % QUIET_STEPS != 0))
		return;
	repair->seen = 0;
	if (meta_each_chunk(meta_of(repair), repair->cursor, on_chunk, repair)) {
		log_error("chunks_unreadable", "cursor=%" PRIu64, repair->cursor);
		return;
	}
	if (repair->seen < REPAIR_SCAN_MAX) {
		repair->cursor = 0;
		repair->pass_after_ms = now_ms(repair) + PASS_PAUSE_MS;
	}
}

static bool on_chunk_of_gone(void *arg, uint64_t id)
{
	struct repair *repair = arg;
	Granary__Chunk *chunk = NULL;

	repair->gone_cursor = id;
	if (meta_chunk(meta_of(repair), id, &chunk) == OK) {
		look_at(repair, id, chunk, false);
		message_free(&chunk->base);
	}
	return ++repair->seen < REPAIR_SCAN_MAX;
}

/* A server that went, and whose time has run out, since this was last asked; 0: none. */
static uint64_t next_gone(struct repair *repair)
{
	struct repair_question question;

	repair_question(repair, &question);
	for (size_t i = 0; i < servers_count(repair->context.servers); i++) {
		const struct server *server = servers_at(repair->context.servers, i);
		uint64_t heard_ms = server->heard_ms > repair->since_ms ? server->heard_ms : repair->since_ms;
		bool gone = servers_is_dead(server, question.now_ms) && !server->connection &&
			    question.now_ms - heard_ms >= question.delay_ms;
		if (!gone)
			repair->gone_done[i] = 0;
		else if (repair->gone_done[i] != server->id) {
			repair->gone_done[i] = server->id;
			return server->id;
		}
	}
	return 0;
}

static void step_gone(struct repair *repair)
{
	if (!repair->gone_server) {
		repair->gone_server = next_gone(repair);
		repair->gone_cursor = 0;
		if (!repair->gone_server)
			return;
		log_warn("server_lost", "server=%016" PRIx64, repair->gone_server);
	}
	repair->seen = 0;
	if (meta_each_chunk_on(meta_of(repair), repair->gone_server, repair->gone_cursor, on_chunk_of_gone, repair) ||
	    repair->seen < REPAIR_SCAN_MAX)
		repair->gone_server = 0;
}

void repair_set_coded(struct repair *repair, const struct repair_coded *coded)
{
	repair->coded = *coded;
}

void repair_look(struct repair *repair, uint64_t id)
{
	Granary__Chunk *chunk = NULL;

	if (meta_chunk(meta_of(repair), id, &chunk) == OK)
		look_at(repair, id, chunk, false);
	message_free(chunk ? &chunk->base : NULL);
}

void repair_active(struct repair *repair, uint64_t chunk, uint64_t left)
{
	if (!repair->leading)
		return;
	if (left)
		avoid(repair, chunk, left, REPAIR_LEFT_MS);
	repair_queue_add(repair->queue, chunk, ACTIVE_PRIORITY);
}

/* ---- the rate */

static uint64_t fill_bytes(const struct repair *repair)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < servers_count(repair->context.servers); i++)
		sum += servers_at(repair->context.servers, i)->fill_bytes_heard;
	return sum;
}

static void sample(struct repair *repair)
{
	if (now_ms(repair) - repair->sampled_ms < RATE_SAMPLE_MS)
		return;
	repair->sampled_ms = now_ms(repair);
	if (!repair->joins) { /* what was measured before says nothing of the next time */
		repair->sample_count = 0;
		return;
	}
	if (repair->sample_count == RATE_SAMPLES) {
		memmove(repair->samples, repair->samples + 1, (RATE_SAMPLES - 1) * sizeof(repair->samples[0]));
		memmove(repair->sample_ms, repair->sample_ms + 1, (RATE_SAMPLES - 1) * sizeof(repair->sample_ms[0]));
		repair->sample_count--;
	}
	repair->samples[repair->sample_count] = fill_bytes(repair);
	repair->sample_ms[repair->sample_count++] = repair->sampled_ms;
}

void repair_progress(const struct repair *repair, struct repair_progress *out)
{
	*out = (struct repair_progress){ 0 };
	for (const struct join *join = repair->joins; join; join = join->hh.next)
		out->joins += join->state != JOIN_COMPLETE;
	uint64_t rate_set = setting_value(meta_settings(meta_of(repair)), SETTING_REPAIR_RATE);
	for (size_t i = 0; i < servers_count(repair->context.servers); i++) {
		const struct server *server = servers_at(repair->context.servers, i);
		uint64_t left = server->to_fill_bytes > server->filling_bytes ? server->to_fill_bytes - server->filling_bytes : 0;
		uint64_t rate = server->fill_rate ? server->fill_rate : rate_set;
		out->bytes_filling += server->filling_bytes;
		if (left * 1000 / rate > out->safe_in_ms)
			out->safe_in_ms = left * 1000 / rate;
	}
	if (out->joins == 0)
		out->safe_in_ms = 0;
	if (repair->sample_count < 3)
		return;
	unsigned last = repair->sample_count - 1;
	uint64_t bytes = repair->samples[last] - repair->samples[0];
	out->bytes_per_second = bytes * 1000 / (repair->sample_ms[last] - repair->sample_ms[0]);
}

/* ---- life */

static void on_step(void *arg)
{
	struct repair *repair = arg;

	timer_start(&repair->step, REPAIR_STEP_MS);
	if (!repair->leading || !replica_can_read(repair->context.replica))
		return;
	step_gone(repair);
	step_pass(repair);
	step_joins(repair);
	work_queue(repair);
	sample(repair);
}

void repair_leading(struct repair *repair)
{
	repair->leading = true;
	repair->since_ms = now_ms(repair);
	repair->cursor = repair->pass_after_ms = 0;
	repair->gone_server = 0;
	memset(repair->gone_done, 0, sizeof(repair->gone_done));
	repair->sample_count = 0;
	timer_start(&repair->step, REPAIR_STEP_MS);
}

void repair_deposed(struct repair *repair)
{
	struct join *join, *next;

	repair->leading = false;
	timer_stop(&repair->step);
	repair_queue_clear(repair->queue);
	HASH_ITER(hh, repair->joins, join, next)
	{
		if (join->state != JOIN_PROPOSED) /* that ends by itself */
			join_end(join);
	}
}

struct repair *repair_open(const struct chunk_change_context *context)
{
	struct repair *repair = mem_zero(1, sizeof(*repair));

	repair->context = *context;
	rng_init(&repair->rng, loop_random(context->loop));
	repair->queue = repair_queue_open();
	repair->candidates = mem_alloc(SERVERS_MAX * sizeof(*repair->candidates));
	timer_init(&repair->step, context->loop, on_step, repair);
	return repair;
}

void repair_close(struct repair *repair)
{
	if (!repair)
		return;
	repair_deposed(repair);
	check(!repair->joins);
	repair_queue_close(repair->queue);
	free(repair->candidates);
	free(repair);
}
