/* granary.h: the trash. */
#include <stdlib.h>
#include <string.h>

#include "client/public.h"
#include "common/base/check.h"
#include "common/base/limits.h"

/* A list on its way: `after` and `after_name` are those of the entry given last. */
struct listing {
	Granary__TrashList request;
	struct buf name, after_name;
	granary_trash_fn *fn;
	void *arg;
	bool more;
};

static bool give(struct listing *listing, const Granary__TrashItem *item)
{
	struct buf name = {0};
	buf_set(&name, message_bytes(item->entry->name));
	buf_append(&name, "", 1);
	struct granary_trash_entry out = {.id = item->id,
					  .parent = item->entry->parent,
					  .name = (const char *)name.bytes,
					  .removed_ns = item->entry->removed,
					  .parent_mtime_ns = item->entry->parent_mtime};
	if (item->attr)
		public_stat(item->entry->inode, item->attr, &out.stat);
	out.stat.inode = item->entry->inode;
	bool more = listing->fn(listing->arg, &out);
	listing->request.after = item->id;
	buf_set(&listing->after_name, message_bytes(item->entry->name));
	listing->request.after_name = message_borrow(buf_slice(&listing->after_name));
	buf_deinit(&name);
	return more;
}

static enum err list_page(struct granary_cluster *cluster, struct listing *listing)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__MetaReply *reply;
	op.op_case = GRANARY__META_OP__OP_TRASH_LIST;
	op.trash_list = &listing->request;
	enum err err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &reply);
	listing->more = false;
	if (err == OK) {
		const Granary__MetaResult *result = reply->results[0];
		listing->more = !result->end && result->n_trash > 0;
		for (size_t i = 0; i < result->n_trash; i++) {
			if (!result->trash[i]->entry)
				err = ERR_PROTOCOL;
			if (err || !give(listing, result->trash[i])) {
				listing->more = false;
				break;
			}
		}
	}
	if (reply)
		message_free(&reply->base);
	return err;
}

static granary_status list(struct granary_cluster *cluster, struct listing *listing)
{
	enum err err = OK;
	listing->more = true;
	while (err == OK && listing->more)
		err = list_page(cluster, listing);
	buf_deinit(&listing->after_name);
	return public_result(cluster, "trash list", "", err);
}

granary_status granary_trash_list(struct granary_cluster *cluster, uint64_t directory, const char *name, granary_trash_fn *fn,
				  void *arg)
{
	struct listing listing = {.request = GRANARY__TRASH_LIST__INIT, .fn = fn, .arg = arg};
	listing.request.parent = directory;
	if (name)
		listing.request.name = message_borrow(slice_text(name));
	return list(cluster, &listing);
}

granary_status granary_trash_list_all(struct granary_cluster *cluster, granary_trash_fn *fn, void *arg)
{
	struct listing listing = {.request = GRANARY__TRASH_LIST__INIT, .fn = fn, .arg = arg};
	listing.request.all = true;
	return list(cluster, &listing);
}

/* ---- undelete */

#define UNDELETES_PER_REQUEST 256u

static enum err undelete_some(struct granary_cluster *cluster, struct granary_undelete *items, size_t count)
{
	Granary__MetaOp ops[UNDELETES_PER_REQUEST], *list[UNDELETES_PER_REQUEST];
	Granary__Undelete undeletes[UNDELETES_PER_REQUEST];
	Granary__MetaReply *reply;
	check(count > 0);
	for (size_t i = 0; i < count; i++) {
		granary__undelete__init(&undeletes[i]);
		undeletes[i].id = items[i].id;
		undeletes[i].parent = items[i].parent;
		if (items[i].parent)
			undeletes[i].name = message_borrow(slice_text(items[i].name));
		granary__meta_op__init(&ops[i]);
		ops[i].op_case = GRANARY__META_OP__OP_UNDELETE;
		ops[i].undelete = &undeletes[i];
		list[i] = &ops[i];
	}
	enum err err = public_meta(cluster, list, count, &reply);
	for (size_t i = 0; i < count; i++) {
		items[i].status = (granary_status)err;
		if (reply)
			items[i].status =
			    reply->results[i]->error ? (granary_status)err_from_wire(reply->results[i]->error) : 0;
	}
	if (reply)
		message_free(&reply->base);
	return err;
}

granary_status granary_undelete(struct granary_cluster *cluster, struct granary_undelete *items, size_t count)
{
	enum err first = OK;
	const char *subject = "";
	for (size_t at = 0; at < count; at += UNDELETES_PER_REQUEST) {
		size_t some = count - at < UNDELETES_PER_REQUEST ? count - at : UNDELETES_PER_REQUEST;
		enum err err = undelete_some(cluster, items + at, some);
		for (size_t i = at; i < at + some && first == OK; i++) {
			first = (enum err)items[i].status;
			subject = first && items[i].parent ? items[i].name : "";
		}
		if (first == OK)
			first = err;
	}
	return public_result(cluster, "undelete", subject, first);
}

granary_status granary_trash_remove(struct granary_cluster *cluster, const uint64_t *ids, size_t count)
{
	enum err err = OK;
	for (size_t at = 0; err == OK && at < count; at += TRASH_REMOVE_MAX) {
		Granary__MetaOp op = GRANARY__META_OP__INIT;
		Granary__TrashRemove change = GRANARY__TRASH_REMOVE__INIT;
		Granary__MetaReply *reply;
		change.n_ids = count - at < TRASH_REMOVE_MAX ? count - at : TRASH_REMOVE_MAX;
		change.ids = (uint64_t *)(uintptr_t)(ids + at); /* only read */
		op.op_case = GRANARY__META_OP__OP_TRASH_REMOVE;
		op.trash_remove = &change;
		err = public_meta(cluster, (Granary__MetaOp *[]){&op}, 1, &reply);
		if (reply)
			message_free(&reply->base);
	}
	return public_result(cluster, "trash empty", "", err);
}
