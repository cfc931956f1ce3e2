#include "tools/granary/data_sizes.h"

#include <string.h>

#include "common/base/limits.h"

static void add(struct data_sizes *out, const Granary__DataSizes *more)
{
	out->stored += more->stored_bytes;
	out->physical += more->physical_bytes;
	out->chunks += more->chunks;
	out->cold_chunks += more->cold_chunks;
}

enum err data_sizes_ask(struct admin *admin, const uint64_t *inodes, size_t count, struct data_sizes *out)
{
	Granary__SizesRequest request = GRANARY__SIZES_REQUEST__INIT;
	enum err err = OK;
	size_t done = 0;
	memset(out, 0, count * sizeof *out);
	while (err == OK && done < count) {
		uint64_t some[SIZES_INODES_MAX];
		ProtobufCMessage *message = NULL;
		request.inodes = some;
		request.n_inodes = count - done < SIZES_INODES_MAX ? count - done : SIZES_INODES_MAX;
		memcpy(some, inodes + done, request.n_inodes * sizeof *some);
		err = admin_call(admin, MESSAGE_SIZES, &request.base, &message);
		if (err)
			break;
		const Granary__SizesReply *reply = (const Granary__SizesReply *)message;
		for (size_t i = 0; i < reply->n_sizes && i < request.n_inodes; i++)
			add(&out[done + i], reply->sizes[i]);
		request.first = reply->next;
		if (reply->n_sizes == 0 || reply->n_sizes > request.n_inodes)
			err = ERR_PROTOCOL;
		else
			done += reply->n_sizes - (reply->next != 0);
		message_free(message);
	}
	return err;
}
