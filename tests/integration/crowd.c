/* Load for overload.py: many connections, or few with much outstanding, to the leading master or to one chunkserver.
 *
 *	crowd LEADER NAME meta|change|read CONNECTIONS OUTSTANDING SECONDS
 *
 * Each connection is a client of its own with a session. meta: Getattr; change: Setattr of the mode; read: 256 KiB of the file NAME in the
 * root directory, at the first replica of its first chunk. Prints "running" when all have begun, then what was seen as JSON; exits 0 if every connection was answered. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/proto/setattr.h"
#include "common/sys/log.h"
#include "common/sys/rpc.h"

#define SAMPLES_MAX 4000000u
#define CALL_TIMEOUT_MS 30000u
#define START_MS_MAX 30000u

enum what { ASK_META, ASK_CHANGE, ASK_READ };

struct crowd {
	struct loop *loop;
	const char *leader, *name;
	enum what what;
	unsigned connections, outstanding, ready;
	uint64_t end_us;
	bool running, ended;
	uint32_t *samples_us;
	size_t samples;
	uint64_t done, busy, errors;
	enum err last;
	struct member *members;
	unsigned running_calls;
};

struct ask {
	struct member *member;
	uint64_t sent_us;
	uint32_t slot;
	uint64_t sequence;
};

struct member {
	struct crowd *crowd;
	struct rpc *rpc;
	struct rpc_identity identity;
	struct rpc_peer *leader, *server;
	uint64_t session, inode, chunk, version, done;
	struct ask *asks;
};

static void ask_again(struct ask *ask);

static void finish(struct crowd *crowd)
{
	crowd->ended = true;
	if (crowd->running_calls == 0)
		loop_stop(crowd->loop);
}

static void answered(void *arg, const struct rpc_result *result)
{
	struct ask *ask = arg;
	struct member *member = ask->member;
	struct crowd *crowd = member->crowd;
	uint64_t now = loop_now_us(crowd->loop);
	crowd->running_calls--;
	if (result->err == OK) {
		crowd->done++;
		member->done++;
		if (crowd->samples < SAMPLES_MAX)
			crowd->samples_us[crowd->samples++] = (uint32_t)(now - ask->sent_us);
	} else if (result->err == ERR_BUSY) {
		crowd->busy++;
		ask->sequence -= crowd->what == ASK_CHANGE;
	} else {
		crowd->errors++;
		crowd->last = result->err;
	}
	if (now >= crowd->end_us || (result->err != OK && result->err != ERR_BUSY))
		finish(crowd);
	else
		ask_again(ask);
}

static void ask_meta(struct ask *ask)
{
	struct member *member = ask->member;
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaOp op = GRANARY__META_OP__INIT, *ops[1] = { &op };
	Granary__Getattr getattr = GRANARY__GETATTR__INIT;
	Granary__Setattr setattr = GRANARY__SETATTR__INIT;
	request.session = member->session;
	request.uncached = true;
	request.n_ops = 1;
	request.ops = ops;
	if (member->crowd->what == ASK_META) {
		op.op_case = GRANARY__META_OP__OP_GETATTR;
		op.getattr = &getattr;
		getattr.inode = member->inode;
	} else {
		op.op_case = GRANARY__META_OP__OP_SETATTR;
		op.setattr = &setattr;
		setattr.inode = member->inode;
		setattr.mask = SETATTR_MODE;
		setattr.mode = 0600;
		request.slot = ask->slot;
		request.sequence = ++ask->sequence;
	}
	rpc_peer_call(member->leader, MESSAGE_META, &request.base, NULL, CALL_TIMEOUT_MS, answered, ask);
}

static void ask_again(struct ask *ask)
{
	struct member *member = ask->member;
	Granary__ChunkRead read = GRANARY__CHUNK_READ__INIT;
	member->crowd->running_calls++;
	ask->sent_us = loop_now_us(member->crowd->loop);
	if (member->crowd->what != ASK_READ) {
		ask_meta(ask);
		return;
	}
	read.chunk = member->chunk;
	read.version = member->version;
	read.bytes = FRAME_DATA_BYTES_MAX;
	rpc_peer_call(member->server, MESSAGE_CHUNK_READ, &read.base, NULL, CALL_TIMEOUT_MS, answered, ask);
}

/* ---- the way up of each: session, where the file is */

static void member_ready(struct member *member)
{
	struct crowd *crowd = member->crowd;
	if (++crowd->ready < crowd->connections)
		return;
	/* All are there: now all begin. */
	crowd->running = true;
	crowd->end_us += loop_now_us(crowd->loop);
	puts("running");
	fflush(stdout);
	for (unsigned i = 0; i < crowd->connections; i++) {
		crowd->members[i].asks = mem_zero(crowd->outstanding, sizeof(struct ask));
		for (unsigned k = 0; k < crowd->outstanding; k++) {
			crowd->members[i].asks[k] = (struct ask){ .member = &crowd->members[i], .slot = k };
			ask_again(&crowd->members[i].asks[k]);
		}
	}
}

static void failed(struct crowd *crowd, const char *what, enum err err)
{
	fprintf(stderr, "crowd: %s: %s\n", what, err_name(err));
	exit(1);
	(void)crowd;
}

