/* What is to become cold, or hot, as soon as it can be. None of it is durable: what is due, or has to be coded anew, is found again. */
#include <stdlib.h>

#include "master/cooling_internal.h"

static struct wish *find(const struct cooling *cooling, uint64_t chunk)
{
	struct wish *wish;

	HASH_FIND(hh, cooling->wishes, &chunk, sizeof(chunk), wish);
	return wish;
}

bool cooling_wish(struct cooling *cooling, uint64_t chunk, enum wish_kind kind)
{
	struct wish *wish = find(cooling, chunk);

	if (wish) {
		wish->kind = kind == WISH_ANEW ? wish->kind : kind;
		return true;
	}
	if (HASH_COUNT(cooling->wishes) >= COOL_WISHES_MAX)
		return false;
	wish = mem_zero(1, sizeof(*wish));
	wish->chunk = chunk;
	wish->kind = kind;
	HASH_ADD(hh, cooling->wishes, chunk, sizeof(wish->chunk), wish);
	return true;
}

/* ERR_BUSY: not yet. */
static enum err grant(struct cooling *cooling, const struct wish *wish, const Granary__Chunk *chunk)
{
	bool cold = chunk->cold && chunk->n_replicas == 0, hot = !chunk->frozen;
	enum err err = OK;

	if ((wish->kind == WISH_COLD && cold) || (wish->kind == WISH_HOT && hot))
		return OK;
	if (cooling_find(cooling, wish->chunk) || cooling_failed_lately(cooling, wish->chunk) || (!cold && !hot))
		return ERR_BUSY;
	err = hot ? cooling_begin_cool(cooling, wish->chunk, chunk) : cooling_begin_warm(cooling, wish->chunk, chunk);
	return err == OK && cold && wish->kind == WISH_ANEW ? ERR_BUSY : err;
}

void cooling_step_wishes(struct cooling *cooling)
{
	size_t count = HASH_COUNT(cooling->wishes), tries = count < COOL_WISHES_TRIED_MAX ? count : COOL_WISHES_TRIED_MAX;

	for (; tries > 0; tries--) {
		struct wish *wish = cooling->wishes;
		Granary__Chunk *chunk = NULL;
		HASH_DEL(cooling->wishes, wish);
		enum err err = meta_chunk(cooling_meta(cooling), wish->chunk, &chunk);
		if (err == OK)
			err = grant(cooling, wish, chunk);
		if (err == ERR_BUSY) {
			HASH_ADD(hh, cooling->wishes, chunk, sizeof(wish->chunk), wish);
		} else {
			if (err && err != ERR_NO_CHUNK)
				cooling_note_failed(cooling, wish->chunk, err);
			free(wish);
		}
		message_free(chunk ? &chunk->base : NULL);
	}
}

void cooling_forget_wishes(struct cooling *cooling)
{
	struct wish *wish, *next;

	HASH_ITER(hh, cooling->wishes, wish, next)
	{
		HASH_DEL(cooling->wishes, wish);
		free(wish);
	}
}
