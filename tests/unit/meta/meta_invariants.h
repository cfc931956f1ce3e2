/* What must hold in every store of the state machine, checked from the raw keys alone. */
#ifndef GRANARY_TESTS_UNIT_META_META_INVARIANTS_H
#define GRANARY_TESTS_UNIT_META_META_INVARIANTS_H

#include <stdio.h>
#include <stdlib.h>

#include <uthash.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "common/sys/kv.h"
#include "common/proto/message.h"
#include "master/meta/keys.h"
#include "master/meta/meta.h"

struct seen_inode {
	uint64_t id;
	Granary__Inode *inode;
	uint64_t names, subdirectories, entries, xattrs, chunks; /* as counted */
	bool is_orphan, in_trash;
	UT_hash_handle hh;
};
struct seen_chunk {
	uint64_t id;
	Granary__Chunk *chunk;
	uint64_t live_bytes, live_count, holders;
	bool is_pointed_to, has_task;
	UT_hash_handle hh;
};
struct seen_trash {
	uint64_t id;
	Granary__TrashEntry *entry;
	bool is_named;
	UT_hash_handle hh;
};
struct seen_session {
	uint64_t id;
	UT_hash_handle hh;
};
struct invariants {
	struct kv *kv;
	struct seen_inode *inodes;
	struct seen_chunk *chunks;
	struct seen_session *sessions;
	struct seen_trash *trash;
	Granary__MetaState *state;
	uint64_t garbage, bytes_used, trash_bytes, removed_chunks, tasks[TASK_KINDS];
};

static inline void must(bool condition, const char *what, uint64_t id)
{
	if (!condition) {
		fprintf(stderr, "invariant broken: %s (%llu)\n", what, (unsigned long long)id);
		abort();
	}
}

static inline struct seen_inode *seen_inode(struct invariants *all, uint64_t id)
{
	struct seen_inode *found;
	HASH_FIND(hh, all->inodes, &id, sizeof(id), found);
	return found;
}

static inline struct seen_chunk *seen_chunk(struct invariants *all, uint64_t id)
{
	struct seen_chunk *found;
	HASH_FIND(hh, all->chunks, &id, sizeof(id), found);
	return found;
}

static inline bool seen_session(struct invariants *all, uint64_t id)
{
	struct seen_session *found;
	HASH_FIND(hh, all->sessions, &id, sizeof(id), found);
	return found != NULL;
}

static inline void *unpacked(const ProtobufCMessageDescriptor *descriptor, struct slice value)
{
	ProtobufCMessage *message = NULL;
	must(message_unpack(descriptor, value, &message) == OK, "value parses", 0);
	return message;
}

/* First pass: things that have a record. */
static inline void invariants_collect(struct invariants *all, struct slice key, struct slice value)
{
	uint64_t id = 0;
	switch (key.bytes[0]) {
	case KEY_INODE: {
		struct seen_inode *seen = mem_zero(1, sizeof(*seen));
		must(key_parse(key, &seen->id), "inode key", 0);
		seen->inode = unpacked(&granary__inode__descriptor, value);
		all->bytes_used += seen->inode->blocks * 512;
		if (seen->inode->trash)
			all->trash_bytes += seen->inode->blocks * 512;
		HASH_ADD(hh, all->inodes, id, sizeof(seen->id), seen);
		break;
	}
	case KEY_CHUNK: {
		struct seen_chunk *seen = mem_zero(1, sizeof(*seen));
		must(key_parse(key, &seen->id), "chunk key", 0);
		seen->chunk = unpacked(&granary__chunk__descriptor, value);
		HASH_ADD(hh, all->chunks, id, sizeof(seen->id), seen);
		break;
	}
	case KEY_SESSION: {
		struct seen_session *seen = mem_zero(1, sizeof(*seen));
		must(key_parse(key, &seen->id), "session key", 0);
		HASH_ADD(hh, all->sessions, id, sizeof(seen->id), seen);
		break;
	}
	case KEY_TRASH: {
		struct seen_trash *seen = mem_zero(1, sizeof(*seen));
		must(key_parse(key, &seen->id), "trash key", 0);
		seen->entry = unpacked(&granary__trash_entry__descriptor, value);
		HASH_ADD(hh, all->trash, id, sizeof(seen->id), seen);
		break;
	}
	case KEY_GARBAGE: {
		must(key_parse(key, &id), "garbage key", 0);
		Granary__Garbage *garbage = unpacked(&granary__garbage__descriptor, value);
		must(garbage->n_servers > 0, "garbage has servers", id);
		message_free(&garbage->base);
		all->garbage++;
		break;
	}
	case KEY_SINGLE:
		if (!slice_equal(key, slice_text("Mstate"))) /* settings, members; a backup's state that is not in use yet */
			break;
		all->state = unpacked(&granary__meta_state__descriptor, value);
		break;
	default:
		break;
	}
}

