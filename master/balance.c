#include "master/balance_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys/log.h"

uint64_t balance_now_ms(const struct balance *balance)
{
	return loop_now_us(balance->options.context->loop) / 1000;
}

struct meta *balance_meta(const struct balance *balance)
{
	return replica_meta(balance->options.context->replica);
}

static struct servers *servers_of(const struct balance *balance)
{
	return balance->options.context->servers;
}

const Granary__Rebalance *balance_run(const struct balance *balance)
{
	return meta_settings(balance_meta(balance))->rebalance;
}

uint64_t balance_rate(const struct balance *balance)
{
	const Granary__Rebalance *run = balance_run(balance);

	return run && run->bytes_per_second ? run->bytes_per_second :
					      setting_value(meta_settings(balance_meta(balance)), SETTING_REBALANCE_RATE);
}

const char *balance_why_text(enum balance_why why)
{
	switch (why) {
	case WHY_NO_PLACE:
		return "no other chunkserver is up, has room and keeps the copies as far apart as they are";
	case WHY_NOT_WHOLE:
		return "chunks lack copies, or are being changed: that comes first";
	default:
		return "";
	}
}

/* ---- who has how much */

static bool is_up(const struct balance *balance, const struct server *server)
{
	return servers_is_usable(server, balance_now_ms(balance)) && server->bytes_total > 0;
}

/* What is kept free is not to be filled; on a tiny disk less is kept free than usual. */
uint64_t balance_capacity(const struct server *server)
{
	return server->bytes_total > 2 * (uint64_t)DISK_RESERVED_BYTES ? server->bytes_total - DISK_RESERVED_BYTES : server->bytes_total;
}

static struct balance_server *find_balanced(const struct balance *balance, uint64_t id)
{
	for (size_t i = 0; i < balance->server_count; i++) {
		if (balance->servers[i].server == id)
			return &balance->servers[i];
	}
	return NULL;
}

static void count_moves(struct balance *balance)
{
	for (const struct move *move = balance->moves; move; move = move->hh.next) {
		struct balance_server *from = find_balanced(balance, move->from), *to = find_balanced(balance, move->to);
		if (move->failed)
			continue;
		if (from)
			from->bytes_leaving += move->bytes;
		if (to)
			to->bytes_coming += move->bytes;
	}
}

void balance_look(struct balance *balance)
{
	balance->server_count = 0;
	for (size_t i = 0; i < servers_count(servers_of(balance)); i++) {
		const struct server *server = servers_at(servers_of(balance), i);
		const struct source *source;
		HASH_FIND(hh, balance->sources, &server->id, sizeof(server->id), source);
		if (!is_up(balance, server))
			continue;
		uint64_t bytes_total = balance_capacity(server);
		balance->servers[balance->server_count++] = (struct balance_server){
			.server = server->id,
			.bytes_total = bytes_total,
			.bytes_used = bytes_total > server->bytes_free ? bytes_total - server->bytes_free : 0,
			.part = !server->draining,
			.stuck = source && balance_now_ms(balance) < source->stuck_until_ms,
		};
	}
	count_moves(balance);
	balance_set_fair(balance->servers, balance->server_count);
}

/* ---- what moves */

unsigned balance_moves(const struct balance *balance)
{
	unsigned count = 0;

	for (const struct move *move = balance->moves; move; move = move->hh.next)
		count += move->over_ms == 0;
	return count;
}

static void add_move(struct balance *balance, const struct move *begun)
{
	struct move *move = mem_alloc(sizeof(*move)), *known;
	struct source *source = balance->source;
	uint64_t now_ms = balance_now_ms(balance);

	HASH_FIND(hh, balance->moves, &begun->chunk, sizeof(begun->chunk), known);
	if (known) {
		HASH_DEL(balance->moves, known);
		free(known);
	}
	*move = *begun;
	HASH_ADD(hh, balance->moves, chunk, sizeof(move->chunk), move);
	source->begun++;
	source->after_ms = (source->after_ms > now_ms ? source->after_ms : now_ms) + move->bytes * 1000 / balance->rate;
	balance_look(balance);
	log_info("move_begins", "chunk=%016" PRIx64 " from=%016" PRIx64 " to=%016" PRIx64 " bytes=%" PRIu64, move->chunk, move->from, move->to,
		 move->bytes);
}

static bool is_member(const Granary__Chunk *chunk, uint64_t server)
{
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] == server)
			return true;
	}
	return false;
}

/* It counts at its new place and no more at the old one, or has been given up. */
static bool has_ended(const struct balance *balance, const struct move *move, const Granary__Chunk *chunk, bool *failed)
{
	bool left = !is_member(chunk, move->from), arrived = is_member(chunk, move->to);

	if (move->owner)
		*failed = !arrived && !cooling_is_at(balance->options.cooling, move->owner);
	else
		*failed = !arrived && !repair_is_joining(balance->options.repair, move->chunk);
	return *failed || (left && arrived) || (!move->owner && arrived && chunk->moving_from != move->from);
}

