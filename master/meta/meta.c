#include "master/meta/meta.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "common/proto/mode.h"
#include "master/meta/chunk_map.h"
#include "master/meta/classes.h"
#include "master/meta/garbage.h"
#include "master/meta/inode.h"
#include "master/meta/session.h"
#include "master/meta/settings.h"
#include "master/meta/state.h"

#define ROOT_MODE (MODE_DIRECTORY | 0755u)
#define TIME_NS_MAX (1ull << 62) /* a clock beyond the year 2116 is wrong */

/* ---- open and close */

static struct key state_key(void)
{
	return key_of_single("state");
}

static void state_put(struct meta *meta)
{
	struct buf packed = {0};
	message_pack(&meta->state->base, &packed);
	struct key key = state_key();
	store_put(&meta->store, &key, buf_slice(&packed));
	buf_deinit(&packed);
}

static enum err meta_create(struct meta *meta)
{
	meta->state = mem_alloc(sizeof(*meta->state));
	granary__meta_state__init(meta->state);
	struct context context = {.meta = meta};
	struct inode_options options = {.id = META_ROOT_INODE, .mode = ROOT_MODE, .nlink = 2};
	Granary__Inode *root = inode_add(&context, &options);
	root->parent = META_ROOT_INODE;
	state_put(meta);
	return store_commit(&meta->store);
}

static enum err meta_load(struct meta *meta)
{
	struct key key = state_key();
	struct slice stored;
	bool is_there = store_get(&meta->store, &key, &stored);
	if (store_failed(&meta->store))
		return store_failed(&meta->store);
	if (!is_there)
		return meta_create(meta);
	return message_unpack(&granary__meta_state__descriptor, stored, (ProtobufCMessage **)&meta->state);
}

enum err meta_open(struct kv *kv, struct meta **out)
{
	struct meta *meta = mem_zero(1, sizeof(*meta));
	store_init(&meta->store, kv);
	enum err err = meta_load(meta);
	if (!err)
		err = settings_load(meta);
	if (!err)
		err = classes_load(meta);
	if (err) {
		meta_close(meta);
		return err;
	}
	*out = meta;
	return OK;
}

void meta_close(struct meta *meta)
{
	if (!meta)
		return;
	garbage_deinit(meta);
	store_deinit(&meta->store);
	message_free(meta->state ? &meta->state->base : NULL);
	message_free(meta->settings ? &meta->settings->base : NULL);
	message_free(meta->classes ? &meta->classes->base : NULL);
	free(meta->touches);
	free(meta->touch_names);
	buf_deinit(&meta->names);
	free(meta);
}

uint64_t meta_applied_index(const struct meta *meta)
{
	return meta->state->applied_index;
}

uint64_t meta_applied_term(const struct meta *meta)
{
	return meta->state->applied_term;
}

uint64_t meta_cluster(const struct meta *meta)
{
	return meta->state->cluster;
}

uint64_t meta_last_time_ns(const struct meta *meta)
{
	return meta->state->time_ns;
}

const Granary__Settings *meta_settings(const struct meta *meta)
{
	return meta->settings;
}

const Granary__StorageClasses *meta_classes(const struct meta *meta)
{
	return meta->classes;
}

/* ---- effects */

static void effects_clear(struct meta *meta)
{
	meta->touch_count = 0;
	buf_clear(&meta->names);
	meta->garbage_added = meta->orphans_added = meta->servers_changed = meta->restored = false;
	meta->task_due_min = 0;
}

static void touch_add(struct context *context, uint64_t inode, struct slice name)
{
	struct meta *meta = context->meta;
	if (meta->touch_count > 0 && name.size == 0) {
		const struct meta_touch *last = &meta->touches[meta->touch_count - 1];
		if (last->inode == inode && last->name.size == 0 && last->session == context->session)
			return;
	}
	if (meta->touch_count == meta->touch_capacity) {
		meta->touch_capacity = meta->touch_capacity * 2 + 64;
		meta->touches = mem_resize(meta->touches, meta->touch_capacity * sizeof(*meta->touches));
		meta->touch_names = mem_resize(meta->touch_names, meta->touch_capacity * sizeof(*meta->touch_names));
	}
	struct meta_touch touch = {.inode = inode, .session = context->session};
	touch.name.size = name.size;
	meta->touch_names[meta->touch_count] = meta->names.size;
	meta->touches[meta->touch_count++] = touch;
	if (name.size > 0)
		buf_append_slice(&meta->names, name);
}