static inline void invariants_dirent(struct invariants *all, struct slice key, struct slice value)
{
	uint64_t parent_id;
	struct slice name;
	must(key_parse_name(key, &parent_id, &name) && name.size > 0, "dirent key", 0);
	Granary__Dirent *dirent = unpacked(&granary__dirent__descriptor, value);
	struct seen_inode *parent = seen_inode(all, parent_id), *child = seen_inode(all, dirent->inode);
	must(parent && mode_is_directory(parent->inode->mode) && parent->inode->nlink > 0, "parent lives", parent_id);
	must(child, "name leads to an inode", dirent->inode);
	must(dirent->type == mode_dirent_type(child->inode->mode), "type of name", dirent->inode);
	parent->entries++;
	child->names++;
	if (mode_is_directory(child->inode->mode)) {
		parent->subdirectories++;
		must(child->inode->parent == parent_id, "parent pointer", dirent->inode);
	}
	message_free(&dirent->base);
}

static inline void invariants_pointer(struct invariants *all, struct slice key, struct slice value)
{
	uint64_t id;
	uint32_t index;
	must(key_parse_index(key, &id, &index), "pointer key", 0);
	Granary__ChunkPointer *pointer = unpacked(&granary__chunk_pointer__descriptor, value);
	struct seen_inode *owner = seen_inode(all, id);
	struct seen_chunk *chunk = seen_chunk(all, pointer->chunk);
	must(owner && chunk, "chunk of an inode", id);
	must(chunk->chunk->owner == id && chunk->chunk->index == index && !chunk->is_pointed_to, "owner",
	     pointer->chunk);
	chunk->is_pointed_to = true;
	owner->chunks++;
	message_free(&pointer->base);
}

static inline void invariants_trash_name(struct invariants *all, struct slice key)
{
	uint64_t parent, id;
	struct slice name;
	struct seen_trash *seen;
	must(key_parse_trash_name(key, &parent, &name, &id), "name in the trash", 0);
	HASH_FIND(hh, all->trash, &id, sizeof(id), seen);
	must(seen && seen->entry->parent == parent && slice_equal(message_bytes(seen->entry->name), name), "entry of a name", id);
	struct seen_inode *inode = seen_inode(all, seen->entry->inode);
	must(inode && inode->inode->trash == id && !inode->in_trash, "inode of an entry", id);
	inode->in_trash = seen->is_named = true;
}

/* No copy that is in use is to be deleted or retired. */
static inline void invariants_garbage(struct invariants *all, struct slice value)
{
	Granary__Garbage *garbage = unpacked(&granary__garbage__descriptor, value);
	struct seen_chunk *seen = garbage->n_slots == 0 ? seen_chunk(all, garbage->chunk) : NULL;
	bool older = seen && garbage->version != 0 && garbage->version < seen->chunk->version;
	for (size_t i = 0; seen && !older && i < garbage->n_servers; i++)
		for (size_t k = 0; k < seen->chunk->n_replicas; k++)
			must(garbage->servers[i] != seen->chunk->replicas[k], "garbage in use", garbage->chunk);
	message_free(&garbage->base);
}

/* A chunk has the task that it says; others are due at once. */
static inline void invariants_task(struct invariants *all, struct slice key, struct slice value)
{
	uint64_t due, id;
	must(key_parse_pair(key, &due, &id), "task key", 0);
	Granary__Task *task = unpacked(&granary__task__descriptor, value);
	must(task->kind > 0 && task->kind < TASK_KINDS, "kind of a task", id);
	all->tasks[task->kind]++;
	if (task->kind == TASK_COOL) {
		struct seen_chunk *seen = seen_chunk(all, id);
		must(seen && task->target == id && seen->chunk->task_due == due && due > 0, "task of a chunk", id);
		seen->has_task = true;
	} else {
		must((due == 0) == (task->kind != TASK_MOVE) && id > 1ull << 63 && (id & ~(1ull << 63)) <= all->state->task_last, "task that is counted", id);
	}
	message_free(&task->base);
}

