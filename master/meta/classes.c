#include "master/meta/classes.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/inode.h"
#include "master/meta/ops.h"
#include "master/meta/tasks.h"

static struct key classes_key(void)
{
	return key_of_single("classes");
}

enum err classes_load(struct meta *meta)
{
	struct key key = classes_key();
	struct slice stored;
	ProtobufCMessage *loaded = NULL;
	enum err err = OK;
	if (store_get(&meta->store, &key, &stored))
		err = message_unpack(&granary__storage_classes__descriptor, stored, &loaded);
	else
		err = store_failed(&meta->store);
	if (err)
		return err;
	if (!loaded) {
		loaded = mem_alloc(sizeof(Granary__StorageClasses));
		granary__storage_classes__init((Granary__StorageClasses *)loaded);
	}
	message_free(meta->classes ? &meta->classes->base : NULL);
	meta->classes = (Granary__StorageClasses *)loaded;
	return OK;
}

void classes_clear(struct meta *meta)
{
	struct key key = classes_key();
	store_delete(&meta->store, &key);
}

void class_set(char **field, const char *label)
{
	if (strcmp(*field, label) == 0)
		return;
	if ((*field)[0])
		free(*field);
	*field = label[0] ? mem_string(label) : (char *)(uintptr_t)protobuf_c_empty_string;
}

void meta_class_values(const struct meta *meta, const char *label, struct storage_values *out)
{
	storage_class_values(meta->classes, meta->settings, label, out);
}

/* Of what the last Create before `at` makes. */
static const char *label_of_created(struct meta *meta, const Granary__MetaRequest *request, size_t at)
{
	while (at > 0 && request->ops[at - 1]->op_case != GRANARY__META_OP__OP_CREATE)
		at--;
	const Granary__Create *create = at > 0 ? request->ops[at - 1]->create : NULL;
	if (!create || create->class_[0])
		return create ? storage_class_label(create->class_) : "";
	const Granary__Inode *parent = inode_get(meta, create->parent);
	return parent ? parent->class_ : "";
}

unsigned meta_copies_wanted(struct meta *meta, const Granary__MetaRequest *request, size_t at)
{
	const Granary__MetaOp *op = request->ops[at];
	const char *label;
	struct storage_values values;
	if (op->op_case == GRANARY__META_OP__OP_OPEN_PACK) {
		label = storage_class_label(op->open_pack->class_);
	} else if (op->allocate_chunk->inode) {
		const Granary__Inode *inode = inode_get(meta, op->allocate_chunk->inode);
		label = inode ? inode->class_ : "";
	} else {
		label = label_of_created(meta, request, at);
	}
	meta_class_values(meta, label, &values);
	return values.copies;
}

static enum err change_check(const Granary__StorageClasses *classes, const Granary__SetClass *op)
{
	const Granary__StorageClass *storage = op->class_;
	if (!storage)
		return ERR_INVALID;
	if (op->revision != classes->revision)
		return ERR_BUSY;
	bool is_default = strcmp(storage->name, STORAGE_CLASS_DEFAULT) == 0;
	const Granary__StorageClass *now = storage_class_find(classes, storage->name);
	if (op->remove)
		return is_default ? ERR_NOT_PERMITTED : now ? OK : ERR_NO_CLASS;
	size_t others = classes->n_classes + (storage_class_find(classes, "") || is_default ? 0 : 1);
	if (!now && others >= STORAGE_CLASSES_MAX)
		return ERR_TOO_MANY;
	return storage_class_check(storage);
}

/* In order of names; `with` NULL: without `name`. */
static void classes_replace(Granary__StorageClasses *classes, const char *name, const Granary__StorageClass *with)
{
	size_t at = 0;
	while (at < classes->n_classes && strcmp(classes->classes[at]->name, name) < 0)
		at++;
	bool is_there = at < classes->n_classes && strcmp(classes->classes[at]->name, name) == 0;
	if (is_there)
		message_free(&classes->classes[at]->base);
	size_t tail = classes->n_classes - at - is_there;
	if (!is_there)
		classes->classes = mem_resize(classes->classes, (classes->n_classes + 1) * sizeof(*classes->classes));
	memmove(&classes->classes[at + (with != NULL)], &classes->classes[at + is_there], tail * sizeof(*classes->classes));
	classes->n_classes = at + (with != NULL) + tail;
	if (with)
		classes->classes[at] = (Granary__StorageClass *)message_copy(&with->base);
}

/* Chunks follow in the background. */
enum err op_set_class(struct context *context, const Granary__SetClass *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	enum err err = change_check(meta->classes, op);
	if (err)
		return err;
	classes_replace(meta->classes, op->class_->name, op->remove ? NULL : op->class_);
	meta->classes->revision++;
	struct buf packed = {0};
	message_pack(&meta->classes->base, &packed);
	struct key key = classes_key();
	store_put(&meta->store, &key, buf_slice(&packed));
	buf_deinit(&packed);
	Granary__Task task = GRANARY__TASK__INIT;
	task.kind = TASK_CLASS;
	task.class_ = (char *)(uintptr_t)storage_class_label(op->class_->name);
	task_add_now(meta, &task);
	return OK;
}
