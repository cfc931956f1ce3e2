/* Real granary-master processes on loopback, and a client on the bare rpc. Header only, since each test is a program
 * of one file. Everything waits for a condition with a deadline. */
#ifndef GRANARY_TESTS_UNIT_MASTER_MASTER_FIXTURE_H
#define GRANARY_TESTS_UNIT_MASTER_MASTER_FIXTURE_H

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/sys/rpc.h"

#define FIXTURE_MASTERS 3
#define FIXTURE_DEADLINE_MS 20000u

struct fixture {
	struct loop *loop;
	char directory[64];
	char program[512];
	char addresses[FIXTURE_MASTERS][32];
	char members[160];
	pid_t pids[FIXTURE_MASTERS];
	struct rpc *rpc;
	struct rpc_peer *peers[FIXTURE_MASTERS];
	int leader; /* tried first */
};

/* A call and its answer. */
struct answer {
	bool done;
	enum err err;
	ProtobufCMessage *reply;
	char text[64];
};

static inline int fixture_free_port(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(descriptor >= 0);
	assert_int_equal(bind(descriptor, (struct sockaddr *)&address, size), 0);
	assert_int_equal(getsockname(descriptor, (struct sockaddr *)&address, &size), 0);
	close(descriptor);
	return ntohs(address.sin_port);
}

static inline void fixture_start(struct fixture *fixture, int i)
{
	char id[16], data[96], log[112];
	snprintf(id, sizeof(id), "%d", i + 1);
	snprintf(data, sizeof(data), "%s/master%d", fixture->directory, i + 1);
	snprintf(log, sizeof(log), "%s/master%d.log", fixture->directory, i + 1);
	pid_t parent = getpid();
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int descriptor = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
		if (getppid() != parent || descriptor < 0 || dup2(descriptor, 2) < 0)
			_exit(127);
		execl(fixture->program, "granary-master", "--data", data, "--listen", fixture->addresses[i], "--id", id,
		      "--members", fixture->members, (char *)NULL);
		_exit(127);
	}
	fixture->pids[i] = pid;
}