static void step_move(struct balance *balance, struct move *move)
{
	Granary__Chunk *chunk = NULL;
	uint64_t now_ms = balance_now_ms(balance);

	if (move->over_ms && now_ms - move->over_ms >= BALANCE_SETTLE_MS) {
		HASH_DEL(balance->moves, move);
		free(move);
		return;
	}
	if (move->over_ms)
		return;
	enum err err = meta_chunk(balance_meta(balance), move->chunk, &chunk);
	if (err) {
		move->failed = true; /* the chunk is gone */
		move->over_ms = now_ms;
	} else if (has_ended(balance, move, chunk, &move->failed)) {
		move->over_ms = now_ms;
		balance->moved_bytes += move->failed ? 0 : move->bytes;
	}
	message_free(chunk ? &chunk->base : NULL);
}

static void step_moves(struct balance *balance)
{
	struct move *move, *next;

	HASH_ITER(hh, balance->moves, move, next)
	{
		step_move(balance, move);
	}
}

/* ---- beginning */

/* Whoever is drained gives to anybody. */
static bool may_take(const struct balance *balance, uint64_t to, uint64_t bytes)
{
	const struct balance_server *taker = find_balanced(balance, to), *giver = find_balanced(balance, balance->source->server);

	if (!taker || !taker->part)
		return false;
	return balance->percent == 0 || (giver && balance_may_move(giver, taker, bytes, balance->percent));
}

struct taking {
	const struct balance *balance;
	uint64_t bytes;
};

static bool may_take_shard(void *arg, uint64_t server)
{
	const struct taking *taking = arg;

	return may_take(taking->balance, server, taking->bytes);
}

static enum balance_why begin_shard(struct balance *balance, uint64_t id, const Granary__Chunk *shard, uint64_t bytes)
{
	struct taking taking = { balance, bytes };
	struct move move = { .chunk = id, .owner = shard->owner, .from = balance->source->server, .bytes = bytes };
	enum err err = cooling_move_shard(balance->options.cooling, shard,
					  &(struct shard_move){ .shard = id, .empties = balance->percent == 0, .may_take = may_take_shard, .arg = &taking }, &move.to);

	if (err == OK)
		add_move(balance, &move);
	switch (err) {
	case OK:
		return WHY_NONE;
	case ERR_BUSY:
		return WHY_BUSY;
	case ERR_NO_SERVERS:
		return WHY_NO_PLACE;
	default:
		return WHY_NOT_WHOLE;
	}
}

/* For the place of `from`; 0: nobody. */
static uint64_t choose_taker(struct balance *balance, const Granary__Chunk *chunk, uint64_t from, uint64_t bytes)
{
	const Granary__Settings *settings = meta_settings(balance_meta(balance));
	struct placement_pool pool = { .candidates = balance->candidates,
				       .count = servers_candidates(servers_of(balance), balance_now_ms(balance), balance->candidates),
				       .bytes_reserved = CHUNK_BYTES,
				       .copyset_seed = meta_cluster(balance_meta(balance)),
				       .copyset_width = (unsigned)setting_value(settings, SETTING_COPYSET_WIDTH) };
	struct placement before = { .count = chunk->n_replicas }, after = { .count = chunk->n_replicas };
	struct placement_extension extension = { .members = after.servers, .wish = { .count = (unsigned)chunk->n_replicas } };

	memcpy(before.servers, chunk->replicas, chunk->n_replicas * sizeof(before.servers[0]));
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] != from)
			after.servers[extension.member_count++] = chunk->replicas[i];
	}
	for (size_t i = 0; i < pool.count; i++) {
		struct placement_candidate *candidate = &balance->candidates[i];
		candidate->usable = candidate->usable && !is_member(chunk, candidate->server) && may_take(balance, candidate->server, bytes);
		candidate->busy = !repair_has_time(balance->options.repair, candidate->server, false);
	}
	uint64_t to = placement_extend(&pool, &extension, &balance->rng);
	after.servers[extension.member_count] = to;
	return to && placement_keeps_spread(&pool, &before, &after) ? to : 0;
}

static bool somebody_is_busy(const struct balance *balance)
{
	for (size_t i = 0; i < balance->server_count; i++) {
		if (balance->servers[i].part && !repair_has_time(balance->options.repair, balance->servers[i].server, false))
			return true;
	}
	return false;
}

static enum balance_why begin_copy(struct balance *balance, uint64_t id, const Granary__Chunk *chunk, uint64_t bytes)
{
	struct move move = { .chunk = id, .from = balance->source->server, .bytes = bytes };

