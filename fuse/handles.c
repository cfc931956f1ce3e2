#include "fuse/handles.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <utlist.h>

#include "client/client.h"
#include "common/base/check.h"
#include "common/base/limits.h"

#define EPOCH_BIT (1ull << 63)

void handles_init(struct handles *handles)
{
	*handles = (struct handles){0};
}

struct node *handles_find_inode(const struct handles *handles, uint64_t inode)
{
	struct node *node = NULL;

	HASH_FIND(by_inode, handles->by_inode, &inode, sizeof inode, node);
	return node;
}

struct node *handles_find(const struct handles *handles, uint64_t nodeid)
{
	struct node *node = NULL;

	if (nodeid & EPOCH_BIT) {
		HASH_FIND(by_nodeid, handles->by_nodeid, &nodeid, sizeof nodeid, node);
		return node;
	}
	node = handles_find_inode(handles, nodeid);
	while (node && node->nodeid != nodeid)
		node = node->older;
	return node;
}

/* The newest epoch, in front of the one before (or NULL). */
static struct node *node_add(struct handles *handles, uint64_t nodeid, uint64_t inode, struct node *older)
{
	struct node *node = mem_zero(1, sizeof *node);

	node->nodeid = nodeid;
	node->inode = inode;
	if (nodeid & EPOCH_BIT)
		HASH_ADD(by_nodeid, handles->by_nodeid, nodeid, sizeof node->nodeid, node);
	if (older) {
		HASH_DELETE(by_inode, handles->by_inode, older);
		node->older = older;
		older->newer = node;
		node->retry_until_ms = older->retry_until_ms;
	}
	HASH_ADD(by_inode, handles->by_inode, inode, sizeof node->inode, node);
	return node;
}

struct node *handles_renew(struct handles *handles, uint64_t inode)
{
	return node_add(handles, EPOCH_BIT | ++handles->last_epoch, inode, handles_find_inode(handles, inode));
}

struct node *handles_node(struct handles *handles, uint64_t inode)
{
	struct node *node = handles_find_inode(handles, inode);

	/* No epoch is left, so the number itself is free again as a nodeid. */
	return node ? node : node_add(handles, inode, inode, NULL);
}

static void name_drop(struct handles *handles, struct node_name *name)
{
	LL_DELETE(name->node->names, name);
	HASH_DELETE(hh, handles->by_name, name);
	free(name);
}

static void node_free(struct handles *handles, struct node *node)
{
	check(!node->io);
	if (node->nodeid & EPOCH_BIT)
		HASH_DELETE(by_nodeid, handles->by_nodeid, node);
	if (node->older)
		node->older->newer = node->newer;
	if (node->newer) {
		node->newer->older = node->older;
	} else {
		HASH_DELETE(by_inode, handles->by_inode, node);
		if (node->older)
			HASH_ADD(by_inode, handles->by_inode, inode, sizeof node->inode, node->older);
	}
	lock_book_deinit(&node->locks);
	while (node->names)
		name_drop(handles, node->names);
	free(node);
}

void handles_deinit(struct handles *handles)
{
	while (handles->by_inode)
		node_free(handles, handles->by_inode);
}

void node_hold(struct node *node)
{
	node->holds++;
}

void node_drop(struct handles *handles, struct node *node)
{
	check(node->holds > 0);
	node->holds--;
	if (node->holds == 0 && node->lookups == 0)
		node_free(handles, node);
}

void node_forget(struct handles *handles, struct node *node, uint64_t lookups)
{
	node->lookups -= lookups < node->lookups ? lookups : node->lookups;
	if (node->holds == 0 && node->lookups == 0)
		node_free(handles, node);
}

/* What names are found by. */
struct name_key {
	uint64_t parent; /* this and the text as they stand in struct node_name */
	char text[NAME_BYTES_MAX];
	size_t size; /* of what is in use */
	unsigned hash;
};

/* False: longer than any name. */
static bool name_key_init(struct name_key *key, uint64_t parent, const char *text)
{
	size_t length = strlen(text);

	if (length > sizeof key->text)
		return false;
	key->parent = parent;
	memcpy(key->text, text, length);
	key->size = offsetof(struct name_key, text) + length;
	HASH_VALUE(key, key->size, key->hash);
	return true;
}

static struct node_name *name_find(const struct handles *handles, const struct name_key *key)
{
	struct node_name *found = NULL;

	HASH_FIND_BYHASHVALUE(hh, handles->by_name, key, key->size, key->hash, found);
	return found;
}

struct node_name *handles_find_name(const struct handles *handles, uint64_t parent, const char *text)
{
	struct name_key key;

	return name_key_init(&key, parent, text) ? name_find(handles, &key) : NULL;
}

void handles_drop_name(struct handles *handles, uint64_t parent, const char *text)
{
	struct node_name *name = handles_find_name(handles, parent, text);

	if (name)
		name_drop(handles, name);
}

void node_name(struct handles *handles, struct node *node, uint64_t parent, const char *text, uint64_t seen_ms)
{
	struct name_key key;
	struct node_name *name;

	if (!name_key_init(&key, parent, text))
		return;
	name = name_find(handles, &key);
	if (name && name->node == node) { /* to the front */
		name->seen_ms = seen_ms;
		LL_DELETE(node->names, name);
		LL_PREPEND(node->names, name);
		return;
	}
	if (name)
		name_drop(handles, name);
	name = mem_zero(1, offsetof(struct node_name, parent) + key.size + 1);
	memcpy(&name->parent, &key, key.size);
	name->node = node;
	name->seen_ms = seen_ms;
	LL_PREPEND(node->names, name);
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, handles->by_name, &name->parent, key.size, key.hash, name);
}

enum node_verdict node_judge(const struct node *node, const Granary__Inode *attr, uint64_t own)
{
	if (node->untrue)
		return NODE_CHANGED;
	/* `change` only grows: an answer that was overtaken by a newer one says nothing. */
	if (node->type != 0 && attr->change <= node->change)
		return NODE_SAME;
	if (node->type == 0 || !S_ISREG(attr->mode))
		return NODE_TOUCHED;
	/* Size and time differ because what is being written here has not been committed. */
	if (node_is_writing(node) && (attr->data_change == node->data_change || attr->data_change == own))
		return NODE_TOUCHED;
	if (attr->data_change != node->data_change || attr->size != node->size || attr->mtime != node->mtime)
		return NODE_CHANGED;
	return NODE_TOUCHED;
}

void node_learn(struct node *node, const Granary__Inode *attr)
{
	if (node->type != 0 && attr->change < node->change)
		return;
	node->type = attr->mode & S_IFMT;
	node->change = attr->change;
	node->data_change = attr->data_change;
	node->size = attr->size;
	node->mtime = attr->mtime;
	node->mode = attr->mode;
	node->uid = attr->uid;
	node->gid = attr->gid;
	node->nlink = attr->nlink;
	node->atime = attr->atime;
	node->ctime = attr->ctime;
}

void node_stale(struct node *node, uint64_t now_ms)
{
	node->retry_until_ms = now_ms + NODE_RETRY_MS;
}

void node_distrust(struct node *node)
{
	node->untrue = true;
}

void node_lease(struct node *node, const Granary__Inode *attr, uint64_t until_ms)
{
	if (attr->change >= node->change)
		node->plain_until_ms = attr->xattrs == 0 ? until_ms : 0;
}

void node_unlease(struct node *node)
{
	node->plain_until_ms = node->bare_until_ms = 0;
}

bool node_is_writing(const struct node *node)
{
	return node->write_opens > 0 || node->mutating > 0 || (node->io && file_io_dirty(node->io));
}
