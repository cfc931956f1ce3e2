/* A backup's pairs put into an empty state machine, as they are. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/data/pairs.h"
#include "master/meta/classes.h"
#include "master/meta/ops.h"
#include "master/meta/settings.h"

enum restore_step { RESTORE_BEGIN = 1, RESTORE_PAIRS = 2, RESTORE_END = 3 };

/* The backup's MetaState until the end. */
static struct key kept_key(void)
{
	return key_of_single("restored-state");
}

bool restore_allows(const struct meta *meta, const Granary__MetaRequest *request)
{
	if (meta->state->restoring == 0)
		return true;
	for (size_t i = 0; i < request->n_ops; i++) {
		if (request->ops[i]->op_case != GRANARY__META_OP__OP_RESTORE)
			return false;
	}
	return true;
}

/* Removes a bounded part of what there is, but the single values; true: nothing is left. */
static bool clear_some(struct meta *meta)
{
	struct key *keys = mem_alloc(RESTORE_CLEAR_MAX * sizeof(*keys));
	struct key everything = {.size = 0};
	size_t count = 0;
	struct scan scan;

	scan_open(&scan, &meta->store, &everything, NULL);
	while (count < RESTORE_CLEAR_MAX && scan_next(&scan)) {
		if (scan.key.size > KEY_BYTES_MAX || scan.key.bytes[0] == KEY_SINGLE)
			continue;
		keys[count].size = (uint32_t)scan.key.size;
		memcpy(keys[count++].bytes, scan.key.bytes, scan.key.size);
	}
	scan_close(&scan);
	for (size_t i = 0; i < count; i++)
		store_delete(&meta->store, &keys[i]);
	free(keys);
	return count < RESTORE_CLEAR_MAX;
}

static enum err begin(struct meta *meta, uint64_t id)
{
	/* The root directory alone; what a restore has left is no content. */
	if (meta->state->restoring == 0 && (meta->state->inodes > 1 || meta->state->chunks > 0))
		return ERR_NOT_EMPTY;
	meta->state->restoring = id;
	settings_clear(meta);
	classes_clear(meta); /* what is in use changes at the end */
	return clear_some(meta) ? OK : ERR_BUSY;
}

/* A key may be in the cache as a message: it is taken out first. */
static void put(struct meta *meta, const struct key *key, struct slice value)
{
	store_delete(&meta->store, key);
	store_put(&meta->store, key, value);
}

static enum err pair_key(struct slice from, struct key *out)
{
	if (from.size > KEY_BYTES_MAX)
		return ERR_INVALID;
	out->size = (uint32_t)from.size;
	memcpy(out->bytes, from.bytes, from.size);
	return OK;
}

static enum err put_pairs(struct meta *meta, struct slice rest)
{
	struct slice state = slice_text("Mstate"), members = slice_text("Mmembers"), key, value;
	struct slice all = rest;
	struct key stored;
	enum err err = OK;

	/* First all are looked at, so that an error leaves nothing half done. */
	while (err == OK && rest.size > 0) {
		err = pairs_take(&rest, &key, &value);
		if (err == OK)
			err = pair_key(key, &stored);
	}
	while (err == OK && all.size > 0) {
		err = pairs_take(&all, &key, &value);
		check(err == OK && pair_key(key, &stored) == OK);
		if (slice_equal(key, members))
			continue;
		if (slice_equal(key, state))
			stored = kept_key();
		put(meta, &stored, value);
	}
	return err;
}

static enum err end(struct meta *meta, uint64_t id)
{
	struct key key = kept_key();
	Granary__MetaState *restored = NULL;
	struct slice stored;

	if (!store_get(&meta->store, &key, &stored))
		return ERR_INVALID;
	if (message_unpack(&granary__meta_state__descriptor, stored, (ProtobufCMessage **)&restored))
		return ERR_INVALID;
	if (settings_load(meta) || classes_load(meta)) {
		message_free(&restored->base);
		return ERR_INVALID;
	}
	restored->applied_index = meta->state->applied_index;
	restored->applied_term = meta->state->applied_term;
	if (restored->time_ns < meta->state->time_ns)
		restored->time_ns = meta->state->time_ns;
	restored->restoring = 0;
	restored->restored = id;
	message_free(&meta->state->base);
	meta->state = restored;
	store_delete(&meta->store, &key);
	meta->restored = true;
	return OK;
}

enum err op_restore(struct context *context, const Granary__Restore *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;

	(void)result;
	if (op->id == 0)
		return ERR_INVALID;
	if (meta->state->restored == op->id)
		return OK; /* sent again */
	if (op->step == RESTORE_BEGIN)
		return begin(meta, op->id);
	if (meta->state->restoring != op->id)
		return ERR_CANCELLED;
	if (op->step == RESTORE_PAIRS)
		return put_pairs(meta, message_bytes(op->pairs));
	return op->step == RESTORE_END ? end(meta, op->id) : ERR_INVALID;
}
