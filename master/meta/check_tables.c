/* Each key of the tables by itself, against those that it belongs to. Everything within one call is at one applied index. */
#include "master/meta/check_internal.h"

#include <string.h>

#include "common/base/check.h"
#include "common/proto/mode.h"
#include "master/meta/dir.h"
#include "master/meta/inode.h"

/* The tables in the order in which they are looked at. */
static const enum key_table tables[] = {KEY_INODE,  KEY_DIRENT,	 KEY_CHUNK_POINTER, KEY_CHUNK, KEY_SERVER_CHUNK, KEY_XATTR,
					KEY_ORPHAN, KEY_GARBAGE, KEY_TRASH,	    KEY_TRASH_NAME, KEY_TASK,
					KEY_ERASED};
#define TABLES (sizeof(tables) / sizeof(tables[0]))

struct looking {
	struct meta *meta;
	check_fn *fn;
	void *arg;
	size_t keys; /* looked at */
};

static void found(struct looking *looking, enum check_kind kind, uint64_t id, uint64_t other)
{
	struct check_finding finding = {.kind = kind, .id = id, .other = other};
	looking->fn(looking->arg, &finding);
}

/* ---- inodes */

struct prefix_count {
	uint64_t keys, directories;
};

/* False: there are more than may be counted at once. */
static bool count_prefix(struct looking *looking, enum key_table table, uint64_t id, struct prefix_count *count)
{
	struct key prefix = key_of(table, id);
	struct scan scan;
	*count = (struct prefix_count){0};
	scan_open(&scan, &looking->meta->store, &prefix, NULL);
	while (count->keys <= CHECK_PREFIX_MAX && scan_next(&scan)) {
		Granary__Dirent dirent;
		count->keys++;
		looking->keys++;
		if (table == KEY_DIRENT && message_read_numbers(&granary__dirent__descriptor, scan.value, &dirent.base) == OK)
			count->directories += dirent.type == mode_dirent_type(MODE_DIRECTORY);
	}
	scan_close(&scan);
	return count->keys <= CHECK_PREFIX_MAX;
}

static void look_at_unlinked(struct looking *looking, uint64_t id, const Granary__Inode *inode)
{
	struct meta *meta = looking->meta;
	struct key orphan = key_of(KEY_ORPHAN, id), trash = key_of(KEY_TRASH, inode->trash);
	bool is_orphan = store_has(&meta->store, &orphan), is_kept = false;
	if (inode->trash) {
		const Granary__TrashEntry *entry = store_message(&meta->store, &trash, &granary__trash_entry__descriptor);
		is_kept = entry && entry->inode == id;
	}
	if (is_orphan == is_kept)
		found(looking, CHECK_UNLINKED, id, inode->trash);
}

static void look_at_inode(struct looking *looking, uint64_t id, const Granary__Inode *inode)
{
	struct prefix_count count;
	if (inode->nlink == 0)
		look_at_unlinked(looking, id, inode);
	else if (inode->trash)
		found(looking, CHECK_TRASH, inode->trash, id);
	if (mode_is_directory(inode->mode)) {
		if (inode->entries <= CHECK_PREFIX_MAX && count_prefix(looking, KEY_DIRENT, id, &count) &&
		    (count.keys != inode->entries || (inode->nlink > 0 && inode->nlink != 2 + count.directories)))
			found(looking, CHECK_ENTRIES, id, count.keys);
		return;
	}
	if (count_prefix(looking, KEY_XATTR, id, &count) && count.keys != inode->xattrs)
		found(looking, CHECK_XATTRS, id, count.keys);
	if (!mode_is_file(inode->mode))
		return;
	if (inode->chunks <= CHECK_PREFIX_MAX && count_prefix(looking, KEY_CHUNK_POINTER, id, &count) && count.keys != inode->chunks)
		found(looking, CHECK_CHUNKS, id, count.keys);
	if (inode->layout == GRANARY__LAYOUT__LAYOUT_BLOB) {
		const Granary__Chunk *pack = chunk_get(looking->meta, inode->pack);
		if (!pack || pack->kind != GRANARY__CHUNK_KIND__CHUNK_PACK)
			found(looking, CHECK_BLOB, id, inode->pack);
	}
}

/* ---- names */

static void look_at_name(struct looking *looking, struct slice key, struct slice value)
{
	uint64_t parent;
	struct slice name;
	Granary__Dirent dirent;
	if (!key_parse_name(key, &parent, &name) || message_read_numbers(&granary__dirent__descriptor, value, &dirent.base))
		return;
	const Granary__Inode *directory = inode_get(looking->meta, parent);
	if (!directory || !mode_is_directory(directory->mode) || directory->nlink == 0)
		found(looking, CHECK_NAME_PLACE, parent, dirent.inode);
	const Granary__Inode *inode = inode_get(looking->meta, dirent.inode);
	if (!inode)
		found(looking, CHECK_NAME_DANGLING, parent, dirent.inode);
	else if (dirent.type != mode_dirent_type(inode->mode))
		found(looking, CHECK_NAME_TYPE, parent, dirent.inode);
	else if (mode_is_directory(inode->mode) && inode->parent != parent)
		found(looking, CHECK_PARENT, dirent.inode, parent);
}

