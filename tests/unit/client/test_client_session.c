/* The session against masters that follow a script: what is sent again, with which slot and sequence, and to whom. */
#include <utlist.h>

#include "tests/unit/client/client_fixture.h"

#define MASTERS 3
#define NOTES_MAX 4096

enum behaviour { LEADS, FOLLOWS, SILENT, FORGETS, CLOSES };

struct note {
	unsigned master;
	uint64_t session, sequence;
	uint32_t slot;
};

struct held {
	struct held *next;
	struct rpc_request *request;
};

struct master {
	struct script *script;
	struct rpc *rpc;
	enum behaviour behaviour;
	struct held *held;
};

/* What the masters saw. */
struct script {
	struct loop *loop;
	struct master masters[MASTERS];
	unsigned leader;
	uint64_t session; /* last one given out */
	uint64_t term;
	struct note notes[NOTES_MAX];
	size_t note_count;
	bool hold; /* changes wait */
	uint64_t keepalives, opened, closed;
	bool full;
	bool lost;
};

static void note_lost(void *arg)
{
	((struct script *)arg)->lost = true;
}

static const struct client_events events = {.session_lost = note_lost};

static void answer(struct rpc_request *request)
{
	const Granary__MetaRequest *message = (const Granary__MetaRequest *)request->message;
	Granary__MetaReply reply = GRANARY__META_REPLY__INIT;
	Granary__MetaResult result = GRANARY__META_RESULT__INIT;
	Granary__MetaResult *results[] = {&result};
	result.inode = message->sequence;
	reply.n_results = 1;
	reply.results = results;
	rpc_reply(request, &reply.base);
}

static void serve_meta(struct master *master, struct rpc_request *request)
{
	struct script *script = master->script;
	const Granary__MetaRequest *message = (const Granary__MetaRequest *)request->message;
	assert_true(script->note_count < NOTES_MAX);
	script->notes[script->note_count++] =
	    (struct note){(unsigned)(master - script->masters), message->session, message->sequence, message->slot};
	if (script->hold && message->sequence != 0) {
		struct held *held = mem_zero(1, sizeof *held);
		held->request = request;
		LL_APPEND(master->held, held);
	} else if (message->session != script->session)
		rpc_reply_error(request, ERR_NO_SESSION, NULL);
	else
		answer(request);
}

static void serve_leader(struct master *master, struct rpc_request *request)
{
	struct script *script = master->script;
	Granary__SessionInfo info = GRANARY__SESSION_INFO__INIT;
	if (request->type == MESSAGE_META) {
		serve_meta(master, request);
		return;
	}
	info.session = request->type == MESSAGE_SESSION_OPEN ? ++script->session : script->session;
	info.term = script->term;
	if (request->type == MESSAGE_SESSION_KEEPALIVE) {
		const Granary__SessionKeepalive *message = (const Granary__SessionKeepalive *)request->message;
		if (message->session != script->session) {
			rpc_reply_error(request, ERR_NO_SESSION, NULL);
			return;
		}
		script->keepalives++;
		script->full = message->full;
		script->opened += message->n_opened;
		script->closed += message->n_closed;
		info.send_full = !message->full && message->term != script->term;
	}
	rpc_reply(request, &info.base);
}

static void serve(void *arg, struct rpc_request *request)
{
	struct master *master = arg;
	struct script *script = master->script;
	switch (master->behaviour) {
	case LEADS:
		serve_leader(master, request);
		break;
	case FOLLOWS:
		rpc_reply_error(request, ERR_NOT_LEADER, rpc_address(script->masters[script->leader].rpc));
		break;
	case FORGETS:
		rpc_reply_error(request, ERR_NOT_LEADER, "");
		break;
	default: {
		struct held *held = mem_zero(1, sizeof *held);
		held->request = request;
		LL_APPEND(master->held, held);
	}
	}
}

static const struct rpc_service service = {.serve = serve};

static void release(struct master *master)
{
	struct held *held, *next;
	LL_FOREACH_SAFE(master->held, held, next)
	{
		LL_DELETE(master->held, held);
		if (held->request->type == MESSAGE_META)
			answer(held->request);
		else
			rpc_reply_error(held->request, ERR_CANCELLED, NULL);
		free(held);
	}
}

static void script_open(struct script *script, struct client **client, uint64_t timeout_ms)
{
	struct buf cluster = {0};
	*script = (struct script){.term = 1};
	assert_int_equal(loop_open(&script->loop), OK);
	for (unsigned i = 0; i < MASTERS; i++) {
		struct master *master = &script->masters[i];
		struct rpc_identity identity = {.role = RPC_MASTER, .id = i + 1};
		master->script = script;
		master->behaviour = i == 0 ? LEADS : FOLLOWS;
		assert_int_equal(rpc_open(script->loop, &identity, &service, master, &master->rpc), OK);
		assert_int_equal(rpc_listen(master->rpc, "127.0.0.1:0"), OK);
		buf_printf(&cluster, "%s%s", i ? "," : "", rpc_address(master->rpc));
	}
	buf_append(&cluster, "", 1);
	struct client_options options = {
	    .cluster = (const char *)cluster.bytes, .timeout_ms = timeout_ms, .events = &events, .events_arg = script};
	assert_int_equal(client_open(script->loop, &options, client), OK);
	buf_deinit(&cluster);
}