	if (!repair_may_move(balance->options.repair, id, chunk))
		return WHY_NOT_WHOLE;
	if (!repair_has_time(balance->options.repair, chunk->replicas[chunk->n_replicas - 1], true))
		return WHY_BUSY;
	move.to = choose_taker(balance, chunk, move.from, bytes);
	if (move.to == 0)
		return somebody_is_busy(balance) ? WHY_BUSY : WHY_NO_PLACE;
	if (!repair_move(balance->options.repair, chunk, &(struct repair_move){ id, move.from, move.to }))
		return WHY_BUSY;
	add_move(balance, &move);
	return WHY_NONE;
}

static enum balance_why begin(struct balance *balance, uint64_t id, const Granary__Chunk *chunk, uint64_t bytes)
{
	const struct move *move;

	HASH_FIND(hh, balance->moves, &id, sizeof(id), move);
	if ((move && !move->over_ms) || chunk->moving_from)
		return WHY_BUSY;
	if (balance_now_ms(balance) < balance->source->after_ms || HASH_COUNT(balance->moves) >= BALANCE_MOVES_MAX ||
	    repair_is_busy(balance->options.repair))
		return WHY_BUSY;
	return chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD ? begin_shard(balance, id, chunk, bytes) :
								 begin_copy(balance, id, chunk, bytes);
}

/* ---- the passes */

static bool on_chunk(void *arg, uint64_t id)
{
	struct balance *balance = arg;
	struct source *source = balance->source;
	Granary__Chunk *chunk = NULL;

	source->cursor = id;
	if (meta_chunk(balance_meta(balance), id, &chunk) == OK) {
		uint64_t bytes = meta_chunk_bytes(balance_meta(balance), chunk);
		source->chunks++;
		source->bytes += bytes;
		source->whys[begin(balance, id, chunk, bytes)]++;
		message_free(&chunk->base);
	}
	return ++balance->seen < BALANCE_SCAN_MAX;
}

/* The reason is that which holds up the most of what cannot be waited for; while something moves there may be room soon. */
static void pass_end(struct balance *balance, struct source *source)
{
	source->why = WHY_NONE;
	if (HASH_COUNT(balance->moves) == 0 && source->whys[WHY_BUSY] == 0 && source->chunks > 0) {
		source->why = source->whys[WHY_NO_PLACE] > source->whys[WHY_NOT_WHOLE] ? WHY_NO_PLACE : WHY_NOT_WHOLE;
		source->stuck_until_ms = balance_now_ms(balance) + BALANCE_STUCK_MS;
	}
	if (source->begun == 0 && source->whys[WHY_BUSY] == 0)
		source->pass_after_ms = balance_now_ms(balance) + BALANCE_PASS_PAUSE_MS;
	source->chunks_last = source->chunks;
	source->bytes_last = source->bytes;
	source->counted = true;
	source->cursor = source->chunks = source->bytes = 0;
	source->begun = 0;
	memset(source->whys, 0, sizeof(source->whys));
}

static struct source *source_of(struct balance *balance, uint64_t server)
{
	struct source *source;

	HASH_FIND(hh, balance->sources, &server, sizeof(server), source);
	if (source)
		return source;
	source = mem_zero(1, sizeof(*source));
	source->server = server;
	HASH_ADD(hh, balance->sources, server, sizeof(source->server), source);
	return source;
}

/* percent: 0: all of it is to go. */
static void step_source(struct balance *balance, uint64_t server, unsigned percent, uint64_t rate)
{
	struct source *source = balance->source = source_of(balance, server);

	if (balance_now_ms(balance) < source->pass_after_ms)
		return;
	balance->percent = percent;
	balance->rate = rate;
	balance->seen = 0;
	if (meta_each_chunk_on(balance_meta(balance), server, source->cursor, on_chunk, balance)) {
		log_error("chunks_unreadable", "server=%016" PRIx64, server);
		return;
	}
	if (balance->seen < BALANCE_SCAN_MAX)
		pass_end(balance, source);
}

static void step_drains(struct balance *balance)
{
	for (size_t i = 0; i < servers_count(servers_of(balance)); i++) {
		const struct server *server = servers_at(servers_of(balance), i);
		if (server->draining)
			step_source(balance, server->id, 0, balance_rate(balance));
	}
}

static void forget_stuck(struct balance *balance)
{
	for (struct source *source = balance->sources; source; source = source->hh.next)
		source->stuck_until_ms = 0;
}

static void begin_run(struct balance *balance, uint64_t id)
{
	balance->run = id;
	balance->moved_bytes = 0;
	balance->ended[0] = 0;
	forget_stuck(balance);
	balance_look(balance);
}

