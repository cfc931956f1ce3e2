#include "master/class_service.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/sys/log.h"

/* A change on its way through the log. */
struct class_change {
	struct proposal proposal;
	struct replica *replica;
	struct rpc_request *request; /* holds the change */
	Granary__MetaRequest message;
	Granary__MetaOp op, *ops[1];
};

static void answer(struct replica *replica, struct rpc_request *request)
{
	struct meta *meta = replica_meta(replica);
	Granary__ClassesReply reply = GRANARY__CLASSES_REPLY__INIT;

	reply.classes = (Granary__StorageClasses *)(uintptr_t)meta_classes(meta);
	reply.settings = (Granary__Settings *)(uintptr_t)meta_settings(meta);
	rpc_reply(request, &reply.base);
}

static void on_changed(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct class_change *change = container_of(proposal, struct class_change, proposal);
	const Granary__SetClass *op = change->op.set_class;

	if (err == OK && (*reply)->n_results == 1)
		err = err_from_wire((*reply)->results[0]->error);
	if (err) {
		replica_refuse(change->replica, change->request, err);
	} else {
		log_info(op->remove ? "class_removed" : "class_changed", "name=%s", op->class_->name);
		answer(change->replica, change->request);
	}
	free(change);
}

void classes_serve(struct replica *replica, struct rpc_request *request)
{
	const Granary__ClassesRequest *asked = (const Granary__ClassesRequest *)request->message;

	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	if (!asked->change) {
		answer(replica, request);
		return;
	}
	struct class_change *change = mem_zero(1, sizeof(*change));
	change->replica = replica;
	change->request = request;
	granary__meta_request__init(&change->message);
	granary__meta_op__init(&change->op);
	change->op.op_case = GRANARY__META_OP__OP_SET_CLASS;
	change->op.set_class = asked->change;
	change->ops[0] = &change->op;
	change->message.n_ops = 1;
	change->message.ops = change->ops;
	change->proposal.request = &change->message;
	change->proposal.done = on_changed;
	replica_propose(replica, &change->proposal);
}