static void look_at_xattr(struct looking *looking, struct slice key)
{
	uint64_t id;
	struct slice name;
	if (key_parse_name(key, &id, &name) && !inode_get(looking->meta, id))
		found(looking, CHECK_XATTR_DANGLING, id, 0);
}

/* ---- chunks */

static bool is_member(const Granary__Chunk *chunk, uint64_t server)
{
	for (size_t i = 0; i < chunk->n_replicas; i++)
		if (chunk->replicas[i] == server)
			return true;
	return false;
}

static void look_at_pointer(struct looking *looking, struct slice key, struct slice value)
{
	uint64_t id;
	uint32_t index;
	Granary__ChunkPointer pointer;
	if (!key_parse_index(key, &id, &index) ||
	    message_read_numbers(&granary__chunk_pointer__descriptor, value, &pointer.base))
		return;
	const Granary__Chunk *chunk = chunk_get(looking->meta, pointer.chunk);
	if (!inode_get(looking->meta, id) || !chunk || chunk->owner != id || chunk->index != index)
		found(looking, CHECK_POINTER, id, pointer.chunk);
}

/* Of a shard: its chunk knows it. Of a chunk that has some: each of them is there. */
static void look_at_shards(struct looking *looking, uint64_t id, const Granary__Chunk *chunk)
{
	if (chunk->kind == GRANARY__CHUNK_KIND__CHUNK_SHARD) {
		const Granary__Chunk *owner = chunk_get(looking->meta, chunk->owner);
		if (!owner || !owner->coding || chunk->index >= owner->coding->n_shards || owner->coding->shards[chunk->index] != id)
			found(looking, CHECK_SHARD, id, chunk->owner);
	}
	for (size_t i = 0; chunk->coding && i < chunk->coding->n_shards; i++) {
		const Granary__Chunk *shard = chunk_get(looking->meta, chunk->coding->shards[i]);
		if (!shard || shard->kind != GRANARY__CHUNK_KIND__CHUNK_SHARD || shard->owner != id || shard->index != i)
			found(looking, CHECK_SHARD, id, chunk->coding->shards[i]);
	}
}

static void look_at_chunk(struct looking *looking, uint64_t id)
{
	struct meta *meta = looking->meta;
	const Granary__Chunk *chunk = chunk_get(meta, id);
	if (!chunk)
		return;
	for (size_t i = 0; i < chunk->n_replicas; i++) {
		struct key key = key_of_pair(KEY_SERVER_CHUNK, chunk->replicas[i], id);
		if (!store_has(&meta->store, &key))
			found(looking, CHECK_HOLDERS, id, chunk->replicas[i]);
	}
	struct key removed = key_of(KEY_REMOVED, id);
	if (store_has(&meta->store, &removed))
		found(looking, CHECK_REMOVED, id, 0);
	if (chunk->task_due && !meta_task_exists(meta, chunk->task_due, id))
		found(looking, CHECK_TASK, id, chunk->task_due);
	look_at_shards(looking, id, chunk);
	if (chunk->kind != GRANARY__CHUNK_KIND__CHUNK_REPLICATED)
		return;
	struct key key = key_of_index(KEY_CHUNK_POINTER, chunk->owner, chunk->index);
	const Granary__ChunkPointer *pointer = store_message(&meta->store, &key, &granary__chunk_pointer__descriptor);
	if (!pointer || pointer->chunk != id)
		found(looking, CHECK_OWNER, id, chunk->owner);
}

/* Slots are noted of a pack from when it is coded until it has thawed. */
static void look_at_erased(struct looking *looking, struct slice key)
{
	uint64_t id;
	uint32_t index;
	const Granary__Chunk *chunk = key_parse_index(key, &id, &index) ? chunk_get(looking->meta, id) : NULL;
	if (!chunk || !chunk->frozen)
		found(looking, CHECK_ERASED, id, index);
}

static void look_at_holder(struct looking *looking, struct slice key)
{
	uint64_t server, id;
	if (!key_parse_pair(key, &server, &id))
		return;
	const Granary__Chunk *chunk = chunk_get(looking->meta, id);
	if (!chunk || !is_member(chunk, server))
		found(looking, CHECK_HOLDERS, id, server);
}

static void look_at_task(struct looking *looking, struct slice key, struct slice value)
{
	uint64_t due_ns, id;
	Granary__Task task;
	if (!key_parse_pair(key, &due_ns, &id) || message_read_numbers(&granary__task__descriptor, value, &task.base) ||
	    task.kind != TASK_COOL)
		return;
	const Granary__Chunk *chunk = chunk_get(looking->meta, id);
	if (!chunk || chunk->task_due != due_ns)
		found(looking, CHECK_TASK, id, due_ns);
}