/* It is down, and may come back with what it has: what is within bounds without it says nothing. */
static bool somebody_is_away(const struct balance *balance)
{
	struct repair_question question;

	repair_question(balance->options.repair, &question);
	for (size_t i = 0; i < servers_count(servers_of(balance)); i++) {
		const struct server *server = servers_at(servers_of(balance), i);
		if (!server->draining && !is_up(balance, server) && repair_counts_on(&question, server->id, question.delay_ms))
			return true;
	}
	return balance->server_count == 0;
}

/* All servers are near enough, or nothing that may move is left. */
static void look_at_end(struct balance *balance, unsigned percent)
{
	struct repair_progress progress;

	repair_progress(balance->options.repair, &progress);
	if (HASH_COUNT(balance->moves) > 0 || progress.joins > 0 || balance->ending || somebody_is_away(balance))
		return;
	if (balance_is_within(balance->servers, balance->server_count, percent))
		balance_end_run(balance, "all chunkservers are within their bounds");
	else if (balance_giver(balance->servers, balance->server_count, percent) == balance->server_count)
		balance_end_run(balance, "as far as the copies may be moved: no other chunkserver has room and keeps them as far apart as they are");
}

static void step_balance(struct balance *balance)
{
	const Granary__Rebalance *run = balance_run(balance);
	size_t count = balance->server_count;
	unsigned percent = run ? run->target_percent : BALANCE_GENTLE_END_PERCENT;
	uint64_t rate = run ? balance_rate(balance) : balance_rate(balance) / BALANCE_GENTLE_PART + 1;

	if (run && run->id != balance->run)
		begin_run(balance, run->id);
	if (!run && balance_is_within(balance->servers, count, balance->gentle ? BALANCE_GENTLE_END_PERCENT : BALANCE_GENTLE_PERCENT)) {
		balance->gentle = false;
		return;
	}
	balance->gentle = !run;
	size_t giver = balance_giver(balance->servers, count, percent);
	if (giver < count)
		step_source(balance, balance->servers[giver].server, percent, rate);
	if (run)
		look_at_end(balance, percent);
}

static void on_step(void *arg)
{
	struct balance *balance = arg;

	timer_start(&balance->step, BALANCE_STEP_MS);
	if (!balance->leading || !replica_can_read(balance->options.context->replica) || servers_are_ahead(servers_of(balance)))
		return;
	step_moves(balance);
	balance_look(balance);
	step_drains(balance);
	if (balance_now_ms(balance) - balance->since_ms >= REPAIR_START_MS) /* all that are up are known */
		step_balance(balance);
}

void balance_tell_drain(const struct balance *balance, uint64_t id, Granary__Drain *out)
{
	const struct server *server = servers_find(servers_of(balance), id);
	const struct source *source;

	HASH_FIND(hh, balance->sources, &id, sizeof(id), source);
	out->server = id;
	out->draining = server && server->draining;
	if (!server || !server->draining || !source || !source->counted)
		return;
	out->counted = true;
	out->chunks = source->chunks_last;
	out->bytes = source->bytes_last;
	out->empty = source->chunks_last == 0 && !cooling_has_task(balance->options.cooling, id) &&
		     balance_now_ms(balance) - server->draining_since_ms >= BALANCE_DRAINED_MS;
	if (source->chunks_last > 0 && balance_moves(balance) == 0)
		out->waits_for = (char *)(uintptr_t)balance_why_text(source->why);
}

/* ---- life */

static void forget_all(struct balance *balance)
{
	struct move *move, *next_move;
	struct source *source, *next_source;

	HASH_ITER(hh, balance->moves, move, next_move)
	{
		HASH_DEL(balance->moves, move);
		free(move);
	}
	HASH_ITER(hh, balance->sources, source, next_source)
	{
		HASH_DEL(balance->sources, source);
		free(source);
	}
}

void balance_leading(struct balance *balance)
{
	balance->leading = true;
	balance->since_ms = balance_now_ms(balance);
	balance->run = 0;
	balance->gentle = false;
	timer_start(&balance->step, BALANCE_STEP_MS);
}

void balance_deposed(struct balance *balance)
{
	balance->leading = false;
	timer_stop(&balance->step);
	forget_all(balance);
}

struct balance *balance_open(const struct balance_options *options)
{
	struct balance *balance = mem_zero(1, sizeof(*balance));

	balance->options = *options;
	rng_init(&balance->rng, loop_random(options->context->loop));
	balance->servers = mem_alloc(SERVERS_MAX * sizeof(*balance->servers));
	balance->candidates = mem_alloc(SERVERS_MAX * sizeof(*balance->candidates));
	timer_init(&balance->step, options->context->loop, on_step, balance);
	return balance;
}

void balance_close(struct balance *balance)
{
	if (!balance)
		return;
	timer_stop(&balance->step);
	forget_all(balance);
	free(balance->servers);
	free(balance->candidates);
	free(balance);
}