static void script_close(struct script *script, struct client *client)
{
	client_close(client);
	for (unsigned i = 0; i < MASTERS; i++)
		if (script->masters[i].rpc) {
			release(&script->masters[i]);
			rpc_close(script->masters[i].rpc);
		}
	loop_close(script->loop);
}

static void lead(struct script *script, unsigned leader, enum behaviour old)
{
	script->masters[script->leader].behaviour = old;
	script->masters[leader].behaviour = LEADS;
	script->leader = leader;
	script->term++;
}

struct result {
	unsigned count;
	enum err err;
	uint64_t sequence;
};

static void result_done(void *arg, enum err err, const Granary__MetaReply *reply)
{
	struct result *result = arg;
	result->count++;
	result->err = err;
	result->sequence = reply ? reply->results[0]->inode : 0;
}

static void ask(struct client *client, bool change, struct result *result)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Unlink unlink = GRANARY__UNLINK__INIT;
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	op.op_case = change ? GRANARY__META_OP__OP_UNLINK : GRANARY__META_OP__OP_GETATTR;
	if (change)
		op.unlink = &unlink;
	else
		op.getattr = &getattr;
	client_meta(client, (Granary__MetaOp *[]){&op}, 1, result_done, result);
}

static void run_until(struct script *script, const unsigned *count, unsigned wanted)
{
	uint64_t start = loop_now_us(script->loop);
	while (*count < wanted) {
		loop_run_once(script->loop);
		assert_true(loop_now_us(script->loop) - start < 10000000);
	}
	assert_int_equal(*count, wanted);
}

static void test_leader_is_found_and_followed(void **state)
{
	struct script script;
	struct client *client;
	struct result result = {0};
	(void)state;
	script_open(&script, &client, 5000);
	ask(client, false, &result);
	run_until(&script, &result.count, 1);
	assert_int_equal(result.err, OK);
	assert_int_equal(client_state(client), OK);
	for (unsigned i = 1; i <= 6; i++) {
		lead(&script, i % MASTERS, i % 2 ? FOLLOWS : FORGETS);
		ask(client, i % 2, &result);
		run_until(&script, &result.count, i + 1);
		assert_int_equal(result.err, OK);
		for (unsigned j = 0; j < MASTERS; j++)
			if (j != script.leader)
				script.masters[j].behaviour = FOLLOWS;
	}
	/* One session through all of it. */
	assert_int_equal(script.session, 1);
	script_close(&script, client);
}

static void test_a_repeated_change_keeps_slot_and_sequence(void **state)
{
	struct script script;
	struct client *client;
	struct result result = {0};
	(void)state;
	script_open(&script, &client, 8000);
	ask(client, true, &result);
	run_until(&script, &result.count, 1);
	assert_int_equal(result.sequence, 1);
	script.hold = true;
	script.note_count = 0;
	ask(client, true, &result);
	uint64_t start = loop_now_us(script.loop);
	while (script.note_count == 0)
		loop_run_once(script.loop);
	/* The leader hangs; another one leads. */
	lead(&script, 1, SILENT);
	script.hold = false;
	run_until(&script, &result.count, 2);
	assert_int_equal(result.err, OK);
	assert_in_range((loop_now_us(script.loop) - start) / 1000, CLIENT_ATTEMPT_MS - 10, 2 * CLIENT_ATTEMPT_MS);
	assert_int_equal(script.note_count, 2);
	assert_int_equal(script.notes[0].slot, script.notes[1].slot);
	assert_int_equal(script.notes[0].sequence, script.notes[1].sequence);
	assert_int_equal(script.notes[1].master, 1);
	assert_int_equal(result.sequence, 2);
	script_close(&script, client);
}

static void test_more_changes_than_slots_wait(void **state)
{
	struct script script;
	struct client *client;
	struct result warm = {0}, result = {0}, query = {0};
	bool used[SESSION_SLOTS] = {false};
	(void)state;
	script_open(&script, &client, 5000);
	ask(client, false, &warm);
	run_until(&script, &warm.count, 1);
	script.note_count = 0;
	script.hold = true;
	for (unsigned i = 0; i < SESSION_SLOTS + 10; i++)
		ask(client, true, &result);
	ask(client, false, &query);
	run_until(&script, &query.count, 1); /* queries need no slot */
	assert_int_equal(script.note_count, SESSION_SLOTS + 1);
	for (unsigned i = 0; i < SESSION_SLOTS; i++) {
		assert_false(used[script.notes[i].slot]);
		used[script.notes[i].slot] = true;
		assert_int_equal(script.notes[i].sequence, 1);
	}
	script.hold = false;
	release(&script.masters[0]);
	run_until(&script, &result.count, SESSION_SLOTS + 10);
	for (unsigned i = SESSION_SLOTS + 1; i < script.note_count; i++)
		assert_int_equal(script.notes[i].sequence, 2);
	script_close(&script, client);
}