static void look_at_garbage(struct looking *looking, struct slice value)
{
	ProtobufCMessage *message = NULL;
	if (message_unpack(&granary__garbage__descriptor, value, &message))
		return;
	const Granary__Garbage *garbage = (const Granary__Garbage *)message;
	const Granary__Chunk *chunk = garbage->n_slots == 0 ? chunk_get(looking->meta, garbage->chunk) : NULL;
	if (chunk && garbage->version != 0 && garbage->version < chunk->version)
		chunk = NULL; /* an older copy was meant: who is a member now has joined again */
	for (size_t i = 0; chunk && i < garbage->n_servers; i++)
		if (is_member(chunk, garbage->servers[i]))
			found(looking, CHECK_GARBAGE, garbage->chunk, garbage->servers[i]);
	message_free(message);
}

/* ---- orphans and trash */

static void look_at_orphan(struct looking *looking, uint64_t id)
{
	const Granary__Inode *inode = inode_get(looking->meta, id);
	if (!inode || inode->nlink > 0)
		found(looking, CHECK_ORPHAN, id, 0);
}

static void look_at_trash(struct looking *looking, uint64_t id)
{
	struct meta *meta = looking->meta;
	struct key key = key_of(KEY_TRASH, id);
	const Granary__TrashEntry *entry = store_message(&meta->store, &key, &granary__trash_entry__descriptor);
	if (!entry)
		return;
	const Granary__Inode *inode = inode_get(meta, entry->inode);
	struct key name = key_of_trash_name(entry->parent, message_bytes(entry->name), id);
	if (!inode || inode->trash != id || inode->nlink > 0 || !store_has(&meta->store, &name))
		found(looking, CHECK_TRASH, id, entry->inode);
}

static void look_at_trash_name(struct looking *looking, struct slice key)
{
	uint64_t parent, id;
	struct slice name;
	if (!key_parse_trash_name(key, &parent, &name, &id))
		return;
	struct key entry_key = key_of(KEY_TRASH, id);
	const Granary__TrashEntry *entry = store_message(&looking->meta->store, &entry_key, &granary__trash_entry__descriptor);
	if (!entry || entry->parent != parent || !slice_equal(message_bytes(entry->name), name))
		found(looking, CHECK_TRASH, id, parent);
}

/* ---- all */

static void look(struct looking *looking, enum key_table table, struct slice key, struct slice value)
{
	uint64_t id = 0;
	bool has_id = key_parse(key, &id);
	const Granary__Inode *inode;
	switch (table) {
	case KEY_INODE:
		inode = has_id ? inode_get(looking->meta, id) : NULL;
		if (inode)
			look_at_inode(looking, id, inode);
		break;
	case KEY_DIRENT:
		look_at_name(looking, key, value);
		break;
	case KEY_CHUNK_POINTER:
		look_at_pointer(looking, key, value);
		break;
	case KEY_CHUNK:
		look_at_chunk(looking, id);
		break;
	case KEY_SERVER_CHUNK:
		look_at_holder(looking, key);
		break;
	case KEY_XATTR:
		look_at_xattr(looking, key);
		break;
	case KEY_TASK:
		look_at_task(looking, key, value);
		break;
	case KEY_ORPHAN:
		look_at_orphan(looking, id);
		break;
	case KEY_GARBAGE:
		look_at_garbage(looking, value);
		break;
	case KEY_TRASH:
		look_at_trash(looking, id);
		break;
	case KEY_ERASED:
		look_at_erased(looking, key);
		break;
	case KEY_TRASH_NAME:
		look_at_trash_name(looking, key);
		break;
	default:
		break;
	}
}

bool check_tables(struct check *check, size_t keys_max, check_fn *fn, void *arg)
{
	struct looking looking = {.meta = check->meta, .fn = fn, .arg = arg};
	while (check->table < TABLES && looking.keys < keys_max) {
		struct key prefix = key_of_table(tables[check->table]);
		bool is_over = true;
		struct scan scan;
		scan_open(&scan, &check->meta->store, &prefix, check->has_cursor ? &check->cursor : NULL);
		while (scan_next(&scan)) {
			if (looking.keys >= keys_max) {
				is_over = false;
				break;
			}
			looking.keys++;
			struct key at = {.size = (uint32_t)scan.key.size};
			memcpy(at.bytes, scan.key.bytes, scan.key.size);
			look(&looking, tables[check->table], scan.key, scan.value);
			check->cursor = key_after(&at);
			check->has_cursor = true;
		}
		scan_close(&scan);
		if (is_over) {
			check->table++;
			check->has_cursor = false;
		}
	}
	check->looked_at += looking.keys;
	return check->table == TABLES;
}