/* Second pass: what refers to them. */
static inline void invariants_refer(struct invariants *all, struct slice key, struct slice value)
{
	uint64_t first = 0, second = 0;
	uint32_t slot = 0;
	struct slice name;
	switch (key.bytes[0]) {
	case KEY_DIRENT:
		invariants_dirent(all, key, value);
		break;
	case KEY_CHUNK_POINTER:
		invariants_pointer(all, key, value);
		break;
	case KEY_SERVER_CHUNK:
		must(key_parse_pair(key, &first, &second) && seen_chunk(all, second), "server holds a chunk", second);
		seen_chunk(all, second)->holders++;
		break;
	case KEY_XATTR:
		must(key_parse_name(key, &first, &name) && seen_inode(all, first), "attribute of an inode", first);
		seen_inode(all, first)->xattrs++;
		break;
	case KEY_REPLY:
		must(key_parse_index(key, &first, &slot) && seen_session(all, first), "slot of a session", first);
		break;
	case KEY_REMOVED:
		must(key_parse(key, &first) && !seen_chunk(all, first), "removed chunk is gone", first);
		all->removed_chunks++;
		break;
	case KEY_TRASH_NAME:
		invariants_trash_name(all, key);
		break;
	case KEY_GARBAGE:
		invariants_garbage(all, value);
		break;
	case KEY_TASK:
		invariants_task(all, key, value);
		break;
	case KEY_ORPHAN:
		must(key_parse(key, &first) && seen_inode(all, first), "orphan is an inode", first);
		seen_inode(all, first)->is_orphan = true;
		break;
	case KEY_SESSION_LOCK:
		must(key_parse_pair(key, &first, &second) && seen_session(all, first), "lock of a session", first);
		must(seen_inode(all, second), "lock on an inode", second);
		break;
	case KEY_LOCKS:
		must(key_parse(key, &first) && seen_inode(all, first), "locks of an inode", first);
		break;
	default:
		break;
	}
}

static inline void invariants_inode(struct invariants *all, const struct seen_inode *seen)
{
	const Granary__Inode *inode = seen->inode;
	uint64_t id = seen->id;
	if (mode_is_directory(inode->mode)) {
		must(inode->nlink == 0 || inode->nlink == 2 + seen->subdirectories, "links of a directory", id);
		must(seen->names == (id != META_ROOT_INODE && inode->nlink > 0), "one name of a directory", id);
	} else {
		must(inode->nlink == seen->names + inode->kept, "links of a file", id);
	}
	must((seen->is_orphan || seen->in_trash) == (inode->nlink == 0), "orphans have no link", id);
	must(!seen->is_orphan || !seen->in_trash, "orphan or in the trash", id);
	must(seen->in_trash == (inode->trash != 0), "in the trash", id);
	must(inode->entries == seen->entries, "count of names", id);
	must(inode->xattrs == seen->xattrs, "count of attributes", id);
	must(inode->chunks == seen->chunks, "count of chunks", id);
	must(inode->layout != GRANARY__LAYOUT__LAYOUT_EMPTY || (inode->chunks == 0 && inode->blocks == 0), "empty", id);
	must(inode->layout != GRANARY__LAYOUT__LAYOUT_CHUNKS || inode->chunks > 0 || inode->nlink == 0, "chunks", id);
	if (inode->layout != GRANARY__LAYOUT__LAYOUT_BLOB) {
		must(inode->pack == 0 && inode->slot == 0 && inode->blob_bytes == 0, "no blob", id);
		return;
	}
	struct seen_chunk *pack = seen_chunk(all, inode->pack);
	must(pack && pack->chunk->kind == GRANARY__CHUNK_KIND__CHUNK_PACK, "blob has a pack", id);
	must(inode->blob_bytes > 0 && inode->blob_bytes <= inode->size && inode->slot > 0, "blob in its file", id);
	pack->live_count++;
	pack->live_bytes += inode->blob_bytes;
}

static inline void invariants_chunk(const struct invariants *all, const struct seen_chunk *seen)
{
	const Granary__Chunk *chunk = seen->chunk;
	must(chunk->version > 0, "version", seen->id);
	must(seen->id <= all->state->newest_chunk, "newest chunk", seen->id);
	must(chunk->n_replicas == seen->holders, "holders agree", seen->id);
	must(!chunk->joining || (chunk->n_replicas >= 2 && chunk->replicas[chunk->n_replicas - 1] == chunk->joining), "the last one joins",
	     seen->id);
	must(seen->has_task == (chunk->task_due != 0), "chunk has its task", seen->id);
	must(!chunk->task_due || chunk->kind == GRANARY__CHUNK_KIND__CHUNK_REPLICATED || chunk->sealed, "open pack has no task", seen->id);
	must(chunk->n_stale <= STALE_COPIES_MAX, "stale copies", seen->id);
	for (size_t i = 0; i < chunk->n_stale; i++)
		for (size_t k = 0; k < chunk->n_replicas; k++)
			must(chunk->stale[i] != chunk->replicas[k], "stale or a member", seen->id);
	must(!chunk->cold || (chunk->coding && chunk->frozen), "cold chunks have shards", seen->id);
	must(!chunk->coding || chunk->frozen, "chunks with shards are frozen", seen->id);
	for (size_t i = 0; chunk->coding && i < chunk->coding->n_shards; i++) {
		struct seen_chunk *shard = seen_chunk((struct invariants *)(uintptr_t)all, chunk->coding->shards[i]);
		must(shard && shard->chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD && shard->chunk->owner == seen->id &&
			     shard->chunk->index == i,
		     "a shard is its chunk's", seen->id);
	}
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		struct seen_chunk *owner = seen_chunk((struct invariants *)(uintptr_t)all, chunk->owner);
		must(owner && owner->chunk->coding && chunk->index < owner->chunk->coding->n_shards &&
			     owner->chunk->coding->shards[chunk->index] == seen->id,
		     "a shard's chunk knows it", seen->id);
		must(chunk->n_replicas == 1 && !chunk->frozen && !seen->is_pointed_to, "one copy of a shard", seen->id);
		return;
	}
	if (chunk->kind != GRANARY__CHUNK_KIND__CHUNK_PACK) {
		must(seen->is_pointed_to, "chunk has an owner", seen->id);
		return;
	}
	must(!seen->is_pointed_to, "a pack is no file's chunk", seen->id);
	must(chunk->live_count == seen->live_count && chunk->live_bytes == seen->live_bytes, "live of a pack",
	     seen->id);
	must(!chunk->sealed || chunk->live_count > 0, "sealed packs live", seen->id);
	bool is_open = false;
	for (size_t i = 0; i < all->state->n_open_packs; i++)
		is_open = is_open || all->state->open_packs[i] == seen->id;
	must(is_open == !chunk->sealed, "open packs are known", seen->id);
}

