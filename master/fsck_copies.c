#include "master/fsck_copies.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "master/missing.h"

enum copies_state { COPIES_IDLE, COPIES_FIRST, COPIES_PAUSE, COPIES_SECOND, COPIES_DONE };
enum answer { ANSWER_NONE, ANSWER_AWAITED, ANSWER_COMING, ANSWER_COMPLETE };

struct asked {
	uint64_t server;
	enum answer answer;
	bool in_doubt;
	uint64_t cursor; /* compared up to this chunk */
};

struct doubts {
	struct copy *copies;
	size_t count, capacity;
};

struct copies {
	struct loop *loop;
	struct replica *replica;
	struct servers *servers;
	enum copies_state state;
	uint64_t until_ms;
	struct asked *asked;
	size_t asked_count;
	uint32_t missed; /* were not in service */
	struct doubts first, second, found;
};

static uint64_t now_ms(const struct copies *copies)
{
	return loop_now_us(copies->loop) / 1000;
}

static void doubts_add(struct doubts *doubts, const struct copy *copy)
{
	if (doubts->count == FSCK_COPIES_MAX)
		return;
	if (doubts->count == doubts->capacity) {
		doubts->capacity = doubts->capacity ? 2 * doubts->capacity : 256;
		doubts->copies = mem_resize(doubts->copies, doubts->capacity * sizeof(*doubts->copies));
	}
	doubts->copies[doubts->count++] = *copy;
}

static int copy_compare(const void *a, const void *b)
{
	const struct copy *first = a, *second = b;

	if (first->chunk != second->chunk)
		return first->chunk < second->chunk ? -1 : 1;
	if (first->server != second->server)
		return first->server < second->server ? -1 : 1;
	return (int)first->kind - (int)second->kind;
}

/* ---- a page against the map */

static bool contains(const uint64_t *servers, size_t count, uint64_t server)
{
	for (size_t i = 0; i < count; i++) {
		if (servers[i] == server)
			return true;
	}
	return false;
}

static enum check_kind judge_known(const Granary__Chunk *chunk, uint64_t server, const Granary__ChunkHeld *held)
{
	bool member = contains(chunk->replicas, chunk->n_replicas, server);

	if (server == chunk->rebuilding) /* in a later version */
		return CHECK_NONE;
	if (held->version > chunk->version)
		return CHECK_COPY_NEWER;
	if (!member && held->version == chunk->version)
		return CHECK_COPY_NEWER; /* of this version, yet not among those that have it */
	if (!member) /* a stale one is kept for as long as a copy is wanting */
		return contains(chunk->stale, chunk->n_stale, server) ? CHECK_NONE : CHECK_COPY_STRAY;
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD && held->version < chunk->version)
		return CHECK_COPY_MISSING; /* what was there is lost, and this is half made */
	if (server == chunk->joining)
		return CHECK_NONE; /* being brought up, from an older one perhaps */
	if (held->copy == HELD_RETIRED)
		return CHECK_COPY_RETIRED;
	return held->version < chunk->version ? CHECK_COPY_OLD : CHECK_NONE;
}

/* What a copy that a server holds is. CHECK_NONE: as it should be, or known to go. */
static enum check_kind judge(struct meta *meta, uint64_t server, const Granary__ChunkHeld *held)
{
	Granary__Chunk *chunk = NULL;
	enum err err = meta_chunk(meta, held->chunk, &chunk);

	if (err)
		return err == ERR_NO_CHUNK && !meta_chunk_was_removed(meta, held->chunk) ? CHECK_COPY_ORPHAN : CHECK_NONE;
	enum check_kind kind = judge_known(chunk, server, held);
	message_free(&chunk->base);
	return kind;
}

struct missing {
	struct asked *asked;
	struct doubts *doubts;
};

static bool note_missing(void *arg, uint64_t chunk, const Granary__Chunk *record)
{
	const struct missing *missing = arg;

	(void)record;
	doubts_add(missing->doubts,
		   &(struct copy){ .chunk = chunk, .server = missing->asked->server, .kind = CHECK_COPY_MISSING });
	missing->asked->in_doubt = true;
	return true;
}

static struct asked *asked_find(struct copies *copies, uint64_t server)
{
	for (size_t i = 0; i < copies->asked_count; i++) {
		if (copies->asked[i].server == server)
			return &copies->asked[i];
	}
	return NULL;
}

void copies_inventory(struct copies *copies, uint64_t server, const Granary__Inventory *page, bool first)
{
	struct asked *asked = asked_find(copies, server);
	struct meta *meta = replica_meta(copies->replica);

	if ((copies->state != COPIES_FIRST && copies->state != COPIES_SECOND) || !asked)
		return;
	if (first && asked->answer == ANSWER_AWAITED) {
		asked->answer = ANSWER_COMING;
		asked->cursor = 0;
	}
	if (asked->answer != ANSWER_COMING)
		return;
	struct missing missing = { .asked = asked, .doubts = copies->state == COPIES_FIRST ? &copies->first : &copies->second };
	for (size_t i = 0; i < page->n_chunks; i++) {
		enum check_kind kind = judge(meta, server, page->chunks[i]);
		if (kind == CHECK_NONE)
			continue;
		doubts_add(missing.doubts, &(struct copy){ .chunk = page->chunks[i]->chunk,
							 .server = server,
							 .kind = kind,
							 .version = page->chunks[i]->version });
		asked->in_doubt = true;
	}
	if (missing_each(meta, server, page, &asked->cursor, note_missing, &missing))
		return; /* the store has failed: the master stops */
	if (page->last)
		asked->answer = ANSWER_COMPLETE;
}

