/* Inside of the state machine: what its files share. Nothing outside master/meta includes this.
 *
 * An operation is a function op_NAME(context, op, result): it checks everything first and then changes the store, so
 * that an error leaves nothing half done (failures of the store itself are sticky there, see store.h). */
#ifndef GRANARY_MASTER_META_STATE_H
#define GRANARY_MASTER_META_STATE_H

#include "master/meta/meta.h"
#include "master/meta/store.h"

/* Slots of one pack freed by the entry that is being applied: one Garbage in the end. */
struct slot_garbage {
	uint64_t pack;
	uint32_t *slots;
	size_t count;
};

struct meta {
	struct store store;
	Granary__MetaState *state; /* written by each commit */
	Granary__Settings *settings; /* as stored */
	Granary__StorageClasses *classes;
	struct meta_touch *touches;
	size_t *touch_names; /* offset of each touch's name in `names`, which moves as it grows */
	size_t touch_count, touch_capacity;
	struct buf names;
	struct slot_garbage *slot_garbage;
	size_t slot_garbage_count, slot_garbage_capacity;
	bool garbage_added;
	bool orphans_added;
	bool servers_changed;
	bool restored;
	uint64_t task_due_min; /* of those added; 0: none, or at once */
};

/* One request while it is carried out. */
struct context {
	struct meta *meta;
	ProtobufCMessage *reply; /* whole: what is hung on a result is allocated with it */
	uint64_t session;
	int64_t now_ns;
	uint64_t created;   /* inode of the request's last Create; stands for inode 0 */
	/* A client made it earlier (Create.time): then the times of `created` and of the directory `made_in` are those. */
	uint64_t made_in;
	int64_t made_ns, made_ctime_ns;
	int64_t done_ns;    /* a client did what this operation says earlier; 0: it is done now */
	bool no_trash;	    /* this operation's removals are for good */
	size_t reply_bytes; /* an upper bound of the reply so far, at most META_REPLY_BYTES_MAX */
};

static inline uint64_t context_inode(const struct context *context, uint64_t inode)
{
	return inode ? inode : context->created;
}

/* restore.c: false for a request that is refused while a restore is under way. */
bool restore_allows(const struct meta *meta, const Granary__MetaRequest *request);

/* Caches of other sessions to recall. */
void touch_inode(struct context *context, uint64_t inode);
void touch_name(struct context *context, uint64_t directory, struct slice name);

/* Adds `bytes` to the reply; false when they would not fit any more. */
bool reply_reserve(struct context *context, size_t bytes);
/* Carries out one operation; its error goes into the result. */
void op_run(struct context *context, const Granary__MetaOp *op, Granary__MetaResult *result);
/* All operations of a request in order. */
Granary__MetaReply *request_run(struct context *context, const Granary__MetaRequest *request);
/* A reply in which each operation failed so. */
Granary__MetaReply *request_refuse(const Granary__MetaRequest *request, enum err err);

/* NULL when there is none. */
static inline const Granary__Chunk *chunk_get(struct meta *meta, uint64_t id)
{
	struct key key = key_of(KEY_CHUNK, id);
	return store_message(&meta->store, &key, &granary__chunk__descriptor);
}

static inline Granary__Chunk *chunk_edit(struct meta *meta, uint64_t id)
{
	struct key key = key_of(KEY_CHUNK, id);
	return store_edit(&meta->store, &key, &granary__chunk__descriptor);
}

#endif
