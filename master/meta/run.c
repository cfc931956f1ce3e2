/* From a request to its operations and back to a reply. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "master/meta/ops.h"

/* What an answer without a list can take: attributes with a symbolic link's target, a name, a location. */
#define RESULT_BYTES_MAX (8u * KIB)

bool reply_reserve(struct context *context, size_t bytes)
{
	if (bytes > META_REPLY_BYTES_MAX - context->reply_bytes)
		return false;
	context->reply_bytes += bytes;
	return true;
}

static int64_t op_time(const Granary__MetaOp *op)
{
	switch (op->op_case) {
	case GRANARY__META_OP__OP_UNLINK:
		return op->unlink->time;
	case GRANARY__META_OP__OP_RENAME:
		return op->rename->time;
	case GRANARY__META_OP__OP_SETATTR:
		return op->setattr->time;
	default:
		return 0;
	}
}

static enum err op_dispatch(struct context *context, const Granary__MetaOp *op, Granary__MetaResult *result)
{
	switch (op->op_case) {
#define X(function, member, name, type, changes)                                                                       \
	case GRANARY__META_OP__OP_##name:                                                                              \
		return function(context, op->member, result);
		OP_LIST(X)
#undef X
	default:
		return ERR_NOT_SUPPORTED;
	}
}

void op_run(struct context *context, const Granary__MetaOp *op, Granary__MetaResult *result)
{
	/* Set aside before, so that no operation takes effect and then finds no room for its answer. */
	size_t before = context->reply_bytes;
	result->error = ERR_TOO_MANY;
	if (!reply_reserve(context, RESULT_BYTES_MAX))
		return;
	context->done_ns = op_time(op);
	context->no_trash = op->op_case == GRANARY__META_OP__OP_UNLINK && op->unlink->no_trash;
	result->error = op_dispatch(context, op, result);
	context->done_ns = 0;
	/* Most answers are short and give back what they did not use. Lists of names are not measured again. */
	if (result->n_entries == 0)
		context->reply_bytes = before + protobuf_c_message_get_packed_size(&result->base) + 8;
}

static Granary__MetaReply *reply_open(size_t count)
{
	Granary__MetaReply *reply = message_open_whole(&granary__meta_reply__descriptor);
	reply->results = message_alloc(&reply->base, count * sizeof(*reply->results));
	while (reply->n_results < count)
		reply->results[reply->n_results++] = message_alloc_message(&reply->base, &granary__meta_result__descriptor);
	return reply;
}

Granary__MetaReply *request_run(struct context *context, const Granary__MetaRequest *request)
{
	Granary__MetaReply *reply = reply_open(request->n_ops);
	context->reply = &reply->base;
	for (size_t i = 0; i < request->n_ops; i++)
		op_run(context, request->ops[i], reply->results[i]);
	return reply;
}

Granary__MetaReply *request_refuse(const Granary__MetaRequest *request, enum err err)
{
	Granary__MetaReply *reply = reply_open(request->n_ops);
	for (size_t i = 0; i < request->n_ops; i++)
		reply->results[i]->error = err;
	return reply;
}

bool meta_is_query(const Granary__MetaRequest *request)
{
	for (size_t i = 0; i < request->n_ops; i++) {
		switch (request->ops[i]->op_case) {
#define X(function, member, name, type, changes)                                                                       \
	case GRANARY__META_OP__OP_##name:                                                                              \
		if (changes)                                                                                           \
			return false;                                                                                  \
		break;
			OP_LIST(X)
#undef X
		default:
			break;
		}
	}
	return true;
}