void touch_inode(struct context *context, uint64_t inode)
{
	touch_add(context, inode, (struct slice){0});
}

void touch_name(struct context *context, uint64_t directory, struct slice name)
{
	touch_add(context, directory, name);
}

static void effects_fill(struct meta *meta, struct meta_effects *effects)
{
	for (size_t i = 0; i < meta->touch_count; i++)
		if (meta->touches[i].name.size > 0)
			meta->touches[i].name.bytes = meta->names.bytes + meta->touch_names[i];
	*effects = (struct meta_effects){.touches = meta->touches,
					 .touch_count = meta->touch_count,
					 .garbage_added = meta->garbage_added,
					 .orphans_added = meta->orphans_added,
					 .servers_changed = meta->servers_changed,
					 .task_due_min = meta->task_due_min,
					 .restored = meta->restored};
}

/* ---- apply */

/* A client's request is carried out once for its slot and sequence; the master's own have no session. */
static Granary__MetaReply *request_apply(struct meta *meta, const Granary__MetaRequest *request)
{
	struct context context = {.meta = meta, .session = request->session, .now_ns = (int64_t)meta->state->time_ns};
	if (!restore_allows(meta, request))
		return request_refuse(request, ERR_BUSY);
	if (request->session == 0)
		return request_run(&context, request);
	if (!session_exists(meta, request->session))
		return request_refuse(request, ERR_NO_SESSION);
	Granary__MetaReply *reply = NULL;
	enum err err = slot_check(meta, request, &reply);
	if (err == ERR_EXISTS)
		return reply;
	if (err)
		return request_refuse(request, err);
	reply = request_run(&context, request);
	slot_remember(meta, request, reply);
	return reply;
}

static void members_put(struct meta *meta, uint64_t index, struct slice membership)
{
	Granary__StoredMembership stored = GRANARY__STORED_MEMBERSHIP__INIT;
	struct key key = key_of_single("members");
	struct buf packed = {0};
	stored.index = index;
	stored.membership = message_borrow(membership);
	message_pack(&stored.base, &packed);
	store_put(&meta->store, &key, buf_slice(&packed));
	buf_deinit(&packed);
}

enum err meta_apply_members(struct meta *meta, uint64_t index, uint64_t term, struct slice membership)
{
	check(index == meta->state->applied_index + 1 || store_failed(&meta->store));
	if (store_failed(&meta->store))
		return store_failed(&meta->store);
	effects_clear(meta);
	meta->state->applied_index = index;
	meta->state->applied_term = term;
	members_put(meta, index, membership);
	state_put(meta);
	return store_commit(&meta->store);
}

enum err meta_members(struct meta *meta, struct buf *membership, uint64_t *index)
{
	struct key key = key_of_single("members");
	ProtobufCMessage *message = NULL;
	struct slice stored;
	buf_clear(membership);
	*index = 0;
	if (!store_get(&meta->store, &key, &stored))
		return store_failed(&meta->store) ? store_failed(&meta->store) : ERR_NOT_FOUND;
	if (message_unpack(&granary__stored_membership__descriptor, stored, &message))
		return ERR_CORRUPT;
	const Granary__StoredMembership *found = (const Granary__StoredMembership *)message;
	buf_append_slice(membership, message_bytes(found->membership));
	*index = found->index;
	message_free(message);
	return OK;
}

