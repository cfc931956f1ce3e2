#include "tools/granary/leader_call.h"

#include <stdlib.h>

#include "client/client.h"

struct calling {
	struct loop *loop;
	ProtobufCMessage *reply;
	enum err err;
};

static void answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct calling *calling = arg;
	calling->err = err;
	if (err == OK)
		calling->reply = message_copy(reply);
	loop_stop(calling->loop);
}

static enum err call(const struct cli *cli, const char *addresses, enum message_type type, const ProtobufCMessage *request,
		     ProtobufCMessage **reply)
{
	struct calling calling = {0};
	struct client *client = NULL;
	enum err err = loop_open(&calling.loop);
	if (err != OK)
		return err;
	struct client_options options = {.cluster = addresses, .timeout_ms = cli->timeout_ms, .no_session = true};
	err = client_open(calling.loop, &options, &client);
	if (err == OK) {
		client_call_leader(client, type, request, answered, &calling);
		loop_run(calling.loop);
		err = calling.err;
		if (err == ERR_TIMEOUT && client_state(client) != OK)
			err = client_state(client);
		client_close(client);
	}
	loop_close(calling.loop);
	*reply = calling.reply;
	return err;
}

enum err leader_ask(const struct cli *cli, enum message_type type, const ProtobufCMessage *request, ProtobufCMessage **reply)
{
	char *addresses = cli_cluster_addresses(cli);
	*reply = NULL;
	if (!addresses)
		return ERR_CANCELLED;
	enum err err = call(cli, addresses, type, request, reply);
	free(addresses);
	return err;
}

int leader_call_failed(const struct cli *cli, const char *what, enum err err)
{
	if (err == ERR_CANCELLED)
		return EXIT_NO_CLUSTER;
	if (err != ERR_TIMEOUT && err != ERR_NO_LEADER && err != ERR_NOT_LEADER && err != ERR_UNREACHABLE)
		return cli_error(cli, what, err);
	char *addresses = cli_cluster_addresses(cli);
	cli_error_text(cli, addresses ? addresses : what, err_text(err == ERR_UNREACHABLE ? err : ERR_NO_LEADER));
	free(addresses);
	return EXIT_NO_CLUSTER;
}

int leader_call(const struct cli *cli, const char *what, enum message_type type, const ProtobufCMessage *request,
		ProtobufCMessage **reply)
{
	enum err err = leader_ask(cli, type, request, reply);
	return err ? leader_call_failed(cli, what, err) : EXIT_DONE;
}
