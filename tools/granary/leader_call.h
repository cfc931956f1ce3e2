/* One request to the leader that is no namespace operation, for `admin`: without a session. */
#ifndef GRANARY_TOOLS_GRANARY_LEADER_CALL_H
#define GRANARY_TOOLS_GRANARY_LEADER_CALL_H

#include "common/proto/message.h"
#include "tools/granary/cli.h"

/* Sends it until a leader answers or the cli's timeout is over. EXIT_DONE: *reply is freed with message_free. Otherwise it has
 * said why, under `what`, and *reply is NULL. */
int leader_call(const struct cli *cli, const char *what, enum message_type type, const ProtobufCMessage *request,
		ProtobufCMessage **reply);

#endif