static void mapped(void *arg, const struct rpc_result *result)
{
	struct member *member = arg;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)result->reply;
	if (result->err != OK || reply->results[0]->n_chunks == 0)
		failed(member->crowd, "chunk map", result->err);
	const Granary__ChunkLocation *location = reply->results[0]->chunks[0];
	member->chunk = location->chunk;
	member->version = location->version;
	member->server = rpc_peer_open(member->rpc, location->replicas[0]->address);
	member_ready(member);
}

static void ask_one(struct member *member, Granary__MetaOp *op, rpc_done_fn *done)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	Granary__MetaOp *ops[1] = { op };
	request.session = member->session;
	request.uncached = true;
	request.n_ops = 1;
	request.ops = ops;
	rpc_peer_call(member->leader, MESSAGE_META, &request.base, NULL, CALL_TIMEOUT_MS, done, member);
}

static void found(void *arg, const struct rpc_result *result)
{
	struct member *member = arg;
	const Granary__MetaReply *reply = (const Granary__MetaReply *)result->reply;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__ChunkMap map = GRANARY__CHUNK_MAP__INIT;
	if (result->err != OK || reply->results[0]->error)
		failed(member->crowd, "look-up", result->err);
	member->inode = reply->results[0]->inode;
	if (member->crowd->what != ASK_READ) {
		member_ready(member);
		return;
	}
	map.inode = member->inode;
	map.count = 1;
	op.op_case = GRANARY__META_OP__OP_CHUNK_MAP;
	op.chunk_map = &map;
	ask_one(member, &op, mapped);
}

static void session_opened(void *arg, const struct rpc_result *result)
{
	struct member *member = arg;
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;
	if (result->err != OK)
		failed(member->crowd, "session", result->err);
	member->session = ((const Granary__SessionInfo *)result->reply)->session;
	lookup.parent = 1;
	lookup.name = message_borrow(slice_text(member->crowd->name));
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	ask_one(member, &op, found);
}

static void member_start(struct crowd *crowd, struct member *member)
{
	Granary__SessionOpen open = GRANARY__SESSION_OPEN__INIT;
	member->crowd = crowd;
	member->identity = (struct rpc_identity){ .role = RPC_CLIENT, .id = loop_random(crowd->loop) };
	check(rpc_open(crowd->loop, &member->identity, NULL, NULL, &member->rpc) == OK);
	member->leader = rpc_peer_open(member->rpc, crowd->leader);
	open.client = (char *)(uintptr_t)"crowd";
	rpc_peer_call(member->leader, MESSAGE_SESSION_OPEN, &open.base, NULL, CALL_TIMEOUT_MS, session_opened, member);
}

static int compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
	return (left > right) - (left < right);
}

static double sample_ms(const struct crowd *crowd, double share)
{
	return crowd->samples == 0 ? 0 : crowd->samples_us[(size_t)((double)(crowd->samples - 1) * share)] / 1000.0;
}

static int report(const struct crowd *crowd)
{
	uint64_t least = UINT64_MAX, most = 0;
	qsort(crowd->samples_us, crowd->samples, sizeof *crowd->samples_us, compare);
	for (unsigned i = 0; i < crowd->connections; i++) {
		least = crowd->members[i].done < least ? crowd->members[i].done : least;
		most = crowd->members[i].done > most ? crowd->members[i].done : most;
	}
	printf("{\"done\": %" PRIu64 ", \"busy\": %" PRIu64 ", \"errors\": %" PRIu64 ", \"error\": \"%s\", \"least\": %" PRIu64
	       ", \"most\": %" PRIu64 ", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
	       crowd->done, crowd->busy, crowd->errors, err_name(crowd->last), least, most, sample_ms(crowd, 0.5),
	       sample_ms(crowd, 0.99), sample_ms(crowd, 1.0));
	return crowd->errors == 0 && least > 0 ? 0 : 1;
}

static void on_start_late(void *arg)
{
	struct crowd *crowd = arg;
	if (!crowd->running)
		failed(crowd, "not all got a session", ERR_TIMEOUT);
}

int main(int argc, char **argv)
{
	struct crowd crowd = { 0 };
	struct timer start = { 0 };
	if (argc != 7) {
		fprintf(stderr, "usage: crowd LEADER NAME meta|change|read CONNECTIONS OUTSTANDING SECONDS\n");
		return 2;
	}
	log_setup("crowd", LOG_ERROR, LOG_TEXT);
	crowd.leader = argv[1];
	crowd.name = argv[2];
	crowd.what = strcmp(argv[3], "meta") == 0 ? ASK_META : strcmp(argv[3], "change") == 0 ? ASK_CHANGE : ASK_READ;
	crowd.connections = (unsigned)strtoul(argv[4], NULL, 10);
	crowd.outstanding = (unsigned)strtoul(argv[5], NULL, 10);
	crowd.end_us = strtoull(argv[6], NULL, 10) * 1000000;
	check(loop_open(&crowd.loop) == OK);
	crowd.samples_us = mem_alloc(SAMPLES_MAX * sizeof *crowd.samples_us);
	crowd.members = mem_zero(crowd.connections, sizeof *crowd.members);
	timer_init(&start, crowd.loop, on_start_late, &crowd);
	timer_start(&start, START_MS_MAX);
	for (unsigned i = 0; i < crowd.connections; i++)
		member_start(&crowd, &crowd.members[i]);
	loop_run(crowd.loop);
	timer_stop(&start);
	return report(&crowd);
}