/* The exit status, or minus the signal. */
static inline int fixture_stop(struct fixture *fixture, int i, int number)
{
	int status = 0;

	kill(fixture->pids[i], number);
	assert_int_equal(waitpid(fixture->pids[i], &status, 0), fixture->pids[i]);
	fixture->pids[i] = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline void fixture_wake(void *arg)
{
	(void)arg;
}

/* Runs the loop until *done. */
static inline void fixture_wait(struct fixture *fixture, const bool *done)
{
	struct timer wake;
	uint64_t until_us = loop_now_us(fixture->loop) + FIXTURE_DEADLINE_MS * 1000ull;

	timer_init(&wake, fixture->loop, fixture_wake, NULL);
	while (!*done && loop_now_us(fixture->loop) < until_us) {
		timer_start(&wake, 10);
		loop_run_once(fixture->loop);
	}
	timer_stop(&wake);
	assert_true(*done);
}

/* Runs the loop for a time in which something is not to happen, or until *done. */
static inline void fixture_run(struct fixture *fixture, uint64_t ms, const bool *done)
{
	struct timer wake;
	uint64_t until_us = loop_now_us(fixture->loop) + ms * 1000;

	timer_init(&wake, fixture->loop, fixture_wake, NULL);
	while (!(done && *done) && loop_now_us(fixture->loop) < until_us) {
		timer_start(&wake, 5);
		loop_run_once(fixture->loop);
	}
	timer_stop(&wake);
}

static inline void fixture_open(struct fixture *fixture, const struct rpc_service *service, void *arg)
{
	static const struct rpc_identity identity = { .role = RPC_CLIENT, .id = 77 };

	*fixture = (struct fixture){ 0 };
	assert_int_equal(loop_open(&fixture->loop), OK);
	snprintf(fixture->directory, sizeof(fixture->directory), "%s/granary-test-XXXXXX", "/tmp");
	assert_non_null(mkdtemp(fixture->directory));
	ssize_t size = readlink("/proc/self/exe", fixture->program, sizeof(fixture->program) - 32);
	assert_true(size > 0);
	fixture->program[size] = 0;
	memcpy(strrchr(fixture->program, '/'), "/granary-master", sizeof("/granary-master"));
	size_t at = 0;
	for (int i = 0; i < FIXTURE_MASTERS; i++) {
		snprintf(fixture->addresses[i], sizeof(fixture->addresses[i]), "127.0.0.1:%d", fixture_free_port());
		at += (size_t)snprintf(fixture->members + at, sizeof(fixture->members) - at, "%s%d=%s", i ? "," : "", i + 1,
				       fixture->addresses[i]);
	}
	assert_int_equal(rpc_open(fixture->loop, &identity, service, arg, &fixture->rpc), OK);
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		fixture->peers[i] = rpc_peer_open(fixture->rpc, fixture->addresses[i]);
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		fixture_start(fixture, i);
}

static inline void fixture_close(struct fixture *fixture)
{
	char *const remove[] = { "rm", "-rf", fixture->directory, NULL };

	for (int i = 0; i < FIXTURE_MASTERS; i++) {
		if (fixture->pids[i])
			fixture_stop(fixture, i, SIGKILL);
	}
	for (int i = 0; i < FIXTURE_MASTERS; i++)
		rpc_peer_close(fixture->peers[i]);
	rpc_close(fixture->rpc);
	loop_close(fixture->loop);
	pid_t pid = fork();
	if (pid == 0) {
		execvp("rm", remove);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static inline void fixture_answered(void *arg, const struct rpc_result *result)
{
	struct answer *answer = arg;

	answer->done = true;
	answer->err = result->err;
	answer->reply = result->reply ? message_copy(result->reply) : NULL;
	snprintf(answer->text, sizeof(answer->text), "%s", result->text ? result->text : "");
}

static inline bool fixture_is_retried(enum err err)
{
	return err == ERR_NOT_LEADER || err == ERR_NO_LEADER || err == ERR_CLOSED || err == ERR_UNREACHABLE ||
	       err == ERR_TIMEOUT || err == ERR_BUSY;
}

/* Asks the leader, whoever it is, until it answers; *err gets other errors than those of finding it. */
static inline ProtobufCMessage *fixture_call(struct fixture *fixture, enum message_type type, const ProtobufCMessage *message,
					     enum err *err)
{
	uint64_t until_us = loop_now_us(fixture->loop) + FIXTURE_DEADLINE_MS * 1000ull;

	while (loop_now_us(fixture->loop) < until_us) {
		struct answer answer = { 0 };
		rpc_peer_call(fixture->peers[fixture->leader], type, message, NULL, 3000, fixture_answered, &answer);
		fixture_wait(fixture, &answer.done);
		if (!fixture_is_retried(answer.err)) {
			*err = answer.err;
			return answer.reply;
		}
		fixture->leader = (fixture->leader + 1) % FIXTURE_MASTERS;
		for (int i = 0; i < FIXTURE_MASTERS; i++) {
			if (strcmp(answer.text, fixture->addresses[i]) == 0)
				fixture->leader = i;
		}
		fixture_run(fixture, 10, NULL);
	}
	fail_msg("no leader answers");
	return NULL;
}

static inline uint64_t fixture_session(struct fixture *fixture)
{
	Granary__SessionOpen message = GRANARY__SESSION_OPEN__INIT;
	enum err err;

	message.client = "test:1";
	Granary__SessionInfo *info =
		(Granary__SessionInfo *)fixture_call(fixture, MESSAGE_SESSION_OPEN, &message.base, &err);
	assert_int_equal(err, OK);
	assert_int_not_equal(info->session, 0);
	assert_int_not_equal(info->cluster, 0);
	uint64_t session = info->session;
	message_free(&info->base);
	return session;
}

/* The error of changing a setting of the cluster. */
static inline enum err fixture_set(struct fixture *fixture, const char *key, uint64_t value)
{
	Granary__SettingsRequest message = GRANARY__SETTINGS_REQUEST__INIT;
	enum err err;

	message.key = (char *)(uintptr_t)key;
	message.value = value;
	message_free(fixture_call(fixture, MESSAGE_SETTINGS, &message.base, &err));
	return err;
}

/* One operation; sequence 0 for a query. The result is freed with fixture_free. */
static inline Granary__MetaReply *fixture_meta(struct fixture *fixture, uint64_t session, uint64_t sequence, Granary__MetaOp *op)
{
	Granary__MetaRequest request = GRANARY__META_REQUEST__INIT;
	enum err err;

	request.session = session;
	request.sequence = sequence;
	request.n_ops = 1;
	request.ops = &op;
	Granary__MetaReply *reply = (Granary__MetaReply *)fixture_call(fixture, MESSAGE_META, &request.base, &err);
	assert_int_equal(err, OK);
	assert_int_equal(reply->n_results, 1);
	return reply;
}

static inline ProtobufCBinaryData fixture_name(const char *name)
{
	return message_borrow(slice_text(name));
}

/* The error of making a directory or file under the root; *inode may be NULL. */
static inline enum err fixture_create(struct fixture *fixture, uint64_t session, uint64_t sequence, const char *name,
				      uint32_t mode, uint64_t *inode)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Create create = GRANARY__CREATE__INIT;

	create.parent = 1;
	create.name = fixture_name(name);
	create.mode = mode;
	create.exclusive = true;
	op.op_case = GRANARY__META_OP__OP_CREATE;
	op.create = &create;
	Granary__MetaReply *reply = fixture_meta(fixture, session, sequence, &op);
	enum err err = (enum err)reply->results[0]->error;
	if (inode)
		*inode = reply->results[0]->inode;
	message_free(&reply->base);
	return err;
}

static inline enum err fixture_lookup(struct fixture *fixture, uint64_t session, const char *name, uint64_t *inode,
				      uint32_t *lease_ms)
{
	Granary__MetaOp op = GRANARY__META_OP__INIT;
	Granary__Lookup lookup = GRANARY__LOOKUP__INIT;

	lookup.parent = 1;
	lookup.name = fixture_name(name);
	op.op_case = GRANARY__META_OP__OP_LOOKUP;
	op.lookup = &lookup;
	Granary__MetaReply *reply = fixture_meta(fixture, session, 0, &op);
	enum err err = (enum err)reply->results[0]->error;
	if (inode)
		*inode = reply->results[0]->inode;
	if (lease_ms)
		*lease_ms = reply->results[0]->lease_ms;
	message_free(&reply->base);
	return err;
}

static inline Granary__ClusterStatus *fixture_status(struct fixture *fixture)
{
	Granary__ClusterStatusRequest message = GRANARY__CLUSTER_STATUS_REQUEST__INIT;
	enum err err;

	message.servers = true;
	Granary__ClusterStatus *status =
		(Granary__ClusterStatus *)fixture_call(fixture, MESSAGE_CLUSTER_STATUS, &message.base, &err);
	assert_int_equal(err, OK);
	return status;
}

#endif