static inline void invariants_scan(struct invariants *all, void (*fn)(struct invariants *, struct slice, struct slice))
{
	struct kv_iterator *iterator = kv_iterator_open(all->kv);
	for (kv_iterator_seek(iterator, (struct slice){0}); kv_iterator_valid(iterator); kv_iterator_next(iterator))
		fn(all, kv_iterator_key(iterator), kv_iterator_value(iterator));
	must(kv_iterator_error(iterator) == OK, "scan", 0);
	kv_iterator_close(iterator);
}

static inline void invariants_free(struct invariants *all)
{
	struct seen_inode *inode, *next_inode;
	HASH_ITER(hh, all->inodes, inode, next_inode)
	{
		HASH_DEL(all->inodes, inode);
		message_free(&inode->inode->base);
		free(inode);
	}
	struct seen_chunk *chunk, *next_chunk;
	HASH_ITER(hh, all->chunks, chunk, next_chunk)
	{
		HASH_DEL(all->chunks, chunk);
		message_free(&chunk->chunk->base);
		free(chunk);
	}
	struct seen_trash *trash, *next_trash;
	HASH_ITER(hh, all->trash, trash, next_trash)
	{
		HASH_DEL(all->trash, trash);
		message_free(&trash->entry->base);
		free(trash);
	}
	struct seen_session *session, *next_session;
	HASH_ITER(hh, all->sessions, session, next_session)
	{
		HASH_DEL(all->sessions, session);
		free(session);
	}
	message_free(&all->state->base);
}

static inline void invariants_check(struct kv *kv)
{
	struct invariants all = {.kv = kv};
	invariants_scan(&all, invariants_collect);
	must(all.state && seen_inode(&all, META_ROOT_INODE), "state and root", 0);
	invariants_scan(&all, invariants_refer);
	struct seen_inode *inode, *next_inode;
	HASH_ITER(hh, all.inodes, inode, next_inode)
	invariants_inode(&all, inode);
	struct seen_chunk *chunk, *next_chunk;
	HASH_ITER(hh, all.chunks, chunk, next_chunk)
	invariants_chunk(&all, chunk);
	must(all.state->inodes == HASH_COUNT(all.inodes), "count of inodes", all.state->inodes);
	must(all.state->chunks == HASH_COUNT(all.chunks), "count of chunks", all.state->chunks);
	must(all.state->sessions == HASH_COUNT(all.sessions), "count of sessions", all.state->sessions);
	must(all.state->garbage == all.garbage, "count of garbage", all.state->garbage);
	must(all.state->bytes_used == all.bytes_used, "bytes used", all.state->bytes_used);
	struct seen_trash *trash, *next_trash;
	HASH_ITER(hh, all.trash, trash, next_trash)
	must(trash->is_named && trash->id <= all.state->trash_last, "name of an entry", trash->id);
	must(all.state->trash == HASH_COUNT(all.trash), "count of trash", all.state->trash);
	for (size_t i = 0; i < TASK_KINDS; i++)
		must((i < all.state->n_tasks ? all.state->tasks[i] : 0) == all.tasks[i], "count of tasks", i);
	must(all.state->removed_chunks == all.removed_chunks, "count of removed chunks", all.state->removed_chunks);
	must(all.state->trash_bytes == all.trash_bytes, "bytes in the trash", all.state->trash_bytes);
	invariants_free(&all);
}

#endif