enum err meta_apply(struct meta *meta, uint64_t index, uint64_t term, const Granary__LogEntry *entry,
		    Granary__MetaReply **replies, struct meta_effects *effects)
{
	size_t count = entry ? entry->n_requests : 0;
	check(index == meta->state->applied_index + 1 || store_failed(&meta->store));
	if (store_failed(&meta->store))
		return store_failed(&meta->store);
	effects_clear(meta);
	meta->state->applied_index = index;
	meta->state->applied_term = term;
	if (entry && entry->time_ns > meta->state->time_ns && entry->time_ns <= TIME_NS_MAX)
		meta->state->time_ns = entry->time_ns;
	for (size_t i = 0; i < count; i++)
		replies[i] = request_apply(meta, entry->requests[i]);
	garbage_flush(meta);
	state_put(meta);
	enum err err = store_commit(&meta->store);
	if (err) {
		for (size_t i = 0; i < count; i++) {
			message_unref(&replies[i]->base);
			replies[i] = NULL;
		}
		return err;
	}
	store_trim(&meta->store);
	effects_fill(meta, effects);
	return OK;
}

/* ---- query */

enum err meta_query(struct meta *meta, const Granary__MetaRequest *request, Granary__MetaReply **reply)
{
	check(meta_is_query(request));
	*reply = NULL;
	if (store_failed(&meta->store))
		return store_failed(&meta->store);
	struct context context = {.meta = meta, .session = request->session, .now_ns = (int64_t)meta->state->time_ns};
	Granary__MetaReply *made = request_run(&context, request);
	if (store_failed(&meta->store)) {
		message_unref(&made->base);
		return store_failed(&meta->store);
	}
	store_trim(&meta->store);
	*reply = made;
	return OK;
}

/* ---- for the shell */

bool meta_is_directory(struct meta *meta, uint64_t inode)
{
	const Granary__Inode *found = inode_get(meta, inode);
	return found && mode_is_directory(found->mode);
}

enum err meta_inode(struct meta *meta, uint64_t inode, ProtobufCMessage *whole, Granary__Inode **out)
{
	const Granary__Inode *found = inode_get(meta, inode);
	*out = found ? inode_copy(whole, found) : NULL;
	if (store_failed(&meta->store))
		return store_failed(&meta->store);
	return found ? OK : ERR_NOT_FOUND;
}

enum err meta_chunk(struct meta *meta, uint64_t chunk, Granary__Chunk **out)
{
	const Granary__Chunk *found = chunk_get(meta, chunk);
	*out = found ? (Granary__Chunk *)message_copy(&found->base) : NULL;
	if (store_failed(&meta->store))
		return store_failed(&meta->store);
	return found ? OK : ERR_NO_CHUNK;
}

enum err meta_chunk_location(struct meta *meta, uint64_t chunk, Granary__ChunkLocation **out)
{
	*out = location_open(meta, chunk, NULL);
	if (store_failed(&meta->store))
		return store_failed(&meta->store);
	return *out ? OK : ERR_NO_CHUNK;
}

bool meta_chunk_was_removed(struct meta *meta, uint64_t chunk)
{
	struct key key = key_of(KEY_REMOVED, chunk);
	return store_has(&meta->store, &key);
}

uint64_t meta_newest_chunk(const struct meta *meta)
{
	return meta->state->newest_chunk;
}

bool meta_session_exists(struct meta *meta, uint64_t session)
{
	return session_exists(meta, session);
}

void meta_counts(const struct meta *meta, struct meta_counts *out)
{
	*out = (struct meta_counts){.inodes = meta->state->inodes,
				    .chunks = meta->state->chunks,
				    .sessions = meta->state->sessions,
				    .garbage = meta->state->garbage,
				    .trash = meta->state->trash,
				    .trash_bytes = meta->state->trash_bytes};
}

enum err meta_digest(struct meta *meta, uint32_t *out)
{
	uint32_t crc = 0;
	struct key everything = {.size = 0};
	struct scan scan;
	scan_open(&scan, &meta->store, &everything, NULL);
	while (scan_next(&scan)) {
		uint32_t sizes[2] = {(uint32_t)scan.key.size, (uint32_t)scan.value.size};
		crc = crc32c_extend(crc, sizes, sizeof(sizes));
		crc = crc32c_extend(crc, scan.key.bytes, scan.key.size);
		crc = crc32c_extend(crc, scan.value.bytes, scan.value.size);
	}
	scan_close(&scan);
	*out = crc;
	return store_failed(&meta->store);
}