/* ---- rounds */

static void ask(struct copies *copies, struct asked *asked)
{
	struct server *server = servers_find(copies->servers, asked->server);

	asked->answer = ANSWER_NONE;
	if (!server || !servers_is_usable(server, now_ms(copies)))
		return;
	asked->answer = ANSWER_AWAITED;
	server->inventory_wanted = true;
}

void copies_begin(struct copies *copies)
{
	size_t count = servers_count(copies->servers);

	copies_stop(copies);
	copies->asked = mem_zero(count + 1, sizeof(*copies->asked));
	for (size_t i = 0; i < count; i++) {
		struct asked *asked = &copies->asked[copies->asked_count++];
		asked->server = servers_at(copies->servers, i)->id;
		ask(copies, asked);
		copies->missed += asked->answer == ANSWER_NONE;
	}
	copies->state = COPIES_FIRST;
	copies->until_ms = now_ms(copies) + FSCK_INVENTORY_MS;
}

void copies_stop(struct copies *copies)
{
	free(copies->asked);
	copies->asked = NULL;
	copies->asked_count = 0;
	copies->missed = 0;
	copies->first.count = copies->second.count = copies->found.count = 0;
	copies->state = COPIES_IDLE;
}

static bool round_is_over(struct copies *copies)
{
	bool over = now_ms(copies) >= copies->until_ms;

	for (size_t i = 0; i < copies->asked_count && !over; i++) {
		if (copies->asked[i].answer == ANSWER_AWAITED || copies->asked[i].answer == ANSWER_COMING)
			return false;
	}
	/* Who has not answered in time was not compared. */
	for (size_t i = 0; i < copies->asked_count; i++) {
		if (copies->asked[i].answer == ANSWER_AWAITED || copies->asked[i].answer == ANSWER_COMING) {
			copies->asked[i].answer = ANSWER_NONE;
			copies->missed++;
		}
	}
	return true;
}

static void begin_second(struct copies *copies)
{
	for (size_t i = 0; i < copies->asked_count; i++) {
		struct asked *asked = &copies->asked[i];
		if (asked->answer == ANSWER_COMPLETE && asked->in_doubt)
			ask(copies, asked);
	}
	copies->state = COPIES_SECOND;
	copies->until_ms = now_ms(copies) + FSCK_INVENTORY_MS;
}

/* In doubt both times. */
static void intersect(struct copies *copies)
{
	const struct doubts *first = &copies->first, *second = &copies->second;

	if (first->count == 0 || second->count == 0)
		return;
	qsort(first->copies, first->count, sizeof(struct copy), copy_compare);
	qsort(second->copies, second->count, sizeof(struct copy), copy_compare);
	for (size_t i = 0, k = 0; i < first->count && k < second->count;) {
		int order = copy_compare(&first->copies[i], &second->copies[k]);
		if (order == 0)
			doubts_add(&copies->found, &second->copies[k]);
		i += order <= 0;
		k += order >= 0;
	}
}

static bool pause_is_over(struct copies *copies)
{
	struct meta_counts counts;

	meta_counts(replica_meta(copies->replica), &counts);
	return counts.garbage == 0 || now_ms(copies) >= copies->until_ms;
}

bool copies_step(struct copies *copies)
{
	switch (copies->state) {
	case COPIES_FIRST:
		if (!round_is_over(copies))
			return false;
		copies->state = COPIES_PAUSE;
		copies->until_ms = now_ms(copies) + GARBAGE_RESCAN_MS;
		return false;
	case COPIES_PAUSE:
		if (pause_is_over(copies))
			begin_second(copies);
		return false;
	case COPIES_SECOND:
		if (!round_is_over(copies))
			return false;
		intersect(copies);
		copies->state = COPIES_DONE;
		return true;
	case COPIES_IDLE:
	case COPIES_DONE:
		break;
	}
	return true;
}

/* ---- results */

const struct copy *copies_found(const struct copies *copies, size_t *count)
{
	*count = copies->found.count;
	return copies->found.copies;
}

void copies_servers(const struct copies *copies, uint32_t *compared, uint32_t *missed)
{
	*missed = copies->missed;
	*compared = (uint32_t)copies->asked_count - copies->missed;
}

struct copies *copies_open(struct loop *loop, struct replica *replica, struct servers *servers)
{
	struct copies *copies = mem_zero(1, sizeof(*copies));

	copies->loop = loop;
	copies->replica = replica;
	copies->servers = servers;
	return copies;
}

void copies_close(struct copies *copies)
{
	if (!copies)
		return;
	copies_stop(copies);
	free(copies->first.copies);
	free(copies->second.copies);
	free(copies->found.copies);
	free(copies);
}
