#include "master/meta/session.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/lock.h"
#include "master/meta/ops.h"

/* ---- slots */

bool session_exists(struct meta *meta, uint64_t session)
{
	struct key key = key_of(KEY_SESSION, session);
	return store_has(&meta->store, &key);
}

enum err slot_check(struct meta *meta, const Granary__MetaRequest *request, Granary__MetaReply **reply)
{
	if (request->slot >= SESSION_SLOTS || request->sequence == 0)
		return ERR_INVALID;
	struct key key = key_of_index(KEY_REPLY, request->session, request->slot);
	const Granary__SlotReply *slot = store_message(&meta->store, &key, &granary__slot_reply__descriptor);
	uint64_t last = slot ? slot->sequence : 0;
#ifdef PLANT_APPLY_TWICE
	return OK;
#endif
	if (request->sequence == last + 1)
		return OK;
	if (request->sequence != last)
		return ERR_INVALID;
	const ProtobufCMessage *first;
	if (message_unpack_whole(&granary__meta_reply__descriptor, message_bytes(slot->reply), &first)) {
		store_corrupt(&meta->store);
		return ERR_CORRUPT;
	}
	*reply = (Granary__MetaReply *)(uintptr_t)first; /* the leases that it grants will be its own */
	if ((*reply)->n_results == request->n_ops)
		return ERR_EXISTS;
	/* Another request under the same number. */
	message_unref(first);
	*reply = NULL;
	return ERR_INVALID;
}

void slot_remember(struct meta *meta, const Granary__MetaRequest *request, const Granary__MetaReply *reply)
{
	Granary__SlotReply *slot = mem_alloc(sizeof(*slot));
	granary__slot_reply__init(slot);
	slot->sequence = request->sequence;
	struct buf packed = {0};
	message_pack(&reply->base, &packed);
	slot->reply = (ProtobufCBinaryData){.len = packed.size, .data = packed.bytes}; /* takes the buffer's memory */
	struct key key = key_of_index(KEY_REPLY, request->session, request->slot);
	store_put_message(&meta->store, &key, &slot->base);
}

/* ---- begin and end */

enum err op_session_begin(struct context *context, const Granary__SessionBegin *op, Granary__MetaResult *result)
{
	struct meta *meta = context->meta;
	if (op->id == 0)
		return ERR_INVALID;
	if (session_exists(meta, op->id))
		return ERR_EXISTS;
	Granary__Session *session = mem_alloc(sizeof(*session));
	granary__session__init(session);
	if (op->client[0])
		session->client = mem_string(op->client);
	session->opened = (uint64_t)context->now_ns;
	struct key key = key_of(KEY_SESSION, op->id);
	store_put_message(&meta->store, &key, &session->base);
	meta->state->sessions++;
	result->session = op->id;
	return OK;
}

/* Locks and slots go with the session. Its files without a name become ownerless: Reclaim takes those whose session is
 * no more (reclaim.c), so that nothing here grows with the number of orphans. */
enum err op_session_end(struct context *context, const Granary__SessionEnd *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	if (!session_exists(meta, op->session))
		return ERR_NO_SESSION;
	locks_release_session(meta, op->session);
	struct buf slots = {0};
	struct key prefix = key_of(KEY_REPLY, op->session);
	struct scan scan;
	scan_open(&scan, &meta->store, &prefix, NULL);
	while (scan_next(&scan)) {
		uint64_t session;
		uint32_t slot;
		if (key_parse_index(scan.key, &session, &slot))
			buf_append(&slots, &slot, sizeof(slot));
	}
	scan_close(&scan);
	for (size_t at = 0; at < slots.size; at += sizeof(uint32_t)) {
		uint32_t slot;
		memcpy(&slot, slots.bytes + at, sizeof(slot));
		struct key key = key_of_index(KEY_REPLY, op->session, slot);
		store_delete(&meta->store, &key);
	}
	buf_deinit(&slots);
	struct key key = key_of(KEY_SESSION, op->session);
	store_delete(&meta->store, &key);
	meta->state->sessions--;
	meta->orphans_added = true;
	return OK;
}