static void test_nobody_answers(void **state)
{
	struct script script;
	struct client *client;
	struct result result = {0}, change = {0};
	(void)state;
	script_open(&script, &client, 1500);
	for (unsigned i = 0; i < MASTERS; i++)
		script.masters[i].behaviour = FORGETS;
	ask(client, false, &result);
	ask(client, true, &change);
	run_until(&script, &change.count, 1);
	assert_int_equal(result.err, ERR_NO_LEADER);
	assert_int_equal(change.err, ERR_NO_LEADER);
	for (unsigned i = 0; i < MASTERS; i++) {
		rpc_close(script.masters[i].rpc);
		script.masters[i].rpc = NULL;
	}
	ask(client, false, &result);
	run_until(&script, &result.count, 2);
	assert_int_equal(result.err, ERR_UNREACHABLE);
	script_close(&script, client);
}

/* A change that timed out is repeated until its fate is known; the slot is not used for another one before. */
static void test_a_change_given_up_keeps_its_slot(void **state)
{
	struct script script;
	struct client *client;
	struct result warm = {0}, result = {0}, later = {0};
	(void)state;
	script_open(&script, &client, 600);
	ask(client, false, &warm);
	run_until(&script, &warm.count, 1);
	script.note_count = 0;
	script.hold = true;
	ask(client, true, &result);
	run_until(&script, &result.count, 1);
	assert_int_equal(result.err, ERR_TIMEOUT);
	uint32_t slot = script.notes[0].slot;
	script.hold = false;
	ask(client, true, &later);
	run_until(&script, &later.count, 1);
	assert_int_equal(later.err, OK);
	bool repeated = false;
	uint64_t start = loop_now_us(script.loop);
	while (!repeated) {
		loop_run_once(script.loop);
		assert_true(loop_now_us(script.loop) - start < 5000000);
		for (size_t i = 1; i < script.note_count; i++)
			repeated |= script.notes[i].slot == slot && script.notes[i].sequence == 1;
	}
	assert_int_equal(result.count, 1);
	script_close(&script, client);
}

static void test_an_expired_session(void **state)
{
	struct script script;
	struct client *client;
	struct result result = {0};
	(void)state;
	script_open(&script, &client, 5000);
	ask(client, true, &result);
	run_until(&script, &result.count, 1);
	script.session++; /* the master has forgotten it */
	ask(client, true, &result);
	run_until(&script, &result.count, 2);
	assert_true(script.lost);
	assert_int_equal(result.err, OK); /* it was never done: in the next session */
	assert_int_equal(result.sequence, 1);
	assert_int_equal(script.session, 3);
	assert_int_equal(client_session(client), 3);
	script_close(&script, client);
}

static void test_open_files_are_told(void **state)
{
	struct script script;
	struct client *client;
	struct result result = {0};
	(void)state;
	script_open(&script, &client, 5000);
	ask(client, false, &result);
	run_until(&script, &result.count, 1);
	client_note_opened(client, 7);
	client_note_opened(client, 7);
	client_note_opened(client, 8);
	uint64_t start = loop_now_us(script.loop);
	while (script.opened < 2)
		loop_run_once(script.loop);
	assert_in_range((loop_now_us(script.loop) - start) / 1000, 0, 2 * CLIENT_OPENED_MS);
	assert_int_equal(script.opened, 2);
	/* Another leader is told of all of them, at once. */
	lead(&script, 2, FOLLOWS);
	script.opened = 0;
	script.full = false;
	ask(client, false, &result);
	run_until(&script, &result.count, 2);
	start = loop_now_us(script.loop);
	while (!script.full)
		loop_run_once(script.loop);
	assert_in_range((loop_now_us(script.loop) - start) / 1000, 0, 500);
	assert_int_equal(script.opened, 2);
	client_note_closed(client, 7);
	client_note_closed(client, 7);
	while (script.closed < 1) {
		loop_run_once(script.loop);
		assert_true(loop_now_us(script.loop) - start < 10000000);
	}
	assert_int_equal(script.closed, 1);
	script_close(&script, client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_leader_is_found_and_followed),
	    cmocka_unit_test(test_a_repeated_change_keeps_slot_and_sequence),
	    cmocka_unit_test(test_more_changes_than_slots_wait),
	    cmocka_unit_test(test_nobody_answers),
	    cmocka_unit_test(test_a_change_given_up_keeps_its_slot),
	    cmocka_unit_test(test_an_expired_session),
	    cmocka_unit_test(test_open_files_are_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
