#include "master/settings_service.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/settings.h"
#include "common/sys/log.h"

/* A change on its way through the log. */
struct setting_change {
	struct proposal proposal;
	struct replica *replica;
	struct rpc_request *request;
	Granary__MetaRequest message;
	Granary__MetaOp op, *ops[1];
	Granary__SetSettings change;
	unsigned attempts;
};

static void change_end(struct setting_change *change, enum err err)
{
	const Granary__SettingsRequest *asked = (const Granary__SettingsRequest *)change->request->message;

	if (err) {
		replica_refuse(change->replica, change->request, err);
	} else {
		log_info("setting_changed", "key=%s value=%" PRIu64, asked->key, asked->value);
		rpc_reply(change->request, &meta_settings(replica_meta(change->replica))->base);
	}
	message_free(change->change.settings ? &change->change.settings->base : NULL);
	free(change);
}

static void change_propose(struct setting_change *change)
{
	const Granary__SettingsRequest *asked = (const Granary__SettingsRequest *)change->request->message;
	const Granary__Settings *now = meta_settings(replica_meta(change->replica));

	message_free(change->change.settings ? &change->change.settings->base : NULL);
	change->change.settings = (Granary__Settings *)message_copy(&now->base);
	enum err err = setting_set(change->change.settings, setting_find(asked->key), asked->value);
	if (err)
		change_end(change, err);
	else
		replica_propose(change->replica, &change->proposal);
}

static void on_changed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct setting_change *change = container_of(proposal, struct setting_change, proposal);

	if (err == OK && (*reply)->n_results == 1)
		err = (enum err)(*reply)->results[0]->error;
	if (err == ERR_BUSY && ++change->attempts < SETTING_ATTEMPTS_MAX)
		change_propose(change);
	else
		change_end(change, err);
}

void settings_serve(struct replica *replica, struct rpc_request *request)
{
	const Granary__SettingsRequest *asked = (const Granary__SettingsRequest *)request->message;

	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	if (!asked->key[0]) {
		rpc_reply(request, &meta_settings(replica_meta(replica))->base);
		return;
	}
	if (setting_find(asked->key) == SETTINGS_COUNT) {
		replica_refuse(replica, request, ERR_NOT_SUPPORTED);
		return;
	}
	struct setting_change *change = mem_zero(1, sizeof(*change));
	change->replica = replica;
	change->request = request;
	granary__meta_request__init(&change->message);
	granary__meta_op__init(&change->op);
	granary__set_settings__init(&change->change);
	change->op.op_case = GRANARY__META_OP__OP_SET_SETTINGS;
	change->op.set_settings = &change->change;
	change->ops[0] = &change->op;
	change->message.n_ops = 1;
	change->message.ops = change->ops;
	change->proposal.request = &change->message;
	change->proposal.done = on_changed;
	change_propose(change);
}
