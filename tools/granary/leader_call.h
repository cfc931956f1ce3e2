/* One request to the leader that is no namespace operation, for `admin`: without a session. */
#ifndef GRANARY_TOOLS_GRANARY_LEADER_CALL_H
#define GRANARY_TOOLS_GRANARY_LEADER_CALL_H

#include "common/proto/message.h"
#include "tools/granary/cli.h"

/* Sends it until a leader answers or the cli's timeout is over. EXIT_DONE: *reply is freed with message_free. Otherwise it has
 * said why, under `what`, and *reply is NULL. */
int leader_call(const struct cli *cli, const char *what, enum message_type type, const ProtobufCMessage *request,
		ProtobufCMessage **reply);
/* The same in two parts, for who wants to look at the error: ERR_CANCELLED when no cluster is given, which it has said. */
MUST_USE enum err leader_ask(const struct cli *cli, enum message_type type, const ProtobufCMessage *request, ProtobufCMessage **reply);
int leader_call_failed(const struct cli *cli, const char *what, enum err err);

#endif
