#include "master/repair_policy.h"

#include <string.h>

static uint64_t away_ms(const struct repair_question *question, const struct server *server)
{
	uint64_t last = server->heard_ms > question->since_ms ? server->heard_ms : question->since_ms;

	return question->now_ms > last ? question->now_ms - last : 0;
}

/* It is not counted on any more. */
static bool is_gone(const struct repair_question *question, const struct server *server, uint64_t delay_ms)
{
	if (!server || server->failed)
		return true;
	return !server->connection && servers_is_dead(server, question->now_ms) && away_ms(question, server) >= delay_ms;
}

bool repair_counts_on(const struct repair_question *question, uint64_t server, uint64_t delay_ms)
{
	return !is_gone(question, servers_find(question->servers, server), delay_ms);
}

static bool is_up(const struct repair_question *question, const struct server *server)
{
	return server && servers_is_usable(server, question->now_ms);
}

/* True when one of the retired copies may be had soon. */
static bool look_at_stale(const struct repair_question *question, uint64_t delay_ms, const Granary__Chunk *chunk,
			  struct repair_verdict *out)
{
	bool soon = false;

	for (size_t i = 0; i < chunk->n_stale && i < STALE_COPIES_MAX; i++) {
		const struct server *server = servers_find(question->servers, chunk->stale[i]);
		if (is_up(question, server))
			out->stale[out->stale_count++] = chunk->stale[i];
		else if (!is_gone(question, server, delay_ms))
			soon = true;
	}
	return soon;
}

static unsigned count_complete(const struct repair_question *question, const Granary__Chunk *chunk)
{
	unsigned count = 0;

	for (size_t i = 0; i < chunk->n_replicas; i++)
		count += chunk->replicas[i] != chunk->joining &&
			 is_up(question, servers_find(question->servers, chunk->replicas[i]));
	return count;
}

/* What it has lost may be in the others' copies only. */
static bool is_sound(const struct repair_question *question, uint64_t id)
{
	const struct server *server = servers_find(question->servers, id);

	return is_up(question, server) && !server->uncertain &&
	       (!server->disk || server->disk->damage_found <= server->disk->damage_repaired);
}

static bool shares_domain(const struct repair_question *question, const Granary__Chunk *chunk, size_t at)
{
	const struct server *server = servers_find(question->servers, chunk->replicas[at]);

	for (size_t i = 0; i < chunk->n_replicas; i++) {
		const struct server *other = servers_find(question->servers, chunk->replicas[i]);
		if (i != at && server && other && strcmp(other->host, server->host) == 0)
			return true;
	}
	return false;
}

static bool is_draining(const struct repair_question *question, uint64_t id)
{
	const struct server *server = servers_find(question->servers, id);

	return server && server->draining;
}

/* Whose place another has taken; one that is drained; of two in one failure domain one of them; else the last of the chain. */
static uint64_t least_wanted(const struct repair_question *question, const Granary__Chunk *chunk)
{
	uint64_t leaves = 0;

	for (size_t i = 0; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] == chunk->moving_from)
			return chunk->moving_from;
	}
	for (size_t i = chunk->n_replicas; i > 0 && !leaves; i--)
		leaves = is_draining(question, chunk->replicas[i - 1]) ? chunk->replicas[i - 1] : 0;
	for (size_t i = chunk->n_replicas; i > 0 && !leaves; i--)
		leaves = shares_domain(question, chunk, i - 1) ? chunk->replicas[i - 1] : 0;
	return leaves ? leaves : chunk->replicas[chunk->n_replicas - 1];
}

/* 0: none is to go. All others are sound. */
static uint64_t choose_leaving(const struct repair_question *question, const Granary__Chunk *chunk, unsigned wanted)
{
	if (chunk->n_replicas <= wanted || chunk->joining || chunk->frozen || chunk->cold || chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD)
		return 0;
	uint64_t leaves = least_wanted(question, chunk);
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		if (chunk->replicas[i] != leaves && !is_sound(question, chunk->replicas[i]))
			return 0;
	}
	return leaves;
}

void repair_judge(const struct repair_question *question, const Granary__Chunk *chunk, struct repair_verdict *out)
{
	unsigned counted = 0;
	uint64_t delay_ms = question->delay_ms;

	memset(out, 0, sizeof(*out));
	out->complete = count_complete(question, chunk);
	if (out->complete == 1 && delay_ms > REPAIR_ALONE_MS)
		delay_ms = REPAIR_ALONE_MS;
	out->wanted = chunk->copies_wanted ? chunk->copies_wanted : REPLICAS_DEFAULT;
	for (size_t i = 0; i < chunk->n_replicas && i < REPLICAS_MAX; i++) {
		const struct server *server = servers_find(question->servers, chunk->replicas[i]);
		bool complete = chunk->replicas[i] != chunk->joining;
		bool dead = !server || servers_is_dead(server, question->now_ms);
		counted += complete && !is_gone(question, server, delay_ms);
		if (dead)
			out->dropped[out->dropped_count++] = chunk->replicas[i];
		else
			out->kept[out->kept_count++] = chunk->replicas[i];
	}
	out->lacking = counted < out->wanted ? out->wanted - counted : 0;
	bool soon = look_at_stale(question, delay_ms, chunk, out);
	bool doubt = servers_leave_doubt(question->servers, question->now_ms,
					 &(struct servers_parting){ .kept = out->kept,
								    .kept_count = out->kept_count,
								    .dropped = out->dropped,
								    .dropped_count = out->dropped_count });
	if (out->complete == 0 || doubt)
		out->action = REPAIR_WAIT;
	else if (chunk->joining)
		out->action = out->dropped_count > 0 ? REPAIR_DROP : REPAIR_NOTHING;
	else if (out->complete >= out->wanted) {
		out->leaves = choose_leaving(question, chunk, out->wanted);
		out->action = out->leaves ? REPAIR_LEAVE : REPAIR_NOTHING;
	}
	else if (out->lacking == 0 || (soon && out->stale_count == 0))
		out->action = REPAIR_WAIT;
	else
		out->action = REPAIR_JOIN;
}

unsigned repair_priority_of(unsigned tolerated, bool active)
{
	if (tolerated > REPAIR_PRIORITIES / 2 - 1)
		tolerated = REPAIR_PRIORITIES / 2 - 1;
	return tolerated * 2 + !active;
}

unsigned repair_priority(const struct repair_verdict *verdict, bool active)
{
	return repair_priority_of(verdict->complete == 0 ? 0 : verdict->complete - 1, active);
}
