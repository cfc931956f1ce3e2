#include "tools/granary/admin_call.h"

#include <stdlib.h>

struct waiting {
	struct loop *loop;
	bool done;
	enum err err;
	ProtobufCMessage *reply;
};

int admin_open(struct cli *cli, struct admin *out)
{
	*out = (struct admin){.cli = cli};
	out->addresses = cli_cluster_addresses(cli);
	if (!out->addresses)
		return EXIT_NO_CLUSTER;
	enum err err = loop_open(&out->loop);
	struct client_options options = {.cluster = out->addresses, .timeout_ms = cli->timeout_ms, .no_session = true};
	if (err == OK)
		err = client_open(out->loop, &options, &out->client);
	return err == OK ? EXIT_DONE : admin_error(out, out->addresses, err);
}

void admin_close(struct admin *admin)
{
	if (admin->client)
		client_close(admin->client);
	if (admin->loop)
		loop_close(admin->loop);
	free(admin->addresses);
	*admin = (struct admin){0};
}

static void answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct waiting *waiting = arg;
	waiting->done = true;
	waiting->err = err;
	waiting->reply = reply ? message_copy(reply) : NULL;
	loop_stop(waiting->loop);
}

enum err admin_call(struct admin *admin, enum message_type type, const ProtobufCMessage *message,
		    ProtobufCMessage **reply)
{
	struct waiting waiting = {.loop = admin->loop};
	client_call_leader(admin->client, type, message, answered, &waiting);
	while (!waiting.done)
		loop_run(admin->loop);
	*reply = waiting.reply;
	return waiting.err;
}

enum err admin_call_address(struct admin *admin, const char *address, enum message_type type, const ProtobufCMessage *message,
			    ProtobufCMessage **reply)
{
	struct waiting waiting = {.loop = admin->loop};
	client_call_address(admin->client, address, type, message, answered, &waiting);
	while (!waiting.done)
		loop_run(admin->loop);
	*reply = waiting.reply;
	return waiting.err;
}

int admin_error(struct admin *admin, const char *what, enum err err)
{
	bool unreached = err == ERR_NO_LEADER || err == ERR_UNREACHABLE || err == ERR_TIMEOUT || err == ERR_CLOSED ||
			 err == ERR_NOT_LEADER;
	cli_error_text(admin->cli, what, err == ERR_TIMEOUT ? err_text(ERR_NO_LEADER) : err_text(err));
	return unreached ? EXIT_NO_CLUSTER : EXIT_FAILED;
}

static void waited(void *arg)
{
	struct waiting *waiting = arg;
	waiting->done = true;
	loop_stop(waiting->loop);
}

void admin_pause(struct admin *admin, uint64_t ms)
{
	struct waiting waiting = {.loop = admin->loop};
	struct timer timer;
	timer_init(&timer, admin->loop, waited, &waiting);
	timer_start(&timer, ms);
	while (!waiting.done)
		loop_run(admin->loop);
}
