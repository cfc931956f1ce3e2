#include "master/meta/settings.h"

#include "common/base/check.h"
#include "common/proto/settings.h"
#include "master/meta/ops.h"

static struct key settings_key(void)
{
	return key_of_single("settings");
}

enum err settings_load(struct meta *meta)
{
	struct key key = settings_key();
	struct slice stored;
	Granary__Settings *loaded = NULL;
	enum err err = store_failed(&meta->store);
	if (store_get(&meta->store, &key, &stored)) {
		err = message_unpack(&granary__settings__descriptor, stored, (ProtobufCMessage **)&loaded);
	} else {
		loaded = mem_alloc(sizeof(*loaded));
		granary__settings__init(loaded);
		err = store_failed(&meta->store);
	}
	if (err) {
		message_free(loaded ? &loaded->base : NULL);
		return err;
	}
	message_free(meta->settings ? &meta->settings->base : NULL);
	meta->settings = loaded;
	return OK;
}

void settings_clear(struct meta *meta)
{
	struct key key = settings_key();
	store_delete(&meta->store, &key);
}

/* Fields that this version does not know are stored as they came, so that masters of two versions stay equal. The leader has
 * looked at the values of those that it knows. */
enum err op_set_settings(struct context *context, const Granary__SetSettings *op, Granary__MetaResult *result)
{
	(void)result;
	struct meta *meta = context->meta;
	if (!op->settings)
		return ERR_INVALID;
	if (op->settings->revision != meta->settings->revision)
		return ERR_BUSY;
	message_free(&meta->settings->base);
	meta->settings = (Granary__Settings *)message_copy(&op->settings->base);
	meta->settings->revision++;
	struct buf packed = {0};
	message_pack(&meta->settings->base, &packed);
	struct key key = settings_key();
	store_put(&meta->store, &key, buf_slice(&packed));
	buf_deinit(&packed);
	return OK;
}
