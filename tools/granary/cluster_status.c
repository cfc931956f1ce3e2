#include "tools/granary/cluster_status.h"

#include "client/client.h"
#include "common/base/limits.h"

#define ASK_AGAIN_MS 15u
#define ASK_TIMEOUT_MS 2000u

struct asking {
	struct loop *loop;
	struct client *client;
	struct timer again, deadline;
	cluster_enough_fn *enough; /* NULL: the first answer will do */
	void *arg;
	Granary__ClusterStatus *status;
	enum err err;
	bool asked; /* a call is under way */
	bool over;
};

static void end(struct asking *asking, enum err err)
{
	if (!asking->over) {
		asking->over = true;
		asking->err = err;
		loop_stop(asking->loop);
	}
}

static void answered(void *arg, enum err err, const ProtobufCMessage *reply)
{
	struct asking *asking = arg;
	asking->asked = false;
	if (asking->over)
		return;
	bool failed = false;
	if (err == OK) {
		cluster_status_free(asking->status);
		asking->status = (Granary__ClusterStatus *)message_copy(reply);
	} else if (!asking->enough) {
		end(asking, err);
		return;
	}
	if (err == OK && (!asking->enough || asking->enough(asking->arg, asking->status, &failed)))
		end(asking, OK);
	else
		timer_start(&asking->again, ASK_AGAIN_MS);
}

static void ask(void *arg)
{
	struct asking *asking = arg;
	/* Also without an answer: a process that has died is noticed by `enough`, which then gets NULL. */
	bool failed = false;
	if (asking->enough)
		(void)asking->enough(asking->arg, NULL, &failed);
	if (failed) {
		end(asking, ERR_CANCELLED);
		return;
	}
	if (!asking->asked) {
		Granary__ClusterStatusRequest request = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
		request.servers = true;
		asking->asked = true;
		client_call_leader(asking->client, MESSAGE_CLUSTER_STATUS, &request.base, answered, asking);
	}
	if (asking->enough)
		timer_start(&asking->again, ASK_AGAIN_MS);
}

static void too_late(void *arg)
{
	struct asking *asking = arg;
	enum err err = client_state(asking->client);
	end(asking, err == OK ? ERR_TIMEOUT : err);
}

enum err cluster_wait(const char *addresses, uint64_t timeout_ms, cluster_enough_fn *enough, void *arg,
		      Granary__ClusterStatus **out)
{
	struct asking asking = {.enough = enough, .arg = arg};
	*out = NULL;
	enum err err = loop_open(&asking.loop);
	if (err != OK)
		return err;
	struct client_options options = {
	    .cluster = addresses, .timeout_ms = enough ? ASK_TIMEOUT_MS : timeout_ms, .no_session = true};
	err = client_open(asking.loop, &options, &asking.client);
	if (err == OK) {
		timer_init(&asking.again, asking.loop, ask, &asking);
		timer_init(&asking.deadline, asking.loop, too_late, &asking);
		timer_start(&asking.deadline, timeout_ms);
		ask(&asking);
		if (!asking.over)
			loop_run(asking.loop);
		err = asking.err;
		timer_stop(&asking.again);
		timer_stop(&asking.deadline);
		client_close(asking.client);
		*out = asking.status;
	}
	loop_close(asking.loop);
	return err;
}

enum err cluster_status(const char *addresses, uint64_t timeout_ms, Granary__ClusterStatus **out)
{
	return cluster_wait(addresses, timeout_ms, NULL, NULL, out);
}

void cluster_status_free(Granary__ClusterStatus *status)
{
	if (status)
		message_free(&status->base);
}

unsigned cluster_servers_up(const Granary__ClusterStatus *status)
{
	unsigned up = 0;
	for (size_t i = 0; i < status->n_servers; i++)
		up += status->servers[i]->up && !status->servers[i]->failed;
	return up;
}
