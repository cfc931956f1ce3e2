/* Committed entries into the state machine. */
#include <stdlib.h>

#include "common/base/check.h"
#include "master/replica_internal.h"

static void finish_entry(struct replica *replica, struct batch *batch, const struct replica_applied *applied)
{
	replica->options.events->applied(replica->options.events_arg, applied);
	size_t count = applied->entry ? applied->entry->n_requests : 0;
	for (size_t i = 0; i < count; i++) {
		if (batch)
			batch->proposals[i]->done(batch->proposals[i], OK, &applied->replies[i]);
		if (applied->replies[i])
			message_unref(&applied->replies[i]->base);
	}
}

/* It stays in the queue while it is not applied: whoever waits for it hears of the end of the replica, too. */
static struct batch *batch_of(struct replica *replica, const struct raft_entry *entry)
{
	struct batch *batch = replica->batches;

	if (!batch || batch->index != entry->index)
		return NULL;
	check(batch->term == entry->term);
	return batch;
}

static void first_batch_leaves(struct replica *replica)
{
	replica->batches = replica->batches->next;
	if (!replica->batches)
		replica->batches_end = &replica->batches;
}

static enum err apply_members(struct replica *replica, const struct raft_entry *entry)
{
	struct raft_snapshot at = { .index = entry->index, .term = entry->term, .membership_index = entry->index };
	enum err err = membership_unpack(entry->payload, &at.membership);

	if (err == OK)
		err = meta_apply_members(replica->meta, entry->index, entry->term, entry->payload);
	if (err == OK)
		err = replica_save_members(replica, &at);
	return err;
}

static enum err apply_entry(struct replica *replica, const struct raft_entry *entry)
{
	struct batch *batch = batch_of(replica, entry);
	ProtobufCMessage *unpacked = NULL;
	const Granary__LogEntry *log_entry = batch ? &batch->entry : NULL;
	struct meta_effects effects = { 0 };
	Granary__MetaReply **replies = NULL;
	enum err err = OK;

	if (!batch && entry->kind == RAFT_ENTRY_NORMAL) {
		err = message_unpack(&granary__log_entry__descriptor, entry->payload, &unpacked);
		log_entry = (const Granary__LogEntry *)unpacked;
	}
	if (err == OK && entry->kind == RAFT_ENTRY_MEMBERS) {
		err = apply_members(replica, entry);
	} else if (err == OK) {
		replies = mem_zero(log_entry ? log_entry->n_requests + 1 : 1, sizeof(Granary__MetaReply *));
		err = meta_apply(replica->meta, entry->index, entry->term, log_entry, replies, &effects);
	}
	if (err == OK) {
		struct replica_applied applied = { .index = entry->index,
						   .entry = log_entry,
						   .replies = replies,
						   .proposals = batch ? batch->proposals : NULL,
						   .effects = &effects };
		replica->bytes_unsynced += entry->payload.size;
		replica->anew = replica->anew || effects.restored;
		raft_applied(replica->raft, entry->index);
		if (batch)
			first_batch_leaves(replica);
		finish_entry(replica, batch, &applied);
		if (batch)
			replica_batch_free(batch);
	}
	free(replies);
	message_free(unpacked);
	return err;
}

/* Applies what is committed, for at most APPLY_SLICE_US at a time. */
void replica_apply_committed(struct replica *replica)
{
	uint64_t start_us = loop_now_us(replica->loop);

	while (!replica->failed && !replica->rebuilding && meta_applied_index(replica->meta) < replica->commit) {
		const struct raft_entry *entry = raft_entry_at(replica->raft, meta_applied_index(replica->meta) + 1);
		check(entry && !entry->damaged);
		enum err err = apply_entry(replica, entry);
		if (err)
			replica_fail(replica, "state", err);
		if (loop_now_us(replica->loop) - start_us > APPLY_SLICE_US) {
			timer_start(&replica->resume, 0);
			return;
		}
	}
}

