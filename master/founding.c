#include "master/founding.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/log.h"

/* What one member has answered in this round. */
struct question {
	struct founding *founding;
	struct rpc_peer *peer; /* NULL: ourselves */
	rpc_call_id call;
	bool answered, fresh;
	uint64_t node;
};

struct founding {
	struct founding_options options;
	struct question questions[RAFT_MEMBERS_MAX];
	size_t open; /* questions without an end */
	struct timer timer;
	struct founders before; /* of the last round, if all were fresh */
	struct founders given;	/* by one who is founded, with this master among them; none: count 0 */
	bool exists; /* somebody is founded */
	bool said;
};

static void finish(struct founding *founding, const struct founders *founders)
{
	struct founders copy = *founders;

	founding->options.founded(founding->options.arg, &copy);
}

/* All were fresh: who they are. */
static bool all_fresh(const struct founding *founding, struct founders *out)
{
	*out = (struct founders){ 0 };
	for (size_t i = 0; i < founding->options.members->count; i++) {
		const struct question *question = &founding->questions[i];
		if (question->peer && (!question->answered || !question->fresh))
			return false;
		founders_add(out, founding->options.members->ids[i],
			     question->peer ? question->node : founding->options.node);
	}
	return true;
}

static bool founders_equal(const struct founders *a, const struct founders *b)
{
	for (size_t i = 0; i < a->count; i++) {
		if (a->ids[i] != b->ids[i] || a->nodes[i] != b->nodes[i])
			return false;
	}
	return a->count == b->count;
}

static void round_end(struct founding *founding)
{
	struct founders now;

	timer_start(&founding->timer, FOUNDING_MS);
	if (founding->exists) {
		finish(founding, &founding->given);
		return;
	}
	bool fresh = all_fresh(founding, &now);
	if (fresh && founders_equal(&now, &founding->before)) {
		finish(founding, &now);
		return;
	}
	if (!fresh && !founding->said) {
		founding->said = true;
		log_info("master_waits_for_others", "id=%" PRIu64 " node=%016" PRIx64, founding->options.id, founding->options.node);
	}
	founding->before = fresh ? now : (struct founders){ 0 };
}

static void take_list(struct founding *founding, const Granary__FoundingReply *reply)
{
	struct founders list = { 0 };

	for (size_t i = 0; i < reply->n_founders && list.count < RAFT_MEMBERS_MAX; i++)
		founders_add(&list, reply->founders[i]->id, reply->founders[i]->node);
	if (founders_have(&list, founding->options.id, founding->options.node))
		founding->given = list;
}

static void on_answer(void *arg, const struct rpc_result *result)
{
	struct question *question = arg;
	struct founding *founding = question->founding;
	const Granary__FoundingReply *reply = (const Granary__FoundingReply *)result->reply;
	size_t place = (size_t)(question - founding->questions);

	question->call = 0;
	if (result->err == OK && reply->id == founding->options.members->ids[place] && reply->node != 0 &&
	    strcmp(reply->cluster_name, founding->options.cluster) == 0) {
		question->answered = true;
		question->fresh = !reply->founded;
		question->node = reply->node;
		founding->exists = founding->exists || reply->founded;
		if (reply->founded)
			take_list(founding, reply);
	}
	if (--founding->open == 0)
		round_end(founding);
}

static void round_begin(void *arg)
{
	struct founding *founding = arg;
	Granary__FoundingRequest request = GRANARY__FOUNDING_REQUEST__INIT;

	if (founding->open > 0)
		return;
	request.id = founding->options.id;
	request.node = founding->options.node;
	founding->given = (struct founders){ 0 };
	founding->exists = false;
	for (size_t i = 0; i < founding->options.members->count; i++) {
		struct question *question = &founding->questions[i];
		question->answered = question->fresh = false;
		if (!question->peer)
			continue;
		founding->open++;
		question->call = rpc_peer_call(question->peer, MESSAGE_FOUNDING, &request.base, NULL, FOUNDING_ATTEMPT_MS,
					       on_answer, question);
	}
	if (founding->open == 0)
		round_end(founding);
}

struct founding *founding_open(const struct founding_options *options)
{
	struct founding *founding = mem_zero(1, sizeof(*founding));

	founding->options = *options;
	for (size_t i = 0; i < options->members->count; i++) {
		founding->questions[i].founding = founding;
		if (options->members->ids[i] != options->id)
			founding->questions[i].peer = rpc_peer_open(options->rpc, options->members->addresses[i]);
	}
	timer_init(&founding->timer, options->loop, round_begin, founding);
	timer_start(&founding->timer, 0);
	return founding;
}

void founding_close(struct founding *founding)
{
	if (!founding)
		return;
	timer_stop(&founding->timer);
	for (size_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
		struct question *question = &founding->questions[i];
		if (question->call)
			rpc_call_cancel(founding->options.rpc, question->call);
		if (question->peer)
			rpc_peer_close(question->peer);
	}
	free(founding);
}
