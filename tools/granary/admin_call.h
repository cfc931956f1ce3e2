/* Requests to the leader for `admin` commands, one after another, waiting for each. */
#ifndef GRANARY_TOOLS_GRANARY_ADMIN_CALL_H
#define GRANARY_TOOLS_GRANARY_ADMIN_CALL_H

#include "client/client.h"
#include "tools/granary/cli.h"

struct admin {
	struct cli *cli;
	char *addresses;
	struct loop *loop;
	struct client *client;
};

/* An exit status, after it has said why. admin_close in any case. */
int admin_open(struct cli *cli, struct admin *out);
void admin_close(struct admin *admin);
/* *reply is a message in pieces for the caller to free; NULL unless the result is OK. Retried for --timeout. */
MUST_USE enum err admin_call(struct admin *admin, enum message_type type, const ProtobufCMessage *message,
			     ProtobufCMessage **reply);
/* The same of a given process, without retries. */
MUST_USE enum err admin_call_address(struct admin *admin, const char *address, enum message_type type, const ProtobufCMessage *message,
				     ProtobufCMessage **reply);
/* Says what is wrong when it was the cluster that could not be reached; an exit status for any error. */
int admin_error(struct admin *admin, const char *what, enum err err);
/* Waits so long, with the connections served. */
void admin_pause(struct admin *admin, uint64_t ms);

#endif
