#include "master/restore.h"

#include <stdlib.h>

#include "common/base/check.h"

struct restore {
	struct rpc_request *asked;
	struct replica *replica;
	struct proposal proposal;
	Granary__MetaRequest request;
	Granary__MetaOp op, *ops[1];
};

static void on_done(struct proposal *proposal, enum err err, Granary__MetaReply **reply)
{
	struct restore *restore = container_of(proposal, struct restore, proposal);
	Granary__Empty empty = GRANARY__EMPTY__INIT;

	if (err == OK)
		err = (enum err)(*reply)->results[0]->error;
	if (err)
		rpc_reply_error(restore->asked, err, err == ERR_NOT_LEADER ? "" : NULL);
	else
		rpc_reply(restore->asked, &empty.base);
	free(restore);
}

void restore_serve(struct replica *replica, struct rpc_request *request)
{
	if (!replica_can_read(replica)) {
		replica_refuse(replica, request, ERR_NOT_LEADER);
		return;
	}
	if (replica_space_is_low(replica)) {
		rpc_reply_error(request, ERR_NO_SPACE, NULL);
		return;
	}
	struct restore *restore = mem_zero(1, sizeof(*restore));
	restore->asked = request;
	restore->replica = replica;
	granary__meta_request__init(&restore->request);
	granary__meta_op__init(&restore->op);
	restore->op.op_case = GRANARY__META_OP__OP_RESTORE;
	restore->op.restore = (Granary__Restore *)(uintptr_t)request->message;
	restore->ops[0] = &restore->op;
	restore->request.n_ops = 1;
	restore->request.ops = restore->ops;
	restore->proposal.request = &restore->request;
	restore->proposal.done = on_done;
	replica_propose(replica, &restore->proposal);
}
